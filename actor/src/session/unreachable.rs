//! Warnings about a peer that does not answer, at most one per interval.

use std::time::{Duration, Instant};

use proto::transport::retry::reason;
use tonic::Status;

/// How often to say that the learner is still away.
const SAY_AWAY_EVERY: Duration = Duration::from_secs(10);

/// Says at most every so often that a peer is away.
#[derive(Debug, Default)]
pub(crate) struct Away {
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Away {
    /// How long the peer has been away, where that is to be said now.
    pub(crate) fn due(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let say = self.said.is_none_or(|said| now - said >= SAY_AWAY_EVERY);
        say.then(|| {
            self.said = Some(now);
            now - since
        })
    }

    pub(crate) fn say(&mut self, address: &str, status: &Status) {
        if let Some(away) = self.due() {
            tracing::warn!(
                learner = address, away_s = away.as_secs(), code = ?status.code(), reason = reason(status),
                "the learner does not answer; trying again"
            );
        }
    }

    /// It answers; said where its silence was.
    pub(crate) fn is_back(&mut self, address: &str) {
        if std::mem::take(self).since.is_some() {
            tracing::info!(learner = address, "the learner is back");
        }
    }
}
