//! Clients of a shard, and a shard in this process.

use common::transition::row::{AgentStep, FrameRef, Row, RowHeader, RowShape};
use proto::messages::hello::Hello;
use proto::messages::insert::{AckLevel, InsertBatch, InsertOpen, InsertReply, Writer};
use proto::messages::sample::{SampleRequest, SampledBatch};
use proto::messages::status::ShardStatus;
use proto::messages::update::{PriorityUpdate, SlotPriority, UpdateReply};
use proto::transport::channel::{self, Channel};
use proto::transport::listen;
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::replay_client::ReplayClient;
use replay_server::{ShardConfig, ShardError, run};
use std::ops::Deref;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

pub const SHAPE: RowShape = RowShape {
    agents: 1,
    history: 2,
};
pub const INCARNATION: u64 = 5;
/// Far longer than anything here takes; a test that hangs fails with it.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn hello() -> Hello {
    Hello {
        run_id: "test".into(),
        manifest: [1; 32],
        config_digest: [2; 32],
        shape: SHAPE,
    }
}

/// Row number `n` of a test, identified by its episode.
pub fn row(n: u32) -> Row {
    let frame = FrameRef {
        position: [1, 2, 3],
        stride: 2,
        valid: true,
    };
    let agent = AgentStep {
        action: 3,
        active: true,
        reward: 0.5,
        discount: 0.9,
        state: vec![frame; 2],
        next: vec![frame; 2],
        ..AgentStep::default()
    };
    Row {
        header: RowHeader {
            episode: n,
            ..RowHeader::default()
        },
        agents: vec![agent],
    }
}

pub fn packed(rows: &[Row]) -> Vec<u8> {
    let mut packed = Vec::new();
    rows.iter().for_each(|row| row.write_to(&mut packed));
    packed
}

/// Rows numbered from `first`, each with |TD error| 1.
pub fn batch(sequence: u64, first: u32, rows: u32) -> InsertBatch {
    let rows: Vec<_> = (first..first + rows).map(row).collect();
    InsertBatch {
        sequence,
        packed: packed(&rows).into(),
        priorities: vec![1.0; rows.len()],
    }
}

/// A batch message that the domain types cannot express.
pub fn malformed(
    batch: InsertBatch,
    change: impl FnOnce(&mut wire::InsertBatch),
) -> wire::InsertRequest {
    let mut request = wire::InsertRequest::from(batch);
    match &mut request.kind {
        Some(wire::insert_request::Kind::Batch(batch)) => change(batch),
        _ => unreachable!("a batch is a batch"),
    }
    request
}

pub fn open(actor: u16) -> InsertOpen {
    InsertOpen {
        hello: hello(),
        writer: Writer {
            actor,
            incarnation: 1,
        },
        ack: AckLevel::Memory,
    }
}

/// [`open`], with durable acknowledgements.
pub fn durable(actor: u16) -> InsertOpen {
    let ack = AckLevel::Durable;
    InsertOpen { ack, ..open(actor) }
}

pub fn request(rows: usize, insert_limit: u64, shard_incarnation: u64) -> SampleRequest {
    SampleRequest {
        hello: hello(),
        rows,
        insert_limit,
        shard_incarnation,
        learner: 0,
    }
}

pub fn priority(slot: u32, generation: u32, td_error: f32) -> SlotPriority {
    SlotPriority {
        slot,
        generation,
        td_error,
    }
}

/// A client of a shard in this or another process.
#[derive(Clone)]
pub struct Client(ReplayClient<Channel>);

impl Client {
    pub fn new(address: &str, security: &Security) -> Self {
        let channel = security.connect(address, Role::Replay).unwrap();
        Self(channel::replay_client(channel))
    }

    /// The client for requests that the domain types cannot express.
    pub fn raw(&self) -> ReplayClient<Channel> {
        self.0.clone()
    }

    pub async fn try_sample(&self, request: SampleRequest) -> Result<SampledBatch, Status> {
        let mut client = self.raw();
        let request = wire::SampleRequest::from(request);
        let reply = unary(request, CALL_DEADLINE, |r| client.sample(r)).await?;
        Ok(SampledBatch::try_from(reply).unwrap())
    }

    pub async fn sample(&self, rows: usize) -> SampledBatch {
        self.try_sample(request(rows, 0, 0)).await.unwrap()
    }

    /// Grants insert credit, as the learner does; returns the shard's incarnation.
    pub async fn grant(&self, insert_limit: u64) -> u64 {
        let incarnation = self.sample(0).await.summary.shard_incarnation;
        let granted = self.try_sample(request(0, insert_limit, incarnation)).await;
        granted.unwrap();
        incarnation
    }

    pub async fn update(
        &self,
        incarnation: u64,
        priorities: Vec<SlotPriority>,
    ) -> Result<UpdateReply, Status> {
        let update = wire::UpdateRequest::from(PriorityUpdate {
            hello: hello(),
            shard_incarnation: incarnation,
            priorities,
            learner: 0,
        });
        let mut client = self.raw();
        unary(update, CALL_DEADLINE, |r| client.update_priorities(r)).await
    }

    pub async fn status(&self) -> ShardStatus {
        let (mut client, request) = (self.raw(), wire::ShardStatusRequest {});
        let status = unary(request, CALL_DEADLINE, |r| client.status(r)).await;
        status.unwrap()
    }

    /// Waits until the status is as wanted.
    pub async fn until(&self, wanted: impl Fn(&ShardStatus) -> bool) -> ShardStatus {
        let reached = async {
            loop {
                let status = self.status().await;
                if wanted(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let status = timeout(PATIENCE, reached).await;
        status.expect("the status becomes as wanted")
    }

    /// Waits until this many writers wait for credit.
    pub async fn until_waiting(&self, writers: u32) -> ShardStatus {
        self.until(|status| status.summary().writers_waiting == writers)
            .await
    }

    pub async fn stream(&self) -> Result<InsertStream, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let replies = self.raw().insert(ReceiverStream::new(receiver)).await?;
        Ok(InsertStream {
            requests,
            replies: replies.into_inner(),
        })
    }

    /// An open stream, and the first reply.
    pub async fn try_open(&self, open: InsertOpen) -> Result<(InsertStream, InsertReply), Status> {
        let mut stream = self.stream().await?;
        stream.send(open).await;
        let reply = stream.reply().await?;
        Ok((stream, reply))
    }

    /// An open stream of one writer, and the first reply.
    pub async fn open(&self, actor: u16) -> (InsertStream, InsertReply) {
        self.try_open(open(actor)).await.unwrap()
    }
}

pub struct Shard {
    pub address: String,
    client: Client,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ShardError>>,
}

impl Deref for Shard {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Shard {
    pub async fn start(config: ShardConfig) -> Self {
        let listener = listen::bind("127.0.0.1:0".parse().unwrap(), false);
        let listener = listener.await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(run(config, listener, async {
            let _ = stopped.await;
        }));
        Self {
            client: Client::new(&address, &Security::none()),
            address,
            stop,
            served,
        }
    }

    /// A small shard, its first `credit` rows allowed.
    pub async fn with_credit(credit: u64) -> Self {
        let shard = Self::start(ShardConfig {
            incarnation: INCARNATION,
            capacity: 1000,
            ..Default::default()
        })
        .await;
        shard.grant(credit).await;
        shard
    }

    pub async fn stop(self) -> Result<(), ShardError> {
        self.stop.send(()).unwrap();
        ended(self.served).await
    }

    /// The result of a shard that ends by itself.
    pub async fn ended(self) -> Result<(), ShardError> {
        ended(self.served).await
    }
}

async fn ended(served: JoinHandle<Result<(), ShardError>>) -> Result<(), ShardError> {
    let ended = timeout(PATIENCE, served).await;
    ended.expect("the shard ends").unwrap()
}

pub struct InsertStream {
    requests: mpsc::Sender<wire::InsertRequest>,
    replies: Streaming<wire::InsertReply>,
}

impl InsertStream {
    /// Sends a request; false once the stream has ended.
    pub async fn try_send(&mut self, request: impl Into<wire::InsertRequest>) -> bool {
        self.requests.send(request.into()).await.is_ok()
    }

    pub async fn send(&mut self, request: impl Into<wire::InsertRequest>) {
        assert!(self.try_send(request).await, "the stream takes requests");
    }

    pub async fn reply(&mut self) -> Result<InsertReply, Status> {
        let message = timeout(PATIENCE, self.replies.message()).await;
        let message = message.expect("a reply comes")?;
        let message = message.ok_or_else(|| Status::aborted("the stream ended"))?;
        Ok(InsertReply::try_from(message).unwrap())
    }

    pub async fn insert(&mut self, batch: InsertBatch) -> u64 {
        self.send(batch).await;
        self.reply().await.unwrap().acked
    }
}
