//! A shard's settings and their validation.

use crate::error::ShardError;
use crate::journal::JournalConfig;
use crate::table::Table;
use crate::table::selector::Selector;
use common::transition::row::RowShape;
use proto::messages::hello::Hello;
use proto::transport::security::Security;

/// The smallest possible row: the capacity is checked against it until the row
/// shape is known.
const SMALLEST: RowShape = RowShape {
    agents: 1,
    history: 1,
};

/// A shard's settings.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// The shard's number in the run.
    pub shard: u32,
    /// Must increase with every restart.
    pub incarnation: u64,
    /// Maximum number of rows.
    pub capacity: usize,
    /// How rows are sampled.
    pub selector: Selector,
    /// Seed of the sampler; each shard of a run uses its own stream.
    pub seed: u64,
    /// Run, data, configuration and row shape; `None`: those of the first caller.
    pub hello: Option<Hello>,
    /// Memory limit of the table in bytes.
    pub memory_max: u64,
    /// Maximum number of writers whose last sequence number is kept.
    pub writers_max: usize,
    /// Where rows are kept on disk; `None`: in memory only.
    pub journal: Option<JournalConfig>,
    /// TLS and authentication.
    pub security: Security,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            shard: 0,
            incarnation: 1,
            capacity: 200_000,
            selector: Selector::Prioritised {
                alpha: 0.6,
                epsilon: 0.01,
                max: 10.0,
            },
            seed: 0,
            hello: None,
            memory_max: 16 << 30,
            writers_max: 4096,
            journal: None,
            security: Security::none(),
        }
    }
}

impl ShardConfig {
    /// Rejects invalid settings.
    pub fn check(&self) -> Result<(), ShardError> {
        self.selector.check()?;
        let capacity = self.capacity;
        if capacity == 0 || u32::try_from(capacity).is_err() {
            return Err(ShardError::Capacity { capacity });
        }
        self.check_memory(self.hello.as_ref().map_or(SMALLEST, |hello| hello.shape))
    }

    /// Checks that `capacity` rows of this shape fit into `memory_max`.
    pub fn check_memory(&self, shape: RowShape) -> Result<(), ShardError> {
        let (capacity, row_bytes) = (self.capacity, shape.bytes());
        let needed = Table::bytes(capacity, row_bytes);
        if needed > self.memory_max {
            return Err(ShardError::Memory {
                capacity,
                row_bytes,
                needed,
                memory_max: self.memory_max,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        ShardConfig::default().check().unwrap();
    }

    #[test]
    fn invalid_settings_are_refused_with_numbers() {
        let error = |change: fn(&mut ShardConfig)| {
            let mut config = ShardConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(error(|c| c.capacity = 0).contains("capacity 0"));
        assert!(error(|c| c.capacity = 1 << 40).contains("capacity 1099511627776"));
        let zero = |config: &mut ShardConfig| {
            config.selector = Selector::Prioritised {
                alpha: 0.6,
                epsilon: 0.0,
                max: 1.0,
            };
        };
        assert!(error(zero).contains("epsilon = 0"));
        // 200,000 x (56 + 4) bytes and a tree of 262,144 leaves.
        let text = error(|c| c.memory_max = 10_000_000);
        for part in ["16.2 MB", "10.0 MB"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
