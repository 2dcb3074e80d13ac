//! Runs a gRPC service: listens, serves health and reflection, shuts down on request.

use crate::transport::channel;
use crate::transport::security::Security;
use crate::wire;
use std::future::Future;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::Routes;

/// How long open calls may take to end after the stop signal.
pub const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listening socket or a connection task failed.
    #[error("serving failed")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors in this build do not decode.
    #[error("gRPC reflection cannot read the descriptors of this build")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves `routes` on `listener` until `shutdown`, to callers that `security`
/// admits, with gRPC health (the services named in `services` and the server as
/// a whole) and reflection.
///
/// After `shutdown` it accepts no new connections, health reports not serving, and
/// open calls get [`DRAIN_GRACE`] to end. Endless streams should watch the same
/// signal.
pub async fn run_server(
    listener: TcpListener,
    security: Security,
    routes: Routes,
    services: &[&str],
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in services {
        reporter
            .set_service_status(*service, tonic_health::ServingStatus::Serving)
            .await;
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    security.log_state();
    let exposed = listener.local_addr().is_ok_and(|a| !a.ip().is_loopback());
    if exposed && !security.has_tls() {
        tracing::warn!(
            "no TLS: whoever reaches this port can read and write, and see the token if there is one"
        );
    }
    let incoming = security.grpc_acceptor(listener);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = channel::server_builder()
        .layer(security.guard())
        .add_routes(routes)
        .add_service(health)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, async {
            let _ = stopped.await;
        });
    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return Ok(ended?),
        () = shutdown => {}
    }
    for service in services {
        reporter
            .set_service_status(*service, tonic_health::ServingStatus::NotServing)
            .await;
    }
    reporter
        .set_service_status("", tonic_health::ServingStatus::NotServing)
        .await;
    let _ = stop.send(());
    match tokio::time::timeout(DRAIN_GRACE, server).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            tracing::warn!(
                grace_s = DRAIN_GRACE.as_secs(),
                "open calls did not end in time and are cut"
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::health;
    use crate::transport::listen;
    use crate::transport::security::Role;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    #[tokio::test]
    async fn answers_health_and_reflection_until_shutdown() {
        let listener = listen::bind("127.0.0.1:0".parse().unwrap(), false)
            .await
            .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(run_server(
            listener,
            Security::none(),
            Routes::default(),
            &["x"],
            async {
                let _ = stopped.await;
            },
        ));
        let check = || async { health::check(&address, &Security::none(), Role::Replay).await };
        check().await.unwrap();

        let mut client = ServerReflectionClient::new(channel::connect_lazy(&address).unwrap());
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
        let names: Vec<_> = list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect();
        for name in [
            "landmarl.v1.Replay",
            "landmarl.v1.Learner",
            "grpc.health.v1.Health",
        ] {
            assert!(
                names.iter().any(|found| found == name),
                "{name} in {names:?}"
            );
        }

        stop.send(()).unwrap();
        served.await.unwrap().unwrap();
        assert!(check().await.is_err());
    }
}
