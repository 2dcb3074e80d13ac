//! Parsing of `--render`, and decoding of encoded films.

use std::io::Cursor;

use common::imaging::volume::Volume;
use common::report::picture::film::{HEIGHT, WIDTH};
use image::Rgb;
use openh264::decoder::Decoder;
use openh264::formats::YUVSource as _;

use super::*;

fn scene() -> (Volume, Vec<Moment>) {
    let bytes: Vec<u8> = (0..64_000)
        .map(|i| if i % 40 < 20 { 60 } else { 160 })
        .collect();
    let moments = (0..25).map(|i| Moment {
        position: [5.0 + f64::from(i), 20.0, 20.0],
        stride: if i < 12 { 2 } else { 1 },
    });
    (Volume::from_u8([40; 3], bytes).unwrap(), moments.collect())
}

fn filmed<'a>(volume: &'a Volume, moments: &'a [Moment]) -> FilmedTrajectory<'a> {
    FilmedTrajectory {
        volume,
        grid: [1.0; 3].into(),
        window: 12,
        moments,
        prediction: [29.5, 20.0, 20.0],
        truth: Some([30.0, 22.0, 24.0]),
        title: "a scan: AC",
        notice: NOTICE,
    }
}

/// Mean difference per channel between two pictures.
fn apart(a: impl Iterator<Item = [u8; 3]>, b: impl Iterator<Item = Rgb<u8>>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for (a, Rgb(b)) in a.zip(b) {
        for i in 0..3 {
            sum += f64::from(a[i].abs_diff(b[i]));
            count += 1.0;
        }
    }
    sum / count
}

#[test]
fn a_gif_decodes_to_the_drawn_frames() {
    let (volume, moments) = scene();
    let film = filmed(&volume, &moments);
    let bytes = gif::encode(&film).unwrap();
    let mut options = ::gif::DecodeOptions::new();
    options.set_color_output(::gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(Cursor::new(&bytes)).unwrap();
    let mut canvas = vec![[0; 3]; (WIDTH * HEIGHT) as usize];
    let mut shown_cs = 0_u32;
    for number in 0..film.frames() {
        let frame = decoder.read_next_frame().unwrap().unwrap();
        shown_cs += u32::from(frame.delay);
        for (below, pixel) in canvas.iter_mut().zip(frame.buffer.chunks_exact(4)) {
            if pixel[3] != 0 {
                *below = [pixel[0], pixel[1], pixel[2]];
            }
        }
        let off = apart(canvas.iter().copied(), film.frame(number).pixels().copied());
        assert!(off < 4.0, "frame {number}: {off}");
    }
    assert!(decoder.read_next_frame().unwrap().is_none());
    assert_eq!(shown_cs, 25 * 10 + 200);
}

#[test]
fn an_mp4_decodes_to_the_drawn_frames() {
    let (volume, moments) = scene();
    let film = filmed(&volume, &moments);
    let bytes = mp4::encode(&film).unwrap();
    let size = bytes.len() as u64;
    let mut file = ::mp4::Mp4Reader::read_header(Cursor::new(bytes), size).unwrap();
    let track = file.tracks().get(&1).unwrap();
    let size = [track.width(), track.height()].map(u32::from);
    assert_eq!(size, [WIDTH, HEIGHT]);
    let (sequence, picture) = (
        track.sequence_parameter_set(),
        track.picture_parameter_set(),
    );
    let heads = [sequence, picture].map(|head| head.unwrap().to_vec());
    assert_eq!(file.sample_count(1).unwrap() as usize, film.frames());
    let mut decoder = Decoder::new().unwrap();
    let unit = |body: &[u8]| [&[0, 0, 0, 1], body].concat();
    for head in heads {
        let _ = decoder.decode(&unit(&head));
    }
    let mut shown_ms = 0;
    for number in 0..film.frames() {
        let id = u32::try_from(number + 1).unwrap();
        let sample = file.read_sample(1, id).unwrap().unwrap();
        assert_eq!(sample.is_sync, number % 20 == 0, "frame {number}");
        shown_ms += sample.duration;
        let mut stream = Vec::new();
        let mut rest = &sample.bytes[..];
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (body, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            stream.extend(unit(body));
            rest = after;
        }
        let picture = decoder.decode(&stream).unwrap().unwrap();
        assert_eq!(picture.dimensions(), (WIDTH as usize, HEIGHT as usize));
        let mut rgb = vec![0; (WIDTH * HEIGHT * 3) as usize];
        picture.write_rgb8(&mut rgb);
        let found = rgb.chunks_exact(3).map(|p| [p[0], p[1], p[2]]);
        let off = apart(found, film.frame(number).pixels().copied());
        assert!(off < 6.0, "frame {number}: {off}");
    }
    assert_eq!(shown_ms, 25 * STEP_MS + PREDICTION_MS);
}

#[test]
fn render_selects_all_or_the_worst_predictions() {
    assert_eq!("worst:5".parse(), Ok(Which::Worst(5)));
    assert_eq!("all".parse(), Ok(Which::All));
    for bad in ["worst", "worst:0", "worst:x", "best:2", ""] {
        let error = bad.parse::<Which>().unwrap_err();
        assert!(error.contains("worst:5"), "{bad}");
    }
}
