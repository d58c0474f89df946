//! The reactor's own settings: budgets, buffer sizes, polling.

use std::time::Duration;

/// Settings of a [`Reactor`](crate::Reactor). `Config::default()` suits most services; each field
/// says what its default is and why.
///
/// The budgets, those `_per_turn`, bound what one turn does, so that a busy source does not keep the
/// others waiting. Two things use them a second time in one turn: a socket whose waiting output goes
/// out by an event is served once more for what its handler says to that, and a turn may wait a
/// moment for more of a burst to a big group (step 9 of [`Reactor`](crate::Reactor)'s turn, two
/// milliseconds at most).
#[derive(Debug, Clone)]
pub struct Config {
    /// Size of the one read buffer that all connections share, in bytes. Default 256 KiB: large
    /// messages cost a tenth less CPU than with 64 KiB, small ones touch its first pages only. What
    /// one read brings may take an output queue that far over its high mark.
    pub read_buffer: usize,
    /// How many readiness events one turn takes from the system. Default 1,024.
    pub events_per_turn: usize,
    /// How often one connection is read in one turn before others get their share. Default 4, with
    /// the default read buffer 1 MiB.
    pub reads_per_turn: usize,
    /// How often one connection's handler is called with data in one turn. Default 256.
    pub messages_per_turn: usize,
    /// How many connections one listener accepts in one turn. Default 64.
    pub accepts_per_turn: usize,
    /// How many datagrams one socket receives in one turn. Default 64. Sockets that receive trains (feature `udp-batch`, `Udp::receive_trains`) may
    /// go over it by one train.
    pub datagrams_per_turn: usize,
    /// How many of the datagrams that wait on one socket leave at once. Default 1,024: more than the
    /// queue's default limit holds of the size that Ethernet carries, so that a loop that turns once a
    /// tick empties the queue. What is over it leaves in the next turn, which is due at once
    /// ([`Reactor::next_deadline`](crate::Reactor::next_deadline)).
    pub datagram_sends_per_turn: usize,
    /// How many due timers fire in one turn. Default 4,096.
    pub timers_per_turn: usize,
    /// How many messages from other threads, and how many signals, one turn handles. Default 1,024.
    pub posts_per_turn: usize,
    /// How many messages from other threads may wait; more are refused, and the value is handed
    /// back. Signals count until they are told, whoever posted them, also those to a connection that
    /// does not stand yet. Default 1,048,576.
    pub post_limit: usize,
    /// Largest datagram that is received whole, in bytes; what is longer is cut and flagged. The
    /// default, 65,535, is the most that UDP can carry (RFC 768), so that nothing is ever cut.
    pub datagram_size: usize,
    /// How many bytes one group's messages may take before they are handed to the members' own
    /// queues early; each message counts 32 bytes (on 64-bit targets) beside its own. Default 1 MiB:
    /// some thousand lines of chat, which leave in one write for each member.
    pub group_log: usize,
    /// How much work the delivery of groups' messages may do in one turn, in units. What is left goes
    /// on in the next turn, which begins at once. The write for one member is a unit, each KiB that is
    /// written, encoded or copied is one more, and a message that is encoded for one member by a layer
    /// is four. Default 1,024: with 2 to 5 µs for a write(2) to a TCP socket, and up to 17 µs for a small
    /// message through permessage-deflate, that is 5 ms of an ordinary machine at most, as long as a
    /// turn may keep the others waiting.
    pub work_per_turn: usize,
    /// Low-latency mode: how long to poll without sleeping before the loop sleeps. Default zero.
    /// Anything above zero eats a core while the loop waits, and saves the wake-up (several
    /// microseconds) for what arrives meanwhile.
    pub spin: Duration,
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
