//! A sum tree over the priorities of all slots: samples a slot in O(log n).
//!
//! A binary tree in an array: node 1 is the root, node `i` has the children
//! `2i` and `2i + 1`, the leaves are the last half. A parent is always recomputed
//! as the sum of its children, never updated by a difference: rounding errors do not
//! accumulate, and a tree rebuilt from its leaves is bitwise equal.

/// A leaf's largest value: 2^32 of them still have a finite sum.
const LEAF_MAX: f64 = 1e290;

/// A priority that the tree cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum TreeError {
    /// Not a finite number of at least zero.
    #[error("slot {slot} cannot have priority {value}: a finite number of at least zero is needed")]
    Value { slot: usize, value: f64 },
    /// There is no such slot.
    #[error("slot {slot} is not one of {slots}")]
    Slot { slot: usize, slots: usize },
}

/// A sum tree over a fixed number of slots, all zero at first.
#[derive(Debug, Clone, PartialEq)]
pub struct SumTree {
    slots: usize,
    /// Index of the first leaf, a power of two.
    first: usize,
    nodes: Vec<f64>,
}

impl SumTree {
    /// Memory of a tree with this many slots in bytes.
    #[must_use]
    pub fn bytes(slots: usize) -> u64 {
        (slots.max(1) as u64)
            .next_power_of_two()
            .saturating_mul(2 * size_of::<f64>() as u64)
    }

    /// A tree of `slots` zeros.
    #[must_use]
    pub fn new(slots: usize) -> Self {
        let first = slots.max(1).next_power_of_two();
        Self {
            slots,
            first,
            nodes: vec![0.0; 2 * first],
        }
    }

    /// The sum of all priorities.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.nodes[1]
    }

    /// The priority of a slot; zero outside the tree.
    #[must_use]
    pub fn get(&self, slot: usize) -> f64 {
        self.leaves().get(slot).copied().unwrap_or(0.0)
    }

    /// The priorities of all slots.
    #[must_use]
    pub fn leaves(&self) -> &[f64] {
        &self.nodes[self.first..][..self.slots]
    }

    /// Sets one priority.
    pub fn set(&mut self, slot: usize, value: f64) -> Result<(), TreeError> {
        self.set_many(&[(slot, value)])
    }

    /// Sets several priorities; of several for one slot the last counts. All or none.
    pub fn set_many(&mut self, values: &[(usize, f64)]) -> Result<(), TreeError> {
        for &(slot, value) in values {
            let slots = self.slots;
            if slot >= slots {
                return Err(TreeError::Slot { slot, slots });
            }
            if !(0.0..=LEAF_MAX).contains(&value) {
                return Err(TreeError::Value { slot, value });
            }
        }
        for &(slot, value) in values {
            self.nodes[self.first + slot] = value;
        }
        self.sum_above(values.iter().map(|&(slot, _)| self.first + slot).collect());
        Ok(())
    }

    /// Recomputes everything above the given nodes of one level, each parent once.
    fn sum_above(&mut self, mut level: Vec<usize>) {
        level.sort_unstable();
        while level.first().is_some_and(|&node| node > 1) {
            level.iter_mut().for_each(|node| *node /= 2);
            level.dedup();
            for &node in &level {
                self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1];
            }
        }
    }

    /// The slot whose share of 0..[`total`](Self::total) contains `point`; `None` while
    /// the total is zero.
    ///
    /// Whatever the rounding of `point`, the slot has a priority above zero: the descent
    /// never enters a subtree whose sum is zero.
    #[must_use]
    pub fn find(&self, point: f64) -> Option<usize> {
        self.find_many(vec![point]).pop()
    }

    /// [`find`](Self::find) for many points; empty while the total is zero.
    ///
    /// All descents advance level by level together. The nodes of a large tree do not
    /// fit into the cache, and a single descent waits for one node before it can load
    /// the next; this way the processor loads many nodes at once.
    #[must_use]
    pub fn find_many(&self, mut points: Vec<f64>) -> Vec<usize> {
        if self.total() <= 0.0 {
            return Vec::new();
        }
        let mut nodes = vec![1; points.len()];
        let mut level = 1;
        while level < self.first {
            for (node, point) in nodes.iter_mut().zip(&mut points) {
                let (left, right) = (self.nodes[2 * *node], self.nodes[2 * *node + 1]);
                let goes_left = (right <= 0.0) | ((left > 0.0) & (*point < left));
                *point -= if goes_left { 0.0 } else { left };
                *node = 2 * *node + usize::from(!goes_left);
            }
            level *= 2;
        }
        nodes.iter_mut().for_each(|node| *node -= self.first);
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(values: &[f64]) -> SumTree {
        let mut tree = SumTree::new(values.len());
        let values: Vec<_> = values.iter().copied().enumerate().collect();
        tree.set_many(&values).unwrap();
        tree
    }

    #[test]
    fn finds_the_slot_whose_share_contains_the_point() {
        let tree = tree(&[1.0, 0.0, 2.0, 0.5]);
        assert_eq!(tree.total(), 3.5);
        let found = [0.0, 0.999, 1.0, 2.999, 3.0, 3.499].map(|point| tree.find(point));
        assert_eq!(found, [0, 0, 2, 2, 3, 3].map(Some));
    }

    #[test]
    fn points_outside_the_sum_still_find_a_slot_with_priority() {
        let tree = tree(&[0.0, 1.0, 2.0, 0.0, 0.0]);
        assert_eq!(tree.find(3.0), Some(2));
        assert_eq!(tree.find(f64::INFINITY), Some(2));
        assert_eq!(tree.find(-1.0), Some(1));
        assert!(tree.get(tree.find(f64::NAN).unwrap()) > 0.0);
        assert_eq!(tree.get(7), 0.0);
    }

    #[test]
    fn nothing_is_found_where_all_is_zero() {
        assert_eq!(SumTree::new(0).find(0.0), None);
        assert_eq!(SumTree::new(5).find(0.0), None);
        let mut tree = tree(&[1.0, 2.0]);
        tree.set_many(&[(0, 0.0), (1, 0.0)]).unwrap();
        assert_eq!((tree.total(), tree.find(0.0)), (0.0, None));
    }

    #[test]
    fn invalid_priorities_are_refused_and_change_nothing() {
        let mut tree = tree(&[1.0, 2.0]);
        let before = tree.clone();
        for value in [f64::NAN, -0.5, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
            let error = tree.set_many(&[(0, 9.0), (1, value)]).unwrap_err();
            assert!(matches!(error, TreeError::Value { slot: 1, .. }), "{error}");
        }
        assert_eq!(tree.set(2, 1.0), Err(TreeError::Slot { slot: 2, slots: 2 }));
        assert_eq!(tree, before);
    }

    #[test]
    fn of_several_values_for_one_slot_the_last_counts() {
        let mut tree = SumTree::new(3);
        tree.set_many(&[(1, 5.0), (0, 1.0), (1, 2.0)]).unwrap();
        assert_eq!((tree.get(1), tree.total()), (2.0, 3.0));
    }

    fn operations() -> impl Strategy<Value = (usize, Vec<Vec<(usize, f64)>>)> {
        (1_usize..40).prop_flat_map(|slots| {
            let value = prop_oneof![Just(0.0), 0.0..1.0, 1e-12..1e-9, 1e6..1e9];
            let batch = prop::collection::vec((0..slots, value), 1..20);
            (Just(slots), prop::collection::vec(batch, 1..20))
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list((slots, batches) in operations(), point in 0.0_f64..1.0) {
            let mut tree = SumTree::new(slots);
            let mut model = vec![0.0; slots];
            for batch in &batches {
                tree.set_many(batch).unwrap();
                batch.iter().for_each(|&(slot, value)| model[slot] = value);
            }
            let sum: f64 = model.iter().sum();
            prop_assert!((tree.total() - sum).abs() <= 1e-9 * sum);
            // A tree rebuilt from its leaves is bitwise equal, whatever its history.
            prop_assert_eq!(&self::tree(&model), &tree);
            let mut singly = SumTree::new(slots);
            batches.iter().flatten().for_each(|&(slot, value)| singly.set(slot, value).unwrap());
            prop_assert_eq!(&singly, &tree);
            let points = [0.0, 0.3, 0.7, 1.0, point].map(|share| share * tree.total());
            let singly: Vec<_> = points.iter().filter_map(|&point| tree.find(point)).collect();
            prop_assert_eq!(tree.find_many(points.to_vec()), singly);
            match tree.find(point * tree.total()) {
                None => prop_assert_eq!(sum, 0.0),
                Some(slot) => {
                    prop_assert!(model[slot] > 0.0);
                    let before: f64 = model[..slot].iter().sum();
                    let at = point * sum;
                    prop_assert!(at >= before - 1e-9 * sum && at <= before + model[slot] + 1e-9 * sum);
                }
            }
        }
    }
}
