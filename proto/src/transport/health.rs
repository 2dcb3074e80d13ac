//! Whether a service can do its work: what it says of itself, over gRPC and HTTP, and the check
//! that container probes use.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::transport::endpoint::AddressError;
use crate::transport::retry::{self, CALL_DEADLINE};
use crate::transport::security::{Role, Security};
use tonic::Status;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

type Check = dyn Fn() -> Result<(), String> + Send + Sync;

/// What a process checks of itself when it is asked whether it is healthy. Cheap to clone.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<Vec<Box<Check>>>>);

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.check()).finish()
    }
}

impl Health {
    /// Adds a check, which must be quick and must not block; its error says what is broken and
    /// what to do.
    pub fn add(&self, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        let mut checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checks.push(Box::new(check));
    }

    /// The health of one of several services of this process, which counts for all of them.
    #[must_use]
    pub fn part(&self) -> Self {
        let part = Self::default();
        let counted = part.clone();
        self.add(move || counted.check());
        part
    }

    /// The task, after whose panic the process is not healthy.
    pub fn watched<F: Future>(
        &self,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let panicked = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&panicked);
        self.add(move || {
            let why =
                || format!("the task \"{name}\" failed; see the log, and restart the service");
            let panicked = seen.load(Ordering::Relaxed);
            panicked.then(why).map_or(Ok(()), Err)
        });
        async move {
            let _noted = NotePanic(panicked);
            task.await
        }
    }

    /// # Errors
    /// When a check fails: what is broken, a line each.
    pub fn check(&self) -> Result<(), String> {
        let checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let broken: Vec<String> = checks.iter().filter_map(|check| check().err()).collect();
        if broken.is_empty() {
            return Ok(());
        }
        Err(broken.join("\n"))
    }
}

/// Set by a panic that drops it.
struct NotePanic(Arc<AtomicBool>);

impl Drop for NotePanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Why a service is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{address} does not respond: {}", retry::reason(status))]
    NoResponse {
        address: String,
        status: Box<Status>,
    },
    #[error("{address} responds, but is not serving ({status})")]
    NotServing {
        address: String,
        status: &'static str,
    },
}

/// Checks once the whole server at `host:port`, which must have this role.
pub async fn check(address: &str, security: &Security, role: Role) -> Result<(), HealthError> {
    let mut client = HealthClient::new(security.connect(address, role)?);
    // An empty name stands for the whole server.
    let request = HealthCheckRequest::default();
    let reply = retry::unary(request, CALL_DEADLINE, |request| client.check(request)).await;
    let address = address.to_owned();
    let serving = match reply {
        Ok(reply) => reply.status(),
        Err(status) => {
            let status = Box::new(status);
            return Err(HealthError::NoResponse { address, status });
        }
    };
    let status = serving.as_str_name();
    match serving {
        ServingStatus::Serving => Ok(()),
        _ => Err(HealthError::NotServing { address, status }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_healthy_while_all_of_its_parts_are() {
        let whole = Health::default();
        let (one, two) = (whole.part(), whole.part());
        assert_eq!(whole.check(), Ok(()));
        two.add(|| Err("two is broken".to_owned()));
        one.add(|| Ok(()));
        one.add(|| Err("one is broken".to_owned()));
        assert_eq!(two.check(), Err("two is broken".to_owned()));
        assert_eq!(
            whole.check(),
            Err("one is broken\ntwo is broken".to_owned())
        );
    }

    #[tokio::test]
    async fn a_task_that_panics_is_noticed_and_one_that_ends_is_not() {
        let health = Health::default();
        tokio::spawn(health.watched("short", async {}))
            .await
            .unwrap();
        let endless = tokio::spawn(health.watched("endless", std::future::pending::<()>()));
        endless.abort();
        endless.await.unwrap_err();
        assert_eq!(health.check(), Ok(()));
        let fault = async {
            tokio::task::yield_now().await;
            panic!("a fault of the program");
        };
        tokio::spawn(health.watched("leases", fault))
            .await
            .unwrap_err();
        let why = health.check().unwrap_err();
        assert!(why.contains("\"leases\" failed"), "{why}");
    }
}
