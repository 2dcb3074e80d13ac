//! The trainer without network, threads or clocks: rollout → table → batch →
//! update → weights → rollout. The next action depends only on the state, and a
//! checkpoint contains all of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actor::rollout::exploration;
use actor::rollout::network_policy::{NetworkPolicy, Samples};
use actor::rollout::{Rollout, RolloutState};
use anyhow::Context as _;
use common::config::{Config, SelectorConfig};
use common::imaging::scan::Scan;
use common::transition::row::{Row, RowShape};
use learner::actors::registry::{Registry, Settings};
use learner::batch::augment::Augmenter;
use learner::batch::collate::importance_weights;
use learner::batch::{Batch, Collator, SampledRow};
use learner::checkpoint::{Checkpoint, Surroundings};
use learner::replay::limiter::{Limits, RateLimiter};
use learner::training::schedule;
use learner::training::trainer::{StepReport, Trainer};
use proto::messages::sample::RowKey;
use proto::messages::weights::Published;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use replay_server::table::selector::Selector;
use replay_server::table::{Sampled, Table, TableState, Update};
use serde::{Deserialize, Serialize};
use tch::Device;

/// Name of the machine's own state in a checkpoint.
const STATE: &str = "lockstep";
/// Random stream of sampling and augmentation, separate from the trainer's.
const DRAWS_STREAM: u64 = 11;

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    pub inserted: u64,
    pub sampled: u64,
    pub env_steps: u64,
    pub episodes: u64,
    pub weights_version: u64,
    /// Sum of the errors (finest steps) of all completed episodes, and their number.
    pub error_sum: f64,
    pub errors: u64,
}

/// All state except the trainer's.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    rollout: RolloutState,
    table: TableState,
    draws: ChaCha8Rng,
    counts: Counts,
    /// The weights with which the rollout acts; the trainer's may be newer.
    acting: Vec<u8>,
    acting_updates: u64,
}

#[derive(Debug)]
pub enum Turn {
    /// One step of all slots.
    Acted,
    /// One update.
    Learned(StepReport),
}

/// A whole training, turn by turn.
#[derive(Debug)]
pub struct Machine {
    config: Arc<Config>,
    shape: RowShape,
    pub trainer: Trainer,
    rollout: Rollout,
    policy: NetworkPolicy,
    table: Table,
    collator: Collator,
    batch: Batch,
    draws: ChaCha8Rng,
    pub counts: Counts,
    /// The weights with which the rollout acts.
    pub acting: Published,
}

impl Machine {
    /// Starts a new training. One rollout has the slots of all actors.
    pub fn new(config: &Arc<Config>, scans: &[Arc<Scan>], shape: RowShape) -> anyhow::Result<Self> {
        let replay = &config.replay;
        // Refuses settings with which sampling could never start.
        RateLimiter::new(Limits::new(config, 1))?;
        Selector::from(replay).check()?;
        let mut draws = ChaCha8Rng::seed_from_u64(config.run.seed);
        draws.set_stream(DRAWS_STREAM);
        let samples = config.rules.window_size.pow(3);
        let augmenter = Augmenter::new(&config.augment, samples, &mut draws);
        let group = usize::from(shape.agents);
        let collator = Collator::new(scans.to_vec(), config, group, augmenter, 1);
        let landmarks = config.data.landmarks.clone();
        let trainer = Trainer::new(Arc::clone(config), landmarks, Device::Cpu)?;
        let mut machine = Self {
            config: Arc::clone(config),
            shape,
            rollout: rollout(config, scans)?,
            policy: NetworkPolicy::new(&config.rules, Samples::Bytes, Device::Cpu),
            table: Table::new(replay.capacity, shape.bytes(), Selector::from(replay)),
            collator,
            batch: Batch::default(),
            draws,
            counts: Counts::default(),
            acting: Published::at(0, 0, 0, Vec::new()),
            trainer,
        };
        machine.publish()?;
        Ok(machine)
    }

    /// Restores a saved training.
    pub fn restore(&mut self, saved: &Checkpoint, manifest_json: &str) -> anyhow::Result<()> {
        let bytes = saved.extra.get(STATE).context(
            "the run was not trained in lockstep; continue it with --set run.lockstep=false",
        )?;
        let state: State = postcard::from_bytes(bytes).context(
            "cannot read the lockstep state in the checkpoint: it is from another version of landmarl",
        )?;
        saved.restore(&mut self.trainer, manifest_json)?;
        self.rollout.restore(state.rollout)?;
        self.table.restore(&state.table)?;
        self.draws = state.draws;
        self.counts = state.counts;
        let (version, updates) = (state.counts.weights_version, state.acting_updates);
        self.act_with(Published::at(0, version, updates, state.acting))
    }

    /// The whole state, between two turns.
    pub fn checkpoint(&self, run_id: &str, manifest_json: &str) -> anyhow::Result<Checkpoint> {
        let state = State {
            rollout: self.rollout.state(),
            table: self.table.state(),
            draws: self.draws.clone(),
            counts: self.counts,
            acting: self.acting.bytes.to_vec(),
            acting_updates: self.acting.updates,
        };
        let bytes = postcard::to_stdvec(&state).context("encode the lockstep state")?;
        let around = Surroundings {
            run_id: run_id.to_owned(),
            weights_version: self.counts.weights_version,
            episodes: self.counts.episodes,
            manifest_json: manifest_json.to_owned(),
            extra: BTreeMap::from([(STATE.to_owned(), bytes)]),
            ..Surroundings::default()
        };
        Ok(Checkpoint::new(&self.trainer, around)?)
    }

    /// Makes an update if the rate limiter permits it, else a step of all slots.
    pub fn turn(&mut self) -> anyhow::Result<Turn> {
        if self.may_learn() {
            return Ok(Turn::Learned(self.learn()?));
        }
        self.act()?;
        Ok(Turn::Acted)
    }

    /// Rows in the table.
    pub fn rows(&self) -> u64 {
        self.table.len() as u64
    }

    /// Whether `replay.samples_per_insert`, enforced to the row, permits an update.
    fn may_learn(&self) -> bool {
        let (replay, counts) = (&self.config.replay, &self.counts);
        let after = counts.sampled + self.config.learner.batch as u64;
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let (inserted, after) = (counts.inserted as f64, after as f64);
        counts.inserted >= replay.min_rows && after <= replay.samples_per_insert * inserted
    }

    fn act(&mut self) -> anyhow::Result<()> {
        let progress = exploration::progress(&self.config, self.trainer.updates());
        let report = self.rollout.step(&mut self.policy, progress)?;
        let (mut packed, mut priorities) = (Vec::new(), Vec::new());
        for (row, priority) in &report.rows {
            row.write_to(&mut packed);
            priorities.push(*priority);
        }
        self.table.insert(&packed, &priorities)?;
        let counts = &mut self.counts;
        counts.inserted += report.rows.len() as u64;
        counts.env_steps += report.env_steps;
        counts.episodes += report.ended;
        for end in &report.episodes {
            counts.error_sum += end.error_finest_steps;
            counts.errors += 1;
        }
        Ok(())
    }

    fn learn(&mut self) -> anyhow::Result<StepReport> {
        let config = Arc::clone(&self.config);
        let updates = self.trainer.updates();
        let beta = schedule::beta(&config.replay, updates, config.learner.updates);
        let sampled = self.table.sample(config.learner.batch, &mut self.draws);
        let rows = self.rows_of(&sampled, beta)?;
        let (batch, draws) = (&mut self.batch, &mut self.draws);
        self.collator.fill(&rows, batch, draws)?;
        let report = self.trainer.step(&self.batch)?;
        if config.replay.selector == SelectorConfig::Prioritised {
            let keys = self.batch.keys.iter().zip(&report.td_errors);
            let update = |(key, &td_error): (&RowKey, &f32)| Update {
                slot: key.slot,
                generation: key.generation,
                td_error,
            };
            self.table.update(&keys.map(update).collect::<Vec<_>>())?;
        }
        self.counts.sampled += rows.len() as u64;
        let updates = self.trainer.updates();
        if updates.is_multiple_of(config.learner.publish_period) {
            self.publish()?;
        }
        Ok(report)
    }

    /// Decodes sampled bytes into rows with keys and importance weights.
    fn rows_of(&self, sampled: &Sampled, beta: f64) -> anyhow::Result<Vec<SampledRow>> {
        #[expect(clippy::cast_precision_loss, reason = "rows of a table")]
        let stored = self.table.len() as f64;
        let scaled: Vec<f64> = sampled.probabilities.iter().map(|p| p * stored).collect();
        let keys = sampled.slots.iter().zip(&sampled.generations);
        sampled
            .packed
            .chunks_exact(self.shape.bytes())
            .zip(keys)
            .zip(importance_weights(&scaled, beta))
            .map(|((bytes, (&slot, &generation)), weight)| {
                let key = RowKey {
                    shard: 0,
                    incarnation: 1,
                    slot,
                    generation,
                };
                let row = Row::read(bytes, self.shape)?;
                Ok(SampledRow { row, key, weight })
            })
            .collect()
    }

    /// Makes the rollout act with the current moving average of the weights.
    fn publish(&mut self) -> anyhow::Result<()> {
        self.counts.weights_version += 1;
        let version = self.counts.weights_version;
        let bytes = self.trainer.weights_bytes(version)?;
        let updates = self.trainer.updates();
        self.act_with(Published::at(0, version, updates, bytes))
    }

    fn act_with(&mut self, weights: Published) -> anyhow::Result<()> {
        let network = model::files::weights::from_bytes(&weights.bytes)?.network;
        self.policy.set_network(&network, weights.version)?;
        self.acting = weights;
        Ok(())
    }
}

/// One rollout with the slots of all actors, with the actors' exploration rates.
fn rollout(config: &Config, scans: &[Arc<Scan>]) -> anyhow::Result<Rollout> {
    let mut config = config.clone();
    config.actor.slots *= config.actor.count.max(1);
    let settings = Settings {
        lease: Duration::MAX,
        epsilon_low: config.actor.epsilon_low,
        epsilon_high: config.actor.epsilon_high,
        first_incarnation: 1,
    };
    let joined = Registry::new(settings).join(Duration::ZERO, config.actor.slots, "lockstep")?;
    Ok(Rollout::new(
        &config,
        scans,
        &joined.exploration,
        joined.writer,
    )?)
}
