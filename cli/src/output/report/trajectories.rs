//! All trajectories as JSON Lines, in the format of rl-medical's published data.
//!
//! One line per episode. The line of a single agent has `start`, `final`, `landmark`,
//! `error_mm` and steps with `loc`, `scale`, `action`, `q` and `reward`. Agents of one team
//! share a line with `start`, `finals`, `landmarks`, `errors_mm` and steps with `locations`,
//! `scale`, `actions`, `q` and `rewards`. Positions are voxels of the scan's own file, from 0;
//! `scale` is the stride of the window's samples in voxels; `action` counts
//! +z, +y, +x, −x, −y, −z (along RAS axes, or along the file's axes under the reference rules).

use std::path::Path;
use std::sync::Arc;

use actor::evaluation::evaluate::{WalkResult, WalkStep};
use actor::rollout::group::walk_together;
use common::environment::End;
use common::environment::starts::EvaluationStarts;
use common::imaging::scan::Scan;
use common::run::durable::write_atomic;
use model::NetworkKind;
use serde_json::{Map, Value, json};

use crate::input::weights::Loaded;

/// Writes one line per episode, ordered by start and then by scan name.
pub fn write_trajectories(
    file: &Path,
    walks: &[WalkResult],
    scans: &[Arc<Scan>],
    loaded: &Loaded,
    starts: &EvaluationStarts,
) -> anyhow::Result<()> {
    let commnet = loaded.network.spec().kind == NetworkKind::Commnet;
    let together = walk_together(&loaded.rules, commnet) && loaded.landmarks.len() > 1;
    let spawns = starts.fractions();
    let mut order: Vec<&WalkResult> = walks.iter().collect();
    order.sort_by_key(|w| (w.start_index, &scans[w.scan].name, w.scan, w.agent));
    let same = |a: &&WalkResult, b: &&WalkResult| {
        together && (a.start_index, a.scan) == (b.start_index, b.scan)
    };
    let mut text = String::new();
    for group in order.chunk_by(same) {
        let scan = &scans[group[0].scan];
        let mut line = Map::new();
        line.insert("scan".into(), scan.name.as_str().into());
        let spawn = spawns
            .as_ref()
            .and_then(|all| all.get(group[0].start_index));
        line.insert("spawn".into(), json!(spawn));
        if together {
            tell_group(&mut line, group, scan);
        } else {
            tell_one(&mut line, group[0], scan, &loaded.landmarks);
        }
        text += &serde_json::to_string(&line)?;
        text.push('\n');
    }
    write_atomic(file, text.as_bytes())?;
    Ok(())
}

fn tell_one(line: &mut Map<String, Value>, walk: &WalkResult, scan: &Scan, names: &[String]) {
    if let (Some(name), 2..) = (names.get(usize::from(walk.agent)), names.len()) {
        line.insert("agent".into(), name.as_str().into());
    }
    line.insert("start".into(), place(scan, walk.start.map(f64::from)));
    line.insert("steps".into(), walk.steps.into());
    line.insert("terminated".into(), ended(walk).into());
    line.insert("final".into(), place(scan, walk.answer));
    line.insert("landmark".into(), landmark(scan, walk));
    line.insert("error_mm".into(), json!(walk.error_mm));
    let step = |step: &WalkStep| {
        json!({
            "loc": place(scan, step.position.map(f64::from)),
            "scale": step.stride,
            "action": step.action,
            "q": step.q,
            "reward": step.reward,
        })
    };
    let steps: Vec<Value> = steps(walk).iter().map(step).collect();
    line.insert("trajectory".into(), steps.into());
}

fn tell_group(line: &mut Map<String, Value>, walks: &[&WalkResult], scan: &Scan) {
    let each = |tell: &dyn Fn(&WalkResult) -> Value| -> Value {
        walks.iter().map(|w| tell(w)).collect::<Vec<_>>().into()
    };
    let longest = walks.iter().map(|w| w.steps).max().unwrap_or(0);
    line.insert(
        "start".into(),
        each(&|w| place(scan, w.start.map(f64::from))),
    );
    line.insert("steps".into(), longest.into());
    line.insert("terminated".into(), walks.iter().all(|w| ended(w)).into());
    line.insert("finals".into(), each(&|w| place(scan, w.answer)));
    line.insert("landmarks".into(), each(&|w| landmark(scan, w)));
    line.insert("errors_mm".into(), each(&|w| json!(w.error_mm)));
    let trajectory = (0..usize::from(longest)).map(|number| {
        // An agent that has ended keeps its last step.
        let now: Vec<&WalkStep> = walks
            .iter()
            .filter_map(|w| steps(w).get(number).or_else(|| steps(w).last()))
            .collect();
        let of = |tell: &dyn Fn(&WalkStep) -> Value| -> Value {
            now.iter().map(|s| tell(s)).collect::<Vec<_>>().into()
        };
        json!({
            "locations": of(&|s| place(scan, s.position.map(f64::from))),
            "scale": now.first().map(|s| s.stride),
            "actions": of(&|s| s.action.into()),
            "q": of(&|s| json!(s.q)),
            "rewards": of(&|s| json!(s.reward)),
        })
    });
    let trajectory: Vec<Value> = trajectory.collect();
    line.insert("trajectory".into(), trajectory.into());
}

fn steps(walk: &WalkResult) -> &[WalkStep] {
    walk.trajectory.as_deref().unwrap_or_default()
}

fn ended(walk: &WalkResult) -> bool {
    walk.end != End::Cap
}

/// A position in the file's own voxels; integral values become integers.
#[expect(clippy::cast_possible_truncation, reason = "a voxel index")]
fn place(scan: &Scan, ours: [f64; 3]) -> Value {
    let file = scan.geometry.axis_map.to_file(ours);
    let number = |v: f64| {
        if v.fract() == 0.0 && v.abs() < 1e9 {
            json!(v as i64)
        } else {
            json!(v)
        }
    };
    file.map(number).to_vec().into()
}

fn landmark(scan: &Scan, walk: &WalkResult) -> Value {
    let known = scan
        .landmarks
        .get(usize::from(walk.agent))
        .copied()
        .flatten();
    json!(known.map(|voxel| scan.geometry.axis_map.to_file(voxel)))
}
