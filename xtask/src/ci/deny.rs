//! Licences, banned crates and sources, checked by cargo-deny.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::command;
use crate::workspace::{Workspace, cache_folder};

const VERSION: &str = "0.20.2";
/// Set to 1 to check advisories too: that clones the RustSec database, which
/// needs more of the internet than a package registry.
const ADVISORIES: &str = "LANDMARL_ADVISORIES";

/// Runs the checks of `deny.toml`.
pub fn run(workspace: &Workspace) -> Result<()> {
    let program = program()?;
    let mut check = workspace.command(&program.to_string_lossy());
    check.args([
        "--workspace",
        "--locked",
        "check",
        "bans",
        "licenses",
        "sources",
    ]);
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
        std::fs::create_dir_all(&tools)?;
        println!("building {wanted}, once per user (about 3 minutes)");
        let mut install = Command::new("cargo");
        install
            .args([
                "install",
                "--locked",
                "--quiet",
                "cargo-deny",
                "--version",
                VERSION,
                "--root",
            ])
            .arg(&root)
            // Elsewhere, so that neither our settings nor our build folder take part.
            .current_dir(&tools)
            .env_remove("CARGO_TARGET_DIR");
        command::run(&mut install)?;
    }
    Ok(program)
}
