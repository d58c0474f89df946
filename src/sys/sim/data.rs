//! Bytes on their way: segments, windows, acknowledgements.

use std::io::{self, ErrorKind};

use super::arrivals::Arrival;
use super::faults::Fault;
use super::sockets::Id;
use super::stream::{Progress, Segment};
use super::tcp::{RETRANSMISSION, RETRIES, SEGMENT, back_off};
use super::trace::{Event, of_bytes};
use super::world::World;

impl World {
    /// Sends what the peer's window lets leave.
    pub(super) fn pump(&mut self, id: Id) {
        let host = self.host_of(id);
        loop {
            let Some(tcp) = self.tcp_mut(id) else { return };
            let connected = tcp.end.progress == Progress::Connected && !tcp.end.is_dead();
            if !connected || !tcp.end.has_to_send() {
                return;
            }
            let mut most = SEGMENT;
            if self.fault(host, Fault::SmallSegments) {
                let rng = self.dice.of(Fault::SmallSegments);
                let bits = rng.between(0, 6);
                most = rng.between(1, 1 << bits) as usize;
            }
            let Some(tcp) = self.tcp_mut(id) else { return };
            let Some((bytes, marked, end)) = tcp.end.next_to_send(most) else { return };
            if self.fault(host, Fault::Resets) {
                return self.reset(id);
            }
            let urgent = marked || !bytes.is_empty() && self.fault(host, Fault::Urgent);
            self.transmit(id, Segment::Data { bytes, urgent, end });
        }
    }

    /// Puts a segment on its way to the other end.
    pub(super) fn transmit(&mut self, from: Id, segment: Segment) {
        let host = self.host_of(from);
        let Some(other) = self.tcp(from).and_then(|tcp| tcp.other) else { return };
        if !self.hosts[host as usize].up {
            return; // the machine has stopped
        }
        if self.tcp(other).is_none_or(|tcp| tcp.end.is_dead()) {
            return self.meets_nobody(from, &segment);
        }
        let len = match &segment {
            Segment::Data { bytes, .. } => bytes.len() + 40,
            Segment::Reset => 40,
        };
        let at = self.arrival_of(host, self.host_of(other), len);
        self.put(other, at, segment);
    }

    /// A segment comes to this end, behind what is under way already.
    pub(super) fn put(&mut self, to: Id, mut at: u64, segment: Segment) {
        let Some(tcp) = self.tcp_mut(to) else { return };
        let before = tcp.end.incoming.back().map_or(tcp.end.not_before, |&(before, _)| before);
        at = at.max(before);
        tcp.end.incoming.push_back((at, segment));
        self.send_at(self.host_of(to), at, Arrival::Segment(to));
    }

    pub(super) fn segment_arrives(&mut self, id: Id) {
        let at = self.at;
        let host = self.host_of(id);
        let Some(tcp) = self.tcp(id) else { return };
        let (other, connects) = (tcp.other, tcp.end.progress == Progress::Connecting);
        let due = tcp.end.incoming.front().is_some_and(|&(due, _)| due <= at);
        if !due || tcp.end.stalled_until > at {
            return;
        }
        // A partition, or one that has delayed the answer to a SYN: the sender repeats it, at longer
        // and longer intervals.
        let far = self.far_host(id);
        if connects || far.is_some_and(|far| self.way(far, host).blocked_until > at) {
            let repeats = |other| self.tcp(other).is_some_and(|tcp| !tcp.end.is_dead());
            return match other.filter(|&other| repeats(other)) {
                Some(other) => self.stall(id, other),
                None => self.is_lost_for_ever(id),
            };
        }
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.stalls = 0;
        let Some((_, segment)) = tcp.end.incoming.pop_front() else { return };
        self.events += 1;
        match segment {
            Segment::Reset => self.reset_arrives_at(id),
            Segment::Data { bytes, urgent, end } => self.data_arrives(id, &bytes, urgent, end),
        }
    }

    /// What is on its way waits for its next repetition.
    fn stall(&mut self, id: Id, other: Id) {
        let host = self.host_of(id);
        let Some(tcp) = self.tcp_mut(id) else { return };
        let stalls = tcp.end.stalls;
        tcp.end.stalls += 1;
        if stalls >= RETRIES {
            // The sender gives up; this end never learns of it.
            tcp.end.incoming.clear();
            return self.send_at(self.host_of(other), self.at + 1, Arrival::GivesUp(other));
        }
        let again = self.at + back_off(RETRANSMISSION, stalls, self);
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.stalled_until = again;
        // Everything behind it arrives with it: each has an arrival of its own.
        let waiting = tcp.end.incoming.len();
        for segment in &mut tcp.end.incoming {
            segment.0 = segment.0.max(again);
        }
        for _ in 0..waiting {
            self.send_at(host, again, Arrival::Segment(id));
        }
    }

    /// What is on its way was lost, and nobody repeats it: the sender is gone. This end learns of that
    /// when it has something to say.
    fn is_lost_for_ever(&mut self, id: Id) {
        let at = self.at;
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.incoming.clear();
        if tcp.end.is_unacknowledged(at) {
            self.start_probing(id);
        }
    }

    pub(super) fn data_arrives(&mut self, id: Id, bytes: &[u8], urgent: bool, end: bool) {
        let host = self.host_of(id);
        let label = self.label(id);
        let contents = of_bytes(bytes);
        let Some(tcp) = self.tcp_mut(id) else { return };
        let other = tcp.other;
        if tcp.end.is_dead() {
            // The system knows no such connection any more, and says so.
            return other.into_iter().for_each(|other| self.start_probing(other));
        }
        if !tcp.end.open && tcp.listener.is_none() && !bytes.is_empty() {
            // Nobody will ever read it: the close was a promise to read no more.
            self.reset(id);
            return;
        }
        tcp.end.receive(bytes, urgent, end);
        let closed = !tcp.end.open && tcp.listener.is_none();
        if !bytes.is_empty() {
            self.note_with(host, Event::Arrives(label, bytes.len() as u32), contents);
            self.send_ack(id);
        }
        if end {
            self.note(host, Event::EndArrives(label));
            self.end_was_delivered(other);
        }
        if closed {
            self.free_if_over(id);
        } else {
            self.edge(id);
        }
    }

    /// Acknowledges what has arrived and says how much more may come.
    pub(super) fn send_ack(&mut self, from: Id) {
        let host = self.host_of(from);
        let Some(tcp) = self.tcp(from).filter(|tcp| !tcp.end.is_dead()) else { return };
        let Some(other) = tcp.other.filter(|&other| self.tcp(other).is_some()) else { return };
        let to = self.host_of(other);
        if self.way(host, to).blocked_until > self.at {
            return self.ack_later(from, other);
        }
        // An acknowledgement that is lost is made good by the next one: it is never lost here.
        let at = self.crossing(host, to, 40);
        let Some(tcp) = self.tcp_mut(from) else { return };
        tcp.end.lost_acks = 0;
        let ack = tcp.end.ack(at);
        let now = self.at.min(self.now);
        let Some(tcp) = self.tcp_mut(other) else { return };
        tcp.end.push_ack(ack, now);
        self.await_ack(other);
    }

    /// A partition: the other end repeats what it does not know to have arrived, and each time it is
    /// acknowledged again.
    fn ack_later(&mut self, from: Id, other: Id) {
        let Some(tcp) = self.tcp_mut(from) else { return };
        if std::mem::replace(&mut tcp.end.owes_ack, true) {
            return;
        }
        let lost = tcp.end.lost_acks;
        tcp.end.lost_acks += 1;
        if lost >= RETRIES {
            return self.send_at(self.host_of(other), self.at + 1, Arrival::GivesUp(other));
        }
        let again = self.at + back_off(RETRANSMISSION, lost, self);
        self.send_at(self.host_of(from), again, Arrival::AckAgain(from));
    }

    pub(super) fn ack_again(&mut self, from: Id) {
        let Some(tcp) = self.tcp_mut(from) else { return };
        tcp.end.owes_ack = false;
        self.send_ack(from);
    }

    /// If the end waits for room or for the peer's window, its next acknowledgement is an arrival.
    pub(super) fn await_ack(&mut self, id: Id) {
        let Some(tcp) = self.tcp_mut(id) else { return };
        let end = &mut tcp.end;
        if end.awaits_ack || !(end.no_space || end.is_window_limited()) {
            return;
        }
        let Some(at) = end.acks.front().map(|ack| ack.at) else { return };
        end.awaits_ack = true;
        let host = self.host_of(id);
        self.send_at(host, at, Arrival::Ack(id));
    }

    pub(super) fn ack_arrives(&mut self, id: Id) {
        let at = self.at;
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.awaits_ack = false;
        tcp.end.take_acks(at);
        self.events += 1;
        self.pump(id);
        self.room_again(id);
        self.await_ack(id);
    }

    /// There may be room in the send buffer: an edge if the poll would report it.
    pub(super) fn room_again(&mut self, id: Id) {
        let Some(tcp) = self.tcp_mut(id) else { return self.udp_room_again(id) };
        if tcp.end.no_space && tcp.end.is_writable() {
            tcp.end.no_space = false;
            self.edge(id);
        }
    }

    pub(super) fn read(&mut self, index: u32, buffer: &mut [u8]) -> io::Result<usize> {
        self.call();
        let id = self.id(index);
        let host = self.host_of(id);
        let label = self.label(id);
        let other = self.tcp(id).and_then(|tcp| tcp.other);
        let peer_waits =
            other.and_then(|other| self.tcp(other)).is_some_and(|tcp| tcp.end.is_window_limited());
        let Some(tcp) = self.tcp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        if tcp.end.progress == Progress::Connecting {
            return Err(self.would_block(id));
        }
        let count = tcp.end.read(buffer);
        if count > 0 || buffer.is_empty() {
            World::log_read(&mut tcp.read_log, &buffer[..count]);
            if tcp.end.has_window_news(peer_waits) {
                self.send_ack(id);
            }
            self.note(host, Event::Read(label, count as u32));
            self.hosts[host as usize].progress = true;
            self.hosts[host as usize].moved.bytes_read += count as u64;
            return Ok(count);
        }
        if let Some(error) = tcp.end.error.take() {
            return Err(error.into());
        }
        if tcp.end.ended || tcp.end.is_dead() {
            self.hosts[host as usize].progress = true;
            return Ok(0);
        }
        Err(self.would_block(id))
    }

    /// Writes a byte of urgent data (`MSG_OOB`, send(2)). It stays in the stream (`SO_OOBINLINE`).
    pub(super) fn write_urgent(&mut self, index: u32, byte: u8) -> io::Result<usize> {
        // Marked before it leaves: a write sends at once.
        let id = self.id(index);
        if let Some(tcp) = self.tcp_mut(id) {
            tcp.end.marks_next = true;
        }
        self.write(index, &[io::IoSlice::new(&[byte])])
    }

    pub(super) fn write(&mut self, index: u32, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.call();
        let id = self.id(index);
        let host = self.host_of(id);
        let at = self.at;
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let short = all > 1 && self.fault(host, Fault::ShortWrites);
        let Some(tcp) = self.tcp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        match tcp.end.progress {
            Progress::Connecting => return Err(self.would_block(id)),
            Progress::Failed if tcp.end.error.is_none() => return Err(ErrorKind::BrokenPipe.into()),
            _ => {}
        }
        if let Some(error) = tcp.end.error.take() {
            return Err(error.into());
        }
        if tcp.end.ending || tcp.end.is_dead() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        tcp.end.take_acks(at);
        let mut most = all;
        if short {
            most = self.dice.of(Fault::ShortWrites).between(1, all as u64 - 1) as usize;
        }
        let Some(tcp) = self.tcp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        let taken = tcp.end.write(slices, most);
        if std::mem::take(&mut tcp.end.marks_next) && taken > 0 {
            tcp.end.mark_urgent();
        }
        let (no_space, third_free) = (tcp.end.no_space, tcp.end.is_writable());
        if taken > 0 {
            self.check_written(id, slices, taken);
            self.hosts[host as usize].moved.bytes_written += taken as u64;
            let label = self.label(id);
            self.note(host, Event::Write(label, taken as u32));
            self.hosts[host as usize].progress = true;
            self.pump(id);
        }
        self.await_ack(id);
        if no_space && third_free {
            // The system was short of memory and not of room in this buffer.
            let at = self.at + self.network.between(10_000, 1_000_000);
            self.send_at(host, at, Arrival::Room(id));
        }
        if taken == 0 && all > 0 { Err(self.would_block(id)) } else { Ok(taken) }
    }
}
