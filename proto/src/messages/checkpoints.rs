//! Checkpoints of a running learner: the list, and downloads.

use crate::error::ProtocolError;
use crate::messages::pack;
use bytes::Bytes;

/// Longest name of a file.
const NAME_BYTES_MAX: usize = 255;

/// One file of a run's checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// Its name, without a folder.
    pub name: String,
    pub bytes: u64,
    /// Of the whole file.
    pub sha256: [u8; 32],
    /// Modification time in seconds since 1970.
    pub modified_s: u64,
    /// Updates done, if the name or the file contains them.
    pub updates: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointList {
    pub run_id: String,
    /// Most updates first.
    pub checkpoints: Vec<CheckpointInfo>,
}

/// The part of a file that the client already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Its length, from the start of the file.
    pub bytes: u64,
    /// SHA-256 of the whole file.
    pub sha256: [u8; 32],
}

/// Which file to download, and from which offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullCheckpoint {
    /// A name from the list, or `last` or `best`.
    pub name: String,
    /// What the client already has.
    pub part: Option<Part>,
}

/// Whether a name may be one file in a folder: no path, nothing hidden.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

fn file_name(field: &'static str, name: String) -> Result<String, ProtocolError> {
    if is_file_name(&name) {
        return Ok(name);
    }
    let why = format!("{name:?} is not the name of a file without a folder");
    Err(ProtocolError::invalid(field, why))
}

pack::wire_form! {
    CheckpointInfo, CheckpointInfo, same: [bytes, modified_s, updates],
    info => { name: info.name, sha256: Bytes::copy_from_slice(&info.sha256) },
    info => {
        name: file_name("checkpoints.name", info.name)?,
        sha256: pack::digest("checkpoints.sha256", &info.sha256)?,
    },
}

pack::wire_form! {
    CheckpointList, CheckpointList, same: [run_id],
    list => { checkpoints: list.checkpoints.into_iter().map(Into::into).collect() },
    list => {
        checkpoints: list
            .checkpoints
            .into_iter()
            .map(TryInto::try_into)
            .collect::<Result<_, _>>()?,
    },
}

pack::wire_form! {
    PullCheckpoint, PullCheckpointRequest, same: [],
    request => {
        name: request.name,
        offset: request.part.map_or(0, |p| p.bytes),
        sha256: request
            .part
            .map(|p| Bytes::copy_from_slice(&p.sha256))
            .unwrap_or_default(),
    },
    request => {
        part: match (request.offset, request.sha256.is_empty()) {
            (0, true) => None,
            (bytes, _) => Some(Part {
                bytes,
                sha256: pack::digest("sha256", &request.sha256)?,
            }),
        },
        name: file_name("name", request.name)?,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::pack::tests::reads_back;
    use crate::wire;

    #[test]
    fn lists_and_requests_read_back() {
        let list = CheckpointList {
            run_id: "skulls-1".into(),
            checkpoints: vec![CheckpointInfo {
                name: "update-00000500.safetensors".into(),
                bytes: 9,
                sha256: [3; 32],
                modified_s: 1_700_000_000,
                updates: Some(500),
            }],
        };
        reads_back::<wire::CheckpointList, _>(list);
        let sha256 = [4; 32];
        for part in [None, Some(Part { bytes: 7, sha256 })] {
            let name = "best".to_owned();
            reads_back::<wire::PullCheckpointRequest, _>(PullCheckpoint { name, part });
        }
    }

    #[test]
    fn a_path_is_not_a_file_name() {
        for good in ["best", "last.safetensors", "update-00000001.safetensors"] {
            assert!(is_file_name(good), "{good}");
        }
        let long = "a".repeat(256);
        let paths = ["", ".", "..", "../best", "a/b", "/etc/passwd", "a\\b"];
        for bad in paths.into_iter().chain(["a\0b", ".hidden", "é", &long]) {
            assert!(!is_file_name(bad), "{bad}");
            let message = wire::PullCheckpointRequest {
                name: bad.into(),
                ..Default::default()
            };
            assert!(PullCheckpoint::try_from(message).is_err(), "{bad}");
        }
    }
}
