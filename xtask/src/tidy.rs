//! The rules of the house that no other tool checks.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::rust_source::{code_only, functions};

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;
/// Written by a program, so its size is nobody's choice.
const GENERATED: &str = "proto/src/gen";
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

/// Prints every broken rule below `root` and fails if there is one.
pub fn run(root: &Path) -> Result<()> {
    let findings = check(root)?;
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} broken rules of the house, listed above", findings.len());
    }
    println!("tidy: nothing to complain about");
    Ok(())
}

fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for path in files(root)? {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let relevant = ["rs", "toml", "proto", "py", "sh", "yaml", "yml", "md"];
        if !extension.is_some_and(|extension| relevant.contains(&extension)) {
            continue;
        }
        let whole = root.join(&path);
        let text = fs::read_to_string(&whole)
            .with_context(|| format!("{} cannot be read", whole.display()))?;
        unfinished(&path, &text, &mut findings);
        match extension {
            Some("rs") if !path.starts_with(GENERATED) => rust(&path, &text, &mut findings),
            Some("toml") => toml(&path, &text, &mut findings),
            _ => {}
        }
    }
    Ok(findings)
}

/// Every file below `root`, relative to it and sorted, but for links, hidden
/// folders and what programs made.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let whole = root.join(&folder);
        let entries = fs::read_dir(&whole)
            .with_context(|| format!("{} cannot be listed", whole.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let path = folder.join(&name);
            let kind = entry.file_type()?;
            let hidden = name.to_string_lossy().starts_with('.') && name != ".cargo";
            let made = entry.path().join("CACHEDIR.TAG").exists()
                || (folder.as_os_str().is_empty()
                    && ["target", "runs", "demo", "dist"]
                        .iter()
                        .any(|n| name == *n));
            if kind.is_dir() && !hidden && !made {
                folders.push(path);
            } else if kind.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn unfinished(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if let Some(word) = words.find(|word| UNFINISHED.contains(word)) {
            let what = format!("{word}: finish it, or write down why it is as it is");
            findings.push(Finding {
                path: path.to_path_buf(),
                line: index + 1,
                what,
            });
        }
    }
}

fn rust(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    let mut add = |line, what| {
        findings.push(Finding {
            path: path.to_path_buf(),
            line,
            what,
        });
    };
    let lines = text.lines().count();
    if lines > FILE_LINES {
        add(
            FILE_LINES + 1,
            format!("the file has {lines} lines, limit {FILE_LINES}: split it"),
        );
    }
    if is_module(path) && !text.starts_with("//!") {
        add(
            1,
            "the file does not start with `//!`: say in a sentence what it is".to_owned(),
        );
    }
    let code = code_only(text);
    for (index, line) in code.lines().enumerate() {
        let dense: String = line.split_whitespace().collect();
        if dense.contains("#[ignore") {
            add(
                index + 1,
                "an ignored test: run it, or remove it".to_owned(),
            );
        }
        if dense.contains(concat!("to", "do!(")) || dense.contains("unimplemented!(") {
            add(index + 1, "unfinished code".to_owned());
        }
    }
    for function in functions(&code) {
        let lines = function.lines();
        if lines > FUNCTION_LINES {
            let name = &function.name;
            add(
                function.first,
                format!("fn {name} has {lines} lines, limit {FUNCTION_LINES}"),
            );
        }
    }
}

/// Sources that are included into others by text cannot hold `//!`; ours lie
/// beside the folders that cargo looks into.
fn is_module(path: &Path) -> bool {
    let in_folder = |name: &str| path.components().any(|part| part.as_os_str() == name);
    ["src", "tests", "benches", "examples"]
        .into_iter()
        .any(in_folder)
        || path.file_name().is_some_and(|name| name == "build.rs")
}

fn toml(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    let mut add = |line, what| {
        findings.push(Finding {
            path: path.to_path_buf(),
            line,
            what,
        });
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            let start = error.span().map_or(0, |span| span.start);
            let line = text
                .get(..start)
                .map_or(1, |before| before.matches('\n').count() + 1);
            return add(line, format!("not TOML: {}", error.message()));
        }
    };
    let is_crate = path.file_name().is_some_and(|name| name == "Cargo.toml");
    if is_crate && table.contains_key("package") {
        let shared = table.get("lints").and_then(|lints| lints.get("workspace"));
        if shared.and_then(toml::Value::as_bool) != Some(true) {
            add(1, "the crate lacks `[lints] workspace = true`".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust_findings(path: &str, text: &str) -> Vec<(usize, String)> {
        let mut findings = Vec::new();
        unfinished(Path::new(path), text, &mut findings);
        rust(Path::new(path), text, &mut findings);
        findings
            .into_iter()
            .map(|finding| (finding.line, finding.what))
            .collect()
    }

    #[test]
    fn clean_code_passes() {
        let text = "//! A noun.\nfn a() {\n    let not_a_todo = \"#[ignore]\";\n}\n";
        assert_eq!(rust_findings("x/src/a.rs", text), []);
        assert_eq!(rust_findings("model/link.rs", "// Included.\n"), []);
    }

    #[test]
    fn each_rule_names_the_line() {
        let long = format!("//! Long.\nfn long() {{\n{}}}\n", "    x();\n".repeat(69));
        let high = format!("//! High.\n{}", "// line\n".repeat(500));
        let unfinished = concat!("//! Doc.\n// TO", "DO later\n");
        let panics = concat!("//! Doc.\n\nfn a() { to", "do!() }\n");
        let cases = [
            (long.as_str(), 2, "limit 70"),
            (high.as_str(), 501, "limit 500"),
            ("fn a() {}\n", 1, "//!"),
            (unfinished, 2, "finish it"),
            (panics, 3, "unfinished"),
            (
                "//! Doc.\n\n#[test]\n#[ignore = \"slow\"]\nfn a() {}\n",
                4,
                "ignored",
            ),
        ];
        for (text, line, what) in cases {
            let found = rust_findings("x/src/a.rs", text);
            assert_eq!(found.len(), 1, "{what}: {found:?}");
            assert!(found[0].0 == line && found[0].1.contains(what), "{found:?}");
        }
    }

    #[test]
    fn limits_themselves_are_allowed() {
        let long = format!("//! Long.\nfn long() {{\n{}}}\n", "    x();\n".repeat(68));
        assert_eq!(rust_findings("x/src/a.rs", &long), []);
        let high = format!("//! High.\n{}", "// line\n".repeat(499));
        assert_eq!(rust_findings("x/src/a.rs", &high), []);
    }

    #[test]
    fn manifests_and_configs_are_parsed() {
        let mut findings = Vec::new();
        let good = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n";
        toml(Path::new("a/Cargo.toml"), good, &mut findings);
        toml(Path::new("Cargo.toml"), "[workspace]\n", &mut findings);
        toml(Path::new("configs/a.toml"), "a = 1\n", &mut findings);
        assert_eq!(findings, []);
        toml(
            Path::new("a/Cargo.toml"),
            "[package]\nname = \"a\"\n",
            &mut findings,
        );
        toml(Path::new("configs/a.toml"), "a = 1\nb = \n", &mut findings);
        let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [1, 2]);
    }

    #[test]
    fn this_repository_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let findings = check(&root).expect("readable");
        let shown: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(shown.is_empty(), "{}", shown.join("\n"));
    }
}
