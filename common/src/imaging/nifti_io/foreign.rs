//! Recognises common files that are not NIfTI and advises how to convert them.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::ReadError;
use super::fields::{NIFTI1_LEN, Version};

const TO_NIFTI: &str = "convert it: in 3D Slicer load it and save it as .nii.gz, or with \
    `python -c \"import SimpleITK as s; s.WriteImage(s.ReadImage('IN'), 'OUT.nii.gz')\"`";
const FROM_DICOM: &str = "convert the series: `dcm2niix -z y -o OUT_FOLDER DICOM_FOLDER`, or load \
    it in 3D Slicer and save it as .nii.gz";
const FROM_ANALYZE: &str = "convert it, giving it an orientation, which Analyze does not store: \
    `python -c \"import nibabel as n; i = n.load('IN.hdr'); n.save(n.Nifti1Image(i.get_fdata(), \
    i.affine), 'OUT.nii.gz')\"`, and check left and right";
const FROM_MINC: &str = "if it is MINC, convert it: `mnc2nii IN.mnc OUT.nii`, or \
    `python -c \"import nibabel as n; i = n.load('IN.mnc'); n.save(n.Nifti1Image(i.get_fdata(), \
    i.affine), 'OUT.nii.gz')\"`";
const FROM_MGH: &str = "convert it: `mri_convert IN.mgz OUT.nii.gz`, or \
    `python -c \"import nibabel as n; i = n.load('IN.mgz'); n.save(n.Nifti1Image(i.get_fdata(), \
    i.affine), 'OUT.nii.gz')\"`";
const NO_PICTURE: &str = "a picture holds no volume and no millimetres; export the scan itself as \
    .nii.gz (3D Slicer does; for DICOM, dcm2niix)";
const BAD_DOWNLOAD: &str = "the download went wrong; download the scan again";
const UNPACK: &str = "unpack it, or pack it with gzip";
const UNPACK_ALL: &str = "unpack it and name the scan inside (a .dcm series: then run dcm2niix)";

/// First bytes of a file, its format, and the advice.
#[rustfmt::skip]
const STARTS: [(&[u8], &str, &str); 29] = [
    (b"NRRD000", "an NRRD file", TO_NIFTI),
    (b"ObjectType", "a MetaImage file (.mha or .mhd)", TO_NIFTI),
    (b"NDims", "a MetaImage file (.mha or .mhd)", TO_NIFTI),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (MINC 2 is one)", FROM_MINC),
    (b"CDF\x01", "a NetCDF file (MINC 1 is one)", FROM_MINC),
    (b"CDF\x02", "a NetCDF file (MINC 1 is one)", FROM_MINC),
    (&[2, 0, 0, 0], "a DICOM file without its preamble", FROM_DICOM),
    (&[8, 0, 0, 0], "a DICOM file without its preamble", FROM_DICOM),
    (&[8, 0, 5, 0], "a DICOM file without its preamble", FROM_DICOM),
    (&[8, 0, 8, 0], "a DICOM file without its preamble", FROM_DICOM),
    (&[0, 0, 0, 1], "a FreeSurfer MGH volume", FROM_MGH),
    (b"\xff\xd8\xff", "a JPEG picture", NO_PICTURE),
    (b"\x89PNG", "a PNG picture", NO_PICTURE),
    (b"II*\0", "a TIFF picture or stack", TO_NIFTI),
    (b"MM\0*", "a TIFF picture or stack", TO_NIFTI),
    (b"II+\0", "a TIFF picture or stack", TO_NIFTI),
    (b"GIF8", "a GIF picture", NO_PICTURE),
    (b"PK\x03\x04", "a zip archive", UNPACK_ALL),
    (b"PK\x05\x06", "an empty zip archive", UNPACK_ALL),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK_ALL),
    (b"Rar!", "a RAR archive", UNPACK_ALL),
    (&[0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd", UNPACK),
    (b"\xfd7zXZ", "compressed with xz", UNPACK),
    (b"BZh", "compressed with bzip2", UNPACK),
    (&[0x1f, 0x8b], "compressed with gzip twice", "unpack it once"),
    (b"version https://git-lfs", "a Git LFS pointer, not the scan itself", "fetch it with `git lfs pull`"),
    (b"<!DOCTYPE", "a web page", BAD_DOWNLOAD),
    (b"<html", "a web page", BAD_DOWNLOAD),
    (b"<?xml", "an XML file", "check that the list names the right file"),
];

/// Recognises the start of a file's (uncompressed) content; `None` where it may be
/// NIfTI or is unknown.
pub(super) fn foreign(bytes: &[u8], path: &Path) -> Option<ReadError> {
    let analyze = || {
        let (version, _) = Version::claimed(bytes)?;
        let bare = version == Version::One && bytes.len() >= NIFTI1_LEN;
        (bare && !version.magics().contains(&version.magic(bytes)))
            .then_some(("an Analyze 7.5 header", FROM_ANALYZE))
    };
    let (found, advice) = if bytes.get(128..132) == Some(b"DICM") {
        ("a DICOM file", FROM_DICOM)
    } else if bytes.get(257..262) == Some(b"ustar") {
        ("a tar archive", UNPACK_ALL)
    } else if let Some(found) = analyze() {
        found
    } else {
        let (_, found, advice) = STARTS.iter().find(|(start, ..)| bytes.starts_with(start))?;
        (*found, *advice)
    };
    Some(refused(path, found, advice))
}

fn refused(path: &Path, found: &str, advice: &'static str) -> ReadError {
    ReadError::WrongMagic {
        path: path.to_owned(),
        found: found.to_owned(),
        advice,
    }
}

/// A file of unknown format.
pub(super) fn unknown(bytes: &[u8], path: &Path) -> ReadError {
    let at = bytes.get(344..348).unwrap_or_default().escape_ascii();
    refused(
        path,
        &format!("something else (magic \"{at}\")"),
        "check that the list names the right file",
    )
}

/// A folder where a file should be.
pub(super) fn folder(path: &Path) -> ReadError {
    if holds_dicom(path) {
        return refused(path, "a folder of DICOM files", FROM_DICOM);
    }
    refused(path, "a folder", "name the scan's file in it")
}

/// Whether one of a folder's first files is DICOM, by its name or its content.
fn holds_dicom(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.take(64).flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        if name.ends_with(".dcm") || name == "dicomdir" {
            return true;
        }
        let mut start = [0; 132];
        // Only regular files are opened: opening a pipe would block.
        entry.file_type().is_ok_and(|kind| kind.is_file())
            && File::open(entry.path())
                .and_then(|mut file| file.read_exact(&mut start))
                .is_ok()
            && start[128..] == *b"DICM"
    })
}
