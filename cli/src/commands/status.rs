//! `landmarl status`: the members of a run, its speed, and its bottleneck.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::config::{ClusterConfig, Config, Sources};
use common::run::machine::host_name;
use common::run::run_folder::{Endpoints, RunFolder};
use learner::report::status_text::{as_json, as_text, ask};
use proto::transport::security::Security;

use crate::Outcome;
use crate::commands::checkpoint::runtime;
use crate::input::run::run_folder;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use crate::output::quote::shell_quoted;

/// The interval of --watch.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);
/// Clears the terminal and moves the cursor to the top left.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Show a running training's actors, shards, evaluation, throughput and bottleneck.
///
/// A training writes its address to endpoints.json in its run folder.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Run by its folder or name, or address of a learner: host:port [default: cluster.learner if it was set, else the newest training run in run.dir]
    #[arg(value_name = "RUN|ADDRESS")]
    target: Option<String>,
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
  landmarl status first --watch
  landmarl status learner:7400 --json | jq .limits
  docker compose exec learner landmarl status

Exit codes: 0 status printed, 3 configuration, 5 no response from the learner.";

pub fn run(args: &Args) -> Outcome {
    let sources = Sources::from_process(args.config.clone(), Vec::new());
    let config = Config::load(&sources)?;
    let target = Target::find(args.target.as_deref(), &config)?;
    let security = Security::from_config(&target.cluster)?;
    runtime()?.block_on(async {
        loop {
            let status = match (ask(&target.address, &security, "").await, &target.ended) {
                (Err(_), Some((run, endpoints))) => return Err(stale(run, endpoints).into()),
                (status, _) => status?,
            };
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

/// The learner to ask.
#[derive(Debug)]
struct Target {
    address: String,
    /// The certificates and token to call with.
    cluster: ClusterConfig,
    /// A run whose process is gone, which explains why nobody answers at the default address.
    ended: Option<(RunFolder, Endpoints)>,
}

impl Target {
    /// The learner of the given run or at the given address, else that of the configuration,
    /// else that of the newest training run.
    fn find(given: Option<&str>, config: &Config) -> anyhow::Result<Self> {
        let (runs, cluster) = (Path::new(&config.run.dir), &config.cluster);
        let at = |address: &str| Self {
            address: address.to_owned(),
            cluster: cluster.clone(),
            ended: None,
        };
        if let Some(given) = given {
            let found = run_folder(Path::new(given), runs);
            let run = found.as_ref().ok().and_then(|folder| run_in(folder));
            return match run {
                Some(run) => Self::of(&run, cluster),
                None if given.contains(':') => Ok(at(given)),
                None => {
                    let message = format!("{} is not a run folder: no run.json", found?.display());
                    let hint = "give a run, or the address of a learner as host:port";
                    Err(Advice::new(Exit::Unreachable, message).hint(hint).into())
                }
            };
        }
        let default = Config::defaults()?.cluster.learner;
        if cluster.learner != default {
            return Ok(at(&cluster.learner));
        }
        match newest(runs) {
            Some((run, endpoints)) if is_callable(&run, &endpoints) => Self::of(&run, cluster),
            newest => Ok(Self {
                ended: newest.filter(|(run, endpoints)| is_gone(run, endpoints)),
                ..at(&default)
            }),
        }
    }

    /// The learner of a run.
    fn of(run: &RunFolder, cluster: &ClusterConfig) -> anyhow::Result<Self> {
        let (name, path) = (run.name(), run.path().display());
        let unreachable = |message: String, hint: &str| {
            let advice = Advice::new(Exit::Unreachable, message);
            Err(advice.hint(hint).into())
        };
        let Some(endpoints) = run.endpoints() else {
            let hint = "`landmarl runs list` shows its results; a learner elsewhere is asked by its address, host:port";
            let message = format!("run {name} is not training now: no endpoints.json in {path}");
            return unreachable(message, hint);
        };
        if is_gone(run, &endpoints) {
            return Err(stale(run, &endpoints).into());
        }
        let Some(address) = endpoints.grpc else {
            let message = format!("run {name} trains in lockstep, which answers no calls");
            return unreachable(message, &format!("its progress is in {path}/metrics.jsonl"));
        };
        let host = &endpoints.host;
        if *host != host_name() && is_loopback(&address) {
            let message =
                format!("run {name} trains on {host}, and only that machine can reach it");
            return unreachable(message, "ask on that machine");
        }
        let mut cluster = cluster.clone();
        if !endpoints.tls {
            // `landmarl train` has no certificates, whatever the configuration names.
            for file in [&mut cluster.ca, &mut cluster.cert, &mut cluster.key] {
                file.clear();
            }
        }
        Ok(Self {
            address,
            cluster,
            ended: None,
        })
    }
}

/// The run of a folder; nothing in the folder is changed.
fn run_in(folder: &Path) -> Option<RunFolder> {
    let inside = folder.join("run.json");
    RunFolder::around(&inside).filter(|_| inside.is_file())
}

/// Whether the process is gone, and no other one uses the run. A process in another container
/// has no number here, but holds the lock.
fn is_gone(run: &RunFolder, endpoints: &Endpoints) -> bool {
    endpoints.is_stale() && !run.is_in_use()
}

/// Whether a process may answer: it is on this machine, or listens for others.
fn is_callable(run: &RunFolder, endpoints: &Endpoints) -> bool {
    let local = endpoints.host == host_name();
    let open = |address: &String| !is_loopback(address);
    !is_gone(run, endpoints) && (local || endpoints.grpc.as_ref().is_some_and(open))
}

fn is_loopback(address: &str) -> bool {
    let address = address.parse::<std::net::SocketAddr>();
    address.is_ok_and(|address| address.ip().is_loopback())
}

/// The run in `runs` whose process started last, one that may answer before all others.
fn newest(runs: &Path) -> Option<(RunFolder, Endpoints)> {
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let run = run_in(&entry.path())?;
        let endpoints = run.endpoints()?;
        Some((run, endpoints))
    });
    found.max_by_key(|(run, endpoints)| (is_callable(run, endpoints), endpoints.started.clone()))
}

/// A process that left its file behind.
fn stale(run: &RunFolder, endpoints: &Endpoints) -> Advice {
    let (name, pid) = (run.name(), endpoints.pid);
    let message =
        format!("run {name} is not training now: its process {pid} was killed or crashed");
    let path = run.path().to_string_lossy().into_owned();
    let hint = format!(
        "continue it with landmarl train --resume {}",
        shell_quoted(&path)
    );
    Advice::new(Exit::Unreachable, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::output::failure::{describe, exit_of};

    /// A run whose process started at this second.
    fn run(runs: &Path, name: &str, second: u64, change: impl Fn(&mut Endpoints)) -> RunFolder {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let run = RunFolder::create(runs, name, now).unwrap();
        std::fs::write(run.info_file(), "{}").unwrap();
        let mut endpoints = Endpoints::of_this_process(now);
        endpoints.grpc = Some(format!("127.0.0.1:{second}"));
        change(&mut endpoints);
        let announced = run.announce(endpoints).unwrap();
        // As a process that was killed leaves it.
        std::mem::forget(announced);
        run
    }

    fn config(runs: &Path) -> Config {
        let mut config = Config::defaults().unwrap();
        config.run.dir = runs.display().to_string();
        config
    }

    /// The number of a process that has ended.
    fn gone() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    #[test]
    fn a_training_is_found_by_name_by_folder_and_as_the_newest_that_runs() {
        let dir = tempfile::tempdir().unwrap();
        let pid = gone();
        run(dir.path(), "first", 7001, |_| ());
        run(dir.path(), "second", 7002, |_| ());
        run(dir.path(), "killed", 7003, |e| e.pid = pid);
        let config = config(dir.path());
        let address = |given: Option<&str>| Target::find(given, &config).unwrap().address;
        assert_eq!(address(None), "127.0.0.1:7002");
        assert_eq!(address(Some("first")), "127.0.0.1:7001");
        let folder = dir.path().join("first").display().to_string();
        assert_eq!(address(Some(&folder)), "127.0.0.1:7001");
        assert_eq!(address(Some("learner:7400")), "learner:7400");
        let mut configured = config.clone();
        configured.cluster.learner = "learner:7400".into();
        let target = Target::find(None, &configured).unwrap();
        assert_eq!(target.address, "learner:7400");
    }

    #[test]
    fn a_run_that_does_not_answer_says_why_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let pid = gone();
        run(dir.path(), "killed", 1, |e| e.pid = pid);
        run(dir.path(), "lockstep", 2, |e| e.grpc = None);
        run(dir.path(), "elsewhere", 3, |e| e.host = "lab3".into());
        let over = RunFolder::create(dir.path(), "over", SystemTime::UNIX_EPOCH).unwrap();
        std::fs::write(over.info_file(), "{}").unwrap();
        let config = config(dir.path());
        for (name, words) in [
            ("killed", format!("its process {pid} was killed or crashed")),
            ("lockstep", "trains in lockstep".to_owned()),
            ("elsewhere", "trains on lab3".to_owned()),
            ("over", "is not training now: no endpoints.json".to_owned()),
            ("nobody", "no run nobody in".to_owned()),
        ] {
            let error = Target::find(Some(name), &config).unwrap_err();
            let text = describe(&error);
            assert!(text.contains(&words), "{text}");
            assert_eq!(text.lines().count(), 2, "{text}");
            let exit = if name == "nobody" {
                Exit::Failed
            } else {
                Exit::Unreachable
            };
            assert_eq!(exit_of(&error), exit);
        }
    }

    #[test]
    fn a_killed_run_explains_why_nobody_answers_at_the_default_address() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let target = Target::find(None, &config).unwrap();
        assert_eq!(target.address, config.cluster.learner);
        assert!(target.ended.is_none());
        let pid = gone();
        run(dir.path(), "killed", 1, |e| e.pid = pid);
        let (ended, _) = Target::find(None, &config).unwrap().ended.unwrap();
        assert_eq!(ended.name(), "killed");
    }

    #[test]
    fn certificates_are_used_only_where_the_learner_asks_for_them() {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), "plain", 1, |_| ());
        run(dir.path(), "secured", 2, |e| e.tls = true);
        let mut config = config(dir.path());
        config.cluster.ca = "ca.pem".into();
        let ca = |name: &str| Target::find(Some(name), &config).unwrap().cluster.ca;
        assert_eq!(ca("plain"), "");
        assert_eq!(ca("secured"), "ca.pem");
    }
}
