//! SIGKILL at random moments under load: every row acknowledged as durable is
//! there exactly once, and the writers continue.
//!
//! `LANDMARL_KILL_ROUNDS=200 cargo test -p replay-server --test it kill -- --nocapture`
//! prints a line per round.

use crate::client::{batch, hello, open};
use crate::process::Server;
use common::transition::row::{Row, RowHeader};
use proto::messages::insert::{AckLevel, InsertBatch, InsertOpen, InsertReply};
use proto::messages::sample::SampleRequest;
use proto::transport::channel;
use proto::wire;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use replay_server::journal::JournalError;
use replay_server::journal::recover::{Mode, Sink, recover};
use replay_server::journal::segment::{Head, Stored};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

const WRITERS: u16 = 3;
const CAPACITY: u64 = 20_000;
/// Unacknowledged batches of a writer.
const WINDOW: usize = 8;

/// One writer over all incarnations of the shard.
#[derive(Default)]
struct Writing {
    next_row: u32,
    sequence: u64,
    /// Sent or to be sent, not acknowledged.
    kept: VecDeque<InsertBatch>,
    /// Rows below this number were acknowledged as durable.
    acked_rows: u32,
}

impl Writing {
    fn acknowledge(&mut self, acked: u64) {
        while self.kept.front().is_some_and(|b| b.sequence <= acked) {
            let rows = self.kept.pop_front().map_or(0, |b| b.rows());
            self.acked_rows += u32::try_from(rows).unwrap();
        }
    }

    fn make(&mut self, rows: u32) -> InsertBatch {
        self.sequence += 1;
        let batch = batch(self.sequence, self.next_row, rows);
        self.next_row += rows;
        self.kept.push_back(batch.clone());
        batch
    }
}

/// Writes until the shard is killed.
async fn write(address: String, actor: u16, writing: Arc<Mutex<Writing>>, acks: Arc<AtomicU64>) {
    let mut client = channel::replay_client(channel::connect_lazy(&address).unwrap());
    let (requests, receiver) = mpsc::channel(2 * WINDOW);
    let first = InsertOpen {
        ack: AckLevel::Durable,
        ..open(actor)
    };
    requests.send(first.into()).await.unwrap();
    let Ok(replies) = client.insert(ReceiverStream::new(receiver)).await else {
        return;
    };
    let mut replies = replies.into_inner();
    let mut begun = false;
    while let Ok(Some(reply)) = replies.message().await {
        let acked = InsertReply::try_from(reply).unwrap().acked;
        let again: Vec<InsertBatch> = {
            let mut writing = writing.lock().unwrap();
            writing.acknowledge(acked);
            acks.fetch_add(1, Ordering::Relaxed);
            let again = if begun {
                Vec::new()
            } else {
                writing.kept.iter().cloned().collect()
            };
            let new = WINDOW - writing.kept.len();
            let sizes = (0..new as u64).map(|i| ((acked + i) % 40) as u32 + 1);
            let made = sizes.collect::<Vec<_>>();
            again
                .into_iter()
                .chain(
                    made.into_iter()
                        .map(|rows| writing.make(rows))
                        .collect::<Vec<_>>(),
                )
                .collect()
        };
        begun = true;
        for batch in again {
            if requests.send(batch.into()).await.is_err() {
                return;
            }
        }
    }
}

/// Raises the insert limit and samples, as a learner does.
async fn learn(address: String, sampled: Arc<AtomicU64>) {
    let mut client = channel::replay_client(channel::connect_lazy(&address).unwrap());
    let mut request = SampleRequest {
        hello: hello(),
        rows: 0,
        insert_limit: 0,
        shard_incarnation: 0,
    };
    loop {
        let Ok(reply) = client
            .sample(wire::SampleRequest::from(request.clone()))
            .await
        else {
            return;
        };
        let summary = reply.into_inner().summary.unwrap();
        sampled.fetch_add(request.rows as u64, Ordering::Relaxed);
        request.shard_incarnation = summary.shard_incarnation;
        request.insert_limit = summary.inserted + 5_000;
        request.rows = 16;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Rows per actor, in the order of their numbers.
#[derive(Default)]
struct Found {
    rows: BTreeMap<u16, Vec<u32>>,
    lost: u64,
}

impl Sink for Found {
    fn open(&mut self, _: &Head) -> Result<(), JournalError> {
        Ok(())
    }

    fn rows(&mut self, batch: &Stored<'_>) -> Result<(), JournalError> {
        let shape = crate::client::SHAPE;
        for bytes in batch.packed.chunks_exact(shape.bytes()) {
            let RowHeader { episode, .. } = Row::read(bytes, shape).unwrap().header;
            self.rows
                .entry(batch.writer.actor)
                .or_default()
                .push(episode);
        }
        Ok(())
    }

    fn hole(&mut self, rows: u64) -> Result<(), JournalError> {
        self.lost += rows;
        Ok(())
    }
}

/// Checks the rows on disk against the acknowledgements of the killed shard.
fn check(folder: &Path, writers: &[Arc<Mutex<Writing>>], round: u32) -> u64 {
    let mut found = Found::default();
    let state = recover(folder, Some(0), Mode::Look, 100, &mut found).unwrap();
    assert_eq!(
        (found.lost, state.damage.len()),
        (0, 0),
        "round {round}: {:?}",
        state.damage
    );
    for (actor, writing) in (0_u16..).zip(writers) {
        let rows = found.rows.remove(&actor).unwrap_or_default();
        let gaps = rows.windows(2).filter(|w| w[1] != w[0] + 1).count();
        assert_eq!(
            gaps, 0,
            "round {round}: rows of writer {actor} are lost or doubled"
        );
        let writing = writing.lock().unwrap();
        let last = rows.last().map_or(0, |row| row + 1);
        assert!(
            last >= writing.acked_rows,
            "round {round}: writer {actor} was promised {} rows, {last} are there",
            writing.acked_rows
        );
        assert!(last <= writing.next_row);
        // Only rows that left the table may be missing on disk.
        assert!(state.first_row == 0 || state.next_row - state.first_row >= CAPACITY);
    }
    state.next_row
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_at_any_moment_loses_and_doubles_nothing() {
    let rounds: u32 = std::env::var("LANDMARL_KILL_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let folder = tempfile::tempdir().unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| Arc::<Mutex<Writing>>::default())
        .collect();
    let (acks, sampled) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut on_disk = 0;
    println!("round  killed after  acks so far  rows on disk  up again after");
    for round in 1..=rounds {
        let begun = Instant::now();
        let server = Server::keeping(folder.path(), CAPACITY);
        let up = begun.elapsed();
        let mut tasks = vec![tokio::spawn(learn(server.address.clone(), sampled.clone()))];
        for (actor, writing) in (0_u16..).zip(&writers) {
            let address = server.address.clone();
            tasks.push(tokio::spawn(write(
                address,
                actor,
                writing.clone(),
                acks.clone(),
            )));
        }
        let life = Duration::from_millis(rng.random_range(1..250));
        tokio::time::sleep(life).await;
        // SIGKILL.
        drop(server);
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        let before = on_disk;
        on_disk = check(folder.path(), &writers, round);
        assert!(
            on_disk >= before,
            "round {round}: rows went back from {before} to {on_disk}"
        );
        println!(
            "{round:>5}  {:>9} ms  {:>11}  {on_disk:>12}  {:>11} ms",
            life.as_millis(),
            acks.load(Ordering::Relaxed),
            up.as_millis()
        );
    }
    let promised: u32 = writers.iter().map(|w| w.lock().unwrap().acked_rows).sum();
    println!("{rounds} rounds: {promised} rows acknowledged as durable, 0 lost, 0 doubled");
    assert!(
        u64::from(promised) > 100 * u64::from(rounds),
        "{promised} rows: hardly a load"
    );
    assert!(sampled.load(Ordering::Relaxed) > 0);
}
