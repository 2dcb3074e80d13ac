//! The output of `landmarl status` and `learner status` for given statuses.

use learner::report::status_text::{as_json, as_text};
use proto::messages::status::{
    ActorReport, ActorState, ActorStatus, Evaluation, EvaluatorStatus, LearnerStatus, ShardLink,
    ShardSummary,
};

use crate::process::{Bench, check_snapshot};
use crate::services::free_address;

fn actor(number: u32, host: &str) -> ActorStatus {
    ActorStatus {
        actor: number,
        incarnation: 1_700_000_000,
        host: host.into(),
        alive: true,
        heartbeat_age_s: 0.4,
        env_steps_per_s: 412.5,
        blocked_share: 0.02,
        restarts: 0,
        report: Some(ActorReport {
            env_steps: 91_204,
            rows_dropped: 0,
            weights_version: 148,
            weights_age_s: 3.2,
            state: ActorState::Acting.into(),
            exploration: 0.114,
            weights_latency_s: 0.061,
        }),
    }
}

fn shard(number: u32) -> ShardLink {
    ShardLink {
        address: format!("replay-{number}:7410"),
        alive: true,
        summary: Some(ShardSummary {
            shard: number,
            shard_incarnation: 7,
            rows: 29_950,
            priority_sum: 5000.0,
            inserted: 181_000,
            sampled: 460_000,
            insert_blocked_s: 12.0,
            writers_waiting: 0,
            newest_writer: 0,
        }),
        silent_s: 0.1,
        why: String::new(),
        restarts: 0,
    }
}

fn evaluation(updates: u64, mm: f64, best: bool) -> Evaluation {
    Evaluation {
        updates,
        weights_version: updates / 20 + 1,
        mean_error_mm: mm,
        mean_error_voxels: mm / 0.18,
        median_error_mm: mm * 0.8,
        baseline_error_mm: Some(3.16),
        seconds: 8.5,
        best,
    }
}

/// Four of four actors, two shards, an evaluator.
fn healthy() -> LearnerStatus {
    let hosts = ["actor-1/7", "actor-2/7", "actor-3/7", "actor-4/7"];
    LearnerStatus {
        run_id: "mouse".into(),
        updates: 2960,
        updates_total: 4000,
        weights_version: 149,
        actors: (0..).zip(hosts).map(|(n, host)| actor(n, host)).collect(),
        shards: vec![shard(0), shard(1)],
        samples_per_insert: 5.02,
        limiter: "open".into(),
        version: "0.1.0".into(),
        actors_expected: 4,
        updates_per_s: 9.6,
        env_steps_per_s: 1650.0,
        train_wait_share: 0.08,
        limited_share: 0.01,
        collate_share: 0.4,
        elapsed_s: 340.0,
        left_s: Some(108.3),
        over: false,
        weights_age_s: 1.1,
        evaluators: vec![EvaluatorStatus {
            host: "evaluator/7".into(),
            silent_s: 0.7,
            evaluating: Some(147),
        }],
        last_evaluation: Some(evaluation(2800, 0.41, false)),
        best_evaluation: Some(evaluation(2600, 0.38, true)),
        rows_by_weights_age: vec![350_000, 11_000, 900, 0, 0],
        min_rows: 3000,
        rows: 59_900,
    }
}

/// Two actors are missing, one is lost, one waits; a shard is unreachable.
fn troubled() -> LearnerStatus {
    let mut s = healthy();
    s.actors.truncate(2);
    s.actors[1].alive = false;
    let lost = s.actors[1].report.as_mut().unwrap();
    lost.set_state(ActorState::Lost);
    (s.actors[1].heartbeat_age_s, s.actors[1].env_steps_per_s) = (47.0, 0.0);
    s.actors[0].restarts = 3;
    s.actors[0].report.as_mut().unwrap().weights_version = 101;
    s.shards[1].alive = false;
    s.shards[1].silent_s = 93.0;
    s.shards[1].why = "tcp connect error: Connection refused".into();
    s.train_wait_share = 0.9;
    s.limited_share = 0.85;
    s.limiter = "sampling waits for inserts: 5 × 100 − 900 − 128 < −400 (tolerance 80 × 5)".into();
    s.updates_per_s = 0.9;
    s.left_s = Some(7300.0);
    s.evaluators.clear();
    (s.last_evaluation, s.best_evaluation) = (None, None);
    s
}

/// Nobody has joined yet.
fn beginning() -> LearnerStatus {
    let mut s = LearnerStatus {
        run_id: "mouse".into(),
        updates_total: 4000,
        weights_version: 1,
        limiter: "sampling waits for the first 3000 rows: 0 so far".into(),
        actors_expected: 4,
        min_rows: 3000,
        shards: vec![shard(0), shard(1)],
        rows_by_weights_age: vec![0; 5],
        ..LearnerStatus::default()
    };
    for link in &mut s.shards {
        (link.alive, link.summary, link.silent_s) = (false, None, 2.0);
        link.why = "dns error: failed to lookup address information".into();
    }
    s
}

#[test]
fn status_texts_match_their_snapshots() {
    let cases = [
        ("healthy", healthy()),
        ("troubled", troubled()),
        ("beginning", beginning()),
    ];
    let texts = cases
        .iter()
        .map(|(name, status)| format!("── {name}\n{}\n", as_text(status)));
    check_snapshot("status", &texts.collect::<String>());
    let json = serde_json::to_string_pretty(&as_json(&troubled()).unwrap()).unwrap();
    check_snapshot("status-json", &json);
}

#[test]
fn no_learner_is_one_clear_error() {
    let bench = Bench::new();
    let address = free_address();
    let line = |command: &str| command.replace("ADDRESS", &address);
    for command in [
        "status ADDRESS",
        "status ADDRESS --json --watch",
        "checkpoint list --from ADDRESS",
    ] {
        let words = ["does not respond", "is a learner running there"];
        bench.fail(&line(command), 5, &words);
    }
    let error = ["is not an address", "host:port is needed"];
    bench.fail("status http://", 5, &error);
}
