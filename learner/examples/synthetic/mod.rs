//! Synthetic scans and rows.

use std::sync::Arc;

use common::imaging::geometry::Geometry;
use common::imaging::scan::Scan;
use common::phantom::{Phantom, PhantomSpec};
use common::transition::row::{AgentStep, FrameRef, Row, RowHeader};
use learner::batch::SampledRow;
use proto::messages::sample::RowKey;

/// A phantom of 1 mm voxels, without landmarks.
pub fn scan(dims: [usize; 3], seed: u64) -> anyhow::Result<Arc<Scan>> {
    let phantom = Phantom::generate(&PhantomSpec::with_dims(dims), seed)?;
    let volume = phantom.to_volume();
    Ok(Arc::new(Scan {
        name: format!("phantom {seed}"),
        geometry: Geometry::straight(volume.dims(), [1.0; 3]),
        landmarks: Vec::new(),
        hash: [0; 32],
        volume,
    }))
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
        discount: 0.9,
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
