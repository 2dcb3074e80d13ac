//! The metrics of every process: itself, its disks and its log.

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use common::run::machine::{self, Room};
use common::run::telemetry::Control;

use super::{Metric, Page, Source, Unit, counter, gauge};

/// A running process.
pub const PROCESS: &[Metric<Process>] = &[
    gauge(
        "landmarl_process_uptime",
        Unit::Seconds,
        "Time since the process began",
        "rises",
        |p| p.began.elapsed().into(),
    ),
    gauge(
        "landmarl_process_resident",
        Unit::Bytes,
        "Resident memory, from the kernel",
        "flat after the first minutes",
        |_| machine::resident_bytes().into(),
    ),
    counter(
        "landmarl_process_cpu",
        Unit::Seconds,
        "Processor time of all threads, from the kernel",
        "",
        |_| machine::processor_seconds().into(),
    ),
    counter(
        "landmarl_process_log_lines_dropped",
        Unit::Count,
        "Lines not written to `log.folder`: the disk too slow, full or gone",
        "0",
        |p| p.log.as_ref().map(Control::dropped_lines).into(),
    ),
    counter(
        "landmarl_process_log_lines_held_back",
        Unit::Count,
        "Lines beyond ten of the same in ten seconds; one line reports how many",
        "small",
        |p| p.log.as_ref().map(Control::held_back_lines).into(),
    ),
];

/// Which program a process runs.
pub const BUILD: &[Metric<()>] = &[gauge(
    "landmarl_build_info",
    Unit::Flag,
    "1, with labels `service` and `version`",
    "one version",
    |()| true.into(),
)];

/// The disk of a folder that a process writes to.
pub const DISK: &[Metric<Room>] = &[
    gauge(
        "landmarl_process_disk_free",
        Unit::Bytes,
        "What may still be written to the disk of `folder`: `run` (learner), `journal` (shard)",
        "a tenth of the size at least",
        |room| room.free.into(),
    ),
    gauge(
        "landmarl_process_disk_size",
        Unit::Bytes,
        "Size of the disk of `folder`",
        "",
        |room| room.size.into(),
    ),
];

/// Exports [`PROCESS`], [`BUILD`] and [`DISK`].
pub struct Process {
    service: String,
    began: Instant,
    log: Option<Control>,
    folders: Vec<(&'static str, PathBuf)>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

impl Process {
    /// A process that starts now, and writes to folders with these purposes.
    #[must_use]
    pub fn new(service: &str, log: Option<Control>, folders: Vec<(&'static str, PathBuf)>) -> Self {
        Self {
            service: service.to_owned(),
            began: Instant::now(),
            log,
            folders,
        }
    }
}

impl Source for Process {
    fn export(&self, page: &mut Page) {
        page.labelled("service", &self.service, |page| {
            page.labelled("version", env!("CARGO_PKG_VERSION"), |page| {
                page.read(BUILD, &());
            });
        });
        page.read(PROCESS, self);
        for (purpose, folder) in &self.folders {
            // An inaccessible folder has no series.
            if let Ok(room) = machine::disk_room(folder) {
                page.labelled("folder", purpose, |page| page.read(DISK, &room));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::metrics::Metrics;

    #[test]
    fn a_process_exports_itself_and_the_folders_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = Metrics::default();
        let folders = [
            ("run", dir.path().to_owned()),
            ("gone", dir.path().join("gone")),
        ];
        metrics.add(Process::new("actor", None, folders.into()));
        let text = metrics.text().unwrap();
        for line in [
            "landmarl_build_info{service=\"actor\",version=\"",
            "landmarl_process_disk_free_bytes{folder=\"run\"} ",
            "landmarl_process_cpu_seconds_total ",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        for absent in ["gone", "log_lines"] {
            assert!(!text.contains(absent), "{absent} is in {text}");
        }
    }
}
