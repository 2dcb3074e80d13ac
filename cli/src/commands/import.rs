//! `landmarl import`: converts weights saved by PyTorch to our weights format.

use std::path::{Path, PathBuf};

use common::imaging::manifest::hex;
use common::run::durable::write_atomic;
use learner::training::trainer::LANDMARKS_KEY;
use model::files::tensor_file::Metadata;
use sha2::{Digest as _, Sha256};

use crate::Outcome;
use crate::output::console;
use crate::output::failure::{Advice, Exit};

/// Where the numbers came from.
const SOURCE_KEY: &str = "landmarl.imported_from";

/// Turn a PyTorch state dict of rl-medical into a weights file.
///
/// Reads what `torch.save(model.state_dict())` wrote, zip files and the older
/// format, of Network3d and CommNet with any number of agents. Nothing in the
/// file is executed. The result loads with eval and play, which walk by
/// rl-medical's rules with it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// File that PyTorch saved (.pt, .pth)
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Weights file to write [default: FILE with .safetensors]
    #[arg(long, short = 'o', value_name = "FILE")]
    out: Option<PathBuf>,
    /// Landmark names or numbers, one per agent, to keep in the file
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
            let message = format!("the network has {agents} agents, --landmarks names {given}");
            return Err(Advice::new(Exit::Usage, message).into());
        }
        let names = serde_json::to_string(&args.landmarks)?;
        metadata.insert(LANDMARKS_KEY.to_owned(), names);
    }
    let written =
        model::files::weights::to_bytes(&network, &metadata).map_err(|e| data(e.to_string()))?;
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| args.file.with_extension("safetensors"));
    write(&out, &written)?;
    let kind = format!("{:?}", network.spec().kind).to_lowercase();
    let numbers: usize = network.parameters().iter().map(|(_, t)| t.numel()).sum();
    if args.json {
        let report = serde_json::json!({
            "weights": out, "kind": kind, "agents": agents, "parameters": numbers,
        });
        console::data(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        let out = out.display();
        console::note(&format!(
            "{out}: {kind}, {agents} agents, {numbers} parameters\nnext:\n  landmarl eval --load {out} --images IMAGES --landmarks-files LANDMARKS"
        ));
    }
    Ok(Exit::Done)
}

fn write(out: &Path, bytes: &[u8]) -> Result<(), Advice> {
    write_atomic(out, bytes).map_err(|e| {
        let message = format!("cannot write {}: {e}", out.display());
        Advice::new(Exit::Failed, message).hint("choose another file with --out")
    })
}
