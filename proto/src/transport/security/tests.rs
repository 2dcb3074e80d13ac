//! Tests with real servers, clients and certificates.

use super::issue::{Authority, Pair, token};
use super::*;
use crate::transport::channel::replay_client;
use crate::transport::health::{self, Health, HealthError};
use crate::transport::http;
use crate::transport::listen;
use crate::transport::serve;
use crate::wire::replay_client::ReplayClient;
use crate::wire::{SampleRequest, ShardStatusRequest};
use common::config::Config;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::Code;
use tonic::service::Routes;

/// Files of one cluster: an authority and what it signed.
pub(crate) struct Certs {
    dir: tempfile::TempDir,
    pub(crate) authority: Authority,
}

impl Certs {
    pub(crate) fn new() -> Self {
        let certs = Self {
            dir: tempfile::tempdir().unwrap(),
            authority: Authority::new(1).unwrap(),
        };
        certs.write("ca.pem", &certs.authority.pair().certificate);
        certs.write("token", &token().unwrap());
        certs
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn issue(&self, role: Role, days: u32) -> Pair {
        self.authority.certificate(role, &[], days).unwrap()
    }

    /// The configuration of a process in this role.
    pub(crate) fn config(&self, role: Role, days: u32) -> ClusterConfig {
        let pair = self.issue(role, days);
        ClusterConfig {
            ca: self.path("ca.pem"),
            cert: self.write(&format!("{role}.pem"), &pair.certificate),
            key: self.write(&format!("{role}.key"), &pair.key),
            token_file: self.path("token"),
            ..Config::defaults().unwrap().cluster
        }
    }

    fn security(&self, role: Role) -> Security {
        Security::from_config(&self.config(role, 1)).unwrap()
    }
}

pub(crate) struct Server {
    pub(crate) address: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), serve::ServeError>>,
}

impl Server {
    pub(crate) async fn start(security: Security) -> Self {
        Self::start_with(security, Health::default()).await
    }

    pub(crate) async fn start_with(security: Security, health: Health) -> Self {
        let listener = listen::bind("127.0.0.1:0".parse().unwrap(), false)
            .await
            .unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let routes = Routes::default();
        let until = async move {
            let _ = stopped.await;
        };
        let served = tokio::spawn(async move {
            serve::run_server(listener, security, routes, &["x"], &health, until).await
        });
        Self {
            address,
            stop,
            served,
        }
    }

    pub(crate) async fn check(&self, security: &Security) -> Result<(), HealthError> {
        health::check(&self.address, security, Role::Replay).await
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

fn client(server: &Server, security: &Security) -> ReplayClient<Channel> {
    replay_client(security.connect(&server.address, Role::Replay).unwrap())
}

/// Calls a method that the server lacks: `Unimplemented` means that the guard admitted the call.
async fn status(server: &Server, security: &Security) -> Code {
    let mut client = client(server, security);
    let reply = client.status(ShardStatusRequest {}).await;
    reply.unwrap_err().code()
}

#[tokio::test]
async fn both_sides_must_come_from_one_authority_and_the_server_in_its_role() {
    let (ours, theirs) = (Certs::new(), Certs::new());
    let server = Server::start(ours.security(Role::Replay)).await;
    for role in Role::ALL {
        server.check(&ours.security(role)).await.unwrap();
    }
    assert!(server.check(&Security::none()).await.is_err(), "plain text");
    let foreign = server.check(&theirs.security(Role::Actor)).await;
    let error = foreign.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    // Signed by our authority, but an actor that claims to be a shard.
    let impostor = Server::start(ours.security(Role::Actor)).await;
    let error = impostor.check(&ours.security(Role::Learner)).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    // Other clients are unaffected.
    server.check(&ours.security(Role::Learner)).await.unwrap();
    server.stop().await;
    impostor.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_does_not_pass_even_where_ours_is_trusted() {
    let (ours, theirs) = (Certs::new(), Certs::new());
    let mut config = theirs.config(Role::Actor, 1);
    // The files do not match, so the configuration is refused before any call.
    config.ca = ours.path("ca.pem");
    let refused = Security::from_config(&config).unwrap_err().to_string();
    assert!(
        refused.contains("was not signed by the authority"),
        "{refused}"
    );
    // So the client is built by hand.
    let server = Server::start(ours.security(Role::Replay)).await;
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(
            ours.authority.pair().certificate,
        ))
        .domain_name(Role::Replay.dns_name());
    let foreign = theirs.issue(Role::Actor, 1);
    let identity = tonic::transport::Identity::from_pem(foreign.certificate, foreign.key);
    for tls in [tls.clone(), tls.identity(identity)] {
        let endpoint = endpoint(&server.address, "https").unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect_lazy();
        let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
        let asked = client.check(tonic_health::pb::HealthCheckRequest::default());
        assert!(asked.await.is_err());
    }
    server.check(&ours.security(Role::Actor)).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn refusals_for_role_or_token_name_the_remedy() {
    let certs = Certs::new();
    let server = Server::start(certs.security(Role::Replay)).await;
    assert_eq!(
        status(&server, &certs.security(Role::Monitor)).await,
        Code::Unimplemented
    );
    let sample = async |security: Security| {
        let request = SampleRequest::default();
        let reply = client(&server, &security).sample(request).await;
        reply.unwrap_err()
    };
    assert_eq!(
        sample(certs.security(Role::Learner)).await.code(),
        Code::Unimplemented
    );
    let denied = sample(certs.security(Role::Actor)).await;
    assert_eq!(denied.code(), Code::PermissionDenied);
    let sentence =
        "a certificate of actor may not call /landmarl.v1.Replay/Sample, which is for learner";
    assert!(denied.message().starts_with(sentence), "{denied}");

    let mut config = certs.config(Role::Learner, 1);
    config.token_file = String::new();
    let denied = sample(Security::from_config(&config).unwrap()).await;
    assert_eq!(denied.code(), Code::Unauthenticated);
    assert!(denied.message().contains("cluster.token_file"), "{denied}");
    config.token_file = certs.write("other", &token().unwrap());
    let other = Security::from_config(&config).unwrap();
    let denied = sample(other.clone()).await;
    assert_eq!(denied.code(), Code::Unauthenticated);
    assert!(
        denied.message().contains("is not this cluster's"),
        "{denied}"
    );
    // Probes need none.
    server.check(&other).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn the_token_is_checked_without_tls_too() {
    let certs = Certs::new();
    let plain = |token_file: String| {
        let config = ClusterConfig {
            token_file,
            ..Config::defaults().unwrap().cluster
        };
        Security::from_config(&config).unwrap()
    };
    let ours = plain(certs.path("token"));
    assert!(!ours.has_tls() && ours.identity.is_none());
    let server = Server::start(ours.clone()).await;
    assert_eq!(status(&server, &ours).await, Code::Unimplemented);
    assert_eq!(
        status(&server, &Security::none()).await,
        Code::Unauthenticated
    );
    let other = plain(certs.write("other", &token().unwrap()));
    assert_eq!(status(&server, &other).await, Code::Unauthenticated);
    server.check(&Security::none()).await.unwrap();
    server.stop().await;
}

type Change<'a> = &'a dyn Fn(&mut ClusterConfig);

#[test]
fn files_that_do_not_fit_are_named_with_their_key() {
    let certs = Certs::new();
    let good = certs.config(Role::Actor, 400);
    Security::from_config(&good).unwrap();
    let refused = |change: Change<'_>| {
        let mut config = good.clone();
        change(&mut config);
        Security::from_config(&config).unwrap_err().to_string()
    };
    let other = certs.issue(Role::Actor, 1);
    let pem = "holds no certificate in PEM";
    let cases: [(Change<'_>, &str, &str); 6] = [
        (&|c| c.ca = "/no/ca".into(), "ca", "cannot read /no/ca"),
        (&|c| c.ca = certs.path("token"), "ca", pem),
        (&|c| c.cert = c.key.clone(), "cert", pem),
        (
            &|c| c.key = c.cert.clone(),
            "key",
            "holds no private key in PEM",
        ),
        (
            &|c| c.key = certs.write("other.key", &other.key),
            "key",
            "does not belong to cluster.cert",
        ),
        (
            &|c| c.token_file = certs.write("short", "abc"),
            "token_file",
            "fewer than 16",
        ),
    ];
    for (change, key, why) in cases {
        let error = refused(change);
        let key = format!("\"cluster.{key}\"");
        assert!(error.contains(&key) && error.contains(why), "{error}");
    }
}

#[test]
fn the_days_left_and_the_roles_are_read_from_the_certificate() {
    let certs = Certs::new();
    for (days, role) in [(1, Role::Actor), (90, Role::Learner)] {
        let security = Security::from_config(&certs.config(role, days)).unwrap();
        let identity = security.identity.unwrap();
        assert_eq!(identity.days_left, u64::from(days));
        assert_eq!(identity.roles, Roles::of(&[role]));
    }
}

/// Sends these bytes and nothing more, and waits until the server closes the connection.
async fn silence(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    let mut greeting = Vec::new();
    let closed = stream.read_to_end(&mut greeting);
    let closed = tokio::time::timeout(std::time::Duration::from_secs(60), closed).await;
    assert!(closed.is_ok(), "the connection stays after {bytes:?}");
}

/// The preface of HTTP/2 but for its last byte.
const ALMOST: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r";

#[tokio::test]
async fn a_client_that_never_ends_its_first_bytes_is_disconnected() {
    let certs = Certs::new();
    let secured = Server::start(certs.security(Role::Replay)).await;
    let plain = Server::start(Security::none()).await;
    let (http, _serving) = http::tests::start(&Security::none()).await;
    let client = http::tests::client(&certs, Some(&certs.issue(Role::Actor, 1)));
    let client = TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from(Role::Replay.dns_name()).unwrap();
    let tcp = async |address: &str| TcpStream::connect(address).await.unwrap();
    let tls = client.connect(name, tcp(&secured.address).await).await;
    tokio::join!(
        silence(tcp(&secured.address).await, b""),
        // The beginning of a handshake.
        silence(tcp(&secured.address).await, b"\x16"),
        silence(tls.unwrap(), &ALMOST[..1]),
        silence(tcp(&plain.address).await, b""),
        silence(tcp(&plain.address).await, &ALMOST[..1]),
        silence(tcp(&plain.address).await, ALMOST),
        silence(tcp(&http.to_string()).await, b""),
        silence(tcp(&http.to_string()).await, b"G"),
    );
    secured.check(&certs.security(Role::Actor)).await.unwrap();
    plain.check(&Security::none()).await.unwrap();
    secured.stop().await;
    plain.stop().await;
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused_and_later_calls_succeed() {
    let server = Server::start(Security::none()).await;
    let mut client = client(&server, &Security::none());
    let mut asked = async |bytes: usize| {
        let mut request = tonic::Request::new(ShardStatusRequest {});
        let value = "x".repeat(bytes).parse().unwrap();
        request.metadata_mut().insert("much", value);
        client.status(request).await.unwrap_err().code()
    };
    assert_eq!(asked(8 << 10).await, Code::Unimplemented);
    assert_ne!(asked(32 << 10).await, Code::Unimplemented);
    assert_eq!(asked(8 << 10).await, Code::Unimplemented);
    server.stop().await;
}

#[test]
fn with_tls_a_peer_without_a_role_is_refused() {
    let certs = Certs::new();
    let security = certs.security(Role::Learner);
    let token = format!(
        "Bearer {}",
        std::fs::read_to_string(certs.path("token")).unwrap()
    );
    let path = "/landmarl.v1.Learner/Status";
    let admit = |roles| security.admit(path, Some(token.as_bytes()), roles);
    assert_eq!(admit(Some(Roles::of(&[Role::Monitor]))), Ok(()));
    assert!(matches!(admit(None), Err(Denied::Role { .. })));
    let made_up = format!("/{}", "x".repeat(10_000));
    let denied = security.admit(&made_up, None, Some(Roles::of(&[Role::Operator])));
    let error = denied.unwrap_err().to_string();
    assert!(
        error.len() < 400 && error.contains("is for no role"),
        "{error}"
    );
}
