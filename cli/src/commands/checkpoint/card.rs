//! The model card of an export (Mitchell et al. 2019): what it is, how it was
//! trained, how wrong it is, and what it is not for.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::run::run_folder::RunFolder;
use serde_json::Value;

use crate::input::weights::Loaded;

/// The card as Markdown. `from`: what was exported; evaluations and training data
/// are included if it is in a run's folder.
pub fn card(loaded: &Loaded, from: &Path) -> anyhow::Result<String> {
    let rules = &loaded.rules;
    let run = if from.is_dir() {
        RunFolder::around(&loaded.origin.file)
    } else {
        RunFolder::around(from)
    };
    let mut text = String::new();
    writeln!(text, "# Landmark agents: {}\n", loaded.landmarks.join(", "))?;
    writeln!(
        text,
        "{} Made by landmarl {}.\n",
        sentence(crate::output::report::NOTICE),
        env!("CARGO_PKG_VERSION")
    )?;
    how_to_use(&mut text, loaded)?;
    writeln!(text, "## Rules\n")?;
    for scale in &rules.scales {
        writeln!(
            text,
            "- samples {} voxels apart, steps of {} voxels",
            scale.stride, scale.step
        )?;
    }
    match loaded.resample_mm {
        Some(mm) if mm > 0.0 => writeln!(text, "- scans resampled to {mm} mm")?,
        _ => writeln!(text, "- scans at their own spacing")?,
    }
    writeln!(
        text,
        "\nAll of them, as JSON, and the network's layers stand in the metadata of model.safetensors.\n"
    )?;
    training(&mut text, loaded, run.as_ref())?;
    evaluations(&mut text, run.as_ref(), &loaded.origin.sha256)?;
    writeln!(text, "## Limits\n")?;
    writeln!(
        text,
        "Only scans like those of the training: the same anatomy, modality, field of view and spacing. Errors on other \
         scans were not measured. Not for clinical use."
    )?;
    Ok(text)
}

fn how_to_use(text: &mut String, loaded: &Loaded) -> anyhow::Result<()> {
    let spec = loaded.network.spec();
    writeln!(text, "## Use\n")?;
    writeln!(
        text,
        "    landmarl play SCAN.nii.gz --load model.safetensors --out found\n"
    )?;
    writeln!(text, "Python, without landmarl:\n")?;
    let n = spec.window;
    let scale = if spec.scales.is_some() { ", scale" } else { "" };
    writeln!(
        text,
        "    q = torch.jit.load(\"model.ts\")(windows{scale})    # [{}, {}]\n",
        spec.agents, spec.actions
    )?;
    writeln!(
        text,
        "`windows`: float32 `[{}, {}, {n}, {n}, {n}]` in 0..1, one stack of frames per agent in the order of the \
         title, oldest frame first, axes x, y, z of the scan brought to RAS.",
        spec.agents, spec.history
    )?;
    if spec.scales.is_some() {
        writeln!(
            text,
            "`scale`: int64 `[{}]`, 0 is the coarsest.",
            spec.agents
        )?;
    }
    writeln!(
        text,
        "Actions in order: {}. Intensities are clipped to the 10th and 99th percentile and brought to 0..255, which is \
         1.0 here.\n",
        actions()
    )?;
    Ok(())
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

fn training(text: &mut String, loaded: &Loaded, run: Option<&RunFolder>) -> anyhow::Result<()> {
    writeln!(text, "## Training\n")?;
    let origin = &loaded.origin;
    writeln!(
        text,
        "- weights: SHA-256 {} of {}",
        origin.sha256,
        origin
            .file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
    )?;
    if let Some(updates) = origin.updates {
        writeln!(text, "- {updates} updates")?;
    }
    if let Some(info) = run.and_then(|run| run.info().ok()) {
        writeln!(text, "- run {}, seed {}", info.started, info.seed)?;
    } else {
        writeln!(
            text,
            "- the run's folder was not there when this was written"
        )?;
    }
    writeln!(text)?;
    Ok(())
}

/// The newest evaluation of the run that used exactly these weights.
fn evaluations(text: &mut String, run: Option<&RunFolder>, sha256: &str) -> anyhow::Result<()> {
    writeln!(text, "## Errors\n")?;
    let newest = run.and_then(|run| {
        let folders = fs::read_dir(run.evaluations()).ok()?;
        let mut folders: Vec<_> = folders.filter_map(|f| Some(f.ok()?.path())).collect();
        folders.sort();
        folders.iter().rev().find_map(|folder| {
            let bytes = fs::read(folder.join("summary.json")).ok()?;
            let summary = serde_json::from_slice::<Value>(&bytes).ok()?;
            (summary["weights"]["sha256"] == sha256).then_some(summary)
        })
    });
    let Some(summary) = newest else {
        writeln!(
            text,
            "Not measured here: no evaluation of these weights lay in the run's folder (`landmarl eval --load RUN …`).\n"
        )?;
        return Ok(());
    };
    let number = |value: &Value| {
        value
            .as_f64()
            .map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"))
    };
    writeln!(
        text,
        "| scans | mean error mm | voxels | constant guess mm |"
    )?;
    writeln!(text, "|---|---|---|---|")?;
    writeln!(
        text,
        "| {} | {} | {} | {} |\n",
        summary["scans"].as_array().map_or(0, Vec::len),
        number(&summary["mean_error_mm"]),
        number(&summary["mean_error_voxels"]),
        number(&summary["constant_guess_mm"])
    )?;
    Ok(())
}
