//! The project's rules that no other tool checks. Lengths of functions,
//! missing documentation and unfinished code are clippy's and rustdoc's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::workspace::Workspace;
use crate::{command, files};

const FILE_LINES: usize = 500;
const FILES_PER_LEVEL: usize = 14;
/// Generated code, of any size.
const GENERATED: &str = "proto/src/gen";
const UNFINISHED: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
/// Words that are not plain technical English, one per line.
const AVOIDED: &str = include_str!("../../words-to-avoid.txt");

/// Prints every broken rule and fails if there is one.
pub fn run(workspace: &Workspace) -> Result<()> {
    let findings = check(workspace)?;
    for finding in &findings {
        println!("{finding}");
    }
    let broken = findings.len();
    ensure!(broken == 0, "{broken} broken rules, listed above");
    println!("tidy: every rule holds");
    Ok(())
}

fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let listed = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = command::read(workspace.command("git").args(listed))?;
    let mut texts = BTreeMap::new();
    for path in listed.lines().map(PathBuf::from) {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let whole = workspace.root.join(&path);
        if ["rs", "toml", "proto", "py", "sh", "yaml", "yml", "md"].contains(&&*extension)
            && whole.is_file()
        {
            texts.insert(path, files::read(&whole)?);
        }
    }
    let words: Vec<&str> = AVOIDED.lines().collect();
    let mut findings = crowded(texts.keys());
    for (path, text) in &texts {
        findings.extend(check_file(path, text, &words));
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

fn check_file(path: &Path, text: &str, avoided: &[&str]) -> Vec<String> {
    let mut findings = Vec::new();
    let rust = path.extension().is_some_and(|extension| extension == "rs");
    let source = rust && !path.starts_with(GENERATED);
    for (line, number) in text.lines().zip(1..) {
        let mut find = |what: &str| findings.push(format!("{}:{number}: {what}", path.display()));
        let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        if words.clone().any(|word| UNFINISHED.contains(&word)) {
            find("finish it, or write why it is as it is");
        }
        if let Some(word) = words.find(|word| avoided.contains(&word.to_lowercase().as_str())) {
            find(&format!("\"{word}\": use plain technical English"));
        }
        if source && line.trim_start().starts_with("#[ignore") {
            find("an ignored test: run it, or remove it");
        }
    }
    let mut find = |what: &str| findings.push(format!("{}: {what}", path.display()));
    let lines = text.lines().count();
    if source && lines > FILE_LINES {
        find(&format!("{lines} lines, limit {FILE_LINES}: split it"));
    }
    // A file that `include!` reads cannot begin so.
    let folders = ["src", "tests", "benches", "examples"];
    let module = path.iter().any(|part| folders.iter().any(|n| part == *n));
    if source && module && !text.starts_with("//!") {
        find("does not start with `//!`: describe it in a sentence");
    }
    let package = path.ends_with("Cargo.toml") && text.contains("[package]");
    if package && !text.contains("[lints]\nworkspace = true") {
        find("the crate lacks `[lints] workspace = true`");
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_what_breaks_it_and_nothing_else() {
        let high = |lines: usize| format!("//! High.\n{}", "// line\n".repeat(lines - 1));
        let good = "//! Noun.\nfn a() { let todo = \"#[ignore]\"; }\n";
        let ignored = "//! Doc.\n\n    #[ignore = \"slow\"]\n";
        let cases = [
            ("x/src/a.rs", good, ""),
            ("model/link.rs", "// Included.\n", ""),
            ("x/src/a.rs", &high(500), ""),
            ("x/src/a.rs", &high(501), "limit 500"),
            ("proto/src/gen/a.rs", &high(501), ""),
            ("x/tests/a.rs", "fn a() {}\n", "//!"),
            ("x/a.md", concat!("TO", "DO later"), "x/a.md:1: finish"),
            ("x/src/a.rs", ignored, ":3: an ignored"),
            ("x/Cargo.toml", "[package]\n[lints]\nworkspace = true\n", ""),
            ("x/Cargo.toml", "[package]\n", "lacks"),
            ("Cargo.toml", "[workspace]\n", ""),
            ("x/src/a.rs", "//! Foul, and a foulard.\n", "\"Foul\""),
        ];
        for (path, text, expected) in cases {
            let found = check_file(Path::new(path), text, &["foul"]).join("\n");
            assert_eq!(found.is_empty(), expected.is_empty(), "{path}: {found}");
            assert!(found.contains(expected) && !found.contains('\n'), "{found}");
        }
        let level: Vec<PathBuf> = (0..15).map(|i| format!("x/src/{i}.rs").into()).collect();
        assert!(crowded(level[1..].iter()).is_empty());
        assert!(crowded(level.iter())[0].contains("x/src: 15 files, limit 14"));
    }

    #[test]
    fn this_repository_is_tidy() {
        let findings = check(&Workspace::find().unwrap()).unwrap();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }
}
