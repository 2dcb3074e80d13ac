//! Runs named on the command line, by folder or by name.

use std::path::{Path, PathBuf};

use common::config::edit_distance;

use crate::input::settings::ConfigArgs;
use crate::output::failure::{Advice, Exit};

/// Most names in the hint of an error.
const NAMES_SHOWN: usize = 5;

/// The folder of runs of the configuration.
pub fn runs(config: &ConfigArgs) -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(config.load(Vec::new())?.run.dir))
}

/// The folder or file that `given` means: itself if it exists, else the run of this name in
/// `runs`, the folder of runs (`run.dir`). A folder without a run gives way to a run of its name.
///
/// # Errors
/// When there is neither; the hint lists the runs with the most similar names.
pub fn run_folder(given: &Path, runs: &Path) -> anyhow::Result<PathBuf> {
    let named = runs.join(given);
    let is_run = |path: &Path| path.join("run.json").is_file();
    // A path that cannot be examined is opened later, which reports the cause.
    let exists = given.try_exists().unwrap_or(true);
    if exists && (!given.is_dir() || is_run(given) || !is_run(&named)) {
        return Ok(given.to_owned());
    }
    if named.is_dir() {
        return Ok(named);
    }
    let (text, folder) = (given.display().to_string(), runs.display());
    let message = format!("there is no file or folder {text}, and no run {text} in {folder}");
    let names = similar(&text, run_names(runs));
    let hint = if names.is_empty() {
        format!("give the folder or the name of a run; {folder} contains no run")
    } else {
        format!("runs in {folder}: {}", names.join(", "))
    };
    Err(Advice::new(Exit::Failed, message).hint(hint).into())
}

/// The names of the runs in a folder; empty if it cannot be read.
fn run_names(runs: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(runs).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().join("run.json").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The names most similar to `given`, the best first.
fn similar(given: &str, mut names: Vec<String>) -> Vec<String> {
    names.sort_by_cached_key(|name| (edit_distance(given, name), name.clone()));
    names.truncate(NAMES_SHOWN);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn run(path: &Path) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("run.json"), "{}").unwrap();
    }

    #[test]
    fn a_run_is_found_by_its_folder_or_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        for name in ["first", "second"] {
            run(&runs.join(name));
        }
        let found = |given: &Path| run_folder(given, &runs).unwrap();
        assert_eq!(found(&runs.join("first")), runs.join("first"));
        assert_eq!(found(Path::new("first")), runs.join("first"));
        // A folder of runs, or a file, is itself.
        assert_eq!(found(&runs), runs);
        let file = dir.path().join("best.safetensors");
        fs::write(&file, "x").unwrap();
        assert_eq!(found(&file), file);
    }

    #[test]
    fn a_folder_without_a_run_gives_way_to_the_run_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        // The working directory of this test has a folder of this name.
        let given = Path::new("src");
        assert_eq!(run_folder(given, dir.path()).unwrap(), given);
        run(&dir.path().join("src"));
        assert_eq!(
            run_folder(given, dir.path()).unwrap(),
            dir.path().join("src")
        );
    }

    #[test]
    fn unknown_runs_are_refused_with_similar_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["first", "frost", "2026-11-23-142501"] {
            run(&dir.path().join(name));
        }
        let hint = |given: &str| {
            let error = run_folder(Path::new(given), dir.path()).unwrap_err();
            crate::output::failure::describe(&error)
        };
        let text = hint("fisrt");
        assert!(text.contains("no run fisrt in"), "{text}");
        assert!(text.contains(": first, frost, 2026-11-23-142501"), "{text}");
        let none = run_folder(Path::new("x"), &dir.path().join("gone")).unwrap_err();
        let text = crate::output::failure::describe(&none);
        assert!(text.contains("contains no run"), "{text}");
    }
}
