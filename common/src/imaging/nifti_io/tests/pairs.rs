//! `.hdr` and `.img`, by either name.

use super::*;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn read_named(dir: &tempfile::TempDir, name: &str) -> Result<Image, ReadError> {
    read(&dir.path().join(name), &Limits::default())
}

fn refusal_of(dir: &tempfile::TempDir, name: &str) -> String {
    read_named(dir, name).unwrap_err().to_string()
}

#[test]
fn either_name_leads_to_both_files() {
    let plain = read_bytes(&Fixture::counting().bytes()).unwrap();
    for fixture in [Fixture::counting(), Fixture::counting2()] {
        for big_endian in [false, true] {
            let mut fixture = fixture.clone();
            fixture.big_endian = big_endian;
            let [header, voxels] = fixture.pair();
            for (names, zip) in [
                (["a.hdr", "a.img"], [false, false]),
                (["a.HDR", "a.IMG"], [false, false]),
                (["a.01.hdr", "a.01.img"], [false, false]),
                (["a.hdr.gz", "a.img.gz"], [true, true]),
                (["a.hdr", "a.img.gz"], [false, true]),
                (["a.hdr.gz", "a.img"], [true, false]),
                // Content decides here, too.
                (["a.hdr", "a.img"], [true, true]),
                (["a.hdr.gz", "a.img.gz"], [false, false]),
            ] {
                let pack = |bytes: &[u8], zip| if zip { gzip(bytes) } else { bytes.to_vec() };
                let contents = [pack(&header, zip[0]), pack(&voxels, zip[1])];
                let dir = folder(&[(names[0], &contents[0]), (names[1], &contents[1])]);
                let paths = names.map(|name| dir.path().join(name));
                for path in &paths {
                    assert_eq!(files_of(path).unwrap(), paths);
                    assert_eq!(read(path, &Limits::default()).unwrap(), plain);
                }
            }
        }
    }
}

#[test]
fn the_partner_with_the_same_compression_comes_first() {
    let [header, voxels] = Fixture::counting().pair();
    let other = vec![9; 24];
    let zipped = gzip(&other);
    let dir = folder(&[
        ("a.hdr", &header),
        ("a.img", &voxels),
        ("a.img.gz", &zipped),
    ]);
    assert_eq!(floats(&read_named(&dir, "a.hdr").unwrap())[23], 23.0);
    assert_eq!(floats(&read_named(&dir, "a.img.gz").unwrap())[23], 9.0);
}

#[test]
fn voxels_of_a_pair_may_start_later() {
    let mut fixture = Fixture::counting();
    (fixture.magic, fixture.vox_offset) = (*b"ni1\0", 16.0);
    let voxels = [&[77; 16], &fixture.voxels[..]].concat();
    let image = read_pair_from(
        source(&fixture.header(), "x.hdr"),
        source(&voxels, "x.img"),
        &Limits::default(),
    );
    assert_eq!(floats(&image.unwrap())[..3], [0.0, 1.0, 2.0]);
}

#[test]
fn a_single_file_may_have_a_pairs_name() {
    let bytes = Fixture::counting2().bytes();
    let dir = folder(&[("a.img", &bytes), ("b.hdr", &bytes), ("b.img", b"x")]);
    for name in ["a.img", "b.hdr"] {
        assert_eq!(read_named(&dir, name).unwrap().dims(), [2, 3, 4]);
        assert_eq!(files_of(&dir.path().join(name)).unwrap().len(), 1);
    }
}

#[test]
fn half_a_pair_names_the_missing_half() {
    let [header, voxels] = Fixture::counting().pair();
    let single = Fixture::counting().bytes();
    let mut analyze = header.clone();
    analyze[344..].fill(0);
    let dir = folder(&[
        ("a.hdr", &header),
        ("b.img.gz", &gzip(&voxels)),
        ("c.hdr", &header),
        ("c.img", &voxels[..23]),
        ("d.hdr", &analyze),
        ("d.img", &voxels),
        ("e.nii", &header),
        ("f.hdr", &single),
        ("f.img", &voxels),
        ("g.hdr", &header[..100]),
        ("g.img", &voxels),
    ]);
    for (name, expected) in [
        (
            "a.hdr",
            "its voxel file is missing (looked for a.img or a.img.gz",
        ),
        (
            "b.img.gz",
            "its header is missing (looked for b.hdr.gz or b.hdr",
        ),
        (
            "c.hdr",
            "c.img' is too short: a grid of [2, 3, 4] at 1 B per voxel needs 24 bytes, the file has 23",
        ),
        ("c.img", "c.img' is too short"),
        ("d.hdr", "d.hdr' is an Analyze 7.5 header"),
        ("d.img", "d.hdr' is an Analyze 7.5 header"),
        ("e.nii", "the header of a pair (NIfTI-1), not a NIfTI file"),
        (
            "f.img",
            "f.hdr' is a header whose voxels follow in the same file (NIfTI-1)",
        ),
        (
            "g.hdr",
            "g.hdr' is too short: a NIfTI-1 header needs 348 bytes, the file has 100",
        ),
        ("g.img", "g.hdr' is too short"),
        ("h.img", "cannot open scan"),
    ] {
        let text = refusal_of(&dir, name);
        assert!(text.contains(expected), "{name}: {text}");
    }
}
