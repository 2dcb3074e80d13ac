//! The row: one step of a group of agents on one scan, by reference.
//!
//! A row carries positions, not pixels: any process that has the scans renders
//! the same windows from it. It is self-contained (training on it needs no other
//! row), so the store can drop any other row at any time.
//!
//! In memory a row is a [`Row`]; stored and sent it is packed: a fixed number of
//! little-endian bytes, [`RowShape::bytes`], in the layout that docs/wire.md
//! defines. A batch is packed rows one after another.

use serde::{Deserialize, Serialize};
use std::slice::ChunksExact;

/// Version of the row layout, in every hello and every journal segment; a change of any field
/// increments it.
pub const ROW_VERSION: u8 = 1;

/// Bytes before the agents.
pub const HEADER_BYTES: usize = 26;
pub const FRAME_BYTES: usize = 8;
/// Bytes of one agent besides its frames.
pub const AGENT_BYTES: usize = 14;

/// Agents per row and frames per observation, which determine a row's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowShape {
    /// G: 1 where agents train independently, all of them for `commnet` and team rewards.
    pub agents: u16,
    /// H: frames per observation.
    pub history: u8,
}

impl RowShape {
    /// Bytes per agent.
    #[must_use]
    pub fn agent_bytes(self) -> usize {
        AGENT_BYTES + 2 * usize::from(self.history) * FRAME_BYTES
    }

    #[must_use]
    pub fn bytes(self) -> usize {
        HEADER_BYTES + usize::from(self.agents) * self.agent_bytes()
    }

    /// Splits a batch into rows.
    ///
    /// # Errors
    /// [`RowError::Batch`] when the bytes are not exactly that many rows;
    /// [`Row::check`] validates their content.
    pub fn split(self, packed: &[u8], rows: usize) -> Result<ChunksExact<'_, u8>, RowError> {
        let row_bytes = self.bytes();
        let expected = rows.saturating_mul(row_bytes);
        if packed.len() != expected {
            return Err(RowError::Batch {
                rows,
                row_bytes,
                expected,
                found: packed.len(),
            });
        }
        Ok(packed.chunks_exact(row_bytes))
    }
}

/// Identifies one rendered window: position, stride, and whether it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct FrameRef {
    /// Voxel position in our volume (x, y, z).
    pub position: [i16; 3],
    /// Voxels between samples.
    pub stride: u8,
    /// False for the frames before an episode's first: rendered as zeros.
    pub valid: bool,
}

/// One agent's part of a row.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AgentStep {
    /// Index of the agent (its landmark, its head).
    pub agent: u16,
    /// Scale index of the state.
    pub scale: u8,
    /// Scale index of the bootstrap state.
    pub next_scale: u8,
    /// 0..6, see [`crate::environment::ACTIONS`].
    pub action: u8,
    /// False for a frozen or missing agent: no loss, no priority.
    pub active: bool,
    /// n-step sum of discounted, clipped rewards.
    pub reward: f32,
    /// γ^k, or 0 after a terminal step: the factor of the bootstrap value.
    pub discount: f32,
    /// The last H frames of the state, oldest first.
    pub state: Vec<FrameRef>,
    /// The last H frames of the bootstrap state, oldest first.
    pub next: Vec<FrameRef>,
}

/// The origin of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RowHeader {
    /// Number of the scan in the training manifest.
    pub scan: u16,
    /// Number of the pose, see [`crate::environment::pose`]; 0 is the scan as it is.
    pub pose: u32,
    /// The actor's id.
    pub actor: u16,
    /// Incarnation of that actor.
    pub incarnation: u32,
    /// Environment slot within the actor.
    pub slot: u16,
    /// Episode counter of the slot.
    pub episode: u32,
    /// Step within the episode.
    pub step: u16,
    /// Version of the weights that chose the action; 48 bits are stored.
    pub weights_version: u64,
}

/// One transition of a group of agents.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Row {
    pub header: RowHeader,
    /// G parts, in agent order.
    pub agents: Vec<AgentStep>,
}

/// Bytes that are not a row.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum RowError {
    /// The number of bytes is wrong.
    #[error("a row of {agents} agents and {history} frames has {expected} bytes, got {found}")]
    Length {
        /// G of the expected shape.
        agents: u16,
        /// H of the expected shape.
        history: u8,
        /// Bytes of that shape.
        expected: usize,
        found: usize,
    },
    /// The number of bytes does not fit the number of rows.
    #[error("{rows} rows of {row_bytes} bytes need {expected} bytes, got {found}")]
    Batch {
        /// Rows announced.
        rows: usize,
        row_bytes: usize,
        expected: usize,
        found: usize,
    },
    /// A field has a value that no actor writes.
    #[error("row field {field} of agent {agent} is {value}")]
    Field {
        field: &'static str,
        /// The agent's place in the row.
        agent: usize,
        value: String,
    },
}

impl Row {
    #[must_use]
    pub fn shape(&self) -> RowShape {
        RowShape {
            agents: u16::try_from(self.agents.len()).unwrap_or(u16::MAX),
            history: self
                .agents
                .first()
                .map_or(0, |a| u8::try_from(a.state.len()).unwrap_or(u8::MAX)),
        }
    }

    /// Appends the row's bytes.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let h = &self.header;
        out.extend(h.scan.to_le_bytes());
        out.extend(h.pose.to_le_bytes());
        out.extend(h.actor.to_le_bytes());
        out.extend(h.incarnation.to_le_bytes());
        out.extend(h.slot.to_le_bytes());
        out.extend(h.episode.to_le_bytes());
        out.extend(h.step.to_le_bytes());
        out.extend(&h.weights_version.to_le_bytes()[..6]);
        for a in &self.agents {
            out.extend(a.agent.to_le_bytes());
            out.extend([a.scale, a.next_scale, a.action, u8::from(a.active)]);
            out.extend(a.reward.to_le_bytes());
            out.extend(a.discount.to_le_bytes());
            for f in a.state.iter().chain(&a.next) {
                for p in f.position {
                    out.extend(p.to_le_bytes());
                }
                out.extend([f.stride, u8::from(f.valid)]);
            }
        }
    }

    /// Refuses bytes that are not a row of this shape, or have values that no actor
    /// writes. Allocates nothing: a shard checks every row that it receives.
    pub fn check(bytes: &[u8], shape: RowShape) -> Result<(), RowError> {
        if bytes.len() != shape.bytes() {
            return Err(RowError::Length {
                agents: shape.agents,
                history: shape.history,
                expected: shape.bytes(),
                found: bytes.len(),
            });
        }
        bytes[HEADER_BYTES..]
            .chunks_exact(shape.agent_bytes())
            .enumerate()
            .try_for_each(|(place, agent)| check_agent(agent, place))
    }

    /// Reads a row of a known shape, refusing what [`Row::check`] refuses.
    pub fn read(bytes: &[u8], shape: RowShape) -> Result<Self, RowError> {
        Self::check(bytes, shape)?;
        let mut r = Reader(bytes);
        let header = RowHeader {
            scan: r.u16(),
            pose: r.u32(),
            actor: r.u16(),
            incarnation: r.u32(),
            slot: r.u16(),
            episode: r.u32(),
            step: r.u16(),
            weights_version: r.u48(),
        };
        let agents = (0..shape.agents)
            .map(|_| read_agent(&mut r, shape.history))
            .collect();
        Ok(Self { header, agents })
    }
}

fn check_agent(bytes: &[u8], place: usize) -> Result<(), RowError> {
    let fail = |field, value: String| {
        Err(RowError::Field {
            field,
            agent: place,
            value,
        })
    };
    let mut r = Reader(bytes);
    r.u16();
    let [_, _, action, active] = r.take::<4>();
    let (reward, discount) = (r.f32(), r.f32());
    if action >= 6 {
        return fail("action", action.to_string());
    }
    if active > 1 {
        return fail("active", active.to_string());
    }
    if !reward.is_finite() {
        return fail("reward", reward.to_string());
    }
    if !(0.0..=1.0).contains(&discount) {
        return fail("discount", discount.to_string());
    }
    for [.., stride, valid] in r.0.as_chunks::<FRAME_BYTES>().0 {
        if *valid > 1 || (*valid == 1 && *stride == 0) {
            return fail("frame", format!("stride {stride}, valid {valid}"));
        }
    }
    Ok(())
}

fn read_agent(r: &mut Reader<'_>, history: u8) -> AgentStep {
    let agent = r.u16();
    let [scale, next_scale, action, active] = r.take::<4>();
    AgentStep {
        agent,
        scale,
        next_scale,
        action,
        active: active == 1,
        reward: r.f32(),
        discount: r.f32(),
        state: read_frames(r, history),
        next: read_frames(r, history),
    }
}

fn read_frames(r: &mut Reader<'_>, history: u8) -> Vec<FrameRef> {
    (0..history)
        .map(|_| {
            let position = [r.i16(), r.i16(), r.i16()];
            let [stride, valid] = r.take::<2>();
            FrameRef {
                position,
                stride,
                valid: valid == 1,
            }
        })
        .collect()
}

/// Reads fixed-width values from the front; the length is already checked.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, tail) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = tail;
        *head
    }
    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }
    fn i16(&mut self) -> i16 {
        i16::from_le_bytes(self.take())
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }
    fn f32(&mut self) -> f32 {
        f32::from_le_bytes(self.take())
    }
    fn u48(&mut self) -> u64 {
        let low: [u8; 6] = self.take();
        let mut wide = [0; 8];
        wide[..6].copy_from_slice(&low);
        u64::from_le_bytes(wide)
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
pub(crate) mod tests;
