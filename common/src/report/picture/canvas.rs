//! Anti-aliased drawing: lines, crosses, disks and text.

use std::sync::LazyLock;

use ab_glyph::{Font as _, FontRef, GlyphId, ScaleFont as _, point};
use image::{Rgb, RgbImage};

/// Text sizes: heights of capital letters, pixels.
pub(super) const TEXT: u16 = 12;
pub(super) const SMALL_TEXT: u16 = 8;
const BLACK: Rgb<u8> = Rgb([0; 3]);

static FONT: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    let bytes = include_bytes!("Roboto-Regular.ttf");
    FontRef::try_from_slice(bytes).expect("the font in this program is whole")
});

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) left: i64,
    pub(super) top: i64,
    pub(super) width: i64,
    pub(super) height: i64,
}

impl Area {
    pub(super) fn square(left: i64, top: i64, side: i64) -> Self {
        Self {
            left,
            top,
            width: side,
            height: side,
        }
    }

    pub(super) fn right(self) -> i64 {
        self.left + self.width
    }

    pub(super) fn bottom(self) -> i64 {
        self.top + self.height
    }

    /// The pixels around the segment between two points, with a margin.
    fn around([ax, ay]: [i64; 2], [bx, by]: [i64; 2], margin: i64) -> Self {
        Self {
            left: ax.min(bx) - margin,
            top: ay.min(by) - margin,
            width: (ax - bx).abs() + 2 * margin + 1,
            height: (ay - by).abs() + 2 * margin + 1,
        }
    }
}

/// `share` (0 to 1) of one colour over another.
pub(super) fn mixed(Rgb(below): Rgb<u8>, Rgb(colour): Rgb<u8>, share: f32) -> Rgb<u8> {
    let mix = |i: usize| f32::from(below[i]) + (f32::from(colour[i]) - f32::from(below[i])) * share;
    Rgb([0, 1, 2].map(|i| mix(i).round() as u8))
}

/// An image to draw on. Drawing outside `area` has no effect.
pub(super) struct Canvas<'a> {
    picture: &'a mut RgbImage,
    pub(super) area: Area,
}

impl<'a> Canvas<'a> {
    pub(super) fn new(picture: &'a mut RgbImage) -> Self {
        let (width, height) = (picture.width().into(), picture.height().into());
        Self {
            picture,
            area: Area {
                left: 0,
                top: 0,
                width,
                height,
            },
        }
    }

    /// The same image with another drawing area.
    pub(super) fn part(&mut self, area: Area) -> Canvas<'_> {
        Canvas {
            picture: self.picture,
            area,
        }
    }

    /// Mixes `share` (0 to 1) of a colour into a pixel.
    fn cover(&mut self, [x, y]: [i64; 2], colour: Rgb<u8>, share: f32) {
        let Area { left, top, .. } = self.area;
        let inside =
            (left..self.area.right()).contains(&x) && (top..self.area.bottom()).contains(&y);
        if inside
            && let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
            && let Some(pixel) = self.picture.get_pixel_mut_checked(x, y)
        {
            *pixel = mixed(*pixel, colour, share.clamp(0.0, 1.0));
        }
    }

    pub(super) fn put(&mut self, at: [i64; 2], colour: Rgb<u8>) {
        self.cover(at, colour, 1.0);
    }

    pub(super) fn fill(&mut self, colour: Rgb<u8>) {
        self.shade(self.area, colour, 1.0, |_, _| f32::NEG_INFINITY);
    }

    /// Covers the pixels of a shape, those at its edge in part. `outside` is the
    /// distance (pixels) from a pixel's centre to the shape, negative inside.
    fn shade(
        &mut self,
        bounds: Area,
        colour: Rgb<u8>,
        share: f32,
        outside: impl Fn(f32, f32) -> f32,
    ) {
        let rows = bounds.top.max(self.area.top)..bounds.bottom().min(self.area.bottom());
        let columns = bounds.left.max(self.area.left)..bounds.right().min(self.area.right());
        for (y, x) in rows.flat_map(|y| columns.clone().map(move |x| (y, x))) {
            let inside = (0.5 - outside(x as f32, y as f32)).clamp(0.0, 1.0);
            self.cover([x, y], colour, share * inside);
        }
    }

    /// A straight line between the centres of two pixels.
    pub(super) fn line(&mut self, from: [i64; 2], to: [i64; 2], width: f32, colour: Rgb<u8>) {
        let [x, y] = from.map(|v| v as f32);
        let [dx, dy] = [0, 1].map(|i| (to[i] - from[i]) as f32);
        let squared = (dx * dx + dy * dy).max(f32::MIN_POSITIVE);
        let outside = |px: f32, py: f32| {
            let (px, py) = (px - x, py - y);
            let along = ((px * dx + py * dy) / squared).clamp(0.0, 1.0);
            (px - along * dx).hypot(py - along * dy) - width / 2.0
        };
        let bounds = Area::around(from, to, width.ceil() as i64);
        self.shade(bounds, colour, 1.0, outside);
    }

    /// A rectangle's outline.
    pub(super) fn frame(&mut self, a: [i64; 2], b: [i64; 2], colour: Rgb<u8>) {
        let corners = [a, [b[0], a[1]], b, [a[0], b[1]], a];
        for pair in corners.windows(2) {
            self.line(pair[0], pair[1], 2.0, colour);
        }
    }

    /// A circle's outline.
    pub(super) fn circle(&mut self, at: [i64; 2], radius: i64, colour: Rgb<u8>) {
        let outside = |x, y| (distance(at, x, y) - radius as f32).abs() - 0.75;
        self.shade(Area::around(at, at, radius + 2), colour, 1.0, outside);
    }

    /// A disk with opacity `share` (0 to 1).
    pub(super) fn disk(&mut self, at: [i64; 2], radius: i64, colour: Rgb<u8>, share: f32) {
        let outside = |x, y| distance(at, x, y) - radius as f32;
        self.shade(Area::around(at, at, radius + 1), colour, share, outside);
    }

    /// An upright (`+`) cross with a black outline.
    pub(super) fn upright_cross(&mut self, at: [i64; 2], arm: i64, colour: Rgb<u8>) {
        self.cross(at, [[arm, 0], [0, arm]], colour);
    }

    /// A slanted (`x`) cross with a black outline.
    pub(super) fn slanted_cross(&mut self, at: [i64; 2], arm: i64, colour: Rgb<u8>) {
        self.cross(at, [[arm, arm], [arm, -arm]], colour);
    }

    fn cross(&mut self, [x, y]: [i64; 2], arms: [[i64; 2]; 2], colour: Rgb<u8>) {
        for (width, ink) in [(4.0, BLACK), (2.0, colour)] {
            for [dx, dy] in arms {
                self.line([x - dx, y - dy], [x + dx, y + dy], width, ink);
            }
        }
    }

    /// Writes a line of text with the top left of its capitals at `at`.
    pub(super) fn text(&mut self, at: [i64; 2], size: u16, colour: Rgb<u8>, line: &str) {
        let font = FONT.as_scaled(scale(size));
        // Baselines on whole pixels keep letters sharp.
        let mut pen = point(at[0] as f32, (at[1] + i64::from(size)) as f32);
        for id in line.chars().map(glyph) {
            let outline = FONT.outline_glyph(id.with_scale_and_position(scale(size), pen));
            pen.x += font.h_advance(id);
            let Some(outline) = outline else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|x, y, share| {
                let [x, y] = [x, y].map(i64::from);
                self.cover([corner.x as i64 + x, corner.y as i64 + y], colour, share);
            });
        }
    }

    /// Writes text with a black outline, readable on any background.
    pub(super) fn outlined_text(
        &mut self,
        [left, top]: [i64; 2],
        size: u16,
        colour: Rgb<u8>,
        line: &str,
    ) {
        for (dx, dy) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))) {
            self.text([left + dx, top + dy], size, BLACK, line);
        }
        self.text([left, top], size, colour, line);
    }
}

fn distance(at: [i64; 2], x: f32, y: f32) -> f32 {
    (x - at[0] as f32).hypot(y - at[1] as f32)
}

/// A question mark for characters missing from the font.
fn glyph(character: char) -> GlyphId {
    match FONT.glyph_id(character) {
        GlyphId(0) => FONT.glyph_id('?'),
        known => known,
    }
}

/// Height of the font, from the highest ascender to the lowest descender, in pixels.
fn scale(size: u16) -> f32 {
    // A capital letter takes 1456 of Roboto's 2400 units.
    f32::from(size) * 2400.0 / 1456.0
}

/// Width of a line of text, pixels.
pub(super) fn text_width(text: &str, size: u16) -> i64 {
    let font = FONT.as_scaled(scale(size));
    let width: f32 = text.chars().map(|c| font.h_advance(glyph(c))).sum();
    width.ceil() as i64
}

/// The text, its end replaced by `…` if it is too wide.
pub(super) fn shortened(text: &str, size: u16, width: i64) -> String {
    let mut short = text.to_owned();
    let mut kept = text;
    while text_width(&short, size) > width && !kept.is_empty() {
        kept = &kept[..kept.char_indices().next_back().map_or(0, |(at, _)| at)];
        short = format!("{kept}…");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const INK: Rgb<u8> = Rgb([200, 100, 50]);

    /// The changed pixels, and whether each is fully covered.
    fn drawn(picture: &RgbImage) -> Vec<([u32; 2], bool)> {
        picture
            .enumerate_pixels()
            .filter(|(.., p)| **p != BLACK)
            .map(|(x, y, p)| ([x, y], *p == INK))
            .collect()
    }

    fn bounds(picture: &RgbImage) -> [[u32; 2]; 2] {
        let all = drawn(picture);
        let range = |i: usize| {
            let values = all.iter().map(|(at, _)| at[i]);
            [values.clone().min().unwrap(), values.max().unwrap()]
        };
        [range(0), range(1)]
    }

    #[test]
    fn capitals_start_at_the_text_position_with_smooth_edges() {
        let mut picture = RgbImage::new(100, 40);
        Canvas::new(&mut picture).text([10, 7], TEXT, INK, "HEHE");
        let [across, down] = bounds(&picture);
        assert_eq!(i64::from(down[0]), 7);
        assert_eq!(i64::from(down[1]), 7 + i64::from(TEXT) - 1);
        let width = u32::try_from(text_width("HEHE", TEXT)).unwrap();
        assert!(across[0] >= 10 && across[1] < 10 + width, "{across:?}");
        assert!(across[1] - across[0] > width - 5, "{across:?}");
        let full = drawn(&picture).iter().filter(|(_, full)| *full).count();
        assert!(full > 20 && full < drawn(&picture).len(), "{full}");
    }

    #[test]
    fn characters_missing_from_the_font_become_question_marks() {
        let picture = |line: &str| {
            let mut picture = RgbImage::new(100, 40);
            Canvas::new(&mut picture).text([10, 10], SMALL_TEXT, INK, line);
            picture
        };
        assert_eq!(picture("a\u{1f9e0}\nb"), picture("a??b"));
        assert_ne!(picture("µ"), picture("?"));
    }

    #[test]
    fn lines_join_their_ends_and_stay_in_the_clip() {
        let mut picture = RgbImage::new(12, 12);
        Canvas::new(&mut picture).line([2, 6], [8, 6], 2.0, INK);
        assert_eq!(bounds(&picture), [[1, 9], [5, 7]]);
        let full = |picture: &RgbImage| {
            let drawn = drawn(picture).into_iter();
            drawn
                .filter_map(|(at, full)| full.then_some(at))
                .collect::<Vec<_>>()
        };
        assert_eq!(full(&picture), [2, 3, 4, 5, 6, 7, 8].map(|x| [x, 6]));
        let mut clipped = RgbImage::new(12, 12);
        let clip = Area::square(2, 2, 3);
        let mut canvas = Canvas::new(&mut clipped);
        canvas.part(clip).line([-20_000, 3], [30_000, 3], 2.0, INK);
        assert_eq!(bounds(&clipped), [[2, 4], [2, 4]]);
        assert_eq!(full(&clipped), [[2, 3], [3, 3], [4, 3]]);
        let before = clipped.clone();
        let mut canvas = Canvas::new(&mut clipped);
        canvas.part(clip).upright_cross([500, -500], 4, INK);
        canvas.part(clip).slanted_cross([9, 9], 3, INK);
        assert_eq!(clipped, before);
    }

    #[test]
    fn disks_are_translucent() {
        let below = Rgb([100; 3]);
        let mut picture = RgbImage::from_pixel(21, 21, below);
        let mut canvas = Canvas::new(&mut picture);
        canvas.disk([10, 10], 5, INK, 0.2);
        canvas.circle([10, 10], 8, INK);
        for (at, colour) in [
            ([10, 10], mixed(below, INK, 0.2)),
            ([14, 10], mixed(below, INK, 0.2)),
            ([16, 10], below),
            ([10, 2], INK),
            ([0, 0], below),
        ] {
            assert_eq!(*picture.get_pixel(at[0], at[1]), colour, "{at:?}");
        }
    }
}
