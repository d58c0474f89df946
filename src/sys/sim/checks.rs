//! What must hold in every run, as far as the world sees it.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::sockets::Id;
use super::tcp::Output;
use super::trace::Event;
use super::world::World;
use crate::stats::ReactorStats;

/// Bytes that were read and not taken, beyond which they are not compared any more: a relay passes
/// them on without a handler.
const COMPARED: usize = 1 << 20;

impl World {
    pub(crate) fn violated_here(&mut self, what: impl Into<String>) {
        let host = self.current.or(self.job_of).unwrap_or(0);
        self.violated(host, what);
    }

    /// A handler is dropped that had no `on_close`: only a crash does that.
    pub(crate) fn dropped(&mut self, what: String) {
        if !self.vanishing {
            self.violated_here(what);
        }
    }

    pub(crate) fn panicked(&mut self, text: &str) {
        if !self.allows_panics {
            self.violated_here(format!("a panic: {text}"));
        }
    }

    /// A callback.
    pub(crate) fn called(&mut self, call: Event) {
        self.at = self.time_here();
        let host = self.current.unwrap_or(0);
        self.hosts[host as usize].progress = true;
        self.note(host, call);
    }

    pub(crate) fn turn_here(&self) -> u64 {
        self.current.map_or(0, |host| self.hosts[host as usize].turns)
    }

    /// How much of a host there is to look at: sockets and timers.
    pub(crate) fn size_of(&self, host: u32) -> usize {
        let descriptors = self.hosts[self.home(host) as usize].descriptors;
        descriptors + self.hosts[host as usize].timers.len()
    }

    // ---- timers ----

    pub(crate) fn timer_set(&mut self, key: u64, after: u64) {
        let due = self.time_here().saturating_add(after);
        let Some(host) = self.current else { return };
        self.hosts[host as usize].timers.insert(key, due);
    }

    pub(crate) fn timer_cancelled(&mut self, key: u64) {
        if let Some(host) = self.current {
            self.hosts[host as usize].timers.remove(&key);
        }
    }

    /// A timer is never early, and after a turn of its host not late (`timer_slept`).
    pub(crate) fn timer_fires(&mut self, key: u64) {
        let now = self.time_here();
        self.events += 1;
        let Some(host) = self.current else { return };
        self.hosts[host as usize].progress = true;
        self.hosts[host as usize].moved.timers_fired += 1;
        match self.hosts[host as usize].timers.remove(&key) {
            Some(due) if due > now => {
                self.violated_here(format!("a timer fired {} ns early", due - now));
            }
            Some(_) => {}
            None => self.violated_here("a timer fired that was not set, or a second time"),
        }
    }

    // ---- bytes ----

    /// From now on what the handler of this connection is offered is compared.
    pub(crate) fn check_bytes(&mut self, index: u32) {
        if let Some(tcp) = self.tcp_mut(self.id(index)) {
            tcp.read_log = Some(VecDeque::new());
        }
    }

    /// From now on it is not.
    pub(crate) fn ignore_bytes(&mut self, index: u32) {
        if let Some(tcp) = self.tcp_mut(self.id(index)) {
            tcp.read_log = None;
        }
    }

    /// The handler of this socket is offered these bytes: they have to be those that were read and
    /// not taken yet. Returns what is wrong.
    pub(crate) fn offered(&mut self, index: u32, bytes: &[u8]) -> Option<String> {
        let log = self.tcp_mut(self.id(index))?.read_log.as_mut()?;
        if log.len() > COMPARED {
            return None;
        }
        let same = log.len() >= bytes.len() && log.iter().zip(bytes).all(|(a, b)| a == b);
        (!same).then(|| {
            format!(
                "on_data was offered {} bytes that are not the {} that were read and not taken",
                bytes.len(),
                log.len()
            )
        })
    }

    /// The handler sends these bytes; `fresh` if nothing waits to be written. Returns whether they are
    /// compared with what is written.
    pub(crate) fn sends(&mut self, index: u32, bytes: &[u8], fresh: bool) -> bool {
        let Some(tcp) = self.tcp_mut(self.id(index)) else { return false };
        if matches!(tcp.output, Output::Untouched) {
            let first = fresh && !tcp.end.has_written();
            tcp.output = if first { Output::Compared(VecDeque::new()) } else { Output::Mixed };
        }
        match &mut tcp.output {
            Output::Compared(log) if log.len() + bytes.len() <= COMPARED => {
                log.extend(bytes);
                true
            }
            _ => {
                tcp.output = Output::Mixed;
                false
            }
        }
    }

    /// They were refused.
    pub(crate) fn takes_back(&mut self, index: u32, count: usize) {
        if let Some(tcp) = self.tcp_mut(self.id(index))
            && let Output::Compared(log) = &mut tcp.output
        {
            log.truncate(log.len().saturating_sub(count));
        }
    }

    pub(crate) fn ignore_output(&mut self, index: u32) {
        if let Some(tcp) = self.tcp_mut(self.id(index)) {
            tcp.output = Output::Mixed;
        }
    }

    /// These bytes are written: they have to be those that were sent next.
    pub(super) fn check_written(&mut self, id: Id, slices: &[IoSlice<'_>], count: usize) {
        let Some(tcp) = self.tcp_mut(id) else { return };
        let Output::Compared(log) = &mut tcp.output else {
            // Of a raw peer, or sent before the connection was established.
            tcp.output = Output::Mixed;
            return;
        };
        let mut written = slices.iter().flat_map(|slice| slice.iter()).take(count);
        let same =
            count <= log.len() && log.iter().zip(&mut written).all(|(sent, left)| sent == left);
        log.drain(..count.min(log.len()));
        if !same {
            tcp.output = Output::Mixed;
            self.violated_here(format!("{count} bytes were written that were not sent next"));
        }
    }

    /// The write side ends in order: everything that was accepted has been written.
    pub(super) fn check_end(&mut self, id: Id) {
        let Some(Output::Compared(log)) = self.tcp(id).map(|tcp| &tcp.output) else { return };
        if !log.is_empty() {
            let lost = log.len();
            self.violated_here(format!(
                "the write side ended before {lost} bytes that were accepted"
            ));
        }
    }

    /// The handler took this many of them.
    pub(crate) fn taken(&mut self, index: u32, count: usize) {
        if let Some(tcp) = self.tcp_mut(self.id(index))
            && let Some(log) = &mut tcp.read_log
        {
            log.drain(..count.min(log.len()));
        }
    }

    /// How many bytes were read and not taken yet.
    pub(crate) fn untaken(&self, index: u32) -> usize {
        let log = self.tcp(self.id(index)).and_then(|tcp| tcp.read_log.as_ref());
        log.map_or(0, |log| log.len())
    }

    /// These bytes were read.
    pub(super) fn log_read(log: &mut Option<VecDeque<u8>>, bytes: &[u8]) {
        match log {
            Some(read) if read.len() <= COMPARED => read.extend(bytes),
            Some(_) => *log = None,
            None => {}
        }
    }

    /// The host sleeps until `due`, or until something arrives: has a timer to fire earlier? The wheel
    /// rounds up to a millisecond. `is_live` says whether a timer still waits, and for its time alone.
    pub(crate) fn timer_slept(
        &mut self,
        host: u32,
        due: u64,
        is_live: impl Fn(u64) -> Option<bool>,
    ) -> Option<String> {
        const TICK: u64 = 1_000_001;
        let place = &mut self.hosts[host as usize];
        if due <= place.clock {
            return None; // it does not sleep: a budget has cut what was due
        }
        let next = due.saturating_sub(TICK);
        let mut late: Vec<(u64, u64)> =
            place.timers.iter().filter(|&(_, &at)| at < next).map(|(&k, &at)| (at, k)).collect();
        late.sort_unstable();
        for (at, key) in late {
            match is_live(key) {
                Some(true) => {
                    let by = due - at;
                    return Some(format!(
                        "the loop sleeps, but a timer is due {by} ns before it wakes"
                    ));
                }
                Some(false) => {} // parked: it will fire
                None => drop(place.timers.remove(&key)),
            }
        }
        None
    }

    /// A process is gone: what it noted is, too.
    pub(crate) fn forget_process(&mut self, host: u32) {
        let host = &mut self.hosts[host as usize];
        host.timers.clear();
        host.edges.clear();
        host.woken = false;
    }

    /// What a reactor's statistics say that is not so.
    pub(crate) fn miscounted(&self, host: u32, stats: &ReactorStats) -> Option<String> {
        let moved = self.hosts[host as usize].moved;
        let ends = stats.refused + stats.closed.total() + stats.connections;
        let pairs = [
            ("bytes_read", stats.bytes_read, moved.bytes_read),
            ("bytes_written", stats.bytes_written, moved.bytes_written),
            ("accepted", stats.accepted, moved.accepted),
            ("datagrams_received", stats.datagrams_received, moved.datagrams_received),
            ("datagrams_sent", stats.datagrams_sent, moved.datagrams_sent),
            ("timers_fired", stats.timers_fired, moved.timers_fired),
            ("connections begun", stats.accepted + stats.connects + stats.adopted, ends),
        ];
        let wrong = pairs.into_iter().find(|(_, counted, is)| counted != is);
        wrong
            .map(|(what, counted, is)| {
                format!("the statistics say {what} {counted}, and it is {is}")
            })
            .or_else(|| {
                let (set, fired) = (stats.timers_set, stats.timers_fired + stats.timers_pending);
                (set < fired)
                    .then(|| format!("{set} timers were set, and {fired} fired or are pending"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sim::Faults;

    fn world() -> World {
        let mut world = World::new(1, Faults::none().drawn(1));
        world.add_host("host".to_owned());
        world.current = Some(0);
        world
    }

    fn wrong(world: &World) -> &str {
        world.violation.as_ref().map_or("", |(_, what)| what)
    }

    #[test]
    fn a_timer_fires_once_and_never_early() {
        let mut early = world();
        early.timer_set(7, 1_000);
        early.timer_fires(7);
        assert_eq!(wrong(&early), "a timer fired 1000 ns early");
        let mut twice = world();
        twice.timer_set(7, 1_000);
        twice.hosts[0].clock += 1_000;
        twice.timer_fires(7);
        assert_eq!(wrong(&twice), "");
        twice.timer_fires(7);
        assert_eq!(wrong(&twice), "a timer fired that was not set, or a second time");
    }

    #[test]
    fn a_timer_that_the_loop_sleeps_through_is_late() {
        let mut world = world();
        world.timer_set(7, 10_000_000);
        assert_eq!(world.timer_slept(0, 10_500_000, |_| Some(true)), None, "the wheel rounds up");
        assert_eq!(world.timer_slept(0, 20_000_000, |_| None), None, "it was cancelled");
        world.timer_set(7, 10_000_000);
        let late = world.timer_slept(0, 20_000_000, |_| Some(true)).unwrap();
        assert!(late.contains("due 10000000 ns before it wakes"), "{late}");
    }

    #[test]
    fn a_handler_is_dropped_behind_its_on_close_unless_the_process_was_killed() {
        let mut world = world();
        world.vanishing = true;
        world.dropped("7 was dropped".to_owned());
        assert_eq!(wrong(&world), "");
        world.vanishing = false;
        world.dropped("7 was dropped".to_owned());
        world.panicked("the second thing is not noted");
        assert_eq!(wrong(&world), "7 was dropped");
    }

    #[test]
    fn what_a_handler_is_offered_is_what_was_read() {
        let mut log = Some(VecDeque::new());
        World::log_read(&mut log, b"hello");
        World::log_read(&mut log, &[0; COMPARED]);
        assert!(log.is_some());
        World::log_read(&mut log, b"x");
        assert!(log.is_none(), "memory is bounded");
    }
}
