//! Solids of the anatomy as signed distances, in anatomy units.

/// A solid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Shape {
    /// An axis-aligned ellipsoid.
    Ellipsoid { centre: [f64; 3], semi: [f64; 3] },
    /// A tapered tube with round ends.
    Tube {
        /// Centre of the first end.
        from: [f64; 3],
        /// Centre of the other end.
        to: [f64; 3],
        /// Radius at both ends.
        radii: [f64; 2],
    },
}

impl Shape {
    pub(super) fn ball(centre: [f64; 3], radius: f64) -> Self {
        Self::ellipsoid(centre, [radius; 3])
    }

    pub(super) fn ellipsoid(centre: [f64; 3], semi: [f64; 3]) -> Self {
        Self::Ellipsoid { centre, semi }
    }

    pub(super) fn tube(from: [f64; 3], to: [f64; 3], radii: [f64; 2]) -> Self {
        Self::Tube { from, to, radii }
    }

    /// Distance to the surface, negative inside.
    ///
    /// First-order accurate near the surface of an ellipsoid (the value divided by the
    /// length of its gradient), which is where the edge is shaded.
    pub(super) fn distance(&self, p: [f64; 3]) -> f64 {
        match *self {
            Self::Ellipsoid { centre, semi } => {
                let (mut k0, mut k1) = (0.0, 0.0);
                for i in 0..3 {
                    let q = (p[i] - centre[i]) / semi[i];
                    k0 += q * q;
                    k1 += (q / semi[i]).powi(2);
                }
                let (k0, k1) = (k0.sqrt(), k1.sqrt());
                if k1 < 1e-9 {
                    -semi[0].min(semi[1]).min(semi[2])
                } else {
                    k0 * (k0 - 1.0) / k1
                }
            }
            Self::Tube { from, to, radii } => {
                let axis = sub(to, from);
                let along = (dot(sub(p, from), axis) / dot(axis, axis)).clamp(0.0, 1.0);
                let nearest = std::array::from_fn(|i| from[i] + along * axis[i]);
                length(sub(p, nearest)) - (radii[0] + along * (radii[1] - radii[0]))
            }
        }
    }

    /// A bounding ball (centre, radius).
    pub(super) fn bound(&self) -> ([f64; 3], f64) {
        match *self {
            Self::Ellipsoid { centre, semi } => (centre, semi[0].max(semi[1]).max(semi[2])),
            Self::Tube { from, to, radii } => {
                let middle = std::array::from_fn(|i| (from[i] + to[i]) / 2.0);
                (middle, length(sub(to, from)) / 2.0 + radii[0].max(radii[1]))
            }
        }
    }
}

/// The outermost point of the `to` end of a tube.
pub(super) fn tip(from: [f64; 3], to: [f64; 3], radius: f64) -> [f64; 3] {
    let axis = sub(to, from);
    let reach = radius / length(axis);
    std::array::from_fn(|i| to[i] + reach * axis[i])
}

fn sub(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn length(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_have_the_right_sign_and_are_zero_on_the_surface() {
        let ellipsoid = Shape::ellipsoid([1.0, 2.0, 3.0], [4.0, 2.0, 1.0]);
        let tube = Shape::tube([0.0; 3], [0.0, 10.0, 0.0], [3.0, 1.0]);
        let cases = [
            (ellipsoid, [1.0, 2.0, 3.0], -1.0),
            (ellipsoid, [5.0, 2.0, 3.0], 0.0),
            (ellipsoid, [1.0, 2.0, 4.0], 0.0),
            (ellipsoid, [9.0, 2.0, 3.0], 4.0),
            (tube, [0.0, 0.0, 0.0], -3.0),
            (tube, [0.0, 11.0, 0.0], 0.0),
            (tube, [2.0, 5.0, 0.0], 0.0),
            (tube, [0.0, 13.0, 0.0], 2.0),
        ];
        for (shape, p, expected) in cases {
            let found = shape.distance(p);
            let off = (found - expected).abs();
            assert!(off < 1e-9, "{shape:?} at {p:?}: {found}");
        }
        assert_eq!(tip([0.0; 3], [0.0, 10.0, 0.0], 1.0), [0.0, 11.0, 0.0]);
    }

    #[test]
    fn the_bound_contains_the_solid() {
        let tube = Shape::tube([-3.0, 1.0, 0.0], [4.0, 2.0, 2.0], [2.0, 1.0]);
        let (centre, radius) = tube.bound();
        for i in 0..1000_u32 {
            let digit = |place: u32| f64::from(i / 10_u32.pow(place) % 10) * 1.6 - 7.2;
            let p = [digit(0), digit(1), digit(2)];
            if tube.distance(p) <= 0.0 {
                assert!(length(sub(p, centre)) <= radius, "{p:?}");
            }
        }
    }
}
