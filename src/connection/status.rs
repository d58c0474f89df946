//! The result of a send.

/// The result of a send.
///
/// A plain status and not a `Result`, so that a `?` on another connection's send cannot end the
/// handler's own connection. It may be ignored: an error of that connection is reported to its own
/// handler, in `on_close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendStatus {
    /// Queued (or written already).
    Queued,
    /// Queued, and the queue is above its high-water mark: a sender that can wait should, until
    /// `on_drain`.
    AboveHighWater,
    /// Accepted, in the place of an older message with the same key, which was not sent yet and now never
    /// is. Only [`send_latest`](crate::Net::send_latest) returns it.
    Replaced,
    /// Refused as a whole: the message would take the queue over its limit
    /// ([`output_limit`](crate::StreamOptions::output_limit)). Whether the connection ends is up to its
    /// [`Overflow`](crate::Overflow) policy.
    Full,
    /// Refused as a whole: the connection's wire format cannot carry this message (a line feed inside
    /// a line, text that is not UTF-8). The connection stays open.
    Unencodable,
    /// There is nothing to send to: the connection is gone, closing, or its write side has ended;
    /// or the token names something that does not take this kind of message.
    Gone,
}

impl SendStatus {
    /// Whether the message was accepted.
    pub fn is_accepted(self) -> bool {
        matches!(self, SendStatus::Queued | SendStatus::AboveHighWater | SendStatus::Replaced)
    }
}
