//! Text for people: names that cannot control the terminal, numbers without a negative zero.

use std::borrow::Cow;

/// The text with control characters escaped (`\r`, `\u{1b}`), except line feeds.
///
/// Names of files, scans, landmarks and hosts may hold any character: an escape sequence
/// or a carriage return would change what the terminal shows.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && controls(c))
}

/// As [`printable`], with line feeds escaped too: the text stays on its line.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, controls)
}

fn escaped(text: &str, bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&bad) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if bad(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Control characters, and those that change the direction of the text around them.
fn controls(c: char) -> bool {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The number with a fixed count of decimals; a number that is rounded to zero has no sign.
#[must_use]
pub fn decimal(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(size) if size.bytes().all(|b| matches!(b, b'0' | b'.')) => size.to_owned(),
        _ => text,
    }
}

/// The position without negative zeros.
#[must_use]
pub fn unsigned_zeros(position: [f64; 3]) -> [f64; 3] {
    position.map(|v| v + 0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_of_names_are_escaped() {
        for (name, expected) in [
            ("sub-01.nii", "sub-01.nii"),
            ("Köln 前連合", "Köln 前連合"),
            ("a\rb", "a\\rb"),
            ("a\tb", "a\\tb"),
            ("\u{1b}[2Jx", "\\u{1b}[2Jx"),
            ("\u{9b}31mx", "\\u{9b}31mx"),
            ("x\u{7f}", "x\\u{7f}"),
            ("gz.\u{202e}iin", "gz.\\u{202e}iin"),
        ] {
            assert_eq!(printable(name), expected);
            assert_eq!(one_line(name), expected);
        }
        assert_eq!(printable("a\nb\r\n"), "a\nb\\r\n");
        assert_eq!(one_line("a\nb"), "a\\nb");
    }

    #[test]
    fn numbers_that_round_to_zero_have_no_sign() {
        for (value, digits, expected) in [
            (-0.0, 2, "0.00"),
            (-0.004, 2, "0.00"),
            (-0.006, 2, "-0.01"),
            (-0.4, 0, "0"),
            (-12.0, 1, "-12.0"),
            (0.25, 1, "0.2"),
            (f64::NAN, 2, "NaN"),
            (f64::NEG_INFINITY, 1, "-inf"),
        ] {
            assert_eq!(decimal(value, digits), expected);
        }
        let zeros = unsigned_zeros([-0.0, 0.0, -1.0]);
        assert_eq!(zeros.map(|v| v.to_string()), ["0", "0", "-1"]);
    }

    proptest! {
        #[test]
        fn no_control_character_but_the_line_feed_is_left(text in any::<String>()) {
            let shown = printable(&text);
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
            prop_assert!(!one_line(&text).chars().any(char::is_control));
            // Safe text stays as it is, and escaping it again changes nothing.
            prop_assert_eq!(printable(&shown), shown.as_ref());
        }
    }
}
