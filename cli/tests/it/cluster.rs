//! A cluster of processes with failures.

use std::net::TcpListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::messages::status::{ActorStatus, LearnerStatus, ShardLink};
use serde_json::Value;

use crate::process::Bench;
use crate::services::{Cluster, Service};

/// Timeout for steps that only a slow machine takes long for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The loss of an actor is noticed within this time: a lease of ten seconds, on a busy machine.
const NOTICED: Duration = Duration::from_secs(30);
/// The longest permitted time without an update.
const STALL: Duration = Duration::from_secs(10);
/// Capacity of one shard: two shards hold `replay.min_rows`, one alone does not.
const CAPACITY: usize = 300;

/// Only one cluster runs at a time: there are few cores.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn acts(actor: &ActorStatus) -> bool {
    let report = actor.report();
    actor.alive && report.env_steps > 50 && report.weights_version > 0
}

fn training(status: &LearnerStatus) -> bool {
    status.updates > 20 && status.actors.iter().any(acts)
}

#[test]
fn a_killed_actor_is_noticed_and_replaced() {
    let _alone = alone();
    let mut cluster = Cluster::start(1, 2000, "");
    let first = cluster.actor("");
    let writer = |a: &ActorStatus| (a.actor, a.incarnation);
    let lost = writer(&cluster.until("training", PATIENCE, training).actors[0]);
    first.kill();
    let killed = Instant::now();
    let _second = cluster.actor("");
    cluster.until("the loss", NOTICED, |s| {
        s.actors.iter().all(|a| writer(a) != lost || !a.alive)
    });
    assert!(killed.elapsed() < NOTICED, "{:?}", killed.elapsed());
    cluster.until("a new actor", PATIENCE, |s| {
        s.actors.iter().any(|a| writer(a) != lost && acts(a))
    });
    let status = cluster.more_updates(50, PATIENCE);
    assert_eq!(status.actors.iter().filter(|a| a.alive).count(), 1);
    let log = cluster.learner.log();
    assert!(log.contains("actor lost: no sign of life"), "{log}");

    let line = format!("status --address {} --json", cluster.address);
    let mut asked = Service::start(&cluster.bench, "learner", "status", &line);
    assert_eq!(asked.ended(PATIENCE), Some(0), "{}", asked.log());
    let reported: Value = serde_json::from_str(&asked.log()).unwrap();
    assert_eq!(reported["run"], "cluster");
    assert!(
        reported["updates"].as_u64() >= Some(status.updates),
        "{reported}"
    );
    let alive = reported["actors"].as_array().unwrap().iter();
    assert_eq!(
        alive.filter(|a| a["alive"] == true).count(),
        1,
        "{reported}"
    );
}

/// When the number of updates last changed, and the longest time without a change.
struct Pace {
    updates: u64,
    since: Instant,
    longest: Duration,
}

impl Pace {
    fn new(updates: u64) -> Self {
        Self {
            updates,
            since: Instant::now(),
            longest: Duration::ZERO,
        }
    }

    fn see(&mut self, status: &LearnerStatus) {
        if status.updates > self.updates {
            (self.updates, self.since) = (status.updates, Instant::now());
        } else {
            self.longest = self.longest.max(self.since.elapsed());
        }
    }
}

#[test]
fn a_shard_that_dies_and_comes_back_empty_neither_bursts_nor_blocks() {
    let _alone = alone();
    let cluster = Cluster::start(2, CAPACITY, "");
    let back = shard_dies_and_comes_back(cluster, CAPACITY as u64, 300);
    assert!(back < CAPACITY as u64, "{back} rows came from nowhere");
}

/// Kills one of four shards, which keeps its rows; training continues without it.
#[test]
fn a_shard_that_dies_and_comes_back_with_its_rows_neither_bursts_nor_blocks() {
    let _alone = alone();
    let cluster = Cluster::start_keeping(4, 150, "--set replay.ack=durable");
    let back = shard_dies_and_comes_back(cluster, 150, 100);
    assert_eq!(
        back, 150,
        "what was acknowledged as durable is there at once"
    );
}

/// Rows of shard 1 when the learner first saw it again. `beyond`: updates that must
/// come while it is away, more than the credit that was left.
fn shard_dies_and_comes_back(mut cluster: Cluster, capacity: u64, beyond: u64) -> u64 {
    let shards = cluster.shards.len();
    let _actor = cluster.actor("");
    let rows = |l: &ShardLink| l.summary.map_or(0, |s| s.rows);
    // Full for a while: what came last is on the disk.
    let full = |l: &ShardLink| {
        rows(l) == capacity && l.summary.is_some_and(|s| s.inserted > capacity + 100)
    };
    let begin = cluster.until("full shards", PATIENCE, |s| {
        training(s) && s.shards.iter().all(full)
    });
    cluster.kill_shard(1);
    let mut pace = Pace::new(begin.updates);
    let away = cluster.until("updates without the shard", PATIENCE, |s| {
        pace.see(s);
        s.updates > begin.updates + beyond && !s.shards[1].alive
    });
    cluster.restart_shard(1);
    cluster.until("the shard", PATIENCE, |s| {
        pace.see(s);
        s.shards[1].alive
    });
    let back = cluster.until("rows in the new shard", PATIENCE, |s| {
        pace.see(s);
        let shard = &s.shards[1];
        let used =
            |s: proto::messages::status::ShardSummary| s.rows >= capacity * 2 / 3 && s.sampled > 0;
        shard.alive && shard.summary.is_some_and(used)
    });
    assert!(back.updates >= away.updates);
    cluster.until("updates with the new shard", PATIENCE, |s| {
        pace.see(s);
        s.updates > back.updates + 200
    });
    assert!(pace.longest < STALL, "no update for {:?}", pace.longest);
    let log = cluster.learner.log();
    assert_eq!(shards_lost(&log), 1, "{log}");
    let lines = all_said(&log, "shard is back");
    let renewed: Vec<&Value> = lines.iter().filter(|l| l["renewed"] == true).collect();
    assert_eq!(renewed.len(), 1, "{log}");

    cluster.learner.terminate();
    assert_eq!(cluster.learner.ended(PATIENCE), Some(0));
    check_limiter(&cluster.metrics(), shards, capacity);
    renewed[0]["rows"].as_u64().unwrap()
}

/// The algebra of `learner::replay::limiter` on every line of metrics.
#[expect(clippy::cast_precision_loss, reason = "a few hundred")]
fn check_limiter(lines: &[Value], shards: usize, capacity: u64) {
    // As in services.rs: SPI, tolerance, min_rows, batches in flight, one batch per shard.
    let (spi, tolerance, min_rows) = (5.0, 200.0, 400.0);
    let (in_flight, least) = (4.0 * 16.0, shards as f64 * 16.0);
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap();
    for (i, line) in lines.iter().enumerate() {
        let sampled = number(line, "sampled");
        if sampled == 0.0 {
            continue;
        }
        // `inserted` has the rows that made up for the loss, which are not charged.
        let charged = (sampled / number(line, "samples_per_insert")).round();
        let error = charged * spi - sampled;
        assert!(error >= -tolerance * spi, "a burst of samples: {line}");
        // Samples given back, one batch that each shard takes whole, and at
        // first the rows of the warm-up.
        let last = i + 1 == lines.len();
        let rows = if last { tolerance } else { min_rows } + least;
        assert!(
            error <= rows * spi + in_flight,
            "a burst of inserts: {line}"
        );
        let refilled = number(line, "inserted") - charged;
        // What full shards lack without one.
        let lack = (min_rows - (shards as u64 - 1) as f64 * capacity as f64).max(0.0);
        assert!(refilled <= lack + least, "{refilled} refilled: {line}");
    }
    let last = &lines[lines.len() - 1];
    assert_eq!(
        (&last["over"], &last["shards_alive"]),
        (&Value::Bool(true), &Value::from(shards))
    );
}

#[test]
fn an_actor_with_other_data_is_refused_in_one_sentence() {
    let _alone = alone();
    let mut cluster = Cluster::start(1, 2000, "");
    let _actor = cluster.actor("");
    cluster
        .bench
        .succeed("phantom --out other --train 2 --validation 0 --test 0 --size 48x56x48 --seed 4");
    let others = "--set data.train_images=other/train/images.txt \
        --set data.train_landmarks=other/train/landmarks.txt";
    let cases: [(&str, &[&str]); 3] = [
        (
            others,
            &["training data", "4 of 4 scans", "'phantom_0001' is only"],
        ),
        (
            "--set data.landmarks=[\"bridge\"]",
            &["2 landmarks here and 1 there", "differ in landmarks"],
        ),
        ("--set rules.max_steps=31", &["differ in rules.max_steps:"]),
    ];
    for (more, words) in cases {
        let mut refused = cluster.actor(more);
        assert_eq!(refused.ended(PATIENCE), Some(4), "{}", refused.log());
        let errors = refused.errors();
        assert_eq!(errors.len(), 1, "{}", refused.log());
        let start = format!(
            "error: the learner at {} refuses this actor",
            cluster.address
        );
        assert!(errors[0].starts_with(&start), "{}", errors[0]);
        for word in words {
            assert!(
                errors[0].contains(word),
                "\"{word}\" is not in {}",
                errors[0]
            );
        }
    }
    cluster.until("training", PATIENCE, training);
    let status = cluster.more_updates(20, PATIENCE);
    assert_eq!(status.actors.len(), 1, "{status:?}");
}

#[test]
fn a_port_in_use_is_one_error_before_all_else() {
    let _alone = alone();
    let bench = Bench::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    // The scans are not there either: the port comes first.
    let line = format!(
        "run --run-dir runs/one --set cluster.learner={address} --set data.train_images=gone.txt"
    );
    let mut learner = Service::start(&bench, "learner", "learner", &line);
    assert_eq!(learner.ended(PATIENCE), Some(1), "{}", learner.log());
    let errors = learner.errors();
    let start = format!("error: cannot listen on {address}: the port is in use");
    assert!(
        errors.len() == 1 && errors[0].starts_with(&start),
        "{}",
        learner.log()
    );
    assert!(errors[0].contains("cluster.learner"), "{errors:?}");
    assert!(
        !bench.path("runs").exists(),
        "a folder for a run that never started"
    );
}

#[test]
fn a_learner_told_to_stop_leaves_a_checkpoint_and_goes_on_from_it() {
    let _alone = alone();
    // Actors are notified of the end of the run, however long their lease is.
    let mut cluster = Cluster::start(2, CAPACITY, "--set cluster.lease_s=60");
    let mut actor = cluster.actor("");
    let before = cluster.until("training", PATIENCE, training);
    cluster.learner.terminate();
    assert_eq!(
        cluster.learner.ended(PATIENCE),
        Some(0),
        "{}",
        cluster.learner.log()
    );
    assert_eq!(actor.ended(PATIENCE), Some(0), "{}", actor.log());
    assert!(actor.log().contains("RunOver"), "{}", actor.log());
    let ended = said(&cluster.learner, "training ended");
    let (file, updates) = (
        ended["checkpoint"].as_str().unwrap(),
        ended["updates"].as_u64(),
    );
    assert!(updates >= Some(before.updates), "{ended}");
    assert!(cluster.bench.path(file).is_file(), "{ended}");
    let lines = cluster.metrics().len();

    cluster.resume();
    let resumed = said(&cluster.learner, "resumed");
    assert_eq!(
        (resumed["updates"].as_u64(), resumed["file"].as_str()),
        (updates, Some(file))
    );
    let _actor = cluster.actor("");
    let updates = updates.unwrap();
    let after = cluster.until("more updates of all shards", PATIENCE, |s| {
        s.updates > updates + 50 && s.shards.iter().all(|l| l.alive)
    });
    assert!(after.weights_version > before.weights_version);
    cluster.learner.terminate();
    assert_eq!(cluster.learner.ended(PATIENCE), Some(0));
    let metrics = &cluster.metrics()[lines..];
    assert!(!metrics.is_empty());
    for line in metrics {
        let new = line["updates"]
            .as_u64()
            .unwrap()
            .checked_sub(updates)
            .unwrap();
        // The first rate is measured over about a second, later ones over longer.
        #[expect(clippy::cast_precision_loss, reason = "a few updates")]
        let most = new as f64 * 1.5 + 1.0;
        assert!(line["updates_per_s"].as_f64().unwrap() <= most, "{line}");
    }
}

#[test]
fn a_killed_learner_goes_on_within_seconds_and_no_row_is_lost() {
    let _alone = alone();
    let every = 50;
    let more = format!("--set replay.ack=durable --set checkpoint.period={every}");
    let mut cluster = Cluster::start_keeping(2, CAPACITY, &more);
    let mut actor = cluster.actor("");
    let before = cluster.until("several checkpoints", PATIENCE, |s| s.updates > 5 * every);
    let stored = |s: &LearnerStatus| -> Vec<(u64, u64)> {
        let summaries = s.shards.iter().filter_map(|l| l.summary);
        summaries.map(|s| (s.inserted, s.rows)).collect()
    };
    cluster.learner.die();
    let killed = Instant::now();

    cluster.resume();
    let resumed = said(&cluster.learner, "resumed")["updates"]
        .as_u64()
        .unwrap();
    // The newest checkpoint may have been incomplete.
    assert!(resumed + 2 * every > before.updates, "{resumed} {before:?}");
    let after = cluster.until("an update", Duration::from_secs(30), |s| {
        s.updates > resumed && s.actors.iter().any(acts)
    });
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(actor.is_running(), "{}", actor.log());
    let (before, after) = (stored(&before), stored(&after));
    assert_eq!((before.len(), after.len()), (2, 2));
    for (before, after) in before.iter().zip(&after) {
        assert!(after >= before, "{before:?} became {after:?}");
    }
    cluster.more_updates(200, PATIENCE);
    assert_eq!(shards_lost(&cluster.learner.log()), 0);
    cluster.learner.terminate();
    assert_eq!(cluster.learner.ended(PATIENCE), Some(0));
    println!("the killed learner went on from update {resumed} after {took:?}");
}

/// The first line of the log with this message.
fn said(service: &Service, message: &str) -> Value {
    let log = service.log();
    let mut lines = all_said(&log, message);
    assert!(!lines.is_empty(), "no \"{message}\" in:\n{log}");
    lines.swap_remove(0)
}

/// Number of lost shards. A shard that is only slow for a while is also lost and found.
fn shards_lost(log: &str) -> usize {
    let slow = |l: &Value| l["why"].as_str().is_some_and(|w| w.contains("no answer"));
    let lines = all_said(log, "shard lost: training goes on with the others");
    lines.iter().filter(|l| !slow(l)).count()
}

/// All lines of a log with this message.
fn all_said(log: &str, message: &str) -> Vec<Value> {
    let lines = log
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok());
    lines.filter(|l| l["message"] == message).collect()
}
