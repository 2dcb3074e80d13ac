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
fn what_follows_the_voxels_is_not_kept() {
    // 1 GB after 24 bytes of voxels: read to 16 MiB only.
    let bytes = [gzip(&Fixture::counting().bytes()), zeros().repeat(60)].concat();
    let plain = read_bytes(&Fixture::counting().bytes()).unwrap();
    assert_eq!(read_bytes(&bytes).unwrap(), plain);
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
fn pipes_and_devices_are_not_waited_for() {
    let text = read(Path::new("/dev/zero"), &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(text.contains("a pipe or a device"), "{text}");
}
