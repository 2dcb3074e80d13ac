//! Video frames of a trajectory: three slices through the agent's position, its window,
//! its path so far, and the distance to its landmark.

use image::{Rgb, RgbImage};

use super::canvas::{Area, Canvas, SMALL_TEXT, TEXT, mixed, shortened, text_width};
use super::panel::{Markers, Plane, Projection, draw_panel};
use super::{BACKGROUND, FAINT, GAP, Grid, INK, LINE_COLOUR, PREDICTION_COLOUR, TRUTH_COLOUR};
use crate::imaging::volume::Volume;

/// Width and height of one panel, pixels.
const SIDE: i64 = 264;
const HEADER: i64 = 56;
const FOOTER: i64 = 24;
/// Colours of steps towards the landmark and away from it.
const NEARER: Rgb<u8> = Rgb([96, 224, 96]);
const FARTHER: Rgb<u8> = Rgb([255, 96, 96]);

/// Opacity of the disk around the landmark.
const TINT: f32 = 0.2;

/// Width of every frame, pixels; even, as video encoders require.
pub const WIDTH: u32 = 824;
/// Height of every frame, pixels; even.
pub const HEIGHT: u32 = 352;

/// The state of an agent before one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// The agent's position (voxel).
    pub position: [f64; 3],
    /// Voxels between the samples of its window.
    pub stride: u8,
}

/// A grey value under the disk around a landmark.
#[must_use]
pub fn tinted(grey: u8) -> Rgb<u8> {
    mixed(Rgb([grey; 3]), TRUTH_COLOUR, TINT)
}

/// A grey value under all markers and text, and under their smooth edges.
pub fn marked(grey: u8) -> impl Iterator<Item = Rgb<u8>> {
    let shares = [0.25, 0.5, 0.75, 1.0];
    let [agent, window, landmark] = [PREDICTION_COLOUR, LINE_COLOUR, TRUTH_COLOUR];
    let marks = [agent, window, landmark, NEARER, FARTHER];
    let over = move |mark| shares.map(|share| mixed(Rgb([grey; 3]), mark, share));
    marks.into_iter().flat_map(over)
}

/// A trajectory to show.
#[derive(Debug, Clone, Copy)]
pub struct FilmedTrajectory<'a> {
    pub volume: &'a Volume,
    /// The volume's voxel sizes and directions.
    pub grid: Grid,
    /// Samples per side of its window.
    pub window: usize,
    /// Every step.
    pub moments: &'a [Moment],
    /// The predicted position (voxel).
    pub prediction: [f64; 3],
    /// The landmark's position (voxel), if known.
    pub truth: Option<[f64; 3]>,
    /// Scan and landmark.
    pub title: &'a str,
    /// A notice below the image: terms of use.
    pub notice: &'a str,
}

impl FilmedTrajectory<'_> {
    /// Number of frames: one per step, and one with the prediction.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.moments.len() + 1
    }

    /// Draws a frame; [`WIDTH`] by [`HEIGHT`] pixels.
    #[must_use]
    pub fn frame(&self, number: usize) -> RgbImage {
        let mut picture = RgbImage::from_pixel(WIDTH, HEIGHT, BACKGROUND);
        let number = number.min(self.moments.len());
        let here = self.position(number);
        let mut canvas = Canvas::new(&mut picture);
        self.draw_words(&mut canvas, number, here);
        for (plane, place) in Plane::ALL.into_iter().zip(0_i64..) {
            let area = Area::square(GAP + place * (SIDE + GAP), HEADER, SIDE);
            self.draw_plane(&mut canvas.part(area), plane, number, here);
        }
        picture
    }

    fn position(&self, number: usize) -> [f64; 3] {
        self.moments
            .get(number)
            .map_or(self.prediction, |m| m.position)
    }

    /// Distance (mm) to the landmark.
    fn error_mm(&self, place: [f64; 3]) -> Option<f64> {
        let truth = self.truth?;
        let spacing = self.grid.spacing_mm;
        Some(crate::imaging::geometry::distance_mm(place, truth, spacing))
    }

    fn draw_words(&self, canvas: &mut Canvas<'_>, number: usize, here: [f64; 3]) {
        let Area { width, height, .. } = canvas.area;
        let title = shortened(self.title, TEXT, width - 2 * GAP);
        canvas.text([GAP, 9], TEXT, INK, &title);
        let steps = self.moments.len();
        let words = match self.moments.get(number) {
            Some(moment) => format!("step {number} of {steps}   scale {}", moment.stride),
            None => format!("prediction after {steps} steps"),
        };
        canvas.text([GAP, 33], TEXT, FAINT, &words);
        let error = self.error_mm(here);
        let before = self.error_mm(self.position(number.saturating_sub(1)));
        let (words, colour) = match (error, before) {
            (Some(now), Some(before)) => {
                let colour = if now <= before { NEARER } else { FARTHER };
                (format!("error {now:.2} mm"), colour)
            }
            _ => ("landmark not known".to_owned(), FAINT),
        };
        let left = width - GAP - text_width(&words, TEXT);
        canvas.text([left, 33], TEXT, colour, &words);
        let bottom = height - FOOTER + 5;
        canvas.text([GAP, bottom], SMALL_TEXT, FAINT, self.notice);
        let legend = [
            ("agent", PREDICTION_COLOUR),
            ("window", LINE_COLOUR),
            ("landmark", TRUTH_COLOUR),
        ];
        let mut left = width - GAP;
        for (word, colour) in legend.into_iter().rev() {
            left -= text_width(word, SMALL_TEXT) + 12;
            canvas.text([left + 12, bottom], SMALL_TEXT, colour, word);
        }
    }

    fn draw_plane(&self, panel: &mut Canvas<'_>, plane: Plane, number: usize, here: [f64; 3]) {
        let none = Markers::default();
        let projection = draw_panel(panel, self.volume, self.grid, plane, here, none);
        if let Some(truth) = self.truth {
            self.draw_truth(panel, plane, projection, truth, here);
        }
        let path: Vec<[i64; 2]> = (0..=number)
            .map(|n| projection.to_pixel(self.position(n)))
            .collect();
        for pair in path.windows(2) {
            panel.line(pair[0], pair[1], 2.5, PREDICTION_COLOUR);
        }
        if let Some(moment) = self.moments.get(number) {
            let half = self.half_window(moment.stride);
            let corner = |sign: f64| projection.to_pixel([0, 1, 2].map(|i| here[i] + sign * half));
            panel.frame(corner(-1.0), corner(1.0), LINE_COLOUR);
        }
        let at = projection.to_pixel(here);
        panel.circle(at, 4, PREDICTION_COLOUR);
        panel.put(at, PREDICTION_COLOUR);
    }

    /// Voxels from the centre of a window to its edge.
    fn half_window(&self, stride: u8) -> f64 {
        self.window as f64 * f64::from(stride) / 2.0
    }

    /// A cross, a disk whose radius is the landmark's distance from the slice, and
    /// that distance in mm.
    fn draw_truth(
        &self,
        panel: &mut Canvas<'_>,
        plane: Plane,
        projection: Projection,
        truth: [f64; 3],
        here: [f64; 3],
    ) {
        let through = plane.axes()[2];
        let off = truth[through] - here[through];
        let off_mm = off * self.grid.spacing_mm[through];
        let [x, y] = projection.to_pixel(truth);
        let mut edge = truth;
        let across = plane.axes()[0];
        edge[across] += off_mm.abs() / self.grid.spacing_mm[across];
        let radius = (projection.to_pixel(edge)[0] - x).abs().min(2 * SIDE);
        panel.disk([x, y], radius, TRUTH_COLOUR, TINT);
        panel.upright_cross([x, y], 5, TRUTH_COLOUR);
        let words = format!("{off_mm:+.1} mm");
        let left = (x + 9).min(panel.area.right() - text_width(&words, TEXT) - 2);
        let at = [left.max(panel.area.left + 2), y - 20];
        panel.outlined_text(at, TEXT, TRUTH_COLOUR, &words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_shows_agent_window_and_landmark() {
        assert_eq!(i64::from(WIDTH), 3 * SIDE + 4 * GAP);
        assert_eq!(i64::from(HEIGHT), HEADER + SIDE + GAP + FOOTER);
        let volume = Volume::from_u8([40; 3], vec![70; 64_000]).unwrap();
        let moments = [(10.0, 2), (19.0, 1)].map(|(x, stride)| Moment {
            position: [x, 20.0, 20.0],
            stride,
        });
        let film = FilmedTrajectory {
            volume: &volume,
            grid: [1.0; 3].into(),
            window: 8,
            moments: &moments,
            prediction: [19.5, 20.0, 20.0],
            truth: Some([21.0, 22.0, 30.0]),
            title: "a scan: AC",
            notice: "for research only",
        };
        assert_eq!(film.frames(), 3);
        let of = |picture: &RgbImage, colour: Rgb<u8>| {
            picture.pixels().filter(|p| **p == colour).count()
        };
        let first = film.frame(0);
        assert_eq!(first.dimensions(), (WIDTH, HEIGHT));
        // 8 samples at stride 2 are 16 voxels, 6.6 pixels each: three squares, of whose lines
        // the middle has the whole colour.
        let window = of(&first, LINE_COLOUR);
        assert!((1200..1400).contains(&window), "{window}");
        let smaller = of(&film.frame(1), LINE_COLOUR);
        assert!(smaller * 3 < window * 2, "{smaller} of {window}");
        // Ten voxels off in z, so the disk is wide in the axial panel.
        assert!(of(&first, TRUTH_COLOUR) > 100);
        // The distance decreases at each step; the prediction has no window, only its legend.
        let prediction = film.frame(2);
        let (nearer, farther) = (of(&prediction, NEARER), of(&prediction, FARTHER));
        assert!(nearer > 40 && farther == 0, "{nearer} {farther}");
        assert!(of(&prediction, LINE_COLOUR) < 150);
        // Frames beyond the last show the prediction.
        assert_eq!(film.frame(99), prediction);
    }
}
