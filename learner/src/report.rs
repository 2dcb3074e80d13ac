//! Progress, metrics and status of a run.

pub mod bottleneck;
pub mod metrics;
pub mod progress;
pub mod rates;
pub mod recorder;
pub mod reporter;
pub mod status;
pub mod status_text;
