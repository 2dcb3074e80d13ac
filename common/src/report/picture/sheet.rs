//! Contact sheets: many scans with all their landmarks, small, for visual inspection.

use image::{Rgb, RgbImage};

use super::canvas::{Area, Canvas, TEXT, shortened, text_width};
use super::panel::{Markers, Plane, draw_panel};
use super::{BACKGROUND, FAINT, Grid, INK, TRUTH_COLOUR, pixels};
use crate::imaging::geometry::centre;
use crate::imaging::volume::Volume;

pub const SHEET_SCANS: usize = 24;

const COLUMNS: i64 = 3;
const SIDE: i64 = 140;
const GAP: i64 = 6;
const LABEL: i64 = 22;
const CELL_WIDTH: i64 = 3 * SIDE + 4 * GAP;
const CELL_HEIGHT: i64 = LABEL + SIDE + GAP;
const ARM: i64 = 3;
const FLAGGED: Rgb<u8> = Rgb([255, 176, 32]);

/// One scan of a sheet.
#[derive(Debug, Clone, Copy)]
pub struct SheetItem<'a> {
    pub name: &'a str,
    pub volume: &'a Volume,
    /// Its voxel sizes and directions.
    pub grid: Grid,
    /// Positions in voxels of the volume; `None` where one is missing.
    pub landmarks: &'a [Option<[f64; 3]>],
    /// Writes the caption in another colour, for a scan with a warning.
    pub flagged: bool,
}

/// Draws up to [`SHEET_SCANS`] scans: for each an axial, a coronal and a
/// sagittal slice through the centre of its landmarks (or of the volume if it has
/// none), with all landmarks projected onto them.
#[must_use]
pub fn render_contact_sheet(items: &[SheetItem<'_>]) -> RgbImage {
    let count = i64::try_from(items.len().clamp(1, SHEET_SCANS)).unwrap_or(1);
    let (columns, rows) = (COLUMNS.min(count), (count + COLUMNS - 1) / COLUMNS);
    let (width, height) = (columns * CELL_WIDTH, rows * CELL_HEIGHT);
    let mut sheet = RgbImage::from_pixel(pixels(width), pixels(height), BACKGROUND);
    for (item, number) in items.iter().take(SHEET_SCANS).zip(0_i64..) {
        let corner = [
            (number % COLUMNS) * CELL_WIDTH,
            (number / COLUMNS) * CELL_HEIGHT,
        ];
        draw_cell(&mut Canvas::new(&mut sheet), corner, item);
    }
    sheet
}

fn draw_cell(sheet: &mut Canvas<'_>, [left, top]: [i64; 2], item: &SheetItem<'_>) {
    let known: Vec<[f64; 3]> = item.landmarks.iter().copied().flatten().collect();
    let count = format!("{} of {}", known.len(), item.landmarks.len());
    let count_left = left + CELL_WIDTH - GAP - text_width(&count, TEXT);
    let colour = if item.flagged { FLAGGED } else { INK };
    let name = shortened(item.name, TEXT, count_left - left - 3 * GAP);
    sheet.text([left + GAP, top + 6], TEXT, colour, &name);
    sheet.text([count_left, top + 6], TEXT, FAINT, &count);
    let (focus, none) = (middle(&known, item.volume.dims()), Markers::default());
    for (plane, number) in Plane::ALL.into_iter().zip(0_i64..) {
        let left = left + GAP + number * (SIDE + GAP);
        let mut panel = sheet.part(Area::square(left, top + LABEL, SIDE));
        let projection = draw_panel(&mut panel, item.volume, item.grid, plane, focus, none);
        for place in &known {
            panel.upright_cross(projection.to_pixel(*place), ARM, TRUTH_COLOUR);
        }
    }
}

fn middle(known: &[[f64; 3]], dims: [usize; 3]) -> [f64; 3] {
    if known.is_empty() {
        return centre(dims);
    }
    std::array::from_fn(|i| known.iter().map(|p| p[i]).sum::<f64>() / known.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scan_has_its_cell_and_each_landmark_its_cross() {
        let volume = Volume::from_u8([20, 24, 28], vec![90; 20 * 24 * 28]).unwrap();
        let landmarks = [Some([5.0, 6.0, 7.0]), None, Some([15.0, 20.0, 25.0])];
        let item = |landmarks| SheetItem {
            name: "a scan with quite a long name",
            volume: &volume,
            grid: [1.0; 3].into(),
            landmarks,
            flagged: false,
        };
        let one = render_contact_sheet(&[item(&landmarks)]);
        assert_eq!(i64::from(one.width()), CELL_WIDTH);
        let red = |sheet: &RgbImage| sheet.pixels().filter(|p| **p == TRUTH_COLOUR).count();
        let none = render_contact_sheet(&[item(&[])]);
        assert_eq!(red(&none), 0);
        // Two landmarks on three slices, each cross with the same number of pixels.
        let single = render_contact_sheet(&[item(&landmarks[..1])]);
        assert_eq!(red(&one), 2 * red(&single));
        let many = render_contact_sheet(&[item(&landmarks); 30]);
        assert_eq!(i64::from(many.width()), 3 * CELL_WIDTH);
        assert_eq!(i64::from(many.height()), 8 * CELL_HEIGHT);
        assert_eq!(render_contact_sheet(&[]).height(), pixels(CELL_HEIGHT));
    }
}
