//! A shard from its start to its stop.

use crate::config::ShardConfig;
use crate::error::ShardError;
use crate::service::ReplayService;
use crate::shared::SharedShard;
use proto::{channel, serve, wire};
use std::future::Future;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;

/// Serves one shard on `listener` until `shutdown`; then insert streams end
/// with `UNAVAILABLE`, so that writers keep what is not acknowledged.
pub async fn run(
    config: ShardConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ShardError> {
    let shard = Arc::new(SharedShard::new(config.clone())?);
    let (stop, stopping) = watch::channel(false);
    let routes = Routes::new(channel::replay_server(ReplayService::new(
        shard.clone(),
        stopping,
    )));
    let address = listener
        .local_addr()
        .map_or_else(|error| error.to_string(), |address| address.to_string());
    tracing::info!(address, shard = config.shard, capacity = config.capacity, selector = ?config.selector, "replay shard listens");
    let shutdown = async {
        shutdown.await;
        tracing::info!(shard = config.shard, "replay shard stops");
        let _ = stop.send(true);
    };
    serve::run_server(
        listener,
        routes,
        &[wire::replay_server::SERVICE_NAME],
        shutdown,
    )
    .await?;
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
