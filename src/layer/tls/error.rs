//! `rustls`'s errors in the terms of a layer, and the error of a configuration.

use std::error::Error as StdError;
use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::NAME;
use crate::layer::{LayerError, LayerErrorKind};

/// A TLS configuration that cannot be: which file or option, what was expected, what was found.
#[derive(Debug)]
pub struct TlsConfigError {
    what: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl TlsConfigError {
    pub(super) fn new(what: impl Into<String>) -> Self {
        TlsConfigError { what: what.into(), source: None }
    }

    pub(super) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tls configuration: {}", self.what)
    }
}

impl StdError for TlsConfigError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

/// The layer's error for an error of `rustls` on the side that `is_server`.
pub(super) fn of_rustls(cause: Error, is_server: bool) -> LayerError {
    use LayerErrorKind::{Malformed, Refused, RefusedByPeer, TooLarge};
    let peer = if is_server { "client" } else { "server" };
    let (kind, what) = match &cause {
        Error::AlertReceived(alert) => (RefusedByPeer, alert_text(*alert, is_server)),
        Error::InvalidCertificate(bad) => (Refused, certificate_text(bad, peer)),
        Error::NoCertificatesPresented => {
            (Refused, format!("expected a certificate of the {peer}, got none"))
        }
        Error::NoApplicationProtocol => {
            (Refused, "expected a protocol in common (ALPN), the peer offers none of ours".into())
        }
        Error::PeerIncompatible(why) => {
            (Refused, format!("expected a TLS version and a cipher in common, got {why:?}"))
        }
        Error::General(why) if why.starts_with("no server certificate") => {
            (Refused, "expected a name that this server has a certificate for".into())
        }
        Error::InvalidMessage(
            why @ (InvalidMessage::HandshakePayloadTooLarge
            | InvalidMessage::CertificatePayloadTooLarge
            | InvalidMessage::MessageTooLarge),
        ) => (TooLarge, format!("expected a message within the limits of TLS, got {why:?}")),
        Error::PeerSentOversizedRecord => {
            (TooLarge, "expected a record of 16 KiB at most, got a larger one".into())
        }
        Error::DecryptError => {
            (Malformed, "expected a record encrypted with the agreed keys, got one that is not (damaged, forged or out of order)".into())
        }
        Error::InvalidMessage(_)
        | Error::PeerMisbehaved(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => (Malformed, cause.to_string()),
        _ => (Refused, cause.to_string()),
    };
    LayerError::new(NAME, kind, what).with_source(cause)
}

fn alert_text(alert: AlertDescription, is_server: bool) -> String {
    use AlertDescription as A;
    let hint = match alert {
        A::UnknownCA | A::BadCertificate | A::CertificateUnknown | A::UnsupportedCertificate => {
            if is_server {
                ": the client does not trust our certificate"
            } else {
                ": the server does not trust our certificate"
            }
        }
        A::CertificateExpired => ": the peer reports that our certificate has expired",
        A::CertificateRequired => ": the server demands a client certificate",
        A::NoApplicationProtocol => ": no protocol in common (ALPN)",
        A::ProtocolVersion => ": no TLS version in common",
        A::HandshakeFailure => ": nothing in common, or a certificate was demanded",
        A::UnrecognisedName | A::AccessDenied => ": the server does not know the name asked for",
        _ => "",
    };
    format!("the peer sent the alert {alert:?}{hint}")
}

fn certificate_text(bad: &CertificateError, peer: &str) -> String {
    use CertificateError as C;
    match bad {
        C::Expired | C::ExpiredContext { .. } => {
            format!("expected a valid certificate of the {peer}, its has expired: {bad}")
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            format!("expected a valid certificate of the {peer}, its is not valid yet: {bad}")
        }
        C::UnknownIssuer => format!(
            "expected a certificate of the {peer} that a trusted root has signed, got one of an unknown issuer"
        ),
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            format!("expected a certificate of the {peer} for the name asked for: {bad}")
        }
        // Its Display would show the inside of the other error.
        // The one that people meet: a certificate made to sign others is shown as a server's own.
        C::Other(other) if other.0.to_string() == "CaUsedAsEndEntity" => format!(
            "expected the {peer}'s own certificate, got one of an authority (CA:TRUE in its basic \
             constraints): issue one with CA:FALSE"
        ),
        C::Other(other) => format!("expected a certificate of the {peer} that holds: {}", other.0),
        _ => format!("expected a certificate of the {peer} that holds: {bad}"),
    }
}
