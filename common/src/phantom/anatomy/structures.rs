//! The solids of a head and its landmarks.

use rand::{Rng, RngExt};

use super::Structure;
use crate::phantom::LANDMARK_NAMES;
use crate::phantom::shape::{Shape, tip};
use crate::phantom::spec::symmetric;

/// The solids in painting order, and the landmarks in the order of [`LANDMARK_NAMES`].
pub(super) struct Structures {
    pub(super) solids: Vec<Structure>,
    pub(super) landmarks: [[f64; 3]; LANDMARK_NAMES.len()],
}

const FLUID: f64 = 0.14;
const BONE: f64 = 0.10;
const SOFT: f64 = 0.45;
const FAT: f64 = 0.80;
const GREY: f64 = 0.46;
const WHITE: f64 = 0.66;
const BRIGHT: f64 = 1.0;

/// Radii of a ventricle's front horn at its root and at its tip.
const HORN_RADII: [f64; 2] = [3.8, 2.0];
/// Radii of the brain stem at its top and at its pole.
const STEM_RADII: [f64; 2] = [5.0, 3.5];

impl Structures {
    /// Solids jittered by up to `jitter` units along each axis, each on its own.
    pub(super) fn random(jitter: f64, rng: &mut impl Rng) -> Self {
        let mut solids = Vec::new();
        head(&mut solids, rng);
        distractors(&mut solids, jitter, rng);
        let [left_horn, right_horn] = ventricles(&mut solids, jitter, rng);
        let bridge = bridge(&mut solids, jitter, rng);
        let base_ball = base_ball(&mut solids, jitter, rng);
        let stem_pole = stem(&mut solids, jitter, rng);
        Self {
            solids,
            landmarks: [bridge, left_horn, right_horn, base_ball, stem_pole],
        }
    }
}

/// Neck, scalp, skull, and brain with its folded cortex and midline cleft.
fn head(solids: &mut Vec<Structure>, rng: &mut impl Rng) {
    let stretch: [f64; 3] = std::array::from_fn(|_| 1.0 + symmetric(rng, 0.04));
    let shells = |semi: [f64; 3]| -> [f64; 3] { std::array::from_fn(|i| semi[i] * stretch[i]) };
    let thickness = symmetric(rng, 0.8);
    let scalp = [33.0, 41.0, 35.0].map(|semi| semi + thickness);
    let ellipsoid = |centre, semi| Shape::ellipsoid(centre, shells(semi));
    let neck = Shape::tube([0.0, -6.0, -24.0], [0.0, -10.0, -80.0], [14.0, 17.0]);
    let spine = Shape::tube([0.0, -11.0, -38.0], [0.0, -13.0, -80.0], [4.0, 4.0]);
    let nose = Shape::tube([0.0, 36.0, -10.0], [0.0, 43.0, -17.0], [3.0, 3.5]);
    solids.extend([
        Structure::plain(neck, SOFT),
        Structure::plain(nose, SOFT),
        Structure::plain(ellipsoid([0.0; 3], scalp), FAT),
        Structure::plain(ellipsoid([0.0; 3], [30.5, 38.5, 32.5]), BONE),
        Structure::plain(spine, FAT),
        Structure::plain(ellipsoid([0.0; 3], [27.5, 35.5, 29.5]), FLUID),
    ]);
    for side in [-1.0, 1.0] {
        let eye = [side * 13.0 * stretch[0], 34.5 * stretch[1], -13.0];
        solids.push(Structure::plain(Shape::ball(eye, 5.0), 0.3));
    }
    solids.extend([
        Structure::rippled(ellipsoid([0.0; 3], [25.5, 33.0, 27.5]), GREY, 1.2),
        Structure::rippled(ellipsoid([0.0; 3], [21.5, 29.0, 23.5]), WHITE, 3.5),
        Structure::rippled(ellipsoid([0.0, 2.0, 14.0], [1.3, 31.0, 14.0]), FLUID, 0.4),
    ]);
}

/// Structures that are not landmarks: grey nuclei, a small cerebellum, vessels.
fn distractors(solids: &mut Vec<Structure>, jitter: f64, rng: &mut impl Rng) {
    for side in [-1.0, 1.0] {
        let centre = moved([side * 15.0, 1.0, -2.0], jitter, rng);
        let semi = [
            3.0 + symmetric(rng, 0.5),
            8.0 + symmetric(rng, 1.5),
            5.0 + symmetric(rng, 1.0),
        ];
        solids.push(Structure::plain(Shape::ellipsoid(centre, semi), GREY));
        let lobe = Shape::ellipsoid(moved([side * 8.5, -20.0, -14.0], 1.0, rng), [8.0, 8.0, 6.5]);
        solids.push(Structure::rippled(lobe, 0.55, 1.5));
    }
    for _ in 0..rng.random_range(2..=5) {
        let from = [
            symmetric(rng, 18.0),
            -14.0 + symmetric(rng, 12.0),
            13.0 + symmetric(rng, 5.0),
        ];
        let to = moved(from, 6.0, rng);
        let radius = 0.8 + symmetric(rng, 0.2);
        let end = [to[0], to[1], to[2] + 4.0];
        solids.push(Structure::plain(Shape::tube(from, end, [radius; 2]), 0.3));
    }
}

/// Two dark ventricles and, only on the left, a bright nodule beside the horn.
/// Returns the tips of the left and right front horn.
fn ventricles(solids: &mut Vec<Structure>, jitter: f64, rng: &mut impl Rng) -> [[f64; 3]; 2] {
    let tips = [-1.0, 1.0].map(|side| {
        let root = moved([side * 5.0, -3.0, 9.0], jitter / 3.0, rng);
        let back = moved([side * 9.5, -19.0, 5.0], jitter, rng);
        let front = moved([side * 10.0, 14.0, 4.0], jitter, rng);
        let body = Shape::tube(root, back, [HORN_RADII[0], 2.4]);
        let horn = Shape::tube(root, front, HORN_RADII);
        solids.extend([Structure::plain(body, FLUID), Structure::plain(horn, FLUID)]);
        tip(root, front, HORN_RADII[1])
    });
    // Follows the left horn in part, to stay close without touching it.
    let beside = [
        tips[0][0] * 0.5 - 12.0,
        tips[0][1] * 0.5 - 1.0,
        tips[0][2] * 0.5 + 6.0,
    ];
    let centre = moved(beside, jitter / 3.0, rng);
    solids.push(Structure::plain(
        Shape::ellipsoid(centre, [2.6, 4.2, 2.6]),
        0.92,
    ));
    tips
}

/// A bright bar from one hemisphere to the other through a dark cistern; returns its centre.
fn bridge(solids: &mut Vec<Structure>, jitter: f64, rng: &mut impl Rng) -> [f64; 3] {
    let [x, y, z] = moved([0.0, 3.0, -2.0], jitter, rng);
    let cistern = Shape::ellipsoid([x, y, z], [3.6, 5.5, 4.6]);
    let bar = Shape::tube([x - 4.6, y, z], [x + 4.6, y, z], [1.8; 2]);
    solids.extend([
        Structure::plain(cistern, FLUID),
        Structure::plain(bar, BRIGHT),
    ]);
    [x, y, z]
}

/// A bright ball in a dark cistern at the base of the brain; returns its centre.
fn base_ball(solids: &mut Vec<Structure>, jitter: f64, rng: &mut impl Rng) -> [f64; 3] {
    let centre = moved([0.0, 13.0, -17.0], jitter, rng);
    let cistern = Shape::ellipsoid(centre, [8.0, 6.0, 5.0]);
    solids.extend([
        Structure::plain(cistern, FLUID),
        Structure::plain(Shape::ball(centre, 2.8), BRIGHT),
    ]);
    centre
}

/// The brain stem in its cistern; returns its lower pole.
fn stem(solids: &mut Vec<Structure>, jitter: f64, rng: &mut impl Rng) -> [f64; 3] {
    let top = moved([0.0, -7.0, -6.0], jitter / 3.0, rng);
    let end = moved([0.0, -10.0, -17.5], jitter, rng);
    let cistern = Shape::tube(top, end, [6.5, 7.0]);
    let stem = Shape::tube(top, end, STEM_RADII);
    solids.extend([
        Structure::plain(cistern, FLUID),
        Structure::plain(stem, WHITE),
    ]);
    tip(top, end, STEM_RADII[1])
}

fn moved(p: [f64; 3], jitter: f64, rng: &mut impl Rng) -> [f64; 3] {
    p.map(|v| v + symmetric(rng, jitter))
}
