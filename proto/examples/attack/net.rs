//! Connections from a given address of this machine, with and without TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use proto::transport::security::Role;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// A port under attack.
#[derive(Debug, Clone, Copy)]
pub struct Port {
    pub address: SocketAddr,
    pub role: Role,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

/// The bytes of a connection, after decryption if it is encrypted.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

pub type Stream = Box<dyn Duplex>;

/// A certificate of the cluster, and its token.
#[derive(Debug, Clone)]
pub struct Credentials {
    grpc: Arc<ClientConfig>,
    http: Arc<ClientConfig>,
    pub token: String,
}

impl Credentials {
    /// Those of a role, from the folder that `landmarl certs` made.
    pub fn read(folder: &Path, role: Role) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&read("ca.pem")?) {
            roots.add(root?)?;
        }
        let chain = read(&format!("{role}.pem"))?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&read(&format!("{role}.key"))?)?;
        let client = |protocol: &str| -> Result<Arc<ClientConfig>> {
            let provider = Arc::new(crypto::ring::default_provider());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])?
                .with_root_certificates(roots.clone())
                .with_client_auth_cert(chain.clone(), key.clone_key())?;
            config.alpn_protocols = vec![protocol.into()];
            Ok(Arc::new(config))
        };
        let token = String::from_utf8(read("token")?)?;
        Ok(Self {
            grpc: client("h2")?,
            http: client("http/1.1")?,
            token: token.lines().next().unwrap_or_default().to_owned(),
        })
    }

    fn client(&self, protocol: Protocol) -> Arc<ClientConfig> {
        Arc::clone(match protocol {
            Protocol::Grpc => &self.grpc,
            Protocol::Http => &self.http,
        })
    }

    /// The first message of a handshake with this port.
    pub fn client_hello(&self, port: Port) -> Result<Vec<u8>> {
        let mut client = ClientConnection::new(self.client(port.protocol), server_name(port)?)?;
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes)?;
        Ok(bytes)
    }
}

fn server_name(port: Port) -> Result<ServerName<'static>> {
    Ok(ServerName::try_from(port.role.dns_name())?)
}

/// A connection from this address.
pub async fn tcp(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Ports whose former connections are closed may be taken again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that can carry requests: with TLS where there are credentials.
pub async fn open(from: IpAddr, port: Port, with: Option<&Credentials>) -> Result<Stream> {
    let stream = tcp(from, port.address).await?;
    let Some(with) = with else {
        return Ok(Box::new(stream));
    };
    let connector = TlsConnector::from(with.client(port.protocol));
    Ok(Box::new(
        connector.connect(server_name(port)?, stream).await?,
    ))
}

/// Reads and drops what comes, until the other side closes the connection.
pub async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) {
    let mut bytes = [0; 4096];
    while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
}
