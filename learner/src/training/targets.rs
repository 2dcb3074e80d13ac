//! Reward targets beyond the reward that a row's own agent got: the rules also
//! define the reward of the same action for every other agent, and of the actions
//! not taken.
//!
//! All-goals updating (Kaelbling 1993, "Learning to achieve goals"): one
//! transition of a known environment is a transition towards every goal. It
//! needs γ = 0, where an action's value is its reward; `learner.goals` and
//! `learner.objective` enable it.

use common::config::{Config, GoalsConfig, ObjectiveConfig};
use common::environment::rules::Rules;
use common::environment::{ACTIONS, step_rewards};
use common::imaging::geometry::Geometry;
use common::transition::row::{AgentStep, FrameRef};

/// Actions of an agent.
pub const STEPS: usize = ACTIONS.len();

/// Rewards and weights of a batch, each `[N, A, 6]`; both empty for plain
/// Q-learning of own goals.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RewardTargets {
    /// Reward of each action for each agent, clipped.
    pub reward: Vec<f32>,
    /// Weight of each target: the row's weight, divided evenly among its targets.
    pub weight: Vec<f32>,
}

impl RewardTargets {
    pub(crate) fn clear(&mut self) {
        self.reward.clear();
        self.weight.clear();
    }
}

/// Computes the reward targets of each agent's step.
#[derive(Debug, Clone)]
pub(crate) struct RewardTargetBuilder {
    rules: Rules,
    goals: GoalsConfig,
    objective: ObjectiveConfig,
}

impl RewardTargetBuilder {
    /// `None` for plain Q-learning of own goals, which needs no reward targets.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let l = &config.learner;
        let more = l.goals == GoalsConfig::All || l.objective == ObjectiveConfig::StepReward;
        more.then(|| Self {
            rules: config.rules.clone(),
            goals: l.goals,
            objective: l.objective,
        })
    }

    /// Appends the reward targets of one agent's step. `targets` (voxel): the
    /// landmarks of all agents in the step's volume; `weight`: the row's.
    pub(crate) fn append(
        &self,
        step: &AgentStep,
        targets: &[Option<[f64; 3]>],
        geometry: &Geometry,
        weight: f32,
        out: &mut RewardTargets,
    ) {
        let begin = out.reward.len();
        let end = begin + targets.len() * STEPS;
        out.reward.resize(end, 0.0);
        out.weight.resize(end, 0.0);
        let Some(place) = step.state.last().filter(|_| step.active) else {
            return;
        };
        let from = place.position.map(i32::from);
        let mut count = 0;
        for (agent, target) in targets.iter().enumerate() {
            let own = agent == usize::from(step.agent);
            let Some(target) = target.filter(|t| own || self.concerns(step.scale, place, *t))
            else {
                continue;
            };
            let at = begin + agent * STEPS..begin + (agent + 1) * STEPS;
            let rewards = step_rewards(&self.rules, geometry, from, step.scale, target);
            out.reward[at.clone()].copy_from_slice(&rewards);
            let weights = &mut out.weight[at];
            match self.objective {
                ObjectiveConfig::StepReward => weights.fill(1.0),
                ObjectiveConfig::QLearning => weights[usize::from(step.action) % STEPS] = 1.0,
            }
            count += match self.objective {
                ObjectiveConfig::StepReward => STEPS,
                ObjectiveConfig::QLearning => 1,
            };
        }
        let share = weight / count.max(1) as f32;
        out.weight[begin..].iter_mut().for_each(|w| *w *= share);
    }

    /// Whether an agent with this target could be at this position at this
    /// scale: agents reach finer scales only near their target.
    fn concerns(&self, scale: u8, place: &FrameRef, target: [f64; 3]) -> bool {
        if self.goals == GoalsConfig::Own {
            return false;
        }
        let reach = self.rules.window_size as f64 * f64::from(place.stride) / 2.0;
        let shown = |(p, t): (&i16, &f64)| (f64::from(*p) - t).abs() <= reach;
        scale == 0 || place.position.iter().zip(&target).all(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::geometry;

    /// Agent 0 at (10, 10, 10) moving left.
    fn step(scale: u8, stride: u8) -> AgentStep {
        let place = FrameRef {
            position: [10, 10, 10],
            stride,
            valid: true,
        };
        AgentStep {
            agent: 0,
            scale,
            action: 3,
            active: true,
            state: vec![FrameRef::default(), place],
            ..AgentStep::default()
        }
    }

    fn build(goals: GoalsConfig, objective: ObjectiveConfig, step: &AgentStep) -> RewardTargets {
        let mut config = Config::defaults().unwrap();
        (config.learner.goals, config.learner.objective) = (goals, objective);
        (config.learner.gamma, config.rules.window_size) = (0.0, 8);
        config.validate().unwrap();
        // Left of it, outside the window of 8 samples, missing, and right above.
        let targets = [
            Some([7.0, 10.0, 10.0]),
            Some([10.0, 10.0, 19.0]),
            None,
            Some([10.0, 10.0, 12.0]),
        ];
        let mut built = RewardTargets::default();
        let builder = RewardTargetBuilder::new(&config).unwrap();
        builder.append(step, &targets, &geometry([20; 3]), 0.5, &mut built);
        built
    }

    fn of(values: &[f32], agent: usize) -> &[f32] {
        &values[agent * STEPS..(agent + 1) * STEPS]
    }

    #[test]
    fn step_reward_has_a_target_for_every_action_of_the_own_agent() {
        let found = build(GoalsConfig::Own, ObjectiveConfig::StepReward, &step(2, 1));
        assert_eq!(found.reward.len(), 4 * STEPS);
        // To (7, 10, 10): right −1, left 1, all others increase the distance by √10 − 3.
        let aside = (3.0 - 10_f64.sqrt()) as f32;
        let expected = [aside, aside, -1.0, 1.0, aside, aside];
        for (f, e) in of(&found.reward, 0).iter().zip(expected) {
            assert!((f - e).abs() < 1e-6, "{found:?}");
        }
        assert_eq!(of(&found.weight, 0), [0.5 / 6.0; STEPS]);
        assert!(found.weight[STEPS..].iter().all(|w| *w == 0.0));
    }

    #[test]
    fn all_goals_have_a_target_for_every_agent_in_reach() {
        let found = build(GoalsConfig::All, ObjectiveConfig::QLearning, &step(2, 1));
        let expected = [0.0, 0.0, 0.0, 0.25, 0.0, 0.0];
        assert_eq!(of(&found.weight, 0), expected);
        assert_eq!(of(&found.weight, 3), expected);
        // Left increases the distance to a target right above.
        assert!(of(&found.reward, 0)[3] > 0.9 && of(&found.reward, 3)[3] < 0.0);
        assert!(
            of(&found.weight, 1).iter().all(|w| *w == 0.0),
            "out of reach"
        );
        assert!(of(&found.weight, 2).iter().all(|w| *w == 0.0), "missing");
        // The coarsest scale starts anywhere, and a coarser window reaches farther.
        for (scale, stride) in [(0, 1), (1, 3)] {
            let found = build(
                GoalsConfig::All,
                ObjectiveConfig::StepReward,
                &step(scale, stride),
            );
            for agent in [0, 1, 3] {
                assert_eq!(of(&found.weight, agent), [0.5 / 18.0; STEPS]);
            }
        }
    }

    #[test]
    fn an_inactive_step_has_no_targets() {
        let mut still = step(2, 1);
        still.active = false;
        let found = build(GoalsConfig::All, ObjectiveConfig::StepReward, &still);
        assert_eq!(found.weight, [0.0; 4 * STEPS]);
        assert!(RewardTargetBuilder::new(&Config::defaults().unwrap()).is_none());
    }
}
