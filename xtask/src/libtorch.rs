//! The libtorch that tch needs: its version, its folder, and how a clone is linked
//! to it. This file, the lists beside `src` and the `tch` line of the top
//! `Cargo.toml` change together.

mod wheels;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::files;
use crate::workspace::{Workspace, cache_folder};

/// The version that tch 0.24.0 is written for.
const VERSION: &str = "2.11.0";
/// The name under which a clone finds its libtorch.
const LINK: &str = ".libtorch";
const VERSION_HEADER: &str = "include/torch/headeronly/version.h";

/// Install libtorch 2.11.0 once per user and link it as .libtorch in this clone.
///
/// The files come from the torch wheel by way of pip and are kept in
/// $XDG_CACHE_HOME/landmarl or ~/.cache/landmarl. Nothing is done when they are
/// there already. A LIBTORCH that you set yourself is checked and used as it is.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Install the full set for NVIDIA GPUs: a download of about 3 GB, for
    /// x86-64 Linux and a driver that supports CUDA 13. Checked for completeness
    /// only, without using the GPU
    #[arg(long)]
    cuda: bool,
    /// Install again, even if a good copy is there
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "Examples:
  cargo xtask setup
  cargo xtask setup --force                   replace a damaged installation
  LIBTORCH=/opt/libtorch cargo xtask setup    check a libtorch of your own";

/// Where an installation has `include/` and `lib/`. The CUDA libraries look for
/// each other in `../../nvidia`, so theirs is one level further down.
fn inside(install: &Path, cuda: bool) -> PathBuf {
    install.join(if cuda { "torch" } else { "" })
}

/// `cargo xtask setup`.
pub fn setup(workspace: &Workspace, options: &Options) -> Result<()> {
    let (cuda, link) = (options.cuda, workspace.root.join(LINK));
    if let Some(path) = given(env::var_os("LIBTORCH").as_deref(), &link)? {
        let shown = path.display();
        let advice = "correct it, or unset it to have setup install one";
        inspect(&path, cuda)
            .with_context(|| format!("LIBTORCH={shown} is not usable: {advice}"))?;
        println!("libtorch {VERSION} in {shown} (from LIBTORCH): nothing to install");
        return Ok(());
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("setup supports only x86-64 Linux: set LIBTORCH to your own libtorch {VERSION}");
    }
    let cache = cache_folder()?;
    files::create_folder(&cache)?;
    let flavour = if cuda { "cuda" } else { "cpu" };
    let install = cache.join(format!("libtorch-{VERSION}-{flavour}"));
    let list = format!("xtask/libtorch-{flavour}.txt");
    install_once(&workspace.root.join(list), &install, options)?;
    point_link(&link, &inside(&install, cuda))?;
    let shown = install.display();
    println!("libtorch {VERSION} ({flavour}) is ready in {shown}");
    Ok(())
}

/// Makes sure that a build finds a libtorch, whichever it is. A working link to
/// the CUDA set stays as it is.
pub fn ensure(workspace: &Workspace) -> Result<()> {
    let link = workspace.root.join(LINK);
    let given = given(env::var_os("LIBTORCH").as_deref(), &link)?;
    if given.is_none() && inspect(&link, false).is_ok() {
        return Ok(());
    }
    setup(workspace, &Options::default())
}

/// The libtorch that a build uses: `LIBTORCH`, else the clone's link.
pub fn folder(workspace: &Workspace) -> PathBuf {
    let given = env::var_os("LIBTORCH").filter(|value| !value.is_empty());
    given.map_or_else(|| workspace.root.join(LINK), PathBuf::from)
}

/// The libtorch that the user chose with `LIBTORCH`. `.cargo/config.toml` sets the
/// variable to the clone's own link for everything that cargo starts, including
/// this program, so that value is no choice.
fn given(value: Option<&OsStr>, link: &Path) -> Result<Option<PathBuf>> {
    let Some(path) = value.filter(|value| !value.is_empty()).map(Path::new) else {
        return Ok(None);
    };
    if path.is_relative() {
        // Every crate would look for it elsewhere.
        let shown = path.display();
        bail!("LIBTORCH={shown} is relative: give an absolute path");
    }
    // The entry itself may be a link, or absent, so only the folders are resolved.
    let resolved = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    let ours = path == link || resolved(path).is_some_and(|path| resolved(link) == Some(path));
    Ok((!ours).then(|| path.to_path_buf()))
}

/// Whether `libtorch` (the folder with `include/` and `lib/`) has the right
/// version and the libraries that builds link.
fn inspect(libtorch: &Path, cuda: bool) -> Result<()> {
    let text = files::read(&libtorch.join(VERSION_HEADER))?;
    // The value is on the line after the name.
    let after = text.split("#define TORCH_VERSION ").nth(1);
    let found = after.and_then(|after| after.split('"').nth(1));
    if found != Some(VERSION) {
        let found = found.unwrap_or("?");
        bail!("it is libtorch {found}, and {VERSION} is needed");
    }
    let names = ["torch", "torch_cpu", "c10", "torch_cuda"];
    for name in &names[..3 + usize::from(cuda)] {
        let path = libtorch.join(format!("lib/lib{name}.so"));
        if fs::metadata(&path).map_or(0, |data| data.len()) == 0 {
            bail!("{} is missing or empty", path.display());
        }
    }
    Ok(())
}

/// Installs unless a good copy is there, and while no other setup of this user
/// does. One that waited finds the work done.
fn install_once(list: &Path, install: &Path, options: &Options) -> Result<()> {
    let path = install.with_file_name("setup.lock");
    let lock = File::create(&path);
    let tried = lock.as_ref().ok().map(File::try_lock);
    let alone = matches!(tried, Some(Ok(())));
    if alone {
        remove_interrupted(install)?;
    }
    let usable = || inspect(&inside(install, options.cuda), options.cuda);
    let mut state = usable();
    if state.is_ok() && !options.force {
        return Ok(());
    }
    let lock = lock.with_context(|| format!("cannot open the lock {}", path.display()))?;
    if let Some(Err(TryLockError::Error(error))) = tried {
        let (path, version) = (path.display(), VERSION);
        println!(
            "cannot lock {path} ({error}): do not start a second setup of libtorch {version} \
             before this one ends"
        );
    } else if !alone {
        println!("another setup is running: waiting for it");
        lock.lock().context("waiting for the other setup failed")?;
        state = usable();
        if state.is_ok() {
            return Ok(());
        }
    }
    if let (Err(reason), true) = (state, install.exists()) {
        let shown = install.display();
        println!("{shown} is not usable ({reason:#}): installing it again");
    }
    wheels::install(list, install, options.cuda)
}

/// Removes what interrupted setups left beside an installation. The caller holds
/// the lock.
fn remove_interrupted(install: &Path) -> Result<()> {
    for entry in fs::read_dir(install.parent().unwrap_or(install))? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("installing")) {
            files::remove_folder(&path)?;
        }
    }
    Ok(())
}

/// Points `link` at `target` in one step, so that a build that runs meanwhile
/// sees the old or the new.
fn point_link(link: &Path, target: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|current| current == target) {
        return Ok(());
    }
    let shown = link.display();
    if link.is_dir() && !link.is_symlink() {
        bail!("{shown} is a folder that setup did not create: remove it first");
    }
    let fresh = link.with_file_name(format!(".libtorch.{}", std::process::id()));
    files::link(target, &fresh)?;
    fs::rename(&fresh, link).with_context(|| format!("cannot replace {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clones_link_is_not_a_choice_of_the_user() {
        let clone = tempfile::tempdir().unwrap();
        let link = clone.path().join(".libtorch");
        let alias = clone.path().join("alias");
        std::os::unix::fs::symlink(clone.path(), &alias).unwrap();
        let aliased = alias.join(".libtorch");
        for ours in [OsStr::new(""), link.as_os_str(), aliased.as_os_str()] {
            assert_eq!(given(Some(ours), &link).unwrap(), None, "{ours:?}");
        }
        assert_eq!(given(None, &link).unwrap(), None);
        for other in ["/opt/libtorch", "/nowhere/.libtorch"] {
            let chosen = given(Some(OsStr::new(other)), &link).unwrap();
            assert_eq!(chosen, Some(PathBuf::from(other)));
        }
        let error = given(Some(OsStr::new("libtorch")), &link).unwrap_err();
        assert!(error.to_string().contains("absolute"), "{error}");
    }

    #[test]
    fn the_link_is_replaced_but_a_folder_is_not() {
        let clone = tempfile::tempdir().unwrap();
        let link = clone.path().join(".libtorch");
        for target in ["/a", "/b", "/b"] {
            point_link(&link, Path::new(target)).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
        }
        assert!(point_link(clone.path(), Path::new("/a")).is_err());
    }

    #[test]
    fn another_version_or_a_missing_library_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let install = folder.path().join("libtorch");
        let write = |name: &str, text: &str| {
            let path = install.join(name);
            files::create_folder(path.parent().unwrap()).unwrap();
            files::write(&path, text).unwrap();
        };
        let refusal = |cuda| inspect(&install, cuda).unwrap_err().to_string();
        assert!(refusal(false).contains("cannot read"));
        let header = "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION \\\n  \"2.10.0\"\n";
        write(VERSION_HEADER, header);
        assert!(refusal(false).contains("libtorch 2.10.0, and 2.11.0"));
        write(VERSION_HEADER, &header.replace("2.10.0", VERSION));
        for name in ["libtorch.so", "libtorch_cpu.so", "libc10.so"] {
            assert!(refusal(false).contains(&format!("{name} is missing or empty")));
            write(&format!("lib/{name}"), "library");
        }
        inspect(&install, false).unwrap();
        // A good installation stays; what an interrupted setup left does not.
        let interrupted = folder.path().join("other.installing/wheels");
        files::create_folder(&interrupted).unwrap();
        install_once(Path::new("no list"), &install, &Options::default()).unwrap();
        assert!(!interrupted.exists() && install.exists());
        assert!(refusal(true).contains("libtorch_cuda.so"));
        write("lib/libc10.so", "");
        assert!(refusal(false).contains("libc10.so is missing or empty"));
    }

    #[test]
    fn the_list_and_the_lock_file_name_this_version() {
        // tch's minor version follows libtorch's.
        let lock = include_str!("../../Cargo.lock");
        assert!(lock.contains("name = \"torch-sys\"\nversion = \"0.24.0\""));
        let list = include_str!("../libtorch-cpu.txt");
        assert!(list.contains(&format!("\ntorch=={VERSION} --hash")));
    }
}
