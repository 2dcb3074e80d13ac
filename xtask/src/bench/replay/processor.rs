//! Who used the processors while something was measured: the shards, the
//! clients, or somebody else, whose work would spoil the figure.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Ticks per second of the times in /proc: fixed in what Linux shows to programs.
const TICKS: f64 = 100.0;

/// A reading of the counters.
#[derive(Debug)]
pub struct Usage {
    at: Instant,
    machine_s: f64,
    shards_s: f64,
}

/// Cores used on average between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cores {
    /// That there are.
    pub all: f64,
    /// By all shards.
    pub shards: f64,
    /// By all clients.
    pub clients: f64,
    /// By everything else.
    pub others: f64,
}

impl Usage {
    /// Reads the counters of the machine and of these processes.
    pub fn now(shards: &[u32]) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("no /proc/stat: Linux is needed")?;
        let mut shards_s = 0.0;
        for pid in shards {
            let path = format!("/proc/{pid}/stat");
            let text =
                fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
            shards_s += process_s(&text).with_context(|| format!("{path} is not understood"))?;
        }
        Ok(Self {
            at: Instant::now(),
            machine_s: machine_s(&stat).context("/proc/stat is not understood")?,
            shards_s,
        })
    }

    /// What was used from this reading to a later one.
    pub fn until(&self, later: &Self, clients_s: f64) -> Cores {
        let seconds = (later.at - self.at).as_secs_f64().max(1e-9);
        let shards = (later.shards_s - self.shards_s) / seconds;
        let clients = clients_s / seconds;
        let all = std::thread::available_parallelism().map_or(1.0, |n| f64::from(n.get() as u32));
        Cores {
            all,
            shards,
            clients,
            others: ((later.machine_s - self.machine_s) / seconds - shards - clients).max(0.0),
        }
    }
}

/// Busy seconds of all processors: everything but idle and waiting for disks.
fn machine_s(stat: &str) -> Option<f64> {
    let line = stat.lines().find(|line| line.starts_with("cpu "))?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = [0, 1, 2, 5, 6, 7];
    let sum: Option<f64> = busy.iter().map(|&field| ticks.get(field)).sum();
    Some(sum? / TICKS)
}

/// Seconds that one process used, all its threads together.
fn process_s(stat: &str) -> Option<f64> {
    // The name, in parentheses, may hold anything; the fields follow it.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let user: f64 = fields.get(11)?.parse().ok()?;
    let system: f64 = fields.get(12)?.parse().ok()?;
    Some((user + system) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_understood() {
        let stat = "cpu  100 10 50 9999 77 1 2 3 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(machine_s(stat), Some(1.66));
        let process = "42 (a ) name) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 5 6 7";
        assert_eq!(process_s(process), Some(3.0));
        assert_eq!(machine_s("intr 5\n"), None);
        assert_eq!(process_s("42 (x) S 1"), None);
    }
}
