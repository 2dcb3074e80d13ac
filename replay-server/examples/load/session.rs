//! The shards as this client sees them.

use crate::arguments::Arguments;
use anyhow::{Context as _, Result, anyhow, bail};
use proto::messages::hello::Hello;
use proto::messages::sample::{RowKey, SampleRequest, SampledBatch};
use proto::messages::update::{PriorityUpdate, SlotPriority};
use proto::transport::channel::{self, Channel};
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::wire;
use proto::wire::replay_client::ReplayClient;
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;
use tonic::Status;

/// Unlimited insert credit: the limiter is not measured.
const ENDLESS: u64 = u64::MAX;

#[derive(Debug)]
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

#[derive(Debug)]
pub struct Session {
    /// In the order of the command line.
    pub shards: Vec<Shard>,
    pub hello: Hello,
    masses: Mutex<Vec<f64>>,
}

/// The keys of one batch, by shard.
pub type Keys = Vec<Vec<RowKey>>;

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
            masses: Mutex::new(vec![0.0; arguments.shards.len()]),
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

    /// Draws a batch from all shards, in proportion to the masses last received:
    /// done when the slowest has answered.
    pub async fn draw(self: &Arc<Self>, rows: usize) -> Result<Keys> {
        let masses = self.masses.lock().map(|m| m.clone()).unwrap_or_default();
        let mut calls = JoinSet::new();
        for (shard, rows) in shares(rows, &masses).into_iter().enumerate() {
            if rows > 0 {
                let session = self.clone();
                calls.spawn(async move { session.sample(shard, rows).await });
            }
        }
        let mut keys = Keys::new();
        while let Some(part) = calls.join_next().await {
            keys.push(part??.keys);
        }
        Ok(keys)
    }

    /// Sends new priorities for the rows of one batch: done when the slowest
    /// shard has answered.
    pub async fn update(self: &Arc<Self>, keys: &Keys, td_errors: &[f32]) -> Result<()> {
        let mut errors = td_errors.iter();
        let mut calls = JoinSet::new();
        for part in keys.iter().filter(|part| !part.is_empty()) {
            let shard = part[0].shard as usize;
            let pairs = part.iter().zip(errors.by_ref());
            let priorities = pairs.map(|(key, &td_error)| SlotPriority {
                slot: key.slot,
                generation: key.generation,
                td_error,
            });
            let update = PriorityUpdate {
                hello: self.hello.clone(),
                shard_incarnation: self.shards[shard].incarnation,
                priorities: priorities.collect(),
            };
            let session = self.clone();
            calls.spawn(async move {
                let shard = &session.shards[shard];
                let mut client = shard.client.clone();
                let request = wire::UpdateRequest::from(update);
                unary(request, CALL_DEADLINE, |r| client.update_priorities(r))
                    .await
                    .map_err(|status| shard.failed("update", &status))
            });
        }
        while let Some(call) = calls.join_next().await {
            call??;
        }
        Ok(())
    }

    /// Draws `rows` rows from one shard.
    async fn sample(&self, index: usize, rows: usize) -> Result<SampledBatch> {
        let shard = &self.shards[index];
        let request = SampleRequest {
            hello: self.hello.clone(),
            rows,
            insert_limit: ENDLESS,
            shard_incarnation: shard.incarnation,
        };
        let mut client = shard.client.clone();
        let request = wire::SampleRequest::from(request);
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
        if let Ok(mut masses) = self.masses.lock() {
            masses[index] = batch.summary.mass;
        }
        // The shard's place here: shards under test may all have number 0.
        let number = u32::try_from(index)?;
        batch.keys.iter_mut().for_each(|key| key.shard = number);
        Ok(batch)
    }
}

/// How many of `rows` to draw from each shard; the remainder goes to the
/// shards with the largest fractions.
fn shares(rows: usize, masses: &[f64]) -> Vec<usize> {
    let total: f64 = masses.iter().sum();
    if masses.len() < 2 || total <= 0.0 {
        let mut all = vec![0; masses.len()];
        all[0] = rows;
        return all;
    }
    let exact: Vec<f64> = masses.iter().map(|m| rows as f64 * m / total).collect();
    let mut shares: Vec<usize> = exact.iter().map(|e| e.floor() as usize).collect();
    let mut order: Vec<usize> = (0..masses.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let missing = rows.saturating_sub(shares.iter().sum());
    for index in order.into_iter().cycle().take(missing) {
        shares[index] += 1;
    }
    shares
}
