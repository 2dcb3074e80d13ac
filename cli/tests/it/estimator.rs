//! Importance weights over shards with unequal and changing priority sums: the weighted
//! mean of the samples is the mean of all rows, however stale the sums were.
//!
//! With β = 1 a draw of row i weighs 1 / (N·q_i), so the mean of f·w over draws
//! has the expected value Σ f(i) / N exactly, for every proposal q that is above
//! zero everywhere. Each phase below holds the mean of thousands of draws against
//! that value, in units of its standard error.

use std::sync::Arc;
use std::time::Duration;

use common::transition::row::{AgentStep, FrameRef, Row, RowHeader, RowShape};
use learner::batch::sampler::{SampledRows, Sampler};
use learner::replay::limiter::{Limits, RateLimiter};
use learner::replay::shards::ReplayClient;
use proto::messages::hello::Hello;
use proto::messages::insert::{AckLevel, InsertBatch, InsertOpen, InsertReply, Writer};
use proto::messages::update::{PriorityUpdate, SlotPriority};
use proto::transport::channel;
use proto::transport::channel::Channel;
use proto::transport::listen;
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::wire;
use proto::wire::replay_client::ReplayClient as ShardClient;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use replay_server::ShardConfig;
use replay_server::table::selector::Selector;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

const SHAPE: RowShape = RowShape {
    agents: 1,
    history: 1,
};
const BATCH: usize = 32;
/// Batches of a phase that count, and batches discarded before them: some were in
/// flight when the phase began.
const COUNTED: usize = 1500;
const BEFORE: usize = 30;
/// Rows per shard.
const CAPACITY: usize = 400;

fn hello() -> Hello {
    Hello {
        run_id: "estimator".into(),
        manifest: [1; 32],
        config_digest: [2; 32],
        shape: SHAPE,
    }
}

/// The averaged quantity: a function of the row that correlates with its priority.
fn value(episode: u32) -> f64 {
    f64::from(episode % 97)
}

fn row(episode: u32) -> Row {
    let frames = vec![FrameRef::default()];
    Row {
        header: RowHeader {
            episode,
            ..RowHeader::default()
        },
        agents: vec![AgentStep {
            state: frames.clone(),
            next: frames,
            ..AgentStep::default()
        }],
    }
}

/// A shard and its content.
struct Shard {
    number: u32,
    address: String,
    client: ShardClient<Channel>,
    stop: oneshot::Sender<()>,
    /// Episodes of the stored rows, oldest first.
    rows: Vec<u32>,
    sequence: u64,
}

impl Shard {
    async fn start(number: u32, incarnation: u64, listener: TcpListener) -> Self {
        let config = ShardConfig {
            shard: number,
            incarnation,
            capacity: CAPACITY,
            selector: Selector::prioritised(0.8, 0.05, 100.0).unwrap(),
            seed: 3,
            ..ShardConfig::default()
        };
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(replay_server::run(config, listener, async {
            let _ = stopped.await;
        }));
        Self {
            number,
            client: channel::replay_client(channel::connect_lazy(&address).unwrap()),
            address,
            stop,
            rows: Vec::new(),
            sequence: 0,
        }
    }

    /// Stores rows, as an actor does.
    async fn insert(&mut self, episodes: std::ops::Range<u32>) {
        let (requests, receiver) = mpsc::channel(4);
        let first = InsertOpen {
            hello: hello(),
            writer: Writer {
                actor: 1,
                incarnation: 1,
            },
            ack: AckLevel::Memory,
        };
        requests.send(first.into()).await.unwrap();
        self.sequence += 1;
        let mut packed = Vec::new();
        let (new, errors): (Vec<u32>, Vec<f32>) = episodes.map(|e| (e, e as f32 % 13.0)).unzip();
        new.iter().for_each(|e| row(*e).write_to(&mut packed));
        let batch = InsertBatch {
            sequence: self.sequence,
            packed: packed.into(),
            priorities: errors,
        };
        requests.send(batch.into()).await.unwrap();
        let replies = self.client.insert(ReceiverStream::new(receiver)).await;
        let mut replies = replies.unwrap().into_inner();
        let mut acked = 0;
        while acked < self.sequence {
            let reply = replies.message().await.unwrap().unwrap();
            acked = InsertReply::try_from(reply).unwrap().acked;
        }
        self.rows.extend(new);
        let gone = self.rows.len().saturating_sub(CAPACITY);
        self.rows.drain(..gone);
    }

    /// Sends new priorities for sampled rows, as a learner does.
    async fn update(&mut self, drawn: &SampledRows, rng: &mut ChaCha8Rng) {
        let own = drawn.parts.iter().flat_map(|p| &p.keys);
        let own = own.filter(|k| k.shard == self.number);
        let incarnation = own.clone().next().map(|k| k.incarnation);
        let update = PriorityUpdate {
            hello: hello(),
            shard_incarnation: incarnation.unwrap_or(0),
            priorities: own
                .map(|k| SlotPriority {
                    slot: k.slot,
                    generation: k.generation,
                    td_error: rng.random_range(0.0..20.0),
                })
                .collect(),
            learner: 1,
        };
        if !update.priorities.is_empty() {
            let client = &mut self.client;
            let request = wire::UpdateRequest::from(update);
            let _ = unary(request, CALL_DEADLINE, |r| client.update_priorities(r)).await;
        }
    }
}

fn mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().sum::<f64>() / values.count() as f64
}

/// Samples until enough batches arrived and compares their mean with the exact one;
/// with `rng`, sampled rows get new priorities all the time.
#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
async fn phase(
    what: &str,
    shards: &mut [Option<Shard>],
    batches: &mut mpsc::Receiver<SampledRows>,
    mut rng: Option<&mut ChaCha8Rng>,
) {
    let rows = shards.iter().flatten().flat_map(|s| &s.rows);
    let exact = mean(rows.map(|e| value(*e)));
    let mut estimates = Vec::new();
    for i in 0..BEFORE + COUNTED {
        let drawn = batches.recv().await.unwrap();
        assert!(drawn.rows() > 0);
        if i >= BEFORE {
            let episodes = drawn.parts.iter().flat_map(|part| {
                let rows = SHAPE.split(&part.packed, part.rows()).unwrap();
                rows.map(|bytes| Row::read(bytes, SHAPE).unwrap().header.episode)
            });
            let weighted = episodes.zip(&drawn.scaled).map(|(e, nq)| value(e) / nq);
            estimates.push(weighted.sum::<f64>() / drawn.rows() as f64);
        }
        if let Some(rng) = rng.as_deref_mut() {
            for shard in shards.iter_mut().flatten() {
                shard.update(&drawn, rng).await;
            }
        }
    }
    let found = mean(estimates.iter().copied());
    let variance = mean(estimates.iter().map(|e| (e - found).powi(2)));
    let error = (variance / estimates.len() as f64).sqrt();
    println!(
        "{what}: mean {found:.3} ± {error:.3}, exactly {exact:.3}: {:+.2} standard errors",
        (found - exact) / error
    );
    assert!(error < 0.05 * exact, "{what}: {error} is too large");
    let close = (found - exact).abs() < 4.0 * error;
    assert!(close, "{what}: {found} for {exact}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weighted_means_are_exact_over_unequal_changing_lost_shards() {
    let mut shards = Vec::new();
    for number in 0..3 {
        let listener = listen_again("127.0.0.1:0").await;
        shards.push(Some(Shard::start(number, 1, listener).await));
    }
    let addresses: Vec<_> = shards.iter().flatten().map(|s| s.address.clone()).collect();
    let clients = shards.iter().flatten().map(|s| s.client.clone()).collect();
    let replay = Arc::new(ReplayClient::new(
        &addresses,
        RateLimiter::new(wide()).unwrap(),
    ));
    let sampler = Sampler::new(replay.clone(), clients, hello(), 1, BATCH);
    let (out, mut batches) = mpsc::channel(1);
    tokio::spawn(sampler.run(1, 5, out));
    let episodes = [0..300, 300..350, 350..370];
    for (shard, episodes) in shards.iter_mut().flatten().zip(episodes) {
        shard.insert(episodes).await;
    }
    wait_for_rows(&replay, 370).await;
    phase("unequal", &mut shards, &mut batches, None).await;
    // Priority sums change while the sampler runs.
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut rng = Some(&mut rng);
    let what = "updated all the time";
    phase(what, &mut shards, &mut batches, rng.as_deref_mut()).await;
    shards[0].as_mut().unwrap().insert(1000..1350).await;
    shards[2].as_mut().unwrap().insert(1350..1500).await;
    wait_for_rows(&replay, 400 + 50 + 170).await;
    let what = "grown, rows evicted";
    phase(what, &mut shards, &mut batches, rng.as_deref_mut()).await;
    let lost = shards[0].take().unwrap();
    let _ = lost.stop.send(());
    wait_for_rows(&replay, 50 + 170).await;
    let what = "the largest is lost";
    phase(what, &mut shards, &mut batches, rng.as_deref_mut()).await;
    let mut back = Shard::start(0, 2, listen_again(&lost.address).await).await;
    wait_for_rows(&replay, 50 + 170).await;
    back.insert(2000..2090).await;
    shards[0] = Some(back);
    wait_for_rows(&replay, 90 + 50 + 170).await;
    let what = "back, with other rows";
    phase(what, &mut shards, &mut batches, rng).await;
}

/// A rate limiter that never blocks.
fn wide() -> Limits {
    Limits {
        samples_per_insert: 1000.0,
        tolerance: 1_000_000,
        min_rows: 100,
        batch: BATCH as u64,
        batch_rows: 500,
        shards: 3,
    }
}

/// Binds a listener, also where a shard stopped a moment ago.
async fn listen_again(address: &str) -> TcpListener {
    let address = address.parse().unwrap();
    loop {
        match listen::bind(address, false).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Waits until the learner knows of this many rows.
async fn wait_for_rows(replay: &ReplayClient, rows: u64) {
    let counted = async {
        while replay.with_limiter(|l| l.rows()) != rows {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let counted = tokio::time::timeout(Duration::from_secs(30), counted).await;
    assert!(counted.is_ok(), "not {rows} rows");
}
