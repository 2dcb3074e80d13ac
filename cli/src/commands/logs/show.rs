//! Formats a log line for people.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use common::report::text::one_line;

use super::line::{Level, Line, shown};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As they were written.
    Json,
    /// For people.
    Text { colour: bool },
}

impl Style {
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
            Self::Text { colour } => text(line, colour),
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

fn text(line: &Line, colour: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    };
    let level = match line.level {
        Level::Error => paint("1;31", "ERROR"),
        Level::Warn => paint("33", "WARN "),
        Level::Info => paint("32", "INFO "),
        Level::Debug => paint("34", "DEBUG"),
        Level::Trace => paint("35", "TRACE"),
    };
    let source = match (line.service.as_str(), line.instance.as_str()) {
        ("", "") => String::new(),
        (service, "") => service.to_owned(),
        (service, instance) => format!("{service}/{instance}"),
    };
    let mut text = format!(
        "{} {level} {} {}",
        paint("2", &clock(&line.time)),
        paint("36", &one_line(&source)),
        one_line(&line.message)
    );
    for (key, value) in &line.fields {
        let key = paint("2", &format!("{}=", one_line(key)));
        // Writing to a String cannot fail.
        let _ = write!(text, " {key}{}", one_line(&shown(value)));
    }
    text.push('\n');
    text
}

/// `2026-11-26T08:00:00.123456Z` as `2026-11-26 08:00:00.123`.
fn clock(time: &str) -> String {
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "000"));
    let fraction: String = fraction.chars().take_while(char::is_ascii_digit).collect();
    let whole = whole.trim_end_matches(['Z', 'z']).replacen('T', " ", 1);
    format!("{}.{:0<3.3}", one_line(&whole), fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let raw = r#"{"time":"2026-11-26T08:00:00.123456Z","level":"warn","service":"actor","instance":"h","message":"a\nb\u001b[2J","loss":"NaN","n":3}"#;
        Line::parse(raw).unwrap()
    }

    #[test]
    fn text_output_is_one_line_without_control_characters() {
        let style = Style::Text { colour: false };
        let expected = "2026-11-26 08:00:00.123 WARN  actor/h a\\nb\\u{1b}[2J loss=NaN n=3\n";
        assert_eq!(style.render(&line()), expected);
        let coloured = Style::Text { colour: true }.render(&line());
        let warn = "\u{1b}[33mWARN \u{1b}[0m";
        assert!(coloured.contains(warn), "{coloured:?}");
        assert_eq!(Style::Json.render(&line()), line().raw + "\n");
    }

    #[test]
    fn clocks_without_fractions_line_up() {
        assert_eq!(clock("2026-11-26T08:00:00Z"), "2026-11-26 08:00:00.000");
        assert_eq!(clock("2026-11-26T08:00:00.5Z"), "2026-11-26 08:00:00.500");
    }
}
