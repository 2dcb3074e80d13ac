//! Band-limited texture: value noise, a smooth field of random values on a lattice.

/// Value noise in -1..=1 at a point, about one bump per unit.
///
/// The value at each lattice point is a hash of its indices and the seed, so
/// the field has no borders and needs no memory.
pub(super) fn value_noise(seed: u64, p: [f64; 3]) -> f64 {
    let cell = p.map(f64::floor);
    let t: [f64; 3] = std::array::from_fn(|i| fade(p[i] - cell[i]));
    let [x, y, z] = cell.map(|c| c as i64);
    let mut sum = 0.0;
    for dz in 0..2_i64 {
        let wz = if dz == 0 { 1.0 - t[2] } else { t[2] };
        for dy in 0..2_i64 {
            let wy = if dy == 0 { 1.0 - t[1] } else { t[1] };
            let low = lattice(seed, x, y + dy, z + dz);
            let high = lattice(seed, x + 1, y + dy, z + dz);
            sum += wz * wy * (low + t[0] * (high - low));
        }
    }
    sum
}

/// Perlin's quintic: first and second derivatives vanish at 0 and 1.
fn fade(t: f64) -> f64 {
    t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
}

fn lattice(seed: u64, x: i64, y: i64, z: i64) -> f64 {
    // Odd constants of splitmix64 and relatives: neighbours must not correlate.
    let mut h = seed
        ^ (x as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (y as u64).wrapping_mul(0xC2B2_AE3D_27D4_EB4F)
        ^ (z as u64).wrapping_mul(0x1656_67B1_9E37_79F9);
    h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    h ^= h >> 31;
    (h >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_bounded_smooth_and_centred() {
        let (mut sum, mut steepest, mut widest) = (0.0, 0.0_f64, 0.0_f64);
        let n = 20_000;
        for i in 0..n {
            let p = [0.37, -0.11, 0.053].map(|step| f64::from(i) * step);
            let a = value_noise(7, p);
            let b = value_noise(7, [p[0] + 1e-3, p[1], p[2]]);
            sum += a;
            widest = widest.max(a.abs());
            steepest = steepest.max((b - a).abs() / 1e-3);
        }
        assert!(widest <= 1.0 && widest > 0.7, "{widest}");
        assert!(steepest < 4.0, "{steepest}");
        assert!((sum / f64::from(n)).abs() < 0.05, "{sum}");
        assert!((value_noise(7, [0.5; 3]) - value_noise(8, [0.5; 3])).abs() > 1e-6);
    }
}
