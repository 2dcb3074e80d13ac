//! Writes the files of a dataset, each atomically.

use std::fs;
use std::io;
use std::path::Path;

use super::{DatasetError, Description, PhantomSet, set_folder};
use crate::imaging::nifti_io::{ImageRef, Limits, SamplesRef, WriteError, read, write};
use crate::phantom::Phantom;
use crate::run::durable::{DurableError, write_atomic};

/// Path of an image relative to its list.
pub(super) fn image_path(index: usize) -> String {
    format!("images/phantom_{index:04}.nii.gz")
}

/// Path of a landmark file relative to its list.
pub(super) fn landmark_path(index: usize) -> String {
    format!("landmarks/phantom_{index:04}.csv")
}

/// Writes `dataset.json`, or fails when an existing one differs.
pub(super) fn describe(dir: &Path, wanted: &Description) -> Result<(), DatasetError> {
    make_folder(dir)?;
    let path = dir.join("dataset.json");
    match fs::read(&path) {
        Ok(bytes) => compare(&path, &bytes, wanted)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => check_free(dir)?,
        Err(error) => {
            return Err(DatasetError::Io {
                action: "read",
                path,
                error,
            });
        }
    }
    let failed = |error: serde_json::Error| DatasetError::Io {
        action: "write",
        path: path.clone(),
        error: error.into(),
    };
    let mut text = serde_json::to_string_pretty(wanted).map_err(failed)?;
    text.push('\n');
    Ok(write_atomic(&path, text.as_bytes())?)
}

/// Refuses a folder in which phantoms would lie among other scans, or replace their lists.
fn check_free(dir: &Path) -> Result<(), DatasetError> {
    for set in PhantomSet::ALL {
        let path = set_folder(dir, set);
        let used = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
        if used {
            return Err(DatasetError::Taken { path });
        }
    }
    Ok(())
}

fn compare(path: &Path, bytes: &[u8], wanted: &Description) -> Result<(), DatasetError> {
    let found: Option<Description> = serde_json::from_slice(bytes).ok();
    let what = match found {
        None => "format",
        Some(found) if found.version != wanted.version => "version",
        Some(found) if found.seed != wanted.seed => "seed",
        Some(found) if found.spec != wanted.spec => "specification",
        Some(_) => return Ok(()),
    };
    Err(DatasetError::Other {
        path: path.to_owned(),
        what,
    })
}

pub(super) fn make_folders(set: &Path) -> Result<(), DatasetError> {
    make_folder(&set.join("images"))?;
    make_folder(&set.join("landmarks"))
}

fn make_folder(path: &Path) -> Result<(), DatasetError> {
    fs::create_dir_all(path).map_err(|error| DatasetError::Io {
        action: "make the folder",
        path: path.to_owned(),
        error,
    })
}

/// Writes the two lists of a set.
pub(super) fn write_lists(set: &Path, count: usize) -> Result<(), DurableError> {
    let list = |path: fn(usize) -> String| (1..=count).map(|i| path(i) + "\n").collect::<String>();
    write_atomic(&set.join("images.txt"), list(image_path).as_bytes())?;
    write_atomic(&set.join("landmarks.txt"), list(landmark_path).as_bytes())
}

/// Whether an image can be read completely, has a valid checksum, and has the right size.
pub(super) fn image_is_whole(path: &Path, dims: [usize; 3]) -> bool {
    read(path, &Limits::default()).is_ok_and(|image| image.dims() == dims)
}

pub(super) fn write_image(path: &Path, phantom: &Phantom) -> Result<(), WriteError> {
    let image = ImageRef {
        dims: phantom.dims,
        samples: SamplesRef::U8(&phantom.voxels),
        affine: &phantom.affine,
    };
    write(path, &image)
}
