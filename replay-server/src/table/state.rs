//! A serializable table: rows, priorities and slots, so that the same random
//! numbers sample the same rows.

use serde::{Deserialize, Serialize};

use super::Table;

/// The state of a table without its size and selector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableState {
    /// Rows of the slots in use, one after another.
    rows: Vec<u8>,
    generations: Vec<u32>,
    /// The tree's weight of each slot; zero for lost rows.
    weights: Vec<f64>,
    next: u64,
}

/// A state that no table of this size can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the saved rows do not fit into this table: {0}")]
pub struct TableStateError(String);

impl Table {
    /// The current state.
    #[must_use]
    pub fn state(&self) -> TableState {
        TableState {
            rows: self.slab[..self.len * self.row_bytes].to_vec(),
            generations: self.generations[..self.len].to_vec(),
            weights: self.tree.leaves()[..self.len].to_vec(),
            next: self.next as u64,
        }
    }

    /// Restores a state into an empty table of the same size and selector.
    ///
    /// # Errors
    /// If the state is inconsistent; the table must then be discarded.
    pub fn restore(&mut self, state: &TableState) -> Result<(), TableStateError> {
        let refuse = |why: String| Err(TableStateError(why));
        let len = state.weights.len();
        if len > self.capacity {
            return refuse(format!("{len} rows, room for {}", self.capacity));
        }
        if state.rows.len() != len * self.row_bytes || state.generations.len() != len {
            let (bytes, each) = (state.rows.len(), self.row_bytes);
            return refuse(format!("{bytes} bytes are not {len} rows of {each} bytes"));
        }
        let next = usize::try_from(state.next).unwrap_or(usize::MAX);
        if next != len % self.capacity && (len < self.capacity || next >= len) {
            return refuse(format!("place {next} is not the next of {len}"));
        }
        let weights: Vec<_> = state.weights.iter().copied().enumerate().collect();
        if let Err(error) = self.tree.set_many(&weights) {
            return refuse(error.to_string());
        }
        self.slab[..state.rows.len()].copy_from_slice(&state.rows);
        self.generations[..len].copy_from_slice(&state.generations);
        (self.len, self.next) = (len, next);
        self.empty = state.weights.iter().filter(|w| **w <= 0.0).count();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Update;
    use crate::table::selector::Selector;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    const CAPACITY: usize = 7;

    fn empty() -> Table {
        Table::new(CAPACITY, 2, Selector::prioritised(0.6, 0.01, 10.0).unwrap())
    }

    proptest! {
        /// After the same inserts, losses and updates the original and the restored
        /// table sample the same rows from the same random numbers.
        #[test]
        fn a_restored_table_draws_the_same_rows(
            inserts in prop::collection::vec((any::<u8>(), 0.0_f32..5.0), 1..25),
            lost in 0_u64..3,
            slot in 0_u32..7,
            seed in any::<u64>(),
        ) {
            let mut table = empty();
            for (value, error) in &inserts {
                table.insert(&[*value, 1], &[*error]).unwrap();
            }
            table.skip(lost).unwrap();
            let update = Update { slot, generation: 1, td_error: 2.5 };
            table.update(&[update]).unwrap();
            let mut again = empty();
            again.restore(&table.state()).unwrap();
            prop_assert_eq!(again.len(), table.len());
            for table in [&mut table, &mut again] {
                table.insert(&[9, 9, 8, 8], &[1.0, 0.5]).unwrap();
                table.update(&[Update { slot: 0, generation: 0, td_error: 0.1 }]).unwrap();
            }
            prop_assert_eq!(again.state(), table.state());
            let draw = |t: &Table| t.sample(50, &mut ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(draw(&again), draw(&table));
        }
    }

    #[test]
    fn inconsistent_states_are_refused() {
        let mut table = empty();
        table.insert(&[1, 1, 2, 2], &[1.0, 2.0]).unwrap();
        let good = table.state();
        assert!(empty().restore(&good).is_ok());
        let bad = |change: fn(&mut TableState), why: &str| {
            let mut state = good.clone();
            change(&mut state);
            let error = empty().restore(&state).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        bad(|s| s.rows.truncate(3), "3 bytes are not 2 rows");
        bad(|s| s.generations.clear(), "not 2 rows");
        bad(|s| s.next = 1, "place 1 is not the next of 2");
        bad(|s| s.weights = vec![1.0; 8], "8 rows, room for 7");
        bad(|s| s.weights[0] = f64::NAN, "NaN");
    }
}
