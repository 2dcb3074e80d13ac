//! An actor's and an evaluator's numbers for Prometheus; docs/metrics.md says
//! what each means.

use std::sync::Arc;
use std::time::Duration;

use proto::transport::metrics::{Page, Source, Unit, number};
use tokio::sync::watch;

use crate::session::counters::{Counters, Reading};

/// Tells what an actor counts.
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
    fn tell(&self, page: &mut Page) {
        let reading = self.counters.read();
        page.labelled("actor", &self.place, |page| {
            acting(page, &reading);
            times(page, &reading);
        });
    }
}

fn acting(page: &mut Page, r: &Reading) {
    page.counter(
        "landmarl_actor_env_steps",
        "Environment steps: one per group of agents that moved",
        number(r.env_steps),
    );
    page.counter(
        "landmarl_actor_episodes",
        "Walks that ended",
        number(r.episodes),
    );
    page.counter(
        "landmarl_actor_rows_made",
        "Rows that the rollout made",
        number(r.rows_made),
    );
    page.counter(
        "landmarl_actor_rows_acknowledged",
        "Rows that shards acknowledged",
        number(r.rows_acked),
    );
    page.counter(
        "landmarl_actor_rows_dropped",
        "Rows given up because their shard was away for too long",
        number(r.rows_dropped),
    );
    page.gauge(
        "landmarl_actor_exploration",
        "Probability of a random action, mean over the slots",
        r.exploration,
    );
    page.gauge(
        "landmarl_actor_weights_version",
        "Version of the weights that it acts with; 0 before the first",
        number(r.weights_version),
    );
    if let Some(age) = r.weights_age {
        seconds(
            page,
            Page::gauge_in,
            "landmarl_actor_weights_age",
            "Time since these weights came",
            age,
        );
    }
}

fn times(page: &mut Page, r: &Reading) {
    let spent = [
        (
            "landmarl_actor_render",
            "Time of cutting windows out of volumes",
            r.policy.render,
        ),
        (
            "landmarl_actor_forward",
            "Time of the network",
            r.policy.forward,
        ),
        (
            "landmarl_actor_blocked",
            "Time that the rollout waited for shards to take rows",
            r.blocked,
        ),
        (
            "landmarl_actor_starved",
            "Time that the rollout waited for its learner: for weights, or to be let in again",
            r.starved,
        ),
    ];
    for (name, help, time) in spent {
        seconds(page, Page::counter_in, name, help, time);
    }
    page.counter(
        "landmarl_actor_forward_batches",
        "Batches that went through the network",
        number(r.policy.batches),
    );
    page.counter(
        "landmarl_actor_forward_observations",
        "Observations in these batches",
        number(r.policy.observations),
    );
}

type Put = fn(&mut Page, Unit, &'static str, &'static str, f64);

fn seconds(page: &mut Page, put: Put, name: &'static str, help: &'static str, time: Duration) {
    put(page, Unit::Seconds, name, help, time.as_secs_f64());
}

/// Tells how good weights are on scans that nobody trains on.
#[derive(Debug)]
pub struct EvaluatorMetrics {
    found: watch::Receiver<Option<(f64, f64)>>,
}

impl EvaluatorMetrics {
    /// Of the evaluator that tells its best and its last mean error in mm to
    /// the other end of `found`.
    #[must_use]
    pub fn new(found: watch::Receiver<Option<(f64, f64)>>) -> Self {
        Self { found }
    }
}

impl Source for EvaluatorMetrics {
    fn tell(&self, page: &mut Page) {
        let Some((best, last)) = *self.found.borrow() else {
            return;
        };
        page.gauge(
            "landmarl_evaluator_error_millimetres",
            "Mean error of the newest weights that were evaluated, on the selection scans",
            last,
        );
        page.gauge(
            "landmarl_evaluator_best_error_millimetres",
            "Mean error of the best weights so far",
            best,
        );
    }
}

#[cfg(test)]
mod tests {
    use proto::transport::metrics::Metrics;

    use super::*;
    use crate::rollout::network_policy::PolicyTimes;

    #[test]
    fn counters_become_samples_and_waits_that_go_on_count() {
        let counters = Arc::new(Counters::default());
        let times = PolicyTimes {
            forward: Duration::from_millis(1500),
            batches: 3,
            ..PolicyTimes::default()
        };
        counters.stepped(5, 1, 4, &[], times);
        counters.set_exploration(0.5);
        let metrics = Metrics::default();
        metrics.add(ActorMetrics::new(Arc::clone(&counters), 1));
        let (tell, found) = watch::channel(None);
        metrics.add(EvaluatorMetrics::new(found));
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
        tell.send_replace(Some((1.25, 2.5)));
        let text = metrics.text().unwrap();
        assert!(
            text.contains("landmarl_evaluator_error_millimetres 2.5\n"),
            "{text}"
        );
    }
}
