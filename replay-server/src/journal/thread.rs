//! The thread that writes the log. Batches arrive in the order of the table, and
//! waiting tasks watch the durable position.
//!
//! The queue is bounded in bytes ([`Journal::room`]). While the disk fails, batches
//! stay in memory and are retried, inserts wait, and sampling continues.

use super::disk::Disk;
use super::log::{Entry, Log};
use super::sweep::Sweeper;
use super::{JournalConfig, JournalError};
use common::run::telemetry::in_current_span;
use common::run::throttle::Throttle;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use proto::messages::hello::Hello;
use proto::messages::status::JournalStatus;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Approximate size of one group.
const GROUP_BYTES: usize = 4 << 20;
/// Minimum interval between the ends of two groups. Batches that arrive meanwhile
/// form one group, since a sync costs about the same whatever its size.
const PAUSE: Duration = Duration::from_millis(2);
/// Delay before a failed commit is retried.
const RETRY: Duration = Duration::from_millis(500);
/// Minimum interval between logged disk errors.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// How long a failing disk is retried at shutdown.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Reserved queue space, released when the batch is on the disk.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

enum Message {
    Hello(Hello),
    Batch {
        entry: Entry,
        urgent: bool,
        room: Room,
    },
    /// A task waits for the batches sent so far.
    Urge,
    Stop,
}

/// A shard's journal.
#[derive(Debug)]
pub struct Journal {
    sender: Sender<Message>,
    durable: watch::Receiver<u64>,
    room: Arc<Semaphore>,
    queue_bytes: u32,
    status: Arc<Mutex<JournalStatus>>,
    thread: Mutex<Option<JoinHandle<Result<(), JournalError>>>>,
}

impl Journal {
    /// Starts the writer thread and the one that removes evicted segments.
    pub fn start<D: Disk>(
        log: Log<D>,
        disk: D,
        config: &JournalConfig,
    ) -> Result<Self, JournalError> {
        let refused = || JournalError::disk("start a thread for", &config.folder);
        let (sweep, stale) = crossbeam_channel::unbounded();
        let mut sweeper = Sweeper::new(disk);
        let sweeping = std::thread::Builder::new()
            .name("journal-sweep".into())
            .spawn(in_current_span(move || {
                stale.iter().for_each(|files| sweeper.sweep(files));
            }))
            .map_err(refused())?;
        let (sender, receiver) = crossbeam_channel::unbounded();
        let (durable_sender, durable) = watch::channel(log.durable());
        let status = Arc::new(Mutex::new(JournalStatus::default()));
        let mut writer = Writer {
            log,
            sweep,
            durable_sender,
            status: status.clone(),
            sync_every: config.sync_every,
            committed: Instant::now(),
            failures: Throttle::new(LOG_INTERVAL),
        };
        writer.report_status(None);
        writer.sweep();
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(in_current_span(move || {
                let done = writer.run(&receiver);
                sweeping.join().map_err(|_| JournalError::Gone)?;
                done
            }))
            .map_err(refused())?;
        Ok(Self {
            sender,
            durable,
            room: Arc::new(Semaphore::new(config.queue_bytes as usize)),
            queue_bytes: config.queue_bytes,
            status,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Waits for queue space for this many bytes.
    pub async fn room(&self, bytes: usize) -> Result<Room, JournalError> {
        // A batch larger than the queue takes all of it.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = bytes.min(self.queue_bytes);
        let permit = self.room.clone().acquire_many_owned(bytes).await;
        permit.map(Room).map_err(|_| JournalError::Gone)
    }

    /// Sets the run, once it is known.
    pub fn join(&self, hello: &Hello) -> Result<(), JournalError> {
        self.send(Message::Hello(hello.clone()))
    }

    /// Queues the next batch. `urgent`: a task waits until it is on the disk.
    pub fn append(&self, entry: Entry, urgent: bool, room: Room) -> Result<(), JournalError> {
        self.send(Message::Batch {
            entry,
            urgent,
            room,
        })
    }

    /// Returns once all rows with lower numbers are on the disk.
    pub async fn durable(&self, row: u64) -> Result<(), JournalError> {
        let mut durable = self.durable.clone();
        if *durable.borrow() >= row {
            return Ok(());
        }
        self.send(Message::Urge)?;
        let reached = durable.wait_for(|&durable| durable >= row).await;
        reached.map(drop).map_err(|_| JournalError::Gone)
    }

    /// Whether the thread runs that writes the rows.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let thread = self.thread.lock();
        let thread = thread.unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    #[must_use]
    pub fn status(&self) -> JournalStatus {
        let status = self.status.lock();
        let mut status = status.unwrap_or_else(PoisonError::into_inner).clone();
        let room = self.room.available_permits() as u64;
        status.queued_bytes_max = self.queue_bytes.into();
        status.queued_bytes = status.queued_bytes_max.saturating_sub(room);
        status
    }

    /// Commits everything queued and ends the thread. Blocks.
    pub fn stop(&self) -> Result<(), JournalError> {
        // If the thread has already ended, its error is returned below.
        let _ = self.send(Message::Stop);
        let thread = self.thread.lock();
        let thread = thread.unwrap_or_else(PoisonError::into_inner).take();
        let done = thread.map(|thread| thread.join().unwrap_or(Err(JournalError::Gone)));
        done.unwrap_or(Ok(()))
    }

    fn send(&self, message: Message) -> Result<(), JournalError> {
        self.sender.send(message).map_err(|_| JournalError::Gone)
    }
}

struct Writer<D: Disk> {
    log: Log<D>,
    /// Receives the files of evicted segments.
    sweep: Sender<Vec<PathBuf>>,
    durable_sender: watch::Sender<u64>,
    status: Arc<Mutex<JournalStatus>>,
    sync_every: Duration,
    /// When the last group was committed.
    committed: Instant,
    /// Limits how often disk errors are logged.
    failures: Throttle,
}

/// Batches that are committed together.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    rooms: Vec<Room>,
    bytes: usize,
    /// Commit without waiting for more.
    urgent: bool,
    stop: bool,
}

impl<D: Disk> Writer<D> {
    fn run(mut self, receiver: &Receiver<Message>) -> Result<(), JournalError> {
        loop {
            let mut group = Group::default();
            self.gather(&mut group, receiver);
            self.commit(&mut group, receiver)?;
            if group.stop {
                return Ok(());
            }
        }
    }

    /// Waits for a batch, then collects more until a task waits for them, the sync
    /// interval has passed or the group is full.
    fn gather(&mut self, group: &mut Group, receiver: &Receiver<Message>) {
        let mut due: Option<Instant> = None;
        while !group.stop && group.bytes < GROUP_BYTES {
            if group.urgent {
                due = Some(self.committed + PAUSE);
            }
            let message = match due {
                Some(due) => match receiver.recv_deadline(due) {
                    Err(RecvTimeoutError::Disconnected) => Some(Message::Stop),
                    other => other.ok(),
                },
                None => Some(receiver.recv().unwrap_or(Message::Stop)),
            };
            match message {
                Some(message) => self.take(group, message),
                None => return,
            }
            if !group.entries.is_empty() && due.is_none() {
                due = Some(Instant::now() + self.sync_every);
            }
        }
    }

    fn take(&mut self, group: &mut Group, message: Message) {
        match message {
            Message::Hello(hello) => self.log.join(hello),
            Message::Urge => group.urgent = true,
            Message::Stop => group.stop = true,
            Message::Batch {
                entry,
                urgent,
                room,
            } => {
                group.bytes += entry.batch.packed.len();
                group.urgent |= urgent;
                group.entries.push(entry);
                group.rooms.push(room);
            }
        }
    }

    /// Retries until the group is on the disk, or until the shutdown grace has passed.
    fn commit(
        &mut self,
        group: &mut Group,
        receiver: &Receiver<Message>,
    ) -> Result<(), JournalError> {
        let mut give_up = group.stop.then(|| Instant::now() + STOP_GRACE);
        loop {
            let begun = Instant::now();
            let Err(error) = self.log.commit(&group.entries) else {
                // Released before the position is published, so that a waiting task finds room.
                group.rooms.clear();
                if !group.entries.is_empty() {
                    self.committed(begun.elapsed());
                }
                return Ok(());
            };
            self.report_status(Some(&error));
            if give_up.is_some_and(|end| Instant::now() >= end) {
                let rows = group.entries.iter().map(|e| e.batch.td_errors.len());
                let rows: usize = rows.sum();
                tracing::error!(rows, %error, "rows could not be written to the disk before the stop; none of them was acknowledged as durable");
                return Err(error);
            }
            // More batches join the group; the queue bounds how many.
            let again = Instant::now() + RETRY;
            while let Ok(message) = receiver.recv_deadline(again) {
                self.take(group, message);
            }
            if group.stop && give_up.is_none() {
                give_up = Some(Instant::now() + STOP_GRACE);
            }
        }
    }

    fn committed(&mut self, took: Duration) {
        self.committed = Instant::now();
        if self.failures.reset() {
            tracing::info!("writes to the disk succeed again");
        }
        {
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            status.commits += 1;
            status.busy_s += took.as_secs_f64();
            status.longest_s = status.longest_s.max(took.as_secs_f64());
        }
        self.report_status(None);
        self.durable_sender.send_replace(self.log.durable());
        self.sweep();
    }

    fn sweep(&mut self) {
        let stale = self.log.take_stale();
        if !stale.is_empty() {
            // If that thread has ended, the files stay until the next start removes them.
            let _ = self.sweep.send(stale);
        }
    }

    fn report_status(&mut self, error: Option<&JournalError>) {
        let (segments, bytes) = self.log.size();
        {
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            status.durable = self.log.durable();
            (status.segments, status.bytes) = (segments as u64, bytes);
            status.failing = error.map(ToString::to_string);
        }
        if let Some(error) = error
            && self.failures.warning(Instant::now()).is_some()
        {
            tracing::error!(%error, "rows cannot be brought to the disk; inserts wait, draws go on");
        }
    }
}
