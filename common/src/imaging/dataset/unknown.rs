//! Landmarks that files do not have: one problem for all files that lack the same ones.

use std::fmt;
use std::path::PathBuf;

use crate::imaging::landmark_file::LandmarkError;

/// Landmarks that some landmark files, or all of them, do not have.
#[derive(Debug)]
pub struct UnknownLandmarks {
    ids: Vec<String>,
    /// How many files lack them, of how many.
    lacking: usize,
    files: usize,
    /// The first of these files, and the landmarks that it has.
    path: PathBuf,
    valid: String,
    suggestions: Vec<String>,
}

/// The errors of one file.
struct OfFile {
    path: PathBuf,
    ids: Vec<String>,
    errors: Vec<LandmarkError>,
}

/// Groups the errors of a number of files, of each of their unknown landmarks in their order:
/// those that stand alone, and landmarks that several files lack, or that are several.
pub(super) fn grouped(
    errors: Vec<LandmarkError>,
    files: usize,
) -> (Vec<LandmarkError>, Vec<UnknownLandmarks>) {
    let (mut single, mut groups) = (Vec::new(), Vec::new());
    let mut by_file: Vec<OfFile> = Vec::new();
    for error in errors {
        let LandmarkError::UnknownId { path, id, .. } = &error else {
            single.push(error);
            continue;
        };
        match by_file.last_mut().filter(|last| last.path == *path) {
            Some(last) => {
                last.ids.push(id.clone());
                last.errors.push(error);
            }
            None => by_file.push(OfFile {
                path: path.clone(),
                ids: vec![id.clone()],
                errors: vec![error],
            }),
        }
    }
    while !by_file.is_empty() {
        let ids = by_file[0].ids.clone();
        let (alike, others): (Vec<OfFile>, _) = by_file.into_iter().partition(|f| f.ids == ids);
        by_file = others;
        match alike.as_slice() {
            [one] if one.errors.len() == 1 => {
                single.extend(alike.into_iter().flat_map(|file| file.errors));
            }
            _ => groups.extend(group(alike, files)),
        }
    }
    (single, groups)
}

/// Files that lack the same landmarks.
fn group(alike: Vec<OfFile>, files: usize) -> Option<UnknownLandmarks> {
    let lacking = alike.len();
    let first = alike.into_iter().next()?;
    let mut found = UnknownLandmarks {
        ids: first.ids,
        lacking,
        files,
        path: first.path,
        valid: String::new(),
        suggestions: Vec::new(),
    };
    for error in first.errors {
        if let LandmarkError::UnknownId {
            valid, suggestion, ..
        } = error
        {
            found.valid = valid;
            let suggestion = suggestion.trim_start_matches("; ").to_owned();
            if !suggestion.is_empty() && !found.suggestions.contains(&suggestion) {
                found.suggestions.push(suggestion);
            }
        }
    }
    Some(found)
}

impl fmt::Display for UnknownLandmarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = self.ids.iter().map(|id| format!("'{id}'")).collect();
        let (s, are) = if ids.len() == 1 {
            ("", "is")
        } else {
            ("s", "are")
        };
        let (ids, path) = (ids.join(", "), self.path.display());
        write!(f, "landmark{s} {ids} {are} ")?;
        match (self.lacking, self.files) {
            (_, 1) => write!(f, "not in '{path}', which has {}", self.valid)?,
            (all, files) if all == files => write!(
                f,
                "in none of the {files} landmark files; the first, '{path}', has {}",
                self.valid
            )?,
            (some, files) => write!(
                f,
                "not in {some} of the {files} landmark files; the first of these, '{path}', has {}",
                self.valid
            )?,
        }
        if !self.suggestions.is_empty() {
            write!(f, "; {}", self.suggestions.join(" "))?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownLandmarks {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(path: &str, id: &str) -> LandmarkError {
        LandmarkError::UnknownId {
            path: path.into(),
            id: id.into(),
            valid: "numbers 0 to 1 and names AC, PC".into(),
            suggestion: format!("; did you mean '{}'?", id.to_uppercase()),
        }
    }

    fn texts(errors: &[(&str, &str)], files: usize) -> Vec<String> {
        let errors = errors.iter().map(|(path, id)| error(path, id)).collect();
        let (single, groups) = grouped(errors, files);
        let single = single.iter().map(ToString::to_string);
        single
            .chain(groups.iter().map(ToString::to_string))
            .collect()
    }

    #[test]
    fn landmarks_that_many_files_lack_are_one_problem() {
        let paths: Vec<String> = (1..=45).map(|n| format!("{n}.csv")).collect();
        let all = paths
            .iter()
            .flat_map(|path| [(path.as_str(), "ac"), (path.as_str(), "pc")]);
        let all: Vec<(&str, &str)> = all.collect();
        assert_eq!(
            texts(&all, 45),
            [
                "landmarks 'ac', 'pc' are in none of the 45 landmark files; the first, '1.csv', has \
              numbers 0 to 1 and names AC, PC; did you mean 'AC'? did you mean 'PC'?"
            ]
        );
        let some = [
            ("1.csv", "x"),
            ("2.csv", "x"),
            ("2.csv", "y"),
            ("3.csv", "x"),
        ];
        assert_eq!(
            texts(&some, 45),
            [
                "landmark 'x' is not in 2 of the 45 landmark files; the first of these, '1.csv', \
                 has numbers 0 to 1 and names AC, PC; did you mean 'X'?",
                "landmarks 'x', 'y' are not in 1 of the 45 landmark files; the first of these, \
                 '2.csv', has numbers 0 to 1 and names AC, PC; did you mean 'X'? did you mean 'Y'?"
            ]
        );
        let two = [("1.csv", "ac"), ("1.csv", "pc")];
        assert!(
            texts(&two, 1)[0].starts_with("landmarks 'ac', 'pc' are not in '1.csv', which has")
        );
        let one = error("1.csv", "ac").to_string();
        assert_eq!(texts(&two[..1], 45), [one]);
    }
}
