//! Invalid input: one clear error, the right exit code.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::process::{Bench, check_error_snapshot, names_in};

/// A NIfTI-1 single file of f32 voxels, 348 bytes of header and 4 of extension.
fn nifti(dims: [i16; 3], voxels: &[f32]) -> Vec<u8> {
    let mut header = vec![0_u8; 352];
    header[0..4].copy_from_slice(&348_i32.to_le_bytes());
    let dim = [3, dims[0], dims[1], dims[2], 1, 1, 1, 1];
    for (i, d) in dim.into_iter().enumerate() {
        header[40 + 2 * i..42 + 2 * i].copy_from_slice(&d.to_le_bytes());
    }
    header[70..72].copy_from_slice(&16_i16.to_le_bytes());
    header[72..74].copy_from_slice(&32_i16.to_le_bytes());
    for i in 0..8 {
        header[76 + 4 * i..80 + 4 * i].copy_from_slice(&1_f32.to_le_bytes());
    }
    header[108..112].copy_from_slice(&352_f32.to_le_bytes());
    header[254..256].copy_from_slice(&1_i16.to_le_bytes());
    for (row, at) in [280, 296, 312].into_iter().enumerate() {
        header[at + 4 * row..at + 4 * row + 4].copy_from_slice(&1_f32.to_le_bytes());
    }
    header[344..348].copy_from_slice(b"n+1\0");
    header.extend(voxels.iter().flat_map(|v| v.to_le_bytes()));
    header
}

fn voxels(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 97) as f32).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const TRAIN: &str =
    "train --train-images images.txt --train-landmarks landmarks.txt --run-dir runs --device cpu";

/// One scan with one landmark file beside it.
fn with_scan(name: &str, bytes: &[u8]) -> Bench {
    let bench = Bench::new();
    bench.write(name, bytes);
    bench.write("images.txt", format!("{name}\n"));
    bench.write(
        "points.csv",
        "name,x_ras_mm,y_ras_mm,z_ras_mm\nA,2,2,2\nB,3,3,3\n",
    );
    bench.write("landmarks.txt", "points.csv\n");
    bench
}

fn check_no_run_folder(bench: &Bench) {
    let left = names_in(&bench.path("runs"));
    assert!(left.is_empty(), "a run that never started left a folder");
}

#[test]
fn scans_that_cannot_be_used() {
    let good = nifti([8, 8, 8], &voxels(512));
    let cut = gzip(&good);
    let huge = nifti([32_000, 32_000, 1_000], &[]);
    let cases = [
        (
            cut[..cut.len() / 2].to_vec(),
            "cut.nii.gz | gzip stream | copy or download it again",
        ),
        (huge, "huge.nii | 1024000000000 voxels | the limit is"),
        (vec![b'x'; 400], "magic.nii | not a NIfTI file"),
        (
            nifti([8, 8, 8], &[f32::NAN; 512]),
            "nan.nii | no voxel that is a finite number",
        ),
        (
            good[..900].to_vec(),
            "short.nii | too short | copy or download it again",
        ),
    ];
    for (bytes, words) in cases {
        let words: Vec<&str> = words.split(" | ").collect();
        let bench = with_scan(words[0], &bytes);
        bench.fail(&format!("{TRAIN} --landmarks A"), 4, &words);
        check_no_run_folder(&bench);
    }
    check_error_snapshot("scans");
}

#[test]
fn landmarks_and_lists_that_cannot_be_used() {
    let bench = with_scan("scan.nii", &nifti([8, 8, 8], &voxels(512)));
    bench.failures(&format!(
        "4 {TRAIN} --landmarks 17 => 17 | points.csv | 0
         4 {TRAIN} --landmarks A,Q => Q | points.csv"
    ));
    bench.write("landmarks.txt", "points.csv\npoints.csv\n");
    bench.failures(&format!(
        "4 {TRAIN} --landmarks A => names 1 scans | names 2 landmark files
         3 train --run-dir runs --landmarks A => data.train_images
         3 train --run-dir runs --landmarks A --train-images images.txt => data.train_landmarks"
    ));
    bench.write("images.txt", "scan.nii\ngone.nii\n");
    let line = format!("{TRAIN} --landmarks A");
    bench.fail(&line, 4, &["images.txt", "line 2: gone.nii"]);
    check_no_run_folder(&bench);
    check_error_snapshot("landmarks");
}

#[test]
fn settings_and_folders_that_cannot_be_used() {
    let bench = with_scan("scan.nii", &nifti([8, 8, 8], &voxels(512)));
    let train = format!("{TRAIN} --landmarks A");
    let lists = "--train-images images.txt --train-landmarks landmarks.txt --landmarks A";
    bench.failures(&format!(
        r#"3 {train} --set learner.lrr=1 => learner.lrr | did you mean "learner.lr"
           3 {train} --set log.level=inof => log.level | inof
           3 {train} --config gone.toml => cannot read config file gone.toml
           1 train {lists} --run-dir scan.nii/runs => cannot write to run folder scan.nii/runs | --run-dir
           1 {train} --resume => no run to continue in runs
           2 {train} --name a/b => run name "a/b""#
    ));
    assert_eq!(bench.run("train --unknown").code, Some(2));
    check_error_snapshot("settings");
}

#[test]
fn weights_that_cannot_be_used() {
    let bench = with_scan("scan.nii", &nifti([8, 8, 8], &voxels(512)));
    bench.write("bad.safetensors", b"not a checkpoint at all");
    let eval = "eval --images images.txt --landmarks-files landmarks.txt --load";
    let bad = "bad.safetensors | not a complete safetensors file (23 bytes)";
    bench.failures(&format!(
        "4 {eval} gone.safetensors => cannot read weights gone.safetensors
         4 {eval} bad.safetensors => {bad}
         4 play scan.nii --load . => no checkpoints/best.safetensors"
    ));
    check_error_snapshot("weights");
}
