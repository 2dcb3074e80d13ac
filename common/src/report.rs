//! Statistics, the consensus of several starts, images, and text for people.

pub mod consensus;
pub mod picture;
pub mod statistics;
pub mod text;
