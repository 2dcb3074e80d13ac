//! Greedy walks of finished weights through scans.

use std::sync::Arc;

use actor::evaluate::{Evaluation, WalkResult, evaluate};
use actor::network_policy::{NetworkPolicy, Samples};
use common::preprocess::VolumeChoice;
use common::scan::Scan;
use common::starts::EvaluationStarts;
use model::{DeviceChoice, NetworkKind};

use crate::console;
use crate::failure::{Advice, Exit};
use crate::weights::Loaded;

/// Observations per forward pass: larger ones gain nothing on a CPU.
const BATCH: usize = 64;

/// Where walks start.
#[derive(Debug, Clone, clap::Args)]
pub struct StartArgs {
    /// Random starts per scan, in the central part of it
    #[arg(long, value_name = "N", conflicts_with = "protocol")]
    starts: Option<usize>,
    /// Published starting points instead: 19 or 27 per scan
    #[arg(long, value_parser = ["19", "27"])]
    protocol: Option<String>,
    /// Seed of the random starts
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
}

impl StartArgs {
    /// The starts asked for, or `count` random ones.
    pub fn starts(&self, count: usize, margin: f64) -> Result<EvaluationStarts, Advice> {
        let count = self.starts.unwrap_or(count);
        match self.protocol.as_deref() {
            Some("19") => Ok(EvaluationStarts::Nineteen),
            Some(_) => Ok(EvaluationStarts::TwentySeven),
            None if count == 0 => {
                Err(Advice::new(Exit::Usage, "--starts 0 walks nowhere").hint("give at least 1"))
            }
            None => Ok(EvaluationStarts::Random { count, margin }),
        }
    }
}

/// Walks every agent from every start through every scan.
pub fn walk(
    loaded: &Loaded,
    scans: &[Arc<Scan>],
    starts: &EvaluationStarts,
    args: &StartArgs,
) -> anyhow::Result<Vec<WalkResult>> {
    let samples = match loaded.rules.volume {
        VolumeChoice::CanonicalU8 => Samples::Bytes,
        VolumeChoice::ReferenceF32 => Samples::Exact,
    };
    let mut policy = NetworkPolicy::new(&loaded.rules, samples, args.device.resolve());
    policy.set_network(&loaded.network, loaded.origin.weights_version.unwrap_or(1))?;
    let agents: Vec<u16> = (0..).take(loaded.landmarks.len()).collect();
    let rules = Arc::new(loaded.rules.clone());
    let commnet = loaded.network.spec().kind == NetworkKind::Commnet;
    let evaluation = Evaluation {
        scans,
        agents: &agents,
        starts,
        rules: &rules,
        together: actor::group::walk_together(&rules, commnet),
        seed: args.seed,
        batch: BATCH,
        trajectories: false,
    };
    let bar = console::bar(0, "{bar:40} {pos}/{len} walks, {eta} left");
    let walks = evaluate(&mut policy, &evaluation, |p| {
        bar.set_length(p.total as u64);
        bar.set_position(p.done as u64);
    });
    bar.finish_and_clear();
    Ok(walks?)
}
