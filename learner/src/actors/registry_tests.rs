//! Leases, incarnations and slots of actors.

use super::*;
use proptest::prelude::*;

const S: fn(u64) -> Duration = Duration::from_secs;

fn settings() -> Settings {
    Settings {
        lease: S(10),
        epsilon_low: 0.02,
        epsilon_high: 0.3,
        first_incarnation: 100,
    }
}

fn beat(writer: Writer, env_steps: u64) -> Heartbeat {
    Heartbeat {
        writer,
        report: ActorReport {
            env_steps,
            rows_dropped: 1,
            weights_version: 3,
            weights_age_s: 0.5,
            state: ActorState::Acting.into(),
            exploration: 0.125,
            weights_latency_s: 0.25,
        },
        episodes: env_steps / 10,
        rows_sent: 0,
        blocked_s: 0.0,
        episode_error: 4.0,
        episode_errors: 1,
    }
}

#[test]
fn status_has_rates_restarts_and_the_age_of_weights() {
    let mut r = Registry::new(settings());
    let a = r.join(S(0), 4, "a").unwrap().writer;
    for (second, newest) in [(1, 3), (2, 4), (3, 7), (4, 30), (5, 90)] {
        let heartbeat = Heartbeat {
            rows_sent: second * 10,
            blocked_s: 0.25,
            ..beat(a, second * 100)
        };
        assert!(r.heartbeat(S(second), &heartbeat, newest, false));
    }
    // Weights version 3 is 0, 1, 4, 27 and 87 versions behind.
    assert_eq!(r.rows_by_weights_age(), [20, 0, 10, 10, 10]);
    let status = r.actors()[0].status(S(6));
    assert_eq!(
        (status.env_steps_per_s, status.blocked_share),
        (100.0, 0.25)
    );
    assert_eq!((status.restarts, status.heartbeat_age_s), (0, 1.0));
    // The actor's report is passed on unchanged.
    assert_eq!(status.report, Some(beat(a, 500).report));
    assert_eq!(r.totals(1).actors_blocked_share, 0.25);
    r.expire(S(20));
    let lost = r.actors()[0].status(S(20));
    assert_eq!(
        (lost.env_steps_per_s, lost.report().state()),
        (0.0, ActorState::Lost)
    );
    r.join(S(20), 4, "a again").unwrap();
    let again = r.actors()[0].status(S(20));
    let state = again.report().state();
    assert_eq!((again.restarts, state), (1, ActorState::Starting));
}

#[test]
fn ids_are_reused_and_incarnations_increase() {
    let mut r = Registry::new(settings());
    let a = r.join(S(0), 4, "a").unwrap().writer;
    let b = r.join(S(1), 4, "b").unwrap().writer;
    assert_eq!((a.actor, a.incarnation), (0, 100));
    assert_eq!((b.actor, b.incarnation), (1, 100));
    assert!(r.heartbeat(S(9), &beat(b, 50), 5, false));
    // a's lease expires after 10 s; b's is renewed.
    r.expire(S(11));
    assert_eq!(
        (r.alive(), r.actors()[0].alive, r.actors()[1].alive),
        (1, false, true)
    );
    assert!(!r.heartbeat(S(12), &beat(a, 70), 5, false), "lease expired");
    let c = r.join(S(12), 4, "c").unwrap().writer;
    assert_eq!((c.actor, c.incarnation), (0, 101));
    assert!(
        !r.heartbeat(S(12), &beat(a, 70), 5, false),
        "an earlier incarnation"
    );
    assert!(r.heartbeat(S(12), &beat(c, 5), 5, false));
    let unknown = Writer {
        actor: 9,
        incarnation: 1,
    };
    assert!(!r.heartbeat(S(12), &beat(unknown, 0), 5, false));
    assert_eq!(r.totals(0).env_steps, 55);
}

/// An actor that left is not expected; a lost one is, until its place is taken.
#[test]
fn an_actor_that_left_is_no_longer_expected() {
    let mut r = Registry::new(settings());
    let [a, b, c] = ["a", "b", "c"].map(|host| r.join(S(0), 4, host).unwrap().writer);
    let mut left = beat(a, 40);
    left.report.set_state(ActorState::Left);
    assert!(r.heartbeat(S(5), &left, 5, false));
    assert_eq!((r.alive(), r.lost(), r.present()), (2, 0, 2));
    // Its counts remain, and its heartbeats are refused.
    assert_eq!(r.totals(0).env_steps, 40);
    assert!(!r.heartbeat(S(6), &beat(a, 50), 5, false));
    assert!(r.heartbeat(S(6), &beat(c, 7), 5, false));
    r.expire(S(11));
    assert_eq!((r.alive(), r.lost(), r.present()), (1, 1, 2));
    // A new actor takes the lost one's place first, as its next incarnation.
    let d = r.join(S(12), 4, "d").unwrap().writer;
    assert_eq!((d.actor, d.incarnation), (b.actor, 101));
    assert_eq!(r.actors()[usize::from(b.actor)].restarts, 1);
    // Then that of the one that left, as a new actor.
    let e = r.join(S(12), 4, "e").unwrap().writer;
    assert_eq!((e.actor, e.incarnation), (a.actor, 101));
    let e = &r.actors()[usize::from(a.actor)];
    assert_eq!((e.restarts, e.left), (0, false));
    assert_eq!((r.alive(), r.lost(), r.present()), (3, 0, 3));
    assert_eq!(r.totals(0).env_steps, 47);
}

/// A process that restarts within its lease gets another id; the old one is not counted as lost.
/// The clock of this learner is behind the clock of the learner before it.
#[test]
fn incarnations_are_above_those_that_a_shard_knows() {
    let mut r = Registry::new(settings());
    let a = r.join(S(0), 1, "a").unwrap().writer;
    assert_eq!((a.incarnation, r.newest_incarnation()), (100, 100));
    r.later_than(3700);
    let b = r.join(S(1), 1, "b").unwrap().writer;
    assert_eq!((b.actor, b.incarnation), (1, 3701));
    // Its own ones do not lower them.
    r.later_than(101);
    assert!(r.heartbeat(S(11), &beat(b, 1), 1, false));
    let c = r.join(S(12), 1, "c").unwrap().writer;
    assert_eq!(
        (c.actor, c.incarnation),
        (0, 3701),
        "in the lost one's place"
    );
    assert_eq!(r.newest_incarnation(), 3701);
    // An actor that claims the last numbers does not use up those of the others.
    r.later_than(u32::MAX);
    let d = r.join(S(13), 1, "d").unwrap().writer;
    assert_eq!((d.actor, d.incarnation), (2, 3701));
}

#[test]
fn an_incarnation_whose_successor_joined_is_not_expected() {
    let mut r = Registry::new(settings());
    let a = r.join(S(0), 4, "lab/actor-0").unwrap().writer;
    let b = r.join(S(0), 4, "lab/actor-1").unwrap().writer;
    assert!(r.heartbeat(S(4), &beat(a, 1), 5, false));
    assert!(r.heartbeat(S(4), &beat(b, 1), 5, false));
    let again = r.join(S(6), 4, "lab/actor-0").unwrap().writer;
    assert_eq!((again.actor, r.present()), (2, 3));
    assert!(r.heartbeat(S(15), &beat(again, 1), 5, false));
    // Both leases expire at 14 s: actor-0 is back, actor-1 is not.
    r.expire(S(15));
    assert_eq!((r.alive(), r.lost(), r.present()), (1, 1, 2));
    assert!(r.actors()[0].left && !r.actors()[1].left);
    assert_eq!(r.actors()[2].restarts, 1);
}

/// Several actors of one process share a name; an actor that joined before another one was
/// lost does not replace it.
#[test]
fn an_older_actor_of_the_same_host_replaces_none() {
    let mut r = Registry::new(settings());
    let [a, b] = [S(0), S(1)].map(|at| r.join(at, 4, "lab/7").unwrap().writer);
    assert!(r.heartbeat(S(4), &beat(a, 1), 5, false));
    assert!(r.heartbeat(S(8), &beat(b, 1), 5, false));
    r.expire(S(15));
    assert_eq!((r.alive(), r.lost(), r.present()), (1, 1, 2));
}

#[test]
fn totals_include_earlier_incarnations() {
    let mut r = Registry::new(settings()).after(5);
    let a = r.join(S(0), 1, "a").unwrap().writer;
    assert!(r.heartbeat(S(1), &beat(a, 100), 5, false));
    // A heartbeat that arrives late does not lower the count.
    assert!(r.heartbeat(S(1), &beat(a, 90), 5, false));
    let b = r.join(S(20), 1, "b").unwrap().writer;
    assert!(r.heartbeat(S(21), &beat(b, 30), 5, false));
    let totals = r.totals(1);
    assert_eq!(
        (totals.env_steps, totals.episodes, totals.dropped_rows),
        (130, 18, 2)
    );
    assert_eq!(totals.episode_error, Some(4.0));
    let worse = Heartbeat {
        episode_error: 6.0,
        ..beat(b, 30)
    };
    assert!(r.heartbeat(S(21), &worse, 5, false));
    // Over the episodes since the last totals; the previous mean if none finished.
    let again = [r.totals(1).episode_error, r.totals(1).episode_error];
    assert_eq!(again, [Some(6.0), Some(6.0)]);
    assert!(!r.stop_sent_to_all());
    assert!(r.heartbeat(S(22), &beat(b, 30), 5, true));
    assert!(r.stop_sent_to_all());
}

#[test]
fn exploration_stays_in_its_range() {
    let mut r = Registry::new(settings());
    let slots = r.join(S(0), 32, "a").unwrap().exploration;
    assert_eq!(slots.len(), 32);
    assert!(slots.iter().all(|e| (0.02..=0.3).contains(e)));
    let (mut flat, mut from_zero) = (settings(), settings());
    (flat.epsilon_low, flat.epsilon_high) = (0.1, 0.1);
    assert!((epsilon(&flat, 7) - 0.1).abs() < 1e-6);
    from_zero.epsilon_low = 0.0;
    assert!((0..100).all(|i| (0.0..=0.3).contains(&epsilon(&from_zero, i))));
}

proptest! {
    /// For any number of actors and slots: each quarter of the (geometric) range holds
    /// about a quarter of the slots.
    #[test]
    fn exploration_is_spread_evenly_for_any_number_of_actors(actors in 1_usize..20, slots in 1_usize..40) {
        let mut r = Registry::new(settings());
        let all: Vec<f32> =
            (0..actors).flat_map(|_| r.join(S(0), slots, "").unwrap().exploration).collect();
        let mut quarters = [0_usize; 4];
        for e in &all {
            let share = (e / 0.02).ln() / (0.3_f32 / 0.02).ln();
            quarters[((share * 4.0) as usize).min(3)] += 1;
        }
        for q in quarters {
            prop_assert!(q.abs_diff(all.len() / 4) <= 2 + all.len() / 20, "{quarters:?}");
        }
    }
}
