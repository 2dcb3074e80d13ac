//! Services that share a process: each of their log lines names its service.

use tracing::{Span, error_span};

/// Target of the spans that name a service.
pub(super) const TARGET: &str = "landmarl::service";

/// A service that runs in a process with others, as in `landmarl train`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InProcess {
    Learner,
    Actor,
    ReplayServer,
    Evaluator,
}

/// A span for all that a service does: lines within it carry its name as `service`, whatever the
/// log level is. Tasks and threads that the service starts must stay within it
/// (`Instrument::in_current_span`, [`in_current_span`]).
#[must_use]
pub fn service_span(service: InProcess) -> Span {
    // The macro requires constant names.
    match service {
        InProcess::Learner => error_span!(target: TARGET, "learner"),
        InProcess::Actor => error_span!(target: TARGET, "actor"),
        InProcess::ReplayServer => error_span!(target: TARGET, "replay-server"),
        InProcess::Evaluator => error_span!(target: TARGET, "evaluator"),
    }
}

/// The work of another thread, within the span of the calling one.
pub fn in_current_span<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = Span::current();
    move || span.in_scope(work)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::dispatcher;
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

    use super::super::json::Labels;
    use super::super::repeats::Repeats;
    use super::super::{Console, filter, json_layer};
    use super::*;

    #[test]
    fn lines_of_services_in_one_process_name_the_service_in_threads_and_under_any_filter() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let console = Console::new(move |line| {
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            sink.lock().unwrap().push(line);
            Ok(())
        });
        let labels = Arc::new(Labels::new("landmarl", "host", ""));
        let layer = json_layer(&labels, &Repeats::default(), move || console.clone());
        // Targets alone: everything else is filtered out.
        let only = filter(&format!("{}=warn", module_path!())).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(only));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("outside");
            let services = [
                InProcess::Learner,
                InProcess::Actor,
                InProcess::ReplayServer,
                InProcess::Evaluator,
            ];
            for service in services {
                service_span(service).in_scope(|| {
                    let _in = tracing::error_span!("inner", actor = 1).entered();
                    tracing::warn!("inside");
                    let dispatch = dispatcher::get_default(Clone::clone);
                    let work = in_current_span(|| tracing::warn!("in a thread"));
                    let thread = move || dispatcher::with_default(&dispatch, work);
                    std::thread::spawn(thread).join().unwrap();
                });
            }
        });
        let lines = lines.lock().unwrap();
        let services = lines.iter().map(|line| line["service"].as_str().unwrap());
        let mut expected = vec!["landmarl"];
        for service in ["learner", "actor", "replay-server", "evaluator"] {
            expected.extend([service; 2]);
        }
        assert_eq!(services.collect::<Vec<_>>(), expected, "{lines:#?}");
    }
}
