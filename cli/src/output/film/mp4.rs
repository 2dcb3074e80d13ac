//! MP4 with H.264, encoded by Cisco's OpenH264, for browsers and slides.

use std::io::Cursor;

use ::mp4::{
    AvcConfig, FourCC, MediaConfig, Mp4Config, Mp4Sample, Mp4Writer, TrackConfig, TrackType,
};
use anyhow::Context as _;
use bytes::Bytes;
use common::report::picture::film::{FilmedTrajectory, HEIGHT, WIDTH};
use openh264::OpenH264API;
use openh264::encoder::{
    Encoder, EncoderConfig, FrameRate, IntraFramePeriod, QpRange, RateControlMode, UsageType,
    VuiConfig,
};
use openh264::formats::{RgbSliceU8, YUVBuffer};

use super::{PREDICTION_MS, STEP_MS};

/// Time units per second.
const TIMESCALE: u32 = 1000;
/// Types of H.264 units that describe the film, not a frame.
const SEQUENCE: u8 = 7;
const PICTURE: u8 = 8;
/// The type of a frame that does not refer to others.
const KEY: u8 = 5;
/// Maximum number of frames between key frames, so that players can seek.
const KEY_EVERY: u32 = 20;

/// The units of one frame, each preceded by its length.
#[derive(Default)]
struct Coded {
    bytes: Vec<u8>,
    key: bool,
}

pub(super) fn encode(film: &FilmedTrajectory<'_>) -> anyhow::Result<Vec<u8>> {
    let (mut sequence, mut picture) = (Vec::new(), Vec::new());
    let mut coded = Vec::with_capacity(film.frames());
    let config = EncoderConfig::new()
        .usage_type(UsageType::ScreenContentRealTime)
        .rate_control_mode(RateControlMode::Off)
        .qp(QpRange::new(20, 26))
        .adaptive_quantization(false)
        .background_detection(false)
        .max_frame_rate(FrameRate::from_hz(10.0))
        .intra_frame_period(IntraFramePeriod::from_num_frames(KEY_EVERY))
        .skip_frames(false)
        .num_threads(1)
        .vui(VuiConfig::bt601());
    let mut encoder = Encoder::with_api_config(OpenH264API::from_source(), config)?;
    let size = (WIDTH as usize, HEIGHT as usize);
    for number in 0..film.frames() {
        let frame = film.frame(number);
        let yuv = YUVBuffer::from_rgb8_source(RgbSliceU8::new(frame.as_raw(), size));
        let stream = encoder.encode(&yuv)?;
        let layers = (0..stream.num_layers()).filter_map(|i| stream.layer(i));
        let mut this = Coded::default();
        for layer in layers {
            for unit in (0..layer.nal_count()).filter_map(|i| layer.nal_unit(i)) {
                let unit = without_start_code(unit);
                match unit.first().map(|b| b & 0x1f) {
                    None => {}
                    Some(SEQUENCE) => sequence = unit.to_vec(),
                    Some(PICTURE) => picture = unit.to_vec(),
                    Some(kind) => {
                        this.key |= kind == KEY;
                        this.bytes.extend(u32::try_from(unit.len())?.to_be_bytes());
                        this.bytes.extend(unit);
                    }
                }
            }
        }
        coded.push(this);
    }
    mux(sequence, picture, coded).context("write the MP4 file")
}

/// Removes the start code (00 00 01 or 00 00 00 01) of a unit.
fn without_start_code(unit: &[u8]) -> &[u8] {
    let zeros = unit.iter().take_while(|b| **b == 0).count();
    match unit.get(zeros) {
        Some(1) if zeros >= 2 => &unit[zeros + 1..],
        _ => unit,
    }
}

fn mux(sequence: Vec<u8>, picture: Vec<u8>, coded: Vec<Coded>) -> anyhow::Result<Vec<u8>> {
    let config = Mp4Config {
        major_brand: FourCC { value: *b"isom" },
        minor_version: 512,
        compatible_brands: [*b"isom", *b"iso2", *b"avc1", *b"mp41"]
            .map(|value| FourCC { value })
            .into(),
        timescale: TIMESCALE,
    };
    let mut writer = Mp4Writer::write_start(Cursor::new(Vec::new()), &config)?;
    writer.add_track(&TrackConfig {
        track_type: TrackType::Video,
        timescale: TIMESCALE,
        language: "und".to_owned(),
        media_conf: MediaConfig::AvcConfig(AvcConfig {
            width: u16::try_from(WIDTH)?,
            height: u16::try_from(HEIGHT)?,
            seq_param_set: sequence,
            pic_param_set: picture,
        }),
    })?;
    let last = coded.len().saturating_sub(1);
    let mut start_time = 0;
    for (number, frame) in coded.into_iter().enumerate() {
        let duration = if number == last {
            PREDICTION_MS
        } else {
            STEP_MS
        };
        let sample = Mp4Sample {
            start_time,
            duration,
            rendering_offset: 0,
            is_sync: frame.key,
            bytes: Bytes::from(frame.bytes),
        };
        writer.write_sample(1, &sample)?;
        start_time += u64::from(duration);
    }
    writer.write_end()?;
    Ok(writer.into_writer().into_inner())
}
