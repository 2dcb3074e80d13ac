//! Our exports as read by nibabel and SimpleITK, for scans stored in several ways.

use std::ffi::OsStr;
use std::path::Path;

use crate::fixtures::with_weights;
use crate::process::{Bench, json, parse};
use crate::python_env;

/// Tolerance for equal positions.
const SAME_MM: f64 = 0.01;

fn here() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop"))
}

#[test]
fn exports_agree_with_nibabel_and_simpleitk() {
    let test = "exports_agree_with_nibabel_and_simpleitk";
    let Some(python) = python_env::python(
        test,
        &here().join("../../../common/tests/interop/requirements.txt"),
    ) else {
        return;
    };
    let script = here().join("exports.py");
    let bench = with_weights();
    let test_set = bench.path("data/test");
    let (image, table, turned) = (
        test_set.join("images/phantom_0001.nii.gz"),
        test_set.join("landmarks/phantom_0001.csv"),
        bench.path("turned"),
    );
    let paths = [&image, &table, &turned].map(|p| p.as_os_str());
    let arguments = [&[OsStr::new("make")], &paths[..]].concat();
    python_env::run(&python, &script, &arguments);
    for name in ["ras", "las", "oblique"] {
        bench.write("i.txt", format!("turned/{name}.nii.gz\n"));
        bench.write("l.txt", format!("turned/{name}.csv\n"));
        let out = format!("eval-{name}");
        bench.succeed(&format!(
            "eval --load weights.safetensors --images i.txt --landmarks-files l.txt \
             --device cpu --starts 2 --no-pictures --out {out}"
        ));
        let evaluation = bench.path(&out);
        let arguments = ["read".as_ref(), turned.as_os_str(), evaluation.as_os_str()];
        let report = python_env::run(&python, &script, &arguments);
        let report = &parse(&report)[name];
        assert_eq!(report["landmarks"], 2, "{report}");
        for kind in ["truth", "mrk.json", "fcsv", "csv"] {
            let apart = report["apart_mm"][kind].as_f64().unwrap();
            assert!(apart < SAME_MM, "{name}, {kind}: {report}");
        }
        assert!(report["label_grid_mm"].as_f64().unwrap() < 1e-4, "{report}");
        assert_eq!(report["label_voxels_wrong"], 0, "{name}: {report}");
        let right = report["label_voxels_right"].as_u64();
        assert!(right.unwrap() > 50, "{report}");
    }
    check_same_positions_in_ras_and_las(&bench);
}

/// Axes are reordered to RAS, so the same episodes end at the same positions.
fn check_same_positions_in_ras_and_las(bench: &Bench) {
    let places = |name: &str| -> Vec<f64> {
        let predictions = json(&bench.path(&format!("eval-{name}/predictions.json")));
        let list = predictions["predictions"].as_array().unwrap().iter();
        let places = list.flat_map(|p| p["predicted"]["ras_mm"].as_array().unwrap().clone());
        places.map(|v| v.as_f64().unwrap()).collect()
    };
    let (ras, las) = (places("ras"), places("las"));
    assert_eq!((ras.len(), las.len()), (6, 6));
    for (a, b) in ras.iter().zip(&las) {
        assert!((a - b).abs() < 1e-3, "{ras:?} {las:?}");
    }
}
