//! The differences between two incompatible peers, as error messages.

use common::imaging::manifest::hex;
use common::transition::row::RowShape;
use std::fmt;
use tonic::Status;

/// Everything in which two hellos differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloMismatch {
    /// At least one.
    pub differences: Vec<Difference>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Built from incompatible versions.
    Protocol { server: u32, client: u32 },
    /// Rows laid out differently.
    RowVersion { server: u32, client: u32 },
    /// Members of different runs.
    Run { server: String, client: String },
    /// Other scans, other landmarks, or other preprocessing.
    Manifest { server: [u8; 32], client: [u8; 32] },
    /// Other rules, windows or networks.
    Config { server: [u8; 32], client: [u8; 32] },
    /// Rows of another size.
    Shape { server: RowShape, client: RowShape },
}

impl std::error::Error for HelloMismatch {}

impl fmt::Display for HelloMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences: Vec<_> = self.differences.iter().map(ToString::to_string).collect();
        f.write_str(&sentences.join("; "))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol { server, client } => write!(
                f,
                "protocol versions differ: the server speaks {server}, the client {client}: \
                 use one landmarl version everywhere"
            ),
            Self::RowVersion { server, client } => write!(
                f,
                "row layouts differ: the server reads version {server}, the client sends version \
                 {client}: use one landmarl version everywhere"
            ),
            Self::Run { server, client } => write!(
                f,
                "runs differ: the server belongs to run {server:?}, the client to run {client:?}: \
                 give both one run id, or start a server for the other run"
            ),
            Self::Manifest { server, client } => write!(
                f,
                "training data differ: the manifest hash is {} on the server, {} on the client: \
                 both must hold the same scans and landmarks",
                short(server),
                short(client)
            ),
            Self::Config { server, client } => write!(
                f,
                "configurations differ: the digest of the keys that shape rows and windows is {} on the server, \
                 {} on the client: start both with the same configuration",
                short(server),
                short(client)
            ),
            Self::Shape { server, client } => write!(
                f,
                "row shapes differ: the server takes {} agents and {} frames per row, the client sends {} and {}",
                server.agents, server.history, client.agents, client.history
            ),
        }
    }
}

/// The first bytes of a hash: enough for a person to distinguish two.
fn short(hash: &[u8; 32]) -> String {
    hex(&hash[..6])
}

impl From<HelloMismatch> for Status {
    fn from(mismatch: HelloMismatch) -> Self {
        Self::failed_precondition(mismatch.to_string())
    }
}
