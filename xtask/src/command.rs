//! Running other programs.

use std::ffi::OsStr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// `program` with the arguments in `line`, which are separated by spaces.
pub fn new(program: impl AsRef<OsStr>, line: &str) -> Command {
    let mut command = Command::new(program);
    command.args(line.split_whitespace());
    command
}

/// Prints the command line, runs it with our own standard output and error,
/// and fails when it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let line = show(command);
    println!("$ {line}");
    let status = command.status();
    let status = status.with_context(|| format!("cannot start `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}

/// As [`run`], and prints `note` if the command takes longer than `usually`.
pub fn run_noting(command: &mut Command, usually: Duration, note: &str) -> Result<()> {
    let line = show(command);
    println!("$ {line}");
    let failed = || format!("cannot start `{line}`");
    let mut child = command.spawn().with_context(failed)?;
    let began = Instant::now();
    let mut noted = false;
    let status = loop {
        if let Some(status) = child.try_wait().with_context(failed)? {
            break status;
        }
        if !noted && began.elapsed() >= usually {
            noted = true;
            println!("{note}");
        }
        std::thread::sleep(LOOK_EVERY);
    };
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}

/// Runs quietly and returns what was printed on standard output.
pub fn read(command: &mut Command) -> Result<String> {
    let line = show(command);
    let output = command.output();
    let output = output.with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed ({}): {}", output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed invalid UTF-8"))
}

/// A command as a person would type it.
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<String> = words.map(|word| quote(&word.to_string_lossy())).collect();
    quoted.join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_commands_can_be_pasted() {
        let mut command = new("landmarl", "train --set");
        command.args(["run.dir=a b", "it's", ""]);
        let expected = r"landmarl train --set 'run.dir=a b' 'it'\''s' ''";
        assert_eq!(show(&command), expected);
    }

    #[test]
    fn a_failure_names_the_command_and_its_errors() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo broken >&2; exit 3"]);
        let error = read(&mut command).unwrap_err().to_string();
        for words in ["exit 3", "broken"] {
            assert!(error.contains(words), "{error}");
        }
    }
}
