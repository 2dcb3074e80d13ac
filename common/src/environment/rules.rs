//! The environment's rules: every quirk of the published systems is a named
//! choice, because published weights are only valid under the rules that they
//! were trained with.
//!
//! Two presets: [`Rules::standard`] (ours) and [`Rules::reference`]
//! (rl-medical, the PyTorch code).

use serde::{Deserialize, Serialize};

use crate::environment::reward::{RewardStrategy, TeamReward};
use crate::environment::window::WindowRule;
use crate::imaging::preprocess::VolumeChoice;

/// Incremented whenever a rule or the preprocessing changes the meaning of a
/// window, a reward or a row; part of the training manifest.
pub const RULES_VERSION: u32 = 1;

/// One level of the coarse-to-fine search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u8, u8)", into = "(u8, u8)")]
pub struct Scale {
    /// Voxels between neighbouring samples of the window.
    pub stride: u8,
    /// Voxels that one action moves.
    pub step: u8,
}

impl From<(u8, u8)> for Scale {
    fn from((stride, step): (u8, u8)) -> Self {
        Self { stride, step }
    }
}

impl From<Scale> for (u8, u8) {
    fn from(s: Scale) -> Self {
        (s.stride, s.step)
    }
}

/// Whether the agents on one scan depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coupling {
    /// Each agent has its own scale and freezes when done.
    Independent,
    /// All share one scale, switch and end together (rl-medical).
    Shared,
}

/// The unit of a decrease of the distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardUnit {
    /// mm divided by the length of the finest step, so that a reward has the same
    /// meaning at 0.18 mm and at 2 mm.
    FinestSteps,
    /// Plain mm (rl-medical).
    Millimetres,
}

/// The effect of the distance to the target on a training episode.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetRule {
    /// Reaching the target changes nothing, so that the agent also learns the last voxel.
    Continue,
    /// Terminal for the agent within this many finest steps, tested after the move.
    Radius(f64),
    /// rl-medical: terminal when the distance *before* this step's move was at
    /// most this many mm (one step late); the episode ends when all agents are
    /// there in the same step.
    LateMillimetres(f64),
}

/// How a row bootstraps that the step cap or an oscillation at the last scale ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TruncationRule {
    /// A truncation: the bootstrap goes on.
    Truncate,
    /// A terminal state: discount 0 (the TensorFlow originals).
    Terminal,
}

/// How the predicted position follows from an oscillation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TerminalPosition {
    /// Mean of the positions of the oscillation cycle: sub-voxel.
    CycleMean,
    /// The position with the lowest max-Q of the last four (rl-medical).
    LowestQ,
}

/// Which positions are checked for repeated visits to detect an oscillation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OscillationRule {
    /// The newest position.
    #[default]
    Newest,
    /// Any of the last positions (rl-medical). Its list is filled with (0, 0, 0) at
    /// first and at each scale switch; while that is the most frequent entry, the
    /// list must also hold as many different entries as required visits.
    MostFrequent,
}

/// Whether a move to index 0 is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BorderRule {
    /// Every voxel can be reached.
    Inclusive,
    /// Index 0 cannot be reached on any axis (rl-medical).
    ZeroBlocked,
}

/// All choices of the environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The volume that windows are cut from.
    pub volume: VolumeChoice,
    /// How samples are placed around a position.
    pub window: WindowRule,
    /// Samples per side of the window.
    pub window_size: usize,
    /// Frames in an observation, oldest first.
    pub history: usize,
    /// Coarse to fine; one entry for the fixed-scale search.
    pub scales: Vec<Scale>,
    /// Whether agents depend on each other.
    pub coupling: Coupling,
    pub reward: RewardUnit,
    #[serde(default)]
    pub strategy: RewardStrategy,
    /// The team's share of the reward.
    #[serde(default)]
    pub team: TeamReward,
    /// Effect of reaching the target in training.
    pub target: TargetRule,
    /// What the step limit and an oscillation at the last scale mean for the bootstrap.
    #[serde(alias = "cut")]
    pub episode_end: TruncationRule,
    /// How the predicted position is determined.
    #[serde(alias = "answer")]
    pub terminal_position: TerminalPosition,
    /// Whether index 0 can be reached.
    pub border: BorderRule,
    /// Which positions' visits are counted.
    #[serde(default)]
    pub oscillation: OscillationRule,
    /// Oscillation: this many visits to one position …
    pub oscillation_visits: usize,
    /// … among this many last positions.
    pub oscillation_window: usize,
    /// Steps after which an episode is truncated.
    pub max_steps: u16,
}

/// Invalid rules, with the reason.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("rules.{key}: {why}")]
pub struct RulesError {
    /// The invalid key.
    pub key: &'static str,
    pub why: String,
}

impl Rules {
    /// Our defaults: centred windows, independent agents, sub-voxel predictions.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            volume: VolumeChoice::CanonicalU8,
            window: WindowRule::Centred,
            window_size: 24,
            history: 1,
            scales: vec![(4, 9).into(), (2, 3).into(), (1, 1).into()],
            coupling: Coupling::Independent,
            reward: RewardUnit::FinestSteps,
            strategy: RewardStrategy::Own,
            team: TeamReward::None,
            target: TargetRule::Continue,
            episode_end: TruncationRule::Truncate,
            terminal_position: TerminalPosition::CycleMean,
            border: BorderRule::Inclusive,
            oscillation: OscillationRule::Newest,
            oscillation_visits: 4,
            oscillation_window: 20,
            max_steps: 150,
        }
    }

    /// rl-medical's rules (the PyTorch code, multi-scale), quirks included.
    #[must_use]
    pub fn reference() -> Self {
        Self {
            volume: VolumeChoice::ReferenceF32,
            window: WindowRule::Reference,
            window_size: 45,
            history: 4,
            scales: vec![(3, 9).into(), (2, 3).into(), (1, 1).into()],
            coupling: Coupling::Shared,
            reward: RewardUnit::Millimetres,
            target: TargetRule::LateMillimetres(1.0),
            terminal_position: TerminalPosition::LowestQ,
            border: BorderRule::ZeroBlocked,
            oscillation: OscillationRule::MostFrequent,
            max_steps: 200,
            ..Self::standard()
        }
    }

    /// Whether the agents of a scan must move as one group, in step.
    #[must_use]
    pub fn together(&self) -> bool {
        self.coupling == Coupling::Shared
            || self.strategy.of_others()
            || self.team != TeamReward::None
    }

    /// The step of the finest scale in voxels.
    #[must_use]
    pub fn finest_step(&self) -> u8 {
        self.scales.last().map_or(1, |s| s.step)
    }

    /// Refuses invalid rules, naming the key.
    pub fn validate(&self) -> Result<(), RulesError> {
        let fail = |key, why: String| Err(RulesError { key, why });
        let between = |key, value: usize, low: usize, high: usize, of: &str| {
            let why = format!("must lie in {low}..={high}{of}, got {value}");
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                fail(key, why)
            }
        };
        let scales = self.scales.len();
        if !(1..=8).contains(&scales) {
            return fail("scales", format!("needs 1 to 8 scales, got {scales}"));
        }
        if let Some(s) = self.scales.iter().find(|s| s.stride == 0 || s.step == 0) {
            let why = format!("stride and step must be at least 1, got {s:?}");
            return fail("scales", why);
        }
        between("window_size", self.window_size, 3, 128, "")?;
        between("history", self.history, 1, 8, "")?;
        let (visits, window) = (self.oscillation_visits, self.oscillation_window);
        between(
            "oscillation_visits",
            visits,
            2,
            window,
            " (oscillation_window)",
        )?;
        if self.oscillation_window > 256 {
            return fail("oscillation_window", "must be at most 256".into());
        }
        if self.max_steps == 0 {
            return fail("max_steps", "must be at least 1".into());
        }
        let radius = match self.target {
            TargetRule::Continue => 0.0,
            TargetRule::Radius(r) | TargetRule::LateMillimetres(r) => r,
        };
        if !radius.is_finite() || radius < 0.0 {
            let why = format!("needs a finite distance of at least 0, got {radius}");
            return fail("target", why);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_valid_and_bad_rules_name_their_key() {
        Rules::standard().validate().unwrap();
        Rules::reference().validate().unwrap();
        let bad = |change: fn(&mut Rules)| {
            let mut r = Rules::standard();
            change(&mut r);
            r.validate().unwrap_err().key
        };
        assert_eq!(bad(|r| r.scales.clear()), "scales");
        assert_eq!(bad(|r| r.scales[1].step = 0), "scales");
        assert_eq!(bad(|r| r.window_size = 2), "window_size");
        assert_eq!(bad(|r| r.history = 0), "history");
        assert_eq!(bad(|r| r.oscillation_visits = 21), "oscillation_visits");
        assert_eq!(bad(|r| r.max_steps = 0), "max_steps");
        assert_eq!(bad(|r| r.target = TargetRule::Radius(f64::NAN)), "target");
    }

    #[test]
    fn scales_read_as_pairs() {
        let s: Vec<Scale> = serde_json::from_str("[[4,9],[1,1]]").unwrap();
        assert_eq!(s, vec![(4, 9).into(), (1, 1).into()]);
    }
}
