//! A manifest as JSON: a list of scans, or MONAI's datalist, which has one
//! list per split.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::table::{FORMER_NAME, fold, split, warn_former_name};
use super::{Entry, SourceError, Split, Unused};
use crate::imaging::nifti_io::bare_name;

/// What to do about an item without a landmark file.
const EXPECTED: &str = "names no landmark file; give it a key 'landmarks'";

/// The items of all lists, and the files in them that are not used.
type Items = (Vec<Entry>, Vec<Unused>);

/// The items of all lists; an error lists all problems.
pub(super) fn entries(text: &str, path: &Path) -> Result<Items, Vec<SourceError>> {
    let bad = |place: String, problem: String| SourceError::Entry {
        path: path.to_owned(),
        place,
        problem,
    };
    let whole: Value = serde_json::from_str(text).map_err(|error| {
        let place = format!(":{}", error.line());
        vec![bad(place, format!("not JSON: {error}"))]
    })?;
    let lists: Vec<(Option<Split>, &str, &Value)> = match &whole {
        Value::Object(map) => {
            let lists = map.iter().map(|(key, list)| (Split::of(key), key, list));
            // Other keys describe the data: name, modality, labels.
            lists
                .filter(|(split, _, _)| split.is_some())
                .map(|(split, key, list)| (split, key.as_str(), list))
                .collect()
        }
        list => vec![(None, "", list)],
    };
    if lists.is_empty() {
        let problem = "JSON without a list 'training', 'validation' or 'testing'; give one, or a \
                       list of {\"image\": …, \"landmarks\": …}";
        return Err(vec![bad(String::new(), problem.to_owned())]);
    }
    let is_former = |word: &str| word.eq_ignore_ascii_case(FORMER_NAME);
    let items = lists.iter().filter_map(|(_, _, list)| list.as_array());
    let mut own = items
        .flatten()
        .filter_map(|item| item.get("split")?.as_str());
    if lists.iter().any(|(_, key, _)| is_former(key)) || own.any(is_former) {
        warn_former_name(path);
    }
    let (mut entries, mut problems, mut unused) = (Vec::new(), Vec::new(), Vec::new());
    for (of, key, list) in lists {
        let Value::Array(items) = list else {
            problems.push(bad(String::new(), format!("'{key}' is not a list")));
            continue;
        };
        for (item, number) in items.iter().zip(1..) {
            let number: usize = number;
            let place = if key.is_empty() {
                format!(": item {number}")
            } else {
                format!(": {key} item {number}")
            };
            match entry(item, of, &mut unused) {
                Ok(entry) => entries.push(Entry { place, ..entry }),
                Err(problem) => problems.push(bad(place, problem)),
            }
        }
    }
    if problems.is_empty() {
        Ok((entries, unused))
    } else {
        Err(problems)
    }
}

fn entry(item: &Value, of: Option<Split>, unused: &mut Vec<Unused>) -> Result<Entry, String> {
    // MONAI's lists of test scans may hold plain paths.
    let field = |key: &str| match item {
        Value::String(_) if key == "image" => Some(item),
        item => item.get(key).filter(|value| !value.is_null()),
    };
    let words = |key: &str| match field(key) {
        None => Ok(Vec::new()),
        Some(value) => texts(value).ok_or_else(|| {
            format!("'{key}' is not text; give one path or word, or a list of paths")
        }),
    };
    let images = words("image")?;
    let (image, channels) = images.split_first().ok_or("has no key 'image'")?;
    let reason = format!("is not used: of several images of one scan, the first is: '{image}'");
    let channels = channels.iter();
    unused.extend(channels.map(|channel| Unused::new(channel.into(), reason.as_str(), false)));
    let mut landmarks = words("landmarks")?;
    let mut expected = EXPECTED.to_owned();
    if landmarks.is_empty() {
        // MONAI's key, which usually names a label map.
        landmarks = words("label")?;
        if landmarks.iter().any(|label| bare_name(label).is_some()) {
            expected += "; 'label' is a label map";
            landmarks.clear();
        }
    }
    let fold = match field("fold") {
        None => None,
        Some(Value::String(word)) => Some(fold(word.trim())?),
        Some(number) => {
            let wrong = |_| format!("fold {number} is not a whole number from 0");
            Some(fold(&number.to_string()).map_err(wrong)?)
        }
    };
    let own = match field("split") {
        None => None,
        Some(word) => Some(split(word.as_str().ok_or("'split' is not text")?)?),
    };
    let landmarks = landmarks.into_iter().map(PathBuf::from).collect();
    Ok(Entry {
        merge: true,
        fold,
        expected,
        ..Entry::found(image.into(), landmarks, own.or(of))
    })
}

/// A text or a list of texts.
fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(items) => items.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
