//! The model card of an export (Mitchell et al. 2019): what it is, how it was
//! trained, how wrong it is, and what it is not for.

use std::fmt::Write as _;

use common::run::run_folder::RunFolder;
use serde_json::Value;

use crate::commands::runs::summaries;
use crate::input::training_scans::range;
use crate::input::weights::Loaded;
use crate::output::report::NOTICE;
use crate::output::table::number;

/// The card as Markdown; evaluations and the run are included if the weights are in a
/// run's folder.
pub fn card(loaded: &Loaded) -> anyhow::Result<String> {
    let run = RunFolder::around(&loaded.origin.file);
    Ok([
        format!("# Landmark agents: {}\n\n", loaded.landmarks.join(", ")),
        format!(
            "{} Created with landmarl {}.\n\n",
            sentence(NOTICE),
            env!("CARGO_PKG_VERSION")
        ),
        how_to_use(loaded)?,
        rules(loaded)?,
        training(loaded, run.as_ref())?,
        evaluations(run.as_ref(), &loaded.origin.sha256)?,
        LIMITS.to_owned(),
    ]
    .concat())
}

const LIMITS: &str = "\
## Limits

Use only with scans like the training scans: the same anatomy, modality, field of view and spacing. Errors on other \
scans were not measured. Not for clinical use.
";

fn rules(loaded: &Loaded) -> anyhow::Result<String> {
    let mut text = String::from("## Rules\n\n");
    for scale in &loaded.rules.scales {
        let (stride, step) = (scale.stride, scale.step);
        writeln!(
            text,
            "- samples {stride} voxels apart, steps of {step} voxels"
        )?;
    }
    match loaded.resample_mm {
        Some(mm) if mm > 0.0 => writeln!(text, "- scans resampled to {mm} mm")?,
        _ => writeln!(text, "- scans at their own spacing")?,
    }
    text.push_str("\nThe metadata of model.safetensors holds all rules as JSON, and the network's layers.\n\n");
    Ok(text)
}

fn how_to_use(loaded: &Loaded) -> anyhow::Result<String> {
    let spec = loaded.network.spec();
    let (agents, history, n) = (spec.agents, spec.history, spec.window);
    let scale = if spec.scales.is_some() { ", scale" } else { "" };
    let mut text = format!(
        "\
## Use

    landmarl play SCAN.nii.gz --load model.safetensors --out found

Python, without landmarl:

    q = torch.jit.load(\"model.ts\")(windows{scale})    # [{agents}, {}]

`windows`: float32 `[{agents}, {history}, {n}, {n}, {n}]` in 0..1, one stack of frames per agent in the order of the \
title, oldest frame first, axes x, y, z of the scan in RAS orientation.
",
        spec.actions
    );
    if spec.scales.is_some() {
        writeln!(text, "`scale`: int64 `[{agents}]`, 0 is the coarsest.")?;
    }
    writeln!(
        text,
        "Actions in order: {}. Intensities are clipped to the 10th and 99th percentile and scaled to 0..255, which is \
         1.0 here.\n",
        actions()
    )?;
    Ok(text)
}

fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

fn actions() -> String {
    let name = |step: [i32; 3]| {
        let axis = step.iter().position(|v| *v != 0).unwrap_or(0);
        let sign = if step[axis] > 0 { '+' } else { '-' };
        format!("{sign}{}", ['x', 'y', 'z'][axis])
    };
    common::environment::ACTIONS.map(name).join(", ")
}

fn training(loaded: &Loaded, run: Option<&RunFolder>) -> anyhow::Result<String> {
    let origin = &loaded.origin;
    let (sha256, file) = (&origin.sha256, origin.file.file_name().unwrap_or_default());
    let file = file.to_string_lossy();
    let mut text = format!("## Training\n\n- weights: SHA-256 {sha256} of {file}\n");
    if let Some(updates) = origin.updates {
        writeln!(text, "- {updates} updates")?;
    }
    if let Some(training) = &loaded.training {
        let spacing = range(training);
        writeln!(
            text,
            "- scans with voxels of {spacing} mm (x, y, z in RAS orientation)"
        )?;
        if let Some(count) = training.count() {
            writeln!(
                text,
                "- {count} scans, whose hashes are in the metadata of model.safetensors"
            )?;
        }
    }
    match run.and_then(|run| run.info().ok()) {
        Some(info) => writeln!(text, "- run {}, seed {}\n", info.started, info.seed)?,
        None => writeln!(text, "- the run folder was not available at export\n")?,
    }
    Ok(text)
}

/// The newest evaluation of the run that used exactly these weights.
fn evaluations(run: Option<&RunFolder>, sha256: &str) -> anyhow::Result<String> {
    let of_weights = |summary: &Value| summary["weights"]["sha256"] == sha256;
    let newest = run.and_then(|run| summaries(run).find(of_weights));
    let mut text = String::from("## Errors\n\n");
    let Some(summary) = newest else {
        text.push_str("Not measured: no evaluation of these weights was in the run folder (`landmarl eval --load RUN …`).\n\n");
        return Ok(text);
    };
    // Version 0.1.0 called it a constant guess.
    let baseline = summary.get("baseline_error_mm");
    let baseline = baseline.unwrap_or(&summary["constant_guess_mm"]);
    let errors = [
        &summary["mean_error_mm"],
        &summary["mean_error_voxels"],
        baseline,
    ];
    let [mm, voxels, baseline] = errors.map(|value| number(value.as_f64()));
    let scans = summary["scans"].as_array().map_or(0, Vec::len);
    writeln!(text, "| scans | mean error mm | voxels | baseline mm |")?;
    writeln!(text, "|---|---|---|---|")?;
    writeln!(text, "| {scans} | {mm} | {voxels} | {baseline} |\n")?;
    Ok(text)
}
