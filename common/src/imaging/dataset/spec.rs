//! The training or evaluation data that the settings name.

use std::path::{Path, PathBuf};

use super::source::{Source, Split};
use super::warnings::DataWarning;
use crate::config::Config;
use crate::imaging::cache::Recipe;

/// How scans are loaded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadOptions {
    /// How each scan is made into a volume.
    pub recipe: Recipe,
    /// Folder of preprocessed volumes; `None` for the user's cache folder.
    pub cache_dir: Option<PathBuf>,
    /// Whether spacings may differ by more than 1 % between scans.
    pub allow_mixed_spacing: bool,
}

/// The data that a run trains or is evaluated on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DatasetSpec {
    /// List file of scans, folder or manifest.
    pub images: PathBuf,
    /// List file of the landmark files, line for line; none for a folder or manifest.
    pub landmarks: Option<PathBuf>,
    /// The split to load, where the source names splits or folds.
    pub split: Split,
    /// The fold held out from training, where the source names folds.
    pub fold: Option<u32>,
    /// Landmark of each agent: names, or numbers from 0. Empty: all of the first file.
    pub ids: Vec<String>,
    /// How scans are loaded.
    pub options: LoadOptions,
    /// Of validation scans with a source of their own, the training scans and the list of
    /// their landmark files.
    pub training: Option<(PathBuf, Option<PathBuf>)>,
}

impl LoadOptions {
    /// The load options of a configuration.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let data = &config.data;
        Self {
            recipe: Recipe {
                choice: config.rules.volume,
                resample_mm: data.resample_mm(),
                limits: data.limits(),
            },
            cache_dir: given(&data.cache),
            allow_mixed_spacing: data.allow_mixed_spacing,
        }
    }
}

impl DatasetSpec {
    /// The training scans.
    #[must_use]
    pub fn training(config: &Config) -> Self {
        Self {
            images: PathBuf::from(&config.data.train_images),
            landmarks: given(&config.data.train_landmarks),
            split: Split::Train,
            fold: config.data.fold(),
            ids: config.data.landmarks.clone(),
            options: LoadOptions::from_config(config),
            training: None,
        }
    }

    /// The scans that choose the best checkpoint: those of
    /// `data.validation_images`, else the validation split of the training source.
    /// `None` where there are none.
    #[must_use]
    pub fn validation(config: &Config) -> Option<Self> {
        let training = Self::training(config);
        let data = &config.data;
        if let Some(images) = given(&data.validation_images) {
            return Some(Self {
                images,
                landmarks: given(&data.validation_landmarks),
                split: Split::Validation,
                training: Some((training.images, training.landmarks)),
                ids: training.ids,
                fold: training.fold,
                options: training.options,
            });
        }
        // Loading the training scans reports what cannot be read here.
        let source = Source::read(&training.images, training.landmarks.as_deref()).ok()?;
        source
            .has(Split::Validation, training.fold)
            .then_some(Self {
                split: Split::Validation,
                ..training
            })
    }

    /// Warns of subjects in `source`, which is that of this spec, that were trained on.
    pub(super) fn shared_subjects(&self, source: &Source) -> Vec<DataWarning> {
        let shared = match &self.training {
            None => source.shared_subjects(self.fold),
            // Loading the training scans reports what cannot be read here.
            Some((images, landmarks)) => Source::read(images, landmarks.as_deref())
                .map(|training| source.subjects_shared_with(&training, self.fold))
                .unwrap_or_default(),
        };
        shared.into_iter().map(DataWarning::from).collect()
    }
}

fn given(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| Path::new(path).to_owned())
}
