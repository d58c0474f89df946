//! What the builders of both sides collect alike: versions, application protocols, resumption.

use rustls::{SupportedProtocolVersion, version};

use super::TlsConfigError;

#[derive(Debug, Clone, Default)]
pub(super) struct Offer {
    alpn: Vec<Vec<u8>>,
    pub(super) no_resumption: bool,
    pub(super) only_tls13: bool,
}

impl Offer {
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
