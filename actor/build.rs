//! Links libtorch; see `model/link.rs`.
include!("../model/link.rs");
