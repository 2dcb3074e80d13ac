//! What peers do to the services.

mod connections;
mod messages;
mod unread;
mod web;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use proto::messages::hello::Hello;
use proto::transport::security::Role;
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::net::{Credentials, Port, Protocol};

/// Before a peer whose connection was closed comes again.
const PAUSE: Duration = Duration::from_secs(1);
/// More than a service with 1,024 files could hold.
const CONNECTIONS: usize = 1020;
/// Hosts of an attack that has several.
const HOSTS: u8 = 40;

/// Who attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Anybody who reaches a cluster without certificates.
    Anybody,
    /// Somebody without a certificate who reaches a cluster that asks for one.
    Stranger,
    /// Somebody with a certificate of the cluster, and with its token where the attack needs it.
    Member,
}

#[derive(Debug)]
pub struct Attack {
    pub name: &'static str,
    pub by: By,
    /// Hosts that attack: honest clients are only promised to be served beside one.
    pub hosts: u8,
    begin: fn(&Arc<Arena>, &mut Tasks) -> Result<()>,
}

type Tasks = JoinSet<()>;

/// The attacks, in the order in which one cluster meets them; those whose streams nobody reads
/// last, because services have to stop beside them too.
pub const ATTACKS: &[Attack] = &[
    of("one-byte", By::Anybody, connections::one_byte),
    of("half-preface", By::Anybody, connections::half_preface),
    of("idle", By::Anybody, connections::idle),
    several("one-byte-40-hosts", connections::one_byte),
    several("idle-40-hosts", connections::idle),
    of("half-sent-health", By::Anybody, messages::health),
    of("half-sent-large", By::Anybody, messages::large),
    of("long-names", By::Anybody, messages::long_names),
    of("http-bodies", By::Anybody, web::bodies),
    of("http-unread", By::Anybody, web::unread),
    of("unread-watches", By::Anybody, unread::watches),
    of("unread-pulls", By::Anybody, unread::pulls),
    of("tls-one-byte", By::Stranger, connections::one_byte),
    of(
        "tls-non-handshakes",
        By::Stranger,
        connections::non_handshakes,
    ),
    of(
        "tls-half-handshakes",
        By::Stranger,
        connections::half_handshakes,
    ),
    of("tls-half-sent", By::Member, messages::health),
    of("tls-half-sent-large", By::Member, messages::large),
    of("tls-http-unread", By::Member, web::unread),
    of("tls-unread-pulls", By::Member, unread::pulls),
];

type Begin = fn(&Arc<Arena>, &mut Tasks) -> Result<()>;

const fn of(name: &'static str, by: By, begin: Begin) -> Attack {
    Attack {
        name,
        by,
        hosts: 1,
        begin,
    }
}

const fn several(name: &'static str, begin: Begin) -> Attack {
    Attack {
        hosts: HOSTS,
        ..of(name, By::Anybody, begin)
    }
}

impl Attack {
    /// Begins the attack; it goes on until its tasks are dropped.
    pub fn begin(&self, cluster: &Cluster) -> Result<(Arc<Arena>, Tasks)> {
        let arena = Arc::new(Arena {
            hosts: self.hosts,
            ports: cluster.ports.clone(),
            // A stranger uses them to make the first bytes of a handshake.
            credentials: cluster.operator.clone(),
            hello: cluster.hello.clone(),
            counts: Mutex::default(),
        });
        let mut tasks = Tasks::new();
        (self.begin)(&arena, &mut tasks)?;
        Ok((arena, tasks))
    }
}

/// What an attack sees of the cluster, and counts.
pub struct Arena {
    hosts: u8,
    ports: Vec<Port>,
    credentials: Option<Credentials>,
    hello: Hello,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Arena {
    /// The address of one attacker of many.
    fn host(&self, number: usize) -> IpAddr {
        if self.hosts == 1 {
            return Ipv4Addr::new(127, 0, 0, 2).into();
        }
        let host = number % usize::from(self.hosts);
        Ipv4Addr::new(127, 0, 1, host as u8 + 1).into()
    }

    fn of(&self, protocol: Protocol) -> impl Iterator<Item = Port> {
        self.ports
            .iter()
            .copied()
            .filter(move |p| p.protocol == protocol)
    }

    fn port(&self, role: Role, protocol: Protocol) -> Result<Port> {
        let found = self.of(protocol).find(|port| port.role == role);
        found.ok_or_else(|| anyhow::anyhow!("no {protocol:?} port of {role}"))
    }

    fn count(&self, what: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += 1;
    }

    /// What happened how often.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.counts.lock();
        counts.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
