//! Every setting, and the layer that it comes from.

use serde::Serialize;
use serde_json::json;
use toml::{Table, Value};

use super::{Config, ConfigError, DEFAULTS, Sources, layer};

/// Name of the lowest layer.
const BUILT_IN: &str = "default";

/// One setting of a resolved configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    pub key: String,
    pub value: Value,
    /// The last layer that sets the key: `default`, a file, a variable or a `--set`.
    pub origin: String,
}

/// Every setting with its origin, in the order of `default.toml`.
///
/// # Errors
/// As [`Config::load`]: invalid settings are refused, not shown.
pub fn settings(sources: &Sources) -> Result<Vec<Setting>, ConfigError> {
    let config = Config::load(sources)?;
    let resolved = toml::from_str::<Table>(&config.to_toml()?);
    let resolved = resolved.map_err(|e| layer::invalid("config", e.to_string()))?;
    let layers = layer::layers(sources)?;
    let keys = documented().into_iter();
    let setting = |d: Documented| {
        let origin = layers.iter().rev().find(|l| l.sets(&d.section, &d.key));
        let value = resolved.get(&d.section)?.get(&d.key)?.clone();
        Some(Setting {
            key: format!("{}.{}", d.section, d.key),
            value,
            origin: origin.map_or_else(|| BUILT_IN.to_owned(), |l| l.name.clone()),
        })
    };
    Ok(keys.filter_map(setting).collect())
}

/// A JSON schema (draft 2020-12) of configuration files, for editors: types,
/// defaults and descriptions from `default.toml`.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut sections = serde_json::Map::new();
    for d in documented() {
        let mut entry = serde_json::Map::new();
        if !layer::FREE_FORM.contains(&format!("{}.{}", d.section, d.key).as_str()) {
            entry.insert("type".into(), json!(type_of(&d.default)));
        }
        if !d.text.is_empty() {
            entry.insert("description".into(), json!(d.text));
        }
        entry.insert("default".into(), json!(d.default));
        let section = sections.entry(d.section).or_insert_with(
            || json!({ "type": "object", "additionalProperties": false, "properties": {} }),
        );
        section["properties"][d.key] = entry.into();
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "landmarl configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": sections,
    })
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) | Value::Datetime(_) => "string",
        Value::Integer(_) => "integer",
        Value::Float(_) => "number",
        Value::Boolean(_) => "boolean",
        Value::Array(_) => "array",
        Value::Table(_) => "object",
    }
}

/// A key of `default.toml` with the comment above it. Keys below one comment
/// share it.
struct Documented {
    section: String,
    key: String,
    text: String,
    default: Value,
}

fn documented() -> Vec<Documented> {
    let defaults: Table = DEFAULTS.parse().unwrap_or_default();
    let (mut section, mut comment, mut fresh) = (String::new(), Vec::new(), true);
    let mut all = Vec::new();
    for line in DEFAULTS.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix('#') {
            if !fresh {
                comment.clear();
            }
            fresh = true;
            comment.push(text.trim());
        } else if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            name.clone_into(&mut section);
            comment.clear();
        } else if let Some((key, _)) = line.split_once('=') {
            let key = key.trim();
            fresh = false;
            if let Some(default) = defaults.get(&section).and_then(|s| s.get(key)) {
                all.push(Documented {
                    section: section.clone(),
                    key: key.to_owned(),
                    text: comment.join(" "),
                    default: default.clone(),
                });
            }
        } else if line.is_empty() {
            comment.clear();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        Sources {
            env: vec![("LANDMARL__LEARNER__BATCH".into(), "7".into())],
            set: vec!["learner.lr=1e-3".into(), "run.seed=9".into()],
            ..Sources::default()
        }
    }

    #[test]
    fn every_setting_names_the_last_layer_that_sets_it() {
        let mut sources = sources();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mine.toml");
        std::fs::write(&file, "[learner]\nlr = 0.5\nbatch = 3\ngamma = 0.8\n").unwrap();
        sources.files.push(file.clone());
        let all = settings(&sources).unwrap();
        let of = |key: &str| {
            let s = all.iter().find(|s| s.key == key).unwrap();
            (s.value.to_string(), s.origin.as_str())
        };
        let variable = "environment variable LANDMARL__LEARNER__BATCH";
        assert_eq!(of("learner.batch"), ("7".into(), variable));
        assert_eq!(of("learner.lr"), ("0.001".into(), "--set learner.lr=1e-3"));
        assert_eq!(of("learner.gamma"), ("0.8".into(), file.to_str().unwrap()));
        assert_eq!(of("run.dir"), ("\"runs\"".into(), BUILT_IN));
        // Invalid settings are refused, not shown.
        sources.set.push("learner.batch=0".into());
        assert!(settings(&sources).is_err());
    }

    #[test]
    fn no_key_is_left_out_of_list_or_schema() {
        let defaults: Table = DEFAULTS.parse().unwrap();
        let expected: usize = defaults.values().map(|s| s.as_table().unwrap().len()).sum();
        assert_eq!(settings(&Sources::default()).unwrap().len(), expected);
        let schema = schema();
        let sections = schema["properties"].as_object().unwrap();
        let keys = |s: &serde_json::Value| s["properties"].as_object().unwrap().len();
        assert_eq!(sections.values().map(keys).sum::<usize>(), expected);
        let batch = &schema["properties"]["learner"]["properties"]["max_minutes"];
        assert_eq!(
            (&batch["type"], &batch["default"]),
            (&json!("number"), &json!(0.0))
        );
        assert!(batch["description"].as_str().unwrap().contains("minutes"));
        // This key accepts several types: serde checks it, and an editor must not report an error.
        let target = &schema["properties"]["rules"]["properties"]["target"];
        assert!(target.get("type").is_none());
    }
}
