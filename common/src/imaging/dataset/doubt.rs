//! What is possible but hardly meant: landmarks in the background, clouds that
//! fit the other scans' only when mirrored or with axes swapped, single
//! landmarks far from where the other scans have them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::imaging::scan::Scan;
use crate::imaging::volume::Volume;
use crate::report::consensus;

/// A landmark is in the background when what is around it has a mean below this
/// part of the value that parts the scan into dark and bright (Otsu 1979):
/// fluids are darker than tissue, but not as dark as air.
const DARK: f64 = 0.3;
/// Half the side of the cube that is looked at, voxels.
const AROUND: i32 = 2;
/// Landmarks that a cloud needs for its shape to say something.
const CLOUD: usize = 3;
/// Other scans that must have a landmark.
const OTHERS: usize = 3;
/// A turned cloud must fit this much better, and the cloud as it is must fit
/// this much worse than those of the other scans do.
const BETTER: f64 = 0.5;
const WORSE: f64 = 1.5;
/// A landmark is far off beyond this many times the usual distance, and this
/// part of the cloud's size.
const FAR: f64 = 4.5;
const FAR_SHARE: f64 = 0.15;

/// Something to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Doubt {
    pub scan: PathBuf,
    /// What is odd about it.
    pub kind: DoubtKind,
}

/// What is odd.
#[derive(Debug, Clone, PartialEq)]
pub enum DoubtKind {
    /// A landmark where the scan is dark.
    Background {
        /// Its name.
        landmark: String,
        /// Where it is, voxels of the preprocessed volume.
        voxel: [f64; 3],
    },
    /// All landmarks together fit the other scans' when turned like this.
    Turned {
        /// Which of this scan's world axes (R, A, S) the others' are, with sign.
        like: Turn,
        /// Root mean square distance to the others' landmarks as they are, mm.
        as_it_is_mm: f64,
        /// The same when turned.
        turned_mm: f64,
    },
    /// One landmark far from where the other scans have it.
    Far {
        /// Its name.
        landmark: String,
        /// Distance, mm, the clouds laid over each other.
        distance_mm: f64,
        /// What is usual, mm.
        usual_mm: f64,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}': ", self.scan.display())?;
        match &self.kind {
            DoubtKind::Background { landmark, voxel } => {
                let [x, y, z] = voxel;
                write!(
                    f,
                    "landmark '{landmark}' lies in the background (voxel {x:.0}, {y:.0}, {z:.0}); \
                     check the space and the order of its coordinates"
                )
            }
            DoubtKind::Turned {
                like,
                as_it_is_mm,
                turned_mm,
            } => write!(
                f,
                "its landmarks fit the other scans' when {like} ({turned_mm:.1} mm instead of \
                 {as_it_is_mm:.1} mm); check the header's orientation, or whether the file means \
                 LPS or RAS"
            ),
            DoubtKind::Far {
                landmark,
                distance_mm,
                usual_mm,
            } => write!(
                f,
                "landmark '{landmark}' is {distance_mm:.1} mm from where the other scans have it \
                 ({usual_mm:.1} mm is usual); check its position, or whether names are swapped"
            ),
        }
    }
}

/// Axes in another order, some the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// `axes[i] = (own axis, mirrored)` for each axis i of the others.
    pub axes: [(usize, bool); 3],
}

impl Turn {
    const NONE: Self = Self {
        axes: [(0, false), (1, false), (2, false)],
    };

    /// The 47 that change something.
    fn all() -> impl Iterator<Item = Self> {
        let orders = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        let turns = orders.into_iter().flat_map(|order| {
            (0..8).map(move |signs| Self {
                axes: std::array::from_fn(|i| (order[i], signs >> i & 1 == 1)),
            })
        });
        turns.filter(|turn| *turn != Self::NONE)
    }

    fn apply(self, p: [f64; 3]) -> [f64; 3] {
        self.axes
            .map(|(axis, mirrored)| if mirrored { -p[axis] } else { p[axis] })
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SIDES: [&str; 3] = ["left and right", "front and back", "top and bottom"];
        let swapped = (0..3).filter(|&i| self.axes[i].0 != i);
        let swapped: Vec<&str> = swapped.map(|i| ["x", "y", "z"][i]).collect();
        let mirrored = (0..3).filter(|&i| self.axes[i].1);
        let mirrored: Vec<&str> = mirrored.map(|i| SIDES[i]).collect();
        if !swapped.is_empty() {
            write!(f, "axes {} are swapped", swapped.join(" and "))?;
        }
        if !mirrored.is_empty() {
            let and = if swapped.is_empty() { "" } else { " and " };
            write!(f, "{and}{} are exchanged", mirrored.join(", "))?;
        }
        Ok(())
    }
}

/// Everything odd about scans of one data set, scan by scan. `sources` are
/// their files, `names` their landmarks'.
pub(super) fn doubts(scans: &[Arc<Scan>], sources: &[PathBuf], names: &[String]) -> Vec<Doubt> {
    let clouds = Clouds::new(scans);
    let mut all = Vec::new();
    for (number, (scan, source)) in scans.iter().zip(sources).enumerate() {
        let mut kinds = background(scan, names);
        kinds.extend(clouds.doubts(number, names));
        all.extend(kinds.into_iter().map(|kind| Doubt {
            scan: source.clone(),
            kind,
        }));
    }
    all
}

fn background(scan: &Scan, names: &[String]) -> Vec<DoubtKind> {
    let dark = DARK * otsu(&scan.volume);
    let known = scan.landmarks.iter().zip(names);
    let known = known.filter_map(|(p, name)| Some(((*p)?, name)));
    known
        .filter(|(p, _)| brightness(&scan.volume, *p) < dark)
        .map(|(voxel, name)| DoubtKind::Background {
            landmark: name.clone(),
            voxel,
        })
        .collect()
}

/// Mean of the cube around a position.
fn brightness(volume: &Volume, place: [f64; 3]) -> f64 {
    #[expect(clippy::cast_possible_truncation, reason = "inside the volume")]
    let at = place.map(|v| v.round() as i32);
    let side = || -AROUND..=AROUND;
    let cube = side().flat_map(|x| side().flat_map(move |y| side().map(move |z| [x, y, z])));
    let values = cube.map(|d| f64::from(volume.at(std::array::from_fn(|i| at[i] + d[i]))));
    values.sum::<f64>() / f64::from(2 * AROUND + 1).powi(3)
}

/// The value that parts a volume into dark and bright with the largest variance
/// between the two; 0 for a float volume, which is not looked at.
#[expect(clippy::cast_precision_loss, reason = "counts of voxels")]
fn otsu(volume: &Volume) -> f64 {
    let mut counts = [0_u64; 256];
    for &byte in volume.as_u8().unwrap_or_default() {
        counts[usize::from(byte)] += 1;
    }
    let weigh = |(value, &count): (usize, &u64)| value as f64 * count as f64;
    let total: f64 = counts.iter().map(|&c| c as f64).sum();
    let all: f64 = counts.iter().enumerate().map(weigh).sum();
    let (mut below, mut sum, mut best) = (0.0, 0.0, (0.0, 0.0));
    for entry in counts.iter().enumerate() {
        below += *entry.1 as f64;
        sum += weigh(entry);
        let above = total - below;
        if below == 0.0 || above == 0.0 {
            continue;
        }
        let between = below * above * (sum / below - (all - sum) / above).powi(2);
        if between > best.0 {
            best = (between, entry.0 as f64 + 0.5);
        }
    }
    best.1
}

/// A landmark about the middle of its scan's, and where the others have it about
/// the middle of theirs, RAS mm.
struct Placed {
    landmark: usize,
    own: [f64; 3],
    others: [f64; 3],
}

/// Landmarks of all scans in their worlds, RAS mm.
struct Clouds {
    worlds: Vec<Vec<Option<[f64; 3]>>>,
    /// Root mean square distance of each scan to the others as it is.
    fits: Vec<Option<f64>>,
    /// Distances of single landmarks, over all scans: their median.
    usual: f64,
}

impl Clouds {
    fn new(scans: &[Arc<Scan>]) -> Self {
        let world = |scan: &Arc<Scan>| {
            let affine = &scan.geometry.affine;
            let places = scan.landmarks.iter();
            places.map(|p| p.map(|p| affine.to_world(p))).collect()
        };
        let mut clouds = Self {
            worlds: scans.iter().map(world).collect(),
            fits: Vec::new(),
            usual: 0.0,
        };
        let numbers = 0..clouds.worlds.len();
        clouds.fits = numbers
            .clone()
            .map(|n| clouds.fit(n, Turn::NONE).map(|f| f.0))
            .collect();
        let distances: Vec<f64> = numbers
            .flat_map(|n| clouds.distances(n))
            .map(|d| d.1)
            .collect();
        clouds.usual = median(distances).unwrap_or(0.0);
        clouds
    }

    /// This scan's landmarks and where the others have them, about the middle
    /// of each; `None` where too few are known.
    fn pairs(&self, number: usize) -> Option<Vec<Placed>> {
        let own = &self.worlds[number];
        let shared: Vec<usize> = (0..own.len())
            .filter(|&l| own[l].is_some() && self.others(number, l).count() >= OTHERS)
            .collect();
        if shared.len() < CLOUD {
            return None;
        }
        // Each other scan about its own middle first: heads lie anywhere.
        let mut columns: Vec<[Vec<f64>; 3]> = vec![Default::default(); shared.len()];
        for other in (0..self.worlds.len()).filter(|&o| o != number) {
            let places: Vec<Option<[f64; 3]>> = shared
                .iter()
                .map(|&l| self.worlds[other].get(l).copied().flatten())
                .collect();
            if places.iter().any(Option::is_none) {
                continue;
            }
            let places: Vec<[f64; 3]> = places.into_iter().flatten().collect();
            for (column, p) in columns.iter_mut().zip(about_middle(&places)) {
                for (values, v) in column.iter_mut().zip(p) {
                    values.push(v);
                }
            }
        }
        if columns[0][0].len() < OTHERS {
            return None;
        }
        let reference: Vec<[f64; 3]> = columns
            .iter_mut()
            .map(|column| {
                std::array::from_fn(|i| median(std::mem::take(&mut column[i])).unwrap_or(0.0))
            })
            .collect();
        let places: Vec<[f64; 3]> = shared.iter().filter_map(|&l| own[l]).collect();
        let both = about_middle(&places)
            .into_iter()
            .zip(about_middle(&reference));
        let placed = shared.into_iter().zip(both);
        let placed = placed.map(|(landmark, (own, others))| Placed {
            landmark,
            own,
            others,
        });
        Some(placed.collect())
    }

    fn others(&self, number: usize, landmark: usize) -> impl Iterator<Item = [f64; 3]> {
        let others = self
            .worlds
            .iter()
            .enumerate()
            .filter(move |(n, _)| *n != number);
        others.filter_map(move |(_, w)| w.get(landmark).copied().flatten())
    }

    /// Root mean square distance to the others when turned, and the cloud's size.
    fn fit(&self, number: usize, turn: Turn) -> Option<(f64, f64)> {
        let pairs = self.pairs(number)?;
        #[expect(clippy::cast_precision_loss, reason = "few landmarks")]
        let count = pairs.len() as f64;
        let square = |a: [f64; 3], b: [f64; 3]| (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>();
        let apart = pairs.iter().map(|p| square(turn.apply(p.own), p.others));
        let apart: f64 = apart.sum();
        let size: f64 = pairs.iter().map(|p| square(p.others, [0.0; 3])).sum();
        Some(((apart / count).sqrt(), (size / count).sqrt()))
    }

    /// Distance of each landmark to where the others have it. The clouds are laid
    /// over each other by the median shift, which one stray landmark does not move.
    fn distances(&self, number: usize) -> Vec<(usize, f64)> {
        let Some(pairs) = self.pairs(number) else {
            return Vec::new();
        };
        let shift: [f64; 3] = std::array::from_fn(|i| {
            let all: Vec<f64> = pairs.iter().map(|p| p.own[i] - p.others[i]).collect();
            median(all).unwrap_or(0.0)
        });
        let distance = |p: &Placed| {
            let square = |i: usize| (p.own[i] - p.others[i] - shift[i]).powi(2);
            (0..3).map(square).sum::<f64>().sqrt()
        };
        pairs.iter().map(|p| (p.landmark, distance(p))).collect()
    }

    fn doubts(&self, number: usize, names: &[String]) -> Vec<DoubtKind> {
        let Some((as_it_is_mm, size)) = self.fit(number, Turn::NONE) else {
            return Vec::new();
        };
        let others = self.fits.iter().enumerate().filter(|(n, _)| *n != number);
        let others: Vec<f64> = others.filter_map(|(_, fit)| *fit).collect();
        let usual = median(others).unwrap_or(0.0);
        if as_it_is_mm > WORSE * usual {
            let turned = Turn::all().filter_map(|turn| Some((turn, self.fit(number, turn)?.0)));
            let best = turned.min_by(|a, b| a.1.total_cmp(&b.1));
            if let Some((like, turned_mm)) = best.filter(|b| b.1 < BETTER * as_it_is_mm) {
                return vec![DoubtKind::Turned {
                    like,
                    as_it_is_mm,
                    turned_mm,
                }];
            }
        }
        let far = |d: &f64| *d > FAR * self.usual && *d > FAR_SHARE * size;
        let distances = self.distances(number).into_iter();
        distances
            .filter(|(_, d)| far(d))
            .map(|(landmark, distance_mm)| DoubtKind::Far {
                landmark: names.get(landmark).cloned().unwrap_or_default(),
                distance_mm,
                usual_mm: self.usual,
            })
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "few landmarks")]
fn about_middle(points: &[[f64; 3]]) -> Vec<[f64; 3]> {
    let count = points.len().max(1) as f64;
    let middle: [f64; 3] =
        std::array::from_fn(|i| points.iter().map(|p| p[i]).sum::<f64>() / count);
    let moved = points
        .iter()
        .map(|p| std::array::from_fn(|i| p[i] - middle[i]));
    moved.collect()
}

/// `None` of nothing.
fn median(values: Vec<f64>) -> Option<f64> {
    (!values.is_empty()).then(|| consensus::median(values))
}

#[cfg(test)]
#[path = "doubt_tests.rs"]
mod tests;
