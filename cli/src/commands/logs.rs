//! `landmarl logs`: the logs of all services of a run, in chronological order.

mod files;
mod filter;
mod line;
mod loki;
mod show;

use std::collections::VecDeque;
use std::io::{self, BufRead, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use regex::Regex;

use crate::Outcome;
use crate::input::run::run_folder;
use crate::input::settings::ConfigArgs;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use files::{Files, has_logs};
use filter::{Filter, parse_time};
use line::{Level, Line};
use loki::{Loki, Recent};
use show::Style;

/// How often a run folder is read again and Loki is queried.
const FILES_INTERVAL: Duration = Duration::from_millis(200);
const LOKI_INTERVAL: Duration = Duration::from_secs(1);
/// Nanoseconds. Without `--since`, Loki is queried for the last hour, as by its own tools.
const HOUR: u64 = 3_600_000_000_000;
/// Longest line of standard input.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Braces that a prefix of a line on standard input may hold.
const PREFIX_BRACES: usize = 3;

/// Help headings.
const LINES: &str = "Which lines";
const LOKI: &str = "Loki";

/// Show the logs of all services of a run in chronological order.
///
/// Reads the log files of a run folder, including rotated ones, or standard input, or
/// queries Loki. A line must match all conditions, and at least one entry of each list.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Run by its folder or name, folder of log files, or - for standard input [default: log.folder of the configuration, else the newest run in run.dir]
    #[arg(value_name = "RUN", conflicts_with = "loki")]
    run: Option<PathBuf>,
    /// Show new lines until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Prefixes of service names: learner, actor, replay, landmarl
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = LINES)]
    service: Vec<String>,
    /// Instances (log.instance, else the host name), or numbers of actors or shards
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = LINES)]
    instance: Vec<String>,
    /// Minimum level
    #[arg(long, value_enum, ignore_case = true, help_heading = LINES)]
    level: Option<Level>,
    /// Regular expression for message and fields (KEY=VALUE); (?i) ignores case
    #[arg(long, value_name = "REGEX", help_heading = LINES)]
    grep: Option<String>,
    /// Start time: an age such as 90s, 10m, 2h or 1d, or a time such as 2026-11-26T08:00:00Z
    #[arg(long, value_name = "TIME", help_heading = LINES)]
    since: Option<String>,
    /// End time, exclusive
    #[arg(long, value_name = "TIME", conflicts_with = "follow", help_heading = LINES)]
    until: Option<String>,
    /// Show only the last N lines
    #[arg(long, value_name = "N", help_heading = LINES)]
    tail: Option<usize>,
    /// Name of the run
    #[arg(long, value_name = "NAME", help_heading = LINES)]
    run_name: Option<String>,
    /// Print the original lines, one JSON object each
    #[arg(long)]
    json: bool,
    /// Disable colours, as with NO_COLOR
    #[arg(long)]
    no_color: bool,
    /// Query Loki at this address instead of reading files [default for --since: 1h]
    #[arg(long, value_name = "URL", help_heading = LOKI)]
    loki: Option<String>,
    /// LogQL appended to the selector of services, level and run
    #[arg(long, value_name = "LOGQL", requires = "loki", help_heading = LOKI)]
    query: Option<String>,
    /// HTTP header for each request, such as "X-Scope-OrgID: skulls"; may be repeated
    #[arg(long, value_name = "NAME:VALUE", requires = "loki", help_heading = LOKI)]
    header: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

const EXAMPLES: &str = "\
Examples:
  landmarl logs first
  landmarl logs -f --service actor --instance 3 --level warn
  landmarl logs --grep nan --since 10m --json
  kubectl logs -f deployment/actor | landmarl logs - --level warn
  landmarl logs --loki http://127.0.0.1:3100 --service learner --query '|= \"shard\"'

Exit codes: 0 even if no line matches; 2 for an invalid time or expression;
4 if there are no logs; 5 if Loki does not respond.";

pub fn run(args: &Args) -> Outcome {
    let filter = args.filter(SystemTime::now())?;
    let style = Style::new(args.json, args.no_color);
    match &args.loki {
        Some(url) => {
            let loki = Loki::new(url, &filter, args.query.as_deref(), &args.header)?;
            args.show_loki(&loki, filter, style)?;
        }
        None if args.run.as_deref() == Some(Path::new("-")) => {
            args.show_input(io::stdin().lock(), &filter, style)?;
        }
        None => args.show_files(&filter, style)?,
    }
    Ok(Exit::Done)
}

impl Args {
    fn filter(&self, now: SystemTime) -> Result<Filter, Advice> {
        let time = |option: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(|t| parse_time(t, now)).transpose();
            parsed.map_err(|why| {
                let text = text.as_deref().unwrap_or_default();
                Advice::new(Exit::Usage, format!("{option} \"{text}\" {why}"))
            })
        };
        let grep = self.grep.as_deref().map(Regex::new).transpose();
        let grep = grep.map_err(|error| {
            // The parser's message spans several lines, of which the last has the reason.
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default();
            let why = why.trim_start_matches("error: ");
            let message = format!("--grep is not a regular expression: {why}");
            Advice::new(Exit::Usage, message).hint("escape special characters with a backslash")
        })?;
        Ok(Filter {
            services: self.service.clone(),
            instances: self.instance.clone(),
            run: self.run_name.clone(),
            level: self.level,
            grep,
            since: time("--since", &self.since)?,
            until: time("--until", &self.until)?,
        })
    }

    fn show_files(&self, filter: &Filter, style: Style) -> anyhow::Result<()> {
        let folder = self.folder()?;
        let failed = || format!("cannot read the logs in {}", folder.display());
        let mut files = Files::open(&folder, filter.since).with_context(failed)?;
        if files.is_empty() && !self.follow {
            return Err(no_logs(&folder).into());
        }
        let mut noted = 0;
        let mut reader = print_all(&mut files, filter, self.tail, style).with_context(failed)?;
        while self.follow && reader {
            note_damage(files.damaged, &mut noted);
            std::thread::sleep(FILES_INTERVAL);
            // A missing folder, such as an unmounted volume, may come back.
            if files.refresh().is_ok() {
                reader = print_all(&mut files, filter, None, style).with_context(failed)?;
            }
        }
        files.finish();
        note_damage(files.damaged, &mut noted);
        Ok(())
    }

    /// Prints lines of standard input in the order in which they arrive.
    fn show_input(&self, mut input: impl BufRead, filter: &Filter, style: Style) -> io::Result<()> {
        let mut damaged = 0;
        let mut printer = Printer::new(style, self.tail);
        let mut bytes = Vec::new();
        // Longer lines are not ours and must not fill the memory.
        let mut next = |bytes: &mut Vec<u8>| {
            let mut limited = input.by_ref().take(LINE_BYTES_MAX);
            limited.read_until(b'\n', bytes)
        };
        while next(&mut bytes)? > 0 {
            let text = String::from_utf8_lossy(&bytes);
            // kubectl and docker compose may prefix the object with a name, a time or labels.
            let objects = text.match_indices('{').take(PREFIX_BRACES + 1);
            let line = objects.map(|(at, _)| &text[at..]).find_map(Line::parse);
            damaged += u64::from(line.is_none() && !text.trim().is_empty());
            if let Some(line) = line.filter(|line| filter.matches(line))
                && !printer.take(line)?
            {
                break;
            }
            bytes.clear();
        }
        printer.finish()?;
        note_damage(damaged, &mut 0);
        Ok(())
    }

    fn show_loki(&self, loki: &Loki, mut filter: Filter, style: Style) -> anyhow::Result<()> {
        let now = nanos(SystemTime::now());
        let since = filter.since.unwrap_or(now.saturating_sub(HOUR));
        filter.since = Some(since);
        // Loki excludes the end of the interval, and clocks of hosts differ.
        let until = filter.until.unwrap_or(now.saturating_add(HOUR));
        let mut shown = Shown {
            style,
            follow: self.follow,
            recent: Recent::default(),
            reads: true,
        };
        let mut began = since;
        match self.tail {
            Some(count) => {
                let last = loki.last(&filter, (since, until), count)?;
                began = last.front().map_or(now, |line| line.nanos);
                for line in last {
                    shown.show(&line)?;
                }
            }
            None => loki.lines(&filter, (since, until), |line| shown.show(&line))?,
        }
        let mut unreachable = false;
        while self.follow && shown.reads {
            std::thread::sleep(LOKI_INTERVAL);
            let from = shown.recent.next_start(began);
            let until = nanos(SystemTime::now()).saturating_add(HOUR);
            match loki.lines(&filter, (from, until), |line| shown.show(&line)) {
                Ok(()) => unreachable = false,
                Err(error) if !unreachable => {
                    unreachable = true;
                    console::note(&format!("warning: {error:#}; retrying"));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The folder of log files of the arguments or the configuration.
    fn folder(&self) -> anyhow::Result<PathBuf> {
        let config = self.config.load(Vec::new())?;
        if let Some(run) = &self.run {
            let found = run_folder(run, Path::new(&config.run.dir));
            let run = found.map_err(|error| {
                let message = error.to_string();
                error.context(Advice::new(Exit::Data, message))
            })?;
            let logs = run.join("logs");
            let folder = if logs.is_dir() { logs } else { run };
            if !folder.is_dir() {
                let message = format!("{} is not a folder", folder.display());
                let hint = "give a run, as in landmarl logs first";
                return Err(Advice::new(Exit::Data, message).hint(hint).into());
            }
            return Ok(folder);
        }
        let (folder, runs) = (Path::new(&config.log.folder), Path::new(&config.run.dir));
        if config.log.folder.is_empty() {
            return newest(runs).ok_or_else(|| no_logs(runs).into());
        }
        let found = folder.is_dir().then(|| folder.to_owned());
        found.ok_or_else(|| no_logs(folder).into())
    }
}

/// Prints each line from Loki once.
struct Shown {
    style: Style,
    follow: bool,
    recent: Recent,
    /// Whether standard output still has a reader.
    reads: bool,
}

impl Shown {
    /// Returns false once standard output has no reader.
    fn show(&mut self, line: &Line) -> anyhow::Result<bool> {
        if !self.follow || self.recent.is_new(line) {
            self.reads = show::print(&self.style.render(line))?;
        }
        Ok(self.reads)
    }
}

/// The logs of the run in `dir` whose logs were written most recently.
fn newest(dir: &Path) -> Option<PathBuf> {
    let runs = std::fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let logs = runs.map(|run| run.path().join("logs"));
    let modified = |file: std::fs::DirEntry| file.metadata().ok()?.modified().ok();
    let written = |folder: &PathBuf| {
        let files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
        files.filter_map(modified).max()
    };
    logs.filter(|l| has_logs(l)).max_by_key(written)
}

fn no_logs(folder: &Path) -> Advice {
    let message = format!("there are no logs in {}", folder.display());
    let hint =
        "give a run folder; services write logs if log.folder is set, landmarl train always does";
    Advice::new(Exit::Data, message).hint(hint)
}

/// Prints lines, all or the last of them.
struct Printer {
    style: Style,
    tail: Option<usize>,
    kept: VecDeque<Line>,
}

impl Printer {
    fn new(style: Style, tail: Option<usize>) -> Self {
        Self {
            style,
            tail,
            kept: VecDeque::new(),
        }
    }

    /// Returns false once standard output has no reader.
    fn take(&mut self, line: Line) -> io::Result<bool> {
        let Some(tail) = self.tail else {
            return show::print(&self.style.render(&line));
        };
        self.kept.push_back(line);
        if self.kept.len() > tail {
            self.kept.pop_front();
        }
        Ok(true)
    }

    /// Prints the last lines; returns false once standard output has no reader.
    fn finish(self) -> io::Result<bool> {
        for line in self.kept {
            if !show::print(&self.style.render(&line))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Prints the current content of the files; returns false once standard output has no reader.
fn print_all(
    files: &mut Files,
    filter: &Filter,
    tail: Option<usize>,
    style: Style,
) -> io::Result<bool> {
    let mut printer = Printer::new(style, tail);
    let mut reads = Ok(true);
    files.merged(filter, |line| {
        reads = printer.take(line);
        matches!(reads, Ok(true))
    })?;
    Ok(reads? && printer.finish()?)
}

/// Reports damaged lines when their number has risen since the last report.
fn note_damage(damaged: u64, noted: &mut u64) {
    if damaged > *noted {
        let lines = if damaged == 1 { "line" } else { "lines" };
        console::note(&format!("note: skipped {damaged} damaged {lines}"));
        *noted = damaged;
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
