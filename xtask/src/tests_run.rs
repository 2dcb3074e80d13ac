//! Running the tests and saying what they skipped.

use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command;
use crate::libtorch;
use crate::workspace::Workspace;

/// Run the tests of the workspace and list what they skipped.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Test this crate only; may be given several times
    #[arg(short, long, value_name = "CRATE")]
    pub package: Vec<String>,
    /// Run the tests whose path contains this
    pub filter: Option<String>,
    /// Arguments for the test programs themselves
    #[arg(value_name = "TEST_ARGUMENTS", last = true)]
    pub harness: Vec<String>,
}

const EXAMPLES: &str = "Examples:
  cargo xtask test
  cargo xtask test -p common walk
  cargo xtask test -- --test-threads=1

Tests that lack something (real scans, a GPU) say `skipped: NAME: WHY`; these
lines are repeated at the end.";

/// `cargo xtask test`: ends with the exit code of `cargo test`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let code = execute(workspace, options)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Every test, for CI.
pub fn all(workspace: &Workspace) -> Result<()> {
    match execute(workspace, &Options::default())? {
        0 => Ok(()),
        code => bail!("cargo test ended with exit code {code}"),
    }
}

fn execute(workspace: &Workspace, options: &Options) -> Result<i32> {
    libtorch::ensure(workspace)?;
    let mut test = workspace.cargo("test --locked --no-fail-fast");
    test.args(options.package.is_empty().then_some("--workspace"));
    for package in &options.package {
        test.args(["--package", package]);
    }
    test.args(&options.filter)
        .args(["--", "--show-output"])
        .args(&options.harness);
    println!("$ {}", command::show(&test));
    let mut child = test
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo does not start")?;
    let mut transcript = Transcript::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("reading from cargo test failed")?;
            let line = String::from_utf8_lossy(&line);
            if transcript.take(&line) {
                println!("{line}");
            }
        }
    }
    let status = child.wait().context("cargo test cannot be waited for")?;
    println!("{}", transcript.summary());
    Ok(status.code().unwrap_or(1))
}

/// What the test programs print, read line by line. `--show-output` makes them
/// repeat what successful tests printed, which is hidden here except for what
/// was skipped.
#[derive(Debug, Default)]
struct Transcript {
    in_successes: bool,
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: Vec<String>,
}

impl Transcript {
    /// Takes in a line and says whether to show it.
    fn take(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ if line.starts_with("test result: ") => {
                self.in_successes = false;
                self.count(line);
            }
            _ => {}
        }
        if let Some(what) = line.strip_prefix("skipped: ") {
            self.skipped.push(what.to_owned());
        }
        !self.in_successes
    }

    /// Adds up `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
    fn count(&mut self, line: &str) {
        let counts = line.split_once(". ").map_or("", |(_, counts)| counts);
        for part in counts.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// The skipped tests and the sums; a skipped test passed, as cargo sees it.
    fn summary(&self) -> String {
        let mut text = String::new();
        for skipped in &self.skipped {
            text.push_str(&format!("skipped: {skipped}\n"));
        }
        let skips = self.skipped.len() as u64;
        let passed = self.passed.saturating_sub(skips);
        let skips = skips + self.ignored;
        text.push_str(&format!(
            "{passed} passed, {} failed, {skips} skipped",
            self.failed
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "
running 3 tests
test a ... ok
test b ... ok
test c ... FAILED

successes:

---- a stdout ----
chatter
skipped: a: ../shared/data is absent

successes:
    a
    b

failures:

---- c stdout ----
assertion failed

failures:
    c

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s

running 4 tests
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn output_of_passing_tests_is_hidden_and_skips_are_kept() {
        let mut transcript = Transcript::default();
        let shown: Vec<&str> = PRINTED
            .lines()
            .filter(|line| transcript.take(line))
            .collect();
        assert!(shown.contains(&"assertion failed") && shown.contains(&"test a ... ok"));
        assert!(!shown.contains(&"chatter") && !shown.contains(&"    b"));
        assert_eq!(
            transcript.summary(),
            "skipped: a: ../shared/data is absent\n4 passed, 1 failed, 2 skipped"
        );
    }

    #[test]
    fn nothing_run_is_said_as_such() {
        assert_eq!(
            Transcript::default().summary(),
            "0 passed, 0 failed, 0 skipped"
        );
    }
}
