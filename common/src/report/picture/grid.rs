//! The orientation of a volume's axes in the patient.

use crate::imaging::geometry::Geometry;

/// Voxel sizes, and the direction of each axis of a volume.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// mm between voxels.
    pub spacing_mm: [f64; 3],
    /// Letters of each axis' low and high end: of L and R, P and A, I and S.
    pub letters: [[&'static str; 2]; 3],
}

const RAS: [[&str; 2]; 3] = [["L", "R"], ["P", "A"], ["I", "S"]];

impl Grid {
    /// The grid of a scan's volume: each axis gets the letters of the nearest world axis.
    #[must_use]
    pub fn of(geometry: &Geometry) -> Self {
        let letters = |axis: usize| {
            let along = geometry.affine.rows.map(|row| row[axis]);
            let nearest = (0..3).max_by(|&a, &b| along[a].abs().total_cmp(&along[b].abs()));
            let nearest = nearest.unwrap_or(axis);
            let [low, high] = RAS[nearest];
            let flipped = along[nearest] < 0.0;
            if flipped { [high, low] } else { [low, high] }
        };
        Self {
            spacing_mm: geometry.spacing_mm,
            letters: [letters(0), letters(1), letters(2)],
        }
    }

    /// Whether the axes point to the right, the front and the top.
    #[must_use]
    pub fn is_ras(&self) -> bool {
        self.letters == RAS
    }
}

/// A volume along RAS axes.
impl From<[f64; 3]> for Grid {
    fn from(spacing_mm: [f64; 3]) -> Self {
        Self {
            spacing_mm,
            letters: RAS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::geometry::Affine;

    #[test]
    fn letters_follow_the_affine() {
        let rows = [
            [-0.9, 0.1, 0.2, 5.0],
            [0.1, -0.2, 2.0, 5.0],
            [0.1, 1.0, 0.3, 5.0],
        ];
        let geometry = Geometry {
            affine: Affine { rows },
            ..Geometry::straight([4; 3], [0.9, 1.0, 2.0])
        };
        let grid = Grid::of(&geometry);
        assert_eq!(grid.letters, [["R", "L"], ["I", "S"], ["P", "A"]]);
        assert!(!grid.is_ras() && Grid::from([1.0; 3]).is_ras());
    }
}
