//! `cargo xtask`: landmarl's own tasks. Nothing here links libtorch, because
//! installing libtorch is one of the tasks.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task runner reports to the person who started it"
)]

mod attack;
mod bench;
mod ci;
mod cluster;
mod command;
mod demo;
mod dist;
mod files;
mod libtorch;
mod study;
mod tests_run;
mod venv;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

/// landmarl's tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "Examples:
  cargo xtask setup                 install libtorch for this user, link it in this clone
  cargo xtask test                  every test of the workspace
  cargo xtask ci --only clippy      one of the checks that CI makes
  cargo xtask demo --seed 7         train on synthetic scans and evaluate the result
  cargo xtask study configs/studies/bootstrap.toml   compare settings over seeds
  cargo xtask bench eval            time per step against a PyTorch loop
  cargo xtask bench replay          rows per second of the replay service, against its peers
  cargo xtask attack                attacks on the services, with honest clients beside them
  cargo xtask dist                  the release: programs, libtorch, presets
  cargo xtask cluster docker        the test of a cluster in containers";

#[derive(Debug, Subcommand)]
enum Task {
    /// Install libtorch once per user and link it as .libtorch in this clone
    Setup(libtorch::Options),
    /// Run the tests of the workspace and list what they skipped
    Test(tests_run::Options),
    /// Run every check that CI runs, in its order
    Ci(ci::Options),
    /// Make phantom scans, train on them and evaluate on unseen ones
    Demo(demo::Options),
    /// Train the variants of a study with several seeds and compare their errors
    Study(study::Options),
    /// Measure landmarl and its alternatives
    Bench(bench::Options),
    /// Attack the services and see that they stay small, durable and reachable
    Attack(attack::Options),
    /// Build the programs and make dist/landmarl-VERSION-TARGET/{bin,lib,configs}
    Dist(dist::Options),
    /// Train on a cluster while actors, shards, disks and networks fail
    Cluster(cluster::Options),
    /// Check the Dockerfile, the compose files and the Kubernetes manifests
    Manifests,
}

fn main() -> ExitCode {
    run(Cli::parse().task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup(options) => libtorch::setup(&workspace, &options)?,
        Task::Test(options) => return Ok(tests_run::run(&workspace, &options)?.into()),
        Task::Ci(options) => ci::run(&workspace, &options)?,
        Task::Demo(options) => demo::run(&workspace, &options)?,
        Task::Study(options) => study::run(&workspace, &options)?,
        Task::Bench(options) => bench::run(&workspace, &options)?,
        Task::Attack(options) => attack::run(&workspace, &options)?,
        Task::Dist(options) => dist::run(&workspace, &options)?,
        Task::Cluster(options) => cluster::run(&workspace, &options)?,
        Task::Manifests => ci::manifests::run(&workspace)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn test_arguments_reach_the_right_program() {
        let line = "xtask test -p common -p proto episode -- --test-threads=1";
        let Task::Test(options) = Cli::parse_from(line.split(' ')).task else {
            panic!("not the test task");
        };
        assert_eq!(options.package, ["common", "proto"]);
        assert_eq!(options.filter.as_deref(), Some("episode"));
        assert_eq!(options.harness, ["--test-threads=1"]);
    }
}
