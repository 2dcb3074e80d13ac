//! The evaluator against a learner that is made up here.

use std::sync::Arc;

use actor::evaluation::evaluator::{self, EvaluatorSetup, EvaluatorSummary};
use actor::evaluation::validate::Validation;
use actor::{ActorError, Ending};
use proto::messages::status::Evaluation;
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
    fn start(learner: &str, every: u64) -> Self {
        let mut config = config();
        config.validation.period = every;
        config.validation.starts = 1;
        let setup = EvaluatorSetup {
            security: proto::transport::security::Security::none(),
            errors: tokio::sync::watch::channel(None).0,
            config: Arc::new(config),
            validation: vec![scan(13)],
            device: "cpu".into(),
            threads: 1,
            learner: learner.to_owned(),
            run_id: None,
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

/// The evaluations that the learner received, in order.
fn received(learner: &FakeLearner) -> Vec<Evaluation> {
    let beats = learner.evaluators.lock().unwrap();
    beats.iter().filter_map(|b| b.evaluation).collect()
}

fn updates(learner: &FakeLearner) -> Vec<u64> {
    received(learner).iter().map(|e| e.updates).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_evaluates_the_untrained_weights_then_one_per_period_and_the_last() {
    let learner = FakeLearner::new(&[]);
    learner.reply.lock().unwrap().wanted = true;
    learner.publish(1, weights(1, 1));
    let server = learner.serve("127.0.0.1:0");
    let running = Running::start(&server.address, 20);
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
        let last = beats.iter().rfind(|b| b.evaluation.is_some()).unwrap();
        let line: Validation = serde_json::from_slice(&last.line_json).unwrap();
        assert_eq!((line.updates, line.landmarks.len()), (20, 2));
        assert!(line.baseline_error_mm.is_some() && line.mean_error_mm.is_finite());
        // The scans are announced until the learner has replied, and with each evaluation.
        assert!(!beats[0].manifest_json.is_empty());
        for beat in beats.iter().skip(1) {
            assert_eq!(beat.manifest_json.is_empty(), beat.evaluation.is_none());
        }
    }
    // The end: 30 updates would not be due before 40, and are the last.
    learner.publish(4, weights(4, 1));
    {
        let mut reply = learner.reply.lock().unwrap();
        (reply.stop, reply.last_version) = (true, Some(4));
    }
    let summary = within(running.task).await.unwrap().unwrap();
    assert_eq!((summary.ending, summary.evaluations), (Ending::RunOver, 3));
    assert_eq!(updates(&learner), [0, 20, 30]);
    assert!(learner.joins.lock().unwrap().is_empty(), "no actor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_learner_receives_the_evaluations_made_since() {
    let learner = FakeLearner::new(&[]);
    learner.publish(1, weights(1, 1));
    let server = learner.serve("127.0.0.1:0");
    let address = server.address.clone();
    let running = Running::start(&address, 20);
    // A later beat without it: the reply to the evaluation has arrived.
    until("the untrained weights", || {
        let beats = learner.evaluators.lock().unwrap();
        let last = beats.iter().rposition(|b| b.evaluation.is_some());
        last.is_some_and(|last| last + 1 < beats.len())
    })
    .await;
    assert_eq!(updates(&learner), [0]);
    drop(server);
    // Another process of the learner: it resumes from fewer updates and continues beyond.
    let again = FakeLearner::new(&[]);
    again.reply.lock().unwrap().last_evaluation = received(&learner).first().copied();
    again.publish(2, weights(2, 1));
    let _server = again.serve(&address);
    until("a beat", || !again.evaluators.lock().unwrap().is_empty()).await;
    assert!(updates(&again).is_empty(), "10 updates are not due");
    again.publish(3, weights(3, 1));
    until("an evaluation", || updates(&again) == [20]).await;
    // The learner may have restarted between two beats, neither of which failed.
    let beats = again.evaluators.lock().unwrap().clone();
    let with = beats.iter().find(|b| b.evaluation.is_some()).unwrap();
    // Another process of the learner does not know the scans.
    assert!(!with.manifest_json.is_empty());
    let summary = running.stop().await;
    assert_eq!((summary.ending, summary.evaluations), (Ending::Shutdown, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_configuration_is_refused_with_the_reason_of_the_learner() {
    let learner = FakeLearner::new(&[]);
    let sentence = "the configurations differ in rules.max_steps";
    *learner.refusal.lock().unwrap() = Some(Status::failed_precondition(sentence));
    let server = learner.serve("127.0.0.1:0");
    let running = Running::start(&server.address, 20);
    let error = within(running.task).await.unwrap().unwrap_err();
    assert!(
        matches!(&error, ActorError::Refused { sentence: s, .. } if s == sentence),
        "{error}"
    );
}
