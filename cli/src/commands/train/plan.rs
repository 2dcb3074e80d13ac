//! What a run needs before it starts: folder, description and scans.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use common::config::Config;
use common::imaging::dataset::{Dataset, DatasetSpec, is_list};
use common::imaging::scan::Scan;
use common::run::run_folder::ClaimedFolder;
use learner::PreparedRun;
use learner::checkpoint::folder::Resume;

use crate::input::scans;
use crate::output::failure::{Advice, Exit};

/// A run that is ready to start.
#[derive(Debug)]
pub struct Plan {
    pub run: Arc<PreparedRun>,
    /// Empty if nothing is evaluated during training.
    pub validation: Vec<Arc<Scan>>,
    /// Increases with every start of the run.
    pub incarnation: u64,
}

/// Refuses a configuration without training scans or with incomplete lists.
pub fn check_data_settings(config: &Config) -> Result<(), Advice> {
    let d = &config.data;
    let alone = |images: &str, landmarks: &str| landmarks.is_empty() && is_list(Path::new(images));
    let no_landmarks = alone(&d.train_images, &d.train_landmarks);
    let missing = [
        (d.train_images.is_empty(), "images", "PATH"),
        (no_landmarks, "landmarks", "LIST"),
    ];
    if let Some((_, what, value)) = missing.into_iter().find(|(is_missing, ..)| *is_missing) {
        let message = format!("config key \"data.train_{what}\" is empty: no training data");
        let flag = format!("--train-{what} {value}");
        let hint = format!("give {flag}; `landmarl phantom --out data` generates example scans");
        return Err(Advice::new(Exit::Config, message).hint(hint));
    }
    let landmarks_alone = d.validation_images.is_empty() && !d.validation_landmarks.is_empty();
    if landmarks_alone || alone(&d.validation_images, &d.validation_landmarks) {
        let message = "one of data.validation_images and data.validation_landmarks is empty";
        let hint = "give both lists, or a folder or manifest as images, or neither";
        return Err(Advice::new(Exit::Config, message).hint(hint));
    }
    Ok(())
}

impl Plan {
    /// Loads the data and writes the run's description to its folder.
    pub fn make(
        config: Config,
        claimed: ClaimedFolder,
        resume: Resume,
        now: SystemTime,
    ) -> anyhow::Result<Self> {
        let dataset = scans::load(&DatasetSpec::training(&config))?;
        let validation = validation(&config, &dataset)?;
        let run = PreparedRun::new(claimed, config, Arc::new(dataset), resume, now)?;
        Ok(Self {
            run: Arc::new(run),
            validation,
            incarnation: now.duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs()),
        })
    }

    /// A summary, printed at the start.
    pub fn summary(&self) -> String {
        let (run, config) = (&self.run, &self.run.config);
        let services = if config.run.lockstep {
            "in lockstep".to_owned()
        } else {
            let (actors, shards) = (config.actor.count, config.replay.shards);
            format!("{actors} actors, {shards} shards")
        };
        // Scans that were given and are not used are named as such.
        let unused = config.validation.period == 0 && !config.data.validation_images.is_empty();
        let unused = if unused {
            " (validation.period is 0)"
        } else {
            ""
        };
        format!(
            "{} {}: {} training scans, {} validation scans{unused}, landmarks {}, {services}, {} updates",
            if run.resume == Resume::No {
                "starting"
            } else {
                "continuing"
            },
            run.folder.path().display(),
            run.dataset.scans.len(),
            self.validation.len(),
            run.dataset.landmark_names.join(", "),
            config.learner.updates,
        )
    }
}

/// The scans that select the best weights, if any.
fn validation(config: &Config, training: &Dataset) -> anyhow::Result<Vec<Arc<Scan>>> {
    if config.validation.period == 0 {
        return Ok(Vec::new());
    }
    let mut config = config.clone();
    config.data.landmarks.clone_from(&training.landmark_names);
    let spec = DatasetSpec::validation(&config);
    spec.map_or(Ok(Vec::new()), |spec| Ok(scans::load(&spec)?.scans))
}
