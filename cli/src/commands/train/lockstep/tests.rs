//! A training that is repeated, or stopped and resumed, is bit-identical.

use std::sync::Arc;

use common::config::{Config, Sources};
use common::imaging::geometry::Geometry;
use common::imaging::manifest::volume_hash;
use common::imaging::scan::Scan;
use common::phantom::{Phantom, PhantomSpec};
use common::transition::row::RowShape;
use learner::checkpoint::Checkpoint;

use super::machine::{Machine, Turn};
use super::settle;

fn config(more: &str) -> Arc<Config> {
    let set = "run.lockstep=true rules.window_size=10 rules.max_steps=20 actor.slots=3 actor.count=2 \
        learner.batch=8 learner.threads=1 learner.target_update_period=5 learner.updates=12 learner.n_step=2 \
        learner.publish_period=4 replay.min_rows=20 replay.capacity=60 replay.error_buffer=200 \
        data.landmarks=[\"bridge\",\"base_ball\"]";
    let set = set.split_whitespace().chain(more.split_whitespace());
    let sources = Sources {
        set: set.map(str::to_owned).collect(),
        ..Sources::default()
    };
    let mut config = Config::load(&sources).unwrap();
    settle(&mut config).unwrap();
    Arc::new(config)
}

fn scan(seed: u64) -> Arc<Scan> {
    let phantom = Phantom::generate(&PhantomSpec::with_dims([48, 56, 48]), seed).unwrap();
    let volume = phantom.to_volume();
    let places = phantom.landmark_voxels();
    Arc::new(Scan {
        name: format!("phantom {seed}"),
        geometry: Geometry::straight(volume.dims(), [1.0; 3]),
        landmarks: vec![Some(places[0]), Some(places[3])],
        hash: volume_hash(&volume),
        volume,
    })
}

fn machine(config: &Arc<Config>, scans: &[Arc<Scan>]) -> Machine {
    let shape = RowShape {
        agents: config.row_agents(),
        history: 1,
    };
    Machine::new(config, scans, shape).unwrap()
}

/// The whole state of a run.
fn bytes(machine: &Machine) -> Vec<u8> {
    machine.checkpoint("run", "{}").unwrap().to_bytes().unwrap()
}

/// The state after all updates. After each turn in `stops` (counted over all) a new
/// machine, restored from a checkpoint, replaces the current one.
fn train(config: &Arc<Config>, scans: &[Arc<Scan>], stops: &[usize]) -> Vec<u8> {
    let mut one = machine(config, scans);
    let mut turns = 0;
    while one.trainer.updates() < config.learner.updates {
        if stops.contains(&turns) {
            let saved = Checkpoint::from_bytes(&bytes(&one), "memory").unwrap();
            one = machine(config, scans);
            one.restore(&saved, "{}").unwrap();
        }
        one.turn().unwrap();
        turns += 1;
    }
    bytes(&one)
}

#[test]
fn equal_seeds_give_equal_bits_and_other_seeds_do_not() {
    tch::set_num_threads(1);
    let scans = [scan(1), scan(2)];
    let first = train(&config(""), &scans, &[]);
    assert_eq!(first, train(&config(""), &scans, &[]));
    assert_ne!(first, train(&config("run.seed=2"), &scans, &[]));
}

#[test]
fn a_resumed_run_is_bit_identical_to_an_uninterrupted_one() {
    tch::set_num_threads(1);
    let scans = [scan(1), scan(2)];
    let settings = [
        "",
        "replay.selector=\"uniform\" pose.share=0.5 pose.flip=0.5",
        "network.kind=\"commnet\" rules.coupling=\"shared\"",
    ];
    for more in settings {
        let config = config(more);
        let uninterrupted = train(&config, &scans, &[]);
        for stops in [vec![0], vec![3, 4, 5], vec![11], (0..60).collect()] {
            let same = train(&config, &scans, &stops) == uninterrupted;
            assert!(same, "{more}: stopped after {stops:?}");
        }
    }
}

#[test]
fn the_ratio_of_samples_to_inserts_is_kept() {
    tch::set_num_threads(1);
    let config = config("replay.samples_per_insert=2.0");
    let mut one = machine(&config, &[scan(1)]);
    let mut learned = 0;
    while one.trainer.updates() < config.learner.updates {
        if let Turn::Learned(report) = one.turn().unwrap() {
            learned += 1;
            assert!(report.loss.is_finite() && report.grad_norm > 0.0);
        }
        let counts = one.counts;
        assert!(counts.sampled <= 2 * counts.inserted);
        assert!(counts.sampled == 0 || counts.inserted >= config.replay.min_rows);
    }
    assert_eq!(one.counts.sampled, learned * 8);
    assert!(one.counts.env_steps >= one.counts.inserted && one.rows() <= 60);
}

#[test]
fn unsupported_settings_and_checkpoints_are_refused() {
    for (set, key) in [
        ("learner.device=\"cuda:0\"", "learner.device"),
        ("learner.devices=[\"cpu\",\"cpu\"]", "learner.devices"),
    ] {
        let sources = Sources {
            set: vec![set.to_owned()],
            ..Sources::default()
        };
        let mut config = Config::load(&sources).unwrap();
        let error = settle(&mut config).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    let config = config("");
    let scans = [scan(1)];
    let mut other = machine(&config, &scans);
    let mut saved = other.checkpoint("run", "{}").unwrap();
    saved.extra.clear();
    let error = other.restore(&saved, "{}").unwrap_err().to_string();
    assert!(error.contains("not trained in lockstep"), "{error}");
}
