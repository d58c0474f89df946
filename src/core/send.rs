//! Output: queued, written, counted against its marks.

use std::io;
use std::sync::Arc;

use super::Core;
use crate::connection::{Phase, Stream, WriteSide};
use crate::error::{CloseReason, Limit};
use crate::guard::guarded;
use crate::layer::{Kind, LayerContext, LayerError, LayerErrorKind};
use crate::options::Overflow;
use crate::token::Token;

/// From this size on a message is written at once from the sender's own bytes, in one call with what
/// waits before it: the copy would cost more than the system calls that coalescing could save.
const DIRECT: usize = 16 * 1024;

/// What became of a message that was sent.
///
/// A plain status and not a `Result`, so that a `?` on somebody else's connection cannot end one's
/// own. Ignoring it is fine where losing the peer is: whatever goes wrong, that connection's own
/// handler is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SendStatus {
    /// Queued (or written already).
    Queued,
    /// Queued, and the queue is above its high mark now: a sender that can wait should, until
    /// `on_drain`.
    AboveHigh,
    /// Refused as a whole: the queue's hard cap would be exceeded. What becomes of the connection
    /// is up to its [`Overflow`] policy.
    Full,
    /// Refused as a whole: the connection's wire format cannot say this message (a line feed inside
    /// a line, text that is not UTF-8). The connection lives on.
    Unencodable,
    /// There is nothing to send to: the connection is gone, closing, or its write side has ended;
    /// or the token names something that does not take this kind of message.
    Gone,
}

impl SendStatus {
    /// Whether the message was accepted.
    pub fn is_accepted(self) -> bool {
        matches!(self, SendStatus::Queued | SendStatus::AboveHigh)
    }
}

impl Core {
    pub(crate) fn send(&mut self, token: Token, bytes: &[u8], kind: Kind) -> SendStatus {
        if self.groups.has_pending() {
            self.settle_groups_before_direct(token);
        }
        let Some(stream) = self.table.stream_mut(token) else {
            return self.send_elsewhere(token, bytes);
        };
        if !stream.accepts_output() {
            return SendStatus::Gone;
        }
        let queued = stream.queued() + bytes.len();
        if queued > stream.options().output_cap {
            return self.overflow(token);
        }
        if stream.wire().is_some() {
            return self.send_encoded(token, bytes, kind);
        }
        if bytes.len() >= DIRECT && stream.is_open() {
            return self.send_large(token, bytes);
        }
        if bytes.is_empty() {
            return SendStatus::Queued;
        }
        stream.output.get_or_insert_with(|| self.spares.output(self.tick)).push(bytes);
        owe_flush(self.current, &mut self.dirty, token, stream);
        if stream.passes_high_mark(queued) { SendStatus::AboveHigh } else { SendStatus::Queued }
    }

    /// Writes at once, as much as the system takes; the rest is queued.
    fn send_large(&mut self, token: Token, bytes: &[u8]) -> SendStatus {
        let Some(stream) = self.table.stream_mut(token) else { return SendStatus::Gone };
        match stream.write_through(bytes, self.tick) {
            Ok(written) if written == bytes.len() => SendStatus::Queued,
            Ok(written) => {
                self.output_of(token, |output| output.push(&bytes[written..]));
                self.queued_more(token)
            }
            Err(e) => {
                self.write_failed(token, e);
                SendStatus::Gone
            }
        }
    }

    /// Like [`send`](Self::send), for bytes that are shared: they are queued by reference.
    pub(crate) fn send_shared(&mut self, token: Token, bytes: &Arc<[u8]>) -> SendStatus {
        let plain = self.stream(token).is_some_and(|s| s.wire().is_none());
        if !plain || bytes.len() < DIRECT {
            return self.send(token, bytes, Kind::Default);
        }
        if self.groups.has_pending() {
            self.settle_groups_before_direct(token);
        }
        let Some(stream) = self.stream_mut(token) else { return SendStatus::Gone };
        if !stream.accepts_output() {
            return SendStatus::Gone;
        }
        if stream.queued() + bytes.len() > stream.options().output_cap {
            return self.overflow(token);
        }
        self.output_of(token, |output| output.push_shared(Arc::clone(bytes), 0));
        self.queued_more(token)
    }

    pub(crate) fn send_encoded(&mut self, token: Token, bytes: &[u8], kind: Kind) -> SendStatus {
        let Some(stream) = self.stream_mut(token) else { return SendStatus::Gone };
        let open = stream.phase == Phase::Open;
        let Some(wire) = stream.wire_mut() else { return SendStatus::Gone };
        if !open || !wire.is_ready() {
            wire.waiting.push(kind, bytes);
            let queued = stream.queued();
            let above = stream.passes_high_mark(queued);
            return if above { SendStatus::AboveHigh } else { SendStatus::Queued };
        }
        match self.encode(token, |layer, cx, buffer| layer.encode(cx, bytes, kind, buffer)) {
            Ok(()) => self.queued_more(token),
            Err(e) => self.encode_failed(token, e),
        }
    }

    /// A message that the format cannot say is lost alone: what one member of a room says must not
    /// end the others. Any other error is the connection's.
    pub(crate) fn encode_failed(&mut self, token: Token, error: LayerError) -> SendStatus {
        if error.kind() == LayerErrorKind::Unencodable {
            log::debug!("{token}: a message is not sent: {error}");
            return SendStatus::Unencodable;
        }
        self.fail(token, CloseReason::Layer(error));
        SendStatus::Gone
    }

    /// Lets a connection's layer append to its output queue.
    pub(crate) fn encode(
        &mut self,
        token: Token,
        write: impl FnOnce(
            &mut dyn crate::layer::Layer,
            &mut LayerContext<'_>,
            &mut Vec<u8>,
        ) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        let (tick, now) = (self.tick, self.now);
        let Some(Stream { extra, output, .. }) = self.table.stream_mut(token) else {
            return Ok(());
        };
        let Some(wire) = extra.as_mut().and_then(|e| e.wire.as_mut()) else { return Ok(()) };
        let output = output.get_or_insert_with(|| self.spares.output(tick));
        output.push_with(|buffer| {
            let mut fields = Vec::new(); // nothing is decoded
            let mut cx = LayerContext::new(now, &mut wire.call_at, &mut fields);
            guarded(|| write(&mut *wire.layer, &mut cx, buffer))
                .unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text)))
        })
    }

    /// Appends bytes that are in wire form already: what a layer answers. They count like any other
    /// output: a peer that asks and does not read (pings, say) is not read from either; and no
    /// policy can drop them, so that the cap ends the connection.
    pub(crate) fn push_raw(&mut self, token: Token, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.output_of(token, |output| output.push(bytes));
        self.queued_more(token);
        let Some(stream) = self.stream(token) else { return };
        let cap = stream.options().output_cap;
        if stream.queued() > cap {
            self.fail(token, CloseReason::LimitExceeded(Limit::QueuedOutput, cap));
        }
    }

    /// Gives `with` the connection's queue, making it one if it has none.
    pub(crate) fn output_of(
        &mut self,
        token: Token,
        with: impl FnOnce(&mut crate::connection::Output),
    ) {
        if let Some(stream) = self.table.stream_mut(token) {
            with(stream.output.get_or_insert_with(|| self.spares.output(self.tick)));
        }
    }

    /// After something was queued: the marks, and who flushes it.
    pub(crate) fn queued_more(&mut self, token: Token) -> SendStatus {
        let Some(stream) = self.table.stream_mut(token) else { return SendStatus::Gone };
        owe_flush(self.current, &mut self.dirty, token, stream);
        let queued = stream.queued();
        if stream.passes_high_mark(queued) { SendStatus::AboveHigh } else { SendStatus::Queued }
    }

    pub(crate) fn mark_dirty(&mut self, token: Token) {
        if let Some(stream) = self.table.stream_mut(token) {
            owe_flush(self.current, &mut self.dirty, token, stream);
        }
    }

    /// The hard cap would be exceeded.
    pub(crate) fn overflow(&mut self, token: Token) -> SendStatus {
        let Some(stream) = self.stream_mut(token) else { return SendStatus::Gone };
        let cap = stream.options().output_cap;
        match stream.options().overflow {
            // Whoever was refused is told when there is room. A queue at its low mark or below has
            // room: then the message alone is larger than the cap, and waiting would not help.
            Overflow::Drop => stream.over_high |= stream.queued() > stream.options().low_mark,
            Overflow::Close => {
                self.fail(token, CloseReason::LimitExceeded(Limit::QueuedOutput, cap));
            }
        }
        SendStatus::Full
    }

    /// Writes what is queued, as far as the system takes it, and does what was waiting for that:
    /// the end of the write side, reads that were paused, `on_drain`.
    pub(crate) fn flush(&mut self, token: Token) {
        let Some(stream) = self.table.stream_mut(token) else { return };
        if stream.output.is_none() && stream.write != WriteSide::Ending {
            return;
        }
        if matches!(stream.phase, Phase::Connecting | Phase::Failing | Phase::Dead) {
            return;
        }
        if let Err(e) = stream.write_queued(self.tick) {
            return self.write_failed(token, e);
        }
        if let Some(output) = stream.take_empty_output() {
            stream.stall_watched = false;
            self.spares.keep_output(output);
            if !stream.over_high && stream.write == WriteSide::Open {
                return;
            }
        }
        let waits = stream.output.is_some();
        let watch = waits && !std::mem::replace(&mut stream.stall_watched, true);
        let ends = !waits && stream.write == WriteSide::Ending && stream.may_end_write();
        if stream.over_high && stream.queued() <= stream.options().low_mark {
            stream.over_high = false;
            stream.drained = true;
            let partner = stream.link().map(|link| link.other);
            self.make_ready(token);
            if let Some(partner) = partner {
                self.make_ready(partner);
            }
        }
        if watch {
            self.watch(token);
        }
        if ends {
            self.end_write(token);
        }
    }

    /// The socket takes nothing any more. What it still hands out is offered before the end.
    pub(crate) fn write_failed(&mut self, token: Token, error: io::Error) {
        self.fail_after_input(token, CloseReason::Io(error));
    }
}

/// A connection's own replies are flushed when its callback returns (latency); what others send to
/// it, at the end of the turn (many small messages leave in one system call).
#[inline]
fn owe_flush(current: Option<Token>, dirty: &mut Vec<Token>, token: Token, stream: &mut Stream) {
    if current != Some(token) && !std::mem::replace(&mut stream.in_dirty, true) {
        dirty.push(token);
    }
}
