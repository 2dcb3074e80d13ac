//! What a cluster goes through, and what must hold meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::docker::Docker;
use super::status::{all_there, count, errors, living_actors, living_shards};

/// How often a status is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A service that was killed is back within this time, on a busy machine.
const BACK: Duration = Duration::from_secs(90);
/// Containers start, programs load libtorch and scans.
const START: Duration = Duration::from_secs(240);
/// How long the learner cannot reach a shard.
const CUT: Duration = Duration::from_secs(30);
/// `checkpoint.period` of deploy/landmarl.toml: a killed learner repeats no more.
const CHECKPOINT_EVERY: u64 = 100;
/// The shard that is disconnected and whose disk is filled.
pub const VICTIM: usize = 1;
/// Shards of the cluster.
pub const SHARDS: usize = 2;
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

/// Looks until the state is as wanted; a service that does not answer is asked again.
fn wait(
    what: &str,
    within: Duration,
    look: impl Fn() -> Result<Value>,
    mut wanted: impl FnMut(&Value) -> bool,
) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let found = look();
        match found {
            Ok(found) if wanted(&found) => return Ok(found),
            _ if begun.elapsed() > within => {
                bail!(
                    "waited {:.0} s for {what}, found {found:?}",
                    within.as_secs_f64()
                )
            }
            _ => std::thread::sleep(LOOK_EVERY),
        }
    }
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
    fn until(
        &self,
        what: &str,
        within: Duration,
        wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        wait(what, within, || self.cluster.learner(), wanted)
    }

    /// Waits for a status of the shard [`VICTIM`].
    fn shard_until(&self, what: &str, wanted: impl FnMut(&Value) -> bool) -> Result<Value> {
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

    /// Checks that no durable row went, and notes how many there are now.
    fn look_at_rows(&mut self) -> Result<()> {
        for number in 0..SHARDS {
            let status = self.cluster.shard(number)?;
            let durable = count(&status["journal"], "durable");
            let before = self.durable[number];
            ensure!(
                durable >= before,
                "shard {number} has {durable} durable rows and had {before}"
            );
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
        while begun.elapsed() < learn {
            std::thread::sleep(LOOK_EVERY);
        }
        let after = self.updates()?;
        ensure!(after > updates, "no update in {:.0} s", learn.as_secs_f64());
        self.note(&format!("learned: {after} updates"));
        self.look_at_rows()
    }

    fn scale(&mut self) -> Result<()> {
        for actors in [5, 1, 2] {
            let begun = Instant::now();
            self.cluster.scale(actors)?;
            self.until(
                &format!("{actors} actors and no other expected"),
                START,
                |s| all_there(s, actors) && count(s, "actors_expected") == actors as u64,
            )?;
            let took = begun.elapsed().as_secs_f64();
            self.note(&format!("scaled to {actors} actors in {took:.0} s"));
            if let Some(queries) = self.cluster.observed(actors)? {
                self.note(&format!(
                    "Prometheus scrapes every service with {actors} actors; {queries} queries return data"
                ));
            }
            self.cluster.only_killed_restarted()?;
        }
        self.more_updates(1, BACK).map(drop)
    }

    fn kill(&mut self, service: &str) -> Result<()> {
        self.look_at_rows()?;
        let status = self.until("a status", BACK, |_| true)?;
        let (updates, before) = (count(&status, "updates"), living_actors(&status));
        let evaluated = self.evaluated()?;
        let begun = Instant::now();
        self.cluster.kill(service)?;
        match service {
            "actor" => {
                self.until("another actor and no third expected", BACK, |s| {
                    all_there(s, 2)
                        && !living_actors(s).is_subset(&before)
                        && count(s, "actors_expected") == 2
                })?;
            }
            "evaluator" => {
                let evaluations = || Ok(Value::from(self.evaluated()?));
                wait("an evaluation", START, evaluations, |n| {
                    n.as_u64() > Some(evaluated)
                })?;
            }
            "learner" => {
                let status = self.until("the learner again", BACK, |s| all_there(s, 2))?;
                let resumed = count(&status, "updates");
                ensure!(
                    resumed + CHECKPOINT_EVERY >= updates,
                    "the learner resumed from update {resumed} and was killed after {updates}"
                );
            }
            _ => {
                self.shard_until("the shard", |_| true)?;
                self.until("both shards", BACK, |s| all_there(s, 2))?;
            }
        }
        let took = begun.elapsed().as_secs_f64();
        let after = self.more_updates(1, BACK)?;
        self.look_at_rows()?;
        self.note(&format!(
            "{service} killed: complete again in {took:.0} s, updates {updates} before, {after} after"
        ));
        self.cluster.only_killed_restarted()
    }

    fn cut(&mut self) -> Result<()> {
        self.cluster.cut(true)?;
        let begun = Instant::now();
        self.until("the loss of the shard", CUT, |s| {
            living_shards(s) == SHARDS - 1
        })?;
        let noticed = begun.elapsed().as_secs_f64();
        let before = self.updates()?;
        std::thread::sleep(CUT.saturating_sub(begun.elapsed()));
        let after = self.updates()?;
        ensure!(after > before, "no update while one shard was disconnected");
        self.cluster.cut(false)?;
        let begun = Instant::now();
        self.until("the shard again", BACK, |s| all_there(s, 2))?;
        let back = begun.elapsed().as_secs_f64();
        self.note(&format!(
            "shard disconnected for 30 s: noticed in {noticed:.0} s, {} updates meanwhile, found again in {back:.0} s",
            after - before
        ));
        self.look_at_rows()?;
        self.cluster.only_killed_restarted()
    }

    fn full_disk(&mut self) -> Result<()> {
        self.look_at_rows()?;
        self.cluster.fill(true)?;
        self.shard_until("the disk to be full", |s| {
            s["journal"]["failing"].is_string()
        })?;
        let before = self.updates()?;
        std::thread::sleep(Duration::from_secs(5));
        self.cluster.fill(false)?;
        self.shard_until("the disk to take rows", |s| {
            s["journal"]["failing"].is_null()
        })?;
        let durable = self.durable[VICTIM];
        self.shard_until("newer rows on the disk", |s| {
            count(&s["journal"], "durable") > durable
        })?;
        let after = self.more_updates(1, BACK)?;
        self.note(&format!(
            "shard's disk full and free again: updates {before} before, {after} after"
        ));
        self.look_at_rows()?;
        self.cluster.only_killed_restarted()
    }

    fn down_and_up(&mut self) -> Result<()> {
        self.look_at_rows()?;
        let before = self.updates()?;
        let begun = Instant::now();
        self.cluster.down()?;
        let down = begun.elapsed().as_secs_f64();
        self.cluster.up(2)?;
        let status = self.until("every service again", START, |s| all_there(s, 2))?;
        let resumed = count(&status, "updates");
        ensure!(
            resumed >= before,
            "{before} updates before `down` and {resumed} after `up`"
        );
        let after = self.more_updates(20, START)?;
        self.look_at_rows()?;
        self.note(&format!(
            "down in {down:.0} s, up again: updates {before} before, {after} after"
        ));
        Ok(())
    }

    /// The number of validations so far.
    fn evaluated(&self) -> Result<u64> {
        Ok(errors(&self.cluster.validations()?)?.len() as u64)
    }

    fn learned(&mut self) -> Result<()> {
        let all = errors(&self.cluster.validations()?)?;
        let (Some(first), Some(last)) = (all.first(), all.last()) else {
            bail!("nothing was evaluated");
        };
        let (first, last) = (*first, *last);
        let line = format!(
            "validation error {:.2} mm after {} updates, {:.2} mm after {}",
            first.mm, first.updates, last.mm, last.updates
        );
        // Written so that NaN fails.
        ensure!(
            last.mm < first.mm / 2.0,
            "{line}: not below half of the untrained one"
        );
        self.note(&line);
        Ok(())
    }

    fn faults_are_logged(&mut self) -> Result<()> {
        let logs = self.cluster.logs()?;
        let missing: Vec<&str> = FAULTS
            .into_iter()
            .filter(|message| !logs.contains(message))
            .collect();
        ensure!(
            missing.is_empty(),
            "landmarl logs does not show {missing:?}"
        );
        self.note("landmarl logs shows every fault");
        Ok(())
    }

    /// Reads the journals of the stopped shards.
    fn rows_are_there(&mut self) -> Result<()> {
        self.look_at_rows()?;
        self.cluster.down()?;
        for number in 0..SHARDS {
            let found = self.cluster.verify(number)?;
            let durable = self.durable[number];
            ensure!(
                found["sound"] == true
                    && count(&found, "lost_rows") == 0
                    && count(&found, "next_row") >= durable,
                "shard {number} had {durable} durable rows, and its journal has {found}"
            );
            self.note(&format!(
                "shard {number}: {durable} rows acknowledged as durable, none lost"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
