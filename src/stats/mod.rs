//! Figures about a running reactor: [`Net::stats`](crate::Net::stats).
//!
//! All of them are plain values. They are copied out, compared, subtracted and printed, and hold
//! nothing of the reactor.

use std::fmt;
use std::ops::{Add, Sub};

use crate::error::{CloseReason, Deadline, Limit};

mod connection;
#[cfg(feature = "histograms")]
mod latency;
mod prometheus;
mod slow;
#[cfg(feature = "tcp-info")]
mod tcp;

pub use connection::ConnectionStats;
#[cfg(feature = "histograms")]
pub use latency::{Histogram, Latency};
pub use prometheus::{Exposition, prometheus};
pub(crate) use slow::Callback;
pub use slow::SlowCallback;
#[cfg(feature = "tcp-info")]
pub use tcp::TcpInfo;

/// What a figure is, which decides how two snapshots are subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows.
    Counter,
    /// What there is at the moment.
    Gauge,
}

/// One struct and one table of its fields, so that nothing that is counted is left out of what is
/// printed, subtracted or exported. The text of each field is its documentation and its HELP line.
///
/// The order counts: two that are added to at once, a read and its bytes, must not be neighbours, or the
/// compiler packs both into one vector for the addition, which takes ten instructions in place of two.
macro_rules! figures {
    ($(#[$of:meta])* pub struct $name:ident {
        $($kind:ident: $(#[doc = $help:literal])+ $field:ident,)*
    }) => {
        $(#[$of])*
        pub struct $name {
            $($(#[doc = $help])+ pub $field: u64,)*
            /// Connections that have ended, by the reason that `on_close` got. Those that ended before
            /// they had a handler count too.
            pub closed: Closes,
            /// Sessions of UDP peers that have ended, by the reason that `on_close` got.
            pub sessions_closed: Closes,
        }

        impl $name {
            const FIGURES: &'static [(&'static str, Kind, &'static str)] =
                &[$((stringify!($field), Kind::$kind, concat!($($help),+)),)*];

            fn values(&self) -> impl Iterator<Item = u64> + use<> {
                [$(self.$field),*].into_iter()
            }
        }

        impl Sub for $name {
            type Output = Self;

            /// What has happened between an earlier snapshot and this one. Gauges keep the value of this
            /// one.
            fn sub(self, earlier: Self) -> Self {
                $name {
                    $($field: match Kind::$kind {
                        Kind::Counter => self.$field.saturating_sub(earlier.$field),
                        Kind::Gauge => self.$field,
                    },)*
                    closed: self.closed - earlier.closed,
                    sessions_closed: self.sessions_closed - earlier.sessions_closed,
                }
            }
        }

        impl Add for $name {
            type Output = Self;

            /// The figures of two reactors together.
            fn add(self, other: Self) -> Self {
                $name {
                    $($field: self.$field.saturating_add(other.$field),)*
                    closed: self.closed + other.closed,
                    sessions_closed: self.sessions_closed + other.sessions_closed,
                }
            }
        }
    };
}

figures! {
    /// The figures of one reactor, counted since it was made: [`Net::stats`](crate::Net::stats).
    ///
    /// They are always counted. A field is either a counter, which only grows, or a gauge, which says
    /// how many there are at the moment; the gauges stand at the end. The difference of two snapshots is
    /// what has happened between them.
    ///
    /// ```
    /// use tidegate::Reactor;
    ///
    /// let mut reactor = Reactor::new()?;
    /// let before = reactor.net().stats();
    /// reactor.turn(Some(std::time::Duration::ZERO))?;
    /// let passed = reactor.net().stats() - before;
    /// assert_eq!(passed.turns, 1);
    /// assert_eq!(passed.to_string(), "turns 1");
    /// for (name, value) in passed.fields() {
    ///     println!("{name} = {value}");
    /// }
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    ///
    /// Outside callbacks each connection is found again in the counts:
    /// `accepted + connects + adopted == refused + closed.total() + connections`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    #[non_exhaustive]
    pub struct ReactorStats {
        Counter: /// Turns of the loop.
            turns,
        Counter: /// Turns that were begun by a wake of another thread. One wake may stand for many posts.
            wakes,
        Counter: /// Readiness events that the system reported.
            events,
        Counter: /// Events of sockets that were closed earlier in the same batch of events.
            stale_events,
        Counter: /// Reads of connections that brought bytes.
            reads,
        Counter: /// Writes of connections of which the system took something.
            writes,
        Counter: /// Reads of connections that found nothing (EAGAIN).
            reads_blocked,
        Counter: /// Writes of connections of which the system took nothing (EAGAIN).
            writes_blocked,
        Counter: /// Bytes that connections received.
            bytes_read,
        Counter: /// Bytes that the system took from connections.
            bytes_written,
        Counter: /// Connections that listeners accepted, those that were refused afterwards included.
            accepted,
        Counter: /// Accepted connections that were turned away: by a filter, or because their options could
            /// not be set.
            refused,
        Counter: /// Connections that a listener accepted for other workers. They count there as accepted.
            handed_over,
        Counter: /// Messages that were sent to other workers, and messages by name that crossed to them.
            crossings,
        Counter: /// Failures of accept(2): of one connection, or because descriptors or memory ran out.
            accept_errors,
        Counter: /// Outgoing connections that were begun.
            connects,
        Counter: /// Outgoing connections whose transport was established.
            connected,
        Counter: /// Outgoing connections that were never established.
            connect_failed,
        Counter: /// Connected sockets that were taken over.
            adopted,
        Counter: /// Timers that were set: of handlers, and by `run_after`. Moving one does not count.
            timers_set,
        Counter: /// Timers that fired: of handlers, and of `run_after`.
            timers_fired,
        Counter: /// Messages of other threads that were handled, results of jobs included.
            posts,
        Counter: /// Notifications that were handed to handlers.
            notifications,
        Counter: /// Turns that spent all of `Config::work_per_turn` on input, or whose deadline (`turn_until`)
            /// passed with work left.
            work_exhausted,
        Counter: /// Turns whose poll returned as many events as `Config::events_per_turn`.
            events_exhausted,
        Counter: /// How often a connection used up `Config::reads_per_turn`.
            reads_exhausted,
        Counter: /// How often a connection used up `Config::messages_per_turn`.
            messages_exhausted,
        Counter: /// How often a listener used up `Config::accepts_per_turn`.
            accepts_exhausted,
        Counter: /// Turns that left due timers to the next one (`Config::timers_per_turn`).
            timers_exhausted,
        Counter: /// Turns that left messages of other threads to the next one (`Config::posts_per_turn`).
            posts_exhausted,
        Counter: /// How often a UDP socket used up `Config::datagrams_per_turn`.
            datagrams_exhausted,
        Counter: /// Turns that took more input before the flush of a large group (step 9 of a turn).
            gathers,
        Counter: /// Datagrams that were received.
            datagrams_received,
        Counter: /// Datagrams that the system took.
            datagrams_sent,
        Counter: /// Datagrams that were not sent: refused by a full queue, or by the system with an error.
            datagrams_dropped,
        Gauge: /// Connections, those that are opening or closing included.
            connections,
        Gauge: /// Listeners.
            listeners,
        Gauge: /// UDP sockets.
            datagram_sockets,
        Gauge: /// Sessions of UDP peers.
            sessions,
        Gauge: /// Timers that are set and have not fired: of handlers, and of `run_after`.
            timers_pending,
        Gauge: /// Bytes that wait to be written, on all connections and UDP sockets. What groups have pending
            /// counts once for each member.
            bytes_queued,
    }
}

impl ReactorStats {
    /// Each figure with its name, in the order of the declaration; the last are `sessions_closed` and
    /// `closed`, the totals of all reasons ([`Closes::iter`] has them one by one).
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let names = Self::FIGURES.iter().map(|&(name, ..)| name);
        let closed =
            [("sessions_closed", self.sessions_closed.total()), ("closed", self.closed.total())];
        names.zip(self.values()).chain(closed)
    }
}

/// The figures that are not zero, on one line: `turns 12, events 3, ..., closed 2 (both_ended 2)`.
impl fmt::Display for ReactorStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (name, value) in self.fields().filter(|&(_, value)| value > 0) {
            write!(f, "{comma}{name} {value}")?;
            match name {
                "closed" => write!(f, " ({})", self.closed)?,
                "sessions_closed" => write!(f, " ({})", self.sessions_closed)?,
                _ => {}
            }
            comma = ", ";
        }
        if comma.is_empty() { f.write_str("nothing yet") } else { Ok(()) }
    }
}

/// How many connections, or sessions, have ended for which reason.
///
/// There is a name for each kind of [`CloseReason`], for each [`Deadline`] and each [`Limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Closes {
    counts: [u64; REASONS.len()],
}

/// The names, which are the labels of an export.
const REASONS: [&str; 20] = [
    "both_ended",
    "closed",
    "aborted",
    "cancelled",
    "connect_failed",
    "io",
    "handshake_timeout",
    "idle_timeout",
    "message_timeout",
    "stall_timeout",
    "close_timeout",
    "shutdown",
    "unread_limit",
    "output_limit",
    "handshake_limit",
    "handler",
    "panicked",
    "layer",
    "reactor_dropped",
    "socket_closed",
];

/// The index of a reason's name.
fn index_of(reason: &CloseReason) -> usize {
    match reason {
        CloseReason::BothEnded => 0,
        CloseReason::Closed => 1,
        CloseReason::Aborted => 2,
        CloseReason::Cancelled => 3,
        CloseReason::ConnectFailed(_) => CONNECT_FAILED,
        CloseReason::Io(_) => 5,
        CloseReason::TimedOut(Deadline::Handshake) => 6,
        CloseReason::TimedOut(Deadline::Idle) => 7,
        CloseReason::TimedOut(Deadline::Message) => 8,
        CloseReason::TimedOut(Deadline::Stall) => 9,
        CloseReason::TimedOut(Deadline::Close) => 10,
        CloseReason::TimedOut(Deadline::Shutdown) => 11,
        CloseReason::LimitExceeded(Limit::UnreadInput, _) => 12,
        CloseReason::LimitExceeded(Limit::QueuedOutput, _) => 13,
        CloseReason::LimitExceeded(Limit::Handshake, _) => 14,
        CloseReason::Handler(_) => 15,
        CloseReason::Panicked(_) => 16,
        CloseReason::Layer(_) => 17,
        CloseReason::ReactorDropped => 18,
        CloseReason::SocketClosed => SOCKET_CLOSED,
    }
}

const CONNECT_FAILED: usize = 4;
/// Of sessions alone.
const SOCKET_CLOSED: usize = 19;

impl Closes {
    pub(crate) fn count(&mut self, reason: &CloseReason) {
        self.counts[index_of(reason)] += 1;
    }

    /// How many have ended for this reason. The fields of a reason do not matter, but for the
    /// [`Deadline`] and the [`Limit`].
    pub fn of(&self, reason: &CloseReason) -> u64 {
        self.counts[index_of(reason)]
    }

    /// How many never were established.
    pub(crate) fn connect_failed(&self) -> u64 {
        self.counts[CONNECT_FAILED]
    }

    /// The reasons that connections may have.
    pub(crate) fn of_connections(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        self.iter().take(SOCKET_CLOSED)
    }

    /// The reasons that sessions may have.
    pub(crate) fn of_sessions(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        const THEIRS: [&str; 8] = [
            "closed",
            "aborted",
            "idle_timeout",
            "shutdown",
            "handler",
            "panicked",
            "reactor_dropped",
            REASONS[SOCKET_CLOSED],
        ];
        self.iter().filter(|(name, count)| *count > 0 || THEIRS.contains(name))
    }

    /// How many have ended.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many have not ended in order: all but `both_ended` and `closed`.
    pub fn failed(&self) -> u64 {
        self.counts[2..].iter().sum()
    }

    /// Each reason's name, with how many have ended for it.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        REASONS.into_iter().zip(self.counts)
    }
}

impl Sub for Closes {
    type Output = Self;

    fn sub(mut self, earlier: Self) -> Self {
        for (now, then) in self.counts.iter_mut().zip(earlier.counts) {
            *now = now.saturating_sub(then);
        }
        self
    }
}

impl Add for Closes {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        for (one, other) in self.counts.iter_mut().zip(other.counts) {
            *one = one.saturating_add(other);
        }
        self
    }
}

/// Those that are not zero: `both_ended 2, io 1`.
impl fmt::Display for Closes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for (name, count) in self.iter().filter(|&(_, count)| count > 0) {
            write!(f, "{comma}{name} {count}")?;
            comma = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_of_counters_and_keeps_gauges() {
        let mut early = ReactorStats { turns: 3, connections: 5, ..ReactorStats::default() };
        let mut late = ReactorStats { turns: 10, connections: 2, ..ReactorStats::default() };
        early.closed.count(&CloseReason::Closed);
        late.closed = early.closed;
        late.closed.count(&CloseReason::TimedOut(Deadline::Idle));
        let passed = late - early;
        assert_eq!((passed.turns, passed.connections), (7, 2));
        assert_eq!(passed.closed.to_string(), "idle_timeout 1");
        assert_eq!((early - late).turns, 0, "the wrong way round it is nothing");
        assert_eq!((early + late).connections, 7);
        assert_eq!((early + late).closed.total(), 3);
    }

    #[test]
    fn every_figure_has_a_name_of_its_own_and_a_text() {
        let names: std::collections::BTreeSet<_> = ReactorStats::default().fields().collect();
        assert_eq!(names.len(), ReactorStats::FIGURES.len() + 2);
        for (name, _, help) in ReactorStats::FIGURES {
            assert!(help.trim().ends_with('.'), "{name}: {help}");
            assert!(!help.contains(['\n', '\\']), "{name}: a HELP line is one line");
        }
    }

    #[test]
    fn printed_are_those_that_are_not_zero() {
        let mut stats = ReactorStats { events: 2, ..ReactorStats::default() };
        assert_eq!(stats.to_string(), "events 2");
        stats.closed.count(&CloseReason::LimitExceeded(Limit::QueuedOutput, 1));
        assert_eq!(stats.to_string(), "events 2, closed 1 (output_limit 1)");
        stats.sessions_closed.count(&CloseReason::SocketClosed);
        assert_eq!(
            stats.to_string(),
            "events 2, sessions_closed 1 (socket_closed 1), closed 1 (output_limit 1)"
        );
        assert_eq!(ReactorStats::default().to_string(), "nothing yet");
    }

    #[test]
    fn every_reason_has_a_place_of_its_own() {
        let reasons = [
            CloseReason::BothEnded,
            CloseReason::Closed,
            CloseReason::Aborted,
            CloseReason::Cancelled,
            CloseReason::Io(std::io::ErrorKind::Other.into()),
            CloseReason::TimedOut(Deadline::Handshake),
            CloseReason::TimedOut(Deadline::Idle),
            CloseReason::TimedOut(Deadline::Message),
            CloseReason::TimedOut(Deadline::Stall),
            CloseReason::TimedOut(Deadline::Close),
            CloseReason::TimedOut(Deadline::Shutdown),
            CloseReason::LimitExceeded(Limit::UnreadInput, 1),
            CloseReason::LimitExceeded(Limit::QueuedOutput, 1),
            CloseReason::LimitExceeded(Limit::Handshake, 1),
            CloseReason::Handler("".into()),
            CloseReason::Panicked(String::new()),
            CloseReason::ReactorDropped,
            CloseReason::SocketClosed,
        ];
        let mut closes = Closes::default();
        for (count, reason) in reasons.iter().enumerate() {
            closes.count(reason);
            assert_eq!((closes.of(reason), closes.total()), (1, count as u64 + 1), "{reason}");
        }
        assert_eq!(closes.failed(), closes.total() - 2);
    }
}
