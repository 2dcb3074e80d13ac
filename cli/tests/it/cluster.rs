//! A cluster of processes with failures.

use std::net::TcpListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::messages::status::{ActorStatus, LearnerStatus, ShardLink, ShardSummary};
use serde_json::Value;

use crate::process::{Bench, assert_contains, parse, wait_for};
use crate::services::{Cluster, PATIENCE, Service, ask};

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
fn an_actor_with_other_data_is_refused_and_a_killed_one_is_replaced() {
    let _alone = alone();
    let mut cluster = Cluster::start(1, 2000, "");
    let mut first = cluster.actor("");
    check_refusals(&mut cluster);
    cluster.until("training", PATIENCE, training);
    let status = cluster.more_updates(20, PATIENCE);
    assert_eq!(status.actors.len(), 1, "{status:?}");
    let writer = |a: &ActorStatus| (a.actor, a.incarnation);
    let lost = writer(&status.actors[0]);
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
    assert_contains(&cluster.learner.log(), "actor lost: no heartbeat");

    let line = format!("status --address {} --json", cluster.address);
    let (code, output) = ask(&cluster.bench, "learner", &line);
    assert_eq!(code, Some(0), "{output}");
    let reported = parse(&output);
    assert_eq!(reported["run"], "cluster");
    let updates = reported["updates"].as_u64();
    assert!(updates >= Some(status.updates), "{reported}");
    let alive = reported["actors"].as_array().unwrap().iter();
    let alive = alive.filter(|a| a["alive"] == true).count();
    assert_eq!(alive, 1, "{reported}");
}

/// Actors with other data, landmarks or rules are refused with one error.
fn check_refusals(cluster: &mut Cluster) {
    cluster
        .bench
        .succeed("phantom --out other --train 2 --validation 0 --test 0 --size 48x56x48 --seed 4");
    let others = "--set data.train_images=other/train/images.txt \
        --set data.train_landmarks=other/train/landmarks.txt";
    let cases = [
        (
            others,
            "training data | 4 of 4 scans | 'phantom_0001' is only",
        ),
        (
            "--set data.landmarks=[\"bridge\"]",
            "2 landmarks here and 1 there | differ in landmarks",
        ),
        ("--set rules.max_steps=31", "differ in rules.max_steps:"),
    ];
    for (more, words) in cases {
        let mut refused = cluster.actor(more);
        assert_eq!(refused.ended(PATIENCE), Some(4), "{}", refused.log());
        let errors = refused.errors();
        assert_eq!(errors.len(), 1, "{}", refused.log());
        let address = &cluster.address;
        let start = format!("error: the learner at {address} refuses this actor");
        assert!(errors[0].starts_with(&start), "{}", errors[0]);
        assert_contains(&errors[0], words);
    }
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
fn a_shard_that_restarts_empty_causes_neither_burst_nor_stall() {
    let _alone = alone();
    let cluster = Cluster::start(2, CAPACITY, "");
    let back = restart_a_shard(cluster, CAPACITY as u64, 300);
    assert!(back < CAPACITY as u64, "{back} rows came from nowhere");
}

/// One of four shards is killed and keeps its rows; training continues without it.
#[test]
fn a_shard_that_restarts_with_its_rows_causes_neither_burst_nor_stall() {
    let _alone = alone();
    let cluster = Cluster::start_keeping(4, 150, "--set replay.ack=durable");
    let back = restart_a_shard(cluster, 150, 100);
    assert_eq!(back, 150, "durable rows are there at once");
}

/// Kills shard 1 and restarts it; returns its rows when the learner first saw it again.
/// While it is unreachable, more than `beyond` updates must come: more than the credit left.
fn restart_a_shard(mut cluster: Cluster, capacity: u64, beyond: u64) -> u64 {
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
    wait_for("metrics of the training", PATIENCE, || {
        let lines = cluster.metrics();
        let sampled = lines.iter().any(|l| l["sampled"].as_f64() > Some(0.0));
        sampled.then_some(()).ok_or_else(|| format!("{lines:?}"))
    });
    cluster.shards[1].kill();
    let mut pace = Pace::new(begin.updates);
    let without = cluster.until("updates without the shard", PATIENCE, |s| {
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
        let used = |s: ShardSummary| s.rows >= capacity * 2 / 3 && s.sampled > 0;
        shard.alive && shard.summary.is_some_and(used)
    });
    assert!(back.updates >= without.updates);
    cluster.until("updates with the new shard", PATIENCE, |s| {
        pace.see(s);
        s.updates > back.updates + 200
    });
    assert!(pace.longest < STALL, "no update for {:?}", pace.longest);
    let log = cluster.learner.log();
    assert_eq!(shards_lost(&log), 1, "{log}");
    let lines = all_logged(&log, "shard is back");
    let renewed: Vec<&Value> = lines.iter().filter(|l| l["renewed"] == true).collect();
    assert_eq!(renewed.len(), 1, "{log}");

    cluster.learner.stop();
    check_limiter(&cluster.metrics(), shards, capacity);
    renewed[0]["rows"].as_u64().unwrap()
}

/// The algebra of `learner::replay::limiter` on every line of metrics.
///
/// Rows that a full shard replaces before the first sample are not charged. How many depends on
/// how evenly the first episodes fall on the shards, so refills count from the first line on.
#[expect(clippy::cast_precision_loss, reason = "a few hundred")]
fn check_limiter(lines: &[Value], shards: usize, capacity: u64) {
    // As in services.rs: SPI, tolerance, min_rows, batches in flight, one batch per shard.
    let (spi, tolerance, min_rows) = (5.0, 200.0, 400.0);
    let (in_flight, least) = (4.0 * 16.0, shards as f64 * 16.0);
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap();
    let mut at_first = None;
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
        let refilled = refilled - *at_first.get_or_insert(refilled);
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
fn a_port_in_use_is_reported_before_anything_is_loaded() {
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
    assert_eq!(errors.len(), 1, "{}", learner.log());
    assert!(errors[0].starts_with(&start), "{errors:?}");
    assert_contains(&errors[0], "cluster.learner");
    let run = bench.path("runs");
    assert!(!run.exists(), "a folder for a run that never started");
}

#[test]
fn a_killed_and_a_stopped_learner_continue_and_no_row_is_lost() {
    let _alone = alone();
    let every = 50;
    // Actors are notified of the end of the run, however long their lease is.
    let more = format!(
        "--set replay.ack=durable --set checkpoint.period={every} --set cluster.lease_s=60"
    );
    let mut cluster = Cluster::start_keeping(2, CAPACITY, &more);
    let mut actor = cluster.actor("");
    let before = cluster.until("several checkpoints", PATIENCE, |s| s.updates > 5 * every);
    let stored = |s: &LearnerStatus| -> Vec<(u64, u64)> {
        let summaries = s.shards.iter().filter_map(|l| l.summary);
        summaries.map(|s| (s.inserted, s.rows)).collect()
    };
    cluster.learner.kill();
    let killed = Instant::now();

    cluster.resume();
    let resumed = logged(&cluster.learner, "resumed");
    let resumed = resumed["updates"].as_u64().unwrap();
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
    check_stop_and_resume(&mut cluster, &mut actor);
    println!("the killed learner went on from update {resumed} after {took:?}");
}

/// Stops the learner with SIGTERM and resumes it from the checkpoint that it leaves.
fn check_stop_and_resume(cluster: &mut Cluster, actor: &mut Service) {
    let before = cluster.until("training", PATIENCE, training);
    cluster.learner.stop();
    actor.succeeds();
    assert_contains(&actor.log(), "RunOver");
    let ended = logged(&cluster.learner, "training ended");
    let file = ended["checkpoint"].as_str().unwrap();
    let updates = ended["updates"].as_u64().unwrap();
    assert!(updates >= before.updates, "{ended}");
    assert!(cluster.bench.path(file).is_file(), "{ended}");
    let lines = cluster.metrics().len();

    cluster.resume();
    let resumed = logged(&cluster.learner, "resumed");
    assert_eq!(resumed["updates"].as_u64(), Some(updates));
    assert_eq!(resumed["file"].as_str(), Some(file));
    let _actor = cluster.actor("");
    let after = cluster.until("more updates of all shards", PATIENCE, |s| {
        s.updates > updates + 50 && s.shards.iter().all(|l| l.alive)
    });
    assert!(after.weights_version > before.weights_version);
    cluster.learner.stop();
    let metrics = &cluster.metrics()[lines..];
    assert!(!metrics.is_empty());
    for line in metrics {
        let new = line["updates"].as_u64().unwrap();
        let new = new.checked_sub(updates).unwrap();
        // The first rate is measured over about a second, later ones over longer.
        #[expect(clippy::cast_precision_loss, reason = "a few updates")]
        let most = new as f64 * 1.5 + 1.0;
        assert!(line["updates_per_s"].as_f64().unwrap() <= most, "{line}");
    }
}

/// The first line of the log with this message.
fn logged(service: &Service, message: &str) -> Value {
    let log = service.log();
    let mut lines = all_logged(&log, message);
    assert!(!lines.is_empty(), "no \"{message}\" in:\n{log}");
    lines.swap_remove(0)
}

/// Number of lost shards. A shard that is only slow for a while is also lost and found.
fn shards_lost(log: &str) -> usize {
    let slow = |l: &Value| {
        l["why"]
            .as_str()
            .is_some_and(|w| w.contains("no response within"))
    };
    let lines = all_logged(log, "shard lost: training goes on with the others");
    lines.iter().filter(|l| !slow(l)).count()
}

/// All lines of a log with this message.
fn all_logged(log: &str, message: &str) -> Vec<Value> {
    let lines = log
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok());
    lines.filter(|l| l["message"] == message).collect()
}
