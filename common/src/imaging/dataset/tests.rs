//! Tests of `dataset`.

use std::fs;

use super::*;
use crate::imaging::geometry::Affine;
use crate::imaging::nifti_io::{ImageRef, SamplesRef, write};
use crate::imaging::preprocess::VolumeChoice;

/// A folder of small scans and lists.
pub(super) struct Folder(pub(super) tempfile::TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn text(&self, name: &str, content: &str) -> &Self {
        fs::write(self.at(name), content).unwrap();
        self
    }

    /// 4×5×6 voxels with content that depends on the seed; x runs to the left.
    pub(super) fn scan(&self, name: &str, seed: u8, spacing: f64) -> &Self {
        let voxels: Vec<u8> = (0..120_u8)
            .map(|i| i.wrapping_mul(seed).wrapping_add(7))
            .collect();
        let affine = Affine::diagonal([-spacing, spacing, spacing], [3.0, 0.0, 0.0]);
        let image = ImageRef {
            dims: [4, 5, 6],
            samples: SamplesRef::U8(&voxels),
            affine: &affine,
        };
        write(&self.at(name), &image).unwrap();
        self
    }

    pub(super) fn spec(&self, ids: &[&str]) -> DatasetSpec {
        spec(self.0.path(), ids, self.at("cache"))
    }

    pub(super) fn problems(&self, ids: &[&str]) -> String {
        Dataset::load(&self.spec(ids)).unwrap_err().to_string()
    }
}

/// The scans of `images.txt` with the landmark files of `landmarks.txt`.
fn spec(folder: &Path, ids: &[&str], cache: PathBuf) -> DatasetSpec {
    DatasetSpec {
        images: folder.join("images.txt"),
        landmarks: Some(folder.join("landmarks.txt")),
        ids: ids.iter().map(|&id| id.to_owned()).collect(),
        options: LoadOptions {
            cache_dir: Some(cache),
            ..LoadOptions::default()
        },
        ..DatasetSpec::default()
    }
}

pub(super) const HEADER: &str = "name,x_ras_mm,y_ras_mm,z_ras_mm\n";

pub(super) fn two() -> Folder {
    let folder = Folder::new();
    folder.scan("a.nii.gz", 3, 1.0).scan("b.nii.gz", 5, 1.0);
    folder.text("a.csv", &format!("{HEADER}AC,1,2,3\nPC,0,0,0\n"));
    folder.text("b.csv", &format!("{HEADER}PC,,,\nAC,3,4,5\n"));
    folder
        .text("images.txt", "a.nii.gz\nb.nii.gz\n")
        .text("landmarks.txt", "a.csv\nb.csv\n");
    folder
}

#[test]
fn scans_are_numbered_by_content_and_landmarks_follow() {
    let folder = two();
    let first = Dataset::load(&folder.spec(&["AC", "PC"])).unwrap();
    assert_eq!(first.landmark_names, ["AC", "PC"]);
    assert!(first.scans[0].hash < first.scans[1].hash);
    let at = |name: &str| first.scans.iter().position(|s| s.name == name).unwrap();
    // x_file = 3 − x_ras, and ours counts from the other end: x = x_ras.
    let landmarks = |name| &first.scans[at(name)].landmarks;
    assert_eq!(landmarks("a"), &[Some([1.0, 2.0, 3.0]), Some([0.0; 3])]);
    assert_eq!(landmarks("b"), &[Some([3.0, 4.0, 5.0]), None]);
    assert_eq!(first.sources[at("b")], folder.at("b.nii.gz"));
    folder
        .text("images.txt", "b.nii.gz\n\na.nii.gz")
        .text("landmarks.txt", "b.csv\na.csv");
    let second = Dataset::load(&folder.spec(&["AC", "PC"])).unwrap();
    assert_eq!(first.manifest(1), second.manifest(1));
    assert_eq!(first.manifest(1).digest(), second.manifest(1).digest());
    // The mean of what is there.
    let means = mean_landmarks(&first.scans);
    assert_eq!(means, [Some([2.0, 3.0, 4.0]), Some([0.0; 3])]);
    assert_eq!(mean_landmarks(&first.scans[at("b")..=at("b")])[1], None);
    // No ids: all of the first file.
    let all = Dataset::load(&folder.spec(&[])).unwrap();
    assert_eq!(all.landmark_names, ["PC", "AC"]);
}

#[test]
fn all_problems_are_reported_at_once() {
    let folder = two();
    folder
        .scan("c.nii", 7, 2.0)
        .scan("e.nii", 5, 1.0)
        .text("d.nii.gz", "not a scan");
    folder.text("c.csv", &format!("{HEADER}AC,100,0,0\nPC,200,0,0\n"));
    folder.text("d.csv", &format!("{HEADER}AC,1,1,1\n"));
    folder.text("images.txt", "a.nii.gz\nb.nii.gz\nc.nii\nd.nii.gz\ne.nii\n");
    folder.text("landmarks.txt", "a.csv\nb.csv\nc.csv\nd.csv\na.csv\n");
    let text = folder.problems(&["AC", "PC"]);
    assert!(text.starts_with("5 problems with the data:\n  "), "{text}");
    assert_eq!(text.lines().count(), 6, "{text}");
    for part in [
        "c.csv:2: landmark 'AC' at [100.0, 0.0, 0.0] (RAS mm) is outside scan 'c'",
        "c.csv:3: landmark 'PC'",
        "landmark 'PC' is not in",
        "d.nii.gz' is too short",
        "hold the same scan",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn mixed_spacings_must_be_allowed() {
    let folder = two();
    folder.scan("c.nii", 7, 1.02);
    folder
        .text("images.txt", "a.nii.gz\nc.nii\n")
        .text("landmarks.txt", "a.csv\nb.csv\n");
    let text = folder.problems(&["AC"]);
    assert!(
        text.contains("has spacing [1.0") && text.contains("1 of the scans have [1.0"),
        "{text}"
    );
    // The odd one is named, whichever way their hashes sort.
    folder.scan("d.nii", 9, 1.0);
    folder
        .text("images.txt", "a.nii.gz\nc.nii\nd.nii\n")
        .text("landmarks.txt", "a.csv\nb.csv\na.csv\n");
    let text = folder.problems(&["AC"]);
    assert!(
        text.contains("c.nii' has spacing [1.0200, 1.0200, 1.0200] mm, 2 of the scans have"),
        "{text}"
    );
    assert!(!text.contains('\n'), "{text}");
    assert!(text.contains("set data.resample_mm"), "{text}");
    folder
        .text("images.txt", "a.nii.gz\nc.nii\n")
        .text("landmarks.txt", "a.csv\nb.csv\n");
    let mut spec = folder.spec(&["AC"]);
    spec.options.recipe.resample_mm = Some(0.8);
    let dataset = Dataset::load(&spec).unwrap();
    for scan in &dataset.scans {
        let geometry = &scan.geometry;
        assert_eq!(geometry.dims.map(|d| d + 1), [6, 7, 9], "{}", scan.name);
        assert!(geometry.spacing_mm.iter().all(|s| (s - 0.8).abs() < 1e-6));
        // The landmark is where its file says, in mm.
        let at = geometry.affine.to_world(scan.landmarks[0].unwrap());
        let expected = if scan.name == "a" {
            [1.0, 2.0, 3.0]
        } else {
            [3.0, 4.0, 5.0]
        };
        assert!((0..3).all(|i| (at[i] - expected[i]).abs() < 1e-9), "{at:?}");
    }
    // Voxel files count on the file's own grid.
    folder.text("b.csv", "x_voxel,y_voxel,z_voxel\n0,4,5\n");
    folder.text("a.csv", "x_voxel,y_voxel,z_voxel\n0,4,5\n");
    spec.ids = vec!["0".to_owned()];
    for scan in Dataset::load(&spec).unwrap().scans {
        let place = scan.landmarks[0].unwrap();
        let spacing = if scan.name == "a" { 1.0 } else { 1.02 };
        let at = scan.geometry.affine.to_world(place);
        let expected = [3.0, 4.0 * spacing, 5.0 * spacing];
        assert!((0..3).all(|i| (at[i] - expected[i]).abs() < 1e-6), "{at:?}");
    }
    folder.text("a.csv", &format!("{HEADER}AC,1,2,3\n"));
    folder.text("b.csv", &format!("{HEADER}AC,3,4,5\n"));
    let mut spec = folder.spec(&["AC"]);
    spec.options.allow_mixed_spacing = true;
    assert_eq!(Dataset::load(&spec).unwrap().scans.len(), 2);
    folder.scan("c.nii", 7, 1.009);
    assert_eq!(Dataset::load(&folder.spec(&["AC"])).unwrap().scans.len(), 2);
}

/// 31.4 mm become 31 voxels: the outermost 0.2 mm of the file lie outside of them.
#[test]
fn landmarks_inside_the_file_are_inside_at_any_spacing() {
    let folder = Folder::new();
    let voxels: Vec<u8> = (0..314 * 20 * 20_u32).map(|i| (i % 251) as u8).collect();
    let affine = Affine::diagonal([0.1; 3], [0.0; 3]);
    let image = ImageRef {
        dims: [314, 20, 20],
        samples: SamplesRef::U8(&voxels),
        affine: &affine,
    };
    write(&folder.at("a.nii.gz"), &image).unwrap();
    let header = "x_voxel,y_voxel,z_voxel\n";
    folder
        .text("images.txt", "a.nii.gz\n")
        .text("landmarks.txt", "a.csv\n")
        .text("a.csv", &format!("{header}0,10,10\n313,10,10\n200,10,10\n"));
    let mut spec = folder.spec(&["0", "1", "2"]);
    spec.options.recipe.resample_mm = Some(1.0);
    let dataset = Dataset::load(&spec).unwrap();
    let (geometry, landmarks) = (&dataset.scans[0].geometry, &dataset.scans[0].landmarks);
    assert_eq!(geometry.dims, [31, 2, 2]);
    let [first, last, within] = [0, 1, 2].map(|i| landmarks[i].unwrap());
    assert!(first[0] > -0.5 && first[0] < -0.4999, "{first:?}");
    assert!(last[0] < 30.5 && last[0] > 30.4999, "{last:?}");
    let as_it_is = geometry.axis_map.from_file([200.0, 10.0, 10.0]);
    assert_eq!(within, as_it_is);
    assert_eq!(first[1..], as_it_is[1..]);
    // The file has no such voxel.
    folder.text("a.csv", &format!("{header}-0.6,10,10\n1,1,1\n1,1,1\n"));
    let text = Dataset::load(&spec).unwrap_err().to_string();
    let place = "voxel [-0.6, 10.0, 10.0] of [314, 20, 20]";
    assert!(text.contains(place), "{text}");
}

#[test]
fn a_number_must_mean_the_same_landmark_everywhere() {
    let folder = two();
    let text = folder.problems(&["0"]);
    assert!(
        text.contains("landmark '0' is 'AC' in") && text.contains("but 'PC' in"),
        "{text}"
    );
    folder.text("b.csv", "3 4 5\n0 0 0\n");
    let dataset = Dataset::load(&folder.spec(&["0", "1"])).unwrap();
    assert_eq!(dataset.landmark_names, ["AC", "PC"]);
    let b = dataset.scans.iter().find(|s| s.name == "b").unwrap();
    assert_eq!(b.landmarks, [Some([0.0, 4.0, 5.0]), None]);
    let text = folder.problems(&["2", "1"]);
    assert!(
        text.contains("landmark '2' is in none of the 2") && text.contains("numbers 0 to 1"),
        "{text}"
    );
}

#[test]
fn a_name_in_one_file_is_no_number_in_another() {
    let folder = two();
    // "1" is the first landmark of a table with names, and the second line of a text.
    folder.text("a.csv", &format!("{HEADER}1,1,2,3\n2,0,0,0\n"));
    folder.text("b.csv", "3 4 5\n1 1 1\n2 2 2\n");
    let text = folder.problems(&["1"]);
    assert!(text.contains("landmark '1' is a name in"), "{text}");
    for part in [
        "a.csv' but the point number 1 (from 0) in '",
        "b.csv', where no point",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // Each alone is fine, and numbers are where no file has names.
    folder.text("a.csv", "1 2 3\n0 0 1\n");
    assert_eq!(
        Dataset::load(&folder.spec(&["1"])).unwrap().landmark_names,
        ["1"]
    );
}

#[test]
fn landmark_files_of_one_scan_complete_each_other() {
    let folder = Folder::new();
    folder.scan("a.nii.gz", 3, 1.0).scan("b.nii.gz", 5, 1.0);
    folder.text("ac.csv", &format!("{HEADER}AC,1,2,3\n"));
    folder.text("pc.csv", &format!("{HEADER}PC,0,0,1\n"));
    folder.text("b.csv", &format!("{HEADER}PC,,,\nAC,3,4,5\n"));
    let manifest = "image,landmarks\na.nii.gz,ac.csv|pc.csv\nb.nii.gz,b.csv|\n";
    folder.text("m.csv", manifest);
    let spec = DatasetSpec {
        images: folder.at("m.csv"),
        landmarks: None,
        ..folder.spec(&[])
    };
    let dataset = Dataset::load(&spec).unwrap();
    assert_eq!(dataset.landmark_names, ["AC", "PC"]);
    let a = dataset.scans.iter().find(|s| s.name == "a").unwrap();
    assert_eq!(a.landmarks, [Some([1.0, 2.0, 3.0]), Some([0.0, 0.0, 1.0])]);
    folder.text("pc.csv", &format!("{HEADER}AC,0,0,1\n"));
    let text = Dataset::load(&spec).unwrap_err().to_string();
    assert!(text.contains("landmark 'AC' is in '"), "{text}");
    assert!(
        text.contains("which belong to the same scan; keep one"),
        "{text}"
    );
    let unknown = DatasetSpec {
        ids: vec!["0".to_owned()],
        ..spec
    };
    folder.text("pc.csv", &format!("{HEADER}PC,0,0,1\n"));
    let text = Dataset::load(&unknown).unwrap_err().to_string();
    let has = "ac.csv', which has the landmarks AC, PC together with the scan's other files";
    assert!(
        text.contains("'0' is not in") && text.contains(has),
        "{text}"
    );
}

#[test]
fn lists_are_checked_together() {
    let folder = two();
    folder.text("landmarks.txt", "a.csv\n");
    let text = folder.problems(&["AC"]);
    assert!(
        text.contains("names 2 scans") && text.contains("names 1 landmark files"),
        "{text}"
    );
    folder
        .text("images.txt", "a.nii.gz\ngone.nii\n")
        .text("landmarks.txt", "a.csv\nlost.csv\n");
    let text = folder.problems(&["AC"]);
    assert!(
        text.contains("line 2: gone.nii") && text.contains("line 2: lost.csv"),
        "{text}"
    );
}

#[test]
fn a_manifest_gives_training_and_validation_scans() {
    use crate::config::{Config, Sources};
    let folder = two();
    folder.text(
        "m.csv",
        "image,landmarks,fold\na.nii.gz,a.csv,0\nb.nii.gz,b.csv,1\n",
    );
    let config = |set: &[String]| {
        let path = folder.at("m.csv").display().to_string();
        let cache = folder.at("cache").display().to_string();
        let mut all = vec![
            format!("data.train_images={path}"),
            format!("data.cache={cache}"),
            "data.landmarks=[\"AC\"]".to_owned(),
        ];
        all.extend_from_slice(set);
        let sources = Sources {
            set: all,
            ..Sources::default()
        };
        Config::load(&sources).unwrap()
    };
    let names = |spec: &DatasetSpec| -> Vec<String> {
        let scans = Dataset::load(spec).unwrap().scans;
        scans.iter().map(|s| s.name.clone()).collect()
    };
    let folds = config(&["data.fold=0".to_owned()]);
    assert_eq!(names(&DatasetSpec::training(&folds)), ["b"]);
    assert_eq!(names(&DatasetSpec::validation(&folds).unwrap()), ["a"]);
    // No fold, no split: all for training, and none to choose by.
    let whole = config(&[]);
    assert_eq!(names(&DatasetSpec::training(&whole)).len(), 2);
    assert_eq!(DatasetSpec::validation(&whole), None);
    // A source of its own for the validation.
    let images = folder.at("images.txt").display().to_string();
    let landmarks = folder.at("landmarks.txt").display().to_string();
    let own = config(&[
        format!("data.validation_images={images}"),
        format!("data.validation_landmarks={landmarks}"),
    ]);
    assert_eq!(names(&DatasetSpec::validation(&own).unwrap()).len(), 2);
    let unknown = DatasetSpec::training(&config(&["data.fold=7".to_owned()]));
    let text = Dataset::load(&unknown).unwrap_err().to_string();
    assert!(text.contains("m.csv' has folds 0, 1"), "{text}");
}

#[test]
fn play_needs_no_landmarks() {
    let folder = two();
    let mut spec = folder.spec(&["AC"]);
    spec.landmarks = None;
    spec.options.recipe.choice = VolumeChoice::ReferenceF32;
    let dataset = Dataset::from_images(&[folder.at("a.nii.gz")], &spec.options).unwrap();
    assert!(dataset.scans[0].landmarks.is_empty() && dataset.scans[0].volume.as_u8().is_none());
    let dataset = Dataset::load(&spec).unwrap();
    assert_eq!((dataset.scans.len(), dataset.landmark_names.len()), (2, 1));
    assert!(mean_landmarks(&dataset.scans).is_empty());
}

fn shared(name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if root.exists() {
        return Some(root);
    }
    println!("skipped: {name}: ../shared/data is absent");
    None
}

fn real(root: &Path, set: &str, ids: &[&str], cache: &Path) -> Dataset {
    Dataset::load(&spec(&root.join(set), ids, cache.to_owned())).unwrap()
}

#[test]
fn mouse_skulls_load_on_ras_axes_with_landmarks_inside() {
    let Some(root) = shared("mouse_skulls_load_on_ras_axes_with_landmarks_inside") else {
        return;
    };
    let cache = tempfile::tempdir().unwrap();
    let dataset = real(&root, "mouse/val", &[], cache.path());
    assert_eq!((dataset.scans.len(), dataset.landmark_names.len()), (4, 45));
    assert_eq!(dataset.landmark_names[3], "LM4");
    for scan in &dataset.scans {
        // LPS in the file: x and y run the other way there.
        let axes = [(0, true), (1, true), (2, false)];
        assert_eq!(scan.geometry.axis_map.axes, axes);
        let rows = scan.geometry.affine.rows;
        assert!((0..3).all(|i| rows[i][i] > 0.17), "{rows:?}");
        assert!(scan.landmarks.iter().all(Option::is_some));
    }
    let mut scans = dataset.scans.iter();
    let dba = scans.find(|s| s.name == "mouse_DBA_2J").unwrap();
    let world = dba.geometry.affine.to_world(dba.landmarks[0].unwrap());
    // LM1 of mouse_DBA_2J.csv.
    for (found, expected) in world.iter().zip([-3.6255, 11.3036, 2.1964]) {
        assert!((found - expected).abs() < 1e-9, "{world:?}");
    }
    let again = real(&root, "mouse/val", &[], cache.path());
    assert_eq!(again.manifest(1), dataset.manifest(1));
}

#[test]
fn brain_text_and_csv_name_the_same_places() {
    let Some(root) = shared("brain_text_and_csv_name_the_same_places") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let text = real(&root, "brain", &["13", "14"], dir.path());
    assert_eq!(text.scans.len(), 3);
    assert_eq!(text.landmark_names, ["13", "14"]);
    for (scan, source) in text.scans.iter().zip(&text.sources) {
        let csv = root.join(format!("brain/landmarks/{}.csv", scan.name));
        for (list, path) in [("images.txt", source), ("landmarks.txt", &csv)] {
            let path = fs::canonicalize(path).unwrap();
            fs::write(dir.path().join(list), path.to_str().unwrap()).unwrap();
        }
        let spec = spec(dir.path(), &["AC", "PC"], dir.path().to_owned());
        let named = Dataset::load(&spec).unwrap();
        for (a, b) in scan.landmarks.iter().zip(&named.scans[0].landmarks) {
            let (a, b) = (a.unwrap(), b.unwrap());
            assert!((0..3).all(|i| (a[i] - b[i]).abs() < 1.0), "{a:?} {b:?}");
        }
    }
}
