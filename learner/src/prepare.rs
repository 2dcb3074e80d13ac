//! Prepares a run: locks its folder for this process and writes the run's description. The learner
//! and `landmarl train --lockstep` prepare their runs here.

use std::sync::Arc;
use std::time::SystemTime;

use common::config::Config;
use common::environment::rules::RULES_VERSION;
use common::imaging::dataset::Dataset;
use common::imaging::manifest::TrainingManifest;
use common::run::baseline::MeanPositionBaseline;
use common::run::run_folder::{ClaimedFolder, RunFolder, RunFolderError, RunInfo, RunLock};
use proto::messages::hello::Hello;

use crate::checkpoint::folder::Resume;

/// A run that is ready to start.
#[derive(Debug)]
pub struct PreparedRun {
    /// The configuration, with the run's name and its landmark names resolved.
    pub config: Arc<Config>,
    pub dataset: Arc<Dataset>,
    /// Content hashes of the training scans.
    pub manifest: TrainingManifest,
    /// The mean-position baseline that errors are compared with.
    pub baseline: MeanPositionBaseline,
    /// What all members of the run agree on.
    pub hello: Hello,
    pub folder: RunFolder,
    /// The checkpoint of the folder to go on from.
    pub resume: Resume,
    _lock: Option<RunLock>,
}

impl PreparedRun {
    /// Writes the run's description to its folder: configuration, run id, training scans and
    /// baseline. A resumed run keeps its run id.
    /// Refuses a folder that holds a run with other data, rules or network.
    pub fn new(
        claimed: ClaimedFolder,
        mut config: Config,
        dataset: Arc<Dataset>,
        resume: Resume,
        now: SystemTime,
    ) -> Result<Self, RunFolderError> {
        let folder = claimed.folder();
        config.data.landmarks.clone_from(&dataset.landmark_names);
        config.run.name = folder.name();
        let manifest = dataset.manifest(RULES_VERSION);
        let mut info = RunInfo::new(&config, manifest.digest(), now);
        if folder.info_file().is_file() {
            info = folder.check_resume(&info)?;
        }
        let baseline = MeanPositionBaseline::new(&dataset.scans, dataset.landmark_names.len());
        baseline.store(folder.path(), &dataset.landmark_names)?;
        folder.describe(&config, &manifest, &info)?;
        let (folder, lock) = claimed.keep();
        Ok(Self {
            hello: Hello::new(&info.run_id, &config, manifest.digest()),
            config: Arc::new(config),
            dataset,
            manifest,
            baseline,
            folder,
            resume,
            _lock: lock,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::testing::scans;

    fn prepare(dir: &Path, seconds: u64, fresh: bool) -> Result<PreparedRun, RunFolderError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let claimed = if fresh {
            ClaimedFolder::create(dir, "one", now)?
        } else {
            ClaimedFolder::open_or_create(dir, "one", now)?
        };
        let dataset = Dataset {
            scans: scans(3),
            landmark_names: vec!["A".into(), "B".into()],
            ..Dataset::default()
        };
        let config = Config::defaults().unwrap();
        let resume = if fresh { Resume::No } else { Resume::Newest };
        PreparedRun::new(claimed, config, Arc::new(dataset), resume, now)
    }

    #[test]
    fn the_folder_describes_the_run() {
        let dir = tempfile::tempdir().unwrap();
        // With --resume auto, the first start finds no checkpoint.
        let run = prepare(dir.path(), 10, false).unwrap();
        assert_eq!(run.config.run.name, "one");
        assert_eq!(run.resume, Resume::Newest);
        assert_eq!(run.config.data.landmarks, ["A", "B"]);
        let names = &run.config.data.landmarks;
        let baseline = MeanPositionBaseline::load(run.folder.path(), names).unwrap();
        assert_eq!(baseline.unwrap(), run.baseline);
        assert_eq!((run.baseline.scans, run.baseline.ras_mm.len()), (3, 2));
        let manifest = std::fs::read(run.folder.manifest_file()).unwrap();
        let manifest: TrainingManifest = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest, run.manifest);
        let info = run.folder.info().unwrap();
        assert_eq!(info.run_id, run.hello.run_id);
        assert!(run.folder.config_file().is_file());
    }

    #[test]
    fn a_resumed_run_keeps_its_id_and_a_new_one_of_that_name_gets_another() {
        let dir = tempfile::tempdir().unwrap();
        let first = prepare(dir.path(), 10, true).unwrap();
        let busy = prepare(dir.path(), 20, false).unwrap_err();
        assert!(matches!(busy, RunFolderError::Busy { .. }), "{busy}");
        let (id, path) = (first.hello.run_id.clone(), first.folder.path().to_owned());
        drop(first);
        let exists = prepare(dir.path(), 20, true).unwrap_err();
        assert!(matches!(exists, RunFolderError::Exists { .. }), "{exists}");
        let again = prepare(dir.path(), 30, false).unwrap();
        assert_eq!(again.hello.run_id, id);
        assert_eq!(again.folder.info().unwrap().resumed.len(), 1);
        drop(again);
        std::fs::remove_dir_all(path).unwrap();
        assert_ne!(prepare(dir.path(), 40, true).unwrap().hello.run_id, id);
    }
}
