//! The consensus of several trajectories: a robust position, and its dispersion as a confidence.

use crate::imaging::geometry::distance_mm;

/// The consensus of several trajectories.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Consensus {
    /// Voxel position in our volume.
    pub position: [f64; 3],
    /// Mean distance (mm) to it of all scale endpoints of the trajectories, the final
    /// ones included: small when trajectories agree on every scale.
    pub dispersion_mm: f64,
    /// Number of predictions that the position is the mean of.
    pub inliers: usize,
}

/// Predictions farther from the median than this multiple of the median distance
/// are excluded from the mean; agreeing trajectories differ by far less than 3.
const OUTLIER_FACTOR: f64 = 3.0;

/// Per-axis median of the predictions (voxel), then the mean of those near it.
/// `endpoints`: those of the coarser scales.
///
/// `None` without predictions. A single outlier shifts a mean by its error
/// divided by n; it does not shift this position.
///
/// The position is robust, the dispersion is not: outliers indicate that a landmark
/// is hard to find. Trajectories that meet early end at the same position and
/// carry little information, so the endpoints of earlier scales count too.
#[must_use]
pub fn consensus(
    predictions: &[[f64; 3]],
    endpoints: &[[f64; 3]],
    spacing_mm: [f64; 3],
) -> Option<Consensus> {
    if predictions.is_empty() {
        return None;
    }
    let middle = [0, 1, 2].map(|axis| median(predictions.iter().map(|a| a[axis]).collect()));
    let distance = |p: &[f64; 3]| distance_mm(*p, middle, spacing_mm);
    let distances: Vec<f64> = predictions.iter().map(distance).collect();
    // At least a voxel's length: exact agreement must not make an outlier of a
    // prediction that is half a voxel off.
    let finest = spacing_mm.iter().copied().fold(f64::INFINITY, f64::min);
    let limit = OUTLIER_FACTOR * median(distances.clone()).max(finest);
    let near = predictions.iter().zip(&distances);
    let near: Vec<_> = near
        .filter(|(_, d)| **d <= limit)
        .map(|(p, _)| *p)
        .collect();
    let count = near.len() as f64;
    let position = [0, 1, 2].map(|axis| near.iter().map(|a| a[axis]).sum::<f64>() / count);
    let ends = predictions.iter().chain(endpoints);
    let away = ends.map(|p| distance_mm(*p, position, spacing_mm));
    let count = (predictions.len() + endpoints.len()) as f64;
    let dispersion_mm = away.sum::<f64>() / count;
    Some(Consensus {
        position,
        dispersion_mm,
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
    fn one_outlier_changes_nothing() {
        let mut predictions = vec![[10.0, 20.0, 30.0], [10.5, 20.0, 30.0], [9.5, 20.0, 30.0]];
        let calm = consensus(&predictions, &[], [2.0; 3]).unwrap();
        assert_eq!((calm.position, calm.inliers), ([10.0, 20.0, 30.0], 3));
        assert_eq!(calm.dispersion_mm, 2.0 / 3.0);
        predictions.push([90.0, 0.0, 0.0]);
        let c = consensus(&predictions, &[], [2.0; 3]).unwrap();
        assert_eq!((c.position, c.inliers), ([10.0, 20.0, 30.0], 3));
        // The outlier counts in the dispersion, and so do the endpoints of scales.
        let stray = distance_mm([90.0, 0.0, 0.0], c.position, [2.0; 3]);
        assert_eq!(c.dispersion_mm, (0.0 + 1.0 + 1.0 + stray) / 4.0);
        let endpoints = [[10.0, 20.0, 34.0], [10.0, 23.0, 30.0]];
        let c = consensus(&predictions[..3], &endpoints, [2.0; 3]).unwrap();
        assert_eq!(c.dispersion_mm, (0.0 + 1.0 + 1.0 + 8.0 + 6.0) / 5.0);
        assert!(consensus(&[], &[], [1.0; 3]).is_none());
        let one = consensus(&[[1.0, 2.0, 3.0]], &[], [1.0; 3]).unwrap();
        assert_eq!(one.position, [1.0, 2.0, 3.0]);
    }
}
