//! Invalid input: one clear error, the right exit code.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::process::{Bench, errors_as_before};

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

fn nothing_is_left(bench: &Bench) {
    let left = std::fs::read_dir(bench.path("runs")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "a run that never started left a folder");
}

#[test]
fn scans_that_cannot_be_used() {
    let good = nifti([8, 8, 8], &voxels(512));
    let mut nan = voxels(512);
    nan[9] = f32::NAN;
    let cut = gzip(&good);
    let cases: [(&str, Vec<u8>, &[&str]); 5] = [
        (
            "cut.nii.gz",
            cut[..cut.len() / 2].to_vec(),
            &["cut.nii.gz", "gzip stream", "copy or download it again"],
        ),
        (
            "huge.nii",
            nifti([32_000, 32_000, 1_000], &[]),
            &["huge.nii", "1024000000000 voxels", "the limit is"],
        ),
        (
            "magic.nii",
            vec![b'x'; 400],
            &["magic.nii", "not a NIfTI file"],
        ),
        (
            "nan.nii",
            nifti([8, 8, 8], &nan),
            &["nan.nii", "1 voxels that are NaN or infinite"],
        ),
        (
            "short.nii",
            good[..900].to_vec(),
            &["short.nii", "too short", "copy or download it again"],
        ),
    ];
    for (name, bytes, words) in cases {
        let bench = with_scan(name, &bytes);
        bench.fail(&format!("{TRAIN} --landmarks A"), 4, words);
        nothing_is_left(&bench);
    }
    errors_as_before("scans");
}

#[test]
fn landmarks_and_lists_that_cannot_be_used() {
    let bench = with_scan("scan.nii", &nifti([8, 8, 8], &voxels(512)));
    bench.fail(
        &format!("{TRAIN} --landmarks 17"),
        4,
        &["17", "points.csv", "0"],
    );
    bench.fail(&format!("{TRAIN} --landmarks A,Q"), 4, &["Q", "points.csv"]);
    bench.write("landmarks.txt", "points.csv\npoints.csv\n");
    bench.fail(
        &format!("{TRAIN} --landmarks A"),
        4,
        &["names 1 scans", "names 2 landmark files"],
    );
    bench.fail(
        "train --run-dir runs --landmarks A",
        3,
        &["data.train_images"],
    );
    bench.fail(
        "train --run-dir runs --landmarks A --train-images images.txt",
        3,
        &["data.train_landmarks"],
    );
    bench.write("images.txt", "scan.nii\ngone.nii\n");
    bench.fail(
        &format!("{TRAIN} --landmarks A"),
        4,
        &["images.txt", "line 2: gone.nii"],
    );
    nothing_is_left(&bench);
    errors_as_before("landmarks");
}

#[test]
fn settings_and_folders_that_cannot_be_used() {
    let bench = with_scan("scan.nii", &nifti([8, 8, 8], &voxels(512)));
    bench.fail(
        &format!("{TRAIN} --landmarks A --set learner.lrr=1"),
        3,
        &["learner.lrr", "did you mean \"learner.lr\""],
    );
    bench.fail(
        &format!("{TRAIN} --landmarks A --set log.level=inof"),
        3,
        &["log.level", "inof"],
    );
    bench.fail(
        &format!("{TRAIN} --landmarks A --config gone.toml"),
        3,
        &["cannot read config file gone.toml"],
    );
    let line = "train --train-images images.txt --train-landmarks landmarks.txt --landmarks A --run-dir scan.nii/runs";
    bench.fail(
        line,
        1,
        &["cannot write to run folder scan.nii/runs", "--run-dir"],
    );
    bench.fail(
        &format!("{TRAIN} --landmarks A --resume"),
        1,
        &["no run to continue in runs"],
    );
    bench.fail(
        &format!("{TRAIN} --landmarks A --name a/b"),
        2,
        &["run name \"a/b\""],
    );
    assert_eq!(bench.run("train --unknown").code, Some(2));
    errors_as_before("settings");
}

#[test]
fn weights_that_cannot_be_used() {
    let bench = with_scan("scan.nii", &nifti([8, 8, 8], &voxels(512)));
    let eval = "eval --images images.txt --landmarks-files landmarks.txt --load";
    bench.fail(
        &format!("{eval} gone.safetensors"),
        4,
        &["cannot read weights gone.safetensors"],
    );
    bench.write("bad.safetensors", b"not a checkpoint at all");
    bench.fail(
        &format!("{eval} bad.safetensors"),
        4,
        &[
            "bad.safetensors",
            "not a complete safetensors file (23 bytes)",
        ],
    );
    bench.fail(
        "play scan.nii --load .",
        4,
        &["holds no checkpoints/best.safetensors"],
    );
    errors_as_before("weights");
}
