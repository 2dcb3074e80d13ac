//! Scans, rows and batches for the tests of this crate.

use std::array::from_fn;
use std::sync::Arc;

use common::config::{Config, NetworkKind};
use common::imaging::geometry::{Affine, AxisMap, Geometry};
use common::imaging::scan::Scan;
use common::imaging::volume::Volume;
use common::transition::row::{AgentStep, FrameRef, Row, RowHeader};
use proto::messages::sample::RowKey;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use tch::Device;

use crate::batch::augment::Augmenter;
use crate::batch::{Batch, Collator, SampledRow};
use crate::training::trainer::Trainer;

/// Scans of 20 × 21 × 22 voxels, each with its own pattern.
pub(crate) fn scans(count: u8) -> Vec<Arc<Scan>> {
    let dims = [20, 21, 22];
    let voxels: usize = dims.iter().product();
    (0..count)
        .map(|k| {
            let seed = usize::from(k) * 37;
            let bytes: Vec<u8> = (0..voxels).map(|i| ((i * 31 + seed) % 251) as u8).collect();
            let mut hash = [0; 32];
            hash[0] = k;
            Arc::new(Scan {
                name: format!("scan-{k}"),
                volume: Volume::from_u8(dims, bytes).unwrap(),
                geometry: geometry(dims),
                landmarks: vec![Some([10.0, 10.0, 10.0]); 2],
                hash,
            })
        })
        .collect()
}

/// 1 mm voxels.
pub(crate) fn geometry(dims: [usize; 3]) -> Geometry {
    let rows = from_fn(|i| from_fn(|j| f64::from(u8::from(i == j))));
    Geometry {
        dims,
        spacing_mm: [1.0; 3],
        affine: Affine { rows },
        axis_map: AxisMap::identity(dims),
    }
}

/// The `i`-th of many different rows over three scans and three scales.
pub(crate) fn row(i: u32, group: u16, history: usize) -> Row {
    let at = |n: u32| i16::try_from(3 + (i * 7 + n * 5) % 15).unwrap();
    let frames = |n: u32| -> Vec<FrameRef> {
        (0..u32::try_from(history).unwrap())
            .map(|h| FrameRef {
                position: [at(n + h), at(n + 2), at(n + 4 * h)],
                stride: 1 + (i % 3) as u8,
                valid: true,
            })
            .collect()
    };
    let agents = (0..group).map(|a| AgentStep {
        agent: if group == 1 { (i % 2) as u16 } else { a },
        scale: (i % 3) as u8,
        next_scale: ((i + 1) % 3) as u8,
        action: (i % 6) as u8,
        active: i % 5 != 4 || a == 0,
        reward: if i.is_multiple_of(2) { 1.0 } else { -1.0 },
        discount: if i.is_multiple_of(7) { 0.0 } else { 0.9 },
        state: frames(u32::from(a)),
        next: frames(u32::from(a) + 1),
    });
    let header = RowHeader {
        scan: (i % 3) as u16,
        step: i as u16,
        ..RowHeader::default()
    };
    Row {
        header,
        agents: agents.collect(),
    }
}

/// The `i`-th row as sampled with this importance weight.
pub(crate) fn sampled(i: u32, group: u16, history: usize, weight: f32) -> SampledRow {
    SampledRow {
        row: row(i, group, history),
        key: key(i),
        weight,
    }
}

pub(crate) fn key(i: u32) -> RowKey {
    RowKey {
        shard: 0,
        incarnation: 1,
        slot: i,
        generation: 0,
    }
}

/// A small configuration over `agents` landmarks: windows of 8³, batches of 6.
pub(crate) fn config(kind: NetworkKind, agents: usize) -> Arc<Config> {
    let mut c = Config::defaults().unwrap();
    c.network.kind = kind;
    (c.rules.window_size, c.rules.history) = (8, 1);
    c.data.landmarks = (0..agents).map(|i| format!("L{i}")).collect();
    (c.learner.batch, c.learner.lr) = (6, 1e-3);
    c.learner.target_update_period = 5;
    (c.learner.updates, c.learner.device) = (1000, "cpu".to_owned());
    c.learner.threads = 1;
    Arc::new(c)
}

/// A trainer of that configuration, on one libtorch thread.
pub(crate) fn trainer(config: &Arc<Config>) -> Trainer {
    tch::set_num_threads(1);
    let landmarks = config.data.landmarks.clone();
    Trainer::new(Arc::clone(config), landmarks, Device::Cpu).unwrap()
}

/// The `i`-th of many different batches, for two agents.
pub(crate) fn batch(config: &Config, i: u32) -> Batch {
    let group = config.row_agents();
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(i));
    let samples = config.rules.window_size.pow(3);
    let augmenter = Augmenter::new(&config.augment, samples, &mut rng);
    let mut collator = Collator::new(scans(3), config, group.into(), augmenter, 1);
    let count = u32::try_from(config.learner.batch).unwrap();
    let history = config.rules.history;
    let rows: Vec<_> = (i * count..(i + 1) * count)
        .map(|i| {
            let mut sampled = sampled(i, group, history, 1.0);
            for agent in &mut sampled.row.agents {
                agent.discount = agent.discount.min(config.learner.gamma as f32);
            }
            sampled
        })
        .collect();
    let mut batch = Batch::default();
    collator.fill(&rows, &mut batch, &mut rng).unwrap();
    batch
}

/// A row's look without augmentation.
pub(crate) fn look() -> crate::batch::augment::Look {
    let mut off = Config::defaults().unwrap().augment;
    off.enabled = false;
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    Augmenter::new(&off, 8, &mut rng).draw(&mut rng)
}
