//! Why this side of a connection ends.

/// Why this side ends, as far as a format can say it to the peer.
///
/// A WebSocket has a code for each (RFC 6455 section 7.4.1); TLS says `close_notify` for all of
/// them; framing says nothing.
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
    /// A layer of the connection failed, this one or another one of its stack. What a layer had to
    /// say about its own error it has put into `reply`.
    LayerFailed,
    /// The handler chose what the peer is to hear.
    Chosen {
        /// The format's own code. A format without codes ignores it.
        code: u16,
        /// The reason in words. A format without words ignores it; one with a limit cuts it.
        reason: &'a str,
    },
}
