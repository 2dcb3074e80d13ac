//! Just enough of Rust's syntax to find where functions start and end.

/// A function, by line numbers from 1, its braces included.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`.
    pub first: usize,
    /// The line of its closing brace.
    pub last: usize,
}

impl Function {
    /// How many lines it takes.
    pub fn lines(&self) -> usize {
        self.last - self.first + 1
    }
}

/// The source with comments, strings and characters blanked out, line by line
/// as before: what is left of braces and words is code.
pub fn code_only(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let hidden = hidden_length(rest, out.chars().next_back());
        if hidden == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let blank = |c| if c == '\n' { '\n' } else { ' ' };
            out.extend(rest[..hidden].chars().map(blank));
            rest = &rest[hidden..];
        }
    }
    out
}

/// How many bytes at the start of `text` are a comment or a literal.
fn hidden_length(text: &str, before: Option<char>) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment_length(text);
    }
    if text.starts_with('"') {
        return string_length(text);
    }
    if text.starts_with('\'') {
        return char_length(text);
    }
    // An `r` that ends a longer word, as in `for"`, is no prefix.
    if before.is_some_and(is_word) {
        return 0;
    }
    raw_string_length(text)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Zero for a lifetime or a loop label.
fn char_length(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        // The escaped character may itself be a quote.
        Some((_, '\\')) => {
            let after = chars.nth(1).map_or(text.len(), |(at, _)| at);
            text[after..]
                .find('\'')
                .map_or(text.len(), |quote| after + quote + 1)
        }
        Some((at, c)) if text[at + c.len_utf8()..].starts_with('\'') => at + c.len_utf8() + 1,
        _ => 0,
    }
}

/// `r"…"`, `br#"…"#`, `cr"…"`; also the prefix of `b"…"` stays code, which is harmless.
fn raw_string_length(text: &str) -> usize {
    let Some(prefix) = ["r", "br", "cr"]
        .iter()
        .find(|prefix| text.starts_with(**prefix))
    else {
        return 0;
    };
    let after = &text[prefix.len()..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') {
        return 0;
    }
    let start = prefix.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    text[start..]
        .find(&end)
        .map_or(text.len(), |at| start + at + end.len())
}

/// Every function with a body, nested ones and methods included, given what
/// [`code_only`] made.
pub fn functions(code: &str) -> Vec<Function> {
    let chars: Vec<char> = code.chars().collect();
    let mut found = Vec::new();
    let mut line = 1;
    for at in 0..chars.len() {
        if chars[at] == '\n' {
            line += 1;
        }
        let Some(name) = function_name(&chars, at) else {
            continue;
        };
        if let Some(end) = body_end(&chars, at) {
            let breaks = chars[at..end].iter().filter(|c| **c == '\n').count();
            found.push(Function {
                name,
                first: line,
                last: line + breaks,
            });
        }
    }
    found
}

/// The name, if the keyword `fn` of a named function stands at `at`; the type
/// `fn(…)` has none.
fn function_name(chars: &[char], at: usize) -> Option<String> {
    let starts = at == 0 || !(is_word(chars[at - 1]) || chars[at - 1] == '#');
    if !starts || !chars[at..].starts_with(&['f', 'n']) || !chars.get(at + 2)?.is_whitespace() {
        return None;
    }
    let after = chars[at + 2..].iter().skip_while(|c| c.is_whitespace());
    let name: String = after.take_while(|c| is_word(**c) || **c == '#').collect();
    (!name.is_empty()).then_some(name)
}

/// Where the brace that closes the body stands; none for a declaration that
/// ends in a semicolon.
fn body_end(chars: &[char], start: usize) -> Option<usize> {
    let mut nested = 0_usize;
    let mut braces = 0_usize;
    for (at, c) in chars.iter().enumerate().skip(start) {
        match c {
            '(' | '[' => nested += 1,
            ')' | ']' => nested = nested.saturating_sub(1),
            ';' if nested == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                // Braces inside `[u8; { N }]` or `<{ N }>` belong to the signature.
                let in_type = chars.get(at + 1) == Some(&'>');
                if braces == 0 && nested == 0 && !in_type {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(source: &str) -> Vec<(String, usize, usize)> {
        let found = functions(&code_only(source));
        found
            .into_iter()
            .map(|f| (f.name, f.first, f.last))
            .collect()
    }

    #[test]
    fn literals_and_comments_are_blanked() {
        let cases = [
            (r#"a("}{")b"#, "a(    )b"),
            (r#"a("\"}")b"#, "a(     )b"),
            ("a // }\nb", "a     \nb"),
            ("/* { /* } */ { */b", "                 b"),
            ("'{' 'a '\\'' '\\u{7d}' b", "    'a               b"),
            ("r#\"}\"{\"#b", "        b"),
            ("br\"}\"b", "     b"),
            ("b\"}\" b'}' c", "b    b    c"),
            ("for\"}\"", "for   "),
            ("<'a>(x: &'a str) {", "<'a>(x: &'a str) {"),
            ("\"é}\" b", "     b"),
            ("r#type {", "r#type {"),
        ];
        for (source, expected) in cases {
            assert_eq!(code_only(source), expected, "{source}");
        }
    }

    #[test]
    fn functions_are_found_with_their_lines() {
        let source = "\
fn one() {}
pub(crate) async fn two<T>(x: [u8; 3]) -> [u8; 3]
where
    T: Copy,
{
    let s = \"}\"; // }
    fn inner() {
        '}';
    }
}
trait T {
    fn declared(&self) -> [u8; 2];
    fn provided(&self) {
    }
}
type F = fn(u8) -> u8;
const fn sized() -> A<{ 1 + 1 }> {
    a
}
";
        let expected = [
            ("one", 1, 1),
            ("two", 2, 10),
            ("inner", 7, 9),
            ("provided", 13, 14),
            ("sized", 17, 19),
        ];
        let expected: Vec<_> = expected
            .map(|(name, first, last)| (name.to_owned(), first, last))
            .into();
        assert_eq!(spans(source), expected);
    }

    #[test]
    fn unfinished_sources_do_not_end_in_a_panic() {
        for source in [
            "fn", "fn x", "fn x() {", "\"", "'", "'\\", "/*", "r#\"", "}", "fn x() }",
        ] {
            assert_eq!(spans(source), [], "{source}");
        }
    }
}
