//! Intensity normalisation for the networks: clipped at the 10th and 99th
//! percentile of the whole volume and stretched to 0..=255, after rl-medical's
//! `dataReader.py`. Where both percentiles are in the background, because most of the scan is
//! empty, the window spans the other voxels, too, so that they stay visible.

use serde::{Deserialize, Serialize};

use crate::imaging::geometry::{AxisMap, Geometry};
use crate::imaging::nifti_io::{Image, Samples};
use crate::imaging::orientation::{mapped_affine, mapped_dims, nearest_ras, reorder};
use crate::imaging::scan::ScanWarning;
use crate::imaging::volume::Volume;

/// Incremented whenever this module, [`crate::imaging::orientation`] or
/// [`crate::imaging::nifti_io`] make other voxels, another place in the world or other warnings
/// of the same file, so that caches do not return outdated ones.
pub const PREPROCESS_VERSION: u32 = 3;

/// The usual window is background where the 99.9th percentile lies beyond this many of its
/// widths. In scans whose objects fill more than a hundredth, it lies within a few.
const BEYOND: f64 = 20.0;

/// The kind of volume that a run trains on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeChoice {
    /// Bytes on the nearest RAS axes.
    #[default]
    CanonicalU8,
    /// Floats without rounding on the file's own axes, as in rl-medical.
    ReferenceF32,
}

/// A volume made of an image.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub volume: Volume,
    /// Where its voxels lie.
    pub geometry: Geometry,
    /// About the intensities; [`Image::warnings`] are the file's.
    pub warning: Option<ScanWarning>,
}

/// Clips and stretches an image and puts it into our voxel order.
///
/// A constant image becomes all zeros, with a warning.
#[must_use]
pub fn preprocess(image: &Image, choice: VolumeChoice) -> Prepared {
    let axis_map = match choice {
        VolumeChoice::CanonicalU8 => nearest_ras(image.affine(), image.dims()),
        VolumeChoice::ReferenceF32 => AxisMap::identity(image.dims()),
    };
    let dims = mapped_dims(&axis_map);
    let file_spacing = image.spacing_mm();
    let geometry = Geometry {
        dims,
        spacing_mm: axis_map.axes.map(|(axis, _)| file_spacing[axis]),
        affine: mapped_affine(image.affine(), &axis_map),
        axis_map,
    };
    let (stretch, warning) = Stretch::new(image.samples());
    let volume = match choice {
        VolumeChoice::CanonicalU8 => {
            let voxels = convert(image.samples(), &axis_map, |v| stretch.of(v).round() as u8);
            Volume::from_u8(dims, voxels)
        }
        VolumeChoice::ReferenceF32 => {
            let voxels = convert(image.samples(), &axis_map, |v| stretch.of(v) as f32);
            Volume::from_f32(dims, voxels)
        }
    };
    Prepared {
        volume: volume.expect("reordering keeps the number of voxels"),
        geometry,
        warning,
    }
}

fn convert<U: Copy + Default + Send + Sync>(
    samples: &Samples,
    map: &AxisMap,
    each: impl Fn(f64) -> U + Sync,
) -> Vec<U> {
    match samples {
        Samples::U8(values) => {
            let table: Vec<U> = (0..=u8::MAX).map(|v| each(f64::from(v))).collect();
            reorder(values, map, |v| table[usize::from(v)])
        }
        Samples::F32(values) => reorder(values, map, |v| each(f64::from(v))),
    }
}

/// The linear map from the clipped range to 0..=255.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    low: f64,
    high: f64,
    scale: f64,
}

impl Stretch {
    fn new(samples: &Samples) -> (Self, Option<ScanWarning>) {
        // Clipping makes the percentiles the new minimum and maximum.
        let [mut low, mut high, top] = percentiles(samples, [10.0, 99.0, 99.9]);
        let mut warning = None;
        if high <= low || top - low > BEYOND * (high - low) {
            let background = [low, high];
            let (window, others) = window_beside(samples, background);
            warning = Some(match others {
                0 => ScanWarning::Constant { value: low },
                others => ScanWarning::Sparse {
                    background,
                    others,
                    window,
                },
            });
            [low, high] = window;
        }
        let scale = if high > low {
            255.0 / (high - low)
        } else {
            0.0
        };
        (Self { low, high, scale }, warning)
    }

    /// A value in 0..=255.
    fn of(&self, value: f64) -> f64 {
        (value.clamp(self.low, self.high) - self.low) * self.scale
    }
}

/// A window for voxels of which most are background, and the number of the others: up to the
/// 99th percentile of those above the background. Where that is one value, those below it count,
/// too, from their 1st percentile; else the window begins with it, as usual.
fn window_beside(samples: &Samples, [low, high]: [f64; 2]) -> ([f64; 2], u64) {
    let above = only(samples, |v| v > high);
    let below = only(samples, |v| v < low && low == high);
    let edge = |values: &Samples, percent: f64, else_: f64| match values.is_empty() {
        true => else_,
        false => percentiles(values, [percent])[0],
    };
    let window = [edge(&below, 1.0, low), edge(&above, 99.0, high)];
    (window, (below.len() + above.len()) as u64)
}

/// The voxels with such values.
fn only(samples: &Samples, keep: impl Fn(f64) -> bool) -> Samples {
    match samples {
        Samples::U8(values) => {
            let values = values.iter().copied();
            Samples::U8(values.filter(|&v| keep(v.into())).collect())
        }
        Samples::F32(values) => {
            let values = values.iter().copied();
            Samples::F32(values.filter(|&v| keep(v.into())).collect())
        }
    }
}

/// `numpy.percentile(values, percents)` with linear interpolation, in f64.
///
/// Order statistics are counted, not sorted, which avoids a copy of the voxels.
/// Zeros without voxels.
#[must_use]
pub fn percentiles<const N: usize>(samples: &Samples, percents: [f64; N]) -> [f64; N] {
    let Some(last) = samples.len().checked_sub(1) else {
        return [0.0; N];
    };
    percents.map(|percent| {
        let place = last as f64 * (percent / 100.0).clamp(0.0, 1.0);
        let lower = place.floor() as usize;
        let [a, b] = ranked(samples, [lower, (lower + 1).min(last)]);
        let t = place - place.floor();
        // numpy's _lerp, which is exact at both ends.
        if t >= 0.5 {
            b - (b - a) * (1.0 - t)
        } else {
            a + (b - a) * t
        }
    })
}

/// The values at two ranks of the sorted voxels.
fn ranked(samples: &Samples, ranks: [usize; 2]) -> [f64; 2] {
    match samples {
        Samples::U8(values) => {
            let mut counts = vec![0; 256];
            values.iter().for_each(|&v| counts[usize::from(v)] += 1);
            ranks.map(|rank| bin(&counts, rank).0 as f64)
        }
        Samples::F32(values) => ranked_f32(values, ranks),
    }
}

/// Two passes of counting, by the upper and the lower 16 bits of a sortable key.
fn ranked_f32(values: &[f32], ranks: [usize; 2]) -> [f64; 2] {
    let mut upper = vec![0; 1 << 16];
    for &v in values {
        upper[(key(v) >> 16) as usize] += 1;
    }
    let lower_of = |prefix: usize| {
        let mut counts = vec![0; 1 << 16];
        let keys = values.iter().map(|&v| key(v));
        for key in keys.filter(|&k| (k >> 16) as usize == prefix) {
            counts[(key & 0xffff) as usize] += 1;
        }
        counts
    };
    let places = ranks.map(|rank| bin(&upper, rank));
    let first = lower_of(places[0].0);
    let second = match places[1].0 {
        prefix if prefix == places[0].0 => first.clone(),
        prefix => lower_of(prefix),
    };
    let value = |(prefix, rest): (usize, usize), lower: &[usize]| {
        let key = ((prefix << 16) | bin(lower, rest).0) as u32;
        f64::from(from_key(key))
    };
    [value(places[0], &first), value(places[1], &second)]
}

/// The bin that contains a rank, and the rank within it.
fn bin(counts: &[usize], mut rank: usize) -> (usize, usize) {
    for (index, &count) in counts.iter().enumerate() {
        if rank < count {
            return (index, rank);
        }
        rank -= count;
    }
    (counts.len() - 1, 0)
}

/// Bits whose unsigned order equals the order of the floats.
fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 {
        bits | 1 << 31
    } else {
        !bits
    }
}

fn from_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 {
        key & !(1 << 31)
    } else {
        !key
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::geometry::Affine;

    const EYE: Affine = Affine::diagonal([1.0; 3], [0.0; 3]);

    /// ((i·7919 + 13) mod 1009)² mod 997 − 300, as in the scripts below.
    fn ramp(n: u64) -> Vec<f32> {
        (0..n)
            .map(|i| (((i * 7919 + 13) % 1009).pow(2) % 997) as f32 - 300.0)
            .collect()
    }

    // import numpy as np
    // def ramp(n): return ((np.arange(n)*7919+13) % 1009)**2 % 997 - 300.0
    // for n in (1, 2, 7, 60, 1000, 4097):
    //     print(n, [repr(float(v)) for v in np.percentile(ramp(n), [10, 99])])
    #[test]
    fn percentiles_equal_numpys() {
        for (n, expected) in NUMPY_PERCENTILES {
            let found = percentiles(&Samples::F32(ramp(n)), [10.0, 99.0]);
            assert_eq!(found, expected, "{n} values");
        }
        // np.percentile((np.arange(1000)**2 % 251).astype(np.uint8), [0, 10, 50, 99, 100])
        let bytes = (0..1000_u32)
            .map(|i| u8::try_from(i * i % 251).unwrap())
            .collect();
        let found = percentiles(&Samples::U8(bytes), [0.0, 10.0, 50.0, 99.0, 100.0]);
        assert_eq!(found, NUMPY_BYTES);
    }

    const NUMPY_PERCENTILES: [(u64, [f64; 2]); 6] = [
        (1, [-131.0, -131.0]),
        (2, [-104.7, 129.37]),
        (7, [-113.6, 615.56]),
        (60, [-166.79999999999998, 651.1599999999997]),
        (1000, [-215.2, 685.02]),
        (4097, [-215.79999999999995, 685.0799999999999]),
    ];
    const NUMPY_BYTES: [f64; 5] = [0.0, 21.0, 113.0, 245.0, 249.0];

    // a = ramp(60).reshape((3, 4, 5), order="F"); lo, hi = np.percentile(a, [10, 99])
    // s = (np.clip(a, lo, hi) - lo) * (255 / (hi - lo))
    // print(np.floor(s + 0.5).astype(int).ravel().tolist())              # u8, C order = z fastest
    // print([float(np.float32(v)) for v in s.ravel()[:4]])
    #[test]
    fn volumes_equal_numpys() {
        let image = Image::new([3, 4, 5], Samples::F32(ramp(60)), EYE).unwrap();
        let ours = preprocess(&image, VolumeChoice::CanonicalU8);
        assert_eq!(ours.volume.as_u8().unwrap(), STRETCHED);
        assert_eq!(ours.geometry.axis_map, AxisMap::identity([3, 4, 5]));
        assert_eq!(ours.warning, None);
        let floats = preprocess(&image, VolumeChoice::ReferenceF32);
        let first = [0, 1, 2, 3].map(|z| floats.volume.at([0, 0, z]));
        assert_eq!(first, FLOATS);
    }

    const STRETCHED: [u8; 60] = [
        11, 2, 131, 89, 186, 245, 175, 243, 0, 196, 222, 0, 171, 198, 54, 0, 255, 0, 142, 129, 93,
        198, 60, 62, 202, 147, 120, 232, 172, 173, 74, 189, 121, 192, 92, 194, 236, 107, 98, 128,
        20, 217, 0, 21, 205, 35, 52, 208, 191, 3, 23, 0, 59, 174, 117, 104, 190, 104, 158, 115,
    ];
    const FLOATS: [f32; 4] = [11.160692, 1.8081568, 131.49664, 89.41024];

    #[test]
    fn reference_stays_on_file_axes_and_ours_turns_to_ras() {
        let affine = Affine {
            rows: [
                [0.0, 0.0, -2.0, 5.0],
                [1.0, 0.0, 0.0, 0.0],
                [0.0, 3.0, 0.0, 0.0],
            ],
        };
        let image = Image::new([3, 4, 5], Samples::F32(ramp(60)), affine).unwrap();
        let [(raw, raw_geometry), (ours, geometry)] =
            [VolumeChoice::ReferenceF32, VolumeChoice::CanonicalU8].map(|choice| {
                let made = preprocess(&image, choice);
                (made.volume, made.geometry)
            });
        assert_eq!((raw_geometry.dims, geometry.dims), ([3, 4, 5], [5, 3, 4]));
        assert_eq!(raw_geometry.spacing_mm, [1.0, 3.0, 2.0]);
        assert_eq!(geometry.spacing_mm, [2.0, 1.0, 3.0]);
        // File voxel (1, 2, 3) is ours (4 - 3, 1, 2).
        let ours_of = geometry.axis_map.from_file([1.0, 2.0, 3.0]);
        assert_eq!(ours_of, [1.0, 1.0, 2.0]);
        assert!((ours.at([1, 1, 2]) - raw.at([1, 2, 3])).abs() <= 0.5);
        let world = affine.to_world([1.0, 2.0, 3.0]);
        assert_eq!(geometry.affine.to_world(ours_of), world);
    }

    #[test]
    fn constant_scans_become_zeros_with_a_warning() {
        let cases = [
            (Samples::U8(vec![7; 8]), 7.0),
            (Samples::F32(vec![-3.5; 8]), -3.5),
        ];
        for (samples, value) in cases {
            let image = Image::new([2, 2, 2], samples, EYE).unwrap();
            let bytes = preprocess(&image, VolumeChoice::CanonicalU8);
            assert_eq!(bytes.volume.as_u8().unwrap(), [0; 8]);
            let floats = preprocess(&image, VolumeChoice::ReferenceF32);
            assert_eq!(floats.volume.at([1, 1, 1]), 0.0);
            for warning in [bytes.warning, floats.warning] {
                assert_eq!(warning, Some(ScanWarning::Constant { value }));
            }
        }
    }

    /// A scan of 20³ voxels whose last ones have these values, as bytes and as floats, with its
    /// volume's last values and its warning.
    fn sparse(background: u8, last: &[u8]) -> [(Vec<f32>, Option<ScanWarning>); 2] {
        let mut values = vec![background; 8000 - last.len()];
        values.extend_from_slice(last);
        let floats = values.iter().map(|&v| f32::from(v)).collect();
        [Samples::U8(values), Samples::F32(floats)].map(|samples| {
            let image = Image::new([20; 3], samples, EYE).unwrap();
            let made = preprocess(&image, VolumeChoice::CanonicalU8);
            let floats = preprocess(&image, VolumeChoice::ReferenceF32);
            let shown = (8000 - last.len() - 1)..8000;
            let shown = shown.map(|i| [i % 20, i / 20 % 20, i / 400].map(|v| v as i32));
            let shown: Vec<f32> = shown.map(|p| made.volume.at(p)).collect();
            assert!((floats.volume.at([19; 3]) - shown[last.len()]).abs() <= 0.5);
            assert_eq!(made.warning, floats.warning);
            (shown, made.warning)
        })
    }

    // import numpy as np
    // for v in ([200], [40, 80, 120, 160, 200], [10, 20, 150]):
    //     v = np.array(v, float); low = np.percentile(v[v < 30], 1) if (v < 30).any() else 30
    //     high = np.percentile(v[v > 30], 99) if (v > 30).any() else 30
    //     print(low, high, np.floor((np.clip([30, *v], low, high) - low) * (255 / (high - low)) + 0.5))
    #[test]
    fn a_sparse_scan_keeps_its_object() {
        let cases: [(&[u8], [f64; 2], &[f32]); 3] = [
            (&[200], [30.0, 200.0], &[0.0, 255.0]),
            (
                &[40, 80, 120, 160, 200],
                [30.0, 198.4],
                &[0.0, 15.0, 76.0, 136.0, 197.0, 255.0],
            ),
            (&[10, 20, 150], [10.1, 150.0], &[36.0, 0.0, 18.0, 255.0]),
        ];
        for (last, [low, high], expected) in cases {
            for (shown, warning) in sparse(30, last) {
                assert_eq!(shown, expected);
                let Some(ScanWarning::Sparse {
                    background,
                    others,
                    window,
                }) = warning
                else {
                    panic!("{warning:?}");
                };
                assert_eq!((background, others), ([30.0; 2], last.len() as u64));
                assert!((window[0] - low).abs() < 1e-9, "{window:?}");
                assert!((window[1] - high).abs() < 1e-9, "{window:?}");
            }
        }
        // Dark in bright, and one voxel that is far brighter than all others.
        let [(shown, _), _] = sparse(200, &[0, 100]);
        assert_eq!((shown[0], shown[1]), (255.0, 0.0));
        let mut last = vec![60; 78];
        last.extend([255, 50]);
        let [(shown, _), _] = sparse(0, &last);
        assert!(shown[1] > 70.0 && shown[80] > 60.0, "{shown:?}");
    }

    /// Noise in the background must not take the window from the object.
    // import numpy as np
    // i = np.arange(8000); v = (i * 7919 % 5).astype(float); v[:40] = 1000 + 10 * i[:40]
    // low, high = np.percentile(v, 10), np.percentile(v[v > np.percentile(v, 99)], 99)
    // print(low, high, np.floor((np.clip(v[[0, 39, 40, 41]], low, high) - low) * 255 / (high - low) + 0.5))
    #[test]
    fn a_sparse_scan_with_noise_keeps_its_object() {
        let values = (0..8000_u16).map(|i| match i {
            0..40 => f32::from(1000 + 10 * i),
            _ => f32::from(u8::try_from(u32::from(i) * 7919 % 5).unwrap()),
        });
        let image = Image::new([20; 3], Samples::F32(values.collect()), EYE).unwrap();
        let made = preprocess(&image, VolumeChoice::CanonicalU8);
        let found = [[0, 0, 0], [19, 1, 0], [0, 2, 0], [1, 2, 0]].map(|p| made.volume.at(p));
        assert_eq!(found, [184.0, 255.0, 0.0, 1.0]);
        let window = [0.0, 1386.1];
        let Some(ScanWarning::Sparse {
            background,
            others: 40,
            window: used,
        }) = made.warning
        else {
            panic!("{:?}", made.warning);
        };
        assert_eq!(background, [0.0, 4.0]);
        assert!(
            (0..2).all(|i| (used[i] - window[i]).abs() < 1e-9),
            "{used:?}"
        );
    }

    #[test]
    fn the_usual_window_stays_where_it_holds_more_than_one_value() {
        // 100 of 8000 voxels: the 99th percentile is one of them.
        for (shown, warning) in sparse(30, &[200; 100]) {
            assert_eq!((shown[0], shown[1]), (0.0, 255.0));
            assert_eq!(warning, None);
        }
    }

    #[test]
    fn choices_have_their_names_in_config() {
        let text = serde_json::to_string(&VolumeChoice::ReferenceF32).unwrap();
        assert_eq!(text, "\"reference_f32\"");
        let choice: VolumeChoice = serde_json::from_str("\"canonical_u8\"").unwrap();
        assert_eq!(choice, VolumeChoice::CanonicalU8);
    }

    proptest! {
        #[test]
        fn percentiles_equal_sorting(
            values in prop::collection::vec(-1e30_f32..1e30, 1..300), percent in 0.0_f64..100.0,
        ) {
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            let [found] = percentiles(&Samples::F32(values), [percent]);
            let place = (sorted.len() - 1) as f64 * (percent / 100.0);
            let (a, b) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            prop_assert!(f64::from(a) <= found && found <= f64::from(b));
        }
    }
}
