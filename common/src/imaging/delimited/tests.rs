//! Tests of `delimited`.

use super::encoding::{composed, decode, decomposed};
use super::*;

fn little(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn big(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

#[test]
fn text_of_every_unicode_encoding_is_decoded() {
    let text = "name,Schädel\n1,😀\n";
    let marked = format!("\u{feff}{text}");
    for (name, bytes) in [
        ("UTF-8", text.as_bytes().to_vec()),
        ("UTF-8 with a mark", marked.clone().into_bytes()),
        ("UTF-16 LE with a mark", little(&marked)),
        ("UTF-16 BE with a mark", big(&marked)),
        ("UTF-16 LE", little(text)),
        ("UTF-16 BE", big(text)),
        ("joined files", [marked.as_bytes(), b""].concat()),
        ("a mark inside", "name,Sch\u{feff}ädel\n1,😀\n".into()),
    ] {
        assert_eq!(decode(&bytes).unwrap(), text, "{name}");
    }
    assert_eq!(decode(b"").unwrap(), "");
    assert_eq!(decode(b"a\xef\xbb\xbf").unwrap(), "a");
}

#[test]
fn other_encodings_are_named_with_the_place() {
    for (bytes, expected) in [
        // Excel's CSV on a German, and on a Japanese computer.
        (
            b"name;x\r\nSch\xe4del;1\r\n".to_vec(),
            "line 2 has the byte 0xE4 at column 4 ('ä' in Windows-1252 and Latin-1); save",
        ),
        (
            b"\x93\xaa,1\n".to_vec(),
            "line 1 has the byte 0x93 at column 1; save the file as UTF-8",
        ),
        (
            b"a\rb\rc\xfc".to_vec(),
            "line 3 has the byte 0xFC at column 2 ('ü'",
        ),
        (
            b"\xef\xbb\xbfab\xff".to_vec(),
            "line 1 has the byte 0xFF at column 3",
        ),
        (b"\xff\xfe\0\0a\0\0\0".to_vec(), "UTF-32"),
        (b"\0\0\xfe\xff\0\0\0a".to_vec(), "UTF-32"),
        (
            b"\xff\xfea\0\n\0b".to_vec(),
            "UTF-16, but damaged in line 2",
        ),
        (
            [b"\xff\xfe".to_vec(), little("ab"), vec![0, 0xd8]].concat(),
            "damaged in line 1",
        ),
        (b"\x1f\x8b\x08\0\0\0".to_vec(), "is not text: is it a scan?"),
        (b"\x1f\x8b\x08\x08\x99\x99".to_vec(), "is not text"),
        (b"5\0\x01\0\0\0".to_vec(), "is not text"),
    ] {
        let found = decode(&bytes).unwrap_err().to_string();
        assert!(found.contains(expected), "no {expected:?} in: {found}");
    }
}

#[test]
fn lines_end_in_any_way() {
    for text in [
        "a\n#x\nb\n",
        "a\r\n#x\r\nb\r\n",
        "a\r#x\rb\r",
        "a\n#x\rb\r\n",
        "a\r#x\rb",
    ] {
        let text = decode(text.as_bytes()).unwrap();
        let lines: Vec<_> = content_lines(&text).collect();
        assert_eq!(lines, [(1, "a"), (3, "b")], "{text:?}");
    }
}

#[test]
fn tables_have_any_usual_delimiter() {
    let expected = [(3, ["a", "b c"]), (6, ["1", ""])];
    for (text, delimiter) in [
        ("#\n\na,b c\n\n# x\n1,\n", Some(b',')),
        ("#\n\na;b c\n;;\n# x\n1;\n", Some(b';')),
        ("\n\na\tb c\n\n# x\n1\t\n", Some(b'\t')),
        ("sep=;\n\na;b c\n\n# x\n1;\n", Some(b';')),
        ("SEP=|\r\n\r\na|b c\r\n\r\n# x\r\n1|\r\n", Some(b'|')),
        ("\"sep=\t\"\n\na\tb c\n\n# x\n1\t\n", Some(b'\t')),
    ] {
        assert_eq!(super::delimiter(text), delimiter, "{text:?}");
        let rows: Vec<Row> = rows(text).map(Result::unwrap).collect();
        let found: Vec<_> = rows.iter().map(|r| (r.line, r.fields.as_slice())).collect();
        let joined = expected.map(|(line, fields)| (line, fields.concat()));
        let joined: Vec<_> = joined.iter().map(|(l, f)| (*l, f.as_str())).collect();
        assert_eq!(found, joined, "{text:?}");
        assert_eq!(rows[0].fields.len(), 2);
    }
    let text = "a  b\tc\n1 2  3\n".replace('\t', " ");
    let rows: Vec<Row> = rows(&text).map(Result::unwrap).collect();
    assert_eq!(rows[1].fields, vec!["1", "2", "3"]);
    assert_eq!((rows[1].line, delimiter(&text)), (2, None));
    assert_eq!(delimiter("image\na.nii\n"), Some(b','));
}

#[test]
fn names_have_one_composed_form() {
    assert_eq!(composed("Scha\u{308}del"), "Sch\u{e4}del");
    assert_eq!(composed("Sch\u{e4}del"), "Sch\u{e4}del");
    assert_eq!(decomposed("Sch\u{e4}del"), "Scha\u{308}del");
}
