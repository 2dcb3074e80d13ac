//! All problems and warnings of data at once.

use std::collections::HashMap;
use std::path::PathBuf;

use super::landmarks::Wanted;
use super::source::{Pair, Source, Split, Unused};
use super::warnings::find as find_warnings;
use super::{DataWarning, Dataset, DatasetSpec, LoadOptions, Problem, gather};

/// What [`Dataset::survey`] finds.
#[derive(Debug)]
pub struct Survey {
    /// The scans without problems.
    pub dataset: Dataset,
    /// How many of them each split has; empty where no splits are named.
    pub splits: Vec<(Split, usize)>,
    /// Problems that prevent use of the data, and files that probably were meant to be used.
    pub problems: Vec<Problem>,
    /// Likely mistakes that do not prevent it.
    pub warnings: Vec<DataWarning>,
    /// Files beside the scans that are not used.
    pub unused: Vec<Unused>,
}

impl Dataset {
    /// Collects all problems and warnings of the data that specs name; of each, one
    /// split or all. Landmarks and load options are those of the first.
    #[must_use]
    pub fn survey(specs: &[(DatasetSpec, Option<Split>)]) -> Survey {
        let named = Named::read(specs);
        let (mut problems, mut warnings) = (named.problems, named.warnings);
        let (ids, options) = match specs.first() {
            Some((spec, _)) => (spec.ids.clone(), spec.options.clone()),
            None => (Vec::new(), LoadOptions::default()),
        };
        let splits = named.pairs.iter();
        let splits = splits.filter_map(|pair| Some((pair.image.clone(), pair.split?)));
        let splits: HashMap<PathBuf, Split> = splits.collect();
        let pairs = named.pairs.into_iter();
        let (images, landmarks): (Vec<_>, Vec<_>) =
            pairs.map(|pair| (pair.image, pair.landmarks)).unzip();
        let (wanted, found) = Wanted::read(&images, &landmarks, &ids);
        problems.extend(found);
        let labelled = landmarks.iter().any(|files| !files.is_empty());
        let wanted = labelled.then_some(&wanted);
        let (dataset, problems) = gather(&images, wanted, problems, &options);
        let names = &dataset.landmark_names;
        warnings.extend(find_warnings(&dataset.scans, &dataset.sources, names));
        warnings.extend(dataset.warnings.iter().cloned());
        warnings.sort_by(|a, b| a.scan.cmp(&b.scan));
        let count = |split| {
            let of = dataset.sources.iter().filter_map(|path| splits.get(path));
            (split, of.filter(|of| **of == split).count())
        };
        Survey {
            splits: match splits.is_empty() {
                true => Vec::new(),
                false => Split::ALL.map(count).to_vec(),
            },
            dataset,
            problems,
            warnings,
            unused: named.unused,
        }
    }
}

/// What the sources say, before any scan is read.
#[derive(Default)]
struct Named {
    pairs: Vec<Pair>,
    problems: Vec<Problem>,
    warnings: Vec<DataWarning>,
    unused: Vec<Unused>,
}

impl Named {
    fn read(specs: &[(DatasetSpec, Option<Split>)]) -> Self {
        let mut named = Self::default();
        for (spec, split) in specs {
            let (images, landmarks) = (&spec.images, spec.landmarks.as_deref());
            let (mut found, errors) = match Source::read(images, landmarks) {
                Ok(source) => {
                    named.warnings.extend(spec.shared_subjects(&source));
                    let found = source.survey(*split, spec.fold);
                    named.unused.extend(source.unused);
                    found
                }
                Err(errors) => (Source::salvage(images, landmarks), errors),
            };
            if specs.len() > 1 {
                found.iter_mut().for_each(|pair| {
                    pair.split.get_or_insert(spec.split);
                });
            }
            named.pairs.extend(found);
            let errors = errors.into_iter().map(Problem::Source);
            named.problems.extend(errors);
        }
        let mistakes = named.unused.iter().filter(|file| file.mistake);
        let mistakes: Vec<Problem> = mistakes.cloned().map(Problem::Unused).collect();
        named.problems.extend(mistakes);
        named
    }
}
