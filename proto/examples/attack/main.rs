//! Attacks the services' binaries, with honest clients beside the attacks; `cargo xtask attack`
//! builds both for release and runs it.
//!
//! A learner, a shard with a journal and an actor run as processes that may open 1,024 files, once
//! without certificates and once with. Each attack lasts some seconds. Meanwhile the peak memory
//! of each service is measured, honest clients call every service, and checkpoints and rows have
//! to be written. At the end of each cluster the services have to stop beside the last attack.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures go to standard output, progress to standard error"
)]

mod attacks;
mod cluster;
mod honest;
mod http2;
mod net;
mod report;
mod service;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use common::run::machine;
use tokio::task::JoinSet;
use tokio::time::sleep;

use attacks::{ATTACKS, Attack, By};
use cluster::Cluster;
use honest::Honest;
use report::{Memory, Report, Round};

/// Connections of the largest attack, and files of its own.
const FILES: usize = 8192;
/// From SIGTERM to the end of a service.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// After an attack, so that the next one begins with what is left of it in memory only.
const QUIET: Duration = Duration::from_secs(2);

/// Attacks on release binaries.
#[derive(Debug, Parser)]
#[command(name = "attack")]
struct Arguments {
    /// Folder with landmarl, learner, actor and replay-server.
    #[arg(long, value_name = "DIR")]
    bins: PathBuf,
    /// Seconds per attack.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Only attacks whose names contain one of these words.
    #[arg(long, value_delimiter = ',', value_name = "WORD,...")]
    only: Vec<String>,
    /// Folder for the services' files, which stay there; unless given, a temporary one.
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Print one JSON line instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let files = machine::raise_open_files()?;
    ensure!(
        files >= FILES,
        "this program may open {files} files and needs {FILES}: raise the hard limit (ulimit -n)"
    );
    let temporary;
    let scratch = match &arguments.scratch {
        Some(folder) => std::path::absolute(folder)?,
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().to_path_buf()
        }
    };
    let bins = std::path::absolute(&arguments.bins)?;
    let mut report = Report::default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    for secured in [false, true] {
        let chosen = |attack: &&Attack| {
            let named = |word: &String| attack.name.contains(word);
            let only = &arguments.only;
            (attack.by != By::Anybody) == secured && (only.is_empty() || only.iter().any(named))
        };
        let attacks: Vec<_> = ATTACKS.iter().filter(chosen).collect();
        if attacks.is_empty() {
            continue;
        }
        let folder = scratch.join(if secured { "tls" } else { "plain" });
        let rounds = async {
            let cluster = Cluster::start(&bins, &folder, secured).await;
            let cluster = cluster.context("the cluster does not start")?;
            rounds(cluster, &attacks, arguments.seconds, &mut report).await
        };
        runtime.block_on(rounds)?;
    }
    report.print(arguments.json);
    Ok(report.passed())
}

/// A round without an attack, one round per attack, and the stop beside the last one.
async fn rounds(
    mut cluster: Cluster,
    attacks: &[&Attack],
    seconds: f64,
    report: &mut Report,
) -> Result<()> {
    let (quiet, _) = round(&mut cluster, None, &[], seconds).await?;
    let mut idle = Vec::new();
    for service in &cluster.services {
        idle.push(service.memory_mb("VmRSS")?);
    }
    report.add(quiet);
    let mut last = JoinSet::new();
    for attack in attacks {
        last.shutdown().await;
        sleep(QUIET).await;
        let (round, tasks) = round(&mut cluster, Some(attack), &idle, seconds).await?;
        report.add(round);
        last = tasks;
    }
    let beside = attacks.last().map_or("none", |attack| attack.name);
    for (service, took) in cluster.stop(STOP_WITHIN).await {
        report.stopped(service, beside, took);
    }
    Ok(())
}

/// One attack, or none, and what was seen meanwhile; also the attack, which goes on.
async fn round(
    cluster: &mut Cluster,
    attack: Option<&Attack>,
    idle: &[f64],
    seconds: f64,
) -> Result<(Round, JoinSet<()>)> {
    let name = attack.map_or("none", |attack| attack.name);
    eprintln!("{name} ...");
    for service in &mut cluster.services {
        service.reset_peak()?;
        service.news()?;
    }
    let before = cluster.checkpoint();
    let honest = Honest::start(cluster);
    let (arena, tasks) = match attack {
        Some(attack) => {
            let (arena, tasks) = attack.begin(cluster)?;
            (Some(arena), tasks)
        }
        None => (None, JoinSet::new()),
    };
    sleep(Duration::try_from_secs_f64(seconds)?).await;
    let calls = tokio::task::spawn_blocking(|| honest.stop()).await??;
    let mut troubles = Vec::new();
    troubles.extend(calls.journal.clone());
    let (first, last) = calls.rows.unwrap_or_default();
    let mut memory = Vec::new();
    let mut log_bytes = 0;
    for (number, service) in cluster.services.iter_mut().enumerate() {
        if !service.is_running() {
            troubles.push(service.last_words());
            continue;
        }
        let peak = service.memory_mb("VmHWM")?;
        memory.push(Memory {
            service: service.name,
            idle: idle.get(number).copied().unwrap_or(peak),
            peak,
        });
        let news = service.news()?;
        log_bytes += news.bytes;
        troubles.extend(news.bad);
    }
    let round = Round {
        attack: name,
        hosts: attack.map_or(0, |attack| attack.hosts),
        memory,
        calls,
        checkpoints: cluster.checkpoint().saturating_sub(before),
        rows: last.saturating_sub(first),
        log_bytes,
        counts: arena.map(|arena| arena.counts()).unwrap_or_default(),
        troubles,
    };
    Ok((round, tasks))
}
