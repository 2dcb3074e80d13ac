//! What CI checks, in its order: quick checks first.

mod deny;
pub mod manifests;
mod tidy;
mod tree;
mod vectors;

use std::time::Instant;

use anyhow::{Context, Result, bail};
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
    /// A short training on phantoms that must beat the mean-position baseline
    Demo,
    /// Dockerfile, compose files and Kubernetes manifests, by the tools that read them
    Manifests,
    /// A cluster in containers while its parts fail
    Cluster,
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self, workspace: &Workspace) -> Result<()> {
        let cargo = |line: &str| -> Result<()> {
            libtorch::ensure(workspace)?;
            let mut command = workspace.cargo(line);
            // Only `cargo doc` reads it.
            command::run(command.env("RUSTDOCFLAGS", "-D warnings"))
        };
        let short_demo = demo::Options {
            seed: 1,
            out: "demo-ci".into(),
            ci: true,
        };
        match self {
            Self::Fmt => command::run(&mut workspace.cargo("fmt --all --check")),
            Self::Tidy => tidy::run(workspace),
            Self::Tree => tree::run(workspace),
            Self::Deny => deny::run(workspace),
            Self::Clippy => cargo("clippy --workspace --all-targets --locked -- -D warnings"),
            Self::Doc => cargo("doc --workspace --no-deps --locked"),
            Self::Test => match tests_run::run(workspace, &tests_run::Options::default())? {
                0 => Ok(()),
                code => bail!("the tests ended with exit code {code}"),
            },
            Self::Vectors => vectors::run(workspace),
            Self::Demo => demo::run(workspace, &short_demo),
            Self::Manifests => manifests::run(workspace),
            Self::Cluster => cluster::for_ci(workspace),
        }
    }
}

/// `cargo xtask ci`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let begun = Instant::now();
    let mut parts = Vec::new();
    for step in chosen(options) {
        let name = step.name();
        println!("== {name}");
        let started = Instant::now();
        step.run(workspace).with_context(|| {
            format!("step {name} failed; again alone: cargo xtask ci --only {name}")
        })?;
        let took = seconds(started);
        println!("== {name}: ok in {took}\n");
        parts.push(format!("{name} {took}"));
    }
    println!("ci: all ok in {} ({})", seconds(begun), parts.join(", "));
    Ok(())
}

fn chosen(options: &Options) -> Vec<Step> {
    let only = |step: &Step| options.only.is_empty() || options.only.contains(step);
    let wanted = |step: &Step| only(step) && !options.skip.contains(step);
    let all = Step::value_variants().iter().copied();
    all.filter(wanted).collect()
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
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
