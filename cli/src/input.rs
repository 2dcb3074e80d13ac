//! Input of the commands: settings, scans and weights.

pub mod run;
pub mod scans;
pub mod settings;
pub mod training_scans;
pub mod trajectories;
pub mod weights;
