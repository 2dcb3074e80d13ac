//! Text files of lines and tables, in any usual encoding and with an unknown delimiter:
//! comma, tab, semicolon or spaces.

pub(crate) mod encoding;
#[cfg(test)]
mod tests;

/// Lines with content and their numbers, from 1. Lines that begin with `#`
/// are comments; so is Excel's first line `sep=;`.
pub(crate) fn content_lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let (first, text) = match excel_separator(text) {
        Some((_, rest)) => (2, rest),
        None => (1, text),
    };
    (first..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// One row of a table.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its line, from 1.
    pub line: u64,
    pub fields: csv::StringRecord,
}

/// The rows of a table: the header, then rows of any length. Those without content
/// are skipped. An error names the line and the problem.
pub(crate) fn rows(text: &str) -> Box<dyn Iterator<Item = Result<Row, (u64, String)>> + '_> {
    let Some(delimiter) = delimiter(text) else {
        let rows = content_lines(text).map(|(line, content)| {
            let fields = content.split_whitespace().collect();
            Ok(Row { line, fields })
        });
        return Box::new(rows);
    };
    let (skipped, text) = match excel_separator(text) {
        Some((_, rest)) => (1, rest),
        None => (0, text),
    };
    let reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .comment(Some(b'#'))
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let rows = reader.into_records().map(move |record| match record {
        Ok(fields) => Ok(Row {
            line: skipped + record_line(text, &fields),
            fields,
        }),
        Err(error) => {
            let line = error.position().map_or(0, csv::Position::line);
            Err((skipped + line, error.to_string()))
        }
    });
    let has_content = |row: &Result<Row, _>| {
        let row = row.as_ref();
        row.map_or(true, |row| !row.fields.iter().all(str::is_empty))
    };
    Box::new(rows.filter(has_content))
}

/// The delimiter: Excel's, or the most frequent of comma, tab and semicolon in the
/// first line; `None` if spaces separate its words.
pub(crate) fn delimiter(text: &str) -> Option<u8> {
    if let Some((delimiter, _)) = excel_separator(text) {
        return Some(delimiter);
    }
    let header = content_lines(text).next().map_or("", |(_, line)| line);
    let count = |c: u8| header.bytes().filter(|&b| b == c).count();
    // In a tie, the last wins: a comma.
    let most = [b'\t', b';', b','].into_iter().max_by_key(|&c| count(c));
    most.filter(|&c| count(c) > 0 || !header.contains(char::is_whitespace))
}

/// The delimiter of Excel's first line `sep=;`, and the text behind that line.
fn excel_separator(text: &str) -> Option<(u8, &str)> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let first = first.strip_suffix('\r').unwrap_or(first);
    let (key, delimiter) = first.trim_matches('"').split_at_checked(4)?;
    match delimiter.as_bytes() {
        [c] if key.eq_ignore_ascii_case("sep=") && c.is_ascii() => Some((*c, rest)),
        _ => None,
    }
}

/// The line of a record of `text`. The csv crate's position is before any
/// blank lines that it skipped, so those are counted here.
fn record_line(text: &str, record: &csv::StringRecord) -> u64 {
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
