//! One answer from several walks: robust, with its spread as a confidence.

use crate::imaging::geometry::distance_mm;

/// What several walks agree on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Consensus {
    /// Voxel position in our volume.
    pub position: [f64; 3],
    /// Mean distance (mm) to it of all places where walks ended a scale, their
    /// answers among them: small when walks agree on every scale.
    pub spread_mm: f64,
    /// Answers that the position was averaged from.
    pub inliers: usize,
}

/// Answers farther from the middle than this many times the median distance
/// are left out of the mean; 3 is far beyond what agreeing walks differ by.
const OUTLIER_FACTOR: f64 = 3.0;

/// Per-axis median of the answers (voxel), then the mean of those near it.
/// `stops`: where coarser scales ended.
///
/// `None` without answers. One walk that went astray moves a mean by its whole
/// error over n; it moves this by nothing.
///
/// The position is robust, the spread is not: who strayed is what tells that
/// something is hard to find. Walks that meet early end in one place and so say
/// little; that is why the scales before count.
#[must_use]
pub fn consensus(
    answers: &[[f64; 3]],
    stops: &[[f64; 3]],
    spacing_mm: [f64; 3],
) -> Option<Consensus> {
    if answers.is_empty() {
        return None;
    }
    let middle = [0, 1, 2].map(|axis| median(answers.iter().map(|a| a[axis]).collect()));
    let distances: Vec<f64> = answers
        .iter()
        .map(|a| distance_mm(*a, middle, spacing_mm))
        .collect();
    // At least a voxel's length: answers that agree exactly must not make an
    // outlier of one that is half a voxel off.
    let finest = spacing_mm.iter().copied().fold(f64::INFINITY, f64::min);
    let limit = OUTLIER_FACTOR * median(distances.clone()).max(finest);
    let near: Vec<_> = answers
        .iter()
        .zip(&distances)
        .filter(|(_, d)| **d <= limit)
        .map(|(a, _)| *a)
        .collect();
    let count = near.len() as f64;
    let position = [0, 1, 2].map(|axis| near.iter().map(|a| a[axis]).sum::<f64>() / count);
    let ends = answers.iter().chain(stops);
    let away: Vec<f64> = ends
        .map(|p| distance_mm(*p, position, spacing_mm))
        .collect();
    let spread_mm = away.iter().sum::<f64>() / away.len() as f64;
    Some(Consensus {
        position,
        spread_mm,
        inliers: near.len(),
    })
}

/// Median; the mean of the middle two for an even count. Not a number for none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => f64::NAN,
        _ if n % 2 == 1 => values[n / 2],
        _ => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stray_walk_changes_nothing() {
        let mut answers = vec![[10.0, 20.0, 30.0], [10.5, 20.0, 30.0], [9.5, 20.0, 30.0]];
        let calm = consensus(&answers, &[], [2.0; 3]).unwrap();
        assert_eq!(
            (calm.position, calm.spread_mm, calm.inliers),
            ([10.0, 20.0, 30.0], 2.0 / 3.0, 3)
        );
        answers.push([90.0, 0.0, 0.0]);
        let c = consensus(&answers, &[], [2.0; 3]).unwrap();
        assert_eq!((c.position, c.inliers), ([10.0, 20.0, 30.0], 3));
        // The stray counts in the spread, and so does where scales ended.
        let stray = distance_mm([90.0, 0.0, 0.0], c.position, [2.0; 3]);
        assert_eq!(c.spread_mm, (0.0 + 1.0 + 1.0 + stray) / 4.0);
        let stops = [[10.0, 20.0, 34.0], [10.0, 23.0, 30.0]];
        let c = consensus(&answers[..3], &stops, [2.0; 3]).unwrap();
        assert_eq!(c.spread_mm, (0.0 + 1.0 + 1.0 + 8.0 + 6.0) / 5.0);
        assert!(consensus(&[], &[], [1.0; 3]).is_none());
        assert_eq!(
            consensus(&[[1.0, 2.0, 3.0]], &[], [1.0; 3])
                .unwrap()
                .position,
            [1.0, 2.0, 3.0]
        );
    }
}
