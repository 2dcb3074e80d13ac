//! List files: one path per line, relative to the list's own folder.

use std::path::{Path, PathBuf};

use crate::imaging::delimited::content_lines;
use crate::imaging::delimited::encoding;

/// Enough for a hundred thousand paths.
const MAX_MIB: u64 = 8;

/// Paths read from a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFile {
    pub path: PathBuf,
    /// The files that it names, resolved.
    pub entries: Vec<PathBuf>,
}

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The list cannot be read.
    #[error("list '{}' {problem}", path.display())]
    Read { path: PathBuf, problem: String },
    /// The list names no files.
    #[error("list '{}' names no files; write one path per line", path.display())]
    Empty { path: PathBuf },
    /// Some of the named files do not exist.
    #[error(
        "list '{}' names {} file(s) that are not there (looked beside the list, then in the \
         current folder): {}", path.display(), missing.len(), missing.join(", ")
    )]
    Missing {
        path: PathBuf,
        /// `line N: path`, all of them.
        missing: Vec<String>,
    },
    /// Two lists that differ in length.
    #[error(
        "'{}' names {image_count} scans, but '{}' names {landmark_count} landmark files; \
         line n of one belongs to line n of the other", images.display(), landmarks.display()
    )]
    LengthMismatch {
        /// The list of scans.
        images: PathBuf,
        /// How many it names.
        image_count: usize,
        /// The list of landmark files.
        landmarks: PathBuf,
        /// How many it names.
        landmark_count: usize,
    },
}

impl ListFile {
    /// Reads a list and finds its files: first relative to the list's folder,
    /// then to the current one. Blank lines and lines that begin with `#` are skipped.
    pub fn read(path: &Path) -> Result<Self, ListError> {
        let lines = read_lines(path)?;
        let mut entries = Vec::with_capacity(lines.len());
        let mut missing = Vec::new();
        for (line, entry) in lines {
            match found_beside(path, Path::new(&entry)) {
                Some(found) => entries.push(found),
                None => missing.push(format!("line {line}: {entry}{}", likely_cause(&entry))),
            }
        }
        let path = path.to_owned();
        match missing.is_empty() {
            true => Ok(Self { path, entries }),
            false => Err(ListError::Missing { path, missing }),
        }
    }
}

/// Resolves a path of a list or manifest: relative to the list's folder, else to
/// the current one.
pub(crate) fn found_beside(list: &Path, entry: &Path) -> Option<PathBuf> {
    let folder = list.parent().unwrap_or(Path::new(""));
    // Joining an absolute path gives that path.
    let beside = |entry: &Path| {
        let candidates = [folder.join(entry), entry.to_owned()];
        candidates.into_iter().find(|c| c.exists())
    };
    beside(entry).or_else(|| respelled(entry)?.iter().find_map(|entry| beside(entry)))
}

/// Other spellings of a path that is not there: without quotes, with the separators
/// of this system, and in the other forms of Unicode, which look the same.
fn respelled(entry: &Path) -> Option<[PathBuf; 3]> {
    let entry = entry.to_str()?;
    let quoted = entry.strip_prefix('"').and_then(|e| e.strip_suffix('"'));
    let plain = quoted.unwrap_or(entry).replace('\\', "/");
    let composed = encoding::composed(&plain).into_owned();
    let decomposed = encoding::decomposed(&plain);
    Some([plain, composed, decomposed].map(PathBuf::from))
}

/// Why a path may not be there, for its error.
fn likely_cause(entry: &str) -> &'static str {
    let mut letters = entry.trim_start_matches('"').chars();
    let is_drive = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.next() == Some(':')
        && matches!(letters.next(), Some('\\' | '/'));
    match is_drive {
        true => " (a path of Windows)",
        false => "",
    }
}

/// Reads the list of scans and the list of their landmark files. Errors list all problems of both.
pub fn read_pair(images: &Path, landmarks: &Path) -> Result<(ListFile, ListFile), Vec<ListError>> {
    let mut errors = Vec::new();
    // Counted apart from finding the files, so that missing files do not hide a mismatch.
    if let (Ok(image_lines), Ok(landmark_lines)) = (read_lines(images), read_lines(landmarks))
        && image_lines.len() != landmark_lines.len()
    {
        errors.push(ListError::LengthMismatch {
            images: images.to_owned(),
            image_count: image_lines.len(),
            landmarks: landmarks.to_owned(),
            landmark_count: landmark_lines.len(),
        });
    }
    match (ListFile::read(images), ListFile::read(landmarks)) {
        (Ok(images), Ok(landmarks)) if errors.is_empty() => return Ok((images, landmarks)),
        (a, b) => errors.extend([a, b].into_iter().filter_map(Result::err)),
    }
    Err(errors)
}

/// The usable pairs of two lists that [`read_pair`] refuses: line by line, up to
/// the shorter one's end, where both files exist.
pub(crate) fn salvage_pair(images: &Path, landmarks: &Path) -> Vec<(PathBuf, PathBuf)> {
    let (Ok(a), Ok(b)) = (read_lines(images), read_lines(landmarks)) else {
        return Vec::new();
    };
    let pairs = a.iter().zip(&b);
    let found = pairs.filter_map(|((_, image), (_, points))| {
        let image = found_beside(images, Path::new(image))?;
        Some((image, found_beside(landmarks, Path::new(points))?))
    });
    found.collect()
}

/// Entries with their line numbers, from 1; at least one.
fn read_lines(path: &Path) -> Result<Vec<(u64, String)>, ListError> {
    let text = encoding::read(path, MAX_MIB).map_err(|error| ListError::Read {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    let lines: Vec<(u64, String)> = content_lines(&text)
        .map(|(line, entry)| (line, entry.to_owned()))
        .collect();
    let path = path.to_owned();
    match lines.is_empty() {
        true => Err(ListError::Empty { path }),
        false => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn paths_are_relative_to_the_list() {
        let dir = folder_with(&[
            ("scans/a b.nii", ""),
            ("scans/c.nii", ""),
            (
                "list.txt",
                "\u{feff}# scans\r\nscans/a b.nii\r\n\r\n  ./scans/c.nii \r\n",
            ),
        ]);
        let list = ListFile::read(&dir.path().join("list.txt")).unwrap();
        let expected = ["scans/a b.nii", "./scans/c.nii"].map(|p| dir.path().join(p));
        assert_eq!(list.entries, expected);
        // Not next to the list but in the current folder, which for tests is this crate's.
        let other = dir.path().join("cwd.txt");
        fs::write(&other, "src/lib.rs\n").unwrap();
        let found = ListFile::read(&other).unwrap().entries;
        assert_eq!(found, [PathBuf::from("src/lib.rs")]);
        let absolute = dir.path().join("abs.txt");
        let target = dir.path().join("scans/c.nii");
        fs::write(&absolute, target.to_str().unwrap()).unwrap();
        assert_eq!(ListFile::read(&absolute).unwrap().entries, [target]);
    }

    #[test]
    fn all_missing_files_are_listed_at_once() {
        let dir = folder_with(&[
            ("here", ""),
            ("list.txt", "here\nnot1\n\nnot2\n"),
            ("none.txt", "# x\n\n"),
        ]);
        for (list, parts) in [
            ("list.txt", ["2 file(s)", "line 2: not1, line 4: not2"]),
            ("none.txt", ["names no files", "none.txt"]),
            ("gone.txt", ["cannot be read", "gone.txt"]),
        ] {
            let error = ListFile::read(&dir.path().join(list)).unwrap_err();
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn lists_of_different_length_name_both_and_both_counts() {
        let dir = folder_with(&[
            ("a", ""),
            ("images.txt", "a\na\na\n"),
            ("short.txt", "a\nx\n"),
            ("equal.txt", "a\na\na"),
        ]);
        let at = |name: &str| dir.path().join(name);
        let errors = read_pair(&at("images.txt"), &at("short.txt")).unwrap_err();
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let text = lines.join("\n");
        for part in [
            "images.txt' names 3 scans",
            "short.txt' names 2 landmark files",
            "line 2: x",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(errors.len(), 2);
        let (images, landmarks) = read_pair(&at("images.txt"), &at("equal.txt")).unwrap();
        assert_eq!((images.entries.len(), landmarks.entries.len()), (3, 3));
    }

    /// A list as other systems write it, and the files that it names.
    #[test]
    fn lists_of_other_systems_find_their_files() {
        // 'é' and 'ü' in one character each, and as a letter and an accent.
        let (composed, decomposed) = ("sc\u{e9}n/\u{fc}.nii", "sce\u{301}n/u\u{308}.nii");
        let dir = folder_with(&[(composed, ""), ("mac/o\u{308}.nii", ""), ("a b.nii", "")]);
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let lists: [(&str, Vec<u8>, &str); 7] = [
            ("windows", b"mac\\../a b.nii\r\n".to_vec(), "mac/../a b.nii"),
            ("quoted", b"\"a b.nii\"\n".to_vec(), "a b.nii"),
            ("old mac", b"# scans\ra b.nii\r".to_vec(), "a b.nii"),
            ("powershell", utf16("\u{feff}a b.nii\r\n"), "a b.nii"),
            ("unmarked", utf16("a b.nii\r\n"), "a b.nii"),
            ("decomposed", decomposed.into(), composed),
            ("composed", "mac/\u{f6}.nii".into(), "mac/o\u{308}.nii"),
        ];
        for (name, bytes, expected) in lists {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            let found = ListFile::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(found.entries, [dir.path().join(expected)], "{name}");
        }
    }

    #[test]
    fn lists_that_cannot_be_read_name_the_cause() {
        let dir = folder_with(&[]);
        let cases: [(&[u8], &str); 4] = [
            (
                b"a.nii\nsch\xe4del.nii\n",
                "line 2 has the byte 0xE4 at column 4 ('ä' in",
            ),
            (b"\x1f\x8b\x08\x00", "is not text: is it a scan?"),
            (
                b"D:\\data\\a.nii\n",
                "line 1: D:\\data\\a.nii (a path of Windows)",
            ),
            (b"a.nii\rb.nii\r", "2 file(s) that are not there"),
        ];
        for (bytes, expected) in cases {
            let path = dir.path().join("list.txt");
            fs::write(&path, bytes).unwrap();
            let text = ListFile::read(&path).unwrap_err().to_string();
            assert!(text.contains(expected), "no {expected:?} in: {text}");
            assert!(!text.contains('\r'), "{text:?}");
        }
    }
}
