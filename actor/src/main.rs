//! `actor`: walks training scans for a learner that runs elsewhere.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use actor::counters::Counters;
use actor::{ActorError, ActorSetup};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use common::config::{Config, ConfigError, Sources};
use common::dataset::{Dataset, DatasetError, DatasetSpec, is_list};
use common::telemetry::{self, TelemetryError};
use proto::listen::stop_signal;

/// Failed while running.
const EXIT_FAILED: u8 = 1;
/// The configuration is invalid.
const EXIT_CONFIG: u8 = 3;
/// The scans cannot be read, or are not the learner's.
const EXIT_DATA: u8 = 4;

const EXAMPLES: &str = "\
Examples:
  actor run --config run.toml
  actor run --config run.toml --learner learner-0:7400 --set actor.slots=64
  LANDMARL__ACTOR__THREADS=4 actor run --config run.toml --log-format json

The configuration must be the learner's in all that shapes rows and windows
(rules, landmarks, learner.gamma, learner.n_step), and the training scans too.
An actor whose scans differ ends with exit code 4 and the learner's words; one
that cannot reach its learner tries again for ever.";

/// landmarl's actor.
#[derive(Debug, Parser)]
#[command(name = "actor", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Act until Ctrl-C, SIGTERM or the end of the run.
    #[command(after_help = EXAMPLES)]
    Run(RunArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Configuration file (TOML); later ones win.
    #[arg(long, short = 'c', value_name = "FILE", num_args = 1..)]
    config: Vec<PathBuf>,
    /// One setting, such as actor.slots=64; wins over files and LANDMARL__SECTION__KEY.
    #[arg(long, value_name = "SECTION.KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// The learner's address, instead of cluster.learner.
    #[arg(long, value_name = "HOST:PORT")]
    learner: Option<String>,
    /// Join only this run; by default whatever the learner runs.
    #[arg(long, value_name = "RUN")]
    run_id: Option<String>,
    /// Look of the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Text,
    Json,
}

fn main() -> ExitCode {
    model::memory::keep_freed();
    let Command::Run(args) = Cli::parse().command;
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    let mut config = Config::load(&Sources::from_process(args.config, args.set))?;
    let mut log = telemetry::Options::new("actor", &config.log.level);
    log.format = match args.log_format {
        LogFormat::Auto => telemetry::Format::Auto,
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    let _log = telemetry::init(&log)?;
    let dataset = Dataset::load(&scans(&config)?).context("load the training scans")?;
    // Names as everybody resolves them, so that all digests agree.
    config.data.landmarks.clone_from(&dataset.landmark_names);
    tracing::info!(
        scans = dataset.scans.len(),
        landmarks = dataset.landmark_names.join(","),
        "loaded the training scans"
    );
    let setup = ActorSetup {
        learner: args
            .learner
            .unwrap_or_else(|| config.cluster.learner.clone()),
        run_id: args.run_id,
        config: Arc::new(config),
        dataset: Arc::new(dataset),
        counters: Arc::new(Counters::default()),
    };
    let shutdown = async {
        if let Err(error) = stop_signal().await {
            tracing::error!(%error, "cannot wait for signals; stopping");
        }
    };
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    runtime.block_on(actor::run(setup, shutdown))?;
    Ok(())
}

fn scans(config: &Config) -> Result<DatasetSpec, ConfigError> {
    let data = &config.data;
    let list_alone = data.train_landmarks.is_empty() && is_list(Path::new(&data.train_images));
    for (key, is_unset) in [
        ("data.train_images", data.train_images.is_empty()),
        ("data.train_landmarks", list_alone),
    ] {
        if is_unset {
            let why = format!("is empty; name the learner's scans, as in --set {key}=PATH");
            return Err(ConfigError::Value {
                key: key.into(),
                why,
            });
        }
    }
    Ok(DatasetSpec::training(config))
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let found = error.chain().find_map(|cause| {
        let config = cause.is::<ConfigError>()
            || matches!(cause.downcast_ref(), Some(TelemetryError::Filter { .. }));
        let refused = matches!(
            cause.downcast_ref(),
            Some(ActorError::Refused { .. } | ActorError::ShardRefused(_))
        );
        let data = refused || cause.is::<DatasetError>();
        config.then_some(EXIT_CONFIG).or(data.then_some(EXIT_DATA))
    });
    found.unwrap_or(EXIT_FAILED)
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where an error meets a person"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_exit_codes_follow_types() {
        <Cli as clap::CommandFactory>::command().debug_assert();
        let refused = ActorError::Refused {
            learner: "a:1".into(),
            sentence: "other scans".into(),
        };
        assert_eq!(exit_code(&refused.into()), EXIT_DATA);
        assert_eq!(
            exit_code(&ActorError::Panicked(String::new()).into()),
            EXIT_FAILED
        );
        let unset = scans(&Config::defaults().unwrap()).unwrap_err();
        assert!(
            unset.to_string().contains("--set data.train_images=PATH"),
            "{unset}"
        );
        assert_eq!(exit_code(&unset.into()), EXIT_CONFIG);
    }
}
