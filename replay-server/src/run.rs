//! Runs a shard from start to shutdown.

use crate::config::ShardConfig;
use crate::error::ShardError;
use crate::metrics::ShardMetrics;
use crate::service::ReplayService;
use crate::service::shared::{SharedShard, Taken};
use common::run::telemetry::in_current_span;
use proto::transport::channel;
use proto::transport::metrics::Metrics;
use proto::transport::serve::{self, Boxed};
use proto::wire;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tracing::Instrument as _;

/// How long the snapshot at shutdown may take.
const SNAPSHOT_GRACE: Duration = Duration::from_secs(5);

/// Serves one shard on `listener` until `shutdown`. Insert streams then end with
/// `UNAVAILABLE`, and writers keep their unacknowledged batches.
pub async fn run(
    config: ShardConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ShardError> {
    run_observed(config, listener, &Metrics::default(), shutdown).await
}

/// [`run`], exporting the shard's metrics to `metrics`.
pub async fn run_observed(
    config: ShardConfig,
    listener: TcpListener,
    metrics: &Metrics,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ShardError> {
    boxed(config, listener, metrics, Box::pin(shutdown)).await
}

fn boxed<'a>(
    config: ShardConfig,
    listener: TcpListener,
    metrics: &'a Metrics,
    shutdown: Boxed<'a, ()>,
) -> Boxed<'a, Result<(), ShardError>> {
    Box::pin(serve(config, listener, metrics, shutdown))
}

async fn serve(
    config: ShardConfig,
    listener: TcpListener,
    metrics: &Metrics,
    shutdown: Boxed<'_, ()>,
) -> Result<(), ShardError> {
    let every = config.journal.as_ref().map(|j| j.snapshot_every);
    let (settings, security) = (config.clone(), config.security.clone());
    let shard = in_current_span(move || SharedShard::new(settings));
    let shard = tokio::task::spawn_blocking(shard).await;
    let shard = Arc::new(shard.map_err(|_| ShardError::Poisoned)??);
    metrics.add(ShardMetrics::new(shard.clone()));
    let (stop, stopping) = watch::channel(false);
    let service = ReplayService::new(shard.clone(), stopping);
    let routes = Routes::new(channel::replay_server(service));
    let address = listener.local_addr();
    let address = address.map_or_else(|error| error.to_string(), |address| address.to_string());
    tracing::info!(address, shard = config.shard, capacity = config.capacity, selector = ?config.selector, "replay shard listens");
    let shutdown = async {
        shutdown.await;
        tracing::info!(shard = config.shard, "replay shard stops");
        let _ = stop.send(true);
    };
    let saving = every.map(|every| tokio::spawn(save(shard.clone(), every).in_current_span()));
    let names = [wire::replay_server::SERVICE_NAME];
    let served = serve::run_server(listener, security, routes, &names, shutdown).await;
    if let Some(saving) = saving {
        saving.abort();
        drain(&shard).await?;
    }
    served?;
    let summary = shard.with(|shard, now| shard.summary(now))?;
    tracing::info!(
        shard = config.shard,
        rows = summary.rows,
        inserted = summary.inserted,
        sampled = summary.sampled,
        "replay shard stopped"
    );
    Ok(())
}

/// Saves the priorities periodically.
async fn save(shard: Arc<SharedShard>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match shard.snapshot().await {
            Ok(Some(Taken { row, bytes })) => tracing::debug!(row, bytes, "priorities saved"),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "priorities cannot be saved; the previous snapshot remains");
            }
        }
    }
}

/// Saves the priorities, if they can be saved in time, then commits all rows.
async fn drain(shard: &Arc<SharedShard>) -> Result<(), ShardError> {
    let last = tokio::time::timeout(SNAPSHOT_GRACE, shard.snapshot()).await;
    let stopping = shard.clone();
    let stopped = tokio::task::spawn_blocking(in_current_span(move || stopping.stop())).await;
    stopped.map_err(|_| ShardError::Poisoned)??;
    if let Ok(Err(error)) = last {
        tracing::warn!(%error, "priorities could not be saved at the stop");
    }
    Ok(())
}
