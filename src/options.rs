//! Options of stream connections: limits, deadlines, water marks.

use std::time::Duration;

use crate::socket_options::SocketOptions;

/// What happens when a message would take the queued output of a connection over
/// [`StreamOptions::output_limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The connection is closed at once, with [`LimitExceeded`](crate::CloseReason::LimitExceeded).
    /// The default, because a stream with a gap is rarely of use, and a peer that reads this slowly
    /// does better to reconnect.
    #[default]
    Close,
    /// The message is dropped whole and the connection stays open: what is queued stays, and what is
    /// *new* is lost. A slow reader gets old messages late and then a gap. Where the newest message is
    /// the one that counts, use [`Net::send_latest`](crate::Net::send_latest).
    Drop,
}

/// Limits, deadlines and socket options of stream connections: of one outgoing connection, or of
/// all that a listener accepts.
///
/// Every limit of memory is on by default, and so are the deadlines for a connect, a handshake, a stalled
/// output and a close. [`idle_timeout`](Self::idle_timeout) and [`message_timeout`](Self::message_timeout) are off: how
/// long a peer may be silent is the protocol's to say. The methods take the value by `self` and return it, so that calls
/// chain:
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
    pub(crate) behind_above: usize,
    pub(crate) overflow: Overflow,
    pub(crate) auto_pause: bool,
    pub(crate) handshake_limit: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) statistics: bool,
    pub(crate) trunk: bool,
    pub(crate) socket: SocketOptions,
    /// The user chose the local port, which must be free again in `on_close`.
    pub(crate) fixed_port: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            unread_limit: 256 * 1024,
            high_water: 64 * 1024,
            low_water: 16 * 1024,
            output_limit: 4 << 20,
            behind_above: 16 * 1024,
            overflow: Overflow::Close,
            auto_pause: true,
            handshake_limit: 64 * 1024,
            connect_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(60),
            idle_timeout: None,
            message_timeout: None,
            statistics: false,
            trunk: false,
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
    /// [`Limit::UnreadInput`](crate::Limit::UnreadInput). Default 256 KiB, at least one byte. A
    /// protocol with larger messages raises it to its largest message. Input that arrives while
    /// reading is paused stays in the system's buffer and does not count.
    #[must_use]
    pub fn unread_limit(mut self, bytes: usize) -> Self {
        self.unread_limit = bytes.max(1);
        self
    }

    /// The high-water mark of the output queue, in bytes. Above it, `send` returns
    /// [`AboveHighWater`](crate::SendStatus::AboveHighWater), and the reactor stops reading from
    /// the connection until the queue has fallen to [`low_water`](Self::low_water). Default 64 KiB:
    /// enough to keep a fast network busy during one turn, and little enough for ten thousand slow
    /// readers.
    #[must_use]
    pub fn high_water(mut self, bytes: usize) -> Self {
        self.high_water = bytes;
        self
    }

    /// The low-water mark of the output queue, in bytes. When a queue that was above the high-water
    /// mark has fallen to it, reading resumes and `on_drain` is called. Default 16 KiB. A value
    /// above the high-water mark is reduced to that. With zero, `on_drain` is called when the queue
    /// is empty.
    #[must_use]
    pub fn low_water(mut self, bytes: usize) -> Self {
        self.low_water = bytes;
        self
    }

    /// Makes room for messages of `bytes`: raises [`unread_limit`](Self::unread_limit) so that one
    /// fits while it arrives, and [`output_limit`](Self::output_limit) so that two fit into the
    /// queue. Larger limits stay as they are. A framing layer has a limit of its own
    /// (`message_limit`).
    #[must_use]
    pub fn messages_up_to(mut self, bytes: usize) -> Self {
        self.unread_limit = self.unread_limit.max(bytes);
        self.output_limit = self.output_limit.max(bytes.saturating_mul(2));
        self
    }

    /// The limit of the output queue, in bytes. A message that would exceed it is refused whole
    /// with [`SendStatus::Full`](crate::SendStatus::Full), and the [`Overflow`] policy decides
    /// about the connection. Default 4 MiB, at least one byte. Raise it to send larger pieces in
    /// one call; better, send what fits and continue in `on_drain`. A message that waits for a
    /// layer's handshake counts 16 bytes more, and a value that waits to be sent or replaced
    /// ([`Net::send_latest`](crate::Net::send_latest)) 64, so that empty ones have a limit too.
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes.max(1);
        self
    }

    /// How many queued bytes a member of a group may have and still keep up, for
    /// [`Net::publish_latest`](crate::Net::publish_latest): if more would be queued, because the system
    /// takes no more, the member has fallen behind, and gets the newest value of each key until it has
    /// caught up. Default 16 KiB: as much as is written at once, so that a short pause of a peer costs it
    /// no value, and a peer at 20 KB/s has less than a second of old values before the newest ones. Zero:
    /// as soon as anything is queued. `usize::MAX`: never, so that it gets every value, up to
    /// [`output_limit`](Self::output_limit).
    #[must_use]
    pub fn behind_above(mut self, bytes: usize) -> Self {
        self.behind_above = bytes;
        self
    }

    /// What happens when a message would exceed [`output_limit`](Self::output_limit). Default
    /// [`Overflow::Close`].
    #[must_use]
    pub fn overflow(mut self, policy: Overflow) -> Self {
        self.overflow = policy;
        self
    }

    /// Whether the reactor stops reading from the connection while its own output is above the
    /// high-water mark. Default true: a peer that sends requests faster than it reads the replies
    /// is slowed down. Switch it off for a protocol in which the peer reads only after its own
    /// output was read; [`output_limit`](Self::output_limit) is then the only bound.
    #[must_use]
    pub fn auto_pause(mut self, on: bool) -> Self {
        self.auto_pause = on;
        self
    }

    /// How many bytes a peer may send before the layers are ready. Default 64 KiB, more than a TLS
    /// handshake with a chain of client certificates takes; at least one byte. Beyond it the
    /// connection is closed with [`Limit::Handshake`](crate::Limit::Handshake).
    #[must_use]
    pub fn handshake_limit(mut self, bytes: usize) -> Self {
        self.handshake_limit = bytes.max(1);
        self
    }

    /// How long connecting may take, all addresses together; each address gets an equal share of
    /// the time that is left. Default 30 s; the system alone would try for more than two minutes.
    /// After it the connect fails with
    /// [`ConnectErrorKind::TimedOut`](crate::ConnectErrorKind::TimedOut).
    #[must_use]
    pub fn connect_timeout(mut self, after: Duration) -> Self {
        self.connect_timeout = after;
        self
    }

    /// How long the handshakes of the layers may take. Default 10 s. After it the reason is
    /// [`Deadline::Handshake`](crate::Deadline::Handshake).
    #[must_use]
    pub fn handshake_timeout(mut self, after: Duration) -> Self {
        self.handshake_timeout = after;
        self
    }

    /// How long a graceful close waits for the peer's end once the system has taken all output.
    /// Default 5 s.
    ///
    /// If the peer is silent then, the socket is closed and the end is orderly. If the peer is
    /// still sending, its input is read and dropped for up to a minute more: unread bytes would
    /// turn the close into a reset, which destroys output that the peer has not read yet (RFC 1122
    /// section 4.2.2.13). After that minute the reason is
    /// [`Deadline::Close`](crate::Deadline::Close).
    ///
    /// It does not bound flushing: that takes as long as the peer takes some output within each
    /// [`stall_timeout`](Self::stall_timeout).
    #[must_use]
    pub fn close_timeout(mut self, after: Duration) -> Self {
        self.close_timeout = after;
        self
    }

    /// How long queued output may wait without the system taking a byte of it, counted from the
    /// start of the turn. Default 60 s. It ends connections whose peer never reads; a peer that
    /// reads slowly is not cut, however late the system reports the socket as writable. The reason
    /// is [`Deadline::Stall`](crate::Deadline::Stall), during a graceful close
    /// [`Deadline::Close`](crate::Deadline::Close).
    #[must_use]
    pub fn stall_timeout(mut self, after: Duration) -> Self {
        self.stall_timeout = after;
        self
    }

    /// How long a connection may be silent in both directions, counted from the start of the turn
    /// in which a byte last moved; output that the system takes counts. After it the reason is
    /// [`Deadline::Idle`](crate::Deadline::Idle). Off by default, because only the protocol knows
    /// whether silence is a failure.
    ///
    /// It does not run while this side holds reading back (a pause, or output of its own or of its
    /// partner above the high-water mark), and starts again afterwards. Input that arrived in time
    /// counts even if the loop was delayed. There is no cost per byte: each read notes the time,
    /// and one timer checks it. `None` switches it off again, for
    /// [`Net::set_options`](crate::Net::set_options).
    #[must_use]
    pub fn idle_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = after.into();
        self
    }

    /// How long one message may take from its first byte to its last. The time starts when bytes
    /// arrive that the handler leaves unread, or that a layer cannot decode yet, and starts again
    /// when some are taken. After it the reason is [`Deadline::Message`](crate::Deadline::Message).
    ///
    /// Off by default, because only the protocol knows how long a message may take. Set it where a
    /// peer that sends one byte per second must not occupy a connection. It does not run while
    /// reading is held back.
    #[must_use]
    pub fn message_timeout(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.message_timeout = after.into();
        self
    }

    /// Whether the connection counts what it moves, for
    /// [`Net::connection_stats`](crate::Net::connection_stats). Default false: the reactor's own figures
    /// ([`Net::stats`](crate::Net::stats)) are always counted.
    ///
    /// A connection that counts takes 104 bytes more, and leaves the shortest way through the reactor:
    /// its messages cost some hundred instructions more, and what is published to it is queued message by
    /// message (and still leaves in one write). So it suits connections that are looked at: a few, or all
    /// of a service that is not at its limit. [`Net::set_options`](crate::Net::set_options) switches it
    /// on and off while the connection lives.
    #[must_use]
    pub fn statistics(mut self, on: bool) -> Self {
        self.statistics = on;
        self
    }

    /// Whether the connection is a trunk, one that carries what many others say or are told: to a broker,
    /// a database, the next server. Default false.
    ///
    /// All other connections have the same share of a turn, [`Config::messages_per_turn`](crate::Config::messages_per_turn)
    /// of each. What a hundred of them ask through a trunk is answered on that one connection, so with
    /// the same share it would fall behind as soon as all of them are busy. While work is left over from the
    /// turn before, trunks are served first, and may spend three quarters of
    /// [`Config::work_per_turn`](crate::Config::work_per_turn) among them. The last quarter is the others',
    /// so that a flood on a trunk slows them down and does not stop them; and behind a turn that a trunk has
    /// used up alone, with one long message, they have a whole one. Without such a flood nothing changes.
    #[must_use]
    pub fn trunk(mut self, on: bool) -> Self {
        self.trunk = on;
        self
    }

    /// The options of the socket itself.
    #[must_use]
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.socket = options;
        self
    }
}
