//! Trust in servers without a certificate authority.
//!
//! The handshake's signature is checked in each case, which proves that the server has the private
//! key of its certificate. Without that check, any server could present a public certificate.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::Fingerprint;

/// The servers that a [`WithoutAuthority`] trusts.
#[derive(Debug)]
pub(super) enum Trust {
    /// Those with a certificate of one of these fingerprints.
    Pinned(Vec<Fingerprint>),
    /// All.
    Anybody,
}

/// Looks at the certificate itself, at no chain, name or date.
#[derive(Debug)]
pub(super) struct WithoutAuthority {
    pub(super) trust: Trust,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for WithoutAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Trust::Pinned(pins) = &self.trust {
            let shown = Fingerprint::of(end_entity);
            if !pins.contains(&shown) {
                let mismatch = OtherError(Arc::new(PinMismatch { shown }));
                return Err(CertificateError::Other(mismatch).into());
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A server showed a certificate that is not pinned.
#[derive(Debug)]
struct PinMismatch {
    shown: Fingerprint,
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected a pinned certificate, got one with the fingerprint {}", self.shown)
    }
}

impl StdError for PinMismatch {}
