//! Which crates may depend on what, checked with `cargo tree`.

use std::collections::HashSet;

use anyhow::{Result, bail};

use crate::command;
use crate::workspace::Workspace;

/// Their images and builds must not need libtorch.
const WITHOUT_LIBTORCH: [&str; 4] = ["replay-server", "proto", "common", "xtask"];
const LIBTORCH: [&str; 2] = ["tch", "torch-sys"];
/// C libraries that would have to be built or found; rustls with ring replaces them.
const NOWHERE: [&str; 2] = ["openssl-sys", "aws-lc-sys"];

/// Fails with every broken invariant.
pub fn run(workspace: &Workspace) -> Result<()> {
    let mut broken = Vec::new();
    for name in WITHOUT_LIBTORCH {
        let line = format!("tree --locked -p {name} -e normal,build --prefix none");
        let tree = command::read(&mut workspace.cargo(&line))?;
        for found in present(&tree, &LIBTORCH) {
            broken.push(format!(
                "{name} depends on {found}: see `cargo tree -p {name} -i {found}`"
            ));
        }
    }
    let all = "tree --locked --workspace -e normal,build,dev --prefix none";
    let tree = command::read(&mut workspace.cargo(all))?;
    for found in present(&tree, &NOWHERE) {
        broken.push(format!(
            "{found} is in the workspace: see `cargo tree -i {found}`"
        ));
    }
    if !broken.is_empty() {
        bail!("broken dependency rules:\n  {}", broken.join("\n  "));
    }
    let without = WITHOUT_LIBTORCH.join(", ");
    println!("{without} are free of libtorch; no {}", NOWHERE.join(", "));
    Ok(())
}

/// Those of `names` that the tree lists.
fn present<'a>(tree: &str, names: &[&'a str]) -> Vec<&'a str> {
    let listed = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let listed: HashSet<&str> = listed.collect();
    let names = names.iter().copied();
    names.filter(|name| listed.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_whole() {
        let tree = "model v0.1.0 (/x/model)\ntch v0.24.0\ntch-helper v1.0.0 (*)\n\n";
        assert_eq!(present(tree, &LIBTORCH), ["tch"]);
        assert!(present("tchx v1\n", &LIBTORCH).is_empty());
    }
}
