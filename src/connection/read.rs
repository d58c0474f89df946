//! Input: edges, reads, kept bytes, the end of the peer's side.

use std::io;

use super::life::Event;
use super::pair::waits_for_handshake;
use super::{Conn, Phase, ReadSide, Stream, Tail, Work};
use crate::config::Config;
use crate::error::{CloseReason, Limit};
use crate::sys::Ready;
use crate::token::Token;

/// The result of a read.
pub(super) struct Received {
    pub(super) len: usize,
    /// There may be more.
    pub(super) more: bool,
}

/// What one connection may still use in this turn.
pub(crate) struct Budget {
    pub(crate) reads: usize,
    pub(crate) calls: usize,
}

impl Budget {
    pub(crate) fn new(config: &Config) -> Self {
        Budget { reads: config.reads_per_turn, calls: config.messages_per_turn }
    }

    /// A trunk's: it has no budget of reads, but each costs a unit at least.
    pub(crate) fn of_trunk(units: usize) -> Self {
        Budget { reads: units, calls: units }
    }

    /// The units of a call with this many decoded bytes: one, and one for each KiB, because decoding
    /// (decompressing, decrypting) costs by the byte.
    pub(crate) fn units_decoded(bytes: usize) -> usize {
        1 + bytes / 1024
    }

    /// The units of bytes that were only read: one, and one for each 16 KiB that the kernel copies.
    #[inline]
    pub(crate) fn units_read(bytes: usize) -> usize {
        1 + bytes / (16 * 1024)
    }

    #[inline]
    pub(crate) fn charge(&mut self, units: usize) {
        self.calls = self.calls.saturating_sub(units);
    }
}

/// The next step for a connection's input.
pub(crate) enum Next {
    /// Nothing to do now.
    Rest,
    /// This many bytes have been read into the buffer, and no kept input precedes them.
    Read { len: usize, more: bool },
    /// What the handler left, to be offered again. The connection lends it for this step.
    Kept(Box<Tail>),
    /// The peer has ended, and everything has been offered.
    End,
    /// The connection has layers.
    Layered,
    /// The input goes to the partner of a relay.
    Relayed(Token),
}

impl Stream {
    /// Records an edge. The flags stay until a call uses them up: an edge is reported once.
    #[inline]
    pub(crate) fn note(&mut self, ready: Ready) {
        // Two flags, where all five take twenty instructions more.
        if !ready.has(Ready::READ_CLOSED | Ready::URGENT | Ready::ERROR) {
            self.readable |= ready.has(Ready::READABLE);
            self.writable |= ready.has(Ready::WRITABLE);
            return;
        }
        self.note_rare(ready);
    }

    #[cold]
    fn note_rare(&mut self, ready: Ready) {
        self.readable |= ready.has(Ready::READABLE | Ready::READ_CLOSED | Ready::ERROR);
        self.writable |= ready.has(Ready::WRITABLE | Ready::ERROR);
        self.read_closed |= ready.has(Ready::READ_CLOSED | Ready::ERROR);
        self.urgent |= ready.has(Ready::URGENT);
        self.error |= ready.has(Ready::ERROR);
    }

    /// The plain case: open and readable, no layer, no pair, nothing kept, queued, paused or pending.
    /// Its input can be read and offered without further checks. An edge that is only writable does not
    /// count: a read would be wasted, and under mio's emulation over poll(2) it would arm the interest
    /// again and so cause the next edge, without end.
    #[inline]
    fn is_plain(&self) -> bool {
        // As one number: these lie side by side, so that they are one comparison.
        let hindrances = [self.error, self.paused, self.over_high, self.drained];
        self.readable
            && self.life.is_plain()
            && self.extra.is_none()
            && self.input.is_none()
            && self.output.is_none()
            && u32::from_ne_bytes(hindrances.map(u8::from)) == 0
    }

    /// The plain case of a connection with layers: as [`is_plain`](Self::is_plain), its layers ready,
    /// with nothing that waits to be decoded.
    fn is_calm(&self) -> bool {
        self.readable
            && self.life == super::life::Life::new(Phase::Open)
            && self.extra.as_ref().is_some_and(|extra| extra.is_calm())
            && self.input.is_none()
            && self.output.is_none()
            && !(self.paused | self.over_high | self.drained | self.error)
    }

    /// Whether input may be read and offered now: not paused by the handler, and the queue that paces
    /// it is not above its mark. In a pair that is the partner's queue *instead of* its own (with both,
    /// two full directions would wait for each other for ever).
    pub(crate) fn may_read(&self) -> bool {
        if self.life.phase != Phase::Open {
            // The input of a handshake or of an ending is always read.
            return true;
        }
        let held_back = match self.held_by_partner() {
            Some(held) => held,
            None => self.over_high && self.options().auto_pause,
        };
        // A queue that waits for a late layer's handshake drains only if that handshake is read.
        !self.paused && (!held_back || waits_for_handshake(self.wire()))
    }

    pub(crate) fn unread(&self) -> usize {
        self.input.as_ref().map_or(0, |tail| tail.len())
    }

    /// Whether a write to the queue's socket may make progress.
    pub(crate) fn waits_to_flush(&self) -> bool {
        self.output.is_some() && self.writable
    }

    /// A byte moved: the idle deadline restarts.
    pub(super) fn moved(&mut self, tick: u64) {
        if self.life.phase == Phase::Open {
            self.clock = tick;
        }
    }

    /// How much may be read: unlimited, except after a failure while reading was held back.
    #[inline]
    fn may_still_offer(&self) -> usize {
        if self.life.phase != Phase::Failing {
            return usize::MAX;
        }
        let ending = self.extra.as_ref().and_then(|extra| extra.ending.as_ref());
        ending.and_then(|ending| ending.failure_allowance).unwrap_or(usize::MAX)
    }

    #[inline]
    fn offered_while_failing(&mut self, bytes: usize) {
        if self.life.phase == Phase::Failing
            && let Some(ending) = self.extra.as_mut().and_then(|extra| extra.ending.as_mut())
            && let Some(left) = &mut ending.failure_allowance
        {
            *left = left.saturating_sub(bytes);
        }
    }

    #[cold]
    fn not_read(&mut self, error: io::Error, work: &mut Work) -> io::Result<Option<Received>> {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
        work.counts.reads_blocked += 1;
        self.readable = false;
        self.urgent = false;
        Ok(None)
    }

    /// One read. `None` if there is nothing, or at the end, which is recorded.
    #[inline(always)] // called in the plain case and in the general one
    fn receive(&mut self, buffer: &mut [u8], work: &mut Work) -> io::Result<Option<Received>> {
        let most = self.may_still_offer().min(buffer.len());
        if most == 0 {
            self.readable = false;
            return Ok(None);
        }
        let buffer = &mut buffer[..most];
        match self.socket.read(buffer) {
            Ok(0) => {
                self.readable = false;
                self.life = self.life.after(Event::SocketEnd).0;
                // What the handler left is offered a last time, since no more bytes will follow.
                self.unread_changed = true;
                Ok(None)
            }
            Ok(n) => {
                // A short read has emptied the system's buffer, unless urgent data cut it short or
                // the end came in the same edge and is still to be read.
                let drained = n < buffer.len() && self.socket.short_read_drains();
                if drained && !self.read_closed && !self.urgent {
                    self.readable = false;
                }
                work.counts.reads += 1;
                work.counts.bytes_read += n as u64;
                self.moved(work.tick);
                self.offered_while_failing(n);
                Ok(Some(Received { len: n, more: self.readable }))
            }
            Err(e) => self.not_read(e, work),
        }
    }
}

impl Conn<'_> {
    /// One read into the reactor's buffer; an error ends the connection.
    #[inline]
    fn read_uncounted(&mut self, buffer: &mut [u8]) -> Option<Received> {
        match self.stream.receive(buffer, self.work) {
            Ok(received) => received,
            Err(e) => {
                self.finish(CloseReason::Io(e));
                None
            }
        }
    }

    /// The same for a connection that may count what it moves.
    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<Received> {
        let received = self.read_uncounted(buffer)?;
        if let Some(tally) = self.stream.tally_mut() {
            tally.received(received.len, self.work.now);
        }
        Some(received)
    }

    /// The plain case, on the look-up that the event needs anyway: it reads and allows the reply
    /// shortcut. The steps are those of the general case, which goes on where this one does not
    /// suffice. `None`: the connection is not plain, the general case serves it.
    #[inline]
    pub(crate) fn read_plain(&mut self, buffer: &mut [u8]) -> Option<Next> {
        if !self.stream.is_plain() {
            return None;
        }
        let Some(Received { len, more }) = self.read_uncounted(buffer) else {
            return Some(Next::Rest);
        };
        self.work.reply.begin(self.token, self.stream.reply_room());
        Some(Next::Read { len, more })
    }

    /// The same for a connection with layers. Returns how much was read, to be decoded; `None` if the
    /// general case serves it.
    #[inline(never)] // the plain case needs no registers for it
    pub(crate) fn read_calm(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if !self.stream.is_calm() {
            return None;
        }
        let received = self.read_uncounted(buffer)?;
        self.work.reply.begin_encoded(self.token);
        Some(received.len)
    }

    /// What [`read_calm`](Self::read_calm) read has been decoded and offered, all but `rest`. Returns
    /// whether the connection needs no further step.
    pub(crate) fn after_calm(&mut self, rest: &[u8]) -> bool {
        if !rest.is_empty() {
            self.keep_undecoded(rest);
        }
        self.write_reply();
        let stream = &*self.stream;
        let done = stream.life == super::life::Life::new(Phase::Open)
            && !(stream.readable | stream.drained | stream.error)
            && stream.input.is_none()
            && stream.wire().is_some_and(|wire| !wire.pull);
        done && !stream.is_done()
    }

    /// The next step for the input; a closing connection's input is discarded. A read goes into
    /// `buffer`, the reactor's.
    pub(crate) fn next_input(&mut self, budget: &mut Budget, buffer: &mut [u8]) -> Next {
        loop {
            let stream = &mut *self.stream;
            match stream.life.phase {
                Phase::Connecting | Phase::Dead => return Next::Rest,
                Phase::Closing | Phase::Lingering => {
                    self.discard_input(budget, buffer);
                    return Next::Rest;
                }
                Phase::Handshaking | Phase::Open | Phase::Failing => {}
            }
            if stream.wire().is_some() {
                return Next::Layered;
            }
            if let Some(to) = stream.relayed_to() {
                return Next::Relayed(to);
            }
            if !stream.may_read() {
                return Next::Rest;
            }
            let used_up = budget.calls == 0 || self.work.is_used_up();
            if stream.unread_changed && stream.unread() > 0 {
                if used_up {
                    self.budget_used_up(budget);
                    return Next::Rest;
                }
                self.count_message();
                return self.stream.input.take().map_or(Next::Rest, Next::Kept);
            }
            if stream.life.read == ReadSide::Ended {
                return Next::End;
            }
            if !stream.readable || stream.life.read == ReadSide::Delivered {
                self.nothing_more();
                return Next::Rest;
            }
            if budget.reads == 0 || used_up {
                self.budget_used_up(budget);
                return Next::Rest;
            }
            budget.reads -= 1;
            let Some(Received { len, more }) = self.read(buffer) else { continue };
            if self.append_to_kept(&buffer[..len]) {
                continue;
            }
            self.count_message();
            return Next::Read { len, more };
        }
    }

    /// A piece of input goes to the handler, or to the partner.
    fn count_message(&mut self) {
        if let Some(tally) = self.stream.tally_mut() {
            tally.message_received();
        }
    }

    /// The connection's budget, or the turn's, is used up: it goes on in the next turn.
    #[cold]
    pub(super) fn budget_used_up(&mut self, budget: &Budget) {
        let counts = &mut self.work.counts;
        if budget.calls == 0 {
            counts.messages_exhausted += 1;
        } else if budget.reads == 0 {
            counts.reads_exhausted += 1;
        }
        self.goes_on_in_next_turn();
    }

    /// One read for a relay. Returns how many bytes are in the buffer.
    pub(crate) fn read_to_relay(&mut self, buffer: &mut [u8]) -> usize {
        let len = self.read(buffer).map_or(0, |received| received.len);
        self.work.charge(Budget::units_read(len));
        if len > 0 {
            self.count_message();
        }
        self.count_relayed(len);
        len
    }

    /// Appends new bytes to the kept ones. `false`, and nothing done, if nothing is kept.
    #[inline]
    pub(crate) fn append_to_kept(&mut self, bytes: &[u8]) -> bool {
        let tick = self.work.tick;
        match &mut self.stream.input {
            Some(tail) if !tail.is_empty() => {
                tail.push(bytes, tick);
                self.stream.unread_changed = true;
                true
            }
            _ => false,
        }
    }

    /// Whether the handler may be called again with what it has left.
    pub(crate) fn may_offer_again(&mut self, budget: &Budget) -> bool {
        budget.calls > 0
            && !self.work.is_used_up()
            && self.stream.has_callbacks()
            && self.stream.may_read()
            // What it left belongs to the layer that it has put on, or to the partner of the relay.
            && self.stream.relayed_to().is_none()
            && !self.stream.wire().is_some_and(super::Wire::is_unused)
    }

    /// The kept bytes, if they may be offered now.
    pub(crate) fn take_kept_if_offered(&mut self, budget: &Budget) -> Option<Box<Tail>> {
        let offered = self.stream.unread_changed && self.may_offer_again(budget);
        if offered { self.stream.input.take() } else { None }
    }

    /// The kept bytes have been offered; takes back what is left of them.
    pub(crate) fn give_back(&mut self, tail: Box<Tail>, taken: bool) {
        if !self.stream.has_callbacks() || tail.is_empty() {
            return self.work.pool.keep_tail(tail);
        }
        // No callback can have kept input meanwhile: it arrives only between callbacks.
        self.stream.input = Some(self.work.pool.fitting(tail));
        self.keep(&[], taken);
    }

    /// Keeps what the handler left. The limit applies if it took nothing although reading was on.
    pub(crate) fn keep(&mut self, rest: &[u8], taken: bool) {
        if !self.stream.has_callbacks() {
            return;
        }
        if !rest.is_empty() {
            let tick = self.work.tick;
            let tail = self.stream.input.get_or_insert_with(|| self.work.pool.tail(rest.len()));
            tail.push(rest, tick);
        }
        if self.stream.unread() == 0 {
            return;
        }
        if self.stream.wire().is_some_and(super::Wire::is_unused) {
            return self.unread_behind_switch();
        }
        if taken && let Some(tail) = &mut self.stream.input {
            tail.restart(self.work.tick);
        }
        let progress = taken || self.stream.relayed_to().is_some();
        self.stream.unread_changed = progress;
        let limit = self.stream.options().unread_limit;
        if !progress && self.stream.may_read() && self.stream.unread() > limit {
            return self.finish_over_limit(Limit::UnreadInput, limit);
        }
        if self.stream.options().message_timeout.is_some() {
            self.watch();
        }
    }

    /// `on_eof` is next: what the handler left was offered for the last time, and `resume` must not
    /// offer it behind the end.
    pub(crate) fn drop_kept(&mut self) {
        if let Some(tail) = self.stream.input.take() {
            self.work.pool.keep_tail(tail);
        }
    }

    /// `on_eof` has been called, or the connection has no callbacks.
    pub(crate) fn end_delivered(&mut self) {
        self.happens(Event::EndDelivered, None);
        if self.stream.phase() == Phase::Failing {
            self.happens(Event::InputUsedUp, None);
        }
    }

    /// The layer has decoded the format's own end.
    pub(super) fn format_ended(&mut self) {
        self.happens(Event::FormatEnd, None);
        self.stream.unread_changed = true;
    }

    /// The socket has no input now. A connection whose output has failed ends here.
    pub(crate) fn nothing_more(&mut self) {
        if self.stream.phase() == Phase::Failing {
            self.happens(Event::InputUsedUp, None);
        }
    }

    /// Reads and drops a closing connection's input: the peer can finish sending, and close(2) is no
    /// reset.
    fn discard_input(&mut self, budget: &mut Budget, buffer: &mut [u8]) {
        while self.stream.is_closing() {
            if self.stream.life.exhausted {
                if self.stream.phase() == Phase::Lingering {
                    self.happens(Event::InputUsedUp, None);
                }
                return;
            }
            if !self.stream.readable {
                return;
            }
            if budget.reads == 0 || self.work.is_used_up() {
                return self.budget_used_up(budget);
            }
            budget.reads -= 1;
            let Some(Received { len, .. }) = self.read(buffer) else { continue };
            self.work.charge(Budget::units_read(len));
            if self.stream.phase() == Phase::Lingering {
                self.stream.extra_mut().ending_mut().input_since_deadline = true;
            }
        }
    }

    pub(crate) fn set_paused(&mut self, paused: bool) {
        self.stream.unread_changed |= self.stream.paused && !paused;
        if std::mem::replace(&mut self.stream.paused, paused) && !paused {
            self.reads_again();
        }
    }

    /// The steps after input. `false` if `on_drain` is due and has to be called first; it is not
    /// pending any more.
    pub(crate) fn finish_serving(&mut self) -> bool {
        let stream = &mut *self.stream;
        if stream.drained && stream.life.phase == Phase::Open && std::mem::take(&mut stream.drained)
        {
            return false;
        }
        if stream.error {
            self.look_at_error();
        }
        self.flush();
        true
    }

    /// Takes an error that no read will return: reading is held back, or the peer's end has been read.
    /// Input that arrived before it is offered, then the connection ends.
    fn look_at_error(&mut self) {
        let stream = &mut *self.stream;
        if !stream.error || stream.life.phase != Phase::Open {
            return;
        }
        if stream.may_read() && stream.life.read == ReadSide::Open {
            return; // a read returns it, after the data
        }
        stream.error = false;
        if let Ok(Some(error)) = stream.socket.take_error() {
            self.output_failed(error);
        }
    }
}
