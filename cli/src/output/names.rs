//! File names that never collide: one place hands out all names of an evaluation.

use std::collections::HashSet;

/// Longest stem in bytes. Common file systems allow names of 255 bytes: this leaves room for
/// endings, numbers and the names of temporary files.
const STEM_MAX: usize = 180;

/// The names of one folder.
#[derive(Debug, Default)]
pub struct Names {
    taken: HashSet<String>,
}

impl Names {
    /// A folder that always has these files.
    pub fn with(reserved: &[&str]) -> Self {
        Self {
            taken: reserved.iter().map(|name| key(name)).collect(),
        }
    }

    /// Takes the names `<stem><ending>`: with the wanted stem, or with `-2`, `-3` and so on
    /// appended where one of them is taken already. Returns the stem.
    pub fn take(&mut self, wanted: &str, endings: &[&str]) -> String {
        let wanted = file_stem(wanted);
        let keys = |stem: &str| -> Vec<String> {
            let names = endings.iter().map(|end| key(&format!("{stem}{end}")));
            names.collect()
        };
        let mut stem = wanted.clone();
        let mut number = 1_usize;
        while keys(&stem).iter().any(|name| self.taken.contains(name)) {
            number += 1;
            stem = format!("{wanted}-{number}");
        }
        self.taken.extend(keys(&stem));
        stem
    }
}

/// Equal for names that are one file where case does not count, as on macOS and Windows.
fn key(name: &str) -> String {
    name.to_lowercase()
}

/// The text as a part of a file name on any system.
fn file_stem(text: &str) -> String {
    let reserved = |c: char| c.is_control() || "/\\<>:\"|?*".contains(c);
    let mut stem = text.replace(reserved, "_");
    stem.truncate(stem.floor_char_boundary(STEM_MAX));
    match stem.as_str() {
        "" => "scan".to_owned(),
        // Such a file would be hidden, or name a folder.
        hidden if hidden.starts_with('.') => format!("_{hidden}"),
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The endings of the exports of a scan with known landmarks.
    const ENDINGS: [&str; 5] = [
        ".mrk.json",
        ".fcsv",
        ".csv",
        "_label.nii.gz",
        "_truth.mrk.json",
    ];

    #[test]
    fn names_that_would_be_one_file_get_numbers() {
        let long = "é".repeat(200);
        let cut = "é".repeat(90);
        for (wanted, expected) in [
            ("x x_truth y", "x x_truth-2 y"),
            ("x_truth x", "x_truth x-2"),
            ("labels a", "labels-2 a"),
            ("Labels labels-2", "Labels-2 labels-2-2"),
            ("a A a", "a A-2 a-3"),
            ("a/b a_b a:b", "a_b a_b-2 a_b-3"),
            ("../up .hidden", "_.._up _.hidden"),
            ("b\u{1b}[2J b\r", "b_[2J b_"),
            (
                format!("{long} {long}").as_str(),
                format!("{cut} {cut}-2").as_str(),
            ),
        ] {
            let mut names = Names::with(&["labels.csv"]);
            let found: Vec<String> = wanted.split(' ').map(|w| names.take(w, &ENDINGS)).collect();
            assert_eq!(found.join(" "), expected, "{wanted}");
        }
        assert_eq!(Names::default().take("", &[".png"]), "scan");
    }

    #[test]
    fn no_two_files_of_any_scans_have_one_name() {
        // Every order of scans whose names end as the files of others.
        let wanted = [
            "s", "S", "s_truth", "s_label", "labels", "s-2", "s/2", "s_2",
        ];
        for shift in 0..wanted.len() {
            let mut names = Names::with(&["labels.csv"]);
            let mut files = vec!["labels.csv".to_owned()];
            for number in 0..wanted.len() {
                let stem = names.take(wanted[(number + shift) % wanted.len()], &ENDINGS);
                files.extend(ENDINGS.map(|end| format!("{stem}{end}").to_lowercase()));
            }
            let count = files.len();
            files.sort();
            files.dedup();
            assert_eq!(files.len(), count, "{files:?}");
        }
    }
}
