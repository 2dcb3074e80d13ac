//! When the next batch is due.

use anyhow::Result;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::{sleep_until, timeout_at};

#[derive(Debug)]
pub enum Pace {
    /// As fast as possible.
    Free,
    /// As fast as possible, for this many batches.
    Count(AtomicUsize),
    /// Batch `i` at a fixed time, independent of the earlier ones. The latency of a
    /// late batch counts from when it was due, so a service that stalls cannot hide
    /// it by receiving fewer requests.
    Rate {
        began: Instant,
        between: Duration,
        next: AtomicU64,
    },
    /// One batch per turn given by the other side.
    Turns(Semaphore),
}

impl Pace {
    /// Batches of `rows` rows that make `rate` rows per second.
    pub fn rate(rate: f64, rows: usize) -> Result<Self> {
        Ok(Self::Rate {
            began: Instant::now(),
            between: Duration::try_from_secs_f64(rows as f64 / rate)?,
            next: AtomicU64::new(0),
        })
    }

    /// Waits until the next batch is due and returns the start of its latency; `None`
    /// if `until` is earlier.
    pub async fn due(&self, until: Instant) -> Option<Instant> {
        let now = Instant::now();
        if now >= until {
            return None;
        }
        match self {
            Self::Free => Some(now),
            Self::Count(left) => {
                let one = |left: usize| left.checked_sub(1);
                let took = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one);
                took.ok().map(|_| now)
            }
            Self::Rate {
                began,
                between,
                next,
            } => {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let due = *began + between.mul_f64(number as f64);
                if due >= until {
                    return None;
                }
                if due <= now {
                    return Some(due);
                }
                // The timer itself is up to a millisecond late, which must not
                // count as latency of the service.
                sleep_until(due.into()).await;
                Some(Instant::now())
            }
            Self::Turns(turns) => {
                let turn = timeout_at(until.into(), turns.acquire()).await;
                turn.ok()?.ok()?.forget();
                Some(Instant::now())
            }
        }
    }

    /// Gives one turn to the waiting side.
    pub fn give(&self) {
        if let Self::Turns(turns) = self {
            turns.add_permits(1);
        }
    }
}
