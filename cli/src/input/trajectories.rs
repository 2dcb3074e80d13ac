//! Greedy episodes of trained weights in scans.

use std::path::PathBuf;
use std::sync::Arc;

use actor::evaluation::evaluate::{Evaluation, StartResult, evaluate};
use actor::rollout::network_policy::{NetworkPolicy, Samples};
use common::config::Config;
use common::environment::starts::EvaluationStarts;
use common::imaging::preprocess::VolumeChoice;
use common::imaging::scan::Scan;
use model::{DeviceChoice, NetworkKind};

use crate::input::weights::{Loaded, reference_rules};
use crate::output::console;
use crate::output::failure::{Advice, Exit};

/// Observations per forward pass: larger batches are no faster on a CPU.
const BATCH: usize = 64;

/// Start positions and rules of the episodes.
#[derive(Debug, Clone, clap::Args)]
pub struct StartArgs {
    /// Number of random starts per scan, in its central part
    #[arg(long, value_name = "N", conflicts_with_all = ["protocol", "start"])]
    starts: Option<usize>,
    /// Start position as fractions of the scan: voxel = ⌊fraction · (size − 1)⌋; may be repeated
    #[arg(long, value_name = "X,Y,Z", value_parser = fractions, conflicts_with = "protocol")]
    start: Vec<[f64; 3]>,
    /// Use the published starts: 19 or 27 per scan
    #[arg(long, value_parser = ["19", "27"])]
    protocol: Option<String>,
    /// Seed of the random starts
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// Environment rules to use
    #[arg(long, value_enum, default_value_t = RulesChoice::Weights)]
    rules: RulesChoice,
    /// Truncate episodes after N steps [default: as in the rules]
    #[arg(long, value_name = "N")]
    max_steps: Option<u16>,
    /// Write all steps of all trajectories, one trajectory per line (JSON Lines)
    #[arg(long, value_name = "FILE")]
    pub trajectories: Option<PathBuf>,
    /// Write a table with rl-medical's columns, one row per scan and start (CSV)
    #[arg(long, value_name = "FILE")]
    pub results_csv: Option<PathBuf>,
}

/// The source of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum RulesChoice {
    /// The rules in the weights file, else rl-medical's
    Weights,
    /// rl-medical's
    Reference,
}

/// Parses `0.5,0.5,0.5`.
fn fractions(text: &str) -> Result<[f64; 3], String> {
    let parts: Option<Vec<f64>> = text.split(',').map(|p| p.trim().parse().ok()).collect();
    let parts = parts.filter(|p| p.iter().all(|f| (0.0..=1.0).contains(f)));
    let parts = parts.and_then(|p| p.try_into().ok());
    parts.ok_or_else(|| "give three fractions from 0 to 1, such as 0.5,0.5,0.5".to_owned())
}

impl StartArgs {
    /// Applies the requested changes to the weights' rules.
    pub fn apply_rules(&self, loaded: &mut Loaded) -> anyhow::Result<()> {
        if self.rules == RulesChoice::Reference {
            loaded.rules = reference_rules(loaded.network.spec());
        }
        if let Some(steps) = self.max_steps {
            loaded.rules.max_steps = steps;
        }
        Ok(loaded.rules.validate()?)
    }

    /// The requested starts, or random ones as configured.
    pub fn starts(&self, config: &Config) -> Result<EvaluationStarts, Advice> {
        let count = self.starts.unwrap_or(config.evaluation.starts);
        let margin = config.evaluation.margin;
        if !self.start.is_empty() {
            return Ok(EvaluationStarts::Fractions(self.start.clone()));
        }
        match self.protocol.as_deref() {
            Some("19") => Ok(EvaluationStarts::Nineteen),
            Some(_) => Ok(EvaluationStarts::TwentySeven),
            None if count == 0 => {
                Err(Advice::new(Exit::Usage, "--starts 0 is invalid").hint("give at least 1"))
            }
            None => Ok(EvaluationStarts::Random { count, margin }),
        }
    }
}

/// The device to use; says so where it is not the one that was asked for.
fn device(choice: DeviceChoice) -> tch::Device {
    let device = choice.resolve();
    if matches!(choice, DeviceChoice::Cuda(_)) && device == tch::Device::Cpu {
        let why = match model::device::cuda() {
            Ok(count) => format!("this machine has {count} usable GPUs"),
            Err(reason) => reason.clone(),
        };
        console::note(&format!(
            "warning: --device {choice} is not available: {why}; computing on the CPU"
        ));
    }
    device
}

/// Runs an episode of every agent from every start in every scan.
pub fn run(
    loaded: &Loaded,
    scans: &[Arc<Scan>],
    starts: &EvaluationStarts,
    args: &StartArgs,
    films: bool,
) -> anyhow::Result<Vec<StartResult>> {
    let samples = match loaded.rules.volume {
        VolumeChoice::CanonicalU8 => Samples::Bytes,
        VolumeChoice::ReferenceF32 => Samples::Exact,
    };
    let mut policy = NetworkPolicy::new(&loaded.rules, samples, device(args.device));
    policy.set_network(&loaded.network, loaded.origin.weights_version.unwrap_or(1))?;
    let agents: Vec<u16> = (0..).take(loaded.landmarks.len()).collect();
    let rules = Arc::new(loaded.rules.clone());
    let commnet = loaded.network.spec().kind == NetworkKind::Commnet;
    let evaluation = Evaluation {
        scans,
        agents: &agents,
        starts,
        rules: &rules,
        together: actor::rollout::group::one_group(&rules, commnet),
        seed: args.seed,
        batch: BATCH,
        trajectories: films || args.trajectories.is_some(),
    };
    let counter = console::counter(0, "trajectories");
    let results = evaluate(&mut policy, &evaluation, |p| counter.set(p.done, p.total));
    counter.finish();
    Ok(results?)
}
