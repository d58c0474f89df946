//! TLS as the peers on tokio do it: tokio-rustls, with the version and the cryptography of tidegate's.

use crate::server::{Args, Crypto};
use rustls::ServerConfig;
use rustls::crypto::{aws_lc_rs, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::error::Error;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Accepts TLS on connections.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// With the certificate of the command line, and sessions resumed with tickets.
    pub fn new(args: &Args) -> Result<Self, Box<dyn Error>> {
        let chain = CertificateDer::pem_file_iter(&args.cert)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(&args.key)?;
        let (provider, ticketer) = match args.crypto {
            Crypto::Ring => (ring::default_provider(), ring::Ticketer::new()?),
            Crypto::AwsLc => (aws_lc_rs::default_provider(), aws_lc_rs::Ticketer::new()?),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.ticketer = ticketer;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}
