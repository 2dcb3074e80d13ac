//! GIF with one palette for all frames: greys for the scan, and the same greys
//! under the landmark's disk, under marks and under their edges.

use std::collections::HashMap;

use ::gif::{DisposalMethod, Encoder, Frame, Repeat};
use common::report::picture::film::{FilmedTrajectory, HEIGHT, WIDTH, marked, tinted};
use image::Rgb;

use super::{PREDICTION_MS, STEP_MS};

/// Greys, evenly from black to white: alone, under the disk, under marks.
const GREYS: u8 = 64;
const TINTED: u8 = 48;
const MARKED: u8 = 7;
/// The palette index of a pixel that is unchanged since the previous frame.
const SAME: u8 = 255;

pub(super) fn encode(film: &FilmedTrajectory<'_>) -> anyhow::Result<Vec<u8>> {
    let (width, height) = (u16::try_from(WIDTH)?, u16::try_from(HEIGHT)?);
    let mut bytes = Vec::new();
    let palette = palette();
    let mut table: Vec<u8> = palette.iter().flat_map(|colour| colour.0).collect();
    table.resize(3 * 256, 0);
    let mut encoder = Encoder::new(&mut bytes, width, height, &table)?;
    encoder.set_repeat(Repeat::Infinite)?;
    let mut before: Vec<u8> = Vec::new();
    let mut indices: HashMap<Rgb<u8>, u8> = HashMap::new();
    for number in 0..film.frames() {
        let picture = film.frame(number);
        let mut index = |pixel: &Rgb<u8>| {
            let index = indices.entry(*pixel);
            *index.or_insert_with(|| nearest(&palette, *pixel))
        };
        let now: Vec<u8> = picture.pixels().map(&mut index).collect();
        let changed = now.iter().enumerate().map(|(i, &colour)| {
            let same = before.get(i) == Some(&colour);
            if same { SAME } else { colour }
        });
        let last = number + 1 == film.frames();
        let shown_ms = if last { PREDICTION_MS } else { STEP_MS };
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

/// The colours, without [`SAME`].
fn palette() -> Vec<Rgb<u8>> {
    let greys = |count: u8| (0..count).map(move |i| grey(i, count));
    let plain = greys(GREYS).map(|grey| Rgb([grey; 3]));
    let tinted = greys(TINTED).map(tinted);
    let marked = greys(MARKED).flat_map(marked);
    plain.chain(tinted).chain(marked).collect()
}

/// Grey level `i` of `of`, scaled to 0..=255.
fn grey(i: u8, of: u8) -> u8 {
    let level = u16::from(i) * 255 / (u16::from(of) - 1);
    u8::try_from(level).unwrap_or(u8::MAX)
}

/// Index of the nearest palette colour.
fn nearest(palette: &[Rgb<u8>], Rgb(wanted): Rgb<u8>) -> u8 {
    let distance = |Rgb(colour): &Rgb<u8>| -> u32 {
        let squares = colour.iter().zip(wanted).map(|(a, b)| a.abs_diff(b));
        squares.map(|d| u32::from(d).pow(2)).sum()
    };
    let colours = (0..SAME).zip(palette);
    let nearest = colours.min_by_key(|(_, colour)| distance(colour));
    nearest.map_or(0, |(index, _)| index)
}
