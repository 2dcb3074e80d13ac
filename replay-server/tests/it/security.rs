//! The built binary with TLS and token: each unauthorised client is refused and
//! logged, and does no harm.

use crate::client::{Client, InsertStream, batch, open, request};
use crate::process::{BINARY, Server, stderr, stdout};
use common::config::{ClusterConfig, Config};
use proto::messages::insert::{InsertOpen, Writer};
use proto::messages::sample::SampledBatch;
use proto::transport::security::issue::{Authority, token};
use proto::transport::security::{Role, Security};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, Output};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

/// A folder of certificates, as `landmarl certs` writes it.
struct Certs {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Certs {
    fn new() -> Self {
        let certs = Self {
            dir: tempfile::tempdir().unwrap(),
            authority: Authority::new(1).unwrap(),
        };
        certs.write("ca.pem", &certs.authority.pair().certificate);
        certs.write("token", &token().unwrap());
        for role in Role::ALL {
            let pair = certs.authority.certificate(role, &[], 1).unwrap();
            certs.write(&format!("{role}.pem"), &pair.certificate);
            certs.write(&format!("{role}.key"), &pair.key);
        }
        certs
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn settings(&self, role: Role) -> Vec<String> {
        let files = [
            ("ca", "ca.pem".to_owned()),
            ("cert", format!("{role}.pem")),
            ("key", format!("{role}.key")),
            ("token_file", "token".to_owned()),
        ];
        let setting = |(key, file): (&str, String)| {
            let path = self.path(&file);
            [
                "--set".to_owned(),
                format!("cluster.{key}={}", path.display()),
            ]
        };
        files.into_iter().flat_map(setting).collect()
    }

    fn security(&self, role: Role) -> Security {
        self.with_token(role, "token")
    }

    fn with_token(&self, role: Role, token: &str) -> Security {
        let path = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let cluster = ClusterConfig {
            ca: path("ca.pem"),
            cert: path(&format!("{role}.pem")),
            key: path(&format!("{role}.key")),
            token_file: path(token),
            ..Config::defaults().unwrap().cluster
        };
        Security::from_config(&cluster).unwrap()
    }
}

/// A shard with TLS and token.
struct Guarded {
    server: Server,
    certs: Certs,
}

impl Deref for Guarded {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Guarded {
    fn start() -> Self {
        let certs = Certs::new();
        let settings = certs.settings(Role::Replay);
        let mut args = vec!["--capacity", "1000", "--shard", "0"];
        args.extend(settings.iter().map(String::as_str));
        let server = Server::serve(&args);
        Self { server, certs }
    }

    fn client(&self, role: Role) -> Client {
        Client::new(&self.address, &self.certs.security(role))
    }

    /// Rows in the table and rows inserted.
    async fn rows(&self) -> (u64, u64) {
        let summary = self.client(Role::Monitor).status().await.summary();
        (summary.rows, summary.inserted)
    }

    /// Grants insert credit, as the learner does.
    async fn grant_as(&self, role: Role, insert_limit: u64) -> Result<SampledBatch, Status> {
        let summary = self.client(Role::Monitor).status().await.summary();
        let request = request(0, insert_limit, summary.shard_incarnation);
        self.client(role).try_sample(request).await
    }

    /// Begins a stream of this incarnation of actor 1 with `security`.
    async fn begin(&self, security: &Security, incarnation: u32) -> Result<InsertStream, Status> {
        let writer = Writer {
            actor: 1,
            incarnation,
        };
        let client = Client::new(&self.address, security);
        let (stream, _) = client.try_open(InsertOpen { writer, ..open(1) }).await?;
        Ok(stream)
    }

    /// The error of a stream that is refused.
    async fn refused(&self, security: &Security, incarnation: u32) -> Status {
        self.begin(security, incarnation).await.err().unwrap()
    }

    fn ask(&self, command: &str, settings: &[String]) -> Output {
        Command::new(BINARY)
            .args([command, "--address", &self.address])
            .args(settings)
            .output()
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unauthorised_client_is_refused_logged_and_harmless() {
    let shard = Guarded::start();
    shard.logged("TLS with certificates on both sides|\"roles\":\"replay\"");
    shard.logged("the certificate of this process ends soon|\"days\":1");
    let actor = shard.certs.security(Role::Actor);
    shard.grant_as(Role::Learner, 100).await.unwrap();
    let mut stream = shard.begin(&actor, 7).await.unwrap();
    assert_eq!(stream.insert(batch(1, 0, 2)).await, 1);
    assert_eq!(shard.rows().await, (2, 2));

    // Plain text.
    assert!(shard.begin(&Security::none(), 8).await.is_err());
    shard.logged("connection refused|127.0.0.1|plain text?");
    let mut raw = TcpStream::connect(&shard.address).unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut response = Vec::new();
    let _ = raw.read_to_end(&mut response);
    assert!(!response.starts_with(b"HTTP"), "{response:?}");

    // Certificates of another authority: one client trusts only that, the other trusts ours.
    let foreign = Certs::new();
    foreign.write("token", &shard.certs.read("token"));
    let refused = shard.refused(&foreign.security(Role::Actor), 8).await;
    let message = proto::transport::retry::reason(&refused);
    assert!(message.contains("certificate"), "{message}");
    shard.logged("connection refused|does not take our certificate");
    let health = health_with(&shard, &foreign).await;
    assert!(health.is_err(), "{health:?}");
    shard.logged("connection refused|was not signed by the authority");

    // The wrong role, also one that could open the limiter.
    for role in [Role::Evaluator, Role::Learner, Role::Monitor] {
        let refused = shard.refused(&shard.certs.security(role), 8).await;
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    let refused = shard.grant_as(Role::Actor, 1_000_000).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    shard.logged("call refused|a certificate of evaluator|which is for actor");
    let status = shard.client(Role::Monitor).status().await;
    assert_eq!(status.insert_limit, 100);

    // A wrong token, and none.
    shard.certs.write("wrong", &token().unwrap());
    let wrong = shard.certs.with_token(Role::Actor, "wrong");
    let refused = shard.refused(&wrong, 8).await;
    assert_eq!(refused.code(), Code::Unauthenticated);
    shard.logged("call refused|is not this cluster's");

    // A replaced incarnation: its open stream, and a new one.
    let mut next = shard.begin(&actor, 8).await.unwrap();
    stream.send(batch(2, 2, 2)).await;
    let ended = stream.reply().await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
    let refused = shard.refused(&actor, 7).await;
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    let replaced = "incarnation 7 of actor 1 has been replaced";
    assert!(refused.message().contains(replaced), "{refused}");
    shard.logged("rows of a replaced incarnation refused|\"incarnation\":7|\"newer\":8");

    // None of that had an effect, and authorised clients continue.
    assert_eq!(shard.rows().await, (2, 2));
    assert_eq!(next.insert(batch(1, 2, 3)).await, 1);
    assert_eq!(shard.rows().await, (5, 5));
}

/// Asks for health with a certificate that our authority did not sign.
async fn health_with(shard: &Guarded, theirs: &Certs) -> Result<(), Status> {
    let pair = theirs.authority.certificate(Role::Actor, &[], 1).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(shard.certs.read("ca.pem")))
        .identity(Identity::from_pem(pair.certificate, pair.key))
        .domain_name(Role::Replay.dns_name());
    let endpoint = Endpoint::from_shared(format!("https://{}", shard.address)).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect_lazy();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest::default();
    client.check(request).await.map(drop)
}

#[test]
fn sub_commands_authenticate_themselves() {
    let shard = Guarded::start();
    let own = shard.certs.settings(Role::Replay);
    let operator = shard.certs.settings(Role::Operator);
    for settings in [&own, &operator] {
        let health = shard.ask("health", settings);
        assert!(health.status.success(), "{}", stderr(&health));
        let status = shard.ask("status", settings);
        assert!(status.status.success(), "{}", stderr(&status));
        let text = stdout(&status);
        assert!(text.starts_with("shard 0 of run (none yet)"), "{text}");
    }
    // The error comes from the shard, not from the authorisation.
    let snapshot = stderr(&shard.ask("snapshot", &operator));
    assert!(snapshot.contains("keeps rows in memory only"), "{snapshot}");
    let snapshot = stderr(&shard.ask("snapshot", &own));
    let refused = "a certificate of replay may not call";
    assert!(snapshot.contains(refused), "{snapshot}");
    // From the environment, as in a container.
    let mut command = Command::new(BINARY);
    command.args(["health", "--address", &shard.address]);
    for setting in own.iter().filter(|s| *s != "--set") {
        let (key, value) = setting.split_once('=').unwrap();
        let name = key.to_uppercase().replace('.', "__");
        command.env(format!("LANDMARL__{name}"), value);
    }
    let health = command.output().unwrap();
    assert!(health.status.success(), "{}", stderr(&health));

    let mut missing = own.clone();
    missing[3] = "cluster.cert=/nowhere.pem".into();
    let none: [String; 0] = [];
    for (settings, code, text) in [
        (none.as_slice(), 1, "does not respond"),
        (
            &own[..2],
            3,
            "config key \"cluster.cert\": is empty although cluster.ca is set",
        ),
        (
            missing.as_slice(),
            3,
            "\"cluster.cert\": cannot read /nowhere.pem",
        ),
    ] {
        let health = shard.ask("health", settings);
        let error = stderr(&health);
        assert_eq!(health.status.code(), Some(code), "{error}");
        assert!(error.contains(text), "{error}");
    }
}
