//! Certificates and keys from PEM (RFC 7468).

use std::fmt;
use std::fs;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsConfigError;

/// Where PEM comes from. It is read when the configuration is built, and an error names it.
///
/// One source may hold a chain and its key together: give it for both.
#[derive(Clone)]
pub struct Pem(Source);

#[derive(Clone)]
enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Pem {
    /// A file.
    pub fn file(path: impl Into<PathBuf>) -> Pem {
        Pem(Source::File(path.into()))
    }

    /// The contents of a file.
    pub fn bytes(pem: impl Into<Vec<u8>>) -> Pem {
        Pem(Source::Bytes(pem.into()))
    }

    /// A chain with the key of its first certificate.
    pub(super) fn certified_key(
        chain: &Pem,
        key: &Pem,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, TlsConfigError> {
        let certificates = chain.certificates("certificate chain")?;
        CertifiedKey::from_der(certificates, key.private_key()?, provider).map_err(|cause| {
            TlsConfigError::new(match cause {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                    "private key {key}: expected the private key of the first certificate in {chain}, got another key"
                ),
                Error::InvalidCertificate(_) => {
                    format!("certificate chain {chain}: expected an X.509 v3 certificate first, got {cause}")
                }
                _ => format!(
                    "private key {key}: expected an RSA (2048 bits or more), ECDSA (P-256, P-384) or Ed25519 key, got {cause}"
                ),
            })
            .with_source(cause)
        })
    }

    /// Adds all certificates as trusted roots.
    pub(super) fn add_roots(&self, roots: &mut RootCertStore) -> Result<(), TlsConfigError> {
        for (i, certificate) in self.certificates("trusted roots")?.into_iter().enumerate() {
            roots.add(certificate).map_err(|cause| {
                TlsConfigError::new(format!(
                    "trusted roots {self}: expected certificates of authorities, cannot use number {} as one: {cause}",
                    i + 1
                ))
                .with_source(cause)
            })?;
        }
        Ok(())
    }

    /// `role` says in errors what it was given for, as there may be several.
    fn certificates(&self, role: &str) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
        let pem = self.read(role)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match found {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(TlsConfigError::new(format!(
                "{role} {self}: expected \"BEGIN CERTIFICATE\", found {}",
                contents(&pem)
            ))),
            Err(cause) => Err(self.damaged(role, cause)),
        }
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
        let role = "private key";
        let pem = self.read(role)?;
        match PrivateKeyDer::from_pem_slice(&pem) {
            Ok(key) => Ok(key),
            Err(rustls_pki_types::pem::Error::NoItemsFound) => Err(TlsConfigError::new(format!(
                "{role} {self}: expected \"BEGIN PRIVATE KEY\" (or \"RSA\", \"EC\" before \"PRIVATE\"), found {}",
                contents(&pem)
            ))),
            Err(cause) => Err(self.damaged(role, cause)),
        }
    }

    fn damaged(&self, role: &str, cause: rustls_pki_types::pem::Error) -> TlsConfigError {
        TlsConfigError::new(format!(
            "{role} {self}: expected whole PEM sections, got a damaged one: {cause}"
        ))
        .with_source(cause)
    }

    fn read(&self, role: &str) -> Result<Vec<u8>, TlsConfigError> {
        match &self.0 {
            Source::Bytes(pem) => Ok(pem.clone()),
            Source::File(path) => fs::read(path).map_err(|cause| {
                TlsConfigError::new(format!("{role} {self}: cannot be read: {cause}"))
                    .with_source(cause)
            }),
        }
    }
}

/// What a source that held nothing usable holds instead.
fn contents(pem: &[u8]) -> String {
    let sections: Vec<String> = pem
        .split(|&b| b == b'\n' || b == b'\r')
        .filter_map(|line| line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----"))
        .take(8)
        .map(|name| format!("\"BEGIN {}\"", name.escape_ascii()))
        .collect();
    if sections.iter().any(|name| name.contains("ENCRYPTED")) {
        "a key that a passphrase protects (unlock it: openssl pkey -in KEY -out UNLOCKED)".into()
    } else if !sections.is_empty() {
        sections.join(", ")
    } else if pem.is_empty() {
        "nothing: it is empty".into()
    } else if pem[0] == 0x30 {
        "what looks like DER (convert it: openssl x509 or pkey -inform DER -in IN -out OUT)".into()
    } else {
        format!("no PEM in its {} bytes", pem.len())
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Bytes(pem) => write!(f, "PEM of {} bytes", pem.len()),
        }
    }
}

impl fmt::Debug for Pem {
    // The bytes may be a private key: never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({self})")
    }
}
