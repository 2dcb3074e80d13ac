//! Preprocessed volumes on this host's disk, looked up by the content of their
//! source file, mapped into memory and shared by all processes.
//!
//! A volume is preprocessed once per host. We never change a file once it has its
//! name; files are readable by their owner only, and may be deleted at any time. One that
//! changes all the same while it is mapped gives an error (`mapped`). Floats are not cached.

mod entry;
mod fault;
mod mapped;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::imaging::geometry::Geometry;
use crate::imaging::manifest::volume_hash;
use crate::imaging::nifti_io::{self, Limits, ReadError};
use crate::imaging::preprocess::{VolumeChoice, preprocess};
use crate::imaging::resample::{ResampleError, resample};
use crate::imaging::scan::{ScanWarning, VolumeHash};
use crate::imaging::volume::Volume;
use crate::run::durable::{AtomicFile, remove_abandoned};
use mapped::Map;

/// A volume ready for use.
#[derive(Debug, Clone)]
pub struct Preprocessed {
    /// The intensities.
    pub volume: Volume,
    /// Where the voxels lie.
    pub geometry: Geometry,
    pub hash: VolumeHash,
    /// Of the scan file.
    pub warnings: Vec<ScanWarning>,
}

/// How a scan file is made into a volume.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Recipe {
    pub choice: VolumeChoice,
    /// Spacing in mm along every axis; `None` leaves the file's own.
    pub resample_mm: Option<f64>,
    /// Limits on the size of the file and of the volume made of it.
    pub limits: Limits,
}

/// A scan file that cannot be made into a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It cannot be resampled to the requested spacing.
    #[error(transparent)]
    Resample(#[from] ResampleError),
}

/// A folder of preprocessed volumes.
#[derive(Debug)]
pub struct VolumeCache {
    /// `None` disables the cache.
    folder: Option<PathBuf>,
    warned: AtomicBool,
}

impl VolumeCache {
    /// A cache in `folder`, or in the user's cache folder
    /// (`$XDG_CACHE_HOME/landmarl/volumes`, else `~/.cache/landmarl/volumes`).
    #[must_use]
    pub fn new(folder: Option<&Path>) -> Self {
        let folder = folder.map(Path::to_owned).or_else(user_folder);
        if let Some(folder) = &folder {
            remove_abandoned(folder);
        }
        Self {
            folder,
            warned: AtomicBool::new(false),
        }
    }

    /// The preprocessed volume of a scan file: mapped from the cache, or made and
    /// cached. An unusable cache only costs time.
    pub fn load(&self, path: &Path, recipe: &Recipe) -> Result<Preprocessed, VolumeError> {
        let Some(folder) = self
            .folder
            .as_ref()
            .filter(|_| recipe.choice == VolumeChoice::CanonicalU8)
        else {
            return build(path, recipe);
        };
        let files = nifti_io::files_of(path)?;
        let before = stamps(&files);
        let source = hash_files(&files)?;
        let file = folder.join(entry::file_name(&source, recipe.resample_mm));
        match open(&file, &source) {
            Ok(Some(found)) if voxels(&found) <= recipe.limits.max_voxels => return Ok(found),
            Ok(_) => {}
            Err(reason) => {
                tracing::warn!(file = %file.display(), %reason, "cached volume is not usable; made again");
            }
        }
        let built = build(path, recipe)?;
        if before.is_none() || before != stamps(&files) {
            // The file changed during reading, so the hash may not match the decoded content.
            return Ok(built);
        }
        match store(&file, &source, &built).and_then(|()| open(&file, &source)) {
            Ok(Some(mapped)) if mapped.hash == built.hash => Ok(mapped),
            Ok(_) => Ok(built),
            Err(reason) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(folder = %folder.display(), %reason, "working without the volume cache");
                }
                Ok(built)
            }
        }
    }
}

fn user_folder() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("landmarl").join("volumes"))
}

fn voxels(found: &Preprocessed) -> u64 {
    found.geometry.dims.iter().map(|&d| d as u64).product()
}

fn build(path: &Path, recipe: &Recipe) -> Result<Preprocessed, VolumeError> {
    let image = nifti_io::read(path, &recipe.limits)?;
    let mut warnings = image.warnings().to_vec();
    let prepared = match recipe.resample_mm {
        None => preprocess(&image, recipe.choice),
        Some(spacing_mm) => {
            let file_dims = image.dims();
            let made = resample(image, spacing_mm, &recipe.limits, path)?;
            let mut prepared = preprocess(&made.image, recipe.choice);
            let map = &mut prepared.geometry.axis_map;
            map.pitch = map.axes.map(|(axis, _)| made.pitch[axis]);
            map.file_dims = file_dims;
            prepared
        }
    };
    warnings.extend(prepared.warning);
    let hash = volume_hash(&prepared.volume);
    Ok(Preprocessed {
        volume: prepared.volume,
        geometry: prepared.geometry,
        hash,
        warnings,
    })
}

/// Length and modification time of each file, to detect files replaced during reading.
fn stamps(files: &[PathBuf]) -> Option<Vec<(u64, SystemTime)>> {
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    files.iter().map(stamp).collect()
}

/// SHA-256 of a file, or of the hashes of several.
fn hash_files(files: &[PathBuf]) -> Result<[u8; 32], ReadError> {
    let hash = |path: &PathBuf| {
        hash_file(path).map_err(|error| ReadError::Open {
            path: path.clone(),
            error,
        })
    };
    if let [file] = files {
        return hash(file);
    }
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(hash(file)?);
    }
    Ok(hasher.finalize().into())
}

fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Maps a cached volume; `None` when there is none, an error with the reason when it is invalid.
fn open(file: &Path, source: &[u8; 32]) -> Result<Option<Preprocessed>, String> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| error.to_string())?,
    };
    let map = Map::new(file, &opened).map_err(|error| error.to_string())?;
    let entry = entry::decode(map.bytes(), source)?;
    let geometry = entry.geometry;
    let voxels = map.into_voxels(entry.voxels, geometry.dims, entry.hash);
    let volume = Volume::from_bytes(geometry.dims, voxels).map_err(|error| error.to_string())?;
    // Compared after reading: it may be shortened meanwhile.
    if volume_hash(&volume) != entry.hash || volume.check().is_err() {
        return Err("its voxels are damaged".to_owned());
    }
    Ok(Some(Preprocessed {
        volume,
        geometry,
        hash: entry.hash,
        warnings: entry.warnings,
    }))
}

fn store(file: &Path, source: &[u8; 32], built: &Preprocessed) -> Result<(), String> {
    let voxels = built.volume.as_u8().ok_or("floats are not cached")?;
    create_folder(file.parent().unwrap_or(Path::new("."))).map_err(|error| error.to_string())?;
    let mut out = AtomicFile::create_private(file).map_err(|error| error.to_string())?;
    let [header, trailer] = entry::encode(built, source).map_err(|error| error.to_string())?;
    out.write_all(&header)
        .and_then(|()| out.write_all(voxels))
        .and_then(|()| out.write_all(&trailer))
        .map_err(|error| error.to_string())?;
    out.commit().map_err(|error| error.to_string())
}

/// Scans are medical data: only the owner may list the folder.
#[cfg(unix)]
fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

#[cfg(not(unix))]
fn create_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests;
