//! What became of a message that was sent.

/// What became of a message that was sent.
///
/// A plain status and not a `Result`, so that a `?` on somebody else's connection cannot end one's
/// own. Ignoring it is fine where losing the peer is: whatever goes wrong, that connection's own
/// handler is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendStatus {
    /// Queued (or written already).
    Queued,
    /// Queued, and the queue is above its high mark now: a sender that can wait should, until
    /// `on_drain`.
    AboveHighWater,
    /// Refused as a whole: the queue's hard limit would be exceeded. What becomes of the connection
    /// is up to its [`Overflow`](crate::Overflow) policy.
    Full,
    /// Refused as a whole: the connection's wire format cannot say this message (a line feed inside
    /// a line, text that is not UTF-8). The connection lives on.
    Unencodable,
    /// There is nothing to send to: the connection is gone, closing, or its write side has ended;
    /// or the token names something that does not take this kind of message.
    Gone,
}

impl SendStatus {
    /// Whether the message was accepted.
    pub fn is_accepted(self) -> bool {
        matches!(self, SendStatus::Queued | SendStatus::AboveHighWater)
    }
}
