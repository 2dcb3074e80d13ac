//! Decodes text files that people give: lists, manifests and landmark files, as
//! programs on Linux, macOS and Windows write them.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// Why a file is not read as text; completes "the file …".
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotText {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("has more than {0} MiB: is it a scan?")]
    Long(u64),
    #[error("is not text: is it a scan?")]
    Binary,
    #[error("is text in UTF-32; save it as UTF-8")]
    Utf32,
    #[error("is text in UTF-16, but damaged in line {0}; save it as UTF-8")]
    Utf16(usize),
    #[error(
        "is not text in UTF-8 or UTF-16: line {line} has the byte 0x{byte:02X} at column {column}\
         {guess}; save the file as UTF-8 (Excel: 'CSV UTF-8'; a command: \
         iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW)"
    )]
    OtherEncoding {
        byte: u8,
        /// From 1.
        line: usize,
        /// Characters from the line's start, from 1.
        column: usize,
        /// What the byte means in the likely encoding.
        guess: String,
    },
}

/// Reads a file of at most `max_mib` and decodes it.
pub(crate) fn read(path: &Path, max_mib: u64) -> Result<String, NotText> {
    decode(&read_bytes(path, max_mib)?)
}

/// Reads a file of at most `max_mib`.
pub(crate) fn read_bytes(path: &Path, max_mib: u64) -> Result<Vec<u8>, NotText> {
    let mut bytes = Vec::new();
    let limit = max_mib << 20;
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(NotText::Unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(NotText::Long(max_mib));
    }
    Ok(bytes)
}

/// Decodes UTF-8 and UTF-16, with a byte order mark or without, and ends lines as
/// Unix does.
///
/// Older encodings are refused: bytes do not show which of them it is, and a wrong
/// guess gives wrong names and paths without a word.
pub(crate) fn decode(bytes: &[u8]) -> Result<String, NotText> {
    let text = match bytes {
        [0xff, 0xfe, 0, 0, _, ..] | [0, 0, 0xfe, 0xff, ..] => return Err(NotText::Utf32),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes)?,
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes)?,
        _ => match unmarked_utf16(bytes) {
            Some(order) => utf16(bytes, order)?,
            None => str::from_utf8(bytes)
                .map_err(|error| not_utf8(bytes, error.valid_up_to()))?
                .to_owned(),
        },
    };
    if text.contains('\0') {
        return Err(NotText::Binary);
    }
    // Joined files have byte order marks inside, too.
    let text = match text.contains('\u{feff}') {
        true => text.replace('\u{feff}', ""),
        false => text,
    };
    Ok(unix_lines(text))
}

type Order = fn([u8; 2]) -> u16;

/// The byte order of UTF-16 without a mark: half of its characters or more are of
/// Latin-1, whose one byte is zero and whose other one is no control character.
fn unmarked_utf16(bytes: &[u8]) -> Option<Order> {
    let (pairs, []) = bytes.as_chunks::<2>() else {
        return None;
    };
    let is_text = |order: Order| {
        let units = pairs.iter().map(|pair| order(*pair));
        let mut latin = units.filter(|unit| *unit < 0x100);
        let count = latin.clone().count();
        count > 0
            && count * 2 >= pairs.len()
            && latin.all(|unit| matches!(unit, 9 | 10 | 13 | 32..))
    };
    let orders: [Order; 2] = [u16::from_le_bytes, u16::from_be_bytes];
    orders.into_iter().find(|order| is_text(*order))
}

fn utf16(bytes: &[u8], order: Order) -> Result<String, NotText> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let line_of = |text: &str| text.split('\n').count();
    let mut text = String::with_capacity(bytes.len());
    for unit in char::decode_utf16(pairs.iter().map(|pair| order(*pair))) {
        text.push(unit.map_err(|_| NotText::Utf16(line_of(&text)))?);
    }
    match rest {
        [] => Ok(text),
        _ => Err(NotText::Utf16(line_of(&text))),
    }
}

/// The bytes are no UTF-8 from the one at `at` on.
fn not_utf8(bytes: &[u8], at: usize) -> NotText {
    let is_binary = |byte: &u8| matches!(byte, 0..=8 | 14..=25 | 28..=31);
    if bytes.iter().any(is_binary) {
        return NotText::Binary;
    }
    let byte = bytes.get(at).copied().unwrap_or_default();
    let before = unix_lines(String::from_utf8_lossy(&bytes[..at]).into_owned());
    let last = before.rsplit('\n').next().unwrap_or_default();
    NotText::OtherEncoding {
        byte,
        line: before.split('\n').count(),
        column: last.trim_start_matches('\u{feff}').chars().count() + 1,
        // There, Latin-1 and Windows-1252 are the same.
        guess: match byte {
            0xa1.. => format!(" ('{}' in Windows-1252 and Latin-1)", char::from(byte)),
            _ => String::new(),
        },
    }
}

/// Ends lines as Unix does: a lone CR, as of old Macs, ends a line too.
pub(crate) fn unix_lines(text: String) -> String {
    let lone = |rest: &str| !rest.starts_with('\n');
    match text.split('\r').skip(1).any(lone) {
        true => text.replace("\r\n", "\n").replace('\r', "\n"),
        false => text,
    }
}

/// The composed form (NFC) of a name: 'é' in one character. macOS writes two.
pub(crate) fn composed(name: &str) -> Cow<'_, str> {
    match is_nfc(name) {
        true => Cow::Borrowed(name),
        false => Cow::Owned(name.nfc().collect()),
    }
}

/// The decomposed form (NFD) of a name.
pub(crate) fn decomposed(name: &str) -> String {
    name.nfd().collect()
}
