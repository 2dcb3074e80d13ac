//! Transitions: rows and n-step returns.

pub mod n_step;
pub mod row;
