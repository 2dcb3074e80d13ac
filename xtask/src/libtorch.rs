//! The libtorch that tch needs: which version, where it lies, how a clone
//! comes to use it.
//!
//! This file and the `tch` line of the top `Cargo.toml` are changed together.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::installed;
use crate::wheels;
use crate::workspace::{Workspace, cache_folder};

/// The version that tch 0.24.0 is written for.
pub const VERSION: &str = "2.11.0";

/// Install libtorch 2.11.0 once per user and link it as .libtorch in this clone.
///
/// The files come from the torch wheel by way of pip, and lie in
/// $XDG_CACHE_HOME/landmarl or ~/.cache/landmarl. Nothing is done when they
/// are there already. A LIBTORCH that you set yourself is checked and used as
/// it is.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Install the full set for NVIDIA GPUs: a download of about 3 GB, for
    /// x86-64 Linux and a driver that knows CUDA 13. Checked for completeness
    /// only: whether a GPU then works is for you to try
    #[arg(long)]
    cuda: bool,
    /// Install again, even if a good copy is there
    #[arg(long)]
    force: bool,
    /// Compare every file with the SHA-256 noted when it was installed
    #[arg(long)]
    verify: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask setup
  cargo xtask setup --verify
  LIBTORCH=/opt/libtorch cargo xtask setup    check a libtorch of your own";

/// What an installation can compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The processor only: 460 MB.
    Cpu,
    /// NVIDIA GPUs too: several gigabytes.
    Cuda,
}

impl Flavour {
    /// How it is called in folder names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }

    /// The folder with `include/` and `lib/`. The CUDA libraries look for each
    /// other in `../../nvidia`, so theirs is one level further down.
    pub fn libtorch(self, install: &Path) -> PathBuf {
        match self {
            Self::Cpu => install.to_path_buf(),
            Self::Cuda => install.join("torch"),
        }
    }
}

/// Whose libtorch a build uses.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// The one that setup installs and links.
    Ours,
    /// One that the caller named in `LIBTORCH`.
    Given(PathBuf),
}

/// Decides by the value of `LIBTORCH`. `.cargo/config.toml` sets it to the
/// clone's own link for everything that cargo starts, us included, so that
/// value means that nobody chose another.
fn source(value: Option<&OsStr>, link: &Path) -> Result<Source> {
    let Some(path) = value.filter(|value| !value.is_empty()).map(Path::new) else {
        return Ok(Source::Ours);
    };
    if path.is_relative() {
        bail!(
            "LIBTORCH={} is relative, and every crate would look for it elsewhere: \
             give an absolute path",
            path.display()
        );
    }
    Ok(if same_place(path, link) {
        Source::Ours
    } else {
        Source::Given(path.to_path_buf())
    })
}

/// Whether both are the same entry of the same folder. The entry itself may be
/// a link, or absent, so only the folders are resolved.
fn same_place(a: &Path, b: &Path) -> bool {
    let folder = |path: &Path| path.parent().and_then(|parent| parent.canonicalize().ok());
    a == b || (a.file_name() == b.file_name() && folder(a).is_some() && folder(a) == folder(b))
}

/// `cargo xtask setup`.
pub fn setup(workspace: &Workspace, options: &Options) -> Result<()> {
    let link = workspace.libtorch_link();
    let flavour = if options.cuda {
        Flavour::Cuda
    } else {
        Flavour::Cpu
    };
    if let Source::Given(path) = source(env::var_os("LIBTORCH").as_deref(), &link)? {
        return accept_given(&path, options);
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "setup knows x86-64 Linux only: fetch libtorch {VERSION} from https://pytorch.org \
             and set LIBTORCH to its folder"
        );
    }
    let cache = cache_folder()?;
    fs::create_dir_all(&cache)
        .with_context(|| format!("the cache folder {} cannot be made", cache.display()))?;
    let install = cache.join(format!("libtorch-{VERSION}-{}", flavour.name()));
    if options.force || installed::check(&install, flavour).is_err() {
        install_alone(&cache, &install, flavour, options.force)?;
    }
    if options.verify {
        installed::verify(&install)?;
    }
    point_link(&link, &flavour.libtorch(&install))?;
    println!(
        "libtorch {VERSION} ({}) is ready in {}",
        flavour.name(),
        install.display()
    );
    Ok(())
}

/// Makes sure that a build finds a libtorch, whichever it is: what builds and
/// tests ask for. It leaves a working link to the CUDA set as it is.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    let link = workspace.libtorch_link();
    let ours = source(env::var_os("LIBTORCH").as_deref(), &link)? == Source::Ours;
    if ours && installed::inspect(&link, Flavour::Cpu).is_ok() {
        return Ok(());
    }
    setup(workspace, &Options::default())
}

/// The libtorch that a build uses: `LIBTORCH`, else the clone's link.
pub fn folder(workspace: &Workspace) -> PathBuf {
    let given = env::var_os("LIBTORCH").filter(|value| !value.is_empty());
    given.map_or_else(|| workspace.libtorch_link(), PathBuf::from)
}

fn accept_given(path: &Path, options: &Options) -> Result<()> {
    let flavour = if options.cuda {
        Flavour::Cuda
    } else {
        Flavour::Cpu
    };
    installed::inspect(path, flavour).with_context(|| {
        format!(
            "LIBTORCH={} does not hold libtorch {VERSION} ({}): mend it, or unset LIBTORCH \
             to have setup install one",
            path.display(),
            flavour.name()
        )
    })?;
    if options.force || options.verify {
        bail!("--force and --verify are for the libtorch that setup installs: unset LIBTORCH");
    }
    println!(
        "libtorch {VERSION} in {} (from LIBTORCH): nothing to install",
        path.display()
    );
    Ok(())
}

/// Installs while no other setup of this user does. One that waited finds the
/// work done.
fn install_alone(cache: &Path, install: &Path, flavour: Flavour, force: bool) -> Result<()> {
    let path = cache.join("setup.lock");
    let lock = File::create(&path)
        .with_context(|| format!("the lock {} cannot be opened", path.display()))?;
    let mut waited = false;
    if let Err(TryLockError::WouldBlock) = lock.try_lock() {
        println!("another setup is running: waiting for it");
        lock.lock().context("waiting for the other setup failed")?;
        waited = true;
    }
    if force && !waited {
        return wheels::install(install, flavour);
    }
    let Err(reason) = installed::check(install, flavour) else {
        return Ok(());
    };
    let adoptable = !installed::has_manifest(install)
        && installed::inspect(&flavour.libtorch(install), flavour).is_ok();
    if adoptable {
        println!("adopting the libtorch in {}", install.display());
        return installed::record(install, flavour);
    }
    if install.exists() {
        println!(
            "{} is not usable ({reason:#}): installing it again",
            install.display()
        );
    }
    wheels::install(install, flavour)
}

/// Points `link` at `target` in one step, so that a build that runs meanwhile
/// sees the old or the new.
fn point_link(link: &Path, target: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|current| current == target) {
        return Ok(());
    }
    if link.is_dir() && !link.is_symlink() {
        bail!(
            "{} is a folder that setup did not make: remove it first",
            link.display()
        );
    }
    let fresh = link.with_file_name(format!(".libtorch.{}", std::process::id()));
    let linked = std::os::unix::fs::symlink(target, &fresh).and_then(|()| fs::rename(&fresh, link));
    linked.with_context(|| {
        format!(
            "{} cannot be linked to {}",
            link.display(),
            target.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_libtorch_other_than_our_link_counts_as_given() {
        let clone = tempfile::tempdir().expect("temporary folder");
        let link = clone.path().join(".libtorch");
        let alias = clone.path().join("alias");
        std::os::unix::fs::symlink(clone.path(), &alias).expect("symlink");
        let aliased = alias.join(".libtorch");
        let ours = [
            None,
            Some(OsStr::new("")),
            Some(link.as_os_str()),
            Some(aliased.as_os_str()),
        ];
        for value in ours {
            assert_eq!(
                source(value, &link).expect("valid"),
                Source::Ours,
                "{value:?}"
            );
        }
        for given in ["/opt/libtorch", "/nowhere/.libtorch"] {
            let expected = Source::Given(PathBuf::from(given));
            assert_eq!(
                source(Some(OsStr::new(given)), &link).expect("valid"),
                expected
            );
        }
        let error = source(Some(OsStr::new("libtorch")), &link).expect_err("relative");
        assert!(error.to_string().contains("absolute"), "{error}");
    }

    #[test]
    fn the_link_is_replaced_but_a_folder_is_not() {
        let clone = tempfile::tempdir().expect("temporary folder");
        let link = clone.path().join(".libtorch");
        for target in ["/a", "/b", "/b"] {
            point_link(&link, Path::new(target)).expect("links");
            assert_eq!(fs::read_link(&link).expect("a link"), Path::new(target));
        }
        let folder = clone.path().join("folder");
        fs::create_dir(&folder).expect("folder");
        assert!(point_link(&folder, Path::new("/a")).is_err());
    }

    #[test]
    fn the_version_is_the_one_of_the_build_script() {
        // tch's minor version follows libtorch's; both are named in the lock file.
        let lock = include_str!("../../Cargo.lock");
        assert!(lock.contains("name = \"torch-sys\"\nversion = \"0.24.0\""));
        assert_eq!(VERSION, "2.11.0");
    }
}
