//! Tests of `table`.

use super::*;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeSet, VecDeque};

const ROW: usize = 3;

fn linear() -> Selector {
    Selector::prioritised(1.0, 1e-6, 1e6).unwrap()
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(11)
}

fn row(content: u32) -> [u8; ROW] {
    let bytes = content.to_le_bytes();
    [bytes[0], bytes[1], bytes[2]]
}

fn update(slot: u32, generation: u32, td_error: f32) -> Update {
    Update {
        slot,
        generation,
        td_error,
    }
}

fn insert(table: &mut Table, contents: impl IntoIterator<Item = u32>, error: f32) {
    let packed: Vec<u8> = contents.into_iter().flat_map(row).collect();
    let errors = vec![error; packed.len() / ROW];
    table.insert(&packed, &errors).unwrap();
}

#[test]
fn the_oldest_row_goes_first_and_its_key_with_it() {
    let mut table = Table::new(3, ROW, Selector::Uniform);
    insert(&mut table, 0..3, 1.0);
    let old = [0, 1, 2].map(|slot| update(slot, 0, 5.0));
    insert(&mut table, [3], 1.0);
    let updated = table.update(&old).unwrap();
    assert_eq!((updated.applied, updated.stale), (2, 1));
    assert_eq!(table.len(), 3);
    let sampled = table.sample(100, &mut rng());
    let contents: BTreeSet<_> = sampled.packed.chunks(ROW).map(|r| r[0]).collect();
    assert_eq!(contents, BTreeSet::from([1, 2, 3]));
}

#[test]
fn an_update_never_changes_a_later_row() {
    let mut table = Table::new(2, ROW, linear());
    insert(&mut table, 0..2, 1.0);
    insert(&mut table, 2..4, 1.0);
    let before = table.priority_sum();
    let late = [0, 7].map(|slot| update(slot, 0, 900.0));
    let updated = table.update(&late).unwrap();
    assert_eq!((updated.applied, updated.stale), (0, 2));
    assert_eq!(table.priority_sum(), before);
}

#[test]
fn an_empty_table_has_no_samples() {
    let table = Table::new(4, ROW, linear());
    assert!(table.is_empty());
    assert_eq!(table.sample(10, &mut rng()), Sampled::default());
}

#[test]
fn a_batch_larger_than_the_table_leaves_its_last_rows() {
    let mut table = Table::new(4, ROW, Selector::Uniform);
    insert(&mut table, 0..11, 1.0);
    assert_eq!((table.len(), table.priority_sum()), (4, 4.0));
    let sampled = table.sample(50, &mut rng());
    let mut rows = sampled.packed.chunks(ROW);
    assert!(rows.all(|r| (7..11).contains(&r[0])));
}

#[test]
fn bad_batches_are_refused_whole() {
    let mut table = Table::new(4, ROW, linear());
    insert(&mut table, 0..2, 1.0);
    let before = table.priority_sum();
    let error = table.insert(&[0; 5], &[1.0, 1.0]).unwrap_err();
    assert_eq!(error.to_string(), "5 bytes are not 2 rows of 3 bytes");
    for value in [f32::NAN, f32::INFINITY, -1.0] {
        let inserted = table.insert(&[0; 6], &[1.0, value]);
        let updated = table.update(&[update(0, 0, value)]).map(drop);
        for (result, place) in [(inserted, 1), (updated, 0)] {
            let error = result.unwrap_err();
            assert!(
                matches!(error, TableError::Priority { row, .. } if row == place),
                "{error}"
            );
        }
    }
    assert_eq!((table.len(), table.priority_sum()), (2, before));
}

/// What a table does, written naively: a queue of (age, content, priority).
struct Model {
    capacity: usize,
    rows: VecDeque<(u32, u32, f32)>,
    inserted: u32,
}

impl Model {
    fn insert(&mut self, content: u32, error: f32) {
        if self.rows.len() == self.capacity {
            self.rows.pop_front();
        }
        self.rows.push_back((self.inserted, content, error));
        self.inserted += 1;
    }

    /// The row with a key: its number is slot plus generation times capacity.
    fn find(&mut self, slot: u32, generation: u32) -> Option<&mut (u32, u32, f32)> {
        let capacity = u32::try_from(self.capacity).unwrap();
        let number = slot + generation * capacity;
        let mut rows = self.rows.iter_mut().filter(|_| slot < capacity);
        rows.find(|row| row.0 == number)
    }
}

#[derive(Debug, Clone)]
enum Op {
    Insert(Vec<(u32, f32)>),
    Update(Vec<Update>),
    Sample(usize),
}

fn any_op() -> impl Strategy<Value = Op> {
    let keys = (0_u32..8, 0_u32..5, 0.0_f32..50.0);
    let update = keys.prop_map(|(slot, generation, error)| update(slot, generation, error));
    prop_oneof![
        prop::collection::vec((0_u32..1 << 24, 0.0_f32..50.0), 1..10).prop_map(Op::Insert),
        prop::collection::vec(update, 0..8).prop_map(Op::Update),
        (0_usize..20).prop_map(Op::Sample),
    ]
}

proptest! {
    #[test]
    fn agrees_with_a_naive_table(capacity in 1_usize..8, ops in prop::collection::vec(any_op(), 1..30)) {
        let mut table = Table::new(capacity, ROW, linear());
        let mut model = Model { capacity, rows: VecDeque::new(), inserted: 0 };
        let mut rng = rng();
        for op in ops {
            match op {
                Op::Insert(rows) => {
                    let packed: Vec<u8> = rows.iter().flat_map(|&(content, _)| row(content)).collect();
                    let errors: Vec<f32> = rows.iter().map(|&(_, error)| error).collect();
                    table.insert(&packed, &errors).unwrap();
                    rows.iter().for_each(|&(content, error)| model.insert(content, error));
                }
                Op::Update(updates) => {
                    let updated = table.update(&updates).unwrap();
                    let mut applied = 0;
                    for update in &updates {
                        if let Some(row) = model.find(update.slot, update.generation) {
                            row.2 = update.td_error;
                            applied += 1;
                        }
                    }
                    prop_assert_eq!(updated, Updated { applied, stale: updates.len() as u64 - applied });
                }
                Op::Sample(rows) => {
                    let sampled = table.sample(rows, &mut rng);
                    prop_assert_eq!(sampled.slots.len(), if model.rows.is_empty() { 0 } else { rows });
                    for (i, bytes) in sampled.packed.chunks(ROW).enumerate() {
                        let found = model.find(sampled.slots[i], sampled.generations[i]);
                        let &mut (_, content, error) = found.expect("a drawn row is in the table");
                        prop_assert_eq!(bytes, row(content));
                        let probability = linear().weight(error) / table.priority_sum();
                        prop_assert!((sampled.probabilities[i] - probability).abs() < 1e-12);
                    }
                }
            }
            prop_assert_eq!(table.len(), model.rows.len());
            let priority_sum: f64 = model.rows.iter().map(|row| linear().weight(row.2)).sum();
            prop_assert!((table.priority_sum() - priority_sum).abs() <= 1e-9 * priority_sum.max(1.0));
        }
    }
}

/// The weights of all rows, read two at a time.
fn weights(table: &Table) -> Vec<f64> {
    let mut out = Vec::new();
    for age in (0..table.slots()).step_by(2) {
        table.weights(age..age + 2, &mut out);
    }
    out
}

#[test]
fn weights_are_read_oldest_first_and_restored_and_lost_rows_have_none() {
    let mut table = Table::new(4, 2, Selector::prioritised(1.0, 1.0, 100.0).unwrap());
    assert!(weights(&table).is_empty());
    table.insert(&[0; 6], &[0.0, 1.0, 2.0]).unwrap();
    assert_eq!(weights(&table), [1.0, 2.0, 3.0]);
    table.insert(&[0; 6], &[3.0, 4.0, 5.0]).unwrap();
    assert_eq!(weights(&table), [3.0, 4.0, 5.0, 6.0]);
    table.reweigh(1, &[40.0, 50.0]).unwrap();
    assert_eq!(weights(&table), [3.0, 40.0, 50.0, 6.0]);
    assert_eq!(table.priority_sum(), 99.0);
    table.skip(2).unwrap();
    assert_eq!((table.len(), table.slots()), (2, 4));
    assert_eq!(weights(&table), [50.0, 6.0, 0.0, 0.0]);
    // A lost row never gets a priority.
    table.reweigh(0, &[7.0; 4]).unwrap();
    let updated = table.update(&[update(3, 1, 9.0)]).unwrap();
    assert_eq!((updated.applied, updated.stale), (0, 1));
    assert_eq!(weights(&table), [7.0, 7.0, 0.0, 0.0]);
    table.insert(&[0; 8], &[0.0; 4]).unwrap();
    assert_eq!((table.len(), table.priority_sum()), (4, 4.0));
}
