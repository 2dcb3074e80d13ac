//! How long each batch took, by operation.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer than filling shards takes.
pub const OPEN_END_S: f64 = 86_400.0;
/// Ticks per second of the times in /proc: fixed in Linux's user-space ABI.
const TICKS: f64 = 100.0;

/// What all tasks of this client did in a span of time. The load runs before
/// the span too, so that connections, caches and allocators are warm.
pub struct Measured {
    from: Instant,
    pub until: Instant,
    /// Processor seconds of this process when the load began.
    processor_s: f64,
    /// Latencies in microseconds, by operation.
    latencies: Mutex<BTreeMap<&'static str, Histogram<u64>>>,
}

impl Measured {
    /// A span that begins `warm_up_s` from now.
    pub fn new(warm_up_s: f64, length_s: f64) -> Result<Self> {
        let from = Instant::now() + Duration::try_from_secs_f64(warm_up_s)?;
        Ok(Self {
            from,
            until: from + Duration::try_from_secs_f64(length_s)?,
            processor_s: processor_s(),
            latencies: Mutex::default(),
        })
    }

    /// Counts a batch begun at `since` that is done now; batches done before
    /// or after the span do not count.
    pub fn done(&self, operation: &'static str, since: Instant) {
        let now = Instant::now();
        if now < self.from || now > self.until {
            return;
        }
        let micros = u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX);
        let mut latencies = self.latencies();
        let histogram = latencies.entry(operation).or_insert_with(|| {
            // Recording saturates at the upper bound, and a histogram without one starts at 2 ms.
            Histogram::new_with_bounds(1, (OPEN_END_S * 1e6) as u64, 3)
                .expect("bounds and digits are valid")
        });
        histogram.saturating_record(micros);
    }

    /// Processor seconds that this process used since the load began.
    pub fn processor_s(&self) -> f64 {
        processor_s() - self.processor_s
    }

    /// What is printed of each operation, with `rows` rows per batch.
    pub fn as_json(&self, end: Instant, rows: usize, histogram: bool) -> Value {
        let seconds = (end - self.from).as_secs_f64();
        let part = |latencies: &Histogram<u64>| {
            let rows = latencies.len() * rows as u64;
            let quantile_ms = |share| latencies.value_at_quantile(share) as f64 / 1e3;
            let mut json = json!({
                "rows": rows,
                "batches": latencies.len(),
                "seconds": seconds,
                "rows_per_s": rows as f64 / seconds,
                "p50_ms": quantile_ms(0.5),
                "p99_ms": quantile_ms(0.99),
                "p999_ms": quantile_ms(0.999),
                "max_ms": quantile_ms(1.0),
            });
            if histogram {
                let pairs = latencies.iter_recorded();
                let pairs = pairs.map(|v| [v.value_iterated_to(), v.count_at_value()]);
                json["histogram_us"] = pairs.map(Vec::from).collect();
            }
            json
        };
        let latencies = self.latencies();
        latencies.iter().map(|(&name, l)| (name, part(l))).collect()
    }

    fn latencies(&self) -> MutexGuard<'_, BTreeMap<&'static str, Histogram<u64>>> {
        let latencies = self.latencies.lock();
        latencies.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Processor seconds of this process so far; 0 if the system does not report it.
fn processor_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, may hold anything; the fields follow it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    // User and system time.
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / TICKS
}
