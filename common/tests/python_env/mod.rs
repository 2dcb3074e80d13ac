//! A Python of our own for tests that compare with other people's libraries.
//!
//! [`python`] gives an interpreter in a virtual environment that holds exactly
//! the packages of a requirements file. The environment lies in the user's cache
//! folder (`$XDG_CACHE_HOME/landmarl`, else `~/.cache/landmarl`) under a name
//! made from the requirements' text: it is installed once per user, shared by
//! all clones, and made anew when a pin changes. Any test may use it:
//!
//! ```ignore
//! mod python_env; // in other crates: #[path = "../../common/tests/python_env/mod.rs"]
//!
//! #[test]
//! fn points_equal_theirs() {
//!     let requirements = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/requirements.txt");
//!     let Some(python) = python_env::python("points_equal_theirs", requirements.as_ref()) else {
//!         return; // printed `skipped: points_equal_theirs: WHY`
//!     };
//!     python_env::run(&python, script, &[folder]);
//! }
//! ```
//!
//! Needed are `python3` with `venv`, and, the first time, a network that pip may
//! use as it is configured. Where something is missing, the test prints that it is
//! skipped and why; it never passes silently. The crate needs `sha2`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// Written last: an environment without it was interrupted.
const READY: &str = "landmarl-ready";

/// The interpreter of the environment with these requirements; `None` after
/// printing on standard output why the test is skipped.
#[expect(
    clippy::print_stdout,
    reason = "cargo xtask test looks for skipped tests there"
)]
pub fn python(test: &str, requirements: &Path) -> Option<PathBuf> {
    match environment(requirements) {
        Ok(python) => Some(python),
        Err(why) => {
            println!("skipped: {test}: {why}");
            None
        }
    }
}

/// Runs a script with that interpreter; gives its standard output.
///
/// # Panics
///
/// When the script fails, with what it wrote to standard error: the environment
/// is there, so it is the test that failed.
pub fn run(python: &Path, script: &Path, arguments: &[&OsStr]) -> String {
    let output = Command::new(python).arg(script).args(arguments).output();
    let output = output.expect("the environment's interpreter starts");
    assert!(
        output.status.success(),
        "{} failed:\n{}",
        script.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn environment(requirements: &Path) -> Result<PathBuf, String> {
    let text = fs::read_to_string(requirements)
        .map_err(|e| format!("{} cannot be read: {e}", requirements.display()))?;
    let digest = Sha256::digest(text.as_bytes());
    let name: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
    let parent = cache_folder().ok_or("neither XDG_CACHE_HOME nor HOME is set")?;
    let folder = parent.join(format!("py-interop-{name}"));
    fs::create_dir_all(&parent).map_err(|e| format!("{} cannot be made: {e}", parent.display()))?;
    // Test programs run side by side; the first one installs, the others wait.
    let lock = File::create(parent.join("py-interop.lock"));
    let lock = lock.map_err(|e| format!("{} cannot be written: {e}", parent.display()))?;
    lock.lock()
        .map_err(|e| format!("no lock on the cache folder: {e}"))?;
    let python = folder.join("bin").join("python");
    if folder.join(READY).is_file() && python.exists() {
        return Ok(python);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let step = |command: &mut Command| {
        let shown = format!("{command:?}");
        let output = command
            .output()
            .map_err(|e| format!("{shown} does not start: {e}"))?;
        if output.status.success() {
            return Ok(());
        }
        let text = [output.stderr, output.stdout].concat();
        let text = String::from_utf8_lossy(&text);
        let last = text.trim().lines().last().unwrap_or("no message").trim();
        Err(format!("{shown} failed: {last}"))
    };
    step(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--only-binary", ":all:"]);
    pip.args(["--disable-pip-version-check", "--no-input"]);
    pip.args(["--timeout", "15", "--retries", "1", "-r"]);
    step(pip.arg(requirements))?;
    fs::write(folder.join(READY), text).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(python)
}

fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("landmarl"))
}
