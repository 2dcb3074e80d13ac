//! Statistics of errors, with confidence intervals.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Bootstrap resamples: the bounds of the interval vary by about a hundredth of
/// its width between seeds.
const ROUNDS: usize = 2000;

/// Fewest pairs whose rank correlation is reported. With fewer, chance alone often gives a
/// high one: of 4 pairs without any relation every twelfth has 1 or −1.
pub const CORRELATION_MIN: usize = 20;

/// The `p` quantile (0 to 1) of `values`, interpolated between neighbours
/// (Hyndman and Fan's type 7, numpy's default). NaN for an empty
/// slice.
#[must_use]
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let at = p.clamp(0.0, 1.0) * last as f64;
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * at.fract()
}

/// The fraction of `values` that are at most `limit`; 0 for an empty slice.
#[must_use]
pub fn share_within(values: &[f64], limit: f64) -> f64 {
    let within = values.iter().filter(|v| **v <= limit).count();
    within as f64 / values.len().max(1) as f64
}

/// The 95 % bootstrap interval of the mean, resampling whole groups (scans: their
/// errors are dependent) with replacement. `None` with fewer than two groups,
/// which do not represent others.
#[must_use]
pub fn mean_interval(groups: &[Vec<f64>]) -> Option<[f64; 2]> {
    interval(groups, |drawn| {
        let values = drawn.iter().flat_map(|group| group.iter());
        mean(values.copied())
    })
}

/// Spearman's rank correlation of pairs; ties share their mean rank. `None`
/// for fewer than three pairs or if one side is constant.
#[must_use]
pub fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    if pairs.len() < 3 {
        return None;
    }
    let a = ranks(pairs.iter().map(|p| p.0));
    let b = ranks(pairs.iter().map(|p| p.1));
    let (mean_a, mean_b) = (mean(a.iter().copied())?, mean(b.iter().copied())?);
    let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(&b) {
        let (a, b) = (a - mean_a, b - mean_b);
        both += a * b;
        of_a += a * a;
        of_b += b * b;
    }
    let scale = f64::sqrt(of_a * of_b);
    (scale > 0.0).then(|| both / scale)
}

/// [`spearman`] and its 95 % interval over resampled groups, as [`mean_interval`].
#[must_use]
pub fn spearman_interval(groups: &[Vec<(f64, f64)>]) -> Option<[f64; 2]> {
    interval(groups, |drawn| {
        let pairs = drawn.iter().flat_map(|group| group.iter().copied());
        spearman(&pairs.collect::<Vec<_>>())
    })
}

fn interval<T>(groups: &[Vec<T>], figure: impl Fn(&[&Vec<T>]) -> Option<f64>) -> Option<[f64; 2]> {
    let groups: Vec<&Vec<T>> = groups.iter().filter(|g| !g.is_empty()).collect();
    if groups.len() < 2 {
        return None;
    }
    // A fixed seed makes the interval reproducible.
    let mut rng = ChaCha8Rng::seed_from_u64(95);
    let mut draw = || {
        let drawn = (0..groups.len()).map(|_| groups[rng.random_range(0..groups.len())]);
        figure(&drawn.collect::<Vec<_>>())
    };
    let figures: Vec<f64> = (0..ROUNDS).filter_map(|_| draw()).collect();
    (!figures.is_empty()).then(|| [percentile(&figures, 0.025), percentile(&figures, 0.975)])
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_usize);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}

fn ranks(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut begin = 0;
    for same in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let shared = begin as f64 + (same.len() as f64 - 1.0) / 2.0;
        same.iter().for_each(|&i| ranks[i] = shared);
        begin += same.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_equal_those_of_numpy() {
        let values = [4.0, 1.0, 3.0, 2.0, 10.0];
        let shares = [0.0, 0.25, 0.5, 0.95, 1.0];
        for (p, expected) in shares.into_iter().zip([1.0, 2.0, 3.0, 8.8, 10.0]) {
            let found = percentile(&values, p);
            assert!((found - expected).abs() < 1e-12, "{p}: {found}");
        }
        assert!(percentile(&[], 0.5).is_nan());
        assert!((share_within(&values, 3.0) - 0.6).abs() < 1e-12);
        assert!(share_within(&[], 3.0).abs() < 1e-12);
    }

    #[test]
    fn correlation_of_ranks() {
        let up: Vec<_> = (0..9).map(|i| (f64::from(i), f64::from(i * i))).collect();
        assert_eq!(spearman(&up), Some(1.0));
        let down: Vec<_> = up.iter().map(|(a, b)| (*a, -b)).collect();
        assert_eq!(spearman(&down), Some(-1.0));
        // By hand: ranks 0, 1.5, 1.5, 3, 4 and 0, 1, 2.5, 4, 2.5.
        let tied = [(1.0, 5.0), (2.0, 6.0), (2.0, 7.0), (4.0, 8.0), (5.0, 7.0)];
        let tied = spearman(&tied).unwrap();
        assert!((tied - 7.25 / 9.5).abs() < 1e-12, "{tied}");
        assert_eq!(spearman(&[(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]), None);
        assert_eq!(spearman(&up[..2]), None);
    }

    #[test]
    fn intervals_cover_the_mean_and_keep_groups_together() {
        let alone: Vec<Vec<f64>> = (0..100).map(|i| vec![f64::from(i % 10)]).collect();
        let [low, high] = mean_interval(&alone).unwrap();
        // Mean 4.5, standard error 0.289: ± 0.57.
        let near = (low - 3.93).abs() < 0.1 && (high - 5.07).abs() < 0.1;
        assert!(near, "{low} {high}");
        // The same values in ten groups of equal ones: the interval is far wider.
        let groups: Vec<Vec<f64>> = (0..10).map(|i| vec![f64::from(i); 10]).collect();
        let [low, high] = mean_interval(&groups).unwrap();
        assert!(low < 3.0 && high > 6.0, "{low} {high}");
        assert_eq!(mean_interval(&groups), Some([low, high]), "the same again");
        assert_eq!(mean_interval(&groups[..1]), None);
        let pair = |i: i32| vec![(f64::from(i), f64::from(i))];
        let pairs: Vec<Vec<(f64, f64)>> = (0..20).map(pair).collect();
        let [low, high] = spearman_interval(&pairs).unwrap();
        assert!(low > 0.99 && high <= 1.0 + 1e-12);
    }
}
