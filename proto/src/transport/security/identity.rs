//! Our certificate, and the authority that must have signed every peer's: rustls
//! with ring on both sides, TLS 1.3 only, no anonymous clients.

use super::role::Roles;
use super::{SecurityError, read, unfit};
use common::config::ClusterConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{CertificateError, Error, RootCertStore, ServerConfig, crypto};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Identity as TonicIdentity};
use webpki::EndEntityCert;

/// After this a client gives up on an unfinished handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
const DAY: u64 = 24 * 60 * 60;
/// Upper bound of the reported validity.
const DAYS_MAX: u64 = 100 * 365;

/// The TLS files, read and checked.
#[derive(Debug)]
pub(super) struct Identity {
    /// For gRPC.
    pub(super) grpc: Arc<ServerConfig>,
    pub(super) http: Arc<ServerConfig>,
    client: ClientTlsConfig,
    own: CertificateDer<'static>,
    pub(super) roles: Roles,
    /// Whole days until our certificate expires.
    pub(super) days_left: u64,
    /// Whether every user of this machine may read our key.
    pub(super) key_is_public: bool,
}

impl Identity {
    /// Reads and checks the three files.
    pub(super) fn read(files: &ClusterConfig) -> Result<Self, SecurityError> {
        let ca = read("cluster.ca", &files.ca)?;
        let cert = read("cluster.cert", &files.cert)?;
        let key = read("cluster.key", &files.key)?;
        let bad_cert = |why| unfit("cluster.cert", &files.cert, why);
        let bad_key = |why| unfit("cluster.key", &files.key, why);
        let verifier = verifier(&files.ca, &ca)?;
        let chain = certificates("cluster.cert", &files.cert, &cert)?;
        let [own, between @ ..] = chain.as_slice() else {
            return Err(bad_cert("is empty".into()));
        };
        let now = UnixTime::now();
        let verify = |at| verifier.verify_client_cert(own, between, at);
        verify(now).map_err(|e| bad_cert(explain(&e)))?;
        let roles = Roles::of_certificate(own);
        if roles.is_empty() {
            let why = "names no role of landmarl, such as actor.landmarl.internal";
            return Err(bad_cert(why.into()));
        }
        let days_left = days_left(now, |at| verify(at).is_ok());
        let secret = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|e| bad_key(format!("holds no private key in PEM: {e}")))?;
        let server = |protocol| {
            server(&verifier, chain.clone(), secret.clone_key(), protocol)
                .map_err(|e| bad_key(format!("does not belong to cluster.cert: {e}")))
        };
        Ok(Self {
            grpc: server("h2")?,
            http: server("http/1.1")?,
            client: ClientTlsConfig::new()
                .ca_certificate(Certificate::from_pem(ca))
                .identity(TonicIdentity::from_pem(cert, key))
                .timeout(HANDSHAKE),
            own: own.clone(),
            roles,
            days_left,
            key_is_public: is_public(Path::new(&files.key)),
        })
    }

    /// TLS settings for calls to a server with this name.
    pub(super) fn client(&self, name: String) -> ClientTlsConfig {
        self.client.clone().domain_name(name)
    }

    /// Whether our certificate names this host.
    pub(super) fn names(&self, host: &str) -> bool {
        let name = DnsName::try_from(host).map(ServerName::DnsName);
        let certificate = EndEntityCert::try_from(&self.own);
        matches!((name, certificate), (Ok(name), Ok(certificate))
            if certificate.verify_is_valid_for_subject_name(&name).is_ok())
    }
}

/// Accepts certificates that the authorities in this file signed.
fn verifier(path: &str, pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, SecurityError> {
    let mut roots = RootCertStore::empty();
    for root in certificates("cluster.ca", path, pem)? {
        roots
            .add(root)
            .map_err(|e| unfit("cluster.ca", path, format!("holds no authority: {e}")))?;
    }
    let provider = Arc::new(crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
        .build()
        .map_err(|e| unfit("cluster.ca", path, e.to_string()))
}

fn server(
    verifier: &Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    secret: PrivateKeyDer<'static>,
    protocol: &str,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = Arc::new(crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::clone(verifier))
        .with_single_cert(chain, secret)?;
    config.alpn_protocols = vec![protocol.into()];
    // A resumed session would skip the certificate, which may have expired.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(
    key: &'static str,
    path: &str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let why = match found {
        Ok(found) if !found.is_empty() => return Ok(found),
        Ok(_) => "holds no certificate in PEM".to_owned(),
        Err(e) => format!("holds no certificate in PEM: {e}"),
    };
    Err(unfit(key, path, why))
}

/// Why a certificate is refused, in words.
pub(super) fn explain(error: &Error) -> String {
    let Error::InvalidCertificate(why) = error else {
        return error.to_string();
    };
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "was not signed by the authority in cluster.ca".into()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired; `landmarl certs` makes new ones".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet; compare the clocks of the machines".into()
        }
        other => format!("is refused: {other}"),
    }
}

/// Whole days from `now` on which `holds` stays true.
fn days_left(now: UnixTime, holds: impl Fn(UnixTime) -> bool) -> u64 {
    let after =
        |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + days * DAY));
    let (mut low, mut high) = (0, DAYS_MAX);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if holds(after(middle)) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(unix)]
fn is_public(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    const OTHERS_READ: u32 = 0o004;
    std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & OTHERS_READ != 0)
}

#[cfg(not(unix))]
fn is_public(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_to_the_last_whole_one() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_000_000));
        for days in [0, 1, 13, 365, 3650] {
            let end = now.as_secs() + days * DAY + 100;
            assert_eq!(days_left(now, |at| at.as_secs() <= end), days);
        }
        assert_eq!(days_left(now, |_| true), DAYS_MAX);
    }
}
