//! One end of a simulated TCP connection, and how bytes travel between two ends.
//!
//! Pure: no reactor, no thread-local. Times are nanoseconds since the simulation began. The world
//! (`world.rs`) decides latencies and faults and moves segments from one end to the other.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};

/// What travels to an end, in order.
#[derive(Debug)]
pub(super) enum Segment {
    Data { bytes: Vec<u8>, urgent: bool, end: bool },
    Reset,
}

impl Segment {
    pub(super) fn has_bytes(&self) -> bool {
        matches!(self, Segment::Data { bytes, .. } if !bytes.is_empty())
    }

    pub(super) fn ends(&self) -> bool {
        matches!(self, Segment::Data { end: true, .. })
    }
}

/// The state of connect(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Connecting,
    Connected,
    Failed,
}

/// An acknowledgement under way: from `at` on the peer is known to have received so many bytes, and
/// to have room up to `window_edge`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ack {
    pub(super) at: u64,
    pub(super) received: u64,
    pub(super) window_edge: u64,
}

/// One end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) progress: Progress,
    /// A descriptor exists. Without one the end only finishes what it has to send.
    pub(super) open: bool,
    pub(super) error: Option<ErrorKind>,

    // ---- sending ----
    /// Accepted by write(2) and not yet sent, because the peer's window is full.
    waiting: VecDeque<u8>,
    /// Counted from the beginning of the stream.
    written: u64,
    sent: u64,
    acked: u64,
    window_edge: u64,
    pub(super) acks: VecDeque<Ack>,
    /// An arrival in the host's inbox takes up the first acknowledgement.
    pub(super) awaits_ack: bool,
    buffer: usize,
    /// Urgent data ends here: a segment ends with it.
    urgent_out: Option<u64>,
    /// What is written next is urgent.
    pub(super) marks_next: bool,
    /// A write was refused or cut: an edge is due when a third of the buffer is free.
    pub(super) no_space: bool,
    /// shutdown(2) of the write side; the end leaves behind what is waiting.
    pub(super) ending: bool,
    pub(super) end_sent: bool,
    /// The peer's system has it.
    pub(super) end_delivered: bool,
    /// Reset, or given up.
    dead: bool,
    /// How much the other system had received when the connection ended there.
    pub(super) heard: u64,

    // ---- receiving ----
    /// Under way, with the time of arrival; times never decrease.
    pub(super) incoming: VecDeque<(u64, Segment)>,
    /// When the connection is open at this end.
    pub(super) not_before: u64,
    /// A partition has stopped it: nothing arrives before this time.
    pub(super) stalled_until: u64,
    pub(super) stalls: u32,
    /// A partition keeps acknowledgements back: one is to be sent again.
    pub(super) owes_ack: bool,
    pub(super) lost_acks: u32,
    readable: VecDeque<u8>,
    received: u64,
    read: u64,
    receive_buffer: usize,
    /// Up to where the peer knows that it may send.
    advertised: u64,
    pub(super) ended: bool,
    /// The stream offset of an urgent byte that a read stops at.
    urgent_at: Option<u64>,
}

impl End {
    pub(super) fn new(progress: Progress, send_buffer: usize, receive_buffer: usize) -> Self {
        End {
            progress,
            open: true,
            error: None,
            waiting: VecDeque::new(),
            written: 0,
            sent: 0,
            acked: 0,
            window_edge: 0,
            acks: VecDeque::new(),
            awaits_ack: false,
            buffer: send_buffer.max(1),
            urgent_out: None,
            marks_next: false,
            no_space: false,
            ending: false,
            end_sent: false,
            end_delivered: false,
            dead: false,
            heard: 0,
            incoming: VecDeque::new(),
            not_before: 0,
            stalled_until: 0,
            stalls: 0,
            owes_ack: false,
            lost_acks: 0,
            readable: VecDeque::new(),
            received: 0,
            read: 0,
            receive_buffer: receive_buffer.max(1),
            advertised: receive_buffer.max(1) as u64,
            ended: false,
            urgent_at: None,
        }
    }

    /// The peer's window at the beginning.
    pub(super) fn open_window(&mut self, bytes: usize) {
        self.window_edge = bytes as u64;
    }

    /// Takes the acknowledgements that have arrived. Returns whether there were any.
    pub(super) fn take_acks(&mut self, now: u64) -> bool {
        let mut any = false;
        while let Some(ack) = self.acks.front().filter(|ack| ack.at <= now).copied() {
            self.acks.pop_front();
            self.acked = self.acked.max(ack.received);
            self.window_edge = self.window_edge.max(ack.window_edge);
            any = true;
        }
        any
    }

    fn free(&self) -> usize {
        self.buffer.saturating_sub((self.written - self.acked) as usize)
    }

    /// Whether the poll reports it writable: Linux waits until a third of the buffer is free, though
    /// a write would be taken earlier.
    pub(super) fn is_writable(&self) -> bool {
        self.dead || self.ending || self.free() * 3 >= self.buffer
    }

    /// Accepts what has room, `most` bytes at most; zero bytes mean `WouldBlock`.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>], most: usize) -> usize {
        let mut left = most.min(self.free());
        let (mut taken, mut all) = (0, 0);
        for slice in slices {
            let part = slice.len().min(left);
            self.waiting.extend(&slice[..part]);
            all += slice.len();
            taken += part;
            left -= part;
        }
        self.written += taken as u64;
        self.no_space = taken < all;
        taken
    }

    /// What was written last is urgent.
    pub(super) fn mark_urgent(&mut self) {
        self.urgent_out = Some(self.written);
    }

    pub(super) fn has_written(&self) -> bool {
        self.written > 0
    }

    pub(super) fn has_to_send(&self) -> bool {
        !self.waiting.is_empty() || self.ending && !self.end_sent
    }

    /// How many bytes the peer may send at first.
    pub(super) fn window(&self) -> usize {
        self.receive_buffer
    }

    /// An acknowledgement is on its way to this end. Those that arrived before `now` are taken up,
    /// so that an end that only receives does not collect them.
    pub(super) fn push_ack(&mut self, ack: Ack, now: u64) {
        if self.acks.len() >= 8 && !self.no_space {
            self.take_acks(now);
        }
        let at = self.acks.back().map_or(ack.at, |last| last.at.max(ack.at));
        self.acks.push_back(Ack { at, ..ack });
    }

    /// The connection is dead: the error is returned once, after what can still be read.
    pub(super) fn fail(&mut self, error: ErrorKind, discards: bool) {
        self.error = Some(error);
        self.dead = true;
        self.drop_unsent();
        self.incoming.clear();
        if discards {
            self.readable.clear();
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    /// What the peer's window lets leave now, `most` bytes at most; whether its last byte is urgent; and
    /// whether the end leaves with it.
    pub(super) fn next_to_send(&mut self, most: usize) -> Option<(Vec<u8>, bool, bool)> {
        let room = (self.window_edge - self.sent.min(self.window_edge)) as usize;
        let mut count = self.waiting.len().min(room).min(most);
        let mark = self.urgent_out.filter(|&at| at > self.sent);
        if let Some(at) = mark {
            count = count.min((at - self.sent) as usize);
        }
        let last = count == self.waiting.len();
        let end = last && self.ending && !self.end_sent;
        if count == 0 && !end {
            return None;
        }
        self.end_sent |= end;
        self.sent += count as u64;
        let mut bytes = vec![0; count];
        move_out(&mut self.waiting, &mut bytes);
        Some((bytes, mark == Some(self.sent), end))
    }

    pub(super) fn is_window_limited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Bytes or the end left, and nothing that has arrived by now acknowledges it.
    pub(super) fn is_unacknowledged(&mut self, now: u64) -> bool {
        self.take_acks(now);
        self.acked < self.written || self.end_sent && !self.end_delivered
    }

    /// The other end is gone, and its system says what it had received before. Returns whether that
    /// was everything, and both sides had ended or nothing is missing.
    pub(super) fn take_last_ack(&mut self) -> bool {
        self.acked = self.acked.max(self.heard);
        self.acked == self.written && self.ended
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Drops what was not sent: the end of an aborted connection.
    pub(super) fn drop_unsent(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn receive(&mut self, bytes: &[u8], urgent: bool, end: bool) {
        self.readable.extend(bytes);
        self.received += bytes.len() as u64;
        if urgent {
            self.urgent_at = Some(self.received);
        }
        self.ended |= end;
    }

    /// What the peer learns by an acknowledgement sent now.
    pub(super) fn ack(&mut self, at: u64) -> Ack {
        let window_edge = self.read + self.receive_buffer as u64;
        self.advertised = self.advertised.max(window_edge);
        Ack { at, received: self.received, window_edge: self.advertised }
    }

    /// Whether reading has opened the window so far that the peer is to learn of it (RFC 9293,
    /// section 3.8.6.2.2: not for a few bytes).
    pub(super) fn has_window_news(&self, peer_waits: bool) -> bool {
        let opened = (self.read + self.receive_buffer as u64).saturating_sub(self.advertised);
        opened > 0 && (peer_waits || 2 * opened >= self.receive_buffer as u64)
    }

    pub(super) fn set_buffers(&mut self, send: Option<usize>, receive: Option<usize>) {
        if let Some(bytes) = send {
            self.buffer = bytes.max(1);
        }
        if let Some(bytes) = receive {
            // The window that the peer knows of is not taken back.
            self.receive_buffer = self.receive_buffer.max(bytes.max(1));
        }
    }

    pub(super) fn has_unread(&self) -> bool {
        !self.readable.is_empty()
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent_at.is_some_and(|at| at > self.read)
    }

    /// Whether a read would return something else than `WouldBlock`.
    pub(super) fn is_readable(&self) -> bool {
        self.has_unread() || self.ended || self.dead || self.error.is_some()
    }

    /// Reads what there is, up to the urgent mark.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut count = self.readable.len().min(buffer.len());
        if let Some(at) = self.urgent_at.filter(|&at| at > self.read) {
            count = count.min((at - self.read) as usize);
        }
        move_out(&mut self.readable, &mut buffer[..count]);
        self.read += count as u64;
        count
    }
}

/// Moves the first bytes of a queue, as many as `to` has room for, which are there.
fn move_out(from: &mut VecDeque<u8>, to: &mut [u8]) {
    let (front, back) = from.as_slices();
    let first = front.len().min(to.len());
    let (near, far) = to.split_at_mut(first);
    near.copy_from_slice(&front[..first]);
    far.copy_from_slice(&back[..far.len()]);
    from.drain(..to.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(buffer: usize, window: usize) -> (End, End) {
        let mut a = End::new(Progress::Connected, buffer, window);
        let b = End::new(Progress::Connected, buffer, window);
        a.open_window(window);
        (a, b)
    }

    fn write(end: &mut End, bytes: &[u8]) -> usize {
        end.write(&[IoSlice::new(bytes)], usize::MAX)
    }

    #[test]
    fn a_reader_that_does_not_read_stops_the_writer_at_window_and_buffer() {
        let (mut a, mut b) = pair(10, 5);
        assert_eq!(write(&mut a, &[7; 100]), 10);
        assert!(a.no_space);
        let (bytes, _, end) = a.next_to_send(100).unwrap();
        assert_eq!((bytes.len(), end), (5, false));
        b.receive(&bytes, false, false);
        a.acks.push_back(b.ack(3));
        assert!(!a.take_acks(2));
        assert!(a.take_acks(3));
        assert_eq!(write(&mut a, &[7; 100]), 5);
        assert!(a.next_to_send(100).is_none(), "the window is full");
        assert_eq!(b.read(&mut [0; 3]), 3);
        a.acks.push_back(b.ack(4));
        a.take_acks(4);
        assert_eq!(a.next_to_send(100).unwrap().0.len(), 3);
    }

    #[test]
    fn the_end_leaves_behind_the_last_byte_and_once() {
        let (mut a, _) = pair(10, 5);
        write(&mut a, &[1; 6]);
        a.ending = true;
        assert!(!a.next_to_send(100).unwrap().2);
        a.open_window(10);
        assert!(a.next_to_send(100).unwrap().2);
        assert!(a.next_to_send(100).is_none());
    }

    #[test]
    fn writable_is_reported_from_a_third_on() {
        let (mut a, mut b) = pair(9, 100);
        write(&mut a, &[1; 9]);
        for (acked, writable) in [(2, false), (1, true)] {
            let bytes = a.next_to_send(acked).unwrap().0;
            b.receive(&bytes, false, false);
            a.acks.push_back(b.ack(0));
            a.take_acks(0);
            assert_eq!(a.is_writable(), writable);
        }
    }

    #[test]
    fn a_read_stops_at_the_urgent_mark() {
        let (_, mut b) = pair(10, 100);
        b.receive(b"abc", true, false);
        b.receive(b"def", false, false);
        let mut buffer = [0; 10];
        assert_eq!(b.read(&mut buffer), 3);
        assert_eq!(b.read(&mut buffer), 3);
    }
}
