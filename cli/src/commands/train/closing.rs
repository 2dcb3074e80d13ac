//! What `landmarl train` says at its end.

use std::path::Path;

use common::config::Config;
use common::imaging::dataset::{Source, Split};
use common::run::run_folder::RunFolder;

use super::cluster::Ended;
use super::stopped_by;
use crate::output::quote::shell_quoted;
use crate::output::report::NOTICE;
use crate::output::report::verdict::worse_than_baseline;

/// The result, what it is worth, and the commands to run next, as they are.
pub fn message(folder: &RunFolder, config: &Config, ended: &Ended) -> String {
    let run = folder.path().to_string_lossy();
    let stopped = stopped_by(ended).map(|signal| format!("stopped by {signal}: "));
    let stopped = stopped.unwrap_or_default();
    let updates = ended.updates;
    let mut text = format!("{stopped}{updates} updates done; the results are in {run}\n");
    if let Some((best, _)) = ended.validation_mm {
        text += &format!("best mean error on the validation scans: {best:.2} mm");
        if let Some(mm) = ended.baseline_mm {
            text += &format!(" (mean-position baseline {mm:.2} mm)");
        }
        text.push('\n');
    }
    let updates = config.learner.updates;
    let more = (ended.updates >= updates).then(|| format!(" --updates {}", updates * 2));
    let run = shell_quoted(&run);
    let longer = format!(
        "  landmarl train --resume {run}{}\n",
        more.unwrap_or_default()
    );
    let evaluate = evaluate(config, &ended.weights);
    let evaluate = evaluate.map(|words| format!("  {words}\n"));
    let evaluate = evaluate.unwrap_or_default();
    let errors = ended.validation_mm.map(|(best, _)| best);
    let worse = errors.and_then(|best| worse_than_baseline(best, ended.baseline_mm));
    if let Some(worse) = worse {
        text += &format!("{worse}\nnext:\n{longer}{evaluate}");
    } else {
        text += &format!("next:\n{evaluate}{longer}");
    }
    text + NOTICE
}

/// The command that evaluates the weights on the run's own test scans, else on its validation
/// scans; `None` where the run names neither.
fn evaluate(config: &Config, weights: &Path) -> Option<String> {
    let data = &config.data;
    let training = (&data.train_images, &data.train_landmarks);
    let landmarks = Some(Path::new(training.1)).filter(|_| !training.1.is_empty());
    let source = Source::read(Path::new(training.0), landmarks).ok();
    let has = |split| {
        let source = source.as_ref();
        source.is_some_and(|source| source.has(split, data.fold()))
    };
    let ((images, landmarks), split) = if has(Split::Test) {
        (training, Some(Split::Test))
    } else if !data.validation_images.is_empty() {
        let validation = (&data.validation_images, &data.validation_landmarks);
        // A list of landmark files belongs to a list of scans, which has no splits.
        let list = !validation.1.is_empty() && !Path::new(validation.1).is_dir();
        (validation, (!list).then_some(Split::Validation))
    } else if has(Split::Validation) {
        (training, Some(Split::Validation))
    } else {
        return None;
    };
    let mut line = format!(
        "landmarl eval --load {} --images {}",
        shell_quoted(&weights.to_string_lossy()),
        shell_quoted(images)
    );
    if !landmarks.is_empty() {
        line += &format!(" --landmarks-files {}", shell_quoted(landmarks));
    }
    if let Some(split) = split {
        line += &format!(" --split {split}");
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// A configuration with these training and validation images.
    fn config(train: &Path, validation: &str) -> Config {
        let mut config = Config::defaults().unwrap();
        config.learner.updates = 30;
        config.data.train_images = train.display().to_string();
        config.data.validation_images = validation.to_owned();
        config
    }

    fn ended(updates: u64, best: f64, baseline: f64) -> Ended {
        Ended {
            updates,
            interrupted: false,
            validation_mm: Some((best, best)),
            baseline_mm: Some(baseline),
            weights: "my runs/one/checkpoints/best.safetensors".into(),
        }
    }

    fn text(config: &Config, ended: &Ended) -> String {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(dir.path(), "a run", SystemTime::UNIX_EPOCH).unwrap();
        let text = message(&folder, config, ended);
        text.replace(&dir.path().display().to_string(), "runs")
    }

    #[test]
    fn an_error_that_is_not_below_the_baseline_ends_with_the_advice_to_train_longer() {
        let config = config(Path::new("gone"), "v.txt");
        let advice = "than the mean-position baseline: train longer (error";
        let longer = "\nnext:\n  landmarl train --resume 'runs/a run' --updates 60\n";
        for (best, worse) in [(2.0, false), (3.0, true), (4.0, true), (f64::NAN, true)] {
            let text = text(&config, &ended(30, best, 3.0));
            assert_eq!(text.contains(advice), worse, "{text}");
            assert_eq!(text.contains(longer), worse, "{text}");
        }
        let stopped = text(&config, &ended(10, 4.0, 3.0));
        assert!(stopped.contains("--resume 'runs/a run'\n"), "{stopped}");
        let unknown = Ended {
            validation_mm: None,
            ..ended(30, 0.0, 3.0)
        };
        assert!(!text(&config, &unknown).contains("train longer"));
    }

    #[test]
    fn suggested_commands_name_the_users_own_scans_quoted_for_the_shell() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = |name: &str, splits: [&str; 2]| {
            let path = dir.path().join(name);
            let row = |(n, split)| format!("{n}.nii,{n}.csv,{split}\n");
            let rows: String = [(1, splits[0]), (2, splits[1])].map(row).concat();
            std::fs::write(&path, format!("image,landmarks,split\n{rows}")).unwrap();
            path
        };
        let test = manifest("with test.csv", ["train", "test"]);
        let both = manifest("both.csv", ["train", "validation"]);
        let alone = manifest("alone.csv", ["train", "train"]);
        let load = "landmarl eval --load 'my runs/one/checkpoints/best.safetensors' --images";
        let here = dir.path().display();
        let mut lists = config(Path::new("t.txt"), "my v.txt");
        lists.data.train_landmarks = "tl.txt".into();
        lists.data.validation_landmarks = "vl.txt".into();
        for (config, expected) in [
            (
                config(&test, ""),
                format!("'{here}/with test.csv' --split test"),
            ),
            (
                config(&both, ""),
                format!("{here}/both.csv --split validation"),
            ),
            (lists, "'my v.txt' --landmarks-files vl.txt".to_owned()),
        ] {
            let text = text(&config, &ended(30, 1.0, 3.0));
            assert!(text.contains(&format!("  {load} {expected}\n")), "{text}");
        }
        let text = text(&config(&alone, ""), &ended(30, 1.0, 3.0));
        assert!(!text.contains("landmarl eval"), "{text}");
    }
}
