//! The command lines of the original programs (`DQN.py --task train …`).
//!
//! They are translated into ours, printed, and executed. Flags that have no
//! equivalent are reported.

mod flags;
mod tensorflow;

use std::path::{Path, PathBuf};

use common::config::Config;
use common::imaging::file_list::ListFile;

use crate::output::failure::{Advice, Exit};
use flags::{Algorithm, FileType, Flags, Model, Task, TeamReward};

/// Our equivalent of an original command line, with notes for the user.
#[derive(Debug, Default, PartialEq)]
pub struct Translated {
    /// The arguments without the program's name.
    pub arguments: Vec<String>,
    /// Flags whose effect is smaller than or different from the original.
    pub notes: Vec<String>,
}

/// Whether this is a command line of the original programs.
pub fn is_original(arguments: &[String]) -> bool {
    let task = |a: &String| a == "--task" || a.starts_with("--task=");
    arguments.first().is_some_and(|a| a.starts_with("--")) && arguments.iter().any(task)
}

/// Translates the arguments that follow the program's name.
pub fn translate(arguments: &[String], cuda: bool) -> anyhow::Result<Translated> {
    use clap::Parser as _;
    let program = std::iter::once("landmarl".to_owned());
    let flags = Flags::parse_from(program.chain(arguments.iter().cloned()));
    let mut out = Translated::default();
    match flags.task {
        Task::Train => train(&flags, cuda, &mut out)?,
        Task::Eval => eval(&flags, &mut out)?,
        Task::Play => play(&flags, &mut out)?,
    }
    out.common(&flags);
    out.device(&flags, cuda);
    Ok(out)
}

impl Translated {
    fn add(&mut self, arguments: &[&str]) {
        let arguments = arguments.iter().map(ToString::to_string);
        self.arguments.extend(arguments);
    }

    fn set(&mut self, key: &str, value: impl std::fmt::Display) {
        self.add(&["--set", &format!("{key}={value}")]);
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn device(&mut self, flags: &Flags, cuda: bool) {
        let Some(gpu) = &flags.gpu else {
            return;
        };
        let first = gpu.split(',').next().unwrap_or_default();
        if cuda {
            self.add(&["--device", &format!("cuda:{first}")]);
        } else {
            self.note(format!("--gpu {gpu}: there is no GPU; using the CPU"));
            self.add(&["--device", "cpu"]);
        }
    }

    /// Flags that all tasks ignore.
    fn common(&mut self, flags: &Flags) {
        if flags.viz.is_some_and(|v| v > 0.0) {
            self.note("--viz: opens no window; pictures are written instead");
        }
        if flags.task == Task::Train && (flags.save_gif || flags.save_video) {
            self.note("--saveGif, --saveVideo: only --task eval and play write films");
        }
        let mut ignored = |value: Option<f64>, flag: &str, instead: &str| {
            if value.is_some() {
                self.note(format!("--{flag} is ignored: {instead}"));
            }
        };
        let f = flags;
        ignored(
            f.scheduler_gamma,
            "scheduler_gamma",
            "learner.lr_steps sets when the learning rate falls",
        );
        ignored(
            f.scheduler_step_size,
            "scheduler_step_size",
            "the learning rate falls over all updates",
        );
        ignored(
            f.target_update_freq,
            "target_update_freq",
            "learner.target_update_period counts updates, not episodes",
        );
        ignored(
            f.save_freq,
            "save_freq",
            "checkpoint.period counts updates, not episodes",
        );
        ignored(
            f.delta,
            "delta",
            "each actor slot has its own exploration: actor.epsilon_low, epsilon_high",
        );
    }
}

fn train(flags: &Flags, cuda: bool, out: &mut Translated) -> anyhow::Result<()> {
    if let Some(load) = &flags.load {
        let load = load.display();
        let message = format!("--task train --load {load}: training cannot start from weights");
        let hint = "continue a run with `landmarl train --resume RUN`";
        return Err(Advice::new(Exit::Usage, message).hint(hint).into());
    }
    let (images, landmarks) = flags.two_files("--files", &flags.files)?;
    out.add(&["train", "--train-images", images]);
    out.add(&["--train-landmarks", landmarks]);
    if !flags.val_files.is_empty() {
        let (images, landmarks) = flags.two_files("--val_files", &flags.val_files)?;
        out.add(&["--validation-images", images]);
        out.add(&["--validation-landmarks", landmarks]);
    }
    out.add(&["--landmarks", &flags.landmarks()?.join(",")]);
    if let Some(dir) = &flags.log_dir {
        out.add(&["--run-dir", &dir.display().to_string()]);
    }
    if let Some(name) = flags.run_name() {
        out.add(&["--name", &name]);
    }
    if let Some(resume) = &flags.resume {
        out.add(&["--resume", &resume.display().to_string()]);
    }
    network(flags, cuda, out);
    numbers(flags, out)?;
    rewards(flags, out)
}

/// The network and its scales.
fn network(flags: &Flags, cuda: bool, out: &mut Translated) {
    let kind = match flags.model() {
        Model::CommNet => "commnet",
        Model::Network3d => "collab",
    };
    out.set("network.kind", kind);
    if flags.attention {
        out.set("network.attention", true);
    }
    let (double, dueling) = match flags.algo {
        Algorithm::Dqn => (false, false),
        Algorithm::Double => (true, false),
        Algorithm::Dueling => (false, true),
        Algorithm::DuelingDouble => (true, true),
    };
    out.set("learner.double", double);
    if dueling {
        out.set("network.dueling", true);
    }
    if cuda {
        out.set("network.preset", "reference_torch");
        out.set("rules.window_size", 45);
        out.set("rules.history", 4);
        out.set("rules.scales", "[[3,9],[2,3],[1,1]]");
    } else {
        out.note("without a GPU, the small CPU network is trained; --set network.preset=reference_torch selects the published one");
    }
    if flags.is_torch() && !flags.multiscale {
        out.note("without --multiscale there is one scale with steps of one voxel");
        out.set("rules.scales", "[[1,1]]");
        out.set("actor.start_near_radius", "[6.0]");
    }
}

fn numbers(flags: &Flags, out: &mut Translated) -> anyhow::Result<()> {
    let whole = |flag: &str, value: f64| {
        let fine = value.fract() == 0.0 && (0.0..1e12).contains(&value);
        let message = format!("{flag} {value} is not a whole number");
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked"
        )]
        let number = fine.then_some(value as u64);
        number.ok_or_else(|| Advice::new(Exit::Usage, message))
    };
    let (rows, steps) = (flags.init_memory_size, flags.steps_per_episode);
    let counts = [
        ("--batch_size", flags.batch_size, "learner.batch"),
        ("--memory_size", flags.memory_size, "replay.capacity"),
        ("--init_memory_size", rows, "replay.min_rows"),
        ("--steps_per_episode", steps, "rules.max_steps"),
        ("--max_episodes", flags.max_episodes, "learner.max_episodes"),
        ("--seed", flags.seed, "run.seed"),
    ];
    for (flag, value, key) in counts {
        if let Some(value) = value {
            out.set(key, whole(flag, value)?);
        }
    }
    if let Some(gamma) = flags.discount {
        out.set("learner.gamma", gamma);
    }
    if let Some(lr) = flags.lr {
        out.set("learner.lr", lr);
    }
    let defaults = Config::defaults()?;
    #[expect(clippy::cast_precision_loss, reason = "a batch size")]
    let batch = flags.batch_size.unwrap_or(defaults.learner.batch as f64);
    let mut ratio = defaults.replay.samples_per_insert;
    // Rows sampled per row inserted: a batch every so many steps of each agent.
    if let Some(every) = flags.train_freq {
        ratio = (batch / every.max(1.0)).max(0.1);
        out.set("replay.samples_per_insert", ratio);
    }
    // Only the episodes limit the training: allow as many updates as their rows can give.
    if let Some(episodes) = flags.max_episodes {
        let steps = f64::from(defaults.rules.max_steps);
        let rows = episodes * flags.steps_per_episode.unwrap_or(steps);
        let updates = (rows * ratio / batch.max(1.0)).ceil().max(1.0);
        out.set("learner.updates", whole("--max_episodes", updates)?);
    }
    Ok(())
}

fn rewards(flags: &Flags, out: &mut Translated) -> anyhow::Result<()> {
    if let Some(number) = flags.reward_strategy {
        let all = common::environment::reward::RewardStrategy::ALL;
        let strategy = usize::from(number).checked_sub(1).and_then(|n| all.get(n));
        let Some(strategy) = strategy else {
            let message = format!("--reward_strategy {number}: valid are 1 to 6");
            return Err(Advice::new(Exit::Usage, message).into());
        };
        out.set("rules.strategy", serde_json::to_string(strategy)?);
    }
    match flags.team_reward {
        None | Some(TeamReward::None) => {}
        Some(TeamReward::Mean) => out.set("rules.team", "mean"),
        Some(TeamReward::Attention) => out.note(
            "--team_reward attention is ignored: it learns to change the reward until the loss is small; use --team_reward mean",
        ),
    }
    Ok(())
}

fn eval(flags: &Flags, out: &mut Translated) -> anyhow::Result<()> {
    let (images, landmarks) = flags.two_files("--files", &flags.files)?;
    let load = model(flags)?;
    out.add(&["eval", "--load", &load, "--images", images]);
    out.add(&["--landmarks-files", landmarks]);
    starts_and_outputs(flags, out)
}

fn play(flags: &Flags, out: &mut Translated) -> anyhow::Result<()> {
    let [images] = flags.files.as_slice() else {
        let message = "--task play takes one list: --files IMAGES";
        return Err(Advice::new(Exit::Usage, message).into());
    };
    let load = model(flags)?;
    let list = ListFile::read(Path::new(images));
    let list = list.map_err(|e| Advice::new(Exit::Data, e.to_string()))?;
    out.add(&["play", "--load", &load]);
    for scan in &list.entries {
        out.add(&[&scan.display().to_string()]);
    }
    starts_and_outputs(flags, out)
}

/// The options that eval and play share.
fn starts_and_outputs(flags: &Flags, out: &mut Translated) -> anyhow::Result<()> {
    if !flags.landmarks.is_empty() || flags.agents.is_some() || flags.file_type.is_some() {
        out.add(&["--landmarks", &flags.landmarks()?.join(",")]);
    }
    if flags.fixed_spawn.is_empty() {
        out.add(&["--protocol", "19"]);
    } else if flags.fixed_spawn.len().is_multiple_of(3) {
        for [x, y, z] in flags.fixed_spawn.as_chunks().0 {
            out.add(&["--start", &format!("{x},{y},{z}")]);
        }
    } else {
        let message = "--fixed_spawn takes three fractions for each start";
        return Err(Advice::new(Exit::Usage, message).into());
    }
    if let Some(steps) = flags.steps_per_episode {
        out.add(&["--max-steps", &steps.to_string()]);
    }
    let kinds = [(flags.save_gif, "gif"), (flags.save_video, "mp4")];
    let kinds: Vec<&str> = kinds.iter().filter(|k| k.0).map(|k| k.1).collect();
    if !kinds.is_empty() {
        out.add(&["--render", "all", "--film", &kinds.join(",")]);
    }
    let folder = flags.log_dir.as_deref().unwrap_or(Path::new("runs"));
    let folder = free(&folder.join(flags.run_name().unwrap_or_else(|| flags.task_name())));
    let csv = folder.join("results.csv").display().to_string();
    out.add(&["--out", &folder.display().to_string()]);
    out.add(&["--results-csv", &csv]);
    Ok(())
}

/// The folder, or the first numbered one without results: those of an earlier evaluation stay.
fn free(folder: &Path) -> PathBuf {
    let shown = folder.display();
    let numbered = (2..).map(|number| PathBuf::from(format!("{shown}-{number}")));
    let mut folders = std::iter::once(folder.to_owned()).chain(numbered.take(10_000));
    let found = folders.find(|folder| !folder.join("predictions.csv").exists());
    found.unwrap_or_else(|| folder.to_owned())
}

fn model(flags: &Flags) -> anyhow::Result<String> {
    let Some(load) = &flags.load else {
        let message = format!("--task {} needs --load MODEL", flags.task_name());
        return Err(Advice::new(Exit::Usage, message).into());
    };
    tensorflow::refuse(load)?;
    Ok(load.display().to_string())
}

/// rl-medical's default landmarks for a kind of scan.
fn default_landmarks(kind: FileType) -> &'static [&'static str] {
    match kind {
        FileType::Brain => &crate::input::weights::USUAL,
        FileType::Cardiac => &["4", "5"],
        FileType::Fetal => &["10", "11", "12"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_an_earlier_evaluation_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("eval");
        for name in ["eval", "eval-2"] {
            assert_eq!(free(&folder), dir.path().join(name));
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("predictions.csv"), "").unwrap();
        }
        assert_eq!(free(&folder), dir.path().join("eval-3"));
    }
}
