//! The files of deploy/, checked by the tools that read them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, cache_folder};
use crate::{command, files, venv};

/// Folders that `kubectl apply -k` is given.
const OVERLAYS: [&str; 2] = ["base", "overlays/gpu"];
/// The one section in which compose and Kubernetes differ.
const ADDRESSES: &str = "cluster";
const COMPOSE: &str = "deploy/compose.yaml";
/// Folders, each a volume, that the services of compose may write to. Whoever takes over one of
/// them can change no more: no checkpoints, rows or cached scans of another role.
const WRITABLE: [(&str, &[&str]); 8] = [
    ("replay-0", &["/logs", "/rows"]),
    ("replay-1", &["/logs", "/rows"]),
    ("learner", &["/cache", "/logs", "/runs"]),
    ("actor", &["/cache", "/logs"]),
    ("evaluator", &["/cache", "/logs"]),
    ("operator", &[]),
    ("certs", CERTS),
    ("data", &["/data"]),
];
const CERTS: &[&str] = &[
    "/authority",
    "/roles/actor",
    "/roles/evaluator",
    "/roles/learner",
    "/roles/monitor",
    "/roles/operator",
    "/roles/replay",
];
/// The volume that every service writes to.
const SHARED: &str = "logs";

/// `cargo xtask manifests`: hadolint reads the Dockerfile, kubernetes-validate
/// the manifests, rendered first.
pub fn run(workspace: &Workspace) -> Result<()> {
    let root = &workspace.root;
    same_settings(root)?;
    mounts_are_least(&files::read(&root.join(COMPOSE))?)?;
    let list = root.join("xtask/manifests.txt");
    let base = Path::new("python3");
    let python = venv::python(base, &list, &cache_folder()?, "py-manifests")?;
    let mut hadolint = workspace.command(python.with_file_name("hadolint"));
    command::run(hadolint.arg("deploy/Dockerfile"))?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    for overlay in OVERLAYS {
        let kubernetes = root.join("deploy/kubernetes");
        let mut render = command::new(&python, "");
        render.args([kubernetes.join("render.py"), kubernetes.join(overlay)]);
        let name = overlay.replace('/', "-") + ".yaml";
        let rendered = folder.path().join(name);
        files::write(&rendered, &command::read(&mut render)?)?;
        let mut validate = workspace.command(python.with_file_name("kubernetes-validate"));
        command::run(validate.arg("--strict").arg(rendered))?;
    }
    Ok(())
}

/// Kustomize reads no file outside of its folder, so there are two files of
/// settings; they must not drift apart.
fn same_settings(root: &Path) -> Result<()> {
    let read = |path: &str| -> Result<toml::Table> {
        let mut table: toml::Table = files::read(&root.join(path))?
            .parse()
            .context(path.to_owned())?;
        table.remove(ADDRESSES);
        Ok(table)
    };
    let compose = "deploy/landmarl.toml";
    let kubernetes = "deploy/kubernetes/base/landmarl.toml";
    if read(compose)? != read(kubernetes)? {
        bail!("{kubernetes} differs from {compose} in more than [{ADDRESSES}]");
    }
    Ok(())
}

/// What a service of compose may write to.
pub fn writable(service: &str) -> BTreeSet<&'static str> {
    let found = WRITABLE.iter().find(|(name, _)| *name == service);
    found.map_or_else(BTreeSet::new, |(_, folders)| {
        folders.iter().copied().collect()
    })
}

/// A line of `volumes:` of a service.
#[derive(Debug, PartialEq, Eq)]
struct Mount<'a> {
    volume: &'a str,
    folder: &'a str,
    writes: bool,
}

/// The mounts of each service of our image in a compose file, whose entries are of the short form.
fn mounts(compose: &str) -> BTreeMap<&str, Vec<Mount<'_>>> {
    let mut all: BTreeMap<&str, Vec<Mount<'_>>> = BTreeMap::new();
    let (mut section, mut service, mut list) = ("", "", "");
    for line in compose
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
    {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim();
        match (indent, words.strip_suffix(':'), words.strip_prefix("- ")) {
            (0, Some(name), _) => section = name,
            (2, Some(name), _) => service = name,
            (4, name, _) => list = name.unwrap_or_default(),
            (6, _, Some(entry)) if section == "services" && list == "volumes" => {
                let (entry, writes) = match entry.strip_suffix(":ro") {
                    Some(entry) => (entry, false),
                    None => (entry, true),
                };
                // A default such as `${DATA_DIR:-data}` has a colon of its own.
                if let Some((volume, folder)) = entry.rsplit_once(':') {
                    let mount = Mount {
                        volume,
                        folder,
                        writes,
                    };
                    all.entry(service).or_default().push(mount);
                }
            }
            _ => {}
        }
    }
    all
}

/// Each service of ours may write what [`WRITABLE`] says, others to a volume of their own name; and
/// volumes that one service writes no other can write to.
fn mounts_are_least(compose: &str) -> Result<()> {
    let all = mounts(compose);
    let mut writers: BTreeMap<&str, &str> = BTreeMap::new();
    for (service, own) in &all {
        let written: Vec<&Mount<'_>> = own.iter().filter(|mount| mount.writes).collect();
        let is_ours = WRITABLE.iter().any(|(name, _)| name == service);
        if is_ours {
            let folders: BTreeSet<&str> = written.iter().map(|mount| mount.folder).collect();
            let expected = writable(service);
            if folders != expected {
                bail!("{COMPOSE}: {service} can write to {folders:?}, and should to {expected:?}");
            }
        } else if let Some(mount) = written.iter().find(|mount| mount.volume != *service) {
            bail!(
                "{COMPOSE}: {service} can write to {}: list it in manifests.rs",
                mount.volume
            );
        }
        for mount in written.iter().filter(|mount| mount.volume != SHARED) {
            if let Some(other) = writers.insert(mount.volume, service) {
                let volume = mount.volume;
                bail!("{COMPOSE}: {other} and {service} can both write to the volume {volume}");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_and_kubernetes_have_the_same_settings() {
        same_settings(&Workspace::find().unwrap().root).unwrap();
    }

    #[test]
    fn a_different_setting_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("deploy/kubernetes/base");
        files::create_folder(&base).unwrap();
        let write = |path: &str, text: &str| files::write(&folder.path().join(path), text).unwrap();
        let kubernetes = "deploy/kubernetes/base/landmarl.toml";
        write(
            "deploy/landmarl.toml",
            "[cluster]\nlearner = \"a\"\n[rules]\nhistory = 1\n",
        );
        write(
            kubernetes,
            "[cluster]\nlearner = \"b\"\n[rules]\nhistory = 1\n",
        );
        same_settings(folder.path()).unwrap();
        write(kubernetes, "[rules]\nhistory = 2\n");
        let error = same_settings(folder.path()).unwrap_err().to_string();
        assert!(error.contains("more than [cluster]"), "{error}");
    }

    fn compose() -> String {
        files::read(&Workspace::find().unwrap().root.join(COMPOSE)).unwrap()
    }

    #[test]
    fn services_of_compose_write_to_their_own_volumes_and_the_log() {
        let text = compose();
        mounts_are_least(&text).unwrap();
        let all = mounts(&text);
        for service in ["learner", "operator"] {
            let reads = |volume| all[service].iter().any(|mount| mount.volume == volume);
            assert!(
                reads("logs") && reads("runs"),
                "{service}: {:?}",
                all[service]
            );
        }
        let runs = all
            .iter()
            .filter(|(_, own)| own.iter().any(|m| m.volume == "runs"));
        let runs: Vec<_> = runs.map(|(service, _)| *service).collect();
        assert_eq!(runs, ["learner", "operator"]);
    }

    #[test]
    fn a_service_that_can_write_more_is_an_error() {
        let text = compose();
        for (from, to, words) in [
            ("- logs:/logs:ro", "- logs:/logs", "operator can write"),
            (
                "- cache-actor:/cache\n",
                "- runs:/runs\n",
                "actor can write",
            ),
            (
                "- cache-actor:/cache\n",
                "- cache-learner:/cache\n",
                "both write",
            ),
            (
                "  prometheus:\n    image",
                "  board:\n    volumes:\n      - runs:/runs\n  prometheus:\n    image",
                "board can write to runs",
            ),
            (
                "- rows-1:/rows",
                "- rows-0:/rows",
                "replay-1 can both write",
            ),
        ] {
            assert!(text.contains(from), "{from}");
            let error = mounts_are_least(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
