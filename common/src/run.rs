//! What a run writes: its folder, durable files, logs, curves; and how often it may warn.

pub mod durable;
pub mod machine;
pub mod run_folder;
pub mod telemetry;
pub mod tensorboard;
pub mod throttle;
