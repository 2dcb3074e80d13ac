//! The output of a run: its folder, durable files, baseline, logs and curves; throttled
//! warnings; and the machine it runs on.

pub mod baseline;
pub mod cpu;
pub mod durable;
pub mod lock;
pub mod machine;
pub mod records;
pub mod run_folder;
pub mod telemetry;
pub mod tensorboard;
pub mod throttle;
