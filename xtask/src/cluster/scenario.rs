//! What a cluster must bear, whatever it runs in.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::status::{all_there, count, errors, living_actors, living_shards};

/// How often a status is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A service that was killed is back within this time, on a busy machine.
const BACK: Duration = Duration::from_secs(90);
/// Containers start, programs load libtorch and scans.
const START: Duration = Duration::from_secs(240);
/// How long the learner is kept from a shard.
const CUT: Duration = Duration::from_secs(30);
/// `checkpoint.every` of deploy/landmarl.toml: a killed learner repeats no more.
const CHECKPOINT_EVERY: u64 = 100;
/// The shard that is cut off and whose disk is filled.
pub const VICTIM: usize = 1;
/// Shards of the cluster.
pub const SHARDS: usize = 2;

/// Who can be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One of the actors.
    Actor,
    /// The shard [`VICTIM`].
    Shard,
    /// The learner.
    Learner,
    /// The evaluator.
    Evaluator,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Actor, Self::Shard, Self::Learner, Self::Evaluator];

    /// For people, and the name of its service.
    pub fn name(self) -> &'static str {
        match self {
            Self::Actor => "actor",
            Self::Shard => "replay-1",
            Self::Learner => "learner",
            Self::Evaluator => "evaluator",
        }
    }
}

/// A cluster that can be mistreated.
pub trait Cluster {
    /// Starts everything that does not run, with this many actors.
    fn up(&mut self, actors: usize) -> Result<()>;
    /// Other actors come or go; nobody else is touched.
    fn scale(&mut self, actors: usize) -> Result<()>;
    /// SIGKILL; what restarts services here may do so.
    fn kill(&mut self, role: Role) -> Result<()>;
    /// Keeps everybody from the shard [`VICTIM`], or no longer.
    fn cut(&mut self, cut: bool) -> Result<()>;
    /// Fills the disk of the shard [`VICTIM`], or makes room again; false where
    /// that cannot be done.
    fn fill(&mut self, full: bool) -> Result<bool>;
    /// Stops everything in order and keeps what is on disks.
    fn down(&mut self) -> Result<()>;
    /// `learner status --json`.
    fn learner(&self) -> Result<Value>;
    /// `replay-server status --json` of one shard.
    fn shard(&self, number: usize) -> Result<Value>;
    /// `replay-server verify --json` of one shard that is stopped.
    fn verify(&self, number: usize) -> Result<Value>;
    /// The lines of `validation.jsonl`.
    fn validations(&self) -> Result<String>;
    /// What `landmarl logs --json` shows of the run so far.
    fn logs(&self) -> Result<String>;
    /// Waits until a real Prometheus scrapes everybody, so many actors among them, and every query
    /// of dashboards and alerts returns data; how many these are, or `None` where there is none.
    fn observed(&mut self, actors: usize) -> Result<Option<usize>>;
    /// Fails if somebody was restarted whom nobody killed.
    fn only_killed_restarted(&mut self) -> Result<()>;
}

/// What was seen, for the table at the end.
#[derive(Debug, Default)]
struct Report {
    lines: Vec<String>,
    /// Rows that were on disk at the last look, per shard.
    durable: [u64; SHARDS],
}

/// Runs it all; the first thing that is not as it must be ends it.
pub fn run(cluster: &mut dyn Cluster, learn: Duration) -> Result<()> {
    let begun = Instant::now();
    let mut test = Test {
        cluster,
        report: Report::default(),
        begun,
        filled: true,
    };
    test.start(learn)?;
    test.scale()?;
    test.kills()?;
    test.cut()?;
    test.full_disk()?;
    test.down_and_up()?;
    test.learned()?;
    test.faults_are_logged()?;
    test.rows_are_there()?;
    println!("\nwhat the cluster bore:");
    for line in &test.report.lines {
        println!("  {line}");
    }
    println!("in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

struct Test<'a> {
    cluster: &'a mut dyn Cluster,
    report: Report,
    begun: Instant,
    /// Whether a disk could be filled.
    filled: bool,
}

impl Test<'_> {
    fn note(&mut self, line: &str) {
        let at = self.begun.elapsed().as_secs_f64();
        println!("== {at:5.0} s  {line}");
        self.report.lines.push(format!("{at:5.0} s  {line}"));
    }

    /// Waits until the learner's status is as wanted.
    fn until(
        &self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let status = self.cluster.learner();
            match &status {
                Ok(status) if wanted(status) => return Ok(status.clone()),
                _ if begun.elapsed() > within => bail!(
                    "waited {:.0} s for {what}; the learner says: {status:?}",
                    within.as_secs_f64()
                ),
                _ => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Waits for so many updates beyond the present ones.
    fn more_updates(&self, updates: u64, within: Duration) -> Result<u64> {
        let now = count(&self.until("an answer", within, |_| true)?, "updates");
        let what = format!("{updates} updates after {now}");
        let status = self.until(&what, within, |s| count(s, "updates") >= now + updates)?;
        Ok(count(&status, "updates"))
    }

    /// Notes how many rows are on the disks: they must be there for ever.
    fn look_at_rows(&mut self) -> Result<()> {
        for number in 0..SHARDS {
            let status = self.cluster.shard(number)?;
            let durable = count(&status["journal"], "durable");
            let before = self.report.durable[number];
            ensure!(
                durable >= before,
                "shard {number} has rows below {durable} on disk, and had them below {before}"
            );
            self.report.durable[number] = durable;
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
        let after = count(&self.until("an answer", BACK, |_| true)?, "updates");
        ensure!(after > updates, "no update in {:.0} s", learn.as_secs_f64());
        self.note(&format!("learned: {after} updates"));
        self.look_at_rows()
    }

    fn scale(&mut self) -> Result<()> {
        for actors in [5, 1, 2] {
            let begun = Instant::now();
            self.cluster.scale(actors)?;
            self.until(&format!("{actors} actors, and none missed"), START, |s| {
                all_there(s, actors) && count(s, "actors_expected") == actors as u64
            })?;
            let took = begun.elapsed().as_secs_f64();
            self.note(&format!("scaled to {actors} actors in {took:.0} s"));
            if let Some(queries) = self.cluster.observed(actors)? {
                self.note(&format!(
                    "Prometheus scrapes everybody, {actors} actors among them; {queries} queries return data"
                ));
            }
            self.cluster.only_killed_restarted()?;
        }
        self.more_updates(1, BACK).map(drop)
    }

    fn kills(&mut self) -> Result<()> {
        for role in Role::ALL {
            self.look_at_rows()?;
            let updates = count(&self.until("an answer", BACK, |_| true)?, "updates");
            let seen = self.evaluated()?;
            let lives = living_actors(&self.until("an answer", BACK, |_| true)?);
            let begun = Instant::now();
            self.cluster.kill(role)?;
            match role {
                Role::Actor => {
                    self.until("the actor again, and none missed", BACK, |s| {
                        all_there(s, 2)
                            && !living_actors(s).is_subset(&lives)
                            && count(s, "actors_expected") == 2
                    })?;
                }
                Role::Evaluator => self.evaluated_again(seen)?,
                Role::Shard => {
                    self.shard_again()?;
                }
                Role::Learner => {
                    let status = self.until("the learner again", BACK, |s| all_there(s, 2))?;
                    let resumed = count(&status, "updates");
                    ensure!(
                        resumed + CHECKPOINT_EVERY >= updates,
                        "the learner went on from update {resumed}, and was killed after {updates}"
                    );
                }
            }
            let took = begun.elapsed().as_secs_f64();
            let after = self.more_updates(1, BACK)?;
            self.look_at_rows()?;
            self.note(&format!(
                "{} killed: all there again in {took:.0} s, updates {updates} before, {after} after",
                role.name()
            ));
        }
        self.cluster.only_killed_restarted()
    }

    fn shard_again(&self) -> Result<()> {
        let begun = Instant::now();
        while self.cluster.shard(VICTIM).is_err() {
            ensure!(begun.elapsed() < BACK, "the shard does not come back");
            std::thread::sleep(LOOK_EVERY);
        }
        self.until("both shards", BACK, |s| all_there(s, 2))
            .map(drop)
    }

    fn cut(&mut self) -> Result<()> {
        self.cluster.cut(true)?;
        let begun = Instant::now();
        self.until("the loss of the shard", CUT, |s| {
            living_shards(s) == SHARDS - 1
        })?;
        let noticed = begun.elapsed().as_secs_f64();
        let before = count(&self.until("an answer", BACK, |_| true)?, "updates");
        std::thread::sleep(CUT.saturating_sub(begun.elapsed()));
        let after = count(&self.until("an answer", BACK, |_| true)?, "updates");
        ensure!(after > before, "no update while one shard was away");
        self.cluster.cut(false)?;
        let begun = Instant::now();
        self.until("the shard again", BACK, |s| all_there(s, 2))?;
        let back = begun.elapsed().as_secs_f64();
        self.note(&format!(
            "shard cut off for 30 s: noticed in {noticed:.0} s, {} updates meanwhile, found again in {back:.0} s",
            after - before
        ));
        self.look_at_rows()?;
        self.cluster.only_killed_restarted()
    }

    fn full_disk(&mut self) -> Result<()> {
        self.look_at_rows()?;
        if !self.cluster.fill(true)? {
            self.filled = false;
            self.note("skipped: a shard's full disk: no right to mount a small one");
            return Ok(());
        }
        self.shard_until("the disk to be full", |s| {
            s["journal"]["failing"].is_string()
        })?;
        let before = count(&self.until("an answer", BACK, |_| true)?, "updates");
        std::thread::sleep(Duration::from_secs(5));
        self.cluster.fill(false)?;
        self.shard_until("the disk to take rows", |s| {
            s["journal"]["failing"].is_null()
        })?;
        let durable = self.report.durable[VICTIM];
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

    fn shard_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let begun = Instant::now();
        loop {
            let status = self.cluster.shard(VICTIM)?;
            if wanted(&status) {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < BACK,
                "waited {:.0} s for {what}: {status}",
                BACK.as_secs_f64()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn down_and_up(&mut self) -> Result<()> {
        self.look_at_rows()?;
        let before = count(&self.until("an answer", BACK, |_| true)?, "updates");
        let begun = Instant::now();
        self.cluster.down()?;
        let down = begun.elapsed().as_secs_f64();
        self.cluster.up(2)?;
        let status = self.until("everybody again", START, |s| all_there(s, 2))?;
        let resumed = count(&status, "updates");
        ensure!(
            resumed >= before,
            "{before} updates were done before `down`, and {resumed} after `up`"
        );
        let after = self.more_updates(20, START)?;
        self.look_at_rows()?;
        self.note(&format!(
            "down in {down:.0} s, up again: updates {before} before, {after} after"
        ));
        Ok(())
    }

    /// How many validations there are, if somebody validates.
    fn evaluated(&self) -> Result<usize> {
        Ok(errors(&self.cluster.validations()?)?.len())
    }

    fn evaluated_again(&self, seen: usize) -> Result<()> {
        let begun = Instant::now();
        while self.evaluated()? <= seen {
            ensure!(begun.elapsed() < START, "no evaluation since the kill");
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn learned(&mut self) -> Result<()> {
        let all = errors(&self.cluster.validations()?)?;
        let (Some(first), Some(last)) = (all.first(), all.last()) else {
            bail!("nothing was evaluated");
        };
        let (first, last) = (*first, *last);
        let line = format!(
            "selection error {:.2} mm after {} updates, {:.2} mm after {}",
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
            .filter(|words| !logs.contains(words) && (self.filled || *words != DISK_FULL))
            .collect();
        ensure!(
            missing.is_empty(),
            "landmarl logs does not show {missing:?}"
        );
        self.note("landmarl logs shows every fault");
        Ok(())
    }

    /// At the end nobody writes: the journals are read as they lie on the disks.
    fn rows_are_there(&mut self) -> Result<()> {
        self.look_at_rows()?;
        self.cluster.down()?;
        for number in 0..SHARDS {
            let found = self.cluster.verify(number)?;
            let durable = self.report.durable[number];
            ensure!(
                found["sound"] == true
                    && count(&found, "lost_rows") == 0
                    && count(&found, "next_row") >= durable,
                "shard {number} had rows below {durable} on disk, and its journal says {found}"
            );
            self.note(&format!(
                "shard {number}: {durable} rows acknowledged as durable, none lost"
            ));
        }
        Ok(())
    }
}

/// What services say of each fault.
const FAULTS: [&str; 6] = [
    "actor lost",
    "shard lost",
    "shard is back",
    "rows of the journal are back",
    "resumed",
    DISK_FULL,
];
const DISK_FULL: &str = "rows cannot be brought to the disk";
