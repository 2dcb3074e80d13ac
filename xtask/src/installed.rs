//! What an installation holds: a quick look at any libtorch, and the list of
//! files and hashes that setup leaves in its own.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::libtorch::{Flavour, VERSION};
use crate::progress::Progress;

const MANIFEST: &str = "landmarl-libtorch.json";
const VERSION_HEADER: &str = "include/torch/headeronly/version.h";
const ALWAYS: [&str; 3] = ["lib/libtorch.so", "lib/libtorch_cpu.so", "lib/libc10.so"];

/// What was installed. Libraries one by one; the thousands of headers together.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    torch: String,
    flavour: String,
    files: Vec<Entry>,
    headers: Headers,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    path: String,
    bytes: u64,
    sha256: String,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Headers {
    files: u64,
    bytes: u64,
    sha256: String,
}

/// Looks whether `libtorch` (the folder with `include/` and `lib/`) has the
/// right version and the libraries that builds link.
pub fn inspect(libtorch: &Path, flavour: Flavour) -> Result<()> {
    let header = libtorch.join(VERSION_HEADER);
    let text = fs::read_to_string(&header)
        .with_context(|| format!("no version can be read from {}", header.display()))?;
    match header_version(&text) {
        Some(VERSION) => {}
        Some(other) => bail!("it is libtorch {other}, and {VERSION} is needed"),
        None => bail!("{} names no TORCH_VERSION", header.display()),
    }
    let cuda = (flavour == Flavour::Cuda).then_some("lib/libtorch_cuda.so");
    for name in ALWAYS.into_iter().chain(cuda) {
        let bytes = fs::metadata(libtorch.join(name)).map_or(0, |data| data.len());
        if bytes == 0 {
            bail!("{name} is missing or empty");
        }
    }
    Ok(())
}

/// The value of `#define TORCH_VERSION`, which stands on the line after it.
fn header_version(header: &str) -> Option<&str> {
    let after = header.split("#define TORCH_VERSION ").nth(1)?;
    let quoted = after
        .trim_start_matches(['\\', '\r', '\n', ' '])
        .strip_prefix('"')?;
    quoted.split('"').next()
}

/// Whether setup (or an adoption) completed here once.
pub fn has_manifest(install: &Path) -> bool {
    install.join(MANIFEST).is_file()
}

/// The check of every later start: versions, names and sizes against the
/// manifest, without reading the libraries.
pub fn check(install: &Path, flavour: Flavour) -> Result<()> {
    let manifest = read(install)?;
    if manifest.torch != VERSION || manifest.flavour != flavour.name() {
        bail!(
            "it holds libtorch {} ({})",
            manifest.torch,
            manifest.flavour
        );
    }
    inspect(&flavour.libtorch(install), flavour)?;
    for entry in &manifest.files {
        let found = fs::metadata(install.join(&entry.path)).map_or(0, |data| data.len());
        if found != entry.bytes {
            bail!(
                "{} has {found} bytes instead of {}",
                entry.path,
                entry.bytes
            );
        }
    }
    let headers = list(install)?.into_iter().filter(|path| is_header(path));
    let found = headers.count() as u64;
    if found != manifest.headers.files {
        bail!("{found} headers instead of {}", manifest.headers.files);
    }
    Ok(())
}

/// Writes the manifest of what lies in `install` now.
pub fn record(install: &Path, flavour: Flavour) -> Result<()> {
    let manifest = measure(install, flavour.name(), "noting SHA-256 sums")?;
    let path = install.join(MANIFEST);
    let fresh = install.join(format!("{MANIFEST}.new"));
    let text = serde_json::to_string_pretty(&manifest)?;
    fs::write(&fresh, text + "\n")
        .and_then(|()| fs::rename(&fresh, &path))
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// Reads every file and compares it with the manifest.
pub fn verify(install: &Path) -> Result<()> {
    let noted = read(install)?;
    let found = measure(install, &noted.flavour, "verifying SHA-256 sums")?;
    let mut wrong: Vec<&str> = noted
        .files
        .iter()
        .filter(|entry| !found.files.contains(entry))
        .map(|entry| entry.path.as_str())
        .collect();
    if noted.headers != found.headers {
        wrong.push("include/");
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "changed since it was installed in {}: {}; repair it with `cargo xtask setup --force`",
        install.display(),
        wrong.join(", ")
    )
}

fn read(install: &Path) -> Result<Manifest> {
    let path = install.join(MANIFEST);
    let text = fs::read_to_string(&path).with_context(|| format!("no {} there", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

fn measure(install: &Path, flavour: &str, what: &str) -> Result<Manifest> {
    let paths = list(install)?;
    let size = |path: &PathBuf| fs::metadata(install.join(path)).map_or(0, |data| data.len());
    let mut progress = Progress::new(what, paths.iter().map(size).sum());
    let mut files = Vec::new();
    let mut headers = Headers::default();
    let mut all_headers = Sha256::new();
    for path in &paths {
        let (bytes, sha256) = hash(&install.join(path), &mut progress)?;
        let name = path.to_string_lossy().into_owned();
        if is_header(path) {
            headers.files += 1;
            headers.bytes += bytes;
            all_headers.update(format!("{sha256}  {name}\n"));
        } else {
            files.push(Entry {
                path: name,
                bytes,
                sha256,
            });
        }
    }
    headers.sha256 = hex(&all_headers.finalize());
    progress.finish();
    Ok(Manifest {
        torch: VERSION.to_owned(),
        flavour: flavour.to_owned(),
        files,
        headers,
    })
}

fn is_header(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "include")
}

/// Every plain file below `install` but the manifest, relative to it, sorted.
fn list(install: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let whole = install.join(&folder);
        let entries = fs::read_dir(&whole)
            .with_context(|| format!("{} cannot be listed", whole.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && !path.to_string_lossy().starts_with(MANIFEST) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn hash(path: &Path, progress: &mut Progress) -> Result<(u64, String)> {
    let mut file =
        File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut buffer = vec![0; 1 << 20];
    let (mut digest, mut bytes) = (Sha256::new(), 0);
    loop {
        let read = file
            .read(&mut buffer)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        if read == 0 {
            return Ok((bytes, hex(&digest.finalize())));
        }
        digest.update(&buffer[..read]);
        bytes += read as u64;
        progress.add(read as u64);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, text).expect("file");
    }

    fn small_libtorch(version: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("temporary folder");
        let header = format!("#define TORCH_VERSION \\\n  \"{version}\"\n");
        write(root.path(), VERSION_HEADER, &header);
        for name in ALWAYS {
            write(root.path(), name, "library");
        }
        root
    }

    #[test]
    fn versions_are_read_from_the_header() {
        let real = "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION \\\n  \"2.11.0\"\n";
        assert_eq!(header_version(real), Some("2.11.0"));
        assert_eq!(
            header_version("#define TORCH_VERSION \"2.9.1\""),
            Some("2.9.1")
        );
        assert_eq!(header_version("#define TORCH_VERSION_MAJOR 2"), None);
    }

    #[test]
    fn another_version_or_a_missing_library_is_refused() {
        let old = small_libtorch("2.10.0");
        let error = inspect(old.path(), Flavour::Cpu)
            .expect_err("old")
            .to_string();
        assert!(error.contains("2.10.0"), "{error}");

        let good = small_libtorch(VERSION);
        inspect(good.path(), Flavour::Cpu).expect("complete");
        let error = inspect(good.path(), Flavour::Cuda)
            .expect_err("no CUDA")
            .to_string();
        assert!(error.contains("libtorch_cuda.so"), "{error}");
        write(good.path(), "lib/libc10.so", "");
        assert!(inspect(good.path(), Flavour::Cpu).is_err());
    }

    #[test]
    fn a_recorded_installation_is_checked_by_size_and_verified_by_hash() {
        let install = small_libtorch(VERSION);
        let root = install.path();
        assert!(check(root, Flavour::Cpu).is_err(), "no manifest yet");
        record(root, Flavour::Cpu).expect("records");
        check(root, Flavour::Cpu).expect("as recorded");
        verify(root).expect("as recorded");

        write(root, "lib/libtorch_cpu.so", "LIBRARY");
        check(root, Flavour::Cpu).expect("the size is the same");
        let error = verify(root).expect_err("the content is not").to_string();
        assert!(error.contains("libtorch_cpu.so"), "{error}");

        write(root, "lib/libtorch_cpu.so", "lib");
        assert!(check(root, Flavour::Cpu).is_err(), "shorter");
    }

    #[test]
    fn a_lost_header_is_noticed() {
        let install = small_libtorch(VERSION);
        write(install.path(), "include/extra.h", "#pragma once");
        record(install.path(), Flavour::Cpu).expect("records");
        fs::remove_file(install.path().join("include/extra.h")).expect("removes");
        assert!(check(install.path(), Flavour::Cpu).is_err());
    }
}
