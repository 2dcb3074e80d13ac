//! Copying built programs and files to where they are shipped from.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::command;
use crate::workspace::Workspace;

/// Copies a program without debug information, which is most of its size; with
/// it where there is no tool to strip it.
pub fn program(workspace: &Workspace, from: &Path, to: &Path) -> Result<()> {
    file(from, to)?;
    let mut strip = workspace.command("strip");
    if let Err(error) = command::read(strip.arg(to)) {
        println!("{} keeps its debug information: {error:#}", to.display());
    }
    Ok(())
}

/// The files of a folder, without folders in it.
pub fn files(from: &Path, to: &Path) -> Result<()> {
    folder(to)?;
    let entries =
        fs::read_dir(from).with_context(|| format!("{} cannot be listed", from.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            file(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// With its permissions. A program that still runs under the old name continues.
pub fn file(from: &Path, to: &Path) -> Result<()> {
    fs::remove_file(to).ok();
    fs::copy(from, to)
        .with_context(|| format!("{} is not copied to {}", from.display(), to.display()))?;
    Ok(())
}

/// Makes a folder and those above it.
pub fn folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{} cannot be made", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn packed_files_keep_what_they_may() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("a/to"));
        fs::create_dir_all(from.join("inner")).unwrap();
        fs::write(from.join("gpu.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(from.join("gpu.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        files(&from, &to).unwrap();
        let mode = fs::metadata(to.join("gpu.sh"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(!to.join("inner").exists());
    }
}
