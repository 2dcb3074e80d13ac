//! Licences, banned crates and sources, checked by cargo-deny.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::workspace::{Workspace, cache_folder};
use crate::{command, files};

const VERSION: &str = "0.20.2";
/// Set to 1 to check advisories too: that clones the RustSec database, which
/// needs github.com.
const ADVISORIES: &str = "LANDMARL_ADVISORIES";

/// Runs the checks of `deny.toml`.
pub fn run(workspace: &Workspace) -> Result<()> {
    let mut check = workspace.command(program()?);
    check.args("--workspace --locked check bans licenses sources".split(' '));
    if env::var_os(ADVISORIES).is_some_and(|value| value == "1") {
        check.arg("advisories");
    } else {
        println!("advisories are left out; {ADVISORIES}=1 checks them (needs github.com)");
    }
    command::run(&mut check)
}

/// The pinned cargo-deny: one from the PATH, else one built once per user.
fn program() -> Result<PathBuf> {
    let version = Command::new("cargo-deny").arg("--version").output();
    let wanted = format!("cargo-deny {VERSION}");
    if version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == wanted) {
        return Ok(PathBuf::from("cargo-deny"));
    }
    let tools = cache_folder()?.join("tools");
    let root = tools.join(format!("cargo-deny-{VERSION}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        files::create_folder(&tools)?;
        println!("building {wanted}, once per user (about 3 minutes)");
        let line = format!("install --locked --quiet cargo-deny --version {VERSION} --root");
        let mut install = command::new("cargo", &line);
        // Outside the clone, so that neither its settings nor its build folder apply.
        install.arg(root).current_dir(tools);
        install.env_remove("CARGO_TARGET_DIR");
        command::run(&mut install)?;
    }
    Ok(program)
}
