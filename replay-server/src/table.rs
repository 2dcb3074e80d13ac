//! The rows of one shard: a ring of fixed-width rows, the oldest replaced first.
//!
//! All rows are in one block of bytes, allocated once. A slot's generation counts
//! how often it was filled before, so slot and generation together never refer to
//! a newer row.

pub mod ages;
pub mod selector;
pub mod sum_tree;

mod state;

use crate::table::selector::Selector;
use crate::table::sum_tree::{SumTree, TreeError};
use rand::Rng;
use std::ops::Range;

pub use state::{TableState, TableStateError};

/// Errors of inserts and updates.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TableError {
    /// The numbers of bytes and priorities do not match.
    #[error("{bytes} bytes are not {rows} rows of {row_bytes} bytes")]
    Length {
        bytes: usize,
        rows: usize,
        row_bytes: usize,
    },
    /// The priority at this place in the batch is not a finite number of at least zero.
    #[error("row {row} has priority {value}: a finite number of at least zero is needed")]
    Priority { row: usize, value: f32 },
    /// The tree refused a weight.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Rows with their priorities.
#[derive(Debug)]
pub struct Table {
    selector: Selector,
    row_bytes: usize,
    capacity: usize,
    /// `capacity * row_bytes` bytes.
    slab: Vec<u8>,
    /// Per slot: how often it was filled before.
    generations: Vec<u32>,
    tree: SumTree,
    /// Slots filled so far.
    len: usize,
    /// The slot to fill next: the oldest once the table is full.
    next: usize,
    /// How many of these hold a lost row, with priority zero.
    empty: usize,
}

/// Rows drawn with replacement, one entry of each list per row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sampled {
    /// The slot of each row.
    pub slots: Vec<u32>,
    /// The generation of each slot.
    pub generations: Vec<u32>,
    /// Each row's priority divided by the sum of all.
    pub probabilities: Vec<f64>,
    /// The rows, one after another.
    pub packed: Vec<u8>,
}

/// Numbers of applied and stale updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Updated {
    /// Updates applied.
    pub applied: u64,
    /// Updates of rows that have left the table.
    pub stale: u64,
}

/// A new priority for the row that `slot` and `generation` name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    pub slot: u32,
    pub generation: u32,
    /// |TD error|, finite and not negative.
    pub td_error: f32,
}

impl Table {
    /// Memory of a table of this size in bytes.
    #[must_use]
    pub fn bytes(capacity: usize, row_bytes: usize) -> u64 {
        let slot = (row_bytes + size_of::<u32>()) as u64;
        (capacity as u64)
            .saturating_mul(slot)
            .saturating_add(SumTree::bytes(capacity))
    }

    /// An empty table of `capacity` rows (at least one, at most `u32::MAX`).
    #[must_use]
    pub fn new(capacity: usize, row_bytes: usize, selector: Selector) -> Self {
        Self {
            selector,
            row_bytes,
            capacity,
            slab: vec![0; capacity * row_bytes],
            generations: vec![0; capacity],
            tree: SumTree::new(capacity),
            len: 0,
            next: 0,
            empty: 0,
        }
    }

    /// Number of rows, without lost ones.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len - self.empty
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sum of all priorities, after the exponent.
    #[must_use]
    pub fn priority_sum(&self) -> f64 {
        self.tree.total()
    }

    /// Stores packed rows with the |TD error| of each, in order, replacing the oldest
    /// in a full table. All or none.
    pub fn insert(&mut self, packed: &[u8], td_errors: &[f32]) -> Result<(), TableError> {
        if packed.len() != td_errors.len() * self.row_bytes {
            let (bytes, rows) = (packed.len(), td_errors.len());
            return Err(TableError::Length {
                bytes,
                rows,
                row_bytes: self.row_bytes,
            });
        }
        for (row, &value) in td_errors.iter().enumerate() {
            check_priority(row, value)?;
        }
        let slot_of = |row| (self.next + row) % self.capacity;
        let weights = td_errors.iter().enumerate();
        let weights = weights.map(|(row, &e)| (slot_of(row), self.selector.weight(e)));
        let weights: Vec<_> = weights.collect();
        if self.empty > 0 {
            let first = weights.iter().take(self.capacity);
            let refilled = first.filter(|&&(slot, _)| self.is_lost(slot));
            self.empty -= refilled.count();
        }
        self.tree.set_many(&weights)?;
        for (row, bytes) in packed.chunks_exact(self.row_bytes).enumerate() {
            self.occupy(weights[row].0);
            self.slab[weights[row].0 * self.row_bytes..][..self.row_bytes].copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Advances the ring: `slot`, which is next, receives a row.
    fn occupy(&mut self, slot: usize) {
        if slot < self.len {
            self.generations[slot] = self.generations[slot].wrapping_add(1);
        } else {
            self.len = slot + 1;
        }
        self.next = (slot + 1) % self.capacity;
    }

    /// Priorities of rows are above zero; zero marks a lost row.
    fn is_lost(&self, slot: usize) -> bool {
        slot < self.len && self.tree.get(slot) <= 0.0
    }

    /// Skips the slots of lost rows, so that the rows after them keep their distance to
    /// those before.
    pub fn skip(&mut self, rows: u64) -> Result<(), TableError> {
        for _ in 0..rows.min(self.capacity as u64) {
            let slot = self.next;
            self.empty += usize::from(!self.is_lost(slot));
            self.tree.set(slot, 0.0)?;
            self.occupy(slot);
        }
        Ok(())
    }

    /// Appends the tree's weights of the rows of these ages, where 0 is the oldest;
    /// zero for lost rows.
    pub fn weights(&self, ages: Range<usize>, out: &mut Vec<f64>) {
        // Two contiguous copies: a snapshot copies many weights under the shard's lock.
        let (young, old) = self.tree.leaves()[..self.len].split_at(self.slot(0));
        let (from, to) = (ages.start.min(self.len), ages.end.min(self.len));
        let both = old.len();
        out.extend_from_slice(&old[from.min(both)..to.min(both)]);
        out.extend_from_slice(&young[from.max(both) - both..to.max(both) - both]);
    }

    /// Restores the tree's weights of the rows from age `first` on.
    pub fn reweigh(&mut self, first: usize, weights: &[f64]) -> Result<(), TableError> {
        let known = (first..self.len)
            .map(|age| self.slot(age))
            .zip(weights.iter().copied())
            .filter(|&(slot, weight)| weight > 0.0 && !self.is_lost(slot));
        let known: Vec<_> = known.collect();
        Ok(self.tree.set_many(&known)?)
    }

    /// Slots in use, including those of lost rows.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.len
    }

    /// The slot of the row with this age.
    fn slot(&self, age: usize) -> usize {
        if self.len < self.capacity {
            age
        } else {
            (self.next + age) % self.capacity
        }
    }

    /// Samples `rows` rows with replacement; none from an empty table.
    pub fn sample<R: Rng>(&self, rows: usize, rng: &mut R) -> Sampled {
        let total = self.tree.total();
        if total <= 0.0 {
            return Sampled::default();
        }
        let draws = self.selector.draws(rows, total, rng).collect();
        let found = self.tree.find_many(draws);
        let mut packed = Vec::with_capacity(found.len() * self.row_bytes);
        for &slot in &found {
            packed.extend_from_slice(&self.slab[slot * self.row_bytes..][..self.row_bytes]);
        }
        // A table has at most u32::MAX slots.
        let slots = found.iter().map(|&slot| slot as u32).collect();
        Sampled {
            slots,
            generations: found.iter().map(|&slot| self.generations[slot]).collect(),
            probabilities: found.iter().map(|&s| self.tree.get(s) / total).collect(),
            packed,
        }
    }

    /// Sets new priorities; of several for one row the last counts. Updates of rows
    /// that have left the table are counted as stale and change nothing.
    pub fn update(&mut self, updates: &[Update]) -> Result<Updated, TableError> {
        let mut weights = Vec::with_capacity(updates.len());
        for (row, update) in updates.iter().enumerate() {
            check_priority(row, update.td_error)?;
            let slot = update.slot as usize;
            let held = slot < self.len && !self.is_lost(slot);
            if held && self.generations[slot] == update.generation {
                weights.push((slot, self.selector.weight(update.td_error)));
            }
        }
        self.tree.set_many(&weights)?;
        let applied = weights.len() as u64;
        Ok(Updated {
            applied,
            stale: updates.len() as u64 - applied,
        })
    }
}

fn check_priority(row: usize, value: f32) -> Result<(), TableError> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(TableError::Priority { row, value })
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
