//! `landmarl checkpoint list --from`: the files that a running learner offers.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use common::config::{Config, Sources};
use common::imaging::manifest::hex;
use common::run::run_folder::{rfc3339, run_name};
use proto::messages::checkpoints::{CheckpointInfo, CheckpointList};
use proto::transport::channel::learner_client;
use proto::transport::retry::{reason, unary};
use proto::transport::security::{Role, Security};
use proto::wire;
use tonic::{Code, Status};

use crate::output::console;
use crate::output::failure::{Advice, Exit};
use crate::output::table::{Table, megabytes, or_dash};

/// The learner reads new files in full to compute their digests.
const LIST_DEADLINE: Duration = Duration::from_secs(60);

/// Prints the files as a table or as JSON.
pub fn list(address: &str, security: &Security, json: bool) -> anyhow::Result<()> {
    let list = runtime()?.block_on(ask(address, security))?;
    if json {
        let entries: Vec<_> = list.checkpoints.iter().map(as_json).collect();
        let run = run_name(&list.run_id);
        console::json(&serde_json::json!({ "run": run, "checkpoints": entries }))?;
    } else if list.checkpoints.is_empty() {
        let run = run_name(&list.run_id);
        console::note(&format!("run {run} has no checkpoint yet"));
    } else {
        console::data(&table(&list.checkpoints).render())?;
    }
    Ok(())
}

/// A runtime for the calls of one command.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")
}

/// The certificates and the token of the configuration.
pub fn security(files: &[PathBuf]) -> anyhow::Result<Security> {
    let sources = Sources::from_process(files.to_vec(), Vec::new());
    Ok(Security::from_config(&Config::load(&sources)?.cluster)?)
}

async fn ask(address: &str, security: &Security) -> anyhow::Result<CheckpointList> {
    let mut client = learner_client(security.connect(address, Role::Learner)?);
    let request = wire::ListCheckpointsRequest {};
    let reply = unary(request, LIST_DEADLINE, |r| client.list_checkpoints(r)).await;
    let reply = reply.map_err(|status| call_failed(address, &status))?;
    Ok(CheckpointList::try_from(reply)?)
}

/// The error message for a failed call to the learner.
pub fn call_failed(address: &str, status: &Status) -> Advice {
    let why = reason(status);
    match status.code() {
        Code::NotFound => Advice::new(Exit::Data, format!("{address}: {why}"))
            .hint(format!("landmarl checkpoint list --from {address}")),
        Code::Unauthenticated | Code::PermissionDenied => {
            Advice::new(Exit::Failed, format!("{address} refused the call: {why}"))
        }
        _ => Advice::new(
            Exit::Unreachable,
            format!("{address} does not respond: {why}"),
        )
        .hint("is a learner running there? check with `landmarl status`"),
    }
}

fn table(files: &[CheckpointInfo]) -> Table {
    let mut table = Table::new("name|updates>|MB>|written|sha256");
    for file in files {
        table.row(vec![
            file.name.clone(),
            or_dash(file.updates),
            megabytes(file.bytes),
            rfc3339(UNIX_EPOCH + Duration::from_secs(file.modified_s)),
            hex(&file.sha256).chars().take(12).collect(),
        ]);
    }
    table
}

fn as_json(file: &CheckpointInfo) -> serde_json::Value {
    serde_json::json!({
        "name": file.name, "updates": file.updates, "bytes": file.bytes,
        "sha256": hex(&file.sha256), "modified_s": file.modified_s,
    })
}
