//! `landmarl certs`, and a cluster of processes that uses its certificates.

use std::path::Path;
use std::time::{Duration, Instant};

use common::config::{ClusterConfig, Config};
use proto::messages::heartbeat::{Heartbeat, HeartbeatReply};
use proto::messages::insert::Writer;
use proto::messages::status::{ActorReport, ActorState, LearnerStatus};
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::learner_client::LearnerClient;
use serde_json::Value;

use crate::process::Bench;
use crate::services::{CONFIG, Service, at_free_address};

/// Timeout for steps that only a slow machine takes long for.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn certificates_are_made_once_for_their_owner_alone_and_good_at_once() {
    let bench = Bench::new();
    let made = bench.succeed("certs --out new/certs --days 90").err;
    for word in [
        "new/certs: certificates for 90 days",
        "actor.key",
        "LANDMARL__CLUSTER__TOKEN_FILE=new/certs/token",
    ] {
        assert!(made.contains(word), "{word}:\n{made}");
    }
    assert_eq!(mode(&bench.path("new/certs")), 0o700);
    let files = std::fs::read_dir(bench.path("new/certs")).unwrap();
    let names: Vec<_> = files
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 3 + 2 * Role::ALL.len(), "{names:?}");
    for name in &names {
        let open = if name.ends_with(".pem") { 0o644 } else { 0o600 };
        let path = bench.path(&format!("new/certs/{name}"));
        assert_eq!(mode(&path), open, "{name}");
    }

    let again = bench.fail("certs --out new/certs", 1, &["already", "--if-missing"]);
    assert!(!again.err.contains("LANDMARL__"));
    let before = std::fs::read(bench.path("new/certs/ca.pem")).unwrap();
    let kept = bench.succeed("certs --out new/certs --if-missing").err;
    assert!(kept.contains("has them all already"), "{kept}");
    assert_eq!(
        std::fs::read(bench.path("new/certs/ca.pem")).unwrap(),
        before
    );
    // The same authority and token, for one more machine.
    let line = "certs --out gpu --ca new/certs --role actor evaluator --host gpu7 10.0.0.7 --json";
    let report: Value = serde_json::from_str(&bench.succeed(line).out).unwrap();
    assert_eq!(
        (&report["made"], &report["days_left"]),
        (&true.into(), &365.into())
    );
    assert_eq!(std::fs::read(bench.path("gpu/ca.pem")).unwrap(), before);
    assert!(!bench.path("gpu/ca.key").exists() && !bench.path("gpu/learner.pem").exists());

    std::fs::remove_file(bench.path("new/certs/actor.key")).unwrap();
    let words = ["has ca.pem", "but not actor.key", "half set"];
    bench.fail("certs --out new/certs --if-missing", 1, &words);
    bench.succeed("certs --out closed --no-ca-key --role replay");
    assert!(!bench.path("closed/ca.key").exists());
    bench.fail("certs --out more --ca closed", 1, &["ca.key", "--ca takes"]);
    bench.fail("certs --out more --days 4000000", 1, &["ask for fewer"]);
    assert!(!bench.path("more").exists());
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The security settings of a process with this role.
fn settings(role: Role) -> String {
    format!(
        "--set cluster.ca=certs/ca.pem --set cluster.cert=certs/{role}.pem \
         --set cluster.key=certs/{role}.key --set cluster.token_file=certs/token"
    )
}

/// A shard and a learner with TLS.
struct Secured {
    learner: Service,
    learner_address: String,
    shard: Service,
    shard_address: String,
    actors: usize,
    bench: Bench,
}

impl Secured {
    fn start() -> Self {
        let bench = Bench::new();
        bench.write("cluster.toml", CONFIG);
        bench.succeed(
            "phantom --out data --seed 3 --train 2 --validation 0 --test 0 --size 48x56x48",
        );
        bench.succeed("certs --out certs");
        let (shard_address, shard) = at_free_address(|address| {
            let line = format!(
                "serve --listen {address} --journal kept --capacity 2000 {}",
                settings(Role::Replay)
            );
            let shard = Service::start(&bench, "replay-server", "shard", &line);
            (shard, "replay shard listens")
        });
        let (learner_address, learner) = at_free_address(|address| {
            let line = format!(
                "run --config cluster.toml --run-dir runs/cluster --set cluster.learner={address} \
                 --set cluster.shards=[\"{shard_address}\"] --set cluster.lease_s=2 {}",
                settings(Role::Learner)
            );
            let learner = Service::start(&bench, "learner", "learner", &line);
            (learner, "dataset loaded")
        });
        Self {
            learner,
            learner_address,
            shard,
            shard_address,
            actors: 0,
            bench,
        }
    }

    fn actor(&mut self, role: Role) -> Service {
        self.actors += 1;
        let address = &self.learner_address;
        let line = format!(
            "run --config cluster.toml --learner {address} {}",
            settings(role)
        );
        let name = format!("actor-{}", self.actors);
        Service::start(&self.bench, "actor", &name, &line)
    }

    /// Runs a sub-command to its end: exit code and output.
    fn ask(&self, binary: &str, line: &str) -> (Option<i32>, String) {
        let mut asked = Service::start(&self.bench, binary, "asked", line);
        let code = asked.ended(PATIENCE);
        (code, asked.log())
    }

    fn security(&self, role: Role) -> Security {
        let path = |name: &str| {
            let path = self.bench.path(&format!("certs/{name}"));
            path.to_str().unwrap().to_owned()
        };
        let cluster = ClusterConfig {
            ca: path("ca.pem"),
            cert: path(&format!("{role}.pem")),
            key: path(&format!("{role}.key")),
            token_file: path("token"),
            ..Config::defaults().unwrap().cluster
        };
        Security::from_config(&cluster).unwrap()
    }

    /// Calls the learner with this role.
    fn call<T, F>(
        &self,
        role: Role,
        ask: impl FnOnce(LearnerClient<proto::transport::channel::Channel>) -> F,
    ) -> T
    where
        F: Future<Output = T>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let channel = self
                .security(role)
                .connect(&self.learner_address, Role::Learner);
            ask(proto::transport::channel::learner_client(channel.unwrap())).await
        })
    }

    fn until(&mut self, what: &str, wanted: impl Fn(&LearnerStatus) -> bool) -> LearnerStatus {
        let begin = Instant::now();
        loop {
            let status = self.call(Role::Operator, |mut client| async move {
                let ask = |request| async move { client.status(request).await };
                let reply = unary(wire::LearnerStatusRequest::default(), CALL_DEADLINE, ask).await;
                reply.ok()
            });
            if let Some(status) = status.as_ref().filter(|s| wanted(s)) {
                return status.clone();
            }
            let running = self.learner.is_running();
            let logs = || format!("{}\n{}", self.learner.log(), self.shard.log());
            assert!(
                begin.elapsed() < PATIENCE,
                "no {what}: {status:?}\n{}",
                logs()
            );
            assert!(running, "{}", logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn heartbeat(&self, writer: Writer) -> HeartbeatReply {
        let heartbeat = Heartbeat {
            writer,
            report: ActorReport {
                env_steps: 1 << 40,
                weights_version: 1,
                state: ActorState::Acting.into(),
                ..ActorReport::default()
            },
            episodes: 1 << 40,
            rows_sent: 0,
            blocked_s: 0.0,
            episode_error: 0.0,
            episode_errors: 0,
        };
        self.call(Role::Actor, |mut client| async move {
            let ask = |request| async move { client.heartbeat(request).await };
            let message = wire::HeartbeatRequest::from(heartbeat);
            let reply = unary(message, CALL_DEADLINE, ask).await;
            reply.unwrap().into()
        })
    }
}

/// Sub-commands get an answer if they authenticate.
fn operator_asks(cluster: &Secured) {
    let shard = &cluster.shard_address;
    let learner = &cluster.learner_address;
    let operator = settings(Role::Operator);
    let (code, output) = cluster.ask(
        "learner",
        &format!("status --address {learner} --json {operator}"),
    );
    assert_eq!(code, Some(0), "{output}");
    let status: Value = serde_json::from_str(&output).unwrap();
    assert!(status["updates"].as_u64() > Some(20), "{status}");
    let (code, output) = cluster.ask(
        "replay-server",
        &format!("status --address {shard} --json {operator}"),
    );
    assert_eq!(code, Some(0), "{output}");
    let status: Value = serde_json::from_str(&output).unwrap();
    assert!(status["rows"].as_u64() >= Some(400), "{status}");
    let own = settings(Role::Learner);
    let (code, output) = cluster.ask("learner", &format!("health --address {learner} {own}"));
    assert_eq!((code, output.as_str()), (Some(0), ""));
    let (code, output) = cluster.ask(
        "replay-server",
        &format!("snapshot --address {shard} {operator}"),
    );
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = cluster.ask("learner", &format!("status --address {learner}"));
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("does not answer"), "{output}");
    assert!(
        cluster.learner.log().contains("plain text?"),
        "{}",
        cluster.learner.log()
    );
}

#[test]
fn a_cluster_trains_with_certificates_and_refuses_those_who_lack_them() {
    let mut cluster = Secured::start();
    let first = cluster.actor(Role::Actor);
    let acts =
        |s: &LearnerStatus| s.updates > 20 && s.actors.iter().any(|a| a.report().env_steps > 50);
    let former = cluster.until("training", acts).actors.remove(0);

    operator_asks(&cluster);

    // An evaluator may join but may not insert rows.
    let mut pretender = cluster.actor(Role::Evaluator);
    assert_eq!(pretender.ended(PATIENCE), Some(4), "{}", pretender.log());
    let errors = pretender.errors().join("\n");
    assert!(
        errors.contains("a certificate of evaluator may not call"),
        "{errors}"
    );
    assert!(
        cluster.shard.log().contains("call refused"),
        "{}",
        cluster.shard.log()
    );

    // The next incarnation of an actor, and a late heartbeat of the previous one.
    first.kill();
    // Its id is free after its lease has expired.
    cluster.until("the loss", |s| s.actors.iter().all(|a| !a.alive));
    let _second = cluster.actor(Role::Actor);
    let replaced = |s: &LearnerStatus| {
        let same = s.actors.iter().find(|a| a.actor == former.actor);
        same.is_some_and(|a| a.incarnation > former.incarnation && a.report().env_steps > 0)
    };
    cluster.until("its second incarnation", replaced);
    let writer = Writer {
        actor: u16::try_from(former.actor).unwrap(),
        incarnation: former.incarnation,
    };
    assert!(cluster.heartbeat(writer).rejoin);
    let log = cluster.learner.log();
    assert!(log.contains("heartbeat of another life refused"), "{log}");
    let status = cluster.until("training on", replaced);
    let steps = status.actors.iter().map(|a| a.report().env_steps).max();
    assert!(steps < Some(1 << 40), "{status:?}");
    cluster.until("more updates", |s| s.updates > status.updates + 20);
}
