//! Rows per operation, and how long each batch took.

use crate::processor;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer than filling shards takes.
const OPEN_END: Duration = Duration::from_secs(86_400);

/// What all tasks of this client did in a span of time. The load runs before
/// the span too, so that connections, caches and allocators are warm.
#[derive(Debug)]
pub struct Measured {
    from: Instant,
    pub until: Instant,
    /// Processor seconds of this process when the load began.
    processor_s: f64,
    parts: Mutex<BTreeMap<&'static str, Part>>,
}

#[derive(Debug)]
struct Part {
    rows: u64,
    latencies_us: Histogram<u64>,
}

impl Measured {
    /// A span that begins `warm_up` from now.
    pub fn after(warm_up: Duration, length: Duration) -> Self {
        let from = Instant::now() + warm_up;
        Self {
            from,
            until: from + length,
            processor_s: processor::seconds(),
            parts: Mutex::default(),
        }
    }

    /// A span that begins now and lasts until [`Measured::end`].
    pub fn open() -> Self {
        Self::after(Duration::ZERO, OPEN_END)
    }

    /// The span ends now.
    pub fn end(&mut self) {
        self.until = Instant::now();
    }

    /// Counts a batch begun at `since` that is done now; batches done before
    /// or after the span do not count.
    pub fn done(&self, operation: &'static str, since: Instant, rows: usize) {
        let now = Instant::now();
        if now < self.from || now > self.until {
            return;
        }
        let micros = u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX);
        let mut parts = self.parts();
        let part = parts.entry(operation).or_insert_with(|| Part {
            rows: 0,
            // Recording saturates at the upper bound, and a histogram without one starts at 2 ms.
            latencies_us: Histogram::new_with_bounds(1, OPEN_END.as_micros() as u64, 3)
                .expect("bounds and digits are valid"),
        });
        part.rows += rows as u64;
        part.latencies_us.saturating_record(micros);
    }

    /// Processor seconds that this process used since the load began.
    pub fn processor_s(&self) -> f64 {
        processor::seconds() - self.processor_s
    }

    /// What is printed of each operation.
    pub fn as_json(&self, histogram: bool) -> serde_json::Value {
        let seconds = (self.until - self.from).as_secs_f64();
        let parts = self.parts();
        let of_part = |part: &Part| {
            let latencies = &part.latencies_us;
            let quantile_ms = |share| latencies.value_at_quantile(share) as f64 / 1e3;
            let mut json = serde_json::json!({
                "rows": part.rows,
                "batches": latencies.len(),
                "seconds": seconds,
                "rows_per_s": part.rows as f64 / seconds,
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
        parts
            .iter()
            .map(|(&name, part)| (name, of_part(part)))
            .collect()
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<&'static str, Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
