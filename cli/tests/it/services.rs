//! The services as separate processes, on loopback.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::messages::status::LearnerStatus;
use proto::transport::channel;
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::wire;

use crate::process::Bench;

/// Timeout for the start of a service on a busy machine.
const START: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
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
    pub fn die(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end; returns its exit code.
    pub fn ended(&mut self, within: Duration) -> Option<i32> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begin.elapsed() < within, "does not end:\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until its log contains these words; false if its port was taken.
    pub fn listens(&mut self, words: &str) -> bool {
        let begin = Instant::now();
        while !self.log().contains(words) {
            if !self.is_running() {
                let log = self.log();
                assert!(log.contains("the port is in use"), "{log}");
                return false;
            }
            assert!(
                begin.elapsed() < START,
                "no \"{words}\" in:\n{}",
                self.log()
            );
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }
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

/// Shards and a learner; the test starts and stops actors.
pub struct Cluster {
    pub learner: Service,
    pub address: String,
    /// `None` while a shard is stopped.
    pub shards: Vec<Option<Service>>,
    addresses: Vec<String>,
    /// Arguments of every shard.
    serve: String,
    more: String,
    actors: usize,
    /// The last field: the processes in it are killed before the folder is removed.
    pub bench: Bench,
}

impl Cluster {
    /// Starts shards of `capacity` rows each, and a learner with additional settings.
    pub fn start(shards: usize, capacity: usize, more: &str) -> Self {
        Self::start_with(shards, format!("--capacity {capacity}"), more)
    }

    /// Starts them with shards that keep their rows.
    pub fn start_keeping(shards: usize, capacity: usize, more: &str) -> Self {
        Self::start_with(
            shards,
            format!("--capacity {capacity} --journal kept-SHARD"),
            more,
        )
    }

    fn start_with(shards: usize, serve: String, more: &str) -> Self {
        let bench = Bench::new();
        bench.write("cluster.toml", CONFIG);
        let size = "--train 2 --validation 1 --test 0 --size 48x56x48";
        bench.succeed(&format!("phantom --out data --seed 3 {size}"));
        let (addresses, shards): (Vec<_>, Vec<_>) = (0..shards)
            .map(|number| {
                let (address, shard) = at_free_address(|address| {
                    let shard = start_shard(&bench, number, &serve, address);
                    (shard, "replay shard listens")
                });
                (address, Some(shard))
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

    pub fn kill_shard(&mut self, number: usize) {
        self.shards[number].take().unwrap().kill();
    }

    /// Restarts a shard at its address, with the rows it kept.
    pub fn restart_shard(&mut self, number: usize) {
        for _ in 0..CLASHES {
            let mut shard = start_shard(&self.bench, number, &self.serve, &self.addresses[number]);
            if shard.listens("replay shard listens") {
                self.shards[number] = Some(shard);
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

    /// The learner's status, if it responds.
    pub fn status(&self) -> Option<LearnerStatus> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut client = channel::learner_client(channel::connect_lazy(&self.address).unwrap());
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
        let begin = Instant::now();
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|s| wanted(s)) {
                return status.clone();
            }
            assert!(
                self.learner.is_running() && begin.elapsed() < within,
                "waited {:.1} s for {what}: {status:#?}\n{}",
                begin.elapsed().as_secs_f64(),
                self.learner.log()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for this many more updates.
    pub fn more_updates(&mut self, updates: u64, within: Duration) -> LearnerStatus {
        let begin = self.until("an answer", within, |_| true).updates;
        self.until(&format!("{updates} updates after {begin}"), within, |s| {
            s.updates >= begin + updates
        })
    }

    /// The lines of metrics.jsonl.
    pub fn metrics(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.bench.path("runs/cluster/metrics.jsonl")).unwrap();
        let lines = text.lines();
        lines.map(|l| serde_json::from_str(l).unwrap()).collect()
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
