//! Strided copies: every `stride`-th sample of a volume's lines along z.
//!
//! A window of 45³ has 2,025 such lines. For bytes and strides 1 to 4 the copy becomes
//! vector shuffles where the caller is compiled for a CPU that has them.

use std::ops::Range;

/// The lines along z of a window that lie inside a volume.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    /// Voxels along x and y of each line; negative outside.
    pub(crate) xs: &'a [i32],
    pub(crate) ys: &'a [i32],
    /// Index increments per voxel along x and y.
    pub(crate) steps: [usize; 2],
    /// Index along z of the first sample inside, and the range of samples inside.
    pub(crate) first: usize,
    pub(crate) run: Range<usize>,
    pub(crate) stride: usize,
}

impl Lines<'_> {
    /// Index of the first voxel of each line and the samples to write.
    #[inline(always)]
    fn each<T>(&self, out: &mut [T], mut line: impl FnMut(usize, &mut [T])) {
        let n = self.ys.len();
        for (&x, plane) in self.xs.iter().zip(out.chunks_exact_mut(n * n)) {
            let Ok(x) = usize::try_from(x) else { continue };
            let plane_at = x * self.steps[0] + self.first;
            for (&y, row) in self.ys.iter().zip(plane.chunks_exact_mut(n)) {
                if let Ok(y) = usize::try_from(y) {
                    line(plane_at + y * self.steps[1], &mut row[self.run.clone()]);
                }
            }
        }
    }
}

/// Where the samples of a window are read from.
pub(crate) trait Source<T: Copy>: Copy {
    /// The sample of one voxel.
    fn at(self, index: usize) -> T;

    /// Writes the samples of all lines; samples outside are left unchanged.
    #[inline(always)]
    fn fill(self, lines: &Lines<'_>, out: &mut [T]) {
        lines.each(out, |base, row| {
            for (i, sample) in row.iter_mut().enumerate() {
                *sample = self.at(base + i * lines.stride);
            }
        });
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Source<u8> for Bytes<'_> {
    #[inline(always)]
    fn at(self, index: usize) -> u8 {
        self.0[index]
    }

    #[inline(always)]
    fn fill(self, lines: &Lines<'_>, out: &mut [u8]) {
        let Some(last) = lines.run.len().checked_sub(1) else {
            return;
        };
        let reach = last * lines.stride;
        let from = |base: usize| &self.0[base..=base + reach];
        match lines.stride {
            1 => lines.each(out, |base, row| copy(from(base), row)),
            2 => lines.each(out, |base, row| every::<2>(from(base), row)),
            3 => lines.each(out, |base, row| every::<3>(from(base), row)),
            4 => lines.each(out, |base, row| every::<4>(from(base), row)),
            stride => lines.each(out, |base, row| {
                for (sample, chunk) in row.iter_mut().zip(from(base).chunks(stride)) {
                    *sample = chunk[0];
                }
            }),
        }
    }
}

/// Bytes per block: the vector width of every CPU.
const BLOCK: usize = 16;

/// Copies a few dozen bytes, for which calling memcpy costs more than the copy.
/// The last block overlaps the one before.
#[inline(always)]
fn copy(from: &[u8], out: &mut [u8]) {
    let blocks = from.as_chunks::<BLOCK>().0;
    for (to, from) in out.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
        *to = *from;
    }
    let last = from.last_chunk::<BLOCK>();
    if let (Some(to), Some(from)) = (out.last_chunk_mut::<BLOCK>(), last) {
        *to = *from;
    } else {
        out.copy_from_slice(from);
    }
}

/// Chunks of constant size compile to shuffles.
#[inline(always)]
fn every<const STRIDE: usize>(from: &[u8], out: &mut [u8]) {
    let (chunks, rest) = from.as_chunks::<STRIDE>();
    for (sample, chunk) in out.iter_mut().zip(chunks) {
        *sample = chunk[0];
    }
    if let (Some(sample), Some(byte)) = (out.last_mut(), rest.first()) {
        *sample = *byte;
    }
}

/// Source of another element type; each sample is converted.
#[derive(Clone, Copy)]
pub(crate) struct Converted<'a, S, F>(pub(crate) &'a [S], pub(crate) F);

impl<S: Copy, T: Copy, F: Fn(S) -> T + Copy> Source<T> for Converted<'_, S, F> {
    #[inline(always)]
    fn at(self, index: usize) -> T {
        (self.1)(self.0[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_are_every_strideth_byte(
            stride in 1_usize..9,
            n in 1_usize..50,
            begin in 0_usize..50,
            end in 0_usize..50,
            first in 0_usize..7,
        ) {
            let run = begin.min(n)..end.clamp(begin.min(n), n);
            let steps = [3000, 500];
            let voxels: Vec<u8> = (0..9000_usize).map(|i| (i * 31 % 251) as u8).collect();
            let (xs, ys) = (vec![0, -1, 2], vec![1; n]);
            let lines = Lines { xs: &xs, ys: &ys, steps, first, run: run.clone(), stride };
            let mut expected = vec![7; 3 * n * n];
            for (plane, x) in [(0, 0), (2, 2)] {
                for row in 0..n {
                    for z in run.clone() {
                        let from = x * steps[0] + steps[1] + first + (z - run.start) * stride;
                        expected[(plane * n + row) * n + z] = voxels[from];
                    }
                }
            }
            let mut found = vec![7; 3 * n * n];
            Bytes(&voxels).fill(&lines, &mut found);
            prop_assert!(found == expected);
            let mut slow = vec![7; 3 * n * n];
            Converted(&voxels, |b: u8| b).fill(&lines, &mut slow);
            prop_assert!(slow == expected);
        }
    }
}
