//! Suspicious properties of scan files.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A property of a scan file that does not prevent its use, but probably is a mistake
/// or makes other programs see another scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScanWarning {
    /// The header's sform and qform place the scan differently; the sform is used.
    FormsDisagree {
        /// Largest distance of a corner, mm.
        apart_mm: f64,
    },
}

impl fmt::Display for ScanWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FormsDisagree { apart_mm } => write!(
                f,
                "sform and qform are {apart_mm:.1} mm apart; the sform is used: check which is \
                 right, and set both to it"
            ),
        }
    }
}
