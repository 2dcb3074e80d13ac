//! The reward of a step: the published strategies, in mm.
//!
//! All are decreases: a quantity before the step minus the same after it, so that
//! a step towards the target has a positive reward. Positions and targets are
//! voxels times spacing (mm); the originals measure lines and pairs in voxels,
//! here everything is in mm. An agent whose landmark is unknown gets no reward
//! and is not paired with others.

use serde::{Deserialize, Serialize};

/// Largest absolute reward of one step, as in every published system.
pub const REWARD_CLIP: f32 = 1.0;

/// The reward strategies, numbered as in the 2019 code's
/// `--reward_strategy`; `d` is the Euclidean distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardStrategy {
    /// 1: `r = d(p, t) − d(p', t)`, the own target `t`.
    #[default]
    Own,
    /// 2: 1 plus the decrease of the distance to the line through the targets
    /// of the first two agents.
    Line,
    /// 3: 1 plus the mean over the other agents j of the decrease of
    /// `|d(p, pⱼ) − d(t, tⱼ)|`; after the step with everybody's new position.
    Pairs,
    /// 4: 1 plus the line term of 2 plus the pair term of 3.
    LineAndPairs,
    /// 5: the line term plus the pair term, without the own target.
    LineAndPairsOnly,
    /// 6: 1 plus the decrease of the mean distance to the lines through the
    /// own target and each other agent's.
    OwnLines,
}

impl RewardStrategy {
    /// All of them, in the order of the published numbers 1 to 6.
    pub const ALL: [Self; 6] = [
        Self::Own,
        Self::Line,
        Self::Pairs,
        Self::LineAndPairs,
        Self::LineAndPairsOnly,
        Self::OwnLines,
    ];

    /// Whether an agent's reward depends on the other agents.
    #[must_use]
    pub fn of_others(self) -> bool {
        self != Self::Own
    }
}

/// The team's share of an agent's reward, added after both are clipped to ±1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeamReward {
    /// Nothing.
    #[default]
    None,
    /// The mean over the agents that moved, including this one (rl-medical's
    /// `--team_reward mean`).
    Mean,
}

/// Positions of an agent before and after a step, and of its landmark: mm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moved {
    /// Before the step.
    pub from: [f64; 3],
    /// After it.
    pub to: [f64; 3],
    /// The landmark.
    pub target: [f64; 3],
}

impl Moved {
    /// Decrease of the distance to the landmark, mm: [`RewardStrategy::Own`].
    #[must_use]
    pub fn nearer(&self) -> f64 {
        distance(self.from, self.target) - distance(self.to, self.target)
    }
}

/// The reward (mm) of each agent's step; 0 for an agent without a landmark.
#[must_use]
pub fn rewards(strategy: RewardStrategy, agents: &[Option<Moved>]) -> Vec<f64> {
    let line = first_line(agents);
    let of = |(number, agent): (usize, &Option<Moved>)| {
        let Some(own) = agent else {
            return 0.0;
        };
        let others = || {
            let all = agents.iter().enumerate();
            all.filter(move |(n, _)| *n != number)
                .filter_map(|(_, a)| *a)
        };
        let nearer = own.nearer();
        let to_line = line.map_or(0.0, |l| from_line(own.from, l) - from_line(own.to, l));
        let pairs = || mean(others().map(|other| pair_term(own, &other)));
        match strategy {
            RewardStrategy::Own => nearer,
            RewardStrategy::Line => nearer + to_line,
            RewardStrategy::Pairs => nearer + pairs(),
            RewardStrategy::LineAndPairs => nearer + to_line + pairs(),
            RewardStrategy::LineAndPairsOnly => to_line + pairs(),
            RewardStrategy::OwnLines => {
                let lines = others().map(|other| [own.target, other.target]);
                nearer + mean(lines.map(|l| from_line(own.from, l) - from_line(own.to, l)))
            }
        }
    };
    agents.iter().enumerate().map(of).collect()
}

/// The line through the targets of the first two agents that have one.
fn first_line(agents: &[Option<Moved>]) -> Option<[[f64; 3]; 2]> {
    let mut targets = agents.iter().flatten().map(|a| a.target);
    Some([targets.next()?, targets.next()?])
}

fn pair_term(own: &Moved, other: &Moved) -> f64 {
    let wanted = distance(own.target, other.target);
    let before = (distance(own.from, other.from) - wanted).abs();
    before - (distance(own.to, other.to) - wanted).abs()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0_usize);
    for value in values {
        sum += value;
        count += 1;
    }
    if count == 0 { 0.0 } else { sum / count as f64 }
}

fn minus(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|i| a[i] - b[i])
}

fn length(a: [f64; 3]) -> f64 {
    a.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    length(minus(a, b))
}

/// Distance of a point to the line through two others: `|(p − a) × (b − a)| / |b − a|`;
/// the distance to `a` where both are equal.
fn from_line(p: [f64; 3], [a, b]: [[f64; 3]; 2]) -> f64 {
    let (u, v) = (minus(p, a), minus(b, a));
    let along = length(v);
    if along == 0.0 {
        return length(u);
    }
    let cross = [
        u[1] * v[2] - u[2] * v[1],
        u[2] * v[0] - u[0] * v[2],
        u[0] * v[1] - u[1] * v[0],
    ];
    length(cross) / along
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(from: [f64; 3], to: [f64; 3], target: [f64; 3]) -> Option<Moved> {
        Some(Moved { from, to, target })
    }

    /// Targets at x = 0, 10 and at y = 8 above the first. Agent 0 goes from
    /// (3, 4, 0) to (3, 0, 0), agent 1 from (10, 6, 0) to (10, 3, 0), agent 2
    /// stands on (6, 8, 0).
    fn three() -> [Option<Moved>; 3] {
        [
            moved([3.0, 4.0, 0.0], [3.0, 0.0, 0.0], [0.0; 3]),
            moved([10.0, 6.0, 0.0], [10.0, 3.0, 0.0], [10.0, 0.0, 0.0]),
            moved([6.0, 8.0, 0.0], [6.0, 8.0, 0.0], [0.0, 8.0, 0.0]),
        ]
    }

    #[test]
    fn two_agents_by_hand() {
        let agents = &three()[..2];
        // Own: 5 − 3 = 2 and 6 − 3 = 3. Line y = z = 0: 4 − 0 = 4 and 6 − 3 = 3.
        // Pair: |√(49 + 4) − 10| − |√(49 + 9) − 10| for both.
        let pair = (10.0 - 53_f64.sqrt()) - (10.0 - 58_f64.sqrt());
        let table = [
            [2.0, 3.0],
            [2.0 + 4.0, 3.0 + 3.0],
            [2.0 + pair, 3.0 + pair],
            [2.0 + 4.0 + pair, 3.0 + 3.0 + pair],
            [4.0 + pair, 3.0 + pair],
            [2.0 + 4.0, 3.0 + 3.0],
        ];
        for (strategy, expected) in RewardStrategy::ALL.into_iter().zip(table) {
            let found = rewards(strategy, agents);
            let same = found
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(same, "{strategy:?}: {found:?} is not {expected:?}");
        }
    }

    #[test]
    fn three_agents_by_hand() {
        let agents = three();
        let found = |strategy| rewards(strategy, &agents);
        assert_eq!(found(RewardStrategy::Own), [2.0, 3.0, 0.0]);
        // The line is that of the first two, for the third too: 8 − 8.
        assert_eq!(found(RewardStrategy::Line), [6.0, 6.0, 0.0]);
        // Agent 0: lines y = 0 (4 → 0) and x = 0 (3 → 3): mean decrease 2.
        assert!((found(RewardStrategy::OwnLines)[0] - 4.0).abs() < 1e-12);
        // Agent 2 does not move, but its pairs change.
        let with_0 = (8.0 - 5.0_f64) - (73_f64.sqrt() - 8.0).abs();
        let with_1 =
            (164_f64.sqrt() - 20_f64.sqrt()).abs() - (164_f64.sqrt() - 41_f64.sqrt()).abs();
        let expected = f64::midpoint(with_0, with_1);
        assert!((found(RewardStrategy::Pairs)[2] - expected).abs() < 1e-12);
    }

    #[test]
    fn agents_without_a_known_partner_get_no_pair_reward() {
        let [one, two, _] = three();
        for strategy in RewardStrategy::ALL {
            let alone = rewards(strategy, &[one])[0];
            let expected = if strategy == RewardStrategy::LineAndPairsOnly {
                0.0
            } else {
                2.0
            };
            assert!((alone - expected).abs() < 1e-12, "{strategy:?}: {alone}");
            // An unknown agent between two known ones changes nothing.
            let with = rewards(strategy, &[one, None, two]);
            let without = rewards(strategy, &[one, two]);
            assert_eq!([with[0], with[2]], without[..], "{strategy:?}");
            assert!(with[1].abs() < 1e-12);
        }
        // Two landmarks at the same position: the line is that point.
        let same = [moved([3.0, 4.0, 0.0], [0.0; 3], [0.0; 3]); 2];
        assert_eq!(rewards(RewardStrategy::Line, &same), [10.0, 10.0]);
    }
}
