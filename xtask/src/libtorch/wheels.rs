//! From wheels to a libtorch folder. pip fetches them, because it knows the
//! user's mirrors, proxies and certificates, and compares their SHA-256 sums.

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{VERSION, inside, inspect};
use crate::{command, files};

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

/// Installs the wheels of `list` beside `install` and puts the result there in
/// one step. The caller holds the lock.
pub fn install(list: &Path, install: &Path, cuda: bool) -> Result<()> {
    let name = install.file_name().unwrap_or_default().to_string_lossy();
    let work = install.with_file_name(format!("{name}.installing"));
    files::remove_folder(&work)?;
    let (wheels, fresh) = (work.join("wheels"), work.join("fresh"));
    let made = pip(list, &wheels)
        .and_then(|()| prune(&wheels, &fresh, cuda))
        .and_then(|()| inspect(&inside(&fresh, cuda), cuda))
        .and_then(|()| replace(install, &fresh, &work.join("old")));
    made.and(files::remove_folder(&work))
}

fn pip(list: &Path, target: &Path) -> Result<()> {
    let scratch = target.with_file_name("scratch");
    files::create_folder(&scratch)?;
    println!("installing the wheels of {} with pip", list.display());
    // pip does not add the older platforms that one includes.
    let minors = (5..=28).rev().map(|minor| format!("_2_{minor}"));
    let platforms = minors.chain(["2014", "2010", "1"].map(str::to_owned));
    let mut pip = command::new("python3", PIP);
    pip.args((!std::io::stdout().is_terminal()).then_some("--progress-bar=off"));
    pip.args(platforms.map(|platform| format!("--platform=manylinux{platform}_x86_64")));
    pip.arg("--target").arg(target);
    pip.arg("--requirement").arg(list);
    pip.envs([("PIP_REQUIRE_VIRTUALENV", "0"), ("PIP_USER", "0")]);
    pip.env("TMPDIR", scratch).stderr(Stdio::piped());
    let child = pip.stdin(Stdio::null()).spawn();
    let child = child.context("cannot start python3: install python3 and python3-pip")?;
    let output = child.wait_with_output().context("pip did not run")?;
    let printed = String::from_utf8_lossy(&output.stderr);
    let (printed, advice) = (printed.trim(), remedy(&printed));
    ensure!(
        output.status.success(),
        "{advice}, or install libtorch {VERSION} yourself and set LIBTORCH to its folder: {printed}"
    );
    Ok(())
}

/// Advice for the errors that pip prints.
fn remedy(printed: &str) -> &'static str {
    let any = |words: &str| words.split('|').any(|words| printed.contains(words));
    if any("No module named pip") {
        "python3 has no pip: apt-get install python3-pip (Debian, Ubuntu), else python3 -m ensurepip"
    } else if any("No space left on device|Errno 28") {
        "the disk is full: setup needs 2 GB, setup --cuda 12 GB; free some space, or set XDG_CACHE_HOME to a larger disk"
    } else if any("DO NOT MATCH THE HASHES") {
        "pip received other files than PyPI's: check the mirror in `pip config list`"
    } else if any("NewConnectionError|name resolution|ConnectTimeout|(from versions: none)") {
        "pip cannot reach the package index: connect, or configure pip's mirror"
    } else {
        "pip cannot install the torch wheel"
    }
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
    let known = CPU_LIBRARIES.contains(&name);
    known.then(|| Path::new("lib").join(Path::new(name).file_name().unwrap_or_default()))
}

/// Moves what is needed to `fresh`.
fn prune(wheels: &Path, fresh: &Path, cuda: bool) -> Result<()> {
    let mut folders = vec![wheels.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(wheels)?.to_string_lossy();
            if let Some(place) = destination(&name, cuda) {
                rename(&path, &fresh.join(place))?;
            }
        }
    }
    if !cuda {
        // The wheel's own libtorch.so needs the CUDA libraries.
        let link = fresh.join("lib/libtorch.so");
        files::link(Path::new("libtorch_cpu.so"), &link)?;
    }
    Ok(())
}

/// A folder cannot be renamed onto a full one, so the old one is moved away first.
fn replace(install: &Path, fresh: &Path, aside: &Path) -> Result<()> {
    // A crash of the machine must not leave the name without the content.
    Command::new("sync").arg("-f").arg(fresh).status().ok();
    if install.exists() {
        rename(install, aside)?;
    }
    rename(fresh, install).inspect_err(|_| drop(fs::rename(aside, install)))
}

/// Moves a file or folder, and creates the folders above.
fn rename(from: &Path, to: &Path) -> Result<()> {
    files::create_folder(to.parent().unwrap_or(to))?;
    let shown = from.display();
    fs::rename(from, to).with_context(|| format!("cannot move {shown} to {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_pip_come_with_advice() {
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
        let cupti = "nvidia/cu13/lib/libcupti.so.13";
        let cases = [
            ("torch/include/ATen/A.h", Some("include/ATen/A.h"), true),
            ("torch/lib/libtorch_cpu.so", Some("lib/libtorch.so"), true),
            (cupti, Some("lib/libcupti.so.13"), true),
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
