//! Makes an authority, certificates of roles, and a join token.

use super::role::Role;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use std::fmt;
use std::time::{Duration, SystemTime};

/// Clocks of other machines may differ from ours by so much.
const SKEW: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// An authority outlives the certificates that it signs over the years.
const AUTHORITY_DAYS: u32 = 3650;
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// Why nothing could be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A name that no certificate can carry, or a key that is none.
    #[error("no certificate can be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// Beyond what a clock can say.
    #[error("{days} days from now is a time that no certificate can name; ask for fewer")]
    Days {
        /// How many.
        days: u32,
    },
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    /// For everybody.
    pub certificate: String,
    /// For its owner alone.
    pub key: String,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, which holds for at least so many days.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn new(days: u32) -> Result<Self, IssueError> {
        let key = KeyPair::generate()?;
        let mut params = authority();
        within(&mut params, days.max(AUTHORITY_DAYS))?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// The one that was made before; all of ours have the same name.
    ///
    /// # Errors
    /// When the key is none.
    pub fn again(pair: &Pair) -> Result<Self, IssueError> {
        Ok(Self {
            issuer: Issuer::new(authority(), KeyPair::from_pem(&pair.key)?),
            certificate: pair.certificate.clone(),
        })
    }

    /// Its certificate and key.
    #[must_use]
    pub fn pair(&self) -> Pair {
        Pair {
            certificate: self.certificate.clone(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// A certificate of a role, for so many days; `hosts` are names and IP
    /// addresses that it is good for besides, for clients that ask for them.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn certificate(&self, role: Role, hosts: &[String], days: u32) -> Result<Pair, IssueError> {
        let mut names = vec![role.dns_name()];
        names.extend_from_slice(hosts);
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named(role.name());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Services call each other: each is server and client.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        within(&mut params, days)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// What every authority of ours says of itself, so that its key alone is enough
/// to go on with it.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("landmarl authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::OrganizationName, "landmarl");
    names.push(DnType::CommonName, name);
    names
}

fn within(params: &mut CertificateParams, days: u32) -> Result<(), IssueError> {
    let now = SystemTime::now();
    // A certificate writes its years with four digits.
    const DAYS_MAX: u32 = 2000 * 365;
    let end = now
        .checked_add(DAY * days + SKEW)
        .filter(|_| days <= DAYS_MAX);
    params.not_before = (now - SKEW).into();
    params.not_after = end.ok_or(IssueError::Days { days })?.into();
    Ok(())
}

/// A new join token: 64 hexadecimal digits.
///
/// # Errors
/// When the system gives no random numbers.
pub fn token() -> Result<String, IssueError> {
    let mut bytes = [0; TOKEN_BYTES];
    let random = ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| IssueError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
