//! Which shard holds an episode.

use common::transition::row::RowHeader;

/// The shard (0..`shards`) of a row: a hash of its episode, so that an
/// episode's rows stay together and episodes spread evenly. `shards` ≥ 1.
#[must_use]
pub fn shard_of(header: &RowHeader, shards: usize) -> usize {
    let who = u64::from(header.actor) << 48
        | u64::from(header.incarnation) << 16
        | u64::from(header.slot);
    let hash = mix(mix(who).wrapping_add(u64::from(header.episode)));
    // The high half of hash · shards: even for any number of shards.
    usize::try_from((u128::from(hash) * shards as u128) >> 64).unwrap_or(0)
}

/// SplitMix64 (Steele et al. 2014): every input bit reaches every output bit.
fn mix(v: u64) -> u64 {
    let v = v.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let v = (v ^ v >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let v = (v ^ v >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    v ^ v >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn episodes_stay_together_and_spread_evenly() {
        for shards in [1, 2, 3, 7] {
            let mut counts = vec![0_usize; shards];
            for slot in 0..30 {
                for episode in 0..100 {
                    let header = RowHeader {
                        actor: 2,
                        incarnation: 1,
                        slot,
                        episode,
                        ..RowHeader::default()
                    };
                    let mut later = header;
                    (later.step, later.scan, later.weights_version) = (9, 4, 8);
                    let shard = shard_of(&header, shards);
                    assert_eq!(shard, shard_of(&later, shards));
                    counts[shard] += 1;
                }
            }
            let even = 3000 / shards;
            let near = counts.iter().all(|&c| c.abs_diff(even) < even / 5);
            assert!(near, "{counts:?}");
        }
    }
}
