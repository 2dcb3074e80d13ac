//! Words of a suggested command, quoted for the shell.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The word as a shell reads it back: quoted where it holds a blank or a special character.
/// Control characters are escaped, so that a file's name cannot change the terminal.
pub fn shell_quoted(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    if !text.chars().any(char::is_control) {
        return Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")));
    }
    // The form of bash and zsh in which a backslash escapes.
    let mut quoted = String::from("$'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => quoted.extend(['\\', c]),
            _ if c.is_control() => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(quoted, "\\x{byte:02x}");
                }
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('\'');
    Cow::Owned(quoted)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_the_quoted_word_back() {
        for (word, expected) in [
            ("runs/a-1.csv", "runs/a-1.csv"),
            ("Köln.nii", "Köln.nii"),
            ("", "''"),
            ("my scans/x", "'my scans/x'"),
            ("it's", r"'it'\''s'"),
            ("$(rm x)", "'$(rm x)'"),
            ("a\nb", r"$'a\x0ab'"),
            ("\u{1b}[2J'\\", r"$'\x1b[2J\'\\'"),
        ] {
            let quoted = shell_quoted(word);
            assert_eq!(quoted, expected);
            let line = format!("printf %s {quoted}");
            let output = Command::new("bash").args(["-c", &line]).output().unwrap();
            assert_eq!(output.stdout, word.as_bytes(), "{quoted}");
        }
    }
}
