//! Statistics, the consensus of several starts, and images.

pub mod consensus;
pub mod picture;
pub mod statistics;
