//! The faults of the cluster test, and what must hold meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::compose::wait;
use super::docker::{Docker, SHARDS, VICTIM};

/// A service that was killed is back within this time, on a busy machine.
const BACK: Duration = Duration::from_secs(90);
/// Containers start, programs load libtorch and scans.
const START: Duration = Duration::from_secs(240);
/// How long the learner cannot reach a shard.
const CUT: Duration = Duration::from_secs(30);
/// `checkpoint.period` of deploy/landmarl.toml: a killed learner repeats no more.
const CHECKPOINT_EVERY: u64 = 100;
/// Messages that services log at each fault.
const FAULTS: [&str; 6] = [
    "actor lost",
    "shard lost",
    "shard is back",
    "rows of the journal are back",
    "resumed",
    "rows cannot be brought to the disk",
];

/// Runs it all up to the first check that fails.
pub fn run(cluster: Docker, learn: Duration) -> Result<()> {
    let mut test = Test {
        cluster,
        lines: Vec::new(),
        durable: [0; SHARDS],
        begun: Instant::now(),
    };
    test.start(learn)?;
    test.scale()?;
    for service in ["actor", "replay-1", "learner", "evaluator"] {
        test.kill(service)?;
    }
    test.cut()?;
    test.full_disk()?;
    test.down_and_up()?;
    test.learned()?;
    test.faults_are_logged()?;
    test.rows_are_there()?;
    println!("\nthe cluster passed:");
    for line in &test.lines {
        println!("  {line}");
    }
    println!("in {:.0} s", test.begun.elapsed().as_secs_f64());
    Ok(())
}

struct Test {
    cluster: Docker,
    /// For the table at the end.
    lines: Vec<String>,
    /// Rows of each shard that were on its disk at the last check.
    durable: [u64; SHARDS],
    begun: Instant,
}

impl Test {
    fn note(&mut self, line: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        println!("== {at:5.0} s  {line}");
        self.lines.push(format!("{at:5.0} s  {line}"));
    }

    /// Waits for a status of the learner.
    fn until(&self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        wait(what, limit, || self.cluster.learner(), wanted)
    }

    /// Waits for a status of the shard [`VICTIM`].
    fn shard_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        wait(what, BACK, || self.cluster.shard(VICTIM), wanted)
    }

    fn updates(&self) -> Result<u64> {
        let status = self.until("a status", BACK, |_| true)?;
        Ok(count(&status, "updates"))
    }

    /// Waits for this many updates after the present ones.
    fn more_updates(&self, updates: u64, within: Duration) -> Result<u64> {
        let now = self.updates()?;
        let what = format!("{updates} updates after {now}");
        let status = self.until(&what, within, |s| count(s, "updates") >= now + updates)?;
        Ok(count(&status, "updates"))
    }

    /// Checks that no durable row is missing, and records how many there are now.
    fn check_rows(&mut self) -> Result<()> {
        for number in 0..SHARDS {
            let status = self.cluster.shard(number)?;
            let durable = count(&status["journal"], "durable");
            let before = self.durable[number];
            if durable < before {
                bail!("shard {number} has {durable} durable rows and had {before}");
            }
            self.durable[number] = durable;
        }
        Ok(())
    }

    fn start(&mut self, learn: Duration) -> Result<()> {
        self.cluster.up(2)?;
        self.until("two actors, two shards", START, |s| all_there(s, 2))?;
        self.note("up: two shards, a learner, an evaluator, two actors");
        let begun = Instant::now();
        let updates = self.more_updates(1, START)?;
        std::thread::sleep(learn.saturating_sub(begun.elapsed()));
        let after = self.updates()?;
        ensure!(after > updates, "no update in {:.0} s", learn.as_secs_f64());
        self.note(&format!("learned: {after} updates"));
        self.check_rows()
    }

    fn scale(&mut self) -> Result<()> {
        for actors in [5, 1, 2] {
            let begun = Instant::now();
            self.cluster.scale(actors)?;
            let what = format!("{actors} actors and no other expected");
            let expected = |s: &Value| count(s, "actors_expected") == actors as u64;
            self.until(&what, START, |s| all_there(s, actors) && expected(s))?;
            let took = begun.elapsed().as_secs_f64();
            self.note(&format!("scaled to {actors} actors in {took:.0} s"));
            if let Some(queries) = self.cluster.observed(actors)? {
                let line =
                    format!("Prometheus scrapes every service; {queries} queries return data");
                self.note(&line);
            }
            self.cluster.only_killed_restarted()?;
        }
        self.more_updates(1, BACK).map(drop)
    }

    fn kill(&mut self, service: &str) -> Result<()> {
        self.check_rows()?;
        let status = self.until("a status", BACK, |_| true)?;
        let (updates, before) = (count(&status, "updates"), living_actors(&status));
        let evaluated = self.evaluated()?;
        let begun = Instant::now();
        self.cluster.kill(service)?;
        match service {
            "actor" => {
                let both = |s: &Value| all_there(s, 2) && count(s, "actors_expected") == 2;
                let another = |s: &Value| both(s) && !living_actors(s).is_subset(&before);
                self.until("another actor and no third expected", BACK, another)?;
            }
            "evaluator" => {
                let evaluations = || self.evaluated();
                wait("an evaluation", START, evaluations, |n| *n > evaluated)?;
            }
            "learner" => {
                let status = self.until("the learner again", BACK, |s| all_there(s, 2))?;
                let resumed = count(&status, "updates");
                if resumed + CHECKPOINT_EVERY < updates {
                    bail!("the learner resumed from update {resumed}, killed after {updates}");
                }
            }
            _ => {
                self.shard_until("the shard", |_| true)?;
                self.until("both shards", BACK, |s| all_there(s, 2))?;
            }
        }
        let took = begun.elapsed().as_secs_f64();
        let after = self.more_updates(1, BACK)?;
        self.check_rows()?;
        let line = format!("{service} killed, back in {took:.0} s, updates {updates} to {after}");
        self.note(&line);
        self.cluster.only_killed_restarted()
    }

    fn cut(&mut self) -> Result<()> {
        self.cluster.cut(true)?;
        let begun = Instant::now();
        let lost = |s: &Value| living_shards(s) == SHARDS - 1;
        self.until("the loss of the shard", CUT, lost)?;
        let noticed = begun.elapsed().as_secs_f64();
        let before = self.updates()?;
        std::thread::sleep(CUT.saturating_sub(begun.elapsed()));
        let made = self.updates()?.saturating_sub(before);
        ensure!(made > 0, "no update while one shard was disconnected");
        self.cluster.cut(false)?;
        let begun = Instant::now();
        self.until("the shard again", BACK, |s| all_there(s, 2))?;
        let back = begun.elapsed().as_secs_f64();
        self.note(&format!(
            "shard disconnected for 30 s: noticed in {noticed:.0} s, {made} updates, back in {back:.0} s"
        ));
        self.check_rows()?;
        self.cluster.only_killed_restarted()
    }

    fn full_disk(&mut self) -> Result<()> {
        self.check_rows()?;
        self.cluster.fill(true)?;
        let full = |s: &Value| s["journal"]["failing"].is_string();
        self.shard_until("the disk to be full", full)?;
        let before = self.updates()?;
        std::thread::sleep(Duration::from_secs(5));
        self.cluster.fill(false)?;
        let free = |s: &Value| s["journal"]["failing"].is_null();
        self.shard_until("the disk to take rows", free)?;
        let durable = self.durable[VICTIM];
        let newer = |s: &Value| count(&s["journal"], "durable") > durable;
        self.shard_until("newer rows on the disk", newer)?;
        let after = self.more_updates(1, BACK)?;
        let line = format!("shard's disk full and free again: updates {before} to {after}");
        self.note(&line);
        self.check_rows()?;
        self.cluster.only_killed_restarted()
    }

    fn down_and_up(&mut self) -> Result<()> {
        self.check_rows()?;
        let before = self.updates()?;
        let begun = Instant::now();
        self.cluster.down()?;
        let down = begun.elapsed().as_secs_f64();
        self.cluster.up(2)?;
        let status = self.until("every service again", START, |s| all_there(s, 2))?;
        let resumed = count(&status, "updates");
        if resumed < before {
            bail!("{before} updates before `down` and {resumed} after `up`");
        }
        let after = self.more_updates(20, START)?;
        self.check_rows()?;
        let line = format!("down in {down:.0} s, up again: updates {before} to {after}");
        self.note(&line);
        Ok(())
    }

    /// The number of validations so far.
    fn evaluated(&self) -> Result<usize> {
        Ok(errors(&self.cluster.validations()?)?.len())
    }

    fn learned(&mut self) -> Result<()> {
        let all = errors(&self.cluster.validations()?)?;
        let (Some((before, first)), Some((after, last))) = (all.first(), all.last()) else {
            bail!("nothing was evaluated");
        };
        let line = format!(
            "validation error {first:.2} mm after {before} updates, {last:.2} mm after {after}"
        );
        let half = first / 2.0;
        // Written so that NaN fails.
        ensure!(*last < half, "{line}: not below half of the untrained one");
        self.note(&line);
        Ok(())
    }

    fn faults_are_logged(&mut self) -> Result<()> {
        let logs = self.cluster.logs()?;
        for message in FAULTS {
            let shown = logs.contains(message);
            ensure!(shown, "landmarl logs does not show {message:?}");
        }
        let line = self.cluster.followed()?;
        ensure!(
            line.contains(" actor/"),
            "landmarl logs -f shows {line:?} of the actors"
        );
        self.note("landmarl logs shows every fault, and follows the actors");
        Ok(())
    }

    /// Reads the journals of the stopped shards.
    fn rows_are_there(&mut self) -> Result<()> {
        self.check_rows()?;
        self.cluster.down()?;
        for number in 0..SHARDS {
            let found = self.cluster.verify(number)?;
            let durable = self.durable[number];
            let (lost, next) = (count(&found, "lost_rows"), count(&found, "next_row"));
            if found["sound"] != true || lost > 0 || next < durable {
                bail!("shard {number} had {durable} durable rows, and its journal has {found}");
            }
            let line = format!("shard {number}: {durable} durable rows, none lost");
            self.note(&line);
        }
        Ok(())
    }
}

/// A number; 0 where there is none.
fn count(status: &Value, key: &str) -> u64 {
    status[key].as_u64().unwrap_or(0)
}

fn living(list: &Value) -> impl Iterator<Item = &Value> {
    let all = list.as_array().into_iter().flatten();
    all.filter(|one| one["alive"] == true)
}

/// The number of shards that the learner reaches.
fn living_shards(status: &Value) -> usize {
    living(&status["shards"]).count()
}

/// Exactly so many actors, and every shard.
fn all_there(status: &Value, actors: usize) -> bool {
    living(&status["actors"]).count() == actors && living_shards(status) == SHARDS
}

/// Ids and incarnations: an actor that was killed comes back with another.
fn living_actors(status: &Value) -> BTreeSet<(u64, u64)> {
    let ids = |actor: &Value| (count(actor, "actor"), count(actor, "incarnation"));
    living(&status["actors"]).map(ids).collect()
}

/// Updates and mean errors in mm of the lines of `validation.jsonl`.
fn errors(lines: &str) -> Result<Vec<(u64, f64)>> {
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    let error = |line: &str| -> Result<(u64, f64)> {
        let value: Value = serde_json::from_str(line).context(line.to_owned())?;
        let mm = value["mean_error_mm"].as_f64();
        Ok((count(&value, "updates"), mm.context("no mean_error_mm")?))
    };
    lines.map(error).collect()
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
        let shards = json!([{"alive": true}, {"alive": false}]);
        let cut = json!({"actors": [{"alive": true}], "shards": shards});
        assert!(!all_there(&cut, 1));
        assert_eq!(living_shards(&cut), 1);
        assert!(!all_there(&json!({}), 1));
    }

    #[test]
    fn validations_are_read_line_by_line() {
        let line = |updates: u64, mm: f64| json!({"updates": updates, "mean_error_mm": mm});
        let lines = format!("{}\n{}\n", line(0, 30.5), line(200, 9.0));
        assert_eq!(errors(&lines).unwrap(), [(0, 30.5), (200, 9.0)]);
        assert!(errors("{\"updates\":1}").is_err());
        assert!(errors("broken").is_err());
    }

    #[test]
    fn services_log_these_messages() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for message in FAULTS {
            let mut grep = std::process::Command::new("grep");
            grep.current_dir(&root)
                .args(["-rqF", &format!("\"{message}")])
                .args(["learner/src", "replay-server/src"]);
            assert!(grep.status().unwrap().success(), "nothing logs {message:?}");
        }
    }
}
