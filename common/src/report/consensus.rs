//! The consensus of several walks: a robust position, and its dispersion as a confidence.

use crate::imaging::geometry::distance_mm;

/// The consensus of several walks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Consensus {
    /// Voxel position in our volume.
    pub position: [f64; 3],
    /// Mean distance (mm) to it of all scale endpoints of the walks, the final
    /// ones included: small when walks agree on every scale.
    pub spread_mm: f64,
    /// Number of predictions that the position is the mean of.
    pub inliers: usize,
}

/// Predictions farther from the median than this multiple of the median distance
/// are excluded from the mean; agreeing walks differ by far less than 3.
const OUTLIER_FACTOR: f64 = 3.0;

/// Per-axis median of the predictions (voxel), then the mean of those near it.
/// `stops`: endpoints of the coarser scales.
///
/// `None` without predictions. A single stray walk shifts a mean by its error
/// divided by n; it does not shift this position.
///
/// The position is robust, the dispersion is not: stray walks indicate that a
/// landmark is hard to find. Walks that meet early end at the same position and
/// carry little information, so the endpoints of earlier scales count too.
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
    // At least a voxel's length: exact agreement must not make an outlier of a
    // prediction that is half a voxel off.
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

/// Median; the mean of the middle two for an even count. NaN for an empty list.
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
        // The outlier counts in the dispersion, and so do the endpoints of scales.
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
