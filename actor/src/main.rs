//! `actor`: walks training scans for a learner that runs elsewhere, or selection
//! scans to see how well its weights do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use actor::evaluation::baseline::Guess;
use actor::evaluation::evaluator::{self, EvaluatorSetup};
use actor::evaluation::health::{self, HealthError, Part};
use actor::session::counters::Counters;
use actor::session::metrics::{ActorMetrics, EvaluatorMetrics};
use actor::{ActorError, ActorSetup};
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use common::config::{Config, ConfigError, Sources};
use common::imaging::dataset::{Dataset, DatasetError, DatasetSpec, is_list};
use common::run::telemetry::{self, TelemetryError};
use proto::transport::http::{self, Serving};
use proto::transport::listen::stop_signal;
use proto::transport::metrics::{Metrics, Process};
use proto::transport::security::{Security, SecurityError};
use tokio::sync::watch;

/// Failed while running.
const EXIT_FAILED: u8 = 1;
/// The configuration is invalid.
const EXIT_CONFIG: u8 = 3;
/// The scans cannot be read, or are not the learner's.
const EXIT_DATA: u8 = 4;
/// Nobody answers, or knows this host.
const EXIT_UNREACHABLE: u8 = 5;

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
    /// Act until Ctrl-C, SIGTERM or the end of the run.
    #[command(after_help = EXAMPLES)]
    Run(RunArgs),
    /// Walk the selection scans with the learner's newest weights every `validation.every` updates,
    /// from the untrained ones to the last.
    #[command(after_help = EVALUATE_EXAMPLES)]
    Evaluate(EvaluateArgs),
    /// Exit with 0 if the learner has an actor of this host whose lease holds, with 5 if not.
    Health(HealthArgs),
}

const EVALUATE_EXAMPLES: &str = "\
Examples:
  actor evaluate --config run.toml --learner learner-0:7400
  actor evaluate --config run.toml --run-dir runs/mouse

What it finds goes to the learner, which keeps validation.jsonl and
checkpoints/best.safetensors in the run's folder. Where that folder is here too,
--run-dir lets the evaluator write there itself.";

#[derive(Debug, Args)]
struct EvaluateArgs {
    #[command(flatten)]
    common: RunArgs,
    /// The run's folder, to write validation.jsonl, TensorBoard's curves and the best weights there.
    #[arg(long, value_name = "DIR")]
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Text,
    Json,
}

fn main() -> ExitCode {
    model::memory::keep_freed();
    let done = match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Evaluate(args) => evaluate(args),
        Command::Health(args) => ask(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

/// What both services begin with: settings, log and training scans.
struct Begun {
    config: Config,
    dataset: Dataset,
    learner: String,
    run_id: Option<String>,
    security: Security,
    log: telemetry::Guard,
}

impl Begun {
    /// Serves metrics, health and the log level, where the configuration says so.
    async fn observe(&self, service: &str, metrics: Metrics) -> anyhow::Result<Option<Serving>> {
        metrics.add(Process::new(service, Some(self.log.control())));
        let (listen, insecure) = (&self.config.http.listen, self.config.cluster.insecure);
        let web = http::bind(listen, &self.security, insecure).await?;
        let router = http::standard(metrics, self.log.control());
        Ok(http::spawn(web, router, &self.security))
    }
}

fn begin(args: RunArgs, service: &str) -> anyhow::Result<Begun> {
    let mut config = Config::load(&Sources::from_process(args.config, args.set))?;
    let mut options = telemetry::Options::of(service, &config.log);
    options.format = match args.log_format {
        LogFormat::Auto => telemetry::Format::Auto,
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    let log = telemetry::init(&options)?;
    let security = Security::from_config(&config.cluster)?;
    security.tell();
    let dataset = Dataset::load(&scans(&config)?).context("load the training scans")?;
    // Names as everybody resolves them, so that all digests agree.
    config.data.landmarks.clone_from(&dataset.landmark_names);
    tracing::info!(
        scans = dataset.scans.len(),
        landmarks = dataset.landmark_names.join(","),
        "loaded the training scans"
    );
    Ok(Begun {
        learner: args
            .learner
            .unwrap_or_else(|| config.cluster.learner.clone()),
        run_id: args.run_id,
        config,
        dataset,
        security,
        log,
    })
}

async fn told_to_stop() {
    if let Err(error) = stop_signal().await {
        tracing::error!(%error, "cannot wait for signals; stopping");
    }
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    let begun = begin(args, "actor")?;
    let counters = Arc::new(Counters::default());
    let metrics = Metrics::default();
    metrics.add(ActorMetrics::new(Arc::clone(&counters), 0));
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    let _web = runtime.block_on(begun.observe("actor", metrics))?;
    let setup = ActorSetup {
        security: begun.security,
        learner: begun.learner,
        run_id: begun.run_id,
        config: Arc::new(begun.config),
        dataset: Arc::new(begun.dataset),
        counters,
    };
    runtime.block_on(actor::run(setup, told_to_stop()))?;
    Ok(())
}

fn evaluate(args: EvaluateArgs) -> anyhow::Result<()> {
    let begun = begin(args.common, "evaluator")?;
    let config = &begun.config;
    let selection = selection(config)?;
    let selection = Dataset::load(&selection).context("load the selection scans")?;
    let names = &begun.dataset.landmark_names;
    let guess = Guess::of(&begun.dataset.scans, names, String::new());
    if let Some(folder) = &args.run_dir {
        std::fs::create_dir_all(folder.join("checkpoints"))
            .with_context(|| format!("cannot write to the run folder {}", folder.display()))?;
        guess.store(folder, names, begun.dataset.scans.len())?;
    }
    tracing::info!(scans = selection.scans.len(), "loaded the selection scans");
    let (errors, seen) = watch::channel(None);
    let metrics = Metrics::default();
    metrics.add(EvaluatorMetrics::new(seen));
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    let _web = runtime.block_on(begun.observe("evaluator", metrics))?;
    let setup = EvaluatorSetup {
        security: begun.security,
        errors,
        learner: begun.learner,
        run_id: begun.run_id,
        config: Arc::new(begun.config),
        selection: selection.scans,
        guess,
        run_dir: args.run_dir,
    };
    runtime.block_on(evaluator::run(setup, told_to_stop()))?;
    Ok(())
}

/// The scans to evaluate on; an evaluator without them has nothing to do.
fn selection(config: &Config) -> Result<DatasetSpec, ConfigError> {
    let refuse = |key: &str, why: &str| ConfigError::Value {
        key: key.into(),
        why: why.into(),
    };
    if config.validation.every == 0 {
        let why =
            "is 0, which means never; say after how many updates, as in --set validation.every=200";
        return Err(refuse("validation.every", why));
    }
    DatasetSpec::selection(config).ok_or_else(|| {
        let why = "is empty, and data.train_images names no selection scans: there is nothing to evaluate on";
        refuse("data.selection_images", why)
    })
}

fn ask(args: HealthArgs) -> anyhow::Result<()> {
    let cluster = Config::load(&Sources::from_process(args.config, Vec::new()))?.cluster;
    let security = Security::from_config(&cluster)?;
    let learner = args.learner.unwrap_or(cluster.learner);
    let part = if args.evaluator {
        Part::Evaluator
    } else {
        Part::Actor
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let words = runtime.block_on(health::check(&learner, &security, part))?;
    tell(&words);
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "what was asked for goes to standard output"
)]
fn tell(text: &str) {
    println!("{text}");
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
            || cause.is::<SecurityError>()
            || matches!(cause.downcast_ref(), Some(TelemetryError::Filter { .. }));
        let refused = matches!(
            cause.downcast_ref(),
            Some(ActorError::Refused { .. } | ActorError::ShardRefused(_))
        );
        let data = refused || cause.is::<DatasetError>();
        let unreachable = cause.is::<HealthError>().then_some(EXIT_UNREACHABLE);
        let config = config.then_some(EXIT_CONFIG);
        config.or(data.then_some(EXIT_DATA)).or(unreachable)
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
        let mut config = Config::defaults().unwrap();
        let told = |config: &Config| selection(config).unwrap_err().to_string();
        assert!(told(&config).contains("data.selection_images"));
        config.validation.every = 0;
        assert!(told(&config).contains("--set validation.every=200"));
        let lost = HealthError::NoLease {
            learner: "a:1".into(),
            host: "h".into(),
        };
        assert_eq!(exit_code(&lost.into()), EXIT_UNREACHABLE);
    }
}
