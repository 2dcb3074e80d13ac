//! Tests of `source`: each way to name scans, and what is wrong with it.

use std::fs;

use super::*;

/// A folder with files of these names; those that end in a text have it.
pub(super) struct Tree(tempfile::TempDir);

impl Tree {
    pub(super) fn new(files: &[&str]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for file in files {
            tree.file(file, "");
        }
        tree
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// `image landmarks` below the folder, of what a path names for a split.
    pub(super) fn pairs(
        &self,
        path: &str,
        split: Split,
        fold: Option<u32>,
    ) -> Result<Vec<String>, String> {
        let source = Source::read(&self.at(path), None).map_err(|e| joined(&e))?;
        let pairs = source.pairs(split, fold).map_err(|e| joined(&e))?;
        let shown = pairs.iter().map(|pair| {
            let landmarks: Vec<String> = pair.landmarks.iter().map(|p| self.short(p)).collect();
            let landmarks = match landmarks.as_slice() {
                [] => "-".to_owned(),
                files => files.join(" + "),
            };
            format!("{} {landmarks}", self.short(&pair.image))
        });
        Ok(shown.collect())
    }

    /// A path below the folder.
    pub(super) fn short(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.0.path()).unwrap_or(path);
        path.display().to_string()
    }

    fn train_problems(&self, path: &str, expected: &[&str]) {
        self.problems(path, Split::Train, None, expected);
    }

    pub(super) fn problems(&self, path: &str, split: Split, fold: Option<u32>, expected: &[&str]) {
        let text = self.pairs(path, split, fold).unwrap_err();
        assert_eq!(text.lines().count(), expected.len(), "{text}");
        for part in expected {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

pub(super) fn joined(errors: &[SourceError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

const ALL: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

#[test]
fn images_and_landmarks_are_matched_by_stem() {
    let tree = Tree::new(&[
        "d/images/b.nii.gz",
        "d/images/a.01.NII",
        "d/images/deep/c.nii",
        "d/images/notes.md",
        "d/images/.hidden.nii",
        "d/landmarks/a.01.csv",
        "d/landmarks/b.mrk.json",
        "d/landmarks/deep/c.FCSV",
        "d/README.txt",
    ]);
    let expected = [
        "d/images/a.01.NII d/landmarks/a.01.csv",
        "d/images/b.nii.gz d/landmarks/b.mrk.json",
        "d/images/deep/c.nii d/landmarks/deep/c.FCSV",
    ];
    for split in ALL {
        // Without splits all scans are for whoever asks.
        assert_eq!(tree.pairs("d", split, None).unwrap(), expected);
    }
    let two = Source::read(&tree.at("d/images"), Some(&tree.at("d/landmarks"))).unwrap();
    assert_eq!(two.pairs(Split::Train, None).unwrap().len(), 3);
    assert!(!two.has(Split::Train, None) && !two.has(Split::Validation, None));

    tree.file("d/images/x.nii", "")
        .file("d/landmarks/y.txt", "1 2 3\n");
    tree.file("d/landmarks/b.csv", "");
    tree.train_problems(
        "d",
        &[
            "scan '",
            "b.nii.gz' has several landmark files: ",
            "y.txt' belongs to no scan: none has its name",
        ],
    );
    let text = tree.pairs("d", Split::Train, None).unwrap_err();
    assert!(
        text.contains("x.nii' has no landmark file; expected "),
        "{text}"
    );
    assert!(
        text.contains("landmarks/x and one of .mrk.json, .fcsv"),
        "{text}"
    );
}

#[test]
fn split_folders_hold_any_layout() {
    let tree = Tree::new(&[
        "d/train/images/a.nii.gz",
        "d/train/landmarks/a.csv",
        "d/val/b.nii.gz",
        "d/val/b.fcsv",
        "d/test/images/c.nii",
        "d/test/landmarks/c.txt",
        "d/test/landmarks/stray.txt",
        "d/dataset.json",
    ]);
    tree.file("d/test/landmarks/stray.txt", "1 2 3\n");
    let of = |split| tree.pairs("d", split, None);
    let train = ["d/train/images/a.nii.gz d/train/landmarks/a.csv"];
    assert_eq!(of(Split::Train).unwrap(), train);
    assert_eq!(
        of(Split::Validation).unwrap(),
        ["d/val/b.nii.gz d/val/b.fcsv"]
    );
    // What is wrong with the test scans is no matter for training.
    tree.problems("d", Split::Test, None, &["stray.txt' belongs to no scan"]);
    let source = Source::read(&tree.at("d"), None).unwrap();
    assert!(source.has(Split::Validation, None));
}

#[test]
fn nnunet_cases_take_the_first_channel() {
    let tree = Tree::new(&[
        "d/imagesTr/HEAD_001_0000.nii.gz",
        "d/imagesTr/HEAD_001_0001.nii.gz",
        "d/imagesTr/HEAD_002_0000.nii.gz",
        "d/imagesTr/plain.nii.gz",
        "d/landmarksTr/HEAD_001.mrk.json",
        "d/landmarksTr/HEAD_002.json",
        "d/landmarksTr/plain.tsv",
        "d/imagesTs/HEAD_003_0000.nii.gz",
        "d/labelsTr/HEAD_001.nii.gz",
    ]);
    let expected = [
        "d/imagesTr/HEAD_001_0000.nii.gz d/landmarksTr/HEAD_001.mrk.json",
        "d/imagesTr/HEAD_002_0000.nii.gz d/landmarksTr/HEAD_002.json",
        "d/imagesTr/plain.nii.gz d/landmarksTr/plain.tsv",
    ];
    assert_eq!(tree.pairs("d", Split::Train, None).unwrap(), expected);
    let none = ["names no test scans; it has 3 train, 0 validation, 0 test"];
    tree.problems("d", Split::Test, None, &none);
    tree.file("d/landmarksTs/HEAD_003.csv", "");
    let test = ["d/imagesTs/HEAD_003_0000.nii.gz d/landmarksTs/HEAD_003.csv"];
    assert_eq!(tree.pairs("d", Split::Test, None).unwrap(), test);
}

#[test]
fn bids_scans_have_landmarks_next_to_them() {
    let tree = Tree::new(&[
        "d/participants.tsv",
        "d/dataset_description.json",
        "d/sub-01/anat/sub-01_T1w.nii.gz",
        "d/sub-01/anat/sub-01_T1w.json",
        "d/sub-01/anat/sub-01_T1w.mrk.json",
        "d/sub-01/anat/sub-01_T2w.nii.gz",
        "d/sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz",
        "d/sub-02/ses-1/anat/sub-02_ses-1_T1w.fcsv",
        "d/sub-03/anat/sub-03_T1w.nii.gz",
        "d/sub-03/anat/sub-03_T1w.json",
    ]);
    let expected = [
        "d/sub-01/anat/sub-01_T1w.nii.gz d/sub-01/anat/sub-01_T1w.mrk.json",
        "d/sub-02/ses-1/anat/sub-02_ses-1_T1w.nii.gz d/sub-02/ses-1/anat/sub-02_ses-1_T1w.fcsv",
    ];
    assert_eq!(tree.pairs("d", Split::Train, None).unwrap(), expected);
    let empty = Tree::new(&["d/a.nii", "d/b.csv", "d/c.txt"]);
    let holds = ["holds no scan with a landmark file of the same name; known are images/"];
    empty.train_problems("d", &holds);
    empty.train_problems("gone", &["gone' cannot be read"]);
}

#[cfg(unix)]
#[test]
fn links_in_circles_end() {
    let tree = Tree::new(&["d/a/x.nii", "d/a/x.csv"]);
    std::os::unix::fs::symlink(tree.at("d"), tree.at("d/a/up")).unwrap();
    std::os::unix::fs::symlink(tree.at("d/a"), tree.at("d/a/self")).unwrap();
    let pairs = tree.pairs("d", Split::Train, None).unwrap();
    assert_eq!(pairs, ["d/a/x.nii d/a/x.csv"]);
}

#[test]
fn tables_name_splits_and_folds() {
    let tree = Tree::new(&[
        "d/s/a.nii",
        "d/s/b.nii",
        "d/s/c.nii",
        "d/l/a.csv",
        "d/l/b.csv",
    ]);
    tree.file("d/l/c.csv", "");
    for text in [
        "image,landmarks,split\ns/a.nii,l/a.csv,train\ns/b.nii,l/b.csv,Validation\n\ns/c.nii,l/c.csv,test\n",
        "\u{feff}# made by hand\nSplit;Landmarks;Image;age\r\ntraining;l/a.csv;s/a.nii;3\r\nval;l/b.csv;s/b.nii;\r\ntesting;l/c.csv;./s/c.nii;\r\n",
        "image\tlandmarks\tsplit\tfold\n\"s/a.nii\"\tl/a.csv\ttrain\t\ns/b.nii\tl/b.csv\tvalidation\t\ns/c.nii\tl/c.csv\ttest\t\n",
    ] {
        tree.file("d/m.csv", text);
        let at = |split| tree.pairs("d/m.csv", split, None).unwrap();
        assert_eq!(at(Split::Train), ["d/s/a.nii d/l/a.csv"], "{text}");
        assert_eq!(at(Split::Validation), ["d/s/b.nii d/l/b.csv"], "{text}");
        assert_eq!(at(Split::Test).len(), 1, "{text}");
    }
    let folds = "image,landmarks,fold,split\ns/a.nii,l/a.csv,0,\ns/b.nii,l/b.csv,1,train\ns/c.nii,l/c.csv,,test\n";
    tree.file("d/f.csv", folds);
    let at = |split, fold| tree.pairs("d/f.csv", split, Some(fold)).unwrap();
    assert_eq!(at(Split::Train, 0), ["d/s/b.nii d/l/b.csv"]);
    assert_eq!(at(Split::Validation, 0), ["d/s/a.nii d/l/a.csv"]);
    assert_eq!(at(Split::Train, 1), ["d/s/a.nii d/l/a.csv"]);
    assert_eq!(at(Split::Test, 1), ["d/s/c.nii d/l/c.csv"]);
    tree.problems(
        "d/f.csv",
        Split::Train,
        Some(4),
        &["has folds 0, 1; asked for was fold 4"],
    );
    // Without a fold, one row has no split though others do.
    tree.train_problems("d/f.csv", &["f.csv:2: names no split, as others do"]);
    let source = Source::read(&tree.at("d/f.csv"), None).unwrap();
    assert!(source.has(Split::Validation, Some(1)) && !source.has(Split::Validation, None));
}

#[test]
fn datalists_name_splits_and_folds() {
    let tree = Tree::new(&["a.nii", "b.nii", "c.nii", "a.csv", "b.csv", "c.csv"]);
    let item = |name: &str, more: &str| {
        format!(r#"{{"image": "{name}.nii", "landmarks": "{name}.csv"{more}}}"#)
    };
    let (a, b, c) = (item("a", ""), item("b", ""), item("c", ""));
    tree.file("m.json", &format!(
        r#"{{"name": "x", "labels": {{"0": "b"}}, "training": [{a}], "validation": [{b}], "testing": [{c}]}}"#,
    ));
    let at = |split| tree.pairs("m.json", split, None).unwrap();
    assert_eq!(at(Split::Train), ["a.nii a.csv"]);
    assert_eq!(at(Split::Validation), ["b.nii b.csv"]);
    assert_eq!(at(Split::Test), ["c.nii c.csv"]);
    let folds = [item("a", r#", "fold": 0"#), item("b", r#", "fold": 1"#)].join(",");
    tree.file(
        "f.json",
        &format!(r#"{{"training": [{folds}], "test": ["c.nii"]}}"#),
    );
    let at = |split, fold| tree.pairs("f.json", split, fold);
    assert_eq!(at(Split::Train, Some(0)).unwrap(), ["b.nii b.csv"]);
    assert_eq!(at(Split::Validation, Some(0)).unwrap(), ["a.nii a.csv"]);
    assert_eq!(at(Split::Train, None).unwrap().len(), 2);
    tree.problems(
        "f.json",
        Split::Test,
        Some(0),
        &["f.json: test item 1: names no landmark file; give it a key 'landmarks'"],
    );
    // A plain list, in which each item may name its split.
    let (own, null) = (
        item("c", r#", "split": "test""#),
        item("a", r#", "split": "train", "fold": null"#),
    );
    tree.file("p.json", &format!("[{null}, {own}]"));
    assert_eq!(
        tree.pairs("p.json", Split::Test, None).unwrap(),
        ["c.nii c.csv"]
    );
    tree.file("p.json", &format!("[{a}, {b}, {c}]"));
    assert_eq!(tree.pairs("p.json", Split::Test, None).unwrap().len(), 3);
    // A run's fold does not matter to test scans elsewhere.
    assert_eq!(tree.pairs("p.json", Split::Test, Some(2)).unwrap().len(), 3);
    tree.problems(
        "p.json",
        Split::Train,
        Some(2),
        &["names no folds; a manifest does"],
    );
}

#[test]
fn datalists_as_monai_writes_them_are_read() {
    let files = [
        "a_0000.nii",
        "a_0001.nii",
        "b.nii",
        "c.nii",
        "a.csv",
        "b.csv",
        "c.csv",
    ];
    let tree = Tree::new(&files);
    tree.file(
        "m.json",
        r#"{"numTraining": 2, "training": [
            {"image": ["a_0000.nii", "a_0001.nii"], "landmarks": "a.csv", "fold": "1"},
            {"image": "b.nii", "label": "b.csv", "fold": 0.0}],
            "test": [{"image": "c.nii", "label": "c_seg.nii.gz", "landmarks": ["c.csv"]}]}"#,
    );
    let at = |split, fold| tree.pairs("m.json", split, fold).unwrap();
    assert_eq!(at(Split::Train, Some(0)), ["a_0000.nii a.csv"]);
    assert_eq!(at(Split::Validation, Some(0)), ["b.nii b.csv"]);
    assert_eq!(at(Split::Test, None), ["c.nii c.csv"]);
    let source = Source::read(&tree.at("m.json"), None).unwrap();
    assert_eq!(source.unused.len(), 1);
    let said = source.unused[0].to_string();
    assert!(
        said.contains("a_0001.nii' is not used: of several images of one scan"),
        "{said}"
    );
    let text = r#"{"training": [{"image": "b.nii", "label": "b_seg.nii.gz"}]}"#;
    tree.file("m.json", text);
    let text = ["names no landmark file; give it a key 'landmarks'; 'label' is a label map"];
    tree.train_problems("m.json", &text);
}

#[test]
fn all_problems_of_a_manifest_are_reported_at_once() {
    let tree = Tree::new(&["a.nii", "a.csv"]);
    tree.file(
        "m.csv",
        "image,landmarks,split,fold\n,a.csv,train,0\na.nii,a.csv,later,0\na.nii,a.csv,train,-1\na.nii,a.csv,train,x\n",
    );
    tree.train_problems(
        "m.csv",
        &[
            "m.csv:2: names no scan in the column 'image'",
            "m.csv:3: split 'later' is none of train, validation and test",
            "m.csv:4: fold '-1' is not a whole number from 0",
            "m.csv:5: fold 'x'",
        ],
    );
    tree.file(
        "m.csv",
        "image,landmarks\n\n# more\nx.nii,y.csv\na.nii,\na.nii,a.csv\n",
    );
    tree.train_problems(
        "m.csv",
        &[
            "m.csv:4: 'x.nii' is not there (looked beside the manifest",
            "m.csv:4: 'y.csv' is not there",
            "m.csv:5: names no landmark file; fill in the column 'landmarks'",
        ],
    );
    tree.file("m.csv", "image,points\na.nii,a.csv\n");
    tree.train_problems("m.csv", &["m.csv:1: the header lacks a column 'landmarks'"]);
    tree.file("m.csv", "image,landmarks\n");
    let none = ["m.csv' names no train scans; it has 0 train"];
    tree.train_problems("m.csv", &none);
    tree.file(
        "m.json",
        r#"{"training": [{"landmarks": "a.csv"}, {"image": ["a.nii", 3]}, 3, {"image": "a.nii", "fold": 0.5}], "testing": {}}"#,
    );
    tree.train_problems(
        "m.json",
        &[
            "m.json: 'testing' is not a list",
            "m.json: training item 1: has no key 'image'",
            "m.json: training item 2: 'image' is not text; give one path or word, or a list",
            "m.json: training item 3: has no key 'image'",
            "m.json: training item 4: fold 0.5 is not a whole number from 0",
        ],
    );
    tree.file("m.json", "{\n\"training\": [");
    tree.train_problems("m.json", &["m.json:2: not JSON: EOF"]);
    tree.file("m.json", "{\"scans\": []}");
    tree.train_problems("m.json", &["JSON without a list 'training'"]);
}

#[test]
fn lists_are_recognised_as_lists() {
    let tree = Tree::new(&["a.nii", "b.nii", "a.csv", "b.csv"]);
    tree.file("images.txt", "b.nii\na.nii\n")
        .file("landmarks.txt", "b.csv\na.csv\n");
    tree.file("m.json", "[]")
        .file("m.tsv", "image\tlandmarks\n");
    assert!(is_list(&tree.at("images.txt")));
    for other in ["m.json", "m.tsv", ".", "gone"] {
        assert!(!is_list(&tree.at(other)), "{other}");
    }
    let lists =
        |images: &str, landmarks: &str| Source::read(&tree.at(images), Some(&tree.at(landmarks)));
    let source = lists("images.txt", "landmarks.txt").unwrap();
    let pairs = source.pairs(Split::Validation, None).unwrap();
    assert_eq!(pairs[0].image, tree.at("b.nii"));
    assert_eq!(pairs[1].landmarks, [tree.at("a.csv")]);
    assert_eq!(
        tree.pairs("images.txt", Split::Test, None).unwrap(),
        ["b.nii -", "a.nii -"]
    );
    assert!(joined(&source.pairs(Split::Train, Some(0)).unwrap_err()).contains("names no folds"));
    let text = joined(&lists(".", "landmarks.txt").unwrap_err());
    assert!(
        text.contains("its landmarks must be a folder too, or left empty"),
        "{text}"
    );
    tree.file("scan.nii", "\u{1}")
        .file("large.txt", &"x".repeat(9 << 20));
    fs::write(tree.at("binary"), [0x1f, 0x8b, 8, 0]).unwrap();
    tree.train_problems("binary", &["is not text: is it a scan?"]);
    tree.train_problems("large.txt", &["has more than 8 MiB"]);
}

#[test]
fn manifests_are_read_in_any_encoding_with_any_line_ends() {
    let tree = Tree::new(&["a.nii", "a.csv", "b.nii", "b.csv"]);
    let table = "image,landmarks,split\na.nii,a.csv,train\nb.nii,b.csv,test\n";
    let json = r#"{"training": [{"image": "a.nii", "landmarks": "a.csv"}],
        "testing": [{"image": "b.nii", "landmarks": "b.csv"}]}"#;
    let utf16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    };
    for text in [table, json] {
        let marked = format!("\u{feff}{text}");
        for (name, bytes) in [
            ("UTF-16 LE with a mark", utf16(&marked, u16::to_le_bytes)),
            ("UTF-16 BE with a mark", utf16(&marked, u16::to_be_bytes)),
            ("UTF-16 without a mark", utf16(text, u16::to_le_bytes)),
            ("UTF-8 with a mark", marked.clone().into_bytes()),
            ("old Mac's lines", text.replace('\n', "\r").into_bytes()),
            ("tabs", text.replace(',', "\t").into_bytes()),
            (
                "Excel's sep=",
                format!("sep=;\n{}", text.replace(',', ";")).into_bytes(),
            ),
        ] {
            if text == json && ["tabs", "Excel's sep="].contains(&name) {
                continue;
            }
            fs::write(tree.at("m"), bytes).unwrap();
            let found = tree.pairs("m", Split::Train, None);
            assert_eq!(
                found.unwrap_or_else(|e| panic!("{name}: {e:?}")),
                ["a.nii a.csv"]
            );
        }
    }
    fs::write(tree.at("latin"), b"image,landmarks\nsch\xe4del.nii,a.csv\n").unwrap();
    tree.train_problems(
        "latin",
        &["line 2 has the byte 0xE4 at column 4 ('ä' in Windows-1252"],
    );
}

#[test]
fn damaged_manifests_never_panic() {
    use rand::{RngExt as _, SeedableRng as _};
    let tree = Tree::new(&["a.nii", "a.csv"]);
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let table = "image,landmarks,split,fold\na.nii,a.csv,train,0\n\"a.nii\",a.csv,test,1\n";
    let json = r#"{"training": [{"image": "a.nii", "landmarks": "a.csv", "fold": 0}], "testing": ["a.nii"]}"#;
    let path = tree.at("m");
    for original in [table, json] {
        for _ in 0..10_000 {
            let mut bytes = original.as_bytes().to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                match random.random_range(0..3) {
                    0 => bytes[at] = random.random_range(9..128),
                    1 => drop(bytes.drain(at..(at + 4).min(bytes.len()))),
                    _ => drop(bytes.splice(at..at, *b"\",[{99999999999")),
                }
                bytes.push(b'\n');
            }
            let text = String::from_utf8_lossy(&bytes);
            match Kind::of(&text) {
                Kind::Json => drop(datalist::entries(&text, &path)),
                Kind::Table => drop(table::entries(&text, &path)),
                Kind::List => {}
            }
        }
    }
}
