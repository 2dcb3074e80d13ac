//! Files and folders, with errors that name them.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use crate::command;

pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read(path)?;
    serde_json::from_str(&text).with_context(|| format!("{} is not as expected", path.display()))
}

pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Creates a folder and those above it.
pub fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

/// Removes a folder with its content, if it exists.
pub fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

pub fn link(target: &Path, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, link)
        .with_context(|| format!("cannot link {} to {}", link.display(), target.display()))
}

/// Copies a file with its permissions. A running program of the old name continues.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::remove_file(to).ok();
    let (copied, shown) = (fs::copy(from, to), from.display());
    copied.with_context(|| format!("cannot copy {shown} to {}", to.display()))?;
    Ok(())
}

/// Copies a program without debug information, which is most of its size; with
/// it where there is no tool to strip it.
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)?;
    if let Err(error) = command::read(command::new("strip", "").arg(to)) {
        println!("{} keeps its debug information: {error:#}", to.display());
    }
    Ok(())
}

/// Copies the files of a folder, without folders in it.
pub fn copy_files(from: &Path, to: &Path) -> Result<()> {
    create_folder(to)?;
    let entries = fs::read_dir(from);
    for entry in entries.with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn copied_files_keep_their_permissions_and_folders_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("a/to"));
        fs::create_dir_all(from.join("inner")).unwrap();
        fs::write(from.join("gpu.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(from.join("gpu.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        copy_files(&from, &to).unwrap();
        let copied = fs::metadata(to.join("gpu.sh")).unwrap();
        assert_eq!(copied.permissions().mode() & 0o777, 0o755);
        assert!(!to.join("inner").exists());
    }
}
