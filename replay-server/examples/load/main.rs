//! A load generator for replay shards that calls them as fast as it can or at a
//! given rate; `cargo xtask bench replay` uses it.
//!
//! One process is one client, as an actor or a learner would be: it has its own
//! connections, its own writer id and its own insert streams. Every batch is a
//! new message; rows and priorities come from a pool made before the clock
//! starts, because making them is the work of actors and the learner.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result goes to standard output, everything else to standard error"
)]

mod arguments;
mod insert;
mod load;
mod measured;
mod pace;
mod pool;
mod processor;
mod session;

use anyhow::{Context as _, Result};
use arguments::{Arguments, Operation};
use clap::Parser as _;
use load::Prepared;
use measured::Measured;
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
        .and_then(|runtime| runtime.block_on(run(&arguments)));
    match done {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<serde_json::Value> {
    let prepared = Prepared::new(arguments).await?;
    if arguments.wait {
        // Several clients begin together.
        eprintln!("ready");
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
            .await?
            .context("standard input cannot be read")?;
    }
    let fills = arguments.operation == Operation::Fill;
    let measured = Arc::new(if fills {
        Measured::open()
    } else {
        let [warm_up, length] =
            [arguments.warm_up, arguments.seconds].map(Duration::try_from_secs_f64);
        Measured::after(warm_up?, length?)
    });
    prepared.run(arguments, measured.clone()).await?;
    let mut measured = Arc::into_inner(measured).context("a task still runs")?;
    if fills {
        measured.end();
    }
    Ok(serde_json::json!({
        "operation": arguments.operation,
        "ack": arguments.ack,
        "client": arguments.client,
        "shards": arguments.shards.len(),
        "batch": arguments.batch,
        "rate": arguments.rate,
        "processor_s": measured.processor_s(),
        "parts": measured.as_json(arguments.histogram),
    }))
}
