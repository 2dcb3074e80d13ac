//! `replay-server`: serves one replay shard, and queries a running one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};
use common::config::{Config, ConfigError, ENV_PREFIX, SelectorConfig, Sources};
use proto::transport::channel::{self, Channel};
use proto::transport::entry::{self, LogFormat, Service};
use proto::transport::health::Health;
use proto::transport::metrics::Metrics;
use proto::transport::retry::{CALL_DEADLINE, reason, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use proto::wire::replay_client::ReplayClient;
use replay_server::journal::verify;
use replay_server::table::selector::Selector;
use replay_server::{JournalConfig, ShardConfig, report, run_observed};

/// The capacity of a shard whose settings describe no run.
const ROWS_WITHOUT_RUN: usize = 200_000;
/// Longer than other calls: a snapshot waits for the disk.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);

/// landmarl's replay shard.
#[derive(Debug, Parser)]
#[command(name = "replay-server", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve one shard until Ctrl-C or a stop signal; a second one does not wait for the disk.
    Serve(ServeArgs),
    /// Exit with 0 if the shard at ADDRESS serves.
    Health(Ask),
    /// Print what the shard at ADDRESS holds and does.
    Status {
        #[command(flatten)]
        ask: Ask,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Have the shard at ADDRESS save its priorities beside its rows now.
    Snapshot(Ask),
    /// Read a stopped shard's journal and say what is in it; exit with 1 if it is damaged.
    Verify {
        /// The folder that `serve --journal` was given.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// The shard that a sub-command calls.
type Ask = entry::Ask<7100>;

#[derive(Debug, Args)]
struct ServeArgs {
    /// Where to listen; port 0 takes any free port.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7100")]
    listen: SocketAddr,
    /// Listen beyond this machine although nothing protects the port [from files: cluster.insecure].
    #[arg(long)]
    insecure: bool,
    /// The shard's number in the run.
    #[arg(long, default_value_t = 0)]
    shard: u32,
    /// TOML files of the run, later ones win: what of the settings below no flag says.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// One setting of the run, such as cluster.ca=FILE; wins over files and LANDMARL__SECTION__KEY.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Rows that this shard holds; the oldest make room [default: 200000; from files: replay.capacity over the number of cluster.shards]
    #[arg(long)]
    capacity: Option<usize>,
    /// How rows are drawn [default: prioritised; from files: replay.selector]
    #[arg(long, value_parser = PossibleValuesParser::new(["prioritised", "uniform"]).map(|name| selector(&name)))]
    selector: Option<SelectorConfig>,
    /// Exponent of |TD error|: 0 draws all alike [default: 0.6; from files: replay.alpha]
    #[arg(long)]
    alpha: Option<f64>,
    /// Added to |TD error|, so that no row is lost for ever [default: 0.01; from files: replay.epsilon]
    #[arg(long)]
    epsilon: Option<f64>,
    /// |TD error| counts up to here [default: 10; from files: replay.priority_max]
    #[arg(long)]
    priority_max: Option<f64>,
    /// Seed of the draws [default: 0; from files: run.seed]
    #[arg(long)]
    seed: Option<u64>,
    /// Megabytes that the table may take.
    #[arg(long, value_name = "MB", default_value_t = 16_384)]
    memory_max_mb: u64,
    /// Keep rows on disk in this folder, so that a restart has them again [default: in memory only]
    #[arg(long, value_name = "FOLDER")]
    journal: Option<PathBuf>,
    /// Megabytes after which a segment of the journal is followed by a new one.
    #[arg(long, value_name = "MB", default_value_t = 8, requires = "journal",
          value_parser = clap::value_parser!(u64).range(1..=1024))]
    segment_mb: u64,
    /// Milliseconds after which rows acknowledged in memory are on disk.
    #[arg(long, value_name = "MS", default_value_t = 200, requires = "journal",
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    sync_ms: u64,
    /// Seconds between two snapshots of the priorities.
    #[arg(long, value_name = "S", default_value_t = 300, requires = "journal",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    snapshot_s: u64,
    /// error, warn, info, debug, trace, or a filter such as "info,replay_server=debug"
    /// [default: info; from files: log.level]
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Look of the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
}

fn selector(name: &str) -> SelectorConfig {
    match name {
        "uniform" => SelectorConfig::Uniform,
        _ => SelectorConfig::Prioritised,
    }
}

impl ServeArgs {
    /// The configuration from files and settings, overridden by the flags; without any setting
    /// about rows, the defaults of a shard without a run.
    fn settings(&self) -> Result<Config, ConfigError> {
        let sources = Sources::from_process(self.config.clone(), self.set.clone());
        let mut config = Config::load(&sources)?;
        if !configures_rows(&sources) {
            let shards = config.cluster.shards.len().max(1);
            config = Config {
                cluster: config.cluster,
                http: config.http,
                log: config.log,
                ..Config::defaults()?
            };
            config.replay.capacity = ROWS_WITHOUT_RUN * shards;
            config.run.seed = 0;
        }
        config.cluster.insecure |= self.insecure;
        if let Some(level) = &self.log {
            config.log.level.clone_from(level);
        }
        let replay = &mut config.replay;
        replay.selector = self.selector.unwrap_or(replay.selector);
        replay.alpha = self.alpha.unwrap_or(replay.alpha);
        replay.epsilon = self.epsilon.unwrap_or(replay.epsilon);
        replay.priority_max = self.priority_max.unwrap_or(replay.priority_max);
        config.run.seed = self.seed.unwrap_or(config.run.seed);
        Ok(config)
    }

    fn shard(&self, config: &Config, security: Security) -> anyhow::Result<ShardConfig> {
        // The clock advances between two starts, so it serves as the incarnation.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the system clock is before 1970")?;
        // The learner counts shards in the same way, and refuses to start without any.
        let shards = config.cluster.shards.len().max(1);
        let share = config.replay.capacity.div_ceil(shards);
        Ok(ShardConfig {
            shard: self.shard,
            incarnation: u64::try_from(now.as_nanos()).context("the system clock is after 2500")?,
            capacity: self.capacity.unwrap_or(share),
            selector: Selector::from(&config.replay),
            seed: config.run.seed,
            memory_max: self.memory_max_mb.saturating_mul(1_000_000),
            journal: self.journal.as_deref().map(|folder| JournalConfig {
                segment_bytes: self.segment_mb << 20,
                sync_every: Duration::from_millis(self.sync_ms),
                snapshot_every: Duration::from_secs(self.snapshot_s),
                ..JournalConfig::new(folder)
            }),
            security,
            ..ShardConfig::default()
        })
    }
}

/// Whether these sources configure a run's rows: any file does, and any setting except those of
/// connections and logs. Containers pass the same variables to all of their programs, so of those
/// only the ones about rows, the run and its number of shards count.
fn configures_rows(sources: &Sources) -> bool {
    const SHARDS: &str = "cluster.shards";
    let around = ["cluster.", "http.", "log."];
    let about = ["replay.", "run.", SHARDS];
    let set = |setting: &String| {
        setting.starts_with(SHARDS) || !around.iter().any(|section| setting.starts_with(section))
    };
    let variable = |(name, _): &(String, String)| {
        let path = name.strip_prefix(ENV_PREFIX).unwrap_or_default();
        let key = path.to_lowercase().replace("__", ".");
        about.iter().any(|section| key.starts_with(section))
    };
    !sources.files.is_empty() || sources.set.iter().any(set) || sources.env.iter().any(variable)
}

fn main() -> ExitCode {
    entry::run(execute(Cli::parse().command), |_| None)
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => serve(args).await,
        Command::Health(ask) => ask.health(Role::Replay).await,
        Command::Status { ask, json } => status(&ask, json).await,
        Command::Snapshot(ask) => snapshot(&ask).await,
        Command::Verify { folder, json } => verify_folder(&folder, json),
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let config = args.settings()?;
    let mut service = Service::start("replay-server", "", args.log_format, &config).await?;
    let shard = args.shard(&config, service.security().clone())?;
    let listener = service.listen(args.listen).await?;
    let (metrics, health) = (Metrics::default(), Health::default());
    let journal = shard.journal.as_ref().map(|j| ("journal", &*j.folder));
    let _web = service.serve_http(metrics.clone(), &health, journal, None);
    let observed = (&metrics, &health);
    Ok(run_observed(shard, listener, observed, entry::shutdown_signal()).await?)
}

/// A client of the shard at the given address.
fn client(ask: &Ask) -> anyhow::Result<ReplayClient<Channel>> {
    let channel = ask.security()?.connect(&ask.address, Role::Replay)?;
    Ok(channel::replay_client(channel))
}

async fn status(ask: &Ask, json: bool) -> anyhow::Result<()> {
    let mut client = client(ask)?;
    let status = unary(wire::ShardStatusRequest {}, CALL_DEADLINE, |request| {
        client.status(request)
    })
    .await
    .map_err(|status| anyhow::anyhow!("{} does not respond: {}", ask.address, reason(&status)))?;
    entry::print(&if json {
        serde_json::to_value(&status)?.to_string()
    } else {
        report::as_text(&status)
    })
}

async fn snapshot(ask: &Ask) -> anyhow::Result<()> {
    let mut client = client(ask)?;
    let reply = unary(wire::SnapshotRequest {}, SNAPSHOT_DEADLINE, |request| {
        client.snapshot(request)
    })
    .await
    .map_err(|status| anyhow::anyhow!("{}: {}", ask.address, reason(&status)))?;
    entry::print(&format!(
        "priorities of the rows below {} saved, {} bytes",
        reply.row, reply.bytes
    ))
}

fn verify_folder(folder: &Path, json: bool) -> anyhow::Result<()> {
    let found = verify::verify(folder)?;
    entry::print(&if json {
        found.as_json().to_string()
    } else {
        found.as_text()
    })?;
    anyhow::ensure!(
        found.is_sound(),
        "the journal in '{}' is damaged: serving goes on with what is left of it; \
         restore the folder from a copy if the lost rows matter",
        folder.display()
    );
    Ok(())
}
