//! The last positions of one agent at one scale: when it oscillates, and what
//! it then says.

use std::collections::VecDeque;

use crate::rules::{AnswerRule, Rules};

/// The last positions with the largest Q value seen *before* moving there.
#[derive(Debug, Clone, PartialEq)]
pub struct Trail {
    steps: VecDeque<([i32; 3], f32)>,
    window: usize,
    visits: usize,
}

/// How many last positions the published code chooses its answer from.
const LOWEST_Q_OF: usize = 4;

impl Trail {
    /// An empty trail with the rules' oscillation test.
    #[must_use]
    pub fn new(rules: &Rules) -> Self {
        Self {
            steps: VecDeque::with_capacity(rules.oscillation_window),
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

    /// Forgets everything (at a scale switch).
    pub fn clear(&mut self) {
        self.steps.clear();
    }

    /// Whether the newest position was seen as often as the rules ask for.
    #[must_use]
    pub fn oscillates(&self) -> bool {
        self.steps.back().is_some_and(|(newest, _)| {
            self.steps.iter().filter(|(p, _)| p == newest).count() >= self.visits
        })
    }

    /// Where the landmark is, by the given rule; `None` on an empty trail.
    #[must_use]
    pub fn answer(&self, rule: AnswerRule) -> Option<[f64; 3]> {
        match rule {
            AnswerRule::CycleMean => self.cycle_mean(),
            AnswerRule::LowestQ => self
                .steps
                .iter()
                .rev()
                .take(LOWEST_Q_OF)
                // The oldest wins a tie, as numpy's argmin over them does.
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
        let mut mean = [0.0; 3];
        for (axis, value) in mean.iter_mut().enumerate() {
            let sum: i64 = cycle.iter().map(|p| i64::from(p[axis])).sum();
            #[expect(clippy::cast_precision_loss, reason = "a few hundred voxel indices")]
            let exact = sum as f64 / cycle.len() as f64;
            *value = exact;
        }
        Some(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(points: &[i32]) -> Trail {
        let mut t = Trail::new(&Rules::standard());
        for (i, &x) in points.iter().enumerate() {
            t.push([x, 5, 5], points.len() as f32 - i as f32);
        }
        t
    }

    #[test]
    fn four_visits_in_twenty_oscillate() {
        assert!(!walk(&[1, 2, 1, 2, 1, 2]).oscillates());
        assert!(walk(&[1, 2, 1, 2, 1, 2, 1]).oscillates());
        assert!(
            walk(&[3, 3, 3, 3]).oscillates(),
            "blocked at a border four times"
        );
        // The first visit has left the window of twenty.
        let mut long = vec![7];
        long.extend(100..116);
        long.extend([7, 200, 7, 201, 7]);
        assert!(!walk(&long).oscillates());
    }

    #[test]
    fn answers_of_both_rules() {
        let t = walk(&[9, 1, 2, 1, 2, 1, 2, 1]);
        assert_eq!(t.answer(AnswerRule::CycleMean), Some([1.5, 5.0, 5.0]));
        // q falls with time here, so the newest has the lowest.
        assert_eq!(t.answer(AnswerRule::LowestQ), Some([1.0, 5.0, 5.0]));
        let mut t = Trail::new(&Rules::reference());
        for (x, q) in [(1, 0.0), (2, 3.0), (3, 1.0), (4, 2.0), (5, 1.0)] {
            t.push([x, 0, 0], q);
        }
        assert_eq!(
            t.answer(AnswerRule::LowestQ),
            Some([3.0, 0.0, 0.0]),
            "only the last four, oldest of a tie"
        );
        assert_eq!(
            Trail::new(&Rules::standard()).answer(AnswerRule::CycleMean),
            None
        );
    }
}
