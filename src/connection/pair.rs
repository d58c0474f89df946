//! What a connection of a pair knows of its partner.

use std::io;

use super::life::Event;
use super::{Budget, Conn, Note, Phase, ReadSide, Stream, Tail, Wire};
use crate::error::{CloseReason, Deadline};
use crate::sys::Pipe;
use crate::token::Token;

/// The other connection of a pair, seen from one of them.
#[derive(Debug)]
pub(super) struct Partner {
    token: Token,
    /// How the reactor passes on to it what this one brings; `None` if the handlers do.
    relay: Option<Transfer>,
    /// Bytes can be spliced to this one, as far as is known.
    takes_pipes: bool,
    /// The partner's queue is full (or, of a relay, its output is dead): this one is not read. The
    /// partner pushes it, so that nobody has to look at two connections to know whether to read.
    held: bool,
    /// The relay has passed this one's end on; the handler was not called for it.
    end_passed: bool,
}

/// How bytes get from one socket to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// Read and written: cheaper while little comes at once.
    Copied,
    /// Spliced: much came at once.
    Piped,
    /// This socket cannot be spliced from, or has ended.
    OnlyCopied,
}

/// What the end of one connection means for the other one of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartnerEnd {
    /// The other one closes as well, after flushing.
    Orderly,
    /// The other peer must not take it for a proper end.
    Cut,
    /// Everything ends, and each for this same reason.
    Common,
}

impl PartnerEnd {
    pub(super) fn of(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::BothEnded | CloseReason::Closed => PartnerEnd::Orderly,
            CloseReason::TimedOut(Deadline::Shutdown) | CloseReason::ReactorDropped => {
                PartnerEnd::Common
            }
            _ => PartnerEnd::Cut,
        }
    }
}

impl Stream {
    fn partner(&self) -> Option<&Partner> {
        self.extra.as_ref()?.partner.as_ref()
    }

    fn partner_mut(&mut self) -> Option<&mut Partner> {
        self.extra.as_mut()?.partner.as_mut()
    }

    /// The other connection of its pair.
    pub(super) fn partner_token(&self) -> Option<Token> {
        self.partner().map(|partner| partner.token)
    }

    /// Whether the partner holds it back; `None` without a partner.
    pub(super) fn held_by_partner(&self) -> Option<bool> {
        self.partner().map(|partner| partner.held)
    }

    /// Where the reactor passes on to what this one brings; `None` if its handler is called.
    pub(crate) fn relayed_to(&self) -> Option<Token> {
        self.partner().filter(|partner| partner.relay.is_some()).map(|partner| partner.token)
    }

    /// Notes how bytes travel from now on. What cannot be spliced never is.
    pub(crate) fn transfer_by(&mut self, transfer: Transfer) {
        if let Some(partner) = self.partner_mut()
            && let Some(relay) = &mut partner.relay
            && *relay != Transfer::OnlyCopied
        {
            *relay = transfer;
        }
    }

    /// Whether the next bytes may be spliced from here. Not those of an urgent mark: splice(2) stops
    /// before it for ever, and only a read goes past it.
    pub(crate) fn may_be_piped(&self) -> bool {
        let piped = self.partner().is_some_and(|partner| partner.relay == Some(Transfer::Piped));
        piped && self.life.phase == Phase::Open && !self.urgent
    }

    /// Whether bytes may be spliced to here: they pass no layer and wait for no opening. A queue
    /// that never runs empty takes the next pipe before the last one is free, but no third.
    pub(crate) fn takes_pipes(&self) -> bool {
        self.life.phase == Phase::Open
            && self.partner().is_some_and(|partner| partner.takes_pipes)
            && self.accepts_output()
            && self.wire().is_none()
            && self.output.as_ref().is_none_or(|output| output.pipes() < 2)
    }

    /// A write that is not supported: if it was out of a pipe, what pipes hold is written like
    /// anything else, and nothing is spliced to here any more.
    #[cold]
    pub(super) fn refuses_pipes(&mut self, error: io::Error) -> io::Result<()> {
        let Some(output) = &mut self.output else { return Err(error) };
        if !output.unpipe()? {
            return Err(error);
        }
        if let Some(partner) = self.partner_mut() {
            partner.takes_pipes = false;
        }
        Ok(())
    }

    /// Whether the partner must not be read: its bytes would find no room here. A relay's partner
    /// also waits for one whose output is dead: both end once its input has been passed on.
    fn holds_partner(&self) -> bool {
        self.over_high || self.life.phase == Phase::Failing && self.relayed_to().is_some()
    }
}

impl Conn<'_> {
    /// Makes it one of a pair. A partner that it had is on its own again.
    pub(crate) fn pair_with(&mut self, token: Token, relay: Option<Transfer>) {
        self.unpair();
        let held_back = !self.stream.may_read();
        let relayed = relay.is_some();
        let held = false; // the other one says so when it is paired
        let partner = Partner { token, relay, takes_pipes: true, held, end_passed: false };
        self.stream.extra_mut().partner = Some(partner);
        if relayed {
            // What its handler has left is the first to be passed on; a pause was the handler's,
            // which is not called with data any more.
            self.stream.unread_changed = true;
            self.stream.paused = false;
        }
        self.push_hold();
        // A pause, or its own queue, may be what held it back.
        if held_back && self.stream.may_read() {
            self.reads_again();
        }
        self.make_ready();
    }

    /// Of a relay that has just been made: whether the end has been read, so that it has to be passed
    /// on although the handler was called for it.
    pub(crate) fn end_was_delivered(&self) -> bool {
        self.stream.life.read == ReadSide::Delivered
    }

    /// Tells the partner whether it has to wait for this one's queue.
    pub(crate) fn push_hold(&mut self) {
        if let Some(partner) = self.stream.partner_token() {
            let held = self.stream.holds_partner();
            self.work.notes.push(Note::Hold { partner, held });
        }
    }

    /// The partner says whether this one has to wait.
    pub(crate) fn hold(&mut self, held: bool) {
        let Some(partner) = self.stream.partner_mut() else { return };
        if std::mem::replace(&mut partner.held, held) && !held {
            self.reads_again();
        }
    }

    /// Takes the pair apart at this end; the partner is noted. Its own queue paces each again.
    pub(crate) fn unpair(&mut self) {
        if let Some(Partner { token, end_passed, .. }) = self.take_partner() {
            self.work.notes.push(Note::Unpaired { partner: token });
            self.parted(end_passed);
        }
    }

    /// The partner has taken the pair apart.
    pub(crate) fn partner_left(&mut self) {
        if let Some(Partner { end_passed, .. }) = self.take_partner() {
            self.parted(end_passed);
        }
    }

    pub(super) fn take_partner(&mut self) -> Option<Partner> {
        self.stream.extra.as_mut()?.partner.take()
    }

    fn parted(&mut self, end_passed: bool) {
        if end_passed {
            // The relay has heard of the end, and the handler has not.
            self.happens(Event::EndUndelivered, None);
        }
        self.reads_again();
    }

    /// Notes that the relay has passed the end on.
    pub(crate) fn end_passed(&mut self) {
        if let Some(partner) = self.stream.partner_mut() {
            partner.end_passed = true;
        }
        self.end_delivered();
    }

    /// What held its reads back is over: what the handler left is offered again, edges that came
    /// meanwhile are used, and an idle timeout begins anew, because the silence was this side's.
    pub(super) fn reads_again(&mut self) {
        if self.stream.may_read() {
            self.stream.unread_changed = true;
            let tick = self.work.tick;
            self.stream.moved(tick);
            // So does the time for a message that has begun to arrive.
            if let Some(tail) = &mut self.stream.input {
                tail.restart(tick);
            }
            if let Some(wire) = self.stream.wire_mut() {
                wire.undecoded.restart(tick);
                wire.part_since = wire.part_since.map(|_| tick);
            }
            let options = self.stream.options();
            if options.idle_timeout.is_some() || options.message_timeout.is_some() {
                self.watch();
            }
        }
        self.make_ready();
    }

    /// How much fits below the cap; all, if it is dropped anyway.
    pub(crate) fn room(&self) -> usize {
        if self.stream.accepts_output() {
            self.stream.options().output_limit.saturating_sub(self.stream.queued())
        } else {
            usize::MAX
        }
    }

    /// The other one of its relay has ended; the relay is taken apart already.
    pub(crate) fn partner_ended(&mut self, end: PartnerEnd) {
        match end {
            // If its own peer has been heard to the end, flushing is all that is left to do.
            PartnerEnd::Orderly if self.end_was_delivered() => self.half_close(),
            PartnerEnd::Orderly => self.close(None),
            PartnerEnd::Cut => {
                // What the system takes at once may still arrive.
                self.flush();
                self.abort();
            }
            PartnerEnd::Common => {}
        }
    }
}

impl Partner {
    pub(super) fn into_relay(self) -> Option<Token> {
        self.relay.is_some().then_some(self.token)
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }
}

/// During a handshake nothing is held back: what fills the queue may be waiting for it.
pub(super) fn waits_for_handshake(wire: Option<&Wire>) -> bool {
    wire.is_some_and(|wire| !wire.is_ready())
}

/// What became of a splice into a pipe.
pub(crate) enum Filled {
    Pipe(Pipe),
    Nothing,
    /// The socket cannot be spliced from: its bytes are to be copied.
    Refused,
}

impl Conn<'_> {
    /// Moves what the socket has into `pipe`, `most` bytes at most. Less than `small` says that
    /// splicing does not pay any more.
    pub(crate) fn fill_pipe(&mut self, mut pipe: Pipe, most: usize, small: usize) -> Filled {
        match pipe.fill(&mut self.stream.socket, most) {
            Ok(Some(n)) => {
                self.stream.moved(self.work.tick);
                self.work.charge(Budget::units_read(n));
                if n < small {
                    self.stream.transfer_by(Transfer::Copied);
                }
                Filled::Pipe(pipe)
            }
            Ok(None) => {
                self.stream.transfer_by(Transfer::OnlyCopied);
                Filled::Refused
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.stream.readable = false;
                Filled::Nothing
            }
            Err(e) => {
                self.finish(CloseReason::Io(e));
                Filled::Nothing
            }
        }
    }

    /// What its handler has left, for the other connection of its relay.
    pub(crate) fn take_kept(&mut self) -> Option<Box<Tail>> {
        self.stream.input.take()
    }
}

/// What is next for the input of a relayed connection without a layer.
pub(crate) enum NextRelayed {
    Rest,
    /// What its handler had left goes first.
    Kept,
    /// The socket may have something.
    Carry,
    End,
}

impl Conn<'_> {
    /// What is next to be passed on.
    pub(crate) fn next_relayed(&mut self, budget: &mut Budget) -> NextRelayed {
        let stream = &*self.stream;
        if !stream.has_callbacks() || !stream.may_read() {
            return NextRelayed::Rest;
        }
        if stream.unread() > 0 {
            return NextRelayed::Kept;
        }
        if stream.life.read == ReadSide::Ended {
            return NextRelayed::End;
        }
        if !stream.readable || stream.life.read == ReadSide::Delivered {
            self.nothing_more();
            return NextRelayed::Rest;
        }
        if budget.reads == 0 || self.work.units == 0 {
            self.make_ready_later();
            return NextRelayed::Rest;
        }
        budget.reads -= 1;
        NextRelayed::Carry
    }
}
