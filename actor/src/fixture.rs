//! Small scans and a policy that knows the landmarks, for the tests of this crate.

use std::sync::Arc;

use common::config::Config;
use common::environment::ACTIONS;
use common::imaging::geometry::{Affine, AxisMap, Geometry};
use common::imaging::scan::Scan;
use common::imaging::volume::Volume;

use crate::rollout::policy::{Policy, PolicyError, QValues, View};

/// 30 × 24 × 20 voxels of 1 mm with a smooth pattern.
pub(crate) const DIMS: [usize; 3] = [30, 24, 20];

pub(crate) fn scan_with(landmarks: &[Option<[f64; 3]>]) -> Arc<Scan> {
    let count = DIMS.iter().product::<usize>();
    let voxels: Vec<u8> = (0..count)
        .map(|i| u8::try_from(i * 7 % 251).unwrap())
        .collect();
    let affine = Affine {
        rows: [
            [1.0, 0.0, 0.0, -3.0],
            [0.0, 1.0, 0.0, 5.0],
            [0.0, 0.0, 1.0, 0.0],
        ],
    };
    Arc::new(Scan {
        name: "pattern".into(),
        volume: Volume::from_u8(DIMS, voxels).unwrap(),
        geometry: Geometry {
            dims: DIMS,
            spacing_mm: [1.0; 3],
            affine,
            axis_map: AxisMap::identity(DIMS),
        },
        landmarks: landmarks.to_vec(),
        hash: [0; 32],
    })
}

/// Small windows, two agents, few slots.
pub(crate) fn config() -> Config {
    let mut config = Config::defaults().unwrap();
    config.rules.window_size = 8;
    config.rules.scales = vec![(2, 3).into(), (1, 1).into()];
    config.rules.max_steps = 60;
    config.data.landmarks = vec!["A".into(), "B".into()];
    config.actor.slots = 4;
    config.actor.start_near = 0.0;
    config.actor.start_near_radius = vec![6.0, 3.0];
    config
}

/// Knows every landmark: an action's value is how much nearer it leads.
#[derive(Debug)]
pub(crate) struct Oracle {
    /// Voxels per step, per scale.
    steps: Vec<i32>,
}

impl Oracle {
    pub(crate) fn new(config: &Config) -> Self {
        let scales = config.rules.scales.iter();
        Self {
            steps: scales.map(|s| i32::from(s.step)).collect(),
        }
    }
}

impl Policy for Oracle {
    fn q_values(&mut self, views: &[View<'_>]) -> Result<Vec<QValues>, PolicyError> {
        let mut all = Vec::new();
        for view in views {
            for (&agent, seen) in view.agents.iter().zip(view.observations) {
                let target = view.scan.landmarks[usize::from(agent)].unwrap_or([0.0; 3]);
                let (geometry, step) = (&view.scan.geometry, self.steps[usize::from(seen.scale)]);
                let at = seen.frames.last().unwrap().position.map(i32::from);
                let distance = |p: [i32; 3]| geometry.distance_mm(p.map(f64::from), target);
                all.push(ACTIONS.map(|a| {
                    let to = [0, 1, 2].map(|i| at[i] + a[i] * step);
                    (distance(at) - distance(to)) as f32
                }));
            }
        }
        Ok(all)
    }

    fn weights_version(&self) -> u64 {
        7
    }
}
