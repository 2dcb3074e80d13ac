//! Warnings about likely mistakes: landmarks in the background, clouds that fit
//! the other scans' only when mirrored or with axes swapped, single landmarks far
//! from where the other scans have them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::source::SharedSubject;
use crate::imaging::orientation::ORDERS;
use crate::imaging::scan::{Scan, ScanWarning};
use crate::imaging::volume::Volume;
use crate::report::consensus;

/// A landmark is in the background when the mean of its neighbourhood is below this
/// fraction of the threshold between dark and bright voxels (Otsu 1979): fluids
/// are darker than tissue, but not as dark as air.
const DARK: f64 = 0.3;
/// Half the side of the neighbourhood, voxels.
const AROUND: i32 = 2;
/// Minimum number of landmarks for comparing a cloud's shape.
const CLOUD: usize = 3;
/// Minimum number of other scans that have a landmark.
const OTHERS: usize = 3;
/// A turned cloud must fit better than the original by the first factor, and the
/// original worse than those of the other scans by the second.
const BETTER: f64 = 0.5;
const WORSE: f64 = 1.5;
/// A landmark is far off beyond this multiple of the usual distance and this
/// fraction of the cloud's size.
const FAR: f64 = 4.5;
const FAR_SHARE: f64 = 0.15;

/// A likely mistake in the data of a scan.
#[derive(Debug, Clone, PartialEq)]
pub struct DataWarning {
    /// The scan file, or its landmark file.
    pub scan: PathBuf,
    pub kind: WarningKind,
}

/// The kind of mistake.
#[derive(Debug, Clone, PartialEq)]
pub enum WarningKind {
    /// A property of the scan file.
    Scan(ScanWarning),
    /// A property of its landmark file: a sentence.
    Landmarks(String),
    /// Its subject has scans in another split or fold too.
    SharedSubject {
        subject: String,
        /// What this scan is for: `split test`.
        purpose: String,
        other: PathBuf,
        other_purpose: String,
    },
    /// A landmark where the scan is dark.
    Background {
        landmark: String,
        /// Where it is, voxels of the preprocessed volume.
        voxel: [f64; 3],
    },
    /// All landmarks together fit the other scans' when turned.
    Turned {
        /// This scan's world axes (R, A, S), with sign, that match the others'.
        like: Turn,
        /// Root mean square distance to the others' landmarks as they are, mm.
        as_it_is_mm: f64,
        /// The same when turned.
        turned_mm: f64,
    },
    /// One landmark far from where the other scans have it.
    Far {
        landmark: String,
        /// Distance after aligning the clouds, mm.
        distance_mm: f64,
        /// The usual distance, mm.
        usual_mm: f64,
    },
}

impl fmt::Display for DataWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}': ", self.scan.display())?;
        match &self.kind {
            WarningKind::Scan(warning) => warning.fmt(f),
            WarningKind::Landmarks(text) => f.write_str(text),
            WarningKind::SharedSubject {
                subject,
                purpose,
                other,
                other_purpose,
            } => write!(
                f,
                "subject '{subject}' is in {purpose}, and with '{}' in {other_purpose}: errors come \
                 out too small where a subject was trained on; divide by subject, as `landmarl \
                 data split` does",
                other.display()
            ),
            WarningKind::Background { landmark, voxel } => {
                let [x, y, z] = voxel;
                write!(
                    f,
                    "landmark '{landmark}' lies in the background (voxel {x:.0}, {y:.0}, {z:.0}); \
                     check the space and the order of its coordinates"
                )
            }
            WarningKind::Turned {
                like,
                as_it_is_mm,
                turned_mm,
            } => write!(
                f,
                "its landmarks fit the other scans' when {like} ({turned_mm:.1} mm instead of \
                 {as_it_is_mm:.1} mm); check the header's orientation, or whether the file means \
                 LPS or RAS"
            ),
            WarningKind::Far {
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

impl From<SharedSubject> for DataWarning {
    fn from(shared: SharedSubject) -> Self {
        let (other, other_purpose) = shared.first;
        let (scan, purpose) = shared.second;
        Self {
            scan,
            kind: WarningKind::SharedSubject {
                subject: shared.subject.to_string(),
                purpose,
                other,
                other_purpose,
            },
        }
    }
}

/// A permutation of axes with flips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// `axes[i] = (own axis, mirrored)` for each axis i of the others.
    pub axes: [(usize, bool); 3],
}

impl Turn {
    const NONE: Self = Self {
        axes: [(0, false), (1, false), (2, false)],
    };

    /// All 47 except the identity.
    fn all() -> impl Iterator<Item = Self> {
        let turns = ORDERS.into_iter().flat_map(|order| {
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

/// Warnings about the scans of one dataset, scan by scan. `sources` are their
/// files, `names` the names of their landmarks.
pub(super) fn find(scans: &[Arc<Scan>], sources: &[PathBuf], names: &[String]) -> Vec<DataWarning> {
    let clouds = Clouds::new(scans);
    let mut all = Vec::new();
    for (number, (scan, source)) in scans.iter().zip(sources).enumerate() {
        let mut kinds = background(scan, names);
        kinds.extend(clouds.warnings(number, names));
        all.extend(kinds.into_iter().map(|kind| DataWarning {
            scan: source.clone(),
            kind,
        }));
    }
    all
}

fn background(scan: &Scan, names: &[String]) -> Vec<WarningKind> {
    let dark = DARK * otsu(&scan.volume);
    let known = scan.landmarks.iter().zip(names);
    let known = known.filter_map(|(p, name)| Some(((*p)?, name)));
    known
        .filter(|(p, _)| brightness(&scan.volume, *p) < dark)
        .map(|(voxel, name)| WarningKind::Background {
            landmark: name.clone(),
            voxel,
        })
        .collect()
}

/// Mean of the cube around a position.
fn brightness(volume: &Volume, place: [f64; 3]) -> f64 {
    let at = place.map(|v| v.round() as i32);
    let side = || -AROUND..=AROUND;
    let cube = side().flat_map(|x| side().flat_map(move |y| side().map(move |z| [x, y, z])));
    let values = cube.map(|d| f64::from(volume.at(std::array::from_fn(|i| at[i] + d[i]))));
    values.sum::<f64>() / f64::from(2 * AROUND + 1).powi(3)
}

/// Otsu's threshold, which separates dark from bright with the largest variance
/// between the two; 0 for a float volume, which is not checked.
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

/// A landmark relative to the centre of its scan's landmarks, and its position in the
/// other scans relative to the centre of theirs, RAS mm.
struct Placed {
    landmark: usize,
    own: [f64; 3],
    others: [f64; 3],
}

/// Landmarks of all scans in their worlds, RAS mm.
struct Clouds {
    worlds: Vec<Vec<Option<[f64; 3]>>>,
    /// Root mean square distance of each unturned scan to the others.
    fits: Vec<Option<f64>>,
    /// Median distance of single landmarks, over all scans.
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
        let fit = |n| clouds.fit(n, Turn::NONE).map(|fit| fit.0);
        clouds.fits = numbers.clone().map(fit).collect();
        let distances = numbers.flat_map(|n| clouds.distances(n));
        clouds.usual = median(distances.map(|d| d.1).collect()).unwrap_or(0.0);
        clouds
    }

    /// This scan's landmarks and their positions in the others, each relative to its
    /// centre; `None` where too few are known.
    fn pairs(&self, number: usize) -> Option<Vec<Placed>> {
        let own = &self.worlds[number];
        let shared: Vec<usize> = (0..own.len())
            .filter(|&l| own[l].is_some() && self.others(number, l).count() >= OTHERS)
            .collect();
        if shared.len() < CLOUD {
            return None;
        }
        // Centre each other scan first: heads may be anywhere.
        let mut columns: Vec<[Vec<f64>; 3]> = vec![Default::default(); shared.len()];
        for other in (0..self.worlds.len()).filter(|&o| o != number) {
            let place = |&l: &usize| self.worlds[other].get(l).copied().flatten();
            let Some(places) = shared.iter().map(place).collect::<Option<Vec<_>>>() else {
                continue;
            };
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
        let worlds = self.worlds.iter().enumerate();
        let others = worlds.filter(move |(n, _)| *n != number);
        others.filter_map(move |(_, w)| w.get(landmark).copied().flatten())
    }

    /// Root mean square distance to the others when turned, and the cloud's size.
    fn fit(&self, number: usize, turn: Turn) -> Option<(f64, f64)> {
        let pairs = self.pairs(number)?;
        let count = pairs.len() as f64;
        let square = |a: [f64; 3], b: [f64; 3]| (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>();
        let apart = pairs.iter().map(|p| square(turn.apply(p.own), p.others));
        let apart: f64 = apart.sum();
        let size: f64 = pairs.iter().map(|p| square(p.others, [0.0; 3])).sum();
        Some(((apart / count).sqrt(), (size / count).sqrt()))
    }

    /// Distance of each landmark to its position in the others. The clouds are
    /// aligned by the median shift, which is robust to one stray landmark.
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

    fn warnings(&self, number: usize, names: &[String]) -> Vec<WarningKind> {
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
                return vec![WarningKind::Turned {
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
            .map(|(landmark, distance_mm)| WarningKind::Far {
                landmark: names.get(landmark).cloned().unwrap_or_default(),
                distance_mm,
                usual_mm: self.usual,
            })
            .collect()
    }
}

fn about_middle(points: &[[f64; 3]]) -> Vec<[f64; 3]> {
    let count = points.len().max(1) as f64;
    let middle: [f64; 3] =
        std::array::from_fn(|i| points.iter().map(|p| p[i]).sum::<f64>() / count);
    let moved = |p: &[f64; 3]| std::array::from_fn(|i| p[i] - middle[i]);
    points.iter().map(moved).collect()
}

/// Median; `None` without values.
fn median(values: Vec<f64>) -> Option<f64> {
    (!values.is_empty()).then(|| consensus::median(values))
}

#[cfg(test)]
#[path = "warnings_tests.rs"]
mod tests;
