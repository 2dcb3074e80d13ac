//! Tables of text with an unknown delimiter: comma, tab or semicolon.

/// Lines with content and their numbers, from 1. Lines that begin with `#`
/// are comments.
pub(crate) fn content_lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    (1..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The delimiter: the most frequent of the three in the first line.
pub(crate) fn delimiter(text: &str) -> u8 {
    let header = content_lines(text).next().map_or("", |(_, line)| line);
    let count = |c: u8| header.bytes().filter(|&b| b == c).count();
    // In a tie, the last wins: a comma.
    *[b'\t', b';', b',']
        .iter()
        .max_by_key(|&&c| count(c))
        .unwrap_or(&b',')
}

/// A reader that accepts rows of any length and returns the header as the first.
pub(crate) fn reader(text: &str) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new()
        .delimiter(delimiter(text))
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes())
}

/// The line of a record of `text`. The csv crate's position is before any
/// blank lines that it skipped, so those are counted here.
pub(crate) fn record_line(text: &str, record: &csv::StringRecord) -> u64 {
    let Some(position) = record.position() else {
        return 0;
    };
    let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
    let rest = text.get(start..).unwrap_or_default();
    let blank = rest
        .split_inclusive('\n')
        .take_while(|l| l.trim().is_empty() || l.starts_with('#'))
        .count();
    position.line() + blank as u64
}
