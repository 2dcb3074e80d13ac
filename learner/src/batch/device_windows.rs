//! Renders and augments a batch's windows on the training device, from scans
//! held there. The result equals the collate thread's, bit for bit in f32.

use std::ops::Range;
use std::sync::Arc;

use common::environment::rules::Rules;
use common::environment::window::WindowRule;
use common::imaging::scan::Scan;
use model::{DeviceScans, ModelError};
use tch::{Device, Kind, Tensor};

use crate::batch::augment::Augmenter;
use crate::batch::frames::{ABSENT, FrameList};

/// Scans and noise on a device.
#[derive(Debug)]
pub struct DeviceWindows {
    scans: DeviceScans,
    augmenter: Augmenter,
    /// Every stretch of the noise as a row `[starts, n³]`, views of one buffer.
    noise: Option<Tensor>,
    window: WindowRule,
    size: usize,
    history: usize,
    device: Device,
}

/// The windows of some rows, `[N, H, n, n, n]`.
#[derive(Debug)]
pub struct Windows {
    pub state: Tensor,
    /// Of the bootstrap states; `None` if they are not needed.
    pub next: Option<Tensor>,
}

impl DeviceWindows {
    /// Copies scans, in manifest order, and the augmenter's noise to a device.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(
        scans: &[Arc<Scan>],
        rules: &Rules,
        augmenter: Augmenter,
        device: Device,
    ) -> Result<Self, ModelError> {
        let samples = rules.window_size.pow(3);
        let noise = if augmenter.noise().len() > samples {
            let pool = Tensor::f_from_slice(augmenter.noise())?.f_to_device(device)?;
            Some(pool.f_unfold(0, count(samples), 1)?)
        } else {
            None
        };
        Ok(Self {
            scans: DeviceScans::new(scans.iter().map(|s| &s.volume), device)?,
            augmenter,
            noise,
            window: rules.window,
            size: rules.window_size,
            history: rules.history,
            device,
        })
    }

    /// The windows of the rows `rows` of `agents` entries each, as elements of type
    /// `kind`. `bootstraps`: whether to render the bootstrap states.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn render(
        &self,
        list: &FrameList,
        rows: &Range<usize>,
        agents: usize,
        kind: Kind,
        bootstraps: bool,
    ) -> Result<Windows, ModelError> {
        let painted = self.painted(list, rows, kind)?;
        let places = agents * self.history;
        let gather = |places_of: &[u32]| -> Result<Tensor, ModelError> {
            let index = self.index(list, rows, places_of, places);
            let index = Tensor::f_from_slice(&index)?.f_to_device(self.device)?;
            let windows = painted.f_index_select(0, &index)?;
            let n = count(self.size);
            Ok(windows.f_reshape([count(rows.len() * agents), count(self.history), n, n, n])?)
        };
        Ok(Windows {
            state: gather(&list.state)?,
            next: bootstraps.then(|| gather(&list.next)).transpose()?,
        })
    }

    /// Row 0 is the zero frame, the others are the rows' frames.
    fn index(
        &self,
        list: &FrameList,
        rows: &Range<usize>,
        places_of: &[u32],
        places: usize,
    ) -> Vec<i64> {
        let begin = list.first[rows.start];
        let mut index = Vec::with_capacity(rows.len() * places);
        for row in rows.clone() {
            let first = 1 + list.first[row] - begin;
            let of_row = &places_of[row * places..(row + 1) * places];
            index.extend(of_row.iter().map(|&place| match place {
                ABSENT => 0,
                place => count(first + place as usize),
            }));
        }
        index
    }

    /// `[1 + F, n³]`: the zero frame, then the frames of the rows.
    fn painted(
        &self,
        list: &FrameList,
        rows: &Range<usize>,
        kind: Kind,
    ) -> Result<Tensor, ModelError> {
        let range = list.first[rows.start]..list.first[rows.end];
        let samples = count(self.size.pow(3));
        let size = [count(range.len() + 1), samples];
        let painted = Tensor::f_empty(size, (kind, self.device))?;
        let _ = painted.f_narrow(0, 0, 1)?.f_zero_()?;
        if range.is_empty() {
            return Ok(painted);
        }
        let bytes = self
            .scans
            .render(self.window, self.size, &list.frames[range.clone()])?
            .f_reshape([count(range.len()), samples])?;
        let (tables, places) = self.tables(list, rows)?;
        let index = bytes.f_to_kind(Kind::Int)?.f_add_(&places)?;
        let mut values = tables
            .f_index_select(0, &index.f_flatten(0, -1)?)?
            .f_reshape([count(range.len()), samples])?;
        if let Some(noise) = &self.noise {
            let starts = self.noise_starts(list, rows);
            let starts = Tensor::f_from_slice(&starts)?.f_to_device(self.device)?;
            let noise = noise.f_index_select(0, &starts)?;
            values = values.f_add_(&noise)?.f_clamp_(0.0, 1.0)?;
        }
        painted
            .f_narrow(0, 1, count(range.len()))?
            .f_copy_(&values)?;
        Ok(painted)
    }

    /// All rows' tables concatenated, and where each frame's begins `[F, 1]`.
    fn tables(
        &self,
        list: &FrameList,
        rows: &Range<usize>,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let mut tables = Vec::with_capacity(rows.len() * 256);
        let mut places: Vec<i32> = Vec::new();
        for (i, row) in (0_i32..).zip(rows.clone()) {
            tables.extend_from_slice(list.looks[row].table());
            let frames = list.first[row + 1] - list.first[row];
            places.extend(std::iter::repeat_n(i * 256, frames));
        }
        let places = Tensor::f_from_slice(&places)?.f_unsqueeze(1)?;
        Ok((
            Tensor::f_from_slice(&tables)?.f_to_device(self.device)?,
            places.f_to_device(self.device)?,
        ))
    }

    fn noise_starts(&self, list: &FrameList, rows: &Range<usize>) -> Vec<i64> {
        let samples = self.size.pow(3);
        let frames = rows
            .clone()
            .flat_map(|row| (list.first[row]..list.first[row + 1]).map(move |f| (row, f)));
        frames
            .map(|(row, frame)| {
                let look = &list.looks[row];
                let number = list.numbers[frame];
                count(self.augmenter.noise_start(look, number, samples))
            })
            .collect()
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batch, Collator, SampledRow};
    use crate::testing::{sampled, scans};
    use common::config::Config;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    fn config(augmented: bool, poses: bool) -> Config {
        let mut config = Config::defaults().unwrap();
        (config.rules.window_size, config.rules.history) = (6, 3);
        config.data.landmarks = vec!["A".into(), "B".into()];
        config.augment.enabled = augmented;
        config.pose.share = if poses { 0.5 } else { 0.0 };
        config
    }

    fn rows(config: &Config, group: u16) -> Vec<SampledRow> {
        let number = |i: u32| -> SampledRow {
            let mut sampled = sampled(i, group, config.rules.history, 1.0);
            let row = &mut sampled.row;
            row.agents[0].state[0].valid = !i.is_multiple_of(3);
            // Most frames of the bootstrap state are the state's, as in an episode.
            let shared = row.agents[0].state[1..].to_vec();
            row.agents[0].next[..shared.len()].clone_from_slice(&shared);
            row.header.pose = if config.pose.share > 0.0 { i % 4 } else { 0 };
            sampled
        };
        (0..9).map(number).collect()
    }

    fn filled(config: &Config, group: u16, on_device: bool) -> (Batch, Augmenter) {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let augmenter = Augmenter::new(&config.augment, 216, &mut rng);
        let mut collator = Collator::new(scans(3), config, group.into(), augmenter.clone(), 1);
        if on_device {
            collator = collator.without_windows();
        }
        let mut batch = Batch::default();
        collator
            .fill(&rows(config, group), &mut batch, &mut rng)
            .unwrap();
        (batch, augmenter)
    }

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    #[test]
    fn windows_are_bit_equal_to_the_collate_threads() {
        for (augmented, poses, group) in [
            (false, false, 1),
            (true, false, 1),
            (true, true, 1),
            (true, true, 2),
        ] {
            let config = config(augmented, poses);
            let (expected, _) = filled(&config, group, false);
            let (batch, augmenter) = filled(&config, group, true);
            assert!(batch.state.is_empty() && batch.next.is_empty());
            assert_eq!(batch.frames, expected.frames);
            let device =
                DeviceWindows::new(&scans(3), &config.rules, augmenter, Device::Cpu).unwrap();
            let each = usize::from(group) * 3 * 216;
            for rows in [0..9, 0..4, 4..9, 8..9] {
                let agents = usize::from(group);
                let found = device
                    .render(&batch.frames, &rows, agents, Kind::Float, true)
                    .unwrap();
                let entries = i64::try_from(rows.len() * agents).unwrap();
                assert_eq!(found.state.size(), [entries, 3, 6, 6, 6]);
                let part = rows.start * each..rows.end * each;
                assert_eq!(numbers(&found.state), expected.state[part.clone()]);
                assert_eq!(numbers(&found.next.unwrap()), expected.next[part]);
            }
            let half = device
                .render(&batch.frames, &(0..9), group.into(), Kind::BFloat16, false)
                .unwrap();
            assert!(half.next.is_none() && half.state.kind() == Kind::BFloat16);
        }
    }
}
