//! Windows cut on tensors against the CPU renderer and a naive loop.

use common::config::PoseConfig;
use common::environment::pose::{Pose, Poses};
use common::environment::window::{self, WindowRule};
use common::imaging::geometry::{Affine, AxisMap, Geometry};
use common::imaging::volume::Volume;
use model::render::to_unit;
use model::{DeviceScans, FrameAt, ModelError};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

fn volume(dims: [usize; 3], salt: usize) -> Volume {
    let n = dims.iter().product::<usize>();
    let voxels = (0..n).map(|i| ((i * 31 + salt) % 255 + 1) as u8);
    Volume::from_u8(dims, voxels.collect::<Vec<_>>()).unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    assert_eq!(tensor.kind(), Kind::Uint8);
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

fn naive(volume: &Volume, n: usize, frame: &FrameAt) -> Vec<u8> {
    let (n, half) = (n as i32, n as i32 / 2);
    let mut out = Vec::new();
    for x in 0..n {
        for y in 0..n {
            for z in 0..n {
                let p = frame.position;
                let at = [x, y, z].map(|i| (i - half) * i32::from(frame.stride));
                let value = volume.at([p[0] + at[0], p[1] + at[1], p[2] + at[2]]);
                out.push(if frame.valid { value as u8 } else { 0 });
            }
        }
    }
    out
}

/// A frame of the first scan, without a pose.
fn at(position: [i32; 3], stride: u8) -> FrameAt {
    FrameAt {
        scan: 0,
        position,
        stride,
        valid: true,
        pose: None,
    }
}

fn frame(scans: usize) -> impl Strategy<Value = FrameAt> {
    (
        0..scans,
        prop::array::uniform3(-9_i32..24),
        1_u8..5,
        prop::bool::weighted(0.9),
    )
        .prop_map(|(scan, position, stride, valid)| FrameAt {
            scan,
            valid,
            ..at(position, stride)
        })
}

/// A pose of a grid of 1 mm voxels; number 0 is none.
fn pose(dims: [usize; 3], number: u32) -> Option<Pose> {
    let config = PoseConfig {
        share: 1.0,
        rotation_degrees: 40.0,
        scaling: 0.3,
        flip: 0.5,
    };
    let rows = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    let geometry = Geometry {
        dims,
        spacing_mm: [1.0; 3],
        affine: Affine { rows },
        axis_map: AxisMap::identity(dims),
    };
    Poses::new(&config, 3).get(number, &geometry)
}

proptest! {
    #[test]
    fn windows_are_bit_equal_to_the_loops(
        dims in prop::collection::vec(prop::array::uniform3(1_usize..16), 1..4),
        frames in prop::collection::vec(frame(1), 0..6),
        pick in prop::collection::vec(any::<prop::sample::Index>(), 6),
        n in 1_usize..10,
        poses in any::<u32>(),
    ) {
        let volumes: Vec<_> = dims.iter().enumerate().map(|(i, &d)| volume(d, i * 7)).collect();
        let frames: Vec<_> = frames
            .into_iter()
            .zip(&pick)
            .enumerate()
            .map(|(i, (f, p))| {
                let scan = p.index(volumes.len());
                FrameAt { scan, pose: pose(volumes[scan].dims(), (poses >> i) % 4), ..f }
            })
            .collect();
        let scans = DeviceScans::new(&volumes, Device::Cpu).unwrap();
        for rule in [WindowRule::Centred, WindowRule::Reference] {
            let found = scans.render(rule, n, &frames).unwrap();
            let side = n as i64;
            prop_assert_eq!(found.size(), [frames.len() as i64, side, side, side]);
            let found = bytes(&found);
            for (f, found) in frames.iter().zip(found.chunks(n.pow(3))) {
                let volume = f.pose.map_or_else(
                    || volumes[f.scan].clone(),
                    |pose| volumes[f.scan].posed(pose),
                );
                let volume = &volume;
                let mut expected = vec![0; n.pow(3)];
                if f.valid {
                    window::render(volume, rule, n, f.position, f.stride, &mut expected);
                }
                prop_assert_eq!(found, &expected[..]);
                if rule == WindowRule::Centred {
                    prop_assert_eq!(found, &naive(volume, n, f)[..]);
                }
            }
        }
    }
}

#[test]
fn the_reference_rule_shifts_and_pads_as_published() {
    // One row of voxels along z, each holding its index plus one, so that the centre
    // line of a window lists the voxels it reads (0 = outside).
    let row = Volume::from_u8([1, 1, 60], (1..=60).collect::<Vec<u8>>()).unwrap();
    let scans = DeviceScans::new([&row], Device::Cpu).unwrap();
    let line = |z: i32, stride: u8| -> Vec<u8> {
        let frames = [at([0, 0, z], stride)];
        let window = scans.render(WindowRule::Reference, 5, &frames).unwrap();
        // x and y have one voxel: only one line is not zero everywhere.
        let lines = window.reshape([25, 5]);
        bytes(&lines.amax([0_i64].as_slice(), false))
    };
    // Extents of five samples: stride 1 p−3…p+1, 2 p−5…p+3, 3 p−8…p+4.
    assert_eq!(line(30, 1), [28, 29, 30, 31, 32]);
    assert_eq!(line(30, 2), [26, 28, 30, 32, 34]);
    assert_eq!(line(30, 3), [23, 26, 29, 32, 35]);
    // Cut below: the lattice starts at voxel 0 and is right-aligned.
    assert_eq!(line(1, 1), [0, 0, 1, 2, 3]);
    assert_eq!(line(2, 2), [0, 1, 3, 5, 7]);
    // Cut above: left-aligned.
    assert_eq!(line(59, 1), [57, 58, 59, 60, 0]);
    assert_eq!(line(58, 2), [54, 56, 58, 60, 0]);
}

#[test]
fn float_volumes_are_truncated() {
    let floats = Volume::from_f32([1, 1, 4], vec![0.9, 254.99, 255.0, 3.5]).unwrap();
    let scans = DeviceScans::new([&floats], Device::Cpu).unwrap();
    let frames = [at([0, 0, 2], 1)];
    let window = scans.render(WindowRule::Centred, 4, &frames).unwrap();
    assert_eq!(bytes(&window.get(0).get(2).get(2)), [0, 254, 255, 3]);
}

#[test]
fn many_frames_are_rendered_in_pieces() {
    let volume = volume([50, 50, 50], 3);
    let scans = DeviceScans::new([&volume], Device::Cpu).unwrap();
    assert_eq!((scans.len(), scans.is_empty()), (1, false));
    assert_eq!(scans.size_bytes(), 125_001);
    let (n, rule) = (128, WindowRule::Centred);
    let frames: Vec<_> = (0..17).map(|i| at([i * 3, 10, 40], 1)).collect();
    let found = scans.render(rule, n, &frames).unwrap();
    for i in [0, 15, 16] {
        let mut expected = vec![0; n.pow(3)];
        window::render(&volume, rule, n, frames[i].position, 1, &mut expected);
        assert!(bytes(&found.get(i as i64)) == expected, "frame {i}");
    }
}

#[test]
fn unknown_scans_and_far_positions_are_refused() {
    let scans = DeviceScans::new([&volume([3, 3, 3], 0)], Device::Cpu).unwrap();
    let frame = at([0; 3], 1);
    for bad in [FrameAt { scan: 1, ..frame }, at([0, i32::MAX, 0], 1)] {
        let frames = [frame, bad];
        let error = scans.render(WindowRule::Centred, 3, &frames).unwrap_err();
        assert!(matches!(error, ModelError::Input { .. }), "{error}");
    }
}

#[test]
fn bytes_become_units() {
    let unit = to_unit(&Tensor::from_slice(&[0_u8, 51, 255])).unwrap();
    assert_eq!(Vec::<f32>::try_from(unit).unwrap(), [0.0, 0.2, 1.0]);
}
