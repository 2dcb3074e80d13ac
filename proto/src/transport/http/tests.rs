//! Real requests over real sockets.

use std::sync::{Arc, OnceLock};

use common::config::Config;
use common::run::telemetry::{self, Console, Control};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::transport::health::Health;
use crate::transport::metrics::{Metrics, Process};
use crate::transport::security::Role;
use crate::transport::security::issue::Pair;
use crate::transport::security::tests::Certs;

/// Logging is set up once per process.
pub(crate) fn log() -> Control {
    static GUARD: OnceLock<telemetry::Guard> = OnceLock::new();
    let guard = GUARD.get_or_init(|| {
        let options = telemetry::Options {
            console: Console::new(|_| Ok(())),
            ..telemetry::Options::new("test", "info")
        };
        telemetry::init(&options).unwrap()
    });
    guard.control()
}

fn router() -> Router {
    let metrics = Metrics::default();
    metrics.add(Process::new("test", Some(log()), Vec::new()));
    standard(metrics, Health::default(), log())
}

pub(crate) async fn start(security: &Security) -> (SocketAddr, Serving) {
    let listener = bind("127.0.0.1:0", security, false).await.unwrap();
    let address = listener.as_ref().unwrap().local_addr().unwrap();
    let serving = spawn(listener, router(), security, Hosts::default()).unwrap();
    (address, serving)
}

fn with_token(dir: &std::path::Path, token: &str) -> Security {
    let path = dir.join("token");
    std::fs::write(&path, token).unwrap();
    let mut cluster = Config::defaults().unwrap().cluster;
    cluster.token_file = path.to_str().unwrap().to_owned();
    Security::from_config(&cluster).unwrap()
}

/// Status code and the whole response.
async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    line: &str,
    headers: &str,
    body: &str,
) -> (u16, String) {
    let length = body.len();
    let host = if headers.contains("Host:") {
        ""
    } else {
        "Host: localhost\r\n"
    };
    let request = format!(
        "{line} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    // A response is complete even if the server closes without a TLS `close_notify`.
    let _ = stream.read_to_end(&mut reply).await;
    let reply = String::from_utf8(reply).unwrap();
    let status = reply.split(' ').nth(1).map_or(0, |s| s.parse().unwrap());
    (status, reply)
}

pub(crate) async fn ask(
    address: SocketAddr,
    line: &str,
    headers: &str,
    body: &str,
) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    talk(stream, line, headers, body).await
}

#[tokio::test]
async fn health_and_metrics_are_served_until_shutdown() {
    let (address, serving) = start(&Security::none()).await;
    let (status, reply) = ask(address, "GET /health", "", "").await;
    assert!(status == 200 && reply.ends_with("ok\n"), "{reply}");
    let (status, reply) = ask(address, "GET /metrics", "", "").await;
    assert_eq!(status, 200);
    for part in [
        crate::transport::metrics::CONTENT_TYPE,
        "landmarl_process_log_lines_dropped_total 0.0",
        "# EOF",
    ] {
        assert!(reply.contains(part), "{part} is not in {reply}");
    }
    assert_eq!(ask(address, "GET /nothing", "", "").await.0, 404);
    assert_eq!(ask(address, "POST /health", "", "").await.0, 405);
    // An idle connection does not keep the server from stopping.
    let idle = TcpStream::connect(address).await.unwrap();
    let begin = std::time::Instant::now();
    serving.finish().await;
    assert!(begin.elapsed().as_secs() < 4);
    drop(idle);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_changes_only_with_the_token_if_there_is_one() {
    let (open, _a) = start(&Security::none()).await;
    let dir = tempfile::tempdir().unwrap();
    let token = "open-sesame-open-sesame-open-sesame";
    let (guarded, _b) = start(&with_token(dir.path(), token)).await;
    let right = &format!("Authorization: Bearer {token}\r\n");
    let wrong = &format!("Authorization: Bearer {}\r\n", &token[1..]);
    let put = "PUT /log-level";
    for (address, headers, body, expected) in [
        (guarded, "", "debug", 401),
        (guarded, wrong, "debug", 401),
        (guarded, right, "loud", 400),
        (guarded, right, &"x".repeat(5000), 413),
        (open, "", "warn,proto=debug\n", 200),
        (guarded, right, "debug", 200),
    ] {
        let (status, reply) = ask(address, put, headers, body).await;
        assert_eq!(status, expected, "{headers}{reply}");
        let now = log().level();
        let expected = if status == 200 { body.trim() } else { &now };
        assert_eq!(now, expected);
    }
    assert!(tracing::enabled!(tracing::Level::DEBUG));
    for (headers, expected) in [("", 401), (wrong, 401), (right.as_str(), 404)] {
        let (status, _) = ask(guarded, "GET /checkpoints/best", headers, "").await;
        assert_eq!(status, expected, "{headers}");
    }
    let (_, reply) = ask(guarded, "GET /log-level", right, "").await;
    assert!(reply.ends_with("\r\n\r\ndebug\n"), "{reply}");
    log().set_level("info").unwrap();
    assert!(!tracing::enabled!(tracing::Level::DEBUG));
}

#[tokio::test]
async fn no_path_answers_to_the_name_or_the_page_of_another_host() {
    let (address, _serving) = start(&Security::none()).await;
    let own = format!("Host: {address}\r\n");
    let page = format!("Host: {address}\r\nOrigin: http://evil.example\r\n");
    let rebound = "Host: evil.example:7480\r\nOrigin: http://evil.example:7480\r\n";
    for line in [
        "GET /health",
        "GET /metrics",
        "GET /log-level",
        "GET /checkpoints",
        "GET /nothing",
        "PUT /log-level",
        "OPTIONS /log-level",
    ] {
        for headers in [rebound, "Host: evil.example\r\n", &page] {
            let (status, reply) = ask(address, line, headers, "loud").await;
            assert_eq!(status, 403, "{line} {headers}: {reply}");
            assert!(reply.contains("evil.example"), "{reply}");
        }
        let (status, _) = ask(address, line, &own, "loud").await;
        assert_ne!(status, 403, "{line}");
    }
    // Without any name.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /health HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).await.unwrap();
    assert_eq!(&reply, b"HTTP/1.1 400");
}

#[tokio::test]
async fn clients_that_send_half_a_request_or_nothing_keep_nobody_out() {
    let (address, _serving) = start(&Security::none()).await;
    let put = b"PUT /log-level HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
    for begun in [put.as_slice(), b"GET /he", b""] {
        let mut silent = Vec::new();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // An earlier one may have made room already.
            let _ = stream.write_all(begun).await;
            silent.push(stream);
        }
        let begun = std::time::Instant::now();
        for _ in 0..20 {
            let (status, reply) = ask(address, "GET /health", "", "").await;
            assert_eq!(status, 200, "{reply}");
        }
        assert!(begun.elapsed().as_secs() < 5);
    }
}

#[tokio::test]
async fn addresses_are_refused_with_a_reason() {
    let taken = bind("127.0.0.1:0", &Security::none(), false)
        .await
        .unwrap()
        .unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let held = bind(&taken, &Security::none(), false).await;
    for (listen, words) in [
        ("localhost", "is not IP:PORT"),
        ("0.0.0.0:0", "cluster.insecure"),
        (&taken, "the port is in use"),
    ] {
        let error = bind(listen, &Security::none(), false).await.unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let error = format!("{error}: {}", source.unwrap_or_default());
        for words in [words, "http.listen"] {
            assert!(error.contains(words), "{listen}: {error}");
        }
    }
    drop(held);
    assert!(bind("", &Security::none(), false).await.unwrap().is_none());
    assert!(bind("0.0.0.0:0", &Security::none(), true).await.is_ok());
}

pub(crate) fn client(certs: &Certs, own: Option<&Pair>) -> ClientConfig {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    let authority = certs.authority.pair().certificate;
    roots.add(certificate(&authority)).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots);
    let Some(own) = own else {
        return client.with_no_client_auth();
    };
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let chain = vec![certificate(&own.certificate)];
    client.with_client_auth_cert(chain, key).unwrap()
}

#[tokio::test]
async fn over_tls_a_certificate_is_required_and_each_role_has_its_own_paths() {
    let certs = Certs::new();
    let mut config = certs.config(Role::Learner, 1);
    config.token_file.clear();
    let server = Security::from_config(&config).unwrap();
    let (address, _serving) = start(&server).await;
    let name = ServerName::try_from(Role::Learner.dns_name()).unwrap();
    let connect = async |config: ClientConfig| {
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name.clone(), stream).await
    };
    for (role, line, expected) in [
        (Role::Monitor, "GET /health", 200),
        (Role::Monitor, "GET /metrics", 200),
        (Role::Monitor, "PUT /log-level", 403),
        (Role::Actor, "GET /metrics", 403),
        // Admitted, then refused for an unknown level: the level belongs to the whole process,
        // and other tests check it.
        (Role::Operator, "PUT /log-level", 400),
    ] {
        let own = certs.issue(role, 1);
        let stream = connect(client(&certs, Some(&own))).await.unwrap();
        let (status, reply) = talk(stream, line, "", "loud").await;
        assert_eq!(status, expected, "{role}: {reply}");
    }
    // The names in the certificate are the service's own.
    for (host, expected) in [
        ("learner.landmarl.internal:7480", 200),
        ("evil.example", 403),
    ] {
        let own = certs.issue(Role::Monitor, 1);
        let stream = connect(client(&certs, Some(&own))).await.unwrap();
        let header = format!("Host: {host}\r\n");
        let (status, reply) = talk(stream, "GET /health", &header, "").await;
        assert_eq!(status, expected, "{host}: {reply}");
    }
    // With TLS 1.3 a client learns of its refusal only after the handshake.
    match connect(client(&certs, None)).await {
        Ok(mut stream) => {
            let _ = stream
                .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
            let mut reply = Vec::new();
            let read = stream.read_to_end(&mut reply).await;
            assert!(read.is_err() && reply.is_empty(), "{reply:?}");
        }
        Err(error) => assert!(error.to_string().contains("ertificate"), "{error}"),
    }
    // Plain-text clients get no response either.
    let (status, reply) = ask(address, "GET /health", "", "").await;
    assert_eq!(status, 0, "{reply}");
}
