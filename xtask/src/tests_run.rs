//! Running the tests and listing what they skipped.

use std::io::{Read as _, Seek as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::workspace::Workspace;
use crate::{command, libtorch};

/// Test programs that run at the same time. Each has a thread per core.
const SIDE_BY_SIDE: usize = 2;
/// The test program that takes longest, and its threads per core: most of its tests
/// start processes and wait for them.
const LONGEST: (&str, usize) = ("cli it", 2);
/// cargo's exit code for failed tests.
const FAILED: u8 = 101;

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
  cargo xtask test -p common episode
  cargo xtask test -- --test-threads=1

Test programs run side by side; what one prints appears when it ends. Tests that
lack something (real scans, a GPU) print `skipped: NAME: WHY`; these lines are
repeated at the end.";

/// A test program and its name.
type Program = (String, Command);

/// `cargo xtask test`: returns the exit code of `cargo test`.
pub fn run(workspace: &Workspace, options: &Options) -> Result<u8> {
    libtorch::ensure(workspace)?;
    let mut build = workspace.cargo("test --no-run --locked --tests");
    build.arg("--message-format=json-render-diagnostics");
    build.args(options.package.is_empty().then_some("--workspace"));
    for package in &options.package {
        build.args(["--package", package]);
    }
    println!("$ {}", command::show(&build));
    let built = build.stderr(Stdio::inherit()).output();
    let built = built.context("cannot start cargo")?;
    let code = built.status.code().unwrap_or(1);
    let mut code = u8::try_from(code).unwrap_or(1);
    let mut transcript = Transcript::default();
    if code == 0 {
        let artifacts = String::from_utf8(built.stdout).context("cargo printed invalid UTF-8")?;
        transcript = side_by_side(programs(workspace, &artifacts, options)?);
        code = if transcript.failed > 0 { FAILED } else { 0 };
    }
    println!("{}", transcript.summary());
    Ok(code)
}

/// The test programs that cargo built, as cargo would start them, and the examples
/// in documentation, for which cargo has to run.
fn programs(workspace: &Workspace, artifacts: &str, options: &Options) -> Result<Vec<Program>> {
    let mut examples = workspace.cargo("test --doc --locked --no-fail-fast");
    let mut documented = false;
    // The same packages as were built: others would have other features.
    examples.args(options.package.is_empty().then_some("--workspace"));
    let mut programs = Vec::new();
    for line in artifacts.lines() {
        let built: Value = serde_json::from_str(line).context("cargo printed no JSON")?;
        let manifest = Path::new(built["manifest_path"].as_str().unwrap_or_default());
        if built["profile"]["test"] != true {
            continue;
        }
        let folder = manifest.parent().unwrap_or(manifest);
        let (package, target) = (folder.file_name().unwrap_or_default(), &built["target"]);
        if target["doctest"] == true {
            documented = true;
            if !options.package.is_empty() {
                examples.arg("--package").arg(package);
            }
        }
        let mut program = Command::new(built["executable"].as_str().unwrap_or_default());
        program.env("CARGO_MANIFEST_DIR", folder);
        program.current_dir(folder);
        let target = target["name"].as_str().unwrap_or_default();
        programs.push((format!("{} {target}", package.display()), program));
    }
    // Integration tests take longest.
    programs.sort_by_key(|(name, _)| (name != LONGEST.0, !name.ends_with(" it")));
    programs.extend(documented.then(|| ("documentation".to_owned(), examples)));
    for (name, program) in &mut programs {
        program.args(&options.filter);
        program.args((name == "documentation").then_some("--"));
        if name == LONGEST.0 && std::env::var_os("RUST_TEST_THREADS").is_none() {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            program.env("RUST_TEST_THREADS", (LONGEST.1 * cores).to_string());
        }
        program.arg("--show-output").args(&options.harness);
    }
    Ok(programs)
}

/// Runs all programs and prints the output of each when it has ended.
fn side_by_side(programs: Vec<Program>) -> Transcript {
    let queue = Mutex::new(programs.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let transcript = Mutex::new(Transcript::default());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some((name, mut program)) = next() {
                    println!("-- {name}: started");
                    let started = Instant::now();
                    let (end, output) = match capture(&mut program) {
                        Ok((status, output)) if status.success() => (None, output),
                        Ok((status, output)) => (Some(status.to_string()), output),
                        Err(error) => (Some(format!("{error:#}")), String::new()),
                    };
                    let seconds = started.elapsed().as_secs_f64();
                    let mut all = transcript.lock().unwrap_or_else(PoisonError::into_inner);
                    println!("== {name}: {seconds:.1} s");
                    all.program(&output, end.as_deref());
                }
            });
        }
    });
    let transcript = transcript.into_inner();
    transcript.unwrap_or_else(PoisonError::into_inner)
}

/// Standard output and error in one text, in their order.
fn capture(program: &mut Command) -> Result<(ExitStatus, String)> {
    let mut file = tempfile::tempfile().context("cannot create a temporary file")?;
    program.stdout(file.try_clone()?).stderr(file.try_clone()?);
    let status = program.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start {}", command::show(program)))?;
    let mut output = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut output)?;
    Ok((status, String::from_utf8_lossy(&output).into_owned()))
}

/// The output of the test programs, read line by line. `--show-output` makes them
/// repeat the output of successful tests, of which only skips are shown.
#[derive(Debug, Default)]
struct Transcript {
    in_successes: bool,
    passed: u64,
    failed: u64,
    ignored: u64,
    /// The test whose output is repeated.
    test: String,
    /// The test that printed the last of `skipped`, and the number of such tests.
    last_skip: String,
    skips: u64,
    skipped: Vec<String>,
}

impl Transcript {
    /// Adds the output of a program and shows it; `end` is how it failed, if it did.
    fn program(&mut self, output: &str, end: Option<&str>) {
        let failed = self.failed;
        for line in output.lines() {
            if self.read(line) {
                println!("{line}");
            }
        }
        if let Some(end) = end {
            println!("{end}");
            // A program that was killed counts no failures.
            self.failed = self.failed.max(failed + 1);
        }
        self.in_successes = false;
        self.test.clear();
        self.last_skip.clear();
    }

    /// Reads a line and returns whether to show it.
    fn read(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.in_successes = true,
            "failures:" => self.in_successes = false,
            _ if line.starts_with("test result: ") => {
                self.in_successes = false;
                self.count(line);
            }
            _ => {}
        }
        let header = line.strip_prefix("---- ");
        if let Some(test) = header.and_then(|test| test.strip_suffix(" stdout ----")) {
            self.test = test.to_owned();
        }
        if let Some(what) = line.strip_prefix("skipped: ") {
            self.skip(what);
        }
        !self.in_successes
    }

    /// A test may print several lines and counts once. With `--nocapture` no header
    /// names it, but the line does.
    fn skip(&mut self, what: &str) {
        self.skipped.push(format!("skipped: {what}\n"));
        let named = what.split_once(": ").map_or(what, |(name, _)| name);
        let test: &str = Some(&*self.test)
            .filter(|test| !test.is_empty())
            .unwrap_or(named);
        if self.last_skip != test {
            self.skips += 1;
            self.last_skip = test.to_owned();
        }
    }

    /// Adds up `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
    fn count(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        for pair in words.windows(2) {
            let number: u64 = pair[0].parse().unwrap_or(0);
            match pair[1] {
                "passed;" => self.passed += number,
                "failed;" => self.failed += number,
                "ignored;" => self.ignored += number,
                _ => {}
            }
        }
    }

    /// The skipped tests and the sums; a skipped test passed, as cargo sees it.
    fn summary(&self) -> String {
        let passed = self.passed.saturating_sub(self.skips);
        let (failed, skipped) = (self.failed, self.skips + self.ignored);
        let lines = self.skipped.concat();
        format!("{lines}{passed} passed, {failed} failed, {skipped} skipped")
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
skipped: `data` of a: ../shared/data is absent

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
        let lines = PRINTED.lines();
        let shown: Vec<&str> = lines.filter(|line| transcript.read(line)).collect();
        assert!(shown.contains(&"assertion failed") && shown.contains(&"test a ... ok"));
        assert!(!shown.contains(&"chatter") && !shown.contains(&"    b"));
        assert_eq!(
            transcript.summary(),
            "skipped: a: ../shared/data is absent\n\
             skipped: `data` of a: ../shared/data is absent\n\
             4 passed, 1 failed, 2 skipped"
        );
    }

    #[test]
    fn a_program_that_is_killed_has_failed() {
        let mut transcript = Transcript::default();
        assert_eq!(transcript.summary(), "0 passed, 0 failed, 0 skipped");
        let both = "echo out; echo err >&2; exit 3";
        for (script, failed) in [("echo ok", 0), (both, 1), ("kill -9 $$", 2)] {
            let mut program = Command::new("sh");
            program.args(["-c", script]);
            let (status, output) = capture(&mut program).unwrap();
            if status.code() == Some(3) {
                assert_eq!(output, "out\nerr\n");
            }
            let end = (!status.success()).then(|| status.to_string());
            transcript.program(&output, end.as_deref());
            assert_eq!(transcript.failed, failed);
        }
    }

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let line = |package: &str, target: &str, test: bool| {
            serde_json::json!({
                "manifest_path": format!("/x/{package}/Cargo.toml"),
                "target": {"name": target, "doctest": target == package},
                "profile": {"test": test}, "executable": format!("/t/{target}"),
            })
            .to_string()
        };
        let lines = [
            line("common", "common", false),
            line("common", "common", true),
            line("cli", "it", true),
            "{\"reason\":\"build-finished\"}".to_owned(),
        ];
        let options = Options {
            filter: Some("episode".into()),
            ..Options::default()
        };
        let found = programs(&Workspace::find().unwrap(), &lines.join("\n"), &options).unwrap();
        let show = |(name, program): &Program| format!("{name}: {}", command::show(program));
        let shown: Vec<String> = found.iter().map(show).collect();
        assert_eq!(
            shown,
            [
                "cli it: /t/it episode --show-output",
                "common common: /t/common episode --show-output",
                "documentation: cargo test --doc --locked --no-fail-fast --workspace episode -- --show-output",
            ]
        );
    }
}
