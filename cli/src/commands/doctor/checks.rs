//! The individual checks.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use common::config::Config;
use common::imaging::dataset::{DatasetSpec, Source};
use common::imaging::landmark_file::LandmarkFile;
use common::imaging::nifti_io;

use super::Check;

/// The version that this build requires: tch 0.24 binds libtorch 2.11.
const LIBTORCH_VERSION: &str = "2.11";
const VERSION_HEADER: &str = "include/torch/headeronly/version.h";
const GIB: u64 = 1 << 30;

pub fn libtorch() -> Check {
    let name = "libtorch";
    // Creating a tensor proves that the library is loaded and works.
    let tensor = tch::Tensor::f_from_slice(&[1.0_f32, 2.0]);
    if !tensor.is_ok_and(|t| t.numel() == 2) {
        let fix = "run `cargo xtask setup` and build again";
        return Check::fail(name, "cannot create a tensor", fix);
    }
    let Some(folder) = loaded_from() else {
        let detail = "works, but its library file was not found";
        return Check::warn(name, detail, "none needed if training runs");
    };
    let header = folder.parent().map(|p| p.join(VERSION_HEADER));
    let header = header.and_then(|path| std::fs::read_to_string(path).ok());
    let version = header.and_then(|text| header_version(&text));
    let place = folder.display();
    match version {
        Some(v) if v.starts_with(&format!("{LIBTORCH_VERSION}.")) => {
            Check::ok(name, format!("{v} for tch 0.24, in {place}"))
        }
        Some(v) => Check::fail(
            name,
            format!("{v} in {place}, but tch 0.24 needs {LIBTORCH_VERSION}"),
            "run `cargo xtask setup`, or set LIBTORCH to that version, and build again",
        ),
        None => Check::warn(
            name,
            format!("in {place}, version unknown (no {VERSION_HEADER})"),
            format!("check that the version is {LIBTORCH_VERSION}"),
        ),
    }
}

/// The folder from which the loader loaded libtorch.
fn loaded_from() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps
        .lines()
        .filter_map(|l| l.find('/').map(|at| Path::new(&l[at..])));
    let path = paths.find(|p| p.file_name().is_some_and(|n| n == "libtorch_cpu.so"))?;
    path.parent().map(Path::to_owned)
}

/// The value of `#define TORCH_VERSION`, which is on the next line.
fn header_version(header: &str) -> Option<String> {
    let after = header.split("#define TORCH_VERSION ").nth(1)?;
    let quoted = after
        .trim_start_matches(['\\', '\r', '\n', ' '])
        .strip_prefix('"')?;
    quoted.split('"').next().map(str::to_owned)
}

pub fn threads() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = tch::get_num_threads();
    let detail = format!("{cores} cores, libtorch uses {threads} threads");
    if cores < 2 {
        return Check::warn("threads", detail, "training needs at least 2 cores");
    }
    Check::ok("threads", detail)
}

pub fn cuda() -> Check {
    match model::device::cuda() {
        Ok(count) => Check::ok("CUDA", format!("{count} devices")),
        Err(reason) => Check::warn(
            "CUDA",
            format!("not used: {reason}"),
            "none needed for the small network; the paper's network needs a GPU",
        ),
    }
}

pub fn disk(name: &'static str, folder: &Path) -> Check {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let place = absolute.display();
    let Some(there) = absolute.ancestors().find(|p| p.exists()) else {
        let detail = format!("{place} has no existing parent");
        return Check::fail(name, detail, "choose another folder");
    };
    if !there.is_dir() {
        let detail = format!("cannot create {place}: {} is a file", there.display());
        return Check::fail(name, detail, "choose another folder");
    }
    let probe = there.join(format!(".landmarl-probe-{}", std::process::id()));
    let written = std::fs::write(&probe, b"probe").and_then(|()| std::fs::remove_file(&probe));
    if let Err(e) = written {
        let detail = format!("cannot write to {place}: {e}");
        return Check::fail(name, detail, "choose another folder, or change its owner");
    }
    let space = match rustix::fs::statvfs(there) {
        Ok(space) => space,
        Err(e) => {
            let detail = format!("{place}: free space unknown ({e})");
            return Check::warn(name, detail, "none needed if there is enough space");
        }
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let detail = format!("{place}: {:.1} GiB free", free as f64 / GIB as f64);
    if free < GIB / 4 {
        Check::fail(name, detail, "free some space: runs need a few hundred MB")
    } else if free < 2 * GIB {
        Check::warn(name, detail, "free some space before a long run")
    } else {
        Check::ok(name, detail)
    }
}

/// The cache folder for preprocessed volumes.
pub fn cache_folder(config: &Config) -> PathBuf {
    if !config.data.cache.is_empty() {
        return PathBuf::from(&config.data.cache);
    }
    let folder = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let home = || folder("HOME").map(|home| home.join(".cache"));
    let base = folder("XDG_CACHE_HOME").or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("landmarl")
}

pub fn port(address: &str) -> Check {
    let number = address.rsplit(':').next().unwrap_or_default();
    let name = "port";
    match TcpListener::bind(format!("127.0.0.1:{number}")) {
        Ok(_) => {
            let detail = format!("{number} is free (only the separate `learner` needs it)");
            Check::ok(name, detail)
        }
        Err(e) => Check::warn(
            name,
            format!("cannot use {number}: {e}"),
            "set cluster.learner to another port if you start `learner`; `landmarl train` is not affected",
        ),
    }
}

pub fn data(config: &Config) -> Check {
    let name = "data";
    if config.data.train_images.is_empty() {
        let fix = "give --config or --set data.train_images=PATH to check scans";
        return Check::ok(name, format!("none configured; {fix}"));
    }
    match first_scan(config) {
        Ok(detail) => Check::ok(name, detail),
        Err(why) => Check::fail(
            name,
            why,
            "correct data.train_images or the file; `landmarl data check` checks all files",
        ),
    }
}

fn first_scan(config: &Config) -> Result<String, String> {
    let spec = DatasetSpec::training(config);
    let pairs = Source::read(&spec.images, spec.landmarks.as_deref())
        .and_then(|source| source.pairs(spec.split, spec.fold))
        .map_err(|errors| {
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            match errors.len() {
                0 | 1 => first,
                n => format!("{n} problems, the first: {first}"),
            }
        })?;
    let first = pairs.first().ok_or("no scans in data.train_images")?;
    let image = nifti_io::read(&first.image, &config.data.limits()).map_err(|e| e.to_string())?;
    for landmarks in &first.landmarks {
        LandmarkFile::read(landmarks).map_err(|e| e.to_string())?;
    }
    let (count, shown, dims) = (pairs.len(), first.image.display(), image.dims());
    Ok(format!("{count} scans; {shown} decodes: {dims:?} voxels"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::Verdict;

    #[test]
    fn a_folder_below_a_file_fails_and_a_missing_folder_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(disk("x", &file.join("runs")).verdict, Verdict::Fail);
        let to_create = disk("x", &dir.path().join("a/b"));
        assert!(to_create.detail.contains("GiB free"));
    }

    #[test]
    fn a_port_in_use_gives_a_warning() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap().to_string();
        assert_eq!(port(&address).verdict, Verdict::Warn);
    }

    #[test]
    fn versions_are_read_from_the_header() {
        let text = "#define TORCH_VERSION \\\n  \"2.11.0\"\n";
        assert_eq!(header_version(text).unwrap(), "2.11.0");
        assert_eq!(libtorch().verdict, Verdict::Ok);
    }
}
