//! A manifest as JSON: a list of scans, or MONAI's datalist, which has one
//! list per split.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::table::{FORMER_NAME, split, warn_former_name};
use super::{Entry, SourceError, Split};

/// What to do about an item without a landmark file.
const EXPECTED: &str = "names no landmark file; give it a key 'landmarks'";

/// The items of all lists; an error lists all problems.
pub(super) fn entries(text: &str, path: &Path) -> Result<Vec<Entry>, Vec<SourceError>> {
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
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
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
            match entry(item, of) {
                Ok(entry) => entries.push(Entry { place, ..entry }),
                Err(problem) => problems.push(bad(place, problem)),
            }
        }
    }
    if problems.is_empty() {
        Ok(entries)
    } else {
        Err(problems)
    }
}

fn entry(item: &Value, of: Option<Split>) -> Result<Entry, String> {
    // MONAI's lists of test scans may hold plain paths.
    let field = |key: &str| match item {
        Value::String(_) if key == "image" => Some(item),
        item => item.get(key).filter(|value| !value.is_null()),
    };
    let word = |key: &str| match field(key) {
        None => Ok(None),
        Some(Value::String(word)) => Ok(Some(word.as_str())),
        Some(_) => Err(format!("'{key}' is not text; give one path or word")),
    };
    let image = word("image")?.ok_or("has no key 'image'")?;
    let fold = match field("fold") {
        None => None,
        Some(fold) => {
            let number = fold.as_u64().and_then(|fold| u32::try_from(fold).ok());
            Some(number.ok_or_else(|| format!("fold {fold} is not a whole number from 0"))?)
        }
    };
    let own = word("split")?.map(split).transpose()?;
    Ok(Entry {
        image: image.into(),
        landmarks: word("landmarks")?.into_iter().map(PathBuf::from).collect(),
        split: own.or(of),
        fold,
        place: String::new(),
        expected: EXPECTED.to_owned(),
    })
}
