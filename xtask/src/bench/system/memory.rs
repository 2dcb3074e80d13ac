//! What several processes hold together, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};
use serde::Serialize;

/// The largest sums that were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Peak {
    pub processes: usize,
    /// Sum of the resident sets: a page that several processes share counts in each.
    pub resident: u64,
    /// Sum of the proportional sets: such a page counts once.
    pub proportional: u64,
}

/// Watches processes.
#[derive(Debug)]
pub struct Memory {
    pids: Vec<u32>,
    peak: Peak,
}

impl Memory {
    pub fn new(pids: Vec<u32>) -> Self {
        let peak = Peak {
            processes: pids.len(),
            resident: 0,
            proportional: 0,
        };
        Self { pids, peak }
    }

    /// Reads all of them now.
    pub fn look(&mut self) -> Result<()> {
        let (mut resident, mut proportional) = (0, 0);
        for pid in &self.pids {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text =
                fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
            let of = |name| field(&text, name).with_context(|| format!("{path} has no {name}"));
            resident += of("Rss:")?;
            proportional += of("Pss:")?;
        }
        self.peak.resident = self.peak.resident.max(resident);
        self.peak.proportional = self.peak.proportional.max(proportional);
        Ok(())
    }

    pub fn peak(&self) -> Peak {
        self.peak
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let text =
            "55d0-7ffe ---p 0 00:00 0 [rollup]\nRss:   12 kB\nPss:    8 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(
            (field(text, "Rss:"), field(text, "Pss:")),
            (Some(12_288), Some(8192))
        );
        assert_eq!(field(text, "Swap:"), None);
        let mut memory = Memory::new(vec![std::process::id()]);
        memory.look().unwrap();
        let peak = memory.peak();
        assert!(
            peak.resident >= peak.proportional && peak.proportional > 0,
            "{peak:?}"
        );
    }
}
