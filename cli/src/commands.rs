//! The sub-commands, one module each.

pub mod certs;
pub mod checkpoint;
pub mod completions;
pub mod config;
pub mod data;
pub mod doctor;
pub mod eval;
pub mod import;
pub mod logs;
pub mod phantom;
pub mod play;
pub mod runs;
pub mod status;
pub mod train;
