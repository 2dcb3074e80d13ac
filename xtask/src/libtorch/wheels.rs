//! From wheels to a libtorch folder. pip fetches them, because it knows the
//! user's mirrors, proxies and certificates, and compares their SHA-256 sums.

use std::fs;
use std::io::{ErrorKind, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{VERSION, inside, inspect};

/// Every CPython's wheel holds the same libraries, so one is named, and the
/// python that runs pip does not matter.
const PIP: &str = "-m pip install --no-deps --require-hashes --no-compile --no-cache-dir \
    --disable-pip-version-check --retries=2 --ignore-requires-python \
    --only-binary=:all: --python-version=311 --implementation=cp --abi=cp311";
const CPU_LIBRARIES: [&str; 5] = [
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
];
/// Words that pip prints, and what the user can do about them.
const REMEDIES: [(&[&str], &str); 4] = [
    (
        &["No module named pip"],
        "python3 has no pip: apt-get install python3-pip (Debian, Ubuntu), else python3 -m ensurepip",
    ),
    (
        &["No space left on device", "Errno 28"],
        "the disk is full: setup needs 2 GB, setup --cuda 12 GB; free some space, or set XDG_CACHE_HOME to a larger disk",
    ),
    (
        &["DO NOT MATCH THE HASHES"],
        "pip received other files than PyPI's: check the mirror in `pip config list`",
    ),
    (
        &[
            "NewConnectionError",
            "name resolution",
            "ConnectTimeout",
            "(from versions: none)",
        ],
        "pip cannot reach the package index: connect, or configure pip's mirror",
    ),
];

/// Installs the wheels of `list` beside `install` and puts the result there in
/// one step. The caller holds the lock.
pub fn install(list: &Path, install: &Path, cuda: bool) -> Result<()> {
    let name = install.file_name().unwrap_or_default().to_string_lossy();
    let work = install.with_file_name(format!("{name}.installing"));
    clear(&work)?;
    let (wheels, fresh) = (work.join("wheels"), work.join("fresh"));
    let made = pip(list, &wheels)
        .and_then(|()| prune(&wheels, &fresh, cuda))
        .and_then(|()| inspect(&inside(&fresh, cuda), cuda))
        .and_then(|()| replace(install, &fresh, &work.join("old")));
    made.and(clear(&work))
}

fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn pip(list: &Path, target: &Path) -> Result<()> {
    let scratch = target.with_file_name("scratch");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    println!("installing the wheels of {} with pip", list.display());
    // pip does not add the older platforms that one includes.
    let minors = (5..=28).rev().map(|minor| format!("_2_{minor}"));
    let platforms = minors.chain(["2014", "2010", "1"].map(str::to_owned));
    let child = Command::new("python3")
        .args(PIP.split_whitespace())
        .args((!std::io::stdout().is_terminal()).then_some("--progress-bar=off"))
        .args(platforms.map(|platform| format!("--platform=manylinux{platform}_x86_64")))
        .arg("--target")
        .arg(target)
        .arg("--requirement")
        .arg(list)
        .envs([("PIP_REQUIRE_VIRTUALENV", "0"), ("PIP_USER", "0")])
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("libtorch is installed with pip, and python3 does not start: install python3 and python3-pip")?;
    let output = child.wait_with_output().context("pip did not run")?;
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    bail!(
        "{}, or install libtorch {VERSION} yourself and set LIBTORCH to its folder: {}",
        remedy(&printed),
        printed.trim()
    )
}

fn remedy(printed: &str) -> &'static str {
    let mut known = REMEDIES.iter();
    let found = known.find(|(words, _)| words.iter().any(|word| printed.contains(word)));
    found.map_or("pip cannot install the torch wheel", |(_, advice)| advice)
}

/// Where a wheel's file belongs in the installation, if it is needed.
fn destination(name: &str, cuda: bool) -> Option<PathBuf> {
    if cuda {
        let library = name.contains("/lib/") && name.contains(".so") && !name.contains("python");
        let wanted = (name.starts_with("torch/lib/") || name.starts_with("nvidia/")) && library;
        return (wanted || name.starts_with("torch/include/")).then(|| PathBuf::from(name));
    }
    if let Some(header) = name.strip_prefix("torch/include/") {
        return Some(Path::new("include").join(header));
    }
    let library = CPU_LIBRARIES
        .contains(&name)
        .then(|| Path::new(name).file_name())??;
    Some(Path::new("lib").join(library))
}

/// Moves what is needed to `fresh`.
fn prune(wheels: &Path, fresh: &Path, cuda: bool) -> Result<()> {
    let mut folders = vec![wheels.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(place) =
                destination(&path.strip_prefix(wheels)?.to_string_lossy(), cuda)
            {
                let to = fresh.join(place);
                fs::create_dir_all(to.parent().unwrap_or(fresh))?;
                fs::rename(&path, &to)
                    .with_context(|| format!("cannot move {}", path.display()))?;
            }
        }
    }
    if !cuda {
        // The wheel's own libtorch.so needs the CUDA libraries.
        let link = fresh.join("lib/libtorch.so");
        std::os::unix::fs::symlink("libtorch_cpu.so", &link)
            .with_context(|| format!("cannot link {}", link.display()))?;
    }
    Ok(())
}

/// A folder cannot be renamed onto a full one, so the old one steps aside.
fn replace(install: &Path, fresh: &Path, aside: &Path) -> Result<()> {
    // A crash of the machine must not leave the name without the content.
    Command::new("sync").arg("-f").arg(fresh).status().ok();
    if install.exists() {
        fs::rename(install, aside)
            .with_context(|| format!("cannot move {} away", install.display()))?;
    }
    fs::rename(fresh, install)
        .inspect_err(|_| drop(fs::rename(aside, install)))
        .with_context(|| format!("cannot put libtorch into {}", install.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_prints_leads_to_advice() {
        for (printed, advice) in [
            ("OSError: [Errno 28] No space left", "disk is full"),
            ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES", "mirror"),
            ("Temporary failure in name resolution", "cannot reach"),
            ("/usr/bin/python3: No module named pip", "python3-pip"),
            ("something else", "cannot install"),
        ] {
            assert!(remedy(printed).contains(advice), "{printed}");
        }
    }

    #[test]
    fn needed_files_are_kept_and_an_old_installation_is_replaced() {
        // File of a wheel, place in the CPU's installation, whether CUDA's has it.
        let cases = [
            ("torch/include/ATen/A.h", Some("include/ATen/A.h"), true),
            ("torch/lib/libtorch_cpu.so", Some("lib/libtorch.so"), true),
            (
                "nvidia/cu13/lib/libcupti.so.13",
                Some("lib/libcupti.so.13"),
                true,
            ),
            ("torch/lib/libtorch_cuda.so", None, true),
            ("torch/lib/libtorch_python.so", None, false),
            ("nvidia/cu13/include/cuda.h", None, false),
            ("nvidia/cu13/lib/libcudart_static.a", None, false),
            ("torch/__init__.py", None, false),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for cuda in [false, true] {
            for (name, _, _) in cases {
                let file = path("wheels").join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, name).unwrap();
            }
            prune(&path("wheels"), &path("fresh"), cuda).unwrap();
            replace(&path("install"), &path("fresh"), &path("old")).unwrap();
            for (name, cpu, in_cuda) in cases {
                let place = if cuda { in_cuda.then_some(name) } else { cpu };
                let found = fs::read_to_string(path("install").join(place.unwrap_or(name))).ok();
                assert_eq!(found.as_deref(), place.map(|_| name));
            }
        }
        assert!(path("old/lib/libtorch.so").is_file());
    }
}
