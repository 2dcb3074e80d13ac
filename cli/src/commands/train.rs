//! `landmarl train`: a whole cluster in one process.

mod closing;
mod cluster;
mod display;
mod lockstep;
mod options;
mod plan;
mod shards;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use common::config::Config;
use common::run::run_folder::{ClaimedFolder, RunFolder};
use common::run::telemetry::{self, Format, Guard};

use learner::checkpoint::folder::Resume;
pub use options::Args;
use proto::transport::entry;

use crate::Outcome;
use crate::output::console;
use crate::output::failure::Exit;
use crate::output::report::NOTICE;
use cluster::Ended;
use plan::Plan;

pub fn run(args: &Args) -> Outcome {
    let (mut config, resumed) = args.settle()?;
    if config.run.lockstep {
        lockstep::settle(&mut config)?;
    }
    plan::check_data_settings(&config)?;
    let now = SystemTime::now();
    let resume = match (&resumed, &args.checkpoint) {
        (None, _) => Resume::No,
        (Some(_), None) => Resume::Newest,
        (Some(_), Some(name)) => Resume::Named(name.clone()),
    };
    let claimed = match resumed {
        Some(folder) => ClaimedFolder::open(folder)?,
        None => ClaimedFolder::create(Path::new(&config.run.dir), &config.run.name, now)?,
    };
    let folder = claimed.folder().clone();
    let guard = start_logs(args, &config, &folder)?;
    let plan = Plan::make(config, claimed, resume, now)?;
    console::note(&plan.summary());
    let config = Arc::clone(&plan.run.config);
    let ended = if config.run.lockstep {
        lockstep::train(plan)?
    } else {
        cluster::train(plan, &guard.control())?
    };
    let dropped = guard.dropped_lines();
    if dropped > 0 {
        console::note(&format!(
            "the disk was full or too slow: {dropped} log lines were dropped"
        ));
    }
    if args.json {
        console::json(&as_json(&folder, &ended))?;
    } else {
        console::note(&closing::message(&folder, &config, &ended));
    }
    Ok(if ended.interrupted {
        Exit::Interrupted
    } else {
        Exit::Done
    })
}

/// Logs everything to the file, and warnings to the console.
fn start_logs(args: &Args, config: &Config, folder: &RunFolder) -> anyhow::Result<Guard> {
    let mut options = telemetry::Options::of("landmarl", &config.log);
    options.run = folder.name();
    options.folder = Some(folder.logs());
    options.console = console::log_lines();
    if args.log_json {
        options.format = Format::Json;
    } else {
        options.format = Format::Text;
        options.console_level = (config.log.level == "info").then(|| "warn".to_owned());
    }
    Ok(telemetry::init(&options)?)
}

fn as_json(folder: &RunFolder, ended: &Ended) -> serde_json::Value {
    serde_json::json!({
        "notice": NOTICE,
        "run": folder.path(),
        "updates": ended.updates,
        "interrupted": ended.interrupted,
        "signal": stopped_by(ended),
        "weights": ended.weights,
        "best_validation_mm": ended.validation_mm.map(|(best, _)| best),
        "baseline_error_mm": ended.baseline_mm,
    })
}

/// The signal that ended the training before its last update.
fn stopped_by(ended: &Ended) -> Option<&'static str> {
    entry::stopped_by().filter(|_| ended.interrupted)
}
