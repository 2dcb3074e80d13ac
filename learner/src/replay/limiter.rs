//! The rate limiter: rows inserted and sampled, over all shards.
//!
//! Reverb's algebra (Cassirer et al. 2021, §3.3). With SPI samples per insert
//! and a tolerance of T rows, error = inserts · SPI − samples stays within
//! ±T · SPI: sampling n rows needs error − n ≥ −T · SPI, inserting needs
//! error ≤ T · SPI. Shards receive what they may insert as *limits*, absolute
//! numbers per incarnation of a shard that only increase; the unused part is
//! *outstanding*, and the sum over all shards stays within the *allowance*.
//!
//! Four rules extend it, because shards fail and restart:
//! - An incarnation that the limiter sees for the first time starts at its number of
//!   inserts so far: only a learner grants credit, so an earlier learner charged
//!   those rows.
//! - A shard's clock may be stepped back before it restarts, so a lower incarnation can be the
//!   newer one: it counts once the known one is lost, or silent for `LATE_REPORTS` reports.
//! - Once the shards held `min_rows` (warm), inserts that bring them back up to it
//!   after a loss are granted and not charged: charging them would allow a burst of
//!   samples from few rows; refusing them would block for good. Only rows that
//!   increase the number held count as a refill: if the remaining shards are
//!   too small for `min_rows`, they continue at the usual ratio.
//! - While there are too few rows to sample, each live shard may take at
//!   least one batch, so that unused credit of an idle shard blocks no other.

use common::config::Config;
use serde::{Deserialize, Serialize};

/// So many reports of a lower incarnation in a row are not late ones of an earlier incarnation.
const LATE_REPORTS: u32 = 3;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RowTotals {
    pub rows: u64,
    pub inserted: u64,
    pub sampled: u64,
    pub samples_per_insert: f64,
    /// Why inserting or sampling is blocked, or "open".
    pub limiter: String,
    /// Whether the limiter or missing rows currently block (sampling, inserting).
    #[serde(skip)]
    pub blocked: (bool, bool),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    pub samples_per_insert: f64,
    /// T, in inserted rows.
    pub tolerance: u64,
    /// Rows required before the first sample.
    pub min_rows: u64,
    /// Rows per sampled batch.
    pub batch: u64,
    /// Largest batch that a writer inserts; shards accept it whole or not at all.
    pub batch_rows: u64,
    pub shards: usize,
}

impl Limits {
    /// The limits of a configuration with this many shards.
    pub fn new(config: &Config, shards: usize) -> Self {
        Self {
            samples_per_insert: config.replay.samples_per_insert,
            tolerance: config.replay.error_buffer,
            min_rows: config.replay.min_rows,
            batch: config.learner.batch as u64,
            batch_rows: config.actor.batch_rows as u64,
            shards,
        }
    }

    /// T · SPI.
    fn bound(&self) -> f64 {
        as_f64(self.tolerance) * self.samples_per_insert
    }

    /// Rows that the range 2T must hold. Blocked sampling leaves an allowance
    /// above 2T − batch/SPI; even when the other shards do not use their shares of
    /// 2T/shards, the rest must accept a batch.
    fn range_min(&self) -> u64 {
        let sample = (as_f64(self.batch) / self.samples_per_insert).ceil() as u64;
        let shards = self.shards as u64;
        (self.batch_rows + sample + shards).saturating_mul(shards)
    }
}

/// Settings under which sampling and inserting could block each other for ever.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RateLimiterError {
    #[error(
        "replay.error_buffer = {} rows would deadlock: twice the tolerance must hold {} rows, shards ({}) × (actor.batch_rows {} + learner.batch {} / replay.samples_per_insert {} + {}); use replay.error_buffer = {} or more",
        .0.tolerance, .0.range_min(), .0.shards, .0.batch_rows, .0.batch, .0.samples_per_insert, .0.shards,
        .0.range_min().div_ceil(2)
    )]
    Range(Limits),
    #[error("there are no shards; name at least one in cluster.shards")]
    NoShards,
}

/// A shard's report about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub incarnation: u64,
    /// Rows that it holds.
    pub rows: u64,
    /// Rows inserted in this incarnation.
    pub inserted: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    /// 0 before the first report.
    incarnation: u64,
    inserted: u64,
    limit: u64,
    #[serde(skip)]
    rows: u64,
    #[serde(skip)]
    alive: bool,
    /// Its last inserts replaced older rows.
    #[serde(skip)]
    full: bool,
    /// Whether it reported to this learner. A restored state may describe another shard that
    /// had this index; its incarnations cannot be compared with those seen here.
    #[serde(skip)]
    met: bool,
    /// The lower incarnation that reported last, and how often since the known one did.
    #[serde(skip)]
    lower: (u64, u32),
}

impl Account {
    fn outstanding(&self) -> u64 {
        self.limit.saturating_sub(self.inserted)
    }

    /// Whether a report of this incarnation is a late one: the known incarnation has replaced it.
    fn is_late(&mut self, incarnation: u64) -> bool {
        if !self.met || incarnation >= self.incarnation {
            return false;
        }
        let (before, count) = self.lower;
        let count = if before == incarnation { count } else { 0 };
        self.lower = (incarnation, count + 1);
        self.alive && self.lower.1 < LATE_REPORTS
    }
}

/// Limits inserts and samples; see the module.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    limits: Limits,
    state: LimiterState,
}

/// The counters, as a checkpoint saves them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimiterState {
    accounts: Vec<Account>,
    /// Inserts that count towards the ratio.
    charged: u64,
    /// Inserts that refilled the store after a loss.
    refilled: u64,
    samples: u64,
    warm: bool,
}

impl RateLimiter {
    /// An empty rate limiter. Refuses limits that could deadlock.
    pub fn new(limits: Limits) -> Result<Self, RateLimiterError> {
        if limits.shards == 0 {
            return Err(RateLimiterError::NoShards);
        }
        if limits.tolerance.saturating_mul(2) < limits.range_min() {
            return Err(RateLimiterError::Range(limits));
        }
        let state = LimiterState {
            accounts: vec![Account::default(); limits.shards],
            ..LimiterState::default()
        };
        Ok(Self { limits, state })
    }

    /// The state to save in a checkpoint.
    pub fn state(&self) -> &LimiterState {
        &self.state
    }

    /// Restores a checkpoint's state; shards count as unreachable until they report. If
    /// the number of shards changed, only the totals are restored.
    pub fn restore(&mut self, state: &LimiterState) {
        let before = std::mem::replace(&mut self.state, state.clone());
        if state.accounts.len() != self.limits.shards {
            self.state.accounts = before.accounts;
        }
    }

    /// Records a live shard's report. Ignores late reports of an incarnation that another
    /// one has replaced.
    pub fn observe(&mut self, shard: usize, report: Report) {
        let needed = self.rows_needed();
        let others = self.rows_besides(shard);
        let Some(account) = self.state.accounts.get_mut(shard) else {
            return;
        };
        if account.is_late(report.incarnation) {
            return;
        }
        account.met = true;
        account.lower = (0, 0);
        if report.incarnation != account.incarnation {
            account.incarnation = report.incarnation;
            (account.inserted, account.limit) = (report.inserted, report.inserted);
            account.full = false;
        }
        let new = report.inserted.saturating_sub(account.inserted);
        account.inserted += new;
        account.limit = account.limit.max(account.inserted);
        // The rows of a shard that returns need no inserts to refill them.
        let known = if account.alive { account.rows } else { 0 };
        let before = known.max(report.rows.saturating_sub(new));
        let added = report.rows.saturating_sub(before);
        if new > 0 {
            account.full = added < new;
        }
        (account.rows, account.alive) = (report.rows, true);
        self.charge(new, added, others + before, needed);
        self.state.warm |= self.rows() >= self.limits.min_rows;
    }

    /// Splits new inserts into charged ones and refills.
    fn charge(&mut self, new: u64, added: u64, rows_before: u64, rows_needed: u64) {
        let limits = &self.limits;
        let free = if self.state.warm {
            let deficit = limits.min_rows.saturating_sub(rows_before);
            let granted = if rows_before < rows_needed {
                self.smallest_grant()
            } else {
                0
            };
            added.min(deficit).max(new.min(granted))
        } else {
            // Rows lost before the first sample are not charged twice.
            let room = limits
                .min_rows
                .max(limits.tolerance)
                .saturating_sub(self.state.charged);
            new.saturating_sub(room)
        };
        self.state.refilled += free;
        self.state.charged += new - free;
    }

    /// Marks a shard as unreachable: its rows and its outstanding credit no longer
    /// count.
    pub fn lost(&mut self, shard: usize) {
        if let Some(account) = self.state.accounts.get_mut(shard) {
            account.alive = false;
        }
    }

    /// (incarnation, limit) to send to a shard: raises its limit to an equal share
    /// of the allowance, as far as the others left any. `(0, 0)` before its first
    /// report.
    pub fn grant(&mut self, shard: usize) -> (u64, u64) {
        let full = self.state.accounts.get(shard).is_some_and(|a| a.full);
        let allowance = if full && self.state.warm {
            self.ratio()
        } else {
            self.allowance()
        };
        let live = self.state.accounts.iter().filter(|a| a.alive);
        let outstanding: u64 = live.map(Account::outstanding).sum();
        // Shares of all shards, not only of the live ones, and never of more than
        // the range: unused credit of one shard must leave the others what
        // `range_min` guarantees them.
        let most = allowance.min(self.limits.tolerance.saturating_mul(2));
        let share = most.div_ceil(self.limits.shards as u64);
        let free = allowance.saturating_sub(outstanding);
        let starved = !self.state.warm || self.rows() < self.rows_needed();
        let least = if starved { self.limits.batch_rows } else { 0 };
        let Some(account) = self.state.accounts.get_mut(shard) else {
            return (0, 0);
        };
        if account.alive {
            let own = account.outstanding();
            let raise = share
                .saturating_sub(own)
                .min(free)
                .max(least.saturating_sub(own));
            account.limit += raise;
        }
        (account.incarnation, account.limit)
    }

    /// Takes `rows` samples if the limiter allows it.
    #[must_use]
    pub fn try_sample(&mut self, rows: u64) -> bool {
        let allowed = self.sampling_blocked(rows).is_none();
        if allowed {
            self.state.samples += rows;
        }
        allowed
    }

    /// Returns samples that were taken and not delivered.
    pub fn unsample(&mut self, rows: u64) {
        self.state.samples = self.state.samples.saturating_sub(rows);
    }

    /// Rows that may be inserted from now on, including outstanding ones.
    pub fn allowance(&self) -> u64 {
        let deficit = self.limits.min_rows.saturating_sub(self.rows());
        let mut live = self.state.accounts.iter().filter(|a| a.alive);
        if !self.state.warm {
            self.ratio().max(deficit)
        } else if live.all(|a| a.full) {
            self.ratio()
        } else {
            self.ratio() + deficit
        }
    }

    /// Rows that the ratio alone allows.
    fn ratio(&self) -> u64 {
        let limits = &self.limits;
        let rows = (limits.bound() - self.error()) / limits.samples_per_insert;
        // 1e-9 of a row: a ratio such as 0.1 has no exact binary form.
        (rows + 1e-9).max(0.0).floor() as u64
    }

    /// inserts · SPI − samples.
    pub fn error(&self) -> f64 {
        as_f64(self.state.charged) * self.limits.samples_per_insert - as_f64(self.state.samples)
    }

    /// Rows in the live shards.
    pub fn rows(&self) -> u64 {
        self.rows_besides(usize::MAX)
    }

    fn rows_besides(&self, shard: usize) -> u64 {
        let accounts = self.state.accounts.iter().enumerate();
        let others = accounts.filter(|(k, a)| *k != shard && a.alive);
        others.map(|(_, a)| a.rows).sum()
    }

    /// Rows inserted so far, refills included.
    pub fn inserted(&self) -> u64 {
        self.state.charged + self.state.refilled
    }

    /// Rows sampled so far.
    pub fn sampled(&self) -> u64 {
        self.state.samples
    }

    /// The current totals.
    pub fn totals(&self) -> RowTotals {
        let sampling_blocked = self.sampling_blocked(self.limits.batch).is_some();
        RowTotals {
            rows: self.rows(),
            inserted: self.inserted(),
            sampled: self.sampled(),
            samples_per_insert: as_f64(self.state.samples) / as_f64(self.state.charged.max(1)),
            limiter: self.why_blocked().unwrap_or_else(|| "open".into()),
            blocked: (sampling_blocked, self.inserting_blocked().is_some()),
        }
    }

    /// Why sampling or else inserting is blocked, with the numbers.
    pub fn why_blocked(&self) -> Option<String> {
        self.sampling_blocked(self.limits.batch)
            .or_else(|| self.inserting_blocked())
    }

    /// Why `rows` cannot be sampled now.
    fn sampling_blocked(&self, rows: u64) -> Option<String> {
        let (limits, held) = (&self.limits, self.rows());
        if !self.state.warm {
            return Some(format!(
                "sampling waits for the first {} rows: {held} so far",
                limits.min_rows
            ));
        }
        if held < self.rows_needed() {
            return Some(format!(
                "sampling waits for rows: the live shards hold {held}, {} are needed",
                self.rows_needed()
            ));
        }
        let bound = limits.bound();
        (self.error() - as_f64(rows) < -bound).then(|| {
            format!(
                "sampling waits for inserts: {} − {rows} < −{bound} (tolerance {} × {})",
                self.equation(),
                limits.tolerance,
                limits.samples_per_insert
            )
        })
    }

    /// Why nothing can be inserted now.
    fn inserting_blocked(&self) -> Option<String> {
        (self.state.warm && self.allowance() == 0).then(|| {
            let limits = &self.limits;
            format!(
                "inserting waits for samples: {} leaves no row below {} (tolerance {} × {})",
                self.equation(),
                limits.bound(),
                limits.tolerance,
                limits.samples_per_insert
            )
        })
    }

    fn equation(&self) -> String {
        format!(
            "{} inserts × {} − {} samples = {}",
            self.state.charged,
            self.limits.samples_per_insert,
            self.state.samples,
            self.error()
        )
    }

    fn rows_needed(&self) -> u64 {
        self.limits.batch.min(self.limits.min_rows).max(1)
    }

    /// The total granted to all shards while there are too few rows.
    fn smallest_grant(&self) -> u64 {
        self.limits.batch_rows * self.limits.shards as u64
    }
}

fn as_f64(rows: u64) -> f64 {
    rows as f64
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;
