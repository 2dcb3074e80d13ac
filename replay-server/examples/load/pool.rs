//! Rows and priorities to send, made before the clock starts.

use crate::arguments::Arguments;
use bytes::Bytes;
use common::transition::row::{AgentStep, FrameRef, Row, RowHeader, RowShape};
use proto::messages::insert::InsertBatch;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Batches in the pool: enough that they are not all in the first cache level.
const BATCHES: usize = 32;

/// Packed rows and |TD errors| of some batches.
#[derive(Debug)]
pub struct Pool {
    packed: Vec<Bytes>,
    td_errors: Vec<Vec<f32>>,
}

impl Pool {
    /// Rows as an actor with this client's number would write them.
    pub fn new(arguments: &Arguments) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(arguments.client.into());
        let (shape, rows) = (arguments.shape(), arguments.batch);
        let packed = (0..BATCHES).map(|batch| {
            let mut out = Vec::with_capacity(rows * shape.bytes());
            let mut walk = [60_i16, 70, 80];
            for step in 0..rows {
                row(arguments.client, batch, step, shape, &mut walk, &mut rng).write_to(&mut out);
            }
            out.into()
        });
        Self {
            packed: packed.collect(),
            td_errors: (0..BATCHES)
                .map(|_| (0..rows).map(|_| rng.random::<f32>() * 2.0).collect())
                .collect(),
        }
    }

    /// A message to insert.
    pub fn batch(&self, sequence: u64) -> InsertBatch {
        let turn = turn(sequence);
        InsertBatch {
            sequence,
            packed: self.packed[turn].clone(),
            priorities: self.td_errors[turn].clone(),
        }
    }

    /// New |TD errors| for as many rows as a batch has.
    pub fn td_errors(&self, turn_of: u64) -> &[f32] {
        &self.td_errors[turn(turn_of)]
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the remainder is below BATCHES"
)]
fn turn(number: u64) -> usize {
    (number % BATCHES as u64) as usize
}

/// A plausible row: neighbouring positions, as in an episode.
fn row<R: Rng>(
    actor: u16,
    episode: usize,
    step: usize,
    shape: RowShape,
    walk: &mut [i16; 3],
    rng: &mut R,
) -> Row {
    let mut frames = |_| {
        let axis = rng.random_range(0..3);
        let by = if rng.random() { 3 } else { -3 };
        walk[axis] = (walk[axis] + by).clamp(0, 250);
        FrameRef {
            position: *walk,
            stride: 3,
            valid: true,
        }
    };
    let agents = (0..shape.agents).map(|agent| AgentStep {
        agent,
        action: (step % 6) as u8,
        active: true,
        reward: 0.25 * (step % 8) as f32 - 1.0,
        discount: 0.9,
        state: (0..shape.history).map(&mut frames).collect(),
        next: (0..shape.history).map(&mut frames).collect(),
        ..AgentStep::default()
    });
    let agents = agents.collect();
    Row {
        header: RowHeader {
            scan: (episode % 19) as u16,
            actor,
            incarnation: 1,
            episode: u32::try_from(episode).unwrap_or(u32::MAX),
            step: u16::try_from(step).unwrap_or(u16::MAX),
            weights_version: 1000,
            ..RowHeader::default()
        },
        agents,
    }
}
