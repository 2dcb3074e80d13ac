//! A short, unique name for each scan.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::imaging::nifti_io::bare_name;

/// File names without folder and extension; where several files share one, with
/// as many parent folders as needed (`s1/T1.nii` is `s1_T1`).
pub(super) fn unique(paths: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = paths.iter().map(|path| name(path, 0)).collect();
    let deepest = paths
        .iter()
        .map(|path| path.components().count())
        .max()
        .unwrap_or(0);
    for folders in 1..deepest {
        let mut counts: HashMap<&String, usize> = HashMap::new();
        names
            .iter()
            .for_each(|name| *counts.entry(name).or_default() += 1);
        let shared: Vec<bool> = names.iter().map(|name| counts[name] > 1).collect();
        if !shared.contains(&true) {
            break;
        }
        for ((path, name_of), shared) in paths.iter().zip(&mut names).zip(shared) {
            if shared {
                *name_of = name(path, folders);
            }
        }
    }
    names
}

fn name(path: &Path, folders: usize) -> String {
    let parts: Vec<String> = path
        .components()
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let joined = parts[parts.len().saturating_sub(folders + 1)..].join("_");
    bare_name(&joined).unwrap_or(&joined).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_differ() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&["/a/x.nii.gz", "b/y.01.NII"], &["x", "y.01"]),
            (&["u.hdr", "v.IMG.gz", "w.mha"], &["u", "v", "w.mha"]),
            (
                &["d/s1/T1.nii", "d/s2/T1.nii", "d/other.nii"],
                &["s1_T1", "s2_T1", "other"],
            ),
            (&["a/s/T1.nii", "b/s/T1.nii"], &["a_s_T1", "b_s_T1"]),
            (&["same.nii", "same.nii"], &["same", "same"]),
        ];
        for (paths, expected) in cases {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            assert_eq!(unique(&paths), expected);
        }
    }
}
