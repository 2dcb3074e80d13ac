//! `landmarl import`: converts weights saved by PyTorch to our weights format.

use std::path::PathBuf;

use common::imaging::manifest::hex;
use common::run::durable::write_atomic;
use learner::training::trainer::LANDMARKS_KEY;
use model::files::tensor_file::Metadata;
use sha2::{Digest as _, Sha256};

use crate::Outcome;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use crate::output::quote::shell_quoted;

/// Metadata key for the name and digest of the imported file.
const SOURCE_KEY: &str = "landmarl.imported_from";

/// Convert a PyTorch state dict of rl-medical to a weights file.
///
/// Reads files of `torch.save(model.state_dict())` in the zip or the older format, of
/// Network3d and CommNet with any number of agents. No code in the file is executed.
/// eval and play can load the result; they then use rl-medical's rules.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// PyTorch file (.pt, .pth)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Weights file to write [default: FILE with extension .safetensors]
    #[arg(long, short = 'o', value_name = "FILE")]
    out: Option<PathBuf>,
    /// Landmark names or numbers to store in the file, one per agent
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    landmarks: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  landmarl import SingleAgent.pt --landmarks 13
  landmarl import CommNet3.pt -o commnet.safetensors --landmarks 13,14,0 && landmarl eval --load commnet.safetensors --images i.txt --landmarks-files l.txt";

pub fn run(args: &Args) -> Outcome {
    let shown = args.file.display();
    let data = |why: String| Advice::new(Exit::Data, format!("cannot import {shown}: {why}"));
    let bytes = std::fs::read(&args.file).map_err(|e| data(e.to_string()))?;
    let mut metadata = Metadata::new();
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let source = format!("{name}, SHA-256 {}", hex(&Sha256::digest(&bytes)));
    metadata.insert(SOURCE_KEY.to_owned(), source);
    let read = model::files::torch_file::weights(&bytes, &metadata).map_err(|e| {
        data(e.to_string()).hint(
            "save a state dict of rl-medical's Network3d or CommNet: torch.save(model.state_dict(), \"x.pt\")",
        )
    })?;
    let network = read.network;
    let agents = network.spec().agents;
    if !args.landmarks.is_empty() {
        if args.landmarks.len() != agents {
            let given = args.landmarks.len();
            let message = format!("the network has {agents} agents, but --landmarks has {given}");
            return Err(Advice::new(Exit::Usage, message).into());
        }
        let names = serde_json::to_string(&args.landmarks)?;
        metadata.insert(LANDMARKS_KEY.to_owned(), names);
    }
    let written =
        model::files::weights::to_bytes(&network, &metadata).map_err(|e| data(e.to_string()))?;
    let default = || args.file.with_extension("safetensors");
    let out = args.out.clone().unwrap_or_else(default);
    write_atomic(&out, &written).map_err(|e| {
        let message = format!("cannot write {}: {e}", out.display());
        Advice::new(Exit::Failed, message).hint("choose another file with --out")
    })?;
    let kind = format!("{:?}", network.spec().kind).to_lowercase();
    let numbers: usize = network.parameters().iter().map(|(_, t)| t.numel()).sum();
    if args.json {
        console::json(&serde_json::json!({
            "weights": out, "kind": kind, "agents": agents, "parameters": numbers,
        }))?;
    } else {
        let out = out.display().to_string();
        let load = shell_quoted(&out);
        console::note(&format!(
            "{out}: {kind}, {agents} agents, {numbers} parameters\nnext:\n  landmarl eval --load {load} --images IMAGES --landmarks-files LANDMARKS"
        ));
    }
    Ok(Exit::Done)
}
