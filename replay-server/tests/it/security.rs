//! The built binary with TLS and token: each unauthorised client is refused and
//! logged, and does no harm.

use crate::client::{InsertStream, batch, hello, open};
use common::config::{ClusterConfig, Config};
use proto::messages::insert::{InsertOpen, Writer};
use proto::messages::sample::SampleRequest;
use proto::messages::status::ShardStatus;
use proto::transport::channel::{Channel, replay_client};
use proto::transport::retry::{CALL_DEADLINE, unary};
use proto::transport::security::issue::{Authority, token};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::replay_client::ReplayClient;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

const BINARY: &str = env!("CARGO_BIN_EXE_replay-server");
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let setting = |key: &str, file: &str| {
            [
                "--set".to_owned(),
                format!("cluster.{key}={}", self.path(file).display()),
            ]
        };
        [
            setting("ca", "ca.pem"),
            setting("cert", &format!("{role}.pem")),
            setting("key", &format!("{role}.key")),
            setting("token_file", "token"),
        ]
        .concat()
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

/// A shard that ends with the test.
struct Guarded {
    child: Child,
    log: PathBuf,
    address: String,
    certs: Certs,
}

impl Guarded {
    fn start() -> Self {
        let certs = Certs::new();
        let log = certs.path("log.jsonl");
        let child = Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(["--capacity", "1000", "--shard", "0"])
            .args(certs.settings(Role::Replay))
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut shard = Self {
            child,
            log,
            address: String::new(),
            certs,
        };
        let line = shard.logged("replay shard listens");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        shard.address = line["address"].as_str().unwrap().to_owned();
        shard
    }

    /// The first line of the log with all of these words in it, once it is there.
    fn logged(&self, words: &str) -> String {
        let begin = Instant::now();
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let has = |line: &&str| words.split('|').all(|word| line.contains(word));
            // The last line may be half there.
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().find(has) {
                return line.to_owned();
            }
            assert!(begin.elapsed() < PATIENCE, "no \"{words}\" in\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn client(&self, security: &Security) -> ReplayClient<Channel> {
        replay_client(security.connect(&self.address, Role::Replay).unwrap())
    }

    async fn status(&self) -> ShardStatus {
        let mut client = self.client(&self.certs.security(Role::Monitor));
        let request = wire::ShardStatusRequest {};
        let reply = unary(request, CALL_DEADLINE, |r| client.status(r)).await;
        reply.unwrap()
    }

    /// Grants insert credit, as the learner does.
    async fn grant(&self, insert_limit: u64) -> Result<wire::SampleReply, Status> {
        self.sample(Role::Learner, insert_limit).await
    }

    async fn sample(&self, role: Role, insert_limit: u64) -> Result<wire::SampleReply, Status> {
        let shard_incarnation = self.status().await.summary().shard_incarnation;
        let request = SampleRequest {
            hello: hello(),
            rows: 0,
            insert_limit,
            shard_incarnation,
        };
        let mut client = self.client(&self.certs.security(role));
        unary(request.into(), CALL_DEADLINE, |r| client.sample(r)).await
    }

    /// Begins a stream of this incarnation of actor 1 with `security`.
    async fn begin(&self, security: &Security, incarnation: u32) -> Result<InsertStream, Status> {
        let mut stream = InsertStream::begin(self.client(security)).await?;
        stream.send(open_as(incarnation)).await;
        stream.reply().await?;
        Ok(stream)
    }

    fn ask(&self, command: &str, settings: &[String]) -> Output {
        Command::new(BINARY)
            .args([command, "--address", &self.address])
            .args(settings)
            .output()
            .unwrap()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open_as(incarnation: u32) -> InsertOpen {
    let writer = Writer {
        actor: 1,
        incarnation,
    };
    InsertOpen { writer, ..open(1) }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_belong_is_refused_logged_and_harmless() {
    let shard = Guarded::start();
    shard.logged("TLS with certificates on both sides|\"roles\":\"replay\"");
    shard.logged("the certificate of this process ends soon|\"days\":1");
    let actor = shard.certs.security(Role::Actor);
    shard.grant(100).await.unwrap();
    let mut stream = shard.begin(&actor, 7).await.unwrap();
    assert_eq!(stream.insert(batch(1, 0, 2)).await, 1);
    let before = shard.status().await.summary();
    assert_eq!((before.rows, before.inserted), (2, 2));

    // Plain text.
    assert!(shard.begin(&Security::none(), 8).await.is_err());
    shard.logged("connection refused|127.0.0.1|plain text?");
    let mut raw = TcpStream::connect(&shard.address).unwrap();
    raw.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = raw.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    // Certificates of another authority: one client trusts only that, the other trusts ours.
    let foreign = Certs::new();
    foreign.write("token", &shard.certs.read("token"));
    let refused = shard.begin(&foreign.security(Role::Actor), 8).await;
    let message = proto::transport::retry::reason(&refused.err().unwrap());
    assert!(message.contains("certificate"), "{message}");
    shard.logged("connection refused|does not take our certificate");
    let health = stranger(&shard, &foreign).await;
    assert!(health.is_err(), "{health:?}");
    shard.logged("connection refused|was not signed by the authority");

    // The wrong role, also one that could open the limiter.
    for role in [Role::Evaluator, Role::Learner, Role::Monitor] {
        let refused = shard.begin(&shard.certs.security(role), 8).await;
        let refused = refused.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    let refused = shard.sample(Role::Actor, 1_000_000).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    shard.logged("call refused|a certificate of evaluator|which is for actor");
    assert_eq!(shard.status().await.insert_limit, 100);

    // A wrong token, and none.
    shard.certs.write("wrong", &token().unwrap());
    let refused = shard
        .begin(&shard.certs.with_token(Role::Actor, "wrong"), 8)
        .await;
    assert_eq!(refused.err().unwrap().code(), Code::Unauthenticated);
    shard.logged("call refused|is not this cluster's");

    // A replaced incarnation: its open stream, and a new one.
    let mut next = shard.begin(&actor, 8).await.unwrap();
    stream.send(batch(2, 2, 2)).await;
    let ended = stream.reply().await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted, "{ended}");
    let refused = shard.begin(&actor, 7).await.err().unwrap();
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    assert!(
        refused
            .message()
            .contains("incarnation 7 of actor 1 has been replaced"),
        "{refused}"
    );
    shard.logged("rows of a replaced incarnation refused|\"incarnation\":7|\"newer\":8");

    // None of that had an effect, and authorised clients continue.
    let after = shard.status().await.summary();
    assert_eq!((after.rows, after.inserted), (2, 2));
    assert_eq!(next.insert(batch(1, 2, 3)).await, 1);
    assert_eq!(shard.status().await.summary().rows, 5);
}

/// Asks for health with a certificate that our authority did not sign.
async fn stranger(shard: &Guarded, theirs: &Certs) -> Result<(), Status> {
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
fn sub_commands_prove_who_asks() {
    let shard = Guarded::start();
    let own = shard.certs.settings(Role::Replay);
    let operator = shard.certs.settings(Role::Operator);
    for settings in [&own, &operator] {
        let health = shard.ask("health", settings);
        assert!(health.status.success(), "{}", stderr(&health));
        let status = shard.ask("status", settings);
        assert!(status.status.success(), "{}", stderr(&status));
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(text.starts_with("shard 0 of run (none yet)"), "{text}");
    }
    // The error comes from the shard, not from the authorisation.
    let snapshot = stderr(&shard.ask("snapshot", &operator));
    assert!(snapshot.contains("keeps rows in memory only"), "{snapshot}");
    let snapshot = stderr(&shard.ask("snapshot", &own));
    assert!(
        snapshot.contains("a certificate of replay may not call"),
        "{snapshot}"
    );
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

    let plain = shard.ask("health", &[]);
    assert_eq!(plain.status.code(), Some(1));
    assert!(
        stderr(&plain).contains("does not answer"),
        "{}",
        stderr(&plain)
    );
    let half = shard.ask("health", &own[..2]);
    assert_eq!(half.status.code(), Some(3));
    let message = stderr(&half);
    assert!(
        message.contains("config key \"cluster.cert\": is empty although cluster.ca is set"),
        "{message}"
    );
    let mut gone = own.clone();
    gone[3] = "cluster.cert=/nowhere.pem".into();
    let gone = shard.ask("health", &gone);
    assert_eq!(gone.status.code(), Some(3));
    let message = stderr(&gone);
    assert!(
        message.contains("\"cluster.cert\": cannot read /nowhere.pem"),
        "{message}"
    );
}
