//! Checks, speed and training on a GPU: built here, run by `bench/gpu.sh`, here
//! or on a machine without Rust.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::workspace::Workspace;
use crate::{command, files, libtorch};

/// What `bench/gpu.sh` starts, and where a release build leaves it.
const PROGRAMS: [(&str, &str); 3] = [
    ("landmarl", "release/landmarl"),
    ("updates", "release/examples/updates"),
    ("device_check", "release/examples/device_check"),
];
/// `bench/gpu.sh`, and what else of `bench/` it starts.
const SCRIPTS: [&str; 2] = ["bench/gpu.sh", "bench/learner_loop.py"];

/// Checks, speed and training on a GPU with bench/gpu.sh, or a folder to carry
/// to a GPU machine that has no Rust.
///
/// The binaries are those for CPUs; they load the CUDA part of libtorch from
/// the folder of Python's torch.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Only make DIR, with bin/, bench/ and configs/
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data", "out", "python", "parts"])]
    pack: Option<PathBuf>,
    /// Folder with mouse/train and mouse/val
    #[arg(long, default_value = "../shared/data", value_name = "DIR")]
    data: PathBuf,
    /// Folder for logs and results (gpu/out in cargo's build folder unless given)
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A Python with the CUDA build of torch 2.11, and numpy
    #[arg(long, default_value = "python3", value_name = "FILE")]
    python: PathBuf,
    /// checks, speed, train; all unless given
    #[arg(value_name = "PART")]
    parts: Vec<String>,
}

const EXAMPLES: &str = "Examples:
  cargo xtask bench gpu --python venv/bin/python
  cargo xtask bench gpu --python venv/bin/python checks speed
  cargo xtask bench gpu --pack carry      then, there: carry/bench/gpu.sh carry/bin DATA_DIR OUT_DIR

bench/gpu.sh without arguments lists the variables that it reads, such as MINUTES of training.";

/// `cargo xtask bench gpu`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    libtorch::ensure(workspace)?;
    workspace.build("-p cli")?;
    let target = workspace.build("-p learner --example updates --example device_check")?;
    if let Some(folder) = &options.pack {
        let folder = std::path::absolute(folder)?;
        copy_programs(&target, &folder.join("bin"))?;
        files::create_folder(&folder.join("bench"))?;
        for script in SCRIPTS {
            files::copy(&workspace.root.join(script), &folder.join(script))?;
        }
        files::copy_files(&workspace.root.join("configs"), &folder.join("configs"))?;
        println!("packed: {}", folder.display());
        return Ok(());
    }
    let bin = target.join("gpu/bin");
    copy_programs(&target, &bin)?;
    let out = options.out.clone();
    let out = out.unwrap_or_else(|| target.join("gpu/out"));
    let mut script = workspace.command("bash");
    script.arg(workspace.root.join("bench/gpu.sh")).arg(bin);
    script.arg(&options.data).arg(out);
    script.args(&options.parts).env("PYTHON", &options.python);
    command::run(&mut script)
}

fn copy_programs(target: &Path, bin: &Path) -> Result<()> {
    files::create_folder(bin)?;
    for (name, built) in PROGRAMS {
        files::copy_program(&target.join(built), &bin.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_not_built_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path();
        let error = copy_programs(target, &target.join("bin")).unwrap_err();
        assert!(error.to_string().contains("release/landmarl"), "{error}");
    }
}
