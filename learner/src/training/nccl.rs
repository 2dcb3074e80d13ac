//! Sums over the GPUs of one machine with NCCL, which is loaded on first use.
//!
//! cudarc's bindings (0.19) look for `libnccl.so` and for the names of CUDA's
//! versions; libtorch ships NCCL only as `libnccl.so.2`. So this module
//! loads the seven functions that it uses itself.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};
use tch::{Device, Kind, Tensor};

/// The only name under which libtorch ships NCCL.
const LIBRARY: &str = "libnccl.so.2";
/// `ncclFloat32` and `ncclSum` of `nccl.h`.
const FLOAT32: c_int = 7;
const SUM: c_int = 0;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NcclError {
    /// NCCL is missing or not usable.
    #[error(
        "NCCL cannot be loaded ({0}); several GPUs need {LIBRARY}, which comes with the CUDA build of libtorch"
    )]
    Load(String),
    /// A call failed.
    #[error("NCCL {call}: {why}")]
    Call {
        call: &'static str,
        /// NCCL's message.
        why: String,
    },
    /// The tensors cannot be summed.
    #[error("NCCL: {0}")]
    Buffers(String),
}

type Communicator = *mut c_void;
type Reduce = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    c_int,
    c_int,
    Communicator,
    *mut c_void,
) -> c_int;

struct Functions {
    version: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int>,
    init_all: Symbol<unsafe extern "C" fn(*mut Communicator, c_int, *const c_int) -> c_int>,
    reduce: Symbol<Reduce>,
    group_start: Symbol<unsafe extern "C" fn() -> c_int>,
    group_end: Symbol<unsafe extern "C" fn() -> c_int>,
    destroy: Symbol<unsafe extern "C" fn(Communicator) -> c_int>,
    error_string: Symbol<unsafe extern "C" fn(c_int) -> *const c_char>,
    /// Last: symbols must not outlive it.
    _library: Library,
}

/// A communicator per GPU, all in this process.
pub struct Nccl {
    functions: Functions,
    gpus: Vec<usize>,
    communicators: Vec<Communicator>,
}

#[expect(unsafe_code, reason = "raw pointers to NCCL's own state")]
// SAFETY: communicators are handles into NCCL's memory that any thread may use,
// one at a time; `Nccl` is not `Sync`, so no two threads use it at once.
unsafe impl Send for Nccl {}

impl fmt::Debug for Nccl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nccl").field("gpus", &self.gpus).finish()
    }
}

impl Functions {
    #[expect(unsafe_code, reason = "a foreign library")]
    fn load() -> Result<Self, NcclError> {
        let failed = |e: libloading::Error| NcclError::Load(e.to_string());
        // SAFETY: NCCL's initialisers only prepare its own state. If libtorch's
        // CUDA part is loaded, this is the same copy, by its SONAME.
        let library =
            unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_GLOBAL) }.map_err(failed)?;
        // SAFETY: the types are those of nccl.h, which have not changed since NCCL 2.0.
        unsafe {
            Ok(Self {
                version: library.get(b"ncclGetVersion\0").map_err(failed)?,
                init_all: library.get(b"ncclCommInitAll\0").map_err(failed)?,
                reduce: library.get(b"ncclReduce\0").map_err(failed)?,
                group_start: library.get(b"ncclGroupStart\0").map_err(failed)?,
                group_end: library.get(b"ncclGroupEnd\0").map_err(failed)?,
                destroy: library.get(b"ncclCommDestroy\0").map_err(failed)?,
                error_string: library.get(b"ncclGetErrorString\0").map_err(failed)?,
                _library: library,
            })
        }
    }

    #[expect(unsafe_code, reason = "a foreign library")]
    fn check(&self, call: &'static str, code: c_int) -> Result<(), NcclError> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NCCL returns a static string for any code.
        let text = unsafe { (self.error_string)(code) };
        let why = if text.is_null() {
            format!("error {code}")
        } else {
            // SAFETY: not null, so NUL-terminated and never freed.
            unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned()
        };
        Err(NcclError::Call { call, why })
    }
}

impl Nccl {
    /// One communicator for each of these GPUs.
    ///
    /// # Errors
    /// When NCCL is missing or cannot connect the GPUs.
    #[expect(unsafe_code, reason = "a foreign library")]
    pub fn new(gpus: &[usize]) -> Result<Self, NcclError> {
        let functions = Functions::load()?;
        let numbers: Vec<c_int> = gpus
            .iter()
            .map(|&n| c_int::try_from(n).unwrap_or(c_int::MAX))
            .collect();
        let mut communicators = vec![std::ptr::null_mut(); numbers.len()];
        let count = c_int::try_from(numbers.len()).unwrap_or(c_int::MAX);
        // SAFETY: both buffers hold `count` entries.
        let code =
            unsafe { (functions.init_all)(communicators.as_mut_ptr(), count, numbers.as_ptr()) };
        functions.check("ncclCommInitAll", code)?;
        Ok(Self {
            functions,
            gpus: gpus.to_vec(),
            communicators,
        })
    }

    /// NCCL's version, such as 22703.
    ///
    /// # Errors
    /// NCCL's errors.
    #[expect(unsafe_code, reason = "a foreign library")]
    pub fn version(&self) -> Result<i32, NcclError> {
        let mut version = 0;
        // SAFETY: the pointer is to a local variable.
        let code = unsafe { (self.functions.version)(&raw mut version) };
        self.functions.check("ncclGetVersion", code)?;
        Ok(version)
    }

    /// Sums buffers, one per GPU in the order of [`Nccl::new`], into the first.
    ///
    /// # Errors
    /// [`NcclError::Buffers`] unless all are dense f32 tensors of one size,
    /// each on its GPU; NCCL's errors.
    #[expect(unsafe_code, reason = "a foreign library")]
    pub fn sum_to_first(&self, buffers: &[Tensor]) -> Result<(), NcclError> {
        let count = buffers.first().map_or(0, Tensor::numel);
        let fits = |(tensor, gpu): (&Tensor, &usize)| {
            tensor.device() == Device::Cuda(*gpu)
                && tensor.kind() == Kind::Float
                && tensor.is_contiguous()
                && tensor.numel() == count
        };
        if buffers.len() != self.gpus.len() || !buffers.iter().zip(&self.gpus).all(fits) {
            return Err(NcclError::Buffers(format!(
                "expected {} dense f32 tensors of {count} numbers on {:?}",
                self.gpus.len(),
                self.gpus
            )));
        }
        let f = &self.functions;
        // SAFETY: no arguments.
        f.check("ncclGroupStart", unsafe { (f.group_start)() })?;
        let mut called = Ok(());
        for (tensor, communicator) in buffers.iter().zip(&self.communicators) {
            let data = tensor.data_ptr();
            // SAFETY: `data` points to `count` floats on the communicator's GPU
            // (checked above), which live as long as `buffers`. Stream null is
            // the one that libtorch queues its work on, so NCCL reads what was
            // computed before and libtorch reads the sum after.
            let code = unsafe {
                (f.reduce)(
                    data,
                    data,
                    count,
                    FLOAT32,
                    SUM,
                    0,
                    *communicator,
                    std::ptr::null_mut(),
                )
            };
            called = called.and(f.check("ncclReduce", code));
        }
        // SAFETY: no arguments. Always called: a group left open never ends.
        let ended = f.check("ncclGroupEnd", unsafe { (f.group_end)() });
        called.and(ended)
    }
}

impl Drop for Nccl {
    #[expect(unsafe_code, reason = "a foreign library")]
    fn drop(&mut self) {
        for communicator in &self.communicators {
            // SAFETY: created by ncclCommInitAll and destroyed once.
            unsafe { (self.functions.destroy)(*communicator) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_nccl_the_error_names_the_library() {
        // Where NCCL is installed there is a GPU, and `device_check` tests it.
        match Functions::load() {
            Ok(_) => eprintln!("not run: {LIBRARY} is installed here"),
            Err(error) => assert!(error.to_string().contains(LIBRARY), "{error}"),
        }
    }
}
