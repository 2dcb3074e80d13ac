//! Assembles the learner's status from its parts.

use std::sync::atomic::Ordering::Relaxed;

use proto::messages::status::LearnerStatus;

use crate::shared::Shared;

/// The status; limited to one host's actors and evaluators if `host` is not empty.
pub fn status(shared: &Shared, host: &str) -> LearnerStatus {
    let now = shared.now();
    // Host and process are joined: `lab3/711`.
    let on_host = |of: &str| host.is_empty() || of.split('/').next() == Some(host);
    let (actors, expected, rows_by_weights_age) = {
        let registry = shared.registry();
        let actors = registry.actors().iter().filter(|a| !a.left);
        let actors = actors.filter(|a| on_host(&a.host));
        let actors = actors.map(|a| a.status(now)).collect();
        let expected = shared.expected(&registry);
        (actors, expected, registry.rows_by_weights_age())
    };
    let (evaluators, last_evaluation, best_evaluation) = {
        let evaluations = shared.evaluations();
        let mut evaluators = evaluations.evaluators(now);
        evaluators.retain(|e| on_host(&e.host));
        (evaluators, evaluations.last(), evaluations.best())
    };
    let rows = shared.replay.with_limiter(|l| l.totals());
    let progress = shared.progress.borrow().clone();
    let pace = progress.pace;
    let updates = shared.updates.load(Relaxed);
    let newest = shared.newest.borrow().clone();
    LearnerStatus {
        run_id: shared.hello.run_id.clone(),
        updates,
        updates_total: shared.stop_rules.updates(),
        weights_version: newest.as_ref().map_or(0, |p| p.version),
        actors,
        shards: shared.replay.links(),
        samples_per_insert: rows.samples_per_insert,
        limiter: rows.limiter,
        version: env!("CARGO_PKG_VERSION").into(),
        actors_expected: u32::try_from(expected).unwrap_or(u32::MAX),
        updates_per_s: pace.updates_per_s,
        env_steps_per_s: pace.env_steps_per_s,
        train_wait_share: pace.train_wait_share,
        limited_share: pace.limited_share,
        collate_share: pace.collate_share,
        elapsed_s: now.as_secs_f64(),
        left_s: progress.left_s,
        over: shared.over.load(Relaxed),
        weights_age_s: newest.map_or(0.0, |p| p.age().as_secs_f64()),
        evaluators,
        last_evaluation,
        best_evaluation,
        rows_by_weights_age: rows_by_weights_age.into(),
        min_rows: shared.min_rows,
        rows: rows.rows,
    }
}
