//! A folder of secrets, accessible to its owner only from the moment it exists.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::output::console;
use crate::output::failure::{Advice, Exit};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Everybody,
    Owner,
}

/// The output folder.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    /// Creates the folder, accessible to its owner only.
    pub fn prepare(&self) -> Result<(), Advice> {
        let created = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0);
        created.map_err(|e| failed("create", &self.0, &e))?;
        // A volume may belong to another user and still be writable for us.
        if let Err(e) = std::fs::set_permissions(&self.0, Permissions::from_mode(0o700)) {
            let folder = self.0.display();
            console::note(&format!("note: cannot restrict access to {folder}: {e}"));
        }
        Ok(())
    }

    /// Writes a new file; fails if it exists.
    pub fn write(&self, name: &str, text: &str, access: Access) -> Result<(), Advice> {
        let path = self.0.join(name);
        let mode = match access {
            Access::Everybody => 0o644,
            Access::Owner => 0o600,
        };
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(mode).open(&path);
        let written = file.and_then(|mut file| {
            writeln!(file, "{}", text.trim_end())?;
            file.sync_all()
        });
        written.map_err(|e| failed("write", &path, &e))
    }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Advice {
    let message = format!("cannot {action} {}: {error}", path.display());
    let hint =
        "check the permissions of the folder and the disk space, or choose another with --out";
    Advice::new(Exit::Failed, message).hint(hint)
}
