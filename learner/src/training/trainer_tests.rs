//! Tests on tiny networks: learning, determinism, error messages.

use super::*;
use crate::testing::{batch, config, trainer};
use common::config::{NetworkKind, NetworkPreset};
use model::HeadPlan;
use model::network::spec::Activation;
use tch::Tensor;

#[test]
fn presets_take_rules_and_options_from_the_configuration() {
    let mut c = (*config(NetworkKind::Collab, 3)).clone();
    let spec = network_spec(&c, 3).unwrap();
    assert_eq!(
        (spec.agents, spec.window, spec.history, spec.scales),
        (3, 8, 1, Some(3))
    );
    (c.network.shared, c.network.hidden) = (40, vec![20]);
    let shared = network_spec(&c, 3).unwrap();
    assert_eq!(
        (shared.features().unwrap(), &shared.hidden),
        (43, &vec![20])
    );
    assert_eq!(shared.conv[..3], spec.conv);
    c.network.shared = 4096;
    let text = network_spec(&c, 3).unwrap_err().to_string();
    let limit = "channels is 4096, expected 1 to 2048";
    assert!(text.contains(limit), "{text}");
    (c.network.shared, c.network.hidden) = (0, Vec::new());
    c.network.scale_input = false;
    c.network.kind = NetworkKind::Commnet;
    (c.network.dueling, c.network.attention) = (true, true);
    c.network.preset = NetworkPreset::ReferenceTorch;
    (c.rules.window_size, c.rules.history) = (45, 4);
    let spec = network_spec(&c, 2).unwrap();
    assert_eq!(
        (spec.kind, spec.scales, spec.history),
        (NetworkKind::Commnet, None, 4)
    );
    assert!(spec.dueling && spec.attention && spec.activation == Activation::Prelu);
    c.network.preset = NetworkPreset::ReferenceTf;
    assert_eq!(network_spec(&c, 2).unwrap().hidden, [512, 256, 128]);
    c.network.preset = NetworkPreset::ReferenceTorch;
    c.rules.window_size = 12;
    let text = network_spec(&c, 2).unwrap_err().to_string();
    for part in [
        "network.preset = \"reference_torch\" with rules.window_size = 12",
        "too small",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn two_runs_are_bit_equal_and_learn() {
    for (kind, threads) in [
        (NetworkKind::Collab, 1),
        (NetworkKind::Collab, 2),
        (NetworkKind::Commnet, 1),
        (NetworkKind::Commnet, 2),
    ] {
        // With fixed targets the problem is a regression, whose loss must fall.
        let mut c = (*config(kind, 2)).clone();
        (c.learner.target_update_period, c.learner.double) = (1000, false);
        c.learner.threads = threads;
        let config = Arc::new(c);
        let (mut a, mut b) = (trainer(&config), trainer(&config));
        let mut losses = Vec::new();
        for i in 0..40 {
            let batch = batch(&config, i % 4);
            let report = a.step(&batch).unwrap();
            assert_eq!(report, b.step(&batch).unwrap());
            assert_eq!(report.td_errors.len(), batch.rows);
            let mut errors = report.td_errors.iter();
            assert!(errors.all(|td| td.is_finite() && *td >= 0.0));
            losses.push(report.loss);
        }
        assert_eq!(a.weights_bytes(1).unwrap(), b.weights_bytes(1).unwrap());
        assert_eq!((a.updates(), a.adam.steps()), (40, 40));
        let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
        let (first, last) = (mean(&losses[..4]), mean(&losses[36..]));
        assert!(last < 0.5 * first, "{kind:?}: {losses:?}");
    }
}

#[test]
fn the_target_network_is_copied_once_per_period() {
    let mut c = (*config(NetworkKind::Collab, 2)).clone();
    c.learner.target_update_period = 3;
    let mut t = trainer(&Arc::new(c));
    let same = |t: &Trainer| {
        let (online, target) = (t.online.parameters(), t.target.parameters());
        let mut pairs = online.iter().zip(target.iter());
        pairs.all(|((_, a), (_, b))| a.equal(b))
    };
    let mut found = Vec::new();
    for i in 0..6 {
        let batch = batch(&t.config, i);
        t.step(&batch).unwrap();
        found.push(same(&t));
    }
    assert_eq!(found, [false, false, true, false, false, true]);
}

/// Q-values of every entry, in order.
fn q_values(n: &Network, batch: &Batch, windows: &[f32], scale: &[i64]) -> Vec<Vec<f32>> {
    let size = |v: usize| i64::try_from(v).unwrap();
    let (rows, agents) = (size(batch.rows), size(batch.agents));
    let side = size(n.spec().window);
    let frame = [size(n.spec().history), side, side, side];
    let windows = Tensor::from_slice(windows);
    let scale = Tensor::from_slice(scale);
    let q = if n.spec().kind == NetworkKind::Commnet {
        let windows = windows.view([rows, agents, frame[0], side, side, side]);
        let q = n.forward_groups(&windows, Some(&scale.view([rows, agents])));
        q.unwrap().flatten(0, 1)
    } else {
        let windows = windows.view([rows * agents, frame[0], side, side, side]);
        let plan = HeadPlan::new(&batch.agent, n.spec().agents, Device::Cpu).unwrap();
        n.forward_rows(&windows, &plan, Some(&scale)).unwrap()
    };
    Vec::try_from(q.detach()).unwrap()
}

/// The best action, which must not depend on rounding.
fn best_action(q: &[f32]) -> usize {
    let mut order: Vec<usize> = (0..q.len()).collect();
    order.sort_by(|&a, &b| q[b].total_cmp(&q[a]));
    let (gap, largest) = (q[order[0]] - q[order[1]], q[order[0]].abs().max(1e-3));
    assert!(gap > 1e-5 * largest, "almost a tie, use other seeds: {q:?}");
    order[0]
}

/// The formula's result with the networks' own Q-values, row by row.
fn expected_errors(t: &Trainer, batch: &Batch, double: bool) -> Vec<f32> {
    let q = q_values(t.online(), batch, &batch.state, &batch.scale);
    let online = q_values(t.online(), batch, &batch.next, &batch.next_scale);
    let target = q_values(&t.target, batch, &batch.next, &batch.next_scale);
    let entry = |i: usize| {
        let chooser = if double { &online[i] } else { &target[i] };
        let y = match batch.discount[i] {
            0.0 => batch.reward[i],
            discount => batch.reward[i] + discount * target[i][best_action(chooser)],
        };
        (y - q[i][usize::try_from(batch.action[i]).unwrap()]).abs()
    };
    let group = batch.agents;
    let row = |r: usize| {
        let active = (r * group..(r + 1) * group).filter(|&i| batch.active[i] > 0.0);
        let errors: Vec<f32> = active.map(entry).collect();
        let largest = errors.iter().copied().fold(0.0, f32::max);
        0.9 * largest + 0.1 * errors.iter().sum::<f32>() / errors.len().max(1) as f32
    };
    (0..batch.rows).map(row).collect()
}

#[test]
fn td_errors_equal_the_formula() {
    let cases = [
        (NetworkKind::Collab, true, true),
        (NetworkKind::Collab, false, true),
        (NetworkKind::Collab, true, false),
        (NetworkKind::Commnet, true, true),
        (NetworkKind::Commnet, true, false),
    ];
    for (kind, double, bootstraps) in cases {
        let mut c = (*config(kind, 2)).clone();
        (c.learner.double, c.learner.target_update_period) = (double, 1000);
        let config = Arc::new(c);
        let mut t = trainer(&config);
        let mut batch = batch(&config, 0);
        // No agent of one row moved: no error, no priority.
        batch.active[..batch.agents].fill(0.0);
        if !bootstraps {
            // With zero discounts the bootstrap windows must not matter.
            batch.discount.fill(0.0);
            batch.next.fill(f32::NAN);
        }
        // Online and target must differ for the difference to be visible.
        for _ in 0..5 {
            t.step(&batch).unwrap();
        }
        let expected = expected_errors(&t, &batch, double);
        let found = t.step(&batch).unwrap().td_errors;
        assert_eq!((found.len(), found[0]), (batch.rows, 0.0));
        assert!(found[1..].iter().any(|td| *td > 0.1));
        let mut pairs = found.iter().zip(&expected);
        let near = pairs.all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near, "{kind:?} {double}: {found:?} {expected:?}");
    }
}

#[test]
fn weights_carry_their_metadata() {
    let config = config(NetworkKind::Collab, 2);
    let t = trainer(&config);
    let read = weights::from_bytes(&t.weights_bytes(7).unwrap()).unwrap();
    assert_eq!(read.network.spec(), t.online().spec());
    let rules: common::environment::rules::Rules =
        serde_json::from_str(&read.metadata[RULES_KEY]).unwrap();
    assert_eq!(rules, config.rules);
    assert_eq!(read.metadata[LANDMARKS_KEY], "[\"L0\",\"L1\"]");
    assert_eq!(read.metadata[UPDATES_KEY], "0");
    assert_eq!(read.metadata[WEIGHTS_VERSION_KEY], "7");
}

#[test]
fn non_finite_gradients_stop_the_update_with_an_error() {
    let config = config(NetworkKind::Collab, 2);
    let mut t = trainer(&config);
    let mut broken = batch(&config, 0);
    broken.reward[0] = f32::INFINITY;
    broken.weight[0] = f32::NAN;
    let before = t.weights_bytes(1).unwrap();
    let text = t.step(&broken).unwrap_err().to_string();
    let reason = "update 1: the gradient norm is NaN";
    assert!(text.contains(reason), "{text}");
    assert_eq!((t.weights_bytes(1).unwrap(), t.updates()), (before, 0));
}
