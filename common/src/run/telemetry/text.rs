//! Fields of a text line. Names of files and hosts in it cannot control the terminal.

use std::fmt;

use tracing::field::Field;
use tracing_subscriber::fmt::format::Writer;

use crate::report::text::one_line;

/// Writes the message, or `name=value`. tracing-subscriber 0.3.23 would escape some control
/// characters of the message, and none of other fields.
pub(super) fn write_field(
    writer: &mut Writer<'_>,
    field: &Field,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    let value = format!("{value:?}");
    let value = one_line(&value);
    match field.name() {
        "message" => writer.write_str(&value),
        // Where another library logged the line.
        name if name.starts_with("log.") => Ok(()),
        name if writer.has_ansi_escapes() => {
            write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}")
        }
        name => write!(writer, "{name}={value}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::{Console, Repeats, text_layer};

    #[test]
    fn control_characters_of_names_never_reach_the_terminal() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&written);
        let console = Console::new(move |line| {
            lines.lock().unwrap().extend_from_slice(line);
            Ok(())
        });
        let layer = text_layer(&Repeats::default(), move || console.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let session = tracing::warn_span!("session", host = %"h\u{7}");
            let _inside = session.enter();
            let path = "a\rb\u{1b}[2J";
            tracing::warn!(%path, text = path, scans = 3, "cannot read {path}\nWARN forged");
        });
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1, "{text:?}");
        for part in [
            r"cannot read a\rb\u{1b}[2J\nWARN forged",
            r"h\u{7}",
            "path",
            r"a\rb\u{1b}[2J",
            "3",
        ] {
            assert!(text.contains(part), "{part}: {text:?}");
        }
        assert!(
            !text.contains(['\r', '\u{7}']) && !text.contains("\u{1b}[2J"),
            "{text:?}"
        );
    }
}
