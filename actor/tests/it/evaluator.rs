//! The evaluator against a learner that is made up here.

use std::path::PathBuf;
use std::sync::Arc;

use actor::evaluation::baseline::Guess;
use actor::evaluation::evaluator::{self, EvaluatorSetup, EvaluatorSummary};
use actor::evaluation::validate::{Validation, Validator};
use actor::{ActorError, Ending};
use proto::messages::status::Evaluation;
use proto::messages::weights::Published;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;

use crate::fake_learner::FakeLearner;
use crate::setup::{config, scan, until, weights, within};

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<EvaluatorSummary, ActorError>>,
}

impl Running {
    fn start(learner: &str, every: u64, run_dir: Option<PathBuf>) -> Self {
        let mut config = config();
        config.validation.every = every;
        config.validation.starts = 1;
        let setup = EvaluatorSetup {
            security: proto::transport::security::Security::none(),
            errors: tokio::sync::watch::channel(None).0,
            config: Arc::new(config),
            selection: vec![scan(13)],
            guess: Guess {
                ras_mm: vec![Some([14.0, 12.0, 10.0]), Some([4.0, 5.0, 6.0])],
                from: None,
            },
            learner: learner.to_owned(),
            run_id: None,
            run_dir,
        };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(evaluator::run(setup, shutdown));
        Self { stop, task }
    }

    async fn stop(self) -> EvaluatorSummary {
        let _ = self.stop.send(());
        within(self.task).await.unwrap().unwrap()
    }
}

/// What the learner was told, in order.
fn told(learner: &FakeLearner) -> Vec<Evaluation> {
    let beats = learner.evaluators.lock().unwrap();
    beats.iter().filter_map(|b| b.evaluation).collect()
}

fn updates(learner: &FakeLearner) -> Vec<u64> {
    told(learner).iter().map(|e| e.updates).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_of_the_untrained_weights_then_of_every_so_many_updates_and_of_the_last() {
    let learner = FakeLearner::new(&[]);
    learner.answer.lock().unwrap().wanted = true;
    learner.publish(1, weights(1, 1));
    let server = learner.serve("127.0.0.1:0");
    let running = Running::start(&server.address, 20, None);
    until("the untrained weights", || updates(&learner) == [0]).await;
    // 10 updates are too few, 20 are due; the best are sent along.
    learner.publish(2, weights(2, 1));
    learner.publish(3, weights(3, 1));
    until("the next evaluation", || updates(&learner) == [0, 20]).await;
    let size = weights(1, 1).len();
    until("the best weights", || {
        *learner.kept.lock().unwrap() == [(1, size), (3, size)]
    })
    .await;
    {
        let beats = learner.evaluators.lock().unwrap();
        let line = &beats
            .iter()
            .rfind(|b| b.evaluation.is_some())
            .unwrap()
            .line_json;
        let line: Validation = serde_json::from_slice(line).unwrap();
        assert_eq!((line.updates, line.landmarks.len()), (20, 2));
        assert!(line.constant_guess_mm.is_some() && line.mean_error_mm.is_finite());
    }
    // The end: 30 updates would not be due before 40, and are the last.
    learner.publish(4, weights(4, 1));
    {
        let mut answer = learner.answer.lock().unwrap();
        (answer.stop, answer.last_version) = (true, Some(4));
    }
    let summary = within(running.task).await.unwrap().unwrap();
    assert_eq!((summary.ending, summary.evaluations), (Ending::RunOver, 3));
    assert_eq!(updates(&learner), [0, 20, 30]);
    assert!(learner.joins.lock().unwrap().is_empty(), "no actor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_restarts_hears_what_was_found_meanwhile() {
    let learner = FakeLearner::new(&[]);
    learner.publish(1, weights(1, 1));
    let server = learner.serve("127.0.0.1:0");
    let address = server.address.clone();
    let running = Running::start(&address, 20, None);
    // A later sign of life without it: the answer to the evaluation has arrived.
    until("the untrained weights", || {
        let beats = learner.evaluators.lock().unwrap();
        let told = beats.iter().rposition(|b| b.evaluation.is_some());
        told.is_some_and(|told| told + 1 < beats.len())
    })
    .await;
    assert_eq!(updates(&learner), [0]);
    drop(server);
    // Another life: it counts on from less, and goes on beyond.
    let again = FakeLearner::new(&[]);
    again.answer.lock().unwrap().last_updates = Some(0);
    again.publish(2, weights(2, 1));
    let _server = again.serve(&address);
    until("a sign of life", || {
        !again.evaluators.lock().unwrap().is_empty()
    })
    .await;
    assert!(updates(&again).is_empty(), "10 updates are not due");
    again.publish(3, weights(3, 1));
    until("an evaluation", || updates(&again) == [20]).await;
    let summary = running.stop().await;
    assert_eq!((summary.ending, summary.evaluations), (Ending::Shutdown, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_run_folder_it_writes_there_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("checkpoints")).unwrap();
    let learner = FakeLearner::new(&[]);
    learner.answer.lock().unwrap().wanted = true;
    learner.publish(1, weights(1, 1));
    let server = learner.serve("127.0.0.1:0");
    let start = || Running::start(&server.address, 20, Some(dir.path().to_owned()));
    let first = start();
    until("the untrained weights", || updates(&learner) == [0]).await;
    assert_eq!(first.stop().await.evaluations, 1);
    let second = start();
    learner.publish(3, weights(3, 1));
    until("the next", || updates(&learner) == [0, 20]).await;
    second.stop().await;
    let text = std::fs::read_to_string(dir.path().join("validation.jsonl")).unwrap();
    let lines: Vec<Validation> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.iter().map(|v| v.updates).collect::<Vec<_>>(), [0, 20]);
    assert!(dir.path().join("checkpoints/best.safetensors").is_file());
    let beats = learner.evaluators.lock().unwrap();
    assert!(beats.iter().all(|b| b.line_json.is_empty()), "written here");
}

#[test]
fn a_disk_that_takes_nothing_stops_no_training_and_makes_no_weights_the_best() {
    let dir = tempfile::tempdir().unwrap();
    // Where a folder is needed lies a file, and the other way round.
    let (checkpoints, lines) = (
        dir.path().join("checkpoints"),
        dir.path().join("validation.jsonl"),
    );
    std::fs::write(&checkpoints, b"").unwrap();
    std::fs::create_dir(&lines).unwrap();
    let mut config = config();
    config.validation.starts = 1;
    let guess = Guess::default();
    let folder = Some(dir.path());
    let mut validator =
        Validator::new(Arc::new(config), vec![scan(13)], guess, "cpu", folder).unwrap();
    let mut validate = |updates| {
        let published = Published::at(0, updates, updates, weights(1, 1));
        let best = validator.validate(&published).unwrap().best;
        (best, validator.errors_mm().is_some())
    };
    assert_eq!(validate(1), (false, false));
    std::fs::remove_file(&checkpoints).unwrap();
    std::fs::create_dir(&checkpoints).unwrap();
    std::fs::remove_dir(&lines).unwrap();
    assert_eq!(validate(2), (true, true));
    assert!(checkpoints.join("best.safetensors").is_file());
    let text = std::fs::read_to_string(&lines).unwrap();
    let kept: Validation = serde_json::from_str(&text).unwrap();
    assert_eq!((kept.updates, kept.best), (2, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_configuration_is_refused_with_the_words_of_the_learner() {
    let learner = FakeLearner::new(&[]);
    let sentence = "the configurations differ in rules.max_steps";
    *learner.refusal.lock().unwrap() = Some(Status::failed_precondition(sentence));
    let server = learner.serve("127.0.0.1:0");
    let running = Running::start(&server.address, 20, None);
    match within(running.task).await.unwrap() {
        Err(ActorError::Refused { sentence: told, .. }) => assert_eq!(told, sentence),
        other => panic!("{other:?}"),
    }
}
