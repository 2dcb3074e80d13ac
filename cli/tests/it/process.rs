//! Runs the real binary.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Interval between two checks of a condition.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The command that generates the phantoms of [`Bench::phantoms`].
pub const PHANTOMS: &str =
    "phantom --out data --train 2 --validation 1 --test 1 --size 48x56x48 --seed 3";

thread_local! {
    /// Error output of all failures in this test; each test has its own thread.
    static ERRORS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Compares a text with the snapshot of that name.
///
/// After an intended change: `INSTA_UPDATE=always cargo test -p cli`, and read
/// the difference.
pub fn check_snapshot(name: &str, text: &str) {
    insta::with_settings!({
        snapshot_path => "../snapshots",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(name, text);
    });
}

/// Compares the error output of all failures in this test with the snapshot.
pub fn check_error_snapshot(name: &str) {
    let errors = ERRORS.take();
    assert!(!errors.is_empty(), "nothing failed");
    check_snapshot(&format!("errors-{name}"), &errors.join("\n"));
}

/// A temporary folder in which the binary runs.
pub struct Bench {
    pub dir: tempfile::TempDir,
}

/// The result of a command.
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Bench {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Arguments as on a command line, separated by spaces.
    pub fn run(&self, line: &str) -> Done {
        finish(self.command(line).output().unwrap())
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landmarl"));
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path());
        // Keep the cache of preprocessed volumes in the folder of the test.
        command
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("CI", "1");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LANDMARL_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs the command, expects success, returns its output.
    pub fn succeed(&self, line: &str) -> Done {
        let done = self.run(line);
        assert_eq!(done.code, Some(0), "{line}\n{}\n{}", done.out, done.err);
        done
    }

    /// Runs the command, expects success, parses its output.
    pub fn json(&self, line: &str) -> Value {
        parse(&self.succeed(line).out)
    }

    /// The content of a text file.
    pub fn text(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Calls [`Bench::fail`] for each line of a table: `CODE COMMAND => WORDS | WORDS`.
    pub fn failures(&self, table: &str) {
        for case in table.trim().lines() {
            let (command, words) = case.split_once(" => ").unwrap();
            let (code, line) = command.trim().split_once(' ').unwrap();
            let words: Vec<&str> = words.split(" | ").collect();
            self.fail(line, code.parse().unwrap(), &words);
        }
    }

    /// Runs the command, expects one clear error that contains all of `words`.
    pub fn fail(&self, line: &str, code: i32, words: &[&str]) -> Done {
        let done = self.run(line);
        assert_eq!(done.code, Some(code), "{line}\n{}\n{}", done.out, done.err);
        let errors: Vec<&str> = done
            .err
            .lines()
            .filter(|l| l.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{line}\n{}", done.err);
        // A log line before the error may also contain "error: ".
        let begins = |at: usize| at == 0 || done.err.as_bytes()[at - 1] == b'\n';
        let mut places = done.err.match_indices("error: ").map(|(at, _)| at);
        let message = &done.err[places.find(|&at| begins(at)).unwrap()..];
        assert_contains(message, &words.join(" | "));
        assert!(!done.err.contains("panicked"), "{}", done.err);
        let here = self.dir.path().display().to_string();
        let message = without_chance(&message.replace(&here, "HERE"));
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let entry = format!("$ landmarl {line}\n{message}exit code {code}\n");
        ERRORS.with_borrow_mut(|errors| errors.push(entry));
        assert_eq!(done.out, "", "data went to standard output beside an error");
        done
    }

    /// Writes tiny phantoms, generated once for all tests: `data/{train,validation,test}`.
    pub fn phantoms(&self) {
        static FILES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
            let bench = Bench::new();
            bench.succeed(PHANTOMS);
            let names = files_below(bench.dir.path()).into_iter();
            let content = |name: String| (name.clone(), std::fs::read(bench.path(&name)).unwrap());
            names.map(content).collect()
        });
        for (name, bytes) in FILES.iter() {
            self.write(name, bytes);
        }
    }
}

/// Replaces times and digests, which differ between runs or settings, by words.
fn without_chance(text: &str) -> String {
    let word = |word: &str| {
        let digits = |word: &str| word.chars().all(|c| c.is_ascii_digit());
        let hex = word.len() == 12 && word.chars().all(|c| c.is_ascii_hexdigit());
        let time = word.len() == 17 && word.split('-').count() == 4 && word.split('-').all(digits);
        match (hex, time) {
            (true, _) => "DIGEST".to_owned(),
            (_, true) => "TIME".to_owned(),
            _ => word.to_owned(),
        }
    };
    let part = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    text.split_inclusive(part)
        .map(|piece| {
            let end = piece.trim_end_matches(part);
            word(end) + &piece[end.len()..]
        })
        .collect()
}

pub fn finish(output: Output) -> Done {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Checks that a text contains each of these words, which are separated by ` | `.
#[track_caller]
pub fn assert_contains(text: &str, words: &str) {
    for word in words.split(" | ") {
        assert!(text.contains(word), "\"{word}\" is not in\n{text}");
    }
}

/// Calls `attempt` until it returns a value; fails with its last error after the timeout.
#[track_caller]
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> T {
    let begin = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(state) => assert!(begin.elapsed() < within, "timeout: {what}\n{state}"),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[track_caller]
pub fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

pub fn json(path: &Path) -> Value {
    parse(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// The values of a file with one JSON value per line.
pub fn json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(parse).collect()
}

/// Names of the files in a folder, sorted.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Paths of all files below a folder, relative to it and sorted.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for name in names_in(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            let below = files_below(&path).into_iter();
            found.extend(below.map(|file| format!("{name}/{file}")));
        } else {
            found.push(name);
        }
    }
    found
}
