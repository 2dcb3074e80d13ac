//! Windows: the cubes of samples that an agent sees.
//!
//! A window is a pure function of (volume, position, stride, rule): rows carry
//! positions, and every process renders the same bytes from them. This is the
//! only definition; the tensor renderer of the `model` crate uses [`axis_samples`],
//! and tests check that both are bit-equal.

use pulp::{Arch, Simd, WithSimd};
use serde::{Deserialize, Serialize};

use crate::environment::posed::{MOST, PosedWindow};
use crate::environment::strided::{Bytes, Converted, Lines, Source};
use crate::imaging::volume::{Volume, Voxels};

/// How the samples of a window are placed around a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowRule {
    /// Sample `n / 2` (integer division) lies exactly on the position; samples
    /// outside the volume are zero.
    Centred,
    /// rl-medical: off-centre by one or two voxels, and where the window
    /// crosses the low border the lattice starts at index 0, whatever its phase.
    Reference,
}

/// Marks a sample outside the volume in the table of [`axis_samples`].
pub const OUTSIDE: i32 = -1;

/// For each of the `n` samples along one axis, the voxel index that it reads
/// or [`OUTSIDE`].
///
/// `centre` and `stride` in voxels, `dim` the volume's size on that axis.
pub fn axis_samples(
    rule: WindowRule,
    n: usize,
    centre: i32,
    stride: u8,
    dim: usize,
    out: &mut [i32],
) {
    debug_assert_eq!(out.len(), n);
    out.fill(OUTSIDE);
    let (n_i, stride, dim) = (to_i32(n), i32::from(stride), to_i32(dim));
    match rule {
        WindowRule::Centred => {
            let first = centre - (n_i / 2) * stride;
            for (i, slot) in (0..).zip(out.iter_mut()) {
                let index = first + i * stride;
                if (0..dim).contains(&index) {
                    *slot = index;
                }
            }
        }
        WindowRule::Reference => reference_samples(n_i, centre, stride, dim, out),
    }
}

/// rl-medical's `_get_state`: `[lo, hi)` in steps of `stride`, cut at the
/// borders; cut below, the rest is right-aligned in the window, cut above, it
/// is left-aligned.
fn reference_samples(n: i32, centre: i32, stride: i32, dim: i32, out: &mut [i32]) {
    let extent = n * stride;
    let (lo, hi) = if stride % 2 == 0 {
        (centre - extent / 2, centre + extent / 2)
    } else {
        (centre - extent / 2 - 1, centre + extent / 2)
    };
    // The published code right-aligns a window cut below by the *uncut* upper
    // end, and only then cuts above.
    let start = if lo < 0 { n - ceil_div(hi, stride) } else { 0 };
    let first_voxel = lo.max(0);
    let count = ceil_div(hi.min(dim) - first_voxel, stride);
    for i in 0..count {
        if let Some(slot) = usize::try_from(start + i).ok().and_then(|s| out.get_mut(s)) {
            *slot = first_voxel + i * stride;
        }
    }
}

fn ceil_div(a: i32, b: i32) -> i32 {
    if a <= 0 { 0 } else { (a + b - 1) / b }
}

fn to_i32(v: usize) -> i32 {
    i32::try_from(v).unwrap_or(i32::MAX)
}

/// Renders the window `[x][y][z]` (z fastest, `n³` samples) at a voxel
/// position into `out`, as bytes; a float volume is truncated as rl-medical's
/// training does.
///
/// # Panics
/// When `out` does not hold `n³` samples.
pub fn render(
    volume: &Volume,
    rule: WindowRule,
    n: usize,
    position: [i32; 3],
    stride: u8,
    out: &mut [u8],
) {
    let at = (position, stride);
    match volume.voxels() {
        // The hot path of training: uses the vector instructions of this CPU.
        Voxels::U8(bytes) => Arch::new().dispatch(RenderBytes {
            volume,
            rule,
            n,
            at,
            out,
            source: Bytes((**bytes).as_ref()),
        }),
        Voxels::F32(values) => {
            // Values lie in 0..=255; truncation is the published behaviour.
            let source = Converted(values.as_slice(), |v: f32| v as u8);
            render_with(volume, rule, n, at, out, 0, source);
        }
    }
}

/// Renders a window as floats in 0..=255 (the `reference` evaluation).
///
/// # Panics
/// When `out` does not hold `n³` samples.
pub fn render_f32(
    volume: &Volume,
    rule: WindowRule,
    n: usize,
    position: [i32; 3],
    stride: u8,
    out: &mut [f32],
) {
    let at = (position, stride);
    match volume.voxels() {
        Voxels::U8(bytes) => {
            let source = Converted((**bytes).as_ref(), |b: u8| f32::from(b));
            render_with(volume, rule, n, at, out, 0.0, source);
        }
        Voxels::F32(values) => {
            let source = Converted(values.as_slice(), |v: f32| v);
            render_with(volume, rule, n, at, out, 0.0, source);
        }
    }
}

/// [`render_with`] for bytes, compiled for each instruction set.
struct RenderBytes<'a> {
    volume: &'a Volume,
    rule: WindowRule,
    n: usize,
    at: ([i32; 3], u8),
    out: &'a mut [u8],
    source: Bytes<'a>,
}

impl WithSimd for RenderBytes<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        render_with(
            self.volume,
            self.rule,
            self.n,
            self.at,
            self.out,
            0,
            self.source,
        );
    }
}

#[inline(always)]
fn render_with<T: Copy>(
    volume: &Volume,
    rule: WindowRule,
    n: usize,
    (position, stride): ([i32; 3], u8),
    out: &mut [T],
    zero: T,
    source: impl Source<T>,
) {
    assert_eq!(
        out.len(),
        n * n * n,
        "a window of side {n} has {} samples",
        n * n * n
    );
    let dims = volume.dims();
    let mut table = [[OUTSIDE; MOST]; 3];
    for axis in 0..3 {
        axis_samples(
            rule,
            n,
            position[axis],
            stride,
            dims[axis],
            &mut table[axis][..n],
        );
    }
    let [xs, ys, zs] = &table;
    let zs = &zs[..n];
    if let Some(pose) = volume.pose() {
        let tables = [&xs[..n], &ys[..n], zs];
        let window = PosedWindow {
            dims,
            pose,
            tables,
            stride,
        };
        return window.fill(out, zero, source);
    }
    // The samples inside form one contiguous run along z; all others are zero.
    let run_start = zs.iter().position(|&z| z != OUTSIDE).unwrap_or(n);
    let run_end = zs
        .iter()
        .rposition(|&z| z != OUTSIDE)
        .map_or(run_start, |i| i + 1);
    let inside = |table: &[i32]| table.iter().all(|&i| i != OUTSIDE);
    let whole = inside(&xs[..n]) && inside(&ys[..n]) && run_end - run_start == n;
    if !whole {
        out.fill(zero);
    }
    if run_start == run_end {
        return;
    }
    let lines = Lines {
        xs: &xs[..n],
        ys: &ys[..n],
        steps: [dims[1] * dims[2], dims[2]],
        first: index(zs[run_start]),
        run: run_start..run_end,
        stride: usize::from(stride),
    };
    source.fill(&lines, out);
}

fn index(z: i32) -> usize {
    usize::try_from(z).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(rule: WindowRule, n: usize, centre: i32, stride: u8, dim: usize) -> Vec<i32> {
        let mut out = vec![0; n];
        axis_samples(rule, n, centre, stride, dim, &mut out);
        out
    }

    #[test]
    fn centred_windows_hold_the_position_in_the_middle() {
        let c = WindowRule::Centred;
        assert_eq!(samples(c, 5, 10, 1, 100), [8, 9, 10, 11, 12]);
        assert_eq!(samples(c, 5, 10, 3, 100), [4, 7, 10, 13, 16]);
        assert_eq!(samples(c, 4, 10, 2, 100), [6, 8, 10, 12]);
        assert_eq!(samples(c, 5, 1, 1, 4), [-1, 0, 1, 2, 3]);
        assert_eq!(samples(c, 5, 3, 2, 4), [-1, 1, 3, -1, -1]);
    }

    #[test]
    fn reference_windows_follow_the_published_extents() {
        let r = WindowRule::Reference;
        // Extents of 45 samples: stride 1 p−23…p+21, 2 p−45…p+43, 3 p−68…p+64.
        let ends = |s| {
            let v = samples(r, 45, 100, s, 300);
            (v[0] - 100, v[44] - 100)
        };
        assert_eq!(ends(1), (-23, 21));
        assert_eq!(ends(2), (-45, 43));
        assert_eq!(ends(3), (-68, 64));
        // Cut below: the lattice starts at 0 and is right-aligned.
        let v = samples(r, 45, 10, 1, 300);
        assert_eq!((v[12], v[13], v[44]), (OUTSIDE, 0, 31));
        // Cut above: left-aligned.
        let v = samples(r, 45, 90, 1, 100);
        assert_eq!((v[0], v[32], v[33]), (67, 99, OUTSIDE));
    }

    fn naive(volume: &Volume, n: usize, p: [i32; 3], stride: i32) -> Vec<u8> {
        let half = i32::try_from(n / 2).unwrap();
        let n_i = i32::try_from(n).unwrap();
        let mut out = Vec::new();
        for x in 0..n_i {
            for y in 0..n_i {
                for z in 0..n_i {
                    let at = [x, y, z].map(|i| (i - half) * stride);
                    out.push(volume.at([p[0] + at[0], p[1] + at[1], p[2] + at[2]]) as u8);
                }
            }
        }
        out
    }

    /// [`render`] for bytes, with each instruction set of this CPU.
    fn rendered(volume: &Volume, n: usize, p: [i32; 3], stride: u8) -> Vec<Vec<u8>> {
        let Voxels::U8(bytes) = volume.voxels() else {
            panic!("not of bytes")
        };
        let by = |level: Arch| {
            let mut out = vec![7; n * n * n];
            level.dispatch(RenderBytes {
                volume,
                rule: WindowRule::Centred,
                n,
                at: (p, stride),
                out: &mut out,
                source: Bytes((**bytes).as_ref()),
            });
            out
        };
        crate::run::cpu::levels().into_iter().map(by).collect()
    }

    fn volume(dims: [usize; 3]) -> Volume {
        let n = dims.iter().product::<usize>();
        Volume::from_u8(
            dims,
            (0..n).map(|i| (i * 31 % 255 + 1) as u8).collect::<Vec<_>>(),
        )
        .unwrap()
    }

    /// Bytes and floats in a pose, with each instruction set, against [`naive`].
    fn posed_windows_are_the_same(
        dims: [usize; 3],
        p: [i32; 3],
        stride: u8,
        n: usize,
        rotation_degrees: f64,
        number: u32,
    ) {
        let config = crate::config::PoseConfig {
            share: 1.0,
            rotation_degrees,
            scaling: 0.3,
            flip: 0.5,
        };
        let geometry = crate::imaging::geometry::Geometry::straight(dims, [1.0, 0.7, 1.6]);
        let poses = crate::environment::pose::Poses::new(&config, 1);
        let pose = poses.get(number, &geometry).unwrap();
        let bytes = volume(dims);
        let floats = bytes.as_u8().unwrap().iter().map(|&b| f32::from(b) + 0.25);
        let floats = Volume::from_f32(dims, floats.collect())
            .unwrap()
            .posed(pose);
        let bytes = bytes.posed(pose);
        let expected = naive(&bytes, n, p, i32::from(stride));
        let (mut out, mut exact) = (vec![7; n.pow(3)], vec![7.0; n.pow(3)]);
        render(&bytes, WindowRule::Centred, n, p, stride, &mut out);
        assert_eq!(out, expected);
        assert!(rendered(&bytes, n, p, stride).iter().all(|o| *o == out));
        render(&floats, WindowRule::Centred, n, p, stride, &mut out);
        assert_eq!(out, expected);
        render_f32(&bytes, WindowRule::Centred, n, p, stride, &mut exact);
        assert!(out.iter().zip(&exact).all(|(a, b)| f32::from(*a) == *b));
        render_f32(&floats, WindowRule::Centred, n, p, stride, &mut exact);
        let quarter = |b: u8| if b == 0 { 0.0 } else { f32::from(b) + 0.25 };
        assert!(out.iter().zip(&exact).all(|(a, b)| quarter(*a) == *b));
    }

    proptest! {
        #[test]
        fn window_equals_a_naive_loop(
            dims in prop::array::uniform3(1_usize..14),
            p in prop::array::uniform3(-6_i32..20),
            stride in 1_u8..5,
            n in 3_usize..12,
        ) {
            let volume = volume(dims);
            let mut out = vec![7; n * n * n];
            render(&volume, WindowRule::Centred, n, p, stride, &mut out);
            prop_assert_eq!(&out, &naive(&volume, n, p, i32::from(stride)));
            prop_assert!(rendered(&volume, n, p, stride).iter().all(|o| *o == out));
            let mut floats = vec![7.0; n * n * n];
            render_f32(&volume, WindowRule::Centred, n, p, stride, &mut floats);
            prop_assert!(out.iter().zip(&floats).all(|(a, b)| f32::from(*a) == *b));
        }

        #[test]
        fn a_posed_window_equals_a_naive_loop(
            dims in prop::array::uniform3(1_usize..20),
            p in prop::array::uniform3(-6_i32..26),
            stride in 1_u8..5,
            n in 3_usize..28,
            rotation_degrees in prop::sample::select(vec![0.0, 15.0, 40.0, 180.0]),
            number in 1_u32..,
        ) {
            posed_windows_are_the_same(dims, p, stride, n, rotation_degrees, number);
        }

        #[test]
        fn a_posed_window_of_a_scan_that_32_bits_cannot_index(
            axis in 0_usize..3,
            dim in prop::sample::select(vec![65_535_usize, 65_536, 65_537, 80_000]),
            end: bool,
            near in prop::array::uniform3(0_i32..4),
            stride in 1_u8..5,
            number in 1_u32..,
        ) {
            let (mut dims, mut p) = ([3; 3], near);
            dims[axis] = dim;
            if end {
                p[axis] = i32::try_from(dim).unwrap() - 1 - near[axis];
            }
            posed_windows_are_the_same(dims, p, stride, 9, 0.002, number);
        }

        #[test]
        fn reference_samples_stay_inside(
            n in 3_usize..50, centre in 0_i32..60, stride in 1_u8..5, dim in 1_usize..60,
        ) {
            let v = samples(WindowRule::Reference, n, centre, stride, dim);
            let inside: Vec<_> = v.iter().copied().filter(|&i| i != OUTSIDE).collect();
            prop_assert!(inside.iter().all(|&i| usize::try_from(i).unwrap() < dim));
            prop_assert!(inside.windows(2).all(|w| w[1] - w[0] == i32::from(stride)));
        }
    }

    #[test]
    fn every_border_of_a_larger_volume_matches() {
        let volume = volume([20, 17, 23]);
        for stride in 1..=4_u8 {
            for p in [[0, 0, 0], [19, 16, 22], [0, 8, 22], [10, 8, 11], [19, 0, 3]] {
                let mut out = vec![0; 9 * 9 * 9];
                render(&volume, WindowRule::Centred, 9, p, stride, &mut out);
                let expected = naive(&volume, 9, p, i32::from(stride));
                assert_eq!(out, expected, "{p:?} stride {stride}");
            }
        }
    }
}
