//! Endings: carries out what the table in `life.rs` decides.

use super::life::{Effects, Event};
use super::pair::PartnerEnd;
use super::work::ordinary;
use super::{Conn, Note, Phase};
use crate::error::{CloseReason, ConnectErrorKind, Deadline, Limit};
use crate::guard::drop_guarded;
use crate::layer::{LayerEnd, LayerError, LayerErrorKind};
use crate::timer::Chain;

impl Conn<'_> {
    /// Graceful: flushes what was sent, ends the write side, discards input until the peer ends
    /// too or the deadline passes. `reason` is `None` for an ordinary close.
    pub(crate) fn close(&mut self, reason: Option<CloseReason>) {
        // What waits for a layer that will not be ready any more is lost: no orderly close.
        let lost = self.stream.phase() == Phase::Open
            && self.stream.wire().is_some_and(|wire| wire.waiting.cost() > 0);
        let reason = reason.or(lost.then_some(CloseReason::Cancelled));
        self.happens(Event::Close, reason);
    }

    /// The same, and says why in the format's own terms, where it has any.
    pub(crate) fn close_with(&mut self, end: OwnEnd) {
        if self.stream.is_live() {
            self.stream.extra_mut().own_end = Some(end);
        }
        self.close(None);
    }

    /// Closes gracefully also what is still in its handshake: what a layer had to say about it is
    /// flushed. A client that has nothing more to say to what turned out to be no server for it does
    /// not wait for that one's end.
    pub(crate) fn close_unopened(&mut self, reason: Option<CloseReason>) {
        if self.stream.phase() == Phase::Handshaking {
            let silent = self.stream.output.as_ref().is_none_or(|output| output.is_empty());
            if silent && self.stream.listener().is_none() {
                return self.finish(reason.unwrap_or(CloseReason::BothEnded));
            }
        }
        self.happens(Event::CloseHandshake, reason);
    }

    /// A layer gave up. What it had to say about that leaves before the connection ends, and input
    /// is discarded as in every graceful close, so that no reset destroys it.
    pub(crate) fn close_for_layer(&mut self, error: LayerError) {
        if error.kind() == LayerErrorKind::Panicked {
            self.stream.give_up_format(); // it is not called again
        }
        self.close_unopened(Some(CloseReason::Layer(error)));
    }

    /// Ends the write side once everything queued has been written. Reading goes on.
    pub(crate) fn half_close(&mut self) {
        let ready = self.layers_ready();
        self.happens(Event::EndWrite { ready }, None);
    }

    /// At once, with a reset; what is unsent is destroyed.
    pub(crate) fn abort(&mut self) {
        self.happens(Event::Abort, None);
    }

    /// At once, to be reaped in this turn. A reason that was noted earlier stands.
    pub(crate) fn finish(&mut self, reason: CloseReason) {
        self.happens(Event::Die, Some(reason));
    }

    /// The reactor ends, and the connection with it. One that has been flushed ends in order.
    pub(crate) fn finish_with_reactor(&mut self, reason: CloseReason) {
        let event = if self.stream.phase() == Phase::Lingering { Event::Quiet } else { Event::Die };
        self.happens(event, Some(reason));
    }

    /// More was queued than the limit allows.
    pub(super) fn finish_over_limit(&mut self, which: Limit, limit: usize) {
        self.finish(CloseReason::LimitExceeded(which, limit));
    }

    /// The socket takes no output any more. What it still hands out is offered before the end.
    pub(crate) fn output_failed(&mut self, error: std::io::Error) {
        let held_back = !self.stream.may_read();
        let limit = self.stream.options().unread_limit;
        self.happens(Event::OutputFailed, Some(CloseReason::Io(error)));
        if self.stream.phase() == Phase::Failing {
            let extra = self.stream.extra_mut();
            if extra.failure_allowance.is_none() && held_back {
                extra.failure_allowance = Some(limit);
            }
        }
    }

    /// The reason that was noted, for the listener's hook when nobody else is left to hear of it.
    pub(crate) fn take_reason(&mut self) -> Option<CloseReason> {
        self.stream.extra.as_mut()?.reason.take()
    }

    /// Whether the layers' handshakes are done, so that the format's own end can be written.
    pub(super) fn layers_ready(&self) -> bool {
        self.stream.wire().is_none_or(super::Wire::is_ready)
    }

    /// An answer that comes later: the default `on_eof` waits for it.
    pub(crate) fn hold_open(&mut self) {
        let holds = &mut self.stream.extra_mut().holds;
        *holds = holds.saturating_add(1);
    }

    /// The answer has been sent; `false` if none was owed.
    pub(crate) fn release_hold(&mut self) -> bool {
        let Some(extra) = self.stream.extra.as_mut() else { return false };
        let Some(left) = extra.holds.checked_sub(1) else { return false };
        extra.holds = left;
        true
    }

    /// Closes as soon as nothing is owed any more: no answer that was held for, no `on_drain`.
    pub(crate) fn close_when_done(&mut self) {
        if self.stream.drained || self.stream.over_high || self.holds() > 0 {
            self.stream.extra_mut().closes_when_done = true;
        } else {
            self.close(None);
        }
    }

    fn holds(&self) -> u32 {
        self.stream.extra.as_ref().map_or(0, |extra| extra.holds)
    }

    /// Passes an event through the table and does what that demands. `given` is the reason that
    /// comes with it; the first reason that was noted stands.
    #[inline(always)] // with a constant event most of the table goes away
    pub(super) fn happens(&mut self, event: Event, given: Option<CloseReason>) {
        let was = self.stream.life.phase;
        let (life, effects) = self.stream.life.after(event);
        self.stream.life = life;
        if effects != Effects::default() {
            self.carry_out(was, effects, given);
        } else if given.is_some() {
            self.note_reason(given);
        }
    }

    fn carry_out(&mut self, was: Phase, effects: Effects, given: Option<CloseReason>) {
        if effects.death.is_some() {
            return self.die(was, effects, given);
        }
        let mut end = None;
        if effects.has(Effects::UNPAIR) {
            let means = given.as_ref().map_or(PartnerEnd::Orderly, PartnerEnd::of);
            end = self.part_for_good(means);
        }
        self.note_reason(given);
        if effects.has(Effects::LET_GO) {
            self.let_go();
        }
        if effects.has(Effects::READ_ALL) {
            self.stream.readable = true;
            self.stream.read_closed = true;
            self.stream.unread_changed = true;
            if self.stream.relayed_to().is_none() {
                self.unpair();
            } else {
                self.push_hold();
            }
        }
        if effects.has(Effects::CLOSE_DEADLINE) {
            let after = self.stream.options().close_timeout;
            self.stream.clock = self.work.tick_after_this_moment(after);
            self.watch();
        }
        if effects.has(Effects::WRITE_END) {
            self.write_end();
        }
        // The socket may be reset already; the read side will find out.
        if effects.has(Effects::SHUT)
            && let Err(e) = self.stream.socket.shutdown_write()
        {
            log::trace!("{}: shutdown: {e}", self.token);
        }
        if effects.has(Effects::SERVE) {
            self.make_ready();
        }
        self.work.notes.extend(end);
    }

    /// The first reason stands.
    #[inline]
    fn note_reason(&mut self, given: Option<CloseReason>) {
        let Some(given) = given else { return };
        let over = !self.stream.is_live() && !self.stream.is_dead();
        if over && self.stream.extra_mut().reason.is_none() {
            self.stream.extra_mut().reason = Some(given);
        } else {
            drop_guarded(given);
        }
    }

    /// Kept input goes, a pause ends, user timers are cancelled, groups are left.
    fn let_go(&mut self) {
        // The time for a flush begins with the call, and not with the last byte before it.
        if let Some(output) = &mut self.stream.output {
            output.progress = self.work.tick_after_this_moment(std::time::Duration::ZERO);
            output.stall_watched = false; // the timer goes with the others
        }
        if let Some(tail) = self.stream.input.take() {
            self.work.pool.keep_tail(tail);
        }
        self.stream.paused = false;
        self.work.notes.push(Note::LeavesGroups(self.token));
        self.cancel_timers();
    }

    /// All its timers die, the watchdog among them.
    pub(crate) fn cancel_timers(&mut self) {
        self.stream.watchdog = None;
        let chain: &mut Chain = &mut self.stream.timers;
        self.work.timers.cancel_all(chain);
    }

    /// The format's own end goes into the queue; the flush that ends the write side is owed.
    fn write_end(&mut self) {
        let reason = self.stream.extra.as_mut().and_then(|extra| extra.reason.take());
        let chosen = self.stream.extra.as_mut().and_then(|extra| extra.own_end.take());
        let written = self.encode_end(&layer_end(reason.as_ref(), chosen.as_ref()));
        if reason.is_some() {
            self.stream.extra_mut().reason = reason;
        }
        match written {
            Ok(()) => self.owe_flush(),
            Err(error) => self.finish(CloseReason::Layer(error)),
        }
    }

    /// Takes a pair apart for good; the note that tells the other one of a relay.
    fn part_for_good(&mut self, end: PartnerEnd) -> Option<Note> {
        let partner = self.take_partner()?;
        let token = partner.token();
        self.work.notes.push(Note::Unpaired { partner: token });
        partner.into_relay().map(|partner| Note::Ended { partner, end })
    }

    /// It is over, and is reaped in this turn.
    fn die(&mut self, was: Phase, effects: Effects, given: Option<CloseReason>) {
        let noted = self.stream.extra.as_mut().and_then(|extra| extra.reason.take());
        let reason = match (noted, given) {
            (Some(noted), given) => {
                drop_guarded(given);
                noted
            }
            (None, None) if was == Phase::Connecting => self
                .connect_error(ConnectErrorKind::Cancelled, None)
                .unwrap_or(CloseReason::Cancelled),
            (None, given) => ordinary(effects.death, given),
        };
        if was == Phase::Connecting {
            self.end_attempts(std::io::ErrorKind::TimedOut);
        }
        let end = PartnerEnd::of(&reason);
        let cut_relay = self.stream.relayed_to().is_some() && end == PartnerEnd::Cut;
        let reset = effects.has(Effects::RESET);
        if !reset && !cut_relay && matches!(was, Phase::Handshaking | Phase::Open | Phase::Closing)
        {
            self.say_end_at_once(&reason);
        }
        // Its peer must not take what it has for the whole; in a relay, nor for the other one's.
        let truncated = self.stream.unsent() > 0 && !reason.is_orderly();
        if reset || truncated || cut_relay {
            self.reset_on_close();
        }
        self.work.dead.push((self.token, reason));
        let end = self.part_for_good(end);
        self.work.notes.extend(end);
    }

    /// The format's end behind what is queued, as far as the socket takes it now (RFC 8446,
    /// section 6.1: a close_notify tells an end from a cut).
    fn say_end_at_once(&mut self, reason: &CloseReason) {
        if self.stream.wire().is_none_or(|wire| !wire.owes_end()) {
            return;
        }
        if self.encode_end(&layer_end(Some(reason), None)).is_ok()
            && let Err(e) = self.stream.write_queued(self.work.tick)
        {
            log::trace!("{}: its last words do not leave: {e}", self.token);
        }
        if let Some(output) = self.stream.take_empty_output() {
            self.work.pool.keep_output(output);
        }
    }

    /// Makes the coming close a reset; the socket may be too far gone for that.
    fn reset_on_close(&self) {
        if let Err(e) = self.stream.socket.reset_on_close() {
            log::debug!("cannot make the close of {:?} a reset: {e}", self.stream.socket);
        }
    }
}

/// What the handler, or the end of the service, has to say at a connection's end.
#[derive(Debug, Clone)]
pub(crate) enum OwnEnd {
    GoingAway,
    Chosen { code: u16, reason: String },
}

/// Why this side ends, as far as a format can say it.
fn layer_end<'a>(reason: Option<&CloseReason>, own: Option<&'a OwnEnd>) -> LayerEnd<'a> {
    match (reason, own) {
        (None, Some(OwnEnd::Chosen { code, reason })) => LayerEnd::Chosen { code: *code, reason },
        (None, Some(OwnEnd::GoingAway)) => LayerEnd::GoingAway,
        (Some(CloseReason::Handler(_) | CloseReason::Panicked(_)), _) => LayerEnd::HandlerFailed,
        (Some(CloseReason::TimedOut(Deadline::Shutdown) | CloseReason::ReactorDropped), _) => {
            LayerEnd::GoingAway
        }
        (Some(CloseReason::TimedOut(_)), _) => LayerEnd::TimedOut,
        (Some(CloseReason::LimitExceeded(..)), _) => LayerEnd::LimitExceeded,
        (Some(CloseReason::Layer(_)), _) => LayerEnd::LayerFailed,
        _ => LayerEnd::Closed,
    }
}
