//! Reports of services about themselves. The generated messages are used
//! directly: `--json` prints their fields, so that a new field needs no code
//! here.

use serde::{Serialize, Serializer};

use crate::error::ProtocolError;
use crate::messages::pack::measure;

pub use crate::wire::{
    ActorReport, ActorState, ActorStatus, Evaluation, EvaluatorStatus, JournalStatus,
    LearnerStatus, ShardLink, ShardStatus, ShardSummary,
};

/// Rows are counted by how many versions their weights were behind: up to each
/// of these, and beyond the last.
pub const WEIGHTS_AGE_BOUNDS: [u64; 4] = [1, 3, 10, 30];

impl ActorState {
    /// One word for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Acting => "acting",
            Self::Blocked => "blocked",
            Self::Stale => "stale",
            Self::Left => "left",
            Self::Lost => "lost",
        }
    }
}

impl ActorStatus {
    /// Its last report.
    #[must_use]
    pub fn report(&self) -> ActorReport {
        self.report.unwrap_or_default()
    }
}

impl ShardStatus {
    /// Rows, priority sum and counters.
    #[must_use]
    pub fn summary(&self) -> ShardSummary {
        self.summary.unwrap_or_default()
    }
}

impl LearnerStatus {
    /// Rows that actors sent, by how many versions their weights were behind.
    #[must_use]
    pub fn rows_by_weights_age(&self) -> Vec<(String, u64)> {
        by_weights_age(&self.rows_by_weights_age)
    }
}

impl Evaluation {
    /// Refuses numbers that are negative or not finite.
    pub fn checked(self) -> Result<Self, ProtocolError> {
        measure("evaluation.mean_error_mm", self.mean_error_mm)?;
        measure("evaluation.mean_error_voxels", self.mean_error_voxels)?;
        measure("evaluation.median_error_mm", self.median_error_mm)?;
        if let Some(mm) = self.baseline_error_mm {
            measure("evaluation.baseline_error_mm", mm)?;
        }
        measure("evaluation.seconds", self.seconds)?;
        Ok(self)
    }
}

impl ShardSummary {
    /// Refuses numbers that the learner cannot calculate with: negative or not finite ones.
    pub fn checked(self) -> Result<Self, ProtocolError> {
        measure("summary.priority_sum", self.priority_sum)?;
        measure("summary.insert_blocked_s", self.insert_blocked_s)?;
        Ok(self)
    }
}

fn by_weights_age(counts: &[u64]) -> Vec<(String, u64)> {
    let bounds = WEIGHTS_AGE_BOUNDS.map(|bound| format!("up to {bound}"));
    let labels = bounds.into_iter().chain(["more".to_owned()]);
    labels.zip(counts.iter().copied()).collect()
}

/// The state as a word.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(crate) fn state<S: Serializer>(state: &i32, s: S) -> Result<S::Ok, S::Error> {
    let state = ActorState::try_from(*state).unwrap_or_default();
    s.serialize_str(state.word())
}

/// Counts with their bounds as keys.
pub(crate) fn ages<S: Serializer>(counts: &[u64], s: S) -> Result<S::Ok, S::Error> {
    s.collect_map(by_weights_age(counts))
}

/// The counters beside the connection's own fields; null before the first summary.
#[expect(clippy::ref_option, reason = "serde's signature")]
pub(crate) fn counters<S: Serializer>(
    summary: &Option<ShardSummary>,
    s: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Counters {
        rows: Option<u64>,
        inserted: Option<u64>,
        sampled: Option<u64>,
        writers_waiting: Option<u32>,
    }
    let counters = Counters {
        rows: summary.map(|s| s.rows),
        inserted: summary.map(|s| s.inserted),
        sampled: summary.map(|s| s.sampled),
        writers_waiting: summary.map(|s| s.writers_waiting),
    };
    counters.serialize(s)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn summary() -> ShardSummary {
        ShardSummary {
            shard: 2,
            shard_incarnation: 5,
            rows: 10,
            priority_sum: 3.5,
            inserted: 12,
            sampled: 40,
            insert_blocked_s: 0.25,
            writers_waiting: 1,
            newest_writer: 3,
        }
    }

    pub(crate) fn evaluation() -> Evaluation {
        Evaluation {
            updates: 500,
            weights_version: 26,
            mean_error_mm: 1.25,
            mean_error_voxels: 7.0,
            median_error_mm: 0.75,
            baseline_error_mm: Some(3.0),
            seconds: 4.5,
            best: true,
        }
    }

    #[test]
    fn numbers_that_are_calculated_with_are_checked_by_field() {
        assert_eq!(evaluation().checked(), Ok(evaluation()));
        assert_eq!(summary().checked(), Ok(summary()));
        let nan = Evaluation {
            mean_error_mm: f64::NAN,
            ..evaluation()
        };
        let negative = Evaluation {
            baseline_error_mm: Some(-1.0),
            ..evaluation()
        };
        let endless = ShardSummary {
            priority_sum: f64::INFINITY,
            ..summary()
        };
        for (error, field) in [
            (nan.checked().unwrap_err(), "mean_error_mm"),
            (negative.checked().unwrap_err(), "baseline_error_mm"),
            (endless.checked().unwrap_err(), "summary.priority_sum"),
        ] {
            assert!(error.to_string().contains(field), "{error}");
        }
    }

    #[test]
    fn messages_are_printed_as_one_object_without_nesting() {
        let actor = ActorStatus {
            actor: 1,
            report: Some(ActorReport {
                env_steps: 9,
                state: ActorState::Stale.into(),
                ..ActorReport::default()
            }),
            ..ActorStatus::default()
        };
        let actor = serde_json::to_value(actor).unwrap();
        assert_eq!(actor["env_steps"], 9);
        assert_eq!(actor["state"], "stale");
        let shard = ShardStatus {
            summary: Some(summary()),
            journal: Some(JournalStatus::default()),
            ..ShardStatus::default()
        };
        let shard = serde_json::to_value(shard).unwrap();
        assert_eq!(shard["priority_sum"], 3.5);
        assert_eq!(shard["journal"]["bytes"], 0);
        assert!(shard["run_id"].is_null() && shard["journal"]["failing"].is_null());
        let connection = |summary| {
            let link = ShardLink {
                summary,
                ..ShardLink::default()
            };
            serde_json::to_value(link).unwrap()
        };
        let (new, known) = (connection(None), connection(Some(summary())));
        assert!(new.as_object().unwrap().contains_key("rows") && new["rows"].is_null());
        assert_eq!(known["rows"], 10);
        let learner = LearnerStatus {
            run_id: "mouse".into(),
            rows_by_weights_age: vec![5, 4, 3, 2, 1],
            ..LearnerStatus::default()
        };
        let learner = serde_json::to_value(learner).unwrap();
        let ages = &learner["rows_by_weights_age"];
        assert_eq!(learner["run_id"], "mouse");
        assert_eq!((&ages["up to 30"], &ages["more"]), (&2.into(), &1.into()));
    }
}
