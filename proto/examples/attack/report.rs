//! The figures of each attack, and whether they hold.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::honest::Calls;

/// A service may grow by this.
const GROWTH_MB: f64 = 256.0;
/// A share of honest calls, and how long each may take.
const SHARE: f64 = 0.99;
const WITHIN_MS: f64 = 1000.0;
/// All services together, in one attack.
const LOG_BYTES: u64 = 1 << 20;

/// Of one service, in MB.
#[derive(Debug)]
pub struct Memory {
    pub service: &'static str,
    /// Before the first attack.
    pub idle: f64,
    /// The most during the attack.
    pub peak: f64,
}

/// What was seen during one attack.
#[derive(Debug)]
pub struct Round {
    pub attack: &'static str,
    /// Addresses that attacked.
    pub hosts: u8,
    pub memory: Vec<Memory>,
    pub calls: Calls,
    /// Updates from the newest checkpoint before to the newest one after.
    pub checkpoints: u64,
    /// Rows that came to the disk.
    pub rows: u64,
    pub log_bytes: u64,
    /// What the attack counted; `wrong…` must not happen.
    pub counts: BTreeMap<&'static str, u64>,
    /// Errors in the logs, and others.
    pub troubles: Vec<String>,
}

impl Round {
    /// What does not hold.
    fn failures(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        for Memory {
            service,
            idle,
            peak,
        } in &self.memory
        {
            let grown = peak - idle;
            check(
                grown <= GROWTH_MB,
                format!("{service} grew by {grown:.0} MB"),
            );
        }
        check(self.checkpoints > 0, "no checkpoint was written".into());
        check(self.rows > 0, "no row came to the disk".into());
        let log = self.log_bytes;
        check(log <= LOG_BYTES, format!("{log} bytes of logs"));
        for trouble in &self.troubles {
            check(false, trouble.clone());
        }
        for (what, times) in self
            .counts
            .iter()
            .filter(|(what, _)| what.starts_with("wrong"))
        {
            check(false, format!("{what}: {times}"));
        }
        // Floods from many hosts may keep others waiting (docs/security.md).
        if self.hosts <= 1 {
            let quantile = self.calls.quantile_ms(SHARE);
            check(
                quantile <= WITHIN_MS,
                format!("{SHARE} of honest calls took up to {quantile:.0} ms"),
            );
            let (failed, first) = (self.calls.failed, &self.calls.failures);
            check(
                failed == 0,
                format!("{failed} honest calls failed: {first:?}"),
            );
        }
        failures
    }

    fn as_json(&mut self) -> Value {
        let memory = self.memory.iter().map(|m| {
            let figures =
                json!({"idle_mb": m.idle, "peak_mb": m.peak, "growth_mb": m.peak - m.idle});
            (m.service.to_owned(), figures)
        });
        let memory: serde_json::Map<_, _> = memory.collect();
        json!({
            "attack": self.attack,
            "hosts": self.hosts,
            "memory": memory,
            "honest": {
                "calls": self.calls.count(),
                "failed": self.calls.failed,
                "failures": self.calls.failures,
                "p50_ms": self.calls.quantile_ms(0.5),
                "p99_ms": self.calls.quantile_ms(0.99),
                "max_ms": self.calls.quantile_ms(1.0),
            },
            "checkpoint_updates": self.checkpoints,
            "rows": self.rows,
            "log_bytes": self.log_bytes,
            "counts": self.counts,
            "failures": self.failures(),
        })
    }

    fn print(&mut self) {
        let grown: Vec<_> = self
            .memory
            .iter()
            .map(|m| format!("{:+.0}", m.peak - m.idle))
            .collect();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| self.calls.quantile_ms(share));
        let failures = self.failures();
        println!(
            "{:<20} {:>15} {:>6} {:>6} {p50:>7.1} {p99:>7.1} {max:>7.1} {:>7} {:>7} {:>7}  {}",
            self.attack,
            grown.join(" "),
            self.calls.count(),
            self.calls.failed,
            self.checkpoints,
            self.rows,
            self.log_bytes >> 10,
            if failures.is_empty() {
                "holds"
            } else {
                "DOES NOT HOLD"
            },
        );
        for (what, times) in &self.counts {
            println!("    {what}: {times}");
        }
        for why in failures {
            println!("    ! {why}");
        }
        // Of attacks beside which honest clients may be kept waiting.
        for why in self.calls.failures.iter().filter(|_| self.hosts > 1) {
            println!("    failed: {why}");
        }
    }
}

/// All attacks, and the stops after them.
#[derive(Debug, Default)]
pub struct Report {
    rounds: Vec<Round>,
    stops: Vec<(&'static str, &'static str, Option<f64>)>,
    failed: bool,
}

impl Report {
    pub fn add(&mut self, mut round: Round) {
        self.failed |= !round.failures().is_empty();
        self.rounds.push(round);
    }

    /// A service that was stopped beside an attack, and the seconds that it took if it ended well.
    pub fn stopped(&mut self, service: &'static str, beside: &'static str, took: Option<f64>) {
        self.failed |= took.is_none();
        self.stops.push((service, beside, took));
    }

    pub fn passed(&self) -> bool {
        !self.failed
    }

    pub fn print(&mut self, as_json: bool) {
        let passed = self.passed();
        if as_json {
            let rounds: Vec<_> = self.rounds.iter_mut().map(Round::as_json).collect();
            let stops = self.stops.iter().map(|(service, beside, took)| {
                json!({"service": service, "beside": beside, "seconds": took})
            });
            let stops: Vec<_> = stops.collect();
            println!(
                "{}",
                json!({"rounds": rounds, "stops": stops, "passed": passed})
            );
            return;
        }
        if let Some(quiet) = self.rounds.first() {
            let idle = quiet
                .memory
                .iter()
                .map(|m| format!("{} {:.0} MB", m.service, m.peak));
            println!(
                "peak without an attack: {}",
                idle.collect::<Vec<_>>().join(", ")
            );
        }
        println!(
            "{:<20} {:>15} {:>6} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}",
            "attack",
            "growth MB",
            "calls",
            "failed",
            "p50 ms",
            "p99 ms",
            "max ms",
            "updates",
            "rows",
            "log KiB"
        );
        self.rounds.iter_mut().for_each(Round::print);
        for (service, beside, took) in &self.stops {
            match took {
                Some(took) => println!("{service} stopped in {took:.1} s beside {beside}"),
                None => println!("! {service} did not stop well beside {beside}"),
            }
        }
        println!(
            "{}",
            if passed {
                "all holds"
            } else {
                "something does not hold"
            }
        );
    }
}
