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
    /// As fast as possible, so many batches.
    Count(AtomicUsize),
    /// Batch `i` at a fixed time whatever became of those before it. The latency
    /// of one that comes late counts from when it was due: a service that stalls
    /// cannot hide it by getting fewer requests.
    Rate {
        began: Instant,
        between: Duration,
        next: AtomicU64,
    },
    /// One batch per turn that the other side gives.
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

    /// Waits for the next batch's time and returns since when its latency
    /// counts; none when `until` comes first.
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
                // The timer is up to a millisecond late by itself, which is not
                // the service's doing.
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

    /// Gives a turn to whoever waits for one.
    pub fn give(&self) {
        if let Self::Turns(turns) = self {
            turns.add_permits(1);
        }
    }
}
