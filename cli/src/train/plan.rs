//! What a run is: its folder, its description, its data.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use common::config::Config;
use common::dataset::{Dataset, LoadOptions};
use common::manifest::hex;
use common::row::RowShape;
use common::rules::RULES_VERSION;
use common::run_folder::{RunFolder, RunInfo, host_name, rfc3339};
use proto::hello::Hello;

use super::validate::Validator;
use crate::failure::{Advice, Exit};
use crate::guess::Guess;
use crate::scans;

/// A run that is ready to start.
#[derive(Debug)]
pub struct Plan {
    pub config: Arc<Config>,
    pub dataset: Arc<Dataset>,
    pub folder: RunFolder,
    pub hello: Hello,
    pub resume: bool,
    pub validator: Option<Validator>,
    /// Rises with every start of the run.
    pub incarnation: u64,
    selection: usize,
}

/// Refuses a configuration that names no scans to train on.
pub fn check_data_settings(config: &Config) -> Result<(), Advice> {
    let d = &config.data;
    for (key, value, flag) in [
        ("data.train_images", &d.train_images, "--train-images"),
        (
            "data.train_landmarks",
            &d.train_landmarks,
            "--train-landmarks",
        ),
    ] {
        if value.is_empty() {
            let message = format!("config key \"{key}\" is empty: there is nothing to train on");
            let hint =
                format!("give {flag} LIST; `landmarl phantom --out data` makes scans to try");
            return Err(Advice::new(Exit::Config, message).hint(hint));
        }
    }
    if d.selection_images.is_empty() != d.selection_landmarks.is_empty() {
        let message = "one of data.selection_images and data.selection_landmarks is empty";
        return Err(Advice::new(Exit::Config, message).hint("give both, or neither"));
    }
    Ok(())
}

impl Plan {
    /// Loads the data and describes the run in its folder.
    pub fn make(
        mut config: Config,
        folder: RunFolder,
        resume: bool,
        now: SystemTime,
    ) -> anyhow::Result<Self> {
        let options = LoadOptions::from_config(&config);
        let (images, landmarks) = (
            Path::new(&config.data.train_images),
            Path::new(&config.data.train_landmarks),
        );
        let dataset = scans::pair(images, landmarks, &config.data.landmarks, options)?;
        config.data.landmarks.clone_from(&dataset.landmark_names);
        config.run.name = folder.name();
        let selection = selection(&config, &dataset)?;

        let manifest = dataset.manifest(RULES_VERSION).digest();
        let mut info = run_info(&config, &folder, manifest, now);
        if resume {
            info = folder.check_resume(&info)?;
        }
        let guess = Guess::of(&dataset.scans, &dataset.landmark_names, String::new());
        guess.store(&folder, &dataset.landmark_names, dataset.scans.len())?;
        folder.describe(&config, &info)?;

        let hello = Hello {
            run_id: info.run_id,
            manifest,
            config_digest: config.digest(),
            shape: RowShape {
                agents: config.row_agents(),
                history: u8::try_from(config.rules.history).context("rules.history")?,
            },
        };
        let config = Arc::new(config);
        let selection_count = selection.as_ref().map_or(0, |s| s.scans.len());
        let validator =
            selection.map(|s| Validator::new(Arc::clone(&config), s.scans, guess, &folder));
        Ok(Self {
            config,
            dataset: Arc::new(dataset),
            folder,
            hello,
            resume,
            validator: validator.transpose()?,
            incarnation: now.duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs()),
            selection: selection_count,
        })
    }

    /// One sentence for the start.
    pub fn words(&self) -> String {
        format!(
            "{} {}: {} training scans, {} selection scans, landmarks {}, {} actors, {} shards, {} updates",
            if self.resume {
                "continuing"
            } else {
                "starting"
            },
            self.folder.path().display(),
            self.dataset.scans.len(),
            self.selection,
            self.dataset.landmark_names.join(", "),
            self.config.actor.count,
            self.config.replay.shards,
            self.config.learner.updates,
        )
    }
}

/// The scans that choose the best weights, if there are any.
fn selection(config: &Config, training: &Dataset) -> anyhow::Result<Option<Dataset>> {
    if config.data.selection_images.is_empty() || config.validation.every == 0 {
        return Ok(None);
    }
    let (images, landmarks) = (
        Path::new(&config.data.selection_images),
        Path::new(&config.data.selection_landmarks),
    );
    let options = LoadOptions::from_config(config);
    let selection = scans::pair(images, landmarks, &config.data.landmarks, options)?;
    let trained: HashSet<_> = training.scans.iter().map(|s| s.hash).collect();
    for scan in selection.scans.iter().filter(|s| trained.contains(&s.hash)) {
        tracing::warn!(
            scan = scan.name,
            "a selection scan is trained on too: its error says nothing"
        );
    }
    Ok(Some(selection))
}

/// Describes a run that starts now.
pub fn run_info(
    config: &Config,
    folder: &RunFolder,
    manifest: [u8; 32],
    now: SystemTime,
) -> RunInfo {
    let nanos = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    RunInfo {
        // Two runs of one name in different folders must not mix.
        run_id: format!("{}-{nanos:x}", folder.name()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: std::env::args().collect(),
        seed: config.run.seed,
        manifest: hex(&manifest),
        config_digest: hex(&config.digest()),
        landmarks: config.data.landmarks.clone(),
        started: rfc3339(now),
        resumed: Vec::new(),
        host: host_name(),
    }
}
