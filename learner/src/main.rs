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
use learner::checkpoint::files::CheckpointFiles;
use learner::checkpoint::folder::Resume;
use learner::checkpoint::http as checkpoint_http;
use learner::report::metrics::LearnerMetrics;
use learner::report::status_text;
use learner::{LearnerSetup, PreparedRun, Progress};
use proto::transport::entry::{self, LogFormat, Service};
use proto::transport::health::Health;
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
    /// Train until the last update, Ctrl-C or a stop signal.
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
    /// Go on from a checkpoint of the run folder: the one of this name, or the newest good one
    /// if there is one (auto)
    #[arg(long, value_name = "auto|NAME", num_args = 0..=1, default_missing_value = "auto")]
    resume: Option<String>,
}

fn main() -> ExitCode {
    model::memory::keep_freed();
    entry::run(execute(Cli::parse().command), |_| None)
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
    let mut service = Service::start("learner", &name, LogFormat::Auto, &config).await?;
    let address = listening(args.listen.as_deref(), &config)?;
    let listener = service.listen(address).await?;
    let resume = match args.resume.as_deref() {
        None => Resume::No,
        Some("auto") => Resume::Newest,
        Some(name) => Resume::Named(name.to_owned()),
    };
    let dir = run_dir.parent().unwrap_or(Path::new("."));
    let now = SystemTime::now();
    let claimed = if resume == Resume::No {
        ClaimedFolder::create(dir, &name, now)?
    } else {
        ClaimedFolder::open_or_create(dir, &name, now)?
    };
    let dataset = Arc::new(Dataset::load(&DatasetSpec::training(&config))?);
    let run = Arc::new(PreparedRun::new(claimed, config, dataset, resume, now)?);
    let (progress, seen) = watch::channel(Progress {
        updates_total: run.config.learner.updates,
        ..Progress::default()
    });
    let (metrics, health) = (Metrics::default(), Health::default());
    metrics.add(LearnerMetrics::new(seen));
    let checkpoints = Arc::new(CheckpointFiles::new(&run.folder.checkpoints()));
    let downloads = checkpoint_http::router(Arc::clone(&checkpoints));
    let http = service.http_address();
    let _web = service.serve_http(metrics, &health, Some(("run", &run_dir)), Some(downloads));
    let setup = LearnerSetup {
        shards: run.config.cluster.shards.clone(),
        run,
        checkpoints,
        security: service.security().clone(),
        progress,
        http,
        health,
    };
    let summary = learner::run(setup, listener, entry::shutdown_signal()).await?;
    tracing::info!(
        updates = summary.updates,
        stopped_early = summary.stopped_early,
        signal = entry::stopped_by(),
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
            format!("cannot find the run folder {given}; choose another with --run-dir")
        })?;
    }
    let name = run_dir.file_name().map(|n| n.to_string_lossy().into());
    let name = name.context("/ is not a run folder; choose another with --run-dir")?;
    Ok((run_dir, name))
}

/// Where to listen: the flag, else cluster.listen, else cluster.learner, which may be a host name.
fn listening(flag: Option<&str>, config: &Config) -> Result<SocketAddr, ConfigError> {
    let cluster = &config.cluster;
    let configured = Some(cluster.listen.as_str()).filter(|text| !text.is_empty());
    let (key, text) = match flag.or(configured) {
        Some(text) => ("cluster.listen", text),
        None => ("cluster.learner", cluster.learner.as_str()),
    };
    text.parse().map_err(|_| ConfigError::Value {
        key: key.into(),
        why: format!(
            "\"{text}\" is not an IP address with a port: set one with --listen 0.0.0.0:7400 or cluster.listen"
        ),
    })
}

async fn status(ask: &Ask, json: bool) -> anyhow::Result<()> {
    let status = status_text::ask(&ask.address, &ask.security()?, "").await?;
    entry::print(&if json {
        status_text::as_json(&status)?.to_string()
    } else {
        status_text::as_text(&status)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_not_an_address_to_listen_on() {
        let mut config = Config::defaults().unwrap();
        let address = |flag, config: &Config| {
            let address = listening(flag, config).map(|address| address.to_string());
            address.unwrap_or_else(|error| error.to_string())
        };
        assert_eq!(address(None, &config), "127.0.0.1:7400");
        config.cluster.learner = "learner:7400".into();
        let error = address(None, &config);
        assert!(error.contains("cluster.learner"), "{error}");
        assert!(error.contains("--listen 0.0.0.0:7400"), "{error}");
        config.cluster.listen = "0.0.0.0:7401".into();
        assert_eq!(address(None, &config), "0.0.0.0:7401");
        assert_eq!(address(Some("[::1]:5"), &config), "[::1]:5");
        assert!(address(Some("here"), &config).contains("\"here\""));
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
