//! Input of connections with wire layers: read, decoded one unit at a time, offered.
//!
//! Pulling is what carries back-pressure into a layer: between any two units the connection may be
//! held back, and the bytes that are not decoded yet stay with it.

use std::ops::Range;

use super::dispatch::Dispatch;
use super::input::Budget;
use super::scratch::Scratch;
use crate::connection::{Input, PeerSide, Phase, ReadSide, Received, Tail, WriteSide};
use crate::error::{CloseReason, Limit};
use crate::guard::guarded;
use crate::layer::{Delivery, Item, Kind, LayerContext, LayerError, Step};
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    pub(super) fn take_layered_input(
        &mut self,
        token: Token,
        budget: &mut Budget,
        scratch: &mut Scratch,
    ) {
        loop {
            let Some(stream) = self.net.core.stream(token) else { return };
            match stream.phase {
                Phase::Connecting | Phase::Dead => return,
                Phase::Closing | Phase::Lingering => return self.discard_input(token, scratch),
                Phase::Handshaking | Phase::Open | Phase::Failing => {}
            }
            let pull = stream.wire().is_some_and(|wire| wire.pull);
            let (fresh, read, readable) =
                (stream.fresh && stream.unread() > 0, stream.read, stream.readable);
            if !self.net.core.may_read(token) {
                return;
            }
            if budget.calls == 0 && (fresh || pull || readable) {
                return self.net.core.make_ready_later(token);
            }
            if fresh {
                self.offer_unread(token, budget);
            } else if pull {
                self.decode_kept(token, budget, scratch);
            } else if read == ReadSide::Ended {
                if !self.end_layer(token) {
                    continue;
                }
                return self.tell_end(token);
            } else if !readable || read == ReadSide::Told {
                return self.nothing_more(token);
            } else if budget.reads == 0 {
                return self.net.core.make_ready_later(token);
            } else {
                budget.reads -= 1;
                self.read_and_decode(token, budget, scratch);
            }
        }
    }

    fn read_and_decode(&mut self, token: Token, budget: &mut Budget, scratch: &mut Scratch) {
        let Some(Received { len: n, .. }) = self.read(token, scratch) else { return };
        let Some(wire) = self.net.core.stream_mut(token).and_then(|s| s.wire_mut()) else { return };
        if wire.undecoded.is_empty() {
            // Straight out of the reactor's buffer; only what is left over is copied.
            let Scratch { read, unit, reply, fields, .. } = scratch;
            let consumed = self.decode(token, &mut read[..n], budget, (unit, reply, fields));
            if let Some(wire) = self.net.core.stream_mut(token).and_then(|s| s.wire_mut()) {
                wire.undecoded.push(&read[consumed..n]);
            }
        } else {
            wire.undecoded.push(&scratch.read[..n]);
            wire.pull = true;
        }
    }

    /// Decodes what the connection has kept. It leaves the connection for as long.
    fn decode_kept(&mut self, token: Token, budget: &mut Budget, scratch: &mut Scratch) {
        let Some(wire) = self.net.core.stream_mut(token).and_then(|s| s.wire_mut()) else { return };
        let mut kept = std::mem::take(&mut wire.undecoded);
        let Scratch { unit, reply, fields, .. } = scratch;
        let consumed = self.decode(token, kept.unread_mut(), budget, (unit, reply, fields));
        kept.consume(consumed);
        if kept.is_empty() {
            // An idle connection keeps no buffer.
            kept = Tail::default();
        }
        if let Some(wire) = self.net.core.stream_mut(token).and_then(|s| s.wire_mut()) {
            wire.undecoded = kept;
        }
    }

    /// Pulls units out of `bytes` until the layer has nothing more, the connection is held back, or
    /// the budget is used up. Answers how many bytes were consumed.
    fn decode(
        &mut self,
        token: Token,
        bytes: &mut [u8],
        budget: &mut Budget,
        (unit, reply, fields): (&mut Vec<u8>, &mut Vec<u8>, &mut Vec<Range<usize>>),
    ) -> usize {
        let (now, len) = (self.net.core.now, bytes.len());
        let mut at = 0;
        loop {
            let held_back = budget.calls == 0 || !self.net.core.may_read(token);
            let Some(stream) = self.net.core.stream_mut(token) else { return bytes.len() };
            match stream.phase {
                Phase::Handshaking | Phase::Open | Phase::Failing => {}
                _ => return bytes.len(),
            }
            let Some(wire) = stream.wire_mut() else { return at };
            wire.pull = held_back;
            if held_back {
                return at;
            }
            unit.clear();
            reply.clear();
            fields.clear();
            let given = &mut bytes[at..];
            let mut cx = LayerContext::new(now, &mut wire.call_at, fields);
            let decoded = guarded(|| {
                let step = wire.layer.decode(&mut cx, given, unit, reply)?;
                step.assert_within(given);
                Ok((step, wire.layer.delivery()))
            })
            .unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text)));
            self.net.core.push_raw(token, reply);
            let (Step { consumed, item, kind }, delivery) = match decoded {
                Ok(decoded) => decoded,
                Err(e) => return self.layer_failed(token, e, len),
            };
            at += consumed;
            // Only what the layer cannot take counts against it: behind the last step of a handshake
            // bulk data may have come in the same read.
            let waiting = if item == Item::Nothing { len - at } else { 0 };
            if !self.handshake_within_limit(token, consumed, waiting) {
                return len;
            }
            let how = (delivery, kind, &**fields);
            match item {
                Item::Nothing => return at,
                Item::Progress => {}
                Item::Slice(range) => self.deliver(token, &given[range], how, budget),
                Item::Unit => self.deliver(token, unit, how, budget),
                Item::End => {
                    if let Some(stream) = self.net.core.stream_mut(token) {
                        stream.read = ReadSide::Ended;
                        stream.fresh = true;
                        if let Some(wire) = stream.wire_mut() {
                            wire.peer = PeerSide::Ended;
                        }
                    }
                    return bytes.len();
                }
            }
        }
    }

    /// After a step of a layer whose handshake was not done: opens the connection if it is now, else
    /// counts what the peer has sent. Answers whether it goes on.
    fn handshake_within_limit(&mut self, token: Token, consumed: usize, left: usize) -> bool {
        let Some(stream) = self.net.core.stream_mut(token) else { return false };
        let (phase, limit) = (stream.phase, stream.options().handshake_limit);
        let Some(wire) = stream.wire_mut() else { return true };
        if wire.is_ready() {
            return true;
        }
        match wire.look_whether_ready() {
            Ok(false) => {}
            Ok(true) if phase == Phase::Handshaking => {
                self.opened(token, None);
                return true;
            }
            // A layer that came in mid-stream has no opening, only what waits for it.
            Ok(true) => {
                self.net.core.encode_waiting(token);
                if self.net.core.stream(token).is_some_and(|s| s.write == WriteSide::Ending) {
                    self.net.core.start_write_end(token);
                }
                return true;
            }
            Err(e) => {
                self.layer_failed(token, e, 0);
                return false;
            }
        }
        let Some(wire) = self.net.core.stream_mut(token).and_then(|s| s.wire_mut()) else {
            return false;
        };
        wire.before_ready += consumed;
        if wire.before_ready + left > limit {
            self.net.core.fail(token, CloseReason::LimitExceeded(Limit::Handshake, limit));
            return false;
        }
        true
    }

    fn layer_failed(&mut self, token: Token, error: LayerError, all: usize) -> usize {
        self.net.core.close_for_layer(token, error);
        all
    }

    /// One unit for the handler: a message, or the next bytes of a stream.
    fn deliver(
        &mut self,
        token: Token,
        unit: &[u8],
        (delivery, kind, fields): (Delivery, Kind, &[Range<usize>]),
        budget: &mut Budget,
    ) {
        let Some(stream) = self.net.core.stream(token) else { return };
        if !stream.is_open() {
            return;
        }
        if let Some(to) = stream.relayed_to() {
            budget.calls = budget.calls.saturating_sub(1);
            // Behind what a handler had left.
            self.net.core.pass_unread(token, to);
            if !self.net.core.stash_behind_unread(token, unit) {
                self.net.core.pass_on(to, unit, kind);
            }
            return;
        }
        match delivery {
            Delivery::Messages => {
                budget.calls = budget.calls.saturating_sub(1);
                let mut input = Input::message(unit, kind).with_fields(fields);
                self.call(token, |handler, cx| handler.on_data(cx, &mut input));
            }
            Delivery::Stream => {
                self.offer(token, unit, budget);
                // Offered together with what the handler had left, before the next unit is pulled.
                let again = self.net.core.stream(token).is_some_and(|s| s.fresh && s.unread() > 0);
                if again && budget.calls > 0 && self.net.core.may_read(token) {
                    self.offer_unread(token, budget);
                }
            }
        }
    }

    /// The stream below has ended. Answers whether the handler may be told: the layer has agreed that
    /// this is a proper end, and has given out what only the end completed.
    fn end_layer(&mut self, token: Token) -> bool {
        let now = self.net.core.now;
        let Some(stream) = self.net.core.stream_mut(token) else { return false };
        let handshaking = stream.phase == Phase::Handshaking;
        let Some(wire) = stream.wire_mut() else { return true };
        let peer = wire.peer;
        if peer == PeerSide::Open {
            wire.peer = PeerSide::Cut;
            let left = wire.undecoded.len();
            let mut fields = Vec::new(); // nothing is decoded
            let mut cx = LayerContext::new(now, &mut wire.call_at, &mut fields);
            let ended = guarded(|| wire.layer.wire_ended(&mut cx, left));
            match ended.unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text))) {
                Ok(()) => wire.pull = true,
                Err(e) => self.net.core.close_for_layer(token, e),
            }
            return false;
        }
        if handshaking {
            // The peer left before there was a connection; or the layer did all there was to do
            // without one (a web page for a browser) and said so.
            let gone = std::io::ErrorKind::UnexpectedEof.into();
            let reason = (peer != PeerSide::Ended).then_some(CloseReason::Io(gone));
            self.net.core.close_unopened(token, reason);
            return false;
        }
        true
    }
}
