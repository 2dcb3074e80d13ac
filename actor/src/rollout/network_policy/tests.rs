//! A batch of views gives the same Q-values as each view alone.

use super::*;
use crate::fixture::scan_with;
use common::environment::Observation;
use common::imaging::scan::Scan;
use common::imaging::volume::Volume;
use common::transition::row::FrameRef;
use model::NetworkSpec;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

fn network(spec: &NetworkSpec) -> Network {
    Network::new(spec, &mut ChaCha8Rng::seed_from_u64(8), Device::Cpu).unwrap()
}

fn seen(x: i16, scale: u8) -> Observation {
    let frame = |valid| FrameRef {
        position: [x, 10, 9],
        stride: 3 - scale,
        valid,
    };
    Observation {
        frames: vec![frame(false), frame(true)],
        scale,
    }
}

fn view<'a>(scan: &'a Arc<Scan>, agents: &'a [u16], observations: &'a [Observation]) -> View<'a> {
    View {
        scan,
        agents,
        observations,
    }
}

#[test]
fn a_cached_volume_that_changes_is_an_error_and_not_other_voxels() {
    let dir = tempfile::tempdir().unwrap();
    let made = scan_with(&[]);
    let path = dir.path().join("scan.nii");
    common::imaging::nifti_io::write_volume(&path, &made.volume, &made.geometry).unwrap();
    let folder = dir.path().join("cache");
    let cache = common::imaging::cache::VolumeCache::new(Some(&folder));
    let loaded = cache.load(&path, &Default::default()).unwrap();
    let scan = Arc::new(Scan {
        volume: loaded.volume,
        geometry: loaded.geometry,
        ..(*made).clone()
    });
    let mut policy = policy(&NetworkSpec::small(1, 2, Some(3)), Samples::Bytes);
    let observations = [seen(12, 2)];
    let views = [view(&scan, &[0], &observations)];
    policy.q_values(&views).unwrap();
    let cached = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap();
    std::fs::File::create(cached.path()).unwrap();
    let error = policy.q_values(&views).unwrap_err();
    assert!(matches!(error, PolicyError::Volume(_)), "{error}");
}

/// A policy with version 1 of this network.
fn policy(spec: &NetworkSpec, samples: Samples) -> NetworkPolicy {
    let mut policy = NetworkPolicy::new(&rules(), samples, Device::Cpu);
    policy.set_network(&network(spec), 1).unwrap();
    policy
}

fn rules() -> Rules {
    Rules {
        history: 2,
        ..Rules::standard()
    }
}

#[test]
fn a_batch_of_scans_equals_each_on_its_own_and_the_network_itself() {
    let net = network(&NetworkSpec::small(3, 2, Some(3)));
    let mut policy = NetworkPolicy::new(&rules(), Samples::Bytes, Device::Cpu);
    let scan = scan_with(&[]);
    let observations: Vec<_> = [(3, 0), (12, 2), (29, 1)].map(|(x, s)| seen(x, s)).into();
    let agents = [2, 0, 1];
    let view = |i: usize| view(&scan, &agents[i..=i], &observations[i..=i]);
    let views = [0, 1, 2].map(view);
    let without = policy.q_values(&views);
    assert!(matches!(without, Err(PolicyError::NoWeights)));
    policy.set_network(&net, 9).unwrap();
    assert_eq!(policy.weights_version(), 9);
    let together = policy.q_values(&views).unwrap();
    for i in 0..3 {
        let alone = policy.q_values(&[view(i)]).unwrap()[0];
        let mut cube = vec![0; 24_usize.pow(3)];
        let o = &observations[i].frames[1];
        let (rule, at) = (rules().window, o.position.map(i32::from));
        window::render(&scan.volume, rule, 24, at, o.stride, &mut cube);
        let mut both = vec![0.0; cube.len()];
        both.extend(cube.iter().map(|&b| f32::from(b) / 255.0));
        let windows = Tensor::from_slice(&both).reshape([1, 2, 24, 24, 24]);
        let plan = HeadPlan::new(&[i64::from(agents[i])], 3, Device::Cpu).unwrap();
        let scale = Tensor::from_slice(&[i64::from(observations[i].scale)]);
        let direct = tch::no_grad(|| net.forward_rows(&windows, &plan, Some(&scale))).unwrap();
        let direct = Vec::<f32>::try_from(direct.reshape([-1])).unwrap();
        for a in 0..6 {
            for other in [alone[a], direct[a]] {
                let apart = (together[i][a] - other).abs();
                assert!(apart < 1e-5, "{other}: {together:?}");
            }
        }
    }
    assert_ne!(together[0], together[1]);
    assert_eq!(policy.q_values(&[]).unwrap(), Vec::<QValues>::new());
}

#[test]
fn times_are_those_of_the_given_clock() {
    let ticks = std::sync::atomic::AtomicU64::new(0);
    let clock =
        move || Duration::from_secs(ticks.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let mut policy = policy(&NetworkSpec::small(1, 2, None), Samples::Bytes).with_clock(clock);
    let (scan, o) = (scan_with(&[]), [seen(3, 0)]);
    policy.q_values(&[view(&scan, &[0], &o)]).unwrap();
    let second = Duration::from_secs(1);
    let expected = PolicyTimes {
        render: second,
        forward: second,
        batches: 1,
        observations: 1,
    };
    assert_eq!(policy.take_times(), expected);
    assert_eq!(policy.take_times(), PolicyTimes::default());
}

#[test]
fn networks_for_other_rules_are_refused_and_the_old_stays() {
    let mut policy = policy(&NetworkSpec::small(1, 2, Some(3)), Samples::Bytes);
    for (history, scales, difference) in [
        (
            1,
            3,
            "history is 1 in the network and 2 in the configuration",
        ),
        (
            2,
            2,
            "scales is 2 in the network and 3 in the configuration",
        ),
    ] {
        let other = network(&NetworkSpec::small(1, history, Some(scales)));
        let error = policy.set_network(&other, 2).unwrap_err().to_string();
        assert!(error.contains(difference), "{error}");
    }
    assert_eq!(policy.weights_version(), 1);
}

#[test]
fn a_commnet_takes_whole_groups() {
    let spec = NetworkSpec {
        kind: NetworkKind::Commnet,
        ..NetworkSpec::small(2, 2, Some(3))
    };
    let mut policy = policy(&spec, Samples::Bytes);
    let scan = scan_with(&[]);
    let o = [seen(3, 0), seen(20, 1), seen(11, 0), seen(15, 2)];
    let group = |at: usize| view(&scan, &[0, 1], &o[at..at + 2]);
    let both = policy.q_values(&[group(0), group(2)]).unwrap();
    let second = policy.q_values(&[group(2)]).unwrap();
    let pairs = both[2..].as_flattened().iter().zip(second.as_flattened());
    for (a, b) in pairs {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    let error = policy.q_values(&[view(&scan, &[1], &o[..1])]).unwrap_err();
    let expected = "a commnet needs all 2 agents of a group in order, got agents [1]";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn float_volumes_are_truncated_for_training_and_exact_for_evaluation() {
    let scan = |value: f32| {
        let base = scan_with(&[]);
        let dims = base.geometry.dims;
        let volume = Volume::from_f32(dims, vec![value; dims.iter().product()]).unwrap();
        Arc::new(Scan {
            volume,
            ..(*base).clone()
        })
    };
    let q = |samples, value| {
        let mut policy = policy(&NetworkSpec::small(1, 2, None), samples);
        let (scan, o) = (scan(value), [seen(15, 2)]);
        policy.q_values(&[view(&scan, &[0], &o)]).unwrap()
    };
    assert_eq!(q(Samples::Bytes, 100.9), q(Samples::Bytes, 100.0));
    assert_eq!(q(Samples::Exact, 100.0), q(Samples::Bytes, 100.0));
    assert_ne!(q(Samples::Exact, 100.9), q(Samples::Bytes, 100.9));
}

#[test]
fn diverged_weights_are_named() {
    let net = network(&NetworkSpec::small(1, 2, None));
    let trainable = net.trainable().into_iter();
    tch::no_grad(|| trainable.for_each(|mut t| drop(t.fill_(f64::NAN))));
    let mut policy = NetworkPolicy::new(&rules(), Samples::Bytes, Device::Cpu);
    policy.set_network(&net, 12).unwrap();
    let (scan, o) = (scan_with(&[]), [seen(3, 0)]);
    let error = policy.q_values(&[view(&scan, &[0], &o)]).unwrap_err();
    let start = "weights version 12 give Q-values that are not finite";
    assert!(error.to_string().starts_with(start), "{error}");
}
