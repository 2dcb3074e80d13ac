//! The options of `landmarl train`, and the settings and run folder they mean.

use std::path::{Path, PathBuf};

use common::config::Config;
use common::run::run_folder::RunFolder;
use model::DeviceChoice;

use crate::input::run::run_folder;
use crate::input::settings::{ConfigArgs, number_setting, setting};

/// Help headings.
const DATA: &str = "Data";
const RUN: &str = "Run";

/// Train agents on scans with known landmarks.
///
/// Starts replay shards, the learner, actors and an evaluator in this process,
/// connected by gRPC over loopback as in a cluster. All output is in RUN.DIR/NAME.
/// Ctrl-C saves a checkpoint and exits; a second Ctrl-C exits immediately. Not a
/// medical device: for research only.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Training scans: a list with one path per line, or a folder or manifest with landmark files
    #[arg(long, value_name = "PATH", help_heading = DATA)]
    train_images: Option<PathBuf>,
    /// Landmark files of a list of scans: a list in the same order
    #[arg(long, value_name = "LIST", help_heading = DATA)]
    train_landmarks: Option<PathBuf>,
    /// Scans for selecting the best checkpoint [default: the validation split of --train-images]
    #[arg(long, value_name = "PATH", help_heading = DATA, alias = "selection-images")]
    validation_images: Option<PathBuf>,
    /// Landmark files of a list of validation scans
    #[arg(long, value_name = "LIST", help_heading = DATA, alias = "selection-landmarks")]
    validation_landmarks: Option<PathBuf>,
    /// Validation fold of the manifest; the other folds are used for training
    #[arg(long, value_name = "N", help_heading = DATA)]
    fold: Option<u32>,
    /// Landmark names or 0-based numbers, one per agent
    #[arg(long, value_delimiter = ',', value_name = "NAME,...", help_heading = DATA)]
    landmarks: Vec<String>,
    /// Parent folder of the run folders
    #[arg(long, value_name = "DIR", help_heading = RUN)]
    run_dir: Option<PathBuf>,
    /// Name of the run [default: date and time, UTC]
    #[arg(long, help_heading = RUN, conflicts_with = "resume")]
    name: Option<String>,
    /// Continue a run by its folder or name, or the newest run
    #[arg(long, value_name = "RUN", num_args = 0..=1, help_heading = RUN)]
    resume: Option<Option<PathBuf>>,
    /// With --resume: the checkpoint to go on from, by its name [default: the newest good one]
    #[arg(long, value_name = "NAME", requires = "resume", help_heading = RUN)]
    pub checkpoint: Option<String>,
    /// Stop after this many updates in total
    #[arg(long, help_heading = RUN)]
    updates: Option<u64>,
    /// Stop after this many minutes
    #[arg(long, help_heading = RUN)]
    minutes: Option<f64>,
    /// Number of actors
    #[arg(long, help_heading = RUN)]
    actors: Option<usize>,
    /// cpu, cuda, cuda:N or auto
    #[arg(long, help_heading = RUN)]
    device: Option<DeviceChoice>,
    /// GPUs that split each batch, such as 0,1
    #[arg(long, value_name = "N,N", value_delimiter = ',', help_heading = RUN, conflicts_with = "device")]
    gpu: Option<Vec<usize>>,
    /// Random seed
    #[arg(long, help_heading = RUN)]
    seed: Option<u64>,
    /// Train step by step on one CPU thread; repeated or resumed runs are bit-identical
    #[arg(long, help_heading = RUN)]
    lockstep: bool,
    /// Log JSON lines instead of text
    #[arg(long)]
    pub log_json: bool,
    /// Print the result of the training as JSON
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
  landmarl train --resume runs/first --checkpoint update-00003000
  landmarl train --config configs/phantom.toml --lockstep --seed 7
  landmarl train --resume";

impl Args {
    /// The configuration, and the run folder to resume if requested.
    pub fn settle(&self) -> anyhow::Result<(Config, Option<RunFolder>)> {
        let Some(asked) = &self.resume else {
            return Ok((self.config.load(self.settings())?, None));
        };
        let runs = self.config.load(self.settings())?.run.dir;
        let folder = match asked {
            Some(run) => RunFolder::open(&run_folder(run, Path::new(&runs))?)?,
            None => RunFolder::latest(Path::new(&runs))?,
        };
        let saved = vec![folder.saved_config()];
        let config = self.config.load_over(saved, self.settings())?;
        Ok((config, Some(folder)))
    }

    fn settings(&self) -> Vec<String> {
        let path = |key, value: &Option<PathBuf>| {
            setting(key, value.as_ref().map(|p| p.to_string_lossy()).as_deref())
        };
        let list = |key: &str, names: Vec<String>| {
            let named = (!names.is_empty()).then_some(names);
            named.map(|names| format!("{key}={}", serde_json::Value::from(names)))
        };
        let device = self.device.map(String::from);
        let gpus = self.gpu.iter().flatten().map(|n| format!("cuda:{n}"));
        let gpus: Vec<String> = gpus.collect();
        let first_gpu = gpus.first().cloned();
        let all = [
            path("data.train_images", &self.train_images),
            path("data.train_landmarks", &self.train_landmarks),
            path("data.validation_images", &self.validation_images),
            path("data.validation_landmarks", &self.validation_landmarks),
            number_setting("data.fold", self.fold),
            list("data.landmarks", self.landmarks.clone()),
            path("run.dir", &self.run_dir),
            setting("run.name", self.name.as_deref()),
            number_setting("learner.updates", self.updates),
            number_setting("learner.max_minutes", self.minutes),
            number_setting("actor.count", self.actors),
            setting("learner.device", device.as_deref()),
            setting("actor.device", device.as_deref()),
            // A single device replaces the devices of a resumed run.
            device.map(|_| "learner.devices=[]".to_owned()),
            // The evaluator uses the first of them.
            setting("learner.device", first_gpu.as_deref()),
            setting("actor.device", first_gpu.as_deref()),
            list("learner.devices", gpus),
            number_setting("run.seed", self.seed),
            self.lockstep.then(|| "run.lockstep=true".to_owned()),
        ];
        all.into_iter().flatten().collect()
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
        assert_eq!(config.learner.device, "cpu");
        assert_eq!(config.learner.max_minutes, 2.5);
        let names = [config.data.train_images, config.run.name];
        assert_eq!(names, ["a/1", "7"]);
    }

    #[test]
    fn a_run_is_found_by_folder_name_or_as_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().display().to_string();
        for (name, message) in [("", "no run to continue"), (" gone", "no run gone in")] {
            let resumed = args(&format!("--run-dir {run_dir} --resume{name}")).settle();
            let error = resumed.unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
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
            let found = (config.run.seed, found.unwrap().name());
            assert_eq!(found, (9, "one".to_owned()), "{line}");
        }
    }
}
