//! An actor's and an evaluator's metrics: each with its name, unit, meaning and value.

use std::sync::Arc;

use proto::transport::metrics::{Metric, Page, Source, Unit, counter, gauge};
use tokio::sync::watch;

use crate::session::counters::{Counters, Reading};

/// Exports what an actor counts.
#[derive(Debug)]
pub struct ActorMetrics {
    counters: Arc<Counters>,
    place: String,
}

impl ActorMetrics {
    /// Of the actor with these counters, the `place`th of its process.
    #[must_use]
    pub fn new(counters: Arc<Counters>, place: usize) -> Self {
        Self {
            counters,
            place: place.to_string(),
        }
    }
}

impl Source for ActorMetrics {
    fn export(&self, page: &mut Page) {
        let reading = self.counters.read();
        page.labelled("actor", &self.place, |page| page.read(ACTOR, &reading));
    }
}

pub const ACTOR: &[Metric<Reading>] = &[
    counter(
        "landmarl_actor_env_steps",
        Unit::Count,
        "Environment steps: one per group of agents that moved",
        "rises",
        |r| r.env_steps.into(),
    ),
    counter(
        "landmarl_actor_episodes",
        Unit::Count,
        "Episodes that ended",
        "rises",
        |r| r.episodes.into(),
    ),
    counter(
        "landmarl_actor_rows_made",
        Unit::Rows,
        "Rows that the rollout made",
        "rises",
        |r| r.rows_made.into(),
    ),
    counter(
        "landmarl_actor_rows_acknowledged",
        Unit::Rows,
        "Rows that shards acknowledged",
        "close to the rows made",
        |r| r.rows_acked.into(),
    ),
    counter(
        "landmarl_actor_rows_dropped",
        Unit::Rows,
        "Rows given up because their shard was unreachable for too long, or with an old \
         incarnation",
        "0",
        |r| r.rows_dropped.into(),
    ),
    gauge(
        "landmarl_actor_exploration",
        Unit::Probability,
        "Probability of a random action now, mean over the slots",
        "1, then down to its share of `actor.epsilon_low…high`",
        |r| r.exploration.into(),
    ),
    gauge(
        "landmarl_actor_weights_version",
        Unit::Count,
        "Version of the weights that it acts with; 0 before the first",
        "a few versions behind",
        |r| r.weights_version.into(),
    ),
    gauge(
        "landmarl_actor_weights_age",
        Unit::Seconds,
        "Time since these weights arrived; absent before the first",
        "seconds",
        |r| r.weights_age.into(),
    ),
    counter(
        "landmarl_actor_render",
        Unit::Seconds,
        "Time of cutting windows out of volumes",
        "",
        |r| r.policy.render.into(),
    ),
    counter(
        "landmarl_actor_forward",
        Unit::Seconds,
        "Time of the network",
        "most of the time",
        |r| r.policy.forward.into(),
    ),
    counter(
        "landmarl_actor_forward_batches",
        Unit::Count,
        "Batches that went through the network",
        "",
        |r| r.policy.batches.into(),
    ),
    counter(
        "landmarl_actor_forward_observations",
        Unit::Count,
        "Observations in these batches",
        "",
        |r| r.policy.observations.into(),
    ),
    counter(
        "landmarl_actor_blocked",
        Unit::Seconds,
        "Time that the rollout waited for shards to take rows",
        "its rate is what the rate limiter takes",
        |r| r.blocked.into(),
    ),
    counter(
        "landmarl_actor_starved",
        Unit::Seconds,
        "Time that the rollout waited for its learner: for weights, or to join again",
        "flat after the start",
        |r| r.starved.into(),
    ),
];

/// Exports the errors of weights on the validation scans.
#[derive(Debug)]
pub struct EvaluatorMetrics {
    errors: watch::Receiver<Option<Errors>>,
}

/// The best and the last mean error in mm.
pub type Errors = (f64, f64);

impl EvaluatorMetrics {
    /// Of the evaluator that reports to the other end of `errors`.
    #[must_use]
    pub fn new(errors: watch::Receiver<Option<Errors>>) -> Self {
        Self { errors }
    }
}

impl Source for EvaluatorMetrics {
    fn export(&self, page: &mut Page) {
        if let Some(errors) = *self.errors.borrow() {
            page.read(EVALUATOR, &errors);
        }
    }
}

/// An evaluator; absent before the first evaluation.
pub const EVALUATOR: &[Metric<Errors>] = &[
    gauge(
        "landmarl_evaluator_error",
        Unit::Millimetres,
        "Mean error of the newest weights that were evaluated, over the validation scans",
        "falls",
        |(_, last)| (*last).into(),
    ),
    gauge(
        "landmarl_evaluator_best_error",
        Unit::Millimetres,
        "Mean error of the best weights so far",
        "below the mean-position baseline",
        |(best, _)| (*best).into(),
    ),
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::transport::metrics::Metrics;

    use super::*;
    use crate::rollout::StepReport;
    use crate::rollout::network_policy::PolicyTimes;

    #[test]
    fn samples_show_the_counters_and_a_wait_in_progress() {
        let counters = Arc::new(Counters::default());
        let times = PolicyTimes {
            forward: Duration::from_millis(1500),
            batches: 3,
            ..PolicyTimes::default()
        };
        let report = StepReport {
            env_steps: 5,
            ..StepReport::default()
        };
        counters.stepped(&report, times);
        counters.set_exploration(0.5);
        let metrics = Metrics::default();
        metrics.add(ActorMetrics::new(Arc::clone(&counters), 1));
        let (sender, errors) = watch::channel(None);
        metrics.add(EvaluatorMetrics::new(errors));
        let text = counters.blocked(|| {
            std::thread::sleep(Duration::from_millis(20));
            metrics.text().unwrap()
        });
        for line in [
            "landmarl_actor_env_steps_total{actor=\"1\"} 5.0\n",
            "landmarl_actor_forward_seconds_total{actor=\"1\"} 1.5\n",
            "landmarl_actor_exploration{actor=\"1\"} 0.5\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let blocked = "landmarl_actor_blocked_seconds_total{actor=\"1\"} ";
        let blocked = text.lines().find_map(|l| l.strip_prefix(blocked));
        assert!(blocked.unwrap().parse::<f64>().unwrap() >= 0.02, "{text}");
        for absent in ["weights_age", "landmarl_evaluator"] {
            assert!(!text.contains(absent), "{absent} is in {text}");
        }
        sender.send_replace(Some((1.25, 2.5)));
        let text = metrics.text().unwrap();
        let line = "landmarl_evaluator_error_millimetres 2.5\n";
        assert!(text.contains(line), "{text}");
    }
}
