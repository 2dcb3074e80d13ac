//! Sampled rows → one batch of plain numbers, windows rendered.

pub mod augment;
pub mod collate;
pub mod device_windows;
pub mod frames;
pub mod sampler;

use std::ops::Range;
use std::sync::Arc;

use common::config::Config;
use common::environment::pose::Poses;
use common::environment::window::{WindowRule, render};
use common::imaging::scan::Scan;
use common::imaging::volume::VolumeChanged;
use common::transition::row::{AgentStep, Row};
use model::FrameAt;
use proto::messages::sample::RowKey;
use rand::Rng;

use crate::batch::augment::Augmenter;
use crate::batch::frames::{ABSENT, FrameList};
use crate::training::targets::{RewardTargetBuilder, RewardTargets};

/// Relative error that sums of rewards and powers of γ may have.
const ROUNDING: f64 = 1e-4;

/// A row on its way from a shard into a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct SampledRow {
    pub row: Row,
    /// Where its new priority belongs.
    pub key: RowKey,
    /// Importance weight, 1 for the largest of the batch.
    pub weight: f32,
}

/// A batch of B rows of G agents: N = B · G entries in row order. Buffers keep
/// their memory from batch to batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// B.
    pub rows: usize,
    /// G.
    pub agents: usize,
    /// What the windows are made of.
    pub frames: FrameList,
    /// Windows of the states, `[N, H, n, n, n]`, in 0..=1; empty where a device
    /// renders them from [`Batch::frames`].
    pub state: Vec<f32>,
    /// Windows of the bootstrap states; zero where all of a row's discounts are.
    pub next: Vec<f32>,
    /// Scale index of each state, `[N]`.
    pub scale: Vec<i64>,
    /// Scale index of each bootstrap state, `[N]`.
    pub next_scale: Vec<i64>,
    /// Agent of each entry, `[N]`.
    pub agent: Vec<i64>,
    /// Action of each entry, `[N]`.
    pub action: Vec<i64>,
    /// n-step reward of each entry, `[N]`.
    pub reward: Vec<f32>,
    /// Discount of each bootstrap value, `[N]`.
    pub discount: Vec<f32>,
    /// 1 where the agent moved, else 0, `[N]`.
    pub active: Vec<f32>,
    /// Importance weight of each entry's row, `[N]`.
    pub weight: Vec<f32>,
    /// Where each row's new priority belongs, `[B]`.
    pub keys: Vec<RowKey>,
    /// Reward targets of all agents; empty for plain Q-learning of own goals.
    pub reward_targets: RewardTargets,
}

/// A row that no actor of this run can have produced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "row {} of shard {} (actor {actor}, episode {episode}, step {step}): {what}",
    key.slot, key.shard
)]
pub struct BatchError {
    pub key: RowKey,
    pub actor: u16,
    /// Episode of the actor's slot.
    pub episode: u32,
    /// Step within the episode.
    pub step: u16,
    pub what: String,
}

/// Why a batch cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    #[error(transparent)]
    Row(#[from] BatchError),
    /// Its windows show other voxels than the scan's.
    #[error(transparent)]
    Volume(#[from] VolumeChanged),
}

/// Renders rows from the scans that the learner holds.
#[derive(Debug)]
pub struct Collator {
    scans: Vec<Arc<Scan>>,
    window: WindowRule,
    size: usize,
    history: usize,
    scales: usize,
    agents: usize,
    group: usize,
    /// Largest absolute reward, and largest discount, of a row whose agent moved.
    earned: [f32; 2],
    poses: Poses,
    augmenter: Augmenter,
    target_builder: Option<RewardTargetBuilder>,
    threads: usize,
    renders: bool,
}

impl Collator {
    /// For rows of `group` of the run's agents over these scans, which are in
    /// the order of the manifest. `threads`: how many render.
    pub fn new(
        scans: Vec<Arc<Scan>>,
        config: &Config,
        group: usize,
        augmenter: Augmenter,
        threads: usize,
    ) -> Self {
        let rules = &config.rules;
        Self {
            scans,
            window: rules.window,
            size: rules.window_size,
            history: rules.history,
            scales: rules.scales.len(),
            agents: config.data.landmarks.len(),
            group,
            earned: [config.row_reward_max(), config.learner.gamma].map(|most| {
                // Sums and powers in f32 are rounded.
                (most * (1.0 + ROUNDING)) as f32
            }),
            poses: Poses::new(&config.pose, config.run.seed),
            augmenter,
            target_builder: RewardTargetBuilder::new(config),
            threads: threads.max(1),
            renders: true,
        }
    }

    /// Leaves rendering to the device that trains; see [`Batch::frames`].
    #[must_use]
    pub fn without_windows(mut self) -> Self {
        self.renders = false;
        self
    }

    /// Refuses a row with invalid indices or sizes, or with more reward than its steps can earn.
    pub fn check(&self, sampled: &SampledRow) -> Result<(), BatchError> {
        let header = &sampled.row.header;
        let fail = |what: String| {
            Err(BatchError {
                key: sampled.key,
                actor: header.actor,
                episode: header.episode,
                step: header.step,
                what,
            })
        };
        if usize::from(header.scan) >= self.scans.len() {
            return fail(format!("scan {} of {}", header.scan, self.scans.len()));
        }
        if header.pose != 0 && !self.poses.any() {
            return fail(format!("pose {}, but pose.share is 0", header.pose));
        }
        let (agents, group) = (sampled.row.agents.len(), self.group);
        if agents != group {
            return fail(format!("{agents} agents, {group} expected"));
        }
        for (place, a) in sampled.row.agents.iter().enumerate() {
            let (agent, agents) = (usize::from(a.agent), self.agents);
            if agent >= agents || (group > 1 && agent != place) {
                return fail(format!("agent {agent} of {agents} at place {place}"));
            }
            let scale = a.scale.max(a.next_scale);
            if usize::from(scale) >= self.scales {
                return fail(format!("scale {scale} of {}", self.scales));
            }
            let [reward, discount] = self.earned;
            if a.active && a.reward.abs() > reward {
                let found = a.reward;
                return fail(format!("reward {found}, steps earn {reward} at most"));
            }
            if a.active && a.discount > discount {
                let found = a.discount;
                return fail(format!("discount {found}, steps leave {discount} at most"));
            }
            if a.state.len() != self.history || a.next.len() != self.history {
                let frames = a.state.len().min(a.next.len());
                return fail(format!("{frames} frames, {} expected", self.history));
            }
        }
        Ok(())
    }

    /// Fills `batch` with these rows, each with its own look drawn from `rng`.
    /// A frame that a row's states share is rendered once. After an error the batch is not usable.
    pub fn fill(
        &mut self,
        rows: &[SampledRow],
        batch: &mut Batch,
        rng: &mut impl Rng,
    ) -> Result<(), FillError> {
        batch.clear(rows.len(), self.group);
        for sampled in rows {
            self.check(sampled)?;
            let row = &sampled.row;
            for agent in &row.agents {
                batch.push(agent, sampled.weight);
            }
            batch.keys.push(sampled.key);
            let scan = &self.scans[usize::from(row.header.scan)];
            let pose = self.poses.get(row.header.pose, &scan.geometry);
            if let Some(builder) = &self.target_builder {
                let posed = pose.map(|pose| scan.posed_landmarks(pose));
                let targets = posed.as_ref().unwrap_or(&scan.landmarks);
                let (geometry, out) = (&scan.geometry, &mut batch.reward_targets);
                for agent in &row.agents {
                    builder.append(agent, targets, geometry, sampled.weight, out);
                }
            }
            batch.frames.push(row, pose, self.augmenter.draw(rng));
        }
        if self.renders {
            let per_row = self.group * self.history * self.size.pow(3);
            batch.state.resize(rows.len() * per_row, 0.0);
            batch.next.resize(rows.len() * per_row, 0.0);
            self.render_all(&batch.frames, &mut batch.state, &mut batch.next, per_row);
            let mut used: Vec<u16> = rows.iter().map(|r| r.row.header.scan).collect();
            used.sort_unstable();
            used.dedup();
            for scan in used {
                self.scans[usize::from(scan)].volume.check()?;
            }
        } else {
            batch.state.clear();
            batch.next.clear();
        }
        Ok(())
    }

    /// Looks were drawn before: the picture does not depend on who renders it.
    fn render_all(&self, list: &FrameList, state: &mut [f32], next: &mut [f32], per_row: usize) {
        let share = list.rows().div_ceil(self.threads).max(1);
        if share >= list.rows() {
            self.render_rows(0..list.rows(), list, state, next, per_row);
            return;
        }
        std::thread::scope(|scope| {
            let parts = state
                .chunks_mut(share * per_row)
                .zip(next.chunks_mut(share * per_row));
            for (i, (state, next)) in parts.enumerate() {
                let range = i * share..((i + 1) * share).min(list.rows());
                scope.spawn(move || self.render_rows(range, list, state, next, per_row));
            }
        });
    }

    fn render_rows(
        &self,
        range: Range<usize>,
        list: &FrameList,
        state: &mut [f32],
        next: &mut [f32],
        per_row: usize,
    ) {
        let samples = self.size.pow(3);
        let mut scratch = vec![0; samples];
        let places = self.group * self.history;
        let windows = state
            .chunks_exact_mut(per_row)
            .zip(next.chunks_exact_mut(per_row));
        for (row, (state, next)) in range.zip(windows) {
            let of_row = row * places..(row + 1) * places;
            let wanted = [&list.state[of_row.clone()], &list.next[of_row]];
            let mut halves = [state, next];
            // Where each frame was painted; they are numbered by first use.
            let mut homes: Vec<(usize, usize)> = Vec::with_capacity(2 * places);
            for (half, wanted) in wanted.into_iter().enumerate() {
                for (place, &frame) in wanted.iter().enumerate() {
                    let at = place * samples..(place + 1) * samples;
                    if frame == ABSENT {
                        halves[half][at].fill(0.0);
                    } else if let Some(&home) = homes.get(frame as usize) {
                        copy_window(&mut halves, home, (half, place), samples);
                    } else {
                        let out = &mut halves[half][at];
                        self.paint(list, row, homes.len(), &mut scratch, out);
                        homes.push((half, place));
                    }
                }
            }
        }
    }

    /// Renders frame number `frame` of a row.
    fn paint(
        &self,
        list: &FrameList,
        row: usize,
        frame: usize,
        scratch: &mut [u8],
        out: &mut [f32],
    ) {
        let place = list.first[row] + frame;
        let FrameAt {
            scan,
            position,
            stride,
            pose,
            ..
        } = list.frames[place];
        let volume = &self.scans[scan].volume;
        let posed = pose.map(|pose| volume.posed(pose));
        let volume = posed.as_ref().unwrap_or(volume);
        render(volume, self.window, self.size, position, stride, scratch);
        self.augmenter
            .paint(&list.looks[row], list.numbers[place], scratch, out);
    }
}

/// Copies a window of the state (half 0) or the bootstrap state (half 1) to
/// another place of either.
fn copy_window(
    halves: &mut [&mut [f32]; 2],
    (from_half, from): (usize, usize),
    (to_half, to): (usize, usize),
    samples: usize,
) {
    let [from, to] = [from, to].map(|place| place * samples..(place + 1) * samples);
    let [state, next] = halves;
    match (from_half, to_half) {
        (0, 0) => state.copy_within(from, to.start),
        (0, _) => next[to].copy_from_slice(&state[from]),
        _ => next.copy_within(from, to.start),
    }
}

impl Batch {
    fn clear(&mut self, rows: usize, agents: usize) {
        (self.rows, self.agents) = (rows, agents);
        self.frames.clear();
        for column in [
            &mut self.scale,
            &mut self.next_scale,
            &mut self.agent,
            &mut self.action,
        ] {
            column.clear();
        }
        for column in [
            &mut self.reward,
            &mut self.discount,
            &mut self.active,
            &mut self.weight,
        ] {
            column.clear();
        }
        self.keys.clear();
        self.reward_targets.clear();
    }

    fn push(&mut self, a: &AgentStep, weight: f32) {
        self.scale.push(a.scale.into());
        self.next_scale.push(a.next_scale.into());
        self.agent.push(a.agent.into());
        self.action.push(a.action.into());
        self.reward.push(a.reward);
        self.discount.push(a.discount);
        self.active.push(if a.active { 1.0 } else { 0.0 });
        self.weight.push(weight);
    }
}

#[cfg(test)]
mod tests;
