//! Samples rows from all shards in proportion to their global priorities.
//!
//! A batch is distributed over the shards by their last reported priority sums
//! ([`ReplayClient::allocate`]); each shard samples by its current priorities.
//! The importance weights correct for the actual proposal, q = share × the shard's
//! probability: stale sums add variance but no bias.

use std::sync::Arc;
use std::time::Duration;

use proto::messages::hello::Hello;
use proto::messages::sample::{SampleRequest, SampledBatch};
use proto::transport::channel::Channel;
use proto::transport::retry::{CALL_DEADLINE, reason, unary};
use proto::wire::replay_client::ReplayClient as ShardClient;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::replay::shards::{Allocation, ReplayClient};

/// A live shard is called at least this often, so that credit and priority sums stay current.
const CONTACT_EVERY: Duration = Duration::from_millis(150);
/// An unreachable one this often.
const PROBE_EVERY: Duration = Duration::from_millis(700);
/// A probe is short: the shard may hang.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// The limiter is checked at least this often.
const LIMITER_POLL: Duration = Duration::from_millis(20);

/// Rows of one training batch, one part per shard.
#[derive(Debug)]
pub struct SampledRows {
    /// One part per shard that returned rows.
    pub parts: Vec<SampledBatch>,
    /// Per row over all parts: N·q, the number of rows times the probability of
    /// the proposal; the importance weight is (N·q)^−β.
    pub scaled: Vec<f64>,
    /// How long the limiter or missing rows delayed this batch.
    pub waited: Duration,
}

impl SampledRows {
    pub fn rows(&self) -> usize {
        self.scaled.len()
    }
}

/// Samples batches from the shards.
#[derive(Debug, Clone)]
pub struct Sampler {
    replay: Arc<ReplayClient>,
    clients: Vec<ShardClient<Channel>>,
    hello: Hello,
    learner: u64,
    batch: usize,
}

impl Sampler {
    /// A sampler of `batch` rows at a time; one client per shard. `learner`: the number of this
    /// learner process.
    pub fn new(
        replay: Arc<ReplayClient>,
        clients: Vec<ShardClient<Channel>>,
        hello: Hello,
        learner: u64,
        batch: usize,
    ) -> Self {
        Self {
            replay,
            clients,
            hello,
            learner,
            batch,
        }
    }

    /// Polls all shards and samples `prefetch` batches concurrently into `out`
    /// until the receiver is dropped.
    pub async fn run(self, prefetch: usize, seed: u64, out: mpsc::Sender<SampledRows>) {
        let mut tasks = JoinSet::new();
        for shard in 0..self.clients.len() {
            let (this, out) = (self.clone(), out.clone());
            let polling = async move { this.poll_shard(shard, &out).await };
            tasks.spawn(polling.in_current_span());
        }
        for stream in 0..prefetch {
            let (this, out) = (self.clone(), out.clone());
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream as u64 + 1);
            let sampling = async move { this.keep_sampling(rng, &out).await };
            tasks.spawn(sampling.in_current_span());
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn poll_shard(&self, shard: usize, out: &mpsc::Sender<SampledRows>) {
        loop {
            let alive = self.replay.is_alive(shard);
            let _ = self.request(shard, 0, PROBE_DEADLINE).await;
            let pause = if alive { CONTACT_EVERY } else { PROBE_EVERY };
            tokio::select! {
                () = out.closed() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn keep_sampling(&self, mut rng: ChaCha8Rng, out: &mpsc::Sender<SampledRows>) {
        loop {
            let begin = tokio::time::Instant::now();
            let allocation = loop {
                if out.is_closed() {
                    return;
                }
                if let Some(allocation) = self.replay.allocate(self.batch, rng.random()) {
                    break allocation;
                }
                let _ = tokio::time::timeout(LIMITER_POLL, self.replay.changed()).await;
            };
            let waited = begin.elapsed();
            let sampled = self.sample(allocation, waited).await;
            if sampled.rows() > 0 && out.send(sampled).await.is_err() {
                return;
            }
        }
    }

    /// Requests rows from all shards of an allocation concurrently; rows that a shard fails to
    /// deliver are returned to the rate limiter, and the batch is smaller by them.
    async fn sample(&self, allocation: Allocation, waited: Duration) -> SampledRows {
        let mut calls = JoinSet::new();
        for (shard, &rows) in allocation.rows.iter().enumerate().filter(|(_, n)| **n > 0) {
            let this = self.clone();
            let call = async move { (shard, rows, this.request(shard, rows, CALL_DEADLINE).await) };
            calls.spawn(call.in_current_span());
        }
        let mut batches = Vec::new();
        while let Some(call) = calls.join_next().await {
            let Ok((shard, requested, batch)) = call else {
                continue;
            };
            let received = batch.as_ref().map_or(0, SampledBatch::rows);
            self.replay.unsample(requested.saturating_sub(received));
            if let Some(batch) = batch.filter(|b| b.rows() > 0) {
                batches.push((shard, batch));
            }
        }
        // Responses arrive in any order; batches should not depend on it.
        batches.sort_by_key(|(shard, _)| *shard);
        let total = allocation.total_rows as f64;
        let mut scaled = Vec::with_capacity(self.batch);
        let mut parts = Vec::with_capacity(batches.len());
        for (shard, batch) in batches {
            let share = allocation.shares[shard];
            scaled.extend(batch.probabilities.iter().map(|p| total * share * p));
            parts.push(batch);
        }
        SampledRows {
            parts,
            scaled,
            waited,
        }
    }

    async fn request(&self, shard: usize, rows: usize, within: Duration) -> Option<SampledBatch> {
        let (shard_incarnation, insert_limit) = self.replay.grant(shard);
        let request = SampleRequest {
            hello: self.hello.clone(),
            rows,
            insert_limit,
            shard_incarnation,
            learner: self.learner,
        };
        let mut client = self.clients.get(shard)?.clone();
        let reply = unary(request.into(), within, |r| client.sample(r)).await;
        let batch = reply
            .map_err(|status| reason(&status))
            .and_then(|reply| SampledBatch::try_from(reply).map_err(|e| e.to_string()));
        match batch {
            Ok(mut batch) => {
                // Keys carry the learner's index of the shard, for the priority updates.
                let number = u32::try_from(shard).unwrap_or(u32::MAX);
                batch.keys.iter_mut().for_each(|k| k.shard = number);
                self.replay.record_response(shard, batch.summary);
                Some(batch)
            }
            Err(why) => {
                self.replay.lost(shard, &why);
                None
            }
        }
    }
}
