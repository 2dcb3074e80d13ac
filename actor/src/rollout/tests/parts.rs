//! Slots that take turns.

use super::*;

#[test]
fn slots_in_parts_give_what_all_at_once_give() {
    let config = fixture::config();
    let scans = [scan_with(&[Some(TARGET), Some([3.0; 3])])];
    let mut whole = rollout(&config, &scans, 0.3);
    let expected = run(&mut whole, &mut RandomPolicy::new(5), 200);
    assert!(expected.rows.len() > 300 && expected.ended > 3);
    for (windows, parts) in [(0, 4), (1, 4), (3, 2), (100, 1)] {
        let mut rollout = rollout(&config, &scans, 0.3);
        let mut policy = RandomPolicy::new(5);
        let (mut rows, mut steps) = (Vec::new(), 0);
        for part in 0..200 * parts {
            assert_eq!(rollout.next == 0, part % parts == 0, "{windows} windows");
            let report = rollout.step_some(&mut policy, 1.0, windows).unwrap();
            rows.extend(report.rows);
            steps += report.env_steps;
        }
        assert_eq!((rows, steps), (expected.rows.clone(), expected.env_steps));
    }
}
