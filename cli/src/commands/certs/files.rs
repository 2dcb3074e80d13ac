//! A folder of secrets, accessible to its owner only from the moment it exists.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::output::console;
use crate::output::failure::{Advice, Exit};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Everybody,
    Owner,
}

/// Where the files go.
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
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        private_folder(&mut builder);
        builder
            .create(&self.0)
            .map_err(|e| failed("make", &self.0, &e))?;
        // A volume may belong to another user and still be writable for us.
        if let Err(e) = close_folder(&self.0) {
            console::note(&format!(
                "note: {} stays as open as it is: {e}",
                self.0.display()
            ));
        }
        Ok(())
    }

    /// Writes a new file; fails if it exists.
    pub fn write(&self, name: &str, text: &str, access: Access) -> Result<(), Advice> {
        let path = self.0.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        restrict(&mut options, access);
        let mut end = text.trim_end().to_owned();
        end.push('\n');
        options
            .open(&path)
            .and_then(|mut file| {
                file.write_all(end.as_bytes())?;
                file.sync_all()
            })
            .map_err(|e| failed("write", &path, &e))
    }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Advice {
    Advice::new(
        Exit::Failed,
        format!("cannot {action} {}: {error}", path.display()),
    )
    .hint("check the rights of the folder and the space, or name another with --out")
}

#[cfg(unix)]
fn private_folder(builder: &mut DirBuilder) {
    use std::os::unix::fs::DirBuilderExt as _;
    builder.mode(0o700);
}

#[cfg(unix)]
fn close_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

#[cfg(unix)]
fn restrict(options: &mut OpenOptions, access: Access) {
    use std::os::unix::fs::OpenOptionsExt as _;
    options.mode(match access {
        Access::Everybody => 0o644,
        Access::Owner => 0o600,
    });
}

#[cfg(not(unix))]
fn private_folder(_builder: &mut DirBuilder) {}

#[cfg(not(unix))]
fn close_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn restrict(_options: &mut OpenOptions, _access: Access) {}
