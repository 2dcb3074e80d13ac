//! Memory between one batch and the next.

/// Lets this process keep freed memory for the next batch instead of giving it
/// back to the system.
///
/// By default glibc maps every tensor of more than a few hundred kB anew and
/// unmaps it afterwards; the pages of one training batch cost a tenth of the
/// update that way. At most 512 MiB are kept at the end of the heap. Elsewhere
/// than with glibc this does nothing. To be called first thing in `main`.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt has no safe form")]
fn glibc() {
    /// The largest that glibc takes.
    const MAP_FROM: libc::c_int = 32 << 20;
    const KEEP: libc::c_int = 512 << 20;
    // SAFETY: changes two numbers of the allocator and touches no memory of ours.
    let taken = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAP_FROM) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, KEEP) == 1
    };
    if !taken {
        tracing::debug!("the allocator keeps its own thresholds");
    }
}
