//! SIGKILL at random moments under load: every row acknowledged as durable is
//! there exactly once, and the writers continue.
//!
//! `LANDMARL_KILL_ROUNDS=200 cargo test -p replay-server --test it kill -- --nocapture`
//! prints a line per round.

use crate::client::{Client, SHAPE, batch, durable, request};
use crate::process::Server;
use common::transition::row::Row;
use proto::messages::insert::InsertBatch;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use replay_server::journal::JournalError;
use replay_server::journal::disk::RealDisk;
use replay_server::journal::recover::{Mode, Sink, recover};
use replay_server::journal::segment::Stored;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
    /// What to send after this acknowledgement: on a new stream what was kept, then
    /// new batches up to the window.
    fn next(&mut self, acked: u64, is_new: bool) -> Vec<InsertBatch> {
        while let Some(batch) = self.kept.pop_front_if(|b| b.sequence <= acked) {
            self.acked_rows += u32::try_from(batch.rows()).unwrap();
        }
        let mut batches: Vec<_> = self.kept.iter().filter(|_| is_new).cloned().collect();
        for i in 0..(WINDOW - self.kept.len()) as u64 {
            let rows = ((acked + i) % 40) as u32 + 1;
            self.sequence += 1;
            let batch = batch(self.sequence, self.next_row, rows);
            self.next_row += rows;
            self.kept.push_back(batch.clone());
            batches.push(batch);
        }
        batches
    }
}

/// Writes until the shard is killed.
async fn write(client: Client, actor: u16, writing: Arc<Mutex<Writing>>, acks: Arc<AtomicU64>) {
    let Ok(mut stream) = client.stream().await else {
        return;
    };
    let mut is_new = true;
    if !stream.try_send(durable(actor)).await {
        return;
    }
    while let Ok(reply) = stream.reply().await {
        acks.fetch_add(1, Ordering::Relaxed);
        let batches = writing.lock().unwrap().next(reply.acked, is_new);
        is_new = false;
        for batch in batches {
            if !stream.try_send(batch).await {
                return;
            }
        }
    }
}

/// Raises the insert limit and samples, as a learner does.
async fn learn(client: Client, sampled: Arc<AtomicU64>) {
    let mut request = request(0, 0, 0);
    while let Ok(drawn) = client.try_sample(request.clone()).await {
        let summary = drawn.summary;
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
    fn rows(&mut self, batch: &Stored<'_>) -> Result<(), JournalError> {
        let rows = self.rows.entry(batch.writer.actor).or_default();
        for bytes in batch.packed.chunks_exact(SHAPE.bytes()) {
            rows.push(Row::read(bytes, SHAPE).unwrap().header.episode);
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
    let state = recover(&RealDisk, folder, Some(0), Mode::ReadOnly, 100, &mut found).unwrap();
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
            "round {round}: rows of writer {actor} are lost or duplicated"
        );
        let writing = writing.lock().unwrap();
        let last = rows.last().map_or(0, |row| row + 1);
        assert!(
            last >= writing.acked_rows,
            "round {round}: {} rows of writer {actor} were acknowledged, {last} are there",
            writing.acked_rows
        );
        assert!(last <= writing.next_row);
        // Only rows that left the table may be missing on disk.
        assert!(state.first_row == 0 || state.next_row - state.first_row >= CAPACITY);
    }
    state.next_row
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_at_any_moment_neither_loses_nor_duplicates_rows() {
    let rounds = std::env::var("LANDMARL_KILL_ROUNDS");
    let rounds: u32 = rounds.ok().and_then(|n| n.parse().ok()).unwrap_or(20);
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
        let mut tasks = vec![tokio::spawn(learn(server.client(), sampled.clone()))];
        for (actor, writing) in (0_u16..).zip(&writers) {
            let write = write(server.client(), actor, writing.clone(), acks.clone());
            tasks.push(tokio::spawn(write));
        }
        let delay = Duration::from_millis(rng.random_range(1..250));
        tokio::time::sleep(delay).await;
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
            delay.as_millis(),
            acks.load(Ordering::Relaxed),
            up.as_millis()
        );
    }
    let acked: u32 = writers.iter().map(|w| w.lock().unwrap().acked_rows).sum();
    println!("{rounds} rounds: {acked} rows acknowledged as durable, 0 lost, 0 duplicated");
    assert!(
        u64::from(acked) > 100 * u64::from(rounds),
        "{acked} rows: too light a load"
    );
    assert!(sampled.load(Ordering::Relaxed) > 0);
}
