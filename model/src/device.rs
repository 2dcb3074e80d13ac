//! Device selection, and loading CUDA at run time.
//!
//! Binaries are linked against the CPU part of libtorch; the CUDA part is
//! loaded here if a GPU is requested, so that one binary supports both.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Once, OnceLock};

use common::config::Precision;
use serde::{Deserialize, Serialize};
use tch::{Cuda, Device};

use crate::error::ModelError;

/// Names the folder that holds `libtorch_cuda.so`; takes precedence over the folder
/// of the loaded libtorch.
pub const LIBTORCH_VARIABLE: &str = "LANDMARL_LIBTORCH";

/// A device in the configuration: `cpu`, `cuda`, `cuda:N` or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
    /// The first CUDA device if there is one, else the CPU.
    #[default]
    Auto,
}

impl FromStr for DeviceChoice {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "auto" => Ok(Self::Auto),
            _ => text
                .strip_prefix("cuda:")
                .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| ModelError::DeviceName(text.to_owned())),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = ModelError;

    fn try_from(text: String) -> Result<Self, ModelError> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl DeviceChoice {
    /// The device to use. Returns the CPU if a requested GPU is not available, and logs a
    /// warning once: in one process each service calls this.
    #[must_use]
    pub fn resolve(self) -> Device {
        static NO_GPU: Once = Once::new();
        let (wanted, required) = match self {
            Self::Cpu => return Device::Cpu,
            Self::Cuda(n) => (n, true),
            Self::Auto => (0, false),
        };
        match cuda() {
            Ok(count) if wanted < *count => return Device::Cuda(wanted),
            Ok(count) if required => NO_GPU.call_once(|| {
                tracing::warn!(asked = %self, found = count, "no such CUDA device; computing on the CPU");
            }),
            Err(reason) if required => NO_GPU.call_once(|| {
                tracing::warn!(asked = %self, reason, "CUDA is not available; computing on the CPU");
            }),
            Ok(_) | Err(_) => {}
        }
        Device::Cpu
    }
}

/// Number of CUDA devices, or the reason why there is none. The first call loads
/// `libtorch_cuda.so`; later calls return the same result.
///
/// # Errors
/// The reason as text, for `doctor` and the log.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks, after loading"
)]
pub fn cuda() -> &'static std::result::Result<usize, String> {
    static FOUND: OnceLock<std::result::Result<usize, String>> = OnceLock::new();
    FOUND.get_or_init(|| {
        // libtorch looks for its CUDA part only once, at the first query, so the
        // library must be loaded before.
        let loaded = load_cuda();
        if Cuda::is_available() {
            return Ok(usize::try_from(Cuda::device_count()).unwrap_or(0));
        }
        let library = loaded?;
        let path = library.display();
        Err(format!("{path} is loaded but finds no usable GPU"))
    })
}

/// Whether convolutions compute in bfloat16 under a `precision` setting.
#[must_use]
pub fn wants_bf16(precision: Precision, device: Device) -> bool {
    match precision {
        Precision::Bf16 => true,
        Precision::F32 => false,
        Precision::Auto => device.is_cuda(),
    }
}

/// Lets cuDNN benchmark its algorithms for every new shape of a convolution and keep
/// the fastest: for workloads with constant shapes. Applies to the whole process.
pub fn tune_convolutions(on: bool) {
    Cuda::cudnn_set_benchmark(on);
}

/// Sets the number of threads per libtorch operation in this process.
pub fn set_threads(n: usize) {
    tch::set_num_threads(i32::try_from(n.max(1)).unwrap_or(1));
}

fn load_cuda() -> std::result::Result<PathBuf, String> {
    let folders = library_folders();
    let mut paths = folders.iter().map(|f| f.join("libtorch_cuda.so"));
    let Some(path) = paths.find(|path| path.is_file()) else {
        let tried: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
        return Err(format!(
            "libtorch_cuda.so is not in {}; install the CUDA build of libtorch or set {LIBTORCH_VARIABLE} to its lib folder",
            tried.join(", ")
        ));
    };
    open_globally(&path)?;
    tracing::debug!(path = %path.display(), "loaded CUDA libraries");
    Ok(path)
}

/// Candidate folders of libtorch's libraries, best first.
fn library_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(set) = std::env::var_os(LIBTORCH_VARIABLE) {
        let set = PathBuf::from(set);
        folders.push(set.join("lib"));
        folders.push(set);
    }
    folders.extend(loaded_libtorch_folder());
    if let Ok(exe) = std::env::current_exe()
        && let Some(folder) = exe.parent()
    {
        folders.push(folder.join("../lib"));
    }
    folders
}

/// The folder that this process loaded `libtorch_cpu.so` from: the run path
/// that the binary was built with, or `../lib` if installed, as resolved by the
/// loader.
fn loaded_libtorch_folder() -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps
        .lines()
        .filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let path = paths.find(|path| path.ends_with("libtorch_cpu.so"))?;
    path.parent().map(Path::to_owned)
}

#[expect(unsafe_code, reason = "dlopen and dlerror have no safe form")]
fn open_globally(path: &Path) -> std::result::Result<(), String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call. The
    // library is libtorch's own, whose initialisers only register kernels; the
    // handle is never closed, so its code stays mapped.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: after a failed dlopen, dlerror returns null or a NUL-terminated
    // string that is valid until this thread's next dl call.
    let reason = unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            "unknown reason".to_owned()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    };
    Err(format!("{} cannot be loaded: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, choice) in [
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:12", DeviceChoice::Cuda(12)),
            ("auto", DeviceChoice::Auto),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap(), choice);
            assert_eq!(choice.to_string(), text);
        }
        let first: DeviceChoice = "cuda".parse().unwrap();
        assert_eq!(first, DeviceChoice::Cuda(0));
        let bad = ",gpu,CPU,cuda:,cuda:-1,cuda:+1,cuda: 1,cuda:99999999999999999999";
        for bad in bad.split(',') {
            let error = bad.parse::<DeviceChoice>().unwrap_err().to_string();
            let expected = "expected cpu, cuda, cuda:N or auto";
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn a_missing_gpu_resolves_to_the_cpu() {
        assert_eq!(DeviceChoice::Cpu.resolve(), Device::Cpu);
        assert_eq!(DeviceChoice::Cuda(usize::MAX).resolve(), Device::Cpu);
    }

    #[test]
    fn the_loaded_libtorch_is_found() {
        // Creating a tensor ensures that the library is in use.
        assert_eq!(tch::Tensor::from_slice(&[1_i64, 2]).numel(), 2);
        let folder = loaded_libtorch_folder().unwrap();
        assert!(folder.join("libtorch_cpu.so").is_file(), "{folder:?}");
    }

    #[test]
    fn an_error_of_the_loader_is_returned() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libtorch_cuda.so");
        std::fs::write(&path, b"not a library").unwrap();
        let reason = open_globally(&path).unwrap_err();
        assert!(reason.contains("cannot be loaded"), "{reason}");
    }
}
