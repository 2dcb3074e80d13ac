//! Finds a run's bottleneck and suggests a remedy.

use proto::messages::status::{ActorState, ActorStatus, LearnerStatus, ShardLink};
use serde::Serialize;

/// A side that waits for at least this share of the time is held up.
const HELD_UP: f64 = 0.3;
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
    #[must_use]
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
#[must_use]
pub fn bottleneck(s: &LearnerStatus) -> Bottleneck {
    if s.over {
        let why = format!("{} of {} updates are done", s.updates, s.updates_total);
        return new(Limit::Over, why, "nothing to do: the learner ends");
    }
    shards_away(s)
        .or_else(|| no_actors(s))
        .or_else(|| too_few_rows(s))
        .unwrap_or_else(|| waits(s))
}

/// All shards are unreachable, or one without which the limiter blocks sampling.
fn shards_away(s: &LearnerStatus) -> Option<Bottleneck> {
    let away: Vec<&ShardLink> = s.shards.iter().filter(|l| !l.alive).collect();
    let longest = away.iter().map(|l| l.silent_s).fold(0.0, f64::max);
    let names: Vec<&str> = away.iter().map(|l| l.address.as_str()).collect();
    let (count, names) = (away.len(), names.join(", "));
    if count == 0 {
        return None;
    }
    let stands = count == s.shards.len() || s.limiter.contains("the living shards hold");
    let idle = s.updates_per_s <= 0.0 && s.train_wait_share > BUSY;
    (stands || idle).then(|| {
        let why = format!(
            "{count} of {} shards do not answer for up to {longest:.0} s: {names}",
            s.shards.len()
        );
        let advice = format!(
            "see why: `replay-server status --address {}`",
            away[0].address
        );
        new(Limit::Shards, why, advice)
    })
}

fn living(s: &LearnerStatus) -> impl Iterator<Item = &ActorStatus> {
    s.actors.iter().filter(|a| a.alive)
}

fn no_actors(s: &LearnerStatus) -> Option<Bottleneck> {
    let (joined, expected) = (living(s).count(), s.actors_expected);
    if joined == 0 {
        let why = match expected {
            0 => "no actor has joined".to_owned(),
            _ => format!("0 of {expected} actors have joined"),
        };
        let advice = "start actors, or see in their logs why they cannot join";
        return Some(new(Limit::Actors, why, advice));
    }
    let stale = living(s)
        .filter(|a| a.report().state() == ActorState::Stale)
        .count();
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
            "the first {} rows are being gathered: {} so far, {steps:.0} environment steps/s",
            s.min_rows, s.rows
        );
        let advice = "wait; more actors or a smaller replay.min_rows begin sooner";
        new(Limit::Actors, why, advice)
    })
}

/// Which side waits for the other.
fn waits(s: &LearnerStatus) -> Bottleneck {
    #[expect(clippy::cast_precision_loss, reason = "a number of actors")]
    let count = living(s).count().max(1) as f64;
    let blocked = living(s).map(|a| a.blocked_share).sum::<f64>() / count;
    let limited = s.limited_share > HELD_UP || s.limiter.starts_with("sampling waits");
    let (starved, held) = (s.train_wait_share > HELD_UP, blocked > HELD_UP);
    let spi = s.samples_per_insert;
    match (starved, held) {
        (true, true) if limited => new(
            Limit::Limiter,
            format!(
                "the learner waits {} of its time, actors {}, at {spi:.1} samples per insert",
                percent(s.train_wait_share),
                percent(blocked)
            ),
            "let the two drift further apart: raise replay.error_buffer",
        ),
        (true, _) if limited => new(
            Limit::Actors,
            format!(
                "the learner waits {} of its time for rows, at {spi:.1} samples per insert",
                percent(s.train_wait_share)
            ),
            too_slow(s),
        ),
        (true, _) if s.collate_share > BUSY => new(
            Limit::Learner,
            format!(
                "its rendering works {} of the time, and training waits {} for it",
                percent(s.collate_share),
                percent(s.train_wait_share)
            ),
            "give the learner another core, or a GPU that renders (learner.device)",
        ),
        (true, _) => new(
            Limit::Shards,
            format!(
                "training waits {} of its time for batches, though the limiter is open",
                percent(s.train_wait_share)
            ),
            "shards or their network are slow: `replay-server status`, learner.prefetch",
        ),
        (false, true) => new(
            Limit::Learner,
            format!(
                "actors wait {} of their time: rows come faster than {:.1} updates/s use them",
                percent(blocked),
                s.updates_per_s
            ),
            "fewer actors would do; a GPU, or a smaller replay.samples_per_insert, uses more rows",
        ),
        (false, false) => new(
            Limit::Nobody,
            format!(
                "the learner waits {} of its time, actors {}",
                percent(s.train_wait_share),
                percent(blocked)
            ),
            "actors and learner are balanced",
        ),
    }
}

fn too_slow(s: &LearnerStatus) -> String {
    let joined = u32::try_from(living(s).count()).unwrap_or(u32::MAX);
    if joined < s.actors_expected {
        let missing = s.actors_expected - joined;
        return format!(
            "{missing} of {} actors are missing: start them",
            s.actors_expected
        );
    }
    "add actors or cores for them; a larger replay.samples_per_insert asks for fewer rows".into()
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
    fn the_side_that_the_other_waits_for_is_named() {
        let missing = |s: &mut LearnerStatus| {
            wait(s, 0.6, 0.5);
            s.actors_expected = 5;
        };
        let both = |s: &mut LearnerStatus| {
            wait(s, 0.5, 0.5);
            blocked(s, 0.5);
        };
        let rendering = |s: &mut LearnerStatus| {
            wait(s, 0.5, 0.0);
            s.collate_share = 0.95;
        };
        let slow = run(|s| wait(s, 0.6, 0.5));
        let held = run(|s| blocked(s, 0.5));
        check(&[
            ("balance", run(|_| ()), Limit::Nobody, "balanced"),
            ("slow actors", slow, Limit::Actors, "add actors"),
            (
                "missing actors",
                run(missing),
                Limit::Actors,
                "3 of 5 actors are missing",
            ),
            ("a slow learner", held, Limit::Learner, "fewer actors"),
            ("both", run(both), Limit::Limiter, "replay.error_buffer"),
            (
                "rendering",
                run(rendering),
                Limit::Learner,
                "GPU that renders",
            ),
            (
                "slow shards",
                run(|s| wait(s, 0.5, 0.0)),
                Limit::Shards,
                "learner.prefetch",
            ),
        ]);
    }

    #[test]
    fn whoever_is_away_is_named() {
        let needed = |s: &mut LearnerStatus| {
            s.shards[1].alive = false;
            s.limiter = "sampling waits for rows: the living shards hold 3, 9 are needed".into();
        };
        let gone = run(|s| s.shards.iter_mut().for_each(|l| l.alive = false));
        let one = run(|s| s.shards[1].alive = false);
        let stale = |s: &mut LearnerStatus| {
            for actor in &mut s.actors {
                actor.report.as_mut().unwrap().set_state(ActorState::Stale);
            }
        };
        check(&[
            ("one of two", one, Limit::Nobody, "balanced"),
            (
                "all shards",
                gone,
                Limit::Shards,
                "replay-server status --address replay-0:7410",
            ),
            (
                "one that is needed",
                run(needed),
                Limit::Shards,
                "replay-server status",
            ),
            (
                "all actors",
                run(|s| s.actors.clear()),
                Limit::Actors,
                "start actors",
            ),
            (
                "the way of the weights",
                run(stale),
                Limit::Actors,
                "actor.max_staleness",
            ),
        ]);
    }

    #[test]
    fn beginning_and_end_are_told_as_such() {
        let first = "sampling waits for the first 400 rows: 9 so far";
        check(&[
            (
                "the beginning",
                run(|s| s.limiter = first.into()),
                Limit::Actors,
                "replay.min_rows",
            ),
            ("the end", run(|s| s.over = true), Limit::Over, "nothing"),
        ]);
    }
}
