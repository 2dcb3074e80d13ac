//! How many choices bf16 changes: the published agent on the test scans.

use std::path::Path;

use actor::rollout::Rollout;
use actor::rollout::network_policy::{NetworkPolicy, Samples};
use actor::rollout::policy::{Policy, PolicyError, QValues, View};
use common::config::Config;
use common::environment::rules::Rules;
use common::imaging::dataset::{Dataset, DatasetSpec, LoadOptions, Split};
use proto::messages::insert::Writer;
use tch::Device;

/// Computes both, and returns the first.
struct Both {
    f32: NetworkPolicy,
    bf16: NetworkPolicy,
    computed: Vec<(QValues, QValues)>,
}

impl Policy for Both {
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
        let exact = self.f32.q_values(views)?;
        let half = self.bf16.q_values(views)?;
        self.computed.extend(exact.iter().copied().zip(half));
        Ok(exact)
    }

    fn weights_version(&self) -> u64 {
        1
    }
}

/// Without its instructions, bf16 takes seconds per window.
fn has_bf16() -> bool {
    common::run::cpu::Extensions::detect().bf16()
}

fn config() -> Config {
    let mut config = Config::defaults().unwrap();
    config.rules = Rules::reference();
    config.data.landmarks = vec!["13".into()];
    config.data.allow_mixed_spacing = true;
    config.actor.slots = if has_bf16() { 32 } else { 1 };
    config
}

fn place(q: &QValues) -> usize {
    let at = |best: usize, i: usize| if q[i] > q[best] { i } else { best };
    (0..6).fold(0, at)
}

#[test]
fn bf16_chooses_as_f32_does() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let weights = shared.join("reference/rl-medical-single-agent-ac.safetensors");
    let Ok(bytes) = std::fs::read(weights) else {
        println!("skipped: bf16_chooses_as_f32_does: ../shared is absent");
        return;
    };
    let config = config();
    let brain = shared.join("data/brain");
    let dataset = Dataset::load(&DatasetSpec {
        images: brain.join("images.txt"),
        landmarks: Some(brain.join("landmarks.txt")),
        split: Split::Test,
        fold: None,
        ids: config.data.landmarks.clone(),
        options: LoadOptions::from_config(&config),
        training: None,
    });
    let network = model::files::weights::from_bytes(&bytes).unwrap().network;
    let policy = |bf16| {
        let policy = NetworkPolicy::new(&config.rules, Samples::Bytes, Device::Cpu);
        let mut policy = policy.with_bf16(bf16);
        policy.set_network(&network, 1).unwrap();
        policy
    };
    let mut both = Both {
        f32: policy(false),
        bf16: policy(true),
        computed: Vec::new(),
    };
    let writer = Writer {
        actor: 1,
        incarnation: 1,
    };
    let exploration = vec![0.3; config.actor.slots];
    let mut rollout = Rollout::new(&config, &dataset.unwrap().scans, &exploration, writer).unwrap();
    let steps = if has_bf16() { 8 } else { 3 };
    for _ in 0..steps {
        rollout.step(&mut both, 1.0).unwrap();
    }
    let all = both.computed.iter().flat_map(|(q, _)| q);
    let (low, high) = all.fold((f32::MAX, f32::MIN), |(l, h), q| (l.min(*q), h.max(*q)));
    let lost = |(q, half): &(QValues, QValues)| (q[place(q)] - q[place(half)]) / (high - low);
    let worst = both.computed.iter().map(lost).fold(0.0, f32::max);
    let differ = both.computed.iter().filter(|(q, h)| place(q) != place(h));
    let (differ, count) = (differ.count(), both.computed.len());
    println!("{differ} of {count} choices differ; the worst loses {worst:.1e} of the range of Q");
    assert!(count >= steps && both.computed.iter().any(|(q, h)| q != h));
    // Over many, one in a hundred differs at most (docs/benchmarks.md); few may have more.
    assert!(worst <= 1e-3 && differ * 100 <= count + 200);
}
