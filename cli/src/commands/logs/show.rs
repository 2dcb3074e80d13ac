//! Formats a log line for people.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use super::line::{Level, Line, shown};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As they were written.
    Json,
    /// For people.
    Text { colour: bool },
}

impl Look {
    pub fn new(json: bool, no_color: bool) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let colour = io::stdout().is_terminal() && !no_color && !unwanted;
        if json {
            Self::Json
        } else {
            Self::Text { colour }
        }
    }

    /// Ends with a newline.
    pub fn render(self, line: &Line) -> String {
        match self {
            Self::Json => format!("{}\n", line.raw),
            Self::Text { colour } => text(line, &Paint { colour }),
        }
    }
}

/// Prints lines; returns false once standard output has no reader.
pub fn print(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(e),
    }
}

struct Paint {
    colour: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

fn text(line: &Line, paint: &Paint) -> String {
    let level = match line.level {
        Level::Error => paint.with("1;31", "ERROR"),
        Level::Warn => paint.with("33", "WARN "),
        Level::Info => paint.with("32", "INFO "),
        Level::Debug => paint.with("34", "DEBUG"),
        Level::Trace => paint.with("35", "TRACE"),
    };
    let whence = match (line.service.as_str(), line.instance.as_str()) {
        ("", "") => String::new(),
        (service, "") => service.to_owned(),
        (service, instance) => format!("{service}/{instance}"),
    };
    let mut text = format!(
        "{} {level} {} {}",
        paint.with("2", &clock(&line.time)),
        paint.with("36", &harmless(&whence)),
        harmless(&line.message)
    );
    for (key, value) in &line.fields {
        let key = paint.with("2", &format!("{}=", harmless(key)));
        // Writing to a String cannot fail.
        let _ = write!(text, " {key}{}", harmless(&shown(value)));
    }
    text.push('\n');
    text
}

/// `2026-11-26T08:00:00.123456Z` as `2026-11-26 08:00:00.123`.
fn clock(time: &str) -> String {
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "000"));
    let fraction: String = fraction.chars().take_while(char::is_ascii_digit).collect();
    let whole = whole.trim_end_matches(['Z', 'z']).replacen('T', " ", 1);
    format!("{}.{:0<3.3}", harmless(&whole), fraction)
}

/// Escapes control characters: logged text must not move the cursor or start a new line.
fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let raw = r#"{"time":"2026-11-26T08:00:00.123456Z","level":"warn","service":"actor","instance":"h","message":"a\nb\u001b[2J","loss":"NaN","n":3}"#;
        Line::parse(raw).unwrap()
    }

    #[test]
    fn people_see_one_harmless_line() {
        let look = Look::Text { colour: false };
        assert_eq!(
            look.render(&line()),
            "2026-11-26 08:00:00.123 WARN  actor/h a\\nb\\u{1b}[2J loss=NaN n=3\n"
        );
        let coloured = Look::Text { colour: true }.render(&line());
        assert!(
            coloured.contains("\u{1b}[33mWARN \u{1b}[0m"),
            "{coloured:?}"
        );
        assert_eq!(Look::Json.render(&line()), line().raw + "\n");
    }

    #[test]
    fn clocks_without_fractions_line_up() {
        assert_eq!(clock("2026-11-26T08:00:00Z"), "2026-11-26 08:00:00.000");
        assert_eq!(clock("2026-11-26T08:00:00.5Z"), "2026-11-26 08:00:00.500");
    }
}
