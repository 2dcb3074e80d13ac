//! Tests of `phantom`.

use super::*;

/// Small enough for unoptimised builds.
fn small() -> PhantomSpec {
    PhantomSpec::with_dims([48, 56, 48])
}

fn distance(a: [f64; 3], b: [f64; 3]) -> f64 {
    crate::imaging::geometry::distance_mm(a, b, [1.0; 3])
}

/// Mean intensity within `radius` voxels of a position.
fn ball_mean(volume: &Volume, at: [f64; 3], radius: i32) -> f64 {
    let middle = at.map(|v| v.round() as i32);
    let (mut sum, mut count) = (0.0, 0.0);
    for dx in -radius..=radius {
        for dy in -radius..=radius {
            for dz in -radius..=radius {
                if dx * dx + dy * dy + dz * dz <= radius * radius {
                    sum += f64::from(volume.at([middle[0] + dx, middle[1] + dy, middle[2] + dz]));
                    count += 1.0;
                }
            }
        }
    }
    sum / count
}

#[test]
fn a_seed_gives_one_phantom_for_any_number_of_threads() {
    let [a, b] = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| Phantom::generate(&small(), 5)).unwrap()
    });
    assert!(a == b);
    let other = Phantom::generate(&small(), 6).unwrap();
    assert!(a.voxels != other.voxels && a.landmarks != other.landmarks);
    assert_eq!(Phantom::landmarks_of(&small(), 5).unwrap(), a.landmarks);
}

#[test]
fn landmarks_keep_their_margin_in_every_size() {
    for dims in [[96, 112, 96], [48, 56, 48], [60, 56, 100]] {
        let spec = PhantomSpec {
            rotation_deg: 45.0,
            scaling: 0.25,
            ..PhantomSpec::with_dims(dims)
        };
        let half = centre(dims);
        for seed in 0..200 {
            for landmark in Phantom::landmarks_of(&spec, seed).unwrap() {
                for (value, half) in landmark.ras_mm.into_iter().zip(half) {
                    assert!(
                        value.abs() <= half - LANDMARK_MARGIN_VOXELS + 1e-9,
                        "{dims:?} {seed} {landmark:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_mean_position_baseline_is_wrong_by_more_than_six_voxels() {
    let spec = PhantomSpec {
        spacing_mm: 0.8,
        ..PhantomSpec::default()
    };
    let places = |set, n| -> Vec<Vec<[f64; 3]>> {
        let one = |i| Phantom::landmarks_of(&spec, sub_seed(1, set, i)).unwrap();
        (1..=n)
            .map(|i| one(i).iter().map(|l| l.ras_mm).collect())
            .collect()
    };
    let (train, test) = (places(PhantomSet::Train, 24), places(PhantomSet::Test, 10));
    for (k, name) in LANDMARK_NAMES.iter().enumerate() {
        let mean = std::array::from_fn(|i| train.iter().map(|p| p[k][i]).sum::<f64>() / 24.0);
        let error_mm = test.iter().map(|p| distance(p[k], mean)).sum::<f64>() / 10.0;
        let error_voxels = error_mm / spec.spacing_mm;
        println!("{name}: the baseline is wrong by {error_voxels:.1} voxels");
        let expected = (6.0..18.0).contains(&error_voxels);
        assert!(expected, "{name}: {error_voxels}");
    }
}

#[test]
fn structures_move_against_each_other() {
    let spec = PhantomSpec {
        rotation_deg: 0.0,
        shift_voxels: 0.0,
        scaling: 0.0,
        ..PhantomSpec::default()
    };
    let landmarks = |seed| Phantom::landmarks_of(&spec, seed).unwrap();
    let places: Vec<_> = (0..100).map(landmarks).collect();
    for (k, name) in LANDMARK_NAMES.iter().enumerate() {
        let mean =
            std::array::from_fn(|i| places.iter().map(|p| p[k].ras_mm[i]).sum::<f64>() / 100.0);
        let distances = places.iter().map(|p| distance(p[k].ras_mm, mean));
        let dispersion = distances.sum::<f64>() / 100.0;
        assert!(dispersion > 2.0, "{name}: {dispersion}");
    }
}

#[test]
fn intensities_around_a_landmark_are_as_designed() {
    // Without noise, so that only the anatomy decides; upright, so that directions are known.
    let spec = PhantomSpec {
        noise: 0.0,
        rotation_deg: 0.0,
        ..PhantomSpec::default()
    };
    for seed in 0..4 {
        let phantom = Phantom::generate(&spec, seed).unwrap();
        let (volume, at) = (phantom.to_volume(), phantom.landmark_voxels());
        for bright in [0, 3] {
            let [inner, around] = [1, 4].map(|radius| ball_mean(&volume, at[bright], radius));
            let name = LANDMARK_NAMES[bright];
            assert!(inner > 1.5 * around, "{seed} {name}: {inner} {around}");
        }
        // Landmark, which way its solid lies, and whether the solid is the brighter side.
        let tips = [
            (1, [0.29, -0.92, 0.27], false),
            (2, [-0.29, -0.92, 0.27], false),
            (4, [0.0, 0.25, 0.97], true),
        ];
        for (tip, inwards, bright) in tips {
            let along = |k: f64| std::array::from_fn(|i| at[tip][i] + k * inwards[i]);
            let sides = [2.5, -2.5].map(|k| ball_mean(&volume, along(k), 1));
            let [high, low] = if bright { sides } else { [sides[1], sides[0]] };
            assert!(
                high > 1.6 * low,
                "{seed} {}: {sides:?}",
                LANDMARK_NAMES[tip]
            );
        }
    }
}

/// The intensity-weighted middle of the ball is its landmark: to a fraction of a voxel.
#[test]
fn the_truth_is_exact_to_less_than_a_voxel() {
    let spec = PhantomSpec {
        noise: 0.0,
        ..PhantomSpec::default()
    };
    for seed in 10..14 {
        let phantom = Phantom::generate(&spec, seed).unwrap();
        let (volume, truth) = (phantom.to_volume(), phantom.landmark_voxels()[3]);
        let middle = truth.map(|v| v.round() as i32);
        let peak = f64::from(volume.at(middle));
        let (mut sum, mut weight) = ([0.0; 3], 0.0);
        for i in 0..9 * 9 * 9_i32 {
            let p = [
                middle[0] + i / 81 - 4,
                middle[1] + i / 9 % 9 - 4,
                middle[2] + i % 9 - 4,
            ];
            let near = distance(p.map(f64::from), truth) < 4.0;
            let share = (f64::from(volume.at(p)) / peak - 0.3) / 0.5;
            let w = if near { share.clamp(0.0, 1.0) } else { 0.0 };
            weight += w;
            for axis in 0..3 {
                sum[axis] += w * f64::from(p[axis]);
            }
        }
        let found = sum.map(|s| s / weight);
        assert!(distance(found, truth) < 0.35, "{seed}: {found:?} {truth:?}");
    }
}

#[test]
fn left_and_right_differ() {
    let still = PhantomSpec {
        noise: 0.0,
        rotation_deg: 0.0,
        shift_voxels: 0.0,
        scaling: 0.0,
        jitter_voxels: 0.0,
        ..PhantomSpec::default()
    };
    for seed in 0..4 {
        let phantom = Phantom::generate(&still, seed).unwrap();
        let (volume, at) = (phantom.to_volume(), phantom.landmark_voxels());
        assert!(at[1][0] < at[2][0], "left is the smaller x in RAS");
        // The nodule lies lateral to, behind and above the left horn only.
        let [left, right] = [(1, -7.0), (2, 7.0)].map(|(horn, aside): (usize, f64)| {
            let [x, y, z] = at[horn];
            ball_mean(&volume, [x + aside, y - 8.0, z + 4.0], 2)
        });
        assert!(left > 1.15 * right, "{seed}: {left} {right}");
    }
}

#[test]
fn las_holds_the_same_head_with_x_reversed() {
    let las = PhantomSpec {
        orientations: vec![Orientation::Las],
        ..small()
    };
    let a = Phantom::generate(&small(), 9).unwrap();
    let b = Phantom::generate(&las, 9).unwrap();
    assert_eq!(a.landmarks, b.landmarks);
    assert_eq!(a.to_volume().as_u8(), b.to_volume().as_u8());
    assert_ne!(a.voxels, b.voxels);
    assert!(b.affine.determinant() < 0.0);
    // File voxel 0 is the right-most one.
    assert_eq!(b.affine.to_world([0.0; 3])[0], 23.5);
}

#[test]
fn settings_out_of_range_are_named() {
    type Edit = fn(&mut PhantomSpec);
    let cases: [(Edit, &str); 6] = [
        (|s| s.dims = [40, 56, 48], "dims"),
        (|s| s.orientations.clear(), "orientations"),
        (|s| s.spacing_mm = f64::NAN, "spacing_mm"),
        (|s| s.rotation_deg = 90.0, "rotation_deg"),
        (|s| s.scaling = -0.1, "scaling"),
        (|s| s.noise = 1.0, "noise"),
    ];
    for (edit, setting) in cases {
        let mut spec = small();
        edit(&mut spec);
        let error = Phantom::generate(&spec, 1).unwrap_err();
        assert_eq!(error.setting, setting, "{error}");
    }
}
