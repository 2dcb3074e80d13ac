//! Table tests of the environment's rules, under both presets.

use proptest::prelude::*;

use super::*;
use crate::environment::rules::TerminalPosition;
use crate::imaging::geometry::Geometry;

const UP: u8 = 0;
const FORWARD: u8 = 1;
const RIGHT: u8 = 2;
const LEFT: u8 = 3;
const BACKWARD: u8 = 4;
const DOWN: u8 = 5;

fn scan(dims: [usize; 3], spacing: f64, landmarks: Vec<Option<[f64; 3]>>) -> Arc<Scan> {
    Arc::new(Scan::uniform(
        Geometry::straight(dims, [spacing; 3]),
        landmarks,
    ))
}

fn at(position: [i32; 3]) -> Start {
    Start { position, scale: 0 }
}

fn environment(rules: Rules, scan: &Arc<Scan>, mode: Mode, starts: &[Start]) -> Environment {
    let ids: Vec<u16> = (0..starts.len() as u16).collect();
    Environment::new(Arc::new(rules), Arc::clone(scan), mode, &ids, starts)
}

/// One agent in training.
fn trained(rules: Rules, scan: &Arc<Scan>, start: [i32; 3]) -> Environment {
    environment(rules, scan, Mode::Train, &[at(start)])
}

fn fixed_scale(mut rules: Rules) -> Rules {
    rules.scales = vec![(1, 1).into()];
    rules
}

#[test]
fn six_actions_move_along_their_axes() {
    let scan = scan([50, 50, 50], 1.0, vec![Some([25.0; 3])]);
    let table = [
        (UP, [25, 25, 34]),
        (FORWARD, [25, 34, 25]),
        (RIGHT, [34, 25, 25]),
        (LEFT, [16, 25, 25]),
        (BACKWARD, [25, 16, 25]),
        (DOWN, [25, 25, 16]),
    ];
    for (action, to) in table {
        let mut w = trained(Rules::standard(), &scan, [25, 25, 25]);
        let o = w.step(&[action], &[0.0]);
        assert_eq!(w.position(0), to);
        assert!(o[0].active && !o[0].blocked && !o[0].terminal);
    }
}

#[test]
fn rewards_are_decreases_of_the_distance_in_the_rules_unit() {
    // Half a millimetre per voxel, the target 30 voxels to the right.
    let scan = scan([60, 20, 20], 0.5, vec![Some([40.0, 10.0, 10.0])]);
    let reward = |rules: Rules, action| {
        trained(rules, &scan, [10, 10, 10]).step(&[action], &[0.0])[0].reward
    };
    assert_eq!(reward(Rules::standard(), RIGHT), 9.0, "nine finest steps");
    assert_eq!(reward(Rules::reference(), RIGHT), 4.5, "mm");
    assert_eq!(reward(Rules::standard(), LEFT), -9.0);
    let mut blocked = trained(Rules::standard(), &scan, [10, 10, 15]);
    let o = blocked.step(&[UP], &[0.0])[0];
    assert_eq!(
        (o.blocked, o.reward, blocked.position(0)),
        (true, -1.0, [10, 10, 15])
    );
}

#[test]
fn index_zero_is_reachable_under_our_rules_only() {
    let scan = scan([10, 10, 10], 1.0, vec![Some([5.0; 3])]);
    for (rules, x) in [(Rules::standard(), 0), (Rules::reference(), 1)] {
        let mut w = trained(fixed_scale(rules), &scan, [1, 5, 5]);
        w.step(&[LEFT], &[0.0]);
        assert_eq!(w.position(0)[0], x);
    }
    let mut w = trained(fixed_scale(Rules::standard()), &scan, [9, 5, 5]);
    assert!(w.step(&[RIGHT], &[0.0])[0].blocked, "at the last index");
}

#[test]
fn oscillation_goes_down_the_scales_and_ends_at_the_last_as_a_truncation() {
    let scan = scan([60, 60, 60], 1.0, vec![Some([30.0; 3])]);
    let mut w = trained(Rules::standard(), &scan, [30, 30, 30]);
    let mut switches = Vec::new();
    let mut last = StepResult::default();
    for i in 0.. {
        let scale = w.observation(0).scale;
        last = w.step(&[if i % 2 == 0 { RIGHT } else { LEFT }], &[0.0])[0];
        if w.observation(0).scale != scale {
            switches.push((w.steps(), w.position(0), w.observation(0).frames[0]));
        }
        if w.finished() {
            break;
        }
    }
    // Positions after the moves: 39, 30, 39, 30, 39, 30, 39: the fourth visit
    // is the seventh step; the cycle's mean 34.5 rounds to 35.
    let frame = |x, stride| FrameRef {
        position: [x, 30, 30],
        stride,
        valid: true,
    };
    assert_eq!(switches[0], (7, [35, 30, 30], frame(35, 2)));
    // 32, 35, 32, … : 33.5 rounds to 34, and the window's stride follows.
    assert_eq!(switches[1], (14, [34, 30, 30], frame(34, 1)));
    assert_eq!(w.steps(), 21);
    // Steps 15 to 21 start with a move to the right: 35, 34, … 35.
    assert_eq!(
        w.prediction(0),
        ([34.5, 30.0, 30.0], Some(End::Oscillation)),
        "sub-voxel"
    );
    assert!(!last.terminal, "the bootstrap goes on");
    assert_eq!(
        w.step(&[UP], &[0.0])[0],
        StepResult::default(),
        "a finished episode does not change"
    );
}

/// Published searches beside the three scales: one fixed scale, and the
/// cardiac alternative whose last steps are of two voxels.
#[test]
fn other_schedules_use_their_own_strides_and_steps() {
    for schedule in [
        vec![(1, 1)],
        vec![(3, 1)],
        vec![(2, 6), (1, 2)],
        vec![(3, 9), (2, 3), (1, 1)],
    ] {
        let mut rules = Rules::reference();
        rules.scales = schedule.iter().map(|&s| s.into()).collect();
        let scan = scan([80; 3], 1.0, vec![Some([70.0; 3])]);
        let mut w = environment(rules, &scan, Mode::Evaluate, &[at([40; 3])]);
        let mut used = Vec::new();
        for i in 0..200 {
            let stride = w.observation(0).frames.last().unwrap().stride;
            let before = w.position(0)[0];
            let scale = w.observation(0).scale;
            w.step(&[if i % 2 == 0 { RIGHT } else { LEFT }], &[0.0]);
            if w.finished() {
                break;
            }
            // The step that ends a scale goes back to one of its last four places.
            if w.observation(0).scale == scale {
                used.push((stride, w.position(0)[0].abs_diff(before)));
            }
        }
        assert!(w.finished(), "{schedule:?}: {} steps", w.steps());
        used.dedup();
        let expected: Vec<(u8, u32)> = schedule.iter().map(|&(a, b)| (a, b.into())).collect();
        assert_eq!(used, expected);
    }
}

#[test]
fn the_step_cap_truncates_or_ends() {
    let scan = scan([60, 60, 60], 1.0, vec![Some([30.0; 3])]);
    for (rule, terminal) in [
        (TruncationRule::Truncate, false),
        (TruncationRule::Terminal, true),
    ] {
        let rules = Rules {
            max_steps: 2,
            episode_end: rule,
            ..Rules::standard()
        };
        let mut w = trained(rules, &scan, [30, 30, 30]);
        assert!(!w.step(&[UP], &[0.0])[0].terminal);
        assert_eq!(w.step(&[UP], &[0.0])[0].terminal, terminal);
        assert_eq!(w.prediction(0), ([30.0, 30.0, 48.0], Some(End::Cap)));
    }
}

#[test]
fn each_target_rule_ends_the_episode_at_its_step() {
    let scan = scan([60, 60, 60], 1.0, vec![Some([30.0; 3])]);
    let terminals = |target| {
        let rules = Rules {
            target,
            ..fixed_scale(Rules::standard())
        };
        let mut w = trained(rules, &scan, [32, 30, 30]);
        (0..3)
            .map(|_| w.step(&[LEFT], &[0.0])[0].terminal)
            .collect::<Vec<_>>()
    };
    // Distances before the moves: 2, 1, 0; after them: 1, 0, 1.
    assert_eq!(terminals(TargetRule::Continue), [false, false, false]);
    assert_eq!(
        terminals(TargetRule::Radius(0.5)),
        [false, true, false],
        "and then it is frozen"
    );
    let rules = Rules {
        target: TargetRule::LateMillimetres(1.0),
        ..fixed_scale(Rules::reference())
    };
    let mut w = trained(rules, &scan, [32, 30, 30]);
    assert!(
        !w.step(&[LEFT], &[0.0])[0].terminal,
        "it was 2 mm away before this move"
    );
    assert!(w.step(&[LEFT], &[0.0])[0].terminal, "one step late");
    assert_eq!(w.prediction(0).1, Some(End::Target));
}

#[test]
fn evaluation_never_looks_at_the_target() {
    let scan = scan([60, 60, 60], 1.0, vec![Some([30.0; 3])]);
    let rules = Rules {
        target: TargetRule::Radius(5.0),
        ..fixed_scale(Rules::standard())
    };
    let mut w = environment(rules, &scan, Mode::Evaluate, &[at([30, 30, 30])]);
    assert!(!w.step(&[LEFT], &[0.0])[0].terminal && !w.finished());
}

#[test]
fn shared_agents_switch_and_end_together() {
    let scan = scan([90, 90, 90], 1.0, vec![Some([45.0; 3]), Some([50.0; 3])]);
    let rules = Rules {
        window: crate::environment::window::WindowRule::Centred,
        ..Rules::reference()
    };
    let starts = [at([45, 45, 45]), at([20, 20, 20])];
    let mut w = environment(rules, &scan, Mode::Train, &starts);
    // The first goes to and fro between two positions; the second moves along
    // x and z and then starts to oscillate.
    let first = |i: u16| if i.is_multiple_of(2) { RIGHT } else { LEFT };
    let second = |i: u16| match i {
        0..4 => RIGHT,
        _ if i.is_multiple_of(2) => UP,
        _ => DOWN,
    };
    let mut switched = None;
    for i in 0..20 {
        w.step(&[first(i), second(i)], &[f32::from(i), -f32::from(i)]);
        if w.observation(0).scale == 1 {
            let positions = [0, 1].map(|agent| w.position(agent));
            switched = Some((w.steps(), positions, w.observation(1).scale));
            break;
        }
    }
    // The second's positions from step 4 on: z 29, 20, 29, … after steps 5, 6, …;
    // with z = 20 also after step 4, its fourth visit to z = 20 is step 10. The
    // first's two positions and the filler are too few entries until the filler
    // is outnumbered: after step 14, 7 visits each and 6 fillers. Lowest max-Q of
    // the last four: the oldest for the first (q = i rises), the newest for the second.
    assert_eq!(switched, Some((14, [[54, 45, 45], [56, 20, 20]], 1)));
}

#[test]
fn agents_without_a_landmark_freeze_in_training_and_move_in_evaluation() {
    let scan = scan([60, 60, 60], 1.0, vec![Some([30.0; 3]), None]);
    let starts = [at([10, 10, 10]), at([20, 20, 20])];
    let mut w = environment(Rules::standard(), &scan, Mode::Train, &starts);
    let o = w.step(&[RIGHT, RIGHT], &[0.0; 2]);
    assert!(o[0].active && !o[1].active);
    assert_eq!(
        (w.position(1), w.prediction(1).1),
        ([20, 20, 20], Some(End::Missing))
    );
    let mut w = environment(Rules::standard(), &scan, Mode::Evaluate, &starts);
    assert!(w.step(&[RIGHT, RIGHT], &[0.0; 2])[1].active);
    assert_eq!(w.position(1), [29, 20, 20]);
}

#[test]
fn histories_begin_with_invalid_frames_and_mix_strides_after_a_switch() {
    let scan = scan([60, 60, 60], 1.0, vec![Some([30.0; 3])]);
    let rules = Rules {
        history: 3,
        ..Rules::standard()
    };
    let mut w = trained(rules, &scan, [30, 30, 30]);
    let valid = |w: &Environment| -> Vec<bool> {
        let frames = w.observation(0).frames;
        frames.iter().map(|frame| frame.valid).collect()
    };
    assert_eq!(valid(&w), [false, false, true]);
    w.step(&[RIGHT], &[0.0]);
    assert_eq!(valid(&w), [false, true, true]);
    for i in 1..7 {
        w.step(&[if i % 2 == 0 { RIGHT } else { LEFT }], &[0.0]);
    }
    let strides: Vec<_> = w.observation(0).frames.iter().map(|f| f.stride).collect();
    assert_eq!(strides, [4, 4, 2]);
}

#[test]
fn the_best_actions_reach_the_voxel() {
    let target = [37.4, 12.2, 48.9];
    let scan = scan([60, 60, 60], 0.3, vec![Some(target)]);
    for prediction in [TerminalPosition::CycleMean, TerminalPosition::LowestQ] {
        let rules = Rules {
            terminal_position: prediction,
            ..Rules::standard()
        };
        let mut w = trained(rules, &scan, [5, 55, 5]);
        while !w.finished() {
            let best = w.best_action(0).unwrap();
            w.step(&[best], &[0.0]);
        }
        let (found, end) = w.prediction(0);
        let error = crate::imaging::geometry::distance_mm(found, target, [1.0; 3]);
        assert!(
            end == Some(End::Oscillation) && error < 1.0,
            "{prediction:?}: {found:?}"
        );
    }
}

proptest! {
    #[test]
    fn agents_never_leave_the_volume_and_episodes_end(
        dims in prop::array::uniform3(3_usize..40),
        actions in prop::collection::vec(0_u8..6, 160),
        reference in any::<bool>(),
    ) {
        let scan = scan(dims, 1.0, vec![Some([1.0; 3])]);
        let mut rules = if reference { Rules::reference() } else { Rules::standard() };
        rules.max_steps = 150;
        let mut w = trained(rules, &scan, dims.map(|d| (d / 2) as i32));
        for action in actions {
            let before = w.finished();
            let o = w.step(&[action], &[0.0])[0];
            prop_assert!(!(before && o.active));
            let p = w.position(0);
            prop_assert!((0..3).all(|i| p[i] >= 0 && usize::try_from(p[i]).unwrap() < dims[i]));
            prop_assert!(o.reward.is_finite());
        }
        prop_assert!(w.finished());
    }
}

#[test]
fn strategies_use_the_steps_of_all_agents() {
    let mut rules = fixed_scale(Rules::reference());
    rules.strategy = crate::environment::reward::RewardStrategy::LineAndPairsOnly;
    rules.team = TeamReward::Mean;
    // Targets on a line along x, 2 mm voxels.
    let targets = vec![Some([10.0; 3]), Some([30.0, 10.0, 10.0])];
    let scan = scan([50; 3], 2.0, targets);
    let starts = [at([10, 14, 10]), at([30, 1, 10])];
    let mut w = environment(rules, &scan, Mode::Train, &starts);
    let results = w.step(&[BACKWARD, BACKWARD], &[0.0; 2]);
    // Agent 0: one voxel nearer to the line: 2 mm. The pair: agent 1 is blocked
    // at y = 1, so √(20² + 13²) becomes √(20² + 12²) voxels, 20 wanted.
    let pair = 2.0 * (f64::hypot(20.0, 13.0) - f64::hypot(20.0, 12.0));
    let off = f64::from(results[0].reward) - (2.0 + pair);
    assert!(off.abs() < 1e-5, "{results:?}");
    assert!(results[1].blocked && results[1].reward == BLOCKED_REWARD);
    // The team: the mean of 1 (clipped) and −1, for both.
    assert_eq!([results[0].team, results[1].team], [0.0, 0.0]);
    let results = w.step(&[BACKWARD, FORWARD], &[0.0; 2]);
    assert_eq!([results[0].team, results[1].team], [1.0, 1.0]);
}

#[test]
fn an_environment_continues_from_its_state_as_if_never_stopped() {
    let s = scan([40; 3], 1.0, vec![Some([30.0, 12.0, 9.5]), Some([20.0; 3])]);
    let starts = [at([5, 6, 7]), at([21, 19, 20])];
    let action = |w: &Environment, i| w.best_action(i).unwrap_or(0);
    let q = |step: u16| [0.1 * f32::from(step), -1.0 / 3.0];
    for stop in [0, 1, 7, 15, 40] {
        let mut never_stopped = environment(Rules::standard(), &s, Mode::Train, &starts);
        for step in 0..stop {
            let actions = [action(&never_stopped, 0), action(&never_stopped, 1)];
            never_stopped.step(&actions, &q(step));
        }
        let json = serde_json::to_string(&never_stopped.state()).unwrap();
        let state: EnvironmentState = serde_json::from_str(&json).unwrap();
        assert_eq!(state.ids(), [0, 1]);
        let rules = Arc::new(Rules::standard());
        let restored = |rules: &Arc<Rules>, scan: &Arc<Scan>| {
            let (rules, scan) = (Arc::clone(rules), Arc::clone(scan));
            Environment::from_state(rules, scan, Mode::Train, state.clone())
        };
        let mut again = restored(&rules, &s).unwrap();
        for step in stop..90 {
            let actions = [action(&again, 0), action(&again, 1)];
            assert_eq!(
                again.step(&actions, &q(step)),
                never_stopped.step(&actions, &q(step)),
                "stopped at {stop}, step {step}"
            );
            assert_eq!(again.observation(1), never_stopped.observation(1));
            assert_eq!(again.prediction(0), never_stopped.prediction(0));
        }
        assert!(again.finished());
        let smaller = scan([6; 3], 1.0, vec![Some([30.0, 12.0, 9.5]), Some([20.0; 3])]);
        let elsewhere = restored(&rules, &smaller);
        assert!(elsewhere.is_none(), "its agents are outside this scan");
        assert!(restored(&Arc::new(Rules::reference()), &s).is_none());
    }
}
