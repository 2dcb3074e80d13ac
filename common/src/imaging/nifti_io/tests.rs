//! Tests of `nifti_io`.

mod foreign;
mod limits;
mod pairs;
mod placement;
mod versions;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::fixture::{Fixture, gzip};
use super::*;
use crate::imaging::geometry::Geometry;
use crate::imaging::scan::ScanWarning;
use crate::imaging::volume::Volume;

fn source<'a>(bytes: &'a [u8], name: &'a str) -> Source<'a, &'a [u8]> {
    Source {
        reader: bytes,
        len: bytes.len() as u64,
        name: Path::new(name),
    }
}

fn read_bytes(bytes: &[u8]) -> Result<Image, ReadError> {
    read_from(source(bytes, "x.nii"), &Limits::default())
}

fn floats(image: &Image) -> Vec<f32> {
    match image.samples() {
        Samples::U8(values) => values.iter().map(|&v| f32::from(v)).collect(),
        Samples::F32(values) => values.clone(),
    }
}

fn change(edit: impl FnOnce(&mut Fixture)) -> Vec<u8> {
    let mut fixture = Fixture::counting();
    edit(&mut fixture);
    fixture.bytes()
}

fn close(a: &Affine, b: &[[f64; 4]; 3]) {
    for (found, expected) in a.rows.iter().flatten().zip(b.iter().flatten()) {
        assert!((found - expected).abs() < 1e-6, "{a:?} is not {b:?}");
    }
}

#[test]
fn voxels_and_affines_equal_nibabels() {
    for golden in &golden::FILES {
        let hex = golden.file.as_bytes().chunks(2);
        let file: Vec<u8> = hex
            .map(|b| u8::from_str_radix(str::from_utf8(b).unwrap(), 16).unwrap())
            .collect();
        let image = read_bytes(&file).unwrap();
        assert_eq!(image.dims(), [2, 2, 2], "{}", golden.name);
        assert_eq!(floats(&image), golden.voxels, "{}", golden.name);
        close(image.affine(), &golden.affine);
    }
}

#[test]
fn every_type_in_both_byte_orders() {
    macro_rules! case {
        ($type:ty, $code:expr, $values:expr) => {
            for big_endian in [false, true] {
                let values: [$type; 6] = $values;
                let bytes = |v: &$type| match big_endian {
                    true => v.to_be_bytes(),
                    false => v.to_le_bytes(),
                };
                let voxels: Vec<u8> = values.iter().flat_map(bytes).collect();
                let bytes = change(|f| {
                    f.dim = [4, 1, 2, 3, 1, 1, 1, 1];
                    (f.big_endian, f.datatype) = (big_endian, $code);
                    f.bitpix = i16::try_from(size_of::<$type>() * 8).unwrap();
                    f.voxels = voxels.clone();
                });
                let image = read_bytes(&bytes).unwrap();
                assert_eq!(floats(&image), values.map(|v| v as f32), "code {}", $code);
                let zipped = read_bytes(&gzip(&bytes)).unwrap();
                assert_eq!(zipped, image);
                // 2·v + 1, in f64 before it becomes f32.
                let mut scaled = Fixture::counting();
                (scaled.slope, scaled.inter) = (2.0, 1.0);
                (scaled.big_endian, scaled.datatype) = (big_endian, $code);
                scaled.bitpix = i16::try_from(size_of::<$type>() * 8).unwrap();
                (scaled.dim, scaled.voxels) = ([3, 6, 1, 1, 1, 1, 1, 1], voxels);
                let expected = values.map(|v| (v as f64 * 2.0 + 1.0) as f32);
                assert_eq!(floats(&read_bytes(&scaled.bytes()).unwrap()), expected);
            }
        };
    }
    case!(u8, 2, [0, 1, 2, 127, 128, 255]);
    case!(i8, 256, [-128, -1, 0, 1, 2, 127]);
    case!(u16, 512, [0, 1, 255, 256, 32768, 65535]);
    case!(i16, 4, [-32768, -1, 0, 1, 256, 32767]);
    case!(u32, 768, [0, 1, 255, 65536, 1 << 31, u32::MAX]);
    case!(i32, 8, [i32::MIN, -1, 0, 1, 65536, i32::MAX]);
    case!(u64, 1280, [0, 1, 255, 65536, 1 << 63, u64::MAX]);
    case!(i64, 1024, [i64::MIN, -1, 0, 1, 1 << 40, i64::MAX]);
    case!(f32, 16, [-1.5, 0.0, 1.0, 0.1, 1e30, -1e-30]);
    case!(f64, 64, [-1.5, 0.0, 1.0, 0.1, 1e30, -1e-30]);
}

/// The defects that the `nifti` crate has on these files; see the module's first lines.
#[test]
fn odd_but_legal_files_are_read_as_nibabel_reads_them() {
    let plain = read_bytes(&Fixture::counting().bytes()).unwrap();
    assert_eq!(floats(&plain)[..3], [0.0, 1.0, 2.0]);
    assert_eq!(plain.dims(), [2, 3, 4]);
    // Padding between header and voxels.
    for offset in [368.0, 0.0] {
        let bytes = change(|f| f.vox_offset = offset);
        assert_eq!(read_bytes(&bytes).unwrap(), plain, "{offset}");
    }
    // A slope that is no number.
    for slope in [f32::NAN, f32::INFINITY, 0.0] {
        let bytes = change(|f| (f.slope, f.inter) = (slope, 5.0));
        assert_eq!(read_bytes(&bytes).unwrap(), plain, "{slope}");
    }
    // Several gzip members, cut anywhere.
    let bytes = Fixture::counting().bytes();
    for cut in [100, 348, 360] {
        let members = [gzip(&bytes[..cut]), gzip(&bytes[cut..])].concat();
        assert_eq!(read_bytes(&members).unwrap(), plain, "cut at {cut}");
    }
    // qfac 0 is 1.
    let image = read_bytes(&change(|f| {
        (f.codes, f.pixdim) = ([1, 0], [0.0, 2.0, 3.0, 4.0]);
    }))
    .unwrap();
    let expected = Affine::diagonal([2.0, 3.0, 4.0], [0.0; 3]);
    close(image.affine(), &expected.rows);
    assert_eq!(image.spacing_mm(), [2.0, 3.0, 4.0]);
    // Content decides, not the name.
    let dir = tempfile::tempdir().unwrap();
    let (zipped, not) = (dir.path().join("a.nii"), dir.path().join("b.nii.gz"));
    fs::write(&zipped, gzip(&bytes)).unwrap();
    fs::write(&not, &bytes).unwrap();
    for path in [zipped, not] {
        assert_eq!(read(&path, &Limits::default()).unwrap(), plain);
    }
}

fn refusal(bytes: &[u8]) -> String {
    read_bytes(bytes).unwrap_err().to_string()
}

fn refused_with(cases: Vec<(&str, Vec<u8>)>) {
    for (expected, bytes) in cases {
        let text = refusal(&bytes);
        assert!(text.contains(expected), "expected {expected:?} in: {text}");
        assert!(text.contains("'x.nii'"), "{text}");
    }
}

#[test]
fn each_broken_file_has_its_own_message() {
    let bytes = Fixture::counting().bytes();
    let zipped = gzip(&bytes);
    let mut corrupt = zipped.clone();
    let middle = corrupt.len() / 2;
    corrupt[middle..middle + 8].fill(0xff);
    let mut bad_sum = zipped.clone();
    let at = bad_sum.len() - 8;
    bad_sum[at] ^= 1;
    refused_with(vec![
        ("is cut off", zipped[..zipped.len() / 2].to_vec()),
        ("is cut off", zipped[..zipped.len() - 3].to_vec()),
        ("gzip stream is corrupt", corrupt),
        ("gzip stream is corrupt", bad_sum),
        (
            "too short: a grid of [2, 3, 4] at 1 B per voxel needs 376 bytes, the file has 375",
            bytes[..375].to_vec(),
        ),
        ("too short: a grid of [2, 3, 4]", gzip(&bytes[..375])),
        (
            "too short: a NIfTI-1 header needs 348 bytes, the file has 20",
            bytes[..20].to_vec(),
        ),
        ("too short", Vec::new()),
        (
            "claims [10000, 10000, 10000] = 1000000000000 voxels, the limit is 2147483648",
            change(|f| f.dim = [3, 10000, 10000, 10000, 1, 1, 1, 1]),
        ),
        (
            "too short: a grid of [1000, 1000, 1000]",
            change(|f| f.dim = [3, 1000, 1000, 1000, 1, 1, 1, 1]),
        ),
        (
            "too short: a grid of [1000, 1000, 1000]",
            gzip(&change(|f| f.dim = [3, 1000, 1000, 1000, 1, 1, 1, 1])),
        ),
        ("something else (magic \"????\")", vec![b'?'; 400]),
    ]);
}

#[test]
fn each_broken_header_has_its_own_message() {
    refused_with(vec![
        ("dimensions [2, 0, 4]", change(|f| f.dim[2] = 0)),
        ("dimensions [2, -3, 4]", change(|f| f.dim[2] = -3)),
        (
            "shape [2, 3, 4, 5]; only 3D",
            change(|f| (f.dim[0], f.dim[4]) = (4, 5)),
        ),
        ("shape [2, 3]; only 3D", change(|f| f.dim[0] = 2)),
        ("dim[0] is", change(|f| f.dim[0] = 0)),
        (
            "RGB24 (code 128)",
            change(|f| (f.datatype, f.bitpix) = (128, 24)),
        ),
        ("complex64 (code 32)", change(|f| f.datatype = 32)),
        ("unknown (code 77)", change(|f| f.datatype = 77)),
        (
            "unknown (code 0)",
            change(|f| (f.datatype, f.bitpix) = (0, 16)),
        ),
        ("vox_offset is 100,", change(|f| f.vox_offset = 100.0)),
        ("vox_offset is NaN,", change(|f| f.vox_offset = f32::NAN)),
        (
            "sform that maps voxels nowhere",
            change(|f| f.srow = [0.0; 12]),
        ),
        (
            "sform that maps voxels nowhere",
            change(|f| f.srow[0] = f32::NAN),
        ),
        (
            "qform that maps voxels nowhere",
            change(|f| (f.codes, f.pixdim[2]) = ([1, 0], 1e-35)),
        ),
        (
            "pixdim that maps voxels nowhere",
            change(|f| (f.codes, f.pixdim[2]) = ([0, 0], 1e-35)),
        ),
    ]);
}

/// A scan of `float32` voxels.
fn of_floats(values: &[f32; 24]) -> Vec<u8> {
    change(|f| {
        (f.datatype, f.bitpix) = (16, 32);
        f.voxels = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    })
}

/// SimpleITK 2.5.7 reads 0 for each; nibabel 5.4.2 leaves them.
#[test]
fn voxels_that_are_not_finite_are_zero_and_counted() {
    let mut values = [1.5_f32; 24];
    (values[9], values[10], values[23]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
    let image = read_bytes(&of_floats(&values)).unwrap();
    assert_eq!(image.warnings(), [ScanWarning::NotFinite { count: 3 }]);
    let found = floats(&image);
    assert_eq!(
        (found[8], found[9], found[10], found[23]),
        (1.5, 0.0, 0.0, 0.0)
    );
    // Too large for f32 after scaling.
    let image = read_bytes(&change(|f| (f.slope, f.inter) = (3e38, -1.0))).unwrap();
    assert_eq!(image.warnings(), [ScanWarning::NotFinite { count: 22 }]);
    let text = refusal(&of_floats(&[f32::NAN; 24]));
    assert!(text.contains("no voxel that is a finite number"), "{text}");
}

/// nibabel 5.4.2 and SimpleITK 2.5.7 read the same voxels, whatever `bitpix` is.
#[test]
fn the_datatype_decides_where_bitpix_contradicts() {
    let voxels: Vec<u8> = (0..24_i16).flat_map(|v| (v * 100).to_le_bytes()).collect();
    for bitpix in [0, -1, 8, 12, 32, i16::MAX] {
        let image = read_bytes(&change(|f| {
            (f.datatype, f.bitpix, f.voxels) = (4, bitpix, voxels.clone());
        }))
        .unwrap();
        assert_eq!(floats(&image)[23], 2300.0);
        let datatype = 16;
        assert_eq!(image.warnings(), [ScanWarning::Bitpix { bitpix, datatype }]);
    }
}

/// SimpleITK 2.5.7 reads an intercept of 0; nibabel 5.4.2 refuses the file.
#[test]
fn an_intercept_that_is_no_number_is_zero() {
    for inter in [f32::NAN, f32::INFINITY] {
        let image = read_bytes(&change(|f| (f.slope, f.inter) = (2.0, inter))).unwrap();
        assert_eq!(floats(&image)[..3], [0.0, 2.0, 4.0]);
        assert_eq!(image.warnings(), [ScanWarning::Intercept]);
    }
}

#[test]
fn missing_files_and_folders_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |path: &Path| read(path, &Limits::default()).unwrap_err().to_string();
    let text = refusal(&dir.path().join("gone.nii"));
    assert!(text.starts_with("cannot open scan"), "{text}");
    assert!(text.contains("gone.nii"), "{text}");
    let text = refusal(dir.path());
    assert!(text.contains("a folder"), "{text}");
}

#[test]
fn what_is_written_is_read_back_and_equal_images_give_equal_files() {
    let dir = tempfile::tempdir().unwrap();
    let (sin, cos) = 0.3_f64.sin_cos();
    let oblique = Affine {
        rows: [
            [-0.5 * cos, 0.0, 2.0 * sin, 4.0],
            [0.0, 1.5, 0.0, -3.0],
            [0.5 * sin, 0.0, 2.0 * cos, 9.0],
        ],
    };
    let sheared = Affine {
        rows: [
            [1.0, 0.4, 0.0, 4.0],
            [0.0, 1.5, 0.0, -3.0],
            [0.0, 0.0, 2.0, 9.0],
        ],
    };
    let bytes: Vec<u8> = (0..24).collect();
    let values: Vec<f32> = bytes.iter().map(|&b| f32::from(b) / 7.0).collect();
    for affine in [oblique, sheared] {
        for (name, samples) in [
            ("case.01.nii", SamplesRef::U8(&bytes)),
            ("case.02.nii.gz", SamplesRef::U8(&bytes)),
            ("case.03.nii.gz", SamplesRef::F32(&values)),
        ] {
            let path = dir.path().join(name);
            let image = ImageRef {
                dims: [2, 3, 4],
                samples,
                affine: &affine,
            };
            write(&path, &image).unwrap();
            let first = fs::read(&path).unwrap();
            let found = read(&path, &Limits::default()).unwrap();
            match samples {
                SamplesRef::U8(v) => assert_eq!(found.samples(), &Samples::U8(v.to_vec())),
                SamplesRef::F32(v) => assert_eq!(found.samples(), &Samples::F32(v.to_vec())),
            }
            close(found.affine(), &affine.rows);
            write(&path, &image).unwrap();
            assert_eq!(fs::read(&path).unwrap(), first);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
    // The quaternion equals the sform, which is disabled here (code at byte 254).
    let path = dir.path().join("q.nii");
    let image = ImageRef {
        dims: [2, 3, 4],
        samples: SamplesRef::U8(&bytes),
        affine: &oblique,
    };
    write(&path, &image).unwrap();
    let mut file = fs::read(&path).unwrap();
    assert_eq!(file[252..256], [1, 0, 1, 0]);
    file[254] = 0;
    close(read_bytes(&file).unwrap().affine(), &oblique.rows);
}

#[test]
fn a_volume_is_written_on_our_axes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.nii.gz");
    let volume = Volume::from_u8([2, 3, 4], (0..24).collect::<Vec<u8>>()).unwrap();
    let affine = Affine::diagonal([2.0, 1.0, 3.0], [1.0, 2.0, 3.0]);
    let geometry = Geometry {
        affine,
        ..Geometry::straight([2, 3, 4], [2.0, 1.0, 3.0])
    };
    write_volume(&path, &volume, &geometry).unwrap();
    let image = read(&path, &Limits::default()).unwrap();
    // (x, y, z) = (1, 2, 3): number (1·3 + 2)·4 + 3 of ours, 1 + 2·(2 + 3·3) of the file's.
    assert_eq!(floats(&image)[23], 23.0);
    assert_eq!(floats(&image)[..3], [0.0, 12.0, 4.0]);
    assert_eq!(image.affine(), &affine);
}

#[test]
fn what_cannot_be_written_is_refused() {
    let path = PathBuf::from("/nowhere/x.nii");
    let picture = path.with_extension("png");
    let [affine, flat] = [1.0, 0.0].map(|step| Affine::diagonal([step; 3], [0.0; 3]));
    let (eight, long) = (SamplesRef::U8(&[0; 8]), vec![0; 40000]);
    let long = SamplesRef::U8(&long);
    let cases = [
        (&picture, [2, 2, 2], eight, &affine, ".nii or .nii.gz"),
        (&path, [2, 2, 3], eight, &affine, "needs 12 values, got 8"),
        (&path, [40000, 1, 1], long, &affine, "does not fit NIfTI-1"),
        (&path, [2, 2, 2], eight, &flat, "singular"),
        (
            &path,
            [2, 2, 2],
            eight,
            &affine,
            "cannot create '/nowhere/x.nii'",
        ),
    ];
    for (path, dims, samples, affine, expected) in cases {
        let image = ImageRef {
            dims,
            samples,
            affine,
        };
        let text = write(path, &image).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(read_bytes(&bytes).is_err());
        let _ = read_bytes(&[&[0x1f, 0x8b, 8, 0], &bytes[..]].concat());
    }

    /// Whatever the header claims, memory follows the file's size.
    #[test]
    fn mutated_files_never_panic(
        changes in prop::collection::vec((0_usize..376, any::<u8>()), 1..12),
        cut in 0_usize..380, zipped in any::<bool>(), big_endian in any::<bool>(),
    ) {
        let mut bytes = change(|f| f.big_endian = big_endian);
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(cut.max(350));
        let bytes = if zipped { gzip(&bytes) } else { bytes };
        if let Ok(image) = read_bytes(&bytes) {
            prop_assert!(image.samples().len() <= 24);
            prop_assert!(floats(&image).iter().all(|v| v.is_finite()));
            let _ = crate::imaging::preprocess::preprocess(&image, crate::imaging::preprocess::VolumeChoice::CanonicalU8);
        }
    }

    #[test]
    fn damaged_gzip_never_panics(
        changes in prop::collection::vec((0_usize..10_000, any::<u8>()), 1..6),
    ) {
        let mut bytes = gzip(&Fixture::counting().bytes());
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = read_bytes(&bytes);
    }
}

#[test]
fn a_real_scan_is_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    if !root.exists() {
        println!("skipped: a_real_scan_is_read: ../shared/data is absent");
        return;
    }
    let path = root.join("mouse/val/images/mouse_DBA_2J.nii.gz");
    let image = read(&path, &Limits::default()).unwrap();
    assert_eq!(image.dims(), [144, 200, 144]);
    assert!(matches!(image.samples(), Samples::U8(_)));
    for spacing in image.spacing_mm() {
        assert!((spacing - 0.176).abs() < 1e-3, "{spacing}");
    }
    // The file's orientation is LPS.
    assert!(image.affine().rows[0][0] < 0.0 && image.affine().rows[1][1] < 0.0);
}
