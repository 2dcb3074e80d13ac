//! Head-like volumes with exactly known landmarks, for training and tests without
//! real scans.
//!
//! A phantom is an analytic scene: voxels are mapped back through a random pose
//! and a smooth random deformation to anatomy space and shaded there; landmarks
//! are mapped forward, so they are exact to far less than a voxel. The pose, and
//! the jitter of each structure against the others, give the mean-position
//! baseline an error of about ten voxels, so a small error requires using the
//! image.

mod anatomy;
mod dataset;
mod pose;
mod render;
mod shape;
mod spec;
mod texture;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use dataset::{
    DATASET_VERSION, DatasetError, DatasetProgress, PhantomCounts, PhantomSet, set_folder,
    sub_seed, write_dataset,
};
pub use spec::{Orientation, PhantomSpec, PhantomSpecError};

use crate::imaging::geometry::{Affine, centre};
use crate::imaging::volume::Volume;
use anatomy::Anatomy;
use pose::Pose;

/// The landmarks of every phantom, in file order.
pub const LANDMARK_NAMES: [&str; 5] = [
    "bridge",
    "left_horn",
    "right_horn",
    "base_ball",
    "stem_pole",
];

/// Landmarks keep at least this far from the faces of the volume, in voxels.
pub const LANDMARK_MARGIN_VOXELS: f64 = 8.0;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PhantomLandmark {
    /// One of [`LANDMARK_NAMES`].
    pub name: &'static str,
    /// World position, RAS mm.
    pub ras_mm: [f64; 3],
}

/// One generated scan.
#[derive(Debug, Clone, PartialEq)]
pub struct Phantom {
    /// Voxels per axis, file order.
    pub dims: [usize; 3],
    /// Intensities, x fastest: `x + nx · (y + ny · z)`, as NIfTI stores them.
    pub voxels: Vec<u8>,
    /// File voxel → RAS mm. The centre of the volume is the world's origin.
    pub affine: Affine,
    /// The direction of the file's x axis.
    pub orientation: Orientation,
    /// Exact positions, in the order of [`LANDMARK_NAMES`].
    pub landmarks: Vec<PhantomLandmark>,
}

/// Everything about a phantom except its voxels, determined by the seed.
#[derive(Debug, Clone)]
struct Scene {
    dims: [usize; 3],
    spacing_mm: f64,
    orientation: Orientation,
    pose: Pose,
    anatomy: Anatomy,
}

impl Scene {
    fn new(spec: &PhantomSpec, seed: u64) -> Result<Self, PhantomSpecError> {
        spec.check()?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let orientation = spec.draw_orientation(&mut rng);
        let anatomy = Anatomy::random(spec, &mut rng);
        let mut pose = Pose::random(spec, &mut rng);
        pose.keep_inside(anatomy.landmarks(), spec.dims, LANDMARK_MARGIN_VOXELS);
        Ok(Self {
            dims: spec.dims,
            spacing_mm: spec.spacing_mm,
            orientation,
            pose,
            anatomy,
        })
    }

    fn landmarks(&self) -> Vec<PhantomLandmark> {
        let place = |(&name, &position): (&&'static str, &[f64; 3])| PhantomLandmark {
            name,
            ras_mm: self.pose.to_centred(position).map(|v| v * self.spacing_mm),
        };
        let landmarks = LANDMARK_NAMES.iter().zip(self.anatomy.landmarks());
        landmarks.map(place).collect()
    }
}

impl Phantom {
    /// The phantom of a seed: identical on every run and for any number of threads.
    ///
    /// Slices are shaded in parallel. Fails when the specification is invalid.
    pub fn generate(spec: &PhantomSpec, seed: u64) -> Result<Self, PhantomSpecError> {
        let scene = Scene::new(spec, seed)?;
        Ok(Self {
            dims: spec.dims,
            voxels: render::render(&scene, spec, seed),
            affine: affine(spec.dims, spec.spacing_mm, scene.orientation),
            orientation: scene.orientation,
            landmarks: scene.landmarks(),
        })
    }

    /// The landmarks of the phantom of a seed, without shading its voxels.
    pub fn landmarks_of(
        spec: &PhantomSpec,
        seed: u64,
    ) -> Result<Vec<PhantomLandmark>, PhantomSpecError> {
        Ok(Scene::new(spec, seed)?.landmarks())
    }

    /// The same voxels as a RAS [`Volume`], z fastest.
    #[must_use]
    pub fn to_volume(&self) -> Volume {
        let [nx, ny, nz] = self.dims;
        let mut bytes = Vec::with_capacity(self.voxels.len());
        for x in 0..nx {
            let file_x = self.orientation.file_x(x, nx);
            for y in 0..ny {
                bytes.extend((0..nz).map(|z| self.voxels[file_x + nx * (y + ny * z)]));
            }
        }
        Volume::from_u8(self.dims, bytes)
            .expect("one byte was pushed for each voxel of the dimensions")
    }

    /// Positions of the landmarks in the volume of [`Self::to_volume`], voxels.
    #[must_use]
    pub fn landmark_voxels(&self) -> Vec<[f64; 3]> {
        let spacing = self.affine.rows[2][2];
        let centre = centre(self.dims);
        let place =
            |l: &PhantomLandmark| std::array::from_fn(|i| l.ras_mm[i] / spacing + centre[i]);
        self.landmarks.iter().map(place).collect()
    }
}

/// File voxel → RAS mm with the world's origin at the centre of the volume.
fn affine(dims: [usize; 3], spacing_mm: f64, orientation: Orientation) -> Affine {
    let mut steps = [spacing_mm; 3];
    if orientation == Orientation::Las {
        steps[0] = -spacing_mm;
    }
    let centre = centre(dims);
    Affine::diagonal(steps, [0, 1, 2].map(|axis| -steps[axis] * centre[axis]))
}

#[cfg(test)]
mod tests;
