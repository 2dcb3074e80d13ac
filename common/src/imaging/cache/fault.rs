//! Reads of a mapped file that fail: it was shortened, or its disk failed.
//!
//! The system then sends SIGBUS, which ends the process. For regions that are watched, the
//! handler here puts zeros in the region's place, and marks it as lost, so that its owner finds
//! out; for all others the handler before it decides.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

/// A part of the address space. Regions are used again, and never freed: the handler may
/// read them at any time.
struct Region {
    taken: AtomicBool,
    begin: AtomicUsize,
    end: AtomicUsize,
    lost: AtomicBool,
    next: Option<&'static Region>,
}

static FIRST: AtomicPtr<Region> = AtomicPtr::new(ptr::null_mut());
static INSTALLED: Once = Once::new();
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Watches a mapped region until it is dropped, which must precede the end of the map.
pub(super) struct Watch(&'static Region);

impl Watch {
    pub(super) fn new(map: &[u8]) -> Self {
        INSTALLED.call_once(install);
        let region = free().unwrap_or_else(added);
        region.lost.store(false, Ordering::Relaxed);
        let begin = map.as_ptr().expose_provenance();
        region.begin.store(begin, Ordering::Relaxed);
        region.end.store(begin + map.len(), Ordering::Release);
        Self(region)
    }

    /// Whether a read failed.
    pub(super) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::Release);
        self.0.taken.store(false, Ordering::Release);
    }
}

#[expect(unsafe_code, reason = "a list that a signal handler reads")]
fn regions() -> impl Iterator<Item = &'static Region> {
    // SAFETY: null, or a region that is never freed.
    let first = unsafe { FIRST.load(Ordering::Acquire).as_ref() };
    std::iter::successors(first, |region| region.next)
}

/// A region that its owner has dropped.
fn free() -> Option<&'static Region> {
    let take = |r: &&Region| !r.taken.swap(true, Ordering::Acquire);
    regions().find(take)
}

fn added() -> &'static Region {
    static ADDING: Mutex<()> = Mutex::new(());
    let _alone = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
    let region: &'static Region = Box::leak(Box::new(Region {
        taken: AtomicBool::new(true),
        begin: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
        next: regions().next(),
    }));
    FIRST.store(ptr::from_ref(region).cast_mut(), Ordering::Release);
    region
}

#[expect(unsafe_code, reason = "signal handlers have no safe form")]
fn install() {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_bus_error;
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: both structures are valid; all-zero is one, with an empty mask.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr()) == 0 {
            let _ = BEFORE.set(before.assume_init());
            libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
        }
    }
}

/// Only calls what a signal handler may: atomics, mmap, sigaction and raise.
#[expect(unsafe_code, reason = "signal handlers have no safe form")]
extern "C" fn on_bus_error(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the system passes a valid structure.
    let address = unsafe { (*info).si_addr() }.addr();
    let inside = |r: &&Region| {
        let end = r.end.load(Ordering::Acquire);
        (r.begin.load(Ordering::Relaxed)..end).contains(&address)
    };
    if regions().find(inside).is_some_and(replace) {
        return;
    }
    // SAFETY: restores what was there, and lets it see the signal once this handler ends.
    unsafe {
        let before = BEFORE.get().map_or(ptr::null(), ptr::from_ref);
        libc::sigaction(libc::SIGBUS, before, ptr::null_mut());
        libc::raise(signal);
    }
}

/// Puts zeros in the place of a region; false if the system refuses.
#[expect(unsafe_code, reason = "mmap has no safe form")]
fn replace(region: &Region) -> bool {
    // First, so that nobody takes the zeros for voxels.
    region.lost.store(true, Ordering::Release);
    let begin = region.begin.load(Ordering::Relaxed);
    let bytes = region.end.load(Ordering::Relaxed).saturating_sub(begin);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_FIXED;
    // SAFETY: the region is mapped for reading, its owner drops it before the map, and the
    // zeros take its place as a whole.
    let zeros = unsafe {
        let place = ptr::with_exposed_provenance_mut(begin);
        libc::mmap(place, bytes, libc::PROT_READ, flags, -1, 0)
    };
    zeros != libc::MAP_FAILED
}
