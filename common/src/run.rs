//! What a run writes: its folder, durable files, baseline, logs, curves; how often it may warn;
//! and the machine it runs on.

pub mod baseline;
pub mod cpu;
pub mod durable;
pub mod machine;
pub mod run_folder;
pub mod telemetry;
pub mod tensorboard;
pub mod throttle;
