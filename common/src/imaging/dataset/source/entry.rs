//! One scan of a source.

use std::path::PathBuf;

use super::Split;

/// A scan with what the source says about it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) image: PathBuf,
    /// At least one, unless there is a problem or no landmark is known.
    pub(super) landmarks: Vec<PathBuf>,
    /// Whether several landmark files complete each other.
    pub(super) merge: bool,
    pub(super) split: Option<Split>,
    pub(super) fold: Option<u32>,
    /// Its location, appended to the source's path: `:3`.
    pub(super) place: String,
    /// Advice for a scan without a landmark file.
    pub(super) expected: String,
}

impl Entry {
    pub(super) fn found(image: PathBuf, landmarks: Vec<PathBuf>, split: Option<Split>) -> Self {
        Self {
            image,
            landmarks,
            merge: false,
            split,
            fold: None,
            place: String::new(),
            expected: String::new(),
        }
    }

    /// The scan's split when `fold` is held out from training.
    pub(super) fn split(&self, fold: Option<u32>) -> Option<Split> {
        let Some(fold) = fold else { return self.split };
        match (self.split, self.fold) {
            (Some(Split::Test | Split::Validation), _) => self.split,
            (_, Some(own)) if own == fold => Some(Split::Validation),
            _ => Some(Split::Train),
        }
    }

    /// What the scan is for, where no fold is chosen: `test`, `fold 2`.
    pub(super) fn purpose(&self, fold: Option<u32>) -> Option<String> {
        match (self.split(fold), self.fold) {
            (None | Some(Split::Train), Some(own)) if fold.is_none() => Some(format!("fold {own}")),
            (split, _) => split.map(|split| format!("split {split}")),
        }
    }
}
