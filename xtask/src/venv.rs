//! Python environments with exactly the packages of a list.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::command;

/// Written last: an environment without it was interrupted.
const READY: &str = "landmarl-ready";

/// The interpreter of an environment `NAME-HASH` below `parent`, made by `base`
/// with what the requirements file `list` names; anew when the list changes.
pub fn python(base: &Path, list: &Path, parent: &Path, name: &str) -> Result<PathBuf> {
    let text =
        fs::read_to_string(list).with_context(|| format!("{} cannot be read", list.display()))?;
    let digest = Sha256::digest(text.as_bytes());
    let hash: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
    let folder = parent.join(format!("{name}-{hash}"));
    let python = folder.join("bin/python");
    if folder.join(READY).is_file() && python.exists() {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("{} cannot be made anew", folder.display()))?;
    }
    println!("installing {} in {}", list.display(), folder.display());
    command::run(Command::new(base).args(["-m", "venv"]).arg(&folder))
        .context("a Python with venv is needed (Debian, Ubuntu: apt-get install python3-venv)")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--requirement"])
        .arg(list);
    command::run(&mut pip)?;
    fs::write(folder.join(READY), text)
        .with_context(|| format!("{} cannot be written", folder.display()))?;
    Ok(python)
}
