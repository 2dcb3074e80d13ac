//! What the files of one scan are called.

use std::sync::Arc;

use common::imaging::scan::Scan;

/// The scan's name; with its number where two have the same.
pub fn stem(index: usize, scans: &[Arc<Scan>]) -> String {
    let name = &scans[index].name;
    let twice = scans.iter().filter(|s| s.name == *name).count() > 1;
    if twice {
        format!("{name}-{index}")
    } else {
        name.clone()
    }
}
