//! Drawing on pixels: text, rectangles, lines and crosses, clipped to an area.

use image::{Rgb, RgbImage};

use super::font::{ADVANCE, GLYPH_HEIGHT, GLYPH_WIDTH, dot};

/// A part of a picture, pixels; drawing outside of it has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) left: i64,
    pub(super) top: i64,
    pub(super) width: i64,
    pub(super) height: i64,
}

impl Area {
    /// The whole of a picture.
    pub(super) fn of(picture: &RgbImage) -> Self {
        Self {
            left: 0,
            top: 0,
            width: i64::from(picture.width()),
            height: i64::from(picture.height()),
        }
    }

    fn contains(self, x: i64, y: i64) -> bool {
        (self.left..self.left + self.width).contains(&x)
            && (self.top..self.top + self.height).contains(&y)
    }
}

/// Sets one pixel.
pub(super) fn put(picture: &mut RgbImage, clip: Area, x: i64, y: i64, colour: Rgb<u8>) {
    if !clip.contains(x, y) {
        return;
    }
    if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
        && let Some(pixel) = picture.get_pixel_mut_checked(x, y)
    {
        *pixel = colour;
    }
}

/// Fills an area.
pub(super) fn fill(picture: &mut RgbImage, area: Area, colour: Rgb<u8>) {
    for y in area.top..area.top + area.height {
        for x in area.left..area.left + area.width {
            put(picture, area, x, y, colour);
        }
    }
}

/// Width of a line of text, pixels.
pub(super) fn text_width(text: &str, size: u32) -> i64 {
    i64::try_from(text.chars().count()).unwrap_or(0) * i64::from(ADVANCE * size)
}

/// A circle's line.
pub(super) fn circle(
    picture: &mut RgbImage,
    clip: Area,
    at: [i64; 2],
    radius: i64,
    colour: Rgb<u8>,
) {
    for (x, y) in square(radius + 1) {
        let off = x * x + y * y - radius * radius;
        if off.abs() <= radius {
            put(picture, clip, at[0] + x, at[1] + y, colour);
        }
    }
}

/// Four fifths of one colour and one of another.
pub(super) fn mixed(Rgb(below): Rgb<u8>, Rgb(colour): Rgb<u8>) -> Rgb<u8> {
    let part = |i: usize| (u16::from(below[i]) * 4 + u16::from(colour[i])) / 5;
    Rgb([0, 1, 2].map(|i| u8::try_from(part(i)).unwrap_or(u8::MAX)))
}

/// Mixes a fifth of a colour into a disk.
pub(super) fn tint(picture: &mut RgbImage, clip: Area, at: [i64; 2], radius: i64, colour: Rgb<u8>) {
    for (x, y) in square(radius).filter(|(x, y)| x * x + y * y <= radius * radius) {
        let (x, y) = (at[0] + x, at[1] + y);
        let (Ok(column), Ok(row)) = (u32::try_from(x), u32::try_from(y)) else {
            continue;
        };
        if let Some(below) = picture.get_pixel_checked(column, row).copied() {
            put(picture, clip, x, y, mixed(below, colour));
        }
    }
}

fn square(radius: i64) -> impl Iterator<Item = (i64, i64)> {
    (-radius..=radius).flat_map(move |y| (-radius..=radius).map(move |x| (x, y)))
}

/// Writes a line of text; each dot of the font is `size` pixels wide.
pub(super) fn text(
    picture: &mut RgbImage,
    clip: Area,
    at: [i64; 2],
    size: u32,
    colour: Rgb<u8>,
    line: &str,
) {
    for (character, number) in line.chars().zip(0_i64..) {
        let left = at[0] + number * i64::from(ADVANCE * size);
        for y in 0..GLYPH_HEIGHT * size {
            for x in 0..GLYPH_WIDTH * size {
                if dot(character, x / size, y / size) {
                    put(
                        picture,
                        clip,
                        left + i64::from(x),
                        at[1] + i64::from(y),
                        colour,
                    );
                }
            }
        }
    }
}

/// The same with a black rim, to be read on any background.
pub(super) fn rimmed_text(
    picture: &mut RgbImage,
    clip: Area,
    at: [i64; 2],
    size: u32,
    colour: Rgb<u8>,
    line: &str,
) {
    for (dx, dy) in [
        (-1, -1),
        (0, -1),
        (1, -1),
        (-1, 0),
        (1, 0),
        (-1, 1),
        (0, 1),
        (1, 1),
    ] {
        text(
            picture,
            clip,
            [at[0] + dx, at[1] + dy],
            size,
            Rgb([0; 3]),
            line,
        );
    }
    text(picture, clip, at, size, colour, line);
}

/// A straight line between two pixels, two pixels wide.
pub(super) fn line(
    picture: &mut RgbImage,
    clip: Area,
    from: [i64; 2],
    to: [i64; 2],
    colour: Rgb<u8>,
) {
    let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
    let steps = dx.abs().max(dy.abs()).max(1);
    for i in 0..=steps {
        // Rounds to nearest, halves upwards.
        let x = from[0] + (2 * dx * i + steps).div_euclid(2 * steps);
        let y = from[1] + (2 * dy * i + steps).div_euclid(2 * steps);
        // The second pixel lies across the steeper direction.
        let beside = if dx.abs() > dy.abs() {
            [x, y + 1]
        } else {
            [x + 1, y]
        };
        put(picture, clip, x, y, colour);
        put(picture, clip, beside[0], beside[1], colour);
    }
}

/// An upright (`+`) cross with a black rim.
pub(super) fn upright_cross(
    picture: &mut RgbImage,
    clip: Area,
    at: [i64; 2],
    arm: i64,
    colour: Rgb<u8>,
) {
    for (grow, ink) in [(1, Rgb([0; 3])), (0, colour)] {
        for along in -arm - grow..=arm + grow {
            for across in -grow..=1 + grow {
                put(picture, clip, at[0] + along, at[1] + across, ink);
                put(picture, clip, at[0] + across, at[1] + along, ink);
            }
        }
    }
}

/// A slanted (`x`) cross with a black rim.
pub(super) fn slanted_cross(
    picture: &mut RgbImage,
    clip: Area,
    at: [i64; 2],
    arm: i64,
    colour: Rgb<u8>,
) {
    for (grow, ink) in [(1, Rgb([0; 3])), (0, colour)] {
        for along in -arm - grow..=arm + grow {
            for across in -grow..=1 + grow {
                put(picture, clip, at[0] + along + across, at[1] + along, ink);
                put(picture, clip, at[0] + along + across, at[1] - along, ink);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INK: Rgb<u8> = Rgb([9, 8, 7]);

    fn inked(picture: &RgbImage) -> Vec<(u32, u32)> {
        picture
            .enumerate_pixels()
            .filter(|(.., p)| **p == INK)
            .map(|(x, y, _)| (x, y))
            .collect()
    }

    #[test]
    fn text_lands_where_it_is_told() {
        let mut picture = RgbImage::new(20, 20);
        let all = Area::of(&picture);
        text(&mut picture, all, [1, 2], 2, INK, "-");
        // The dash is dots 1..=3 of row 3, each dot 2×2 pixels.
        let expected: Vec<_> = (8..10).flat_map(|y| (3..9).map(move |x| (x, y))).collect();
        assert_eq!(inked(&picture), expected);
        assert_eq!(text_width("abc", 2), 36);
    }

    #[test]
    fn lines_join_their_ends_and_stay_in_the_clip() {
        let mut picture = RgbImage::new(10, 10);
        let all = Area::of(&picture);
        line(&mut picture, all, [1, 1], [4, 4], INK);
        assert_eq!(
            inked(&picture),
            [
                (1, 1),
                (2, 1),
                (2, 2),
                (3, 2),
                (3, 3),
                (4, 3),
                (4, 4),
                (5, 4)
            ]
        );
        let mut clipped = RgbImage::new(10, 10);
        let clip = Area {
            left: 2,
            top: 2,
            width: 3,
            height: 3,
        };
        line(&mut clipped, clip, [-20, 3], [30, 3], INK);
        assert_eq!(
            inked(&clipped),
            [(2, 3), (3, 3), (4, 3), (2, 4), (3, 4), (4, 4)]
        );
        upright_cross(&mut clipped, clip, [500, -500], 4, INK);
        assert_eq!(inked(&clipped).len(), 6);
    }
}
