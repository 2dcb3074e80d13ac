//! What is handed on: programs, the libtorch that they need, presets, licences.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use sha2::{Digest, Sha256};

use crate::workspace::Workspace;
use crate::{command, libraries, libtorch, pack};

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
/// The folder works wherever it lies: the programs find libtorch in `../lib`.
/// It needs the C library of this machine or a newer one. Beside it: a tar.gz of
/// it and its SHA-256 sum.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// How the programs are built
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub profile: Profile,
    /// Take the programs that were built last
    #[arg(long)]
    pub skip_build: bool,
    /// Only the folder
    #[arg(long)]
    pub no_archive: bool,
    /// Where it is made
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
    /// As fast as they get
    Release,
    /// As tests are built
    Dev,
}

impl Profile {
    /// The folder below cargo's build folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }
}

/// `cargo xtask dist`; returns the folder.
pub fn run(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    libtorch::ensure(workspace)?;
    if !options.skip_build {
        build(workspace, options.profile)?;
    }
    let out = workspace.root().join(&options.out);
    let name = format!("landmarl-{}-{}", env!("CARGO_PKG_VERSION"), host()?);
    let folder = out.join(&name);
    // An archive that no longer belongs to the folder would be taken for its copy.
    for ending in ["tar.gz", "tar.gz.sha256"] {
        fs::remove_file(out.join(format!("{name}.{ending}"))).ok();
    }
    fill(workspace, options.profile, &folder)?;
    check(workspace, &folder)?;
    println!("made {}", folder.display());
    if !options.no_archive {
        archive(workspace, &out, &name)?;
    }
    Ok(folder)
}

/// Builds the programs and nothing else.
pub fn build(workspace: &Workspace, profile: Profile) -> Result<()> {
    let mut build = workspace.cargo("build --locked --bins --profile");
    build.arg(profile.name());
    for (package, _) in PROGRAMS {
        build.args(["--package", package]);
    }
    command::run(&mut build)
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
    let built = workspace.target_folder()?.join(profile.folder());
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
/// takes the build machine's would fail on the next.
fn check(workspace: &Workspace, folder: &Path) -> Result<()> {
    let lib = folder.join("lib").canonicalize()?;
    for (_, name) in PROGRAMS {
        let program = folder.join("bin").join(name);
        let shown = program.to_string_lossy();
        let mut version = workspace.command(&shown);
        let said = command::read(version.arg("--version").env_remove("LD_LIBRARY_PATH"))?;
        if said.trim() != format!("{name} {}", env!("CARGO_PKG_VERSION")) {
            bail!("{shown} --version says \"{}\"", said.trim());
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
    let path = out.join(&archive);
    let mut digest = Sha256::new();
    let mut file =
        File::open(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    io::copy(&mut file, &mut Hashing(&mut digest))?;
    let sum: String = digest
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let note = out.join(format!("{archive}.sha256"));
    fs::write(&note, format!("{sum}  {archive}\n"))
        .with_context(|| format!("{} cannot be written", note.display()))?;
    println!("made {}; its sum is in {}", path.display(), note.display());
    Ok(())
}

/// Hashes what is written to it.
struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
    fn this_machine_has_a_name() {
        assert!(host().unwrap().contains("-linux-"));
    }
}
