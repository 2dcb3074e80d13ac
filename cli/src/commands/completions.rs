//! `landmarl completions` and `landmarl man`: what shells and `man` read.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;

use crate::Outcome;
use crate::output::console;
use crate::output::failure::Exit;

/// Print a shell completion script.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Shell
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  landmarl completions bash > ~/.local/share/bash-completion/completions/landmarl
  landmarl completions zsh > ~/.zfunc/_landmarl
  landmarl completions fish > ~/.config/fish/completions/landmarl.fish";

/// Write a manual page for each command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MAN_EXAMPLES)]
pub struct ManArgs {
    /// Output folder; created if missing
    #[arg(long, short = 'o', value_name = "DIR")]
    out: PathBuf,
}

const MAN_EXAMPLES: &str = "\
Examples:
  landmarl man -o ~/.local/share/man/man1
  landmarl man -o pages && man -l pages/landmarl-train.1";

pub fn run(args: &Args, mut command: Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "landmarl", &mut script);
    console::raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

pub fn man(args: &ManArgs, command: Command) -> Outcome {
    let folder = &args.out;
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .with_context(|| {
            let folder = folder.display();
            format!("cannot write manual pages to {folder}; choose another folder with --out")
        })?;
    console::note(&format!("manual pages are in {}", folder.display()));
    Ok(Exit::Done)
}
