//! What the builders of both sides collect alike: cryptography, versions, application protocols, resumption.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;
use rustls::{SupportedProtocolVersion, version};

use super::TlsConfigError;

#[derive(Debug, Clone, Default)]
pub(super) struct Offer {
    alpn: Vec<Vec<u8>>,
    /// `None`: that of this crate.
    pub(super) provider: Option<Arc<CryptoProvider>>,
    #[cfg(feature = "tls-aws-lc")]
    pub(super) aws_lc: bool,
    pub(super) no_resumption: bool,
    pub(super) only_tls13: bool,
}

impl Offer {
    /// The cryptography of this crate.
    fn own_provider(&self) -> CryptoProvider {
        #[cfg(feature = "tls-aws-lc")]
        if self.aws_lc {
            return rustls::crypto::aws_lc_rs::default_provider();
        }
        rustls::crypto::ring::default_provider()
    }

    /// What encrypts the tickets of a server.
    pub(super) fn ticketer(&self) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
        #[cfg(feature = "tls-aws-lc")]
        if self.aws_lc {
            return rustls::crypto::aws_lc_rs::Ticketer::new();
        }
        rustls::crypto::ring::Ticketer::new()
    }

    pub(super) fn client_provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone().unwrap_or_else(|| Arc::new(self.own_provider()))
    }

    /// That of a server: AES with keys of 128 bits before those of 256.
    pub(super) fn server_provider(&self) -> Arc<CryptoProvider> {
        self.provider.clone().unwrap_or_else(|| {
            let mut provider = self.own_provider();
            // Stable: all else keeps its order.
            provider.cipher_suites.sort_by_key(|suite| {
                let name = suite.suite().as_str().unwrap_or_default();
                (!name.starts_with("TLS13_"), !name.contains("AES_128"))
            });
            Arc::new(provider)
        })
    }

    pub(super) fn set_alpn<P: AsRef<[u8]>>(&mut self, protocols: impl IntoIterator<Item = P>) {
        self.alpn = protocols.into_iter().map(|p| p.as_ref().to_vec()).collect();
    }

    /// The names of the application protocols, checked (RFC 7301 section 3.1).
    pub(super) fn alpn(&self) -> Result<Vec<Vec<u8>>, TlsConfigError> {
        match self.alpn.iter().find(|name| name.is_empty() || name.len() > 255) {
            None => Ok(self.alpn.clone()),
            Some(name) => Err(TlsConfigError::new(format!(
                "expected ALPN names of 1 to 255 bytes, got one of {}",
                name.len()
            ))),
        }
    }

    pub(super) fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        if self.only_tls13 { &BOTH[..1] } else { &BOTH }
    }
}
