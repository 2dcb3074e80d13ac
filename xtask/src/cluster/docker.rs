//! The cluster of `deploy/compose.yaml`, and what can be done to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::compose::{BASE, Compose, Container, docker, is_loopback, listening, succeeds};
use super::prometheus::{self, Prometheus};
use super::scenario::{SHARDS, VICTIM};
use crate::command;

const PROJECT: &str = "landmarl-test";
/// Tag of the images, so that a user's own stay as they are.
const TAG: &str = "test";
const RUN: &str = "cluster-test";
/// Keeps the small volume in memory mounted while its shard is down.
const HOLDER: &str = "landmarl-test-holder";
/// Services that end by themselves after each `up`.
const ONCE: [&str; 2] = ["certs", "data"];
/// What the replay image may add to its base.
const REPLAY_MAX_MB: u64 = 40;

/// The shard whose disk is filled keeps its rows in a file system of 64 MB.
const OVERRIDE: &str = "\
volumes:
  rows-1:
    driver: local
    driver_opts: {type: tmpfs, device: tmpfs, o: 'size=64m,uid=10001,gid=10001'}
";

#[derive(Debug)]
pub struct Docker {
    compose: Compose,
    /// Holds the override file.
    _folder: tempfile::TempDir,
    /// When each container was started, at the last check.
    started: BTreeMap<String, String>,
    killed: BTreeSet<String>,
    /// Addresses on which this machine listened before.
    listening: BTreeSet<String>,
    root: PathBuf,
    prometheus: Option<Prometheus>,
}

impl Docker {
    /// Starts nothing yet. The programs are in dist/.
    pub fn new(root: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let small = folder.path().join("small-disk.yaml");
        fs::write(&small, OVERRIDE)?;
        let deploy = root.join("deploy");
        let files = vec![deploy.join("compose.yaml"), small];
        let mut compose = Compose::new(&deploy, files, PROJECT)?;
        for (name, value) in [
            ("TAG", TAG),
            ("RUN", RUN),
            ("PROGRAMS", "packaged"),
            ("BASE", BASE),
            // The image of the compiler is not needed: nothing is compiled in a container.
            ("RUST", BASE),
            ("DATA_DIR", ""),
            ("LANDMARKS", ""),
            // Other ports than the default: a user's cluster may run beside the test.
            ("LEARNER_PORT", "17400"),
            ("HTTP_PORT", "17480"),
        ] {
            compose.set(name, value);
        }
        let mut docker = Self {
            compose,
            _folder: folder,
            started: BTreeMap::new(),
            killed: BTreeSet::new(),
            listening: BTreeSet::new(),
            root: root.to_path_buf(),
            prometheus: None,
        };
        docker.clear();
        docker.listening = listening();
        Ok(docker)
    }

    /// Removes what an earlier test, or this one, left.
    fn clear(&self) {
        succeeds(docker().args(["rm", "--force", HOLDER]));
        prometheus::remove();
        let down = ["down", "--volumes", "--remove-orphans", "--timeout", "5"];
        succeeds(&mut self.compose.command(&down));
        for image in ["landmarl", "landmarl-replay"] {
            succeeds(docker().args(["rmi", &format!("{image}:{TAG}")]));
        }
        let stages = "label=landmarl.stage";
        succeeds(docker().args(["image", "prune", "--force", "--filter", stages]));
    }

    fn holder(&self) -> Result<()> {
        if succeeds(docker().args(["inspect", HOLDER])) {
            return Ok(());
        }
        let volume = format!("{}:/rows", self.compose.volume("rows-1"));
        let mut run = docker();
        run.args(["run", "--detach", "--network", "none", "--name", HOLDER])
            .args(["--volume", &volume, BASE, "sleep", "infinity"]);
        command::run(&mut run)
    }

    /// Containers of services that do not end by themselves.
    fn services(&self) -> Result<Vec<Container>> {
        let mut all = self.compose.containers()?;
        all.retain(|container| !ONCE.contains(&container.service.as_str()));
        Ok(all)
    }

    fn remember(&mut self) -> Result<()> {
        let all = self.services()?;
        self.started = all.into_iter().map(|c| (c.id, c.started)).collect();
        self.killed.clear();
        Ok(())
    }

    /// No published port may be reachable from other machines.
    fn only_loopback(&self) -> Result<()> {
        let now = listening();
        let new: Vec<&String> = now.difference(&self.listening).collect();
        println!("listening since `up`: {new:?}");
        ensure!(!new.is_empty(), "the learner's ports are not published");
        let open: Vec<_> = new.iter().filter(|a| !is_loopback(a)).collect();
        ensure!(
            open.is_empty(),
            "other machines can reach {open:?} (address:port as in /proc/net/tcp)"
        );
        Ok(())
    }

    fn images(&self) -> Result<()> {
        let size = |image: &str| -> Result<u64> {
            let format = ["image", "inspect", "--format", "{{.Size}}", image];
            Ok(command::read(docker().args(format))?.trim().parse()?)
        };
        let replay = format!("landmarl-replay:{TAG}");
        let added = (size(&replay)?.saturating_sub(size(BASE)?)) / 1_000_000;
        println!(
            "images: landmarl-replay adds {added} MB to its base, landmarl {} MB",
            (size(&format!("landmarl:{TAG}"))?.saturating_sub(size(BASE)?)) / 1_000_000
        );
        ensure!(
            added <= REPLAY_MAX_MB,
            "landmarl-replay adds {added} MB to its base, and {REPLAY_MAX_MB} MB are allowed"
        );
        let find = ["run", "--rm", "--network", "none", &replay];
        let search = ["find", "/opt", "/usr", "-name", "libtorch*"];
        let found = command::read(docker().args(find).args(search))?;
        ensure!(found.trim().is_empty(), "landmarl-replay holds {found}");
        Ok(())
    }

    /// Services run without root and capabilities, and write to volumes only.
    fn hardened(&self) -> Result<()> {
        let format = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} \
                      {{.HostConfig.SecurityOpt}} {{.HostConfig.PidsLimit}}";
        for container in self.services()? {
            let inspect = ["inspect", "--format", format, &container.name];
            let found = command::read(docker().args(inspect))?;
            ensure!(
                found.trim() == "10001:10001 true [ALL] [no-new-privileges:true] 512",
                "{} runs as {found}",
                container.name
            );
        }
        Ok(())
    }

    /// Starts everything that does not run, with this many actors.
    pub fn up(&mut self, actors: usize) -> Result<()> {
        let first = self.started.is_empty();
        self.compose.set("ACTORS", &actors.to_string());
        self.compose.run(&["up", "--detach"])?;
        self.holder()?;
        self.remember()?;
        if first {
            self.only_loopback()?;
            self.images()?;
            self.hardened()?;
        }
        Ok(())
    }

    /// Changes the number of actors and nothing else: by `.env` for more than one,
    /// by the option otherwise, so that both ways are tested.
    pub fn scale(&mut self, actors: usize) -> Result<()> {
        if actors > 1 {
            self.compose.set("ACTORS", &actors.to_string());
            return self.compose.run(&["up", "--detach"]);
        }
        let scale = format!("actor={actors}");
        self.compose.run(&["up", "--detach", "--scale", &scale])
    }

    /// Sends SIGKILL to a service from outside, as the kernel does if memory runs
    /// out: the engine does not restart what it kills itself.
    pub fn kill(&mut self, service: &str) -> Result<()> {
        let victim = self.compose.running(service)?;
        self.killed.insert(victim.id);
        let kill = format!("kill -KILL {}", victim.pid);
        let options = "run --rm --network none --pid host --user 0 --cap-add KILL";
        let mut run = docker();
        run.args(options.split(' ')).args([BASE, "sh", "-c", &kill]);
        command::run(&mut run)
    }

    /// Disconnects the shard [`VICTIM`] from the network, or connects it again.
    pub fn cut(&self, cut: bool) -> Result<()> {
        let shard = format!("replay-{VICTIM}");
        let container = self.compose.running(&shard)?;
        let network = format!("{PROJECT}_default");
        let mut words = if cut {
            vec!["network", "disconnect"]
        } else {
            vec!["network", "connect", "--alias", &shard]
        };
        words.extend([network.as_str(), container.name.as_str()]);
        command::run(docker().args(words))
    }

    /// Fills the disk of the shard [`VICTIM`], or frees it.
    pub fn fill(&self, full: bool) -> Result<()> {
        let script = if full {
            "dd if=/dev/zero of=/rows/ballast bs=64k 2>/dev/null; test -s /rows/ballast"
        } else {
            "rm /rows/ballast"
        };
        command::run(docker().args(["exec", HOLDER, "sh", "-c", script]))
    }

    /// Stops everything in order and keeps the volumes.
    pub fn down(&mut self) -> Result<()> {
        self.compose.run(&["stop"])?;
        let all = self.services()?;
        let failed: Vec<_> = all.iter().filter(|c| c.exit_code != 0).collect();
        ensure!(
            failed.is_empty(),
            "services did not stop in order within their 10 s: {failed:?}"
        );
        // The network cannot be removed while a container is in it.
        prometheus::remove();
        self.prometheus = None;
        self.compose.run(&["down"])
    }

    /// `learner status --json`.
    pub fn learner(&self) -> Result<Value> {
        let words = ["learner", "status", "--json"];
        Ok(serde_json::from_str(
            &self.compose.exec("learner", &words)?,
        )?)
    }

    /// `replay-server status --json` of one shard.
    pub fn shard(&self, number: usize) -> Result<Value> {
        let line = "replay-server status --address 127.0.0.1:7410 --json";
        let words: Vec<&str> = line.split(' ').collect();
        let status = self.compose.exec(&format!("replay-{number}"), &words)?;
        Ok(serde_json::from_str(&status)?)
    }

    /// `replay-server verify --json` of one shard that is stopped.
    pub fn verify(&self, number: usize) -> Result<Value> {
        let volume = format!("{}:/rows", self.compose.volume(&format!("rows-{number}")));
        let mut verify = docker();
        verify
            .args(["run", "--rm", "--network", "none", "--volume", &volume])
            .arg(format!("landmarl-replay:{TAG}"))
            .args(["replay-server", "verify", "/rows", "--json"]);
        Ok(serde_json::from_str(&command::read(&mut verify)?)?)
    }

    /// The lines of `validation.jsonl`.
    pub fn validations(&self) -> Result<String> {
        let script = format!("cat /runs/{RUN}/validation.jsonl 2>/dev/null || true");
        self.compose.exec("learner", &["sh", "-c", &script])
    }

    /// The output of `landmarl logs --json` for the run so far.
    pub fn logs(&self) -> Result<String> {
        let folder = format!("/runs/{RUN}");
        let words = ["landmarl", "logs", &folder, "--json"];
        self.compose.exec("learner", &words)
    }

    /// Waits until a real Prometheus scrapes every service, so many actors among
    /// them, and every query of dashboards and alerts returns data. Returns the
    /// number of queries; `None` where Prometheus is not installed.
    pub fn observed(&mut self, actors: usize) -> Result<Option<usize>> {
        if self.prometheus.is_none() {
            self.prometheus = Prometheus::start(&self.root, PROJECT)?;
        }
        let Some(prometheus) = &self.prometheus else {
            println!("skipped: Prometheus beside the containers: it is not installed");
            return Ok(None);
        };
        prometheus.sees(&[
            ("learner", 1),
            ("replay", SHARDS),
            ("actor", actors),
            ("evaluator", 1),
        ])?;
        prometheus.answers(&self.root).map(Some)
    }

    /// Fails if a service was restarted that was not killed.
    pub fn only_killed_restarted(&mut self) -> Result<()> {
        for container in self.services()? {
            let Container {
                id, name, started, ..
            } = &container;
            if self.killed.contains(id) {
                continue;
            }
            let moved = match self.started.get(id) {
                Some(before) => before != started,
                None => container.restarts > 0,
            };
            ensure!(
                !moved,
                "{name} was restarted although it was not killed: {container:?}"
            );
            ensure!(container.running, "{name} ended by itself: {container:?}");
        }
        self.remember()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.clear();
    }
}
