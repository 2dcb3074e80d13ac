//! Texts that users rely on, compared with their snapshots.

use std::collections::BTreeSet;

use common::config::DEFAULTS;
use serde_json::json;

use crate::process::{Bench, check_snapshot};
use crate::services::ask;

/// Settings whose output is compared: one of each type.
const SHOWN: [&str; 5] = ["dueling", "hidden", "preset", "seed", "start_margin"];

/// Commands whose help has at least two examples.
const WITH_EXAMPLES: &str = "|train|eval|play|phantom|doctor|data|data check|data split|import|runs\
    |config|completions|man";

/// Every command and its sub-commands, as typed.
fn with_subcommands(help: impl Fn(&str) -> String) -> Vec<(String, String)> {
    let mut waiting = vec![String::new()];
    let mut all = Vec::new();
    while let Some(command) = waiting.pop() {
        let text = help(&command);
        let listed = text.split("Commands:\n").nth(1).unwrap_or_default();
        let names = listed.lines().map_while(|line| line.strip_prefix("  "));
        let names = names.filter(|line| !line.starts_with(' '));
        let names = names.filter_map(|line| line.split_whitespace().next());
        for name in names.filter(|n| *n != "help") {
            waiting.push(format!("{command} {name}").trim().to_owned());
        }
        all.push((command, text));
    }
    all.sort();
    all
}

fn catalogue(program: &str, help: impl Fn(&str) -> String, least: usize) {
    let all = with_subcommands(help);
    assert!(all.len() >= least, "{} commands of {program}", all.len());
    let texts = all.iter().map(|(command, text)| {
        let line = format!("$ {program} {command}");
        format!("{} --help\n{text}", line.trim_end())
    });
    let texts = texts.collect::<Vec<_>>().join("\n");
    check_snapshot(&format!("help-{program}"), &texts);
}

#[test]
fn help_texts_match_their_snapshots() {
    let bench = Bench::new();
    let version = bench.succeed("--version").out;
    let expected = concat!("landmarl ", env!("CARGO_PKG_VERSION"));
    assert_eq!(version.trim(), expected);
    let help = |command: &str| {
        let text = bench.succeed(&format!("{command} --help")).out;
        if WITH_EXAMPLES.split('|').any(|c| c == command) {
            let examples = text.split("Examples:").nth(1).unwrap_or_default();
            let examples = examples.matches("  landmarl ").count();
            assert!(examples >= 2, "{command}: {text}");
        }
        text
    };
    catalogue("landmarl", help, 19);
    for (service, least) in [("replay-server", 3), ("learner", 4), ("actor", 2)] {
        let help = |command: &str| {
            let (code, output) = ask(&bench, service, &format!("{command} --help"));
            assert_eq!(code, Some(0), "{output}");
            output
        };
        catalogue(service, help, least);
    }
}

/// Every key, its default and its description come from `default.toml`; the printed form
/// is compared for some of them.
#[test]
fn settings_and_their_schema_are_those_of_the_defaults() {
    let bench = Bench::new();
    let defaults: toml::Table = DEFAULTS.parse().unwrap();
    let shown = bench.succeed("config show --origin").out;
    assert_eq!(shown.parse::<toml::Table>().unwrap(), defaults);
    let mut settings = shown.lines().filter(|line| line.contains('='));
    assert!(settings.all(|line| line.ends_with("# default")), "{shown}");
    let mut schema = bench.json("config schema");
    let sections = schema["properties"].as_object_mut().unwrap();
    let names: BTreeSet<&String> = sections.keys().collect();
    let expected: BTreeSet<&String> = defaults.keys().collect();
    assert_eq!(names, expected);
    for (section, keys) in &defaults {
        let keys = keys.as_table().unwrap();
        let properties = sections[section]["properties"].as_object().unwrap();
        assert_eq!(properties.len(), keys.len(), "{section}");
        for (key, default) in keys {
            let entry = &properties[key];
            let default = serde_json::to_value(default).unwrap();
            assert_eq!(entry["default"], default, "{section}.{key}");
            let description = entry["description"].as_str().unwrap_or_default();
            assert!(!description.is_empty(), "{section}.{key} has no comment");
        }
    }
    for section in sections.values_mut() {
        let keys = section["properties"].as_object_mut().unwrap();
        keys.retain(|key, _| SHOWN.contains(&key.as_str()));
    }
    sections.retain(|_, section| section["properties"] != json!({}));
    let schema = serde_json::to_string_pretty(&schema).unwrap();
    check_snapshot("config-schema", &schema);
    let shown = shown.lines().filter(|line| {
        let key = line.split(" = ").next().unwrap();
        line.starts_with('[') || SHOWN.contains(&key)
    });
    check_snapshot("config-defaults", &shown.collect::<Vec<_>>().join("\n"));
}
