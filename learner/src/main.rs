//! `learner`: trains, and asks after one that does.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use common::config::{Config, ConfigError, Sources};
use common::dataset::{Dataset, DatasetError, DatasetSpec};
use common::telemetry;
use learner::{LearnerSetup, Progress};
use proto::learner_status::LearnerStatus;
use proto::retry::{CALL_DEADLINE, unary};
use proto::{channel, health, listen, wire};
use tokio::sync::watch;

const EXAMPLES: &str = "Examples:
  learner run --config configs/mouse-small.toml --run-dir runs/mouse
  learner run --config my.toml --set cluster.learner=0.0.0.0:7400 --set cluster.insecure=true --run-dir runs/a --resume
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
    Health {
        /// host:port
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
        address: String,
    },
    /// Print what the learner at ADDRESS does.
    Status {
        /// host:port
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
        address: String,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
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
                    Command::Health { address } => Ok(health::check(&address).await?),
                    Command::Status { address, json } => status(&address, json).await,
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
    if error.is::<ConfigError>() {
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
    let _log = telemetry::init(&telemetry::Options::new("learner", &config.log.level))?;
    let address: SocketAddr = config
        .cluster
        .learner
        .parse()
        .with_context(|| format!("cluster.learner = \"{}\"", config.cluster.learner))?;
    let listener = listen::bind(address, config.cluster.insecure).await?;
    std::fs::create_dir_all(&args.run_dir).with_context(|| {
        format!(
            "cannot create the run folder {}; name another with --run-dir",
            args.run_dir.display()
        )
    })?;
    let dataset = Arc::new(Dataset::load(&DatasetSpec::training(&config))?);
    // Names as everybody resolves them, so that all digests agree.
    config.data.landmarks.clone_from(&dataset.landmark_names);
    let name = args.run_dir.file_name();
    let run_id = name.map_or_else(|| "run".to_owned(), |n| n.to_string_lossy().into_owned());
    let (progress, _seen) = watch::channel(Progress::default());
    let setup = LearnerSetup {
        shards: config.cluster.shards.clone(),
        config: Arc::new(config),
        dataset,
        run_id,
        run_dir: args.run_dir,
        resume: args.resume.is_some(),
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

async fn status(address: &str, json: bool) -> anyhow::Result<()> {
    let mut client = channel::learner_client(channel::connect_lazy(address)?);
    let reply = unary(wire::LearnerStatusRequest {}, CALL_DEADLINE, |request| {
        client.status(request)
    })
    .await
    .map_err(|status| anyhow::anyhow!("{address} does not answer: {}", status.message()))?;
    let status = LearnerStatus::try_from(reply)?;
    tell(&if json {
        as_json(&status).to_string()
    } else {
        as_text(&status)
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

fn as_json(s: &LearnerStatus) -> serde_json::Value {
    let actors = s.actors.iter().map(|a| {
        serde_json::json!({
            "actor": a.writer.actor, "incarnation": a.writer.incarnation, "host": a.host, "alive": a.alive,
            "heartbeat_age_s": a.heartbeat_age_s, "env_steps": a.env_steps, "weights_version": a.weights_version,
        })
    });
    let shards = s.shards.iter().map(|l| {
        serde_json::json!({
            "address": l.address, "alive": l.alive,
            "rows": l.summary.map(|s| s.rows), "inserted": l.summary.map(|s| s.inserted),
        })
    });
    serde_json::json!({
        "run": s.run_id, "updates": s.updates, "updates_total": s.updates_total,
        "weights_version": s.weights_version, "samples_per_insert": s.samples_per_insert,
        "limiter": s.limiter, "version": s.version,
        "actors": actors.collect::<Vec<_>>(), "shards": shards.collect::<Vec<_>>(),
    })
}

fn as_text(s: &LearnerStatus) -> String {
    let mut lines = vec![
        format!(
            "run {}: {} of {} updates, weights version {}",
            s.run_id, s.updates, s.updates_total, s.weights_version
        ),
        format!(
            "samples per insert {:.2}, limiter {}",
            s.samples_per_insert, s.limiter
        ),
    ];
    for a in &s.actors {
        let state = if a.alive { "alive" } else { "lost" };
        lines.push(format!(
            "actor {} ({}): {state}, {} steps, weights version {}, heard of {:.1} s ago",
            a.writer.actor, a.host, a.env_steps, a.weights_version, a.heartbeat_age_s
        ));
    }
    for (i, l) in s.shards.iter().enumerate() {
        let state = if l.alive { "alive" } else { "lost" };
        let rows = l.summary.map_or(0, |s| s.rows);
        lines.push(format!("shard {i} ({}): {state}, {rows} rows", l.address));
    }
    lines.join("\n")
}
