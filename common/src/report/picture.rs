//! An image of one scan and its landmarks: for each, three slices with the true
//! position and the prediction, their distance, and their coordinates.

mod canvas;
pub mod film;
mod grid;
mod panel;
mod sheet;

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

use crate::imaging::geometry::centre;
use crate::imaging::volume::Volume;
use canvas::{Area, Canvas, TEXT, shortened, text_width};
pub use grid::Grid;
use panel::{Markers, Plane, draw_panel};
pub use sheet::{SHEET_SCANS, SheetItem, render_contact_sheet};

/// Width and height of one slice's panel, pixels.
pub const PANEL_PIXELS: u32 = 320;
/// Colour of the true position, an upright cross.
pub const TRUTH_COLOUR: Rgb<u8> = Rgb([255, 64, 64]);
/// Colour of the prediction, a slanted cross.
pub const PREDICTION_COLOUR: Rgb<u8> = Rgb([0, 224, 255]);
/// Colour of the line between them.
pub const LINE_COLOUR: Rgb<u8> = Rgb([255, 216, 0]);

const GAP: i64 = 8;
const HEADER: i64 = 60;
const ROW_HEADER: i64 = 48;
const BACKGROUND: Rgb<u8> = Rgb([24, 26, 30]);
const INK: Rgb<u8> = Rgb([235, 235, 235]);
const FAINT: Rgb<u8> = Rgb([160, 165, 175]);
const PANEL: i64 = PANEL_PIXELS as i64;

/// One landmark to show.
#[derive(Debug, Clone, PartialEq)]
pub struct PictureItem {
    pub name: String,
    /// True position, voxels of the volume; `None` if unknown.
    pub truth: Option<[f64; 3]>,
    /// Predicted position, voxels of the volume.
    pub prediction: Option<[f64; 3]>,
    /// Distance between the two, mm.
    pub error_mm: Option<f64>,
    /// The same in voxels.
    pub error_voxels: Option<f64>,
}

/// Draws a scan: one row per item, with an axial, a coronal and a sagittal slice
/// through its true position (else through its prediction, else through the
/// centre of the volume).
///
/// All panels share one scale in mm. A volume along RAS axes is shown in
/// neurological convention, the patient's left on the left; letters mark the sides
/// of any volume. Markers outside the slice are projected onto it.
#[must_use]
pub fn render_scan_picture(
    volume: &Volume,
    grid: impl Into<Grid>,
    items: &[PictureItem],
    title: &str,
) -> RgbImage {
    let grid = grid.into();
    let row_height = ROW_HEADER + PANEL + GAP;
    let rows = i64::try_from(items.len()).unwrap_or(0);
    let (width, height) = (3 * PANEL + 4 * GAP, HEADER + rows * row_height);
    let mut picture = RgbImage::from_pixel(pixels(width), pixels(height), BACKGROUND);
    let mut canvas = Canvas::new(&mut picture);
    draw_header(&mut canvas, title, grid);
    for (item, number) in items.iter().zip(0_i64..) {
        let top = HEADER + number * row_height;
        draw_item(&mut canvas, volume, grid, item, top);
    }
    picture
}

/// Encodes an image as PNG.
/// Fails when the encoder fails.
pub fn to_png(picture: &RgbImage) -> image::ImageResult<Vec<u8>> {
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png)?;
    Ok(png.into_inner())
}

fn draw_header(canvas: &mut Canvas<'_>, title: &str, grid: Grid) {
    let width = canvas.area.width;
    let bar = Area {
        height: HEADER - GAP,
        ..canvas.area
    };
    canvas.part(bar).fill(Rgb([38, 42, 50]));
    let title = shortened(title, TEXT, width - 2 * GAP);
    canvas.text([GAP, 8], TEXT, INK, &title);
    let (mut x, y) = (GAP, 31);
    canvas.upright_cross([x + 6, y + 6], 5, TRUTH_COLOUR);
    canvas.text([x + 20, y], TEXT, TRUTH_COLOUR, "truth");
    x += 20 + text_width("truth", TEXT) + 16;
    canvas.slanted_cross([x + 6, y + 6], 5, PREDICTION_COLOUR);
    canvas.text([x + 20, y], TEXT, PREDICTION_COLOUR, "prediction");
    x += 20 + text_width("prediction", TEXT) + 16;
    let note = if grid.is_ras() {
        "neurological: patient's left (L) on the left"
    } else {
        "axes of the file: sides as lettered"
    };
    let note = shortened(note, TEXT, width - x - GAP);
    canvas.text([x, y], TEXT, FAINT, &note);
}

fn draw_item(canvas: &mut Canvas<'_>, volume: &Volume, grid: Grid, item: &PictureItem, top: i64) {
    let error = error_text(item);
    let error_left = canvas.area.width - GAP - text_width(&error, TEXT);
    let name = shortened(&item.name, TEXT, error_left - 2 * GAP);
    canvas.text([GAP, top + 6], TEXT, INK, &name);
    canvas.text([error_left, top + 6], TEXT, LINE_COLOUR, &error);
    let mut x = GAP;
    for (word, position, colour) in [
        ("truth", item.truth, TRUTH_COLOUR),
        ("prediction", item.prediction, PREDICTION_COLOUR),
    ] {
        let line = coordinates(word, position);
        canvas.text([x, top + 27], TEXT, colour, &line);
        x += text_width(&line, TEXT) + 24;
    }
    let markers = Markers {
        truth: item.truth,
        prediction: item.prediction,
    };
    let focus = item.truth.or(item.prediction);
    let focus = focus.unwrap_or_else(|| centre(volume.dims()));
    for (plane, number) in Plane::ALL.into_iter().zip(0_i64..) {
        let left = GAP + number * (PANEL + GAP);
        let mut panel = canvas.part(Area::square(left, top + ROW_HEADER, PANEL));
        draw_panel(&mut panel, volume, grid, plane, focus, markers);
    }
}

fn error_text(item: &PictureItem) -> String {
    let parts = [(item.error_mm, "mm"), (item.error_voxels, "voxels")];
    let known = parts
        .iter()
        .filter_map(|(v, unit)| v.map(|v| format!("{v:.2} {unit}")));
    let known: Vec<String> = known.collect();
    match (known.is_empty(), item.truth, item.prediction) {
        (false, ..) => format!("error {}", known.join(" = ")),
        (true, None, Some(_)) => "truth unknown".to_owned(),
        (true, Some(_), None) => "no prediction".to_owned(),
        (true, Some(_), Some(_)) => String::new(),
        (true, None, None) => "no position".to_owned(),
    }
}

fn coordinates(word: &str, position: Option<[f64; 3]>) -> String {
    match position {
        Some([x, y, z]) => format!("{word} voxel ({x:.1}, {y:.1}, {z:.1})"),
        None => format!("{word} –"),
    }
}

fn pixels(length: i64) -> u32 {
    u32::try_from(length).unwrap_or(1)
}

#[cfg(test)]
mod tests;
