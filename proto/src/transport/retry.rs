//! Calls with deadlines, and retries.

use backon::{ExponentialBuilder, Retryable as _};
use std::future::Future;
use std::time::Duration;
use tonic::{Code, Request, Response, Status};

/// The default for unary calls.
pub const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// For joining a run: the learner compares manifests.
pub const JOIN_DEADLINE: Duration = Duration::from_secs(10);

/// The server gives up this much later than we do, so that one side alone
/// decides and the caller always sees `DEADLINE_EXCEEDED`: tonic reports its
/// own time-outs as `CANCELLED`.
const SERVER_SLACK: Duration = Duration::from_secs(1);

/// One unary call that ends within `within`, whatever the peer does:
/// `unary(message, CALL_DEADLINE, |request| client.sample(request))`.
pub async fn unary<M, T, C, F>(message: M, within: Duration, call: C) -> Result<T, Status>
where
    C: FnOnce(Request<M>) -> F,
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(within + SERVER_SLACK);
    match tokio::time::timeout(within, call(request)).await {
        Ok(result) => result.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no response within {} s",
            within.as_secs_f64()
        ))),
    }
}

/// Whether the same call may succeed a moment later.
#[must_use]
pub fn is_retryable(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted
    )
}

/// Whether the peer refuses the caller: the same call will fail again.
#[must_use]
pub fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::Unimplemented
            | Code::PermissionDenied
            | Code::Unauthenticated
    )
}

/// The message of a status, followed by its sources: for a failed handshake the
/// message alone is "transport error".
#[must_use]
pub fn reason(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// Waits between attempts: 0.1 s doubling to 5 s, each lengthened by up to
/// itself at random, so that clients do not retry in step.
#[must_use]
pub fn backoff(times: usize) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(times)
}

/// Repeats an IDEMPOTENT call up to `times` times while it fails with
/// [`is_retryable`]; `what` names it in the log. Returns the last failure.
pub async fn retry<T, O, F>(what: &str, times: usize, op: O) -> Result<T, Status>
where
    O: FnMut() -> F,
    F: Future<Output = Result<T, Status>>,
{
    op.retry(backoff(times))
        .when(is_retryable)
        .notify(|status, wait| {
            tracing::debug!(what, code = ?status.code(), reason = status.message(), wait_ms = wait.as_millis(), "call again");
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    async fn attempts(code: Code, times: usize) -> (u32, Code) {
        let calls = Cell::new(0);
        let failed = retry("test", times, || {
            calls.set(calls.get() + 1);
            async move { Err::<(), _>(Status::new(code, "refused")) }
        });
        let code = failed.await.unwrap_err().code();
        (calls.get(), code)
    }

    #[tokio::test]
    async fn retries_are_bounded_and_only_for_transient_failures() {
        for (code, calls) in [
            (Code::Unavailable, 3),
            (Code::FailedPrecondition, 1),
            (Code::InvalidArgument, 1),
        ] {
            assert_eq!(attempts(code, 2).await, (calls, code));
        }
    }

    #[tokio::test]
    async fn a_call_without_a_response_is_deadline_exceeded() {
        let silent = |request: Request<()>| {
            assert!(request.metadata().contains_key("grpc-timeout"));
            std::future::pending::<Result<Response<()>, Status>>()
        };
        let status = unary((), Duration::from_millis(20), silent)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert_eq!(status.message(), "no response within 0.02 s");
    }

    #[test]
    fn a_reason_contains_each_source_once() {
        let inner = std::io::Error::other("received fatal alert: CertificateRequired");
        let status = Status::from_error(Box::new(inner));
        let text = reason(&status);
        assert_eq!(text.matches("CertificateRequired").count(), 1, "{text}");
        assert_eq!(reason(&Status::unavailable("gone")), "gone");
    }

    #[test]
    fn two_backoffs_differ() {
        use backon::BackoffBuilder as _;
        let waits = || backoff(4).build().collect::<Vec<_>>();
        assert_ne!(
            waits(),
            waits(),
            "without random jitter all clients would retry at once"
        );
    }
}
