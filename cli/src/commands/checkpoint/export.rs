//! Exports weights, TorchScript and a model card.

use std::fs;
use std::path::{Path, PathBuf};

use common::run::durable::write_atomic;
use learner::checkpoint::training_scans::TrainingScans;
use learner::training::trainer::{
    LANDMARKS_KEY, RESAMPLE_KEY, RULES_KEY, UPDATES_KEY, WEIGHTS_VERSION_KEY,
};
use model::files::tensor_file::Metadata;

use super::card;
use crate::Outcome;
use crate::input::settings::ConfigArgs;
use crate::input::weights::{self, Loaded};
use crate::output::console;
use crate::output::failure::{Advice, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run, by its folder or name (its best weights), checkpoint or weights file
    #[arg(value_name = "RUN|FILE")]
    from: PathBuf,
    /// Output folder; must be new or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Leave out the hashes of the training scans, which reveal to owners of a scan whether
    /// it was used; eval can then not warn of training scans
    #[arg(long)]
    no_scan_hashes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Outcome {
    let mut loaded = weights::load(&args.from, &[], &ConfigArgs::default())?;
    if args.no_scan_hashes {
        loaded.training = loaded.training.map(TrainingScans::without_hashes);
    }
    empty(&args.out)?;
    let files = ["model.safetensors", "model.ts", "README.md"].map(|name| args.out.join(name));
    if let Err(error) = write(&loaded, &files) {
        // A partial export would block the next attempt.
        for file in &files {
            let _ = fs::remove_file(file);
        }
        return Err(error);
    }
    if args.json {
        console::json(&serde_json::json!({ "from": loaded.origin, "files": files }))?;
    } else {
        console::note(&format!(
            "exported {} to {}: model.safetensors, model.ts (TorchScript), README.md\n{}",
            loaded.origin.file.display(),
            args.out.display(),
            crate::output::report::NOTICE
        ));
    }
    Ok(Exit::Done)
}

fn write(loaded: &Loaded, files: &[PathBuf; 3]) -> anyhow::Result<()> {
    let [safetensors, script, readme] = files;
    let bytes = model::files::weights::to_bytes(&loaded.network, &metadata_of(loaded)?)?;
    write_atomic(safetensors, &bytes)?;
    model::network::script::save(&loaded.network, script)?;
    write_atomic(readme, card::card(loaded)?.as_bytes())?;
    Ok(())
}

/// The metadata that [`weights::load`] reads.
fn metadata_of(loaded: &Loaded) -> anyhow::Result<Metadata> {
    let origin = &loaded.origin;
    let all = [
        (RULES_KEY, Some(serde_json::to_string(&loaded.rules)?)),
        (
            LANDMARKS_KEY,
            Some(serde_json::to_string(&loaded.landmarks)?),
        ),
        (RESAMPLE_KEY, loaded.resample_mm.map(|mm| mm.to_string())),
        (UPDATES_KEY, origin.updates.map(|n| n.to_string())),
        (
            WEIGHTS_VERSION_KEY,
            origin.weights_version.map(|n| n.to_string()),
        ),
    ];
    let known = all
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let training = loaded.training.as_ref().map(TrainingScans::metadata);
    Ok(known.chain(training.into_iter().flatten()).collect())
}

fn empty(folder: &Path) -> anyhow::Result<()> {
    let failed = |e: std::io::Error| {
        let message = format!("cannot write to {}: {e}", folder.display());
        Advice::new(Exit::Failed, message).hint("choose another folder with --out")
    };
    fs::create_dir_all(folder).map_err(failed)?;
    if fs::read_dir(folder).map_err(failed)?.next().is_some() {
        let message = format!("{} is not empty", folder.display());
        let hint = "choose a new folder with --out; nothing was written";
        return Err(Advice::new(Exit::Failed, message).hint(hint).into());
    }
    Ok(())
}
