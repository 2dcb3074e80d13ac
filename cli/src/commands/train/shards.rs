//! The replay shards of `landmarl train`, and the addresses of its services.

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::path::Path;

use common::config::Config;
use proto::messages::hello::Hello;
use replay_server::table::selector::Selector;
use replay_server::{JournalConfig, ShardConfig};
use tokio::net::TcpListener;

use crate::output::failure::{Advice, Exit};

/// Binds a listener to a free loopback port and returns its address.
pub fn loopback() -> anyhow::Result<(TcpListener, String)> {
    let bound = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        Ok((TcpListener::from_std(listener)?, address))
    });
    Ok(bound.map_err(|e| {
        let message = format!("cannot listen on 127.0.0.1: {e}");
        Advice::new(Exit::Unreachable, message)
    })?)
}

/// The settings of each shard: shards share the capacity evenly, and keep a journal in
/// `folder` if the configuration enables it.
pub fn configs(
    config: &Config,
    hello: &Hello,
    incarnation: u64,
    folder: &Path,
) -> Vec<ShardConfig> {
    let replay = &config.replay;
    let one = |shard| ShardConfig {
        shard,
        incarnation,
        capacity: replay.capacity.div_ceil(replay.shards),
        selector: Selector::from(replay),
        seed: config.run.seed,
        hello: Some(hello.clone()),
        journal: replay
            .journal
            .then(|| JournalConfig::new(&folder.join(format!("shard-{shard}")))),
        ..ShardConfig::default()
    };
    (0..).take(replay.shards).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capacity_is_shared_and_nothing_is_lost() {
        let mut config = Config::defaults().unwrap();
        (config.replay.shards, config.replay.capacity) = (3, 100);
        let hello = Hello::new("r", &config, [0; 32]);
        let all = configs(&config, &hello, 5, Path::new("kept"));
        let numbers = all.iter().map(|c| (c.shard, c.incarnation, c.capacity));
        let numbers: Vec<_> = numbers.collect();
        assert_eq!(numbers, [(0, 5, 34), (1, 5, 34), (2, 5, 34)]);
        all.iter().for_each(|c| c.check().unwrap());
        assert!(all.iter().all(|c| c.journal.is_some()));
        let journal = all[1].journal.clone().unwrap();
        assert_eq!(journal.folder, Path::new("kept/shard-1"));
        config.replay.journal = false;
        let all = configs(&config, &hello, 5, Path::new("kept"));
        assert!(all.iter().all(|c| c.journal.is_none()));
    }
}
