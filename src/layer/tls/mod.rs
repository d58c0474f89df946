//! TLS 1.2 and 1.3 (RFC 5246, RFC 8446) through `rustls`, as a [`Layer`].
//!
//! A configuration is made once, checks its certificates, and is shared; a layer is made from it
//! for each connection and costs next to nothing until its first byte.
//!
//! ```no_run
//! use tidegate::layer::tls::{Pem, TlsClientConfig, TlsServerConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = TlsServerConfig::builder()
//!     .certificate(Pem::file("chain.pem"), Pem::file("key.pem"))
//!     .alpn(["chat/1"])
//!     .build()?;
//! let accepted = server.layer(); // one for each connection
//!
//! let client = TlsClientConfig::builder().roots(Pem::file("ca.pem")).alpn(["chat/1"]).build()?;
//! let connecting = client.layer("chat.example.org")?;
//! # let _ = (accepted, connecting);
//! # Ok(())
//! # }
//! ```
//!
//! # What is on by default
//! - Certificates are verified: chain, names, dates. Options that weaken this have names that show it.
//! - A stream must end with `close_notify` (RFC 8446 section 6.1); an end without it is
//!   [`Truncated`](super::LayerErrorKind::Truncated), because an attacker who cuts the connection
//!   could otherwise cut the message.
//! - A handshake may take [`HANDSHAKE_LIMIT`] bytes ([`Tls::handshake_limit`]). How *long* it may
//!   take is a deadline of the driver.
//! - Sessions are resumed, with stateless tickets on the server and a store of 256 on the client.
//! - No early data (0-RTT): it can be replayed, and a handler could not recognise a replay.
//!
//! # Memory
//! Nothing is buffered for a connection between calls, except the pieces of a handshake message
//! that came in several records. A record is decrypted when it has arrived whole, in the driver's
//! own buffer. So the driver keeps up to [`RECORD_MAX`] undecoded
//! bytes for a connection: its limit on unread input must not be below that.
//!
//! # Layer info
//! [`Layer::layer_info`] returns [`TlsInfo`] once the handshake is done.
//!
//! # A client is ready before the server has judged its certificate
//! In TLS 1.3 a client's handshake ends with its own certificate. If the server refuses that, the
//! client learns it from an alert *after* it was ready: `decode` fails with
//! [`RefusedByPeer`](super::LayerErrorKind::RefusedByPeer).

use std::any::{Any, TypeId};
use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use rustls_pki_types::ServerName;

use super::{
    Delivery, Item, Layer, LayerContext, LayerEnd, LayerError, LayerErrorKind, MessageKind, Step,
};

mod client;
mod error;
mod facts;
mod offer;
mod pem;
mod receive;
mod record;
mod server;
mod session;
mod verify;

pub use client::{TlsClientBuilder, TlsClientConfig};
pub use error::TlsConfigError;
pub use facts::{Fingerprint, FingerprintError, TlsInfo, TlsVersion};
pub use pem::Pem;
pub use record::RECORD_MAX;
pub use server::{TlsServerBuilder, TlsServerConfig};

/// The `rustls` that the escape hatches ([`TlsServerConfig::from_rustls`],
/// [`TlsClientConfig::from_rustls`]) take configurations of.
pub use rustls;

use session::Session;

/// Default limit on what a peer may send before the handshake is done: 64 KiB.
///
/// A ClientHello with a post-quantum key share is below 2 KiB, a chain of four RSA-4096
/// certificates about 8 KiB, and `rustls` itself refuses a handshake message over 64 KiB. The same
/// limit holds for the pieces of one handshake message that comes later.
pub const HANDSHAKE_LIMIT: usize = 64 * 1024;

const NAME: &str = "tls";

/// One connection's TLS, of either side. The [module's page](self) has the defaults.
///
/// Delivery is a [stream](Delivery::Stream): units are decrypted bytes, up to 16 KiB each.
pub struct Tls {
    side: Side,
    /// `None` until [`Layer::start`].
    session: Option<Session>,
    options: Options,
    /// Records that `rustls` has gone through and still needs: pieces of one handshake message.
    held: Vec<u8>,
    /// Bytes of whole records that came before the handshake was done.
    received: usize,
    ready: bool,
    peer_closed: bool,
    ended: bool,
    /// `rustls` has given an error, or an alert was sent in clear text. `rustls` is not called again:
    /// it would give more alerts.
    failed: bool,
    /// What came after the unit that the last call yielded, in the same call.
    next: Option<Result<Item, LayerError>>,
    /// The name that the client asked for.
    server_name: Option<Box<str>>,
    /// Made on demand: it copies the peer's certificates.
    info: OnceCell<Box<TlsInfo>>,
}

enum Side {
    Server(Arc<rustls::ServerConfig>),
    Client(Arc<rustls::ClientConfig>, ServerName<'static>),
}

/// What can be set for both sides beyond `rustls`'s own configuration.
#[derive(Debug, Clone, Copy)]
struct Options {
    handshake_limit: usize,
    accept_missing_close_notify: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { handshake_limit: HANDSHAKE_LIMIT, accept_missing_close_notify: false }
    }
}

impl Tls {
    /// Another limit, in bytes, on what the peer may send before the handshake is done. Default
    /// [`HANDSHAKE_LIMIT`]. The pieces of one later handshake message are held to it as well.
    #[must_use]
    pub fn handshake_limit(mut self, bytes: usize) -> Self {
        self.options.handshake_limit = bytes;
        self
    }

    /// The peer may end the stream without `close_notify`: truncation is then not detected. For
    /// peers that never send it, under protocols whose messages mark their own end.
    #[must_use]
    pub fn accept_missing_close_notify(mut self) -> Self {
        self.options.accept_missing_close_notify = true;
        self
    }

    fn new(side: Side) -> Tls {
        Tls {
            side,
            session: None,
            options: Options::default(),
            held: Vec::new(),
            received: 0,
            ready: false,
            peer_closed: false,
            ended: false,
            failed: false,
            next: None,
            server_name: None,
            info: OnceCell::new(),
        }
    }

    fn is_server(&self) -> bool {
        matches!(self.side, Side::Server(_))
    }
}

impl Layer for Tls {
    fn name(&self) -> &'static str {
        NAME
    }

    fn delivery(&self) -> Delivery {
        Delivery::Stream
    }

    fn start(&mut self, _: &mut LayerContext<'_>, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        let mut session = match &self.side {
            Side::Server(config) => Session::server(Arc::clone(config)),
            Side::Client(config, name) => Session::client(Arc::clone(config), name.clone()),
        }
        .map_err(|cause| error::of_rustls(cause, self.is_server()))?;
        let is_server = self.is_server();
        session
            .take(&mut [], &mut Vec::new(), wire)
            .outcome
            .map_err(|cause| error::of_rustls(cause, is_server))?;
        self.session = Some(session);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        if let Some(next) = self.next.take() {
            return next.map(|item| Step::new(0, item));
        }
        let (consumed, stop) = self.take_records(wire, unit, reply);
        if !unit.is_empty() {
            // The bytes that came before an error or the end are good: they go first.
            self.next = stop;
            return Ok(Step::new(consumed, Item::Unit));
        }
        match stop {
            Some(Ok(item)) => Ok(Step::new(consumed, item)),
            Some(Err(error)) => Err(error),
            None if consumed > 0 => Ok(Step::new(consumed, Item::Progress)),
            None => Ok(Step::new(0, Item::Nothing)),
        }
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        let unencodable = |what| LayerError::new(NAME, LayerErrorKind::Unencodable, what);
        match &mut self.session {
            // An alert has ended the session, and the next `decode` returns its error, which is the
            // reason of the close. An error here would take its place.
            _ if self.failed => Ok(()),
            Some(_) if self.ended => {
                Err(unencodable("expected nothing after close_notify, got bytes to send"))
            }
            Some(session) if self.ready => {
                session.encrypt(&mut self.held, message, wire).map_err(unencodable)
            }
            _ => Err(unencodable("expected nothing before the handshake is done, got bytes")),
        }
    }

    fn end(&mut self, _: &mut LayerContext<'_>, _: &LayerEnd<'_>, wire: &mut Vec<u8>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        match &mut self.session {
            _ if self.failed => {}
            Some(session) if self.ready => session.close(&mut self.held, wire),
            // Nothing is agreed on yet: it can be said in clear text.
            Some(session) if session.common().protocol_version().is_none() => {
                wire.extend_from_slice(&record::plain_alert(record::WARNING, record::CLOSE_NOTIFY));
            }
            // In the middle of a handshake there is no way. It is said once there is.
            _ => {}
        }
    }

    fn wire_ended(&mut self, _: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        let partial = left + self.held.len();
        let what = if self.peer_closed {
            return Ok(());
        } else if !self.ready {
            format!(
                "expected the rest of the handshake, got the end of the stream after {} bytes",
                self.received + left
            )
        } else if partial > 0 {
            format!("expected the rest of a record, got the end of the stream {partial} bytes in")
        } else if self.options.accept_missing_close_notify {
            return Ok(());
        } else {
            "expected close_notify before the end of the stream, got none: the peer, or an attacker \
             on the path, cut it off"
                .to_owned()
        };
        Err(LayerError::truncated(NAME, what))
    }

    fn holds_input(&self) -> bool {
        !self.held.is_empty() || self.next.is_some()
    }

    fn layer_info(&self, fact: TypeId) -> Option<&dyn Any> {
        if fact != TypeId::of::<TlsInfo>() || !self.ready {
            return None;
        }
        let session = self.session.as_ref()?;
        let info = self
            .info
            .get_or_init(|| Box::new(TlsInfo::of(session.common(), self.server_name.as_deref())));
        Some(&**info as &dyn Any)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("server", &self.is_server())
            .field("server_name", &self.server_name)
            .field("ready", &self.ready)
            .field("peer_closed", &self.peer_closed)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
