//! Exports a folder for other programs and people: weights, TorchScript, model card.

use std::fs;
use std::path::{Path, PathBuf};

use common::run::durable::write_atomic;
use model::files::tensor_file::Metadata;

use super::card;
use crate::Outcome;
use crate::input::weights::{self, Loaded};
use crate::output::console;
use crate::output::failure::{Advice, Exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run's folder (its best weights), a checkpoint or a weights file
    #[arg(value_name = "RUN|FILE")]
    from: PathBuf,
    /// Folder to write; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Outcome {
    let loaded = weights::load(&args.from, &[])?;
    empty(&args.out)?;
    let files = ["model.safetensors", "model.ts", "README.md"].map(|name| args.out.join(name));
    if let Err(error) = write(&loaded, &args.from, &files) {
        // A partial export would block the next attempt.
        for file in &files {
            let _ = fs::remove_file(file);
        }
        return Err(error);
    }
    if args.json {
        let line = serde_json::json!({ "from": loaded.origin, "files": files });
        console::data(&(serde_json::to_string_pretty(&line)? + "\n"))?;
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

fn write(loaded: &Loaded, from: &Path, files: &[PathBuf; 3]) -> anyhow::Result<()> {
    let [safetensors, script, readme] = files;
    let bytes = model::files::weights::to_bytes(&loaded.network, &metadata_of(loaded)?)?;
    write_atomic(safetensors, &bytes)?;
    model::network::script::save(&loaded.network, script)?;
    write_atomic(readme, card::card(loaded, from)?.as_bytes())?;
    Ok(())
}

/// Metadata keys from which landmarl reads the purpose of the weights.
fn metadata_of(loaded: &Loaded) -> anyhow::Result<Metadata> {
    use learner::training::trainer::{
        LANDMARKS_KEY, RESAMPLE_KEY, RULES_KEY, UPDATES_KEY, WEIGHTS_VERSION_KEY,
    };
    let mut metadata = Metadata::new();
    let mut note = |key: &str, value: String| metadata.insert(key.to_owned(), value);
    note(RULES_KEY, serde_json::to_string(&loaded.rules)?);
    note(LANDMARKS_KEY, serde_json::to_string(&loaded.landmarks)?);
    if let Some(mm) = loaded.resample_mm {
        note(RESAMPLE_KEY, mm.to_string());
    }
    if let Some(updates) = loaded.origin.updates {
        note(UPDATES_KEY, updates.to_string());
    }
    if let Some(version) = loaded.origin.weights_version {
        note(WEIGHTS_VERSION_KEY, version.to_string());
    }
    Ok(metadata)
}

fn empty(folder: &Path) -> anyhow::Result<()> {
    let failed = |e: std::io::Error| {
        let message = format!("cannot write to {}: {e}", folder.display());
        Advice::new(Exit::Failed, message).hint("give another folder with --out")
    };
    fs::create_dir_all(folder).map_err(failed)?;
    if fs::read_dir(folder).map_err(failed)?.next().is_some() {
        let message = format!("{} is not empty", folder.display());
        let hint = "give a new folder with --out; nothing was written";
        return Err(Advice::new(Exit::Failed, message).hint(hint).into());
    }
    Ok(())
}
