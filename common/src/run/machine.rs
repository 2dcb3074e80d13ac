//! Process and disk statistics from the operating system.

use std::io;
use std::path::Path;

/// Resident memory of this process in bytes, from the kernel; 0 where it is
/// not available.
#[must_use]
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// Processor time in seconds of all threads of this process, user and kernel;
/// 0 where it is not available.
#[must_use]
pub fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ticks(&text).map_or(0.0, |ticks| ticks / TICKS_PER_SECOND)
}

/// Linux reports processor time in hundredths of a second on every machine,
/// whatever the kernel's own tick rate is (`man 5 proc`, USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// utime and stime: the 14th and 15th field. The second field, the program's
/// name, may contain anything up to its last bracket.
fn ticks(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Lowers the priority of the calling thread, and of threads that it starts
/// afterwards: 0 (unchanged) to 19, as `nice` counts. Does nothing except on
/// Linux, because elsewhere a priority applies to the whole process.
/// Fails when the system refuses, for example to raise the priority again.
pub fn give_way(nice: u8) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::setpriority_process(None, i32::from(nice))?;
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
    Ok(())
}

/// Space on a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Space that this user may still use.
    pub free: u64,
    /// Total space.
    pub size: u64,
}

/// Space on the disk of `folder`.
/// Fails when the system cannot provide it, for example for a folder that does not exist.
pub fn disk_room(folder: &Path) -> io::Result<Room> {
    let stats = rustix::fs::statvfs(folder)?;
    Ok(Room {
        free: stats.f_bavail.saturating_mul(stats.f_frsize),
        size: stats.f_blocks.saturating_mul(stats.f_frsize),
    })
}

/// Raises the limit on open files of this process to the highest that the system allows, and
/// returns it: many shells set 1024 and allow far more. Child processes inherit it.
/// Fails when the system refuses.
pub fn raise_open_files() -> io::Result<usize> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(open_files_max())
}

/// How many files, sockets included, this process may have open.
#[must_use]
pub fn open_files_max() -> usize {
    #[cfg(unix)]
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    let most = Some(1024);
    // No limit.
    most.map_or(usize::MAX, |most| {
        usize::try_from(most).unwrap_or(usize::MAX)
    })
}

/// This machine's host name.
#[must_use]
pub fn host_name() -> String {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = file.trim();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_lower_priority_applies_to_one_thread() {
        let of_this = || rustix::process::getpriority_process(None).unwrap();
        let before = of_this();
        let there = std::thread::spawn(move || {
            give_way(15).unwrap();
            let child = std::thread::spawn(of_this).join().unwrap();
            (of_this(), child)
        });
        assert_eq!(there.join().unwrap(), (15, 15));
        assert_eq!(of_this(), before);
    }

    #[cfg(unix)]
    #[test]
    fn the_limit_on_open_files_rises_to_what_the_system_allows() {
        use rustix::process::{Resource, getrlimit};
        let most = raise_open_files().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(open_files_max(), most);
    }

    #[test]
    fn the_program_s_name_may_hold_brackets_and_spaces() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(ticks(stat), Some(300.0));
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn this_process_and_its_disk_are_known() {
        let mut sum = 0_u64;
        let begin = std::time::Instant::now();
        while begin.elapsed().as_millis() < 50 {
            sum = sum.wrapping_mul(31).wrapping_add(7);
        }
        assert_ne!(sum, 1);
        assert!(resident_bytes() > 100_000);
        assert!(processor_seconds() >= 0.03, "{}", processor_seconds());
        let dir = tempfile::tempdir().unwrap();
        let room = disk_room(dir.path()).unwrap();
        assert!(room.size > 0 && room.free <= room.size, "{room:?}");
        assert!(disk_room(&dir.path().join("gone")).is_err());
    }
}
