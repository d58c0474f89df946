//! The reactor's own settings: budgets, buffer sizes, polling.

use std::time::Duration;

/// Settings of a [`Reactor`](crate::Reactor). `Config::new()` suits most services; each method
/// documents its default with the reason. Zero for a size or a budget means the smallest value that
/// works.
///
/// ```
/// use std::time::Duration;
/// use tidegate::Config;
///
/// let config = Config::new().spin(Duration::from_micros(50)).read_buffer(64 * 1024);
/// # let _ = config;
/// ```
///
/// The budgets (`*_per_turn`) bound the work of one turn, so that a busy source does not delay the
/// others. Two cases use a budget twice in one turn: a socket whose queued output was written on an
/// event is served once more for what its handler sends then; and before the flush of a large
/// group, step 9 of [`Reactor`](crate::Reactor)'s turn may collect more input, for two milliseconds
/// at most.
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
    pub(crate) offload_threads: usize,
    pub(crate) offload_limit: usize,
    pub(crate) datagram_size: usize,
    pub(crate) group_log: usize,
    pub(crate) work_per_turn: usize,
    pub(crate) spin: Duration,
    pub(crate) spin_before_deadline: Duration,
    pub(crate) slow_callback: Option<Duration>,
    pub(crate) measure: bool,
}

impl Config {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The size of the one read buffer that all connections share, in bytes. Default 260 KiB: large
    /// messages cost a tenth less CPU than with 64 KiB, one of 256 KiB fits with its head, and small
    /// ones touch its first pages only.
    /// One read may take an output queue this far over its high-water mark.
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

    /// How often one connection is read in one turn. Default 4, which is 1 MiB with the default
    /// read buffer.
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

    /// How many datagrams one socket receives in one turn. Default 64. A socket that receives
    /// trains (feature `udp-batch`, `Udp::receive_trains`) may exceed it by one train.
    #[must_use]
    pub fn datagrams_per_turn(mut self, datagrams: usize) -> Self {
        self.datagrams_per_turn = datagrams;
        self
    }

    /// How many queued datagrams of one socket are sent in one turn. Default 1,024: more than the
    /// default queue limit holds of Ethernet-sized datagrams, so that a loop with one turn per tick
    /// empties the queue. The rest is sent in the next turn, which is due at once
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

    /// How many messages from other threads, and how many notifications, one turn handles. Default
    /// 1,024.
    #[must_use]
    pub fn posts_per_turn(mut self, messages: usize) -> Self {
        self.posts_per_turn = messages;
        self
    }

    /// How many messages from other threads may wait; further ones are refused with
    /// [`PostError::Full`](crate::PostError::Full), which contains the value. Notifications count
    /// until they are delivered, also those posted on the reactor's own thread and those for a
    /// connection that is not open yet. So do the results of [jobs](Self::offload_limit), which are
    /// never refused themselves. Default 1,048,576.
    #[must_use]
    pub fn post_limit(mut self, messages: usize) -> Self {
        self.post_limit = messages;
        self
    }

    /// How many threads [`Net::offload`](crate::Net::offload) may start. Each is started when a job
    /// finds all others busy, and ends with the reactor, or with the job that it runs then; without a
    /// job there is none. Its stack is that of [`std::thread`], 2 MiB of address space. Default 4: jobs
    /// mostly wait (a name, a disk, a lock), so that a few slow ones leave a thread for the others,
    /// and for that the number of cores does not matter. For jobs that compute, take the number of
    /// cores, less one for the loop.
    #[must_use]
    pub fn offload_threads(mut self, threads: usize) -> Self {
        self.offload_threads = threads;
        self
    }

    /// How many jobs may be under way: from the call of [`Net::offload`](crate::Net::offload), while
    /// they wait, run, and their results wait, until `done` is called. Further ones are refused with
    /// [`OffloadError::Full`](crate::OffloadError::Full), which contains both closures. Default 1,024:
    /// with jobs of 4 ms on the default four threads, the last one waits for a second; a peer is
    /// better served by a refusal than by an answer that comes later still.
    #[must_use]
    pub fn offload_limit(mut self, jobs: usize) -> Self {
        self.offload_limit = jobs;
        self
    }

    /// The largest datagram that is received whole, in bytes; a longer one is cut and flagged as
    /// [`truncated`](crate::Datagram::truncated). The default, 65,535, is the most that UDP can
    /// carry (RFC 768), so that none is cut.
    #[must_use]
    pub fn datagram_size(mut self, bytes: usize) -> Self {
        self.datagram_size = bytes;
        self
    }

    /// How many bytes the pending messages of one group may take before they are moved to the
    /// members' own queues early. Each message counts 32 bytes (on 64-bit targets) more than its
    /// length. Default 1 MiB: several thousand lines of chat, which leave in one write for each
    /// member. For members with layers their wire form is kept beside it, once for each format: up to
    /// eight times as much where one group has members of eight formats.
    #[must_use]
    pub fn group_log(mut self, bytes: usize) -> Self {
        self.group_log = bytes;
        self
    }

    /// How much work one turn may do, in units, over all connections: once for input, and once for
    /// delivering the messages of groups. The rest is done in the next turn, which begins at once.
    ///
    /// - Input: a callback is one unit; each KiB that a layer decoded, or 16 KiB that were read, is
    ///   one more; a read that completes no message is one, and one more for each 16 KiB; a handshake
    ///   step is 32.
    /// - Groups: a write for one member is one unit; each KiB that is written, encoded or copied is
    ///   one more; a message that a layer encodes, for one member or for all of its format, is four.
    ///
    /// What answers messages that were published through a backplane comes on top, twice as much at most.
    ///
    /// Default 1,024. With 2 to 5 µs for a write(2) to a TCP socket, and up to 17 µs for a small
    /// message through permessage-deflate, that is 5 ms at most on an ordinary machine.
    #[must_use]
    pub fn work_per_turn(mut self, units: usize) -> Self {
        self.work_per_turn = units;
        self
    }

    /// Low-latency mode: how long the loop polls without sleeping before it sleeps. Default zero.
    /// Any other value occupies a core while the loop waits, and saves the wake-up (several
    /// microseconds) for what arrives meanwhile.
    #[must_use]
    pub fn spin(mut self, time: Duration) -> Self {
        self.spin = time;
        self
    }

    /// How long before its deadline [`Reactor::turn_until`](crate::Reactor::turn_until) stops sleeping
    /// and polls without, so that it returns at the deadline itself and not when the scheduler has woken
    /// the thread. Default zero. A core is occupied for that time before each deadline: 100 µs of a
    /// 60 Hz tick are 0.6 % of it.
    ///
    /// That is exact on Linux with the feature `timerfd`, and on kqueue. Elsewhere the poll before it
    /// rounds up to whole milliseconds, which would be beyond the deadline: its timeout is rounded
    /// down, and the loop is awake for up to a millisecond more than this.
    #[must_use]
    pub fn spin_before_deadline(mut self, time: Duration) -> Self {
        self.spin_before_deadline = time;
        self
    }

    /// From how long on a callback is slow: then a warning is logged, at most one a second, and
    /// [`Net::on_slow_callback`](crate::Net::on_slow_callback) is called with the handler's type, the
    /// callback, the token and the time. Off by default; `Duration::ZERO` reports every callback.
    ///
    /// Everything that a loop calls is timed: handlers, hooks and factories of listeners, posted
    /// closures, timers, results of jobs. So is a whole turn. Each callback then costs two readings of
    /// the clock, some 50 ns; off, it costs one test of a flag.
    #[must_use]
    pub fn slow_callback(mut self, after: impl Into<Option<Duration>>) -> Self {
        self.slow_callback = after.into();
        self
    }

    /// Whether histograms are kept of the time that turns and callbacks take, and of how late timers,
    /// events and posts are: [`Net::take_latency`](crate::Net::take_latency). Default false.
    ///
    /// They take 75 KiB, and a callback costs two or three readings of the clock, some 100 ns in all. A
    /// message of another thread is stamped where it is posted.
    #[cfg(feature = "histograms")]
    #[must_use]
    pub fn measure(mut self, on: bool) -> Self {
        self.measure = on;
        self
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            read_buffer: 260 * 1024,
            events_per_turn: 1024,
            reads_per_turn: 4,
            messages_per_turn: 256,
            accepts_per_turn: 64,
            datagrams_per_turn: 64,
            datagram_sends_per_turn: 1024,
            timers_per_turn: 4096,
            posts_per_turn: 1024,
            post_limit: 1 << 20,
            offload_threads: 4,
            offload_limit: 1024,
            datagram_size: 65_535,
            group_log: 1 << 20,
            work_per_turn: 1024,
            spin: Duration::ZERO,
            spin_before_deadline: Duration::ZERO,
            slow_callback: None,
            measure: false,
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
            &mut self.offload_threads,
            &mut self.offload_limit,
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
