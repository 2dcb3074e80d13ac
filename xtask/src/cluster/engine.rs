//! A Docker engine: the one that answers, or one that is installed and started
//! for the test and stopped after it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command;
use crate::workspace::cache_folder;

/// The base of the images.
pub const BASE: &str = "debian:bookworm-slim";
const PACKAGES: [&str; 3] = ["docker.io", "docker-compose", "debootstrap"];
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);
/// What a base image has no use for, as in Debian's own slim images.
const NOT_SLIM: [&str; 9] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/cache/debconf",
    "var/log",
];

/// A Docker engine that answers.
#[derive(Debug)]
pub struct Engine {
    /// Ours, to be stopped.
    daemon: Option<Daemon>,
}

/// Why there is no engine; the caller can do without.
#[derive(Debug)]
pub struct Absent(pub String);

impl Engine {
    /// Finds an engine, or installs and starts one.
    pub fn find() -> Result<Result<Self, Absent>> {
        if answers() {
            return Ok(Ok(Self { daemon: None }));
        }
        if let Err(error) = install() {
            return Ok(Err(Absent(format!("{error:#}"))));
        }
        Ok(match Daemon::start() {
            Ok(daemon) => Ok(Self {
                daemon: Some(daemon),
            }),
            Err(error) => Err(Absent(format!("{error:#}"))),
        })
    }

    /// In words.
    pub fn describe(&self) -> Result<String> {
        let format = "{{.ServerVersion}}, storage {{.Driver}}, cgroups {{.CgroupVersion}}";
        let said = command::read(docker().args(["info", "--format", format]))?;
        let whose = if self.daemon.is_some() {
            "started for this test"
        } else {
            "found running"
        };
        Ok(format!("Docker {}, {whose}", said.trim()))
    }

    /// Makes sure that the base image is there: pulled, or made with debootstrap.
    pub fn base_image(&self) -> Result<()> {
        if has_image(BASE) {
            return Ok(());
        }
        if succeeds(docker().args(["pull", BASE])) {
            return Ok(());
        }
        println!("{BASE} cannot be pulled: making it with debootstrap");
        let archive = cache_folder()?.join("debian-bookworm-slim.tar");
        if !archive.is_file() {
            bootstrap(&archive)?;
        }
        command::run(docker().arg("import").arg(&archive).arg(BASE))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.stop();
        }
    }
}

/// The client.
pub fn docker() -> Command {
    Command::new("docker")
}

/// Whether a command ends well; what it says is nobody's business.
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn answers() -> bool {
    succeeds(docker().args(["version", "--format", "{{.Server.Version}}"]))
}

/// Whether the engine has an image of this name.
pub fn has_image(name: &str) -> bool {
    succeeds(docker().args(["image", "inspect", name]))
}

/// `command`, as root: as it is, or by way of sudo where that asks for nothing.
fn as_root(words: &[&str]) -> Result<Command> {
    let root = command::read(Command::new("id").arg("-u"))?.trim() == "0";
    let mut all = words.to_vec();
    if !root {
        if !succeeds(Command::new("sudo").args(["-n", "true"])) {
            bail!(
                "`{}` needs root, and sudo asks for a password",
                words.join(" ")
            );
        }
        all.splice(0..0, ["sudo", "-n"]);
    }
    let mut command = Command::new(all.first().context("no command")?);
    command.args(all.get(1..).unwrap_or_default());
    Ok(command)
}

fn install() -> Result<()> {
    let there =
        |name: &str| succeeds(Command::new("sh").args(["-c", &format!("command -v {name}")]));
    if there("dockerd") && there("docker") && (there("docker-compose") || has_plugin()) {
        return Ok(());
    }
    if !there("apt-get") {
        bail!("Docker is not installed, and this is no Debian to install it from");
    }
    println!("installing {}", PACKAGES.join(", "));
    command::run(&mut as_root(&["apt-get", "update", "-qq"])?)?;
    let mut words = vec![
        "apt-get",
        "install",
        "-y",
        "-qq",
        "--no-install-recommends",
        "iptables",
    ];
    words.extend(PACKAGES);
    command::run(as_root(&words)?.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Whether `docker compose` is there.
pub fn has_plugin() -> bool {
    succeeds(docker().args(["compose", "version"]))
}

/// A daemon of our own.
#[derive(Debug)]
struct Daemon {
    process: Child,
    folder: PathBuf,
}

impl Daemon {
    /// Starts one; a machine whose kernel has no overlay file system gets plain copies.
    fn start() -> Result<Self> {
        let mut said = String::new();
        for driver in ["overlay2", "vfs"] {
            match Self::with_driver(driver) {
                Ok(daemon) => return Ok(daemon),
                Err(error) => said.push_str(&format!("\nwith {driver}: {error:#}")),
            }
        }
        bail!("dockerd does not start:{said}")
    }

    fn with_driver(driver: &str) -> Result<Self> {
        let folder = cache_folder()?.join("docker");
        fs::create_dir_all(&folder)?;
        let log = folder.join("dockerd.log");
        let file = File::create(&log)?;
        let data = format!("--data-root={}", folder.join(driver).display());
        let pid = format!("--pidfile={}", folder.join("dockerd.pid").display());
        let driver = format!("--storage-driver={driver}");
        let mut process = as_root(&["dockerd", &driver, &data, &pid])?
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("dockerd does not start")?;
        let begun = Instant::now();
        while !answers() {
            if let Some(status) = process.try_wait()? {
                bail!("it ended ({status}): {}", last_lines(&log));
            }
            if begun.elapsed() > START {
                process.kill().ok();
                process.wait().ok();
                bail!("it does not answer: {}", last_lines(&log));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(Self { process, folder })
    }

    fn stop(&mut self) {
        let pid = fs::read_to_string(self.folder.join("dockerd.pid"));
        let pid = pid.unwrap_or_else(|_| self.process.id().to_string());
        if let Ok(mut kill) = as_root(&["kill", "-TERM", pid.trim()]) {
            succeeds(&mut kill);
        }
        let begun = Instant::now();
        while begun.elapsed() < STOP {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("dockerd (process {}) does not stop", pid.trim());
    }
}

fn last_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// A Debian of the least size, as a tar file.
fn bootstrap(archive: &Path) -> Result<()> {
    let work = tempfile::tempdir().context("no temporary folder")?;
    let root = work.path().join("root");
    let root_text = root.to_string_lossy().into_owned();
    command::run(&mut as_root(&[
        "debootstrap",
        "--variant=minbase",
        "bookworm",
        &root_text,
    ])?)?;
    for name in NOT_SLIM {
        let path = root.join(name).to_string_lossy().into_owned();
        command::run(&mut as_root(&["find", &path, "-mindepth", "1", "-delete"])?)?;
    }
    let fresh = archive.with_extension("tar.new");
    let fresh_text = fresh.to_string_lossy().into_owned();
    let made = [
        "tar",
        "-C",
        &root_text,
        "--exclude=./dev/*",
        "-cf",
        &fresh_text,
        ".",
    ];
    command::run(&mut as_root(&made)?)?;
    let user = command::read(Command::new("id").arg("-u"))?;
    command::run(&mut as_root(&["chown", user.trim(), &fresh_text])?)?;
    // Root's files cannot be removed by another.
    command::run(&mut as_root(&["rm", "-rf", &root_text])?)?;
    fs::rename(&fresh, archive).with_context(|| format!("{} cannot be placed", archive.display()))
}
