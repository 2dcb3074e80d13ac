//! What CI checks, in its order: quick checks first.

mod deny;
pub mod manifests;
mod tidy;
mod tree;
mod vectors;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::workspace::Workspace;
use crate::{cluster, command, demo, libtorch, tests_run};

/// Run every check that CI runs, in its order, up to the first that fails.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Run this step only; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<Step>,
    /// Leave this step out; may be given several times
    #[arg(long, value_name = "STEP", hide_possible_values = true)]
    skip: Vec<Step>,
}

const EXAMPLES: &str = "Examples:
  cargo xtask ci
  cargo xtask ci --only fmt --only clippy
  cargo xtask ci --skip demo
  LANDMARL_ADVISORIES=1 cargo xtask ci --only deny    security advisories too";

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// The formatting, by rustfmt
    Fmt,
    /// The project's own rules: sizes, documentation, nothing unfinished
    Tidy,
    /// Which crates may depend on what
    Tree,
    /// Licences, bans and sources of dependencies
    Deny,
    /// Lints, as errors
    Clippy,
    /// Documentation, warnings as errors
    Doc,
    /// Every test
    Test,
    /// Numeric tests with fewer vector instructions than this CPU has
    Vectors,
    /// A short training on phantoms that must beat the constant guess
    Demo,
    /// Dockerfile, compose files and Kubernetes manifests, by the tools that read them
    Manifests,
    /// A cluster in containers, while its parts fail
    Cluster,
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn needs_libtorch(self) -> bool {
        matches!(
            self,
            Self::Clippy | Self::Doc | Self::Test | Self::Vectors | Self::Demo | Self::Cluster
        )
    }

    fn run(self, workspace: &Workspace) -> Result<()> {
        if self.needs_libtorch() {
            libtorch::ensure(workspace)?;
        }
        let cargo = |line: &str| command::run(&mut workspace.cargo(line));
        match self {
            Self::Fmt => cargo("fmt --all --check"),
            Self::Tidy => tidy::run(workspace),
            Self::Tree => tree::run(workspace),
            Self::Deny => deny::run(workspace),
            Self::Clippy => cargo("clippy --workspace --all-targets --locked -- -D warnings"),
            Self::Doc => {
                let mut doc = workspace.cargo("doc --workspace --no-deps --locked");
                command::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
            }
            Self::Test => tests_run::all(workspace),
            Self::Vectors => vectors::run(workspace),
            Self::Demo => demo::run(workspace, &demo::Options::for_ci()),
            Self::Manifests => manifests::run(workspace),
            Self::Cluster => cluster::for_ci(workspace),
        }
    }
}

/// `cargo xtask ci`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut took = Vec::new();
    for step in chosen(options) {
        let name = step.name();
        println!("== {name}");
        let started = Instant::now();
        step.run(workspace).with_context(|| {
            format!("step {name} failed; again alone: cargo xtask ci --only {name}")
        })?;
        println!("== {name}: ok in {}\n", seconds(started.elapsed()));
        took.push((name, started.elapsed()));
    }
    let total = took.iter().map(|(_, time)| *time).sum();
    let parts: Vec<String> = took
        .iter()
        .map(|(name, time)| format!("{name} {}", seconds(*time)))
        .collect();
    println!("ci: all ok in {} ({})", seconds(total), parts.join(", "));
    Ok(())
}

fn chosen(options: &Options) -> Vec<Step> {
    let wanted = |step: &Step| options.only.is_empty() || options.only.contains(step);
    let all = Step::value_variants().iter().copied();
    all.filter(wanted)
        .filter(|step| !options.skip.contains(step))
        .collect()
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_and_skip_choose_steps_in_order() {
        let options = |only: &[Step], skip: &[Step]| Options {
            only: only.into(),
            skip: skip.into(),
        };
        assert_eq!(chosen(&options(&[], &[])), Step::value_variants());
        let two = [Step::Test, Step::Fmt];
        assert_eq!(chosen(&options(&two, &[])), [Step::Fmt, Step::Test]);
        assert_eq!(chosen(&options(&two, &[Step::Test])), [Step::Fmt]);
    }

    #[test]
    fn the_hint_names_the_step_as_the_option_takes_it() {
        for step in Step::value_variants() {
            assert_eq!(Step::from_str(&step.name(), false), Ok(*step));
        }
    }
}
