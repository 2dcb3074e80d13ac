//! Part of every first message: checks that the two peers belong to one run.

use crate::error::ProtocolError;
use crate::messages::mismatch::{Difference, HelloMismatch};
use crate::messages::pack;
use crate::wire;
use bytes::Bytes;
use common::config::Config;
use common::transition::row::{ROW_VERSION, RowShape};

/// Raised by every incompatible change of the .proto files.
pub const PROTOCOL_VERSION: u32 = 2;

/// Longest run id, in bytes.
const RUN_ID_BYTES_MAX: usize = 256;
/// More agents or frames than any run has: bounds what a malicious peer can make us allocate.
const AGENTS_MAX: u32 = 1024;
const HISTORY_MAX: u32 = 16;

/// What must agree before any row is sent. Always of [`PROTOCOL_VERSION`] and [`ROW_VERSION`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The training run. Empty only in a join: whatever run the learner has.
    pub run_id: String,
    /// SHA-256 of the training manifest (which scans, numbered how).
    pub manifest: [u8; 32],
    /// SHA-256 of the config keys that shape rows and windows.
    pub config_digest: [u8; 32],
    /// Agents per row and frames per observation.
    pub shape: RowShape,
}

impl Hello {
    /// The hello of a member of the run `run_id` with this configuration, its landmarks resolved,
    /// and the digest of the scans that it holds.
    #[must_use]
    pub fn new(run_id: &str, config: &Config, manifest: [u8; 32]) -> Self {
        Self {
            run_id: run_id.to_owned(),
            manifest,
            config_digest: config.digest(),
            shape: RowShape {
                agents: config.row_agents(),
                history: u8::try_from(config.rules.history).unwrap_or(u8::MAX),
            },
        }
    }

    /// Compares a server's hello (`self`) with a client's, and names everything
    /// that differs. An empty run id of the client agrees with every run; all
    /// messages but a join refuse it on arrival.
    pub fn check(&self, client: &Self) -> Result<(), HelloMismatch> {
        let mut differences = Vec::new();
        if !client.run_id.is_empty() && self.run_id != client.run_id {
            differences.push(Difference::Run {
                server: self.run_id.clone(),
                client: client.run_id.clone(),
            });
        }
        if self.manifest != client.manifest {
            differences.push(Difference::Manifest {
                server: self.manifest,
                client: client.manifest,
            });
        }
        if self.config_digest != client.config_digest {
            differences.push(Difference::Config {
                server: self.config_digest,
                client: client.config_digest,
            });
        }
        if self.shape != client.shape {
            differences.push(Difference::Shape {
                server: self.shape,
                client: client.shape,
            });
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(HelloMismatch { differences })
    }
}

impl From<&Hello> for wire::Hello {
    fn from(hello: &Hello) -> Self {
        Self {
            protocol: PROTOCOL_VERSION,
            run_id: hello.run_id.clone(),
            manifest: Bytes::copy_from_slice(&hello.manifest),
            config_digest: Bytes::copy_from_slice(&hello.config_digest),
            row_agents: hello.shape.agents.into(),
            row_history: hello.shape.history.into(),
            row_version: ROW_VERSION.into(),
        }
    }
}

impl From<Hello> for wire::Hello {
    fn from(hello: Hello) -> Self {
        Self::from(&hello)
    }
}

impl TryFrom<wire::Hello> for Hello {
    type Error = ProtocolError;

    fn try_from(hello: wire::Hello) -> Result<Self, ProtocolError> {
        check_versions(&hello)?;
        let (agents, history) = ("hello.row_agents", "hello.row_history");
        let bytes = hello.run_id.len();
        pack::within("hello.run_id", bytes, "bytes", 0..=RUN_ID_BYTES_MAX)?;
        pack::within(agents, hello.row_agents, "agents", 1..=AGENTS_MAX)?;
        pack::within(history, hello.row_history, "frames", 1..=HISTORY_MAX)?;
        Ok(Self {
            run_id: hello.run_id,
            manifest: pack::digest("hello.manifest", &hello.manifest)?,
            config_digest: pack::digest("hello.config_digest", &hello.config_digest)?,
            shape: RowShape {
                agents: pack::narrow(agents, hello.row_agents)?,
                history: pack::narrow(history, hello.row_history)?,
            },
        })
    }
}

/// Refuses other versions before other fields are read: their meaning may differ.
fn check_versions(hello: &wire::Hello) -> Result<(), HelloMismatch> {
    let difference = if hello.protocol != PROTOCOL_VERSION {
        Difference::Protocol {
            server: PROTOCOL_VERSION,
            client: hello.protocol,
        }
    } else if hello.row_version != u32::from(ROW_VERSION) {
        Difference::RowVersion {
            server: ROW_VERSION.into(),
            client: hello.row_version,
        }
    } else {
        return Ok(());
    };
    Err(HelloMismatch {
        differences: vec![difference],
    })
}

/// A hello that a join must carry; its run id may be empty.
pub(crate) fn required_by_join(hello: Option<wire::Hello>) -> Result<Hello, ProtocolError> {
    pack::required("hello", hello)?.try_into()
}

/// A hello that any other message must carry.
pub(crate) fn required(hello: Option<wire::Hello>) -> Result<Hello, ProtocolError> {
    let hello = required_by_join(hello)?;
    if hello.run_id.is_empty() {
        return Err(ProtocolError::Missing("hello.run_id"));
    }
    Ok(hello)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn hello() -> Hello {
        Hello {
            run_id: "skulls-1".into(),
            manifest: [1; 32],
            config_digest: [2; 32],
            shape: RowShape {
                agents: 1,
                history: 4,
            },
        }
    }

    #[test]
    fn reads_back_and_agrees_with_itself() {
        let read = Hello::try_from(wire::Hello::from(&hello())).unwrap();
        assert_eq!(read, hello());
        assert_eq!(hello().check(&read), Ok(()));
    }

    #[test]
    fn each_difference_is_described() {
        let description = |change: fn(&mut Hello)| {
            let mut client = hello();
            change(&mut client);
            hello().check(&client).unwrap_err().to_string()
        };
        assert!(description(|h| h.run_id = "other".into()).starts_with(
            "runs differ: the server belongs to run \"skulls-1\", the client to run \"other\""
        ));
        assert!(description(|h| h.manifest = [0xab; 32]).starts_with("training data differ: the manifest hash is 010101010101 on the server, abababababab on the client"));
        assert!(
            description(|h| h.config_digest[0] = 9)
                .contains("is 020202020202 on the server, 090202020202 on the client")
        );
        assert!(
            description(|h| h.shape.agents = 5)
                .ends_with("takes 1 agents and 4 frames per row, the client sends 5 and 4")
        );
        let both = description(|h| {
            h.run_id = "other".into();
            h.shape.history = 1;
        });
        assert!(
            both.contains("runs differ") && both.contains("; row shapes differ"),
            "{both}"
        );
    }

    #[test]
    fn only_a_join_may_have_an_empty_run_id() {
        let mut open = hello();
        open.run_id.clear();
        assert_eq!(hello().check(&open), Ok(()));
        assert_eq!(required_by_join(Some((&open).into())), Ok(open.clone()));
        assert_eq!(
            required(Some((&open).into())),
            Err(ProtocolError::Missing("hello.run_id"))
        );
    }

    #[test]
    fn another_protocol_is_a_failed_precondition_and_a_broken_field_an_invalid_argument() {
        let refused = |change: fn(&mut wire::Hello)| {
            let mut message = wire::Hello::from(&hello());
            change(&mut message);
            tonic::Status::from(required(Some(message)).unwrap_err())
        };
        let status = refused(|h| h.protocol = 7);
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(
            status
                .message()
                .contains("the server speaks 2, the client 7"),
            "{status}"
        );
        let status = refused(|h| h.row_version = 7);
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(
            status.message().starts_with("row layouts differ"),
            "{status}"
        );
        for (change, field) in [
            (
                (|h| h.run_id.clear()) as fn(&mut wire::Hello),
                "hello.run_id",
            ),
            (
                |h| h.manifest = Bytes::from_static(b"short"),
                "hello.manifest",
            ),
            (|h| h.config_digest.clear(), "hello.config_digest"),
            (|h| h.row_agents = 0, "hello.row_agents"),
            (|h| h.row_agents = 70_000, "hello.row_agents"),
            (|h| h.row_history = 300, "hello.row_history"),
        ] {
            let status = refused(change);
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(field), "{status}");
        }
    }
}
