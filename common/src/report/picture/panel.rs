//! Draws one slice of a volume with its markers.

use image::Rgb;

use super::canvas::{Area, Canvas, SMALL_TEXT, TEXT, text_width};
use super::{Grid, INK, LINE_COLOUR, PREDICTION_COLOUR, TRUTH_COLOUR};
use crate::imaging::volume::Volume;

/// The plane of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plane {
    Axial,
    Coronal,
    Sagittal,
}

/// The markers, in voxels.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Markers {
    pub(super) truth: Option<[f64; 3]>,
    pub(super) prediction: Option<[f64; 3]>,
}

const ARM: i64 = 6;
/// Markers farther off than this, in pixels, are drawn here: outside every panel.
const FAR: f64 = 1e5;

impl Plane {
    pub(super) const ALL: [Self; 3] = [Self::Axial, Self::Coronal, Self::Sagittal];

    /// Volume axes: across the image (to the right), up, and perpendicular to it.
    pub(super) fn axes(self) -> [usize; 3] {
        match self {
            Self::Axial => [0, 1, 2],
            Self::Coronal => [0, 2, 1],
            Self::Sagittal => [1, 2, 0],
        }
    }
}

/// The map from voxels of one slice to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Projection {
    axes: [usize; 3],
    /// Pixels per voxel across and up.
    zoom: [f64; 2],
    /// Pixel of voxel 0 across and up.
    origin: [f64; 2],
}

impl Projection {
    /// Centres a slice in its panel; the volume's longest side in mm fills a panel.
    fn new(plane: Plane, area: Area, dims: [usize; 3], spacing_mm: [f64; 3]) -> Self {
        let extents = [0, 1, 2].map(|i| dims[i] as f64 * spacing_mm[i]);
        let longest = extents.into_iter().fold(f64::MIN_POSITIVE, f64::max);
        let pixels_per_mm = area.width.min(area.height) as f64 / longest;
        let axes = plane.axes();
        let zoom = [0, 1].map(|i: usize| pixels_per_mm * spacing_mm[axes[i]]);
        let middle = [0, 1].map(|i| (dims[axes[i]] as f64 - 1.0) / 2.0 * zoom[i]);
        let centre_x = area.left as f64 + (area.width as f64 - 1.0) / 2.0;
        let centre_y = area.top as f64 + (area.height as f64 - 1.0) / 2.0;
        Self {
            axes,
            zoom,
            origin: [centre_x - middle[0], centre_y + middle[1]],
        }
    }

    /// The pixel of a voxel position.
    pub(super) fn to_pixel(self, position: [f64; 3]) -> [i64; 2] {
        let x = self.origin[0] + position[self.axes[0]] * self.zoom[0];
        let y = self.origin[1] - position[self.axes[1]] * self.zoom[1];
        [x, y].map(|v| v.round().clamp(-FAR, FAR) as i64)
    }

    /// The voxel position (across and up) of a pixel.
    fn to_voxel(self, x: i64, y: i64) -> [f64; 2] {
        [
            (x as f64 - self.origin[0]) / self.zoom[0],
            (self.origin[1] - y as f64) / self.zoom[1],
        ]
    }
}

/// Draws the slice through `focus` with markers and letters.
pub(super) fn draw_panel(
    panel: &mut Canvas<'_>,
    volume: &Volume,
    grid: Grid,
    plane: Plane,
    focus: [f64; 3],
    markers: Markers,
) -> Projection {
    let projection = Projection::new(plane, panel.area, volume.dims(), grid.spacing_mm);
    panel.fill(Rgb([0; 3]));
    let depth = focus[projection.axes[2]].round() as i32;
    draw_slice(panel, volume, projection, depth);
    draw_letters(panel, plane, grid, depth);
    let finite = |p: &[f64; 3]| p.iter().all(|v| v.is_finite());
    let [truth, prediction] = [markers.truth, markers.prediction]
        .map(|marker| marker.filter(finite).map(|p| projection.to_pixel(p)));
    if let (Some(from), Some(to)) = (truth, prediction) {
        panel.line(from, to, 2.0, LINE_COLOUR);
    }
    if let Some(at) = truth {
        panel.upright_cross(at, ARM, TRUTH_COLOUR);
    }
    if let Some(at) = prediction {
        panel.slanted_cross(at, ARM - 1, PREDICTION_COLOUR);
    }
    projection
}

fn draw_slice(panel: &mut Canvas<'_>, volume: &Volume, projection: Projection, depth: i32) {
    let dims = volume.dims();
    let [across, up, through] = projection.axes;
    let inside = |v: f64, n: usize| v > -0.5 && v < n as f64 - 0.5;
    let area = panel.area;
    for y in area.top..area.bottom() {
        for x in area.left..area.right() {
            let [u, v] = projection.to_voxel(x, y);
            if !inside(u, dims[across]) || !inside(v, dims[up]) {
                continue;
            }
            let at = |i: i32, j: i32| {
                let mut p = [0; 3];
                // The border voxel extends half a voxel outwards.
                p[across] = i.clamp(0, dims[across] as i32 - 1);
                p[up] = j.clamp(0, dims[up] as i32 - 1);
                p[through] = depth;
                f64::from(volume.at(p))
            };
            let grey = bilinear(u, v, at).round() as u8;
            // Never fully black, so that the volume's outline is visible in its panel.
            panel.put([x, y], Rgb([grey.max(10); 3]));
        }
    }
}

fn bilinear(u: f64, v: f64, at: impl Fn(i32, i32) -> f64) -> f64 {
    let (i, j) = (u.floor() as i32, v.floor() as i32);
    let (s, t) = (u - u.floor(), v - v.floor());
    let low = at(i, j) * (1.0 - s) + at(i + 1, j) * s;
    let high = at(i, j + 1) * (1.0 - s) + at(i + 1, j + 1) * s;
    low * (1.0 - t) + high * t
}

fn draw_letters(panel: &mut Canvas<'_>, plane: Plane, grid: Grid, depth: i32) {
    let (area, height) = (panel.area, i64::from(TEXT));
    let middle_y = area.top + (area.height - height) / 2;
    let [across, up, through] = plane.axes();
    let [[left, right], [bottom, top]] = [grid.letters[across], grid.letters[up]];
    let centred = |letter: &str| area.left + (area.width - text_width(letter, TEXT)) / 2;
    let right_x = area.right() - 4 - text_width(right, TEXT);
    for (letter, at) in [
        (left, [area.left + 4, middle_y]),
        (right, [right_x, middle_y]),
        (top, [centred(top), area.top + 5]),
        (bottom, [centred(bottom), area.bottom() - height - 5]),
    ] {
        panel.outlined_text(at, TEXT, INK, letter);
    }
    let name = match grid.letters[through] {
        ["I", "S"] | ["S", "I"] => "axial",
        ["P", "A"] | ["A", "P"] => "coronal",
        _ => "sagittal",
    };
    let mut label = format!("{name} {} = {depth}", ["x", "y", "z"][through]);
    if area.left + 4 + text_width(&label, SMALL_TEXT) > centred(top) - 6 {
        // Small panels: next to the top letter there is only room for the axis.
        label = label.split_once(' ').map_or(label.clone(), |l| l.1.into());
    }
    let at = [area.left + 4, area.top + 5];
    panel.outlined_text(at, SMALL_TEXT, INK, &label);
}
