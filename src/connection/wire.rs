//! A wire format at work on one connection: decoding one unit at a time, encoding, its end.

use std::ops::Range;
use std::time::Instant;

use super::read::{Budget, Received};
use super::{Conn, Phase, ReadSide, Tail};
use crate::error::{CloseReason, Limit};
use crate::guard::guarded;
use crate::layer::{Delivery, Item, Layer, LayerContext, LayerEnd, LayerError, MessageKind, Step};

/// How far the peer's side has come, as far as the layer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerSide {
    Open,
    /// The layer knows that the stream below has ended, and gives out what only that completes.
    Cut,
    /// The peer has ended in the format's own terms.
    Ended,
}

/// How far this side has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnSide {
    /// The layer's handshake goes on: nothing is encoded, what is sent waits.
    Handshaking,
    Ready,
    /// The format's own end has been written, or the layer has given up.
    Ended,
}

/// See the module.
pub(crate) struct Wire {
    pub(super) layer: Box<dyn Layer>,
    /// Bytes that arrived and are not decoded.
    pub(super) undecoded: Tail,
    /// The layer may yield something without a new read.
    pub(super) pull: bool,
    pub(super) peer: PeerSide,
    pub(super) own: OwnSide,
    /// How many bytes the layer consumed before it was ready.
    before_ready: usize,
    /// For a layer that was put on an open connection and is not ready: the tick of its deadline.
    pub(super) deadline: Option<u64>,
    /// When the layer asked to be called.
    pub(super) call_at: Option<Instant>,
    pub(super) waiting: Waiting,
    /// The layer itself holds a part of a message, since this tick. Noted only for a message timeout.
    pub(super) part_since: Option<u64>,
    /// It was put on in mid-stream and has not decoded anything yet.
    fresh: bool,
    /// There was a layer already when it was put on: what that one had decoded came in clear.
    over_decoded: bool,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("layer", &self.layer.name()).finish_non_exhaustive()
    }
}

impl super::Stream {
    /// The layer has nothing more to say, not even its end.
    pub(super) fn give_up_format(&mut self) {
        if let Some(wire) = self.wire_mut() {
            wire.own = OwnSide::Ended;
        }
    }
}

impl Wire {
    pub(crate) fn new(layer: Box<dyn Layer>) -> Self {
        Wire {
            layer,
            undecoded: Tail::default(),
            pull: false,
            peer: PeerSide::Open,
            own: OwnSide::Handshaking,
            before_ready: 0,
            deadline: None,
            call_at: None,
            waiting: Waiting::default(),
            part_since: None,
            fresh: false,
            over_decoded: false,
        }
    }

    /// The layer that takes the place of `running`, in mid-stream.
    pub(super) fn in_mid_stream(layer: Box<dyn Layer>, over: Option<Waiting>, until: u64) -> Self {
        Wire {
            over_decoded: over.is_some(),
            waiting: over.unwrap_or_default(),
            pull: true,
            fresh: true,
            deadline: Some(until),
            ..Wire::new(layer)
        }
    }

    pub(crate) fn layer(&self) -> &dyn Layer {
        &*self.layer
    }

    /// Whether the layer's handshake is done, as far as was noted.
    pub(crate) fn is_ready(&self) -> bool {
        self.own != OwnSide::Handshaking
    }

    /// Whether it was put on in mid-stream and has not decoded anything yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether it was put on beneath a layer that had decoded bytes in clear.
    pub(super) fn was_put_over_decoded(&self) -> bool {
        self.over_decoded
    }

    /// Whether the format's end was not said yet. In a handshake it may have one to say as well: of
    /// a stack, the outer layer may be ready.
    pub(super) fn owes_end(&self) -> bool {
        self.own != OwnSide::Ended
    }

    /// Asks the layer whether its handshake is done, and notes it.
    pub(crate) fn look_whether_ready(&mut self) -> Result<bool, LayerError> {
        if self.own == OwnSide::Handshaking
            && guarded(|| self.layer.is_ready())
                .map_err(|text| LayerError::panicked(self.layer.name(), text))?
        {
            self.own = OwnSide::Ready;
            self.deadline = None;
        }
        Ok(self.is_ready())
    }
}

/// A unit that was decoded.
pub(crate) struct Unit {
    /// Where it lies in the given bytes; `None`, if it is in the unit buffer.
    pub(crate) range: Option<Range<usize>>,
    pub(crate) kind: MessageKind,
    pub(crate) delivery: Delivery,
}

/// What one step of decoding came to.
pub(crate) struct Decoded {
    /// How many of the given bytes are done with.
    pub(crate) consumed: usize,
    /// The handshake of an unopened connection is done: the handler is next, before the unit.
    pub(crate) opens: bool,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// Nothing more for now: the layer needs bytes, or the connection is held back.
    Nothing,
    /// The connection is on its way out, or the peer has ended: the rest of the bytes is dropped.
    Drop,
    Progress,
    Unit(Unit),
}

impl Outcome {
    fn of(self, consumed: usize) -> Decoded {
        Decoded { consumed, opens: false, outcome: self }
    }
}

impl Conn<'_> {
    /// What is next for the input of a connection with layers. `buffer` is the reactor's; what it
    /// reads lies there, undecoded.
    pub(crate) fn next_layered(&mut self, budget: &mut Budget, buffer: &mut [u8]) -> NextLayered {
        loop {
            let stream = &mut *self.stream;
            match stream.life.phase {
                Phase::Handshaking | Phase::Open | Phase::Failing => {}
                _ => return NextLayered::Rest,
            }
            if !stream.may_read() {
                return NextLayered::Rest;
            }
            let changed = stream.unread_changed && stream.unread() > 0;
            let Some(wire) = stream.wire_mut() else { return NextLayered::Rest };
            let pull = wire.pull;
            let exhausted = budget.calls == 0 || self.work.units == 0;
            if exhausted && (changed || pull || self.stream.readable) {
                self.make_ready_later();
                return NextLayered::Rest;
            }
            if changed {
                match self.stream.relayed_to() {
                    Some(to) => return NextLayered::RelayKept(to),
                    None => {
                        return self
                            .stream
                            .input
                            .take()
                            .map_or(NextLayered::Rest, NextLayered::Kept);
                    }
                }
            }
            if pull {
                let wire = self.stream.wire_mut();
                let kept = wire.map(|wire| std::mem::take(&mut wire.undecoded));
                return NextLayered::Decode(kept.unwrap_or_default());
            }
            if self.stream.life.read == ReadSide::Ended {
                if self.end_format() {
                    return NextLayered::End;
                }
                continue;
            }
            if !self.stream.readable || self.stream.life.read == ReadSide::Delivered {
                self.nothing_more();
                return NextLayered::Rest;
            }
            if budget.reads == 0 {
                self.make_ready_later();
                return NextLayered::Rest;
            }
            budget.reads -= 1;
            let tick = self.work.tick;
            let Some(Received { len, .. }) = self.read(buffer) else { continue };
            let Some(wire) = self.stream.wire_mut() else { continue };
            if wire.undecoded.is_empty() {
                return NextLayered::Read(len);
            }
            wire.undecoded.push(&buffer[..len], tick);
            wire.pull = true;
        }
    }

    /// Pulls one unit out of `bytes`.
    pub(crate) fn decode(
        &mut self,
        bytes: &mut [u8],
        (unit, reply, fields): (&mut Vec<u8>, &mut Vec<u8>, &mut Vec<Range<usize>>),
        budget: &mut Budget,
    ) -> Decoded {
        let held_back = budget.calls == 0 || self.work.units == 0 || !self.stream.may_read();
        match self.stream.life.phase {
            Phase::Handshaking | Phase::Open | Phase::Failing => {}
            _ => return Outcome::Drop.of(0),
        }
        let Some(wire) = self.stream.wire_mut() else { return Outcome::Nothing.of(0) };
        wire.pull = held_back;
        if held_back {
            return Outcome::Nothing.of(0);
        }
        wire.fresh = false;
        unit.clear();
        reply.clear();
        fields.clear();
        let called_at = wire.call_at;
        let timed = self.stream.settings.options.message_timeout.is_some();
        let Some(wire) = self.stream.wire_mut() else { return Outcome::Nothing.of(0) };
        let mut cx = LayerContext::new(self.work.now, &mut wire.call_at, fields);
        let decoded = guarded(|| {
            let step = wire.layer.decode(&mut cx, bytes, unit, reply)?;
            step.assert_within(bytes);
            let holds_part = timed && step.item == Item::Nothing && wire.layer.holds_input();
            Ok((step, wire.layer.delivery(), holds_part))
        })
        .unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text)));
        let asks = wire.call_at != called_at;
        self.push_raw(reply);
        if asks {
            self.watch();
        }
        let (Step { consumed, item, kind }, delivery, holds_part) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                self.close_for_layer(error);
                return Outcome::Drop.of(0);
            }
        };
        if timed && item != Item::Progress {
            self.note_part(holds_part);
        }
        // Only what the layer cannot take counts against the limit of a handshake: behind its last
        // step bulk data may have come in the same read.
        let left = if item == Item::Nothing { bytes.len() - consumed } else { 0 };
        let Some(opens) = self.handshake_step(consumed, left, budget) else {
            return Outcome::Drop.of(consumed);
        };
        let range = match item {
            Item::Slice(range) => Some(range),
            Item::Unit => None,
            Item::Nothing => return Decoded { consumed, opens, outcome: Outcome::Nothing },
            Item::Progress => {
                budget.charge(1);
                self.work.charge(1);
                return Decoded { consumed, opens, outcome: Outcome::Progress };
            }
            Item::End => {
                if let Some(wire) = self.stream.wire_mut() {
                    wire.peer = PeerSide::Ended;
                }
                self.format_ended();
                return Decoded { consumed, opens, outcome: Outcome::Drop };
            }
        };
        let len = range.as_ref().map_or(unit.len(), ExactSizeIterator::len);
        let units = Budget::units_decoded(len);
        budget.charge(units);
        self.work.charge(units);
        Decoded { consumed, opens, outcome: Outcome::Unit(Unit { range, kind, delivery }) }
    }

    /// Notes whether the layer holds a part of a message: for the deadline of that message.
    fn note_part(&mut self, holds_part: bool) {
        let tick = self.work.tick;
        let Some(wire) = self.stream.wire_mut() else { return };
        if !holds_part {
            wire.part_since = None;
        } else if wire.part_since.is_none() {
            wire.part_since = Some(tick);
            self.watch();
        }
    }

    /// After a step of a layer whose handshake was not done. `Some(true)`: an unopened connection is
    /// ready now. `None`: it went over its limit, or failed.
    fn handshake_step(
        &mut self,
        consumed: usize,
        left: usize,
        budget: &mut Budget,
    ) -> Option<bool> {
        /// What a step of a handshake counts for: with TLS one takes as long as so many messages.
        const STEP: usize = 32;
        let (phase, limit) = (self.stream.phase(), self.stream.options().handshake_limit);
        let wire = self.stream.wire_mut()?;
        if wire.is_ready() {
            return Some(false);
        }
        budget.calls = budget.calls.saturating_sub(STEP);
        self.work.charge(STEP);
        let wire = self.stream.wire_mut()?;
        match wire.look_whether_ready() {
            Ok(false) => {}
            Ok(true) if phase == Phase::Handshaking => return Some(true),
            // A layer that came in mid-stream has no opening, only what waits for it.
            Ok(true) => {
                self.encode_waiting();
                if self.stream.life.write == super::WriteSide::Ending {
                    self.half_close();
                }
                return Some(false);
            }
            Err(error) => {
                self.close_for_layer(error);
                return None;
            }
        }
        wire.before_ready += consumed;
        if wire.before_ready + left > limit {
            self.finish(CloseReason::LimitExceeded(Limit::Handshake, limit));
            return None;
        }
        Some(false)
    }

    /// Decoding rests: bytes that were not consumed stay with the connection.
    pub(crate) fn keep_undecoded(&mut self, rest: &[u8]) {
        let tick = self.work.tick;
        let Some(wire) = self.stream.wire_mut() else { return };
        if !rest.is_empty() {
            wire.undecoded.push(rest, tick);
            if self.stream.options().message_timeout.is_some() {
                self.watch();
            }
        }
    }

    /// The same for those that the connection had kept before.
    pub(crate) fn give_back_undecoded(&mut self, mut kept: Tail, consumed: usize) {
        kept.consume(consumed);
        if consumed > 0 {
            kept.restart(self.work.tick);
        }
        let Some(wire) = self.stream.wire_mut() else { return };
        if !kept.is_empty() {
            wire.undecoded = kept;
            if self.stream.options().message_timeout.is_some() {
                self.watch();
            }
        }
    }

    /// The stream below has ended. Returns whether the handler may be called for it: the layer has
    /// agreed that this is a proper end, and has given out what only the end completed.
    fn end_format(&mut self) -> bool {
        let handshaking = self.stream.phase() == Phase::Handshaking;
        let Some(wire) = self.stream.wire_mut() else { return true };
        let peer = wire.peer;
        if peer == PeerSide::Open {
            wire.peer = PeerSide::Cut;
            let left = wire.undecoded.len();
            let mut fields = Vec::new(); // nothing is decoded
            let mut cx = LayerContext::new(self.work.now, &mut wire.call_at, &mut fields);
            let ended = guarded(|| wire.layer.wire_ended(&mut cx, left));
            match ended.unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text))) {
                Ok(()) => wire.pull = true,
                Err(error) => self.close_for_layer(error),
            }
            return false;
        }
        if handshaking {
            // The peer left before there was a connection; or the layer did all there was to do
            // without one (a web page for a browser) and said so.
            let gone = std::io::ErrorKind::UnexpectedEof.into();
            let reason = (peer != PeerSide::Ended).then_some(CloseReason::Io(gone));
            self.close_unopened(reason);
            return false;
        }
        true
    }

    // ---- what the layer writes ----

    /// The layer's opening words.
    pub(super) fn start_format(&mut self) -> Result<(), LayerError> {
        self.write_with_layer(|layer, cx, buffer| layer.start(cx, buffer))
    }

    /// Appends the wire form of one message to the queue.
    pub(super) fn encode(&mut self, bytes: &[u8], kind: MessageKind) -> Result<(), LayerError> {
        self.write_with_layer(|layer, cx, buffer| layer.encode(cx, bytes, kind, buffer))
    }

    /// What the format says at its end, once.
    pub(super) fn encode_end(&mut self, end: &LayerEnd<'_>) -> Result<(), LayerError> {
        let Some(wire) = self.stream.wire_mut() else { return Ok(()) };
        if std::mem::replace(&mut wire.own, OwnSide::Ended) == OwnSide::Ended {
            return Ok(());
        }
        self.write_with_layer(|layer, cx, buffer| {
            layer.end(cx, end, buffer);
            Ok(())
        })
    }

    /// Lets the connection's layer append to its output queue.
    fn write_with_layer(
        &mut self,
        write: impl FnOnce(
            &mut dyn Layer,
            &mut LayerContext<'_>,
            &mut Vec<u8>,
        ) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        let (tick, now) = (self.work.tick, self.work.now);
        let stream = &mut *self.stream;
        let Some(wire) = stream.extra.as_mut().and_then(|extra| extra.wire.as_mut()) else {
            return Ok(());
        };
        let output = stream.output.get_or_insert_with(|| self.work.pool.output(tick));
        let called_at = wire.call_at;
        let written = output.push_with(|buffer| {
            let mut fields = Vec::new(); // nothing is decoded
            let mut cx = LayerContext::new(now, &mut wire.call_at, &mut fields);
            guarded(|| write(&mut *wire.layer, &mut cx, buffer))
                .unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text)))
        });
        if wire.call_at != called_at {
            self.watch();
        }
        written
    }

    /// Calls a layer that asked to be called by now.
    pub(super) fn call_layer_on_time(&mut self) {
        let now = self.work.now;
        // One that is on its way out has had the format's end.
        if !matches!(self.stream.phase(), Phase::Handshaking | Phase::Open) {
            return;
        }
        let Some(wire) = self.stream.wire_mut() else { return };
        if wire.call_at.is_none_or(|at| at > now) {
            return;
        }
        wire.call_at = None;
        let (mut reply, mut fields) = (Vec::new(), Vec::new());
        let mut cx = LayerContext::new(now, &mut wire.call_at, &mut fields);
        let called = guarded(|| wire.layer.on_time(&mut cx, &mut reply))
            .unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text)));
        self.push_raw(&reply);
        match called {
            Ok(()) => self.flush(),
            Err(error) => self.close_for_layer(error),
        }
    }
}

/// What is next for the input of a connection with layers.
pub(crate) enum NextLayered {
    Rest,
    /// So many bytes have been read into the buffer, and nothing waits before them.
    Read(usize),
    /// Undecoded bytes that the connection had kept. They are out of it meanwhile.
    Decode(Tail),
    /// What the handler left, to be offered again. It is out of the connection meanwhile.
    Kept(Box<Tail>),
    /// What the handler left, for the other connection of a relay.
    RelayKept(crate::token::Token),
    End,
}

/// What was sent before the layer was ready, in its order and not encoded yet.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    bytes: Vec<u8>,
    /// The kind and the length of each message.
    messages: Vec<(MessageKind, usize)>,
}

impl Waiting {
    pub(crate) fn push(&mut self, kind: MessageKind, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.messages.push((kind, message.len()));
    }

    /// The messages' own bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What they take in memory, their places in the list included: a million empty messages are
    /// not nothing. (Growing by doubling, the two buffers reserve up to twice as much.)
    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.messages)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (MessageKind, &[u8])> {
        let mut rest = &*self.bytes;
        self.messages.iter().map(move |&(kind, len)| {
            let (message, behind) = rest.split_at(len);
            rest = behind;
            (kind, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_wait_keep_their_order_their_bounds_and_their_kinds() {
        let mut waiting = Waiting::default();
        let messages = [
            (MessageKind::Text, &b"one"[..]),
            (MessageKind::Default, b""),
            (MessageKind::Binary, b"three"),
        ];
        for (kind, message) in messages {
            waiting.push(kind, message);
        }
        assert!(waiting.iter().eq(messages));
        assert_eq!(waiting.len(), 8);
    }

    #[test]
    fn an_empty_message_that_waits_costs_its_place() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.cost(), 0);
        for _ in 0..1000 {
            waiting.push(MessageKind::Default, b"");
        }
        assert_eq!((waiting.len(), waiting.cost()), (0, 1000 * size_of::<(MessageKind, usize)>()));
    }
}
