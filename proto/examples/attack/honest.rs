//! Clients that call the services as they should, from an address of their own.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proto::messages::status::JournalStatus;
use proto::transport::channel::{learner_client, replay_client};
use proto::transport::health;
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::cluster::Cluster;
use crate::net::{self, Credentials, Port, Protocol, Stream};

/// Between two calls of one client.
const EVERY: Duration = Duration::from_millis(50);
/// The services' own connections come from here too; attackers do not.
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Failures that are shown.
const SHOWN: usize = 5;

/// What the calls of all clients did.
#[derive(Debug, Default)]
pub struct Calls {
    /// Of those that succeeded.
    pub latencies: Vec<Duration>,
    pub failed: usize,
    /// The first of them.
    pub failures: Vec<String>,
    /// Rows on the shard's disk at the first call and at the last.
    pub rows: Option<(u64, u64)>,
    /// Why the journal could not be written.
    pub journal: Option<String>,
}

impl Calls {
    /// Milliseconds within which this share of all calls ended well; 0 without calls.
    pub fn quantile_ms(&mut self, share: f64) -> f64 {
        self.latencies.sort_unstable();
        let at = (self.latencies.len() as f64 * share).ceil() as usize;
        let at = self.latencies.get(at.saturating_sub(1));
        at.map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }

    pub fn count(&self) -> usize {
        self.latencies.len() + self.failed
    }
}

/// Clients that call until they are stopped, in a thread of their own: what an attack costs the
/// attacker does not slow them.
pub struct Honest {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Calls>>,
}

impl Honest {
    pub fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = Clients {
            stop: Arc::clone(&stop),
            calls: Arc::default(),
            security: cluster.security.clone(),
            operator: cluster.operator.clone(),
        };
        let ports = cluster.ports.clone();
        let thread = std::thread::spawn(move || run(&clients, ports));
        Self { stop, thread }
    }

    pub fn stop(self) -> Result<Calls> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .ok()
            .context("the honest clients failed")?
    }
}

fn run(clients: &Clients, ports: Vec<Port>) -> Result<Calls> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for port in ports {
            let kinds: &[Kind] = match port.protocol {
                Protocol::Grpc => &[Kind::Health, Kind::NewHealth, Kind::Status],
                Protocol::Http => &[Kind::Get, Kind::NewGet("/health"), Kind::NewGet("/metrics")],
            };
            for kind in kinds {
                tasks.spawn(clients.clone().repeat(port, *kind));
            }
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(std::mem::take(&mut *clients.calls()))
    })
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Health of a gRPC service, on one connection or on a new one each time.
    Health,
    NewHealth,
    /// The status of learner or shard, on one connection.
    Status,
    /// `/health` on a connection that is kept, or a path on a new one each time.
    Get,
    NewGet(&'static str),
}

#[derive(Clone)]
struct Clients {
    stop: Arc<AtomicBool>,
    calls: Arc<Mutex<Calls>>,
    security: Security,
    operator: Option<Credentials>,
}

impl Clients {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One client: calls again and again.
    async fn repeat(self, port: Port, kind: Kind) -> Result<()> {
        let address = port.address.to_string();
        let channel = self.security.connect(&address, port.role)?;
        let mut kept = None;
        let mut turns = interval(EVERY);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stop.load(Ordering::Relaxed) {
            turns.tick().await;
            let begun = Instant::now();
            let call = async {
                match kind {
                    Kind::NewHealth => {
                        Ok(health::check(&address, &self.security, port.role).await?)
                    }
                    Kind::Health => {
                        let mut client = HealthClient::new(channel.clone());
                        let request = HealthCheckRequest::default();
                        unary(request, CALL_DEADLINE, |r| client.check(r)).await?;
                        Ok(())
                    }
                    Kind::Status if port.role == Role::Learner => {
                        let mut client = learner_client(channel.clone());
                        let request = wire::LearnerStatusRequest::default();
                        unary(request, CALL_DEADLINE, |r| client.status(r)).await?;
                        Ok(())
                    }
                    Kind::Status => {
                        let mut client = replay_client(channel.clone());
                        let request = wire::ShardStatusRequest::default();
                        let status = unary(request, CALL_DEADLINE, |r| client.status(r)).await?;
                        self.note(status.journal);
                        Ok(())
                    }
                    Kind::Get => self.get(port, "/health", &mut kept, true).await,
                    Kind::NewGet(path) => self.get(port, path, &mut None, false).await,
                }
            };
            let done = timeout(CALL_DEADLINE, call).await;
            let done = done.unwrap_or_else(|_| bail!("no answer within {CALL_DEADLINE:?}"));
            self.count(port, kind, begun, done);
        }
        Ok(())
    }

    fn note(&self, journal: Option<JournalStatus>) {
        let Some(journal) = journal else { return };
        let mut calls = self.calls();
        let first = calls.rows.map_or(journal.durable, |(first, _)| first);
        calls.rows = Some((first, journal.durable));
        calls.journal = calls.journal.take().or(journal.failing);
    }

    fn count(&self, port: Port, kind: Kind, begun: Instant, done: Result<()>) {
        let mut calls = self.calls();
        match done {
            Ok(()) => calls.latencies.push(begun.elapsed()),
            Err(error) => {
                calls.failed += 1;
                if calls.failures.len() < SHOWN {
                    let service = port.role;
                    calls
                        .failures
                        .push(format!("{service} {kind:?}: {error:#}"));
                }
            }
        }
    }

    /// `GET` on a connection that is there, or on a new one.
    async fn get(
        &self,
        port: Port,
        path: &str,
        kept: &mut Option<Stream>,
        keep: bool,
    ) -> Result<()> {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => net::open(FROM, port, self.operator.as_ref()).await?,
        };
        let host = port.address;
        let connection = if keep { "keep-alive" } else { "close" };
        let token = self.operator.as_ref().map(|with| &with.token);
        let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let authorization = authorization.unwrap_or_default();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: {connection}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        reply(&mut stream).await?;
        *kept = keep.then_some(stream);
        Ok(())
    }
}

/// Reads an answer whose head names its length.
async fn reply(stream: &mut Stream) -> Result<()> {
    let mut read = Vec::new();
    let mut part = vec![0; 16 << 10];
    loop {
        let more = stream.read(&mut part).await?;
        ensure!(
            more > 0,
            "the connection was closed after {} bytes",
            read.len()
        );
        read.extend(&part[..more]);
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
        let first = head.lines().next().unwrap_or_default();
        ensure!(first.contains(" 200 "), "{first}");
        let length = head.lines().find_map(|l| l.strip_prefix("content-length:"));
        let length: usize = length.context("no length")?.trim().parse()?;
        if read.len() >= end + 4 + length {
            return Ok(());
        }
    }
}
