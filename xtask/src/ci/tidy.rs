//! The project's rules that no other tool checks. Lengths of functions,
//! missing documentation and unfinished code are clippy's and rustdoc's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::workspace::Workspace;

const FILE_LINES: usize = 500;
const FILES_PER_LEVEL: usize = 14;
/// Written by a program, so its size is nobody's choice.
const GENERATED: &str = "proto/src/gen";
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
/// Words that are no plain technical English, one a line.
const AVOIDED: &str = include_str!("../../words-to-avoid.txt");

/// Prints every broken rule and fails if there is one.
pub fn run(workspace: &Workspace) -> Result<()> {
    let findings = check(workspace)?;
    for finding in &findings {
        println!("{finding}");
    }
    ensure!(
        findings.is_empty(),
        "{} broken rules, listed above",
        findings.len()
    );
    println!("tidy: every rule holds");
    Ok(())
}

fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let listed = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = command::read(workspace.command("git").args(listed))?;
    let mut files = BTreeMap::new();
    for path in listed.lines().map(PathBuf::from) {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let whole = workspace.root().join(&path);
        if ["rs", "toml", "proto", "py", "sh", "yaml", "yml", "md"].contains(&&*extension)
            && whole.is_file()
        {
            let text = fs::read_to_string(&whole)
                .with_context(|| format!("cannot read {}", whole.display()))?;
            files.insert(path, text);
        }
    }
    let words: Vec<&str> = AVOIDED.lines().collect();
    let mut findings = crowded(files.keys());
    for (path, text) in &files {
        findings.extend(one(path, text, &words));
    }
    Ok(findings)
}

/// Levels of `src` folders with too many files.
fn crowded<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Vec<String> {
    let mut levels: BTreeMap<&Path, usize> = BTreeMap::new();
    for folder in files.filter_map(|path| path.parent()) {
        if folder.iter().any(|part| part == "src") && !folder.starts_with(GENERATED) {
            *levels.entry(folder).or_default() += 1;
        }
    }
    let crowded = levels.iter().filter(|(_, files)| **files > FILES_PER_LEVEL);
    crowded
        .map(|(folder, files)| {
            let folder = folder.display();
            format!("{folder}: {files} files, limit {FILES_PER_LEVEL}: make a folder of some")
        })
        .collect()
}

fn one(path: &Path, text: &str, avoided: &[&str]) -> Vec<String> {
    let shown = path.display();
    let mut findings = Vec::new();
    let rust = path.extension().is_some_and(|extension| extension == "rs");
    let source = rust && !path.starts_with(GENERATED);
    for (line, number) in text.lines().zip(1..) {
        let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if words.clone().any(|word| UNFINISHED.contains(&word)) {
            findings.push(format!(
                "{shown}:{number}: finish it, or write why it is as it is"
            ));
        }
        if let Some(word) = words.find(|word| avoided.contains(&word.to_lowercase().as_str())) {
            findings.push(format!(
                "{shown}:{number}: \"{word}\": say it in plain technical English"
            ));
        }
        if source && line.trim_start().starts_with("#[ignore") {
            findings.push(format!(
                "{shown}:{number}: an ignored test: run it, or remove it"
            ));
        }
    }
    let lines = text.lines().count();
    if source && lines > FILE_LINES {
        findings.push(format!(
            "{shown}: {lines} lines, limit {FILE_LINES}: split it"
        ));
    }
    // What is included by text from beside those folders cannot begin so.
    let module = path.iter().any(|part| {
        ["src", "tests", "benches", "examples"]
            .iter()
            .any(|n| part == *n)
    });
    if source && module && !text.starts_with("//!") {
        findings.push(format!(
            "{shown}: does not start with `//!`: say in a sentence what it is"
        ));
    }
    let package = path.ends_with("Cargo.toml") && text.contains("[package]");
    if package && !text.contains("[lints]\nworkspace = true") {
        findings.push(format!(
            "{shown}: the crate lacks `[lints] workspace = true`"
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_what_breaks_it_and_nothing_else() {
        let high = |lines: usize| format!("//! High.\n{}", "// line\n".repeat(lines - 1));
        let cases = [
            (
                "x/src/a.rs",
                "//! Noun.\nfn a() { let todo = \"#[ignore]\"; }\n",
                "",
            ),
            ("model/link.rs", "// Included.\n", ""),
            ("x/src/a.rs", &high(500), ""),
            ("x/src/a.rs", &high(501), "limit 500"),
            ("proto/src/gen/a.rs", &high(501), ""),
            ("x/tests/a.rs", "fn a() {}\n", "//!"),
            ("x/a.md", concat!("TO", "DO later"), "x/a.md:1: finish"),
            (
                "x/src/a.rs",
                "//! Doc.\n\n    #[ignore = \"slow\"]\n",
                ":3: an ignored",
            ),
            ("x/Cargo.toml", "[package]\n[lints]\nworkspace = true\n", ""),
            ("x/Cargo.toml", "[package]\n", "lacks"),
            ("Cargo.toml", "[workspace]\n", ""),
            ("x/src/a.rs", "//! Foul, and a foulard.\n", "\"Foul\""),
        ];
        for (path, text, expected) in cases {
            let found = one(Path::new(path), text, &["foul"]).join("\n");
            assert_eq!(found.is_empty(), expected.is_empty(), "{path}: {found}");
            assert!(found.contains(expected) && !found.contains('\n'), "{found}");
        }
        let level = |files: i32| {
            (0..files)
                .map(|i| PathBuf::from(format!("x/src/{i}.rs")))
                .collect()
        };
        let (full, crowd): (Vec<_>, Vec<_>) = (level(14), level(15));
        assert!(crowded(full.iter()).is_empty());
        assert!(crowded(crowd.iter())[0].contains("x/src: 15 files, limit 14"));
    }

    #[test]
    fn this_repository_is_tidy() {
        let findings = check(&Workspace::find().unwrap()).unwrap();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }
}
