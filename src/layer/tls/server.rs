//! The configuration of the accepting side.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, ServerConfig,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::ServerName;

use super::offer::Offer;
use super::{Pem, Side, Tls, TlsConfigError};

/// What all connections of a TLS server share. Cheap to clone.
///
/// New certificates: build a new configuration, and make layers from that one from then on.
#[derive(Clone)]
pub struct TlsServerConfig {
    pub(super) rustls: Arc<ServerConfig>,
}

impl TlsServerConfig {
    /// Starts a configuration.
    pub fn builder() -> TlsServerBuilder {
        TlsServerBuilder::default()
    }

    /// Uses a configuration of `rustls`, for settings that the builder does not have. Its early
    /// data is turned off: it can be replayed, and a handler could not recognise a replay.
    pub fn from_rustls(mut config: ServerConfig) -> TlsServerConfig {
        config.max_early_data_size = 0;
        config.cert_resolver = Arc::new(Witness(config.cert_resolver));
        TlsServerConfig { rustls: Arc::new(config) }
    }

    /// The layer for one accepted connection.
    pub fn layer(&self) -> Tls {
        Tls::new(Side::Server(Arc::clone(&self.rustls)))
    }
}

impl fmt::Debug for TlsServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServerConfig").finish_non_exhaustive()
    }
}

/// Collects what a [`TlsServerConfig`] needs. Nothing is read or checked before
/// [`build`](Self::build).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct TlsServerBuilder {
    default: Option<(Pem, Pem)>,
    named: Vec<(String, Pem, Pem)>,
    client_roots: Vec<Pem>,
    client_required: bool,
    client_order: bool,
    offer: Offer,
}

impl TlsServerBuilder {
    /// The certificate chain (the server's own first) and its private key, for clients that ask
    /// for no name, or for one that has no certificate of its own.
    pub fn certificate(mut self, chain: Pem, key: Pem) -> Self {
        self.default = Some((chain, key));
        self
    }

    /// A certificate for clients that ask for `name` (SNI): a DNS name, or `*.` and one, which
    /// matches exactly one more label in front. Building checks that the certificate holds for
    /// it. Without a [default](Self::certificate), clients that ask for no known name are refused.
    pub fn certificate_for(mut self, name: &str, chain: Pem, key: Pem) -> Self {
        self.named.push((name.to_owned(), chain, key));
        self
    }

    /// Refuses clients without a certificate that one of these authorities has signed. May be
    /// repeated.
    pub fn require_client_certificate(mut self, authorities: Pem) -> Self {
        self.client_required = true;
        self.client_roots.push(authorities);
        self
    }

    /// Asks clients for a certificate and takes those that show none; one that is shown must hold.
    /// Whether there was one is in [`TlsInfo`](super::TlsInfo). May be repeated.
    pub fn request_client_certificate(mut self, authorities: Pem) -> Self {
        self.client_roots.push(authorities);
        self
    }

    /// The application protocols that are spoken here, the preferred one first (ALPN, RFC 7301).
    /// A client that offers none of them is refused; one that does not use ALPN is not.
    pub fn alpn<P: AsRef<[u8]>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.offer.set_alpn(protocols);
        self
    }

    /// Makes every handshake a full one. By default sessions are resumed with stateless tickets
    /// (RFC 8446 section 2.2, RFC 5077), whose keys change every 6 hours and live in this
    /// configuration only: a server keeps nothing for a client that went away.
    pub fn without_resumption(mut self) -> Self {
        self.offer.no_resumption = true;
        self
    }

    /// Takes aws-lc for its cryptography in place of ring, tickets included. A handshake costs the server some
    /// 8 % less CPU.
    #[cfg(feature = "tls-aws-lc")]
    pub fn aws_lc(mut self) -> Self {
        self.offer.aws_lc = true;
        self
    }

    /// Other cryptography than ring: another provider of `rustls`, or the same with fewer cipher suites or in
    /// another order, which is the server's. A provider makes no tickets: those stay with ring, or with
    /// aws-lc where that was chosen too, and [`from_rustls`](TlsServerConfig::from_rustls) takes any.
    pub fn crypto_provider(mut self, provider: impl Into<Arc<CryptoProvider>>) -> Self {
        self.offer.provider = Some(provider.into());
        self
    }

    /// Takes the cipher suite that the client prefers. By default the server decides, and prefers
    /// `TLS_AES_128_GCM_SHA256`, which RFC 8446 (section 9.1) demands of everybody: with keys of 128 bits a
    /// byte costs a quarter less than with 256, and its handshake hashes with SHA-256, which processors have
    /// instructions for, and not with SHA-384. A client that prefers ChaCha20, because it has no
    /// instructions for AES, then uses AES all the same: with many of those, take their order.
    pub fn client_cipher_order(mut self) -> Self {
        self.client_order = true;
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
    /// There is no certificate, a file cannot be read or holds something else, a key does not
    /// belong to its certificate, a certificate is not valid for its name, or an ALPN name is empty
    /// or over 255 bytes. The error names the cause.
    pub fn build(self) -> Result<TlsServerConfig, TlsConfigError> {
        let provider = self.offer.server_provider();
        let wrong =
            |cause: rustls::Error| TlsConfigError::new(cause.to_string()).with_source(cause);

        let mut certificates = ByName::default();
        if let Some((chain, key)) = &self.default {
            certificates.default = Some(Arc::new(Pem::certified_key(chain, key, &provider)?));
        }
        for (name, chain, key) in &self.named {
            let certified = Pem::certified_key(chain, key, &provider)?;
            check_name(name, chain, &certified)?;
            certificates.named.insert(name.to_ascii_lowercase(), Arc::new(certified));
        }
        if certificates.default.is_none() && certificates.named.is_empty() {
            return Err(TlsConfigError::new(
                "expected a certificate for the server (certificate or certificate_for), got none",
            ));
        }

        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.offer.versions())
            .map_err(wrong)?;
        let builder = if self.client_roots.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for pem in &self.client_roots {
                pem.add_roots(&mut roots)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if self.client_required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|cause| {
                TlsConfigError::new(format!("client certificates: {cause}")).with_source(cause)
            })?)
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = self.offer.alpn()?;
        config.ignore_client_order = !self.client_order;
        // Stateless tickets or nothing: what a server remembered for each client would need a
        // limit, and then the busy would push out the others.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if self.offer.no_resumption {
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = self.offer.ticketer().map_err(wrong)?;
        }
        Ok(TlsServerConfig::from_rustls(config))
    }
}

fn check_name(name: &str, chain: &Pem, key: &CertifiedKey) -> Result<(), TlsConfigError> {
    // A wildcard is tried with a label that nobody has a certificate for by accident.
    let concrete = match name.strip_prefix("*.") {
        Some(parent) => format!("tidegate-wildcard-check.{parent}"),
        None => name.to_owned(),
    };
    let ServerName::DnsName(_) = ServerName::try_from(concrete.as_str()).map_err(|cause| {
        TlsConfigError::new(format!("expected a DNS name or \"*.\" and one, got {name:?}"))
            .with_source(cause)
    })?
    else {
        return Err(TlsConfigError::new(format!(
            "expected a DNS name, got the address {name:?}: clients send no SNI for addresses"
        )));
    };
    let holds = ServerName::try_from(concrete.as_str())
        .map_err(|_| rustls::Error::UnsupportedNameType)
        .and_then(|concrete| {
            let certificate = ParsedCertificate::try_from(key.end_entity_cert()?)?;
            verify_server_name(&certificate, &concrete)
        });
    holds.map_err(|cause| {
        TlsConfigError::new(format!(
            "{chain}: expected a certificate that holds for {name:?}: {cause}"
        ))
        .with_source(cause)
    })
}

/// Certificates by the name asked for.
#[derive(Debug, Default)]
struct ByName {
    default: Option<Arc<CertifiedKey>>,
    /// In lower case; a wildcard with its `*.`.
    named: HashMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.named.get(&name).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.named.get(&format!("*.{parent}"))
            })
        });
        named.or(self.default.as_ref()).cloned()
    }
}

thread_local! {
    static ASKED: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// Notes the name that a ClientHello asks for: an unbuffered connection of `rustls` does not tell.
/// It is asked on the same thread, within the call that reads the ClientHello, for every handshake
/// (resumed ones too), and `Session` takes the note when that call returns.
#[derive(Debug)]
struct Witness(Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for Witness {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(|name| name.to_ascii_lowercase().into());
        let certificate = self.0.resolve(hello);
        ASKED.with(|asked| asked.set(name));
        certificate
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

/// The name noted last on this thread, once.
pub(super) fn asked_name() -> Option<Box<str>> {
    ASKED.with(Cell::take)
}
