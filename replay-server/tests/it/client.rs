//! A shard in this process, and its clients.

use common::transition::row::{AgentStep, FrameRef, Row, RowHeader, RowShape};
use proto::messages::hello::Hello;
use proto::messages::insert::{AckLevel, InsertBatch, InsertOpen, InsertReply, Writer};
use proto::messages::sample::{SampleRequest, SampledBatch};
use proto::messages::status::ShardStatus;
use proto::messages::update::{PriorityUpdate, SlotPriority, UpdateReply};
use proto::transport::channel;
use proto::transport::channel::Channel;
use proto::transport::listen;
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::wire;
use proto::wire::replay_client::ReplayClient;
use replay_server::{ShardConfig, ShardError, run};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
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

pub struct Shard {
    pub address: String,
    client: ReplayClient<Channel>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ShardError>>,
}

impl Shard {
    pub async fn start(config: ShardConfig) -> Self {
        let listener = listen::bind("127.0.0.1:0".parse().unwrap(), false)
            .await
            .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(run(config, listener, async {
            let _ = stopped.await;
        }));
        let client = channel::replay_client(channel::connect_lazy(&address).unwrap());
        Self {
            address,
            client,
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
        tokio::time::timeout(PATIENCE, self.served)
            .await
            .expect("the shard stops")
            .unwrap()
    }

    pub async fn ended(self) -> Result<(), ShardError> {
        tokio::time::timeout(PATIENCE, self.served)
            .await
            .expect("the shard ends")
            .unwrap()
    }

    pub fn client(&self) -> ReplayClient<Channel> {
        self.client.clone()
    }

    pub async fn sample_as(&self, request: SampleRequest) -> Result<SampledBatch, Status> {
        let mut client = self.client();
        let reply = unary(wire::SampleRequest::from(request), CALL_DEADLINE, |r| {
            client.sample(r)
        })
        .await?;
        Ok(SampledBatch::try_from(reply).unwrap())
    }

    pub async fn sample(&self, rows: usize) -> SampledBatch {
        let request = SampleRequest {
            hello: hello(),
            rows,
            insert_limit: 0,
            shard_incarnation: 0,
        };
        self.sample_as(request).await.unwrap()
    }

    pub async fn grant(&self, insert_limit: u64) {
        let request = SampleRequest {
            hello: hello(),
            rows: 0,
            insert_limit,
            shard_incarnation: INCARNATION,
        };
        self.sample_as(request).await.unwrap();
    }

    pub async fn update(
        &self,
        incarnation: u64,
        priorities: Vec<SlotPriority>,
    ) -> Result<UpdateReply, Status> {
        let update = PriorityUpdate {
            hello: hello(),
            shard_incarnation: incarnation,
            priorities,
        };
        let mut client = self.client();
        let reply = unary(wire::UpdateRequest::from(update), CALL_DEADLINE, |r| {
            client.update_priorities(r)
        })
        .await?;
        Ok(reply.into())
    }

    pub async fn status(&self) -> ShardStatus {
        let mut client = self.client();
        unary(wire::ShardStatusRequest {}, CALL_DEADLINE, |r| {
            client.status(r)
        })
        .await
        .unwrap()
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
        tokio::time::timeout(PATIENCE, reached)
            .await
            .expect("the status becomes as wanted")
    }

    pub async fn stream(&self) -> InsertStream {
        InsertStream::begin(self.client()).await.unwrap()
    }

    /// An open stream of one writer, and the first reply.
    pub async fn open(&self, actor: u16) -> (InsertStream, InsertReply) {
        let mut stream = self.stream().await;
        stream.send(open(actor)).await;
        let reply = stream.reply().await.unwrap();
        (stream, reply)
    }
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

pub struct InsertStream {
    requests: mpsc::Sender<wire::InsertRequest>,
    replies: Streaming<wire::InsertReply>,
}

impl InsertStream {
    pub async fn begin(mut client: ReplayClient<Channel>) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let answered = client.insert(ReceiverStream::new(receiver)).await?;
        Ok(Self {
            requests,
            replies: answered.into_inner(),
        })
    }

    pub async fn send(&mut self, request: impl Into<wire::InsertRequest>) {
        self.requests
            .send(request.into())
            .await
            .expect("the stream takes requests");
    }

    pub async fn reply(&mut self) -> Result<InsertReply, Status> {
        let message = tokio::time::timeout(PATIENCE, self.replies.message())
            .await
            .expect("a reply comes")?;
        Ok(
            InsertReply::try_from(message.ok_or_else(|| Status::aborted("the stream ended"))?)
                .unwrap(),
        )
    }

    pub async fn insert(&mut self, batch: InsertBatch) -> u64 {
        self.send(batch).await;
        self.reply().await.unwrap().acked
    }
}

/// A batch message that the domain types cannot express.
pub fn lie(batch: InsertBatch, change: impl FnOnce(&mut wire::InsertBatch)) -> wire::InsertRequest {
    let mut request = wire::InsertRequest::from(batch);
    match &mut request.kind {
        Some(wire::insert_request::Kind::Batch(batch)) => change(batch),
        _ => unreachable!("a batch is a batch"),
    }
    request
}
