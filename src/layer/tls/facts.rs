//! The result of a finished handshake.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::{CommonState, HandshakeKind, ProtocolVersion};
use rustls_pki_types::CertificateDer;

/// The version that was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    V1_2,
    /// TLS 1.3, RFC 8446.
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsVersion::V1_2 => "TLS 1.2",
            TlsVersion::V1_3 => "TLS 1.3",
        })
    }
}

/// The result of a finished handshake: what [`layer_info`](crate::Context::layer_info) of a
/// [`Tls`](super::Tls) layer returns.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    version: TlsVersion,
    cipher_suite: &'static str,
    alpn: Option<Vec<u8>>,
    server_name: Option<Box<str>>,
    peer_certificates: Vec<CertificateDer<'static>>,
    resumed: bool,
}

impl TlsInfo {
    pub(super) fn of(common: &CommonState, server_name: Option<&str>) -> TlsInfo {
        TlsInfo {
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
                _ => TlsVersion::V1_3,
            },
            cipher_suite: common
                .negotiated_cipher_suite()
                .and_then(|suite| suite.suite().as_str())
                .unwrap_or("unknown"),
            alpn: common.alpn_protocol().map(<[u8]>::to_vec),
            server_name: server_name.map(Into::into),
            peer_certificates: common.peer_certificates().unwrap_or_default().to_vec(),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// The version that was agreed on.
    pub fn version(&self) -> TlsVersion {
        self.version
    }

    /// The cipher suite by its IANA name, such as `"TLS13_AES_256_GCM_SHA384"`.
    pub fn cipher_suite(&self) -> &'static str {
        self.cipher_suite
    }

    /// The application protocol that was agreed on (ALPN, RFC 7301); `None` if either side offered
    /// none.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }

    /// The name that the client asked for: on the server the SNI (RFC 6066 section 3), in lower
    /// case; on the client the name it was given.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The peer's certificates in DER, its own first. They have been verified, unless this side was
    /// built to trust a pinned one or any. Empty on a server whose client showed none. A resumed
    /// session has those of the first one.
    pub fn peer_certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.peer_certificates.iter().map(AsRef::as_ref)
    }

    /// The peer's own certificate in DER.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.peer_certificates().next()
    }

    /// The fingerprint of the peer's own certificate.
    pub fn peer_fingerprint(&self) -> Option<Fingerprint> {
        self.peer_certificate().map(Fingerprint::of)
    }

    /// Whether the session went on from an earlier one, without a new look at certificates.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }
}

/// The SHA-256 of a certificate's DER.
///
/// Shown and read as `openssl x509 -noout -fingerprint -sha256` prints it: 32 bytes in hexadecimal
/// with colons between them (which may be left out when read).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of the certificate `der`.
    pub fn of(der: &[u8]) -> Fingerprint {
        // Through a suite that hashes with SHA-256: no second hash crate for this.
        let mut sha256 = [0; 32];
        if let Some(suite) = TLS13_AES_128_GCM_SHA256.tls13() {
            sha256.copy_from_slice(suite.common.hash_provider.hash(der).as_ref());
        }
        Fingerprint(sha256)
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(sha256: [u8; 32]) -> Self {
        Fingerprint(sha256)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let wrong = || FingerprintError { got: text.chars().take(100).collect() };
        let mut digits = text.trim().chars().filter(|&c| c != ':').map(|c| c.to_digit(16));
        let mut sha256 = [0; 32];
        for byte in &mut sha256 {
            let mut digit = || digits.next().flatten().and_then(|d| u8::try_from(d).ok());
            *byte = digit().zip(digit()).map(|(high, low)| high << 4 | low).ok_or_else(wrong)?;
        }
        if digits.next().is_some() { Err(wrong()) } else { Ok(Fingerprint(sha256)) }
    }
}

/// A text that is no [`Fingerprint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FingerprintError {
    got: String,
}

impl fmt::Display for FingerprintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "expected a SHA-256 fingerprint of 64 hexadecimal digits, with or without colons, got {:?}",
            self.got
        )
    }
}

impl Error for FingerprintError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints() {
        let of_nothing = Fingerprint::of(b"");
        let text = of_nothing.to_string();
        assert!(text.starts_with("E3:B0:C4:42:98:FC"), "{text}");
        assert_eq!(text.len(), 95);
        assert_eq!(text.parse(), Ok(of_nothing));
        assert_eq!(text.replace(':', "").to_lowercase().parse(), Ok(of_nothing));
        for bad in ["", "E3", &text[1..], &format!("{text}:00"), &text.replace('E', "x")] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }
}
