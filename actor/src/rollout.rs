//! Training episodes in many slots at once, batched forward passes.

pub mod episodes;
pub mod exploration;
pub mod group;
pub mod network_policy;
pub mod policy;
pub(crate) mod slot;

mod state;

use std::ops::Range;
use std::sync::Arc;

use common::config::{Config, NetworkKind};
use common::environment::pose::Poses;
use common::imaging::scan::Scan;
use common::transition::row::{Row, RowHeader};
use proto::messages::insert::Writer;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::rollout::episodes::{Episodes, EpisodesError};
use crate::rollout::group::one_group;
use crate::rollout::policy::{Policy, PolicyError, View};
pub use crate::rollout::slot::EpisodeEnd;
use crate::rollout::slot::{Slot, SlotRules};
pub use state::RolloutState;

/// The result of one step of all or some of the slots.
#[derive(Debug, Default)]
pub struct StepReport {
    /// Complete rows with their initial priorities (|TD|, at most `replay.priority_max`).
    pub rows: Vec<(Row, f32)>,
    /// Environment steps: one per group that moved.
    pub env_steps: u64,
    /// Episodes that ended, one entry per agent with a target.
    pub episodes: Vec<EpisodeEnd>,
    /// Episodes that ended, counted once per group.
    pub ended: u64,
}

/// Why a rollout cannot be created or restored.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// Scans and agents are inconsistent.
    #[error(transparent)]
    Episodes(#[from] EpisodesError),
    /// The learner assigned exploration values for another number of slots.
    #[error("exploration has {found} values for {slots} slots")]
    Exploration { slots: usize, found: usize },
    /// The saved state does not match this configuration and these scans.
    #[error("the saved episodes belong to another run: {0}")]
    State(String),
    /// A count exceeds the range of a row's indices.
    #[error("{count} {what} are more than the {} that a row can name", u16::MAX)]
    TooMany { what: &'static str, count: usize },
}

/// `config.actor.slots` environments stepped together.
///
/// Deterministic: equal configurations, scans, writers and Q-values give equal
/// rows.
#[derive(Debug)]
pub struct Rollout {
    common: SlotRules,
    scans: Vec<Arc<Scan>>,
    episodes: Episodes,
    slots: Vec<Slot>,
    epsilon_start: f64,
    /// The slot at which [`Rollout::step_some`] continues.
    next: usize,
}

impl Rollout {
    /// `scans` in manifest order, `exploration` the final probability of a
    /// random action per slot, `writer` for the rows' headers and the random
    /// streams, which also depend on `config.run.seed`.
    ///
    /// # Errors
    /// When there is no landmark to search for, or the counts are inconsistent.
    pub fn new(
        config: &Config,
        scans: &[Arc<Scan>],
        exploration: &[f32],
        writer: Writer,
    ) -> Result<Self, RolloutError> {
        let slots = config.actor.slots;
        if exploration.len() != slots {
            let found = exploration.len();
            return Err(RolloutError::Exploration { slots, found });
        }
        for (what, count) in [("scans", scans.len()), ("slots", slots)] {
            u16::try_from(count).map_err(|_| RolloutError::TooMany { what, count })?;
        }
        let agents = agents_of(config, scans);
        let rows_together = config.network.kind == NetworkKind::Commnet;
        let together = one_group(&config.rules, rows_together);
        let stream = |number: u32| stream(config.run.seed, writer, number);
        let mut episodes = Episodes::new(scans, agents, together, stream(u32::MAX))?;
        #[expect(clippy::cast_possible_truncation, reason = "settings of a few digits")]
        let common = SlotRules {
            rules: Arc::new(config.rules.clone()),
            starts: config.actor.training_starts(),
            poses: Poses::new(&config.pose, config.run.seed),
            n_step: config.learner.n_step,
            gamma: config.learner.gamma as f32,
            rows_together,
            priority_max: config.replay.priority_max as f32,
        };
        let slots = (0..)
            .zip(exploration)
            .map(|(slot, &epsilon)| {
                let header = RowHeader {
                    actor: writer.actor,
                    incarnation: writer.incarnation,
                    slot,
                    ..RowHeader::default()
                };
                let (first, rng) = (episodes.next(), stream(u32::from(slot)));
                Slot::new(&common, header, f64::from(epsilon), rng, &first, scans)
            })
            .collect();
        Ok(Self {
            common,
            scans: scans.to_vec(),
            episodes,
            slots,
            epsilon_start: config.actor.epsilon_start,
            next: 0,
        })
    }

    /// One forward pass for all slots and one move of each, at an exploration
    /// between `actor.epsilon_start` (`epsilon_progress` 0) and the slot's own (1).
    ///
    /// # Errors
    /// When the policy fails; no agent has moved then.
    pub fn step(
        &mut self,
        policy: &mut impl Policy,
        epsilon_progress: f64,
    ) -> Result<StepReport, PolicyError> {
        self.advance(0..self.slots.len(), policy, epsilon_progress)
    }

    /// Like [`Rollout::step`] for the next slots in turn: as many as have at most
    /// `windows` windows together, and at least one. Stepping all slots in parts
    /// gives the same rows as stepping them at once.
    ///
    /// # Errors
    /// As [`Rollout::step`]; the next call retries the same slots.
    pub fn step_some(
        &mut self,
        policy: &mut impl Policy,
        epsilon_progress: f64,
        windows: usize,
    ) -> Result<StepReport, PolicyError> {
        let mut sum = 0;
        let fit = self.slots[self.next..].iter().take_while(|slot| {
            sum += slot.view().agents.len();
            sum <= windows
        });
        let end = self.next + fit.count().max(1);
        let report = self.advance(self.next..end, policy, epsilon_progress)?;
        self.next = end % self.slots.len();
        Ok(report)
    }

    fn advance(
        &mut self,
        slots: Range<usize>,
        policy: &mut impl Policy,
        epsilon_progress: f64,
    ) -> Result<StepReport, PolicyError> {
        let slots = &mut self.slots[slots];
        let views: Vec<View<'_>> = slots.iter().map(Slot::view).collect();
        let q_values = policy.q_values(&views)?;
        let version = policy.weights_version();
        let mut report = StepReport::default();
        let mut rest = q_values.as_slice();
        for slot in slots {
            let (q, others) = rest.split_at(slot.view().agents.len());
            rest = others;
            slot.settle(&self.common, q, &mut report.rows);
            if slot.closing() {
                slot.restart(&self.common, &self.episodes.next(), &self.scans);
                continue;
            }
            let epsilon =
                exploration::epsilon(self.epsilon_start, slot.epsilon_last, epsilon_progress);
            slot.advance(&self.common, q, epsilon, version);
            report.env_steps += 1;
            if slot.closing() {
                report.ended += 1;
                report.episodes.extend(slot.ends(&self.common));
            }
        }
        Ok(report)
    }
}

/// Number of agents: one per configured landmark; if none is configured, one per
/// landmark of the scans.
fn agents_of(config: &Config, scans: &[Arc<Scan>]) -> u16 {
    let count = match config.data.landmarks.len() {
        0 => scans.first().map_or(0, |s| s.landmarks.len()),
        named => named,
    };
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// An independent random stream: ChaCha8 with the numbers themselves as its key.
fn stream(seed: u64, writer: Writer, number: u32) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..10].copy_from_slice(&writer.actor.to_le_bytes());
    key[12..16].copy_from_slice(&writer.incarnation.to_le_bytes());
    key[16..20].copy_from_slice(&number.to_le_bytes());
    key[20..28].copy_from_slice(b"rollouts");
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests;
