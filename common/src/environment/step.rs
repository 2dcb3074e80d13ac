//! The effect of one step, independent of any environment.

use crate::environment::reward::{Moved, REWARD_CLIP};
use crate::environment::rules::{BorderRule, RewardUnit, Rules};
use crate::imaging::geometry::Geometry;

use super::{ACTIONS, BLOCKED_REWARD, finest_step_mm};

/// The position that an action leads to from a voxel position at a scale, and
/// whether the border blocked the move.
pub(super) fn moved(
    rules: &Rules,
    dims: [usize; 3],
    from: [i32; 3],
    scale: u8,
    action: u8,
) -> ([i32; 3], bool) {
    let step = i32::from(rules.scales[usize::from(scale)].step);
    let direction = ACTIONS[usize::from(action) % ACTIONS.len()];
    let to = [0, 1, 2].map(|axis| from[axis] + direction[axis] * step);
    let lowest = match rules.border {
        BorderRule::Inclusive => 0,
        BorderRule::ZeroBlocked => 1,
    };
    // Only the moved axis is tested: an agent may stand on index 0 by its start.
    let blocked = (0..3).any(|axis| {
        let dim = i32::try_from(dims[axis]).unwrap_or(i32::MAX);
        direction[axis] < 0 && to[axis] < lowest || direction[axis] > 0 && to[axis] >= dim
    });
    if blocked { (from, true) } else { (to, false) }
}

/// mm per unit of reward.
pub(super) fn reward_unit_mm(rules: &Rules, spacing_mm: [f64; 3]) -> f64 {
    match rules.reward {
        RewardUnit::FinestSteps => finest_step_mm(rules, spacing_mm),
        RewardUnit::Millimetres => 1.0,
    }
}

/// Rewards of all six actions for an agent at `from` (voxel) with landmark
/// `target` (voxel) under
/// [`crate::environment::reward::RewardStrategy::Own`], clipped as in rows.
///
/// # Panics
/// When `scale` is not one of the rules'.
#[must_use]
pub fn step_rewards(
    rules: &Rules,
    geometry: &Geometry,
    from: [i32; 3],
    scale: u8,
    target: [f64; 3],
) -> [f32; ACTIONS.len()] {
    let spacing = geometry.spacing_mm;
    let mm = |p: [f64; 3]| std::array::from_fn(|i| p[i] * spacing[i]);
    let unit = reward_unit_mm(rules, spacing);
    let mut action = 0;
    ACTIONS.map(|_| {
        let (to, blocked) = moved(rules, geometry.dims, from, scale, action);
        action += 1;
        if blocked {
            return BLOCKED_REWARD;
        }
        let step = Moved {
            from: mm(from.map(f64::from)),
            to: mm(to.map(f64::from)),
            target: mm(target),
        };
        ((step.nearer() / unit) as f32).clamp(-REWARD_CLIP, REWARD_CLIP)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::environment::{Environment, Mode, Start};
    use crate::imaging::scan::Scan;
    use proptest::prelude::*;

    fn scan(spacing_mm: [f64; 3], target: [f64; 3]) -> Arc<Scan> {
        let geometry = Geometry::straight([20, 24, 28], spacing_mm);
        Arc::new(Scan::uniform(geometry, vec![Some(target)]))
    }

    #[test]
    fn rewards_by_hand() {
        let rules = Rules::standard();
        let scan = scan([0.5; 3], [10.0, 10.0, 10.25]);
        // One voxel is one unit; only up gets nearer, by half a voxel minus a quarter.
        let found = step_rewards(&rules, &scan.geometry, [10, 10, 10], 2, [10.0, 10.0, 10.25]);
        let aside = (0.25 - (1.0_f64 + 0.0625).sqrt()) as f32;
        let expected = [-0.5, aside, aside, aside, aside, -1.0];
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-6, "{found:?}");
        }
        // Nine voxels up lead out of the volume's 28.
        let found = step_rewards(&rules, &scan.geometry, [10, 10, 20], 0, [10.0, 10.0, 27.0]);
        assert_eq!((found[0], found[5]), (BLOCKED_REWARD, -1.0));
    }

    proptest! {
        #[test]
        fn they_equal_the_rewards_of_an_environment(
            x in 0..20_i32, y in 0..24_i32, z in 0..28_i32,
            tx in 0.0..19.0_f64, ty in 0.0..23.0_f64, tz in 0.0..27.0_f64,
            scale in 0..3_u8, action in 0..6_u8, reference: bool, spacing in 0.2..3.0_f64,
        ) {
            let mut rules = if reference { Rules::reference() } else { Rules::standard() };
            rules.scales = Rules::standard().scales;
            let target = [tx, ty, tz];
            let scan = scan([spacing, 1.0, 0.5], target);
            let found = step_rewards(&rules, &scan.geometry, [x, y, z], scale, target);
            let start = Start { position: [x, y, z], scale };
            let mut environment = Environment::new(Arc::new(rules), scan, Mode::Train, &[0], &[start]);
            let earned = environment.step(&[action], &[0.0])[0].reward;
            prop_assert_eq!(found[usize::from(action)], earned.clamp(-REWARD_CLIP, REWARD_CLIP));
        }
    }
}
