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
            // Of a key in the old form the lines behind its `BEGIN` say that it is encrypted.
            Err(_) if is_encrypted(&pem) => {
                Err(TlsConfigError::new(format!("{role} {self}: expected a key, found {LOCKED}")))
            }
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
            Source::Bytes(pem) => Ok(without_marks(pem.clone())),
            Source::File(path) => fs::read(path).map(without_marks).map_err(|cause| {
                TlsConfigError::new(format!("{role} {self}: cannot be read: {cause}"))
                    .with_source(cause)
            }),
        }
    }
}

/// The byte order mark that editors put before UTF-8. Before a `BEGIN` it would hide that line.
const MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The text without its marks, of which each file that it was put together from may have had one.
fn without_marks(pem: Vec<u8>) -> Vec<u8> {
    if !pem.windows(MARK.len()).any(|bytes| bytes == MARK) {
        return pem;
    }
    let line = |line: &mut &[u8]| *line = line.strip_prefix(&MARK).unwrap_or(line);
    let mut lines: Vec<&[u8]> = pem.split(|&byte| byte == b'\n').collect();
    lines.iter_mut().for_each(line);
    lines.join(&b'\n')
}

const LOCKED: &str =
    "a key that a passphrase protects (unlock it: openssl pkey -in KEY -out UNLOCKED)";

/// Whether a key in it is encrypted: in PKCS #8, whose `BEGIN` says so (RFC 7468 section 11), or in
/// the older form, by a line behind that (RFC 1421 section 4.6.1.1).
fn is_encrypted(pem: &[u8]) -> bool {
    pem.split(|&byte| byte == b'\n' || byte == b'\r').any(|line| {
        line == b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
            || line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED")
    })
}

/// What a source that held nothing usable holds instead.
fn contents(pem: &[u8]) -> String {
    let sections: Vec<String> = pem
        .split(|&b| b == b'\n' || b == b'\r')
        .filter_map(|line| line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----"))
        .take(8)
        .map(|name| format!("\"BEGIN {}\"", name.escape_ascii()))
        .collect();
    if is_encrypted(pem) {
        LOCKED.into()
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
