//! A shard that stores rows in order up to a credit, and records what it received.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::transition::row::{Row, RowShape};
use proto::messages::insert::{InsertReply, InsertRequest, Writer};
use proto::transport::channel::replay_server;
use proto::wire;
use proto::wire::replay_server::Replay;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::server::{Reply, Server};

pub const SHAPE: RowShape = RowShape {
    agents: 1,
    history: 1,
};
pub const WINDOW: u32 = 4;

#[derive(Debug, Default)]
pub struct Got {
    pub rows: Vec<Row>,
    pub priorities: Vec<f32>,
    /// (writer, sequence) of every batch in the order of its arrival, repeats included.
    pub batches: Vec<(Writer, u64)>,
    pub runs: Vec<String>,
    pub last: HashMap<Writer, u64>,
}

#[derive(Debug, Clone)]
pub struct FakeShard {
    pub got: Arc<Mutex<Got>>,
    /// Rows that may be stored in total.
    credit: Arc<watch::Sender<usize>>,
    /// A batch waits for more of it.
    pub waits: Arc<AtomicBool>,
    /// The error that an opening gets instead of a reply.
    pub refusal: Arc<Mutex<Option<Status>>>,
    /// The newest incarnation that it knows.
    pub newest: Arc<Mutex<u32>>,
    /// Batches that are stored without an acknowledgement before the stream breaks, and
    /// the shard forgets where each writer was.
    pub silent: Arc<Mutex<Option<usize>>>,
}

impl FakeShard {
    pub fn new(credit: usize) -> Self {
        Self {
            got: Arc::default(),
            credit: Arc::new(watch::channel(credit).0),
            waits: Arc::default(),
            refusal: Arc::default(),
            newest: Arc::default(),
            silent: Arc::default(),
        }
    }

    pub fn allow(&self, rows: usize) {
        self.credit.send_replace(rows);
    }

    pub fn rows(&self) -> usize {
        self.got.lock().unwrap().rows.len()
    }

    /// Serves at an address (port 0: any) until the server is dropped.
    pub fn serve(&self, address: &str) -> Server {
        Server::start(address, Routes::new(replay_server(self.clone())))
    }

    /// Whether a batch is not acknowledged.
    fn keeps_silent(&self) -> Result<bool, Status> {
        let mut silent = self.silent.lock().unwrap();
        let Some(left) = *silent else {
            return Ok(false);
        };
        *silent = left.checked_sub(1);
        if silent.is_none() {
            self.got.lock().unwrap().last.clear();
            return Err(Status::unavailable("broken"));
        }
        Ok(true)
    }

    async fn read(
        &self,
        mut requests: Streaming<wire::InsertRequest>,
        replies: &mpsc::Sender<Result<wire::InsertReply, Status>>,
    ) -> Result<(), Status> {
        let mut writer = None;
        while let Some(message) = requests.message().await? {
            match InsertRequest::try_from(message)? {
                InsertRequest::Open(open) => {
                    if let Some(status) = self.refusal.lock().unwrap().clone() {
                        return Err(status);
                    }
                    if open.writer.incarnation < *self.newest.lock().unwrap() {
                        return Err(Status::aborted("replaced"));
                    }
                    assert_eq!(open.hello.shape, SHAPE);
                    self.got.lock().unwrap().runs.push(open.hello.run_id);
                    writer = Some(open.writer);
                }
                InsertRequest::Batch(batch) => {
                    let writer = writer.expect("an open comes first");
                    let packed = SHAPE.split(&batch.packed, batch.rows()).unwrap();
                    let rows: Vec<_> = packed.map(|b| Row::read(b, SHAPE).unwrap()).collect();
                    let needed = self.rows() + rows.len();
                    let mut credit = self.credit.subscribe();
                    let waits = *credit.borrow() < needed;
                    self.waits.store(waits, Ordering::Relaxed);
                    credit.wait_for(|credit| *credit >= needed).await.unwrap();
                    self.waits.store(false, Ordering::Relaxed);
                    let mut got = self.got.lock().unwrap();
                    got.batches.push((writer, batch.sequence));
                    let last = got.last.entry(writer).or_default();
                    if batch.sequence > *last {
                        *last = batch.sequence;
                        got.rows.extend(rows);
                        got.priorities.extend(batch.priorities);
                    }
                }
            }
            if self.keeps_silent()? {
                continue;
            }
            let acked = writer.and_then(|w| self.got.lock().unwrap().last.get(&w).copied());
            let reply = InsertReply {
                acked: acked.unwrap_or(0),
                window: WINDOW,
                shard_incarnation: 1,
            };
            if replies.send(Ok(reply.into())).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Replay for FakeShard {
    type InsertStream = ReceiverStream<Result<wire::InsertReply, Status>>;

    async fn insert(
        &self,
        request: Request<Streaming<wire::InsertRequest>>,
    ) -> Reply<Self::InsertStream> {
        let (replies, outgoing) = mpsc::channel(8);
        let shard = self.clone();
        tokio::spawn(async move {
            if let Err(status) = shard.read(request.into_inner(), &replies).await {
                let _ = replies.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn sample(&self, _: Request<wire::SampleRequest>) -> Reply<wire::SampleReply> {
        Err(Status::unimplemented("not for actors"))
    }

    async fn update_priorities(&self, _: Request<wire::UpdateRequest>) -> Reply<wire::UpdateReply> {
        Err(Status::unimplemented("not for actors"))
    }

    async fn status(&self, _: Request<wire::ShardStatusRequest>) -> Reply<wire::ShardStatus> {
        Err(Status::unimplemented("not for actors"))
    }

    async fn snapshot(&self, _: Request<wire::SnapshotRequest>) -> Reply<wire::SnapshotReply> {
        Err(Status::unimplemented("not for actors"))
    }
}
