//! Contact sheets: many scans with all their landmarks, small, to be looked over.

use image::{Rgb, RgbImage};

use super::canvas::{Area, text, upright_cross};
use super::panel::{Markers, Plane, Projection, draw_panel};
use super::{BACKGROUND, FAINT, Grid, INK, TRUTH_COLOUR, pixels, shortened};
use crate::imaging::volume::Volume;

/// Scans on one sheet.
pub const SHEET_SCANS: usize = 24;

const COLUMNS: i64 = 3;
const SIDE: i64 = 140;
const GAP: i64 = 6;
const LABEL: i64 = 22;
const CELL_WIDTH: i64 = 3 * SIDE + 4 * GAP;
const CELL_HEIGHT: i64 = LABEL + SIDE + GAP;
const ARM: i64 = 2;
const DOUBTED: Rgb<u8> = Rgb([255, 176, 32]);

/// One scan of a sheet.
#[derive(Debug, Clone, Copy)]
pub struct SheetItem<'a> {
    /// Written above it.
    pub name: &'a str,
    /// What is looked through.
    pub volume: &'a Volume,
    /// Its voxel sizes and directions.
    pub grid: Grid,
    /// Voxels of the volume; `None` where one is missing.
    pub landmarks: &'a [Option<[f64; 3]>],
    /// Something is odd about it: its name is written in another colour.
    pub doubted: bool,
}

/// Draws up to [`SHEET_SCANS`] scans: for each an axial, a coronal and a
/// sagittal slice through the middle of its landmarks (without any, of the
/// volume), with all landmarks projected onto them.
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
        draw_cell(&mut sheet, corner, item);
    }
    sheet
}

fn draw_cell(sheet: &mut RgbImage, [left, top]: [i64; 2], item: &SheetItem<'_>) {
    let all = Area::of(sheet);
    let known: Vec<[f64; 3]> = item.landmarks.iter().copied().flatten().collect();
    let count = format!("{} of {}", known.len(), item.landmarks.len());
    let room = CELL_WIDTH - 3 * GAP - 12 * i64::try_from(count.len()).unwrap_or(0);
    let colour = if item.doubted { DOUBTED } else { INK };
    let name = shortened(item.name, 2, room);
    text(sheet, all, [left + GAP, top + 4], 2, colour, &name);
    let at = left + CELL_WIDTH - 2 * GAP - 12 * i64::try_from(count.len()).unwrap_or(0);
    text(sheet, all, [at, top + 4], 2, FAINT, &count);
    let focus = middle(&known, item.volume.dims());
    for (plane, number) in Plane::ALL.into_iter().zip(0_i64..) {
        let area = Area {
            left: left + GAP + number * (SIDE + GAP),
            top: top + LABEL,
            width: SIDE,
            height: SIDE,
        };
        let none = Markers {
            truth: None,
            prediction: None,
        };
        draw_panel(sheet, area, item.volume, item.grid, plane, focus, none);
        let projection = Projection::new(plane, area, item.volume.dims(), item.grid.spacing_mm);
        for place in &known {
            upright_cross(sheet, area, projection.to_pixel(*place), ARM, TRUTH_COLOUR);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn middle(known: &[[f64; 3]], dims: [usize; 3]) -> [f64; 3] {
    if known.is_empty() {
        return dims.map(|n| (n as f64 - 1.0) / 2.0);
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
            doubted: false,
        };
        let one = render_contact_sheet(&[item(&landmarks)]);
        assert_eq!(i64::from(one.width()), CELL_WIDTH);
        let red = |sheet: &RgbImage| sheet.pixels().filter(|p| **p == TRUTH_COLOUR).count();
        let none = render_contact_sheet(&[item(&[])]);
        assert_eq!(red(&none), 0);
        // Two landmarks on three slices, each cross of the same pixels.
        let single = render_contact_sheet(&[item(&landmarks[..1])]);
        assert_eq!(red(&one), 2 * red(&single));
        let many = render_contact_sheet(&[item(&landmarks); 30]);
        assert_eq!(i64::from(many.width()), 3 * CELL_WIDTH);
        assert_eq!(i64::from(many.height()), 8 * CELL_HEIGHT);
        assert_eq!(render_contact_sheet(&[]).height(), pixels(CELL_HEIGHT));
    }
}
