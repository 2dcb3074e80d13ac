//! Latencies of several clients as one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one client, or all together, did of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Rows per second.
    pub rows_per_s: f64,
    /// Of one batch, as the other times.
    pub p50_ms: f64,
    /// 99 of 100 batches took no longer.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p999_ms: f64,
    /// The slowest batch.
    pub max_ms: f64,
}

/// What a client prints of one operation.
#[derive(Debug, Clone, Deserialize)]
pub struct Part {
    rows_per_s: f64,
    max_ms: f64,
    /// (microseconds, batches) of each latency seen.
    histogram_us: Vec<(u64, u64)>,
}

/// The clients' rates added, their latencies joined.
pub fn joined<'a>(parts: impl Iterator<Item = &'a Part>) -> Measure {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    let (mut rows_per_s, mut max_ms) = (0.0, 0.0_f64);
    for part in parts {
        rows_per_s += part.rows_per_s;
        max_ms = max_ms.max(part.max_ms);
        for &(micros, batches) in &part.histogram_us {
            *counts.entry(micros).or_default() += batches;
        }
    }
    Measure {
        rows_per_s,
        p50_ms: quantile_ms(&counts, 500),
        p99_ms: quantile_ms(&counts, 990),
        p999_ms: quantile_ms(&counts, 999),
        max_ms,
    }
}

/// The latency that so many of 1000 batches do not exceed.
fn quantile_ms(counts: &BTreeMap<u64, u64>, per_mille: u64) -> f64 {
    let all: u64 = counts.values().sum();
    let mut left = (all * per_mille).div_ceil(1000).max(1);
    for (&micros, &batches) in counts {
        if left <= batches {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52 microseconds")]
            return micros as f64 / 1e3;
        }
        left -= batches;
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_join_as_if_they_were_one() {
        let part = |rate, histogram: &[(u64, u64)]| Part {
            rows_per_s: rate,
            max_ms: 1.0,
            histogram_us: histogram.to_vec(),
        };
        let fast = part(10.0, &[(100, 980), (200, 10)]);
        let slow = part(5.0, &[(200, 5), (9000, 5)]);
        let all = joined([&fast, &slow].into_iter());
        assert_eq!(
            (all.rows_per_s, all.p50_ms, all.p99_ms, all.p999_ms),
            (15.0, 0.1, 0.2, 9.0)
        );
        let nothing = joined(std::iter::empty());
        assert_eq!((nothing.rows_per_s, nothing.p99_ms), (0.0, 0.0));
    }
}
