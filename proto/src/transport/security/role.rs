//! The roles that certificates name.

use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use std::fmt;
use std::str::FromStr;
use webpki::EndEntityCert;

/// Suffix of the DNS names of roles; no host has such a name.
const DOMAIN: &str = "landmarl.internal";

/// The role of a process or a person in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Trains; the only one that samples.
    Learner,
    /// A replay shard.
    Replay,
    /// Runs episodes and inserts rows.
    Actor,
    /// Watches the weights and evaluates them.
    Evaluator,
    /// A person: status, snapshots, checkpoints, log levels.
    Operator,
    /// Reads metrics.
    Monitor,
}

impl Role {
    pub const ALL: [Self; 6] = [
        Self::Learner,
        Self::Replay,
        Self::Actor,
        Self::Evaluator,
        Self::Operator,
        Self::Monitor,
    ];

    /// As in file names and on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Learner => "learner",
            Self::Replay => "replay",
            Self::Actor => "actor",
            Self::Evaluator => "evaluator",
            Self::Operator => "operator",
            Self::Monitor => "monitor",
        }
    }

    /// The DNS name that a certificate of this role carries, and that clients
    /// expect of a server in this role, wherever it runs.
    #[must_use]
    pub fn dns_name(self) -> String {
        format!("{}.{DOMAIN}", self.name())
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An unknown name of a role.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a role; there are learner, replay, actor, evaluator, operator, monitor")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(word: &str) -> Result<Self, UnknownRole> {
        let found = Self::ALL.into_iter().find(|role| role.name() == word);
        found.ok_or_else(|| UnknownRole(word.to_owned()))
    }
}

/// Several roles: what a certificate names, or who may do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles(u8);

impl Roles {
    #[must_use]
    pub const fn of(roles: &[Role]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < roles.len() {
            bits |= 1 << roles[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// The roles that a certificate names; none if it cannot be parsed.
    #[must_use]
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Self {
        let Ok(certificate) = EndEntityCert::try_from(certificate) else {
            return Self::default();
        };
        let named = |role: &Role| {
            let name = DnsName::try_from(role.dns_name()).map(ServerName::DnsName);
            name.is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        };
        let roles: Vec<Role> = Role::ALL.into_iter().filter(named).collect();
        Self::of(&roles)
    }

    #[must_use]
    pub fn has(self, role: Role) -> bool {
        self.overlap(Self::of(&[role]))
    }

    /// Whether the two have a role in common.
    #[must_use]
    pub fn overlap(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no role");
        }
        let roles = Role::ALL.into_iter().filter(|r| self.has(*r));
        f.write_str(&roles.map(Role::name).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_words_and_sets() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert!(Roles::of(&Role::ALL).has(role));
        }
        let error = "root".parse::<Role>().unwrap_err().to_string();
        assert!(
            error.contains("\"root\"") && error.contains("monitor"),
            "{error}"
        );
        let two = Roles::of(&[Role::Actor, Role::Learner]);
        assert_eq!(two.to_string(), "learner, actor");
        assert!(two.has(Role::Actor) && !two.has(Role::Replay) && !two.is_empty());
        assert_eq!(Roles::default().to_string(), "no role");
    }
}
