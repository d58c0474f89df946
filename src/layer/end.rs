//! Why this side of a connection ends.

/// Why this side ends the connection, in the terms that a format can send to the peer.
///
/// A WebSocket has a code for each (RFC 6455 section 7.4.1); TLS sends `close_notify` for all of
/// them; framing sends nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerEnd<'a> {
    /// An ordinary close, or the end of the write side (a half-close).
    Closed,
    /// The process shuts down, or the listener of the connection does.
    GoingAway,
    /// The connection's handler returned an error, or panicked.
    HandlerFailed,
    /// A deadline has passed: the peer was idle, or did not finish in time.
    TimedOut,
    /// The peer went over a limit.
    LimitExceeded,
    /// A layer of the connection failed, this one or another one of its stack. The failed layer has
    /// put its own message to the peer into `reply`.
    LayerFailed,
    /// The handler chose a code and a reason for the peer
    /// ([`Net::close_with`](crate::Net::close_with)).
    Chosen {
        /// The format's own code. A format without codes ignores it.
        code: u16,
        /// The reason as text. A format without such a text ignores it; one with a limit cuts it.
        reason: &'a str,
    },
}
