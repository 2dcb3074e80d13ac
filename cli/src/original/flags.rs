//! The flags of the original programs: the 2019 code, its TensorFlow sibling
//! and rl-medical's PyTorch code.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use super::default_landmarks;
use crate::output::failure::{Advice, Exit};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Task {
    Train,
    Eval,
    Play,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FileType {
    Brain,
    Cardiac,
    Fetal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Model {
    #[value(name = "CommNet")]
    CommNet,
    #[value(name = "Network3d", alias = "Network3D")]
    Network3d,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Algorithm {
    #[value(name = "DQN")]
    Dqn,
    Double,
    Dueling,
    #[value(name = "DuelingDouble")]
    DuelingDouble,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TeamReward {
    #[value(name = "None", alias = "none")]
    None,
    Mean,
    Attention,
}

/// The original programs' flags; see `landmarl --help` for ours.
#[derive(Debug, Parser)]
#[command(name = "landmarl", rename_all = "snake_case")]
pub(super) struct Flags {
    #[arg(long, ignore_case = true)]
    pub(super) task: Task,
    #[arg(long)]
    pub(super) gpu: Option<String>,
    #[arg(long, ignore_case = true, default_value = "DQN")]
    pub(super) algo: Algorithm,
    #[arg(long, num_args = 1..=2)]
    pub(super) files: Vec<String>,
    #[arg(long, num_args = 2)]
    pub(super) val_files: Vec<String>,
    #[arg(long)]
    pub(super) load: Option<PathBuf>,
    #[arg(long)]
    pub(super) resume: Option<PathBuf>,
    #[arg(long, ignore_case = true)]
    pub(super) file_type: Option<FileType>,
    #[arg(long = "saveGif")]
    pub(super) save_gif: bool,
    #[arg(long = "saveVideo")]
    pub(super) save_video: bool,
    #[arg(long = "logDir", alias = "log_dir")]
    pub(super) log_dir: Option<PathBuf>,
    #[arg(long)]
    pub(super) name: Option<String>,
    #[arg(long)]
    pub(super) log_comment: Option<String>,
    #[arg(long)]
    pub(super) agents: Option<usize>,
    #[arg(long, num_args = 1..)]
    pub(super) landmarks: Vec<String>,
    #[arg(long, ignore_case = true)]
    pub(super) model_name: Option<Model>,
    #[arg(long)]
    pub(super) reward_strategy: Option<u8>,
    #[arg(long, ignore_case = true)]
    pub(super) team_reward: Option<TeamReward>,
    #[arg(long)]
    pub(super) attention: bool,
    #[arg(long)]
    pub(super) multiscale: bool,
    #[arg(long)]
    pub(super) viz: Option<f64>,
    /// Everything is written anyway.
    #[arg(long)]
    pub(super) write: bool,
    #[arg(long)]
    pub(super) batch_size: Option<f64>,
    #[arg(long)]
    pub(super) memory_size: Option<f64>,
    #[arg(long)]
    pub(super) init_memory_size: Option<f64>,
    #[arg(long)]
    pub(super) discount: Option<f64>,
    #[arg(long)]
    pub(super) lr: Option<f64>,
    #[arg(long)]
    pub(super) scheduler_gamma: Option<f64>,
    #[arg(long)]
    pub(super) scheduler_step_size: Option<f64>,
    #[arg(long)]
    pub(super) max_episodes: Option<f64>,
    #[arg(long)]
    pub(super) steps_per_episode: Option<f64>,
    #[arg(long)]
    pub(super) target_update_freq: Option<f64>,
    #[arg(long)]
    pub(super) save_freq: Option<f64>,
    #[arg(long)]
    pub(super) delta: Option<f64>,
    #[arg(long)]
    pub(super) train_freq: Option<f64>,
    #[arg(long)]
    pub(super) seed: Option<f64>,
    #[arg(long, num_args = 3..)]
    pub(super) fixed_spawn: Vec<f64>,
}

impl Flags {
    /// A list of scans and one of landmark files.
    pub(super) fn two_files<'a>(
        &self,
        flag: &str,
        files: &'a [String],
    ) -> Result<(&'a str, &'a str), Advice> {
        if let [images, landmarks] = files {
            return Ok((images, landmarks));
        }
        let task = self.task_name();
        let message = format!("--task {task} takes two lists: {flag} IMAGES LANDMARKS");
        Err(Advice::new(Exit::Usage, message))
    }

    pub(super) fn task_name(&self) -> String {
        format!("{:?}", self.task).to_lowercase()
    }

    /// Whether these are flags of the PyTorch program, which has other defaults.
    pub(super) fn is_torch(&self) -> bool {
        self.file_type.is_some() || self.model_name.is_some()
    }

    pub(super) fn model(&self) -> Model {
        let older = (!self.is_torch()).then_some(Model::Network3d);
        self.model_name.or(older).unwrap_or(Model::CommNet)
    }

    /// One landmark per agent: those given, else the first of the default ones.
    pub(super) fn landmarks(&self) -> Result<Vec<String>, Advice> {
        if !self.landmarks.is_empty() {
            if let Some(agents) = self.agents.filter(|n| *n != self.landmarks.len()) {
                let given = self.landmarks.len();
                let message = format!("--agents is {agents}, but --landmarks has {given}");
                let hint = "give one landmark per agent, or omit --agents";
                return Err(Advice::new(Exit::Usage, message).hint(hint));
            }
            return Ok(self.landmarks.clone());
        }
        let kind = self.file_type.unwrap_or(FileType::Brain);
        let (known, agents) = (default_landmarks(kind), self.agents.unwrap_or(2));
        let Some(first) = known.get(..agents).filter(|f| !f.is_empty()) else {
            let (count, kind) = (known.len(), format!("{kind:?}").to_lowercase());
            let message = format!("--agents {agents}: {kind} has {count} default landmarks");
            return Err(Advice::new(Exit::Usage, message).hint("give them with --landmarks"));
        };
        Ok(first.iter().map(ToString::to_string).collect())
    }

    pub(super) fn run_name(&self) -> Option<String> {
        self.name.clone().or_else(|| self.log_comment.clone())
    }
}
