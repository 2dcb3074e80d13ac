//! The shards, and what this client knows about them.

use crate::arguments::Arguments;
use anyhow::{Context as _, Result, bail};
use proto::messages::hello::Hello;
use proto::messages::sample::{SampleRequest, SampledBatch};
use proto::transport::channel;
use proto::transport::channel::Channel;
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::wire;
use proto::wire::replay_client::ReplayClient;
use std::sync::Mutex;

/// Insert credit without end: what is measured is not the limiter.
const ENDLESS: u64 = u64::MAX;

/// One shard as this client sees it.
#[derive(Debug)]
pub struct Shard {
    /// A connection of our own.
    pub client: ReplayClient<Channel>,
    /// Which life of the shard we talk to.
    pub incarnation: u64,
    address: String,
}

/// All shards of the service.
#[derive(Debug)]
pub struct Session {
    /// In the order of the command line.
    pub shards: Vec<Shard>,
    /// What every request begins with.
    pub hello: Hello,
    masses: Mutex<Vec<f64>>,
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

    /// Draws `rows` rows from one shard.
    pub async fn sample(&self, index: usize, rows: usize) -> Result<SampledBatch> {
        let shard = &self.shards[index];
        let request = SampleRequest {
            hello: self.hello.clone(),
            rows,
            insert_limit: ENDLESS,
            shard_incarnation: shard.incarnation,
        };
        let mut client = shard.client.clone();
        let reply = unary(wire::SampleRequest::from(request), CALL_DEADLINE, |r| {
            client.sample(r)
        })
        .await
        .map_err(|status| anyhow::anyhow!("{}: sample: {}", shard.address, status.message()))?;
        let batch = SampledBatch::try_from(reply)
            .with_context(|| format!("{} answers what is no sample", shard.address))?;
        if batch.rows != rows || (rows > 0 && batch.columns.len() != self.columns_bytes(rows)) {
            bail!(
                "{}: asked for {rows} rows, got {} in {} bytes; fill the shards first",
                shard.address,
                batch.rows,
                batch.columns.len()
            );
        }
        if let Ok(mut masses) = self.masses.lock() {
            masses[index] = batch.summary.mass;
        }
        Ok(batch)
    }

    fn columns_bytes(&self, rows: usize) -> usize {
        1 + rows * self.hello.shape.bytes()
    }

    /// How many of `rows` to draw from each shard: in proportion to the masses
    /// last heard, what rounding leaves to the largest remainders.
    pub fn shares(&self, rows: usize) -> Vec<usize> {
        let masses = self.masses.lock().map(|m| m.clone()).unwrap_or_default();
        shares(rows, &masses)
    }

    /// An error of one shard, with its address.
    pub fn failed(&self, index: usize, what: &str, status: &tonic::Status) -> anyhow::Error {
        let address = &self.shards[index].address;
        anyhow::anyhow!("{address}: {what}: {}", status.message())
    }
}

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
