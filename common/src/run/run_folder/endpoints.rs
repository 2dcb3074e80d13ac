//! `endpoints.json`: where the process that trains a run answers.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Result, RunFolder, rfc3339};
use crate::run::durable::AtomicFile;
use crate::run::machine::host_name;

/// A process and the addresses at which it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    pub pid: u32,
    /// The machine it runs on.
    pub host: String,
    /// `host:port` of the learner's gRPC service; `None` in lockstep.
    pub grpc: Option<String>,
    /// Whether `grpc` needs a certificate.
    #[serde(default)]
    pub tls: bool,
    /// `host:port` of `/metrics` and `/health`, where they are served.
    pub http: Option<String>,
    /// `host:port` of the board, where it is served.
    pub board: Option<String>,
    /// Start of the process, RFC 3339 UTC.
    pub started: String,
}

impl Endpoints {
    /// Describes this process.
    #[must_use]
    pub fn of_this_process(now: SystemTime) -> Self {
        Self {
            pid: std::process::id(),
            host: host_name(),
            grpc: None,
            tls: false,
            http: None,
            board: None,
            started: rfc3339(now),
        }
    }

    /// Whether the process is gone: it ran on this machine and no process has its number.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.host == host_name() && !process_exists(self.pid)
    }
}

/// Where this machine's own processes reach a listener: loopback for one on all addresses.
#[must_use]
pub fn reachable(listener: SocketAddr) -> String {
    let ip = match listener.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listener.port()).to_string()
}

fn process_exists(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    // A process of another user answers with a refusal, and exists.
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The file of a running process; removed when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Announced {
    file: PathBuf,
    ours: Endpoints,
}

impl Drop for Announced {
    fn drop(&mut self) {
        // A process that has taken the folder over keeps its own file.
        if read(&self.file).as_ref() == Some(&self.ours) {
            fs::remove_file(&self.file).ok();
        }
    }
}

/// Whether this user or root wrote the file.
#[cfg(unix)]
fn is_trusted(file: &PathBuf) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let own = rustix::process::geteuid().as_raw();
    fs::metadata(file).is_ok_and(|file| [0, own].contains(&file.uid()))
}

#[cfg(not(unix))]
fn is_trusted(_: &PathBuf) -> bool {
    true
}

fn read(file: &PathBuf) -> Option<Endpoints> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

impl RunFolder {
    fn endpoints_file(&self) -> PathBuf {
        self.path.join("endpoints.json")
    }

    /// Writes `endpoints.json`, which only this user can read, until the result is dropped.
    /// Fails when it cannot be written.
    pub fn announce(&self, endpoints: Endpoints) -> Result<Announced> {
        let file = self.endpoints_file();
        let text = serde_json::to_string_pretty(&endpoints).unwrap_or_default() + "\n";
        let mut private = AtomicFile::create_private(&file)?;
        let written = private.write_all(text.as_bytes());
        written.map_err(|source| super::RunFolderError::Write {
            path: file.clone(),
            source,
        })?;
        private.commit()?;
        Ok(Announced {
            file,
            ours: endpoints,
        })
    }

    /// Reads `endpoints.json`; `None` where no process has announced itself, or none that
    /// this user may ask.
    #[must_use]
    pub fn endpoints(&self) -> Option<Endpoints> {
        let file = self.endpoints_file();
        // Callers send their token to the address.
        is_trusted(&file).then(|| read(&file)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn folder(dir: &tempfile::TempDir) -> RunFolder {
        RunFolder::create(dir.path(), "one", NOW).unwrap()
    }

    #[test]
    fn only_the_user_can_read_the_endpoints_and_they_go_with_the_process() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let run = folder(&dir);
        assert_eq!(run.endpoints(), None);
        let ours = Endpoints {
            grpc: Some("127.0.0.1:7400".into()),
            ..Endpoints::of_this_process(NOW)
        };
        let announced = run.announce(ours.clone()).unwrap();
        let mode = fs::metadata(run.endpoints_file()).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(run.endpoints(), Some(ours.clone()));
        assert!(!ours.is_stale(), "this process exists");
        drop(announced);
        assert!(!run.endpoints_file().exists());
    }

    #[test]
    fn the_file_of_a_later_process_stays() {
        let dir = tempfile::tempdir().unwrap();
        let run = folder(&dir);
        let first = run.announce(Endpoints::of_this_process(NOW)).unwrap();
        let later = Endpoints {
            pid: 1,
            ..Endpoints::of_this_process(NOW)
        };
        let _later = run.announce(later.clone()).unwrap();
        drop(first);
        assert_eq!(run.endpoints(), Some(later));
    }

    #[test]
    fn a_process_that_is_gone_is_stale_and_one_of_another_machine_is_not() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let gone = Endpoints {
            pid: child.id(),
            ..Endpoints::of_this_process(NOW)
        };
        assert!(gone.is_stale());
        let elsewhere = Endpoints {
            host: "elsewhere".into(),
            ..gone
        };
        assert!(!elsewhere.is_stale());
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_over_loopback() {
        for (listener, expected) in [
            ("0.0.0.0:7400", "127.0.0.1:7400"),
            ("[::]:7400", "[::1]:7400"),
            ("10.0.0.7:7400", "10.0.0.7:7400"),
        ] {
            assert_eq!(reachable(listener.parse().unwrap()), expected);
        }
    }

    /// A user's token goes to the address in the file.
    #[test]
    fn the_file_of_another_user_is_not_trusted() {
        use std::os::unix::fs::chown;
        let dir = tempfile::tempdir().unwrap();
        let run = folder(&dir);
        let _announced = run.announce(Endpoints::of_this_process(NOW)).unwrap();
        if let Err(error) = chown(run.endpoints_file(), Some(54321), None) {
            println!("skipped: the_file_of_another_user_is_not_trusted: {error}");
            return;
        }
        assert_eq!(run.endpoints(), None);
    }

    #[test]
    fn a_damaged_file_is_no_endpoint() {
        let dir = tempfile::tempdir().unwrap();
        let run = folder(&dir);
        fs::write(run.endpoints_file(), "{\"pid\":").unwrap();
        assert_eq!(run.endpoints(), None);
    }
}
