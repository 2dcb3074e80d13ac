//! `landmarl import`: converts weights of PyTorch to our weights format.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use common::imaging::manifest::hex;
use common::run::durable::write_atomic;
use learner::checkpoint::inference_weights;
use learner::training::trainer::LANDMARKS_KEY;
use model::files::torch_file::ENTRY_KEY;
use sha2::{Digest as _, Sha256};

use crate::Outcome;
use crate::input::settings::ConfigArgs;
use crate::input::weights::check_finite;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use crate::output::new_file::Replace;
use crate::output::quote::shell_quoted;

/// Metadata key for the name and digest of the imported file.
const SOURCE_KEY: &str = "landmarl.imported_from";

/// Convert PyTorch weights of rl-medical to a weights file.
///
/// Reads files of `torch.save` in the zip or the older format: a state dict, or a larger
/// dictionary that contains one, such as rl-medical's latest_checkpoint.pt, also of a
/// DataParallel or compiled model; and safetensors files (F32, F64, F16, BF16). The network
/// is Network3d or CommNet with any number of agents. No code in the file is executed.
/// eval and play can load the result; they then use rl-medical's rules.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// PyTorch file (.pt, .pth) or safetensors file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Weights file to write [default: FILE with extension .safetensors]
    #[arg(long, short = 'o', value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    replace: Replace,
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
  landmarl import latest_checkpoint.pt -o imported.safetensors --landmarks 13,14,0
  landmarl import CommNet3.pt -o commnet.safetensors --landmarks 13,14,0 && landmarl eval --load commnet.safetensors --images i.txt --landmarks-files l.txt";

pub fn run(args: &Args) -> Outcome {
    let shown = args.file.display().to_string();
    let cannot = || Advice::new(Exit::Data, format!("cannot import {shown}"));
    let bytes = std::fs::read(&args.file).with_context(cannot)?;
    let out = args.out.clone();
    let out = out.unwrap_or_else(|| args.file.with_extension("safetensors"));
    check_out(args, &out)?;
    let limits = ConfigArgs::default().load(Vec::new())?.data.limits();
    let read = inference_weights(&bytes, &shown, &limits).with_context(|| {
        cannot().hint(
            "save a state dict of rl-medical's Network3d or CommNet: torch.save(model.state_dict(), \"x.pt\")",
        )
    })?;
    let (network, mut metadata) = (read.network, read.metadata);
    check_finite(&network).with_context(cannot)?;
    let name = args.file.file_name().unwrap_or_default().to_string_lossy();
    let source = format!("{name}, SHA-256 {}", hex(&Sha256::digest(&bytes)));
    metadata.insert(SOURCE_KEY.to_owned(), source);
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
    let written = model::files::weights::to_bytes(&network, &metadata).with_context(cannot)?;
    write_atomic(&out, &written).map_err(|e| {
        let message = format!("cannot write {}: {e}", out.display());
        Advice::new(Exit::Failed, message).hint("choose another file with --out")
    })?;
    let kind = format!("{:?}", network.spec().kind).to_lowercase();
    let numbers: usize = network.parameters().iter().map(|(_, t)| t.numel()).sum();
    let entry = metadata.get(ENTRY_KEY);
    if args.json {
        console::json(&serde_json::json!({
            "weights": out, "kind": kind, "agents": agents, "parameters": numbers, "entry": entry,
        }))?;
    } else {
        let out = out.display().to_string();
        let load = shell_quoted(&out);
        let entry = entry.map_or_else(String::new, |entry| format!(" (from {entry})"));
        console::note(&format!(
            "{out}: {kind}, {agents} agents, {numbers} parameters{entry}\nnext:\n  landmarl eval --load {load} --images IMAGES --landmarks-files LANDMARKS"
        ));
    }
    Ok(Exit::Done)
}

/// Refuses to replace the imported file itself, and another file without `--force`.
fn check_out(args: &Args, out: &Path) -> Result<(), Advice> {
    let real = |path: &Path| path.canonicalize().ok();
    if real(out).is_some() && real(out) == real(&args.file) {
        let message = format!("{} is the file to import", out.display());
        return Err(Advice::new(Exit::Failed, message).hint("name another file with --out"));
    }
    args.replace.check(out)
}
