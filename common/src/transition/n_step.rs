//! From steps to rows: n-step returns over one episode.
//!
//! Per agent, with rewards clipped to ±1 and k the number of steps the agent
//! moved within the next n: reward = Σ_{i<k} γ^i r_i, discount = γ^k, or 0 when
//! its last step was terminal. A truncation (step cap, oscillation) keeps γ^k:
//! the bootstrap goes on from the last state (Sutton & Barto, ch. 7; the
//! shorter tails are those of an n-step method at an episode's end).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::environment::reward::REWARD_CLIP;
use crate::environment::{Observation, StepResult};
use crate::transition::row::{AgentStep, Row, RowHeader};

/// One agent's part of one step, before it becomes part of a row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentMove {
    pub agent: u16,
    pub before: Observation,
    pub action: u8,
    pub outcome: StepResult,
    pub after: Observation,
    /// Q of the chosen action, for the initial priority.
    pub q_chosen: f32,
}

/// A row whose priority still needs the bootstrap state's Q.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenRow {
    pub row: Row,
    /// Q of the chosen action per agent.
    pub q_chosen: Vec<f32>,
}

impl OpenRow {
    /// |TD error| of each active agent given max Q of its bootstrap state, combined:
    /// 0.9 × the largest plus 0.1 × the mean (for one agent, its own).
    ///
    /// Zero when no agent is active. `next_max[i]` per agent of the row.
    #[must_use]
    pub fn priority(&self, next_max: &[f32]) -> f32 {
        let errors = self
            .row
            .agents
            .iter()
            .zip(&self.q_chosen)
            .zip(next_max)
            .filter(|((a, _), _)| a.active)
            .map(|((a, q), next)| (a.reward + a.discount * next - q).abs());
        combine_priorities(errors)
    }
}

/// 0.9 × the largest plus 0.1 × the mean of |TD| over a row's active agents
/// (R2D2's mixture, over agents instead of time); 0 for none.
pub fn combine_priorities(errors: impl Iterator<Item = f32>) -> f32 {
    let (mut largest, mut sum, mut count) = (0.0_f32, 0.0_f32, 0.0_f32);
    for e in errors {
        largest = largest.max(e);
        sum += e;
        count += 1.0;
    }
    if count == 0.0 {
        0.0
    } else {
        0.9 * largest + 0.1 * sum / count
    }
}

/// Collects the steps of one row group (one agent, or all agents of an environment) and
/// returns rows as soon as their return is complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NStep {
    n: usize,
    gamma: f32,
    pending: VecDeque<(RowHeader, Vec<AgentMove>)>,
}

impl NStep {
    /// `n` ≥ 1 steps, discount factor `gamma` in 0..=1.
    #[must_use]
    pub fn new(n: usize, gamma: f32) -> Self {
        Self {
            n: n.max(1),
            gamma,
            pending: VecDeque::new(),
        }
    }

    /// Adds a step of the group; `last` when none of its agents will move
    /// again. Returns the completed rows, oldest first.
    pub fn push(&mut self, header: RowHeader, moves: Vec<AgentMove>, last: bool) -> Vec<OpenRow> {
        self.pending.push_back((header, moves));
        let mut rows = Vec::new();
        while self.pending.len() >= self.n || (last && !self.pending.is_empty()) {
            rows.push(self.close_oldest());
            self.pending.pop_front();
        }
        rows
    }

    /// Number of steps whose row is not complete yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn close_oldest(&self) -> OpenRow {
        let (header, first) = &self.pending[0];
        let parts = (0..first.len()).map(|i| self.close_agent(i)).collect();
        let q_chosen = first.iter().map(|m| m.q_chosen).collect();
        OpenRow {
            row: Row {
                header: *header,
                agents: parts,
            },
            q_chosen,
        }
    }

    fn close_agent(&self, i: usize) -> AgentStep {
        let first = &self.pending[0].1[i];
        let (mut reward, mut discount) = (0.0, 1.0);
        let mut after = &first.after;
        for (_, moves) in self.pending.iter().take(self.n) {
            let m = &moves[i];
            if !m.outcome.active {
                break;
            }
            let own = m.outcome.reward.clamp(-REWARD_CLIP, REWARD_CLIP);
            reward += discount * (own + m.outcome.team);
            discount *= self.gamma;
            after = &m.after;
            if m.outcome.terminal {
                discount = 0.0;
                break;
            }
        }
        AgentStep {
            agent: first.agent,
            scale: first.before.scale,
            next_scale: after.scale,
            action: first.action,
            active: first.outcome.active,
            reward,
            discount,
            state: first.before.frames.clone(),
            next: after.frames.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transition::row::FrameRef;

    fn see(x: i16) -> Observation {
        let frame = FrameRef {
            position: [x, 0, 0],
            stride: 1,
            valid: true,
        };
        Observation {
            frames: vec![frame],
            scale: 0,
        }
    }

    fn step(x: i16, reward: f32, active: bool, terminal: bool) -> AgentMove {
        AgentMove {
            agent: 0,
            before: see(x),
            action: 2,
            outcome: StepResult {
                active,
                reward,
                team: 0.0,
                terminal,
                blocked: false,
            },
            after: see(x + 1),
            q_chosen: 0.25,
        }
    }

    fn header(step: u16) -> RowHeader {
        RowHeader {
            step,
            ..RowHeader::default()
        }
    }

    /// (step, first x, next x, reward, discount) of each row.
    fn rows(n: usize, steps: &[AgentMove]) -> Vec<(u16, i16, i16, f32, f32)> {
        let mut acc = NStep::new(n, 0.5);
        let mut out = Vec::new();
        for (i, s) in (0..).zip(steps) {
            let last = usize::from(i) + 1 == steps.len();
            for open in acc.push(header(i), vec![s.clone()], last) {
                let a = &open.row.agents[0];
                let [x, next] = [&a.state, &a.next].map(|frames| frames[0].position[0]);
                out.push((open.row.header.step, x, next, a.reward, a.discount));
            }
        }
        assert_eq!(acc.pending(), 0);
        out
    }

    #[test]
    fn one_step_rows_clip_the_reward() {
        let steps = [step(0, 5.0, true, false), step(1, -0.5, true, false)];
        assert_eq!(rows(1, &steps), [(0, 0, 1, 1.0, 0.5), (1, 1, 2, -0.5, 0.5)]);
    }

    #[test]
    fn three_step_rows_at_a_truncated_and_at_a_terminal_end() {
        let r = [1.0, 0.5, -1.0, 0.25];
        let episode = |terminal| -> Vec<_> {
            (0..4_i16)
                .map(|i| step(i, r[i as usize], true, terminal && i == 3))
                .collect()
        };
        // Truncated: tails bootstrap from the last state with γ^k.
        assert_eq!(
            rows(3, &episode(false)),
            [
                (0, 0, 3, 1.0 + 0.25 - 0.25, 0.125),
                (1, 1, 4, 0.5 - 0.5 + 0.0625, 0.125),
                (2, 2, 4, -1.0 + 0.125, 0.25),
                (3, 3, 4, 0.25, 0.5),
            ]
        );
        // Terminal: the same sums, discount 0 in every row that reaches the end.
        let discounts: Vec<f32> = rows(3, &episode(true)).iter().map(|r| r.4).collect();
        assert_eq!(discounts, [0.125, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn agents_of_one_group_end_at_different_times() {
        let mut acc = NStep::new(3, 0.5);
        let second = |x, active| AgentMove {
            agent: 1,
            ..step(x, if active { 1.0 } else { 9.0 }, active, false)
        };
        let mut push = |number: u16, other: AgentMove, last| {
            let first = step(number.cast_signed(), 1.0, true, false);
            acc.push(header(number), vec![first, other], last)
        };
        assert!(push(0, second(10, true), false).is_empty());
        assert!(push(1, second(11, false), false).is_empty());
        let rows = push(2, second(11, false), true);
        assert_eq!(rows.len(), 3);
        let second = &rows[0].row.agents[1];
        assert!(second.active);
        assert_eq!((second.reward, second.discount), (1.0, 0.5));
        // Its own last state, not the group's.
        assert_eq!(second.next, see(11).frames);
        let second = &rows[1].row.agents[1];
        assert_eq!((second.active, second.reward), (false, 0.0));
    }

    #[test]
    fn priorities_mix_largest_and_mean_of_active_agents() {
        let mut acc = NStep::new(1, 0.5);
        let frozen = step(5, 0.0, false, false);
        let moves = vec![step(0, 1.0, true, false), frozen, step(3, 0.0, true, false)];
        let rows = acc.push(header(0), moves, true);
        // errors: |1 + 0.5·0.5 − 0.25| = 1 and |0 + 0.5·0.1 − 0.25| = 0.2
        let p = rows[0].priority(&[0.5, 9.0, 0.1]);
        assert!((p - (0.9 + 0.1 * 0.6)).abs() < 1e-6, "{p}");
        assert_eq!(combine_priorities(std::iter::empty()), 0.0);
    }
}
