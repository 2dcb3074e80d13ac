//! What people have instead of NIfTI: named, with a way out.

use super::*;

/// As long as a header, with these bytes at a place.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![b'?'; 600];
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn other_formats_are_named_with_what_to_do() {
    let analyze = change(|f| f.magic = [0; 4]);
    let big_analyze = change(|f| (f.magic, f.big_endian) = ([0; 4], true));
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("a DICOM file", "dcm2niix", with(128, b"DICM")),
        (
            "a DICOM file without",
            "dcm2niix",
            with(0, &[8, 0, 5, 0, 10, 0]),
        ),
        ("an Analyze 7.5 header", "nibabel", analyze),
        ("an Analyze 7.5 header", "nibabel", big_analyze),
        (
            "a MetaImage file",
            "3D Slicer",
            with(0, b"ObjectType = Image\nNDims = 3"),
        ),
        ("a MetaImage file", "SimpleITK", with(0, b"NDims = 3\n")),
        ("an NRRD file", "SimpleITK", with(0, b"NRRD0005\n")),
        (
            "an HDF5 file (MINC 2",
            "mnc2nii",
            with(0, b"\x89HDF\r\n\x1a\n"),
        ),
        ("a NetCDF file (MINC 1", "mnc2nii", with(0, b"CDF\x01")),
        (
            "a FreeSurfer MGH",
            "mri_convert",
            with(0, &[0, 0, 0, 1, 0, 0]),
        ),
        (
            "a JPEG picture",
            "no millimetres",
            with(0, b"\xff\xd8\xff\xe0"),
        ),
        (
            "a PNG picture",
            "no millimetres",
            with(0, b"\x89PNG\r\n\x1a\n"),
        ),
        ("a TIFF picture", "SimpleITK", with(0, b"II*\0")),
        ("a zip archive", "unpack it", with(0, b"PK\x03\x04")),
        ("a tar archive", "unpack it", with(257, b"ustar")),
        (
            "compressed with zstd",
            "gzip",
            with(0, &[0x28, 0xb5, 0x2f, 0xfd]),
        ),
        ("compressed with xz", "gzip", with(0, b"\xfd7zXZ")),
        ("compressed with bzip2", "gzip", with(0, b"BZh9")),
        (
            "a Git LFS pointer",
            "git lfs pull",
            b"version https://git-lfs\n".to_vec(),
        ),
        ("a web page", "download", b"<!DOCTYPE html>".to_vec()),
        ("something else (magic \"????\")", "list", with(0, b"")),
    ];
    for (found, advice, bytes) in cases {
        // Packed, it is still what it is.
        for bytes in [gzip(&bytes), bytes] {
            let text = refusal(&bytes);
            let expected = format!("'x.nii' is {found}");
            assert!(text.contains(&expected) && text.contains(advice), "{text}");
            assert!(text.contains("not a NIfTI file (.nii, .nii.gz, or .hdr with .img)"));
        }
    }
}

#[test]
fn gzip_within_gzip_is_named() {
    let twice = gzip(&gzip(&Fixture::counting().bytes()));
    assert!(refusal(&twice).contains("compressed with gzip twice"));
}

#[test]
fn short_files_are_known_too() {
    let text = refusal(b"ObjectType = Image\nElementDataFile = scan.raw\n");
    assert!(text.contains("a MetaImage file"), "{text}");
    assert!(refusal(b"NRRD0004\n").contains("an NRRD file"));
}

#[test]
fn a_folder_of_dicom_files_is_known_by_name_or_content() {
    let refused = |names: &[(&str, Vec<u8>)]| {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in names {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        read(dir.path(), &Limits::default())
            .unwrap_err()
            .to_string()
    };
    for files in [
        vec![("IM0001.DCM", vec![])],
        vec![("DICOMDIR", vec![])],
        vec![("notes.txt", vec![1]), ("IM0001", with(128, b"DICM"))],
    ] {
        let text = refused(&files);
        assert!(
            text.contains("is a folder of DICOM files") && text.contains("dcm2niix"),
            "{text}"
        );
    }
    let text = refused(&[("scan.nii", vec![0; 400])]);
    assert!(
        text.contains("is a folder, not a NIfTI file") && text.contains("name the scan's file"),
        "{text}"
    );
}
