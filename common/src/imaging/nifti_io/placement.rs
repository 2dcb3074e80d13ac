//! Where a scan lies: the choice among the orientations in its header.
//!
//! The standard's order, which nibabel and FSL follow, is sform, qform, voxel sizes. ITK, and
//! so 3D Slicer, where most landmarks are placed, has other rules: it takes the sform's
//! directions only, and only where they are orthogonal, and prefers the qform to an sform whose
//! code is not 1. Where both lead to the same place, the stored numbers are used as they are;
//! elsewhere ITK's place, with a warning. Rules and numbers are those of ITK 5.4
//! (`itkNiftiImageIO.cxx`) and nibabel 5.4; the tests hold what both read.

use std::path::Path;

use super::ReadError;
use super::affine::{about_centre, corner_distance, cosines, is_regular, qform, sform};
use super::fields::Fields;
use crate::imaging::geometry::Affine;
use crate::imaging::scan::{LengthUnit, ScanWarning};

/// Largest distance of a corner at which two affines count as the same place: mm, and voxels.
const SAME_MM: f64 = 0.1;
const SAME_VOXELS: f64 = 0.5;
/// ITK takes directions as orthogonal up to this cosine.
const ORTHOGONAL: f64 = 1e-4;
/// Distances in warnings end here, so that they are finite.
const FARTHEST_MM: f64 = 1e9;

/// A scan's place.
#[derive(Debug)]
pub(super) struct Placed {
    /// Voxel positions → RAS mm.
    pub(super) affine: Affine,
    pub(super) warnings: Vec<ScanWarning>,
}

/// The part of the header that ITK uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Sform,
    Qform,
    Sizes,
}

/// Places a scan; fails when no orientation in the header is an invertible map.
pub(super) fn place(stored: &Fields, dims: [usize; 3], path: &Path) -> Result<Placed, ReadError> {
    let (header, unit) = in_mm(stored);
    let header = &header;
    let standard = Some(by_standard(header, dims)).filter(is_regular);
    let (affine, by) = match (by_itk(header), standard) {
        (Some((by, itk)), Some(standard)) if far(&itk, &standard, dims).is_none() => {
            (standard, Some(by))
        }
        (Some((by, itk)), _) => (itk, Some(by)),
        // A sform alone, which is skewed.
        (None, _) => (sform(header), None),
    };
    if !is_regular(&affine) {
        return Err(bad(header, path));
    }
    let mut warnings = by.map_or_else(
        || vec![skewed(&affine)],
        |by| warnings(header, by, &affine, standard.as_ref(), dims),
    );
    if let Some(unit) = unit {
        let nibabel = Some(by_standard(stored, dims)).filter(is_regular);
        let apart_mm = nibabel.map(|nibabel| shown_mm(corner_distance(&affine, &nibabel, dims)));
        warnings.push(ScanWarning::Unit { unit, apart_mm });
    }
    Ok(Placed { affine, warnings })
}

fn bad(header: &Fields, path: &Path) -> ReadError {
    let (which, affine) = match (header.sform_code > 0, header.qform_code > 0) {
        (_, true) => ("qform", itk_qform(header)),
        (true, false) => ("sform", sform(header)),
        (false, false) => ("pixdim", by_sizes(header)),
    };
    ReadError::BadAffine {
        path: path.to_owned(),
        which,
        detail: format!("{:?}", affine.rows),
    }
}

/// The header with its lengths in mm, and the unit that they had where it is another.
fn in_mm(header: &Fields) -> (Fields, Option<LengthUnit>) {
    let mut header = header.clone();
    let unit = match header.xyzt_units & 7 {
        1 => LengthUnit::Metre,
        3 => LengthUnit::Micrometre,
        _ => return (header, None),
    };
    let sizes = header.pixdim[1..].iter_mut();
    let forms = header.srow.iter_mut().flatten();
    for length in sizes.chain(&mut header.qoffset).chain(forms) {
        *length = match unit {
            LengthUnit::Metre => *length * 1000.0,
            LengthUnit::Micrometre => *length / 1000.0,
        };
    }
    (header, Some(unit))
}

/// Where nibabel places a scan.
fn by_standard(header: &Fields, dims: [usize; 3]) -> Affine {
    // Codes that it does not know count as 0.
    let known = |code: i32| (1..=5).contains(&code);
    let size = |v: f64| if v == 0.0 { 1.0 } else { v.abs() };
    let sizes = stored_sizes(header).map(size);
    if known(header.sform_code) {
        sform(header)
    } else if known(header.qform_code) {
        // All but -1 counts as 1.
        let qfac = if header.pixdim[0] == -1.0 { -1.0 } else { 1.0 };
        qform(header.quatern, header.qoffset, sizes, qfac)
    } else {
        about_centre(sizes, dims)
    }
}

/// Where ITK places a scan, and by what; `None` where it refuses it.
fn by_itk(header: &Fields) -> Option<(By, Affine)> {
    let codes = [header.sform_code > 0, header.qform_code > 0];
    match codes {
        [false, false] => Some((By::Sizes, by_sizes(header))),
        [true, has_qform] if sform_counts(header, has_qform) => {
            Some((By::Sform, itk_sform(header)))
        }
        [_, true] => Some((By::Qform, itk_qform(header))),
        [true, false] => None,
    }
}

fn sform_counts(header: &Fields, has_qform: bool) -> bool {
    let affine = sform(header);
    is_regular(&affine)
        && cosines(&affine).iter().all(|c| c.abs() <= ORTHOGONAL)
        && (header.sform_code == 1 || !has_qform)
}

fn stored_sizes(header: &Fields) -> [f64; 3] {
    [1, 2, 3].map(|i| header.pixdim[i])
}

/// Voxel sizes with sign as `nifti1_io` reads them: 1 where there is none.
fn sizes(header: &Fields) -> [f64; 3] {
    stored_sizes(header).map(|v| if v == 0.0 || !v.is_finite() { 1.0 } else { v })
}

/// x to the left, y to the back, the first voxel at the origin.
fn by_sizes(header: &Fields) -> Affine {
    let [x, y, z] = sizes(header);
    Affine::diagonal([-x, -y, z], [0.0; 3])
}

/// The sform's directions with pixdim's voxel sizes.
fn itk_sform(header: &Fields) -> Affine {
    let mut affine = sform(header);
    let (lengths, sizes) = (affine.column_lengths(), sizes(header));
    for row in &mut affine.rows {
        for axis in 0..3 {
            row[axis] *= sizes[axis] / lengths[axis];
        }
    }
    affine
}

fn itk_qform(header: &Fields) -> Affine {
    let finite = |v: f64| if v.is_finite() { v } else { 0.0 };
    let qfac = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let (quatern, shift) = (header.quatern.map(finite), header.qoffset.map(finite));
    qform(quatern, shift, sizes(header), qfac)
}

/// The largest distance of a corner in mm, where the two are not the same place.
pub(super) fn far(a: &Affine, b: &Affine, dims: [usize; 3]) -> Option<f64> {
    let size = a.column_lengths().into_iter().fold(f64::INFINITY, f64::min);
    let apart = corner_distance(a, b, dims);
    (apart > SAME_MM.min(SAME_VOXELS * size)).then(|| shown_mm(apart))
}

/// A distance for a warning: finite, and with no more digits than are of use.
fn shown_mm(apart: f64) -> f64 {
    (apart.min(FARTHEST_MM) * 1e4).round() / 1e4
}

fn skewed(affine: &Affine) -> ScanWarning {
    let largest = cosines(affine)
        .into_iter()
        .fold(0.0, |m: f64, c| m.max(c.abs()));
    let degrees = largest.min(1.0).asin().to_degrees();
    ScanWarning::Skewed {
        degrees: (degrees * 1e4).round() / 1e4,
    }
}

/// What about the orientation is suspicious, where `affine` was chosen by `by`.
fn warnings(
    header: &Fields,
    by: By,
    affine: &Affine,
    standard: Option<&Affine>,
    dims: [usize; 3],
) -> Vec<ScanWarning> {
    let nibabel = standard.map(|standard| shown_mm(corner_distance(affine, standard, dims)));
    let stored = sform(header);
    let mut all = Vec::new();
    match by {
        By::Sizes => all.push(ScanWarning::NoOrientation { apart_mm: nibabel }),
        By::Qform if header.sform_code <= 0 => {}
        By::Qform if !is_regular(&stored) => all.push(ScanWarning::SformUnusable),
        By::Qform => {
            let apart = far(affine, &stored, dims);
            all.extend(apart.map(|apart_mm| ScanWarning::QformUsed { apart_mm }));
        }
        By::Sform => {
            let directed = itk_sform(header);
            if header.qform_code > 0 {
                let apart = far(&directed, &itk_qform(header), dims);
                all.extend(apart.map(|apart_mm| ScanWarning::FormsDisagree { apart_mm }));
            }
            let apart = far(&directed, &stored, dims);
            all.extend(apart.map(|apart_mm| ScanWarning::SizesDisagree {
                pixdim: shown_sizes(stored_sizes(header)),
                sform: shown_sizes(stored.column_lengths()),
                apart_mm,
            }));
        }
    }
    let sound = |v: &f64| v.is_finite() && *v > 0.0;
    if by != By::Sform && !stored_sizes(header).iter().all(sound) {
        all.push(ScanWarning::OddSizes {
            pixdim: shown_sizes(stored_sizes(header)),
            apart_mm: nibabel,
        });
    }
    let elsewhere = standard.is_none_or(|standard| far(affine, standard, dims).is_some());
    if all.is_empty() && elsewhere {
        all.push(ScanWarning::Elsewhere { apart_mm: nibabel });
    }
    all
}

fn shown_sizes(sizes: [f64; 3]) -> String {
    sizes.map(|v| format!("{}", v as f32)).join(" × ")
}
