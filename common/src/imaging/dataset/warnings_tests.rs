//! Odd data raises warnings, good data does not.

use super::*;
use crate::imaging::geometry::Geometry;
use crate::imaging::volume::Volume;

const DIMS: [usize; 3] = [40, 44, 48];
const SHAPE: [[f64; 3]; 5] = [
    [20.0, 22.0, 30.0],
    [10.0, 25.0, 20.0],
    [31.0, 24.0, 21.0],
    [21.0, 38.0, 24.0],
    [19.0, 9.0, 12.0],
];

/// A bright ball's cube in a dark volume, landmarks shifted a little per scan.
fn scan(number: usize, places: &[[f64; 3]]) -> Arc<Scan> {
    let mut bytes = vec![0_u8; DIMS.iter().product()];
    for x in 4..36 {
        for y in 4..42 {
            for z in 4..46 {
                bytes[(x * DIMS[1] + y) * DIMS[2] + z] = 120;
            }
        }
    }
    let jitter =
        |l: usize, i: usize| ((number * (l + 2) + l * l * 3 + i * 11) % 5) as f64 * 0.4 - 0.8;
    let landmarks = places.iter().enumerate();
    let landmarks = landmarks.map(|(l, p)| Some(std::array::from_fn(|i| p[i] + jitter(l, i))));
    let geometry = Geometry::straight(DIMS, [1.0; 3]);
    Arc::new(Scan {
        name: number.to_string(),
        volume: Volume::from_u8(DIMS, bytes).unwrap(),
        ..Scan::uniform(geometry, landmarks.collect())
    })
}

fn found(scans: &[Arc<Scan>]) -> Vec<DataWarning> {
    let sources: Vec<PathBuf> = scans.iter().map(|s| PathBuf::from(&s.name)).collect();
    let names: Vec<String> = (0..5).map(|l| format!("L{l}")).collect();
    find(scans, &sources, &names)
}

fn set(odd: &[[f64; 3]]) -> Vec<Arc<Scan>> {
    let mut scans: Vec<Arc<Scan>> = (0..6).map(|n| scan(n, &SHAPE)).collect();
    scans.push(scan(6, odd));
    scans
}

#[test]
fn a_clean_set_raises_no_warning() {
    assert_eq!(found(&set(&SHAPE)), []);
    // Too few landmarks or scans to compare.
    let two: Vec<Arc<Scan>> = (0..3).map(|n| scan(n, &SHAPE[..2])).collect();
    assert_eq!(found(&two), []);
}

#[test]
fn exchanged_sides_and_swapped_axes_are_named() {
    let mirrored = SHAPE.map(|[x, y, z]| [39.0 - x, y, z]);
    let text = found(&set(&mirrored))[0].to_string();
    assert!(text.contains("left and right are exchanged"), "{text}");
    let upside_down = SHAPE.map(|[x, y, z]| [x, y, 45.0 - z]);
    let all = found(&set(&upside_down));
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].scan, PathBuf::from("6"));
    let text = all[0].to_string();
    assert!(text.contains("top and bottom are exchanged"), "{text}");
    let swapped = SHAPE.map(|[x, y, z]| [x, z, y]);
    let text = found(&set(&swapped))[0].to_string();
    assert!(text.contains("axes y and z are swapped"), "{text}");
}

#[test]
fn landmarks_on_the_midline_raise_no_side_warning() {
    let middle = SHAPE.map(|[_, y, z]| [20.0, y, z]);
    let mut scans: Vec<Arc<Scan>> = (0..6).map(|n| scan(n, &middle)).collect();
    scans.push(scan(6, &middle.map(|[x, y, z]| [39.0 - x, y, z])));
    assert_eq!(found(&scans), []);
}

#[test]
fn a_stray_landmark_and_exchanged_names_are_far_off() {
    let mut stray = SHAPE;
    stray[3] = [21.0, 20.0, 24.0];
    let all = found(&set(&stray));
    assert_eq!(all.len(), 1, "{all:?}");
    let text = all[0].to_string();
    assert!(text.contains("landmark 'L3' is 1"), "{text}");
    let mut exchanged = SHAPE;
    exchanged.swap(3, 4);
    let all = found(&set(&exchanged));
    let of_scan_6 = all.iter().all(|d| d.scan == *"6");
    assert!(!all.is_empty() && of_scan_6, "{all:?}");
}

#[test]
fn a_landmark_in_the_dark_is_named_with_its_voxel() {
    let mut dark = SHAPE;
    dark[4] = [19.0, 9.0, 1.0];
    let all = found(&set(&dark));
    let text: Vec<String> = all.iter().map(ToString::to_string).collect();
    assert!(text.iter().all(|t| t.contains("'L4'")), "{text:?}");
    assert!(text[0].contains("in the background (voxel "), "{text:?}");
}
