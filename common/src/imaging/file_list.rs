//! List files: one path per line, relative to the list's own folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::imaging::delimited::content_lines;

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
    #[error("cannot read list '{}': {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
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
                None => missing.push(format!("line {line}: {entry}")),
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
    let candidates = [folder.join(entry), entry.to_owned()];
    candidates.into_iter().find(|c| c.exists())
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
    let text = fs::read_to_string(path).map_err(|error| ListError::Read {
        path: path.to_owned(),
        error,
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines: Vec<(u64, String)> = content_lines(text)
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
            ("gone.txt", ["cannot read list", "gone.txt"]),
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
}
