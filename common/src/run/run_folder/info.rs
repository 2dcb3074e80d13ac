//! `run.json`: the identity of a run.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::rfc3339;
use crate::config::Config;
use crate::imaging::manifest::hex;
use crate::run::machine::host_name;

/// Hexadecimal digits after the name in a run id: nanoseconds since 1970, from 2006 to 2554.
const SUFFIX_DIGITS: usize = 16;

/// The fields that identify a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// Identifies the run on the wire: its name and when it started, because shards must not take
    /// a new run for an earlier one of the same name.
    pub run_id: String,
    /// Version of landmarl.
    pub version: String,
    /// The command line.
    pub command: Vec<String>,
    /// `run.seed`.
    pub seed: u64,
    /// SHA-256 of the training manifest, hex.
    pub manifest: String,
    /// [`Config::digest`], hex.
    pub config_digest: String,
    /// Landmark names, one agent each.
    pub landmarks: Vec<String>,
    /// Start of the run, RFC 3339 UTC.
    pub started: String,
    /// Times of its resumptions, RFC 3339 UTC each.
    pub resumed: Vec<String>,
    /// The machine that it started on.
    pub host: String,
    /// The folder in which it was started or resumed last, from which the relative paths of its
    /// configuration count; `None` in runs of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
}

impl RunInfo {
    /// Describes the run of `config`, with its name and landmarks resolved, that this process
    /// starts now.
    #[must_use]
    pub fn new(config: &Config, manifest: [u8; 32], now: SystemTime) -> Self {
        let nanos = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        Self {
            run_id: format!("{}-{nanos:0SUFFIX_DIGITS$x}", config.run.name),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: std::env::args().collect(),
            seed: config.run.seed,
            manifest: hex(&manifest),
            config_digest: hex(&config.digest()),
            landmarks: config.data.landmarks.clone(),
            started: rfc3339(now),
            resumed: Vec::new(),
            host: host_name(),
            cwd: std::env::current_dir().ok(),
        }
    }
}

/// The run's name in a run id, for messages; an id without a suffix, as older clusters
/// assigned, is the name.
#[must_use]
pub fn run_name(run_id: &str) -> &str {
    let is_suffix = |s: &str| s.len() == SUFFIX_DIGITS && s.bytes().all(|b| b.is_ascii_hexdigit());
    match run_id.rsplit_once('-') {
        Some((name, suffix)) if is_suffix(suffix) => name,
        _ => run_id,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn runs_of_one_name_have_ids_of_their_own_that_keep_the_name() {
        let mut config = Config::defaults().unwrap();
        config.run.name = "2026-11-23-142501".into();
        let at = |nanos| UNIX_EPOCH + Duration::from_nanos(nanos);
        let id = |nanos| RunInfo::new(&config, [1; 32], at(nanos)).run_id;
        let (first, second) = (id(1_795_443_901_000_000_001), id(1_795_443_901_000_000_002));
        assert_ne!(first, second);
        for id in [&first, &second, &id(0)] {
            assert_eq!(run_name(id), config.run.name, "{id}");
        }
        for old in ["cluster", "mouse-2", "2026-11-23-142501", ""] {
            assert_eq!(run_name(old), old);
        }
    }
}
