//! The processor time of this client, to separate it from that of the shards.

/// Ticks per second of the times in /proc: fixed in Linux's user-space ABI.
const TICKS: f64 = 100.0;

/// Processor seconds of this process so far; 0 if the system does not report it.
pub fn seconds() -> f64 {
    std::fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|stat| parse(&stat))
        .unwrap_or(0.0)
}

fn parse(stat: &str) -> Option<f64> {
    // The name, in parentheses, may hold anything; the fields follow it.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let user: f64 = fields.get(11)?.parse().ok()?;
    let system: f64 = fields.get(12)?.parse().ok()?;
    Some((user + system) / TICKS)
}
