//! `landmarl logs`: what all services of a run said, in the order of time.

mod files;
mod filter;
mod line;
mod loki;
mod show;

use std::collections::VecDeque;
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

/// How often a run folder is looked at, and Loki asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const ASK_EVERY: Duration = Duration::from_secs(1);
/// In nanoseconds: what Loki is asked for without `--since`, as it does itself.
const HOUR: u64 = 3_600_000_000_000;

/// Show the logs of a run's services, merged in the order of time.
///
/// Reads the files of a run folder, rotated ones too, or asks Loki. Conditions
/// add up; a list has at least one that fits.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Run folder, or a folder of log files [default: log.folder of the configuration, else the newest run in run.dir]
    #[arg(value_name = "RUN_DIR", conflicts_with = "loki")]
    run: Option<PathBuf>,
    /// Show new lines as they come, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Services whose name begins so: learner, actor, replay, landmarl
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
    /// At least this serious
    #[arg(long, value_enum, ignore_case = true, help_heading = "Which lines")]
    level: Option<Level>,
    /// Message and fields (KEY=VALUE) match this regular expression; (?i) ignores case
    #[arg(long, value_name = "REGEX", help_heading = "Which lines")]
    grep: Option<String>,
    /// Not older than this: 90s, 10m, 2h, 1d, or a time such as 2026-11-26T08:00:00Z
    #[arg(long, value_name = "TIME", help_heading = "Which lines")]
    since: Option<String>,
    /// Older than this
    #[arg(
        long,
        value_name = "TIME",
        conflicts_with = "follow",
        help_heading = "Which lines"
    )]
    until: Option<String>,
    /// The last N of them
    #[arg(long, value_name = "N", help_heading = "Which lines")]
    tail: Option<usize>,
    /// Of the run of this name
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
    /// LogQL that is put behind the selection of services, level and run
    #[arg(long, value_name = "LOGQL", requires = "loki", help_heading = "Loki")]
    query: Option<String>,
    /// Header of each request, as in "X-Scope-OrgID: skulls"; may be repeated
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
  landmarl logs --loki http://127.0.0.1:3100 --service learner --query '|= \"shard\"'

Exit codes: 0 also where no line fits; 2 for a time or an expression that is none;
4 where there are no logs; 5 where Loki does not answer.";

pub fn run(args: &Args) -> Outcome {
    let filter = args.filter(SystemTime::now())?;
    let look = Look::new(args.json, args.no_color);
    match &args.loki {
        Some(url) => {
            let loki = Loki::new(url, &filter, args.query.as_deref(), &args.header)?;
            args.show_loki(&loki, filter, look)?;
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
            // The parser draws a picture of several lines.
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default();
            let why = why.trim_start_matches("error: ");
            Advice::new(
                Exit::Usage,
                format!("--grep is no regular expression: {why}"),
            )
            .hint("put a backslash before characters that are meant as they are")
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
        let mut told = 0;
        let mut reader = print_all(&mut files, filter, self.tail, look).with_context(failed)?;
        while self.follow && reader {
            tell_damage(files.damaged, &mut told);
            std::thread::sleep(LOOK_EVERY);
            // A folder that goes away, as with a volume, may come back.
            if files.look().is_ok() {
                reader = print_all(&mut files, filter, None, look).with_context(failed)?;
            }
        }
        files.finish();
        tell_damage(files.damaged, &mut told);
        Ok(())
    }

    fn show_loki(&self, loki: &Loki, mut filter: Filter, look: Look) -> anyhow::Result<()> {
        let now = nanos(SystemTime::now());
        let since = filter.since.unwrap_or(now.saturating_sub(HOUR));
        filter.since = Some(since);
        // Loki leaves out the end itself, and clocks differ.
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
                    console::note(&format!("warning: {error:#}; asking again"));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The folder of log files that is meant.
    fn folder(&self) -> anyhow::Result<PathBuf> {
        if let Some(run) = &self.run {
            let logs = run.join("logs");
            let meant = if logs.is_dir() { logs } else { run.clone() };
            if !meant.is_dir() {
                let message = format!("{} is no folder", run.display());
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

/// Lines that were shown.
struct Shown {
    look: Look,
    follow: bool,
    lately: Lately,
    /// Somebody still reads them.
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

    /// Shows a line that may come again once; false once nobody reads it.
    fn show(&mut self, line: &Line) -> anyhow::Result<bool> {
        if !self.follow || self.lately.is_new(line) {
            self.reads = show::print(&self.look.render(line))?;
        }
        Ok(self.reads)
    }
}

/// The logs of the run in `dir` that said something last.
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
    let hint = "name a run folder; services write there where log.folder says so, and landmarl train always";
    Advice::new(Exit::Data, message).hint(hint)
}

/// Prints what is there, or the last of it; false once nobody reads it.
fn print_all(
    files: &mut Files,
    filter: &Filter,
    tail: Option<usize>,
    look: Look,
) -> std::io::Result<bool> {
    let mut reads = Ok(true);
    let mut kept: VecDeque<Line> = VecDeque::new();
    files.merged(filter, |line| {
        let Some(tail) = tail else {
            reads = show::print(&look.render(&line));
            return matches!(reads, Ok(true));
        };
        kept.push_back(line);
        if kept.len() > tail {
            kept.pop_front();
        }
        true
    })?;
    for line in kept {
        if !matches!(reads, Ok(true)) {
            break;
        }
        reads = show::print(&look.render(&line));
    }
    reads
}

/// Says how many lines were none, when there are more than before.
fn tell_damage(damaged: u64, told: &mut u64) {
    if damaged > *told {
        let these = if damaged == 1 {
            "line was"
        } else {
            "lines were"
        };
        console::note(&format!("note: {damaged} {these} damaged and left out"));
        *told = damaged;
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
