//! Finds a network among the tensors of a training script's file: in nested
//! dictionaries, and behind the prefixes of wrappers.

use std::collections::{BTreeMap, BTreeSet};

/// Parts of names that DataParallel and `torch.compile` add.
const WRAPPERS: [&str; 2] = ["module", "_orig_mod"];

/// A tensor that every network of rl-medical has.
const FIRST: &str = "conv0.weight";

/// Entries that hold the trained network beside others, the preferred first.
const PREFERRED: [&str; 6] = [
    "q_network_state_dict",
    "q_network",
    "model_state_dict",
    "state_dict",
    "model",
    "weights",
];

/// Most names in a message.
const NAMES_SHOWN: usize = 8;

/// Named values, for example the tensors of a dictionary.
pub(super) type Named<T> = Vec<(String, T)>;

/// Named values of a network.
#[derive(Debug)]
pub(super) struct Found<T> {
    /// The keys and the prefix that lead to it, joined with dots; empty for the whole file.
    pub(super) entry: String,
    /// By the network's own names.
    pub(super) tensors: Named<T>,
}

/// One network of a file: the dictionary, and the prefix of its names.
struct Candidate {
    dict: usize,
    prefix: String,
    entry: String,
}

/// Chooses the network in dictionaries of tensors, each with the keys that lead to it.
///
/// The only dictionary is taken even if it holds no known network: the caller
/// reports what is in it.
///
/// # Errors
/// Lists the entries, if there is no network or more than one trained one.
pub(super) fn choose<T>(mut dicts: Vec<(String, Named<T>)>) -> Result<Found<T>, String> {
    for (_, tensors) in &mut dicts {
        for (name, _) in tensors.iter_mut() {
            *name = unwrapped(name);
        }
    }
    let chosen = match candidates(&dicts) {
        found if !found.is_empty() => best(found)?,
        _ if dicts.len() == 1 => Candidate {
            dict: 0,
            prefix: String::new(),
            entry: dicts[0].0.clone(),
        },
        _ => {
            let entries: Vec<&str> = dicts.iter().map(|(path, _)| shown(path)).collect();
            let entries = list(&entries);
            return Err(format!("none of its dictionaries {entries} has {FIRST}"));
        }
    };
    let (_, tensors) = dicts.swap_remove(chosen.dict);
    let inside = tensors.into_iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix(&chosen.prefix)?.to_owned();
        Some((name, tensor))
    });
    let tensors: Named<T> = inside.collect();
    let mut names = BTreeSet::new();
    if let Some((name, _)) = tensors.iter().find(|(name, _)| !names.insert(name)) {
        return Err(format!("two of its tensors are called {name}"));
    }
    Ok(Found {
        entry: chosen.entry,
        tensors,
    })
}

/// Names for a message: the first few, and how many there are.
pub(crate) fn list<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_SHOWN).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let more = (more > 0).then(|| format!(" and {more} more"));
    shown.join(", ") + &more.unwrap_or_default()
}

/// A name without the parts that wrappers add, wherever they are.
fn unwrapped(name: &str) -> String {
    let parts = name.split('.').filter(|part| !WRAPPERS.contains(part));
    parts.collect::<Vec<_>>().join(".")
}

fn candidates<T>(dicts: &[(String, Named<T>)]) -> Vec<Candidate> {
    let of = |(dict, (path, tensors)): (usize, &(String, Named<T>))| {
        let prefixes = tensors.iter().filter_map(|(name, _)| {
            let prefix = name.strip_suffix(FIRST)?;
            (prefix.is_empty() || prefix.ends_with('.')).then_some(prefix)
        });
        // Equal ones are reported later, by the name that occurs twice.
        let prefixes: BTreeSet<&str> = prefixes.collect();
        let candidate = |prefix: &str| Candidate {
            dict,
            prefix: prefix.to_owned(),
            entry: joined(path, prefix.trim_end_matches('.')),
        };
        prefixes.into_iter().map(candidate).collect::<Vec<_>>()
    };
    dicts.iter().enumerate().flat_map(of).collect()
}

/// A path of keys and one more.
pub(super) fn joined(path: &str, key: &str) -> String {
    match (path, key) {
        ("", one) | (one, "") => one.to_owned(),
        (path, key) => format!("{path}.{key}"),
    }
}

fn shown(entry: &str) -> &str {
    if entry.is_empty() {
        "(top level)"
    } else {
        entry
    }
}

/// The trained network: not a target network, and the preferred entry.
fn best(mut found: Vec<Candidate>) -> Result<Candidate, String> {
    let is_target = |c: &Candidate| c.entry.split('.').any(|part| part.starts_with("target"));
    if found.iter().any(|c| !is_target(c)) {
        found.retain(|c| !is_target(c));
    }
    let rank = |c: &Candidate| {
        let named = |wanted: &&str| c.entry.split('.').any(|part| part == *wanted);
        PREFERRED.iter().position(named)
    };
    let mut ranked: BTreeMap<usize, Vec<Candidate>> = BTreeMap::new();
    for candidate in found {
        let rank = rank(&candidate).unwrap_or(PREFERRED.len());
        ranked.entry(rank).or_default().push(candidate);
    }
    let mut first = ranked.into_values().next().unwrap_or_default();
    if let [_] = first.as_slice() {
        return Ok(first.remove(0));
    }
    let entries: Vec<&str> = first.iter().map(|c| shown(&c.entry)).collect();
    let entries = list(&entries);
    Err(format!(
        "it holds several networks: {entries}; save one of them alone"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entry and the names that are chosen in `path: name name; path: name`.
    fn chosen(text: &str) -> Result<(String, String), String> {
        let dict = |line: &str| {
            let (path, names) = line.split_once(':').unwrap();
            let names = names.split_whitespace().map(|n| (n.to_owned(), ()));
            (path.trim().to_owned(), names.collect())
        };
        let found = choose(text.split(';').map(dict).collect())?;
        let names: Vec<String> = found.tensors.into_iter().map(|(n, ())| n).collect();
        Ok((found.entry, names.join(" ")))
    }

    #[test]
    fn prefixes_of_wrappers_are_removed_wherever_they_are() {
        let plain = "conv0.weight fc1.0.bias";
        for text in [
            ": conv0.weight fc1.0.bias",
            ": module.conv0.weight module.fc1.0.bias",
            ": _orig_mod.conv0.weight _orig_mod.fc1.0.bias",
            ": _orig_mod.module.conv0.weight _orig_mod.module.fc1.0.bias",
            ": module._orig_mod.conv0.weight module._orig_mod.fc1.0.bias",
            ": module.module.conv0.weight module.module.fc1.0.bias",
            // torch.compile of single layers.
            ": conv0._orig_mod.weight fc1.0._orig_mod.bias",
        ] {
            let expected = Ok((String::new(), plain.to_owned()));
            assert_eq!(chosen(text), expected, "{text}");
        }
    }

    #[test]
    fn the_trained_network_is_chosen_among_several() {
        for (text, entry) in [
            (
                "target_network_state_dict: conv0.weight; q_network_state_dict: conv0.weight",
                "q_network_state_dict",
            ),
            (": target.conv0.weight model.conv0.weight", "model"),
            (
                "ema: conv0.weight; state_dict: net.conv0.weight",
                "state_dict.net",
            ),
            ("optimizer: x.y; a.b: module.conv0.weight", "a.b"),
            ("target: conv0.weight", "target"),
        ] {
            let found = chosen(text).unwrap();
            assert_eq!(
                found,
                (entry.to_owned(), "conv0.weight".to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn files_without_one_network_are_refused_with_their_entries() {
        for (text, words) in [
            ("a: conv0.weight; b: conv0.weight", "several networks: a, b"),
            (
                "a: x; b: y",
                "none of its dictionaries a, b has conv0.weight",
            ),
            (
                ": conv0.weight module.conv0.weight",
                "two of its tensors are called conv0.weight",
            ),
        ] {
            let error = chosen(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        // The caller says what is in the only dictionary.
        let only = Ok(("a".to_owned(), "layer.weight".to_owned()));
        assert_eq!(chosen("a: layer.weight"), only);
        let many: Vec<String> = (0..11).map(|n| n.to_string()).collect();
        assert_eq!(list(&many), "0, 1, 2, 3, 4, 5, 6, 7 and 3 more");
    }
}
