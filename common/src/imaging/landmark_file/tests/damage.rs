//! Damaged files of every format end in points or an error, never in a panic, and soon.

use std::path::Path;
use std::time::Instant;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::points::MAX_POINTS;
use super::write::{Mark, csv, fcsv, markups_json};
use super::*;

const VARIANTS: usize = 10_000;

/// What is pushed into files: what breaks readers of numbers, quotes and nesting.
const PIECES: [&str; 26] = [
    "1e999",
    "-1e308",
    "NaN",
    "inf",
    "99999999999999999999",
    "\"",
    "\"\"",
    ",",
    ";",
    "\t",
    "\n",
    "\r\n",
    "#",
    "{",
    "[",
    "}",
    "]",
    "\\u0000",
    "\u{0}",
    "é",
    "POINTS 4294967295 float\n",
    "# CoordinateSystem = 9\n",
    "sep=;\n",
    "\r",
    "1.234,5",
    "\u{feff}",
];

fn originals() -> Vec<(&'static str, String)> {
    let marks = ["AC", "PC", "left, upper \"edge\""].map(|name| Mark {
        name,
        ras_mm: [1.5, -20.25, 3.0],
        remark: "dispersion 0.5 mm",
    });
    let table = csv(&marks).unwrap();
    vec![
        ("a.vtk", "# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 3 float\n1 2 3 4 5 6\n7 8 9\n".to_owned()),
        ("brain.txt", "1,2,3\n0,0,0\n10,20,30\n".to_owned()),
        ("fetal.txt", "1.5 2 3\n0 0 0\n10 20 30.25\n".to_owned()),
        ("a.tsv", table.replace(',', "\t")),
        ("b.csv", table.replace(',', ";")),
        ("c.csv", table),
        ("p.txt", "point\n3\n1 2 3\n0 0 0\n10 20 30.25\n".to_owned()),
        ("a.fcsv", fcsv(&marks).unwrap()),
        ("a.mrk.json", markups_json("n", [1.0; 3], &marks).unwrap()),
    ]
}

fn damaged(original: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for _ in 0..random.random_range(1..4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..20)).min(bytes.len());
        match random.random_range(0..6) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            3 => bytes[at] = random.random(),
            4 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                let times = match random.random_range(0..50) {
                    0 => 3_000,
                    _ => 1,
                };
                bytes.splice(at..at, piece.repeat(times).into_bytes());
            }
        }
    }
    bytes
}

#[test]
fn damaged_files_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for (name, original) in originals() {
        let path = Path::new(name);
        let whole = LandmarkFile::parse(original.as_bytes(), path).unwrap();
        assert_eq!(whole.points.len(), 3, "{name}");
        let begin = Instant::now();
        let mut read = 0;
        for _ in 0..VARIANTS {
            match LandmarkFile::parse(&damaged(original.as_bytes(), &mut random), path) {
                Ok(file) => {
                    read += 1;
                    assert!(!file.points.is_empty() && file.points.len() <= MAX_POINTS);
                    let numbers = file.points.iter().filter_map(|p| p.position).flatten();
                    numbers.for_each(|v| assert!(v.is_finite()));
                }
                Err(error) => assert!(error.to_string().len() < 1_500, "{error}"),
            }
        }
        let took = begin.elapsed();
        println!("{name}: {read} of {VARIANTS} still read, {took:?}");
    }
}

#[test]
fn large_repetitive_files_are_refused_soon() {
    let limit = usize::try_from(MAX_MIB << 20).unwrap();
    let filled = |head: &str, piece: &str| {
        let mut text = head.to_owned();
        while text.len() + piece.len() < limit {
            text.push_str(piece);
        }
        text
    };
    let vtk = "# vtk DataFile Version 3.0\nt\nASCII\nDATASET POLYDATA\nPOINTS 999999999 float\n";
    let cases = [
        ("a.txt", filled("", "1 2 3\n")),
        ("b.txt", filled("1 2 3 ", "1 2 3 ")),
        (
            "c.csv",
            filled("name,x_voxel,y_voxel,z_voxel\n", ",1,2,3\n"),
        ),
        ("d.csv", filled("name,x_voxel,y_voxel,z_voxel\n\"", "a")),
        ("e.csv", filled("name,x_voxel,y_voxel,z_voxel", ",")),
        ("f.csv", filled("name,x_voxel,y_voxel,z_voxel\n", "\n")),
        ("g.vtk", filled(vtk, "1 2 3\n")),
        ("h.fcsv", filled("# CoordinateSystem = LPS\n", ",1,2,3\n")),
        ("i.json", filled("{\"markups\":[", "{},")),
        (
            "j.json",
            filled("{\"markups\":[{\"controlPoints\":[", "{},"),
        ),
        (
            "k.json",
            filled("{\"markups\":[{\"controlPoints\":[{\"position\":[", "1,"),
        ),
        ("l.json", filled("{\"x\":", "[")),
        ("m.json", filled("{\"markups\":\"", "a")),
    ];
    for (name, text) in cases {
        let begin = Instant::now();
        let error = LandmarkFile::parse(text.as_bytes(), Path::new(name)).unwrap_err();
        let text = error.to_string();
        assert!(text.len() < 1_000, "{name}: {} bytes", text.len());
        println!("{name}: {:?}, {text}", begin.elapsed());
    }
}
