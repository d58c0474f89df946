//! Errors, and the reasons why a connection ended.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::address::{Address, Target};
use crate::layer::LayerError;

/// Any error that a callback returns with `?`.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// The result of a callback. An error closes the callback's own connection and becomes its
/// [`CloseReason::Handler`]; an error of `on_datagram` is reported to
/// [`on_error`](crate::DatagramHandler::on_error) instead.
pub type HandlerResult = Result<(), BoxError>;

/// Why a listener, a connection, a UDP socket or the reactor could not be set up.
///
/// Its text is one line: the operation, the address, the system's error, and advice where the error
/// allows it.
pub struct Error {
    what: String,
    source: io::Error,
    /// Advice for the user, where the system's error allows one.
    advice: &'static str,
}

impl Error {
    pub(crate) fn new(what: impl Into<String>, source: io::Error) -> Self {
        let advice = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "; another socket holds it: choose another address or end that program"
            }
            _ => "",
        };
        Error { what: what.into(), source, advice }
    }

    /// The same error, as a part of something larger.
    pub(crate) fn within(self, what: &str) -> Self {
        Error { what: format!("{what}: {}", self.what), ..self }
    }

    /// A target that does not resolve.
    pub(crate) fn resolving(target: &Target, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::InvalidInput => " (expected address:port, as in 127.0.0.1:8888)",
            _ => "",
        };
        Error::new(format!("cannot resolve {target}{hint}"), source)
    }

    /// Adds the advice for binding an address. (A refused option names itself in the source error,
    /// which has no OS code.)
    pub(crate) fn about_binding(self) -> Self {
        match self.kind() {
            io::ErrorKind::PermissionDenied if self.source.raw_os_error().is_some() => {
                Error { advice: "; ports below 1024 and some paths need privileges", ..self }
            }
            _ => self,
        }
    }

    /// Adds the advice for the path of a Unix socket, which remains after its program has ended.
    pub(crate) fn about_a_path(self) -> Self {
        match self.kind() {
            io::ErrorKind::AddrInUse => Error {
                advice: "; a program listens there, or one that is gone has left its file: end the \
                         one or remove the other",
                ..self
            },
            _ => self,
        }
    }

    /// The kind of the system's error: `AddrInUse`, `PermissionDenied` and so on.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// The system's error.
    pub fn io(&self) -> &io::Error {
        &self.source
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.what, self.source, self.advice)
    }
}

/// The same line as `Display`, because a `main` that returns the error prints it with `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

/// For set-up code that does other I/O, too.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::new("cannot set up", error)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        io::Error::new(error.source.kind(), error.to_string())
    }
}

/// Which deadline passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Deadline {
    /// The handshakes of the layers did not finish within [`StreamOptions::handshake_timeout`]
    /// (default 10 s).
    ///
    /// [`StreamOptions::handshake_timeout`]: crate::StreamOptions::handshake_timeout
    Handshake,
    /// No byte moved in either direction for [`StreamOptions::idle_timeout`] (off by default). Of a session:
    /// its peer has sent nothing for [`SessionOptions::idle_timeout`] (30 s by default).
    ///
    /// [`StreamOptions::idle_timeout`]: crate::StreamOptions::idle_timeout
    /// [`SessionOptions::idle_timeout`]: crate::SessionOptions::idle_timeout
    Idle,
    /// A message did not arrive completely within [`StreamOptions::message_timeout`] (off by
    /// default).
    ///
    /// [`StreamOptions::message_timeout`]: crate::StreamOptions::message_timeout
    Message,
    /// Output was queued, and the peer took none of it for [`StreamOptions::stall_timeout`]
    /// (default 60 s).
    ///
    /// [`StreamOptions::stall_timeout`]: crate::StreamOptions::stall_timeout
    Stall,
    /// During a graceful close the peer took no output for [`StreamOptions::stall_timeout`], or it
    /// went on sending for a minute after [`StreamOptions::close_timeout`].
    ///
    /// [`StreamOptions::stall_timeout`]: crate::StreamOptions::stall_timeout
    /// [`StreamOptions::close_timeout`]: crate::StreamOptions::close_timeout
    Close,
    /// The grace period of [`Net::shutdown`](crate::Net::shutdown) ended.
    Shutdown,
}

/// Which limit was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// More unread input than [`StreamOptions::unread_limit`](crate::StreamOptions::unread_limit).
    UnreadInput,
    /// More queued output than [`StreamOptions::output_limit`](crate::StreamOptions::output_limit).
    QueuedOutput,
    /// More handshake bytes than
    /// [`StreamOptions::handshake_limit`](crate::StreamOptions::handshake_limit).
    Handshake,
}

/// Why a connection ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// Both directions ended in order: the peer ended its side, and this side half-closed or
    /// closed.
    BothEnded,
    /// This side closed it (`close`), and the queued output was flushed.
    Closed,
    /// This side aborted it (`abort`).
    Aborted,
    /// It was closed or aborted during a layer's handshake, or closed while output waited for the
    /// handshake of a layer inserted later ([`Net::start_layer`](crate::Net::start_layer)). Before
    /// the connection is established the reason is `ConnectFailed`.
    Cancelled,
    /// The connection was never established: the name did not resolve, the peer was unreachable,
    /// the connect timeout passed, or this side closed it. Every failed connect has this reason.
    ConnectFailed(ConnectError),
    /// The peer reset the connection, or the socket failed.
    Io(io::Error),
    /// A deadline passed.
    TimedOut(Deadline),
    /// A limit was exceeded; the number is that limit in bytes.
    LimitExceeded(Limit, usize),
    /// The handler returned this error.
    Handler(BoxError),
    /// The handler panicked; the text is the panic's message, if it had one.
    Panicked(String),
    /// A wire layer failed: the peer broke the format, or a handshake failed.
    Layer(LayerError),
    /// The UDP socket that this session belonged to was closed.
    SocketClosed,
    /// The reactor was dropped.
    ReactorDropped,
}

impl CloseReason {
    /// Whether the connection ended in order: [`BothEnded`](Self::BothEnded) or
    /// [`Closed`](Self::Closed). Then all output was written, and no error occurred.
    pub fn is_orderly(&self) -> bool {
        matches!(self, CloseReason::BothEnded | CloseReason::Closed)
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Deadline::Handshake => "the handshake was not done in time",
            Deadline::Message => "a message was not whole in time",
            Deadline::Idle => "no byte moved for too long",
            Deadline::Stall => "the peer took no output for too long",
            Deadline::Close => "the close was not complete in time",
            Deadline::Shutdown => "the time for the shutdown was up",
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::UnreadInput => "unread input",
            Limit::QueuedOutput => "queued output",
            Limit::Handshake => "handshake",
        })
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::BothEnded => f.write_str("both sides ended"),
            CloseReason::Closed => f.write_str("closed"),
            CloseReason::Aborted => f.write_str("aborted"),
            CloseReason::Cancelled => f.write_str("cancelled before it was open"),
            CloseReason::ConnectFailed(e) => write!(f, "{e}"),
            CloseReason::Io(e) => write!(f, "{e}"),
            CloseReason::TimedOut(which) => write!(f, "timed out: {which}"),
            CloseReason::LimitExceeded(which, limit) => {
                write!(f, "more {which} than the limit of {limit} bytes")
            }
            CloseReason::Handler(e) => write!(f, "{e}"),
            CloseReason::Panicked(text) => write!(f, "the handler panicked: {text}"),
            CloseReason::Layer(e) => write!(f, "{e}"),
            CloseReason::SocketClosed => f.write_str("its UDP socket was closed"),
            CloseReason::ReactorDropped => f.write_str("the reactor was dropped"),
        }
    }
}

impl StdError for CloseReason {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            CloseReason::ConnectFailed(e) => Some(e),
            CloseReason::Io(e) => Some(e),
            CloseReason::Handler(e) => Some(&**e),
            CloseReason::Layer(e) => Some(e),
            _ => None,
        }
    }
}

/// Why an outgoing connection was never established.
///
/// Where several addresses were tried, it describes the last informative failure: an address family
/// that this host lacks hides no other error.
#[derive(Debug)]
pub struct ConnectError {
    kind: ConnectErrorKind,
    target: Target,
    address: Option<Address>,
    source: Option<io::Error>,
}

/// The kind of a [`ConnectError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectErrorKind {
    /// The target is not of the form `host:port`, so that trying again is of no use.
    InvalidTarget,
    /// The target does not resolve: the name is unknown, the resolver fails, or there is no address.
    Resolve,
    /// It was not established within
    /// [`StreamOptions::connect_timeout`](crate::StreamOptions::connect_timeout).
    TimedOut,
    /// This side closed or aborted it before it was established.
    Cancelled,
    /// The system returned an error: refused, unreachable, out of descriptors.
    System,
}

impl ConnectError {
    pub(crate) fn new(
        kind: ConnectErrorKind,
        target: Target,
        address: Option<Address>,
        source: Option<io::Error>,
    ) -> Self {
        ConnectError { kind, target, address, source }
    }

    /// The kind of failure.
    pub fn kind(&self) -> ConnectErrorKind {
        self.kind
    }

    /// The target as the caller gave it.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The address that was tried last; `None` if none was tried.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// The system's error, for the kinds `InvalidTarget`, `Resolve` and `System`.
    pub fn io(&self) -> Option<&io::Error> {
        self.source.as_ref()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnectError { kind, target, address, source } = self;
        if *kind == ConnectErrorKind::InvalidTarget {
            write!(f, "cannot resolve {target} (expected address:port, as in 127.0.0.1:8888)")?;
        } else if *kind == ConnectErrorKind::Resolve {
            write!(f, "cannot resolve {target}")?;
        } else {
            let target = target.to_string();
            let tried = address.as_ref().map_or(target.clone(), Address::to_string);
            write!(f, "cannot connect to {tried}")?;
            if tried != target {
                write!(f, " (of {target})")?;
            }
        }
        match (kind, source) {
            (ConnectErrorKind::TimedOut, _) => f.write_str(": not established in time"),
            (ConnectErrorKind::Cancelled, _) => f.write_str(": cancelled"),
            (_, Some(e)) => write!(f, ": {e}"),
            (_, None) => Ok(()),
        }
    }
}

impl StdError for ConnectError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|e| e as &(dyn StdError + 'static))
    }
}

/// How a connection ended: the argument of `on_close`.
#[derive(Debug)]
#[non_exhaustive]
pub struct CloseInfo {
    /// The reason.
    pub reason: CloseReason,
    /// How many queued bytes (as encoded for the wire) were never handed to the system. Zero after
    /// an orderly end. Bytes that the system took may still not have reached the peer.
    pub unsent: usize,
}

impl fmt::Display for CloseInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unsent {
            0 => write!(f, "{}", self.reason),
            n => write!(f, "{} ({n} bytes unsent)", self.reason),
        }
    }
}

/// A failure on a UDP socket. The socket stays open.
#[derive(Debug)]
#[non_exhaustive]
pub enum DatagramError {
    /// The system reported an error.
    System {
        /// `ConnectionRefused` for an ICMP "port unreachable" (ip(7)), `EMSGSIZE` for a datagram that
        /// is too large, and so on.
        error: io::Error,
        /// The destination, if sending failed; `None` for an error that was pending on the socket,
        /// because the system does not report which datagram caused it.
        to: Option<SocketAddr>,
    },
    /// `on_datagram` returned this error.
    Handler {
        /// The error.
        error: BoxError,
        /// The sender of the datagram.
        from: SocketAddr,
    },
    /// `on_datagram` panicked. The handler may be left half-changed: return an error from
    /// `on_error` to close the socket.
    Panicked {
        /// The panic's message, if it had one.
        text: String,
        /// The sender of the datagram.
        from: SocketAddr,
    },
}

impl DatagramError {
    /// The peer that the failure concerns, if known.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            DatagramError::System { to, .. } => *to,
            DatagramError::Handler { from, .. } | DatagramError::Panicked { from, .. } => {
                Some(*from)
            }
        }
    }

    /// The system's error, if the system reported one.
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            DatagramError::System { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for DatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatagramError::System { error, to: Some(to) } => write!(f, "sending to {to}: {error}"),
            DatagramError::System { error, to: None } => write!(f, "{error}"),
            DatagramError::Handler { error, from } => write!(f, "a datagram of {from}: {error}"),
            DatagramError::Panicked { text, from } => {
                write!(f, "a datagram of {from}: the handler panicked: {text}")
            }
        }
    }
}

impl StdError for DatagramError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            DatagramError::System { error, .. } => Some(error),
            DatagramError::Handler { error, .. } => Some(&**error),
            DatagramError::Panicked { .. } => None,
        }
    }
}
