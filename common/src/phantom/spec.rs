//! The specification of phantoms.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The orientation of the file's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Orientation {
    /// x to the right, y to the front, z up.
    Ras,
    /// x to the left, y to the front, z up.
    Las,
}

impl Orientation {
    /// The file's x index of a RAS x index, and vice versa.
    pub(super) fn file_x(self, x: usize, nx: usize) -> usize {
        match self {
            Self::Ras => x,
            Self::Las => nx - 1 - x,
        }
    }
}

/// The appearance of phantoms and its variation.
///
/// The head fills most of a 96×112×96 volume and scales with the smallest ratio
/// of `dims` to that size; landmarks always keep their margin to the faces of the
/// volume, which shortens some shifts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhantomSpec {
    /// Voxels per axis, each 48..=512, y at least 56.
    pub dims: [usize; 3],
    /// Millimetres between voxel centres, the same on all axes.
    pub spacing_mm: f64,
    /// Each phantom draws one of these; a repeated one is drawn more often.
    pub orientations: Vec<Orientation>,
    /// Rotation about each axis is uniform up to this in either direction, 0..=45 degrees.
    pub rotation_deg: f64,
    /// Shift along each axis is uniform up to this in either direction, in voxels.
    pub shift_voxels: f64,
    /// Size is uniform up to this fraction smaller or larger, 0..=0.25.
    pub scaling: f64,
    /// Each structure moves independently by up to this along each axis, in
    /// voxels of a 96×112×96 volume, 0..=4.
    pub jitter_voxels: f64,
    /// Standard deviation of the (Rician) noise as a fraction of the brightest tissue, 0..=0.5.
    pub noise: f64,
}

impl Default for PhantomSpec {
    fn default() -> Self {
        Self {
            dims: REFERENCE_DIMS,
            spacing_mm: 1.0,
            orientations: vec![Orientation::Ras],
            rotation_deg: 20.0,
            shift_voxels: 12.0,
            scaling: 0.12,
            jitter_voxels: 3.0,
            noise: 0.03,
        }
    }
}

/// The volume whose voxels are the anatomy's units.
const REFERENCE_DIMS: [usize; 3] = [96, 112, 96];

/// A field of a [`PhantomSpec`] is out of range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("phantom setting `{setting}` is {found}, it must be {range}")]
pub struct PhantomSpecError {
    pub setting: &'static str,
    pub found: String,
    pub range: &'static str,
}

impl PhantomSpec {
    /// The default with other dimensions.
    #[must_use]
    pub fn with_dims(dims: [usize; 3]) -> Self {
        Self {
            dims,
            ..Self::default()
        }
    }

    /// Fails for the first setting that is out of range.
    pub fn check(&self) -> Result<(), PhantomSpecError> {
        let fits = |(&n, least): (&usize, usize)| (least / 2..=512).contains(&n);
        if !self.dims.iter().zip(REFERENCE_DIMS).all(fits) {
            let range = "from [48, 56, 48] to [512, 512, 512]";
            return Err(refuse("dims", &self.dims, range));
        }
        if self.orientations.is_empty() {
            let range = "at least one of RAS and LAS";
            return Err(refuse("orientations", &self.orientations, range));
        }
        let (mm, degrees) = ("0.001 to 1000 mm", "0 to 45 degrees");
        let (shift, jitter) = (self.shift_voxels, self.jitter_voxels);
        let numbers = [
            ("spacing_mm", self.spacing_mm, 1e-3..=1e3, mm),
            ("rotation_deg", self.rotation_deg, 0.0..=45.0, degrees),
            ("shift_voxels", shift, 0.0..=512.0, "0 to 512 voxels"),
            ("scaling", self.scaling, 0.0..=0.25, "0 to 0.25"),
            ("jitter_voxels", jitter, 0.0..=4.0, "0 to 4 voxels"),
            ("noise", self.noise, 0.0..=0.5, "0 to 0.5"),
        ];
        for (setting, value, range, words) in numbers {
            if !range.contains(&value) {
                return Err(refuse(setting, &value, words));
            }
        }
        Ok(())
    }

    pub(super) fn draw_orientation(&self, rng: &mut impl Rng) -> Orientation {
        self.orientations[rng.random_range(0..self.orientations.len())]
    }

    /// Voxels of this volume per unit of anatomy space.
    pub(super) fn voxels_per_unit(&self) -> f64 {
        let ratio = |i: usize| self.dims[i] as f64 / REFERENCE_DIMS[i] as f64;
        ratio(0).min(ratio(1)).min(ratio(2))
    }
}

fn refuse(
    setting: &'static str,
    found: &impl std::fmt::Debug,
    range: &'static str,
) -> PhantomSpecError {
    PhantomSpecError {
        setting,
        found: format!("{found:?}"),
        range,
    }
}

/// Uniform in `-limit..=limit`.
pub(super) fn symmetric(rng: &mut impl Rng, limit: f64) -> f64 {
    limit * (2.0 * rng.random::<f64>() - 1.0)
}
