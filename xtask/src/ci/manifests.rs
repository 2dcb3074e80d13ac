//! The files of deploy/, checked by the tools that read them.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, cache_folder};
use crate::{command, files, venv};

/// Folders that `kubectl apply -k` is given.
const OVERLAYS: [&str; 2] = ["base", "overlays/gpu"];
/// The one section in which compose and Kubernetes differ.
const ADDRESSES: &str = "cluster";

/// `cargo xtask manifests`: hadolint reads the Dockerfile, kubernetes-validate
/// the manifests, rendered first.
pub fn run(workspace: &Workspace) -> Result<()> {
    let root = &workspace.root;
    same_settings(root)?;
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
}
