//! Damaged scans of every accepted format: whatever is broken, reading ends
//! with an image or an error, soon, and takes no more memory than the limits allow.
//!
//! One test in a program of its own, because it watches the allocator.

#[path = "../src/imaging/nifti_io/fixture.rs"]
mod fixture;

use std::path::Path;
use std::time::{Duration, Instant};

use common::imaging::nifti_io::{
    Image, Limits, ReadError, Samples, Source, read_from, read_pair_from,
};
use fixture::{Fixture, gzip};
use peak_alloc::PeakAlloc;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Damaged variants of each format.
const VARIANTS: usize = 10_000;
/// Buffers and the decompressor's state, beside the voxels themselves.
const OVERHEAD: usize = 1 << 20;
const LIMITS: Limits = Limits {
    max_voxels: 1 << 18,
    max_expansion: 200,
};
/// 4 bytes for each voxel allowed.
const MOST: usize = (4 << 18) + OVERHEAD;
/// Far more than any variant takes; a hang is found, a slow machine is not.
const SOON: Duration = Duration::from_secs(20);

/// One file, or header and voxels.
type Files = Vec<Vec<u8>>;

struct Format {
    name: &'static str,
    files: Files,
    zipped: bool,
}

/// Every accepted format in a few bytes.
fn formats() -> Vec<Format> {
    let mut all = Vec::new();
    let names = [
        ["NIfTI-1", "NIfTI-1 big-endian"],
        ["NIfTI-2", "NIfTI-2 big-endian"],
    ];
    for (fixture, names) in [Fixture::counting(), Fixture::counting2()]
        .into_iter()
        .zip(names)
    {
        for (big_endian, name) in [false, true].into_iter().zip(names) {
            let fixture = Fixture {
                big_endian,
                datatype: 4,
                bitpix: 16,
                codes: [1, 1],
                voxels: (0..48).collect(),
                ..fixture.clone()
            };
            for files in [vec![fixture.bytes()], fixture.pair().to_vec()] {
                all.extend([false, true].map(|zipped| Format {
                    name,
                    files: files.clone(),
                    zipped,
                }));
            }
        }
    }
    all
}

fn read_all(files: &Files) -> Result<Image, ReadError> {
    let source = |bytes| source(bytes);
    match files.as_slice() {
        [header, voxels] => read_pair_from(source(header), source(voxels), &LIMITS),
        [whole, ..] => read_from(source(whole), &LIMITS),
        [] => unreachable!("a scan has a file"),
    }
}

fn source(bytes: &[u8]) -> Source<'_, &[u8]> {
    Source {
        reader: bytes,
        len: bytes.len() as u64,
        name: Path::new("x.nii"),
    }
}

/// Numbers that make fields odd.
const ODD: [i64; 14] = [
    0,
    1,
    -1,
    2,
    255,
    256,
    32_767,
    32_768,
    65_535,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 40,
    i64::MAX,
    i64::MIN,
];

/// Where fields of either header start, and how many bytes they have.
const FIELDS: [(usize, usize); 26] = [
    (0, 4),
    (12, 2),
    (14, 2),
    (16, 8),
    (24, 8),
    (32, 8),
    (40, 2),
    (42, 2),
    (44, 2),
    (46, 2),
    (48, 2),
    (70, 2),
    (72, 2),
    (76, 4),
    (80, 4),
    (104, 8),
    (108, 4),
    (112, 4),
    (116, 4),
    (168, 8),
    (176, 8),
    (252, 2),
    (254, 2),
    (280, 4),
    (344, 4),
    (400, 8),
];

fn damage(format: &Format, random: &mut ChaCha8Rng) -> Files {
    let mut files = format.files.clone();
    let which = random.random_range(0..files.len());
    match random.random_range(0..3) {
        0 => flip(&mut files[which], random),
        1 => odd_field(&mut files[0], random),
        _ => files[which].truncate(random.random_range(0..=format.files[which].len())),
    }
    if format.zipped {
        files = files.iter().map(|bytes| pack(bytes, random)).collect();
        match random.random_range(0..4) {
            0 => flip(&mut files[which], random),
            1 => {
                let len = files[which].len();
                files[which].truncate(random.random_range(0..=len));
            }
            2 => files[which].extend_from_slice(&[0x1f, 0x8b, 8, random.random()]),
            _ => {}
        }
    }
    files
}

/// One or two gzip members.
fn pack(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let cut = random.random_range(0..=bytes.len());
    if random.random() {
        return gzip(bytes);
    }
    [gzip(&bytes[..cut]), gzip(&bytes[cut..])].concat()
}

fn flip(bytes: &mut [u8], random: &mut ChaCha8Rng) {
    for _ in 0..random.random_range(1..6) {
        if !bytes.is_empty() {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
    }
}

fn odd_field(bytes: &mut [u8], random: &mut ChaCha8Rng) {
    for _ in 0..random.random_range(1..4) {
        let (at, width) = FIELDS[random.random_range(0..FIELDS.len())];
        let whole = ODD[random.random_range(0..ODD.len())];
        let mut value = match random.random_range(0..3) {
            0 => whole.to_le_bytes(),
            1 => f64::from_bits(random.random()).to_le_bytes(),
            _ => [f64::NAN, f64::INFINITY, 1e300, -0.0][random.random_range(0..4)].to_le_bytes(),
        };
        if random.random() {
            value[..width].reverse();
        }
        let end = (at + width).min(bytes.len());
        let at = at.min(end);
        bytes[at..end].copy_from_slice(&value[..end - at]);
    }
}

fn check(image: &Image) {
    assert!(image.samples().len() as u64 <= LIMITS.max_voxels);
    let voxels: usize = image.dims().iter().product();
    assert_eq!(image.samples().len(), voxels);
    if let Samples::F32(values) = image.samples() {
        assert!(values.iter().all(|v| v.is_finite()));
    }
    assert!(image.spacing_mm().iter().all(|s| s.is_finite() && *s > 0.0));
}

/// Reads and gives the memory that it took at its height.
fn watched(files: &Files, what: &str) -> (Result<Image, ReadError>, usize) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let start = Instant::now();
    let result = read_all(files);
    assert!(start.elapsed() < SOON, "{what} took {:?}", start.elapsed());
    let took = MEMORY.peak_usage().saturating_sub(before);
    assert!(took <= MOST, "{what} took {took} bytes: {result:?}");
    (result, took)
}

#[test]
fn damaged_scans_end_soon_and_within_the_limits() {
    for format in formats() {
        let what = format!(
            "{} of {} file(s), gzip {}",
            format.name,
            format.files.len(),
            format.zipped
        );
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let whole: Files = if format.zipped {
            format.files.iter().map(|bytes| gzip(bytes)).collect()
        } else {
            format.files.clone()
        };
        assert!(read_all(&whole).is_ok(), "{what}: the undamaged scan");
        let (mut read, mut refused) = (0, 0);
        for number in 0..VARIANTS {
            let files = damage(&format, &mut random);
            match watched(&files, &format!("{what}, variant {number}")).0 {
                Ok(image) => {
                    check(&image);
                    read += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("x.nii"), "{error}");
                    refused += 1;
                }
            }
        }
        // Damage hits what matters, and what does not.
        assert!(refused > VARIANTS / 3, "{what}: {refused} refused");
        assert!(read > VARIANTS / 50, "{what}: {read} read");
    }
    bombs();
}

/// Headers that claim as much as is allowed, or more, over little or nothing.
fn bombs() {
    let zeros = gzip(&vec![0; 16 << 20]);
    for (side, limit) in [(64, true), (63, true), (1000, false), (32_767, false)] {
        let mut fixture = Fixture::counting();
        (fixture.dim, fixture.slope) = ([3, side, side, side, 1, 1, 1, 1], 2.0);
        fixture.voxels = Vec::new();
        let [header, _] = fixture.pair();
        let whole = [gzip(&fixture.bytes()), zeros.repeat(60)].concat();
        assert!(whole.len() < 1 << 20);
        for files in [vec![whole], vec![header, zeros.repeat(60)]] {
            let (result, took) = watched(&files, &format!("a bomb of {side}³"));
            assert_eq!(result.is_ok(), limit, "{result:?}");
            let voxels = usize::try_from(4 * side.pow(3)).expect("at most 2^47");
            // The second line shows that memory is watched at all.
            match limit {
                false => assert!(took < OVERHEAD, "{took} bytes for a file that is refused"),
                true => assert!(took >= voxels, "{took} bytes for {voxels} of voxels"),
            }
        }
    }
}
