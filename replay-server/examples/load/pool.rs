//! Rows and priorities to send, made before the clock starts.

use crate::Arguments;
use bytes::Bytes;
use common::transition::row::{AgentStep, FrameRef, Row, RowHeader, RowShape};
use proto::messages::insert::InsertBatch;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Batches in the pool: enough that they are not all in the first cache level.
const BATCHES: u16 = 32;

/// Packed rows and |TD errors| of some batches.
pub struct Pool {
    packed: Vec<Bytes>,
    td_errors: Vec<Vec<f32>>,
}

impl Pool {
    /// Rows as an actor with this client's number would write them.
    pub fn new(arguments: &Arguments) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(arguments.client.into());
        let shape = arguments.shape();
        let packed = (0..BATCHES).map(|episode| {
            let mut out = Vec::with_capacity(arguments.batch * shape.bytes());
            let mut position = [60_i16, 70, 80];
            for step in 0..arguments.batch as u16 {
                let header = RowHeader {
                    scan: episode % 19,
                    actor: arguments.client,
                    incarnation: 1,
                    episode: episode.into(),
                    step,
                    weights_version: 1000,
                    ..RowHeader::default()
                };
                row(header, shape, &mut position, &mut rng).write_to(&mut out);
            }
            out.into()
        });
        let packed = packed.collect();
        let mut td_error = || rng.random::<f32>() * 2.0;
        let td_errors = (0..BATCHES)
            .map(|_| (0..arguments.batch).map(|_| td_error()).collect())
            .collect();
        Self { packed, td_errors }
    }

    /// A message to insert.
    pub fn batch(&self, sequence: u64) -> InsertBatch {
        let turn = sequence as usize;
        InsertBatch {
            sequence,
            packed: self.packed[turn % self.packed.len()].clone(),
            priorities: self.td_errors(turn).to_vec(),
        }
    }

    /// New |TD errors| for as many rows as a batch has.
    pub fn td_errors(&self, turn: usize) -> &[f32] {
        &self.td_errors[turn % self.td_errors.len()]
    }
}

/// A plausible row: neighbouring positions, as in an episode.
fn row(header: RowHeader, shape: RowShape, position: &mut [i16; 3], rng: &mut ChaCha8Rng) -> Row {
    let mut frames = |_| {
        let axis: usize = rng.random_range(0..3);
        let by = if rng.random() { 3 } else { -3 };
        position[axis] = (position[axis] + by).clamp(0, 250);
        FrameRef {
            position: *position,
            stride: 3,
            valid: true,
        }
    };
    let agents = (0..shape.agents).map(|agent| AgentStep {
        agent,
        action: (header.step % 6) as u8,
        active: true,
        reward: 0.25 * f32::from(header.step % 8) - 1.0,
        discount: 0.9,
        state: (0..shape.history).map(&mut frames).collect(),
        next: (0..shape.history).map(&mut frames).collect(),
        ..AgentStep::default()
    });
    let agents = agents.collect();
    Row { header, agents }
}
