//! Where things are: this clone, its build folder and the user's cache folder.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command;

/// This clone of the repository.
#[derive(Debug)]
pub struct Workspace {
    /// Its top folder.
    pub root: PathBuf,
}

impl Workspace {
    /// The clone that `cargo xtask` was started in. The variable wins over the
    /// path known at build time, because clones may share a build folder.
    pub fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package.parent().context("xtask lies in no folder")?;
        if !root.join("Cargo.toml").is_file() {
            let shown = root.display();
            bail!("{shown} has no Cargo.toml: start `cargo xtask` inside a clone of landmarl");
        }
        let root = root.to_path_buf();
        Ok(Self { root })
    }

    /// `program`, to run in the clone's top folder.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// The cargo that runs this task, with the arguments in `line`, which are
    /// separated by spaces.
    pub fn cargo(&self, line: &str) -> Command {
        let mut command = command::new("cargo", line);
        command.current_dir(&self.root);
        // Set for xtask itself. Build scripts that depend on them would run again,
        // and with them most of the build, after each `cargo` that a user starts.
        for (name, _) in env::vars_os() {
            let shown = name.to_string_lossy();
            if shown.starts_with("CARGO_MANIFEST_") || shown.starts_with("CARGO_PKG_") {
                command.env_remove(&name);
            }
        }
        command
    }

    /// Builds for release, and returns the folder that cargo builds in.
    pub fn build(&self, what: &str) -> Result<PathBuf> {
        command::run(&mut self.cargo(&format!("build --release --locked {what}")))?;
        self.target_folder()
    }

    /// The folder that cargo builds in.
    pub fn target_folder(&self) -> Result<PathBuf> {
        let line = "metadata --no-deps --format-version 1 --locked";
        let json = command::read(&mut self.cargo(line))?;
        let metadata: Value = serde_json::from_str(&json)?;
        let folder = metadata["target_directory"].as_str();
        Ok(folder
            .context("cargo metadata names no target_directory")?
            .into())
    }
}

/// landmarl's folder in the user's cache: `$XDG_CACHE_HOME/landmarl`, else
/// `~/.cache/landmarl`.
pub fn cache_folder() -> Result<PathBuf> {
    let given = |name: &str| env::var_os(name).map(PathBuf::from);
    cache_folder_from(given("XDG_CACHE_HOME"), given("HOME"))
}

fn cache_folder_from(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf> {
    // The XDG specification says to ignore a value that is not absolute.
    let absolute = |path: Option<PathBuf>| path.filter(|path| path.is_absolute());
    let base = absolute(xdg).or_else(|| Some(absolute(home)?.join(".cache")));
    let base = base.context("no cache folder: set HOME or XDG_CACHE_HOME to an absolute path")?;
    Ok(base.join("landmarl"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_folder_follows_xdg() {
        let path = |text: &str| Some(PathBuf::from(text));
        let home = "/home/u/.cache/landmarl";
        let cases = [
            (path("/x"), path("/home/u"), Some("/x/landmarl")),
            (None, path("/home/u"), Some(home)),
            (path("relative"), path("/home/u"), Some(home)),
            (path(""), path("/home/u"), Some(home)),
            (None, None, None),
            (path(""), path(""), None),
        ];
        for (xdg, home, expected) in cases {
            let found = cache_folder_from(xdg.clone(), home.clone()).ok();
            assert_eq!(found, expected.map(PathBuf::from), "{xdg:?} {home:?}");
        }
    }
}
