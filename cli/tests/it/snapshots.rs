//! Texts that people rely on, compared with what they were.

use std::time::Duration;

use crate::process::{Bench, same_as_before};
use crate::services::Service;

/// Every command and the commands in it: names as typed.
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
    same_as_before(
        &format!("help-{program}"),
        &texts.collect::<Vec<_>>().join("\n"),
    );
}

#[test]
fn help_texts_are_as_they_were() {
    let bench = Bench::new();
    let help = |command: &str| bench.succeed(&format!("{command} --help")).out;
    catalogue("landmarl", help, 19);
    for (service, least) in [("replay-server", 3), ("learner", 4), ("actor", 2)] {
        let help = |command: &str| {
            let mut asked = Service::start(&bench, service, "help", &format!("{command} --help"));
            assert_eq!(
                asked.ended(Duration::from_secs(30)),
                Some(0),
                "{}",
                asked.log()
            );
            asked.log()
        };
        catalogue(service, help, least);
    }
}

#[test]
fn the_schema_of_settings_is_as_it_was() {
    let bench = Bench::new();
    same_as_before("config-schema", &bench.succeed("config schema").out);
    same_as_before(
        "config-defaults",
        &bench.succeed("config show --origin").out,
    );
}
