//! A learner's metrics: each with its name, unit, meaning and value.

use proto::transport::metrics::{Metric, Page, Source, Unit, by, counter, gauge};
use tokio::sync::watch;

use crate::report::progress::Progress;

/// Exports the newest progress of a run.
#[derive(Debug)]
pub struct LearnerMetrics {
    progress: watch::Receiver<Progress>,
}

impl LearnerMetrics {
    /// Metrics of the learner that sends to the other end of `progress`.
    pub fn new(progress: watch::Receiver<Progress>) -> Self {
        Self { progress }
    }
}

impl Source for LearnerMetrics {
    fn export(&self, page: &mut Page) {
        let progress = self.progress.borrow().clone();
        page.read(METRICS, &progress);
    }
}

/// The metrics of a training run.
pub const METRICS: &[Metric<Progress>] = &[
    counter(
        "landmarl_learner_updates",
        Unit::Count,
        "Updates done, those before a resume included",
        "rises",
        |p| p.train.updates.into(),
    ),
    gauge(
        "landmarl_learner_updates_goal",
        Unit::Count,
        "Updates to do: `learner.updates`",
        "",
        |p| p.updates_total.into(),
    ),
    gauge(
        "landmarl_learner_left",
        Unit::Seconds,
        "Time to the end: to the last update at the current rate, or to `learner.max_minutes` or \
         `learner.max_episodes` if that is sooner; absent while unknown",
        "falls",
        |p| p.left_s.into(),
    ),
    gauge(
        "landmarl_learner_loss",
        Unit::Number,
        "Loss of the last update",
        "falls, then flat",
        |p| p.train.loss.into(),
    ),
    gauge(
        "landmarl_learner_td_error_mean",
        Unit::Number,
        "Mean TD error of the rows of the last batch",
        "0.05–0.5",
        |p| p.train.td_mean.into(),
    ),
    gauge(
        "landmarl_learner_q_mean",
        Unit::Number,
        "Mean Q-value of the actions of the last batch",
        "at most 1/(1−γ)",
        |p| p.train.q_mean.into(),
    ),
    gauge(
        "landmarl_learner_q_limit",
        Unit::Number,
        "Largest Q-value that the rules allow: the clipped reward of a step, divided by 1−γ",
        "",
        |p| p.train.q_max.into(),
    ),
    gauge(
        "landmarl_learner_gradient_norm",
        Unit::Number,
        "Norm of all gradients before clipping",
        "0.1–5",
        |p| p.train.grad_norm.into(),
    ),
    gauge(
        "landmarl_learner_learning_rate",
        Unit::Number,
        "Learning rate of the last update, a function of the updates done",
        "",
        |p| p.train.lr.into(),
    ),
    gauge(
        "landmarl_learner_importance_exponent",
        Unit::Number,
        "Exponent of the importance weights, a function of the updates done",
        "",
        |p| p.train.beta.into(),
    ),
    gauge(
        "landmarl_learner_weights_version",
        Unit::Count,
        "Version of the newest weights: publications so far",
        "rises",
        |p| p.train.weights_version.into(),
    ),
    counter(
        "landmarl_learner_checkpoints_failed",
        Unit::Count,
        "Checkpoints that could not be written",
        "0",
        |p| p.train.failed_checkpoints.into(),
    ),
    gauge(
        "landmarl_learner_run_over",
        Unit::Flag,
        "1 once the run is over",
        "",
        |p| p.over.into(),
    ),
    gauge(
        "landmarl_learner_actors",
        Unit::Count,
        "Actors by `state`: `joined` (the lease holds), `lost` (ids whose lease expired and that \
         no other actor has taken over)",
        "joined = expected",
        |p| {
            let a = &p.actors;
            by(
                "state",
                [("joined", a.actors_alive), ("lost", a.actors_lost)],
            )
        },
    ),
    gauge(
        "landmarl_learner_actors_expected",
        Unit::Count,
        "Expected actors: `cluster.actors`; if that is 0, actors that have joined and not left",
        "",
        |p| p.actors.actors_expected.into(),
    ),
    counter(
        "landmarl_learner_env_steps",
        Unit::Count,
        "Environment steps of all actors and incarnations",
        "rises",
        |p| p.actors.env_steps.into(),
    ),
    counter(
        "landmarl_learner_episodes",
        Unit::Count,
        "Finished episodes of all actors and incarnations",
        "rises",
        |p| p.actors.episodes.into(),
    ),
    gauge(
        "landmarl_learner_episode_error",
        Unit::FinestSteps,
        "Mean distance of prediction and landmark in recently finished training episodes; \
         absent before the first",
        "falls",
        |p| p.actors.episode_error.into(),
    ),
    gauge(
        "landmarl_learner_shards_expected",
        Unit::Count,
        "Shards of the run",
        "",
        |p| p.shards.shards.into(),
    ),
    gauge(
        "landmarl_learner_shard_up",
        Unit::Flag,
        "1 while `shard` responds to the learner",
        "all 1",
        |p| {
            let shards = p.shards.shards_up.iter().enumerate();
            by(
                "shard",
                shards.map(|(number, up)| (number.to_string(), *up)),
            )
        },
    ),
    gauge(
        "landmarl_learner_rows",
        Unit::Rows,
        "Rows in the shards that respond",
        "up to `replay.capacity`",
        |p| p.rows.rows.into(),
    ),
    counter(
        "landmarl_learner_rows_inserted",
        Unit::Rows,
        "Rows inserted into all shards",
        "rises",
        |p| p.rows.inserted.into(),
    ),
    counter(
        "landmarl_learner_rows_sampled",
        Unit::Rows,
        "Rows sampled from all shards",
        "rises",
        |p| p.rows.sampled.into(),
    ),
    gauge(
        "landmarl_learner_samples_per_insert",
        Unit::Number,
        "Rows sampled per row inserted so far",
        "near `replay.samples_per_insert`",
        |p| p.rows.samples_per_insert.into(),
    ),
    gauge(
        "landmarl_learner_limiter_blocked",
        Unit::Flag,
        "1 while the rate limiter, or missing rows, block a `side`: `sampling` (too few rows or \
         inserts), `inserting` (too few samples)",
        "0 most of the time, never both for long",
        |p| {
            let (sampling, inserting) = p.rows.blocked;
            by("side", [("sampling", sampling), ("inserting", inserting)])
        },
    ),
    counter(
        "landmarl_learner_priorities",
        Unit::Rows,
        "New priorities of rows by `outcome`: `applied`, `stale` (the shard no longer held the \
         row), `dropped` (did not reach the shard)",
        "few stale, none dropped",
        |p| {
            let p = &p.priorities;
            let (applied, stale) = (p.applied_priorities, p.stale_priorities);
            let dropped = p.dropped_priorities;
            by(
                "outcome",
                [("applied", applied), ("stale", stale), ("dropped", dropped)],
            )
        },
    ),
    counter(
        "landmarl_learner_rows_refused",
        Unit::Rows,
        "Rows that no actor of this run can have produced",
        "0",
        |p| p.collate.refused_rows.into(),
    ),
    counter(
        "landmarl_learner_rows_dropped",
        Unit::Rows,
        "Rows that actors dropped because a shard was unreachable",
        "0",
        |p| p.actors.dropped_rows.into(),
    ),
    counter(
        "landmarl_learner_train_wait",
        Unit::Seconds,
        "Time that the train thread waited for batches",
        "its rate well below 0.5",
        |p| p.train.train_wait_s.into(),
    ),
    counter(
        "landmarl_learner_limited",
        Unit::Seconds,
        "Time that the rate limiter delayed batches, summed over batches",
        "its rate small; else start more actors",
        |p| p.train.limited_s.into(),
    ),
    counter(
        "landmarl_learner_collate_busy",
        Unit::Seconds,
        "Time spent decoding and rendering batches",
        "its rate below 1",
        |p| p.collate.collate_busy_s.into(),
    ),
];

#[cfg(test)]
mod tests {
    use proto::transport::metrics::Metrics;

    use super::*;

    #[test]
    fn progress_is_exported_as_samples() {
        let mut progress = Progress::default();
        progress.train.updates = 70;
        progress.train.loss = 0.25;
        progress.actors.actors_alive = 2;
        progress.actors.actors_lost = 1;
        progress.actors.actors_expected = 4;
        progress.shards.shards_up = vec![true, false];
        progress.rows.blocked = (true, false);
        let metrics = Metrics::default();
        let (sender, seen) = watch::channel(progress);
        metrics.add(LearnerMetrics::new(seen));
        let text = metrics.text().unwrap();
        for line in [
            "landmarl_learner_updates_total 70.0\n",
            "landmarl_learner_loss 0.25\n",
            "landmarl_learner_actors{state=\"lost\"} 1.0\n",
            "landmarl_learner_actors_expected 4.0\n",
            "landmarl_learner_shard_up{shard=\"1\"} 0.0\n",
            "landmarl_learner_limiter_blocked{side=\"sampling\"} 1.0\n",
            "landmarl_learner_limiter_blocked{side=\"inserting\"} 0.0\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("episode_error"), "{text}");
        sender.send_modify(|p| p.actors.episode_error = Some(2.5));
        let text = metrics.text().unwrap();
        let line = "landmarl_learner_episode_error_finest_steps 2.5\n";
        assert!(text.contains(line), "{text}");
    }
}
