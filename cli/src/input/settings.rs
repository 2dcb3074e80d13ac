//! The options that every command with a configuration takes.

use std::path::PathBuf;

use common::config::{Config, ConfigError, Saved, Sources};

/// Where settings come from.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML); may be repeated, later files win
    #[arg(long = "config", short = 'c', value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// One setting, such as learner.lr=1e-4; may be repeated; overrides files and
    /// LANDMARL__SECTION__KEY variables
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// Loads the configuration; `more` holds settings from a command's own options.
    pub fn load(&self, more: Vec<String>) -> Result<Config, ConfigError> {
        self.load_over(Vec::new(), more)
    }

    /// The layers: saved configurations of runs below these options, `more` settings on top.
    pub fn sources(&self, saved: Vec<Saved>, more: Vec<String>) -> Sources {
        let set = self.set.iter().cloned().chain(more).collect();
        Sources {
            saved,
            ..Sources::from_process(self.files.clone(), set)
        }
    }

    /// Loads the configuration on top of the saved configurations of runs.
    pub fn load_over(&self, saved: Vec<Saved>, more: Vec<String>) -> Result<Config, ConfigError> {
        Config::load(&self.sources(saved, more))
    }
}

/// `section.key=value` if the option was given. Text is quoted: a path such as `1`
/// stays text.
pub fn setting(key: &str, value: Option<&str>) -> Option<String> {
    value.map(|v| format!("{key}={}", serde_json::Value::from(v)))
}

/// `section.key=value` for a number.
pub fn number_setting<T: std::fmt::Display>(key: &str, value: Option<T>) -> Option<String> {
    value.map(|v| format!("{key}={v}"))
}
