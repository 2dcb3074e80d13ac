//! GIF, with one palette for all frames: greys for the scan, the same under
//! the landmark's disk, a colour cube for marks.

use ::gif::{DisposalMethod, Encoder, Frame, Repeat};
use common::report::picture::film::{FilmedWalk, HEIGHT, WIDTH, tinted};
use image::Rgb;

use super::{ANSWER_MS, STEP_MS};

/// Greys, evenly from black to white.
const GREYS: u8 = 64;
/// Greys under the disk.
const TINTS: u8 = 48;
/// Steps of each channel of the colours.
const CUBE: u8 = 5;
/// Says that a pixel is as in the frame before.
const SAME: u8 = GREYS + TINTS + CUBE * CUBE * CUBE;

/// The whole film.
pub(super) fn encode(walk: &FilmedWalk<'_>) -> anyhow::Result<Vec<u8>> {
    let (width, height) = (u16::try_from(WIDTH)?, u16::try_from(HEIGHT)?);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height, &palette())?;
    encoder.set_repeat(Repeat::Infinite)?;
    let mut before: Vec<u8> = Vec::new();
    for number in 0..walk.frames() {
        let picture = walk.frame(number);
        let now: Vec<u8> = picture.pixels().map(|p| index(*p)).collect();
        let changed = now.iter().enumerate().map(|(i, &colour)| {
            if before.get(i) == Some(&colour) {
                SAME
            } else {
                colour
            }
        });
        let last = number + 1 == walk.frames();
        let shown_ms = if last { ANSWER_MS } else { STEP_MS };
        encoder.write_frame(&Frame {
            width,
            height,
            delay: u16::try_from(shown_ms / 10)?,
            dispose: DisposalMethod::Keep,
            transparent: Some(SAME),
            buffer: changed.collect::<Vec<u8>>().into(),
            ..Frame::default()
        })?;
        before = now;
    }
    drop(encoder);
    Ok(bytes)
}

fn palette() -> Vec<u8> {
    let grey = |i: u8| [spread(i, GREYS); 3];
    let cube = |i: u8| [i / (CUBE * CUBE), i / CUBE % CUBE, i % CUBE].map(|c| spread(c, CUBE));
    let greys = (0..GREYS).flat_map(grey);
    let tints = (0..TINTS).flat_map(|i| tinted(spread(i, TINTS)).0);
    let colours = (0..CUBE * CUBE * CUBE).flat_map(cube);
    greys.chain(tints).chain(colours).chain([0; 3]).collect()
}

/// Level `i` of `of`, over 0..=255.
fn spread(i: u8, of: u8) -> u8 {
    let level = u16::from(i) * 255 / (u16::from(of) - 1);
    u8::try_from(level).unwrap_or(u8::MAX)
}

/// The nearest level.
fn level(value: u8, of: u8) -> u8 {
    let nearest = (u16::from(value) * (u16::from(of) - 1) + 127) / 255;
    u8::try_from(nearest).unwrap_or(0)
}

fn index(Rgb([r, g, b]): Rgb<u8>) -> u8 {
    let (low, high) = (r.min(g).min(b), r.max(g).max(b));
    if high - low < 12 {
        return level(g, GREYS);
    }
    // Which grey the disk would have made this of.
    let Rgb([_, darkest, _]) = tinted(0);
    let below = u16::from(g.saturating_sub(darkest)) * 5 / 4;
    let below = u8::try_from(below).unwrap_or(u8::MAX);
    let Rgb(disk) = tinted(below);
    if disk.iter().zip([r, g, b]).all(|(a, b)| a.abs_diff(b) <= 4) {
        return GREYS + level(below, TINTS);
    }
    let [r, g, b] = [r, g, b].map(|c| level(c, CUBE));
    GREYS + TINTS + (r * CUBE + g) * CUBE + b
}
