//! Synthetic scans and rows.

use std::sync::Arc;

use common::imaging::geometry::Geometry;
use common::imaging::scan::Scan;
use common::phantom::{Phantom, PhantomSpec};
use common::transition::row::{AgentStep, FrameRef, Row, RowHeader};
use learner::batch::SampledRow;
use proto::messages::sample::RowKey;

/// A phantom of 1 mm voxels with `landmarks` landmarks, spread over the middle half of each axis.
pub fn scan(dims: [usize; 3], seed: u64, landmarks: usize) -> anyhow::Result<Arc<Scan>> {
    let phantom = Phantom::generate(&PhantomSpec::with_dims(dims), seed)?;
    let volume = phantom.to_volume();
    Ok(Arc::new(Scan {
        name: format!("phantom {seed}"),
        geometry: Geometry::straight(volume.dims(), [1.0; 3]),
        landmarks: (0..landmarks).map(|i| Some(landmark(dims, i))).collect(),
        hash: [0; 32],
        volume,
    }))
}

/// Voxel position of landmark `i`: multiples of irrational numbers are evenly spread.
fn landmark(dims: [usize; 3], i: usize) -> [f64; 3] {
    let place = |(dim, step): (usize, f64)| dim as f64 * (0.25 + 0.5 * (i as f64 * step).fract());
    [(dims[0], 0.618), (dims[1], 0.755), (dims[2], 0.570)].map(place)
}

/// The transition of an agent over `frames`, one more than a state has: the bootstrap state is
/// the state advanced by one frame.
pub fn transition(
    slot: u32,
    header: RowHeader,
    agent: &AgentStep,
    frames: &[FrameRef],
) -> SampledRow {
    let agent = AgentStep {
        active: true,
        state: frames[..frames.len() - 1].to_vec(),
        next: frames[1..].to_vec(),
        ..agent.clone()
    };
    SampledRow {
        row: Row {
            header,
            agents: vec![agent],
        },
        key: RowKey {
            shard: 0,
            incarnation: 0,
            slot,
            generation: 0,
        },
        weight: 1.0,
    }
}
