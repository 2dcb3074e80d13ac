//! What the test needs of the services' JSON.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use super::scenario::SHARDS;

/// A number; 0 where there is none.
pub fn count(status: &Value, key: &str) -> u64 {
    status[key].as_u64().unwrap_or(0)
}

fn living(list: &Value) -> usize {
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|one| one["alive"] == true).count()
}

/// Shards that answer the learner.
pub fn living_shards(status: &Value) -> usize {
    living(&status["shards"])
}

/// Exactly so many actors, and every shard.
pub fn all_there(status: &Value, actors: usize) -> bool {
    living(&status["actors"]) == actors && living_shards(status) == SHARDS
}

/// Ids and incarnations: an actor that was killed comes back with another.
pub fn living_actors(status: &Value) -> BTreeSet<(u64, u64)> {
    let all = status["actors"].as_array().map(Vec::as_slice);
    let living = all
        .unwrap_or_default()
        .iter()
        .filter(|a| a["alive"] == true);
    living
        .map(|a| (count(a, "actor"), count(a, "incarnation")))
        .collect()
}

/// One line of `validation.jsonl`: the mean error after some updates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Validation {
    pub updates: u64,
    pub mm: f64,
}

pub fn errors(lines: &str) -> Result<Vec<Validation>> {
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let value: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            Ok(Validation {
                updates: count(&value, "updates"),
                mm: value["mean_error_mm"]
                    .as_f64()
                    .context("no mean_error_mm")?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lost_actors_and_shards_do_not_count() {
        let status = json!({
            "actors": [{"alive": true, "actor": 1, "incarnation": 4}, {"alive": false, "incarnation": 9}],
            "shards": [{"alive": true}, {"alive": true}],
        });
        assert!(all_there(&status, 1) && !all_there(&status, 2));
        assert_eq!(living_actors(&status), BTreeSet::from([(1, 4)]));
        let cut =
            json!({"actors": [{"alive": true}], "shards": [{"alive": true}, {"alive": false}]});
        assert!(!all_there(&cut, 1));
        assert_eq!(living_shards(&cut), 1);
        assert!(!all_there(&json!({}), 1));
    }

    #[test]
    fn validations_are_read_line_by_line() {
        let lines =
            "{\"updates\":0,\"mean_error_mm\":30.5}\n{\"updates\":200,\"mean_error_mm\":9.0}\n";
        let all = errors(lines).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(
            all[1],
            Validation {
                updates: 200,
                mm: 9.0
            }
        );
        assert!(errors("{\"updates\":1}").is_err());
        assert!(errors("broken").is_err());
    }
}
