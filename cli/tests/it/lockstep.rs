//! The whole trainer without network, threads or clocks: rollout → table →
//! batch → step → weights → rollout, bit-equal when repeated. If this becomes
//! hard to write, a boundary between the crates has gone wrong.

use std::sync::Arc;

use actor::network_policy::{NetworkPolicy, Samples};
use actor::rollout::Rollout;
use common::config::{Config, Sources};
use common::geometry::{Affine, AxisMap, Geometry};
use common::manifest::volume_hash;
use common::phantom::{Phantom, PhantomSpec};
use common::row::{Row, RowShape};
use common::scan::Scan;
use learner::augment::Augmenter;
use learner::batch::{Batch, Collator, SampledRow};
use learner::collate::importance_weights;
use learner::trainer::Trainer;
use proto::insert::Writer;
use proto::sample::RowKey;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use replay_server::selector::Selector;
use replay_server::table::{Sampled, Table, Update};
use tch::Device;

fn config() -> Arc<Config> {
    let set = "rules.window_size=10 rules.max_steps=20 actor.slots=3 learner.batch=8 \
        learner.threads=1 learner.target_every=5 learner.updates=12 \
        data.landmarks=[\"bridge\",\"base_ball\"]";
    let set = set.split_whitespace().map(str::to_owned).collect();
    let sources = Sources {
        set,
        ..Sources::default()
    };
    Arc::new(Config::load(&sources).unwrap())
}

fn scan(seed: u64) -> Arc<Scan> {
    let phantom = Phantom::generate(&PhantomSpec::with_dims([48, 56, 48]), seed).unwrap();
    let volume = phantom.to_volume();
    let axis = |i: usize| std::array::from_fn(|j| if i == j { 1.0 } else { 0.0 });
    let places = phantom.landmark_voxels();
    Arc::new(Scan {
        name: format!("phantom {seed}"),
        geometry: Geometry {
            dims: volume.dims(),
            spacing_mm: [1.0; 3],
            affine: Affine {
                rows: std::array::from_fn(axis),
            },
            axis_map: AxisMap::identity(volume.dims()),
        },
        landmarks: vec![Some(places[0]), Some(places[3])],
        hash: volume_hash(&volume),
        volume,
    })
}

/// Sampled bytes as rows with keys and importance weights.
fn rows_of(sampled: &Sampled, stored: usize, beta: f64, shape: RowShape) -> Vec<SampledRow> {
    #[expect(clippy::cast_precision_loss, reason = "a small table")]
    let scaled: Vec<f64> = sampled
        .probabilities
        .iter()
        .map(|p| p * stored as f64)
        .collect();
    sampled
        .packed
        .chunks_exact(shape.bytes())
        .zip(sampled.slots.iter().zip(&sampled.generations))
        .zip(importance_weights(&scaled, beta))
        .map(|((bytes, (&slot, &generation)), weight)| SampledRow {
            row: Row::read(bytes, shape).unwrap(),
            key: RowKey {
                shard: 0,
                incarnation: 1,
                slot,
                generation,
            },
            weight,
        })
        .collect()
}

/// Trains for a dozen updates and hands out the weights.
fn train(config: &Arc<Config>, scans: &[Arc<Scan>]) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(config.run.seed);
    let shape = RowShape {
        agents: 1,
        history: 1,
    };
    let writer = Writer {
        actor: 0,
        incarnation: 1,
    };
    let augmenter = Augmenter::new(&config.augment, config.rules.window_size.pow(3), &mut rng);
    let mut collator = Collator::new(scans.to_vec(), config, 1, augmenter, 1);
    let mut trainer = Trainer::new(
        Arc::clone(config),
        config.data.landmarks.clone(),
        Device::Cpu,
    )
    .unwrap();
    let mut rollout = Rollout::new(config, scans, &[0.1; 3], writer).unwrap();
    let mut table = Table::new(
        500,
        shape.bytes(),
        Selector::prioritised(0.6, 0.01, 10.0).unwrap(),
    );
    let mut policy = NetworkPolicy::new(&config.rules, Samples::Bytes, Device::Cpu);
    let mut batch = Batch::default();

    while trainer.updates() < config.learner.updates {
        policy
            .set_network(trainer.online(), trainer.updates())
            .unwrap();
        for (row, priority) in rollout.step(&mut policy, 1.0).unwrap().rows {
            let mut packed = Vec::new();
            row.write_to(&mut packed);
            table.insert(&packed, &[priority]).unwrap();
        }
        if table.len() < 20 {
            continue;
        }
        let sampled = table.sample(config.learner.batch, &mut rng);
        let rows = rows_of(&sampled, table.len(), config.replay.beta, shape);
        collator.fill(&rows, &mut batch, &mut rng).unwrap();
        let report = trainer.step(&batch).unwrap();
        let updates: Vec<Update> = batch
            .keys
            .iter()
            .zip(report.td_errors)
            .map(|(key, td_error)| Update {
                slot: key.slot,
                generation: key.generation,
                td_error,
            })
            .collect();
        table.update(&updates).unwrap();
    }
    trainer.weights_bytes(1).unwrap()
}

#[test]
fn lockstep_training_is_bit_equal_when_repeated() {
    tch::set_num_threads(1);
    let (config, scans) = (config(), [scan(1), scan(2)]);
    let first = train(&config, &scans);
    assert_eq!(first, train(&config, &scans));
    let mut other = (*config).clone();
    other.run.seed += 1;
    assert_ne!(first, train(&Arc::new(other), &scans), "the seed decides");
}
