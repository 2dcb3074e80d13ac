//! Reuse of memory between batches.

/// Lets this process keep freed memory for the next batch instead of returning it
/// to the system.
///
/// By default glibc maps every tensor above a few hundred kB anew and unmaps it
/// afterwards; page faults then take a tenth of a training update. At most 512 MiB
/// are kept at the end of the heap. Does nothing without glibc. Call it first in
/// `main`.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt has no safe form")]
fn glibc() {
    /// The largest value that glibc accepts.
    const MAP_FROM: libc::c_int = 32 << 20;
    const KEEP: libc::c_int = 512 << 20;
    // SAFETY: sets two parameters of the allocator and touches no memory of ours.
    let taken = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAP_FROM) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, KEEP) == 1
    };
    if !taken {
        tracing::debug!("the allocator keeps its own thresholds");
    }
}
