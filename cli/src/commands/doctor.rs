//! `landmarl doctor`: checks whether this machine is ready.

mod checks;
mod cpu;

use std::path::PathBuf;

use serde::Serialize;

use crate::Outcome;
use crate::input::settings::{ConfigArgs, setting};
use crate::output::console;
use crate::output::failure::Exit;

/// Check libtorch, CPU, threads, GPU, disk, port, configuration and data.
///
/// Prints one line per check: ok, warn or FAIL, with a fix. Exit code 1 if a check fails.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Parent folder of the run folders
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  landmarl doctor
  landmarl doctor --config configs/mouse-small.toml --json";

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    pub fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            detail: detail.into(),
            fix: None,
        }
    }

    pub fn warn(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            fix: Some(fix.into()),
            ..Self::ok(name, detail)
        }
    }

    pub fn fail(name: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            ..Self::warn(name, detail, fix)
        }
    }
}

pub fn run(args: &Args) -> Outcome {
    let run_dir = args.run_dir.as_ref().map(|p| p.to_string_lossy());
    let run_dir = setting("run.dir", run_dir.as_deref());
    let loaded = args.config.load(run_dir.into_iter().collect());
    let (libtorch, threads) = (checks::libtorch(), checks::threads());
    let mut all = vec![libtorch, cpu::check(), threads, checks::cuda()];
    match &loaded {
        Ok(config) => {
            all.push(Check::ok("config", "loads and is consistent"));
            all.push(checks::disk("run folder", config.run.dir.as_ref()));
            all.push(checks::disk("cache folder", &checks::cache_folder(config)));
            all.push(checks::port(&config.cluster.learner));
            all.push(checks::data(config));
        }
        Err(e) => all.push(Check::fail("config", e.to_string(), "correct this setting")),
    }
    if args.json {
        console::json(&all)?;
    } else {
        console::data(&all.iter().map(line).collect::<String>())?;
    }
    let failed = all.iter().any(|c| c.verdict == Verdict::Fail);
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn line(check: &Check) -> String {
    let word = match check.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let fix = check.fix.as_ref();
    let fix = fix.map_or_else(String::new, |f| format!("\n                     → {f}"));
    format!("{word}  {:13}  {}{fix}\n", check.name, check.detail)
}
