//! The learner as a service, against simulated shards and actors.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod setup;
mod shard;
mod unread;

use std::time::Duration;

use proto::messages::chunks::Chunk;
use proto::messages::heartbeat::Heartbeat;
use proto::messages::insert::Writer;
use proto::messages::join::{JoinReply, JoinRequest};
use proto::messages::status::{ActorReport, ActorState};
use proto::messages::weights::{Receiver, WatchRequest};
use proto::wire;
use setup::{Run, config, prepare};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

const SOON: Duration = Duration::from_secs(60);

/// Waits until `what` holds; panics with its name after a timeout.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(SOON, wait).await;
    assert!(waited.is_ok(), "never: {what}");
}

fn heartbeat(writer: Writer) -> wire::HeartbeatRequest {
    Heartbeat {
        writer,
        report: ActorReport {
            env_steps: 123,
            rows_dropped: 0,
            weights_version: 1,
            weights_age_s: 0.5,
            state: ActorState::Acting.into(),
            exploration: 0.25,
            weights_latency_s: 0.0,
        },
        episodes: 4,
        rows_sent: 100,
        blocked_s: 0.0,
        episode_error: 2.5,
        episode_errors: 4,
    }
    .into()
}

/// Joins as an actor, with a changed request.
async fn join(run: &Run, change: impl FnOnce(&mut JoinRequest)) -> Result<JoinReply, Status> {
    let mut request = JoinRequest {
        hello: run.hello.clone(),
        slots: 4,
        host: "test".into(),
        manifest_json: run.manifest_json(),
        config_json: run.config.shared_json().into(),
    };
    change(&mut request);
    let reply = run.client().join(wire::JoinRequest::from(request)).await;
    Ok(JoinReply::try_from(reply?.into_inner()).unwrap())
}

/// Acts as an actor that only watches: the complete versions received, in order,
/// until a heartbeat reply has `stop` set. Feeds the run once the first version has
/// arrived: five updates later another one is the newest.
async fn versions_until_stop(run: &Run, writer: Writer) -> Vec<u64> {
    let mut client = run.client();
    let watch = WatchRequest {
        hello: run.hello.clone(),
        newer_than: 0,
        bf16: false,
        untrained_first: false,
    };
    let stream = client.watch_weights(wire::WatchRequest::from(watch)).await;
    let mut stream = stream.unwrap().into_inner();
    let (mut versions, mut receiver) = (Vec::new(), Receiver::default());
    let mut feeding: Option<JoinHandle<()>> = None;
    loop {
        let reply = client.heartbeat(heartbeat(writer)).await.unwrap();
        let reply = reply.into_inner();
        assert!(!reply.rejoin);
        if reply.stop {
            if let Some(feeding) = feeding {
                feeding.abort();
            }
            return versions;
        }
        let next = tokio::time::timeout(Duration::from_millis(100), stream.message()).await;
        let Ok(Ok(Some(chunk))) = next else { continue };
        let chunk = Chunk::try_from(chunk).unwrap();
        if let Some(weights) = receiver.push(&chunk).unwrap() {
            let read = model::files::weights::from_bytes(&weights.bytes).unwrap();
            let updates = &read.metadata[learner::training::trainer::UPDATES_KEY];
            assert_eq!(*updates, weights.updates.to_string());
            versions.push(weights.version);
            feeding.get_or_insert_with(|| run.feed());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_trains_to_its_end_and_notifies_its_members() {
    let config = config(|c| c.learner.updates = 60);
    let mut run = Run::start(config, false).await;
    let joined = join(&run, |_| ()).await.unwrap();
    assert_eq!((joined.exploration.len(), joined.shards.len()), (4, 2));

    let versions = versions_until_stop(&run, joined.writer).await;
    let summary = run.ended().await.unwrap();
    assert_eq!((summary.updates, summary.stopped_early), (60, false));
    assert_eq!(versions.first(), Some(&1), "published at the start");
    assert!(versions.windows(2).all(|w| w[0] < w[1]));
    let progress = &summary.progress;
    assert!(progress.over && progress.train.loss.is_finite());
    assert_eq!(
        (progress.actors.env_steps, progress.actors.episode_error),
        (123, Some(2.5))
    );
    let updated: u64 = run.shards.iter().map(|s| s.state().updated).sum();
    assert!(updated >= 8 * 40, "{updated} priorities came back");
    // Within the limiter's range: T = 100 rows, SPI = 4.
    let inserted: u64 = run.shards.iter().map(|s| s.state().inserted).sum();
    assert!(60 * 8 <= (inserted + 100) * 4 + 8 * 8, "{inserted}");
    let bytes = std::fs::read(&summary.checkpoint).unwrap();
    let read =
        learner::checkpoint::inference_weights(&bytes, "checkpoint", &Default::default()).unwrap();
    assert_eq!(read.metadata[learner::training::trainer::UPDATES_KEY], "60");
    let metrics = std::fs::read_to_string(run.run_dir.join("metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(last["updates"], 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn training_continues_without_a_lost_shard_and_uses_it_again() {
    let config = config(|c| c.learner.updates = 1_000_000);
    let mut run = Run::start(config, false).await;
    let feeding = run.feed();
    let progress = run.progress.clone();
    let updates = || progress.borrow().train.updates;
    let alive = || progress.borrow().shards.shards_alive;
    until("first updates", || updates() > 5).await;
    run.shards[1].stop();
    until("one shard is lost", || alive() == 1).await;
    let then = updates();
    until("training with one shard", || updates() > then + 20).await;
    run.shards[1].restart();
    until("the shard is back", || alive() == 2).await;
    until("credit and rows", || run.shards[1].state().rows > 20).await;
    until("it is sampled again", || run.shards[1].state().sampled > 20).await;
    let then = updates();
    until("training with both shards", || updates() > then + 20).await;
    // All shards restart at once, empty: neither a block nor a burst.
    run.shards.iter().for_each(shard::Shard::stop);
    until("all shards are lost", || alive() == 0).await;
    run.shards.iter().for_each(shard::Shard::restart);
    until("all shards are back", || alive() == 2).await;
    let then = updates();
    until("training after a total loss", || updates() > then + 20).await;
    feeding.abort();
    run.stop();
    let summary = run.ended().await.unwrap();
    assert!(summary.stopped_early);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_of_other_runs_are_refused_with_the_differences() {
    let mut run = Run::start(config(|_| ()), false).await;
    let refused = async |change: fn(&mut JoinRequest)| join(&run, change).await.unwrap_err();
    let status = refused(|j| {
        j.hello.manifest = [9; 32];
        let mut theirs: serde_json::Value = serde_json::from_slice(&j.manifest_json).unwrap();
        theirs["entries"].as_array_mut().unwrap().pop();
        j.manifest_json = theirs.to_string().into();
    })
    .await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("is only here"), "{status}");
    let status = refused(|j| {
        j.hello.config_digest = [9; 32];
        let text = String::from_utf8(j.config_json.to_vec()).unwrap();
        j.config_json = text.replace("\"max_steps\":150", "\"max_steps\":9").into();
    })
    .await;
    assert!(status.message().contains("rules.max_steps"), "{status}");
    let status = refused(|j| j.hello.run_id = "another".into()).await;
    assert!(status.message().contains("another"), "{status}");
    // The run's name is accepted as its id.
    let joined = join(&run, |j| j.hello.run_id = "it".into()).await;
    assert_eq!(joined.unwrap().run_id, run.hello.run_id);
    // A heartbeat of an unknown incarnation.
    let unknown = Writer {
        actor: 77,
        incarnation: 1,
    };
    let reply = run.client().heartbeat(heartbeat(unknown)).await;
    assert!(reply.unwrap().into_inner().rejoin);
    run.stop();
    run.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_run_resumes_from_its_checkpoint() {
    let mut run = Run::start(config(|c| c.learner.updates = 1_000_000), false).await;
    let writer = join(&run, |_| ()).await.unwrap().writer;
    run.client().heartbeat(heartbeat(writer)).await.unwrap();
    let feeding = run.feed();
    let progress = run.progress.clone();
    until("some updates and episodes", || {
        let progress = progress.borrow();
        progress.train.updates > 10 && progress.actors.episodes == 4
    })
    .await;
    feeding.abort();
    run.stop();
    let first = run.ended().await.unwrap();
    assert!(first.stopped_early && first.checkpoint.is_file());
    let total = first.updates + 20;
    // Restarts from the same folder, with empty shards.
    run.shards.iter().for_each(shard::Shard::restart);
    let mut again = run.again(config(|c| c.learner.updates = total), true).await;
    let request = wire::LearnerStatusRequest::default();
    let status = again.client().status(request).await.unwrap();
    let (resumed, before) = (status.into_inner().updates, first.updates);
    assert!(resumed >= before, "{resumed} of {before}");
    let feeding = again.feed();
    let second = again.ended().await.unwrap();
    feeding.abort();
    assert_eq!((second.updates, second.stopped_early), (total, false));
    let episodes = second.progress.actors.episodes;
    assert_eq!(episodes, 4, "learner.max_episodes counts the whole run");
    // Other rules: refused before serving starts.
    let other = config(|c| c.rules.max_steps = 9);
    let error = prepare(again.dir.path(), &other, true).unwrap_err();
    let text = error.to_string();
    let reason = "cannot be continued: its configuration digest";
    assert!(text.contains(reason), "{text}");
}

/// The clock of the resumed learner is behind: what it gives out must be above what the
/// shards and its predecessor know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_learner_whose_clock_is_behind_gives_out_later_incarnations() {
    let mut run = Run::start(config(|c| c.learner.updates = 1_000_000), false).await;
    // By the clock of the first learner, an hour ahead of this one.
    let ahead = join(&run, |_| ()).await.unwrap().writer.incarnation + 3600;
    let progress = run.progress.clone();
    let alive = || progress.borrow().shards.shards_alive;
    until("both shards are found", || alive() == 2).await;
    run.stop();
    run.ended().await.unwrap();
    let reserved = run.run_dir.join("incarnations");
    std::fs::write(&reserved, format!("{ahead}\n")).unwrap();
    let again = || run.again(config(|c| c.learner.updates = 1_000_000), true);
    let mut resumed = again().await;
    let given = join(&resumed, |_| ()).await.unwrap().writer.incarnation;
    assert!(given >= ahead, "{given} < {ahead}");
    until("the shards know two learners", || {
        run.shards[0].state().learners.len() == 2
    })
    .await;
    resumed.stop();
    resumed.ended().await.unwrap();
    // A copy of the folder without the file, and a shard that knows the old ones.
    std::fs::remove_file(&reserved).unwrap();
    let known = given + 100;
    run.shards[1].state().newest_writer = known;
    let mut resumed = again().await;
    let alive = || resumed.progress.borrow().shards.shards_alive;
    until("both shards are found", || alive() == 2).await;
    let given = join(&resumed, |_| ()).await.unwrap().writer.incarnation;
    assert!(given > known, "{given} <= {known}");
    resumed.stop();
    resumed.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_deadlock_are_refused_at_the_start() {
    let mut run = Run::start(config(|c| c.replay.error_buffer = 3), false).await;
    let text = run.ended().await.unwrap_err().to_string();
    let reason = "replay.error_buffer = 3 rows would deadlock";
    assert!(text.contains(reason), "{text}");
}
