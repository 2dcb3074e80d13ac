//! The options of `landmarl train`, and the settings and run folder they mean.

use std::path::{Path, PathBuf};

use common::config::Config;
use common::run::run_folder::{RunFolder, RunFolderError};
use model::DeviceChoice;

use crate::input::settings::{ConfigArgs, number_setting, setting};

/// Train agents on scans with known landmarks.
///
/// Starts replay shards, the learner, actors and an evaluator in this process,
/// connected by gRPC over loopback as they are in a cluster. Everything goes
/// to RUN.DIR/NAME. Ctrl-C stops with a checkpoint; a second one at once.
/// Not a medical device: for research only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Training scans: a list, one path per line, or a folder or manifest with their landmark files
    #[arg(long, value_name = "PATH", help_heading = "Data")]
    train_images: Option<PathBuf>,
    /// List of the landmark files, line for line with a list of scans
    #[arg(long, value_name = "LIST", help_heading = "Data")]
    train_landmarks: Option<PathBuf>,
    /// Scans that choose the best checkpoint [default: those that --train-images names for it]
    #[arg(
        long,
        value_name = "PATH",
        help_heading = "Data",
        alias = "selection-images"
    )]
    validation_images: Option<PathBuf>,
    /// List of their landmark files
    #[arg(
        long,
        value_name = "LIST",
        help_heading = "Data",
        alias = "selection-landmarks"
    )]
    validation_landmarks: Option<PathBuf>,
    /// Fold of the manifest that chooses the best checkpoint; the others are trained on
    #[arg(long, value_name = "N", help_heading = "Data")]
    fold: Option<u32>,
    /// Landmark names or 0-based numbers, one agent each
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME,...",
        help_heading = "Data"
    )]
    landmarks: Vec<String>,
    /// Folder that run folders are made in
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    run_dir: Option<PathBuf>,
    /// Name of the run [default: date and time, UTC]
    #[arg(long, help_heading = "Run", conflicts_with = "resume")]
    name: Option<String>,
    /// Continue a run: its folder or name, or the newest one
    #[arg(long, value_name = "RUN", num_args = 0..=1, help_heading = "Run")]
    resume: Option<Option<PathBuf>>,
    /// Stop after this many updates in total
    #[arg(long, help_heading = "Run")]
    updates: Option<u64>,
    /// Stop after this many minutes
    #[arg(long, help_heading = "Run")]
    minutes: Option<f64>,
    /// Actors to start
    #[arg(long, help_heading = "Run")]
    actors: Option<usize>,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, help_heading = "Run")]
    device: Option<DeviceChoice>,
    /// GPUs that share each batch, such as 0,1
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        help_heading = "Run",
        conflicts_with = "device"
    )]
    gpu: Option<Vec<usize>>,
    /// Seed of every random number
    #[arg(long, help_heading = "Run")]
    seed: Option<u64>,
    /// Train step by step on one thread of the CPU: bit-equal when repeated, or stopped and resumed
    #[arg(long, help_heading = "Run")]
    lockstep: bool,
    /// Log JSON lines instead of text
    #[arg(long)]
    pub log_json: bool,
    /// Print how the training ended as JSON
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  landmarl train --config configs/mouse-small.toml --minutes 10
  landmarl train --train-images t/images.txt --train-landmarks t/landmarks.txt --landmarks AC,PC --set learner.lr=3e-4 --name first
  landmarl train --train-images manifest.csv --fold 0 --landmarks AC,PC
  landmarl train --config configs/mouse.toml --gpu 0,1
  landmarl train --resume runs/first --updates 12000
  landmarl train --config configs/phantom.toml --lockstep --seed 7
  landmarl train --resume";

impl Args {
    /// The configuration, and the run folder to resume if requested.
    pub fn settle(&self) -> anyhow::Result<(Config, Option<RunFolder>)> {
        let Some(asked) = &self.resume else {
            return Ok((self.config.load(self.settings())?, None));
        };
        let folder = match asked {
            Some(run) if run.join("run.json").is_file() => RunFolder::open(run)?,
            // A name, or the newest run, is looked up in the folder of runs.
            other => {
                let dir = self.config.load(self.settings())?.run.dir;
                match other {
                    Some(name) => open_named(Path::new(&dir), name)?,
                    None => RunFolder::latest(Path::new(&dir))?,
                }
            }
        };
        let config = self
            .config
            .load_over(vec![folder.config_file()], self.settings())?;
        Ok((config, Some(folder)))
    }

    fn first_gpu(&self) -> Option<String> {
        let first = self.gpu.as_ref().and_then(|all| all.first());
        first.map(|n| format!("cuda:{n}"))
    }

    fn settings(&self) -> Vec<String> {
        let path = |key, value: &Option<PathBuf>| {
            setting(key, value.as_ref().map(|p| p.to_string_lossy()).as_deref())
        };
        let landmarks = (!self.landmarks.is_empty()).then(|| {
            format!(
                "data.landmarks={}",
                serde_json::Value::from(self.landmarks.clone())
            )
        });
        let all = [
            path("data.train_images", &self.train_images),
            path("data.train_landmarks", &self.train_landmarks),
            path("data.validation_images", &self.validation_images),
            path("data.validation_landmarks", &self.validation_landmarks),
            number_setting("data.fold", self.fold),
            landmarks,
            path("run.dir", &self.run_dir),
            setting("run.name", self.name.as_deref()),
            number_setting("learner.updates", self.updates),
            number_setting("learner.max_minutes", self.minutes),
            number_setting("actor.count", self.actors),
            setting("learner.device", self.device.map(String::from).as_deref()),
            setting("actor.device", self.device.map(String::from).as_deref()),
            // A single device replaces the devices of a resumed run.
            self.device.map(|_| "learner.devices=[]".to_owned()),
            self.gpu.as_deref().map(gpus),
            // The evaluator uses the first of them.
            setting("learner.device", self.first_gpu().as_deref()),
            setting("actor.device", self.first_gpu().as_deref()),
            number_setting("run.seed", self.seed),
            self.lockstep.then(|| "run.lockstep=true".to_owned()),
        ];
        all.into_iter().flatten().collect()
    }
}

/// The value of `learner.devices` for these GPUs.
fn gpus(numbers: &[usize]) -> String {
    let names: Vec<String> = numbers.iter().map(|n| format!("cuda:{n}")).collect();
    format!("learner.devices={}", serde_json::Value::from(names))
}

fn open_named(dir: &Path, name: &Path) -> Result<RunFolder, RunFolderError> {
    let path = dir.join(name);
    // An error message should quote what the user wrote.
    if path.is_dir() {
        RunFolder::open(&path)
    } else {
        RunFolder::open(name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use clap::Parser;
    use common::environment::rules::RULES_VERSION;
    use common::imaging::manifest::TrainingManifest;
    use common::run::run_folder::RunInfo;

    use super::*;

    #[derive(Debug, Parser)]
    struct Wrapper {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Wrapper::parse_from(std::iter::once("train").chain(line.split_whitespace())).args
    }

    #[test]
    fn options_win_over_settings() {
        let line = "--set learner.updates=5 --set run.seed=3 --updates 7 --landmarks LM1,LM4 --device cpu \
                    --train-images a/1 --minutes 2.5 --name 7";
        let (config, resumed) = args(line).settle().unwrap();
        assert_eq!(resumed, None);
        assert_eq!((config.learner.updates, config.run.seed), (7, 3));
        assert_eq!(config.data.landmarks, ["LM1", "LM4"]);
        assert_eq!(
            (config.learner.device.as_str(), config.learner.max_minutes),
            ("cpu", 2.5)
        );
        assert_eq!(
            (config.data.train_images.as_str(), config.run.name.as_str()),
            ("a/1", "7")
        );
    }

    #[test]
    fn a_run_is_found_by_folder_name_or_as_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().display().to_string();
        let error = args(&format!("--run-dir {run_dir} --resume"))
            .settle()
            .unwrap_err();
        assert!(error.to_string().contains("no run to continue"), "{error}");
        let error = args(&format!("--run-dir {run_dir} --resume gone"))
            .settle()
            .unwrap_err();
        assert!(
            error.to_string().contains("cannot read gone/run.json"),
            "{error}"
        );
        let folder = RunFolder::create(dir.path(), "one", SystemTime::UNIX_EPOCH).unwrap();
        let mut config = Config::defaults().unwrap();
        config.run.seed = 9;
        let info = RunInfo::new(&config, [0; 32], SystemTime::UNIX_EPOCH);
        let manifest = TrainingManifest::new([], RULES_VERSION);
        folder.describe(&config, &manifest, &info).unwrap();
        for line in [
            format!("--resume {run_dir}/one"),
            format!("--run-dir {run_dir} --resume one"),
            format!("--run-dir {run_dir} --resume"),
        ] {
            let (config, found) = args(&line).settle().unwrap();
            assert_eq!(
                (config.run.seed, found.unwrap().name().as_str()),
                (9, "one"),
                "{line}"
            );
        }
    }
}
