//! What the `main` functions of all services share: runtime, exit codes, logs, security, HTTP
//! and signals.
//!
//! A service's own `main` reads its arguments and its configuration, and calls the service's
//! `run(config, listener, shutdown)` with what [`Service`] and [`shutdown_signal`] provide.

mod signals;

use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use axum::Router;
use common::config::{Config, ConfigError, Sources};
use common::imaging::dataset::DatasetError;
use common::report::text::printable;
use common::run::machine;
use common::run::run_folder::reachable;
use common::run::telemetry::{self, Control, Guard, TelemetryError};
use tokio::net::TcpListener;

pub use signals::{shutdown_signal, stopped_by};

use crate::transport::health::{self, Health};
use crate::transport::http::{self, Hosts, HttpError, Serving};
use crate::transport::listen::{self, ListenError};
use crate::transport::metrics::{Metrics, Process};
use crate::transport::security::{Role, Security, SecurityError};

/// What a program returns to the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// The command line is invalid.
    Usage = 2,
    /// The configuration is invalid, or a file that it names for TLS or the token.
    Config = 3,
    /// A scan, a landmark file or a checkpoint is invalid.
    Data = 4,
    /// A service cannot be reached.
    Unreachable = 5,
    /// A second Ctrl-C ended the process, or a signal a command.
    Interrupted = 130,
}

impl Exit {
    /// The exit code for error causes that all programs share; `None` for other causes.
    #[must_use]
    pub fn of_cause(cause: &(dyn Error + 'static)) -> Option<Self> {
        let level = matches!(cause.downcast_ref(), Some(TelemetryError::Filter { .. }));
        let http = matches!(cause.downcast_ref(), Some(HttpError::Address { .. }));
        if level || http || cause.is::<ConfigError>() || cause.is::<SecurityError>() {
            return Some(Self::Config);
        }
        cause.is::<DatasetError>().then_some(Self::Data)
    }

    /// The code for an error: that of its first cause for which [`Exit::of_cause`] or `own`
    /// knows one.
    pub fn of(error: &anyhow::Error, own: impl Fn(&(dyn Error + 'static)) -> Option<Self>) -> Self {
        let of = |cause| Self::of_cause(cause).or_else(|| own(cause));
        error.chain().find_map(of).unwrap_or(Self::Failed)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Raises the limit on open files, runs a command on a multi-threaded runtime and prints its
/// error, if any; `own` chooses the
/// exit code for causes specific to this program.
pub fn run(
    command: impl Future<Output = anyhow::Result<()>>,
    own: impl Fn(&(dyn Error + 'static)) -> Option<Exit>,
) -> ExitCode {
    // Limits on connections follow from it; with a lower one there are fewer of them.
    let _ = machine::raise_open_files();
    let done = tokio::runtime::Runtime::new()
        .context("start the async runtime")
        .and_then(|runtime| runtime.block_on(command));
    match done {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            // Unlike `eprintln`, this does not panic where the terminal is gone.
            let _ = writeln!(io::stderr(), "error: {}", printable(&format!("{error:#}")));
            Exit::of(&error, own).into()
        }
    }
}

/// Prints a line on standard output; a closed pipe is not an error.
///
/// # Errors
/// When writing fails otherwise, as on a full disk.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text everywhere.
    Text,
    /// JSON everywhere.
    Json,
}

impl From<LogFormat> for telemetry::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Auto => Self::Auto,
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

/// The arguments of a sub-command that calls a running service, by default that at `PORT` of
/// this machine.
#[derive(Debug, clap::Args)]
pub struct Ask<const PORT: u16> {
    /// host:port
    #[arg(long, value_name = "ADDRESS", default_value_t = format!("127.0.0.1:{PORT}"))]
    pub address: String,
    /// TOML files, later ones win: cluster.ca, cert, key and token_file count
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// One setting, wins over files and LANDMARL__SECTION__KEY
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl<const PORT: u16> Ask<PORT> {
    /// The certificate and the token to call with.
    pub fn security(&self) -> anyhow::Result<Security> {
        let sources = Sources::from_process(self.config.clone(), self.set.clone());
        Ok(Security::from_config(&Config::load(&sources)?.cluster)?)
    }

    /// Succeeds if the service in this role serves.
    pub async fn health(&self, role: Role) -> anyhow::Result<()> {
        Ok(health::check(&self.address, &self.security()?, role).await?)
    }
}

/// The log, the security and the HTTP port of a process.
#[derive(Debug)]
pub struct Service {
    name: String,
    security: Security,
    insecure: bool,
    http: Option<TcpListener>,
    hosts: Hosts,
    log: Control,
    /// Flushes the log file on drop.
    _guard: Option<Guard>,
}

impl Service {
    /// Starts the log, with the name of the run if it is known, reads certificates and token, and
    /// binds the HTTP port if one is configured.
    ///
    /// # Errors
    /// When one of these settings is invalid, or the port cannot be bound.
    pub async fn start(
        name: &str,
        run: &str,
        format: LogFormat,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let guard = telemetry::init(&telemetry::Options {
            run: run.to_owned(),
            format: format.into(),
            ..telemetry::Options::of(name, &config.log)
        })?;
        let service = Self::with_log(name, guard.control(), config).await?;
        Ok(Self {
            _guard: Some(guard),
            ..service
        })
    }

    /// As [`Service::start`], in a process that has already started its log.
    pub async fn with_log(name: &str, log: Control, config: &Config) -> anyhow::Result<Self> {
        let security = Security::from_config(&config.cluster)?;
        let insecure = config.cluster.insecure;
        let http = http::bind(&config.http.listen, &security, insecure).await?;
        Ok(Self {
            name: name.to_owned(),
            security,
            insecure,
            http,
            hosts: Hosts::of(config),
            log,
            _guard: None,
        })
    }

    /// The certificates and token of this process.
    #[must_use]
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Listens for gRPC; beyond loopback only with TLS, or if the configuration allows it.
    pub async fn listen(&self, address: SocketAddr) -> Result<TcpListener, ListenError> {
        listen::bind(address, self.insecure || self.security.has_tls()).await
    }

    /// `host:port` at which this machine reaches `/metrics`, if an HTTP port is configured;
    /// `None` once it is served.
    #[must_use]
    pub fn http_address(&self) -> Option<String> {
        let listener = self.http.as_ref()?;
        listener.local_addr().ok().map(reachable)
    }

    /// If an HTTP port is configured, serves `/metrics`, `/health`, `/log-level` and `more` until
    /// the result is dropped. `health` decides what `/health` answers; `folder` is the purpose and path of the folder that the process
    /// writes to: the metrics include its free space.
    #[must_use = "serving ends when this is dropped"]
    pub fn serve_http(
        &mut self,
        metrics: Metrics,
        health: &Health,
        folder: Option<(&'static str, &Path)>,
        more: Option<Router>,
    ) -> Option<Serving> {
        let folders = folder.map(|(purpose, path)| (purpose, path.to_owned()));
        let folders = folders.into_iter().collect();
        metrics.add(Process::new(&self.name, Some(self.log.clone()), folders));
        let router = http::standard(metrics, health.clone(), self.log.clone());
        let router = router.merge(more.unwrap_or_default());
        let listener = self.http.take();
        http::spawn(listener, router, &self.security, self.hosts.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::http::tests::{ask, log};

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        ask: Ask<7100>,
    }

    #[test]
    fn the_default_address_is_the_port_of_the_service() {
        let parse = |words: &[&str]| <Cli as clap::Parser>::try_parse_from(words).unwrap();
        assert_eq!(parse(&["x"]).ask.address, "127.0.0.1:7100");
        let cli = parse(&["x", "--address", "a:1", "--set", "cluster.insecure=true"]);
        assert_eq!(cli.ask.address, "a:1");
        assert!(!cli.ask.security().unwrap().has_tls());
        let unknown = parse(&["x", "--set", "cluster.nothing=1"]);
        let error = unknown.ask.security().unwrap_err();
        assert_eq!(Exit::of(&error, |_| None), Exit::Config);
    }

    #[test]
    fn exit_codes_follow_the_types_of_the_errors_under_any_context() {
        let unknown = Sources {
            set: vec!["learner.lrr=1".into()],
            ..Sources::default()
        };
        let config = Config::load(&unknown).context("load").unwrap_err();
        let code = |error: &anyhow::Error| Exit::of(error, |_| None);
        assert_eq!(code(&config), Exit::Config);
        assert_eq!(code(&anyhow::anyhow!("other")), Exit::Failed);
        let own = |cause: &(dyn Error + 'static)| cause.is::<io::Error>().then_some(Exit::Data);
        let read = anyhow::Error::new(io::Error::other("x")).context("read");
        assert_eq!(Exit::of(&read, own), Exit::Data);
        let mut cluster = Config::defaults().unwrap().cluster;
        cluster.token_file = "/nowhere/token".into();
        let security = anyhow::Error::new(Security::from_config(&cluster).unwrap_err());
        assert_eq!(code(&security.context("start")), Exit::Config);
    }

    #[tokio::test]
    async fn a_service_serves_health_and_its_metrics_where_http_is_configured() {
        let mut config = Config::defaults().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut off = Service::with_log("test", log(), &config).await.unwrap();
        assert_eq!(off.http_address(), None);
        let health = Health::default();
        let nowhere = off.serve_http(Metrics::default(), &health, None, None);
        assert!(nowhere.is_none());
        config.http.listen = "127.0.0.1:0".into();
        let mut service = Service::with_log("test", log(), &config).await.unwrap();
        let address = service.http.as_ref().unwrap().local_addr().unwrap();
        assert_eq!(service.http_address(), Some(address.to_string()));
        let written = Some(("run", folder.path()));
        let _serving = service.serve_http(Metrics::default(), &health, written, None);
        let (_, reply) = ask(address, "GET /health", "", "").await;
        assert!(reply.ends_with("ok\n"), "{reply}");
        health.add(|| Err("the table is broken".to_owned()));
        let (status, reply) = ask(address, "GET /health", "", "").await;
        assert!(
            status == 503 && reply.ends_with("the table is broken\n"),
            "{reply}"
        );
        let (_, metrics) = ask(address, "GET /metrics", "", "").await;
        for line in [
            "landmarl_build_info{service=\"test\"",
            "landmarl_process_disk_free_bytes{folder=\"run\"} ",
        ] {
            assert!(metrics.contains(line), "{line}: {metrics}");
        }
        let beyond = service.listen("0.0.0.0:0".parse().unwrap()).await;
        assert!(beyond.is_err_and(|e| e.to_string().contains("--insecure")));
    }
}
