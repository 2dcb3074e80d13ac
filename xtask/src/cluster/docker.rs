//! The cluster of `deploy/compose.yaml`, and the faults it has to survive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::compose::{
    BASE, Container, PROJECT, containers, docker, exec, is_loopback, listening, rows_of, running,
    succeeds,
};
use super::prometheus::{self, Prometheus};
use crate::ci::manifests::writable;
use crate::command;

/// The shard that is disconnected and whose disk is filled.
pub const VICTIM: usize = 1;
/// Shards of the cluster.
pub const SHARDS: usize = 2;
/// Tag of the images, so that a user's own stay as they are.
const TAG: &str = "test";
const RUN: &str = "cluster-test";
/// Keeps the small volume in memory mounted while its shard is down.
const HOLDER: &str = "landmarl-test-holder";
/// Services that end by themselves after each `up`.
const ONCE: [&str; 2] = ["certs", "data"];
/// Limit of what the replay image adds to its base.
const REPLAY_MAX_MB: u64 = 40;

/// The shard whose disk is filled keeps its rows in a file system of 64 MB.
const OVERRIDE: &str = "\
volumes:
  rows-1:
    driver: local
    driver_opts: {type: tmpfs, device: tmpfs, o: 'size=64m,uid=10001,gid=10001'}
";

fn parse(json: Result<String>) -> Result<Value> {
    Ok(serde_json::from_str(&json?)?)
}

#[derive(Debug)]
pub struct Docker {
    /// Whether Compose is a plugin of Docker.
    plugin: bool,
    files: [PathBuf; 2],
    /// Variables of `.env`.
    variables: BTreeMap<&'static str, String>,
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
        let plugin = succeeds(&mut docker("compose version"));
        if !plugin && !succeeds(&mut command::new("docker-compose", "version")) {
            bail!("neither `docker compose` nor `docker-compose` is installed");
        }
        let variables = [
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
            ("COMPOSE_PROJECT_NAME", PROJECT),
        ];
        let variables = variables.map(|(name, value)| (name, value.to_owned()));
        let mut docker = Self {
            plugin,
            files: [root.join("deploy/compose.yaml"), small],
            variables: variables.into(),
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

    /// `docker compose LINE`, ready to run.
    fn compose(&self, line: &str) -> Command {
        let mut command = if self.plugin {
            docker("compose")
        } else {
            Command::new("docker-compose")
        };
        for file in &self.files {
            command.arg("-f").arg(file);
        }
        command.current_dir(self.root.join("deploy"));
        command.envs(&self.variables).args(line.split(' '));
        command
    }

    /// Removes what an earlier test, or this one, left.
    fn clear(&self) {
        succeeds(docker("rm --force").arg(HOLDER));
        prometheus::remove();
        let down = "down --volumes --remove-orphans --timeout 5";
        succeeds(&mut self.compose(down));
        let images = format!("rmi landmarl:{TAG} landmarl-replay:{TAG}");
        succeeds(&mut docker(&images));
        let stages = "image prune --force --filter label=landmarl.stage";
        succeeds(&mut docker(stages));
    }

    fn holder(&self) -> Result<()> {
        if succeeds(docker("inspect").arg(HOLDER)) {
            return Ok(());
        }
        let mut run = docker("run --detach --network none --name");
        run.args([HOLDER, "--volume", &rows_of(VICTIM)]);
        command::run(run.args([BASE, "sleep", "infinity"]))
    }

    /// Containers of services that do not end by themselves.
    fn services(&self) -> Result<Vec<Container>> {
        let mut all = containers()?;
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
        if !open.is_empty() {
            bail!("other machines can reach {open:?} (address:port as in /proc/net/tcp)");
        }
        Ok(())
    }

    fn images(&self) -> Result<()> {
        let size = |image: &str| -> Result<u64> {
            let mut inspect = docker("image inspect --format {{.Size}}");
            Ok(command::read(inspect.arg(image))?.trim().parse()?)
        };
        let base = size(BASE)?;
        let added = |image: &str| -> Result<u64> {
            Ok(size(&format!("{image}:{TAG}"))?.saturating_sub(base) / 1_000_000)
        };
        let (replay, landmarl) = (added("landmarl-replay")?, added("landmarl")?);
        println!("images: landmarl-replay adds {replay} MB to its base, landmarl {landmarl} MB");
        let small = replay <= REPLAY_MAX_MB;
        ensure!(
            small,
            "landmarl-replay adds {replay} MB: allowed are {REPLAY_MAX_MB} MB"
        );
        let find = format!("landmarl-replay:{TAG} find /opt /usr -name libtorch*");
        let mut run = docker("run --rm --network none");
        let found = command::read(run.args(find.split(' ')))?;
        ensure!(found.trim().is_empty(), "landmarl-replay has {found}");
        Ok(())
    }

    /// Services run without root and capabilities, and write to volumes only.
    fn hardened(&self) -> Result<()> {
        let format = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} \
                      {{.HostConfig.SecurityOpt}} {{.HostConfig.PidsLimit}}";
        for container in self.services()? {
            let mut inspect = docker("inspect --format");
            let found = command::read(inspect.args([format, &container.name]))?;
            if found.trim() != "10001:10001 true [ALL] [no-new-privileges:true] 512" {
                bail!("{} runs as {found}", container.name);
            }
        }
        Ok(())
    }

    /// Each container has the volumes of `deploy/compose.yaml`, and writes to no others: who
    /// takes over an actor reaches no checkpoint.
    fn mounted(&self) -> Result<()> {
        let format = "{{range .Mounts}}{{.Destination}} {{.RW}} {{end}}";
        for container in self.services()? {
            let mut inspect = docker("inspect --format");
            let found = command::read(inspect.args([format, &container.name]))?;
            let words: Vec<&str> = found.split_whitespace().collect();
            let writes = words
                .chunks(2)
                .filter(|mount| mount.get(1) == Some(&"true"));
            let writes: BTreeSet<&str> = writes.filter_map(|m| m.first().copied()).collect();
            let expected = writable(&container.service);
            if writes != expected {
                let name = container.name;
                bail!("{name} can write to {writes:?}, and should to {expected:?}");
            }
        }
        Ok(())
    }

    /// Starts everything that does not run, with this many actors.
    pub fn up(&mut self, actors: usize) -> Result<()> {
        let first = self.started.is_empty();
        self.scale(actors)?;
        self.holder()?;
        self.remember()?;
        if first {
            self.only_loopback()?;
            self.images()?;
            self.hardened()?;
            self.mounted()?;
        }
        Ok(())
    }

    /// Changes the number of actors and nothing else: by `.env` for more than one,
    /// by the option otherwise, so that both ways are tested.
    pub fn scale(&mut self, actors: usize) -> Result<()> {
        if actors > 1 {
            self.variables.insert("ACTORS", actors.to_string());
            return command::run(&mut self.compose("up --detach"));
        }
        let line = format!("up --detach --scale actor={actors}");
        command::run(&mut self.compose(&line))
    }

    /// Sends SIGKILL to a service from outside, as the kernel does if memory runs
    /// out: the engine does not restart what it kills itself.
    pub fn kill(&mut self, service: &str) -> Result<()> {
        let victim = running(service)?;
        self.killed.insert(victim.id);
        let kill = format!("kill -KILL {}", victim.pid);
        let mut run = docker("run --rm --network none --pid host --user 0 --cap-add KILL");
        command::run(run.args([BASE, "sh", "-c", &kill]))
    }

    /// Disconnects the shard [`VICTIM`] from the network, or connects it again.
    pub fn cut(&self, cut: bool) -> Result<()> {
        let shard = format!("replay-{VICTIM}");
        let container = running(&shard)?;
        let mut network = if cut {
            docker("network disconnect")
        } else {
            docker(&format!("network connect --alias {shard}"))
        };
        let name = format!("{PROJECT}_default");
        command::run(network.args([name, container.name]))
    }

    /// Fills the disk of the shard [`VICTIM`], or frees it.
    pub fn fill(&self, full: bool) -> Result<()> {
        let script = if full {
            "dd if=/dev/zero of=/rows/ballast bs=64k 2>/dev/null; test -s /rows/ballast"
        } else {
            "rm /rows/ballast"
        };
        command::run(docker("exec").args([HOLDER, "sh", "-c", script]))
    }

    /// Stops everything in order and keeps the volumes.
    pub fn down(&mut self) -> Result<()> {
        command::run(&mut self.compose("stop"))?;
        let all = self.services()?;
        let failed: Vec<_> = all.iter().filter(|c| c.exit_code != 0).collect();
        if !failed.is_empty() {
            bail!("services did not stop in order within their 10 s: {failed:?}");
        }
        // The network cannot be removed while a container is in it.
        prometheus::remove();
        self.prometheus = None;
        command::run(&mut self.compose("down"))
    }

    pub fn learner(&self) -> Result<Value> {
        parse(exec("learner", "learner status --json"))
    }

    pub fn shard(&self, number: usize) -> Result<Value> {
        let line = "replay-server status --address 127.0.0.1:7410 --json";
        parse(exec(&format!("replay-{number}"), line))
    }

    /// `replay-server verify --json` of one shard that is stopped.
    pub fn verify(&self, number: usize) -> Result<Value> {
        let mut verify = docker("run --rm --network none --volume");
        verify.args([rows_of(number), format!("landmarl-replay:{TAG}")]);
        verify.args(["replay-server", "verify", "/rows", "--json"]);
        parse(command::read(&mut verify))
    }

    /// The lines of `validation.jsonl`, if it exists.
    pub fn validations(&self) -> Result<String> {
        let line = format!("find /runs/{RUN} -maxdepth 1 -name validation.jsonl -exec cat {{}} +");
        exec("learner", &line)
    }

    /// All lines of all services: without an argument the command reads the volume `logs`.
    pub fn logs(&self) -> Result<String> {
        exec("learner", "landmarl logs --json")
    }

    /// The first line that `landmarl logs --follow` shows of the actors.
    pub fn followed(&self) -> Result<String> {
        let follow = "timeout 60 landmarl logs -f --service actor | head -n 1";
        let name = running("learner")?.name;
        command::read(docker("exec").args([&*name, "sh", "-c", follow]))
    }

    /// Waits until a real Prometheus scrapes every service, so many actors among
    /// them, and every query of dashboards and alerts returns data. Returns the
    /// number of queries; `None` where Prometheus is not installed.
    pub fn observed(&mut self, actors: usize) -> Result<Option<usize>> {
        if self.prometheus.is_none() {
            self.prometheus = Prometheus::start(&self.root)?;
        }
        let Some(prometheus) = &self.prometheus else {
            println!("skipped: Prometheus beside the containers: it is not installed");
            return Ok(None);
        };
        let services = [("learner", 1), ("evaluator", 1)];
        let scaled = [("replay", SHARDS), ("actor", actors)];
        prometheus.wait_for_targets(&[services, scaled].concat())?;
        prometheus.wait_for_data(&self.root).map(Some)
    }

    /// Fails if a service was restarted that was not killed.
    pub fn only_killed_restarted(&mut self) -> Result<()> {
        let mut all = self.services()?;
        all.retain(|container| !self.killed.contains(&container.id));
        for container in all {
            let restarted = match self.started.get(&container.id) {
                Some(before) => *before != container.started,
                None => container.restarts > 0,
            };
            ensure!(!restarted, "restarted and not killed: {container:?}");
            ensure!(container.running, "ended by itself: {container:?}");
        }
        self.remember()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.clear();
        }
    }
}
