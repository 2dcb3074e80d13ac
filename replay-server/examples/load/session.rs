//! The shards as this client sees them.

use crate::Arguments;
use anyhow::{Context as _, Result, anyhow, bail};
use common::transition::row::RowShape;
use proto::messages::hello::Hello;
use proto::messages::sample::{RowKey, SampleRequest, SampledBatch};
use proto::messages::update::{PriorityUpdate, SlotPriority};
use proto::transport::channel::{self, Channel};
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::wire;
use proto::wire::replay_client::ReplayClient;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;
use tonic::Status;

/// Unlimited insert credit: the limiter is not measured.
const ENDLESS: u64 = u64::MAX;

#[derive(Clone)]
pub struct Shard {
    /// A connection of our own.
    pub client: ReplayClient<Channel>,
    incarnation: u64,
    address: String,
}

impl Shard {
    pub fn failed(&self, what: &str, status: &Status) -> anyhow::Error {
        anyhow!("{}: {what}: {}", self.address, status.message())
    }
}

pub struct Session {
    /// In the order of the command line.
    pub shards: Vec<Shard>,
    pub hello: Hello,
    /// Of each shard, as last received.
    priority_sums: Mutex<Vec<f64>>,
}

/// The keys of one batch, by shard.
pub type Keys = Vec<Vec<RowKey>>;

impl Arguments {
    pub fn shape(&self) -> RowShape {
        let (agents, history) = (self.agents, self.history);
        RowShape { agents, history }
    }
}

impl Session {
    /// Connects to every shard and grants it endless insert credit.
    pub async fn open(arguments: &Arguments) -> Result<Self> {
        let mut session = Self {
            shards: Vec::new(),
            hello: Hello {
                run_id: "bench".into(),
                manifest: [1; 32],
                config_digest: [2; 32],
                shape: arguments.shape(),
            },
            priority_sums: Mutex::new(vec![0.0; arguments.shards.len()]),
        };
        for (index, address) in arguments.shards.iter().enumerate() {
            session.shards.push(Shard {
                client: channel::replay_client(channel::connect_lazy(address)?),
                incarnation: 0,
                address: address.clone(),
            });
            let met = session.sample(index, 0).await?;
            session.shards[index].incarnation = met.summary.shard_incarnation;
            session.sample(index, 0).await?;
        }
        Ok(session)
    }

    /// Draws a batch from all shards, in proportion to their priority sums:
    /// done when the slowest has replied.
    pub async fn draw(self: &Arc<Self>, rows: usize) -> Result<Keys> {
        let shares = self.shares(rows).into_iter().enumerate();
        let calls = shares.filter(|(_, rows)| *rows > 0).map(|(shard, rows)| {
            let session = self.clone();
            async move { Ok(session.sample(shard, rows).await?.keys) }
        });
        together(calls.collect()).await
    }

    /// How many of `rows` to draw from each shard.
    fn shares(&self, rows: usize) -> Vec<usize> {
        let sums = self.priority_sums.lock();
        let sums = sums.unwrap_or_else(PoisonError::into_inner);
        let total: f64 = sums.iter().sum();
        let (mut sum, mut drawn) = (0.0, 0);
        let share = |of_shard: &f64| {
            sum += of_shard;
            // Empty shards: the first refuses.
            let part = if total > 0.0 { sum / total } else { 1.0 };
            let before = drawn;
            drawn = (rows as f64 * part).round() as usize;
            drawn - before
        };
        sums.iter().map(share).collect()
    }

    /// Sends new priorities for the rows of one batch: done when the slowest
    /// shard has replied.
    pub async fn update(&self, keys: &Keys, td_errors: &[f32]) -> Result<()> {
        let mut errors = td_errors.iter();
        let mut calls = Vec::new();
        for part in keys.iter().filter(|part| !part.is_empty()) {
            let shard = self.shards[part[0].shard as usize].clone();
            let pairs = part.iter().zip(errors.by_ref());
            let priorities = pairs.map(|(key, &td_error)| SlotPriority {
                slot: key.slot,
                generation: key.generation,
                td_error,
            });
            let request = wire::UpdateRequest::from(PriorityUpdate {
                hello: self.hello.clone(),
                shard_incarnation: shard.incarnation,
                priorities: priorities.collect(),
                learner: 0,
            });
            calls.push(async move {
                let mut client = shard.client.clone();
                let reply = unary(request, CALL_DEADLINE, |r| client.update_priorities(r)).await;
                reply.map_err(|status| shard.failed("update", &status))
            });
        }
        together(calls).await.map(drop)
    }

    /// Draws `rows` rows from one shard.
    async fn sample(&self, index: usize, rows: usize) -> Result<SampledBatch> {
        let shard = &self.shards[index];
        let mut client = shard.client.clone();
        let request = wire::SampleRequest::from(SampleRequest {
            hello: self.hello.clone(),
            rows,
            insert_limit: ENDLESS,
            shard_incarnation: shard.incarnation,
            learner: 0,
        });
        let reply = unary(request, CALL_DEADLINE, |r| client.sample(r))
            .await
            .map_err(|status| shard.failed("sample", &status))?;
        let mut batch = SampledBatch::try_from(reply)
            .with_context(|| format!("incompatible response from {}", shard.address))?;
        if batch.rows() != rows || self.hello.shape.split(&batch.packed, rows).is_err() {
            bail!(
                "{}: asked for {rows} rows, got {} in {} bytes; fill the shards first",
                shard.address,
                batch.rows(),
                batch.packed.len()
            );
        }
        let sums = self.priority_sums.lock();
        sums.unwrap_or_else(PoisonError::into_inner)[index] = batch.summary.priority_sum;
        // The shard's place here: shards under test may all have number 0.
        let number = u32::try_from(index)?;
        batch.keys.iter_mut().for_each(|key| key.shard = number);
        Ok(batch)
    }
}

/// Runs calls side by side, the last one in this task: a single shard costs no
/// change of threads.
async fn together<T, F>(mut calls: Vec<F>) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let last = calls.pop();
    let mut others = JoinSet::new();
    for call in calls {
        others.spawn(call);
    }
    let mut done = Vec::new();
    if let Some(call) = last {
        done.push(call.await?);
    }
    while let Some(call) = others.join_next().await {
        done.push(call??);
    }
    Ok(done)
}
