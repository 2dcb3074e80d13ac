//! The services as separate processes, on loopback.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::config::{ClusterConfig, Config};
use proto::messages::status::LearnerStatus;
use proto::transport::channel::{Channel, learner_client};
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::learner_client::LearnerClient;
use serde_json::Value;

use crate::process::{Bench, json_lines, wait_for};

/// Timeout for steps that only a slow machine takes long for.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Attempts on ports that were free a moment ago and are taken now.
const CLASHES: usize = 5;

pub const CONFIG: &str = r#"
data.train_images = "data/train/images.txt"
data.train_landmarks = "data/train/landmarks.txt"
data.validation_images = "data/validation/images.txt"
data.validation_landmarks = "data/validation/landmarks.txt"
data.landmarks = ["0", "base_ball"]
rules.window_size = 12
rules.scales = [[2, 3], [1, 1]]
rules.max_steps = 30
replay.min_rows = 400
replay.error_buffer = 200
replay.samples_per_insert = 5.0
actor.slots = 4
actor.start_near_radius = [8.0, 4.0]
actor.batch_rows = 16
actor.batch_wait_ms = 20
learner.device = "cpu"
learner.threads = 1
learner.batch = 16
learner.prefetch = 4
learner.publish_period = 5
learner.updates = 1000000
"#;

/// A process that is killed when dropped.
pub struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts a binary from the folder of `landmarl`; its output goes to `name`.log.
    pub fn start(bench: &Bench, binary: &str, name: &str, line: &str) -> Self {
        let path = Path::new(env!("CARGO_BIN_EXE_landmarl")).with_file_name(binary);
        assert!(
            path.is_file(),
            "{} is missing: run `cargo build --workspace --bins` first",
            path.display()
        );
        let log = bench.path(&format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let mut command = Command::new(path);
        for (key, value) in bench.command("").get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        let child = command
            .args(line.split_whitespace())
            .current_dir(bench.dir.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// All its output.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Its error messages: lines that begin with `error: `.
    pub fn errors(&self) -> Vec<String> {
        let log = self.log();
        let errors = log.lines().filter(|l| l.starts_with("error: "));
        errors.map(str::to_owned).collect()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        signal(&self.child, "TERM");
    }

    /// Waits for its end; returns its exit code.
    pub fn ended(&mut self, within: Duration) -> Option<i32> {
        wait_for("the end of the process", within, || {
            let ended = self.child.try_wait().unwrap();
            ended.map(|status| status.code()).ok_or_else(|| self.log())
        })
    }

    /// Waits for its end; expects success.
    pub fn succeeds(&mut self) {
        assert_eq!(self.ended(PATIENCE), Some(0), "{}", self.log());
    }

    /// SIGTERM; expects success.
    pub fn stop(&mut self) {
        self.terminate();
        self.succeeds();
    }

    /// Waits until its log contains these words; false if its port was taken.
    pub fn listens(&mut self, words: &str) -> bool {
        wait_for(words, PATIENCE, || {
            if self.log().contains(words) {
                return Ok(true);
            }
            let running = self.is_running();
            let log = self.log();
            assert!(running || log.contains("the port is in use"), "{log}");
            if running { Err(log) } else { Ok(false) }
        })
    }
}

/// Sends a signal to a process.
pub fn signal(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &pid])
        .status();
    assert!(sent.unwrap().success());
}

/// Runs a sub-command of a service to its end: exit code and output.
pub fn ask(bench: &Bench, binary: &str, line: &str) -> (Option<i32>, String) {
    let mut asked = Service::start(bench, binary, "asked", line);
    (asked.ended(PATIENCE), asked.log())
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on which nothing listens at this moment.
pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The security settings of a process with this role.
pub fn certificates(role: Role) -> String {
    format!(
        "--set cluster.ca=certs/ca.pem --set cluster.cert=certs/{role}.pem \
         --set cluster.key=certs/{role}.key --set cluster.token_file=certs/token"
    )
}

/// Shards and a learner; the test starts and stops actors.
pub struct Cluster {
    pub learner: Service,
    pub address: String,
    pub shards: Vec<Service>,
    pub addresses: Vec<String>,
    /// Arguments of every shard.
    serve: String,
    more: String,
    secured: bool,
    actors: usize,
    /// The last field: the processes in it are killed before the folder is removed.
    pub bench: Bench,
}

impl Cluster {
    /// Starts shards of `capacity` rows each, and a learner with additional settings.
    pub fn start(shards: usize, capacity: usize, more: &str) -> Self {
        Self::start_with(shards, format!("--capacity {capacity}"), more, false)
    }

    /// Starts them with shards that keep their rows.
    pub fn start_keeping(shards: usize, capacity: usize, more: &str) -> Self {
        let serve = format!("--capacity {capacity} --journal kept-SHARD");
        Self::start_with(shards, serve, more, false)
    }

    /// Starts one shard and a learner with TLS.
    pub fn start_secured() -> Self {
        let [replay, learner] = [Role::Replay, Role::Learner].map(certificates);
        let serve = format!("--capacity 2000 --journal kept {replay}");
        Self::start_with(
            1,
            serve,
            &format!("--set cluster.lease_s=2 {learner}"),
            true,
        )
    }

    fn start_with(shards: usize, serve: String, more: &str, secured: bool) -> Self {
        let bench = Bench::new();
        bench.write("cluster.toml", CONFIG);
        bench.phantoms();
        if secured {
            bench.succeed("certs --out certs");
        }
        let (addresses, shards): (Vec<_>, Vec<_>) = (0..shards)
            .map(|number| {
                let (address, shard) = at_free_address(|address| {
                    let shard = start_shard(&bench, number, &serve, address);
                    (shard, "replay shard listens")
                });
                (address, shard)
            })
            .unzip();
        let (address, learner) = at_free_address(|address| {
            let line = learner_line(address, &addresses, more);
            let learner = Service::start(&bench, "learner", "learner", &line);
            (learner, "dataset loaded")
        });
        Self {
            learner,
            address,
            shards,
            addresses,
            serve,
            more: more.to_owned(),
            secured,
            actors: 0,
            bench,
        }
    }

    /// Starts an actor with additional arguments.
    pub fn actor(&mut self, more: &str) -> Service {
        self.actors += 1;
        let line = format!(
            "run --config cluster.toml --learner {} {more}",
            self.address
        );
        let name = format!("actor-{}", self.actors);
        Service::start(&self.bench, "actor", &name, &line)
    }

    /// Starts an evaluator of one start per landmark.
    pub fn evaluator(&self, period: u64) -> Service {
        let line = format!(
            "evaluate --config cluster.toml --learner {} --set validation.period={period} \
             --set validation.starts=1",
            self.address
        );
        Service::start(&self.bench, "actor", "evaluator", &line)
    }

    /// Restarts a shard at its address, with the rows it kept.
    pub fn restart_shard(&mut self, number: usize) {
        for _ in 0..CLASHES {
            let mut shard = start_shard(&self.bench, number, &self.serve, &self.addresses[number]);
            if shard.listens("replay shard listens") {
                self.shards[number] = shard;
                return;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        panic!("{} stays in use", self.addresses[number]);
    }

    /// Restarts the learner at its address, from its last checkpoint.
    pub fn resume(&mut self) {
        let line = learner_line(&self.address, &self.addresses, &self.more) + " --resume auto";
        self.learner = Service::start(&self.bench, "learner", "resumed", &line);
        assert!(self.learner.listens("resumed"), "{}", self.learner.log());
    }

    /// Calls the learner with this role.
    pub fn call<T, F: Future<Output = T>>(
        &self,
        role: Role,
        request: impl FnOnce(LearnerClient<Channel>) -> F,
    ) -> T {
        let security = if self.secured {
            self.security(role)
        } else {
            Security::none()
        };
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let channel = security.connect(&self.address, Role::Learner);
            request(learner_client(channel.unwrap())).await
        })
    }

    fn security(&self, role: Role) -> Security {
        let certs = self.bench.path("certs").display().to_string();
        let cluster = ClusterConfig {
            ca: format!("{certs}/ca.pem"),
            cert: format!("{certs}/{role}.pem"),
            key: format!("{certs}/{role}.key"),
            token_file: format!("{certs}/token"),
            ..Config::defaults().unwrap().cluster
        };
        Security::from_config(&cluster).unwrap()
    }

    /// The learner's status, if it responds.
    pub fn status(&self) -> Option<LearnerStatus> {
        self.call(Role::Operator, |mut client| async move {
            let ask = |request| async move { client.status(request).await };
            let reply = unary(wire::LearnerStatusRequest::default(), CALL_DEADLINE, ask).await;
            reply.ok()
        })
    }

    /// Waits until the learner's status satisfies the condition.
    pub fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&LearnerStatus) -> bool,
    ) -> LearnerStatus {
        wait_for(what, within, || {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|s| wanted(s)) {
                return Ok(status.clone());
            }
            let running = self.learner.is_running();
            let state = format!("{status:#?}\n{}", self.learner.log());
            assert!(running, "the learner ended before {what}: {state}");
            Err(state)
        })
    }

    /// Waits for this many more updates.
    pub fn more_updates(&mut self, updates: u64, within: Duration) -> LearnerStatus {
        let begin = self.until("a response", within, |_| true).updates;
        self.until(&format!("{updates} updates after {begin}"), within, |s| {
            s.updates >= begin + updates
        })
    }

    /// The lines of metrics.jsonl.
    pub fn metrics(&self) -> Vec<Value> {
        json_lines(&self.bench.path("runs/cluster/metrics.jsonl"))
    }
}

/// Starts a service at one address after another until it can listen there.
pub fn at_free_address(
    mut start: impl FnMut(&str) -> (Service, &'static str),
) -> (String, Service) {
    for _ in 0..CLASHES {
        let address = free_address();
        let (mut service, words) = start(&address);
        if service.listens(words) {
            return (address, service);
        }
    }
    panic!("no port stays free for a moment");
}

fn start_shard(bench: &Bench, number: usize, serve: &str, address: &str) -> Service {
    let own = serve.replace("SHARD", &number.to_string());
    let line = format!("serve --listen {address} --shard {number} {own}");
    Service::start(bench, "replay-server", &format!("shard-{number}"), &line)
}

fn learner_line(address: &str, shards: &[String], more: &str) -> String {
    let shards = shards.join("\",\"");
    format!(
        "run --config cluster.toml --run-dir runs/cluster --set cluster.learner={address} \
         --set cluster.shards=[\"{shards}\"] {more}"
    )
}
