//! Input of the commands: settings, scans and weights.

pub mod scans;
pub mod settings;
pub mod walks;
pub mod weights;
