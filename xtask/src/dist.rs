//! The release: programs, the libtorch that they need, presets, licences.

mod libraries;
pub mod pack;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::workspace::Workspace;
use crate::{command, libtorch};

/// Crates and the program that each builds.
const PROGRAMS: [(&str, &str); 4] = [
    ("cli", "landmarl"),
    ("learner", "learner"),
    ("actor", "actor"),
    ("replay-server", "replay-server"),
];
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// Build the programs and make dist/landmarl-VERSION-TARGET/{bin,lib,configs}.
///
/// The folder works in any place: the programs find libtorch in `../lib`. It
/// needs the C library of this machine or a newer one. Beside it: a tar.gz of it
/// and its SHA-256 sum.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// How the programs are built
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub profile: Profile,
    /// Take the programs that were built last
    #[arg(long)]
    pub skip_build: bool,
    /// Make the folder only
    #[arg(long)]
    pub no_archive: bool,
    /// The folder in which to make it
    #[arg(long, value_name = "DIR", default_value = "dist")]
    pub out: PathBuf,
}

const EXAMPLES: &str = "Examples:
  cargo xtask dist
  cargo xtask dist --no-archive     for images: PROGRAMS=packaged in deploy/.env
  cargo xtask dist --profile dev --skip-build";

/// A profile of cargo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Optimised
    Release,
    /// As tests are built
    Dev,
}

impl Profile {
    /// Its name, and the folder below cargo's build folder.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Release => ("release", "release"),
            Self::Dev => ("dev", "debug"),
        }
    }
}

/// `cargo xtask dist`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    libtorch::ensure(workspace)?;
    if !options.skip_build {
        let mut build = workspace.cargo("build --locked --bins --profile");
        build.arg(options.profile.names().0);
        for (package, _) in PROGRAMS {
            build.args(["--package", package]);
        }
        command::run(&mut build)?;
    }
    let out = workspace.root().join(&options.out);
    let name = format!("landmarl-{}-{}", env!("CARGO_PKG_VERSION"), host()?);
    let folder = out.join(&name);
    // An older archive would be mistaken for one of this folder.
    for ending in ["tar.gz", "tar.gz.sha256"] {
        fs::remove_file(out.join(format!("{name}.{ending}"))).ok();
    }
    fill(workspace, options.profile, &folder)?;
    check(workspace, &folder)?;
    println!("made {}", folder.display());
    if !options.no_archive {
        archive(workspace, &out, &name)?;
    }
    Ok(())
}

/// The platform that cargo builds for, as Rust calls it.
fn host() -> Result<String> {
    let text = command::read(std::process::Command::new("rustc").arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn fill(workspace: &Workspace, profile: Profile, folder: &Path) -> Result<()> {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("{} cannot be removed", folder.display()));
    }
    let bin = folder.join("bin");
    pack::folder(&bin)?;
    let built = workspace.target_folder()?.join(profile.names().1);
    for (_, name) in PROGRAMS {
        pack::program(workspace, &built.join(name), &bin.join(name))?;
    }
    libraries::copy(
        &libtorch::folder(workspace).join("lib"),
        &folder.join("lib"),
    )?;
    pack::files(&workspace.root().join("configs"), &folder.join("configs"))?;
    for name in LICENCES {
        pack::file(&workspace.root().join(name), &folder.join(name))?;
    }
    Ok(())
}

/// Starts every program, and asks the loader which libtorch it takes: one that
/// takes the build machine's would fail on another.
fn check(workspace: &Workspace, folder: &Path) -> Result<()> {
    let lib = folder.join("lib").canonicalize()?;
    for (_, name) in PROGRAMS {
        let program = folder.join("bin").join(name);
        let shown = program.to_string_lossy();
        let mut version = workspace.command(&shown);
        let printed = command::read(version.arg("--version").env_remove("LD_LIBRARY_PATH"))?;
        if printed.trim() != format!("{name} {}", env!("CARGO_PKG_VERSION")) {
            bail!("{shown} --version prints {:?}", printed.trim());
        }
        let mut ldd = workspace.command("ldd");
        let loads = command::read(ldd.arg(&program).env_remove("LD_LIBRARY_PATH"))?;
        let foreign = loads
            .lines()
            .filter(|line| line.contains("torch") || line.contains("libc10"))
            .filter_map(|line| line.split("=> ").nth(1)?.split(" (").next())
            .map(|path| Path::new(path).canonicalize().unwrap_or_default())
            .find(|path| !path.starts_with(&lib));
        if let Some(path) = foreign {
            bail!("{shown} would load {} of this machine", path.display());
        }
    }
    Ok(())
}

fn archive(workspace: &Workspace, out: &Path, name: &str) -> Result<()> {
    let archive = format!("{name}.tar.gz");
    let mut tar = workspace.command("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .arg("-C")
        .arg(out)
        .arg("-czf")
        .arg(out.join(&archive))
        .arg(name);
    command::run(&mut tar)?;
    let mut sum = workspace.command("sha256sum");
    let sum = command::read(sum.current_dir(out).arg(&archive))?;
    let note = out.join(format!("{archive}.sha256"));
    fs::write(&note, sum).with_context(|| format!("cannot write {}", note.display()))?;
    let path = out.join(&archive);
    println!("made {}; its sum is in {}", path.display(), note.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_one_of_the_workspace() {
        let root = Workspace::find().unwrap();
        for (package, program) in PROGRAMS {
            let folder = if package == "cli" { "cli" } else { program };
            let manifest = root.root().join(folder).join("Cargo.toml");
            let text = fs::read_to_string(manifest).unwrap();
            assert!(text.contains(&format!("name = \"{package}\"")), "{package}");
        }
    }

    #[test]
    fn a_program_that_was_not_built_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::find().unwrap();
        let (from, to) = (folder.path().join("release/actor"), folder.path().join("a"));
        let error = pack::program(&workspace, &from, &to).unwrap_err();
        assert!(error.to_string().contains("release/actor"), "{error}");
    }

    #[test]
    fn the_platform_is_known() {
        assert!(host().unwrap().contains("-linux-"));
    }
}
