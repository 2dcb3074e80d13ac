//! A client of replay shards that does nothing but talk to them, as fast as it
//! can or at a given rate: what `cargo xtask bench replay` measures with.
//!
//! One process is one client, as an actor or a learner would be: it has its own
//! connections, its own writer id and its own insert streams. Every batch is a
//! fresh message; rows and priorities come from a pool made before the clock
//! starts, because making them is the work of whoever walks or trains.

mod arguments;
mod insert;
mod latency;
mod mixed;
mod pool;
mod processor;
mod sample;
mod session;
mod update;

use anyhow::{Context as _, Result};
use arguments::{Arguments, Operation};
use clap::Parser as _;
use latency::{Recorder, Span};
use pool::Pool;
use session::Session;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: a client is one core's worth of work at most, and the cores
    // are the servers' too.
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the async runtime")
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match done {
        Ok(line) => {
            tell(&line);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<String> {
    let arguments = Arc::new(arguments);
    let session = Arc::new(Session::open(&arguments).await?);
    let pool = Arc::new(Pool::new(&arguments));
    let parts = match arguments.operation {
        Operation::Fill => {
            let writers = insert::open(&session, &arguments).await?;
            start(&arguments).await?;
            vec![("insert", insert::fill(writers, &pool, &arguments).await?)]
        }
        Operation::Insert => {
            let writers = insert::open(&session, &arguments).await?;
            let span = start(&arguments).await?;
            vec![(
                "insert",
                insert::run(writers, &pool, &arguments, span).await?,
            )]
        }
        Operation::Sample => {
            let span = start(&arguments).await?;
            vec![("sample", sample::run(&session, &arguments, span).await?)]
        }
        Operation::Update => {
            let keys = Arc::new(update::keys(&session, &arguments).await?);
            let span = start(&arguments).await?;
            vec![(
                "update",
                update::run(&session, &keys, &pool, &arguments, span).await?,
            )]
        }
        Operation::Mixed => {
            let writers = insert::open(&session, &arguments).await?;
            let span = start(&arguments).await?;
            mixed::run(writers, &session, &pool, &arguments, span).await?
        }
    };
    Ok(report(&arguments, &parts))
}

/// The span to measure in: from now, or from when the line that `--wait` asks
/// for comes, so that several clients begin together.
async fn start(arguments: &Arguments) -> Result<Span> {
    if arguments.wait {
        complain("ready");
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
            .await?
            .context("standard input cannot be read")?;
    }
    Ok(Span::after(
        Duration::from_secs_f64(arguments.warm_up),
        Duration::from_secs_f64(arguments.seconds),
    ))
}

fn report(arguments: &Arguments, parts: &[(&'static str, Recorder)]) -> String {
    let first = parts.first();
    let processor_s = first.map_or(0.0, |(_, recorder)| recorder.processor_s());
    let parts: serde_json::Map<_, _> = parts
        .iter()
        .map(|(name, recorder)| ((*name).to_owned(), recorder.as_json(arguments.histogram)))
        .collect();
    serde_json::json!({
        "operation": arguments.operation.name(),
        "ack": arguments.ack.name(),
        "client": arguments.client,
        "shards": arguments.shards.len(),
        "batch": arguments.batch,
        "rate": arguments.rate,
        "processor_s": processor_s,
        "parts": parts,
    })
    .to_string()
}

#[expect(
    clippy::print_stdout,
    reason = "the result goes to standard output, and nothing else does"
)]
fn tell(line: &str) {
    println!("{line}");
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where errors and signs of life meet who started this"
)]
fn complain(line: &str) {
    eprintln!("{line}");
    let _ = std::io::stderr().flush();
}
