//! The run folder, which holds all files of one training run.
//!
//! `<run.dir>/<name>/` holds `config.toml` (resolved), `run.json` ([`RunInfo`]),
//! `training_manifest.json`, `mean_landmarks.json`, `metrics.jsonl`, `validation.jsonl`, `logs/`,
//! `checkpoints/` and `evaluations/`; while a process trains, it holds `lock` and describes itself in
//! `endpoints.json` ([`Endpoints`]).

mod claim;
mod dates;
mod endpoints;
mod info;
mod lock;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use claim::ClaimedFolder;
pub use dates::{folder_time, rfc3339, unix_nanos};
pub use endpoints::{Announced, Endpoints, reachable};
pub use info::{RunInfo, run_name};
pub use lock::RunLock;

use serde::Serialize;

use crate::config::{Config, Saved};
use crate::imaging::manifest::TrainingManifest;
use crate::run::durable::{DurableError, write_atomic};
use crate::run::lock::Holder;

#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// It cannot be created or written to.
    #[error(
        "cannot write to run folder {}: {source}; choose another place with --run-dir or run.dir",
        path.display()
    )]
    Write { path: PathBuf, source: io::Error },
    /// One of its files cannot be written.
    #[error(transparent)]
    File(#[from] DurableError),
    /// It exists already.
    #[error(
        "run folder {} exists already; continue it with --resume, or choose another name",
        path.display()
    )]
    Exists { path: PathBuf },
    /// Another process uses it.
    #[error(
        "run folder {} is in use by {holder}; wait until it ends, or choose another name",
        path.display()
    )]
    Busy { path: PathBuf, holder: Holder },
    /// The name is not that of a single folder.
    #[error(
        "run name \"{name}\" must be one folder name, without / and not starting with a dot; choose another --name"
    )]
    Name { name: String },
    /// It cannot be read.
    #[error("cannot read {} of a run folder: {why}; name the folder of an earlier run", path.display())]
    Read { path: PathBuf, why: String },
    /// The folder of runs cannot be read.
    #[error("cannot list the runs of {}: {error}; name another folder with --run-dir", dir.display())]
    List { dir: PathBuf, error: io::Error },
    /// There is no run to continue.
    #[error("no run to continue in {}; start one without --resume", dir.display())]
    None { dir: PathBuf },
    /// It belongs to a run of another kind.
    #[error("{} cannot be continued: its {what} is {there}, now it is {here}; {next}", path.display())]
    Differs {
        path: PathBuf,
        what: &'static str,
        there: String,
        here: String,
        next: &'static str,
    },
}

type Result<T> = std::result::Result<T, RunFolderError>;

/// An existing, writable run folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Creates `<dir>/<name>`; an empty name becomes the date and time, UTC, of a folder
    /// that did not exist before.
    /// Fails when it already holds a run, or cannot be written to.
    pub fn create(dir: &Path, name: &str, now: SystemTime) -> Result<Self> {
        if name.contains(['/', '\\', '\0']) || name.starts_with('.') {
            let name = name.to_owned();
            return Err(RunFolderError::Name { name });
        }
        let path = if name.is_empty() {
            lock::make_alone(dir, &folder_time(now))?
        } else {
            dir.join(name)
        };
        let folder = Self { path };
        if folder.info_file().exists() {
            return Err(RunFolderError::Exists { path: folder.path });
        }
        folder.prepare()?;
        Ok(folder)
    }

    /// Opens the folder of an earlier run.
    /// Fails when it holds no run, or cannot be written to.
    pub fn open(path: &Path) -> Result<Self> {
        let folder = Self {
            path: path.to_owned(),
        };
        folder.info()?;
        folder.prepare()?;
        Ok(folder)
    }

    /// The run in `dir` that started last, opened for writing.
    /// Fails when there is none, or it cannot be written to.
    pub fn latest(dir: &Path) -> Result<Self> {
        Self::open(Self::newest(dir)?.path())
    }

    /// The run in `dir` that started last; changes no file.
    /// Fails when there is none.
    pub fn newest(dir: &Path) -> Result<Self> {
        let entries = fs::read_dir(dir).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => RunFolderError::None {
                dir: dir.to_owned(),
            },
            _ => RunFolderError::List {
                dir: dir.to_owned(),
                error,
            },
        })?;
        let runs = entries.filter_map(|e| {
            let folder = Self {
                path: e.ok()?.path(),
            };
            let started = folder.info().ok()?.started;
            Some((started, folder.path))
        });
        let (_, path) = runs.max().ok_or_else(|| RunFolderError::None {
            dir: dir.to_owned(),
        })?;
        Ok(Self { path })
    }

    /// The run folder that contains a file such as a checkpoint, if any.
    #[must_use]
    pub fn around(file: &Path) -> Option<Self> {
        let file = fs::canonicalize(file).ok()?;
        let around = file
            .ancestors()
            .skip(1)
            .take(3)
            .find(|p| p.join("run.json").is_file());
        around.map(|p| Self { path: p.to_owned() })
    }

    fn prepare(&self) -> Result<()> {
        for folder in [self.logs(), self.checkpoints(), self.evaluations()] {
            fs::create_dir_all(&folder).map_err(|source| RunFolderError::Write {
                path: folder,
                source,
            })?;
        }
        // An existing folder may still be read-only, or its disk full.
        let probe = self.path.join(".write-probe");
        fs::write(&probe, b"landmarl")
            .and_then(|()| match fs::remove_file(&probe) {
                // Another process, which will find that the folder is in use, removed it.
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            })
            .map_err(|source| RunFolderError::Write {
                path: self.path.clone(),
                source,
            })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The journal of the run's own shards.
    #[must_use]
    pub fn replay(&self) -> PathBuf {
        self.path.join("replay")
    }

    #[must_use]
    pub fn evaluations(&self) -> PathBuf {
        self.path.join("evaluations")
    }

    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// The configuration of its run. Its relative paths count from the folder in which the run
    /// was started, where that is not the current one.
    #[must_use]
    pub fn saved_config(&self) -> Saved {
        let began = self.info().ok().and_then(|info| info.cwd);
        let here = std::env::current_dir().unwrap_or_default();
        // A copy of a run lies with copies of its data.
        let path = self.path.canonicalize().unwrap_or_default();
        let is_copy = |began: &PathBuf| path.starts_with(&here) && !path.starts_with(began);
        Saved {
            file: self.config_file(),
            folder: began.filter(|began| *began != here && !is_copy(began)),
        }
    }

    #[must_use]
    pub fn info_file(&self) -> PathBuf {
        self.path.join("run.json")
    }

    /// `training_manifest.json`: the training scans by content.
    #[must_use]
    pub fn manifest_file(&self) -> PathBuf {
        self.path.join("training_manifest.json")
    }

    #[must_use]
    pub fn metrics_file(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    #[must_use]
    pub fn validation_file(&self) -> PathBuf {
        self.path.join("validation.jsonl")
    }

    /// Writes `training_manifest.json`, `config.toml` and `run.json`, in this order: a folder with
    /// a `run.json` holds a complete description.
    /// Fails when they cannot be written.
    pub fn describe(
        &self,
        config: &Config,
        manifest: &TrainingManifest,
        info: &RunInfo,
    ) -> Result<()> {
        let failed = |path: &Path, why: String| RunFolderError::Write {
            path: path.to_owned(),
            source: io::Error::other(why),
        };
        let (manifest_file, config_file) = (self.manifest_file(), self.config_file());
        let info_file = self.info_file();
        let manifest = json(manifest).map_err(|e| failed(&manifest_file, e.to_string()))?;
        let toml = config
            .to_toml()
            .map_err(|e| failed(&config_file, e.to_string()))?;
        let info = json(info).map_err(|e| failed(&info_file, e.to_string()))?;
        write_atomic(&manifest_file, manifest.as_bytes())?;
        write_atomic(&config_file, toml.as_bytes())?;
        write_atomic(&info_file, info.as_bytes())?;
        Ok(())
    }

    /// Reads `run.json`.
    /// Fails when it is missing or damaged.
    pub fn info(&self) -> Result<RunInfo> {
        let path = self.info_file();
        let read = fs::read_to_string(&path).map_err(|e| e.to_string());
        read.and_then(|text| serde_json::from_str(&text).map_err(|e| e.to_string()))
            .map_err(|why| RunFolderError::Read { path, why })
    }

    /// Refuses to continue a run with different data, rules or network, and returns
    /// the description with this start added.
    ///
    /// # Errors
    /// Names the difference.
    pub fn check_resume(&self, now: &RunInfo) -> Result<RunInfo> {
        let mut before = self.info()?;
        let differs = |what, there: &str, here: &str, next| RunFolderError::Differs {
            path: self.path.clone(),
            what,
            there: there.to_owned(),
            here: here.to_owned(),
            next,
        };
        if before.manifest != now.manifest {
            let next = "give the same training scans and landmark files, or start a new run";
            return Err(differs(
                "training data (manifest)",
                short(&before.manifest),
                short(&now.manifest),
                next,
            ));
        }
        if before.landmarks != now.landmarks {
            let (there, here) = (before.landmarks.join(","), now.landmarks.join(","));
            return Err(differs(
                "landmarks",
                &there,
                &here,
                "give the same landmarks, or start a new run",
            ));
        }
        if before.config_digest != now.config_digest {
            let next = "rules, landmarks, network.kind, network.scale_input, learner.gamma and \
                        learner.n_step must stay as in its config.toml";
            return Err(differs(
                "configuration digest",
                short(&before.config_digest),
                short(&now.config_digest),
                next,
            ));
        }
        before.resumed.push(now.started.clone());
        // The paths of the configuration that is stored now count from here.
        before.cwd.clone_from(&now.cwd);
        Ok(before)
    }
}

fn json(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// A short form of a hash for messages.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::environment::rules::RULES_VERSION;
    use crate::imaging::manifest::hex;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn info(now: u64) -> RunInfo {
        let mut config = Config::defaults().unwrap();
        config.data.landmarks = vec!["AC".into()];
        RunInfo::new(&config, [1; 32], at(now))
    }

    fn manifest() -> TrainingManifest {
        TrainingManifest::new([], RULES_VERSION)
    }

    #[test]
    fn a_folder_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::defaults().unwrap();
        let folder = RunFolder::create(dir.path(), "", at(1_795_443_901)).unwrap();
        assert_eq!(folder.name(), "2026-11-23-142501");
        assert!(
            RunFolder::latest(dir.path())
                .unwrap_err()
                .to_string()
                .contains("no run to continue")
        );
        folder.describe(&config, &manifest(), &info(10)).unwrap();
        let again = RunFolder::create(dir.path(), "2026-11-23-142501", at(0))
            .unwrap_err()
            .to_string();
        assert!(
            again.contains("exists already; continue it with --resume"),
            "{again}"
        );
        let later = RunFolder::create(dir.path(), "a", at(0)).unwrap();
        later.describe(&config, &manifest(), &info(20)).unwrap();
        assert_eq!(RunFolder::latest(dir.path()).unwrap(), later);
        let checkpoint = later.checkpoints().join("best.safetensors");
        write_atomic(&checkpoint, b"x").unwrap();
        assert_eq!(RunFolder::around(&checkpoint).unwrap().name(), "a");
        let loaded = Config::load(&crate::config::Sources {
            files: vec![later.config_file()],
            ..Default::default()
        });
        assert_eq!(loaded.unwrap(), config);
    }

    #[test]
    fn the_error_for_an_unwritable_folder_names_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = RunFolder::create(&file, "run", at(0))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cannot write to run folder") && error.contains("--run-dir"),
            "{error}"
        );
        for bad in ["a/b", "..", ".hidden"] {
            assert!(matches!(
                RunFolder::create(dir.path(), bad, at(0)),
                Err(RunFolderError::Name { .. })
            ));
        }
    }

    #[test]
    fn another_run_is_not_continued() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(dir.path(), "a", at(0)).unwrap();
        folder
            .describe(&Config::defaults().unwrap(), &manifest(), &info(10))
            .unwrap();
        let merged = folder.check_resume(&info(30)).unwrap();
        assert_eq!(
            (merged.started, merged.resumed),
            (rfc3339(at(10)), vec![rfc3339(at(30))])
        );
        let refused = |change: fn(&mut RunInfo)| {
            let mut now = info(30);
            change(&mut now);
            folder.check_resume(&now).unwrap_err().to_string()
        };
        let text = refused(|i| i.manifest = hex(&[9; 32]));
        assert!(
            text.contains("training data") && text.contains("090909090909"),
            "{text}"
        );
        assert!(
            refused(|i| i.landmarks = vec!["PC".into()]).contains("landmarks is AC, now it is PC")
        );
        assert!(refused(|i| i.config_digest = "0".into()).contains("configuration digest"));
    }
}
