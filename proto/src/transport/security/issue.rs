//! Makes an authority, certificates of roles, and a join token.

use super::role::Role;
use common::imaging::manifest::hex;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring;
use std::fmt;
use std::time::{Duration, SystemTime};

/// Tolerated difference between the clocks of machines.
const SKEW: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Minimum validity of an authority: it outlives the certificates that it signs.
const AUTHORITY_DAYS: u32 = 3650;
/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;

/// Why a certificate or a token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("system RNG failed")]
    Random,
    #[error("a certificate cannot be valid for {days} days; ask for fewer")]
    Days { days: u32 },
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    /// Public.
    pub certificate: String,
    /// Secret.
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
    /// A new authority, valid for at least this many days.
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

    /// An existing authority; all of ours have the same name.
    pub fn again(pair: &Pair) -> Result<Self, IssueError> {
        Ok(Self {
            issuer: Issuer::new(authority(), KeyPair::from_pem(&pair.key)?),
            certificate: pair.certificate.clone(),
        })
    }

    #[must_use]
    pub fn pair(&self) -> Pair {
        Pair {
            certificate: self.certificate.clone(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// A certificate for a role, valid for this many days; `hosts` are further names
    /// and IP addresses that it covers, for clients that verify them.
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

/// The parameters that all our authorities share, so that the key alone suffices
/// to sign further certificates.
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
    // The format has four digits for the year.
    const DAYS_MAX: u32 = 2000 * 365;
    let end = now
        .checked_add(DAY * days + SKEW)
        .filter(|_| days <= DAYS_MAX);
    params.not_before = (now - SKEW).into();
    params.not_after = end.ok_or(IssueError::Days { days })?.into();
    Ok(())
}

/// A new join token: 64 hexadecimal digits.
pub fn token() -> Result<String, IssueError> {
    let mut bytes = [0; TOKEN_BYTES];
    let random = ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| IssueError::Random)?;
    Ok(hex(&bytes))
}
