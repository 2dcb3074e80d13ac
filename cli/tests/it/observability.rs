//! The configuration files of Loki, Alloy and Grafana, which do not run here: the files
//! parse, contain only known keys, and refer to each other correctly.

use std::collections::BTreeSet;
use std::path::Path;

use regex::Regex;
use serde_json::Value;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn yaml(path: &str) -> Value {
    serde_norway::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn board(name: &str) -> Value {
    serde_json::from_str(&read(&format!("grafana/dashboards/{name}.json"))).unwrap()
}

/// Checks that an object has only these keys, which are separated by spaces.
fn check_keys(whence: &str, object: &Value, known: &str) {
    let entries = object.as_object();
    for key in entries
        .unwrap_or_else(|| panic!("{whence}: {object}"))
        .keys()
    {
        let known = known.split(' ').any(|k| k == key);
        assert!(known, "{whence}: {key} is not known");
    }
}

/// Identifiers and types of the provisioned datasources.
fn datasources() -> BTreeSet<(String, String)> {
    let file = yaml("grafana/provisioning/datasources/landmarl.yml");
    let known = "apiVersion datasources deleteDatasources prune";
    check_keys("datasources", &file, known);
    let known = "name uid type access url isDefault editable jsonData orgId";
    let all = file["datasources"].as_array().unwrap();
    let text = |source: &Value, key: &str| source[key].as_str().unwrap().to_owned();
    let sources = all.iter().map(|source| {
        check_keys("a datasource", source, known);
        assert!(text(source, "url").starts_with("http://"), "{source}");
        (text(source, "type"), text(source, "uid"))
    });
    sources.collect()
}

#[test]
fn dashboards_have_panels_that_fit_their_grid_and_sources_that_are_provisioned() {
    let sources = datasources();
    assert_eq!(sources.len(), 2, "{sources:?}");
    let mut uids = BTreeSet::new();
    for name in ["training", "cluster"] {
        let board = board(name);
        assert!(uids.insert(board["uid"].as_str().unwrap().to_owned()));
        let version = board["schemaVersion"].as_u64();
        assert!(version.unwrap() >= 36, "Grafana 9 and later");
        assert!(board["title"].is_string() && board["time"]["from"].is_string());
        let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for panel in board["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            let id = panel["id"].as_u64().unwrap();
            assert!(ids.insert(id), "{title}: its id is taken");
            let kind = panel["type"].as_str().unwrap();
            let known = ["timeseries", "stat", "logs"].contains(&kind);
            assert!(known, "{title}: {kind}");
            let side = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in side("x")..side("x") + side("w") {
                for y in side("y")..side("y") + side("h") {
                    let free = x < 24 && taken.insert((x, y));
                    assert!(free, "{title} lies over another panel");
                }
            }
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title}");
            let mut letters = BTreeSet::new();
            for target in targets {
                let source = &target["datasource"];
                let source = ["type", "uid"].map(|key| source[key].as_str().unwrap().to_owned());
                assert!(sources.contains(&source.into()), "{title}: {target}");
                assert!(!target["expr"].as_str().unwrap().is_empty(), "{title}");
                let letter = target["refId"].as_str().unwrap();
                assert!(letters.insert(letter.to_owned()), "{title}");
            }
        }
        // No gaps: a row begins where the previous one ends.
        let bottom = taken.iter().map(|(_, y)| y).max().unwrap();
        for y in 0..=*bottom {
            let filled = taken.contains(&(0, y));
            assert!(filled, "{name}: nothing at the left of line {y}");
        }
    }
}

#[test]
fn grafana_finds_the_dashboards() {
    let file = yaml("grafana/provisioning/dashboards/landmarl.yml");
    check_keys("providers", &file, "apiVersion providers");
    let known =
        "name type disableDeletion allowUiUpdates updateIntervalSeconds options folder orgId";
    for provider in file["providers"].as_array().unwrap() {
        check_keys("a provider", provider, known);
        assert_eq!(provider["type"], "file");
        assert_eq!(provider["options"]["path"], "/var/lib/grafana/dashboards");
    }
}

#[test]
fn loki_sections_are_known_and_its_limit_is_the_one_landmarl_uses() {
    let file = yaml("loki/loki.yml");
    let known = "auth_enabled server common schema_config limits_config compactor analytics";
    check_keys("loki.yml", &file, known);
    let server = "http_listen_port grpc_listen_port log_level";
    check_keys("server", &file["server"], server);
    let common = "instance_addr path_prefix storage replication_factor ring";
    check_keys("common", &file["common"], common);
    let limits = "retention_period max_entries_limit_per_query reject_old_samples \
        reject_old_samples_max_age";
    check_keys("limits_config", &file["limits_config"], limits);
    assert_eq!(file["limits_config"]["max_entries_limit_per_query"], 5000);
    let compactor = "working_directory retention_enabled delete_request_store";
    check_keys("compactor", &file["compactor"], compactor);
    for period in file["schema_config"]["configs"].as_array().unwrap() {
        let known = "from store object_store schema index";
        check_keys("a period", period, known);
        assert_eq!(period["store"], "tsdb");
        assert_eq!(period["schema"], "v13");
    }
}

#[test]
fn alloy_components_refer_to_each_other_and_keep_four_labels() {
    let text = read("alloy/config.alloy");
    let code = Regex::new("(?m)//.*$|\"[^\"]*\"").unwrap();
    // Strings are removed first: their slashes do not begin comments.
    let bare = code.replace_all(&text, "");
    let count = |c: char| bare.chars().filter(|x| *x == c).count();
    assert_eq!((count('{'), count('[')), (count('}'), count(']')));
    let header = Regex::new(r#"(?m)^([a-z.]+) "([a-z]+)" \{$"#).unwrap();
    let made: BTreeSet<String> = header
        .captures_iter(&text)
        .map(|c| format!("{}.{}", &c[1], &c[2]))
        .collect();
    let expected = [
        "discovery.docker.containers",
        "discovery.relabel.landmarl",
        "loki.process.landmarl",
        "loki.source.docker.landmarl",
        "loki.write.local",
    ];
    assert_eq!(made, expected.map(str::to_owned).into());
    let used =
        Regex::new(r"\b((?:discovery|loki)\.[a-z.]+)\.(?:targets|output|receiver)\b").unwrap();
    let used: BTreeSet<String> = used.captures_iter(&bare).map(|c| c[1].to_owned()).collect();
    for component in &used {
        assert!(made.contains(component), "{component} is not there");
    }
    assert_eq!(used.len(), 4, "{used:?}: all but the source lead on");
    let labels = Regex::new(r"stage\.label_keep \{\s+values = \[([^\]]*)\]").unwrap();
    let labels = &labels.captures(&text).unwrap()[1];
    assert_eq!(labels, r#""service", "instance", "run", "level""#);
}
