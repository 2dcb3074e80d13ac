//! Runs a shard from start to shutdown.

use crate::config::ShardConfig;
use crate::error::ShardError;
use crate::metrics::ShardMetrics;
use crate::service::ReplayService;
use crate::service::shared::{SharedShard, Taken};
use common::run::telemetry::in_current_span;
use proto::transport::channel;
use proto::transport::health::Health;
use proto::transport::metrics::Metrics;
use proto::transport::serve::{self, Boxed};
use proto::wire;
use std::future::Future;
use std::sync::{Arc, OnceLock};
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
    let (metrics, health) = (Metrics::default(), Health::default());
    run_observed(config, listener, (&metrics, &health), shutdown).await
}

/// [`run`], exporting the shard's metrics, and whether it can serve.
pub async fn run_observed(
    config: ShardConfig,
    listener: TcpListener,
    observed: (&Metrics, &Health),
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ShardError> {
    boxed(config, listener, observed, Box::pin(shutdown)).await
}

fn boxed<'a>(
    config: ShardConfig,
    listener: TcpListener,
    observed: (&'a Metrics, &'a Health),
    shutdown: Boxed<'a, ()>,
) -> Boxed<'a, Result<(), ShardError>> {
    Box::pin(serve(config, listener, observed, shutdown))
}

async fn serve(
    config: ShardConfig,
    listener: TcpListener,
    (metrics, health): (&Metrics, &Health),
    shutdown: Boxed<'_, ()>,
) -> Result<(), ShardError> {
    let started = watch_shard(health, config.shard);
    let every = config.journal.as_ref().map(|j| j.snapshot_every);
    let (settings, security) = (config.clone(), config.security.clone());
    let shard = in_current_span(move || SharedShard::new(settings));
    let shard = tokio::task::spawn_blocking(shard).await;
    let shard = Arc::new(shard.map_err(|_| ShardError::Poisoned)??);
    metrics.add(ShardMetrics::new(shard.clone()));
    let _ = started.set(shard.clone());
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
    let served = serve::run_server(listener, security, routes, &names, health, shutdown).await;
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

/// Adds the check of a shard that is set once it has read its journal.
fn watch_shard(health: &Health, number: u32) -> Arc<OnceLock<Arc<SharedShard>>> {
    let started = Arc::new(OnceLock::<Arc<SharedShard>>::new());
    let watched = started.clone();
    health.add(move || match watched.get() {
        None => Err(format!("shard {number} starts: it reads its rows")),
        Some(shard) => shard.check().map_err(|e| format!("shard {number}: {e}")),
    });
    started
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_healthy_from_its_start_until_its_table_or_journal_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let start = |number: u32| {
            let journal = crate::JournalConfig::new(&folder.path().join(number.to_string()));
            let config = ShardConfig {
                shard: number,
                capacity: 10,
                journal: Some(journal),
                ..ShardConfig::default()
            };
            let health = Health::default();
            let started = watch_shard(&health, number);
            let why = health.check().unwrap_err();
            assert!(why.contains(&format!("shard {number} starts")), "{why}");
            let shard = Arc::new(SharedShard::new(config).unwrap());
            started.set(shard.clone()).unwrap();
            assert_eq!(health.check(), Ok(()));
            (shard, health)
        };
        let (shard, health) = start(3);
        let poisoned = shard.clone();
        let panic = move || poisoned.with::<()>(|_, _| panic!("in the table"));
        let panicked = std::thread::spawn(panic);
        assert!(panicked.join().is_err());
        let why = health.check().unwrap_err();
        assert!(
            why.contains("shard 3") && why.contains("restart the shard"),
            "{why}"
        );

        let (shard, health) = start(4);
        shard.stop().unwrap();
        let why = health.check().unwrap_err();
        assert!(
            why.contains("shard 4") && why.contains("thread has ended"),
            "{why}"
        );
    }
}
