//! What one connection has moved.

use std::fmt;
use std::ops::Sub;
use std::time::Duration;

/// What one connection has moved, if [`StreamOptions::statistics`] is on:
/// [`Net::connection_stats`](crate::Net::connection_stats).
///
/// The difference of two snapshots is what has happened between them, and its `age` is the time that has
/// passed; `queued`, `queued_peak` and `idle` are those of the later one.
///
/// [`StreamOptions::statistics`]: crate::StreamOptions::statistics
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Bytes that were read, in wire form.
    pub bytes_received: u64,
    /// Bytes that the system took, in wire form.
    pub bytes_sent: u64,
    /// Messages that the layers decoded; without a layer, pieces of input as they were read.
    pub messages_received: u64,
    /// Messages that `send` or a group queued, or wrote at once.
    pub messages_sent: u64,
    /// Values that took the place of an older one of the same key, which had not left
    /// ([`Net::send_latest`](crate::Net::send_latest)). The older one counts as sent.
    pub messages_replaced: u64,
    /// Messages that were not queued: no room below the limit, no wire form, or the connection was
    /// closing.
    pub messages_dropped: u64,
    /// Bytes that wait to be written.
    pub queued: u64,
    /// The most that ever waited at the end of a send.
    pub queued_peak: u64,
    /// How long it has counted: since its transport was established, or since statistics were switched
    /// on.
    pub age: Duration,
    /// How long no byte has moved in either direction.
    pub idle: Duration,
}

impl ConnectionStats {
    /// Each figure with its name; durations in nanoseconds.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        [
            ("bytes_received", self.bytes_received),
            ("bytes_sent", self.bytes_sent),
            ("messages_received", self.messages_received),
            ("messages_sent", self.messages_sent),
            ("messages_replaced", self.messages_replaced),
            ("messages_dropped", self.messages_dropped),
            ("queued", self.queued),
            ("queued_peak", self.queued_peak),
            ("age_nanoseconds", nanos(self.age)),
            ("idle_nanoseconds", nanos(self.idle)),
        ]
        .into_iter()
    }
}

impl Sub for ConnectionStats {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        ConnectionStats {
            bytes_received: self.bytes_received.saturating_sub(earlier.bytes_received),
            bytes_sent: self.bytes_sent.saturating_sub(earlier.bytes_sent),
            messages_received: self.messages_received.saturating_sub(earlier.messages_received),
            messages_sent: self.messages_sent.saturating_sub(earlier.messages_sent),
            messages_replaced: self.messages_replaced.saturating_sub(earlier.messages_replaced),
            messages_dropped: self.messages_dropped.saturating_sub(earlier.messages_dropped),
            age: self.age.saturating_sub(earlier.age),
            ..self
        }
    }
}

/// One line: `12 messages (340 bytes) in, 10 (280) out, 0 replaced, 0 dropped, 0 bytes queued (peak 64),
/// age 3s, idle 200ms`.
impl fmt::Display for ConnectionStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} messages ({} bytes) in, {} ({}) out, {} replaced, {} dropped, {} bytes queued (peak {}), \
             age {:.1?}, idle {:.1?}",
            self.messages_received,
            self.bytes_received,
            self.messages_sent,
            self.bytes_sent,
            self.messages_replaced,
            self.messages_dropped,
            self.queued,
            self.queued_peak,
            self.age,
            self.idle,
        )
    }
}
