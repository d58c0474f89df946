//! What a connection may use: limits, deadlines, water marks.

use std::time::Duration;

use crate::socket_options::SocketOptions;

/// What happens to a message that would take a connection's queued output over its
/// [`output_limit`](StreamOptions::output_limit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The connection is closed at once, with
    /// [`LimitExceeded`](crate::CloseReason::LimitExceeded). The default: a stream with a hole in
    /// it is rarely of use, and a peer that reads this slowly is better off connecting again.
    #[default]
    Close,
    /// The message is dropped whole, the connection lives on. For feeds where the next message
    /// makes the last one worthless.
    Drop,
}

/// Limits, deadlines and socket options of stream connections; for one outgoing connection or for
/// all that a listener accepts.
///
/// Every limit is on by default. Methods take the value by `self` and return it, so that they chain:
///
/// ```
/// use std::time::Duration;
/// use tidegate::{SocketOptions, StreamOptions};
///
/// let options = StreamOptions::new()
///     .idle_timeout(Duration::from_secs(300))
///     .output_limit(1 << 20)
///     .socket_options(SocketOptions::new().keepalive(Duration::from_secs(60)));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct StreamOptions {
    pub(crate) unread_limit: usize,
    pub(crate) high_water: usize,
    pub(crate) low_water: usize,
    pub(crate) output_limit: usize,
    pub(crate) overflow: Overflow,
    pub(crate) auto_pause: bool,
    pub(crate) handshake_limit: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) socket: SocketOptions,
    /// The connection has a local port of the user's choice, which has to be free in `on_close`.
    pub(crate) fixed_port: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            unread_limit: 256 * 1024,
            high_water: 64 * 1024,
            low_water: 16 * 1024,
            output_limit: 4 << 20,
            overflow: Overflow::Close,
            auto_pause: true,
            handshake_limit: 64 * 1024,
            connect_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(60),
            idle_timeout: None,
            message_timeout: None,
            socket: SocketOptions::default(),
            fixed_port: false,
        }
    }
}

impl StreamOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes a handler may leave unread before its connection is closed with
    /// [`Limit::UnreadInput`](crate::Limit::UnreadInput). Default 256 KiB: a protocol whose
    /// messages are larger raises it to its largest message. What arrives while reading is paused
    /// stays in the system's buffer and does not count.
    #[must_use]
    pub fn unread_limit(mut self, bytes: usize) -> Self {
        self.unread_limit = bytes.max(1);
        self
    }

    /// The high-water mark of the output queue, in bytes: above it a connection's `send` says
    /// [`AboveHighWater`](crate::SendStatus::AboveHighWater), and the reactor stops reading from the
    /// connection until the queue has fallen to [`low_water`](Self::low_water). Default 64 KiB: enough
    /// to keep a fast link busy during one turn, and little enough for ten thousand slow readers.
    #[must_use]
    pub fn high_water(mut self, bytes: usize) -> Self {
        self.high_water = bytes;
        self
    }

    /// The low-water mark of the output queue, in bytes: when a queue that was above the high one has
    /// fallen to it, reading goes on and `on_drain` is called. Default 16 KiB; one above the high-water
    /// mark is cut to that. Zero calls `on_drain` when the queue is empty.
    #[must_use]
    pub fn low_water(mut self, bytes: usize) -> Self {
        self.low_water = bytes;
        self
    }

    /// Makes room for messages of `bytes`: raises [`unread_limit`](Self::unread_limit) so that one fits
    /// while it arrives, and [`output_limit`](Self::output_limit) so that two fit into the queue. Limits
    /// that are larger already stay. A framing layer has a limit of its own (`message_limit`).
    #[must_use]
    pub fn messages_up_to(mut self, bytes: usize) -> Self {
        self.unread_limit = self.unread_limit.max(bytes);
        self.output_limit = self.output_limit.max(bytes.saturating_mul(2));
        self
    }

    /// The hard limit of the output queue, in bytes; what would go over it is refused as a whole
    /// with [`SendStatus::Full`](crate::SendStatus::Full), and [`Overflow`] says what becomes of
    /// the connection. Default 4 MiB. Raise it to send larger pieces in one call; better, send
    /// what fits and go on in `on_drain`. A message that waits for a layer's handshake counts with
    /// 16 bytes for its place in the line, so that empty ones have a limit too.
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes.max(1);
        self
    }

    /// What happens at the [`output_limit`](Self::output_limit). Default [`Overflow::Close`].
    #[must_use]
    pub fn overflow(mut self, policy: Overflow) -> Self {
        self.overflow = policy;
        self
    }

    /// Whether the reactor stops reading from the connection while its own output is above the
    /// high mark. Default true: a peer that asks faster than it reads the answers is slowed down.
    /// Switch it off for a protocol whose input must be read to make the peer read, and mind the
    /// cap then.
    #[must_use]
    pub fn auto_pause(mut self, on: bool) -> Self {
        self.auto_pause = on;
        self
    }

    /// How many bytes a peer may send before the layers are ready. Default 64 KiB, more than any
    /// honest TLS handshake with a chain of client certificates takes.
    #[must_use]
    pub fn handshake_limit(mut self, bytes: usize) -> Self {
        self.handshake_limit = bytes.max(1);
        self
    }

    /// How long connecting may take, all addresses together; each gets an equal share of what is
    /// left. Default 30 s; the system alone would
    /// go on for two minutes and more.
    #[must_use]
    pub fn connect_timeout(mut self, after: Duration) -> Self {
        self.connect_timeout = after;
        self
    }

    /// How long the handshakes of the connection's layers (TLS, WebSocket) may take. Default 10 s. It
    /// does not cover a greeting that the handler itself reads: use a timer
    /// ([`Context::set_timer`](crate::Context::set_timer)) for that.
    #[must_use]
    pub fn handshake_timeout(mut self, after: Duration) -> Self {
        self.handshake_timeout = after;
        self
    }

    /// How long a graceful close waits for the peer's end once all output is with the system. Default
    /// 5 s. A peer that is silent then is left, and the end is orderly. One that goes on sending is
    /// read, and what it sends dropped, for up to a minute more, because its unread bytes would make
    /// the close a reset, which destroys what it has not read yet (RFC 1122 section 4.2.2.13); after
    /// that the reason is [`Deadline::Close`](crate::Deadline::Close). Flushing is bounded by
    /// [`stall_timeout`](Self::stall_timeout): it takes as long as the peer takes some of it.
    #[must_use]
    pub fn close_timeout(mut self, after: Duration) -> Self {
        self.close_timeout = after;
        self
    }

    /// How long queued output may wait without the system taking a byte of it, counted from the
    /// beginning of the turn. Default 60 s. It is the backstop for peers that never read; one that
    /// reads slowly is not cut, however slowly the system reports it. During a graceful close the
    /// reason is [`Deadline::Close`](crate::Deadline::Close).
    #[must_use]
    pub fn stall_timeout(mut self, after: Duration) -> Self {
        self.stall_timeout = after;
        self
    }

    /// How long a connection may be silent in both directions, counted from the beginning of the turn
    /// in which a byte last moved; output that the system takes counts. It does not run while this
    /// side holds reading back (a pause, its own queue or its partner's above the high mark), and begins
    /// anew after it. Input that came in time counts also if the loop was held up meanwhile. Off by
    /// default: whether silence means death only the protocol knows. It costs nothing per byte: the
    /// time of the last byte is noted once a read, and one timer looks at it when it could be due.
    #[must_use]
    pub fn idle_timeout(mut self, after: Duration) -> Self {
        self.idle_timeout = Some(after);
        self
    }

    /// How long one message may take from its first byte to its last: bytes that the handler leaves
    /// unread, or that a layer cannot decode yet, begin to count when they arrive, and begin anew when
    /// some are taken. Off by default, because only the protocol knows how long a message may take;
    /// set it where a peer that sends one byte a second must not hold a connection
    /// ([`Deadline::Message`](crate::Deadline::Message)). It does not run while reading is held back.
    #[must_use]
    pub fn message_timeout(mut self, after: Duration) -> Self {
        self.message_timeout = Some(after);
        self
    }

    /// The socket's own options.
    #[must_use]
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.socket = options;
        self
    }
}
