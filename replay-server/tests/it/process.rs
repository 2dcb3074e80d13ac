//! The built binary, as people and containers start it.

use crate::client::Client;
use proto::transport::channel;
use proto::transport::entry::Exit;
use proto::transport::listen;
use proto::transport::security::Security;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

pub const BINARY: &str = env!("CARGO_BIN_EXE_replay-server");
/// Far longer than any line of a log takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn output(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running server that ends with the test.
pub struct Server {
    child: Child,
    log: NamedTempFile,
    pub address: String,
}

impl Server {
    /// A shard that keeps its rows.
    pub fn keeping(folder: &Path, capacity: u64) -> Self {
        let folder = folder.display();
        let args = format!(
            "--capacity {capacity} --journal {folder} --segment-mb 1 --log replay_server::run=info"
        );
        Self::serve(&args.split(' ').collect::<Vec<_>>())
    }

    pub fn serve(args: &[&str]) -> Self {
        Self::serve_with(args, &[])
    }

    /// With more variables.
    fn serve_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::start(Command::new("env"), args, env)
    }

    /// With these limits on open files, soft and hard; `None` where they cannot be set.
    #[expect(clippy::print_stdout, reason = "a skipped test reports it")]
    pub fn with_files(soft: u32, hard: u32, args: &[&str]) -> Option<Self> {
        if Command::new("prlimit").arg("--version").output().is_err() {
            println!("skipped: there is no `prlimit`, which limits the number of open files");
            return None;
        }
        let mut command = Command::new("prlimit");
        command.args([&format!("--nofile={soft}:{hard}"), "env"]);
        Some(Self::start(command, args, &[]))
    }

    fn start(mut command: Command, args: &[&str], env: &[(&str, &str)]) -> Self {
        let log = NamedTempFile::new().unwrap();
        // The tests may run where some signals are ignored, as below `nohup`.
        let child = command
            .args(["--default-signal", BINARY])
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(args)
            .envs(env.iter().copied())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            log,
            address: String::new(),
        };
        let line = server.settings();
        let line: serde_json::Value = serde_json::from_str(&line).expect("the log is JSON");
        server.address = line["address"].as_str().unwrap().to_owned();
        server
    }

    /// The line of the log with the shard's settings.
    fn settings(&self) -> String {
        self.logged("replay shard listens")
    }

    /// The first line of the log that contains all of these texts, separated by `|`,
    /// once it is there.
    pub fn logged(&self, texts: &str) -> String {
        let begin = Instant::now();
        loop {
            let log = std::fs::read_to_string(self.log.path()).unwrap();
            let has = |line: &&str| texts.split('|').all(|text| line.contains(text));
            // The last line may be incomplete.
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if let Some(line) = whole.lines().find(has) {
                return line.to_owned();
            }
            assert!(begin.elapsed() < PATIENCE, "no \"{texts}\" in\n{log}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A line of what the kernel reports about the process, by file and beginning.
    pub fn kernel(&self, file: &str, line: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap();
        let found = text.lines().find(|l| l.starts_with(line));
        found.unwrap().to_owned()
    }

    pub fn client(&self) -> Client {
        Client::new(&self.address, &Security::none())
    }

    /// What `status --json` prints.
    pub fn status(&self) -> serde_json::Value {
        let status = output(&["status", "--address", &self.address, "--json"]);
        serde_json::from_slice(&status.stdout).unwrap()
    }

    /// Rows that it holds at most.
    fn capacity(&self) -> u64 {
        self.status()["capacity"].as_u64().unwrap()
    }

    fn terminate(&self) {
        self.signal("TERM");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill")
            .args([&format!("-{signal}"), &*id])
            .status();
        assert!(killed.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serves_health_and_status_and_stops_on_sigterm() {
    let mut server = Server::serve(&["--capacity", "100", "--shard", "3"]);
    let healthy = output(&["health", "--address", &server.address]);
    assert!(healthy.status.success(), "{}", stderr(&healthy));
    let status = server.status();
    assert_eq!(
        (&status["shard"], &status["capacity"], &status["rows"]),
        (&3.into(), &100.into(), &0.into())
    );
    assert!(status["shard_incarnation"].as_u64().unwrap() > 0);
    assert!(status["run_id"].is_null());
    let text = output(&["status", "--address", &server.address]);
    assert!(stdout(&text).starts_with("shard 3 of run (none yet)"));
    server.terminate();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let stopped = output(&["health", "--address", &server.address]);
    assert_eq!(stopped.status.code(), Some(1));
    let error = stderr(&stopped);
    let expected = format!("{} does not respond", server.address);
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn signals_of_batch_systems_and_closed_terminals_stop_the_server_in_order() {
    for signal in ["HUP", "USR1", "USR2", "XCPU", "INT"] {
        let mut server = Server::serve(&["--capacity", "100"]);
        server.signal(signal);
        assert_eq!(server.child.wait().unwrap().code(), Some(0), "{signal}");
        server.logged(&format!("stopping|\"SIG{signal}\""));
        server.logged("replay shard stopped");
    }
}

/// A call that never ends keeps the first signal's stop waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_second_ctrl_c_ends_the_server_at_once() {
    let mut server = Server::serve(&["--capacity", "100", "--shard", "3"]);
    let channel = channel::connect_lazy(&server.address).unwrap();
    let mut health = HealthClient::new(channel);
    let watched = health.watch(HealthCheckRequest::default());
    let watched = watched.await.unwrap();
    server.terminate();
    server.logged("replay shard stops");
    assert_eq!(server.child.try_wait().unwrap(), None);
    // Batch systems and shells send several.
    for signal in ["HUP", "USR1", "TERM"] {
        server.signal(signal);
        server.logged(&format!("already stopping|SIG{signal}"));
        assert_eq!(server.child.try_wait().unwrap(), None, "{signal}");
    }
    let begun = Instant::now();
    server.signal("INT");
    let code = server.child.wait().unwrap().code();
    assert_eq!(code, Some(Exit::Interrupted as i32));
    assert!(begun.elapsed() < proto::transport::serve::DRAIN_GRACE);
    drop(watched);
}

#[tokio::test]
async fn a_port_in_use_is_reported_with_a_remedy() {
    let taken = listen::bind("127.0.0.1:0".parse().unwrap(), false);
    let taken = taken.await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = output(&["serve", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    let expected = format!("error: cannot listen on {address}: the port is in use");
    assert!(error.contains(&expected), "{error}");
    assert!(error.contains("--listen"), "{error}");
}

#[test]
fn flags_override_settings_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    // `replay.shards` is that of `landmarl train`; a cluster has those that its learner counts.
    let text = "[replay]\nshards = 4\ncapacity = 1003\nmin_rows = 10\nalpha = 0.5\n\
                [cluster]\nshards = [\"a:1\", \"b:1\", \"c:1\"]\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let capacity = |args: &[&str]| Server::serve(args).capacity();
    assert_eq!(capacity(&["--config", file]), 335);
    assert_eq!(capacity(&["--config", file, "--capacity", "7"]), 7);
    assert_eq!(capacity(&[]), 200_000);
    // The other settings are the defaults, as for a learner with the same settings.
    assert_eq!(capacity(&["--set", "cluster.shards=[\"a:1\"]"]), 60_000);
    assert_eq!(capacity(&["--set", "cluster.lease_s=5"]), 200_000);
    let mut server = Server::serve(&["--config", file, "--epsilon", "0.25"]);
    let settings = server.settings();
    assert!(
        settings.contains("alpha: 0.5, epsilon: 0.25, max: 10"),
        "{settings}"
    );
    server.terminate();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn environment_variables_about_rows_count_without_a_file() {
    let serve = |env: &[(&str, &str)]| Server::serve_with(&[], env);
    for (name, value, rows) in [
        ("LANDMARL__REPLAY__CAPACITY", "5000", 2500),
        (
            "LANDMARL__CLUSTER__SHARDS",
            "[\"a:1\", \"b:1\", \"c:1\"]",
            20_000,
        ),
        ("LANDMARL__RUN__SEED", "7", 30_000),
        // Of all containers.
        ("LANDMARL__DATA__LANDMARKS", "[]", 200_000),
        ("LANDMARL__CLUSTER__LEASE_S", "5", 200_000),
    ] {
        assert_eq!(serve(&[(name, value)]).capacity(), rows, "{name}");
    }
    let server = serve(&[("LANDMARL__REPLAY__SELECTOR", "uniform")]);
    let settings = server.settings();
    assert!(settings.contains("Uniform"), "{settings}");
}

#[test]
fn invalid_arguments_are_refused_at_the_start() {
    for (args, code, text) in [
        ("serve --listen 0.0.0.0:0", 1, "--insecure"),
        ("serve --listen 127.0.0.1:0 --capacity 0", 1, "capacity 0"),
        (
            "serve --listen 127.0.0.1:0 --memory-max-mb 1",
            1,
            "lower the capacity",
        ),
        ("serve --listen 127.0.0.1:0 --epsilon 0", 1, "epsilon = 0"),
        ("serve --listen 127.0.0.1:0 --log loud", 3, "loud"),
        (
            "serve --listen 127.0.0.1:0 --config /nowhere.toml",
            3,
            "/nowhere.toml",
        ),
        ("serve --listen here", 2, "--listen"),
        ("serve --selector best", 2, "prioritised"),
    ] {
        let args: Vec<_> = args.split(' ').collect();
        let output = output(&args);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(text), "{args:?}: {error}");
    }
    let health = output(&["health", "--address", "not an address"]);
    assert_eq!(health.status.code(), Some(1));
    assert!(stderr(&health).contains("host:port"));
}

#[test]
fn verify_reports_rows_and_damage() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal-v1");
    let sound = output(&["verify", kept.to_str().unwrap()]);
    assert!(sound.status.success(), "{}", stderr(&sound));
    let text = stdout(&sound);
    assert!(
        text.starts_with("shard 0 of run test\nrows      20 from 0 on, in 4 batches"),
        "{text}"
    );
    assert!(text.contains("priorities of the rows below 20"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = "00000000000000000000.rows";
    let mut bytes = std::fs::read(kept.join(file)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(folder.path().join(file), bytes).unwrap();
    let damaged = output(&["verify", folder.path().to_str().unwrap()]);
    assert_eq!(damaged.status.code(), Some(1));
    let (text, error) = (stdout(&damaged), stderr(&damaged));
    for part in ["5 were lost", "is damaged from byte"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(error.contains("restore the folder from a copy"), "{error}");
    let none = output(&["verify", "/nowhere/at/all"]);
    let error = stderr(&none);
    assert!(error.contains("cannot read '/nowhere/at/all'"), "{error}");
}
