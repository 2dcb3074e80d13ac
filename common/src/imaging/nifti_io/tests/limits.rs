//! How much a file may ask for.

use super::*;

/// 16 MiB of zeros, 16 KiB compressed.
fn zeros() -> Vec<u8> {
    gzip(&vec![0; 16 << 20])
}

/// A header that claims `side`³ bytes, and `members` times 16 MiB of zeros.
fn bomb(side: i64, members: usize) -> Vec<u8> {
    let header = change(|f| (f.dim, f.voxels) = ([3, side, side, side, 1, 1, 1, 1], Vec::new()));
    let mut bytes = gzip(&header);
    bytes.extend(zeros().repeat(members));
    bytes
}

#[test]
fn a_small_file_that_expands_to_much_is_refused() {
    let bytes = bomb(1000, 60);
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    let text = refusal(&bytes);
    for part in [
        "claims to hold 1000000352 (a grid of [1000, 1000, 1000] at 1 B per voxel)",
        "more than 200 times as many",
        "raise data.max_expansion",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // The same limit for the voxels of a pair.
    let mut fixture = Fixture::counting();
    (fixture.dim, fixture.voxels) = ([3, 1000, 1000, 1000, 1, 1, 1, 1], zeros().repeat(60));
    let [header, voxels] = fixture.pair();
    let error = read_pair_from(
        source(&header, "x.hdr"),
        source(&voxels, "x.img"),
        &Limits::default(),
    );
    assert!(matches!(error, Err(ReadError::Expansion { .. })));
}

#[test]
fn small_scans_may_be_empty_and_limits_can_be_raised() {
    let bytes = bomb(256, 1);
    assert_eq!(read_bytes(&bytes).unwrap().dims(), [256; 3]);
    let bytes = bomb(416, 5);
    let raised = Limits {
        max_expansion: 1000,
        ..Limits::default()
    };
    assert!(matches!(
        read_bytes(&bytes),
        Err(ReadError::Expansion { .. })
    ));
    let image = read_from(source(&bytes, "x.nii"), &raised).unwrap();
    assert_eq!(image.dims(), [416; 3]);
}

#[test]
fn data_after_the_voxels_is_ignored() {
    // 1 GB after 24 bytes of voxels: read to 16 MiB only.
    let bytes = [gzip(&Fixture::counting().bytes()), zeros().repeat(60)].concat();
    let plain = read_bytes(&Fixture::counting().bytes()).unwrap();
    let image = read_bytes(&bytes).unwrap();
    assert_eq!(floats(&image), floats(&plain));
    assert_eq!(image.warnings(), [ScanWarning::AfterVoxels]);
    let long = [Fixture::counting().bytes(), vec![1; (1 << 24) + 1]].concat();
    let image = read_bytes(&long).unwrap();
    assert_eq!(image.warnings(), [ScanWarning::AfterVoxels]);
    let short = [Fixture::counting().bytes(), vec![1; 1 << 24]].concat();
    assert_eq!(read_bytes(&short).unwrap(), plain);
}

/// gzip(1) and SimpleITK 2.5.7 ignore bytes after a whole gzip stream; Python's gzip, and so
/// nibabel, skips zeros and reads on.
#[test]
fn bytes_after_a_whole_gzip_stream_are_ignored() {
    let bytes = Fixture::counting().bytes();
    let plain = read_bytes(&bytes).unwrap();
    let one = gzip(&bytes);
    let two = [gzip(&bytes[..360]), gzip(&bytes[360..])].concat();
    let with = |file: &[u8], tail: &[u8]| [file, tail].concat();
    for file in [&one, &two] {
        for zeros in [1, 9, 10, 512, 600_000, 1 << 24] {
            let padded = with(file, &vec![0; zeros]);
            assert_eq!(read_bytes(&padded).unwrap(), plain, "{zeros} zeros");
        }
        let tails: [&[u8]; 6] = [
            b"x",
            b"not another member",
            b"\0\0\0zeros and more",
            // Starts as a member does, but is none.
            b"\x1fnot another member",
            b"\x1f\x8b\x07 another method of compression",
            &vec![0; 2 << 24],
        ];
        for tail in tails {
            let image = read_bytes(&with(file, tail)).unwrap();
            assert_eq!(floats(&image), floats(&plain));
            assert_eq!(image.warnings(), [ScanWarning::AfterGzip]);
        }
    }
    // Zeros between two members.
    let parts = [gzip(&bytes[..360]), vec![0; 512], gzip(&bytes[360..])].concat();
    assert_eq!(read_bytes(&parts).unwrap(), plain);
    // In both files of a pair.
    let pair = Fixture::counting()
        .pair()
        .map(|file| with(&gzip(&file), b"x"));
    let image = read_pair_from(
        source(&pair[0], "x.hdr"),
        source(&pair[1], "x.img"),
        &Limits::default(),
    );
    assert_eq!(image.unwrap().warnings(), [ScanWarning::AfterGzip]);
    let mut bad_sum = one.clone();
    let at = bad_sum.len() - 8;
    bad_sum[at] ^= 1;
    let padded = |file: &[u8]| with(file, &[0; 512]);
    refused_with(vec![
        ("gzip stream is corrupt", padded(&bad_sum)),
        ("gzip stream is corrupt", padded(&one[..one.len() - 3])),
        ("gzip stream is corrupt", with(&one, &bad_sum)),
        ("is cut off", with(&one, &one[..one.len() / 2])),
        // All voxels, and the sum of none.
        ("is cut off", one[..one.len() - 8].to_vec()),
        ("too short", padded(&gzip(&bytes[..360]))),
        (
            "360 uncompressed were read, then come bytes that are no gzip",
            with(&gzip(&bytes[..360]), b"the rest"),
        ),
    ]);
}

#[test]
fn the_limit_of_voxels_counts() {
    let bytes = Fixture::counting().bytes();
    let read = |max_voxels| {
        let limits = Limits {
            max_voxels,
            ..Limits::default()
        };
        read_from(source(&bytes, "x.nii"), &limits)
    };
    assert!(read(24).is_ok());
    let text = read(23).unwrap_err().to_string();
    assert!(text.contains("raise data.max_voxels"), "{text}");
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_at_once() {
    let error = read(Path::new("/dev/zero"), &Limits::default());
    let text = error.unwrap_err().to_string();
    assert!(text.contains("a pipe or a device"), "{text}");
}
