//! Runs a gRPC service: listens, serves health and reflection, shuts down on request.

use crate::transport::calls::CallsLayer;
use crate::transport::channel;
use crate::transport::health::Health;
use crate::transport::security::Security;
use crate::wire;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// How long open calls may take to end after the stop signal.
pub const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// How soon gRPC health follows what the service checks of itself.
const HEALTH_EVERY: Duration = Duration::from_millis(500);

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("serving failed")]
    Transport(#[from] tonic::transport::Error),
    #[error("gRPC reflection cannot read the descriptors of this build")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A future behind a pointer. What it does is compiled in the crate that boxes it, and not
/// again in every program and test that awaits it.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Serves `routes` on `listener` until `shutdown`, to callers that `security`
/// admits, with gRPC health (the services named in `services` and the server as
/// a whole, serving while `health` holds) and reflection.
///
/// After `shutdown` it accepts no new connections, health reports not serving, and
/// open calls get [`DRAIN_GRACE`] to end. Endless streams should watch the same
/// signal.
pub async fn run_server(
    listener: TcpListener,
    security: Security,
    routes: Routes,
    services: &[&str],
    health: &Health,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let shutdown = Box::pin(shutdown);
    boxed(listener, security, routes, (services, health), shutdown).await
}

fn boxed<'a>(
    listener: TcpListener,
    security: Security,
    routes: Routes,
    served: (&'a [&'a str], &'a Health),
    shutdown: Boxed<'a, ()>,
) -> Boxed<'a, Result<(), ServeError>> {
    Box::pin(serve(listener, security, routes, served, shutdown))
}

async fn serve(
    listener: TcpListener,
    security: Security,
    routes: Routes,
    (services, own): (&[&str], &Health),
    shutdown: Boxed<'_, ()>,
) -> Result<(), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    set_status(&reporter, services, ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    security.log_state();
    let exposed = listener.local_addr().is_ok_and(|a| !a.ip().is_loopback());
    if exposed && !security.has_tls() {
        tracing::warn!(
            "no TLS: anyone who reaches this port can read and write, and read the token if there is one"
        );
    }
    let incoming = security.grpc_acceptor(listener);
    let (stop, stopped) = oneshot::channel::<()>();
    // Connections have tasks of their own, outside the span of this one.
    let span = tracing::Span::current();
    let server = channel::server_builder()
        .trace_fn(move |_| span.clone())
        .layer(security.guard())
        .layer(CallsLayer)
        .add_routes(routes)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, async {
            let _ = stopped.await;
        });
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return Ok(ended?),
        () = follow(&reporter, services, own) => {}
        () = shutdown => {}
    }
    set_status(&reporter, services, ServingStatus::NotServing).await;
    let _ = stop.send(());
    match tokio::time::timeout(DRAIN_GRACE, server).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            tracing::warn!(
                grace_s = DRAIN_GRACE.as_secs(),
                "open calls did not end in time and are aborted"
            );
            Ok(())
        }
    }
}

/// Reports what the service checks of itself; never ends.
async fn follow(reporter: &HealthReporter, services: &[&str], health: &Health) {
    let mut before = Ok(());
    loop {
        let now = health.check();
        if now != before {
            match &now {
                Ok(()) => {
                    tracing::info!("healthy again");
                    set_status(reporter, services, ServingStatus::Serving).await;
                }
                Err(why) => {
                    tracing::error!(why, "not healthy: health checks fail from now on");
                    set_status(reporter, services, ServingStatus::NotServing).await;
                }
            }
            before = now;
        }
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

/// Sets the status of the services, and of the server as a whole, which has no name.
async fn set_status(reporter: &HealthReporter, services: &[&str], status: ServingStatus) {
    for service in services.iter().chain(&[""]) {
        reporter.set_service_status(*service, status).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::transport::health;
    use crate::transport::security::Role;
    use crate::transport::security::tests::Server;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    #[tokio::test]
    async fn health_and_reflection_are_served_until_shutdown() {
        let server = Server::start(Security::none()).await;
        server.check(&Security::none()).await.unwrap();

        let channel = channel::connect_lazy(&server.address).unwrap();
        let mut client = ServerReflectionClient::new(channel);
        let question = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let replies = client
            .server_reflection_info(tokio_stream::once(question))
            .await
            .unwrap();
        let reply = replies.into_inner().message().await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
            panic!("{reply:?}");
        };
        let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
        for name in ["landmarl.v1.Replay", "landmarl.v1.Learner"] {
            assert!(names.contains(&name.to_owned()), "{name} in {names:?}");
        }
        assert!(names.contains(&"grpc.health.v1.Health".to_owned()));

        let address = server.address.clone();
        server.stop().await;
        let security = Security::none();
        let check = health::check(&address, &security, Role::Replay);
        assert!(check.await.is_err());
    }

    #[tokio::test]
    async fn grpc_health_follows_the_service_s_own_checks() {
        let broken = Arc::new(AtomicBool::new(false));
        let health = Health::default();
        let watched = Arc::clone(&broken);
        health.add(move || {
            let broken = watched.load(Ordering::Relaxed);
            let why = broken.then(|| "the table is broken".to_owned());
            why.map_or(Ok(()), Err)
        });
        let server = Server::start_with(Security::none(), health).await;
        for state in [false, true, false] {
            broken.store(state, Ordering::Relaxed);
            let begun = std::time::Instant::now();
            while server.check(&Security::none()).await.is_err() != state {
                assert!(
                    begun.elapsed() < Duration::from_secs(20),
                    "still {}",
                    !state
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        server.stop().await;
    }
}
