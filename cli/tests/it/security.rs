//! `landmarl certs`, and a cluster of processes that uses its certificates.

use std::path::Path;

use proto::messages::heartbeat::{Heartbeat, HeartbeatReply};
use proto::messages::insert::Writer;
use proto::messages::status::{ActorReport, ActorState, LearnerStatus};
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::transport::security::Role;
use proto::wire;

use crate::process::{Bench, assert_contains, names_in, parse};
use crate::services::{Cluster, PATIENCE, ask, certificates};

#[test]
fn certificates_are_private_and_never_overwritten() {
    let bench = Bench::new();
    let made = bench.succeed("certs --out new/certs --days 90").err;
    assert_contains(&made, "new/certs: certificates for 90 days | actor.key");
    assert_contains(&made, "LANDMARL__CLUSTER__TOKEN_FILE=new/certs/token");
    assert_eq!(mode(&bench.path("new/certs")), 0o700);
    let names = names_in(&bench.path("new/certs"));
    assert_eq!(names.len(), 3 + 2 * Role::ALL.len(), "{names:?}");
    for name in &names {
        let open = if name.ends_with(".pem") { 0o644 } else { 0o600 };
        let path = bench.path(&format!("new/certs/{name}"));
        assert_eq!(mode(&path), open, "{name}");
    }

    let again = bench.fail("certs --out new/certs", 1, &["already", "--if-missing"]);
    assert!(!again.err.contains("LANDMARL__"));
    let before = bench.text("new/certs/ca.pem");
    let kept = bench.succeed("certs --out new/certs --if-missing").err;
    assert!(kept.contains("has all certificates"), "{kept}");
    assert_eq!(bench.text("new/certs/ca.pem"), before);
    // The same authority and token, for one more machine.
    let line = "certs --out gpu --ca new/certs --role actor evaluator --host gpu7 10.0.0.7 --json";
    let report = bench.json(line);
    assert_eq!(
        (&report["made"], &report["days_left"]),
        (&true.into(), &365.into())
    );
    assert_eq!(bench.text("gpu/ca.pem"), before);
    assert!(!bench.path("gpu/ca.key").exists() && !bench.path("gpu/learner.pem").exists());

    std::fs::remove_file(bench.path("new/certs/actor.key")).unwrap();
    let words = [
        "has ca.pem",
        "but not actor.key",
        "restore the missing files",
    ];
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

fn heartbeat(cluster: &Cluster, writer: Writer) -> HeartbeatReply {
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
    cluster.call(Role::Actor, |mut client| async move {
        let ask = |request| async move { client.heartbeat(request).await };
        let message = wire::HeartbeatRequest::from(heartbeat);
        unary(message, CALL_DEADLINE, ask).await.unwrap()
    })
}

/// Sub-commands get a response if they authenticate.
fn check_operator_commands(cluster: &Cluster) {
    let (shard, learner) = (&cluster.addresses[0], &cluster.address);
    let operator = certificates(Role::Operator);
    let succeed = |binary: &str, line: &str| {
        let (code, output) = ask(&cluster.bench, binary, line);
        assert_eq!(code, Some(0), "{line}\n{output}");
        output
    };
    let line = format!("status --address {learner} --json {operator}");
    let status = parse(&succeed("learner", &line));
    assert!(status["updates"].as_u64() > Some(20), "{status}");
    let line = format!("status --address {shard} --json {operator}");
    let status = parse(&succeed("replay-server", &line));
    assert!(status["rows"].as_u64() >= Some(400), "{status}");
    let own = certificates(Role::Learner);
    let line = format!("health --address {learner} {own}");
    assert_eq!(succeed("learner", &line), "");
    let line = format!("snapshot --address {shard} {operator}");
    succeed("replay-server", &line);
    let line = format!("status --address {learner}");
    let (code, output) = ask(&cluster.bench, "learner", &line);
    assert_eq!(code, Some(1), "{output}");
    assert_contains(&output, "does not respond | is a learner running there");
    assert_contains(&cluster.learner.log(), "plain text?");
}

#[test]
fn a_cluster_trains_with_certificates_and_refuses_those_who_lack_them() {
    let mut cluster = Cluster::start_secured();
    let mut first = cluster.actor(&certificates(Role::Actor));
    let acts =
        |s: &LearnerStatus| s.updates > 20 && s.actors.iter().any(|a| a.report().env_steps > 50);
    let former = cluster.until("training", PATIENCE, acts).actors.remove(0);

    check_operator_commands(&cluster);

    // An evaluator may join but may not insert rows.
    let mut pretender = cluster.actor(&certificates(Role::Evaluator));
    assert_eq!(pretender.ended(PATIENCE), Some(4), "{}", pretender.log());
    let errors = pretender.errors().join("\n");
    assert_contains(&errors, "a certificate of evaluator may not call");
    assert_contains(&cluster.shards[0].log(), "call refused");

    // The next incarnation of an actor, and a late heartbeat of the previous one.
    first.kill();
    // Its id is free after its lease has expired.
    cluster.until("the loss", PATIENCE, |s| s.actors.iter().all(|a| !a.alive));
    let _second = cluster.actor(&certificates(Role::Actor));
    let replaced = |s: &LearnerStatus| {
        let same = s.actors.iter().find(|a| a.actor == former.actor);
        same.is_some_and(|a| a.incarnation > former.incarnation && a.report().env_steps > 0)
    };
    cluster.until("its second incarnation", PATIENCE, replaced);
    let writer = Writer {
        actor: u16::try_from(former.actor).unwrap(),
        incarnation: former.incarnation,
    };
    assert!(heartbeat(&cluster, writer).rejoin);
    assert_contains(
        &cluster.learner.log(),
        "heartbeat of another incarnation refused",
    );
    let status = cluster.until("training on", PATIENCE, replaced);
    let steps = status.actors.iter().map(|a| a.report().env_steps).max();
    assert!(steps < Some(1 << 40), "{status:?}");
    cluster.until("more updates", PATIENCE, |s| {
        s.updates > status.updates + 20
    });
}
