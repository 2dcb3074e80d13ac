//! What a weights file records of the scans that it was trained on: their spacing, and
//! hashes of their content.
//!
//! Files on disk record it. Broadcast weights do not: actors and evaluators have the
//! training manifest, and 10,000 hashes would add 330 kB to every version sent.

use common::imaging::manifest::{TrainingManifest, hex};
use common::imaging::scan::VolumeHash;
use model::ModelError;
use model::files::tensor_file::{self, Metadata};

/// Metadata key of the smallest and the largest spacing, mm per axis, JSON.
pub const SPACING_KEY: &str = "landmarl.training_spacing_mm";
/// Metadata key of the hashes of the training scans, hex, sorted, separated by spaces.
pub const SCANS_KEY: &str = "landmarl.training_scans";

/// Leading bytes of a volume's hash that are kept: two different scans do not share so
/// many, and a file is half as large as with all of them.
const HASH_BYTES: usize = 16;

/// The scans that weights were trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingScans {
    /// The smallest and the largest distance between voxel centres, mm, per axis of the
    /// grids nearest to RAS, after resampling.
    pub spacing_mm: [[f64; 3]; 2],
    /// Hashes in hex, sorted; empty if they were left out.
    hashes: Vec<String>,
}

impl TrainingScans {
    /// The scans of a manifest; `None` if it has none.
    #[must_use]
    pub fn of(manifest: &TrainingManifest) -> Option<Self> {
        let first = manifest.entries.first()?.spacing_mm;
        let [mut low, mut high] = [first; 2];
        for entry in &manifest.entries {
            for (axis, mm) in entry.spacing_mm.into_iter().enumerate() {
                low[axis] = low[axis].min(mm);
                high[axis] = high[axis].max(mm);
            }
        }
        let mut hashes: Vec<String> = manifest.entries.iter().map(|e| short(&e.volume)).collect();
        hashes.sort();
        Some(Self {
            spacing_mm: [low, high],
            hashes,
        })
    }

    /// Reads what [`TrainingScans::metadata`] wrote; `None` if the file does not record it.
    ///
    /// # Errors
    /// [`ModelError::Metadata`] when the spacing is not two times three lengths.
    pub fn read(metadata: &Metadata) -> Result<Option<Self>, ModelError> {
        let Some(spacing) = metadata.get(SPACING_KEY) else {
            return Ok(None);
        };
        let invalid = |reason: String| ModelError::Metadata {
            key: SPACING_KEY.to_owned(),
            reason,
        };
        let spacing_mm: [[f64; 3]; 2] =
            serde_json::from_str(spacing).map_err(|e| invalid(e.to_string()))?;
        if !spacing_mm
            .iter()
            .flatten()
            .all(|mm| *mm > 0.0 && mm.is_finite())
        {
            return Err(invalid(format!("{spacing_mm:?} are not lengths")));
        }
        let hashes = metadata
            .get(SCANS_KEY)
            .map(String::as_str)
            .unwrap_or_default();
        let mut hashes: Vec<String> = hashes.split_whitespace().map(str::to_owned).collect();
        hashes.sort();
        Ok(Some(Self { spacing_mm, hashes }))
    }

    /// The entries of a weights file.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        let spacing = serde_json::json!(self.spacing_mm).to_string();
        let mut all = Metadata::from([(SPACING_KEY.to_owned(), spacing)]);
        if !self.hashes.is_empty() {
            all.insert(SCANS_KEY.to_owned(), self.hashes.join(" "));
        }
        all
    }

    /// The same without hashes, which reveal to owners of a scan whether it was used.
    #[must_use]
    pub fn without_hashes(self) -> Self {
        Self {
            hashes: Vec::new(),
            ..self
        }
    }

    /// Number of training scans; `None` if their hashes were left out.
    #[must_use]
    pub fn count(&self) -> Option<usize> {
        Some(self.hashes.len()).filter(|count| *count > 0)
    }

    /// Whether a volume is one of them, as far as their hashes are known.
    #[must_use]
    pub fn contains(&self, volume: &VolumeHash) -> bool {
        self.hashes.binary_search(&short(volume)).is_ok()
    }
}

/// Adds the training scans and a digest to the bytes of a weights file; its tensors stay as
/// they are.
///
/// # Errors
/// When the bytes are no safetensors file.
pub fn record(weights: &[u8], manifest: &TrainingManifest) -> Result<Vec<u8>, ModelError> {
    let scans = TrainingScans::of(manifest);
    let more = scans.map(|scans| scans.metadata()).unwrap_or_default();
    tensor_file::seal(weights, &more)
}

fn short(volume: &VolumeHash) -> String {
    hex(&volume[..HASH_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::imaging::manifest::ManifestEntry;

    fn manifest(scans: &[(u8, [f64; 3])]) -> TrainingManifest {
        let entry = |&(hash, spacing_mm): &(u8, [f64; 3])| ManifestEntry {
            name: "scan".to_owned(),
            volume: [hash; 32],
            spacing_mm,
            affine: [[0.0; 4]; 3],
            landmarks: Vec::new(),
        };
        TrainingManifest {
            entries: scans.iter().map(entry).collect(),
            rules_version: 1,
        }
    }

    #[test]
    fn spacing_and_hashes_are_written_and_read() {
        let manifest = manifest(&[(9, [1.0, 1.2, 1.5]), (7, [1.0, 1.25, 1.0])]);
        let scans = TrainingScans::of(&manifest).unwrap();
        assert_eq!(scans.spacing_mm, [[1.0, 1.2, 1.0], [1.0, 1.25, 1.5]]);
        let metadata = scans.metadata();
        assert_eq!(metadata[SPACING_KEY], "[[1.0,1.2,1.0],[1.0,1.25,1.5]]");
        let expected = format!("{} {}", "07".repeat(16), "09".repeat(16));
        assert_eq!(metadata[SCANS_KEY], expected);
        let read = TrainingScans::read(&metadata).unwrap().unwrap();
        assert_eq!(read, scans);
        assert_eq!(read.count(), Some(2));
        assert!(read.contains(&[9; 32]) && !read.contains(&[8; 32]));
    }

    #[test]
    fn hashes_can_be_left_out_and_older_files_have_neither() {
        let scans = TrainingScans::of(&manifest(&[(9, [1.0; 3])])).unwrap();
        let published = scans.without_hashes();
        assert!(!published.metadata().contains_key(SCANS_KEY));
        let read = TrainingScans::read(&published.metadata()).unwrap().unwrap();
        assert!(read.count().is_none() && !read.contains(&[9; 32]));
        assert_eq!(TrainingScans::read(&Metadata::new()).unwrap(), None);
        assert_eq!(TrainingScans::of(&manifest(&[])), None);
        for bad in ["1", "[[1,1,1],[1,1,0]]", "[[1,1],[1,1]]"] {
            let metadata = Metadata::from([(SPACING_KEY.to_owned(), bad.to_owned())]);
            let error = TrainingScans::read(&metadata).unwrap_err().to_string();
            assert!(error.contains(SPACING_KEY), "{bad}: {error}");
        }
    }
}
