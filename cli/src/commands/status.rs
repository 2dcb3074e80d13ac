//! `landmarl status`: the members of a run, its speed, and its bottleneck.

use std::path::PathBuf;
use std::time::Duration;

use common::config::{Config, Sources};
use learner::report::status_text::{as_json, as_text, ask};
use proto::transport::security::Security;

use crate::Outcome;
use crate::commands::checkpoint::runtime;
use crate::output::console;
use crate::output::failure::Exit;

/// The interval of --watch.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);
/// Clears the terminal and moves the cursor to the top left.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Show a running learner's actors, shards, evaluation, throughput and bottleneck.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Address of the learner: host:port [default: cluster.learner of the configuration]
    #[arg(value_name = "ADDRESS")]
    address: Option<String>,
    /// Configuration file with learner address, certificates and token; repeatable, later files win
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Refresh every two seconds until Ctrl-C or the end of the run
    #[arg(long)]
    watch: bool,
}

const EXAMPLES: &str = "\
Examples:
  landmarl status
  landmarl status learner:7400 --watch
  landmarl status learner:7400 --json | jq .limits
  docker compose exec learner landmarl status

Exit codes: 0 status printed, 3 configuration, 5 no response from the learner.";

pub fn run(args: &Args) -> Outcome {
    let sources = Sources::from_process(args.config.clone(), Vec::new());
    let cluster = Config::load(&sources)?.cluster;
    let security = Security::from_config(&cluster)?;
    let address = args.address.clone().unwrap_or(cluster.learner);
    runtime()?.block_on(async {
        loop {
            let status = ask(&address, &security, "").await?;
            let text = if args.json {
                as_json(&status)?.to_string()
            } else {
                as_text(&status)
            };
            let live = args.watch && !args.json && console::is_live();
            let clear = if live { CLEAR } else { "" };
            console::raw(&format!("{clear}{text}\n"))?;
            if !args.watch || status.over {
                return Ok(Exit::Done);
            }
            tokio::time::sleep(REFRESH_INTERVAL).await;
        }
    })
}
