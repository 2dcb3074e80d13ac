//! Recognises files that are no safetensors file.

const WEB_PAGE: &str = "a web page; download the file again";

/// First bytes of a file, and what it is.
const STARTS: [(&[u8], &str); 8] = [
    (
        b"version https://git-lfs",
        "a Git LFS pointer; fetch the file with `git lfs pull`",
    ),
    (b"<!DOCTYPE", WEB_PAGE),
    (b"<!doctype", WEB_PAGE),
    (b"<html", WEB_PAGE),
    (b"\x89HDF", "an HDF5 file, as Keras writes"),
    (&[0x1f, 0x8b], "compressed with gzip; unpack it"),
    (b"PK\x03\x04", "a zip file, as PyTorch writes"),
    (&[0x80], "a Python pickle, as PyTorch writes"),
];

/// Why bytes that are no safetensors file are none; `error` is the parser's reason.
pub(super) fn reason(bytes: &[u8], error: &safetensors::SafeTensorError) -> String {
    if bytes.is_empty() {
        return "it is empty".to_owned();
    }
    // A header begins here in every safetensors file.
    if bytes.get(8) == Some(&b'{') {
        return format!("it is cut off or damaged ({error})");
    }
    let known = STARTS.iter().find(|(start, _)| bytes.starts_with(start));
    known.map_or_else(
        || format!("it has another format ({error})"),
        |(_, what)| format!("it is {what}"),
    )
}
