//! What a run writes: its folder, durable files, baseline, logs, curves; and how often it may warn.

pub mod baseline;
pub mod durable;
pub mod machine;
pub mod run_folder;
pub mod telemetry;
pub mod tensorboard;
pub mod throttle;
