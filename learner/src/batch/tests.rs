//! Batches equal the renderer's windows, and errors name invalid rows.

use super::*;
use crate::testing::{self, scans};
use common::config::{AugmentConfig, Config};
use common::imaging::volume::Volume;
use common::transition::row::FrameRef;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

/// Two agents, windows of 6³, two frames.
fn config() -> Config {
    let mut config = Config::defaults().unwrap();
    (config.rules.window_size, config.rules.history) = (6, 2);
    config.data.landmarks = vec!["A".into(), "B".into()];
    config
}

fn collator(enabled: bool, group: usize, threads: usize) -> Collator {
    let augment = AugmentConfig {
        enabled,
        gamma: 0.3,
        contrast: 0.2,
        offset: 0.1,
        noise: 0.03,
    };
    let augmenter = Augmenter::new(&augment, 216, &mut ChaCha8Rng::seed_from_u64(9));
    Collator::new(scans(3), &config(), group, augmenter, threads)
}

fn filled(collator: &mut Collator, rows: &[SampledRow]) -> Batch {
    let mut batch = Batch::default();
    collator
        .fill(rows, &mut batch, &mut ChaCha8Rng::seed_from_u64(1))
        .unwrap();
    batch
}

fn sampled(n: u32, group: u16) -> Vec<SampledRow> {
    (0..n).map(|i| testing::sampled(i, group, 2, 0.5)).collect()
}

#[test]
fn windows_equal_the_renderers_and_absent_frames_are_zero() {
    let mut rows = sampled(5, 1);
    rows[3].row.agents[0].state[0].valid = false;
    let batch = filled(&mut collator(false, 1, 1), &rows);
    assert_eq!(
        (batch.rows, batch.agents, batch.state.len()),
        (5, 1, 5 * 2 * 216)
    );
    let scans = scans(3);
    for (i, sampled) in rows.iter().enumerate() {
        let a = &sampled.row.agents[0];
        let scan = &scans[usize::from(sampled.row.header.scan)];
        for (frames, windows) in [(&a.state, &batch.state), (&a.next, &batch.next)] {
            for (h, frame) in frames.iter().enumerate() {
                let found = &windows[(i * 2 + h) * 216..][..216];
                let mut bytes = vec![0; 216];
                // Windows with zero discount are not rendered.
                let needed = std::ptr::eq(frames, &a.state) || a.discount != 0.0;
                if frame.valid && needed {
                    let at = frame.position.map(i32::from);
                    let rule = WindowRule::Centred;
                    render(&scan.volume, rule, 6, at, frame.stride, &mut bytes);
                }
                let expected: Vec<f32> = bytes.iter().map(|&b| f32::from(b) / 255.0).collect();
                assert_eq!(found, expected, "row {i} frame {h}");
            }
        }
        assert_eq!(batch.keys[i], sampled.key);
        assert_eq!(batch.action[i], i64::from(a.action));
        assert_eq!(batch.scale[i], i64::from(a.scale));
    }
    assert_eq!(batch.weight, [0.5; 5]);
}

#[test]
fn a_cached_volume_that_changes_gives_no_batch() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cache");
    let cache = common::imaging::cache::VolumeCache::new(Some(&folder));
    let mut collator = collator(false, 1, 1);
    for scan in &mut collator.scans {
        let path = dir.path().join("scan.nii");
        common::imaging::nifti_io::write_volume(&path, &scan.volume, &scan.geometry).unwrap();
        let loaded = cache.load(&path, &Default::default()).unwrap();
        Arc::make_mut(scan).volume = loaded.volume;
    }
    let rows = sampled(5, 1);
    filled(&mut collator, &rows);
    let cached = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap();
    std::fs::File::create(cached.path()).unwrap();
    let mut batch = Batch::default();
    let filled = collator.fill(&rows, &mut batch, &mut ChaCha8Rng::seed_from_u64(1));
    assert!(matches!(filled, Err(FillError::Volume(_))), "{filled:?}");
}

#[test]
fn augmentation_draws_a_look_per_row_and_leaves_absent_frames_alone() {
    let mut rows = sampled(4, 1);
    for r in &mut rows {
        // One window for all frames of all rows; the first is absent.
        r.row = row_of_one_window(&r.row);
    }
    let batch = filled(&mut collator(true, 1, 1), &rows);
    let (absent, present) = batch.state.split_at(216);
    assert!(absent.iter().all(|v| *v == 0.0));
    let mean = |s: &[f32]| s.iter().sum::<f32>() / s.len() as f32;
    let means = [0, 1, 2, 3].map(|i| mean(&batch.state[(i * 2 + 1) * 216..][..216]));
    let mut others = means[1..].iter();
    assert!(others.any(|m| (m - means[0]).abs() > 0.01), "{means:?}");
    // A frame shared by state and bootstrap state is rendered once, with the same noise.
    assert_eq!(present[..216], batch.next[216..432]);
    assert_eq!(batch.next[..216], batch.next[216..432]);
}

fn row_of_one_window(row: &Row) -> Row {
    let mut row = row.clone();
    (row.header.scan, row.agents[0].discount) = (0, 0.9);
    let frame = FrameRef {
        position: [10, 10, 10],
        stride: 1,
        valid: true,
    };
    row.agents[0].state = vec![FrameRef::default(), frame];
    row.agents[0].next = vec![frame; 2];
    row
}

#[test]
fn posed_rows_show_the_posed_scan() {
    let mut config = config();
    (config.augment.enabled, config.pose.share) = (false, 0.5);
    config.pose.rotation_degrees = 60.0;
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let augmenter = Augmenter::new(&config.augment, 216, &mut rng);
    let mut collator = Collator::new(scans(3), &config, 1, augmenter, 1);
    let mut rows = sampled(6, 1);
    for (number, r) in (0..).zip(&mut rows) {
        r.row.header.pose = number;
    }
    let batch = filled(&mut collator, &rows);
    let (poses, scans) = (Poses::new(&config.pose, config.run.seed), scans(3));
    let mut changed = 0;
    for (i, sampled) in rows.iter().enumerate() {
        let scan = &scans[usize::from(sampled.row.header.scan)];
        let pose = poses.get(sampled.row.header.pose, &scan.geometry);
        let posed = pose.map_or((**scan).clone(), |pose| scan.posed(pose));
        let frame = &sampled.row.agents[0].state[1];
        let picture = |volume: &Volume| -> Vec<f32> {
            let mut bytes = vec![0; 216];
            let at = frame.position.map(i32::from);
            render(volume, WindowRule::Centred, 6, at, frame.stride, &mut bytes);
            bytes.iter().map(|&b| f32::from(b) / 255.0).collect()
        };
        assert_eq!(
            batch.state[(i * 2 + 1) * 216..][..216],
            picture(&posed.volume)
        );
        changed += usize::from(picture(&posed.volume) != picture(&scan.volume));
    }
    assert_eq!(changed, 5, "all but pose 0");
}

#[test]
fn threads_and_reused_buffers_change_nothing() {
    let rows = sampled(7, 2);
    let one = filled(&mut collator(true, 2, 1), &rows);
    assert_eq!((one.agents, &one.agent), (2, &[0, 1].repeat(7)));
    for threads in [2, 3, 16] {
        assert_eq!(filled(&mut collator(true, 2, threads), &rows), one);
    }
    let mut reused = filled(&mut collator(true, 2, 2), &sampled(9, 2));
    let mut again = collator(true, 2, 2);
    again
        .fill(&rows, &mut reused, &mut ChaCha8Rng::seed_from_u64(1))
        .unwrap();
    assert_eq!(reused, one);
    assert_eq!(filled(&mut collator(true, 2, 2), &[]).rows, 0);
}

#[test]
fn invalid_rows_are_refused_with_the_reason() {
    let error = |change: fn(&mut Row)| {
        let mut rows = sampled(3, 2);
        change(&mut rows[1].row);
        let mut batch = Batch::default();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        collator(false, 2, 1)
            .fill(&rows, &mut batch, &mut rng)
            .unwrap_err()
            .to_string()
    };
    for reward in [1.01, -1.01, 1e30, f32::INFINITY, f32::NEG_INFINITY] {
        let words = format!("reward {reward}, steps earn 1.0001 at most");
        let mut rows = sampled(3, 2);
        rows[1].row.agents[0].reward = reward;
        let found = collator(false, 2, 1).check(&rows[1]).unwrap_err();
        assert!(found.to_string().contains(&words), "{found}");
    }
    let text = error(|r| r.agents[1].discount = 1.0);
    assert!(text.contains("discount 1, steps leave 0.9"), "{text}");
    // One that did not move has neither.
    let mut still = sampled(3, 2);
    let agent = &mut still[1].row.agents[1];
    (agent.active, agent.reward, agent.discount) = (false, 0.0, 1.0);
    assert_eq!(collator(false, 2, 1).check(&still[1]), Ok(()));
    let expected = "row 1 of shard 0 (actor 0, episode 0, step 1): scan 3 of 3";
    assert_eq!(error(|r| r.header.scan = 3), expected);
    assert!(error(|r| r.header.pose = 7).contains("pose 7"));
    assert!(error(|r| r.agents[1].agent = 5).contains("agent 5 of 2"));
    assert!(error(|r| r.agents.swap(0, 1)).contains("agent 1 of 2 at place 0"));
    assert!(error(|r| r.agents[0].next_scale = 3).contains("scale 3 of 3"));
    assert!(error(|r| r.agents.truncate(1)).contains("1 agents, 2 expected"));
    assert!(error(|r| r.agents[0].next.truncate(1)).contains("1 frames, 2 expected"));
}
