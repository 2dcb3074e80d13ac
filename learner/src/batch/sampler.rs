//! Rows from all shards, globally in proportion to their priorities.
//!
//! A batch is spread over the shards by the masses last heard of
//! ([`Store::allocate`]); each shard draws by its own masses of that moment.
//! What is corrected for is the proposal really used, q = share × the shard's
//! probability: masses that are out of date cost variance and never bias.

use std::sync::Arc;
use std::time::Duration;

use proto::messages::hello::Hello;
use proto::messages::sample::{SampleRequest, SampledBatch};
use proto::transport::channel::Channel;
use proto::transport::retry::{CALL_DEADLINE, reason, unary};
use proto::wire::replay_client::ReplayClient;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::replay::shards::{Allocation, Store};

/// Every living shard is asked at least this often: credit and masses stay fresh.
const CONTACT_EVERY: Duration = Duration::from_millis(150);
/// A dead one this often.
const PROBE_EVERY: Duration = Duration::from_millis(700);
/// A probe may not take long: the shard may hang rather than be gone.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// The limiter is asked again at least this often.
const LIMITER_POLL: Duration = Duration::from_millis(20);

/// Rows of one training batch, in parts as the shards gave them.
#[derive(Debug)]
pub struct SampledRows {
    /// One part per shard that gave rows.
    pub parts: Vec<SampledBatch>,
    /// Per row over all parts: N·q, the number of rows times the probability of
    /// the proposal; the importance weight is (N·q)^−β.
    pub scaled: Vec<f64>,
    /// How long the limiter or missing rows held this batch back.
    pub waited: Duration,
}

impl SampledRows {
    /// Rows over all parts.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.scaled.len()
    }
}

/// What the sampler needs to ask shards.
#[derive(Debug, Clone)]
pub struct Sampler {
    store: Arc<Store>,
    clients: Vec<ReplayClient<Channel>>,
    hello: Hello,
    batch: usize,
}

impl Sampler {
    /// A sampler of `batch` rows at a time; one client per shard of the store.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        clients: Vec<ReplayClient<Channel>>,
        hello: Hello,
        batch: usize,
    ) -> Self {
        Self {
            store,
            clients,
            hello,
            batch,
        }
    }

    /// Keeps in touch with all shards and samples `prefetch` batches at a time
    /// into `out` until the receiver is gone.
    pub async fn run(self, prefetch: usize, seed: u64, out: mpsc::Sender<SampledRows>) {
        let mut tasks = JoinSet::new();
        for shard in 0..self.clients.len() {
            let (this, out) = (self.clone(), out.clone());
            tasks.spawn(async move { this.keep_in_touch(shard, &out).await });
        }
        for stream in 0..prefetch {
            let (this, out) = (self.clone(), out.clone());
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream as u64 + 1);
            tasks.spawn(async move { this.keep_sampling(rng, &out).await });
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn keep_in_touch(&self, shard: usize, out: &mpsc::Sender<SampledRows>) {
        loop {
            let alive = self.store.is_alive(shard);
            let _ = self.ask(shard, 0, PROBE_DEADLINE).await;
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
                if let Some(allocation) = self.store.allocate(self.batch, rng.random()) {
                    break allocation;
                }
                let _ = tokio::time::timeout(LIMITER_POLL, self.store.changed()).await;
            };
            let waited = begin.elapsed();
            let sampled = self.sample(allocation, waited).await;
            if sampled.rows() > 0 && out.send(sampled).await.is_err() {
                return;
            }
        }
    }

    /// Asks all shards of an allocation at once; what a shard fails to give is
    /// given back to the ledger, and the batch is smaller by it.
    async fn sample(&self, allocation: Allocation, waited: Duration) -> SampledRows {
        let mut calls = JoinSet::new();
        for (shard, &rows) in allocation.rows.iter().enumerate().filter(|(_, n)| **n > 0) {
            let this = self.clone();
            calls.spawn(async move { (shard, rows, this.ask(shard, rows, CALL_DEADLINE).await) });
        }
        let mut answers = Vec::new();
        while let Some(call) = calls.join_next().await {
            let Ok((shard, asked, batch)) = call else {
                continue;
            };
            let given = batch.as_ref().map_or(0, SampledBatch::rows);
            self.store.unsample(asked.saturating_sub(given));
            if let Some(batch) = batch.filter(|b| b.rows() > 0) {
                answers.push((shard, batch));
            }
        }
        // Answers come in any order; batches should not depend on it.
        answers.sort_by_key(|(shard, _)| *shard);
        #[expect(clippy::cast_precision_loss, reason = "row counts are far below 2^52")]
        let total = allocation.total_rows as f64;
        let mut scaled = Vec::with_capacity(self.batch);
        let mut parts = Vec::with_capacity(answers.len());
        for (shard, batch) in answers {
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

    async fn ask(&self, shard: usize, rows: usize, within: Duration) -> Option<SampledBatch> {
        let (shard_incarnation, insert_limit) = self.store.grant(shard);
        let request = SampleRequest {
            hello: self.hello.clone(),
            rows,
            insert_limit,
            shard_incarnation,
        };
        let mut client = self.clients.get(shard)?.clone();
        let reply = unary(request.into(), within, |r| client.sample(r)).await;
        let answer = reply
            .map_err(|status| reason(&status))
            .and_then(|reply| SampledBatch::try_from(reply).map_err(|e| e.to_string()));
        match answer {
            Ok(mut batch) => {
                // Keys carry our number of the shard, which is where they go back to.
                let number = u32::try_from(shard).unwrap_or(u32::MAX);
                batch.keys.iter_mut().for_each(|k| k.shard = number);
                self.store.heard(shard, batch.summary);
                Some(batch)
            }
            Err(why) => {
                self.store.lost(shard, &why);
                None
            }
        }
    }
}
