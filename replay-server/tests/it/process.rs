//! The built binary, as people and containers start it.

use proto::transport::channel;
use proto::transport::entry::Exit;
use proto::transport::listen;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const BINARY: &str = env!("CARGO_BIN_EXE_replay-server");

pub fn output(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running server that ends with the test.
pub struct Server {
    child: Child,
    pub address: String,
    /// The first line of its log: its settings.
    first: String,
    /// Kept open: a server that cannot write its log would fail.
    log: BufReader<std::process::ChildStderr>,
}

impl Server {
    fn start() -> Self {
        Self::serve(&["--capacity", "100", "--shard", "3"])
    }

    /// A shard that keeps its rows.
    pub fn keeping(folder: &Path, capacity: u64) -> Self {
        let (folder, capacity) = (folder.to_str().unwrap(), capacity.to_string());
        Self::serve(&[
            "--capacity",
            &capacity,
            "--journal",
            folder,
            "--segment-mb",
            "1",
            "--log",
            "replay_server::run=info",
        ])
    }

    fn serve(args: &[&str]) -> Self {
        Self::serve_with(args, &[])
    }

    /// With more variables.
    fn serve_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(BINARY)
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(args)
            .envs(env.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        let entry: serde_json::Value = serde_json::from_str(&line).expect("the log is JSON");
        let text = entry.to_string();
        let at = text
            .find("127.0.0.1:")
            .expect("the first line names the address");
        let address = text[at..].split(['"', ' ']).next().unwrap().to_owned();
        Self {
            child,
            address,
            first: text,
            log,
        }
    }

    /// Rows that it holds at most.
    fn capacity(&self) -> u64 {
        let status = output(&["status", "--address", &self.address, "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        status["capacity"].as_u64().unwrap()
    }

    fn terminate(&self) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status();
        assert!(killed.unwrap().success());
    }

    /// Reads the log up to a line with this text.
    fn until_logged(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn serves_answers_health_and_status_and_stops_on_sigterm() {
    let mut server = Server::start();
    let healthy = output(&["health", "--address", &server.address]);
    assert!(healthy.status.success(), "{}", stderr(&healthy));
    let status = output(&["status", "--address", &server.address, "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(
        (&status["shard"], &status["capacity"], &status["rows"]),
        (&3.into(), &100.into(), &0.into())
    );
    assert!(status["shard_incarnation"].as_u64().unwrap() > 0);
    assert!(status["run_id"].is_null());
    let text = output(&["status", "--address", &server.address]);
    assert!(String::from_utf8_lossy(&text.stdout).starts_with("shard 3 of run (none yet)"));
    server.terminate();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let gone = output(&["health", "--address", &server.address]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        stderr(&gone).contains(&format!("{} does not answer", server.address)),
        "{}",
        stderr(&gone)
    );
}

/// A call that never ends keeps the first signal's stop waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start();
    let channel = channel::connect_lazy(&server.address).unwrap();
    let watched = HealthClient::new(channel)
        .watch(HealthCheckRequest::default())
        .await
        .unwrap();
    server.terminate();
    server.until_logged("replay shard stops");
    assert_eq!(server.child.try_wait().unwrap(), None);
    let begun = Instant::now();
    server.terminate();
    assert_eq!(
        server.child.wait().unwrap().code(),
        Some(Exit::Interrupted as i32)
    );
    assert!(begun.elapsed() < proto::transport::serve::DRAIN_GRACE);
    drop(watched);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let taken = listen::bind("127.0.0.1:0".parse().unwrap(), false)
        .await
        .unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = output(&["serve", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(
        error.contains(&format!(
            "error: cannot listen on {address}: the port is in use"
        )),
        "{error}"
    );
    assert!(error.contains("--listen"), "{error}");
}

#[test]
fn settings_come_from_files_and_flags_win() {
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
    assert!(
        server.first.contains("alpha: 0.5, epsilon: 0.25, max: 10"),
        "{}",
        server.first
    );
    server.terminate();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    let wrong = output(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--config",
        "/nowhere.toml",
    ]);
    assert_eq!(wrong.status.code(), Some(3));
    assert!(
        stderr(&wrong).contains("/nowhere.toml"),
        "{}",
        stderr(&wrong)
    );
}

#[test]
fn variables_count_without_a_file_where_they_are_about_rows() {
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
    assert!(server.first.contains("Uniform"), "{}", server.first);
}

#[test]
fn what_cannot_work_is_refused_at_the_start() {
    for (args, code, text) in [
        (vec!["serve", "--listen", "0.0.0.0:0"], 1, "--insecure"),
        (
            vec!["serve", "--listen", "127.0.0.1:0", "--capacity", "0"],
            1,
            "capacity 0",
        ),
        (
            vec!["serve", "--listen", "127.0.0.1:0", "--memory-max-mb", "1"],
            1,
            "lower the capacity",
        ),
        (
            vec!["serve", "--listen", "127.0.0.1:0", "--epsilon", "0"],
            1,
            "epsilon = 0",
        ),
        (
            vec!["serve", "--listen", "127.0.0.1:0", "--log", "loud"],
            3,
            "loud",
        ),
        (vec!["serve", "--listen", "here"], 2, "--listen"),
        (vec!["serve", "--selector", "best"], 2, "prioritised"),
        (
            vec!["health", "--address", "not an address"],
            1,
            "host:port",
        ),
    ] {
        let output = output(&args);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(text), "{args:?}: {error}");
    }
}

#[test]
fn verify_says_what_is_there_and_what_is_damaged() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/journal-v1");
    let sound = output(&["verify", kept.to_str().unwrap()]);
    assert!(sound.status.success(), "{}", stderr(&sound));
    let text = String::from_utf8_lossy(&sound.stdout).into_owned();
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
    let (text, error) = (
        String::from_utf8_lossy(&damaged.stdout).into_owned(),
        stderr(&damaged),
    );
    assert!(
        text.contains("5 were lost") && text.contains("is damaged from byte"),
        "{text}"
    );
    assert!(error.contains("restore the folder from a copy"), "{error}");
    let none = output(&["verify", "/nowhere/at/all"]);
    assert!(
        stderr(&none).contains("cannot read '/nowhere/at/all'"),
        "{}",
        stderr(&none)
    );
}
