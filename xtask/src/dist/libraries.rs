//! Which shared libraries of a libtorch its CPU part needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{command, files};

/// The library that our programs link, and its CPU part.
const FIRST: [&str; 2] = ["libtorch.so", "libtorch_cpu.so"];

/// Copies them and their dependencies from the folder `lib` of a libtorch.
pub fn copy(lib: &Path, to: &Path) -> Result<()> {
    files::create_folder(to)?;
    for (name, path) in needed(lib)? {
        let target = to.join(&name);
        match fs::read_link(&path) {
            // Such as libtorch.so -> libtorch_cpu.so: half a gigabyte, once is enough.
            Ok(link) if link.components().count() == 1 => files::link(&link, &target)?,
            _ => files::copy(&path, &target)?,
        }
    }
    Ok(())
}

/// Names and paths, without the libraries of the system.
fn needed(lib: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let folders = folders(lib);
    let mut found = BTreeMap::new();
    let mut open: Vec<String> = FIRST.iter().map(ToString::to_string).collect();
    while let Some(name) = open.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let path = folders.iter().map(|f| f.join(&name)).find(|p| p.is_file());
        let Some(path) = path else {
            if FIRST.contains(&name.as_str()) {
                bail!("{} has no {name}: is it a libtorch?", lib.display());
            }
            continue;
        };
        let objdump = command::read(command::new("objdump", "-p").arg(&path))?;
        open.extend(names(&objdump));
        found.insert(name, path);
    }
    Ok(found)
}

/// A wheel's libraries lie beside each other or in NVIDIA's folders.
fn folders(lib: &Path) -> Vec<PathBuf> {
    let mut folders = vec![lib.to_path_buf()];
    let nvidia = lib.join("../../nvidia");
    let parts = fs::read_dir(nvidia).into_iter().flatten().flatten();
    folders.extend(parts.map(|part| part.path().join("lib")));
    folders
}

/// The `NEEDED` lines of `objdump -p`.
fn names(objdump: &str) -> Vec<String> {
    let lines = objdump.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix("NEEDED"))
        .map(|name| name.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_libraries_are_read() {
        let text = "\nDynamic Section:\n  NEEDED               libc10.so\n  NEEDED               libc.so.6\n  SONAME               libtorch_cpu.so\n";
        assert_eq!(names(text), ["libc10.so", "libc.so.6"]);
    }

    #[test]
    fn a_folder_without_libtorch_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = needed(folder.path()).unwrap_err().to_string();
        let shown = folder.path().display().to_string();
        assert!(error.contains("libtorch") && error.contains(&shown));
    }
}
