//! The configuration of the connecting side.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::{ClientConfig, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::ServerName;

use super::offer::Offer;
use super::verify::{Trust, WithoutAuthority};
use super::{Fingerprint, Pem, Side, Tls, TlsConfigError};

/// What all connections of a TLS client share, its store of sessions included. Cheap to clone.
#[derive(Clone)]
pub struct TlsClientConfig {
    pub(super) rustls: Arc<ClientConfig>,
}

impl TlsClientConfig {
    /// Starts a configuration.
    pub fn builder() -> TlsClientBuilder {
        TlsClientBuilder::default()
    }

    /// Uses a configuration of `rustls`, for settings that the builder does not have: for example
    /// the operating system's own verifier through the crate `rustls-platform-verifier`. Its early
    /// data is turned off.
    pub fn from_rustls(mut config: ClientConfig) -> TlsClientConfig {
        config.enable_early_data = false;
        TlsClientConfig { rustls: Arc::new(config) }
    }

    /// The layer for one connection to the server with this `name`: a DNS name, or an IP address
    /// (for which no SNI is sent, RFC 6066 section 3).
    ///
    /// # Errors
    /// `name` is neither.
    pub fn layer(&self, name: &str) -> Result<Tls, TlsConfigError> {
        let server_name = ServerName::try_from(name.to_owned()).map_err(|cause| {
            TlsConfigError::new(format!(
                "expected the server's DNS name or IP address, without a port, got {name:?}"
            ))
            .with_source(cause)
        })?;
        let mut tls = Tls::new(Side::Client(Arc::clone(&self.rustls), server_name));
        tls.server_name = Some(name.into());
        Ok(tls)
    }
}

impl fmt::Debug for TlsClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClientConfig").finish_non_exhaustive()
    }
}

/// Collects what a [`TlsClientConfig`] needs. Nothing is read or checked before
/// [`build`](Self::build).
///
/// Choose the servers to trust, in one of these ways: [`roots`](Self::roots) (with or without
/// `webpki_roots`, there with the feature `tls-webpki-roots`),
/// [`pin_certificate`](Self::pin_certificate), or, for tests only,
/// [`dangerous_accept_any_server_certificate`](Self::dangerous_accept_any_server_certificate). On
/// most Unix systems `roots(Pem::file("/etc/ssl/certs/ca-certificates.crt"))`, or the path of the
/// system's own bundle, trusts the authorities that the system trusts.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct TlsClientBuilder {
    roots: Vec<Pem>,
    webpki_roots: bool,
    pins: Vec<Fingerprint>,
    accept_any: bool,
    certificate: Option<(Pem, Pem)>,
    offer: Offer,
}

impl TlsClientBuilder {
    /// Trusts servers whose certificates these authorities have signed. May be repeated.
    pub fn roots(mut self, authorities: Pem) -> Self {
        self.roots.push(authorities);
        self
    }

    /// Trusts the authorities that Mozilla trusts, as they were when the crate `webpki-roots` was
    /// published (feature `tls-webpki-roots`).
    #[cfg(feature = "tls-webpki-roots")]
    pub fn webpki_roots(mut self) -> Self {
        self.webpki_roots = true;
        self
    }

    /// Trusts exactly the certificate with this SHA-256, self-signed or not, and that the server
    /// has its private key. This takes the place of the chain, the names and the dates. Repeated,
    /// it allows any of them, as one needs while a certificate is replaced.
    pub fn pin_certificate(mut self, sha256: Fingerprint) -> Self {
        self.pins.push(sha256);
        self
    }

    /// Trusts every server, so that an attacker on the path can read and change everything. For
    /// tests and measurements; [`pin_certificate`](Self::pin_certificate) is as easy for
    /// self-signed certificates. That the server has the private key of what it shows is still
    /// checked.
    pub fn dangerous_accept_any_server_certificate(mut self) -> Self {
        self.accept_any = true;
        self
    }

    /// The certificate chain (the client's own first) and its private key, for servers that ask
    /// for it.
    pub fn certificate(mut self, chain: Pem, key: Pem) -> Self {
        self.certificate = Some((chain, key));
        self
    }

    /// The application protocols to offer, the preferred one first (ALPN, RFC 7301).
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.offer.set_alpn(protocols);
        self
    }

    /// Makes every handshake a full one. By default the sessions of the 256 servers used last are
    /// kept in memory, in this configuration, and resumed.
    pub fn without_resumption(mut self) -> Self {
        self.offer.no_resumption = true;
        self
    }

    /// Takes aws-lc for its cryptography in place of ring.
    #[cfg(feature = "tls-aws-lc")]
    pub fn aws_lc(mut self) -> Self {
        self.offer.aws_lc = true;
        self
    }

    /// Other cryptography than ring: another provider of `rustls`, or the same with fewer cipher suites, of which it offers the first one first.
    pub fn crypto_provider(mut self, provider: impl Into<Arc<CryptoProvider>>) -> Self {
        self.offer.provider = Some(provider.into());
        self
    }

    /// Refuses TLS 1.2.
    pub fn only_tls13(mut self) -> Self {
        self.offer.only_tls13 = true;
        self
    }

    /// Reads the files and checks everything.
    ///
    /// # Errors
    /// No server to trust was chosen, or in more than one way; a file cannot be read or holds
    /// something else; a key does not belong to its certificate; an ALPN name is empty or over 255
    /// bytes. The error names the cause.
    pub fn build(self) -> Result<TlsClientConfig, TlsConfigError> {
        let provider = self.offer.client_provider();
        let wrong =
            |cause: rustls::Error| TlsConfigError::new(cause.to_string()).with_source(cause);

        let by_roots = self.webpki_roots || !self.roots.is_empty();
        let ways = [by_roots, !self.pins.is_empty(), self.accept_any];
        match ways.iter().filter(|&&way| way).count() {
            1 => {}
            0 => {
                return Err(TlsConfigError::new(
                    "expected whom to trust (roots, webpki_roots or pin_certificate), got none of them",
                ));
            }
            _ => {
                return Err(TlsConfigError::new(
                    "expected one way to trust a server, got more than one of roots, \
                     pin_certificate and dangerous_accept_any_server_certificate",
                ));
            }
        }

        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.offer.versions())
            .map_err(wrong)?;
        let algorithms = provider.signature_verification_algorithms;
        let builder = if by_roots {
            let verifier = WebPkiServerVerifier::builder_with_provider(
                Arc::new(self.trusted_roots()?),
                Arc::clone(&provider),
            );
            builder.with_webpki_verifier(verifier.build().map_err(|cause| {
                TlsConfigError::new(format!("roots: {cause}")).with_source(cause)
            })?)
        } else {
            let trust =
                if self.accept_any { Trust::Anybody } else { Trust::Pinned(self.pins.clone()) };
            let verifier = Arc::new(WithoutAuthority { trust, algorithms });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        };
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let certified = Pem::certified_key(chain, key, &provider)?;
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(
                    certified,
                )))
            }
        };
        config.alpn_protocols = self.offer.alpn()?;
        if self.offer.no_resumption {
            config.resumption = Resumption::disabled();
        }
        Ok(TlsClientConfig::from_rustls(config))
    }

    fn trusted_roots(&self) -> Result<RootCertStore, TlsConfigError> {
        let mut roots = RootCertStore::empty();
        for pem in &self.roots {
            pem.add_roots(&mut roots)?;
        }
        #[cfg(feature = "tls-webpki-roots")]
        if self.webpki_roots {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Ok(roots)
    }
}
