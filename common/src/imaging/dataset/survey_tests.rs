//! Tests of `survey`, and of what a data set says beside its scans.

use std::fs;

use super::tests::{HEADER, two};
use super::*;

#[test]
fn the_order_in_which_scans_were_given_is_kept() {
    let folder = two();
    folder.scan("c.nii", 7, 1.0);
    for order in [
        ["a.nii.gz", "b.nii.gz", "c.nii"],
        ["c.nii", "b.nii.gz", "a.nii.gz"],
    ] {
        let paths = order.map(|name| folder.at(name));
        let options = folder.spec(&[]).options;
        let dataset = Dataset::from_images(&paths, &options).unwrap();
        let given = dataset.given.iter().map(|&n| dataset.sources[n].clone());
        assert_eq!(given.collect::<Vec<_>>(), paths);
        assert!(
            dataset
                .scans
                .windows(2)
                .all(|pair| pair[0].hash < pair[1].hash)
        );
    }
}

#[test]
fn a_survey_covers_all_splits_and_unused_files() {
    let folder = two();
    folder
        .scan("sub-1_ses-1.nii", 7, 1.0)
        .scan("sub-1_ses-2.nii", 9, 1.0);
    let table = format!("{HEADER}AC,1,2,3\n");
    folder
        .text("a.csv", &table)
        .text("b.csv", &table)
        .text("stray.csv", &table);
    let rows = "image,landmarks,split\na.nii.gz,a.csv,train\nsub-1_ses-1.nii,b.csv,train\n\
                sub-1_ses-2.nii,b.csv,test\nbad.nii,b.csv,validation\n";
    folder.text("m.csv", rows).text("bad.nii", "no scan");
    let spec = DatasetSpec {
        images: folder.at("m.csv"),
        landmarks: None,
        ..folder.spec(&[])
    };
    let all = Dataset::survey(&[(spec.clone(), None)]);
    let counts = [(Split::Train, 2), (Split::Validation, 0), (Split::Test, 1)];
    assert_eq!(all.splits, counts);
    let [problem] = all.problems.as_slice() else {
        panic!("{:?}", all.problems);
    };
    assert!(problem.to_string().contains("bad.nii"), "{problem}");
    let warned = all
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect::<String>();
    assert!(
        warned.contains("subject 'sub-1' is in split test, and with '"),
        "{warned}"
    );
    let train = Dataset::survey(&[(spec.clone(), Some(Split::Train))]);
    assert_eq!((train.dataset.scans.len(), train.problems.len()), (2, 0));
    // Training names it too.
    let loaded = Dataset::load(&spec).unwrap();
    assert!(loaded.warnings[0].to_string().contains("subject 'sub-1'"));

    fs::remove_file(folder.at("bad.nii")).unwrap();
    let whole = DatasetSpec {
        images: folder.0.path().to_owned(),
        ..spec
    };
    let survey = Dataset::survey(&[(whole.clone(), None)]);
    let mistakes = survey.unused.iter().filter(|file| file.mistake).count();
    assert_eq!(
        (survey.unused.len(), mistakes, survey.problems.len()),
        (3, 1, 1)
    );
    assert!(
        survey.problems[0]
            .to_string()
            .contains("stray.csv' belongs to no scan")
    );
    let note = Dataset::load(&whole).unwrap().unused_note().unwrap();
    assert!(
        note.starts_with("3 files beside the scans are not used: '"),
        "{note}"
    );
}
