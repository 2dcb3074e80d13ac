//! Scans, landmark files and datasets: from files to volumes in memory.

pub mod cache;
pub mod dataset;
pub(crate) mod delimited;
pub mod file_list;
pub mod geometry;
pub mod label_map;
pub mod landmark_file;
pub mod manifest;
pub mod nifti_io;
pub mod orientation;
pub mod preprocess;
pub mod resample;
pub mod scan;
pub mod volume;
