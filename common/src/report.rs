//! Statistics, the consensus of several starts, and pictures.

pub mod consensus;
pub mod picture;
pub mod statistics;
