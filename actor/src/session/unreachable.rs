//! Warnings about an unreachable peer, at most one per interval.

use std::time::{Duration, Instant};

use common::run::throttle::Throttle;
use proto::transport::retry::reason;
use tonic::Status;

const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// A peer that may be unreachable: warns about it, and logs its return.
#[derive(Debug)]
pub(crate) struct Unreachable(Throttle);

impl Default for Unreachable {
    fn default() -> Self {
        Self(Throttle::new(WARN_INTERVAL))
    }
}

impl Unreachable {
    /// How long the peer has been unreachable, where a warning is due.
    pub(crate) fn warning(&mut self) -> Option<Duration> {
        let warning = self.0.warning(Instant::now())?;
        Some(warning.lasted.unwrap_or_default())
    }

    pub(crate) fn warn(&mut self, address: &str, status: &Status) {
        if let Some(lasted) = self.warning() {
            tracing::warn!(
                learner = address, away_s = lasted.as_secs(), code = ?status.code(), reason = reason(status),
                "the learner does not answer; trying again"
            );
        }
    }

    /// The learner replied; logs that if a warning was logged before.
    pub(crate) fn is_back(&mut self, address: &str) {
        if self.0.reset() {
            tracing::info!(learner = address, "the learner is back");
        }
    }
}
