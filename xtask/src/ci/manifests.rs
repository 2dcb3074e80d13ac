//! The files of deploy/, checked by the tools that read them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, cache_folder};
use crate::{command, venv};

/// Folders that `kubectl apply -k` is given.
const OVERLAYS: [&str; 2] = ["base", "overlays/gpu"];
/// The one section in which compose and Kubernetes differ.
const ADDRESSES: &str = "cluster";

/// `cargo xtask manifests`: hadolint reads the Dockerfile, kubernetes-validate
/// the manifests, rendered first.
pub fn run(workspace: &Workspace) -> Result<()> {
    let root = workspace.root();
    same_settings(root)?;
    let list = root.join("xtask/manifests.txt");
    let python = venv::python(
        Path::new("python3"),
        &list,
        &cache_folder()?,
        "py-manifests",
    )?;
    let bin = python.parent().context("the environment has no bin")?;
    let mut hadolint = workspace.command(&bin.join("hadolint").to_string_lossy());
    command::run(hadolint.arg("deploy/Dockerfile"))?;
    let rendered = tempfile::tempdir().context("no temporary folder")?;
    for overlay in OVERLAYS {
        let script = root.join("deploy/kubernetes/render.py");
        let folder = root.join("deploy/kubernetes").join(overlay);
        let text = command::read(Command::new(&python).arg(script).arg(&folder))?;
        let path = rendered
            .path()
            .join(format!("{}.yaml", overlay.replace('/', "-")));
        fs::write(&path, text)?;
        let mut validate = workspace.command(&bin.join("kubernetes-validate").to_string_lossy());
        command::run(validate.arg("--strict").arg(&path))?;
    }
    Ok(())
}

/// Kustomize reads no file outside of its folder, so there are two files of
/// settings; they must not drift apart.
fn same_settings(root: &Path) -> Result<()> {
    let read = |path: &str| -> Result<toml::Table> {
        let text =
            fs::read_to_string(root.join(path)).with_context(|| format!("{path} is missing"))?;
        let mut table: toml::Table = text.parse().with_context(|| path.to_owned())?;
        table.remove(ADDRESSES);
        Ok(table)
    };
    let (compose, kubernetes) = (
        "deploy/landmarl.toml",
        "deploy/kubernetes/base/landmarl.toml",
    );
    if read(compose)? != read(kubernetes)? {
        bail!("{kubernetes} differs from {compose} in more than [{ADDRESSES}]");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compose_and_kubernetes_train_alike() {
        same_settings(Workspace::find().unwrap().root()).unwrap();
    }

    #[test]
    fn a_different_setting_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("deploy/kubernetes/base");
        fs::create_dir_all(&base).unwrap();
        let compose = folder.path().join("deploy/landmarl.toml");
        fs::write(
            &compose,
            "[cluster]\nlearner = \"a\"\n[rules]\nhistory = 1\n",
        )
        .unwrap();
        let kubernetes = base.join("landmarl.toml");
        fs::write(
            &kubernetes,
            "[cluster]\nlearner = \"b\"\n[rules]\nhistory = 1\n",
        )
        .unwrap();
        same_settings(folder.path()).unwrap();
        fs::write(&kubernetes, "[rules]\nhistory = 2\n").unwrap();
        let error = same_settings(folder.path()).unwrap_err().to_string();
        assert!(error.contains("more than [cluster]"), "{error}");
    }
}
