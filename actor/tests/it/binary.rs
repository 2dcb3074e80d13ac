//! The `actor` binary: exit codes and signals.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::phantom::{LANDMARK_NAMES, PhantomCounts, PhantomSpec, write_dataset};
use tonic::Status;

use crate::fake_learner::FakeLearner;
use crate::fake_shard::FakeShard;
use crate::setup::{until, weights};

/// Phantom scans and the settings that the other tests use too.
fn settings(folder: &Path) -> Vec<String> {
    let data = phantoms(folder);
    let list = |name: &str| data.join(name).display().to_string();
    [
        format!("data.train_images={}", list("images.txt")),
        format!("data.train_landmarks={}", list("landmarks.txt")),
        format!("data.cache={}", folder.join("cache").display()),
        "rules.window_size=8".into(),
        "rules.scales=[[2,3],[1,1]]".into(),
        "actor.slots=4".into(),
        "actor.start_near=0.0".into(),
    ]
    .into()
}

fn start(folder: &Path, learner: &str, landmarks: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actor"));
    command.args(["run", "--learner", learner, "--log-format", "json", "--set"]);
    command
        .args(settings(folder))
        .arg(format!("data.landmarks={landmarks}"));
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// The first two of a phantom's landmarks.
fn two() -> String {
    format!("{:?}", &LANDMARK_NAMES[..2])
}

fn phantoms(folder: &Path) -> PathBuf {
    let counts = PhantomCounts {
        train: 2,
        validation: 0,
        test: 0,
    };
    let spec = PhantomSpec::with_dims([48, 56, 48]);
    write_dataset(folder, counts, &spec, 3, |_| ()).unwrap();
    folder.join("train")
}

async fn exit(mut child: Child) -> (Option<i32>, String) {
    tokio::task::spawn_blocking(move || {
        let stderr = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        (child.wait().unwrap().code(), stderr)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains_the_rows_and_is_exit_code_0() {
    let folder = tempfile::tempdir().unwrap();
    let shard = FakeShard::new(usize::MAX);
    let shard_server = shard.serve("127.0.0.1:0");
    let learner = FakeLearner::new(std::slice::from_ref(&shard_server.address));
    learner.publish(1, weights(1, 1));
    let server = learner.serve("127.0.0.1:0");
    let child = start(folder.path(), &server.address, &two());
    until("rows", || shard.rows() > 100).await;
    let id = child.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &id]).status();
    assert!(killed.unwrap().success());
    let (code, stderr) = exit(child).await;
    assert_eq!(code, Some(0), "{stderr}");
    for text in ["actor ended", "\"unsent\":0"] {
        assert!(stderr.contains(text), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_scans_are_exit_code_4_with_the_reason_of_the_learner() {
    let folder = tempfile::tempdir().unwrap();
    let learner = FakeLearner::new(&["127.0.0.1:1".into()]);
    let reason = "1 of 2 scans differs: 'p' is only there";
    *learner.refusal.lock().unwrap() = Some(Status::failed_precondition(reason));
    let server = learner.serve("127.0.0.1:0");
    let (code, stderr) = exit(start(folder.path(), &server.address, &two())).await;
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains(reason), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_are_exit_code_3_and_bad_data_4() {
    let absent = [
        "data.train_images=/nowhere/a.txt",
        "data.train_landmarks=/nowhere/b.txt",
    ];
    for (set, expected, text) in [
        (&["actor.slost=3"][..], 3, "did you mean \"actor.slots\"?"),
        (&["actor.slots=3"][..], 3, "data.train_images"),
        (&absent[..], 4, "/nowhere/a.txt"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_actor"));
        command.args(["run", "--set"]).args(set);
        let (code, stderr) = exit(command.stderr(Stdio::piped()).spawn().unwrap()).await;
        assert!(code == Some(expected) && stderr.contains(text), "{stderr}");
    }
}
