//! Reads and checks one layer of settings: known keys, right types, clear errors.

use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{DEFAULTS, ENV_PREFIX, Sources, renamed};

/// Settings that cannot be used; `layer` names a file, a variable or a `--set`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read config file {path}: {source}; check the path given to --config")]
    Read {
        path: String,
        source: std::io::Error,
    },
    /// Invalid TOML.
    #[error("{layer} is not valid TOML: {why}")]
    Syntax {
        layer: String,
        /// The parser's message with line and column.
        why: String,
    },
    /// A key that does not exist.
    #[error("unknown config key \"{key}\" in {layer}{}", hint(.nearest.as_deref()))]
    UnknownKey {
        key: String,
        layer: String,
        /// The most similar key that exists.
        nearest: Option<String>,
    },
    /// A key that was renamed.
    #[error("config key \"{key}\" in {layer} is now {new}")]
    Renamed {
        key: String,
        layer: String,
        /// Its current name, quoted.
        new: String,
    },
    /// A value whose type differs from the default's.
    #[error("config key \"{key}\" in {layer} must be {expected}, got {found}")]
    Type {
        key: String,
        layer: String,
        /// The type of the default.
        expected: &'static str,
        found: String,
    },
    /// An invalid value.
    #[error("config key \"{key}\": {why}")]
    Value { key: String, why: String },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |n| format!("; did you mean \"{n}\"?"))
}

pub(super) fn invalid(key: impl Into<String>, why: impl Into<String>) -> ConfigError {
    let (key, why) = (key.into(), why.into());
    ConfigError::Value { key, why }
}

/// The settings of one file, variable or `--set`, checked on their own.
pub(super) struct Layer {
    /// The name in error messages.
    pub(super) name: String,
    text: String,
    table: Table,
}

impl Layer {
    pub(super) fn sets(&self, section: &str, key: &str) -> bool {
        let section = self.table.get(section).and_then(Value::as_table);
        section.is_some_and(|s| s.contains_key(key))
    }
}

/// Merges all layers.
pub(super) fn merge<T: DeserializeOwned>(sources: &Sources) -> Result<T, ConfigError> {
    let mut builder = config::Config::builder().add_source(source(DEFAULTS));
    for layer in layers(sources)? {
        builder = builder.add_source(source(&layer.text));
    }
    let whole = builder
        .build()
        .and_then(config::Config::try_deserialize::<Value>);
    let mut whole = whole.map_err(|e| invalid("config", e.to_string()))?;
    landmarks_as_text(&mut whole);
    serde_path_to_error::deserialize(whole)
        .map_err(|e| invalid(e.path().to_string(), e.inner().message()))
}

/// Landmarks may be numbers, `[13, 14]`, as the published programs number them.
fn landmarks_as_text(whole: &mut Value) {
    let data = whole.get_mut("data");
    let landmarks = data.and_then(|data| data.get_mut("landmarks")?.as_array_mut());
    for landmark in landmarks.into_iter().flatten() {
        if let Value::Integer(number) = landmark {
            *landmark = Value::String(number.to_string());
        }
    }
}

/// Reads and checks the layers above the defaults, the lowest first.
pub(super) fn layers(sources: &Sources) -> Result<Vec<Layer>, ConfigError> {
    let defaults = parse(DEFAULTS, "the built-in defaults")?;
    let mut layers = Vec::new();
    for path in &sources.saved {
        let (name, mut table) = read(path)?;
        renamed::upgrade(&mut table);
        layers.push(layer(&defaults, name, table)?);
    }
    for path in &sources.files {
        let (name, table) = read(path)?;
        layers.push(layer(&defaults, name, table)?);
    }
    for (name, value) in &sources.env {
        let Some(path) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        let key = path.to_lowercase().replace("__", ".");
        let name = format!("environment variable {name}");
        layers.push(setting(&defaults, &key, value, name)?);
    }
    for text in &sources.set {
        let layer = format!("--set {text}");
        let Some((key, value)) = text.split_once('=') else {
            let why = "needs the form section.key=value".into();
            return Err(ConfigError::Syntax { layer, why });
        };
        layers.push(setting(&defaults, key.trim(), value.trim(), layer)?);
    }
    Ok(layers)
}

fn source(text: &str) -> config::File<config::FileSourceString, config::FileFormat> {
    config::File::from_str(text, config::FileFormat::Toml)
}

fn parse(text: &str, layer: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|e| ConfigError::Syntax {
        layer: layer.to_owned(),
        why: e.to_string(),
    })
}

/// Parses one `key = value` into checked TOML. A value that is not valid TOML on its
/// own, or whose key takes text, is read as text, so paths need no quotes.
fn setting(defaults: &Table, key: &str, value: &str, name: String) -> Result<Layer, ConfigError> {
    let wants_text = matches!(find(defaults, key), Some(Value::String(_)));
    let parsed = format!("v = {value}").parse::<Table>().ok();
    let mut tree = match parsed.and_then(|mut table| table.remove("v")) {
        Some(v @ (Value::String(_) | Value::Table(_))) => v,
        Some(v) if !wants_text => v,
        _ => Value::String(value.to_owned()),
    };
    for part in key.rsplit('.') {
        tree = Value::Table(Table::from_iter([(part.to_owned(), tree)]));
    }
    let Value::Table(table) = tree else {
        return Err(unknown(defaults, key, &name));
    };
    layer(defaults, name, table)
}

fn layer(defaults: &Table, name: String, table: Table) -> Result<Layer, ConfigError> {
    check(defaults, &table, &name)?;
    match toml::to_string(&table) {
        Ok(text) => Ok(Layer { name, text, table }),
        Err(e) => Err(ConfigError::Syntax {
            layer: name,
            why: e.to_string(),
        }),
    }
}

/// A file's name and content.
fn read(path: &Path) -> Result<(String, Table), ConfigError> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name.clone(), parse(&text, &name)?)),
        Err(source) => Err(ConfigError::Read { path: name, source }),
    }
}

fn find<'a>(defaults: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let mut value = defaults.get(parts.next()?)?;
    for part in parts {
        value = value.as_table()?.get(part)?;
    }
    Some(value)
}

/// Keys whose value may have several types; serde checks them.
pub(super) const FREE_FORM: [&str; 1] = ["rules.target"];

fn check(defaults: &Table, layer_table: &Table, layer: &str) -> Result<(), ConfigError> {
    for (section, value) in layer_table {
        let Some(Value::Table(known)) = defaults.get(section) else {
            return Err(unknown(defaults, section, layer));
        };
        let Value::Table(given) = value else {
            return Err(wrong_type(section, layer, "a section", value));
        };
        for (name, value) in given {
            let key = format!("{section}.{name}");
            let Some(default) = known.get(name) else {
                return Err(unknown(defaults, &key, layer));
            };
            if !FREE_FORM.contains(&key.as_str()) {
                check_type(&key, layer, default, value)?;
            }
        }
    }
    Ok(())
}

fn check_type(key: &str, layer: &str, default: &Value, value: &Value) -> Result<(), ConfigError> {
    // An integer is accepted where a float is expected. The reverse would round
    // silently.
    let expected = match (default, value) {
        (Value::Float(_), Value::Integer(_) | Value::Float(_))
        | (Value::Integer(..0), Value::Integer(_))
        | (Value::Integer(_), Value::Integer(0..))
        | (Value::String(_), Value::String(_))
        | (Value::Boolean(_), Value::Boolean(_))
        | (Value::Array(_), Value::Array(_)) => return Ok(()),
        (Value::Integer(..0), _) => "a whole number",
        (Value::Integer(_), _) => "a whole number, not negative",
        (Value::Float(_), _) => "a number",
        (Value::Boolean(_), _) => "true or false",
        (Value::Array(_), _) => "a list",
        _ => "text",
    };
    Err(wrong_type(key, layer, expected, value))
}

fn wrong_type(key: &str, layer: &str, expected: &'static str, value: &Value) -> ConfigError {
    ConfigError::Type {
        key: key.into(),
        layer: layer.into(),
        expected,
        found: value.to_string(),
    }
}

fn unknown(defaults: &Table, key: &str, layer: &str) -> ConfigError {
    if let Some(new) = renamed::replacement(key) {
        return ConfigError::Renamed {
            key: key.into(),
            layer: layer.into(),
            new,
        };
    }
    let known = defaults.iter().flat_map(|(section, keys)| {
        let names = keys.as_table().into_iter().flat_map(Table::keys);
        names.map(move |name| format!("{section}.{name}"))
    });
    let nearest = known
        .map(|k| (edit_distance(&k, key), k))
        .min()
        .filter(|(d, k)| *d <= k.len().max(key.len()) / 2)
        .map(|(_, k)| k);
    ConfigError::UnknownKey {
        key: key.into(),
        layer: layer.into(),
        nearest,
    }
}

/// Levenshtein distance between two texts, in characters.
#[must_use]
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
