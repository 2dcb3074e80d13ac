//! `actor`: runs episodes on training scans for a learner, or evaluates its weights on
//! validation scans.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use actor::evaluation::evaluator::{self, EvaluatorSetup};
use actor::evaluation::health::{self, HealthError, Part};
use actor::session::counters::Counters;
use actor::session::metrics::{ActorMetrics, EvaluatorMetrics};
use actor::{ActorError, ActorSetup};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use common::config::{Config, ConfigError, Sources};
use common::imaging::dataset::{Dataset, DatasetSpec, is_list};
use proto::transport::entry::{self, Exit, LogFormat, Service};
use proto::transport::health::Health;
use proto::transport::metrics::Metrics;
use proto::transport::security::Security;
use tokio::sync::watch;

const EXAMPLES: &str = "\
Examples:
  actor run --config run.toml
  actor run --config run.toml --learner learner-0:7400 --set actor.slots=64
  LANDMARL__ACTOR__THREADS=4 actor run --config run.toml --log-format json
  actor evaluate --config run.toml --learner learner-0:7400
  actor health --learner learner-0:7400

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
    /// Act until Ctrl-C, a stop signal or the end of the run.
    #[command(after_help = EXAMPLES)]
    Run(RunArgs),
    /// Evaluate the learner's newest weights on the validation scans every `validation.period` updates,
    /// from the untrained ones to the last.
    #[command(after_help = EVALUATE_EXAMPLES)]
    Evaluate(EvaluateArgs),
    /// Exit with 0 if the learner has an actor of this host whose lease holds, with 5 if not.
    Health(HealthArgs),
}

const EVALUATE_EXAMPLES: &str = "\
Examples:
  actor evaluate --config run.toml --learner learner-0:7400
  actor evaluate --config run.toml --set validation.period=200

The learner keeps the results (validation.jsonl and TensorBoard's curves) and
checkpoints/best.safetensors in the run's folder.";

#[derive(Debug, Args)]
struct EvaluateArgs {
    #[command(flatten)]
    common: RunArgs,
    /// Accepted for older scripts: the learner writes into the run's folder.
    #[arg(long, value_name = "DIR", hide = true)]
    run_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// Configuration file (TOML); later ones win.
    #[arg(long, short = 'c', value_name = "FILE", num_args = 1..)]
    config: Vec<PathBuf>,
    /// The learner's address, instead of cluster.learner.
    #[arg(long, value_name = "HOST:PORT")]
    learner: Option<String>,
    /// Ask for an evaluator of this host instead.
    #[arg(long)]
    evaluator: bool,
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

fn main() -> ExitCode {
    model::memory::keep_freed();
    entry::run(execute(Cli::parse().command), exit)
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => run(args).await,
        Command::Evaluate(args) => evaluate(args).await,
        Command::Health(args) => check(args).await,
    }
}

/// The log and ports, the configuration and the training scans of `run` and `evaluate`.
async fn start(args: &RunArgs, name: &str) -> anyhow::Result<(Service, Config, Dataset)> {
    let sources = Sources::from_process(args.config.clone(), args.set.clone());
    let mut config = Config::load(&sources)?;
    let service = Service::start(name, "", args.log_format, &config).await?;
    service.security().log_state();
    let dataset = Dataset::load(&scans(&config)?).context("load the training scans")?;
    // Resolved names, as in all other processes, so that the digests agree.
    config.data.landmarks.clone_from(&dataset.landmark_names);
    tracing::info!(
        scans = dataset.scans.len(),
        landmarks = dataset.landmark_names.join(","),
        "loaded the training scans"
    );
    Ok((service, config, dataset))
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let (mut service, config, dataset) = start(&args, "actor").await?;
    let counters = Arc::new(Counters::default());
    let metrics = Metrics::default();
    metrics.add(ActorMetrics::new(Arc::clone(&counters), 0));
    let _web = service.serve_http(metrics, &Health::default(), None, None);
    let setup = ActorSetup {
        security: service.security().clone(),
        learner: args
            .learner
            .unwrap_or_else(|| config.cluster.learner.clone()),
        run_id: args.run_id,
        config: Arc::new(config),
        dataset: Arc::new(dataset),
        counters,
    };
    actor::run(setup, entry::shutdown_signal()).await?;
    Ok(())
}

async fn evaluate(args: EvaluateArgs) -> anyhow::Result<()> {
    let (args, run_dir) = (args.common, args.run_dir);
    // The training scans give the names of the landmarks; an evaluator needs nothing else of them.
    let (mut service, config, _) = start(&args, "evaluator").await?;
    let validation = Dataset::load(&validation(&config)?).context("load the validation scans")?;
    if run_dir.is_some() {
        tracing::warn!(
            "--run-dir has no effect: the learner writes evaluations into the run folder"
        );
    }
    tracing::info!(
        scans = validation.scans.len(),
        "loaded the validation scans"
    );
    let (errors, seen) = watch::channel(None);
    let metrics = Metrics::default();
    metrics.add(EvaluatorMetrics::new(seen));
    let _web = service.serve_http(metrics, &Health::default(), None, None);
    let setup = EvaluatorSetup {
        security: service.security().clone(),
        errors,
        learner: args
            .learner
            .unwrap_or_else(|| config.cluster.learner.clone()),
        run_id: args.run_id,
        device: config.actor.device.clone(),
        threads: config.actor.threads,
        config: Arc::new(config),
        validation: validation.scans,
    };
    evaluator::run(setup, entry::shutdown_signal()).await?;
    Ok(())
}

fn refuse(key: &str, why: impl Into<String>) -> ConfigError {
    ConfigError::Value {
        key: key.into(),
        why: why.into(),
    }
}

/// The scans to evaluate on; an evaluator without them has nothing to do.
fn validation(config: &Config) -> Result<DatasetSpec, ConfigError> {
    if config.validation.period == 0 {
        let why =
            "is 0, which means never; set the number of updates, as in --set validation.period=200";
        return Err(refuse("validation.period", why));
    }
    DatasetSpec::validation(config).ok_or_else(|| {
        let why = "is empty, and data.train_images names no validation scans: there is nothing to evaluate on";
        refuse("data.validation_images", why)
    })
}

async fn check(args: HealthArgs) -> anyhow::Result<()> {
    let cluster = Config::load(&Sources::from_process(args.config, Vec::new()))?.cluster;
    let security = Security::from_config(&cluster)?;
    let learner = args.learner.unwrap_or(cluster.learner);
    let part = if args.evaluator {
        Part::Evaluator
    } else {
        Part::Actor
    };
    entry::print(&health::check(&learner, &security, part).await?)
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
            return Err(refuse(key, why));
        }
    }
    Ok(DatasetSpec::training(config))
}

/// The exit codes of an actor's own errors: scans that the learner refuses are data, and a learner
/// that does not respond, or does not know this host, is unreachable.
fn exit(cause: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(ActorError::Refused { .. } | ActorError::ShardRefused(_)) = cause.downcast_ref() {
        return Some(Exit::Data);
    }
    cause.is::<HealthError>().then_some(Exit::Unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_exit_codes_follow_types() {
        <Cli as clap::CommandFactory>::command().debug_assert();
        let code = |error: anyhow::Error| Exit::of(&error, exit);
        let refused = ActorError::Refused {
            learner: "a:1".into(),
            sentence: "other scans".into(),
        };
        assert_eq!(code(refused.into()), Exit::Data);
        let panicked = ActorError::Panicked(String::new());
        assert_eq!(code(panicked.into()), Exit::Failed);
        let mut config = Config::defaults().unwrap();
        let unset = scans(&config).unwrap_err();
        let hint = "--set data.train_images=PATH";
        assert!(unset.to_string().contains(hint), "{unset}");
        assert_eq!(code(unset.into()), Exit::Config);
        let refusal = |config: &Config| validation(config).unwrap_err().to_string();
        assert!(refusal(&config).contains("data.validation_images"));
        config.validation.period = 0;
        assert!(refusal(&config).contains("--set validation.period=200"));
        let lost = HealthError::NoLease {
            learner: "a:1".into(),
            host: "h".into(),
        };
        assert_eq!(code(lost.into()), Exit::Unreachable);
    }
}
