//! Input through layers: bytes are decoded one unit at a time.

use std::ops::Range;

use super::read::{Budget, Received};
use super::wire::{PeerSide, Taken};
use super::{Conn, DIRECT, Extra, Phase, ReadSide, Stream, Tail};
use crate::error::{CloseReason, Limit};
use crate::layer::{Delivery, Item, LayerError, MessageKind, Step};
use crate::token::Token;

/// The result of one step of decoding.
pub(crate) enum Decoded {
    /// The common case: a message for the handler of a connection that nothing has touched since its
    /// input was read ([`Conn::read_calm`]).
    Message(Message),
    /// Anything else.
    Step {
        /// How many of the given bytes are consumed.
        consumed: usize,
        /// The handshake of an unopened connection is done: `on_open` comes before the unit.
        opens: bool,
        outcome: Outcome,
    },
}

/// A message that lies whole in the bytes that were given.
pub(crate) struct Message {
    /// How many of them are consumed.
    pub(crate) consumed: usize,
    pub(crate) range: Range<usize>,
    pub(crate) kind: MessageKind,
    /// It used them up, and the layer holds none: it need not be asked again.
    pub(crate) last: bool,
}

/// Any unit.
pub(crate) struct Unit {
    /// Where it lies in the given bytes; `None`, if it is in the unit buffer.
    pub(crate) range: Option<Range<usize>>,
    pub(crate) kind: MessageKind,
    pub(crate) delivery: Delivery,
    /// As of a [`Message`].
    pub(crate) last: bool,
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
        Decoded::Step { consumed, opens: false, outcome: self }
    }
}

/// The next step for the input of a connection with layers.
pub(crate) enum NextLayered {
    Rest,
    /// This many bytes have been read into the buffer, and no undecoded bytes precede them.
    Read(usize),
    /// Undecoded bytes that the connection had kept. It lends them for this step.
    Decode(Box<Tail>),
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
                let kept = self.stream.wire_mut().and_then(|wire| wire.undecoded.take());
                return NextLayered::Decode(kept.unwrap_or_else(|| self.work.pool.tail(0)));
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
            match self.stream.wire_mut().and_then(|wire| wire.undecoded.take()) {
                Some(kept) => self.read_behind(kept, buffer),
                None => {
                    if let Some(Received { len, .. }) = self.read(buffer) {
                        return NextLayered::Read(len);
                    }
                }
            }
        }
    }

    /// One read behind undecoded bytes, to be decoded with them. A large message is read where it is
    /// decoded; what is small comes by way of `buffer`, which has room for more.
    fn read_behind(&mut self, mut kept: Box<Tail>, buffer: &mut [u8]) {
        let tick = self.work.tick;
        let received = if kept.len() < DIRECT {
            let received = self.read(buffer);
            if let Some(Received { len, .. }) = received {
                kept = self.work.pool.roomy(kept, len);
                kept.push(&buffer[..len], tick);
            }
            received
        } else {
            let more = kept.len().min(buffer.len());
            kept = self.work.pool.roomy(kept, more);
            let received = self.read(kept.room(buffer.len()));
            received.inspect(|received| kept.filled(received.len))
        };
        if let Some(Received { len, .. }) = received {
            // It may complete no unit, which would be charged for.
            self.work.charge(Budget::units_read(len));
        }
        let Some(wire) = self.stream.wire_mut() else { return self.work.pool.keep_tail(kept) };
        wire.pull |= received.is_some();
        wire.undecoded = Some(kept);
    }

    /// Pulls one unit out of `bytes`.
    #[inline(always)] // into the one loop that pulls
    pub(crate) fn decode(
        &mut self,
        bytes: &mut [u8],
        (unit, reply, fields): (&mut Vec<u8>, &mut Vec<u8>, &mut Vec<Range<usize>>),
        budget: &mut Budget,
    ) -> Decoded {
        // While the reply is its own, all is as `read_calm` found it: any other access ends it first.
        let calm = self.work.reply.is_encoded(self.token);
        let held_back =
            budget.calls == 0 || self.work.is_used_up() || !(calm || self.stream.may_read());
        let Stream { life, extra, settings, .. } = &mut *self.stream;
        if !calm && !matches!(life.phase, Phase::Handshaking | Phase::Open | Phase::Failing) {
            return Outcome::Drop.of(0);
        }
        let Some(Extra { wire: Some(wire), .. }) = extra.as_deref_mut() else {
            return Outcome::Nothing.of(0);
        };
        wire.pull = held_back;
        if held_back {
            return Outcome::Nothing.of(0);
        }
        wire.unused = false;
        wire.sharing_is_old = true; // this may be the peer's end, or come behind it
        unit.clear();
        reply.clear();
        fields.clear();
        let called_at = wire.call_at;
        let taken = wire.take_step(self.work.now, settings, bytes, (unit, reply, fields));
        let asks = wire.call_at != called_at;
        match taken {
            Ok(Taken { step: Step { consumed, item: Item::Slice(range), kind }, holds })
                if calm && wire.delivery == Delivery::Messages && reply.is_empty() && !asks =>
            {
                let units = Budget::units_decoded(range.len());
                budget.charge(units);
                self.work.charge(units);
                let last = holds == Some(false);
                Decoded::Message(Message { consumed, range, kind, last })
            }
            taken => self.stepped(taken, asks, (bytes.len(), unit.len(), reply), budget),
        }
    }

    /// The layer has taken any other step: what it replies is queued, an error closes, its handshake may
    /// be done.
    #[inline(never)]
    fn stepped(
        &mut self,
        taken: Result<Taken, LayerError>,
        asks: bool,
        (given, unit, reply): (usize, usize, &[u8]),
        budget: &mut Budget,
    ) -> Decoded {
        let changes_nothing = taken.as_ref().is_ok_and(|taken| {
            matches!(taken.step.item, Item::Nothing | Item::Slice(_) | Item::Unit)
        });
        if !(changes_nothing && reply.is_empty()) {
            self.spill(); // what the layer says goes behind what was sent before
            self.push_raw(reply);
        }
        if asks {
            self.watch();
        }
        let Taken { step: Step { consumed, item, kind }, holds } = match taken {
            Ok(taken) => taken,
            Err(error) => {
                self.spill();
                self.close_for_layer(error);
                return Outcome::Drop.of(0);
            }
        };
        if self.stream.options().message_timeout.is_some() && item != Item::Progress {
            self.note_part(item == Item::Nothing && holds == Some(true));
        }
        // Bytes that the layer may still consume do not count against the limit of a handshake: the
        // read that completes it may have brought bulk data too.
        let left = if item == Item::Nothing { given - consumed } else { 0 };
        let Some(opens) = self.handshake_step(consumed, left, budget) else {
            return Outcome::Drop.of(consumed);
        };
        let range = match item {
            Item::Slice(range) => Some(range),
            Item::Unit => None,
            Item::Nothing => {
                if consumed > 0 {
                    // The layer holds them.
                    self.work.charge(Budget::units_read(consumed));
                }
                return Decoded::Step { consumed, opens, outcome: Outcome::Nothing };
            }
            Item::Progress => {
                let units = Budget::units_read(consumed);
                budget.charge(units);
                self.work.charge(units);
                return Decoded::Step { consumed, opens, outcome: Outcome::Progress };
            }
            Item::End => {
                if let Some(wire) = self.stream.wire_mut() {
                    wire.peer = PeerSide::Ended;
                }
                self.format_ended();
                return Decoded::Step { consumed, opens, outcome: Outcome::Drop };
            }
        };
        let units = Budget::units_decoded(range.as_ref().map_or(unit, ExactSizeIterator::len));
        budget.charge(units);
        self.work.charge(units);
        if let Some(tally) = self.stream.tally_mut() {
            tally.message_received();
        }
        let Some(wire) = self.stream.wire() else { return Outcome::Drop.of(consumed) };
        let (delivery, last) = (wire.delivery, holds == Some(false));
        let unit = Unit { range, kind, delivery, last };
        Decoded::Step { consumed, opens, outcome: Outcome::Unit(unit) }
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
        if wire.consumed_in_handshake(consumed) + left > limit {
            self.finish(CloseReason::LimitExceeded(Limit::Handshake, limit));
            return None;
        }
        Some(false)
    }

    /// Keeps bytes that were read and not consumed. They are charged for, because what is decoded and
    /// charged for later may be none of this turn's work, or never come.
    pub(crate) fn keep_undecoded(&mut self, rest: &[u8]) {
        let (tick, pool) = (self.work.tick, &mut self.work.pool);
        let Some(wire) = self.stream.wire_mut() else { return };
        if !rest.is_empty() {
            wire.undecoded.get_or_insert_with(|| pool.tail(rest.len())).push(rest, tick);
            self.work.charge(Budget::units_read(rest.len()));
            self.watch_message();
        }
    }

    /// Takes back bytes that the connection had kept before.
    pub(crate) fn give_back_undecoded(&mut self, mut kept: Box<Tail>, consumed: usize) {
        kept.consume(consumed);
        if consumed > 0 {
            kept.restart(self.work.tick);
        }
        match self.stream.wire_mut() {
            Some(wire) if !kept.is_empty() => {
                wire.undecoded = Some(self.work.pool.fitting(kept));
                self.watch_message();
            }
            _ => self.work.pool.keep_tail(kept),
        }
    }

    /// A part of a message waits for the rest: its deadline runs.
    fn watch_message(&mut self) {
        if self.stream.options().message_timeout.is_some() {
            self.watch();
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
            let left = wire.undecoded.as_ref().map_or(0, |tail| tail.len());
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
