//! Output that `eval` and `play` share: predictions, exports, pictures, films, trajectories.
//!
//! All files are planned before the episodes run: names never collide, and a file that is
//! there already is only replaced with `--force`.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use common::imaging::scan::Scan;
use common::run::run_folder::{RunFolder, folder_time};

use crate::input::trajectories::StartArgs;
use crate::output::console;
use crate::output::failure::{Advice, Exit};
use crate::output::film::{self, FilmArgs, write_films};
use crate::output::names::Names;
use crate::output::report::{self, ExportArgs, Prediction, Results};

/// Output options.
#[derive(Debug, Clone, clap::Args)]
pub struct OutputArgs {
    /// Output folder [default: RUN/evaluations/TIME]
    #[arg(long, short = 'o', value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace files of an earlier evaluation
    #[arg(long)]
    force: bool,
    /// Do not write pictures
    #[arg(long)]
    no_pictures: bool,
    #[command(flatten)]
    exports: ExportArgs,
    #[command(flatten)]
    pub films: FilmArgs,
}

/// The names of all files of one evaluation.
#[derive(Debug)]
pub struct FilePlan {
    /// Of each scan's exports and picture.
    stems: Vec<String>,
    /// Of the films, per scan and agent.
    films: Vec<Vec<String>>,
    /// Whether a scan has known landmarks.
    labelled: Vec<bool>,
}

impl FilePlan {
    /// Names after scans and landmarks, each different from all others.
    pub fn new(scans: &[Arc<Scan>], landmarks: &[String]) -> Self {
        let labelled = scans
            .iter()
            .map(|s| s.landmarks.iter().any(Option::is_some));
        let labelled: Vec<bool> = labelled.collect();
        let mut exports = Names::with(&[report::LEGEND]);
        let stems = scans.iter().zip(&labelled);
        let stems: Vec<String> = stems
            .map(|(scan, known)| exports.take(&scan.name, report::export_endings(*known)))
            .collect();
        let mut films = Names::default();
        let mut of_scan = |stem: &String| -> Vec<String> {
            let names = landmarks.iter().map(|name| film::wanted_name(stem, name));
            let endings = film::ENDINGS;
            names.map(|name| films.take(&name, &endings)).collect()
        };
        Self {
            films: stems.iter().map(&mut of_scan).collect(),
            stems,
            labelled,
        }
    }

    /// The name, without ending, of the files of a scan.
    pub fn stem(&self, scan: usize) -> &str {
        &self.stems[scan]
    }

    /// The name, without ending, of the film of an agent in a scan; `None` for an agent
    /// without a landmark.
    pub fn film(&self, scan: usize, agent: u16) -> Option<&str> {
        let of_scan = self.films.get(scan)?;
        of_scan.get(usize::from(agent)).map(String::as_str)
    }

    /// All files that may be written, relative to the output folder.
    fn files(&self, args: &OutputArgs, more: &[&str]) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = report::PREDICTIONS.iter().map(PathBuf::from).collect();
        files.extend(more.iter().map(PathBuf::from));
        let exports = Path::new(EXPORTS);
        files.push(exports.join(report::LEGEND));
        for (stem, labelled) in self.stems.iter().zip(&self.labelled) {
            let endings = report::export_endings(*labelled).iter();
            files.extend(endings.map(|end| exports.join(format!("{stem}{end}"))));
            if !args.no_pictures {
                files.push(Path::new(PICTURES).join(format!("{stem}.png")));
            }
        }
        for kind in args.films.kinds() {
            let names = self.films.iter().flatten();
            let ending = kind.ending();
            files.extend(names.map(|name| Path::new(FILMS).join(format!("{name}{ending}"))));
        }
        files
    }
}

const EXPORTS: &str = "exports";
const PICTURES: &str = "pictures";
const FILMS: &str = "films";

impl OutputArgs {
    /// Plans all files; `more` are those that only one command writes.
    ///
    /// # Errors
    /// When two results have one place, or a file is there already and `--force` is not given.
    pub fn plan(
        &self,
        args: &StartArgs,
        scans: &[Arc<Scan>],
        landmarks: &[String],
        more: &[&str],
    ) -> Result<FilePlan, Advice> {
        let plan = FilePlan::new(scans, landmarks);
        let mut files = Vec::new();
        if let Some(out) = &self.out {
            files.extend(plan.files(self, more).iter().map(|file| out.join(file)));
        }
        files.extend(args.trajectories.clone());
        files.extend(args.results_csv.clone());
        check_apart(&files)?;
        if !self.force {
            check_new(&files)?;
        }
        Ok(plan)
    }

    /// Creates the output folder: the given one, or a new one that is named after the time.
    pub fn create(&self, weights: &Path) -> Result<PathBuf, Advice> {
        let all = RunFolder::around(weights).map(|run| run.evaluations());
        let all = all.unwrap_or_else(|| "evaluations".into());
        let made = match &self.out {
            Some(folder) => std::fs::create_dir_all(folder).map(|()| folder.clone()),
            None => new_folder(&all),
        };
        made.map_err(|error| {
            let folder = self.out.as_ref().unwrap_or(&all);
            let message = format!("cannot write results to {}: {error}", folder.display());
            Advice::new(Exit::Failed, message).hint("choose another folder with --out")
        })
    }

    /// Writes everything into `out`; returns the predictions in all coordinate systems.
    pub fn write(
        &self,
        out: &Path,
        args: &StartArgs,
        all: &Results<'_>,
    ) -> anyhow::Result<Vec<Prediction>> {
        let prediction = |p| Prediction::new(p, all);
        let table: Vec<Prediction> = all.predictions.iter().map(prediction).collect();
        report::write_predictions(out, &table, &all.loaded.origin)?;
        report::write_exports(&out.join(EXPORTS), all, &self.exports)?;
        // Last, because these paths are outside `out`: a failure must not lose predictions.
        if let Some(file) = &args.trajectories {
            report::write_trajectories(file, all)?;
        }
        if let Some(file) = &args.results_csv {
            report::write_results(file, all)?;
        }
        if !self.no_pictures {
            report::write_pictures(&out.join(PICTURES), all)?;
        }
        for film in write_films(&out.join(FILMS), &self.films, all)? {
            console::note(&format!("film: {}", film.display()));
        }
        for (index, scan) in all.scans.iter().enumerate() {
            let stem = all.files.stem(index);
            if stem != scan.name {
                let name = &scan.name;
                console::note(&format!(
                    "the exports of scan '{name}' are named '{stem}': '{name}' is the name of another file, or cannot be a file name"
                ));
            }
        }
        Ok(table)
    }
}

/// A folder in `parent` that did not exist before.
fn new_folder(parent: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(parent)?;
    let name = folder_time(SystemTime::now());
    let mut folder = parent.join(&name);
    let mut number = 1_usize;
    loop {
        match std::fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                number += 1;
                folder = parent.join(format!("{name}-{number}"));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Refuses two results in one file, such as `-o found --results-csv found/predictions.csv`.
fn check_apart(files: &[PathBuf]) -> Result<(), Advice> {
    let mut seen = HashSet::new();
    for file in files {
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        // Where case does not count, these are one file.
        if !seen.insert(absolute.to_string_lossy().to_lowercase()) {
            let message = format!("{} would hold two different results", file.display());
            let hint = "choose another file with --trajectories or --results-csv";
            return Err(Advice::new(Exit::Usage, message).hint(hint));
        }
    }
    Ok(())
}

/// Refuses to replace files.
fn check_new(files: &[PathBuf]) -> Result<(), Advice> {
    // A link to nothing would be replaced too.
    let exists = |file: &&PathBuf| file.symlink_metadata().is_ok();
    let existing: Vec<&PathBuf> = files.iter().filter(exists).collect();
    let Some(first) = existing.first() else {
        return Ok(());
    };
    let first = first.display();
    let message = match existing.len() - 1 {
        0 => format!("{first} exists already and would be replaced"),
        1 => format!("{first} and another file exist already and would be replaced"),
        more => format!("{first} and {more} other files exist already and would be replaced"),
    };
    let hint = "choose another folder with --out (another file with --trajectories or \
                --results-csv), or replace them with --force";
    Err(Advice::new(Exit::Failed, message).hint(hint))
}

#[cfg(test)]
mod tests {
    use common::imaging::geometry::Geometry;
    use common::imaging::volume::Volume;

    use super::*;

    fn scans(names: &[&str]) -> Vec<Arc<Scan>> {
        let scan = |name: &&str| Scan {
            name: (*name).to_owned(),
            volume: Volume::from_u8([1; 3], vec![0]).unwrap(),
            geometry: Geometry::straight([1; 3], [1.0; 3]),
            landmarks: vec![Some([0.0; 3])],
            hash: [0; 32],
        };
        names.iter().map(scan).map(Arc::new).collect()
    }

    fn arguments(line: &str) -> (OutputArgs, StartArgs) {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            output: OutputArgs,
            #[command(flatten)]
            starts: StartArgs,
        }
        let words = std::iter::once("x").chain(line.split_whitespace());
        let line = <Line as clap::Parser>::try_parse_from(words).unwrap();
        (line.output, line.starts)
    }

    #[test]
    fn all_files_of_an_evaluation_have_different_names() {
        let names = ["x", "x_truth", "labels", "predictions", "X", "a_b", "a"];
        let scans = scans(&names);
        let landmarks = ["c", "b c", "b_c", "B_C"].map(str::to_owned);
        let plan = FilePlan::new(&scans, &landmarks);
        let stems = [
            "x",
            "x_truth-2",
            "labels-2",
            "predictions",
            "X-2",
            "a_b",
            "a",
        ];
        assert_eq!(plan.stems, stems);
        // Scan a_b, landmark c and scan a, landmark b_c.
        assert_eq!(plan.film(5, 0), Some("a_b_c"));
        let of_a = (0..4).filter_map(|agent| plan.film(6, agent));
        let expected = ["a_c", "a_b_c-2", "a_b_c-3", "a_B_C-4"];
        assert_eq!(of_a.collect::<Vec<_>>(), expected);
        let (args, _) = arguments("--render all");
        let mut files: Vec<String> = plan
            .files(&args, &["summary.json"])
            .iter()
            .map(|file| file.to_string_lossy().to_lowercase())
            .collect();
        // Three tables and the legend; six files per scan; two films per scan and landmark.
        assert_eq!(files.len(), 4 + 7 * 6 + 7 * 4 * 2);
        files.sort();
        files.dedup();
        assert_eq!(files.len(), 4 + 7 * 6 + 7 * 4 * 2);
    }

    #[test]
    fn results_never_replace_a_file_without_being_asked() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().display().to_string();
        let plan = |more: &str| {
            let (args, starts) = arguments(&format!("-o {out} {more}"));
            let planned = args.plan(&starts, &scans(&["x"]), &["AC".into()], &["summary.json"]);
            planned.map(|_| ()).map_err(|advice| advice.to_string())
        };
        assert_eq!(plan(""), Ok(()));
        std::fs::create_dir(dir.path().join("exports")).unwrap();
        std::fs::write(dir.path().join("other.csv"), "").unwrap();
        assert_eq!(plan(""), Ok(()), "a folder with other files");
        let both = plan(&format!("--results-csv {out}/Predictions.csv")).unwrap_err();
        assert!(both.contains("two different results"), "{both}");
        let csv = format!("--results-csv {out}/other.csv");
        let error = plan(&csv).unwrap_err();
        assert!(error.contains("other.csv exists already"), "{error}");
        std::fs::write(dir.path().join("exports/x.csv"), "").unwrap();
        std::fs::write(dir.path().join("summary.json"), "").unwrap();
        let error = plan("").unwrap_err();
        assert!(
            error.contains("summary.json and another file exist"),
            "{error}"
        );
        assert_eq!(plan(&format!("--force {csv}")), Ok(()));
    }

    #[test]
    fn evaluations_of_one_second_have_folders_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("evaluations");
        let folders: Vec<PathBuf> = (0..3).map(|_| new_folder(&parent).unwrap()).collect();
        assert!(folders.iter().all(|f| f.is_dir()));
        assert!(folders[0] != folders[1] && folders[1] != folders[2]);
    }
}
