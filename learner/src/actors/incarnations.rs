//! Numbers that rise from one learner process of a run to the next, whatever the clock says.
//!
//! Shards refuse an actor's rows in an earlier incarnation than they know, and take rows of the same
//! one for rows that were sent again. They serve the learner with the largest number. So a
//! process reserves its numbers in the run folder before it uses them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use common::run::durable::{DurableError, write_atomic};

/// Numbers reserved at a time. Every start skips as many at most: they last for millions of starts.
const BLOCK: u32 = 1024;

/// The numbers reserved by the learners of a run, in its folder.
#[derive(Debug)]
pub struct Incarnations {
    path: PathBuf,
    first: u32,
    /// No earlier process has used this number or a larger one, nor has this one.
    reserved: u32,
    /// Distinguishes processes that have the same numbers: of copies of a run folder.
    salt: u32,
}

impl Incarnations {
    /// Reserves numbers above those of all earlier processes of this run: seconds since 1970 where
    /// the clock is ahead of those.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(run: &Path, now: SystemTime) -> Result<Self, DurableError> {
        let path = run.join("incarnations");
        let clock = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = u32::try_from(clock.as_secs()).unwrap_or(u32::MAX / 2);
        let first = seconds.max(read(&path)).max(1);
        let mut own = Self {
            path,
            first,
            reserved: first,
            salt: std::process::id() ^ clock.subsec_nanos(),
        };
        own.reserve(first)?;
        Ok(own)
    }

    /// The first number of this process.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// This learner's number for the shards.
    pub fn learner(&self) -> u64 {
        (u64::from(self.first) << 32) | u64::from(self.salt)
    }

    /// Reserves more numbers if the newest one that was used comes near to the end.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn used(&mut self, newest: u32) -> Result<(), DurableError> {
        if self.reserved.saturating_sub(newest) < BLOCK / 2 && self.reserved < u32::MAX {
            self.reserve(newest)?;
        }
        Ok(())
    }

    fn reserve(&mut self, from: u32) -> Result<(), DurableError> {
        let reserved = from.saturating_add(BLOCK);
        write_atomic(&self.path, format!("{reserved}\n").as_bytes())?;
        self.reserved = reserved;
        Ok(())
    }
}

/// The number in the file; 0 where there is none.
fn read(path: &Path) -> u32 {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                warn(path, &error.to_string());
            }
            return 0;
        }
    };
    let number = text.trim().parse();
    number.unwrap_or_else(|_| {
        warn(path, "it holds no number");
        0
    })
}

fn warn(path: &Path, why: &str) {
    tracing::warn!(
        file = %path.display(), why,
        "the numbers of this run's earlier learners are lost: the clock replaces them; if it is behind \
         the clock of the last learner, actors join again until their numbers are above the old ones"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn numbers_rise_although_the_clock_is_stepped_back() {
        let run = tempfile::tempdir().unwrap();
        let first = 1_800_000_000;
        let (mut newest, mut learner) = (0, 0);
        for seconds in [first, first - 3600, 5, first, first + 1] {
            let mut next = Incarnations::open(run.path(), at(seconds)).unwrap();
            assert!(next.first() > newest, "{seconds}");
            assert!(next.learner() > learner, "{seconds}");
            for used in 0..3000 {
                next.used(next.first() + used).unwrap();
            }
            (newest, learner) = (next.first() + 2999, next.learner());
        }
        // The clock is ahead again.
        let next = Incarnations::open(run.path(), at(first + 100_000)).unwrap();
        assert_eq!(u64::from(next.first()), first + 100_000);
    }

    #[test]
    fn a_damaged_file_leaves_the_clock() {
        let run = tempfile::tempdir().unwrap();
        for content in ["", "no number\n", "-1\n", "99999999999\n"] {
            fs::write(run.path().join("incarnations"), content).unwrap();
            let next = Incarnations::open(run.path(), at(70)).unwrap();
            assert_eq!(next.first(), 70, "{content:?}");
        }
        let before_1970 = Incarnations::open(&run.path().join("none"), at(0));
        assert!(
            before_1970
                .unwrap_err()
                .to_string()
                .contains("incarnations")
        );
    }
}
