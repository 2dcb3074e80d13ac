//! `replay-server`: serves one replay shard, and asks after one.

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use common::config::{
    Config, ConfigError, ENV_PREFIX, HttpConfig, LogConfig, SelectorConfig, Sources,
};
use common::run::telemetry;
use proto::messages::shard_status::ShardStatus;
use proto::transport::channel;
use proto::transport::channel::Channel;
use proto::transport::health;
use proto::transport::http;
use proto::transport::listen;
use proto::transport::metrics::{Metrics, Process};
use proto::transport::retry::{CALL_DEADLINE, reason, unary};
use proto::transport::security::{Role, Security, SecurityError};
use proto::wire;
use proto::wire::replay_client::ReplayClient;
use replay_server::journal::verify;
use replay_server::table::selector::Selector;
use replay_server::{JournalConfig, ShardConfig, report, run_observed};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Rows of a shard that no configuration speaks of.
const ALONE_ROWS: usize = 200_000;
/// A snapshot waits for the disk.
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
    /// Serve one shard until Ctrl-C or SIGTERM; a second one does not wait for the disk.
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

/// Whom to ask, and how to prove who asks.
#[derive(Debug, Args)]
struct Ask {
    /// host:port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7100")]
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

    fn client(&self) -> anyhow::Result<ReplayClient<Channel>> {
        let channel = self.security()?.connect(&self.address, Role::Replay)?;
        Ok(channel::replay_client(channel))
    }
}

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
    #[arg(long, value_enum)]
    selector: Option<SelectorName>,
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SelectorName {
    Prioritised,
    Uniform,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Text,
    Json,
}

impl ServeArgs {
    fn config(&self, base: Base) -> anyhow::Result<ShardConfig> {
        let selector = match self.selector.unwrap_or(base.selector) {
            SelectorName::Uniform => Selector::Uniform,
            SelectorName::Prioritised => Selector::prioritised(
                self.alpha.unwrap_or(base.alpha),
                self.epsilon.unwrap_or(base.epsilon),
                self.priority_max.unwrap_or(base.priority_max),
            )?,
        };
        // The clock rises between two lives of a shard, which is all that is asked of an incarnation.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock stands before 1970")?;
        Ok(ShardConfig {
            shard: self.shard,
            incarnation: u64::try_from(now.as_nanos()).context("the clock stands after 2500")?,
            capacity: self.capacity.unwrap_or(base.capacity),
            selector,
            seed: self.seed.unwrap_or(base.seed),
            memory_max: self.memory_max_mb.saturating_mul(1_000_000),
            journal: self.journal.as_deref().map(|folder| JournalConfig {
                segment_bytes: self.segment_mb << 20,
                sync_every: Duration::from_millis(self.sync_ms),
                snapshot_every: Duration::from_secs(self.snapshot_s),
                ..JournalConfig::new(folder)
            }),
            security: base.security,
            ..ShardConfig::default()
        })
    }
}

/// What holds where no flag says otherwise.
struct Base {
    capacity: usize,
    selector: SelectorName,
    alpha: f64,
    epsilon: f64,
    priority_max: f64,
    seed: u64,
    log: LogConfig,
    http: HttpConfig,
    insecure: bool,
    security: Security,
}

impl Base {
    /// That of a run with these files and settings, which shares its rows among
    /// its shards; where they say nothing of rows, that of a shard by itself.
    fn load(files: Vec<PathBuf>, set: Vec<String>) -> anyhow::Result<Self> {
        let sources = Sources::from_process(files, set);
        let alone = !speaks_of_rows(&sources);
        let mut config = Config::load(&sources)?;
        let security = Security::from_config(&config.cluster)?;
        if alone {
            config = Config {
                cluster: config.cluster,
                http: config.http,
                log: config.log,
                ..Config::defaults()?
            };
        }
        let replay = config.replay;
        Ok(Self {
            capacity: if alone {
                ALONE_ROWS
            } else {
                // As the learner counts them. It refuses to have none.
                let shards = config.cluster.shards.len().max(1);
                replay.capacity.div_ceil(shards)
            },
            selector: match replay.selector {
                SelectorConfig::Uniform => SelectorName::Uniform,
                SelectorConfig::Prioritised => SelectorName::Prioritised,
            },
            alpha: replay.alpha,
            epsilon: replay.epsilon,
            priority_max: replay.priority_max,
            seed: if alone { 0 } else { config.run.seed },
            log: config.log,
            http: config.http,
            insecure: config.cluster.insecure,
            security,
        })
    }
}

/// Whether these say anything of a run's rows: any file does, and what is set here unless it is
/// about connections or logs. Containers give all of their programs the same variables, so of
/// those only what is about rows, the run and the number of its shards does.
fn speaks_of_rows(sources: &Sources) -> bool {
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
    let cli = Cli::parse();
    let done = tokio::runtime::Runtime::new()
        .context("start the async runtime")
        .and_then(|runtime| {
            runtime.block_on(async {
                match cli.command {
                    Command::Serve(args) => serve(args).await,
                    Command::Health(ask) => {
                        Ok(health::check(&ask.address, &ask.security()?, Role::Replay).await?)
                    }
                    Command::Status { ask, json } => status(&ask, json).await,
                    Command::Snapshot(ask) => snapshot(&ask).await,
                    Command::Verify { folder, json } => verify_folder(&folder, json),
                }
            })
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            // The same number as the other services'.
            if error.is::<ConfigError>() || error.is::<SecurityError>() {
                ExitCode::from(3)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where an error meets a person"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let base = Base::load(args.config.clone(), args.set.clone())?;
    let options = telemetry::Options {
        format: match args.log_format {
            LogFormat::Auto => telemetry::Format::Auto,
            LogFormat::Text => telemetry::Format::Text,
            LogFormat::Json => telemetry::Format::Json,
        },
        level: args.log.clone().unwrap_or(base.log.level.clone()),
        ..telemetry::Options::of("replay-server", &base.log)
    };
    let log = telemetry::init(&options)?;
    let insecure = args.insecure || base.insecure;
    let security = base.security.clone();
    let listen_http = base.http.listen.clone();
    let config = args.config(base)?;
    let listener = listen::bind(args.listen, insecure || security.has_tls()).await?;
    let web = http::bind(&listen_http, &security, insecure).await?;
    let metrics = Metrics::default();
    let mut process = Process::new("replay-server", Some(log.control()));
    if let Some(journal) = &config.journal {
        process = process.writes_to("journal", &journal.folder);
    }
    metrics.add(process);
    let _web = http::spawn(
        web,
        http::standard(metrics.clone(), log.control()),
        &security,
    );
    let stop = listen::stop_signal_or_exit();
    Ok(run_observed(config, listener, &metrics, stop).await?)
}

async fn status(ask: &Ask, json: bool) -> anyhow::Result<()> {
    let mut client = ask.client()?;
    let reply = unary(wire::ShardStatusRequest {}, CALL_DEADLINE, |request| {
        client.status(request)
    })
    .await
    .map_err(|status| anyhow::anyhow!("{} does not answer: {}", ask.address, reason(&status)))?;
    let status = ShardStatus::try_from(reply)?;
    tell(&if json {
        report::as_json(&status).to_string()
    } else {
        report::as_text(&status)
    });
    Ok(())
}

async fn snapshot(ask: &Ask) -> anyhow::Result<()> {
    let mut client = ask.client()?;
    let reply = unary(wire::SnapshotRequest {}, SNAPSHOT_DEADLINE, |request| {
        client.snapshot(request)
    })
    .await
    .map_err(|status| anyhow::anyhow!("{}: {}", ask.address, reason(&status)))?;
    tell(&format!(
        "priorities of the rows below {} saved, {} bytes",
        reply.row, reply.bytes
    ));
    Ok(())
}

fn verify_folder(folder: &Path, json: bool) -> anyhow::Result<()> {
    let found = verify::verify(folder)?;
    tell(&if json {
        found.as_json().to_string()
    } else {
        found.as_text()
    });
    anyhow::ensure!(
        found.is_sound(),
        "the journal in '{}' is damaged: serving goes on with what is left of it; \
         restore the folder from a copy if the lost rows matter",
        folder.display()
    );
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "what was asked for goes to standard output"
)]
fn tell(text: &str) {
    println!("{text}");
}
