//! landmarl's domain, without libtorch and without sockets.
//!
//! Layout:
//! - [`volume`], [`geometry`], [`scan`]: what a preprocessed scan is.
//! - [`nifti_io`], [`orientation`], [`resample`], [`preprocess`], [`cache`]: from a scan file to a volume.
//! - [`landmark_file`], [`list_file`], [`dataset`]: all scans of a run with their landmarks.
//! - [`label_map`]: landmarks as spheres to lay over a scan.
//! - [`manifest`]: what actors and learner compare before they share transitions.
//! - [`durable`]: files that are written whole or not at all.
//! - [`rules`], [`walk`], [`reward`], [`trail`], [`starts`], [`window`]: the environment.
//! - [`row`], [`columns`], [`n_step`]: transitions, stored and sent by reference.
//! - [`config`]: every setting, in layers.
//! - [`consensus`]: one answer from several walks; [`statistics`]: what many say.
//! - [`phantom`]: generated heads with exact landmarks.
//! - [`picture`]: slices with true and predicted landmarks, as PNG.
//! - [`telemetry`], [`run_folder`]: logs; where a run keeps its files.

pub mod cache;
pub mod columns;
pub mod config;
pub mod consensus;
pub mod dataset;
mod delimited;
pub mod durable;
pub mod geometry;
pub mod label_map;
pub mod landmark_file;
pub mod list_file;
pub mod machine;
pub mod manifest;
pub mod n_step;
pub mod nifti_io;
pub mod orientation;
pub mod phantom;
pub mod picture;
pub mod pose;
pub mod preprocess;
pub mod resample;
pub mod reward;
pub mod row;
pub mod rules;
pub mod run_folder;
pub mod scan;
pub mod starts;
pub mod statistics;
mod strided;
pub mod telemetry;
pub mod tensorboard;
pub mod trail;
pub mod volume;
pub mod walk;
pub mod window;
