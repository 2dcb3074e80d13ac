//! `landmarl config`: the effective settings, their origin, and whether they are valid.

use std::fmt::Write as _;

use common::config::{self, Setting};

use crate::Outcome;
use crate::input::settings::ConfigArgs;
use crate::output::console;
use crate::output::failure::Exit;

/// Show, check or describe the configuration.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print the effective settings as TOML
    Show {
        /// Show the source of each setting
        #[arg(long)]
        origin: bool,
        /// Print JSON: key, value and origin of each setting
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Validate the settings; exit code 3 if they are invalid
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Print the JSON schema of configuration files, for editors
    Schema,
}

const EXAMPLES: &str = "\
Examples:
  landmarl config show --origin --config configs/mouse-small.toml --set learner.lr=1e-4
  landmarl config check --config mine.toml
  landmarl config schema > landmarl.schema.json";

pub fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Show {
            origin,
            json,
            config,
        } => {
            let settings = config::settings(&config.sources(Vec::new(), Vec::new()))?;
            if *json {
                console::json(&settings)?;
            } else {
                console::data(&as_toml(&settings, *origin))?;
            }
        }
        Command::Check { json, config } => {
            config.load(Vec::new())?;
            if *json {
                console::data("{\"valid\": true}\n")?;
            } else {
                console::note("the configuration is valid");
            }
        }
        Command::Schema => console::json(&config::schema())?,
    }
    Ok(Exit::Done)
}

fn as_toml(settings: &[Setting], origin: bool) -> String {
    let mut text = String::new();
    let mut section = "";
    for setting in settings {
        let (here, key) = setting.key.split_once('.').unwrap_or(("", &setting.key));
        if here != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{here}]");
            section = here;
        }
        let line = format!("{key} = {}", setting.value);
        if origin {
            let _ = writeln!(text, "{line:<40} # {}", setting.origin);
        } else {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}
