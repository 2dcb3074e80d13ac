//! What the numbers are worth: which weights gave them, what is known about these, and
//! whether they are better than the mean-position baseline.

use actor::evaluation::summary::{Errors, LandmarkSummary};
use common::run::run_folder::RunFolder;
use proto::messages::status::Evaluation;

use super::Summary;
use crate::input::weights::Origin;
use crate::output::table::decimal;

/// The weights' file, run and updates.
pub fn weights_line(origin: &Origin) -> String {
    let run = RunFolder::around(&origin.file).map(|run| format!("run {}, ", run.name()));
    let updates = origin.updates;
    let updates = updates.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let (run, file) = (run.unwrap_or_default(), origin.file.display());
    format!("weights: {file} ({run}updates: {updates})")
}

/// The error of the weights on the validation scans of their run, for results without known
/// landmarks.
pub fn validation_line(origin: &Origin) -> String {
    let Some(found) = validation(origin) else {
        return "error of these weights: unknown; `landmarl eval` measures it on scans with \
                known landmarks"
            .to_owned();
    };
    let (ours, baseline) = (found.mean_error_mm, found.baseline_error_mm);
    let mut line = format!(
        "error of these weights on the validation scans of their run: {} mm",
        decimal(ours, 2)
    );
    if let Some(worse) = worse_than_baseline(ours, baseline) {
        line += &format!("; {worse}");
    } else if let Some(mm) = baseline {
        line += &format!(" (mean-position baseline {} mm)", decimal(mm, 2));
    }
    line
}

/// The last validation of exactly these weights in `validation.jsonl` of their run.
fn validation(origin: &Origin) -> Option<Evaluation> {
    let run = RunFolder::around(&origin.file)?;
    let text = std::fs::read_to_string(run.validation_file()).ok()?;
    let lines = text.lines().rev();
    // A crash may have truncated a line.
    let mut all = lines.filter_map(|line| serde_json::from_str::<Evaluation>(line).ok());
    let version = origin.weights_version?;
    let updates = origin.updates?;
    all.find(|e| (e.weights_version, e.updates) == (version, updates))
}

/// A sentence where a mean error is not below that of the mean-position baseline.
pub fn worse_than_baseline(mean_mm: f64, baseline_mm: Option<f64>) -> Option<String> {
    let baseline_mm = baseline_mm.filter(|mm| mean_mm.is_nan() || mean_mm >= *mm)?;
    let word = if mean_mm > baseline_mm {
        "worse"
    } else {
        "no better"
    };
    let (mean, baseline) = (decimal(mean_mm, 2), decimal(baseline_mm, 2));
    Some(format!(
        "{word} than the mean-position baseline: train longer (error {mean} mm, baseline {baseline} mm)"
    ))
}

/// As [`worse_than_baseline`], for an evaluation; where only some landmarks are worse, their
/// names.
pub fn baseline_verdict(summary: &Summary) -> Option<String> {
    let mean = summary.mean_error_mm?;
    if let Some(worse) = worse_than_baseline(mean, summary.baseline_error_mm) {
        return Some(worse);
    }
    let mean = |errors: &Option<Errors>| errors.as_ref().map(|e| e.mm.mean);
    let worse = |l: &&LandmarkSummary| {
        let both = mean(&l.consensus).zip(mean(&l.baseline));
        both.is_some_and(|(ours, baseline)| ours >= baseline)
    };
    let names = summary.landmarks.iter().filter(worse);
    let names: Vec<&str> = names.map(|l| l.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        let names = names.join(", ");
        format!("worse than the mean-position baseline for {names}: train longer")
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_error_that_is_not_below_the_baseline_is_called_so() {
        let cases = [
            (
                62.0,
                Some(13.5),
                Some(
                    "worse than the mean-position baseline: train longer (error 62.00 mm, baseline 13.50 mm)",
                ),
            ),
            (
                13.5,
                Some(13.5),
                Some(
                    "no better than the mean-position baseline: train longer (error 13.50 mm, baseline 13.50 mm)",
                ),
            ),
            (1.0, Some(13.5), None),
            (1.0, None, None),
        ];
        for (mean, baseline, expected) in cases {
            assert_eq!(worse_than_baseline(mean, baseline).as_deref(), expected);
        }
    }

    fn origin(file: &Path, updates: Option<u64>) -> Origin {
        Origin {
            file: file.to_owned(),
            run: None,
            sha256: String::new(),
            weights_version: updates.map(|n| n / 10),
            updates,
        }
    }

    #[test]
    fn the_error_of_weights_is_that_of_their_run_or_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("old/checkpoints/best.safetensors");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "").unwrap();
        let alone = validation_line(&origin(&file, Some(20)));
        assert!(alone.contains("unknown; `landmarl eval`"), "{alone}");
        let shown = weights_line(&origin(&file, None));
        assert_eq!(
            shown,
            format!("weights: {} (updates: unknown)", file.display())
        );
        std::fs::write(dir.path().join("old/run.json"), "{}").unwrap();
        let line = |updates: u64, mm: f64| {
            let evaluation = Evaluation {
                updates,
                weights_version: updates / 10,
                mean_error_mm: mm,
                baseline_error_mm: Some(4.0),
                ..Evaluation::default()
            };
            serde_json::to_string(&evaluation).unwrap() + "\n"
        };
        let lines = line(10, 9.0) + &line(20, 2.0) + "{\"trunc";
        std::fs::write(dir.path().join("old/validation.jsonl"), lines).unwrap();
        let known = |updates| validation_line(&origin(&file, Some(updates)));
        let best = known(20);
        assert!(
            best.ends_with("of their run: 2.00 mm (mean-position baseline 4.00 mm)"),
            "{best}"
        );
        let first = known(10);
        assert!(
            first.contains("9.00 mm; worse than the mean-position baseline"),
            "{first}"
        );
        assert!(
            known(30).contains("unknown"),
            "weights that were not validated"
        );
        let shown = weights_line(&origin(&file, Some(20)));
        assert!(shown.ends_with("(run old, updates: 20)"), "{shown}");
    }
}
