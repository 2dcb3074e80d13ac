//! What a run is: its folder, its description, its data.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use actor::evaluation::baseline::Guess;
use actor::evaluation::validate::Validator;
use anyhow::Context as _;
use common::config::Config;
use common::environment::rules::RULES_VERSION;
use common::imaging::dataset::{Dataset, DatasetSpec, is_list};
use common::imaging::manifest::hex;
use common::run::run_folder::{RunFolder, RunInfo, host_name, rfc3339};
use common::transition::row::RowShape;
use proto::messages::hello::Hello;

use crate::input::scans;
use crate::output::failure::{Advice, Exit};

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
    let alone = |images: &str, landmarks: &str| landmarks.is_empty() && is_list(Path::new(images));
    let nothing = [
        (
            d.train_images.is_empty(),
            "data.train_images",
            "--train-images PATH",
        ),
        (
            alone(&d.train_images, &d.train_landmarks),
            "data.train_landmarks",
            "--train-landmarks LIST",
        ),
    ];
    if let Some((_, key, flag)) = nothing.into_iter().find(|(is_so, ..)| *is_so) {
        let message = format!("config key \"{key}\" is empty: there is nothing to train on");
        let hint = format!("give {flag}; `landmarl phantom --out data` makes scans to try");
        return Err(Advice::new(Exit::Config, message).hint(hint));
    }
    let landmarks_alone = d.selection_images.is_empty() && !d.selection_landmarks.is_empty();
    if landmarks_alone || alone(&d.selection_images, &d.selection_landmarks) {
        let message = "one of data.selection_images and data.selection_landmarks is empty";
        let hint = "give both lists, or a folder or manifest as images, or neither";
        return Err(Advice::new(Exit::Config, message).hint(hint));
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
        let dataset = scans::load(&DatasetSpec::training(&config))?;
        config.data.landmarks.clone_from(&dataset.landmark_names);
        config.run.name = folder.name();
        let selection = selection(&config, &dataset)?;

        let manifest = dataset.manifest(RULES_VERSION).digest();
        let mut info = run_info(&config, &folder, manifest, now);
        if resume {
            info = folder.check_resume(&info)?;
        }
        let guess = Guess::of(&dataset.scans, &dataset.landmark_names, String::new());
        guess.store(folder.path(), &dataset.landmark_names, dataset.scans.len())?;
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
        let validator = selection.map(|s| {
            // The learner may fill the GPU; walks on the CPU never stop it.
            let device = &config.learner.device;
            let path = Some(folder.path());
            Validator::new(Arc::clone(&config), s.scans, guess, device, path)
        });
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
        let (actors, shards) = (self.config.actor.count, self.config.replay.shards);
        let services = if self.config.run.lockstep {
            "in lockstep".to_owned()
        } else {
            format!("{actors} actors, {shards} shards")
        };
        format!(
            "{} {}: {} training scans, {} selection scans, landmarks {}, {services}, {} updates",
            if self.resume {
                "continuing"
            } else {
                "starting"
            },
            self.folder.path().display(),
            self.dataset.scans.len(),
            self.selection,
            self.dataset.landmark_names.join(", "),
            self.config.learner.updates,
        )
    }
}

/// The scans that choose the best weights, if there are any.
fn selection(config: &Config, training: &Dataset) -> anyhow::Result<Option<Dataset>> {
    if config.validation.every == 0 {
        return Ok(None);
    }
    let Some(spec) = DatasetSpec::selection(config) else {
        return Ok(None);
    };
    let selection = scans::load(&spec)?;
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
