//! `learner`: trains, and queries a running learner.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use common::config::{Config, ConfigError, Sources};
use common::imaging::dataset::{Dataset, DatasetSpec};
use common::run::run_folder::ClaimedFolder;
use common::run::telemetry;
use learner::checkpoint::files::CheckpointFiles;
use learner::checkpoint::http as checkpoint_http;
use learner::report::metrics::LearnerMetrics;
use learner::report::status_text;
use learner::{LearnerSetup, PreparedRun, Progress};
use proto::transport::entry::{self, Service};
use proto::transport::metrics::Metrics;
use proto::transport::security::Role;
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

/// The learner that a sub-command calls.
type Ask = entry::Ask<7400>;

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
    let command = Cli::parse().command;
    entry::run(execute(command), |_| None)
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => run(args).await,
        Command::Health(ask) => ask.health(Role::Learner).await,
        Command::Status { ask, json } => status(&ask, json).await,
    }
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let config = Config::load(&Sources::from_process(args.config, args.set))?;
    let (run_dir, name) = run_dir_and_name(&args.run_dir)?;
    let log = telemetry::Options {
        run: name.clone(),
        ..telemetry::Options::of("learner", &config.log)
    };
    let mut service = Service::start(&log, &config).await?;
    let address = listening(args.listen.as_deref(), &config)?;
    let listener = service.listen(address).await?;
    let resume = args.resume.is_some();
    let (dir, now) = (
        run_dir.parent().unwrap_or(Path::new(".")),
        SystemTime::now(),
    );
    let claimed = if resume {
        ClaimedFolder::open_or_create(dir, &name, now)?
    } else {
        ClaimedFolder::create(dir, &name, now)?
    };
    let dataset = Arc::new(Dataset::load(&DatasetSpec::training(&config))?);
    let run = Arc::new(PreparedRun::new(claimed, config, dataset, resume, now)?);
    let (progress, seen) = watch::channel(Progress {
        updates_total: run.config.learner.updates,
        ..Progress::default()
    });
    let metrics = Metrics::default();
    metrics.add(LearnerMetrics::new(seen));
    let checkpoints = Arc::new(CheckpointFiles::new(&run.folder.checkpoints()));
    let downloads = checkpoint_http::router(Arc::clone(&checkpoints));
    let _web = service.serve_http(metrics, Some(("run", &run_dir)), Some(downloads));
    let setup = LearnerSetup {
        shards: run.config.cluster.shards.clone(),
        run,
        checkpoints,
        security: service.security().clone(),
        progress,
    };
    let summary = learner::run(setup, listener, entry::shutdown_signal()).await?;
    tracing::info!(
        updates = summary.updates,
        stopped_early = summary.stopped_early,
        checkpoint = %summary.checkpoint.display(),
        "training ended"
    );
    Ok(())
}

/// The run folder, and its name, which names the run: `.` and `..` have one too.
fn run_dir_and_name(given: &Path) -> anyhow::Result<(PathBuf, String)> {
    let mut run_dir = given.to_owned();
    if run_dir.file_name().is_none() {
        run_dir = run_dir.canonicalize().with_context(|| {
            let given = given.display();
            format!("cannot find the run folder {given}; name another with --run-dir")
        })?;
    }
    let name = run_dir
        .file_name()
        .map(|n| n.to_string_lossy().into_owned());
    let name = name.context("/ is no run folder; name another with --run-dir")?;
    Ok((run_dir, name))
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
    entry::print(&if json {
        status_text::as_json(&status)?.to_string()
    } else {
        status_text::as_text(&status)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_for_others_and_listening_needs_an_address() {
        let mut config = Config::defaults().unwrap();
        let address = |flag, config: &Config| listening(flag, config).map_err(|e| e.to_string());
        assert_eq!(
            address(None, &config).unwrap().to_string(),
            "127.0.0.1:7400"
        );
        config.cluster.learner = "learner:7400".into();
        let error = address(None, &config).unwrap_err();
        assert!(
            error.contains("cluster.learner") && error.contains("--listen 0.0.0.0:7400"),
            "{error}"
        );
        config.cluster.listen = "0.0.0.0:7401".into();
        assert_eq!(address(None, &config).unwrap().port(), 7401);
        assert_eq!(address(Some("[::1]:5"), &config).unwrap().port(), 5);
        assert!(
            address(Some("here"), &config)
                .unwrap_err()
                .contains("\"here\"")
        );
    }

    #[test]
    fn the_name_of_a_run_is_that_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("one");
        std::fs::create_dir_all(run_dir.join("checkpoints")).unwrap();
        let here = run_dir_and_name(&run_dir.join("checkpoints/..")).unwrap();
        assert_eq!(here, (run_dir.canonicalize().unwrap(), "one".to_owned()));
        let named = run_dir_and_name(Path::new("runs/new")).unwrap();
        assert_eq!(named, (PathBuf::from("runs/new"), "new".to_owned()));
        assert!(run_dir_and_name(Path::new("/")).is_err());
    }
}
