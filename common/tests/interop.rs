//! Scans as nibabel and SimpleITK read them: `interop/make_scans.py` writes
//! files in every accepted format and records what the two read from them.
//! Where they place a scan differently, we are with SimpleITK, and so with 3D Slicer.

mod python_env;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use common::imaging::geometry::Affine;
use common::imaging::label_map::LabelMap;
use common::imaging::nifti_io::{Image, Limits, Samples, read};
use common::imaging::preprocess::{VolumeChoice, preprocess};
use serde::Deserialize;

/// Files whose values we read as nibabel does: SimpleITK adds the intercept where the slope is
/// no number.
const OTHER_VALUES: &str = "n1_nan_slope.nii";

#[derive(Debug, Deserialize)]
struct Entry {
    file: String,
    nibabel: Reading,
    simpleitk: Option<Reading>,
    disputed: bool,
    world: Vec<([f64; 3], [f64; 3])>,
}

/// What a library reads.
#[derive(Debug, Deserialize)]
struct Reading {
    shape: [usize; 3],
    affine: [[f64; 4]; 4],
    sum: f64,
    /// i, j, k, value.
    values: Vec<[f64; 4]>,
}

#[test]
fn scans_are_read_as_nibabel_and_simpleitk_read_them() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    let test = "scans_are_read_as_nibabel_and_simpleitk_read_them";
    let Some(python) = python_env::python(test, &here.join("requirements.txt")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    python_env::run(&python, &here.join("make_scans.py"), &[folder.as_os_str()]);
    let text = fs::read_to_string(folder.join("scans.json")).unwrap();
    let entries: Vec<Entry> = serde_json::from_str(&text).unwrap();
    let mut compared = [0, 0, 0];
    for entry in &entries {
        let path = folder.join(&entry.file);
        let image = read(&path, &Limits::default()).unwrap();
        if entry.disputed {
            assert!(!image.warnings().is_empty(), "{}", entry.file);
            compared[2] += 1;
        } else {
            same(&image, &entry.nibabel, 1e-6, &entry.file);
            compared[0] += 1;
            for (voxel, expected) in &entry.world {
                let found = image.affine().to_world(*voxel);
                close(&found, expected, 1e-5, &entry.file);
                let back = image.affine().to_voxel(found).unwrap();
                close(&back, voxel, 1e-9, &entry.file);
            }
        }
        let Some(reading) = &entry.simpleitk else {
            continue;
        };
        if entry.file != OTHER_VALUES {
            // It makes the directions orthonormal, from f32 quaternions.
            same(&image, reading, 2e-5, &entry.file);
            compared[1] += 1;
        }
        let geometry = preprocess(&image, VolumeChoice::CanonicalU8).geometry;
        let labels = LabelMap::spheres(&geometry, &[Some([2.0; 3])], 1.0);
        let label = folder.join(format!("{}_label.nii.gz", entry.file));
        labels.write(&label).unwrap();
    }
    // SimpleITK reads neither NIfTI-2 nor sheared axes.
    assert!(
        compared[0] >= 170 && compared[1] >= 130 && compared[2] >= 38,
        "{compared:?}"
    );
    label_maps_lie_where_simpleitk_places_the_scans(&python, &here, folder, &entries);
}

fn label_maps_lie_where_simpleitk_places_the_scans(
    python: &Path,
    here: &Path,
    folder: &Path,
    entries: &[Entry],
) {
    let text = python_env::run(python, &here.join("places.py"), &[folder.as_os_str()]);
    let places: HashMap<String, [[f64; 4]; 4]> =
        serde_json::from_str(&text).expect("places.py prints JSON");
    for entry in entries {
        if let Some(reading) = &entry.simpleitk {
            for (found, expected) in places[&entry.file].iter().zip(&reading.affine) {
                close(found, expected, 2e-5, &entry.file);
            }
        }
    }
}

fn same(image: &Image, reading: &Reading, tolerance: f64, file: &str) {
    assert_eq!(image.dims(), reading.shape, "{file}");
    let affine: &Affine = image.affine();
    for (found, expected) in affine.rows.iter().zip(&reading.affine) {
        close(found, expected, tolerance, file);
    }
    let values: Vec<f64> = match image.samples() {
        Samples::U8(values) => values.iter().map(|&v| f64::from(v)).collect(),
        Samples::F32(values) => values.iter().map(|&v| f64::from(v)).collect(),
    };
    let [nx, ny, _] = image.dims();
    for [i, j, k, expected] in &reading.values {
        let [i, j, k] = [*i, *j, *k].map(|v| v as usize);
        let found = values[i + nx * (j + ny * k)];
        close(&[found], &[*expected], 1e-5, file);
    }
    let sum: f64 = values.iter().sum();
    assert!(
        (sum - reading.sum).abs() < 1e-2,
        "{file}: {sum} {}",
        reading.sum
    );
}

fn close(found: &[f64], expected: &[f64], tolerance: f64, file: &str) {
    for (a, b) in found.iter().zip(expected) {
        assert!(
            (a - b).abs() <= tolerance * b.abs().max(1.0),
            "{file}: {found:?} is not {expected:?}"
        );
    }
}
