//! Logs: text for people on standard error, JSON lines for machines, and a
//! copy in the run folder.
//!
//! A JSON line holds `time` (RFC 3339, UTC), `level`, `target`, `service`,
//! `run`, `message`, the event's fields, and `span` with the fields of all
//! spans around it.

mod json;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::sync::Arc;

use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use json::JsonLayer;

/// Lines waiting for the disk; more are dropped and counted, because a slow
/// disk must not stop training.
const FILE_LINES_MAX: usize = 16_384;

/// How standard error looks.
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

/// Takes each finished line; a command that draws progress bars hides them meanwhile.
#[derive(Clone)]
pub struct Console(Arc<WriteLine>);

type WriteLine = dyn Fn(&[u8]) -> io::Result<()> + Send + Sync;

impl Console {
    /// Lines go through `write`.
    pub fn new(write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// Lines go straight to standard error.
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

impl<'a> MakeWriter<'a> for Console {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What to log, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of this process in every line: `learner`, `actor`, `landmarl`, …
    pub service: String,
    /// Name of the run in every line; empty where there is none.
    pub run: String,
    /// `log.level` of the configuration.
    pub level: String,
    /// Another level for standard error, for a command that shows its progress
    /// itself; the file keeps `level`.
    pub console_level: Option<String>,
    /// Look of standard error.
    pub format: Format,
    /// `<run>/logs`: a copy of each line is appended to `<service>.jsonl` there.
    pub folder: Option<PathBuf>,
    /// Where lines for people go.
    pub console: Console,
}

impl Options {
    /// Standard error only, in the format that suits it.
    #[must_use]
    pub fn new(service: &str, level: &str) -> Self {
        Self {
            service: service.to_owned(),
            run: String::new(),
            level: level.to_owned(),
            console_level: None,
            format: Format::Auto,
            folder: None,
            console: Console::stderr(),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is neither a level nor a filter.
    #[error(
        "config key \"log.level\": \"{level}\" is not a log filter: {why}; \
         use error, warn, info, debug, trace or a filter such as \"info,learner=debug\""
    )]
    Filter {
        /// What was given.
        level: String,
        /// The part that is wrong.
        why: String,
    },
    /// The log file cannot be opened.
    #[error("cannot write logs to {}: {source}; choose another run folder with run.dir", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody set up logging before.
    #[error("logging is set up already in this process")]
    Twice,
}

/// Keeps the log file open; dropped last, it writes what is still waiting.
#[derive(Debug)]
#[must_use = "lines that wait for the disk are lost when this is dropped at once"]
pub struct Guard {
    file: Option<(WorkerGuard, ErrorCounter)>,
}

impl Guard {
    /// Lines that were dropped because the disk was too slow.
    #[must_use]
    pub fn dropped_lines(&self) -> usize {
        self.file
            .as_ref()
            .map_or(0, |(_, counter)| counter.dropped_lines())
    }
}

/// Sets up logging for this process.
///
/// # Errors
/// When the level is no filter, the log file cannot be opened, or logging is
/// set up already.
pub fn init(options: &Options) -> Result<Guard, TelemetryError> {
    let level = options.console_level.as_ref().unwrap_or(&options.level);
    let console = console_layer(options).with_filter(filter(level)?);
    let file_filter = filter(&options.level)?;
    let labels = json::Labels {
        service: options.service.clone(),
        run: options.run.clone(),
    };
    let (file_layer, file) = match &options.folder {
        None => (None, None),
        Some(folder) => {
            let path = folder.join(format!("{}.jsonl", options.service));
            let opened = std::fs::create_dir_all(folder)
                .and_then(|()| OpenOptions::new().create(true).append(true).open(&path));
            let file = opened.map_err(|source| TelemetryError::File { path, source })?;
            let (writer, guard) = NonBlockingBuilder::default()
                .buffered_lines_limit(FILE_LINES_MAX)
                .finish(file);
            let counter = writer.error_counter();
            (
                Some(JsonLayer::new(labels, writer).with_filter(file_filter)),
                Some((guard, counter)),
            )
        }
    };
    tracing_subscriber::registry()
        .with(file_layer)
        .with(console)
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    Ok(Guard { file })
}

type Boxed<S> = Box<dyn tracing_subscriber::Layer<S> + Send + Sync>;

fn console_layer<S>(options: &Options) -> Boxed<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let terminal = io::stderr().is_terminal();
    let text = match options.format {
        Format::Auto => terminal,
        Format::Text => true,
        Format::Json => false,
    };
    if text {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        tracing_subscriber::fmt::layer()
            .with_writer(options.console.clone())
            .with_ansi(colour)
            .with_target(false)
            .boxed()
    } else {
        let labels = json::Labels {
            service: options.service.clone(),
            run: options.run.clone(),
        };
        JsonLayer::new(labels, options.console.clone()).boxed()
    }
}

/// A bare word that is no level would silently name a target: refused.
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
    EnvFilter::builder()
        .with_default_directive(Level::INFO.into())
        .parse(level)
        .map_err(|e| refuse(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_taken_and_typing_errors_refused() {
        for good in [
            "error",
            "info",
            "INFO",
            "off",
            "info,learner=debug",
            "warn,common::cache=trace",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "inof",
            "info,lerner",
            "info,learner=loud",
            "info,,debug",
        ] {
            let error = filter(bad).unwrap_err().to_string();
            assert!(
                error.contains("log.level") && error.contains("use error, warn"),
                "{bad}: {error}"
            );
        }
    }
}
