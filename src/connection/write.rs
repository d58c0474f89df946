//! Output: queued, written, counted against its limits.

use std::io;
use std::sync::Arc;

use super::life::Event;
use super::{Conn, Output, Phase, SendStatus, Settings, Stream, Work, WriteSide};
use crate::error::{CloseReason, Limit};
use crate::layer::{LayerError, LayerErrorKind, MessageKind};
use crate::options::{Overflow, StreamOptions};

/// From this size on a message is written at once from the sender's own bytes, in one call with what
/// is queued before it: copying it would cost more than the system calls that coalescing saves.
pub(crate) const DIRECT: usize = 16 * 1024;

/// From this size on the wire form of large messages is written at once: three full records of TLS.
const WORTH_WRITING: usize = 48 * 1024;

impl Stream {
    /// What counts against the water marks: bytes queued for the wire, and the memory of messages that
    /// wait for a handshake. Values that wait do not: they are as many as there are keys, however slow
    /// the peer is, and what they wait for is in the queue.
    pub(crate) fn queued(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.len())
            + self.wire().map_or(0, super::Wire::waiting_cost)
    }

    /// Whether `send` may still queue something.
    pub(crate) fn accepts_output(&self) -> bool {
        self.life.write == WriteSide::Open && self.is_live()
    }

    /// Whether the end of the write side may be written: not before the messages that wait for a
    /// layer's handshake, unless the connection is closing, which drops them.
    fn may_end_write(&self) -> bool {
        self.is_closing()
            || self.life.phase == Phase::Open && self.wire().is_none_or(super::Wire::is_ready)
    }

    /// How many more bytes it may hold.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.options().output_limit.saturating_sub(self.held())
    }

    /// How much of a callback's own output may take the shortcut of [`Reply`](super::reply::Reply).
    #[inline]
    pub(super) fn reply_room(&self) -> usize {
        self.options().high_water.min(DIRECT - 1)
    }

    /// Writes what is queued, until the system takes no more.
    #[inline]
    pub(super) fn write_queued(&mut self, work: &mut Work) -> io::Result<()> {
        while self.writable
            && let Some(output) = &mut self.output
            && !output.is_empty()
        {
            match output.write_to(&mut self.socket) {
                Ok((n, all)) if n > 0 => {
                    output.progress = work.tick;
                    self.moved_out(n, all, work);
                }
                result => self.not_written(result, work)?,
            }
        }
        Ok(())
    }

    /// Writes `bytes` behind what is queued, without a copy, until the system takes no more. Returns
    /// how many of them have left.
    fn write_through(&mut self, bytes: &[u8], work: &mut Work) -> io::Result<usize> {
        let mut taken = 0;
        while self.writable && taken < bytes.len() {
            let queued = self.output.as_ref().map_or(0, |output| output.len());
            let result = match &mut self.output {
                Some(output) => output.write_pieces(&mut self.socket, &bytes[taken..]),
                None => {
                    let asked = bytes.len() - taken;
                    self.socket.write(&bytes[taken..]).map(|n| (n, n == asked))
                }
            };
            match result {
                Ok((n, all)) if n > 0 => {
                    taken += n.saturating_sub(queued);
                    if let Some(output) = &mut self.output {
                        output.progress = work.tick;
                    }
                    self.moved_out(n, all, work);
                }
                result => self.not_written(result, work)?,
            }
        }
        Ok(taken)
    }

    /// So many bytes were written: `all` that were offered, or the socket is full.
    #[inline]
    fn moved_out(&mut self, bytes: usize, all: bool, work: &mut Work) {
        work.wrote(bytes);
        if let Some(tally) = self.tally_mut() {
            tally.sent(bytes, work.now);
        }
        self.writable = all || !self.socket.short_write_fills();
        self.moved(work.tick);
    }

    /// A write moved nothing. A full socket is no error; a write that returns zero is.
    #[cold]
    fn not_written(
        &mut self,
        result: io::Result<(usize, bool)>,
        work: &mut Work,
    ) -> io::Result<()> {
        match result {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                work.counts.writes_blocked += 1;
                self.writable = false;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Unsupported => self.refuses_pipes(e),
            Err(e) => Err(e),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// A write took less than it was given, or failed. Returns how much it took.
    pub(super) fn not_all_written(
        &mut self,
        result: io::Result<usize>,
        asked: usize,
        work: &mut Work,
    ) -> io::Result<usize> {
        match result {
            Ok(n) if n > 0 => {
                work.wrote(n);
                if let Some(tally) = self.tally_mut() {
                    tally.sent(n, work.now);
                }
                self.writable = n == asked || !self.socket.short_write_fills();
                Ok(n)
            }
            result => self.not_written(result.map(|n| (n, false)), work).map(|()| 0),
        }
    }

    /// Takes the output queue if it is empty, for the pool.
    pub(super) fn take_empty_output(&mut self) -> Option<Box<Output>> {
        self.output.take_if(|output| output.is_empty())
    }
}

impl Conn<'_> {
    pub(crate) fn send(&mut self, bytes: &[u8], kind: MessageKind) -> SendStatus {
        if self.stream.has_tally() {
            return self.send_counted(bytes, kind);
        }
        self.send_now(bytes, kind)
    }

    #[inline]
    pub(super) fn send_now(&mut self, bytes: &[u8], kind: MessageKind) -> SendStatus {
        if !self.stream.accepts_output() {
            return SendStatus::Gone;
        }
        let held = self.stream.held() + bytes.len();
        if held > self.stream.options().output_limit {
            return self.overflow();
        }
        if self.stream.wire().is_some() {
            return self.send_encoded(bytes, kind);
        }
        if bytes.len() >= DIRECT && self.stream.has_callbacks() {
            return self.send_large(bytes);
        }
        if bytes.is_empty() {
            return SendStatus::Queued;
        }
        self.output().push(bytes);
        self.queued_more()
    }

    /// Writes at once, as much as the system takes; the rest is queued.
    fn send_large(&mut self, bytes: &[u8]) -> SendStatus {
        match self.stream.write_through(bytes, self.work) {
            Ok(written) if written == bytes.len() && self.stream.output.is_none() => {
                SendStatus::Queued
            }
            Ok(written) => {
                if written < bytes.len() {
                    self.output().push(&bytes[written..]);
                }
                self.queued_more()
            }
            Err(e) => {
                self.output_failed(e);
                SendStatus::Gone
            }
        }
    }

    /// Like [`send`](Self::send), for bytes that are shared: large ones are queued by reference.
    pub(crate) fn send_shared(&mut self, bytes: &Arc<[u8]>) -> SendStatus {
        if self.stream.wire().is_some() || bytes.len() < DIRECT {
            return self.send(bytes, MessageKind::Default);
        }
        if !self.stream.accepts_output() {
            return self.count_sent(SendStatus::Gone);
        }
        let status = if self.stream.held() + bytes.len() > self.stream.options().output_limit {
            self.overflow()
        } else {
            self.output().push_shared(Arc::clone(bytes), 0);
            self.queued_more()
        };
        self.count_sent(status)
    }

    /// Queues a message in the connection's format, or keeps it until the handshake is done.
    fn send_encoded(&mut self, bytes: &[u8], kind: MessageKind) -> SendStatus {
        let open = self.stream.phase() == Phase::Open;
        let Some(wire) = self.stream.wire_mut() else { return SendStatus::Gone };
        if !open || !wire.is_ready() {
            wire.wait(kind, bytes);
            return self.status_of_queue();
        }
        if bytes.len() >= DIRECT {
            match self.encode_head(bytes, kind) {
                Ok(true) => return self.send_large(bytes),
                Ok(false) => {}
                Err(e) => return self.encode_failed(e),
            }
        }
        match self.encode(bytes, kind) {
            Ok(()) if bytes.len() >= DIRECT => self.write_encoded(),
            Ok(()) => self.queued_more(),
            Err(e) => self.encode_failed(e),
        }
    }

    /// Behind a large message in wire form: writes a queue that is worth a call of its own, while it is in the
    /// cache, and before it outgrows a buffer that is kept.
    fn write_encoded(&mut self) -> SendStatus {
        let queued = self.stream.output.as_ref().map_or(0, |output| output.len());
        if queued >= WORTH_WRITING
            && self.stream.has_callbacks()
            && let Err(e) = self.stream.write_queued(self.work)
        {
            self.output_failed(e);
            return SendStatus::Gone;
        }
        self.queued_more()
    }

    /// A message of the running callback to its own connection: encoded into the reply. `None` if it
    /// does not fit there, and has to be queued.
    pub(crate) fn send_in_reply(&mut self, bytes: &[u8], kind: MessageKind) -> Option<SendStatus> {
        debug_assert!(self.work.reply.is_encoded(self.token), "another connection's reply");
        debug_assert!(self.stream.output.is_none(), "what is queued goes first");
        let room = self.stream.reply_room();
        if self.work.reply.encoded().len() + bytes.len() > room {
            return None;
        }
        if let Err(e) = self.encode_reply(bytes, kind) {
            self.spill();
            return Some(self.encode_failed(e));
        }
        if self.work.reply.encoded().len() > room {
            // The wire form is longer. In the queue the mark is looked at.
            self.spill();
            return Some(self.queued_more());
        }
        Some(SendStatus::Queued)
    }

    /// A message that the format cannot carry is dropped alone, so that one member's message does not
    /// end the others of a group. Any other error ends the connection.
    pub(crate) fn encode_failed(&mut self, error: LayerError) -> SendStatus {
        match error.kind() {
            LayerErrorKind::Unencodable => {
                log::debug!("{}: a message is not sent: {error}", self.token);
                return SendStatus::Unencodable;
            }
            LayerErrorKind::Panicked => self.stream.disable_layers(), // it is not called again
            _ => {}
        }
        self.finish(CloseReason::Layer(error));
        SendStatus::Gone
    }

    /// Queues a layer's own output (a pong, an alert), which is in wire form. It counts as queued: a
    /// peer that sends pings and does not read is not read from either. No policy can drop it, so that
    /// the output limit ends the connection. Before the connection is open the limit does not apply: the
    /// layer bounds what it writes (a page for a browser), and that has to leave whole.
    pub(crate) fn push_raw(&mut self, bytes: &[u8]) {
        // Behind the end of the write side a write would be an error, and end the other side as well.
        let ended = self.stream.life.write == WriteSide::Ended;
        if bytes.is_empty() || ended || self.stream.is_dead() {
            return;
        }
        self.output().push(bytes);
        self.queued_more();
        let limit = self.stream.options().output_limit;
        if self.stream.held() > limit && self.stream.phase() != Phase::Handshaking {
            self.finish_over_limit(Limit::QueuedOutput, limit);
        }
    }

    /// Queues a pipe's bytes, and writes as much of the queue as the socket takes.
    pub(crate) fn queue_piped(&mut self, pipe: crate::sys::Pipe) {
        self.output().push_pipe(pipe);
        match self.stream.write_queued(self.work) {
            Ok(()) => {
                self.queued_more();
            }
            Err(e) => self.output_failed(e),
        }
    }

    /// Writes as much of `bytes` behind the queue as the socket takes. Returns how much that is; `None`
    /// if the write failed.
    pub(super) fn write_now(&mut self, bytes: &[u8]) -> Option<usize> {
        if !self.stream.has_callbacks() {
            return Some(0);
        }
        match self.stream.write_through(bytes, self.work) {
            Ok(written) => Some(written),
            Err(e) => {
                self.output_failed(e);
                None
            }
        }
    }

    /// The connection's queue; one from the pool if it has none.
    #[inline]
    pub(super) fn output(&mut self) -> &mut Output {
        let tick = self.work.tick;
        self.stream.output.get_or_insert_with(|| self.work.pool.output(tick))
    }

    /// After something was queued: puts the connection on the dirty list and checks its water mark.
    pub(super) fn queued_more(&mut self) -> SendStatus {
        self.owe_flush();
        self.status_of_queue()
    }

    pub(super) fn status_of_queue(&mut self) -> SendStatus {
        let queued = self.stream.queued();
        if let Some(tally) = self.stream.tally_mut() {
            tally.queue_is(queued);
        }
        if queued > self.stream.options().high_water {
            self.set_over_high();
            SendStatus::AboveHighWater
        } else {
            SendStatus::Queued
        }
    }

    /// Puts the connection on the dirty list, to be flushed at the end of the turn: many small messages
    /// leave in one system call. Not while its own callback runs: its replies are flushed when that
    /// returns, for latency.
    #[inline]
    pub(crate) fn owe_flush(&mut self) {
        if self.work.current != Some(self.token)
            && !std::mem::replace(&mut self.stream.in_dirty, true)
        {
            self.work.dirty.push(self.token);
        }
    }

    /// The end of the turn: flushes a connection of the dirty list.
    pub(crate) fn flush_dirty(&mut self) {
        self.stream.in_dirty = false;
        self.flush();
    }

    /// Gives a live connection other options. `false` if it is on its way out.
    pub(crate) fn set_options(&mut self, mut options: StreamOptions) -> bool {
        if !self.stream.is_live() {
            return false;
        }
        options.fixed_port = self.stream.options().fixed_port;
        self.stream.settings = Settings::new(options, self.stream.listener());
        // One that is being established begins when that is done.
        if self.stream.phase() != Phase::Connecting {
            self.tally_as_told();
        }
        if self.stream.queued() > self.stream.options().high_water {
            self.set_over_high();
        } else {
            self.after_flush();
        }
        if self.stream.options().message_timeout.is_none()
            && let Some(wire) = self.stream.wire_mut()
        {
            wire.part_since = None; // nobody notes its end any more
        }
        // Timeouts begin with this call: the connection did not have to keep to them before.
        self.reads_again();
        self.watch();
        true
    }

    pub(super) fn set_over_high(&mut self) {
        if !std::mem::replace(&mut self.stream.over_high, true) {
            self.push_hold();
        }
    }

    /// The output limit would be exceeded.
    pub(crate) fn overflow(&mut self) -> SendStatus {
        let options = self.stream.options();
        let (limit, low) = (options.output_limit, options.low_water);
        match options.overflow {
            // A sender that was refused gets `on_drain` when there is room. At or below the low-water
            // mark there is room already: the message alone is larger than the limit.
            Overflow::Drop if self.stream.queued() > low => self.set_over_high(),
            Overflow::Drop => {}
            Overflow::Close => self.finish_over_limit(Limit::QueuedOutput, limit),
        }
        SendStatus::Full
    }

    /// Writes what is queued, as far as the system takes it, and does what waits for that: the end of
    /// the write side, reads that were held back, `on_drain`.
    pub(crate) fn flush(&mut self) {
        let stream = &mut *self.stream;
        if stream.output.is_none() && stream.life.write != WriteSide::Ending {
            return;
        }
        if matches!(stream.life.phase, Phase::Connecting | Phase::Failing | Phase::Dead) {
            return;
        }
        if stream.extra.is_some() && stream.has_values() {
            return self.flush_values();
        }
        if let Err(e) = stream.write_queued(self.work) {
            return self.output_failed(e);
        }
        self.flushed();
    }

    /// The socket has taken what it takes now.
    #[inline(always)] // `flush` is its usual caller
    pub(super) fn flushed(&mut self) {
        let stream = &mut *self.stream;
        if let Some(output) = stream.take_empty_output() {
            self.work.pool.keep_output(output);
            if !self.stream.over_high && self.stream.life.write == WriteSide::Open {
                return;
            }
        }
        self.after_flush();
    }

    /// The queue is not empty, or a drain or the end of the write side waits for it.
    fn after_flush(&mut self) {
        let stream = &mut *self.stream;
        if stream.over_high && stream.queued() <= stream.options().low_water {
            stream.over_high = false;
            stream.drained = true;
            self.push_hold();
            self.reads_again();
        }
        let stream = &mut *self.stream;
        if let Some(output) = &mut stream.output {
            if !std::mem::replace(&mut output.stall_watched, true) {
                self.watch();
            }
        } else if stream.life.write == WriteSide::Ending && stream.may_end_write() {
            self.happens(Event::Flushed, None);
        }
    }

    /// Ends the reply shortcut before any other access to the connection: the callback's small sends
    /// go into its queue.
    #[inline]
    pub(crate) fn spill(&mut self) {
        if self.work.reply.concerns(self.token) {
            self.spill_reply();
        }
    }

    #[cold]
    fn spill_reply(&mut self) {
        let bytes = self.work.reply.end();
        if !bytes.is_empty() {
            self.output().push(&bytes);
        }
        self.work.reply.give_back(bytes);
    }

    /// The callback has returned: writes what it sent on its own connection, without a queue.
    #[inline]
    pub(crate) fn write_reply(&mut self) {
        if !self.work.reply.concerns(self.token) {
            return self.flush();
        }
        debug_assert!(self.stream.output.is_none(), "what is queued goes first");
        // Written from where it was collected: taking the buffer out and putting it back costs more than
        // the rest of this.
        let bytes = self.work.reply.bytes();
        let len = bytes.len();
        if len == 0 {
            return self.work.reply.written();
        }
        // The read of this turn has stored its tick already.
        match self.stream.socket.write(bytes) {
            Ok(n) if n == len => {
                self.work.reply.written();
                self.work.wrote(n);
                self.stream.writable = true;
            }
            result => self.reply_not_written(result),
        }
    }

    /// The socket has not taken all of a reply.
    #[cold]
    fn reply_not_written(&mut self, result: io::Result<usize>) {
        let bytes = self.work.reply.end();
        let (written, failed) = match self.stream.not_all_written(result, bytes.len(), self.work) {
            Ok(n) => (n, Ok(())),
            Err(e) => (0, Err(e)),
        };
        // After an error the rest counts as unsent.
        if written < bytes.len() {
            self.output().push(&bytes[written..]);
        }
        self.work.reply.give_back(bytes);
        match failed {
            Ok(()) => self.flush(),
            Err(e) => self.output_failed(e),
        }
    }
}
