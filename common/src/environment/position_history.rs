//! The last positions of one agent at one scale: they detect oscillation and
//! determine the predicted position.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::environment::rules::{OscillationRule, Rules, TerminalPosition};

/// The last positions with the largest Q value seen *before* moving there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PositionHistory {
    steps: VecDeque<([i32; 3], f32)>,
    rule: OscillationRule,
    window: usize,
    visits: usize,
}

/// Initial content of rl-medical's list of last positions.
const FILLER: [i32; 3] = [0; 3];

/// Number of last positions that the published code chooses its prediction from.
const LOWEST_Q_OF: usize = 4;

impl PositionHistory {
    /// An empty history with the rules' oscillation test.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        Self {
            steps: VecDeque::with_capacity(rules.oscillation_window),
            rule: rules.oscillation,
            window: rules.oscillation_window,
            visits: rules.oscillation_visits,
        }
    }

    /// Records a position (voxel) and the largest Q of the observation that led there.
    pub fn push(&mut self, position: [i32; 3], q_max: f32) {
        if self.steps.len() == self.window {
            self.steps.pop_front();
        }
        self.steps.push_back((position, q_max));
    }

    /// Whether `other` has the same oscillation test.
    #[must_use]
    pub fn same_test(&self, other: &Self) -> bool {
        let test = |t: &Self| (t.rule, t.window, t.visits);
        test(self) == test(other) && self.steps.len() <= self.window
    }

    /// Forgets everything (at a scale switch).
    pub fn clear(&mut self) {
        self.steps.clear();
    }

    /// Whether the visits to a position (which one depends on the rules) reach the limit.
    #[must_use]
    pub fn oscillates(&self) -> bool {
        match self.rule {
            OscillationRule::Newest => {
                let newest = self.steps.back();
                newest.is_some_and(|(newest, _)| self.count(newest) >= self.visits)
            }
            OscillationRule::MostFrequent => self.most_frequent_oscillates(),
        }
    }

    fn count(&self, position: &[i32; 3]) -> usize {
        self.steps.iter().filter(|(p, _)| p == position).count()
    }

    fn most_frequent_oscillates(&self) -> bool {
        let mut different: Vec<&[i32; 3]> = self.steps.iter().map(|(p, _)| p).collect();
        different.sort_unstable();
        different.dedup();
        different.retain(|p| **p != FILLER);
        let fillers = self.window - self.steps.len() + self.count(&FILLER);
        let most = different.iter().map(|p| self.count(p)).max().unwrap_or(0);
        // In a tie, the filler is older and comes first.
        let filler_leads = fillers > 0 && fillers >= most;
        let entries = different.len() + usize::from(fillers > 0);
        most >= self.visits && (!filler_leads || entries >= self.visits)
    }

    /// The landmark's position by the given rule; `None` for an empty history.
    #[must_use]
    pub fn terminal_position(&self, rule: TerminalPosition) -> Option<[f64; 3]> {
        match rule {
            TerminalPosition::CycleMean => self.cycle_mean(),
            TerminalPosition::LowestQ => self
                .steps
                .iter()
                .rev()
                .take(LOWEST_Q_OF)
                // The oldest wins a tie, as in numpy's argmin.
                .rev()
                .min_by(|a, b| a.1.total_cmp(&b.1))
                .map(|(p, _)| p.map(f64::from)),
        }
    }

    /// The mean over whole periods: from just after the oldest visit to the
    /// newest position up to now.
    fn cycle_mean(&self) -> Option<[f64; 3]> {
        let newest = self.steps.back()?.0;
        let first = self.steps.iter().position(|(p, _)| *p == newest)?;
        let cycle: Vec<_> = self.steps.iter().skip(first + 1).map(|(p, _)| *p).collect();
        if cycle.is_empty() {
            return Some(newest.map(f64::from));
        }
        Some([0, 1, 2].map(|axis| {
            let sum: i64 = cycle.iter().map(|p: &[i32; 3]| i64::from(p[axis])).sum();
            sum as f64 / cycle.len() as f64
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visited(points: &[i32]) -> PositionHistory {
        let mut t = PositionHistory::new(&Rules::standard());
        for (i, &x) in points.iter().enumerate() {
            t.push([x, 5, 5], points.len() as f32 - i as f32);
        }
        t
    }

    #[test]
    fn four_visits_in_twenty_oscillate() {
        assert!(!visited(&[1, 2, 1, 2, 1, 2]).oscillates());
        assert!(visited(&[1, 2, 1, 2, 1, 2, 1]).oscillates());
        // Blocked at a border four times.
        assert!(visited(&[3, 3, 3, 3]).oscillates());
        // The first visit has left the window of twenty.
        let mut long = vec![7];
        long.extend(100..116);
        long.extend([7, 200, 7, 201, 7]);
        assert!(!visited(&long).oscillates());
    }

    #[test]
    fn the_published_list_begins_with_fillers() {
        let published = |points: &[i32]| {
            let mut t = PositionHistory::new(&Rules::reference());
            points.iter().for_each(|&x| t.push([x, 5, 5], 0.0));
            t.oscillates()
        };
        // Two positions and the filler are too few entries, until the filler
        // is no longer the most frequent: 7 visits against 6 of 20.
        let there_and_back =
            |steps: usize| (0..steps).map(|i| 1 + (i % 2) as i32).collect::<Vec<_>>();
        assert!(!published(&there_and_back(13)));
        assert!(published(&there_and_back(14)));
        // Three positions and the filler are enough.
        assert!(published(&[9, 1, 2, 1, 2, 1, 2, 1]));
        // The newest need not be the frequent one.
        assert!(published(&[9, 1, 2, 1, 2, 1, 2, 1, 7]));
        assert!(!published(&[9, 1, 2, 1, 2, 1, 2]));
        // Blocked from the first step on: one position, alone with the filler.
        assert!(!published(&[3; 9]) && !published(&[3; 10]) && published(&[3; 11]));
    }

    #[test]
    fn predictions_of_both_rules() {
        let t = visited(&[9, 1, 2, 1, 2, 1, 2, 1]);
        let [mean, lowest] = [TerminalPosition::CycleMean, TerminalPosition::LowestQ];
        assert_eq!(t.terminal_position(mean), Some([1.5, 5.0, 5.0]));
        // q falls with time here, so the newest has the lowest.
        assert_eq!(t.terminal_position(lowest), Some([1.0, 5.0, 5.0]));
        let mut t = PositionHistory::new(&Rules::reference());
        for (x, q) in [(1, 0.0), (2, 3.0), (3, 1.0), (4, 2.0), (5, 1.0)] {
            t.push([x, 0, 0], q);
        }
        // Only the last four, the oldest of a tie.
        assert_eq!(t.terminal_position(lowest), Some([3.0, 0.0, 0.0]));
        let empty = PositionHistory::new(&Rules::standard());
        assert_eq!(empty.terminal_position(mean), None);
    }
}
