//! The landmarl command.
//!
//! - [`commands`]: the sub-commands, one module each.
//! - [`input`]: settings, scans and weights from the command line.
//! - [`output`]: console, tables, errors, reports and films.
//! - [`original`]: the command lines of the programs that landmarl replaces.

mod commands;
mod input;
mod original;
mod output;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use common::run::machine;

use commands::{
    certs, checkpoint, completions, config, data, doctor, eval, import, logs, phantom, play, runs,
    status, train,
};
use output::console;
use output::failure::{self, Exit};
use output::quote::shell_quoted;

/// Finds anatomical landmarks in 3D scans with reinforcement learning agents.
///
/// Not a medical device: for research only.
#[derive(Debug, Parser)]
#[command(name = "landmarl", version, after_long_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  landmarl phantom --out demo/data --train 24 --validation 6 --test 10
  landmarl train --config configs/mouse-small.toml --minutes 10
  landmarl eval --load runs/NAME/checkpoints/best.safetensors --images test/images.txt --landmarks-files test/landmarks.txt
  landmarl play --load runs/NAME/checkpoints/best.safetensors scan.nii.gz

Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 data, 5 unreachable, 130 interrupted.";

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Eval(eval::Args),
    Play(play::Args),
    Phantom(phantom::Args),
    Doctor(doctor::Args),
    Data(data::Args),
    Import(import::Args),
    Logs(logs::Args),
    Runs(runs::Args),
    Checkpoint(checkpoint::Args),
    Status(status::Args),
    Config(config::Args),
    Certs(certs::Args),
    Completions(completions::Args),
    Man(completions::ManArgs),
}

fn main() -> ExitCode {
    model::memory::keep_freed();
    // `train` serves several services: their limits on connections follow from it.
    let _ = machine::raise_open_files();
    let ended = command_line().and_then(|words| match Cli::try_parse_from(words) {
        Ok(cli) => run(&cli.command),
        Err(error) => Ok(explain(&error)),
    });
    let exit = ended.unwrap_or_else(|error| {
        console::note(failure::describe(&error).trim_end());
        failure::exit_of(&error)
    });
    exit.into()
}

/// Prints help, or what is wrong with the arguments. These may be names of files: clap removes
/// their escape sequences only where it writes no colours, and no other control characters.
fn explain(error: &clap::Error) -> Exit {
    let mut words = std::env::args_os();
    if !words.any(|word| word.to_string_lossy().contains(char::is_control)) {
        error.exit();
    }
    console::note(error.render().to_string().trim_end());
    Exit::Usage
}

fn run(command: &Command) -> Outcome {
    match command {
        Command::Train(args) => train::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Play(args) => play::run(args),
        Command::Phantom(args) => phantom::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Data(args) => data::run(args),
        Command::Import(args) => import::run(args),
        Command::Logs(args) => logs::run(args),
        Command::Runs(args) => runs::run(args),
        Command::Checkpoint(args) => checkpoint::run(args),
        Command::Status(args) => status::run(args),
        Command::Config(args) => config::run(args),
        Command::Certs(args) => certs::run(args),
        Command::Completions(args) => completions::run(args, Cli::command()),
        Command::Man(args) => completions::man(args, Cli::command()),
    }
}

/// The command-line arguments; those of the original programs are translated.
fn command_line() -> anyhow::Result<Vec<OsString>> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let arguments = words.iter().skip(1).map(|w| w.clone().into_string().ok());
    let arguments: Option<Vec<String>> = arguments.collect();
    let Some(arguments) = arguments.filter(|a| original::is_original(a)) else {
        return Ok(words);
    };
    let translated = original::translate(&arguments, model::device::cuda().is_ok())?;
    for note in &translated.notes {
        console::note(&format!("note: {note}"));
    }
    let arguments = translated.arguments;
    let quoted: Vec<_> = arguments.iter().map(|a| shell_quoted(a)).collect();
    console::note(&format!("running: landmarl {}", quoted.join(" ")));
    let arguments = arguments.into_iter().map(OsString::from);
    Ok(words.into_iter().take(1).chain(arguments).collect())
}

/// The result of a command.
type Outcome = anyhow::Result<Exit>;
