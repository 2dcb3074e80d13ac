//! Tracks the age of the oldest row, with one mark per 1/256 of the table rather
//! than a time per row.

use std::collections::VecDeque;
use std::time::Duration;

const MARKS: u64 = 256;

/// When the rows of a table arrived. Times are given as time since the start.
#[derive(Debug, Clone)]
pub struct Ages {
    /// Rows between two marks.
    step: u64,
    /// Rows with this number and above arrived at this time or later.
    marks: VecDeque<(u64, Duration)>,
}

impl Ages {
    /// For a table of this capacity.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        Self {
            step: (capacity / MARKS).max(1),
            marks: VecDeque::new(),
        }
    }

    /// Records that rows from number `first` on arrived now; rows below `oldest` have
    /// left the table.
    pub fn arrived(&mut self, first: u64, oldest: u64, now: Duration) {
        let enough = |&(row, _): &(u64, Duration)| first >= row.saturating_add(self.step);
        if self.marks.back().is_none_or(enough) {
            self.marks.push_back((first, now));
        }
        while self.marks.get(1).is_some_and(|&(row, _)| row <= oldest) {
            self.marks.pop_front();
        }
    }

    /// An upper bound of the time since the oldest row arrived; zero without rows.
    #[must_use]
    pub fn oldest(&self, now: Duration) -> Duration {
        let arrived = self.marks.front().map_or(now, |&(_, arrived)| arrived);
        now.saturating_sub(arrived)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_that_of_the_oldest_row_and_marks_are_bounded() {
        let s = Duration::from_secs;
        let mut ages = Ages::new(1000);
        assert_eq!(ages.oldest(s(5)), s(0));
        // A row per second, a thousand of them kept.
        for row in 0_u64..5000 {
            ages.arrived(row, (row + 1).saturating_sub(1000), s(row));
            let exact = row.min(999);
            let age = ages.oldest(s(row)).as_secs();
            assert!((exact..exact + 4).contains(&age), "{age} s, not {exact} s");
            assert!(ages.marks.len() <= 340, "{}", ages.marks.len());
        }
        // It grows while no row arrives.
        assert!(ages.oldest(s(6000)) >= s(2000));
    }

    #[test]
    fn all_rows_of_a_batch_larger_than_the_table_arrive_at_once() {
        let mut ages = Ages::new(2);
        ages.arrived(0, 0, Duration::from_secs(1));
        ages.arrived(2, 5, Duration::from_secs(3));
        assert_eq!(ages.oldest(Duration::from_secs(4)), Duration::from_secs(1));
    }
}
