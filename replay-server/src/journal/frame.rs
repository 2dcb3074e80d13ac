//! Frames: bytes with their length and checksum, one after another in a file.
//!
//! `length: u32, crc32c: u32, kind: u8, payload`, little-endian; the checksum
//! covers length, kind and payload.

/// Bytes before a payload.
pub const HEAD_BYTES: usize = 9;
/// The longest payload: larger than any batch that the wire carries. A longer one
/// is damage, not data.
pub const PAYLOAD_MAX: usize = 8 << 20;

/// The result of reading at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    Frame {
        kind: u8,
        payload: &'a [u8],
        /// Offset of the next frame.
        end: usize,
    },
    /// The end of the file.
    End,
    /// No valid frame.
    Damage,
}

/// Appends a frame; `write` appends its payload.
pub fn append(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    out[at + 8] = kind;
    write(out);
    let length = u32::try_from(out.len() - at - HEAD_BYTES).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(length, &out[at + 8..]);
    out[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
}

/// The frame that begins at `at`.
#[must_use]
pub fn next(bytes: &[u8], at: usize) -> Next<'_> {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Next::End;
    }
    whole(rest).map_or(Next::Damage, |(kind, payload)| Next::Frame {
        kind,
        payload,
        end: at + HEAD_BYTES + payload.len(),
    })
}

/// Kind and payload of the frame at the start of `bytes`.
fn whole(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut c = Cursor(bytes);
    let (length, sum) = (c.u32()?, c.u32()?);
    let size = length as usize;
    if size > PAYLOAD_MAX {
        return None;
    }
    let body = c.bytes(1 + size)?;
    (checksum(length, body) == sum).then(|| (body[0], &body[1..]))
}

/// Covers length, kind and payload.
fn checksum(length: u32, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), body)
}

/// Reads little-endian numbers from a payload; `None` if it is too short.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    /// The next bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn f64(&mut self) -> Option<f64> {
        self.array().map(f64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, payload) in (0_u8..).zip(payloads) {
            append(&mut out, kind, |out| out.extend_from_slice(payload));
        }
        out
    }

    fn read(bytes: &[u8]) -> (Vec<(u8, Vec<u8>)>, usize, bool) {
        let (mut at, mut found) = (0, Vec::new());
        loop {
            match next(bytes, at) {
                Next::Frame { kind, payload, end } => {
                    found.push((kind, payload.to_vec()));
                    at = end;
                }
                Next::End => return (found, at, true),
                Next::Damage => return (found, at, false),
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        append(&mut out, 2, |out| out.extend_from_slice(b"ab"));
        assert_eq!(out, [2, 0, 0, 0, 20, 63, 148, 55, 2, b'a', b'b']);
    }

    #[test]
    fn an_excessive_length_is_damage() {
        let mut bytes = frames(&[vec![1; 5], vec![2; 5]]);
        bytes[3] = 0xff;
        assert_eq!(next(&bytes, 0), Next::Damage);
    }

    proptest! {
        #[test]
        fn frames_come_back(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let (found, _, whole) = read(&frames(&payloads));
            prop_assert!(whole);
            prop_assert_eq!(found.into_iter().map(|f| f.1).collect::<Vec<_>>(), payloads);
        }

        /// A file truncated anywhere yields its first frames.
        #[test]
        fn a_truncated_file_yields_its_first_frames(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8),
            cut in 0.0..1.0_f64,
        ) {
            let bytes = frames(&payloads);
            let (found, end, _) = read(&bytes[..(bytes.len() as f64 * cut) as usize]);
            prop_assert!(end <= bytes.len());
            for ((_, payload), expected) in found.iter().zip(&payloads) {
                prop_assert_eq!(payload, expected);
            }
        }

        /// A changed bit is never taken for data.
        #[test]
        fn a_changed_bit_never_gives_other_bytes(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8),
            place in 0.0..1.0_f64, bit in 0..8_u8,
        ) {
            let mut bytes = frames(&payloads);
            let place = ((bytes.len() - 1) as f64 * place) as usize;
            bytes[place] ^= 1_u8 << bit;
            let (found, ..) = read(&bytes);
            prop_assert!(found.len() < payloads.len());
            for (kind, payload) in found {
                prop_assert_eq!(&payload, &payloads[usize::from(kind)]);
            }
        }
    }
}
