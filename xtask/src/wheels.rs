//! From wheels to a libtorch folder. A wheel is a zip file with a METADATA
//! text inside.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use zip::ZipArchive;

use crate::installed;
use crate::libtorch::{Flavour, VERSION};
use crate::pip;
use crate::progress::Progress;

/// A wheel and the SHA-256 under which PyPI publishes it.
struct Wheel {
    name: &'static str,
    version: &'static str,
    sha256: &'static str,
}

/// `libtorch_cpu.so` of the ordinary wheel needs the two small CUDA libraries
/// to load, on machines without a GPU too.
const WHEELS: [Wheel; 3] = [
    Wheel {
        name: "torch",
        version: VERSION,
        sha256: "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
    },
    Wheel {
        name: "nvidia-cuda-runtime",
        version: "13.0.96",
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    },
    Wheel {
        name: "nvidia-cuda-cupti",
        version: "13.0.85",
        sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
    },
];

const CPU_LIBRARIES: [&str; 5] = [
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
];

/// Downloads and extracts beside `install`, and puts the result there in one
/// step. The caller holds the lock.
pub fn install(install: &Path, flavour: Flavour) -> Result<()> {
    pip::need()?;
    let work = install.with_file_name(format!("{}.installing", file_name(install)));
    clear(&work)?;
    let wheels = work.join("wheels");
    fs::create_dir_all(&wheels).with_context(|| format!("{} cannot be made", wheels.display()))?;
    need_space(&work, flavour)?;
    let fresh = work.join("fresh");
    let made = fetch(&wheels, flavour).and_then(|files| unpack(&files, &fresh, flavour));
    let placed = made.and_then(|()| {
        installed::inspect(&flavour.libtorch(&fresh), flavour)?;
        installed::record(&fresh, flavour)?;
        swap_in(&fresh, install, &work.join("old"))
    });
    let cleared = clear(&work);
    placed.and(cleared)
}

fn clear(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", folder.display()))
        }
        _ => Ok(()),
    }
}

/// A folder cannot be renamed onto a full one, so the old one steps aside.
fn swap_in(fresh: &Path, install: &Path, aside: &Path) -> Result<()> {
    if install.exists() {
        fs::rename(install, aside)
            .with_context(|| format!("{} cannot be moved away", install.display()))?;
    }
    fs::rename(fresh, install)
        .inspect_err(|_| {
            fs::rename(aside, install).ok();
        })
        .with_context(|| format!("{} cannot be placed", install.display()))
}

/// Wheels, what is made of them, and pip's copy of the largest.
fn need_space(folder: &Path, flavour: Flavour) -> Result<()> {
    let needed_mb = match flavour {
        Flavour::Cpu => 1_700,
        Flavour::Cuda => 12_000,
    };
    let output = Command::new("df").arg("-Pk").arg(folder).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    // Without df, a full disk shows while writing.
    match text.ok().as_deref().and_then(free_mb) {
        Some(free) if free < needed_mb => bail!(
            "{} has {free} MB left and setup needs {needed_mb} MB: free some space, \
             or set XDG_CACHE_HOME to a larger disk",
            folder.display()
        ),
        _ => Ok(()),
    }
}

/// The fourth column of `df -Pk`, in MB.
fn free_mb(df: &str) -> Option<u64> {
    let kib: u64 = df.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kib * 1024 / 1_000_000)
}

/// Downloads what the flavour needs and returns the wheels to extract.
fn fetch(folder: &Path, flavour: Flavour) -> Result<Vec<PathBuf>> {
    let chosen = match flavour {
        Flavour::Cpu => &WHEELS[..],
        Flavour::Cuda => &WHEELS[..1],
    };
    let lines = chosen
        .iter()
        .map(|w| format!("{}=={} --hash=sha256:{}\n", w.name, w.version, w.sha256));
    let lines: String = lines.collect();
    println!("downloading the torch {VERSION} wheel with pip (about 545 MB)");
    pip::download(&lines, false, folder)?;
    let mut files = Vec::new();
    for wheel in chosen {
        files.push(find(folder, wheel.name, wheel.version)?);
    }
    if flavour == Flavour::Cuda {
        let required = nvidia_requirements(&metadata(&files[0])?);
        println!("downloading the NVIDIA libraries that it requires (about 2 GB)");
        pip::download(&required, true, folder)?;
        files.extend(
            list_wheels(folder)?
                .into_iter()
                .filter(|path| file_name(path).starts_with("nvidia_")),
        );
    }
    Ok(files)
}

/// The NVIDIA part of what torch requires. The rest (triton, sympy, …) serves
/// Python only.
fn nvidia_requirements(metadata: &str) -> String {
    let required = metadata
        .lines()
        .filter_map(|line| line.strip_prefix("Requires-Dist: "));
    let wanted = required
        .filter(|line| line.starts_with("nvidia-") || line.starts_with("cuda-toolkit"))
        .filter_map(|line| line.split(';').next());
    wanted.map(|line| format!("{}\n", line.trim())).collect()
}

fn list_wheels(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// The wheel in `folder` that says of itself that it is `name` `version`.
fn find(folder: &Path, name: &str, version: &str) -> Result<PathBuf> {
    let start = format!("{}-", name.replace('-', "_"));
    let mut files = list_wheels(folder)?.into_iter();
    let path = files
        .find(|path| file_name(path).starts_with(&start))
        .with_context(|| format!("pip left no wheel of {name}"))?;
    let text = metadata(&path)?;
    match (field(&text, "Name"), field(&text, "Version")) {
        (Some(n), Some(v)) if n == name && v == version => Ok(path),
        (n, v) => bail!(
            "{} calls itself {} {}, and {name} {version} is needed",
            path.display(),
            n.unwrap_or("?"),
            v.unwrap_or("?")
        ),
    }
}

/// A field of a METADATA text; the text after the first empty line is prose.
fn field<'a>(metadata: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = metadata.lines().take_while(|line| !line.is_empty());
    fields.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

type Archive = ZipArchive<BufReader<File>>;

fn open(path: &Path) -> Result<Archive> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    ZipArchive::new(BufReader::new(file)).with_context(|| format!("{} is no wheel", path.display()))
}

fn metadata(path: &Path) -> Result<String> {
    let mut archive = open(path)?;
    let name = archive
        .file_names()
        .filter_map(Result::ok)
        .find(|name| name.ends_with(".dist-info/METADATA"))
        .map(Cow::into_owned)
        .with_context(|| format!("{} holds no METADATA", path.display()))?;
    let mut text = String::new();
    archive.by_name(&name)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Where a wheel's file goes in the installation, if it is wanted.
fn destination(name: &str, flavour: Flavour) -> Option<PathBuf> {
    if name.ends_with('/') {
        return None;
    }
    match flavour {
        Flavour::Cpu if name.starts_with("torch/include/") => {
            name.strip_prefix("torch/").map(PathBuf::from)
        }
        Flavour::Cpu if CPU_LIBRARIES.contains(&name) => name
            .rsplit('/')
            .next()
            .map(|file| Path::new("lib").join(file)),
        Flavour::Cpu => None,
        Flavour::Cuda => {
            let library =
                name.contains("/lib/") && name.contains(".so") && !name.contains("python");
            let ours = name.starts_with("torch/lib/") || name.starts_with("nvidia/");
            (name.starts_with("torch/include/") || (ours && library)).then(|| PathBuf::from(name))
        }
    }
}

fn unpack(wheels: &[PathBuf], into: &Path, flavour: Flavour) -> Result<()> {
    let mut wanted = Vec::new();
    for wheel in wheels {
        let mut archive = open(wheel)?;
        let mut indices = Vec::new();
        let mut bytes = 0;
        for index in 0..archive.len() {
            let entry = archive.by_index_raw(index)?;
            if let Some(place) = destination(&entry.name()?, flavour) {
                bytes += entry.size();
                indices.push((index, place));
            }
        }
        wanted.push((archive, indices, bytes));
    }
    let total = wanted.iter().map(|(_, _, bytes)| bytes).sum();
    let mut progress = Progress::new("extracting", total);
    for (archive, indices, _) in &mut wanted {
        for (index, place) in indices {
            extract(archive, *index, &into.join(place), &mut progress)?;
        }
    }
    progress.finish();
    if flavour == Flavour::Cpu {
        // The wheel's own libtorch.so insists on the CUDA libraries.
        let link = into.join("lib/libtorch.so");
        std::os::unix::fs::symlink("libtorch_cpu.so", &link)
            .with_context(|| format!("{} cannot be linked", link.display()))?;
    }
    Ok(())
}

fn extract(archive: &mut Archive, index: usize, to: &Path, progress: &mut Progress) -> Result<()> {
    let mut entry = archive.by_index(index)?;
    if entry.enclosed_name().is_none() {
        bail!("the wheel holds the unsafe name {:?}", entry.name());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| explain(error, parent))?;
    }
    let file = File::create(to).map_err(|error| explain(error, to))?;
    let mut file = BufWriter::new(file);
    let mut buffer = vec![0; 1 << 20];
    loop {
        // The zip reader checks each entry's CRC-32 when it ends.
        let read = entry
            .read(&mut buffer)
            .with_context(|| format!("the wheel is damaged at {}", to.display()))?;
        if read == 0 {
            return file.flush().map_err(|error| explain(error, to));
        }
        file.write_all(&buffer[..read])
            .map_err(|error| explain(error, to))?;
        progress.add(read as u64);
    }
}

fn explain(error: std::io::Error, path: &Path) -> anyhow::Error {
    let full = error.kind() == ErrorKind::StorageFull;
    let advice = if full {
        ": free some space, or set XDG_CACHE_HOME to a larger disk"
    } else {
        ""
    };
    anyhow!(error).context(format!("{} cannot be written{advice}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::write::{SimpleFileOptions, ZipWriter};

    const METADATA: &str = "Metadata-Version: 2.4\nName: torch\nVersion: 2.11.0\n\
        Requires-Dist: sympy>=1.13.3\n\
        Requires-Dist: cuda-toolkit[cublas,cudart]==13.0.2; platform_system == \"Linux\"\n\
        Requires-Dist: nvidia-nccl-cu13==2.28.9; platform_system == \"Linux\"\n\
        Requires-Dist: triton==3.6.0; platform_system == \"Linux\"\n\nName: prose\n";

    fn wheel(folder: &Path, file: &str, entries: &[(&str, &str)]) -> PathBuf {
        let path = folder.join(file);
        let mut writer = ZipWriter::new(File::create(&path).expect("file"));
        for (name, text) in entries {
            writer
                .start_file(*name, SimpleFileOptions::default())
                .expect("entry");
            writer.write_all(text.as_bytes()).expect("content");
        }
        writer.finish().expect("a whole zip");
        path
    }

    #[test]
    fn metadata_fields_stop_at_the_prose() {
        assert_eq!(field(METADATA, "Name"), Some("torch"));
        assert_eq!(field(METADATA, "Version"), Some("2.11.0"));
        assert_eq!(field("Version: 1\n\nName: prose", "Name"), None);
    }

    #[test]
    fn cuda_takes_the_nvidia_requirements_only() {
        let expected = "cuda-toolkit[cublas,cudart]==13.0.2\nnvidia-nccl-cu13==2.28.9\n";
        assert_eq!(nvidia_requirements(METADATA), expected);
    }

    #[test]
    fn a_wheel_of_another_version_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        wheel(
            folder.path(),
            "torch-2.11.0-x.whl",
            &[("torch-2.11.0.dist-info/METADATA", METADATA)],
        );
        find(folder.path(), "torch", "2.11.0").expect("the right one");
        let error = find(folder.path(), "torch", "2.12.0")
            .expect_err("another")
            .to_string();
        assert!(
            error.contains("torch 2.11.0") && error.contains("2.12.0"),
            "{error}"
        );
        assert!(find(folder.path(), "triton", "3.6.0").is_err());
    }

    #[test]
    fn only_what_a_flavour_needs_is_extracted() {
        let cases = [
            (
                "torch/include/ATen/ATen.h",
                Some("include/ATen/ATen.h"),
                true,
            ),
            ("torch/lib/libc10.so", Some("lib/libc10.so"), true),
            (
                "nvidia/cu13/lib/libcupti.so.13",
                Some("lib/libcupti.so.13"),
                true,
            ),
            ("torch/lib/libtorch_cuda.so", None, true),
            ("torch/lib/libtorch_python.so", None, false),
            ("nvidia/cu13/include/cuda.h", None, false),
            ("torch/lib/", None, false),
            ("torch/__init__.py", None, false),
        ];
        for (name, cpu, cuda) in cases {
            assert_eq!(
                destination(name, Flavour::Cpu),
                cpu.map(PathBuf::from),
                "{name}"
            );
            assert_eq!(destination(name, Flavour::Cuda).is_some(), cuda, "{name}");
        }
    }

    #[test]
    fn extraction_keeps_content_and_links_libtorch() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let entries = [("torch/lib/libtorch_cpu.so", "code"), ("torch/x.py", "no")];
        let path = wheel(folder.path(), "torch.whl", &entries);
        let into = folder.path().join("out");
        unpack(&[path], &into, Flavour::Cpu).expect("extracts");
        assert_eq!(
            fs::read_to_string(into.join("lib/libtorch.so")).expect("linked"),
            "code"
        );
        assert!(!into.join("x.py").exists() && !into.join("torch").exists());
    }

    #[test]
    fn free_space_is_read_from_df() {
        let df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 10 4 2000000 40% /\n";
        assert_eq!(free_mb(df), Some(2048));
        assert_eq!(free_mb(""), None);
    }
}
