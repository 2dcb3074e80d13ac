//! The cluster as `deploy/compose.yaml` makes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::compose::{Compose, Container};
use super::engine::{BASE, docker, succeeds};
use super::ports;
use super::prometheus::{self, Prometheus};
use super::scenario::{Cluster, Role, SHARDS, VICTIM};
use crate::command;

const PROJECT: &str = "landmarl-test";
/// Tag of the images, so that a user's own stay as they are.
const TAG: &str = "test";
const RUN: &str = "cluster-test";
/// Keeps the small volume in memory mounted while its shard is away.
const HOLDER: &str = "landmarl-test-holder";
/// Services that end by themselves, at each `up` anew.
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

/// The containers, and what was done to them.
#[derive(Debug)]
pub struct Docker {
    compose: Compose,
    /// Holds the override file.
    _folder: tempfile::TempDir,
    /// When each container was started, at the last look.
    started: BTreeMap<String, String>,
    killed: BTreeSet<String>,
    /// Who listened on this machine before.
    listening: BTreeSet<SocketAddr>,
    root: PathBuf,
    prometheus: Option<Prometheus>,
}

impl Docker {
    /// Nothing is started yet. The programs lie in dist/.
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
            // Nothing is compiled in a container: the compiler's image is not needed.
            ("RUST", BASE),
            ("DATA_DIR", ""),
            ("LANDMARKS", ""),
            // Two free ports of their own: a user's cluster may run beside the test.
            ("LEARNER_PORT", "17400"),
            ("HTTP_PORT", "17480"),
        ] {
            compose.set(name, value);
        }
        println!("compose {}", compose.describe()?);
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
        docker.listening = ports::listening()?;
        Ok(docker)
    }

    /// Removes whatever an earlier test, or this one, left.
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
        let options = [
            "run",
            "--detach",
            "--network",
            "none",
            "--name",
            HOLDER,
            "--volume",
        ];
        command::run(
            docker()
                .args(options)
                .arg(volume)
                .args([BASE, "sleep", "infinity"]),
        )
    }

    /// Services that are to go on, as they are now.
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

    /// Beyond loopback nothing of ours may be reached from other machines.
    fn only_loopback(&self) -> Result<()> {
        let now = ports::listening()?;
        let new: Vec<&SocketAddr> = now.difference(&self.listening).collect();
        println!("listening since `up`: {new:?}");
        ensure!(!new.is_empty(), "the learner's ports are not published");
        let open: Vec<_> = new.iter().filter(|a| !a.ip().is_loopback()).collect();
        ensure!(
            open.is_empty(),
            "{open:?} can be reached from other machines"
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

    /// No root, no rights, nothing to write to but volumes.
    fn hardened(&self) -> Result<()> {
        let format = "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} \
                      {{.HostConfig.SecurityOpt}} {{.HostConfig.PidsLimit}}";
        for container in self.services()? {
            let inspect = ["inspect", "--format", format, &container.name];
            let said = command::read(docker().args(inspect))?;
            ensure!(
                said.trim() == "10001:10001 true [ALL] [no-new-privileges:true] 512",
                "{} runs as {said}",
                container.name
            );
        }
        Ok(())
    }
}

impl Cluster for Docker {
    fn up(&mut self, actors: usize) -> Result<()> {
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

    /// Both ways: by `.env` for more, by the option for fewer.
    fn scale(&mut self, actors: usize) -> Result<()> {
        if actors > 1 {
            self.compose.set("ACTORS", &actors.to_string());
            return self.compose.run(&["up", "--detach"]);
        }
        let scale = format!("actor={actors}");
        self.compose.run(&["up", "--detach", "--scale", &scale])
    }

    /// The process is killed from outside, as the kernel does where memory runs
    /// out: what the engine kills itself it does not start again.
    fn kill(&mut self, role: Role) -> Result<()> {
        let running = self.compose.running(role.name())?;
        let victim = running
            .first()
            .with_context(|| format!("no container of {} runs", role.name()))?;
        self.killed.insert(victim.id.clone());
        let kill = format!("kill -KILL {}", victim.pid);
        let options = ["run", "--rm", "--network", "none", "--pid", "host"];
        let rights = ["--user", "0", "--cap-add", "KILL"];
        command::run(
            docker()
                .args(options)
                .args(rights)
                .args([BASE, "sh", "-c", &kill]),
        )
    }

    fn cut(&mut self, cut: bool) -> Result<()> {
        let shard = format!("replay-{VICTIM}");
        let running = self.compose.running(&shard)?;
        let container = running.first().context("the shard does not run")?;
        let network = format!("{PROJECT}_default");
        let mut words = if cut {
            vec!["network", "disconnect"]
        } else {
            vec!["network", "connect", "--alias", &shard]
        };
        words.extend([network.as_str(), container.name.as_str()]);
        command::run(docker().args(words))
    }

    fn fill(&mut self, full: bool) -> Result<bool> {
        let script = if full {
            "dd if=/dev/zero of=/rows/ballast bs=64k 2>/dev/null; test -s /rows/ballast"
        } else {
            "rm /rows/ballast"
        };
        command::run(docker().args(["exec", HOLDER, "sh", "-c", script]))?;
        Ok(true)
    }

    fn down(&mut self) -> Result<()> {
        self.compose.run(&["stop"])?;
        let all = self.services()?;
        let failed: Vec<_> = all.iter().filter(|c| c.exit_code != 0).collect();
        ensure!(
            failed.is_empty(),
            "services did not end well within their 10 s: {failed:?}"
        );
        // It holds on to the network.
        prometheus::remove();
        self.prometheus = None;
        self.compose.run(&["down"])
    }

    fn learner(&self) -> Result<Value> {
        let said = self
            .compose
            .exec("learner", &["learner", "status", "--json"])?;
        Ok(serde_json::from_str(&said)?)
    }

    fn shard(&self, number: usize) -> Result<Value> {
        let words = [
            "replay-server",
            "status",
            "--address",
            "127.0.0.1:7410",
            "--json",
        ];
        let said = self.compose.exec(&format!("replay-{number}"), &words)?;
        Ok(serde_json::from_str(&said)?)
    }

    fn verify(&self, number: usize) -> Result<Value> {
        let volume = format!("{}:/rows", self.compose.volume(&format!("rows-{number}")));
        let image = format!("landmarl-replay:{TAG}");
        let said = command::read(
            docker()
                .args([
                    "run",
                    "--rm",
                    "--network",
                    "none",
                    "--volume",
                    &volume,
                    &image,
                ])
                .args(["replay-server", "verify", "/rows", "--json"]),
        )?;
        Ok(serde_json::from_str(&said)?)
    }

    fn validations(&self) -> Result<String> {
        let script = format!("cat /runs/{RUN}/validation.jsonl 2>/dev/null || true");
        self.compose.exec("learner", &["sh", "-c", &script])
    }

    fn logs(&self) -> Result<String> {
        let folder = format!("/runs/{RUN}");
        let words = ["landmarl", "logs", &folder, "--json"];
        self.compose.exec("learner", &words)
    }

    fn observed(&mut self, actors: usize) -> Result<Option<usize>> {
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

    fn only_killed_restarted(&mut self) -> Result<()> {
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
                "{name} was restarted, and nobody killed it: {container:?}"
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
