//! Logs: text for users on standard error, JSON lines for programs, and a
//! copy in the run folder.
//!
//! A JSON line holds `time` (RFC 3339, UTC), `level`, `target`, `service`,
//! `instance`, `run`, `message`, the event's fields, and `span` with the fields
//! of all enclosing spans. Services that share a process have lines of their own by
//! [`service_span`]. Repeated lines are suppressed (`repeats`), files have
//! a maximum size (`file`), and the level can change while the process runs
//! ([`Control`]).

mod control;
mod file;
mod json;
mod repeats;
mod service;
mod text;

pub use control::{Control, name_run};
pub use file::numbered;
pub use service::{InProcess, in_current_span, service_span};

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tracing::Level;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, reload};

use crate::config::LogConfig;
use crate::report::text::one_line;
use crate::run::lock::report_missing_locks;
use crate::run::machine::host_name;
use file::{BOUNDS, Claim, LogFile, Name};
use json::{Json, Labels};
use repeats::{Repeats, Suppressed};

/// Maximum number of lines queued for the disk; more are dropped and counted, because
/// a slow disk must not block training.
const FILE_LINES_MAX: usize = 16_384;

/// Format of standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Text everywhere.
    Text,
    /// JSON everywhere.
    Json,
}

type WriteLine = dyn Fn(&[u8]) -> io::Result<()> + Send + Sync;

/// Receives each finished line; a command that draws progress bars hides them meanwhile.
#[derive(Clone)]
pub struct Console(Arc<WriteLine>);

impl Console {
    /// Passes lines to `write`.
    pub fn new(write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// Writes lines to standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self::new(|line| io::stderr().lock().write_all(line))
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}

impl Write for Console {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (self.0)(line).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Settings of the log.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of this process in every line: `learner`, `actor`, `landmarl`, …
    pub service: String,
    /// Name of the run in every line; empty if there is none, or none yet
    /// (see [`name_run`]).
    pub run: String,
    /// Distinguishes the processes of one service; empty for the host's name.
    pub instance: String,
    /// `log.level` of the configuration.
    pub level: String,
    /// A different level for standard error, for a command that shows its own
    /// progress; the file keeps `level`.
    pub console_level: Option<String>,
    /// Format of standard error.
    pub format: Format,
    /// `<run>/logs`: a copy of each line is appended to
    /// `<service>-<instance>.jsonl` there.
    pub folder: Option<PathBuf>,
    /// Destination of lines for users.
    pub console: Console,
}

impl Options {
    /// Options for standard error only, with the default format.
    #[must_use]
    pub fn new(service: &str, level: &str) -> Self {
        Self {
            service: service.to_owned(),
            run: String::new(),
            instance: String::new(),
            level: level.to_owned(),
            console_level: None,
            format: Format::Auto,
            folder: None,
            console: Console::stderr(),
        }
    }

    /// Sets the folder and the instance from the configuration.
    #[must_use]
    pub fn of(service: &str, config: &LogConfig) -> Self {
        let folder = Some(&config.folder).filter(|f| !f.is_empty());
        Self {
            instance: config.instance.clone(),
            folder: folder.map(PathBuf::from),
            ..Self::new(service, &config.level)
        }
    }

    fn instance(&self) -> String {
        match self.instance.as_str() {
            "" => host_name(),
            instance => instance.to_owned(),
        }
    }

    /// Whether standard error uses the text format.
    fn is_text(&self) -> bool {
        match self.format {
            Format::Auto => io::stderr().is_terminal(),
            Format::Text => true,
            Format::Json => false,
        }
    }
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not a valid level or filter.
    #[error(
        "config key \"log.level\": \"{level}\" is not a log filter: {why}; \
         use error, warn, info, debug, trace or a filter such as \"info,learner=debug\""
    )]
    Filter {
        level: String,
        /// The invalid part.
        why: String,
    },
    /// The log file cannot be opened.
    #[error("cannot write logs to {}: {source}; choose another folder (log.folder, or run.dir for a run's own)", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The reporter thread cannot be started.
    #[error("cannot start a thread for the log")]
    Thread(#[source] io::Error),
    /// Logging is already set up.
    #[error("logging is set up already in this process")]
    Twice,
}

/// Keeps the log running; dropping it writes the queued lines.
#[derive(Debug)]
#[must_use = "lines that wait for the disk are lost when this is dropped at once"]
pub struct Guard {
    control: Control,
    /// Dropped before the file, so that the last report is written.
    _reporter: control::Reporter,
    _file: Option<WorkerGuard>,
}

impl Guard {
    /// Lines dropped because the disk was too slow, full or missing.
    #[must_use]
    pub fn dropped_lines(&self) -> u64 {
        self.control.dropped_lines()
    }

    /// Changes the level while the process runs, and counts lines.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }
}

/// Sets up logging for this process.
/// Fails when the level is not a filter, the log file cannot be opened, or logging is
/// already set up.
pub fn init(options: &Options) -> Result<Guard, TelemetryError> {
    let console_level = options.console_level.as_ref().unwrap_or(&options.level);
    let (console_filter, console_handle) = reload::Layer::new(filter(console_level)?);
    let (file_filter, file_handle) = reload::Layer::new(filter(&options.level)?);
    let claimed = claim(options)?;
    let instance = claimed.as_ref().map(|(_, claim)| claim.instance.clone());
    let instance = instance.unwrap_or_else(|| options.instance());
    let labels = Arc::new(Labels::new(&options.service, &instance, &options.run));
    let refused = Arc::new(AtomicU64::new(0));
    // A separate thread writes, so that training never waits for a disk.
    let file = claimed.map(|(name, claim)| {
        let (warn, labels) = (warnings(options, &labels), Arc::clone(&labels));
        let file = LogFile::new(name, claim, BOUNDS, warn, labels, Arc::clone(&refused));
        let writer = NonBlockingBuilder::default().buffered_lines_limit(FILE_LINES_MAX);
        writer.finish(file)
    });
    let (writer, worker) = file.unzip();
    let crowded_out = writer.as_ref().map(NonBlocking::error_counter);
    let (console_repeats, file_repeats) = (Repeats::default(), Repeats::default());
    let file_layer =
        writer.map(|writer| json_layer(&labels, &file_repeats, writer).with_filter(file_filter));
    let console = options.console.clone();
    let console = move || console.clone();
    let console_layer = match options.is_text() {
        true => text_layer(&console_repeats, console).boxed(),
        false => json_layer(&labels, &console_repeats, console).boxed(),
    };
    tracing_subscriber::registry()
        .with(file_layer)
        .with(console_layer.with_filter(console_filter))
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    report_missing_locks();
    // A command that shows its own progress keeps its quiet console.
    let console_handle = options.console_level.is_none().then_some(console_handle);
    let set_level = move |level: &str| {
        let (for_file, for_console) = (filter(level)?, filter(level)?);
        // Without a file its filter no longer exists, which is not an error.
        let _ = file_handle.reload(for_file);
        let _ = console_handle.as_ref().map(|h| h.reload(for_console));
        Ok(())
    };
    let (repeats, silent) = match &worker {
        Some(_) => (file_repeats, console_repeats),
        None => (console_repeats, file_repeats),
    };
    let control = Control::new(control::Inner {
        level: Mutex::new(options.level.clone()),
        set_level: Box::new(set_level),
        labels,
        refused,
        crowded_out,
        repeats: repeats.clone(),
    });
    Ok(Guard {
        _reporter: control::Reporter::start(repeats, silent)?,
        control,
        _file: worker,
    })
}

/// Creates the folder, if there is to be one, and claims a file in it.
fn claim(options: &Options) -> Result<Option<(Name, Claim)>, TelemetryError> {
    let Some(folder) = options.folder.clone() else {
        return Ok(None);
    };
    let (service, instance) = (options.service.clone(), options.instance());
    let name = Name {
        folder,
        service,
        instance,
    };
    match std::fs::create_dir_all(&name.folder).and_then(|()| name.claim()) {
        Ok(claim) => Ok(Some((name, claim))),
        Err(source) => Err(TelemetryError::File {
            path: name.path(&name.instance),
            source,
        }),
    }
}

/// Writes lines that the file cannot take to standard error.
fn warnings(options: &Options, labels: &Arc<Labels>) -> Box<dyn Fn(&str) + Send> {
    let (text, labels) = (options.is_text(), Arc::clone(labels));
    let console = options.console.clone();
    Box::new(move |message| {
        let line = match text {
            true => format!("WARN {}\n", one_line(message)),
            false => labels.warning(message),
        };
        // If standard error fails too, the line is lost.
        let _ = (console.0)(line.as_bytes());
    })
}

fn json_layer<S, W>(labels: &Arc<Labels>, repeats: &Repeats, writer: W) -> impl Layer<S> + use<S, W>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .fmt_fields(JsonFields::new())
        .event_format(Suppressed(Json(Arc::clone(labels)), repeats.clone()))
        .log_internal_errors(false)
        .with_writer(writer)
}

fn text_layer<S, W>(repeats: &Repeats, writer: W) -> impl Layer<S> + use<S, W>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let format = tracing_subscriber::fmt::format().with_target(false);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let fields = tracing_subscriber::fmt::format::debug_fn(text::write_field).delimited(" ");
    tracing_subscriber::fmt::layer()
        .fmt_fields(fields)
        .with_ansi(io::stderr().is_terminal() && !no_color)
        .event_format(Suppressed(format, repeats.clone()))
        .log_internal_errors(false)
        .with_writer(writer)
}

/// Refuses a bare word that is not a level: it would silently name a target.
fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let refuse = |why: String| TelemetryError::Filter {
        level: level.to_owned(),
        why,
    };
    for part in level.split(',').map(str::trim) {
        let bare = !part.contains(['=', '[', ':']);
        if part.is_empty() || bare && part.parse::<LevelFilter>().is_err() {
            return Err(refuse(format!("\"{part}\" is not a level")));
        }
    }
    let parsed = EnvFilter::builder()
        .with_default_directive(Level::INFO.into())
        .parse(level);
    // A filter of targets alone would leave out the spans that name services.
    let services = format!("{}=error", service::TARGET).parse();
    parsed
        .and_then(|filter| Ok(filter.add_directive(services?)))
        .map_err(|e| refuse(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_accepted_and_typing_errors_refused() {
        let filters = ["info,learner=debug", "warn,common::imaging::cache=trace"];
        for good in ["error", "info", "INFO", "off"].iter().chain(&filters) {
            assert!(filter(good).is_ok(), "{good}");
        }
        let lists = ["info,lerner", "info,learner=loud", "info,,debug"];
        for bad in ["", "inof"].iter().chain(&lists) {
            let error = filter(bad).unwrap_err().to_string();
            assert!(
                error.contains("log.level") && error.contains("use error, warn"),
                "{bad}: {error}"
            );
        }
    }
}
