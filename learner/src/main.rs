//! `learner`: trains, and asks after one that does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use common::config::{Config, ConfigError, Sources};
use common::dataset::{Dataset, DatasetError, DatasetSpec};
use common::manifest::hex;
use common::rules::RULES_VERSION;
use common::run_folder::{RunFolder, RunInfo, host_name, rfc3339};
use common::telemetry;
use learner::checkpoint_files::CheckpointFiles;
use learner::checkpoint_http;
use learner::metrics::LearnerMetrics;
use learner::{LearnerSetup, Progress, status_text};
use proto::metrics::{Metrics, Process};
use proto::security::{Role, Security, SecurityError};
use proto::{health, http, listen};
use tokio::sync::watch;

const EXAMPLES: &str = "Examples:
  learner run --config configs/mouse-small.toml --run-dir runs/mouse
  learner run --config my.toml --listen 0.0.0.0:7400 --set cluster.insecure=true --run-dir runs/a --resume
  learner status --address 127.0.0.1:7400 --json";

/// landmarl's learner: samples from the shards, trains, broadcasts weights.
#[derive(Debug, Parser)]
#[command(name = "learner", version, about, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train until the last update, Ctrl-C or SIGTERM.
    Run(RunArgs),
    /// Exit with 0 if the learner at ADDRESS serves.
    Health(Ask),
    /// Print what the learner at ADDRESS does, as `landmarl status` does.
    Status {
        #[command(flatten)]
        ask: Ask,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Whom to ask, and how to prove who asks.
#[derive(Debug, Args)]
struct Ask {
    /// host:port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
    address: String,
    /// TOML files, later ones win: cluster.ca, cert, key and token_file count
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// One setting, wins over files and LANDMARL__SECTION__KEY
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl Ask {
    fn security(&self) -> anyhow::Result<Security> {
        let sources = Sources::from_process(self.config.clone(), self.set.clone());
        Ok(Security::from_config(&Config::load(&sources)?.cluster)?)
    }
}

#[derive(Debug, Args)]
struct RunArgs {
    /// TOML files, later ones win
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// One setting, wins over files
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Where metrics and checkpoints go
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    /// Where to listen, instead of cluster.listen and cluster.learner
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Go on from the newest good checkpoint of the run folder, if there is one
    #[arg(long, value_name = "auto", num_args = 0..=1, default_missing_value = "auto")]
    resume: Option<Resume>,
}

/// Which checkpoint to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Resume {
    /// The newest good one.
    Auto,
}

fn main() -> ExitCode {
    model::memory::keep_freed();
    let cli = Cli::parse();
    let done = tokio::runtime::Runtime::new()
        .context("start the async runtime")
        .and_then(|runtime| {
            runtime.block_on(async {
                match cli.command {
                    Command::Run(args) => run(args).await,
                    Command::Health(ask) => {
                        Ok(health::check(&ask.address, &ask.security()?, Role::Learner).await?)
                    }
                    Command::Status { ask, json } => status(&ask, json).await,
                }
            })
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            exit_code(&error)
        }
    }
}

/// 3 for configuration, 4 for data, 1 for the rest.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigError>() || error.is::<SecurityError>() {
        ExitCode::from(3)
    } else if error.is::<DatasetError>() {
        ExitCode::from(4)
    } else {
        ExitCode::FAILURE
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where an error meets a person"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let mut config = Config::load(&Sources::from_process(args.config, args.set))?;
    let name = args.run_dir.file_name();
    let run_id = name.map_or_else(|| "run".to_owned(), |n| n.to_string_lossy().into_owned());
    let log = telemetry::init(&telemetry::Options {
        run: run_id.clone(),
        ..telemetry::Options::of("learner", &config.log)
    })?;
    let address = listening(args.listen.as_deref(), &config)?;
    let security = Security::from_config(&config.cluster)?;
    let open = config.cluster.insecure || security.has_tls();
    let listener = listen::bind(address, open).await?;
    let web = http::bind(&config.http.listen, &security, config.cluster.insecure).await?;
    std::fs::create_dir_all(&args.run_dir).with_context(|| {
        format!(
            "cannot create the run folder {}; name another with --run-dir",
            args.run_dir.display()
        )
    })?;
    let dataset = Arc::new(Dataset::load(&DatasetSpec::training(&config))?);
    // Names as everybody resolves them, so that all digests agree.
    config.data.landmarks.clone_from(&dataset.landmark_names);
    config.run.name.clone_from(&run_id);
    describe(&args.run_dir, args.resume.is_some(), &config, &dataset)?;
    let (progress, seen) = watch::channel(Progress::default());
    let metrics = Metrics::default();
    metrics.add(LearnerMetrics::new(seen));
    metrics.add(Process::new("learner", Some(log.control())).writes_to("run", &args.run_dir));
    let checkpoints = Arc::new(CheckpointFiles::new(&args.run_dir.join("checkpoints")));
    let _web = http::spawn(
        web,
        http::standard(metrics, log.control())
            .merge(checkpoint_http::router(Arc::clone(&checkpoints))),
        &security,
    );
    let setup = LearnerSetup {
        shards: config.cluster.shards.clone(),
        config: Arc::new(config),
        dataset,
        run_id,
        run_dir: args.run_dir,
        checkpoints,
        resume: args.resume.is_some(),
        security: security.clone(),
        progress,
    };
    let summary = learner::run(setup, listener, listen::stop_signal_or_exit()).await?;
    tracing::info!(
        updates = summary.updates,
        stopped_early = summary.stopped_early,
        checkpoint = %summary.checkpoint.display(),
        "training ended"
    );
    Ok(())
}

/// Writes `config.toml` and `run.json`, so that other commands know the run.
fn describe(
    run_dir: &Path,
    resume: bool,
    config: &Config,
    dataset: &Dataset,
) -> anyhow::Result<()> {
    let mut info = RunInfo {
        run_id: config.run.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: std::env::args().collect(),
        seed: config.run.seed,
        manifest: hex(&dataset.manifest(RULES_VERSION).digest()),
        config_digest: hex(&config.digest()),
        landmarks: config.data.landmarks.clone(),
        started: rfc3339(SystemTime::now()),
        resumed: Vec::new(),
        host: host_name(),
    };
    let there = run_dir.join("run.json").is_file();
    let folder = if there {
        RunFolder::open(run_dir)?
    } else {
        let around = run_dir.parent().unwrap_or(Path::new("."));
        RunFolder::create(around, &config.run.name, SystemTime::now())?
    };
    if there && resume {
        info = folder.check_resume(&info)?;
    }
    Ok(folder.describe(config, &info)?)
}

/// Where to listen: what the command line says, else cluster.listen, else
/// cluster.learner, which may be a name that others know.
fn listening(flag: Option<&str>, config: &Config) -> Result<SocketAddr, ConfigError> {
    let cluster = &config.cluster;
    let (key, text, hint) = match flag {
        Some(text) => ("cluster.listen", text, "as in --listen 0.0.0.0:7400"),
        None if !cluster.listen.is_empty() => (
            "cluster.listen",
            cluster.listen.as_str(),
            "as in 0.0.0.0:7400",
        ),
        None => (
            "cluster.learner",
            cluster.learner.as_str(),
            "so say where to listen: --listen 0.0.0.0:7400, or cluster.listen",
        ),
    };
    text.parse().map_err(|_| ConfigError::Value {
        key: key.into(),
        why: format!("\"{text}\" is no IP address with a port, {hint}"),
    })
}

async fn status(ask: &Ask, json: bool) -> anyhow::Result<()> {
    let status = status_text::ask(&ask.address, &ask.security()?, "").await?;
    tell(&if json {
        status_text::as_json(&status).to_string()
    } else {
        status_text::as_text(&status)
    });
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "what was asked for goes to standard output"
)]
fn tell(text: &str) {
    println!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_for_others_and_listening_needs_an_address() {
        let mut config = Config::defaults().unwrap();
        let told = |flag, config: &Config| listening(flag, config).map_err(|e| e.to_string());
        assert_eq!(told(None, &config).unwrap().to_string(), "127.0.0.1:7400");
        config.cluster.learner = "learner:7400".into();
        let error = told(None, &config).unwrap_err();
        assert!(
            error.contains("cluster.learner") && error.contains("--listen 0.0.0.0:7400"),
            "{error}"
        );
        config.cluster.listen = "0.0.0.0:7401".into();
        assert_eq!(told(None, &config).unwrap().port(), 7401);
        assert_eq!(told(Some("[::1]:5"), &config).unwrap().port(), 5);
        assert!(
            told(Some("here"), &config)
                .unwrap_err()
                .contains("\"here\"")
        );
    }
}
