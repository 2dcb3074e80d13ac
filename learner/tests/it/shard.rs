//! A replay shard that can stop, restart, and count its requests.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use common::transition::row::{AgentStep, FrameRef, Row, RowHeader};
use proto::messages::sample::{RowKey, SampleRequest, SampledBatch};
use proto::messages::status::ShardSummary;
use proto::messages::update::{PriorityUpdate, UpdateReply};
use proto::transport::health::Health;
use proto::transport::security::Security;
use proto::transport::serve;
use proto::wire;
use proto::wire::replay_server::Replay;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

#[derive(Default)]
pub struct State {
    pub down: bool,
    pub incarnation: u64,
    pub rows: u64,
    pub inserted: u64,
    pub sampled: u64,
    pub limit: u64,
    pub updated: u64,
    /// The newest incarnation of an actor that it knows.
    pub newest_writer: u32,
    /// The numbers of the learners that called.
    pub learners: std::collections::BTreeSet<u64>,
}

/// One shard; clones share its state.
#[derive(Clone)]
pub struct Shard {
    number: u32,
    state: Arc<Mutex<State>>,
}

impl Shard {
    /// Starts serving; returns its address.
    pub async fn start(number: u32) -> (Self, SocketAddr) {
        let state = State {
            incarnation: 1,
            ..State::default()
        };
        let shard = Self {
            number,
            state: Arc::new(Mutex::new(state)),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Routes::new(proto::transport::channel::replay_server(shard.clone()));
        tokio::spawn(async move {
            let (security, health) = (Security::none(), Health::default());
            let forever = std::future::pending();
            serve::run_server(listener, security, routes, &[], &health, forever).await
        });
        (shard, address)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Inserts as many of `rows` as there is credit for.
    pub fn insert(&self, rows: u64) {
        let mut s = self.state();
        let credit = s.limit.saturating_sub(s.inserted);
        let rows = if s.down { 0 } else { rows.min(credit) };
        s.inserted += rows;
        s.rows = (s.rows + rows).min(400);
    }

    /// Stops it and loses its rows.
    pub fn stop(&self) {
        self.state().down = true;
    }

    /// Restarts it empty, in a new incarnation.
    pub fn restart(&self) {
        let mut s = self.state();
        *s = State {
            incarnation: s.incarnation + 1,
            updated: s.updated,
            learners: std::mem::take(&mut s.learners),
            ..State::default()
        };
    }

    fn summary(&self, s: &State) -> ShardSummary {
        ShardSummary {
            shard: self.number,
            shard_incarnation: s.incarnation,
            rows: s.rows,
            priority_sum: s.rows as f64,
            inserted: s.inserted,
            sampled: s.sampled,
            newest_writer: s.newest_writer,
            ..ShardSummary::default()
        }
    }
}

/// A row that depends only on its slot.
fn row(slot: u32) -> Row {
    let at = i16::try_from(4 + slot % 12).unwrap();
    let frame = |x| FrameRef {
        position: [x, at, at],
        stride: 1,
        valid: true,
    };
    Row {
        header: RowHeader {
            scan: (slot % 2) as u16,
            ..RowHeader::default()
        },
        agents: vec![AgentStep {
            agent: (slot % 2) as u16,
            scale: (slot % 3) as u8,
            next_scale: (slot % 3) as u8,
            action: (slot % 6) as u8,
            active: true,
            reward: if slot.is_multiple_of(2) { 1.0 } else { -1.0 },
            discount: 0.9,
            state: vec![frame(at)],
            next: vec![frame(at + 1)],
        }],
    }
}

#[tonic::async_trait]
impl Replay for Shard {
    type InsertStream = Pin<Box<dyn Stream<Item = Result<wire::InsertReply, Status>> + Send>>;

    async fn insert(
        &self,
        _: Request<Streaming<wire::InsertRequest>>,
    ) -> Result<Response<Self::InsertStream>, Status> {
        Err(Status::unimplemented("the test inserts rows"))
    }

    async fn sample(
        &self,
        request: Request<wire::SampleRequest>,
    ) -> Result<Response<wire::SampleReply>, Status> {
        let request = SampleRequest::try_from(request.into_inner())?;
        let mut s = self.state();
        if s.down {
            return Err(Status::unavailable("down"));
        }
        s.learners.insert(request.learner);
        if request.shard_incarnation == s.incarnation {
            s.limit = s.limit.max(request.insert_limit);
        }
        let rows = if s.rows == 0 { 0 } else { request.rows };
        let mut packed = Vec::new();
        let mut keys = Vec::new();
        for i in 0..rows as u64 {
            let slot = u32::try_from((s.sampled + i) % s.rows).unwrap();
            row(slot).write_to(&mut packed);
            keys.push(RowKey {
                shard: self.number,
                incarnation: s.incarnation,
                slot,
                generation: 0,
            });
        }
        s.sampled += rows as u64;
        let batch = SampledBatch {
            packed: packed.into(),
            keys,
            probabilities: vec![1.0 / s.rows.max(1) as f64; rows],
            summary: self.summary(&s),
        };
        Ok(Response::new(batch.into()))
    }

    async fn update_priorities(
        &self,
        request: Request<wire::UpdateRequest>,
    ) -> Result<Response<wire::UpdateReply>, Status> {
        let update = PriorityUpdate::try_from(request.into_inner())?;
        let mut s = self.state();
        if s.down {
            return Err(Status::unavailable("down"));
        }
        let rows = update.priorities.len() as u64;
        let current = update.shard_incarnation == s.incarnation;
        let (applied, stale) = if current { (rows, 0) } else { (0, rows) };
        s.updated += applied;
        Ok(Response::new(UpdateReply { applied, stale }))
    }

    async fn status(
        &self,
        _: Request<wire::ShardStatusRequest>,
    ) -> Result<Response<wire::ShardStatus>, Status> {
        Err(Status::unimplemented("not used"))
    }

    async fn snapshot(
        &self,
        _: Request<wire::SnapshotRequest>,
    ) -> Result<Response<wire::SnapshotReply>, Status> {
        Err(Status::unimplemented("not used"))
    }
}
