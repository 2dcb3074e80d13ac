//! The update: loss, optimizer, devices, and the thread that trains.

pub mod adam;
pub(crate) mod ema;
pub mod loss;
pub mod nccl;
pub(crate) mod replica;
pub(crate) mod replicas;
pub mod schedule;
pub mod stats;
pub mod stop;
pub mod targets;
pub mod thread;
pub mod trainer;
