//! Fetching wheels with pip: it knows the user's mirrors, proxies and
//! certificates, and checks what it fetched.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

/// Any CPython's wheel holds the same libraries, so one is named outright and
/// the python that runs pip does not matter.
const TARGET: [&str; 7] = [
    "--only-binary=:all:",
    "--python-version",
    "311",
    "--implementation",
    "cp",
    "--abi",
    "cp311",
];

/// Asked for a platform, pip does not add the older ones that it includes, and
/// nearly every NVIDIA wheel is tagged with another.
fn platforms() -> impl Iterator<Item = String> {
    let named = (5..=28)
        .rev()
        .map(|minor| format!("manylinux_2_{minor}_x86_64"));
    let legacy = [
        "manylinux2014_x86_64",
        "manylinux2010_x86_64",
        "manylinux1_x86_64",
    ];
    named
        .chain(legacy.map(str::to_owned))
        .map(|tag| format!("--platform={tag}"))
}

const SELF_HELP: &str = "or install libtorch yourself and set LIBTORCH to its folder";

/// Downloads into `folder` what `requirements` (the text of a pip requirements
/// file) names, with what that in turn requires if `dependencies` is set.
pub fn download(requirements: &str, dependencies: bool, folder: &Path) -> Result<()> {
    let scratch = folder.join("pip");
    let list = folder.join("requirements.txt");
    fs::create_dir_all(&scratch)
        .and_then(|()| fs::write(&list, requirements))
        .with_context(|| format!("{} cannot be written", folder.display()))?;
    let bar = if std::io::stdout().is_terminal() {
        "on"
    } else {
        "off"
    };
    let mut command = Command::new("python3");
    command
        .args([
            "-m",
            "pip",
            "download",
            "--no-cache-dir",
            "--disable-pip-version-check",
        ])
        .args(["--retries", "2", "--progress-bar", bar])
        .args(TARGET)
        .args(platforms())
        .args((!dependencies).then_some("--no-deps"))
        .arg("--dest")
        .arg(folder)
        .arg("--requirement")
        .arg(&list)
        .env("TMPDIR", &scratch)
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .env("PYTHONUNBUFFERED", "1");
    let started = Instant::now();
    let (status, complaints) = run(&mut command)?;
    fs::remove_dir_all(&scratch).ok();
    if status.success() {
        println!("downloaded in {:.1} s", started.elapsed().as_secs_f64());
        return Ok(());
    }
    Err(anyhow!(complaints.trim().to_owned()).context(explain(&complaints)))
}

/// Runs pip in sight of the user and keeps what it says on standard error.
fn run(command: &mut Command) -> Result<(ExitStatus, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("pip does not start")?;
    let mut complaints = String::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            complaints.push_str(&line.context("pip printed no UTF-8")?);
            complaints.push('\n');
        }
    }
    Ok((
        child.wait().context("pip cannot be waited for")?,
        complaints,
    ))
}

/// Fails with what to install, if there is no pip.
pub fn need() -> Result<()> {
    let output = Command::new("python3")
        .args(["-m", "pip", "--version"])
        .output();
    let found = output.map_err(|error| {
        anyhow!(error).context(format!(
            "libtorch is fetched with pip, and python3 does not start: install it \
             (Debian, Ubuntu: apt-get install python3-pip), {SELF_HELP}"
        ))
    })?;
    if !found.status.success() {
        bail!(
            "libtorch is fetched with pip, and this python3 has none: install it \
             (Debian, Ubuntu: apt-get install python3-pip; else python3 -m ensurepip), {SELF_HELP}"
        );
    }
    Ok(())
}

/// What the user can do about what pip said.
fn explain(complaints: &str) -> String {
    let says = |texts: &[&str]| texts.iter().any(|text| complaints.contains(text));
    if says(&["No space left on device", "Errno 28"]) {
        "the disk is full: free some space, or set XDG_CACHE_HOME to a larger one".to_owned()
    } else if says(&["DO NOT MATCH THE HASHES"]) {
        "pip was given other files than PyPI's: check the mirror in `pip config list`".to_owned()
    } else if says(&[
        "NewConnectionError",
        "name resolution",
        "Max retries exceeded",
        "ConnectTimeout",
        "(from versions: none)",
    ]) {
        format!(
            "the package index cannot be reached: connect or configure pip's mirror, {SELF_HELP}"
        )
    } else {
        format!("pip cannot fetch libtorch: see below, {SELF_HELP}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_explained() {
        let cases = [
            (
                "OSError: [Errno 28] No space left on device",
                "disk is full",
            ),
            (
                "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM",
                "mirror",
            ),
            ("Temporary failure in name resolution", "cannot be reached"),
            ("torch==2.11.0 (from versions: none)", "cannot be reached"),
            ("something else", "LIBTORCH"),
        ];
        for (said, expected) in cases {
            assert!(
                explain(said).contains(expected),
                "{said}: {}",
                explain(said)
            );
        }
    }
}
