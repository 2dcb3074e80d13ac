//! The services under attack, as processes of the given binaries.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use common::config::{ClusterConfig, Config, Sources};
use proto::messages::hello::Hello;
use proto::messages::status::LearnerStatus;
use proto::transport::channel::learner_client;
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::transport::security::{Role, Security};
use proto::wire;

use crate::net::{Credentials, Port, Protocol};
use crate::service::Service;

const CONFIG: &str = r#"
data.train_images = "data/train/images.txt"
data.train_landmarks = "data/train/landmarks.txt"
data.validation_images = "data/validation/images.txt"
data.validation_landmarks = "data/validation/landmarks.txt"
data.landmarks = ["bridge", "base_ball"]
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
learner.publish_period = 20
learner.updates = 100000000
checkpoint.period = 50
"#;

const PHANTOMS: &str =
    "phantom --out data --train 2 --validation 1 --test 1 --size 48x56x48 --seed 3";
/// Small segments and frequent snapshots: the journal opens files all the time.
const JOURNAL: &str = "--capacity 20000 --journal rows --segment-mb 1 --snapshot-s 2";
/// From the start until a checkpoint is written.
const START_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A learner, a shard and an actor.
pub struct Cluster {
    folder: PathBuf,
    pub security: Security,
    pub operator: Option<Credentials>,
    /// Learner, shard, actor.
    pub services: Vec<Service>,
    pub ports: Vec<Port>,
    pub hello: Hello,
}

impl Cluster {
    /// Starts it in this folder, and waits until it trains and has written a checkpoint.
    pub async fn start(bins: &Path, folder: &Path, secured: bool) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let config = folder.join("cluster.toml");
        std::fs::write(&config, CONFIG)?;
        let run = |line: &str| finish(&mut program(bins, "landmarl", folder, line));
        run(PHANTOMS)?;
        if secured {
            run("certs --out certs")?;
        }
        let addresses = free_addresses()?;
        let [learner, learner_http, shard, shard_http, actor_http] = addresses;
        let lines = lines(addresses, secured);
        let services = lines.map(|(name, line)| Service::start(bins, name, folder, &line));
        let [shard_service, learner_service, actor_service] = services;
        let services = vec![learner_service?, shard_service?, actor_service?];
        let port = |address, role, protocol| Port {
            address,
            role,
            protocol,
        };
        let ports = vec![
            port(learner, Role::Learner, Protocol::Grpc),
            port(shard, Role::Replay, Protocol::Grpc),
            port(learner_http, Role::Learner, Protocol::Http),
            port(shard_http, Role::Replay, Protocol::Http),
            port(actor_http, Role::Actor, Protocol::Http),
        ];
        let certs = folder.join("certs");
        let config = Config::load(&Sources::from_process(vec![config], Vec::new()))?;
        let mut cluster = Self {
            folder: folder.to_path_buf(),
            security: match secured {
                true => Security::from_config(&operator(&certs)?)?,
                false => Security::none(),
            },
            operator: secured
                .then(|| Credentials::read(&certs, Role::Operator))
                .transpose()?,
            services,
            ports,
            hello: Hello::new("run", &config, [1; 32]),
        };
        cluster.ready().await?;
        Ok(cluster)
    }

    async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while self.checkpoint() == 0 {
            for service in &mut self.services {
                ensure!(service.is_running(), "{}", service.last_words());
            }
            if begun.elapsed() > START_WITHIN {
                bail!(
                    "no checkpoint was written within {START_WITHIN:?}: see the logs in {}",
                    self.folder.display()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.hello.run_id = self.learner_status().await?.run_id;
        Ok(())
    }

    pub fn port(&self, role: Role, protocol: Protocol) -> Option<Port> {
        let same = |port: &&Port| (port.role, port.protocol) == (role, protocol);
        self.ports.iter().find(same).copied()
    }

    fn grpc(&self, role: Role) -> Result<String> {
        let port = self.port(role, Protocol::Grpc).context("no such port")?;
        Ok(port.address.to_string())
    }

    async fn learner_status(&self) -> Result<LearnerStatus> {
        let channel = self
            .security
            .connect(&self.grpc(Role::Learner)?, Role::Learner)?;
        let mut client = learner_client(channel);
        let request = wire::LearnerStatusRequest::default();
        Ok(unary(request, CALL_DEADLINE, |r| client.status(r)).await?)
    }

    /// Updates of the newest checkpoint; 0 without one.
    pub fn checkpoint(&self) -> u64 {
        newest_checkpoint(&self.folder.join("run/checkpoints"))
    }

    /// Stops all services; returns how many seconds each took.
    pub async fn stop(&mut self, within: Duration) -> Vec<(&'static str, Option<f64>)> {
        let mut took = Vec::new();
        // Learner last: actors of a learner that has gone would look for it.
        for service in self.services.iter_mut().rev() {
            took.push((service.name, service.stop(within).await));
        }
        took
    }
}

/// The settings of a process with this role.
fn settings(role: Role) -> String {
    format!(
        "--set cluster.ca=certs/ca.pem --set cluster.cert=certs/{role}.pem \
         --set cluster.key=certs/{role}.key --set cluster.token_file=certs/token"
    )
}

fn operator(certs: &Path) -> Result<ClusterConfig> {
    let path = |name: &str| certs.join(name).display().to_string();
    Ok(ClusterConfig {
        ca: path("ca.pem"),
        cert: path("operator.pem"),
        key: path("operator.key"),
        token_file: path("token"),
        ..Config::defaults()?.cluster
    })
}

/// Addresses on which nothing listens at this moment.
fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let listeners: io::Result<Vec<_>> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let addresses: io::Result<Vec<_>> = listeners?.iter().map(TcpListener::local_addr).collect();
    addresses?
        .try_into()
        .ok()
        .context("another number of addresses")
}

/// A binary that uses this folder alone.
pub fn program(bins: &Path, name: &str, folder: &Path, line: &str) -> Command {
    // No service may open more files than this.
    let limited = "ulimit -n 1024 && exec \"$@\"";
    let mut command = Command::new("bash");
    command
        .args(["-c", limited, name])
        .arg(bins.join(name))
        .args(line.split_whitespace())
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("CI", "1")
        .stdin(Stdio::null());
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("LANDMARL_") {
            command.env_remove(key);
        }
    }
    command
}

fn finish(command: &mut Command) -> Result<()> {
    let output = command.output().context("cannot start bash")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {errors}");
    Ok(())
}

/// A process whose output goes to a file.
pub fn logged(command: &mut Command, log: &Path) -> Result<Child> {
    let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let command = command.stdout(file.try_clone()?).stderr(file);
    Ok(command.spawn()?)
}

/// Updates of the newest `update-…` file.
fn newest_checkpoint(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let updates = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let number = name.strip_prefix("update-")?.split('.').next()?;
        number.parse().ok()
    });
    updates.max().unwrap_or(0)
}

/// Programs and their arguments: shard, learner, actor.
fn lines(
    [learner, learner_http, shard, shard_http, actor_http]: [SocketAddr; 5],
    secured: bool,
) -> [(&'static str, String); 3] {
    let with = |role: Role| {
        if secured {
            settings(role)
        } else {
            String::new()
        }
    };
    [
        (
            "replay-server",
            format!(
                "serve --listen {shard} {JOURNAL} --set http.listen={shard_http} {}",
                with(Role::Replay)
            ),
        ),
        (
            "learner",
            format!(
                "run --config cluster.toml --run-dir run --set cluster.learner={learner} \
                     --set cluster.shards=[\"{shard}\"] --set http.listen={learner_http} {}",
                with(Role::Learner)
            ),
        ),
        (
            "actor",
            format!(
                "run --config cluster.toml --learner {learner} --set http.listen={actor_http} {}",
                with(Role::Actor)
            ),
        ),
    ]
}
