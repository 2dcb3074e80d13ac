//! Tests of `resample`.

use proptest::prelude::*;

use super::*;
use crate::imaging::geometry::AxisMap;
use crate::imaging::orientation::{mapped_affine, mapped_dims, nearest_ras, reorder};

fn image(dims: [usize; 3], affine: Affine, value: impl Fn([f64; 3]) -> f64) -> Image {
    let mut values = Vec::new();
    for z in 0..dims[2] {
        for y in 0..dims[1] {
            for x in 0..dims[0] {
                values.push(value([x, y, z].map(|v| v as f64)) as f32);
            }
        }
    }
    Image::new(dims, Samples::F32(values), affine).unwrap()
}

fn straight(spacing: [f64; 3]) -> Affine {
    Affine::diagonal(spacing, [-3.0, 5.0, 1.0])
}

fn floats(image: &Image) -> &[f32] {
    match image.samples() {
        Samples::F32(values) => values,
        Samples::U8(_) => panic!("resampled images hold floats"),
    }
}

fn go(image: Image, mm: f64) -> Resampled {
    resample(image, mm, &Limits::default(), Path::new("x.nii")).unwrap()
}

/// Linear in the world: trilinear interpolation must give it back exactly.
#[test]
fn resampling_keeps_a_linear_field() {
    let (sin, cos) = 0.3_f64.sin_cos();
    let oblique = Affine {
        rows: [
            [-0.5 * cos, 0.0, 3.0 * sin, 4.0],
            [0.0, 1.5, 0.0, -3.0],
            [0.5 * sin, 0.0, 3.0 * cos, 9.0],
        ],
    };
    let field = |p: [f64; 3]| 2.0 * p[0] - 3.0 * p[1] + 0.5 * p[2] + 100.0;
    for mm in [0.7, 1.0, 1.4] {
        let file = image([24, 9, 6], oblique, |v| field(oblique.to_world(v)));
        let made = go(file, mm);
        let spacing = made.image.spacing_mm();
        let off = spacing.map(|s| (s - mm).abs());
        assert!(off.iter().all(|off| *off < 1e-12), "{spacing:?}");
        let [nx, ny, nz] = made.image.dims();
        let expected = [12.0, 13.5, 18.0].map(|l: f64| (l / mm).round() as usize);
        assert_eq!([nx, ny, nz], expected);
        let mut inner = 0;
        for z in 0..nz {
            for y in 0..ny {
                for x in 0..nx {
                    let ours = [x, y, z].map(|v| v as f64);
                    let file =
                        [0, 1, 2].map(|i| made.pitch[i].first + made.pitch[i].step * ours[i]);
                    let (a, b) = (made.image.affine().to_world(ours), oblique.to_world(file));
                    assert!((0..3).all(|i| (a[i] - b[i]).abs() < 1e-9), "{a:?} {b:?}");
                    if (0..3).all(|i| file[i] >= 0.0 && file[i] <= [23.0, 8.0, 5.0][i]) {
                        let found = f64::from(floats(&made.image)[x + nx * (y + ny * z)]);
                        assert!((found - field(a)).abs() < 1e-3, "{found} at {a:?}");
                        inner += 1;
                    }
                }
            }
        }
        assert!(inner > nx * ny * nz / 2);
    }
}

// import numpy as np
// v = ((np.arange(24)*7) % 23).reshape((2,3,4), order="F").astype(float)      # spacing 3, 2, 1
// for axis, (n, m, s) in enumerate(((2,6,3), (3,6,2), (4,4,1))):
//     f = np.clip((n-1)/2 + (np.arange(m) - (m-1)/2)/s, 0, n-1)
//     v = np.apply_along_axis(lambda r: np.interp(f, np.arange(n), r), axis, v)
// print(np.round(v.ravel(order="F")[[0, 1, 2, 3, 17, 35, 64, 100, 143]], 6).tolist(), v.sum())
#[test]
fn values_equal_numpys() {
    let values: Vec<u8> = (0..24).map(|i| i * 7 % 23).collect();
    let file = Image::new([2, 3, 4], Samples::U8(values), straight([3.0, 2.0, 1.0])).unwrap();
    let made = go(file, 1.0);
    assert_eq!(made.image.dims(), [6, 6, 4]);
    let found = [0, 1, 2, 3, 17, 35, 64, 100, 143].map(|i| floats(&made.image)[i]);
    for (found, expected) in found.iter().zip(NUMPY) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
    let sum: f64 = floats(&made.image).iter().map(|&v| f64::from(v)).sum();
    assert!((sum - NUMPY_SUM).abs() < 1e-3, "{sum}");
}

const NUMPY: [f32; 9] = [0.0, 0.0, 2.333333, 4.666667, 17.5, 12.0, 10.25, 6.25, 0.0];
const NUMPY_SUM: f64 = 1518.0;

#[test]
fn a_scan_of_that_spacing_is_unchanged() {
    let file = image([4, 5, 6], straight([1.0, 1.0005, 0.9995]), |v| v[0]);
    let made = go(file.clone(), 1.0);
    assert_eq!((made.image, made.pitch), (file, [Pitch::SAME; 3]));
}

#[test]
fn a_spacing_too_fine_names_the_key() {
    let file = image([20, 5, 6], straight([1.0; 3]), |v| v[0]);
    for mm in [1e-4, 1e-30, f64::MIN_POSITIVE] {
        let error = resample(file.clone(), mm, &Limits::default(), Path::new("x.nii"));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("'x.nii'"), "{text}");
        assert!(text.contains("data.resample_mm"), "{text}");
    }
    let limits = Limits {
        max_voxels: 4799,
        ..Limits::default()
    };
    let error = resample(file.clone(), 0.5, &limits, Path::new("x.nii")).unwrap_err();
    assert_eq!(error.dims, [40, 10, 12]);
    let one = go(file, 1e9);
    assert_eq!(one.image.dims(), [1, 1, 1]);
    assert_eq!(floats(&one.image), [9.5]);
}

#[test]
fn large_values_stay_finite() {
    let file = image([2, 2, 2], straight([1.0; 3]), |v| {
        f64::from(f32::MAX) * if v[0] > 0.0 { 1.0 } else { -1.0 }
    });
    let made = go(file, 0.3);
    assert!(floats(&made.image).iter().all(|v| v.is_finite()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Stored mirrored and turned, a scan gives the same volume on our axes.
    #[test]
    fn orientation_and_resampling_commute(
        dims in prop::array::uniform3(1_usize..9), spacing in prop::array::uniform3(0.4_f64..3.0),
        mm in 0.5_f64..2.0, signs in 0_u8..8, seed in any::<u32>(),
    ) {
        let value = |v: [f64; 3]| ((v[0] * 7.0 + v[1] * 31.0 + v[2] * 101.0 + f64::from(seed % 97)) % 53.0).floor();
        let plain = image(dims, straight(spacing), value);
        // The same scan with some axes stored from the other end.
        let flip = [0, 1, 2].map(|i| signs >> i & 1 == 1);
        let other = |v: [f64; 3]| [0, 1, 2].map(|i| if flip[i] { dims[i] as f64 - 1.0 - v[i] } else { v[i] });
        let mut affine = straight(spacing);
        for i in 0..3 {
            if flip[i] {
                affine.rows[i][3] += affine.rows[i][i] * (dims[i] as f64 - 1.0);
                affine.rows[i][i] = -affine.rows[i][i];
            }
        }
        let mirrored = image(dims, affine, |v| value(other(v)));
        let volume = |image: Image| {
            let image = go(image, mm).image;
            let map: AxisMap = nearest_ras(image.affine(), image.dims());
            let values = match image.samples() {
                Samples::F32(values) => reorder(values, &map, |v| v),
                Samples::U8(values) => reorder(values, &map, f32::from),
            };
            (mapped_dims(&map), mapped_affine(image.affine(), &map), values)
        };
        let (a, b) = (volume(plain), volume(mirrored));
        prop_assert_eq!(a.0, b.0);
        for (x, y) in a.1.rows.iter().flatten().zip(b.1.rows.iter().flatten()) {
            prop_assert!((x - y).abs() < 1e-9);
        }
        for (x, y) in a.2.iter().zip(&b.2) {
            prop_assert!((x - y).abs() < 1e-3, "{} {}", x, y);
        }
    }
}
