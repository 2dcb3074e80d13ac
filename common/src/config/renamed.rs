//! Renamed keys: refused in what a user writes, translated in the `config.toml`
//! of a run that an older version saved.

use toml::{Table, Value};

/// A renamed key, with its renamed values.
pub(super) struct Renamed {
    section: &'static str,
    old: &'static str,
    new: &'static str,
    /// Old and new value, where values were renamed too.
    values: &'static [(&'static str, &'static str)],
}

const fn key(section: &'static str, old: &'static str, new: &'static str) -> Renamed {
    Renamed {
        section,
        old,
        new,
        values: &[],
    }
}

const RENAMED: &[Renamed] = &[
    key("data", "selection_images", "validation_images"),
    key("data", "selection_landmarks", "validation_landmarks"),
    key("rules", "cut", "episode_end"),
    key("rules", "answer", "terminal_position"),
    key("replay", "tolerance", "error_buffer"),
    Renamed {
        section: "learner",
        old: "actions",
        new: "objective",
        values: &[("taken", "q_learning"), ("all", "step_reward")],
    },
    key("learner", "grad_norm", "max_grad_norm"),
    key("learner", "target_every", "target_update_period"),
    key("learner", "average", "ema_decay"),
    key("learner", "publish_every", "publish_period"),
    key("validation", "every", "period"),
    key("checkpoint", "every", "period"),
];

/// The current name of `section.key`, with its values where those were renamed.
pub(super) fn replacement(key: &str) -> Option<String> {
    let is_it = |r: &&Renamed| key.split_once('.') == Some((r.section, r.old));
    let renamed = RENAMED.iter().find(is_it)?;
    let mut text = format!("\"{}.{}\"", renamed.section, renamed.new);
    for (i, (old, new)) in renamed.values.iter().enumerate() {
        text += if i == 0 { ", with " } else { ", " };
        text += &format!("\"{new}\" for \"{old}\"");
    }
    Some(text)
}

/// Renames the keys of a saved configuration.
pub fn upgrade(saved: &mut Table) {
    for renamed in RENAMED {
        let Some(section) = saved.get_mut(renamed.section).and_then(Value::as_table_mut) else {
            continue;
        };
        let Some(value) = section.remove(renamed.old) else {
            continue;
        };
        let translated = value.as_str().and_then(|v| {
            let pair = renamed.values.iter().find(|(old, _)| *old == v);
            pair.map(|(_, new)| Value::String((*new).to_owned()))
        });
        let value = translated.unwrap_or(value);
        section.entry(renamed.new.to_owned()).or_insert(value);
    }
}

/// The names of `[rules]` keys in digests, which must not change: runs,
/// journals and checkpoints of older versions are compared by them.
pub(super) fn digest_names(rules: &mut serde_json::Value) {
    let Some(rules) = rules.as_object_mut() else {
        return;
    };
    for renamed in RENAMED.iter().filter(|r| r.section == "rules") {
        if let Some(value) = rules.remove(renamed.new) {
            rules.insert(renamed.old.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    #[test]
    fn a_saved_configuration_gets_the_current_names() {
        let old = "[learner]\nactions = \"all\"\naverage = 0.5\n[validation]\nevery = 7\n";
        let mut table: Table = old.parse().unwrap();
        upgrade(&mut table);
        let new =
            "[learner]\nobjective = \"step_reward\"\nema_decay = 0.5\n[validation]\nperiod = 7\n";
        assert_eq!(table, new.parse().unwrap());
        let once = table.clone();
        upgrade(&mut table);
        assert_eq!(table, once);
    }

    #[test]
    fn every_new_name_exists_and_every_old_one_is_refused_with_it() {
        for renamed in RENAMED {
            let refused = |name: &str| {
                let set = vec![format!("{}.{name}=1", renamed.section)];
                let sources = Sources {
                    set,
                    ..Sources::default()
                };
                Config::load(&sources).err().map(|e| e.to_string())
            };
            let old = refused(renamed.old).unwrap();
            let new = format!("is now \"{}.{}\"", renamed.section, renamed.new);
            assert!(old.contains(&new), "{old}");
            let text = refused(renamed.new).unwrap_or_default();
            assert!(!text.contains("unknown config key"), "{text}");
        }
    }

    #[test]
    fn the_digest_is_that_of_the_former_names() {
        // Written to run.json by version 0.1.0 for these settings.
        let set = [
            "data.landmarks=[\"bridge\",\"base_ball\"]",
            "rules.window_size=12",
            "rules.scales=[[2,3],[1,1]]",
            "rules.max_steps=30",
            "actor.start_near_radius=[8.0,4.0]",
        ];
        let config = Config::load(&Sources {
            set: set.map(str::to_owned).to_vec(),
            ..Sources::default()
        });
        let digest = crate::imaging::manifest::hex(&config.unwrap().digest());
        assert_eq!(
            digest,
            "1f6e0f2755785aed991bf5224ade87b41af7657a425525dc1fdc3182e71f9d65"
        );
    }
}
