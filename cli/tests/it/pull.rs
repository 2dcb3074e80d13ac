//! `landmarl checkpoint pull` from a learner that breaks the connection.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use learner::checkpoint::files::CheckpointFiles;
use learner::checkpoint::stream as checkpoint_stream;
use proto::messages::checkpoints::{CheckpointList, PullCheckpoint};
use proto::messages::chunks::{CHUNK_BYTES_MAX, Chunk};
use proto::transport::channel::{learner_server, server_builder};
use proto::wire;
use proto::wire::learner_server::Learner;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::process::{Bench, assert_contains, names_in};

/// Sends checkpoints, and breaks the stream where a test requests it.
#[derive(Clone)]
struct CheckpointServer {
    files: Arc<CheckpointFiles>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Chunks until the next stream breaks; `None`: never.
    cut_after: Option<usize>,
    /// Every stream breaks, not only one.
    always: bool,
    /// Requested offsets, and bytes sent.
    asked: Vec<u64>,
    sent: u64,
}

type Chunks = ReceiverStream<Result<wire::Chunk, Status>>;

fn unimplemented<T>() -> Result<T, Status> {
    Err(Status::unimplemented("only checkpoints"))
}

#[tonic::async_trait]
impl Learner for CheckpointServer {
    type WatchWeightsStream = Chunks;
    type PullCheckpointStream = Chunks;

    async fn join(
        &self,
        _: Request<wire::JoinRequest>,
    ) -> Result<Response<wire::JoinReply>, Status> {
        unimplemented()
    }
    async fn heartbeat(
        &self,
        _: Request<wire::HeartbeatRequest>,
    ) -> Result<Response<wire::HeartbeatReply>, Status> {
        unimplemented()
    }
    async fn watch_weights(
        &self,
        _: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchWeightsStream>, Status> {
        unimplemented()
    }
    async fn status(
        &self,
        _: Request<wire::LearnerStatusRequest>,
    ) -> Result<Response<wire::LearnerStatus>, Status> {
        unimplemented()
    }
    async fn evaluator_beat(
        &self,
        _: Request<wire::EvaluatorBeatRequest>,
    ) -> Result<Response<wire::EvaluatorBeatReply>, Status> {
        unimplemented()
    }
    async fn keep_best(
        &self,
        _: Request<Streaming<wire::Chunk>>,
    ) -> Result<Response<wire::KeepBestReply>, Status> {
        unimplemented()
    }

    async fn list_checkpoints(
        &self,
        _: Request<wire::ListCheckpointsRequest>,
    ) -> Result<Response<wire::CheckpointList>, Status> {
        let list = CheckpointList {
            run_id: "r".into(),
            checkpoints: self.files.list(),
        };
        Ok(Response::new(list.into()))
    }

    async fn pull_checkpoint(
        &self,
        request: Request<wire::PullCheckpointRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let request = PullCheckpoint::try_from(request.into_inner())?;
        let cut = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(request.part.map_or(0, |p| p.bytes));
            let cut = state.cut_after;
            if !state.always {
                state.cut_after = None;
            }
            cut
        };
        let (opened, offset) = checkpoint_stream::open(&self.files, &request)
            .map_err(|e| Status::not_found(e.to_string()))?;
        let (whole, mut pieces) = mpsc::channel::<Result<Chunk, Status>>(1);
        tokio::spawn(checkpoint_stream::send(opened, offset, whole));
        let (out, chunks) = mpsc::channel(1);
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            let mut left = cut;
            while let Some(Ok(piece)) = pieces.recv().await {
                if left == Some(0) {
                    let _ = out.send(Err(Status::unavailable("cut"))).await;
                    return;
                }
                left = left.map(|n| n - 1);
                state.lock().unwrap().sent += piece.data.len() as u64;
                if out.send(Ok(piece.into())).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(chunks)))
    }
}

struct Served {
    bench: Bench,
    state: Arc<Mutex<State>>,
    address: String,
    _runtime: Runtime,
}

fn bytes(seed: usize) -> Vec<u8> {
    (0..CHUNK_BYTES_MAX * 3 + 17)
        .map(|i| ((i * seed) % 251) as u8)
        .collect()
}

fn serve() -> Served {
    let bench = Bench::new();
    bench.write("kept/best.safetensors", bytes(7));
    let state = Arc::<Mutex<State>>::default();
    let server = CheckpointServer {
        files: Arc::new(CheckpointFiles::new(&bench.path("kept"))),
        state: Arc::clone(&state),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let runtime = Runtime::new().unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let server = server_builder().add_service(learner_server(server));
        let incoming = TcpListenerStream::new(listener);
        server.serve_with_incoming(incoming).await.unwrap();
    });
    Served {
        bench,
        state,
        address,
        _runtime: runtime,
    }
}

impl Served {
    fn line(&self, more: &str) -> String {
        format!("checkpoint pull --from {} {more}", self.address)
    }

    fn set(&self, cut_after: Option<usize>, always: bool) {
        *self.state.lock().unwrap() = State {
            cut_after,
            always,
            ..State::default()
        };
    }

    fn sha256_of_best(&self) -> String {
        let line = format!("checkpoint list --from {} --json", self.address);
        let list = self.bench.json(&line);
        let first = &list["checkpoints"][0];
        assert_eq!(first["name"], "best.safetensors");
        first["sha256"].as_str().unwrap().to_owned()
    }

    /// Requested offsets and bytes sent since [`Served::set`].
    fn seen(&self) -> (Vec<u64>, u64) {
        let state = self.state.lock().unwrap();
        (state.asked.clone(), state.sent)
    }
}

const PIECE: u64 = CHUNK_BYTES_MAX as u64;

/// Names of the weights in the folder of the test.
fn files(bench: &Bench) -> Vec<String> {
    let mut names = names_in(bench.dir.path());
    names.retain(|name| name.contains("safetensors"));
    names
}

#[test]
fn an_interrupted_pull_sends_each_byte_once() {
    let served = serve();
    let whole = bytes(7);
    served.set(Some(1), false);
    let done = served.bench.succeed(&served.line(""));
    assert_eq!(done.out, "best.safetensors\n");
    let pulled = served.bench.path("best.safetensors");
    assert!(std::fs::read(&pulled).unwrap() == whole);
    assert_eq!(served.seen(), (vec![0, PIECE], whole.len() as u64));
    assert_eq!(files(&served.bench), ["best.safetensors"]);

    // The learner stays unreachable: the partial file stays, and the next pull resumes.
    std::fs::remove_file(&pulled).unwrap();
    served.set(Some(0), true);
    let line = served.line("best -o x/b");
    let words = ["does not respond", "is a learner running there"];
    served.bench.fail(&line, 5, &words);
    served.set(Some(2), false);
    assert_eq!(served.bench.succeed(&line).out, "x/b\n");
    assert_eq!(served.seen(), (vec![0, 2 * PIECE], whole.len() as u64));
    assert!(std::fs::read(served.bench.path("x/b")).unwrap() == whole);
}

#[test]
fn a_partial_file_is_checked_and_a_new_file_starts_over() {
    let served = serve();
    let (part, digest) = ("best.safetensors.part", "best.safetensors.part.sha256");
    let sha256 = served.sha256_of_best();
    // Damaged on this disk: the digest at the end detects it, and the file is pulled again.
    let mut damaged = bytes(7)[..CHUNK_BYTES_MAX].to_vec();
    damaged[5] ^= 1;
    served.bench.write(part, damaged);
    served.bench.write(digest, format!("{sha256}  best\n"));
    let done = served.bench.succeed(&served.line(""));
    assert_contains(&done.err, "is damaged");
    assert_eq!(served.seen().0, [PIECE, 0]);
    let pulled = served.bench.path("best.safetensors");
    assert!(std::fs::read(&pulled).unwrap() == bytes(7));

    // Better weights arrived between the two halves.
    served.bench.write(part, &bytes(7)[..CHUNK_BYTES_MAX]);
    served.bench.write(digest, format!("{sha256}  best\n"));
    served.bench.write("next", bytes(11));
    let kept = served.bench.path("kept/best.safetensors");
    std::fs::rename(served.bench.path("next"), kept).unwrap();
    served.set(None, false);
    let words = ["best.safetensors exists already", "--force"];
    served.bench.fail(&served.line(""), 1, &words);
    assert!(std::fs::read(&pulled).unwrap() == bytes(7), "kept");
    let done = served.bench.succeed(&served.line("--force"));
    assert_contains(&done.err, "another file");
    assert!(std::fs::read(&pulled).unwrap() == bytes(11));
    let left = files(&served.bench);
    assert_eq!(left, ["best.safetensors"], "nothing is left behind");
}

#[test]
fn a_partial_file_of_one_checkpoint_is_not_used_for_another() {
    let served = serve();
    served.bench.write("kept/final.safetensors", bytes(11));
    // The partial file of an earlier pull of the best weights to the same path.
    let digest = format!("{}  best\n", served.sha256_of_best());
    served.bench.write("agents.part.sha256", digest);
    let part = &bytes(7)[..CHUNK_BYTES_MAX];
    served.bench.write("agents.part", part);
    let line = served.line("final.safetensors -o agents");
    assert_eq!(served.bench.succeed(&line).out, "agents\n");
    assert_eq!(served.seen().0, [0]);
    assert!(std::fs::read(served.bench.path("agents")).unwrap() == bytes(11));
}

#[test]
fn names_of_no_checkpoint_are_refused() {
    let served = serve();
    let (bench, pull) = (&served.bench, served.line(""));
    bench.failures(&format!(
        "2 {pull} ../best => is not the name of a checkpoint
         2 {pull} ../best -o x => shows the names
         4 {pull} gone => no checkpoint \"gone\" | best.safetensors"
    ));
    assert!(!bench.path("x").exists() && !bench.path("gone").exists());
}
