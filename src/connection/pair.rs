//! Pairs and relays, seen from one connection: pacing by the partner's queue, the end of the partner.

use std::io;

use super::life::Event;
use super::{Budget, Conn, Note, Phase, ReadSide, Stream, Tail, Wire};
use crate::error::{CloseReason, Deadline};
use crate::sys::Pipe;
use crate::token::Token;

/// The partner of a connection in a pair.
#[derive(Debug)]
pub(super) struct Partner {
    token: Token,
    /// How the reactor transfers this one's input to it; `None` if the handlers do.
    relay: Option<Transfer>,
    /// Whether bytes can be spliced to this one: true until the system refuses it.
    takes_pipes: bool,
    /// This one is not read, because the partner's queue is above its mark (or, in a relay, its output
    /// has failed). The partner pushes the flag, so that a read needs no look-up of the partner.
    held: bool,
    /// The relay has passed this one's end on; `on_eof` was not called.
    end_passed: bool,
}

/// How a relay transfers bytes from one socket to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// Read and written: cheaper for small reads.
    Copied,
    /// Spliced: the last read was large.
    Piped,
    /// This socket cannot be spliced from, or has ended.
    OnlyCopied,
}

/// What the end of one connection means for its partner in a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartnerEnd {
    /// The partner closes as well, after flushing.
    Orderly,
    /// The partner is aborted: its peer must not take this for a proper end.
    Cut,
    /// Both end for this same reason (a shutdown), each by itself.
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

    /// Whether the partner's queue holds reading back; `None` without a partner.
    pub(super) fn held_by_partner(&self) -> Option<bool> {
        self.partner().map(|partner| partner.held)
    }

    /// The partner that this one's input is relayed to; `None` if its handler is called.
    pub(crate) fn relayed_to(&self) -> Option<Token> {
        self.partner().filter(|partner| partner.relay.is_some()).map(|partner| partner.token)
    }

    /// Sets how bytes are transferred from now on. [`Transfer::OnlyCopied`] is final.
    pub(crate) fn transfer_by(&mut self, transfer: Transfer) {
        if let Some(partner) = self.partner_mut()
            && let Some(relay) = &mut partner.relay
            && *relay != Transfer::OnlyCopied
        {
            *relay = transfer;
        }
    }

    /// Whether the next bytes may be spliced from here. Not at an urgent mark: splice(2) stops before it
    /// for ever, and only a read passes it.
    pub(crate) fn may_be_piped(&self) -> bool {
        let piped = self.partner().is_some_and(|partner| partner.relay == Some(Transfer::Piped));
        piped && self.life.phase == Phase::Open && !self.urgent
    }

    /// Whether bytes may be spliced to here: the connection is open and has no layer. At most two pipes
    /// are queued: one that is being drained, and the next.
    pub(crate) fn takes_pipes(&self) -> bool {
        self.life.phase == Phase::Open
            && self.partner().is_some_and(|partner| partner.takes_pipes)
            && self.accepts_output()
            && self.wire().is_none()
            && self.output.as_ref().is_none_or(|output| output.pipes() < 2)
    }

    /// A write returned `Unsupported`. If it was a splice, the socket rejects splicing: the piped bytes
    /// are copied back to memory, and nothing is spliced to it any more.
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

    /// Whether the partner must not be read: this one's queue is above its mark. In a relay also while
    /// this one fails: both end once its remaining input has been passed on.
    fn holds_partner(&self) -> bool {
        self.over_high || self.life.phase == Phase::Failing && self.relayed_to().is_some()
    }
}

impl Conn<'_> {
    /// Counts bytes that the relay passes on from here.
    pub(crate) fn count_relayed(&mut self, bytes: usize) {
        let relayed = &mut self.stream.extra_mut().relayed;
        *relayed = relayed.saturating_add(bytes as u64);
    }

    /// Pairs it with `token`. An earlier pair is dissolved.
    pub(crate) fn pair_with(&mut self, token: Token, relay: Option<Transfer>) {
        self.unpair();
        let held_back = !self.stream.may_read();
        let relayed = relay.is_some();
        let held = false; // the partner pushes its state when it is paired
        let partner = Partner { token, relay, takes_pipes: true, held, end_passed: false };
        self.stream.extra_mut().partner = Some(partner);
        if relayed {
            // What the handler has left is passed on first. A pause ends, since the handler is not
            // called with data any more and could not resume.
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

    /// Whether the peer's end was delivered already. A relay made after that has to pass it on.
    pub(crate) fn end_was_delivered(&self) -> bool {
        self.stream.life.read == ReadSide::Delivered
    }

    /// Notes for the partner whether it has to wait for this one's queue.
    pub(crate) fn push_hold(&mut self) {
        if let Some(partner) = self.stream.partner_token() {
            let held = self.stream.holds_partner();
            self.work.notes.push(Note::Hold { partner, held });
        }
    }

    /// Sets whether this one has to wait for the partner's queue.
    pub(crate) fn hold(&mut self, held: bool) {
        let Some(partner) = self.stream.partner_mut() else { return };
        if std::mem::replace(&mut partner.held, held) && !held {
            self.reads_again();
        }
    }

    /// Dissolves the pair at this end and notes it for the partner. Each one's own queue paces it again.
    pub(crate) fn unpair(&mut self) {
        if let Some(Partner { token, end_passed, .. }) = self.take_partner() {
            self.work.notes.push(Note::Unpaired { partner: token });
            self.parted(end_passed);
        }
    }

    /// The partner has dissolved the pair.
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
            // The relay has passed the end on, so `on_eof` has not been called.
            self.happens(Event::EndUndelivered, None);
        }
        self.reads_again();
    }

    /// Records that the relay has passed the end on.
    pub(crate) fn end_passed(&mut self) {
        if let Some(partner) = self.stream.partner_mut() {
            partner.end_passed = true;
        }
        self.end_delivered();
    }

    /// Reading is no longer held back: kept input is offered again, recorded edges are used, and the
    /// idle deadline restarts, because this side caused the silence.
    pub(super) fn reads_again(&mut self) {
        if self.stream.may_read() {
            self.stream.unread_changed = true;
            let tick = self.work.tick;
            self.stream.moved(tick);
            // So does the deadline of a message that has begun to arrive.
            if let Some(tail) = &mut self.stream.input {
                tail.restart(tick);
            }
            if let Some(wire) = self.stream.wire_mut() {
                if let Some(tail) = &mut wire.undecoded {
                    tail.restart(tick);
                }
                wire.part_since = wire.part_since.map(|_| tick);
            }
            let options = self.stream.options();
            if options.idle_timeout.is_some() || options.message_timeout.is_some() {
                self.watch();
            }
        }
        self.make_ready();
    }

    /// How much fits below the output limit; unlimited if it would be dropped anyway.
    pub(crate) fn room(&self) -> usize {
        if self.stream.accepts_output() {
            self.stream.options().output_limit.saturating_sub(self.stream.queued())
        } else {
            usize::MAX
        }
    }

    /// The partner in a relay has ended; the relay is dissolved already.
    pub(crate) fn partner_ended(&mut self, end: PartnerEnd) {
        match end {
            // If its own peer has ended too, a half-close lets it end once it is flushed.
            PartnerEnd::Orderly if self.end_was_delivered() => self.half_close(),
            PartnerEnd::Orderly => self.close(None),
            PartnerEnd::Cut => {
                // Bytes that the system takes now may still arrive.
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

/// During a handshake reading is never held back: the queue may be waiting for that handshake.
pub(super) fn waits_for_handshake(wire: Option<&Wire>) -> bool {
    wire.is_some_and(|wire| !wire.is_ready())
}

/// The result of a splice into a pipe.
pub(crate) enum Filled {
    Pipe(Pipe),
    Nothing,
    /// The socket cannot be spliced from, or has ended: a read must follow.
    Refused,
}

impl Conn<'_> {
    /// Splices from the socket into `pipe`, `most` bytes at most. After less than `small` bytes the
    /// next transfer is a copy, which is cheaper.
    pub(crate) fn fill_pipe(&mut self, mut pipe: Pipe, most: usize, small: usize) -> Filled {
        match pipe.fill(&mut self.stream.socket, most) {
            Ok(Some(n)) => {
                self.work.counts.reads += 1;
                self.work.counts.bytes_read += n as u64;
                if let Some(tally) = self.stream.tally_mut() {
                    tally.received(n, self.work.now);
                    tally.message_received();
                }
                self.stream.moved(self.work.tick);
                self.work.charge(Budget::units_read(n));
                self.count_relayed(n);
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
                self.work.counts.reads_blocked += 1;
                self.stream.readable = false;
                Filled::Nothing
            }
            Err(e) => {
                self.finish(CloseReason::Io(e));
                Filled::Nothing
            }
        }
    }

    /// Takes the kept input, to be passed on to the partner.
    pub(crate) fn take_kept(&mut self) -> Option<Box<Tail>> {
        self.stream.input.take()
    }
}

/// The next step for the input of a relayed connection without a layer.
pub(crate) enum NextRelayed {
    Rest,
    /// Kept input goes first.
    Kept,
    /// The socket may have something.
    Carry,
    End,
}

impl Conn<'_> {
    /// The next step for input that is relayed.
    pub(crate) fn next_relayed(&mut self, budget: &mut Budget) -> NextRelayed {
        let stream = &*self.stream;
        // One whose output is dead waits for room as well: nothing that it passes on may be lost, and
        // its close deadline ends the wait.
        let held = stream.held_by_partner() == Some(true);
        if !stream.has_callbacks() || !stream.may_read() || held {
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
        if budget.reads == 0 || self.work.is_used_up() {
            self.budget_used_up(budget);
            return NextRelayed::Rest;
        }
        budget.reads -= 1;
        NextRelayed::Carry
    }
}
