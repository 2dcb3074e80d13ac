//! Scenarios with hand-computed numbers, and a simulation with failures of every part.

use super::*;
use proptest::prelude::*;

fn limits(spi: f64, tolerance: u64, min_rows: u64, batch: u64) -> Limits {
    Limits {
        samples_per_insert: spi,
        tolerance,
        min_rows,
        batch,
        batch_rows: 2,
        shards: 2,
    }
}

fn report(incarnation: u64, rows: u64, inserted: u64) -> Report {
    Report {
        incarnation,
        rows,
        inserted,
    }
}

/// Both shards alive and empty, in their first incarnation.
fn limiter(limits: Limits) -> RateLimiter {
    let mut limiter = RateLimiter::new(limits).unwrap();
    (0..limits.shards).for_each(|shard| limiter.observe(shard, report(1, 0, 0)));
    limiter
}

#[test]
fn a_script_of_inserts_and_samples() {
    // SPI 2, T 10 (error within ±20), 6 rows first, batches of 4.
    let mut l = limiter(limits(2.0, 10, 6, 4));
    assert!(!l.try_sample(4));
    assert_eq!(l.allowance(), 10);
    assert_eq!(
        (l.grant(0), l.grant(1), l.grant(0)),
        ((1, 5), (1, 5), (1, 5))
    );
    l.observe(0, report(1, 5, 5));
    assert!(!l.try_sample(4), "5 of 6 rows");
    assert_eq!(
        l.why_blocked().unwrap(),
        "sampling waits for the first 6 rows: 5 so far"
    );
    l.observe(1, report(1, 1, 1));
    // error 6 · 2 − 0 = 12; (20 − 12) / 2 = 4 rows, 4 of them outstanding on shard 1.
    assert_eq!((l.error(), l.allowance(), l.grant(0)), (12.0, 4, (1, 5)));
    // 12 − 8 · 4 = −20 is the last allowed value.
    for sampled in 1..=8_u64 {
        assert!(l.try_sample(4), "{sampled}");
    }
    assert!(!l.try_sample(4));
    assert_eq!(
        l.why_blocked().unwrap(),
        "sampling waits for inserts: 6 inserts × 2 − 32 samples = -20 − 4 < −20 (tolerance 10 × 2)"
    );
    // (20 + 20) / 2 = 20 rows: 10 each; shard 1 has 4 of them.
    assert_eq!(
        (l.allowance(), l.grant(0), l.grant(1)),
        (20, (1, 15), (1, 11))
    );
    l.observe(0, report(1, 15, 15));
    l.observe(1, report(1, 11, 11));
    assert_eq!((l.error(), l.allowance()), (20.0, 0));
    assert_eq!(
        l.why_blocked().unwrap(),
        "inserting waits for samples: 26 inserts × 2 − 32 samples = 20 leaves no row below 20 (tolerance 10 × 2)"
    );
    assert_eq!((l.grant(0), l.grant(1)), ((1, 15), (1, 11)));
    assert!(l.try_sample(2));
    assert_eq!((l.grant(0), l.grant(1)), ((1, 16), (1, 11)));
    l.unsample(2);
    assert_eq!((l.sampled(), l.inserted()), (32, 26));
}

#[test]
fn the_credit_of_an_unreachable_shard_goes_to_the_others() {
    let mut l = limiter(limits(1.0, 10, 2, 1));
    assert_eq!((l.grant(0), l.grant(1)), ((1, 5), (1, 5)));
    l.observe(0, report(1, 5, 5));
    // 5 rows are allowed and granted to shard 1, which does not respond.
    assert_eq!((l.allowance(), l.grant(0)), (5, (1, 5)));
    l.lost(1);
    assert_eq!(l.grant(0), (1, 8));
    // It returns in a new incarnation: its credit starts at zero.
    l.observe(1, report(2, 0, 0));
    assert_eq!(l.grant(1), (2, 2));
    l.observe(1, report(2, 2, 2));
    assert_eq!((l.inserted(), l.error()), (7, 7.0));
    // A late report of the earlier incarnation changes nothing.
    l.observe(1, report(1, 99, 99));
    assert_eq!((l.rows(), l.inserted()), (7, 7));
}

#[test]
fn lost_rows_are_refilled_without_a_burst_and_without_a_block() {
    let mut l = limiter(limits(4.0, 20, 100, 8));
    l.observe(0, report(1, 60, 60));
    l.observe(1, report(1, 60, 60));
    // Warm-up charges at most max(100, 20) rows: error 400, bound 80.
    assert_eq!((l.error(), l.allowance()), (400.0, 0));
    (0..50).for_each(|_| assert!(l.try_sample(8)));
    assert_eq!((l.error(), l.allowance()), (0.0, 20));
    // Shard 1 returns empty: 60 rows are left, sampling continues.
    l.lost(1);
    assert_eq!((l.rows(), l.allowance()), (60, 20 + 40));
    assert!(l.try_sample(8));
    l.unsample(8);
    l.observe(1, report(2, 0, 0));
    assert_eq!(l.grant(1), (2, 20));
    l.observe(1, report(2, 20, 20));
    assert_eq!(l.grant(1), (2, 40));
    l.observe(1, report(2, 30, 30));
    assert_eq!((l.error(), l.allowance(), l.rows()), (0.0, 20 + 10, 90));
    l.observe(1, report(2, 55, 55));
    // 10 of the 25 are refills, 15 are charged.
    assert_eq!((l.error(), l.allowance(), l.rows()), (60.0, 5, 115));
    assert_eq!(l.inserted(), 175);
}

/// `min_rows` exceeds the capacity of the remaining shard.
#[test]
fn shards_too_small_for_a_refill_continue_at_the_ratio() {
    let mut w = World::new(limits(4.0, 20, 100, 8), 60);
    w.fair_rounds(200, None);
    w.shards[1].alive = false;
    let (inserted, sampled) = (w.limiter.inserted(), w.limiter.sampled());
    for _ in 0..1000 {
        w.contact(0);
        w.contact(1);
        w.insert(0, 2);
        w.contact(0);
        let _ = w.limiter.try_sample(8);
    }
    assert_eq!(w.limiter.rows(), 60);
    let (inserted, sampled) = (
        w.limiter.inserted() - inserted,
        w.limiter.sampled() - sampled,
    );
    assert!(inserted > 500, "{inserted} rows: inserts are blocked");
    let drift = as_f64(sampled) - as_f64(inserted) * 4.0;
    // Twice the tolerance of 20 rows, and one batch.
    assert!(
        drift.abs() <= 168.0,
        "{inserted} inserted, {sampled} sampled"
    );
    // An empty shard returns: the 40 missing rows are not charged.
    w.shards[1] = Shard::up(FIRST + 1);
    let refilled = w.limiter.state().refilled;
    w.fair_rounds(200, None);
    let refilled = w.limiter.state().refilled - refilled;
    assert!((40..=44).contains(&refilled), "{refilled} refilled");
    assert!(w.limiter.error().abs() <= 88.0, "{}", w.limiter.error());
}

#[test]
fn a_new_incarnation_is_charged_from_its_first_report_on() {
    let mut l = RateLimiter::new(limits(5.0, 20, 100, 8)).unwrap();
    l.observe(0, report(7, 5000, 150_000));
    assert_eq!((l.error(), l.inserted()), (0.0, 0));
    assert!(l.try_sample(8));
    l.observe(0, report(7, 5000, 150_003));
    assert_eq!(l.inserted(), 3);
    // The learner restarts: inserts in the meantime count.
    let mut later = RateLimiter::new(limits(5.0, 20, 100, 8)).unwrap();
    let saved = serde_json::to_string(l.state()).unwrap();
    later.restore(&serde_json::from_str(&saved).unwrap());
    assert_eq!((later.rows(), later.sampled()), (0, 8));
    later.observe(0, report(7, 5000, 150_010));
    assert_eq!((later.inserted(), later.error()), (10, 42.0));
    // Another number of shards: only the totals are kept.
    let mut more_shards = limits(5.0, 20, 100, 8);
    more_shards.shards = 3;
    let mut wider = RateLimiter::new(more_shards).unwrap();
    wider.restore(l.state());
    assert_eq!(
        (wider.inserted(), wider.sampled(), wider.grant(2)),
        (3, 8, (0, 0))
    );
}

#[test]
fn reordered_shards_get_credit_from_a_resumed_learner() {
    let mut before = limiter(limits(1.0, 10, 2, 1));
    before.observe(0, report(10, 4, 4));
    before.observe(1, report(20, 3, 3));
    let mut l = RateLimiter::new(before.limits).unwrap();
    let saved = serde_json::to_string(before.state()).unwrap();
    l.restore(&serde_json::from_str(&saved).unwrap());
    // The configuration now lists them in the reverse order.
    l.observe(0, report(20, 3, 3));
    l.observe(1, report(10, 4, 4));
    assert_eq!((l.rows(), l.allowance()), (7, 10));
    assert_eq!((l.grant(0), l.grant(1)), ((20, 8), (10, 9)));
    l.observe(1, report(10, 5, 5));
    assert_eq!(l.inserted(), before.inserted() + 1);
    // Late reports of earlier incarnations are still ignored.
    l.observe(0, report(19, 99, 99));
    assert_eq!(l.rows(), 8);
}

/// The learner noticed that it was gone.
#[test]
fn a_lost_shard_that_returns_with_a_lower_incarnation_gets_credit_at_once() {
    let mut l = limiter(limits(1.0, 10, 2, 1));
    l.observe(0, report(100, 0, 0));
    l.observe(0, report(100, 5, 5));
    l.lost(0);
    l.observe(0, report(99, 0, 0));
    let (incarnation, limit) = l.grant(0);
    assert_eq!((incarnation, limit > 0), (99, true));
    l.observe(0, report(99, 2, 2));
    assert_eq!(l.inserted(), 7);
}

/// It restarted between two calls of the learner, none of which failed.
#[test]
fn a_shard_that_keeps_reporting_a_lower_incarnation_gets_credit() {
    let mut l = limiter(limits(1.0, 10, 2, 1));
    l.observe(0, report(100, 0, 0));
    l.observe(0, report(100, 5, 5));
    // Late reports come singly, between those of the incarnation that is up.
    for _ in 0..10 {
        l.observe(0, report(99, 3, 3));
        l.observe(0, report(98, 3, 3));
        l.observe(0, report(99, 3, 3));
        l.observe(0, report(100, 5, 5));
        assert_eq!((l.grant(0).0, l.inserted()), (100, 5));
    }
    for _ in 0..LATE_REPORTS {
        assert_eq!(l.grant(0).0, 100);
        l.observe(0, report(99, 0, 0));
    }
    let (incarnation, limit) = l.grant(0);
    assert_eq!((incarnation, limit > 0), (99, true));
}

#[test]
fn a_range_that_would_deadlock_is_refused_with_its_numbers() {
    let narrow = Limits {
        batch_rows: 256,
        ..limits(4.0, 200, 1, 128)
    };
    // 2 × (256 + 32 + 2) = 580 > 400.
    assert_eq!(
        RateLimiter::new(narrow).unwrap_err().to_string(),
        "replay.error_buffer = 200 rows would deadlock: twice the tolerance must hold 580 rows, shards (2) × \
         (actor.batch_rows 256 + learner.batch 128 / replay.samples_per_insert 4 + 2); use replay.error_buffer = 290 or more"
    );
    let with = |tolerance, shards| {
        RateLimiter::new(Limits {
            tolerance,
            shards,
            ..narrow
        })
    };
    assert!(with(290, 2).is_ok());
    assert_eq!(with(200, 0).unwrap_err(), RateLimiterError::NoShards);
    let defaults = Limits::new(&Config::defaults().unwrap(), 2);
    assert!(RateLimiter::new(defaults).is_ok());
}

/// A shard as the replay server implements it: accepts a batch whole or not at all,
/// drops the oldest rows first.
#[derive(Clone, Copy, Default)]
struct Shard {
    alive: bool,
    reachable: bool,
    incarnation: u64,
    rows: u64,
    inserted: u64,
    limit: u64,
}

impl Shard {
    /// Up and empty.
    fn up(incarnation: u64) -> Self {
        Self {
            alive: true,
            reachable: true,
            incarnation,
            ..Self::default()
        }
    }
}

/// The incarnation of shards that never restarted.
const FIRST: u64 = 1_000_000;

struct World {
    limits: Limits,
    limiter: RateLimiter,
    shards: Vec<Shard>,
    capacity: u64,
    unaccounted: u64,
    starts: u64,
}

impl World {
    fn new(limits: Limits, capacity: u64) -> Self {
        let shard = Shard::up(FIRST);
        let limiter = RateLimiter::new(limits).unwrap();
        Self {
            limits,
            limiter,
            shards: vec![shard; limits.shards],
            capacity,
            unaccounted: 0,
            starts: 0,
        }
    }

    fn contact(&mut self, k: usize) {
        let (incarnation, limit) = self.limiter.grant(k);
        let s = &mut self.shards[k];
        if !(s.alive && s.reachable) {
            self.limiter.lost(k);
            return;
        }
        if incarnation == s.incarnation {
            s.limit = s.limit.max(limit);
        }
        let report = report(s.incarnation, s.rows, s.inserted);
        self.limiter.observe(k, report);
    }

    fn insert(&mut self, k: usize, rows: u64) {
        let s = &mut self.shards[k];
        if s.alive && s.inserted + rows <= s.limit {
            s.inserted += rows;
            s.rows = (s.rows + rows).min(self.capacity);
        }
    }

    fn step(&mut self, event: u8, k: usize, rows: u64) {
        let k = k % self.shards.len();
        let batch = self.limits.batch;
        match event {
            0..=99 => self.contact(k),
            100..=199 => self.insert(k, 1 + rows % self.limits.batch_rows),
            200..=240 => {
                let _ = self.limiter.try_sample(batch);
            }
            // A crash, with or without a disk, and a network failure.
            241..=244 => self.shards[k].alive = false,
            245..=247 => {
                let s = &mut self.shards[k];
                if s.reachable {
                    self.unaccounted += s.limit - s.inserted;
                }
                s.reachable = false;
            }
            _ => {
                let s = &mut self.shards[k];
                if !s.alive {
                    let kept = if rows.is_multiple_of(2) { 0 } else { s.rows };
                    // Clocks may step back; no incarnation is used twice.
                    self.starts += 1;
                    let back = (rows / 2).is_multiple_of(2);
                    *s = Shard {
                        incarnation: if back {
                            FIRST - self.starts
                        } else {
                            FIRST + self.starts
                        },
                        rows: kept,
                        ..Shard::default()
                    };
                }
                (s.alive, s.reachable) = (true, true);
            }
        }
    }

    /// All shards are up and all parties try: rows sampled until nothing changes.
    fn fair_rounds(&mut self, rounds: usize, only: Option<usize>) -> u64 {
        let (before, batch) = (self.limiter.sampled(), self.limits.batch);
        for _ in 0..rounds {
            for k in 0..self.shards.len() {
                self.step(255, k, 0);
                self.contact(k);
                if only.is_none_or(|o| o == k) {
                    self.insert(k, self.limits.batch_rows);
                }
                self.contact(k);
            }
            let _ = self.limiter.try_sample(batch);
        }
        self.limiter.sampled() - before
    }
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (
        0.1_f64..40.0,
        0_u64..300,
        1_u64..200,
        1_u64..60,
        1_u64..30,
        1_usize..5,
    )
        .prop_map(
            |(samples_per_insert, extra, min_rows, batch, batch_rows, shards)| {
                let mut limits = Limits {
                    samples_per_insert,
                    tolerance: 1,
                    min_rows,
                    batch,
                    batch_rows,
                    shards,
                };
                limits.tolerance = limits.range_min().div_ceil(2) + extra;
                limits
            },
        )
}

proptest! {
    #[test]
    fn failures_never_cause_a_deadlock_or_break_the_ratio(
        limits in any_limits(),
        events in prop::collection::vec((any::<u8>(), 0_usize..4, any::<u64>()), 0..600),
        lone_writer in any::<bool>(),
        spare in 0_u64..100,
    ) {
        let needed = limits.min_rows.max(limits.batch);
        // A lone writer fills one shard; else all together may just hold `min_rows`.
        let holders = if lone_writer { 1 } else { limits.shards as u64 };
        let mut w = World::new(limits, needed.div_ceil(holders) + spare);
        let spi = limits.samples_per_insert;
        for (event, k, rows) in events {
            w.step(event, k, rows);
            let error = w.limiter.error();
            prop_assert!(error >= -limits.bound() - 1e-6, "below: {error}");
            // Allowed above the tolerance: the rows of the warm-up, a refill made needless by
            // a returning shard, one batch each, and the inserts of disconnected shards.
            let least = limits.batch_rows * limits.shards as u64;
            let rows = limits.tolerance.max(limits.min_rows) + limits.min_rows + least + w.unaccounted;
            prop_assert!(error <= as_f64(rows) * spi + 1e-6, "above: {error}, {rows} rows × {spi}");
        }
        // Enough rounds to work off any error, then as many again.
        let settle = 4000;
        w.fair_rounds(settle, lone_writer.then_some(0));
        let more = w.fair_rounds(settle, lone_writer.then_some(0));
        prop_assert!(more > 0, "stuck: {:?} {:?}", w.limiter.why_blocked(), w.limiter);
    }

    /// With a tolerance that includes the one batch that each shard is granted first.
    #[test]
    fn without_failures_all_credit_stays_within_the_allowance(
        limits in any_limits(),
        events in prop::collection::vec((0_u8..=240, 0_usize..4, any::<u64>()), 0..400),
    ) {
        let tolerance = limits.tolerance + limits.batch_rows * limits.shards as u64;
        let mut w = World::new(Limits { min_rows: 1, tolerance, ..limits }, 1 << 40);
        (0..limits.shards).for_each(|k| w.contact(k));
        for (event, k, rows) in events {
            w.step(event, k, rows);
            let outstanding: u64 = w.limiter.state.accounts.iter().map(Account::outstanding).sum();
            let allowance = w.limiter.allowance();
            prop_assert!(outstanding <= allowance, "{outstanding} > {allowance}");
        }
    }
}
