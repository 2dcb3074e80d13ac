//! What is measured: rows, and how long each batch took.

use crate::processor;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Longer than anybody fills shards.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// The time in which batches count; the load runs before it too, so that
/// connections, caches and allocators are warm.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Batches that end earlier do not count.
    pub from: Instant,
    /// Nor those that end later.
    pub until: Instant,
    /// Processor seconds of this process when the load began.
    processor_s: f64,
}

impl Span {
    /// A span that begins `warm_up` from now.
    pub fn after(warm_up: Duration, length: Duration) -> Self {
        let from = Instant::now() + warm_up;
        Self {
            from,
            until: from + length,
            processor_s: processor::seconds(),
        }
    }

    /// A span that begins now, for work that is given by its amount.
    pub fn open() -> Self {
        Self::after(Duration::ZERO, FOR_EVER)
    }

    /// Whether the time is up.
    pub fn is_over(self) -> bool {
        Instant::now() >= self.until
    }
}

/// Batches done and their latencies.
///
/// Latencies are kept in microseconds with three significant digits, so that a
/// long run takes no more memory than a short one and results of several
/// clients can be joined without loss.
#[derive(Debug)]
pub struct Recorder {
    span: Span,
    rows: u64,
    batches: u64,
    longest: Duration,
    counts: BTreeMap<u64, u64>,
}

impl Recorder {
    /// Nothing recorded yet.
    pub fn new(span: Span) -> Self {
        Self {
            span,
            rows: 0,
            batches: 0,
            longest: Duration::ZERO,
            counts: BTreeMap::new(),
        }
    }

    /// A batch begun at `since` is done now.
    pub fn done(&mut self, since: Instant, rows: usize) {
        let now = Instant::now();
        if now < self.span.from || now > self.span.until {
            return;
        }
        let took = now - since;
        self.rows += rows as u64;
        self.batches += 1;
        self.longest = self.longest.max(took);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        *self.counts.entry(rounded(micros)).or_default() += 1;
    }

    /// The span ends now: for work that is given by its amount.
    pub fn end_now(&mut self) {
        self.span.until = Instant::now();
    }

    /// Takes what another task of this client recorded in the same span.
    pub fn join(&mut self, other: Self) {
        self.rows += other.rows;
        self.batches += other.batches;
        self.longest = self.longest.max(other.longest);
        for (micros, count) in other.counts {
            *self.counts.entry(micros).or_default() += count;
        }
    }

    /// The latency that `share` of the batches do not exceed, in ms.
    fn quantile_ms(&self, share: f64) -> f64 {
        let mut left = (share * self.batches as f64).ceil().max(1.0) as u64;
        for (&micros, &count) in &self.counts {
            if left <= count {
                return micros as f64 / 1e3;
            }
            left -= count;
        }
        0.0
    }

    /// Processor seconds that this process used since the load began.
    pub fn processor_s(&self) -> f64 {
        processor::seconds() - self.span.processor_s
    }

    /// As it is printed.
    pub fn as_json(&self, histogram: bool) -> serde_json::Value {
        let seconds = (self.span.until - self.span.from).as_secs_f64();
        let mut json = serde_json::json!({
            "rows": self.rows,
            "batches": self.batches,
            "seconds": seconds,
            "rows_per_s": self.rows as f64 / seconds,
            "p50_ms": self.quantile_ms(0.5),
            "p99_ms": self.quantile_ms(0.99),
            "p999_ms": self.quantile_ms(0.999),
            "max_ms": self.longest.as_secs_f64() * 1e3,
        });
        if histogram {
            let pairs = self.counts.iter().map(|(&us, &count)| vec![us, count]);
            json["histogram_us"] = pairs.collect();
        }
        json
    }
}

/// Three significant digits, rounded up: a quantile is never flattered.
fn rounded(micros: u64) -> u64 {
    let mut step = 1;
    while micros / step >= 1000 {
        step *= 10;
    }
    micros.div_ceil(step) * step
}
