//! File names for the output of one scan.

use std::sync::Arc;

use common::imaging::scan::Scan;

/// The scan's name, with its number appended if two scans share the name.
pub fn stem(index: usize, scans: &[Arc<Scan>]) -> String {
    let name = &scans[index].name;
    let twice = scans.iter().filter(|s| s.name == *name).count() > 1;
    if twice {
        format!("{name}-{index}")
    } else {
        name.clone()
    }
}
