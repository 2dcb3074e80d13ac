//! The distinct frames of a batch. A state and its bootstrap state share most
//! of their frames (all but one, for one-step learning from a stack), so each
//! is rendered once, by the collate thread or by the device.

use common::environment::pose::Pose;
use common::transition::row::{FrameRef, Row};
use model::FrameAt;

use crate::batch::augment::Look;

/// A zero frame: before an episode's first, or one that is not needed.
pub const ABSENT: u32 = u32::MAX;
/// Frame numbers of bootstrap states begin here; see [`crate::batch::augment`].
const NEXT: u64 = 1 << 32;

/// The frames of a batch. The frames of a row are numbered in the order of their
/// first use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FrameList {
    /// The distinct frames, row after row.
    pub frames: Vec<FrameAt>,
    /// Each frame's number for its noise: its first position in the row.
    pub numbers: Vec<u64>,
    /// Start of each row's frames, and the end: B + 1 values.
    pub first: Vec<usize>,
    /// Look of each row, `[B]`.
    pub looks: Vec<Look>,
    /// Index within its row's frames for each position of a state, `[N · H]`.
    pub state: Vec<u32>,
    /// The same for the bootstrap states.
    pub next: Vec<u32>,
}

impl FrameList {
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.numbers.clear();
        self.first.clear();
        self.first.push(0);
        self.looks.clear();
        self.state.clear();
        self.next.clear();
    }

    /// Adds a row rendered in `pose` with `look`.
    pub(crate) fn push(&mut self, row: &Row, pose: Option<Pose>, look: Look) {
        let scan = usize::from(row.header.scan);
        let begin = self.frames.len();
        // Bootstrap frames with zero discount are not needed.
        let bootstraps = row.agents.iter().any(|a| a.discount != 0.0);
        for (number, frame) in (0..).zip(row.agents.iter().flat_map(|a| &a.state)) {
            let place = self.place(begin, (scan, pose), *frame, number);
            self.state.push(place);
        }
        for (number, frame) in (NEXT..).zip(row.agents.iter().flat_map(|a| &a.next)) {
            let place = if bootstraps {
                self.place(begin, (scan, pose), *frame, number)
            } else {
                ABSENT
            };
            self.next.push(place);
        }
        self.first.push(self.frames.len());
        self.looks.push(look);
    }

    fn place(
        &mut self,
        begin: usize,
        (scan, pose): (usize, Option<Pose>),
        frame: FrameRef,
        number: u64,
    ) -> u32 {
        if !frame.valid {
            return ABSENT;
        }
        let position = frame.position.map(i32::from);
        let same = |f: &FrameAt| f.position == position && f.stride == frame.stride;
        let found = self.frames[begin..].iter().position(same);
        let place = found.unwrap_or_else(|| {
            self.frames.push(FrameAt {
                scan,
                position,
                stride: frame.stride,
                valid: true,
                pose,
            });
            self.numbers.push(number);
            self.frames.len() - begin - 1
        });
        u32::try_from(place).unwrap_or(ABSENT)
    }

    pub fn rows(&self) -> usize {
        self.looks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::row;

    fn look() -> Look {
        crate::testing::look()
    }

    #[test]
    fn a_frame_that_comes_again_is_one_frame() {
        // A stack of three that advances by one: four distinct frames.
        let mut first = row(1, 1, 3);
        let agent = &mut first.agents[0];
        let frame = |x: i16, valid| FrameRef {
            position: [x, 5, 5],
            stride: 2,
            valid,
        };
        agent.discount = 0.9;
        agent.state = vec![frame(0, false), frame(7, true), frame(8, true)];
        agent.next = vec![frame(7, true), frame(8, true), frame(9, true)];
        let mut idle = row(2, 1, 3);
        idle.agents[0].discount = 0.0;
        let mut list = FrameList::default();
        list.clear();
        list.push(&first, None, look());
        list.push(&idle, None, look());
        assert_eq!(list.rows(), 2);
        assert_eq!(list.state[..3], [ABSENT, 0, 1]);
        assert_eq!(list.next[..3], [0, 1, 2]);
        assert_eq!(list.numbers[..3], [1, 2, NEXT + 2]);
        assert_eq!(list.next[3..], [ABSENT; 3]);
        assert_eq!(list.first, [0, 3, list.frames.len()]);
        assert!(list.frames.iter().all(|f| f.valid && f.stride > 0));
    }
}
