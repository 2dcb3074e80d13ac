//! Finds a run's bottleneck and suggests a remedy.

use proto::messages::status::{ActorState, ActorStatus, LearnerStatus, ShardLink};
use serde::Serialize;

/// A side that waits for at least this share of the time is delayed.
const DELAYED: f64 = 0.3;
/// A thread that works for at least this share of the time is busy.
const BUSY: f64 = 0.8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Rows arrive too slowly.
    Actors,
    /// Rows arrive faster than the learner trains on them.
    Learner,
    /// Both sides wait for each other.
    Limiter,
    /// One shard is unreachable, or all of them.
    Shards,
    /// No side waits much.
    Nobody,
    Over,
}

impl Limit {
    /// A word for display.
    pub fn word(self) -> &'static str {
        match self {
            Self::Actors => "actors",
            Self::Learner => "learner",
            Self::Limiter => "limiter",
            Self::Shards => "shards",
            Self::Nobody => "nobody",
            Self::Over => "over",
        }
    }
}

/// A run's bottleneck, the evidence, and a remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bottleneck {
    pub limit: Limit,
    /// The evidence, with numbers.
    pub why: String,
    pub advice: String,
}

fn new(limit: Limit, why: String, advice: impl Into<String>) -> Bottleneck {
    Bottleneck {
        limit,
        why,
        advice: advice.into(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// The bottleneck of a run with this status.
pub fn bottleneck(s: &LearnerStatus) -> Bottleneck {
    if s.over {
        let why = format!("{} of {} updates are done", s.updates, s.updates_total);
        return new(Limit::Over, why, "nothing to do: the learner ends");
    }
    unreachable_shards(s)
        .or_else(|| no_actors(s))
        .or_else(|| too_few_rows(s))
        .unwrap_or_else(|| waits(s))
}

/// All shards are unreachable, or one without which the limiter blocks sampling.
fn unreachable_shards(s: &LearnerStatus) -> Option<Bottleneck> {
    let lost: Vec<&ShardLink> = s.shards.iter().filter(|l| !l.alive).collect();
    let (count, all, first) = (lost.len(), s.shards.len(), &lost.first()?.address);
    let blocked = count == all || s.limiter.contains("the live shards hold");
    let idle = s.updates_per_s <= 0.0 && s.train_wait_share > BUSY;
    (blocked || idle).then(|| {
        let longest = lost.iter().map(|l| l.silent_s).fold(0.0, f64::max);
        let names: Vec<&str> = lost.iter().map(|l| l.address.as_str()).collect();
        let names = names.join(", ");
        let why =
            format!("{count} of {all} shards have not responded for up to {longest:.0} s: {names}");
        let advice = format!("see why: `replay-server status --address {first}`");
        new(Limit::Shards, why, advice)
    })
}

fn live(s: &LearnerStatus) -> impl Iterator<Item = &ActorStatus> {
    s.actors.iter().filter(|a| a.alive)
}

fn no_actors(s: &LearnerStatus) -> Option<Bottleneck> {
    let (joined, expected) = (live(s).count(), s.actors_expected);
    if joined == 0 {
        let why = match expected {
            0 => "no actor has joined".to_owned(),
            _ => format!("0 of {expected} actors have joined"),
        };
        let advice = "start actors, or see in their logs why they cannot join";
        return Some(new(Limit::Actors, why, advice));
    }
    let stale = live(s).filter(|a| a.report().state() == ActorState::Stale);
    let stale = stale.count();
    (stale * 2 > joined).then(|| {
        let why = format!("{stale} of {joined} actors wait for newer weights");
        let advice = "the weights do not reach them: see their logs, and actor.max_staleness";
        new(Limit::Actors, why, advice)
    })
}

/// Before the first update.
fn too_few_rows(s: &LearnerStatus) -> Option<Bottleneck> {
    (s.limiter.starts_with("sampling waits for the first")).then(|| {
        let steps = s.env_steps_per_s;
        let why = format!(
            "the first {} rows are being collected: {} so far, {steps:.0} environment steps/s",
            s.min_rows, s.rows
        );
        let advice = "wait; with more actors or a smaller replay.min_rows training begins sooner";
        new(Limit::Actors, why, advice)
    })
}

/// Which side waits for the other.
fn waits(s: &LearnerStatus) -> Bottleneck {
    let count = live(s).count().max(1) as f64;
    let blocked = live(s).map(|a| a.blocked_share).sum::<f64>() / count;
    let limited = s.limited_share > DELAYED || s.limiter.starts_with("sampling waits");
    let (learner_waits, actors_wait) = (s.train_wait_share > DELAYED, blocked > DELAYED);
    let (learner, actors) = (percent(s.train_wait_share), percent(blocked));
    let (busy, rate, spi) = (
        percent(s.collate_share),
        s.updates_per_s,
        s.samples_per_insert,
    );
    let waits = format!("the learner waits {learner} of its time");
    let (limit, why, advice) = match (learner_waits, actors_wait) {
        (true, true) if limited => (
            Limit::Limiter,
            format!("{waits}, actors {actors}, at {spi:.1} samples per insert"),
            "let the two drift further apart: raise replay.error_buffer",
        ),
        (true, _) if limited => {
            let why = format!("{waits} for rows, at {spi:.1} samples per insert");
            return new(Limit::Actors, why, too_slow(s));
        }
        (true, _) if s.collate_share > BUSY => (
            Limit::Learner,
            format!("rendering is busy {busy} of the time, and training waits {learner} for it"),
            "give the learner another core, or a GPU that renders (learner.device)",
        ),
        (true, _) => (
            Limit::Shards,
            format!("training waits {learner} of its time for batches, though the limiter is open"),
            "shards or their network are slow: `replay-server status`, learner.prefetch",
        ),
        (false, true) => (
            Limit::Learner,
            format!(
                "actors wait {actors} of their time: they produce more rows than {rate:.1} updates/s use"
            ),
            "fewer actors would do; a GPU, or a smaller replay.samples_per_insert, uses more rows",
        ),
        (false, false) => (
            Limit::Nobody,
            format!("{waits}, actors {actors}"),
            "actors and learner are balanced",
        ),
    };
    new(limit, why, advice)
}

fn too_slow(s: &LearnerStatus) -> String {
    let joined = u32::try_from(live(s).count()).unwrap_or(u32::MAX);
    let expected = s.actors_expected;
    if joined < expected {
        let missing = expected - joined;
        return format!("{missing} of {expected} actors are missing: start them");
    }
    "add actors or cores for them; a larger replay.samples_per_insert needs fewer rows".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::messages::status::ActorReport;

    fn run(change: impl FnOnce(&mut LearnerStatus)) -> LearnerStatus {
        let mut report = ActorReport::default();
        report.set_state(ActorState::Acting);
        let actor = ActorStatus {
            alive: true,
            report: Some(report),
            ..ActorStatus::default()
        };
        let shard = ShardLink {
            address: "replay-0:7410".into(),
            alive: true,
            ..ShardLink::default()
        };
        let mut status = LearnerStatus {
            updates: 100,
            updates_total: 1000,
            limiter: "open".into(),
            actors: vec![actor; 2],
            shards: vec![shard; 2],
            actors_expected: 2,
            updates_per_s: 10.0,
            min_rows: 400,
            rows: 900,
            ..LearnerStatus::default()
        };
        change(&mut status);
        status
    }

    type Case = (&'static str, LearnerStatus, Limit, &'static str);

    fn check(cases: &[Case]) {
        for (what, status, limit, words) in cases {
            let found = bottleneck(status);
            assert_eq!(found.limit, *limit, "{what}: {found:?}");
            assert!(found.advice.contains(words), "{what}: {found:?}");
        }
    }

    fn blocked(s: &mut LearnerStatus, share: f64) {
        for actor in &mut s.actors {
            actor.blocked_share = share;
        }
    }

    fn wait(s: &mut LearnerStatus, wait: f64, limited: f64) {
        (s.train_wait_share, s.limited_share) = (wait, limited);
    }

    #[test]
    fn the_slower_side_is_the_bottleneck() {
        let missing = run(|s| {
            wait(s, 0.6, 0.5);
            s.actors_expected = 5;
        });
        let both = run(|s| {
            wait(s, 0.5, 0.5);
            blocked(s, 0.5);
        });
        let rendering = run(|s| {
            wait(s, 0.5, 0.0);
            s.collate_share = 0.95;
        });
        let shards = run(|s| wait(s, 0.5, 0.0));
        let slow = run(|s| wait(s, 0.6, 0.5));
        let held = run(|s| blocked(s, 0.5));
        check(&[
            ("balance", run(|_| ()), Limit::Nobody, "balanced"),
            ("slow actors", slow, Limit::Actors, "add actors"),
            ("missing actors", missing, Limit::Actors, "3 of 5 actors"),
            ("a slow learner", held, Limit::Learner, "fewer actors"),
            ("both", both, Limit::Limiter, "replay.error_buffer"),
            ("rendering", rendering, Limit::Learner, "GPU that renders"),
            ("slow shards", shards, Limit::Shards, "learner.prefetch"),
        ]);
    }

    #[test]
    fn unreachable_parts_are_the_bottleneck() {
        let needed = run(|s| {
            s.shards[1].alive = false;
            s.limiter = "sampling waits for rows: the live shards hold 3, 9 are needed".into();
        });
        let lost = run(|s| s.shards.iter_mut().for_each(|l| l.alive = false));
        let one = run(|s| s.shards[1].alive = false);
        let actors = run(|s| s.actors.clear());
        let stale = run(|s| {
            for actor in &mut s.actors {
                actor.report.as_mut().unwrap().set_state(ActorState::Stale);
            }
        });
        let status = "replay-server status";
        let first = "replay-server status --address replay-0:7410";
        check(&[
            ("one of two", one, Limit::Nobody, "balanced"),
            ("all shards", lost, Limit::Shards, first),
            ("one that is needed", needed, Limit::Shards, status),
            ("all actors", actors, Limit::Actors, "start actors"),
            ("weights", stale, Limit::Actors, "actor.max_staleness"),
        ]);
    }

    #[test]
    fn the_first_rows_and_the_end_are_reported() {
        let first = run(|s| s.limiter = "sampling waits for the first 400 rows: 9 so far".into());
        let end = run(|s| s.over = true);
        check(&[
            ("the first rows", first, Limit::Actors, "replay.min_rows"),
            ("the end", end, Limit::Over, "nothing"),
        ]);
    }
}
