//! The domain of landmarl, free of libtorch and sockets.
//!
//! - [`imaging`]: scans, landmark files and datasets, from files to volumes.
//! - [`environment`]: rules, rewards, starts and windows.
//! - [`transition`]: rows, which refer to scans instead of holding voxels.
//! - [`config`]: every setting, in layers.
//! - [`run`]: the run folder, logs and curves.
//! - [`report`]: statistics, consensus of several starts, images, text for people.
//! - [`phantom`]: generated heads with exact landmarks.

pub mod config;
pub mod environment;
pub mod imaging;
pub mod phantom;
pub mod report;
pub mod run;
pub mod transition;
