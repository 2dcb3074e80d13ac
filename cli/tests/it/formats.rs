//! Data in the formats of the published sets, made from phantoms: training and evaluation.

use std::fmt::Write as _;

use common::config::{Config, Sources};
use common::imaging::dataset::{Dataset, DatasetSpec};
use common::imaging::landmark_file::LandmarkFile;
use common::imaging::nifti_io::{ImageRef, Limits, Samples, SamplesRef, read, write};
use serde_json::{Value, json};

use crate::process::{self, Bench, assert_contains, json_lines};
use crate::run::SMALL;

/// The published networks are for GPUs; all other settings of the presets are kept.
const CHEAP: &str = "--set network.preset=small --set rules.history=1";

/// The content of one phantom's file: voxels, and positions of landmarks.
struct Phantom {
    dims: [usize; 3],
    voxels: Vec<u8>,
    /// Voxel → RAS mm.
    affine: common::imaging::geometry::Affine,
    /// Landmark positions, RAS mm, by name.
    file: LandmarkFile,
}

impl Phantom {
    fn read(bench: &Bench, set: &str, number: usize) -> Self {
        let part = |kind: &str, ending: &str| {
            bench.path(&format!("data/{set}/{kind}/phantom_{number:04}.{ending}"))
        };
        let image = read(&part("images", "nii.gz"), &Limits::default()).unwrap();
        let Samples::U8(voxels) = image.samples() else {
            panic!("phantoms are bytes");
        };
        Self {
            dims: image.dims(),
            voxels: voxels.clone(),
            affine: *image.affine(),
            file: LandmarkFile::read(&part("landmarks", "csv")).unwrap(),
        }
    }

    fn ras_mm(&self, name: &str) -> [f64; 3] {
        self.file.find(name).unwrap().point.position.unwrap()
    }

    /// Reverses the first axis: RAS → LAS; world coordinates are unchanged.
    fn left(mut self) -> Self {
        let [nx, ..] = self.dims;
        self.voxels.chunks_exact_mut(nx).for_each(<[u8]>::reverse);
        for row in &mut self.affine.rows {
            row[3] += row[0] * (nx - 1) as f64;
            row[0] = -row[0];
        }
        self
    }

    /// Keeps every second slice, with twice the thickness.
    fn thick(mut self) -> Self {
        let [nx, ny, nz] = self.dims;
        let slices = self.voxels.chunks_exact(nx * ny);
        self.voxels = slices.step_by(2).flatten().copied().collect();
        self.dims[2] = nz.div_ceil(2);
        for row in &mut self.affine.rows {
            row[2] *= 2.0;
        }
        self
    }

    fn write(&self, bench: &Bench, path: &str) {
        let image = ImageRef {
            dims: self.dims,
            samples: SamplesRef::U8(&self.voxels),
            affine: &self.affine,
        };
        let path = bench.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, &image).unwrap();
    }
}

const SETS: [(&str, usize); 3] = [("train", 3), ("validation", 1), ("test", 2)];

/// Makes phantoms, writes each with `store` (bench, set, number, path stem)
/// and lists them; `landmarks` is the ending of the landmark files.
fn convert(
    bench: &Bench,
    landmarks: &str,
    scan: &str,
    store: impl Fn(&str, usize, Phantom) -> (Phantom, String),
) {
    bench.succeed("phantom --out data --train 3 --validation 1 --test 2 --size 48x56x48 --seed 3");
    for (set, count) in SETS {
        let (mut images, mut files) = (String::new(), String::new());
        for number in 1..=count {
            let (phantom, text) = store(set, number, Phantom::read(bench, set, number));
            phantom.write(bench, &format!("own/{set}/case{number}{scan}"));
            bench.write(&format!("own/{set}/case{number}{landmarks}"), text);
            writeln!(images, "case{number}{scan}").unwrap();
            writeln!(files, "case{number}{landmarks}").unwrap();
        }
        bench.write(&format!("own/{set}/images.txt"), images);
        bench.write(&format!("own/{set}/landmarks.txt"), files);
    }
}

/// Checks, trains briefly with a preset, evaluates; returns summary.json.
fn check_train_evaluate(bench: &Bench, preset: &str) -> Value {
    let preset = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/").to_owned() + preset;
    let lists =
        |set: &str| format!("own/{set}/images.txt --landmarks-files own/{set}/landmarks.txt");
    bench.succeed(&format!("data stats {} --config {preset}", lists("train")));
    let trained = bench.succeed(&format!(
        "train --config {preset} --train-images own/train/images.txt \
         --train-landmarks own/train/landmarks.txt --validation-images own/validation/images.txt \
         --validation-landmarks own/validation/landmarks.txt --name own --updates 20 {SMALL} {CHEAP}"
    ));
    assert_contains(&trained.err, "landmarl eval --load runs/own");
    let validations = json_lines(&bench.path("runs/own/validation.jsonl"));
    assert_eq!(validations.last().unwrap()["updates"], 20);
    bench.succeed(&format!(
        "eval --load runs/own --images {} --out eval --device cpu --starts 2",
        lists("test")
    ));
    process::json(&bench.path("eval/summary.json"))
}

/// Six points of legacy VTK, RAS mm: 4 and 5 are those that the preset learns.
#[test]
fn cardiac_like_sets_train_and_evaluate() {
    let bench = Bench::new();
    convert(&bench, ".vtk", ".nii", |_, number, phantom| {
        let names = "left_horn right_horn stem_pole stem_pole base_ball bridge";
        let mut text =
            "# vtk DataFile Version 3.0\nvtk output\nASCII\nDATASET POLYDATA\nPOINTS 6 float\n"
                .to_owned();
        for (name, end) in names.split(' ').zip([" ", " ", "\n"].into_iter().cycle()) {
            let [x, y, z] = phantom.ras_mm(name);
            write!(text, "{x} {y} {z}{end}").unwrap();
        }
        let thick = phantom.thick();
        (if number == 2 { thick.left() } else { thick }, text)
    });
    let summary = check_train_evaluate(&bench, "cardiac.toml");
    let landmarks = summary["landmarks"].as_array().unwrap().iter();
    let names: Vec<_> = landmarks.map(|l| &l["name"]).collect();
    assert_eq!(names, ["4", "5"]);
    let rows = predictions(&bench);
    assert_eq!(rows.len(), 4);
    for row in rows {
        // In the file's own thick slices, and where the phantom has it.
        let number = if row["scan"] == "case1" { 1 } else { 2 };
        let phantom = Phantom::read(&bench, "test", number);
        let four = row["landmark"] == "4";
        let name = if four { "base_ball" } else { "bridge" };
        same_place(&row, phantom.ras_mm(name));
        let voxel = phantom.affine.to_voxel(phantom.ras_mm(name)).unwrap();
        let slice = row["truth"]["file_voxel"][2].as_f64().unwrap();
        assert!((2.0 * slice - voxel[2]).abs() < 1e-3, "{row}");
    }
}

/// Checks the true position of a prediction, RAS mm.
fn same_place(row: &Value, expected: [f64; 3]) {
    for (axis, expected) in expected.into_iter().enumerate() {
        let found = row["truth"]["ras_mm"][axis].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-3, "{row}");
    }
}

fn predictions(bench: &Bench) -> Vec<Value> {
    let all = process::json(&bench.path("eval/predictions.json"));
    all["predictions"].as_array().unwrap().clone()
}

/// Sixteen voxel positions, blank between, `0 0 0` where one is missing.
#[test]
fn fetal_like_sets_train_and_evaluate_without_what_is_missing() {
    let bench = Bench::new();
    convert(&bench, "_ps.txt", ".nii.gz", |set, number, phantom| {
        let phantom = if number == 1 { phantom } else { phantom.left() };
        let mut text = String::new();
        for index in 0..16 {
            let name = match (index, set, number) {
                // The second training scan lacks 11, the second test scan 12.
                (11, "train", 2) | (12, "test", 2) => None,
                (10, ..) => Some("right_horn"),
                (11, ..) => Some("left_horn"),
                (12, ..) => Some("bridge"),
                _ => None,
            };
            let voxel = name.map(|n| phantom.affine.to_voxel(phantom.ras_mm(n)).unwrap());
            let [x, y, z] = voxel.unwrap_or_default();
            writeln!(text, "{x} {y} {z}").unwrap();
        }
        (phantom, text)
    });
    let summary = check_train_evaluate(&bench, "fetal.toml");
    let landmarks = summary["landmarks"].as_array().unwrap();
    let known = landmarks
        .iter()
        .map(|l| json!([l["name"], l["consensus"]["mm"]["count"]]));
    assert_eq!(
        known.collect::<Value>(),
        json!([["10", 2], ["11", 2], ["12", 1]])
    );
    let rows = predictions(&bench);
    assert_eq!(rows.len(), 6, "a prediction for the missing one too");
    for row in &rows {
        let missing = row["scan"] == "case2" && row["landmark"] == "12";
        assert_eq!(row["truth"].is_null(), missing, "{row}");
        assert_eq!(row["error_mm"].is_null(), missing, "{row}");
    }
    // Turned or not, left is left.
    let phantom = Phantom::read(&bench, "test", 2);
    let mut rows = rows.iter();
    let left = rows.find(|r| r["scan"] == "case2" && r["landmark"] == "11");
    same_place(left.unwrap(), phantom.ras_mm("left_horn"));
}

/// Training sees the same data in a folder of LAS and RAS scans as in one of RAS scans.
#[test]
fn a_folder_of_las_and_ras_scans_is_the_same_data() {
    let bench = Bench::new();
    convert(&bench, ".csv", ".nii.gz", |_, number, phantom| {
        let mut text = "name,x_ras_mm,y_ras_mm,z_ras_mm\n".to_owned();
        for name in ["left_horn", "right_horn", "bridge"] {
            let [x, y, z] = phantom.ras_mm(name);
            writeln!(text, "{name},{x},{y},{z}").unwrap();
        }
        let turned = number % 2 == 0;
        (if turned { phantom.left() } else { phantom }, text)
    });
    let load = |images: &str, landmarks: &str| {
        let mut spec = DatasetSpec::training(&settings());
        spec.images = bench.path(images);
        spec.landmarks = Some(bench.path(landmarks));
        spec.options.cache_dir = Some(bench.path("cache"));
        Dataset::load(&spec).unwrap()
    };
    let ras = load("data/train/images.txt", "data/train/landmarks.txt");
    let mixed = load("own/train/images.txt", "own/train/landmarks.txt");
    assert_eq!((ras.scans.len(), mixed.scans.len()), (3, 3));
    for (a, b) in ras.scans.iter().zip(&mixed.scans) {
        assert_eq!(a.hash, b.hash, "voxels and spacing");
        for (p, q) in a.landmarks.iter().zip(&b.landmarks) {
            let (p, q) = (p.unwrap(), q.unwrap());
            assert!((0..3).all(|i| (p[i] - q[i]).abs() < 1e-3), "{p:?} {q:?}");
        }
    }
    // The files themselves do differ.
    let raw = |path: &str| std::fs::read(bench.path(path)).unwrap();
    assert_ne!(
        raw("data/train/images/phantom_0002.nii.gz"),
        raw("own/train/case2.nii.gz")
    );
}

fn settings() -> Config {
    let set = vec![r#"data.landmarks=["left_horn","right_horn","bridge"]"#.to_owned()];
    Config::load(&Sources {
        set,
        ..Sources::default()
    })
    .unwrap()
}
