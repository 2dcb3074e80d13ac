//! Suspicious properties of scan files.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A property of a scan file that does not prevent its use, but probably is a mistake
/// or makes other programs see another scan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ScanWarning {
    /// The header's sform and qform place the scan differently; the sform is used.
    FormsDisagree {
        /// Largest distance of a corner, mm.
        apart_mm: f64,
    },
    /// The header's sform and qform place the scan differently; the qform is used.
    QformUsed {
        /// Largest distance of a corner, mm.
        apart_mm: f64,
    },
    /// The sform is singular or not finite; the qform is used.
    SformUnusable,
    /// Both orientation codes are 0.
    NoOrientation {
        /// Largest distance of a corner from where nibabel places it, mm; `None` where it has
        /// no place for the scan.
        apart_mm: Option<f64>,
    },
    /// The lengths of the sform's columns are not the voxel sizes in pixdim, which are used.
    SizesDisagree {
        /// Voxel sizes in pixdim, mm.
        pixdim: String,
        /// Lengths of the sform's columns, mm.
        sform: String,
        /// Largest distance of a corner between the two, mm.
        apart_mm: f64,
    },
    /// Voxel sizes in pixdim that are 0, negative or not finite.
    OddSizes {
        /// Voxel sizes in pixdim, mm.
        pixdim: String,
        /// Largest distance of a corner from where nibabel places it, mm; `None` where it has
        /// no place for the scan.
        apart_mm: Option<f64>,
    },
    /// nibabel places the scan elsewhere, for another reason.
    Elsewhere {
        /// Largest distance of a corner, mm; `None` where nibabel has no place for it.
        apart_mm: Option<f64>,
    },
    /// The axes are not at right angles.
    Skewed {
        /// Largest deviation from 90°.
        degrees: f64,
    },
    /// The header's lengths are in another unit than mm.
    Unit {
        unit: LengthUnit,
        /// Largest distance of a corner from where nibabel places it, mm; `None` where it has
        /// no place for the scan.
        apart_mm: Option<f64>,
    },
    /// `bitpix` is not the size of the datatype.
    Bitpix {
        bitpix: i16,
        /// Bits of the datatype, which are used.
        datatype: i16,
    },
    /// The intercept is not finite, beside a valid slope.
    Intercept,
    /// Voxels that are not finite, read as 0.
    NotFinite { count: u64 },
    /// Bytes that are no gzip follow the compressed content.
    AfterGzip,
    /// Much data follows the voxels.
    AfterVoxels,
    /// Most voxels have one value, or nearly, so that the usual window shows nothing else.
    Sparse {
        /// Their lowest and highest value.
        background: [f64; 2],
        /// Number of other voxels.
        others: u64,
        /// The window that is used instead.
        window: [f64; 2],
    },
    /// All voxels have one value.
    Constant { value: f64 },
}

/// A unit of a header's lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    Metre,
    Micrometre,
}

/// A distance with as many digits as it needs: voxels may be a few micrometres large.
struct Mm(f64);

impl fmt::Display for Mm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.0 < 0.1 { 4 } else { 1 };
        write!(f, "{:.digits$} mm", self.0)
    }
}

/// How far nibabel places the scan from here, mm.
struct Nibabel(Option<f64>);

impl fmt::Display for Nibabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(apart) => write!(f, "places it {} away", Mm(apart)),
            None => f.write_str("cannot place it"),
        }
    }
}

impl fmt::Display for ScanWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FormsDisagree { .. }
            | Self::QformUsed { .. }
            | Self::SformUnusable
            | Self::NoOrientation { .. }
            | Self::Elsewhere { .. }
            | Self::Skewed { .. } => self.write_orientation(f),
            Self::SizesDisagree { .. } | Self::OddSizes { .. } | Self::Unit { .. } => {
                self.write_sizes(f)
            }
            _ => self.write_voxels(f),
        }
    }
}

impl ScanWarning {
    fn write_orientation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FormsDisagree { apart_mm } => write!(
                f,
                "sform and qform are {} apart; the sform is used: check which is right, and set \
                 both to it",
                Mm(*apart_mm)
            ),
            Self::QformUsed { apart_mm } => write!(
                f,
                "sform and qform are {} apart; the qform is used, as in 3D Slicer and ITK, while \
                 nibabel uses the sform: check which is right, and set both to it",
                Mm(*apart_mm)
            ),
            Self::SformUnusable => f.write_str(
                "the sform maps voxels nowhere (singular or not finite); the qform is used, as in \
                 3D Slicer and ITK: set the sform to the qform",
            ),
            Self::NoOrientation { apart_mm } => write!(
                f,
                "the header holds no orientation (sform_code and qform_code are 0); the first \
                 voxel is the origin, x runs to the left, y to the back and z up, as in 3D Slicer \
                 and ITK, while nibabel {}: set the sform, and check left and right",
                Nibabel(*apart_mm)
            ),
            Self::Elsewhere { apart_mm } => write!(
                f,
                "the scan is placed as in 3D Slicer and ITK, while nibabel {}: set sform and \
                 qform to the same orientation, with code 1",
                Nibabel(*apart_mm)
            ),
            Self::Skewed { degrees } => write!(
                f,
                "the axes are up to {degrees:.2}° off right angles; the sform is used, distances \
                 in mm are approximate, and 3D Slicer and ITK refuse the scan: resample it to a \
                 straight grid"
            ),
            _ => Ok(()),
        }
    }

    fn write_sizes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SizesDisagree {
                pixdim,
                sform,
                apart_mm,
            } => write!(
                f,
                "the voxel sizes are {pixdim} mm in pixdim and {sform} mm in the sform, so that a \
                 corner moves by up to {}; pixdim is used, as in 3D Slicer and ITK, while nibabel uses the sform: \
                 check which is right, and set both to it",
                Mm(*apart_mm)
            ),
            Self::OddSizes { pixdim, apart_mm } => write!(
                f,
                "the voxel sizes in pixdim are {pixdim} mm; 0 and NaN count as 1 mm and a negative \
                 size turns its axis round, as in 3D Slicer and ITK, while nibabel {}: set the \
                 sizes",
                Nibabel(*apart_mm)
            ),
            Self::Unit { unit, apart_mm } => {
                let unit = match unit {
                    LengthUnit::Metre => "metre",
                    LengthUnit::Micrometre => "micrometre",
                };
                write!(
                    f,
                    "the header's unit is the {unit}; its lengths are converted to mm, as in 3D \
                     Slicer and ITK, while nibabel takes them as mm and {}: write the header in mm",
                    Nibabel(*apart_mm)
                )
            }
            _ => Ok(()),
        }
    }

    fn write_voxels(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bitpix { bitpix, datatype } => write!(
                f,
                "bitpix is {bitpix}, but the datatype has {datatype} bits, which are used: write \
                 the scan again with another tool if it looks wrong"
            ),
            Self::Intercept => f.write_str(
                "scl_inter is not finite; 0 is used: set scl_slope and scl_inter if the values \
                 matter",
            ),
            Self::NotFinite { count } => write!(
                f,
                "{count} voxels are NaN or infinite; they count as 0, as in 3D Slicer and ITK: \
                 write another value if 0 is not dark in this scan"
            ),
            Self::AfterGzip => f.write_str(
                "bytes that are no gzip follow the compressed scan; they are ignored: copy or \
                 download it again if it looks wrong",
            ),
            Self::AfterVoxels => f.write_str(
                "much data follows the voxels; it is ignored: check the header's dimensions",
            ),
            Self::Sparse {
                background: [from, to],
                others,
                window: [low, high],
            } => write!(
                f,
                "most of the scan is background ({from} to {to}): the usual window of intensities \
                 (10th to 99th percentile) would show nothing else, so {low} to {high} is used; \
                 {others} voxels are not background: check that this is the scan, and crop it if \
                 most of it is empty"
            ),
            Self::Constant { value } => write!(
                f,
                "all voxels have the value {value}; there is nothing to see in it: check that \
                 this is the scan, and write it again"
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_distances_keep_their_digits() {
        let text = |apart_mm| ScanWarning::FormsDisagree { apart_mm }.to_string();
        assert!(text(58.31).starts_with("sform and qform are 58.3 mm apart"));
        assert!(text(0.0042).starts_with("sform and qform are 0.0042 mm apart"));
    }

    #[test]
    fn warnings_survive_json() {
        let all = vec![
            ScanWarning::Elsewhere { apart_mm: None },
            ScanWarning::QformUsed { apart_mm: 0.1234 },
            ScanWarning::SizesDisagree {
                pixdim: "1 × NaN × 1".to_owned(),
                sform: "1 × 2 × 1".to_owned(),
                apart_mm: 1e9,
            },
            ScanWarning::Unit {
                unit: LengthUnit::Micrometre,
                apart_mm: Some(58214.3),
            },
            ScanWarning::Sparse {
                background: [-0.1, 0.3],
                others: u64::MAX,
                window: [f64::from(f32::MIN), f64::from(f32::MAX)],
            },
        ];
        let text = serde_json::to_vec(&all).unwrap();
        let back: Vec<ScanWarning> = serde_json::from_slice(&text).unwrap();
        assert_eq!(back, all);
    }
}
