//! The release: programs, the libtorch that they need, presets, licences.

mod libraries;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::Workspace;
use crate::{command, files, libtorch};

/// Crates and the program that each builds.
const PROGRAMS: [(&str, &str); 4] = [
    ("cli", "landmarl"),
    ("learner", "learner"),
    ("actor", "actor"),
    ("replay-server", "replay-server"),
];
const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// Build the programs and create dist/landmarl-VERSION-TARGET/{bin,lib,configs}.
///
/// The folder works in any place: the programs find libtorch in `../lib`. It
/// needs the C library of this machine or a newer one. Beside it: a tar.gz of it
/// and its SHA-256 sum.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Cargo's profile: release (optimised) or dev (as tests are built)
    #[arg(long, value_parser = ["release", "dev"], default_value = "release")]
    pub profile: String,
    /// Take the programs that were built last
    #[arg(long)]
    pub skip_build: bool,
    /// Create the folder only
    #[arg(long)]
    pub no_archive: bool,
    /// The folder in which to create it
    #[arg(long, value_name = "DIR", default_value = "dist")]
    pub out: PathBuf,
}

const EXAMPLES: &str = "Examples:
  cargo xtask dist
  cargo xtask dist --no-archive     for images: PROGRAMS=packaged in deploy/.env
  cargo xtask dist --profile dev --skip-build";

/// `cargo xtask dist`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    libtorch::ensure(workspace)?;
    if !options.skip_build {
        let mut build = workspace.cargo("build --locked --bins --profile");
        build.arg(&options.profile);
        for (package, _) in PROGRAMS {
            build.args(["--package", package]);
        }
        command::run(&mut build)?;
    }
    let out = workspace.root.join(&options.out);
    let name = format!("landmarl-{}-{}", env!("CARGO_PKG_VERSION"), host()?);
    let folder = out.join(&name);
    // An older archive would be mistaken for one of this folder.
    for ending in ["tar.gz", "tar.gz.sha256"] {
        fs::remove_file(out.join(format!("{name}.{ending}"))).ok();
    }
    fill(workspace, &options.profile, &folder)?;
    check(&folder)?;
    println!("created {}", folder.display());
    if !options.no_archive {
        archive(&out, &name)?;
    }
    Ok(())
}

/// The platform that cargo builds for, as Rust calls it.
fn host() -> Result<String> {
    let text = command::read(&mut command::new("rustc", "-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn fill(workspace: &Workspace, profile: &str, folder: &Path) -> Result<()> {
    files::remove_folder(folder)?;
    let bin = folder.join("bin");
    files::create_folder(&bin)?;
    let built = if profile == "dev" { "debug" } else { profile };
    let built = workspace.target_folder()?.join(built);
    for (_, name) in PROGRAMS {
        files::copy_program(&built.join(name), &bin.join(name))?;
    }
    let torch = libtorch::folder(workspace).join("lib");
    libraries::copy(&torch, &folder.join("lib"))?;
    files::copy_files(&workspace.root.join("configs"), &folder.join("configs"))?;
    for name in LICENCES {
        files::copy(&workspace.root.join(name), &folder.join(name))?;
    }
    Ok(())
}

/// Starts every program, and checks that the loader finds the packaged libtorch
/// and not that of this machine.
fn check(folder: &Path) -> Result<()> {
    let lib = folder.join("lib").canonicalize()?;
    for (_, name) in PROGRAMS {
        let program = folder.join("bin").join(name);
        let shown = program.display();
        let mut version = command::new(&program, "--version");
        let printed = command::read(version.env_remove("LD_LIBRARY_PATH"))?;
        if printed.trim() != format!("{name} {}", env!("CARGO_PKG_VERSION")) {
            bail!("{shown} --version prints {:?}", printed.trim());
        }
        let mut ldd = command::new("ldd", "");
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

fn archive(out: &Path, name: &str) -> Result<()> {
    let archive = format!("{name}.tar.gz");
    let options = "--sort=name --owner=0 --group=0 --numeric-owner -czf";
    let mut tar = command::new("tar", options);
    command::run(tar.current_dir(out).args([archive.as_str(), name]))?;
    let mut sum = command::new("sha256sum", &archive);
    let sum = command::read(sum.current_dir(out))?;
    let (path, note) = (out.join(&archive), out.join(format!("{archive}.sha256")));
    files::write(&note, &sum)?;
    println!("created {} and {}", path.display(), note.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_one_of_the_workspace() {
        let workspace = Workspace::find().unwrap();
        for (package, program) in PROGRAMS {
            let folder = if package == "cli" { "cli" } else { program };
            let text = files::read(&workspace.root.join(folder).join("Cargo.toml")).unwrap();
            assert!(text.contains(&format!("name = \"{package}\"")), "{package}");
        }
    }

    #[test]
    fn the_platform_is_known() {
        assert!(host().unwrap().contains("-linux-"));
    }
}
