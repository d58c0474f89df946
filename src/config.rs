//! The reactor's own settings: budgets, buffer sizes, polling.

use std::time::Duration;

/// Settings of a [`Reactor`](crate::Reactor). `Config::new()` suits most services; each method
/// says what its default is and why. Sizes and budgets of zero count as the least that works.
///
/// ```
/// use std::time::Duration;
/// use tidegate::Config;
///
/// let config = Config::new().spin(Duration::from_micros(50)).read_buffer(64 * 1024);
/// # let _ = config;
/// ```
///
/// The budgets, those `_per_turn`, bound what one turn does, so that a busy source does not keep the
/// others waiting. Two things use them a second time in one turn: a socket whose waiting output goes
/// out by an event is served once more for what its handler says to that, and a turn may wait a
/// moment for more of a burst to a big group (step 9 of [`Reactor`](crate::Reactor)'s turn, two
/// milliseconds at most).
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) read_buffer: usize,
    pub(crate) events_per_turn: usize,
    pub(crate) reads_per_turn: usize,
    pub(crate) messages_per_turn: usize,
    pub(crate) accepts_per_turn: usize,
    pub(crate) datagrams_per_turn: usize,
    pub(crate) datagram_sends_per_turn: usize,
    pub(crate) timers_per_turn: usize,
    pub(crate) posts_per_turn: usize,
    pub(crate) post_limit: usize,
    pub(crate) datagram_size: usize,
    pub(crate) group_log: usize,
    pub(crate) work_per_turn: usize,
    pub(crate) spin: Duration,
}

impl Config {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Size of the one read buffer that all connections share, in bytes. Default 256 KiB: large
    /// messages cost a tenth less CPU than with 64 KiB, small ones touch its first pages only. What
    /// one read brings may take an output queue that far over its high mark.
    #[must_use]
    pub fn read_buffer(mut self, bytes: usize) -> Self {
        self.read_buffer = bytes;
        self
    }

    /// How many readiness events one turn takes from the system. Default 1,024.
    #[must_use]
    pub fn events_per_turn(mut self, events: usize) -> Self {
        self.events_per_turn = events;
        self
    }

    /// How often one connection is read in one turn before others get their share. Default 4, with
    /// the default read buffer 1 MiB.
    #[must_use]
    pub fn reads_per_turn(mut self, reads: usize) -> Self {
        self.reads_per_turn = reads;
        self
    }

    /// How often one connection's handler is called with data in one turn. Default 256.
    #[must_use]
    pub fn messages_per_turn(mut self, messages: usize) -> Self {
        self.messages_per_turn = messages;
        self
    }

    /// How many connections one listener accepts in one turn. Default 64.
    #[must_use]
    pub fn accepts_per_turn(mut self, connections: usize) -> Self {
        self.accepts_per_turn = connections;
        self
    }

    /// How many datagrams one socket receives in one turn. Default 64. Sockets that receive trains (feature `udp-batch`, `Udp::receive_trains`) may
    /// go over it by one train.
    #[must_use]
    pub fn datagrams_per_turn(mut self, datagrams: usize) -> Self {
        self.datagrams_per_turn = datagrams;
        self
    }

    /// How many of the datagrams that wait on one socket leave at once. Default 1,024: more than the
    /// queue's default limit holds of the size that Ethernet carries, so that a loop that turns once a
    /// tick empties the queue. What is over it leaves in the next turn, which is due at once
    /// ([`Reactor::next_deadline`](crate::Reactor::next_deadline)).
    #[must_use]
    pub fn datagram_sends_per_turn(mut self, datagrams: usize) -> Self {
        self.datagram_sends_per_turn = datagrams;
        self
    }

    /// How many due timers fire in one turn. Default 4,096.
    #[must_use]
    pub fn timers_per_turn(mut self, timers: usize) -> Self {
        self.timers_per_turn = timers;
        self
    }

    /// How many messages from other threads, and how many notifications, one turn handles. Default 1,024.
    #[must_use]
    pub fn posts_per_turn(mut self, messages: usize) -> Self {
        self.posts_per_turn = messages;
        self
    }

    /// How many messages from other threads may wait; more are refused, and the value is handed
    /// back. Notifications count until they are delivered, whoever posted them, also those to a connection that
    /// is not established yet. Default 1,048,576.
    #[must_use]
    pub fn post_limit(mut self, messages: usize) -> Self {
        self.post_limit = messages;
        self
    }

    /// Largest datagram that is received whole, in bytes; what is longer is cut and flagged. The
    /// default, 65,535, is the most that UDP can carry (RFC 768), so that nothing is ever cut.
    #[must_use]
    pub fn datagram_size(mut self, bytes: usize) -> Self {
        self.datagram_size = bytes;
        self
    }

    /// How many bytes one group's messages may take before they are handed to the members' own
    /// queues early; each message counts 32 bytes (on 64-bit targets) beside its own. Default 1 MiB:
    /// some thousand lines of chat, which leave in one write for each member.
    #[must_use]
    pub fn group_log(mut self, bytes: usize) -> Self {
        self.group_log = bytes;
        self
    }

    /// How much work one turn may do, in units, over all connections: once for input, and once for the
    /// delivery of groups' messages. What is left goes on in the next turn, which begins at once. Of
    /// input, a callback is a unit, each KiB that a layer decoded (or 16 KiB that were read) is one more,
    /// and a step of a handshake is 32. Of groups, the write for one member is a unit, each KiB that is
    /// written, encoded or copied is one more, and a message that is encoded for one member by a layer
    /// is four. Default 1,024: with 2 to 5 µs for a write(2) to a TCP socket, and up to 17 µs for a small
    /// message through permessage-deflate, that is 5 ms of an ordinary machine at most, as long as a
    /// turn may keep the others waiting.
    #[must_use]
    pub fn work_per_turn(mut self, units: usize) -> Self {
        self.work_per_turn = units;
        self
    }

    /// Low-latency mode: how long to poll without sleeping before the loop sleeps. Default zero.
    /// Anything above zero eats a core while the loop waits, and saves the wake-up (several
    /// microseconds) for what arrives meanwhile.
    #[must_use]
    pub fn spin(mut self, time: Duration) -> Self {
        self.spin = time;
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            read_buffer: 256 * 1024,
            events_per_turn: 1024,
            reads_per_turn: 4,
            messages_per_turn: 256,
            accepts_per_turn: 64,
            datagrams_per_turn: 64,
            datagram_sends_per_turn: 1024,
            timers_per_turn: 4096,
            posts_per_turn: 1024,
            post_limit: 1 << 20,
            datagram_size: 65_535,
            group_log: 1 << 20,
            work_per_turn: 1024,
            spin: Duration::ZERO,
        }
    }
}

impl Config {
    /// The same settings with every budget and size raised to the least that works.
    pub(crate) fn sane(mut self) -> Self {
        // The upper bounds only keep "as many as you like" from being more than can be allocated.
        self.read_buffer = self.read_buffer.clamp(512, 1 << 30);
        self.events_per_turn = self.events_per_turn.min(1 << 16);
        self.datagram_size = self.datagram_size.clamp(1, 65_535);
        for budget in [
            &mut self.events_per_turn,
            &mut self.reads_per_turn,
            &mut self.messages_per_turn,
            &mut self.accepts_per_turn,
            &mut self.datagrams_per_turn,
            &mut self.datagram_sends_per_turn,
            &mut self.timers_per_turn,
            &mut self.posts_per_turn,
            &mut self.post_limit,
            &mut self.group_log,
            &mut self.work_per_turn,
        ] {
            *budget = (*budget).max(1);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_size_is_more_than_can_be_allocated_and_none_is_nothing() {
        for size in [0, usize::MAX] {
            let config = Config {
                read_buffer: size,
                events_per_turn: size,
                datagram_size: size,
                ..Config::default()
            };
            let config = config.sane();
            assert!((512..=1 << 30).contains(&config.read_buffer));
            assert!((1..=1 << 16).contains(&config.events_per_turn));
            assert!((1..=65_535).contains(&config.datagram_size));
        }
    }
}
