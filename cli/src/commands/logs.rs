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
use crate::input::settings::ConfigArgs;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use files::{Files, has_logs};
use filter::{Filter, moment};
use line::{Level, Line};
use loki::{Lately, Loki};
use show::Look;

/// How often a run folder is read again and Loki is queried.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Nanoseconds. Without `--since`, Loki is queried for the last hour, as by its own tools.
const HOUR: u64 = 3_600_000_000_000;
/// Longest line of standard input.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Braces that a prefix of a line on standard input may hold.
const PREFIX_BRACES: usize = 3;

/// Show the logs of a run's services, merged in the order of time.
///
/// Reads the files of a run folder, rotated ones too, or standard input, or asks
/// Loki. A line must meet every condition; of a list, at least one entry.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Run folder, a folder of log files, or - for standard input [default: log.folder of the configuration, else the newest run in run.dir]
    #[arg(value_name = "RUN_DIR", conflicts_with = "loki")]
    run: Option<PathBuf>,
    /// Show new lines as they are written, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Services, by the beginning of their names: learner, actor, replay, landmarl
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "Which lines"
    )]
    service: Vec<String>,
    /// Instances (log.instance, else the host's name), or the number of an actor or a shard
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "Which lines"
    )]
    instance: Vec<String>,
    /// This level and more severe ones
    #[arg(long, value_enum, ignore_case = true, help_heading = "Which lines")]
    level: Option<Level>,
    /// Message and fields (KEY=VALUE) match this regular expression; (?i) ignores case
    #[arg(long, value_name = "REGEX", help_heading = "Which lines")]
    grep: Option<String>,
    /// From this time on: an age such as 90s, 10m, 2h or 1d, or a time such as 2026-11-26T08:00:00Z
    #[arg(long, value_name = "TIME", help_heading = "Which lines")]
    since: Option<String>,
    /// Before this time
    #[arg(
        long,
        value_name = "TIME",
        conflicts_with = "follow",
        help_heading = "Which lines"
    )]
    until: Option<String>,
    /// Only the last N lines
    #[arg(long, value_name = "N", help_heading = "Which lines")]
    tail: Option<usize>,
    /// Lines of the run with this name
    #[arg(long, value_name = "NAME", help_heading = "Which lines")]
    run_name: Option<String>,
    /// Print the lines as they were written, one JSON object each
    #[arg(long)]
    json: bool,
    /// No colours, as with NO_COLOR
    #[arg(long)]
    no_color: bool,
    /// Ask Loki at this address instead of reading files; without --since for the last hour
    #[arg(long, value_name = "URL", help_heading = "Loki")]
    loki: Option<String>,
    /// LogQL to append to the selector of services, level and run
    #[arg(long, value_name = "LOGQL", requires = "loki", help_heading = "Loki")]
    query: Option<String>,
    /// Header to send with each request, as in "X-Scope-OrgID: skulls"; may be repeated
    #[arg(
        long,
        value_name = "NAME:VALUE",
        requires = "loki",
        help_heading = "Loki"
    )]
    header: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

const EXAMPLES: &str = "\
Examples:
  landmarl logs runs/first
  landmarl logs -f --service actor --instance 3 --level warn
  landmarl logs --grep nan --since 10m --json
  kubectl logs -f deployment/actor | landmarl logs - --level warn
  landmarl logs --loki http://127.0.0.1:3100 --service learner --query '|= \"shard\"'

Exit codes: 0 even if no line matches; 2 for an invalid time or expression;
4 if there are no logs; 5 if Loki does not answer.";

pub fn run(args: &Args) -> Outcome {
    let filter = args.filter(SystemTime::now())?;
    let look = Look::new(args.json, args.no_color);
    match &args.loki {
        Some(url) => {
            let loki = Loki::new(url, &filter, args.query.as_deref(), &args.header)?;
            args.show_loki(&loki, filter, look)?;
        }
        None if args.run.as_deref() == Some(Path::new("-")) => {
            args.show_input(io::stdin().lock(), &filter, look)?;
        }
        None => args.show_files(&filter, look)?,
    }
    Ok(Exit::Done)
}

impl Args {
    fn filter(&self, now: SystemTime) -> Result<Filter, Advice> {
        let time = |option: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(|t| moment(t, now)).transpose();
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
            Advice::new(
                Exit::Usage,
                format!("--grep is not a regular expression: {why}"),
            )
            .hint("put a backslash before characters that stand for themselves")
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

    fn show_files(&self, filter: &Filter, look: Look) -> anyhow::Result<()> {
        let folder = self.folder()?;
        let failed = || format!("cannot read the logs in {}", folder.display());
        let mut files = Files::open(&folder, filter.since).with_context(failed)?;
        if files.is_empty() && !self.follow {
            return Err(no_logs(&folder).into());
        }
        let mut noted = 0;
        let mut reader = print_all(&mut files, filter, self.tail, look).with_context(failed)?;
        while self.follow && reader {
            note_damage(files.damaged, &mut noted);
            std::thread::sleep(LOOK_EVERY);
            // A missing folder, such as an unmounted volume, may come back.
            if files.look().is_ok() {
                reader = print_all(&mut files, filter, None, look).with_context(failed)?;
            }
        }
        files.finish();
        note_damage(files.damaged, &mut noted);
        Ok(())
    }

    /// Prints lines of standard input in the order in which they arrive.
    fn show_input(&self, mut input: impl BufRead, filter: &Filter, look: Look) -> io::Result<()> {
        let mut damaged = 0;
        let mut printer = Printer::new(look, self.tail);
        let mut bytes = Vec::new();
        // What is longer is no line of ours, and must not fill the memory.
        while input
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut bytes)?
            > 0
        {
            let text = String::from_utf8_lossy(&bytes);
            // kubectl and docker compose may prefix the object with a name, a time or labels.
            let objects = text.match_indices('{').take(PREFIX_BRACES + 1);
            let line = objects
                .map(|(at, _)| at)
                .find_map(|at| Line::parse(&text[at..]));
            damaged += u64::from(line.is_none() && !text.trim().is_empty());
            if let Some(line) = line.filter(|line| filter.wants(line))
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

    fn show_loki(&self, loki: &Loki, mut filter: Filter, look: Look) -> anyhow::Result<()> {
        let now = nanos(SystemTime::now());
        let since = filter.since.unwrap_or(now.saturating_sub(HOUR));
        filter.since = Some(since);
        // Loki excludes the end of the interval, and clocks of hosts differ.
        let until = filter.until.unwrap_or(now.saturating_add(HOUR));
        let mut shown = Shown::new(look, self.follow);
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
        let mut away = false;
        while self.follow && shown.reads {
            std::thread::sleep(ASK_EVERY);
            let from = shown.lately.again_from(began);
            let until = nanos(SystemTime::now()).saturating_add(HOUR);
            match loki.lines(&filter, (from, until), |line| shown.show(&line)) {
                Ok(()) => away = false,
                Err(error) if !away => {
                    away = true;
                    console::note(&format!("warning: {error:#}; trying again"));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The folder of log files that the arguments or the configuration name.
    fn folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(run) = &self.run {
            let logs = run.join("logs");
            let meant = if logs.is_dir() { logs } else { run.clone() };
            if !meant.is_dir() {
                let message = format!("{} is not a folder", run.display());
                let hint = "name a run folder, as in landmarl logs runs/first";
                return Err(Advice::new(Exit::Data, message).hint(hint).into());
            }
            return Ok(meant);
        }
        let config = self.config.load(Vec::new())?;
        if !config.log.folder.is_empty() {
            let folder = PathBuf::from(&config.log.folder);
            return if folder.is_dir() {
                Ok(folder)
            } else {
                Err(no_logs(&folder).into())
            };
        }
        newest(Path::new(&config.run.dir)).ok_or_else(|| no_logs(Path::new(&config.run.dir)).into())
    }
}

/// Prints each line from Loki once.
struct Shown {
    look: Look,
    follow: bool,
    lately: Lately,
    /// Whether standard output still has a reader.
    reads: bool,
}

impl Shown {
    fn new(look: Look, follow: bool) -> Self {
        Self {
            look,
            follow,
            lately: Lately::default(),
            reads: true,
        }
    }

    /// Returns false once standard output has no reader.
    fn show(&mut self, line: &Line) -> anyhow::Result<bool> {
        if !self.follow || self.lately.is_new(line) {
            self.reads = show::print(&self.look.render(line))?;
        }
        Ok(self.reads)
    }
}

/// The logs of the run in `dir` whose logs were written most recently.
fn newest(dir: &Path) -> Option<PathBuf> {
    let runs = std::fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let logs = runs
        .map(|run| run.path().join("logs"))
        .filter(|l| has_logs(l));
    let written = |folder: &PathBuf| {
        let files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
        files
            .filter_map(|f| f.metadata().ok()?.modified().ok())
            .max()
    };
    logs.max_by_key(written)
}

fn no_logs(folder: &Path) -> Advice {
    let message = format!("there are no logs in {}", folder.display());
    let hint = "name a run folder; services write logs where log.folder is set, landmarl train always does";
    Advice::new(Exit::Data, message).hint(hint)
}

/// Prints lines, all or the last of them.
struct Printer {
    look: Look,
    tail: Option<usize>,
    kept: VecDeque<Line>,
}

impl Printer {
    fn new(look: Look, tail: Option<usize>) -> Self {
        Self {
            look,
            tail,
            kept: VecDeque::new(),
        }
    }

    /// Returns false once standard output has no reader.
    fn take(&mut self, line: Line) -> io::Result<bool> {
        let Some(tail) = self.tail else {
            return show::print(&self.look.render(&line));
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
            if !show::print(&self.look.render(&line))? {
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
    look: Look,
) -> io::Result<bool> {
    let mut printer = Printer::new(look, tail);
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
        let these = if damaged == 1 {
            "line was"
        } else {
            "lines were"
        };
        console::note(&format!("note: {damaged} {these} damaged and left out"));
        *noted = damaged;
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
