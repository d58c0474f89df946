//! Input through layers: bytes are decoded one unit at a time.

use std::ops::Range;

use super::read::{Budget, Received};
use super::wire::PeerSide;
use super::{Conn, Phase, ReadSide, Tail};
use crate::error::{CloseReason, Limit};
use crate::guard::guarded;
use crate::layer::{Delivery, Item, LayerContext, LayerError, MessageKind, Step};
use crate::token::Token;

/// A unit that was decoded.
pub(crate) struct Unit {
    /// Where it lies in the given bytes; `None`, if it is in the unit buffer.
    pub(crate) range: Option<Range<usize>>,
    pub(crate) kind: MessageKind,
    pub(crate) delivery: Delivery,
    /// It used up the given bytes, and the layer holds none: it need not be asked again.
    pub(crate) last: bool,
}

/// The result of one step of decoding.
pub(crate) struct Decoded {
    /// How many of the given bytes are consumed.
    pub(crate) consumed: usize,
    /// The handshake of an unopened connection is done: `on_open` comes before the unit.
    pub(crate) opens: bool,
    pub(crate) outcome: Outcome,
}

pub(crate) enum Outcome {
    /// Nothing more for now: the layer needs bytes, or reading is held back.
    Nothing,
    /// The connection is ending, or the peer has ended: the rest of the bytes is dropped.
    Drop,
    Progress,
    Unit(Unit),
}

impl Outcome {
    fn of(self, consumed: usize) -> Decoded {
        Decoded { consumed, opens: false, outcome: self }
    }
}

/// The next step for the input of a connection with layers.
pub(crate) enum NextLayered {
    Rest,
    /// This many bytes have been read into the buffer, and no undecoded bytes precede them.
    Read(usize),
    /// Undecoded bytes that the connection had kept. It lends them for this step.
    Decode(Tail),
    /// What the handler left, to be offered again. The connection lends it for this step.
    Kept(Box<Tail>),
    /// What the handler left, for the other connection of a relay.
    RelayKept(Token),
    End,
}

impl Conn<'_> {
    /// The next step for the input of a connection with layers. A read goes into `buffer`, the
    /// reactor's, undecoded.
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
            let used_up = budget.calls == 0 || self.work.is_used_up();
            if used_up && (changed || pull || self.stream.readable) {
                self.budget_used_up(budget);
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
                self.budget_used_up(budget);
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
        let held_back = budget.calls == 0 || self.work.is_used_up() || !self.stream.may_read();
        match self.stream.life.phase {
            Phase::Handshaking | Phase::Open | Phase::Failing => {}
            _ => return Outcome::Drop.of(0),
        }
        let Some(wire) = self.stream.wire_mut() else { return Outcome::Nothing.of(0) };
        wire.pull = held_back;
        if held_back {
            return Outcome::Nothing.of(0);
        }
        wire.unused = false;
        wire.sharing_is_old = true;
        unit.clear();
        reply.clear();
        fields.clear();
        let called_at = wire.call_at;
        let timed = self.stream.settings.options.message_timeout.is_some();
        let Some(wire) = self.stream.wire_mut() else { return Outcome::Nothing.of(0) };
        let mut cx = LayerContext::new(self.work.now, &mut wire.call_at, fields);
        let running = wire.peer == PeerSide::Open;
        let decoded = guarded(|| {
            let step = wire.layer.decode(&mut cx, bytes, unit, reply)?;
            step.assert_within(bytes);
            let asked = match step.item {
                Item::Nothing => timed,
                // Behind the end of the stream the layer has more to yield than it holds.
                Item::Slice(_) | Item::Unit => running && step.consumed == bytes.len(),
                Item::Progress | Item::End => false,
            };
            let holds = asked.then(|| wire.layer.holds_input());
            Ok((step, holds))
        })
        .unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text)));
        let delivery = wire.delivery;
        if wire.call_at != called_at {
            self.watch();
        }
        if !reply.is_empty() {
            self.spill();
            self.push_raw(reply);
        }
        let (Step { consumed, item, kind }, holds) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                self.spill();
                self.close_for_layer(error);
                return Outcome::Drop.of(0);
            }
        };
        if timed && item != Item::Progress {
            self.note_part(item == Item::Nothing && holds == Some(true));
        }
        // Bytes that the layer may still consume do not count against the limit of a handshake: the
        // read that completes it may have brought bulk data too.
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
        if let Some(tally) = self.stream.tally_mut() {
            tally.message_received();
        }
        let last = holds == Some(false);
        Decoded { consumed, opens, outcome: Outcome::Unit(Unit { range, kind, delivery, last }) }
    }

    /// Records whether the layer holds a part of a message: for the deadline of that message.
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
        /// The units of one handshake step: a step of TLS takes about as long as this many messages.
        const STEP: usize = 32;
        let (phase, limit) = (self.stream.phase(), self.stream.options().handshake_limit);
        let wire = self.stream.wire_mut()?;
        if wire.is_ready() {
            return Some(false);
        }
        budget.calls = budget.calls.saturating_sub(STEP);
        self.work.charge(STEP);
        let wire = self.stream.wire_mut()?;
        match wire.check_ready() {
            Ok(false) => {}
            Ok(true) if phase == Phase::Handshaking => return Some(true),
            // A layer put on in mid-stream: the connection is open already, its messages wait.
            Ok(true) => {
                self.encode_waiting();
                self.values_wait();
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

    /// Keeps bytes that were read and not consumed.
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

    /// Takes back bytes that the connection had kept before.
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

    /// The stream below has ended. Returns whether `on_eof` may be called: the layer has accepted this
    /// as a proper end and has yielded what the end completed.
    fn end_format(&mut self) -> bool {
        // Behind a failed write it is none: the system reports a reset once, to the write, and reads
        // return an end after it. What has arrived of a message must not be taken for the whole.
        if self.stream.phase() == Phase::Failing
            && self.stream.wire().is_some_and(|wire| wire.peer == PeerSide::Open)
        {
            return true;
        }
        let handshaking = self.stream.phase() == Phase::Handshaking;
        let Some(wire) = self.stream.wire_mut() else { return true };
        let peer = wire.peer;
        if peer == PeerSide::Open {
            wire.peer = PeerSide::Cut;
            let left = wire.undecoded.len();
            match wire.call(self.work.now, |layer, cx| layer.wire_ended(cx, left)) {
                Ok(()) => wire.pull = true,
                Err(error) => self.close_for_layer(error),
            }
            return false;
        }
        if handshaking {
            // The peer ended during the handshake; or the layer served it without a connection (a
            // page for a browser) and reported the end.
            let gone = std::io::ErrorKind::UnexpectedEof.into();
            let reason = (peer != PeerSide::Ended).then_some(CloseReason::Io(gone));
            self.close_unopened(reason);
            return false;
        }
        true
    }
}
