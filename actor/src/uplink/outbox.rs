//! Rows on their way to one shard: batched, numbered, kept until acknowledged.
//!
//! No socket and no clock: [`crate::uplink`] requests batches and reports
//! acknowledgements.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::transition::row::{Row, RowShape};
use proto::messages::insert::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, InsertBatch};

/// Rows of one step for one shard, with their priorities.
pub(crate) type Chunk = Vec<(Row, f32)>;

/// When batches are made, and how many are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batching {
    pub(crate) shape: RowShape,
    /// Rows of a full batch.
    pub(crate) rows: usize,
    /// The longest that a row waits for its batch.
    pub(crate) wait: Duration,
    /// Batches not sent yet that [`Outbox::trim`] leaves.
    pub(crate) backlog: usize,
}

impl Batching {
    /// Rows per batch, within the wire's limits.
    fn full(&self) -> usize {
        let fit = BATCH_BYTES_MAX / self.shape.bytes();
        self.rows.min(fit).clamp(1, BATCH_ROWS_MAX)
    }
}

#[derive(Debug)]
struct Sealed {
    packed: Bytes,
    priorities: Vec<f32>,
}

/// Everything between the rollout and one shard's acknowledgement.
#[derive(Debug)]
pub(crate) struct Outbox {
    batching: Batching,
    packed: Vec<u8>,
    priorities: Vec<f32>,
    oldest: Option<Instant>,
    unsent: VecDeque<Sealed>,
    /// Sent and not acknowledged, in the order of their sequence numbers.
    sent: VecDeque<InsertBatch>,
    /// How many of `sent` went out on the present stream.
    on_stream: usize,
    next_sequence: u64,
}

impl Outbox {
    pub(crate) fn new(batching: Batching) -> Self {
        Self {
            batching,
            packed: Vec::new(),
            priorities: Vec::new(),
            oldest: None,
            unsent: VecDeque::new(),
            sent: VecDeque::new(),
            on_stream: 0,
            next_sequence: 1,
        }
    }

    pub(crate) fn push(&mut self, rows: Vec<(Row, f32)>, now: Instant) {
        for (row, priority) in rows {
            if self.oldest.is_none() {
                self.oldest = Some(now);
                self.packed
                    .reserve_exact(self.batching.full() * self.batching.shape.bytes());
            }
            row.write_to(&mut self.packed);
            self.priorities.push(priority);
            if self.priorities.len() == self.batching.full() {
                self.seal();
            }
        }
    }

    /// When the open batch must go, however small; `None` without one.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.oldest.map(|oldest| oldest + self.batching.wait)
    }

    /// Closes the open batch.
    pub(crate) fn seal(&mut self) {
        if self.priorities.is_empty() {
            return;
        }
        let packed = Bytes::from(std::mem::take(&mut self.packed));
        let priorities = std::mem::take(&mut self.priorities);
        self.unsent.push_back(Sealed { packed, priorities });
        self.oldest = None;
    }

    /// Batches that were never sent.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// Whether the backlog is full.
    pub(crate) fn is_full(&self) -> bool {
        self.unsent.len() >= self.batching.backlog
    }

    /// Nothing to send and nothing to wait for.
    pub(crate) fn is_empty(&self) -> bool {
        self.priorities.is_empty() && self.unsent.is_empty() && self.sent.is_empty()
    }

    pub(crate) fn rows(&self) -> usize {
        let sent: usize = self.sent.iter().map(InsertBatch::rows).sum();
        let unsent: usize = self.unsent.iter().map(|b| b.priorities.len()).sum();
        sent + unsent + self.priorities.len()
    }

    /// Drops the oldest batches beyond the backlog and returns their number of
    /// rows. Batches that were sent once stay: the sequence must have no gap.
    pub(crate) fn trim(&mut self) -> usize {
        let mut dropped = 0;
        while self.unsent.len() > self.batching.backlog {
            dropped += self.unsent.pop_front().map_or(0, |b| b.priorities.len());
        }
        dropped
    }

    /// A new stream: the shard has every batch up to `acked`, the others go
    /// out again. Returns the number of rows that became acknowledged.
    pub(crate) fn reopened(&mut self, acked: u64) -> usize {
        self.on_stream = 0;
        let rows = self.acknowledged(acked);
        // A shard that knows higher numbers than ours would take new batches for repeats.
        self.next_sequence = self.next_sequence.max(acked.saturating_add(1));
        rows
    }

    /// Every batch up to `acked` is stored. Returns their number of rows.
    pub(crate) fn acknowledged(&mut self, acked: u64) -> usize {
        let mut rows = 0;
        while self.sent.front().is_some_and(|b| b.sequence <= acked) {
            rows += self.sent.pop_front().map_or(0, |b| b.rows());
            self.on_stream = self.on_stream.saturating_sub(1);
        }
        rows
    }

    /// The next batch for the present stream, while fewer than `window` are
    /// unacknowledged on it.
    pub(crate) fn next(&mut self, window: usize) -> Option<InsertBatch> {
        if self.on_stream >= window {
            return None;
        }
        if self.on_stream == self.sent.len() {
            let Sealed { packed, priorities } = self.unsent.pop_front()?;
            self.sent.push_back(InsertBatch {
                sequence: self.next_sequence,
                packed,
                priorities,
            });
            self.next_sequence += 1;
        }
        self.on_stream += 1;
        self.sent.get(self.on_stream - 1).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::transition::row::{AgentStep, FrameRef};
    use proptest::prelude::*;

    const SHAPE: RowShape = RowShape {
        agents: 1,
        history: 1,
    };

    fn outbox(rows: usize, backlog: usize) -> Outbox {
        Outbox::new(Batching {
            shape: SHAPE,
            rows,
            wait: Duration::from_millis(200),
            backlog,
        })
    }

    fn rows(ids: std::ops::Range<u32>) -> Vec<(Row, f32)> {
        let row = |episode| {
            let mut row = Row::default();
            row.header.episode = episode;
            let frames = vec![FrameRef::default()];
            row.agents.push(AgentStep {
                state: frames.clone(),
                next: frames,
                ..AgentStep::default()
            });
            (row, episode as f32)
        };
        ids.map(row).collect()
    }

    fn ids(batch: &InsertBatch) -> Vec<u32> {
        let packed = SHAPE.split(&batch.packed, batch.rows()).unwrap();
        let rows = packed.map(|b| Row::read(b, SHAPE).unwrap());
        let ids: Vec<u32> = rows.map(|r| r.header.episode).collect();
        let priorities = ids.iter().map(|id| *id as f32);
        assert!(priorities.eq(batch.priorities.iter().copied()));
        ids
    }

    #[test]
    fn batches_go_when_full_or_when_their_oldest_row_has_waited() {
        let start = Instant::now();
        let mut o = outbox(3, 9);
        assert_eq!(o.due(), None);
        o.push(rows(0..2), start);
        o.push(rows(2..4), start + Duration::from_millis(50));
        assert_eq!(o.unsent(), 1);
        // Counts from the row that is left.
        assert_eq!(o.due(), Some(start + Duration::from_millis(250)));
        assert_eq!(ids(&o.next(8).unwrap()), [0, 1, 2]);
        assert_eq!(o.next(8), None);
        o.seal();
        let small = o.next(8).unwrap();
        assert_eq!((small.sequence, ids(&small)), (2, vec![3]));
        assert_eq!((o.due(), o.rows()), (None, 4));
    }

    #[test]
    fn the_window_bounds_what_is_unacknowledged_and_a_new_stream_repeats_it() {
        let mut o = outbox(1, 9);
        o.push(rows(0..5), Instant::now());
        let sequences = |o: &mut Outbox| {
            std::iter::from_fn(|| o.next(3))
                .map(|b| (b.sequence, ids(&b)[0]))
                .collect::<Vec<_>>()
        };
        assert_eq!(sequences(&mut o), [(1, 0), (2, 1), (3, 2)]);
        assert_eq!(o.acknowledged(1), 1);
        assert_eq!(sequences(&mut o), [(4, 3)]);
        // The stream broke before the shard acknowledged its last batch.
        assert_eq!(o.reopened(2), 1);
        assert_eq!(sequences(&mut o), [(3, 2), (4, 3), (5, 4)]);
        assert_eq!(o.acknowledged(5), 3);
        assert!(o.is_empty());
        // A shard that restarted empty reports 0: the numbers continue.
        assert_eq!(o.reopened(0), 0);
        o.push(rows(9..10), Instant::now());
        assert_eq!(sequences(&mut o), [(6, 9)]);
        // A shard that reports more than we sent.
        o.reopened(20);
        o.push(rows(10..11), Instant::now());
        assert_eq!(sequences(&mut o), [(21, 10)]);
    }

    #[test]
    fn trimming_drops_the_oldest_that_were_never_sent() {
        let mut o = outbox(2, 2);
        o.push(rows(0..2), Instant::now());
        let sent = o.next(8).unwrap();
        o.push(rows(2..11), Instant::now());
        assert_eq!(o.trim(), 4);
        assert_eq!(o.rows(), 2 + 4 + 1);
        o.reopened(0);
        assert_eq!(o.next(8).unwrap(), sent);
        let next = o.next(8).unwrap();
        // Numbers have no gap.
        assert_eq!((next.sequence, ids(&next)), (2, vec![6, 7]));
    }

    #[test]
    fn batches_stay_within_what_the_wire_takes() {
        let wide = RowShape {
            agents: 200,
            history: 8,
        };
        let batching = Batching {
            shape: wide,
            rows: 4096,
            wait: Duration::ZERO,
            backlog: 1,
        };
        assert!(batching.full() * wide.bytes() <= BATCH_BYTES_MAX && batching.full() > 100);
    }

    proptest! {
        /// Whatever happens on the way, a shard that stores in order and
        /// remembers its last number gets every row once and in order.
        #[test]
        fn every_row_arrives_once(ops in prop::collection::vec(0_u8..5, 1..200)) {
            let mut o = outbox(2, 1000);
            let (mut made, mut stored, mut last) = (0, Vec::new(), 0);
            let mut in_flight = VecDeque::new();
            for op in ops.into_iter().chain([4, 4, 4]) {
                match op {
                    0 => { o.push(rows(made..made + 3), Instant::now()); made += 3; }
                    1 => in_flight.extend(o.next(3)),
                    2 => if let Some(b) = in_flight.pop_front().filter(|b| b.sequence > last) {
                        stored.extend(ids(&b));
                        last = b.sequence;
                    },
                    3 => { o.acknowledged(last); }
                    _ => { in_flight.clear(); o.reopened(last); }
                }
            }
            o.seal();
            while let Some(b) = o.next(3) {
                stored.extend(ids(&b));
                o.acknowledged(b.sequence);
            }
            prop_assert!(o.is_empty());
            prop_assert_eq!(stored, (0..made).collect::<Vec<_>>());
        }
    }
}
