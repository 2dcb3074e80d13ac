//! Python environments with exactly the packages of a list.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{command, files};

/// Written last: an environment without it was interrupted.
const READY: &str = "landmarl-ready";
const PIP: &str = "-m pip install --quiet --no-input --disable-pip-version-check --requirement";

/// The interpreter of an environment `NAME-HASH` below `parent`, created by `base`
/// with what the requirements file `list` names; again when the list changes.
pub fn python(base: &Path, list: &Path, parent: &Path, name: &str) -> Result<PathBuf> {
    let text = files::read(list)?;
    let digest = Sha256::digest(text.as_bytes());
    let hash: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
    let folder = parent.join(format!("{name}-{hash}"));
    let python = folder.join("bin/python");
    if folder.join(READY).is_file() && python.exists() {
        return Ok(python);
    }
    files::remove_folder(&folder)?;
    println!("installing {} in {}", list.display(), folder.display());
    command::run(command::new(base, "-m venv").arg(&folder))
        .context("a Python with venv is needed (Debian, Ubuntu: apt-get install python3-venv)")?;
    command::run(command::new(&python, PIP).arg(list))?;
    files::write(&folder.join(READY), &text)?;
    Ok(python)
}
