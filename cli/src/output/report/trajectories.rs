//! All trajectories as JSON Lines, in the format of rl-medical's published data.
//!
//! One line per episode. The line of a single agent has `start`, `final`, `landmark`,
//! `error_mm` and steps with `loc`, `scale`, `action`, `q` and `reward`. Agents of one team
//! share a line with `start`, `finals`, `landmarks`, `errors_mm` and steps with `locations`,
//! `scale`, `actions`, `q` and `rewards`. Positions are voxels of the scan's own file, from 0;
//! `scale` is the stride of the window's samples in voxels; `action` counts
//! +z, +y, +x, −x, −y, −z (along RAS axes, or along the file's axes under the reference rules).

use std::path::Path;

use actor::evaluation::evaluate::{StartResult, TrajectoryStep};
use actor::rollout::group::one_group;
use common::environment::End;
use common::imaging::scan::Scan;
use common::report::text::unsigned_zeros;
use common::run::durable::write_atomic;
use model::NetworkKind;
use serde_json::{Map, Value, json};

use super::{Results, landmark};

/// Writes one line per episode, ordered by start and then by scan as given.
pub fn write_trajectories(file: &Path, all: &Results<'_>) -> anyhow::Result<()> {
    let (scans, loaded) = (all.scans, all.loaded);
    let commnet = loaded.network.spec().kind == NetworkKind::Commnet;
    let together = one_group(&loaded.rules, commnet) && loaded.landmarks.len() > 1;
    let spawns = all.starts.fractions();
    let same = |a: &&StartResult, b: &&StartResult| {
        together && (a.start_index, a.scan) == (b.start_index, b.scan)
    };
    let mut text = String::new();
    for group in all.ordered().chunk_by(same) {
        let scan = &scans[group[0].scan];
        let mut line = Map::new();
        line.insert("scan".into(), scan.name.as_str().into());
        let spawn = spawns.as_ref().map(|all| all.get(group[0].start_index));
        line.insert("spawn".into(), json!(spawn.flatten()));
        if together {
            fill_group(&mut line, group, scan);
        } else {
            fill_one(&mut line, group[0], scan, &loaded.landmarks);
        }
        text += &(serde_json::to_string(&line)? + "\n");
    }
    write_atomic(file, text.as_bytes())?;
    Ok(())
}

fn fill_one(line: &mut Map<String, Value>, result: &StartResult, scan: &Scan, names: &[String]) {
    if let (Some(name), 2..) = (names.get(usize::from(result.agent)), names.len()) {
        line.insert("agent".into(), name.as_str().into());
    }
    line.insert("start".into(), place(scan, result.start.map(f64::from)));
    line.insert("steps".into(), result.steps.into());
    line.insert("terminated".into(), terminated(result).into());
    line.insert("final".into(), place(scan, result.prediction));
    line.insert("landmark".into(), truth(scan, result));
    line.insert("error_mm".into(), json!(result.error_mm));
    let step = |step: &TrajectoryStep| {
        json!({
            "loc": place(scan, step.position.map(f64::from)),
            "scale": step.stride,
            "action": step.action,
            "q": step.q.map(|q| q + 0.0),
            "reward": step.reward + 0.0,
        })
    };
    let steps: Vec<Value> = steps(result).iter().map(step).collect();
    line.insert("trajectory".into(), steps.into());
}

fn fill_group(line: &mut Map<String, Value>, results: &[&StartResult], scan: &Scan) {
    let each = |value: &dyn Fn(&StartResult) -> Value| -> Value {
        results.iter().map(|r| value(r)).collect::<Vec<_>>().into()
    };
    let longest = results.iter().map(|r| r.steps).max().unwrap_or(0);
    let starts = each(&|r| place(scan, r.start.map(f64::from)));
    line.insert("start".into(), starts);
    line.insert("steps".into(), longest.into());
    let terminated = results.iter().all(|r| terminated(r));
    line.insert("terminated".into(), terminated.into());
    line.insert("finals".into(), each(&|r| place(scan, r.prediction)));
    line.insert("landmarks".into(), each(&|r| truth(scan, r)));
    line.insert("errors_mm".into(), each(&|r| json!(r.error_mm)));
    let trajectory = (0..usize::from(longest)).map(|number| {
        // An agent that has ended keeps its last step.
        let now = results
            .iter()
            .map(|r| steps(r).get(number).or(steps(r).last()));
        let now: Vec<&TrajectoryStep> = now.flatten().collect();
        let of = |value: &dyn Fn(&TrajectoryStep) -> Value| -> Value {
            now.iter().map(|s| value(s)).collect::<Vec<_>>().into()
        };
        json!({
            "locations": of(&|s| place(scan, s.position.map(f64::from))),
            "scale": now.first().map(|s| s.stride),
            "actions": of(&|s| s.action.into()),
            "q": of(&|s| json!(s.q.map(|q| q + 0.0))),
            "rewards": of(&|s| json!(s.reward + 0.0)),
        })
    });
    let trajectory: Vec<Value> = trajectory.collect();
    line.insert("trajectory".into(), trajectory.into());
}

fn steps(result: &StartResult) -> &[TrajectoryStep] {
    result.trajectory.as_deref().unwrap_or_default()
}

fn terminated(result: &StartResult) -> bool {
    result.end != End::Cap
}

/// A position in the file's own voxels; integral values become integers, −0 too.
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

fn truth(scan: &Scan, result: &StartResult) -> Value {
    let file = |voxel| unsigned_zeros(scan.geometry.axis_map.to_file(voxel));
    json!(landmark(scan, result.agent).map(file))
}
