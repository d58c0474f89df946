//! Endings: the entries that start them, and the effects that the table in `life.rs` returns.

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
        // Messages that wait for a layer's handshake are lost, so the close is not orderly.
        let lost = self.stream.phase() == Phase::Open
            && self.stream.wire().is_some_and(|wire| {
                let values = self.stream.newest().is_some_and(|newest| !newest.is_empty());
                wire.waiting_cost() > 0 || values && !wire.is_ready()
            });
        let reason = reason.or(lost.then_some(CloseReason::Cancelled));
        self.happens(Event::Close, reason);
    }

    /// The same with an end of the handler's choice, in formats that have codes for it.
    pub(crate) fn close_with(&mut self, end: OwnEnd) {
        if self.stream.is_live() {
            self.stream.extra_mut().ending_mut().own_end = Some(end);
        }
        self.close(None);
    }

    /// Closes gracefully also a connection in its handshake: the layer's last output (an alert, an
    /// error page) is flushed. A client without such output does not wait for the peer's end.
    pub(crate) fn close_unopened(&mut self, reason: Option<CloseReason>) {
        if self.stream.phase() == Phase::Handshaking {
            let flushed = self.stream.output.as_ref().is_none_or(|output| output.is_empty());
            if flushed && self.stream.listener().is_none() {
                return self.finish(reason.unwrap_or(CloseReason::BothEnded));
            }
        }
        self.happens(Event::CloseHandshake, reason);
    }

    /// A layer returned an error or panicked. What it has written about that is flushed, and input is
    /// discarded as in every graceful close, so that no reset destroys it.
    pub(crate) fn close_for_layer(&mut self, error: LayerError) {
        if error.kind() == LayerErrorKind::Panicked {
            self.stream.disable_layers(); // a layer that panicked is not called again
        }
        self.close_unopened(Some(CloseReason::Layer(error)));
    }

    /// Ends the write side once everything queued has been written. Reading goes on.
    pub(crate) fn half_close(&mut self) {
        let ready = self.layers_ready();
        self.happens(Event::EndWrite { ready }, None);
    }

    /// Ends at once with a reset; unsent output is destroyed.
    pub(crate) fn abort(&mut self) {
        self.happens(Event::Abort, None);
    }

    /// Ends at once; reaped in this turn. A reason that was recorded earlier is kept.
    pub(crate) fn finish(&mut self, reason: CloseReason) {
        self.happens(Event::Die, Some(reason));
    }

    /// The reactor is being dropped. A connection that has been flushed ends in order.
    pub(crate) fn finish_with_reactor(&mut self, reason: CloseReason) {
        let event = if self.stream.phase() == Phase::Lingering { Event::Quiet } else { Event::Die };
        self.happens(event, Some(reason));
    }

    /// Ends, because a limit was exceeded.
    pub(super) fn finish_over_limit(&mut self, which: Limit, limit: usize) {
        self.finish(CloseReason::LimitExceeded(which, limit));
    }

    /// A write has failed. Input that is still readable is offered before the end.
    pub(crate) fn output_failed(&mut self, error: std::io::Error) {
        let held_back = !self.stream.may_read();
        let limit = self.stream.options().unread_limit;
        self.happens(Event::OutputFailed, Some(CloseReason::Io(error)));
        if self.stream.phase() == Phase::Failing {
            let ending = self.stream.extra_mut().ending_mut();
            if ending.failure_allowance.is_none() && held_back {
                ending.failure_allowance = Some(limit);
            }
        }
    }

    /// The reason that was recorded, for the listener's hook of a connection without a handler.
    pub(crate) fn take_reason(&mut self) -> Option<CloseReason> {
        self.stream.extra.as_mut()?.take_reason()
    }

    /// Whether the layers' handshakes are done, so that the format's own end can be written.
    pub(super) fn layers_ready(&self) -> bool {
        self.stream.wire().is_none_or(super::Wire::is_ready)
    }

    /// A reply will come later: the default `on_eof` waits for it.
    pub(crate) fn hold_open(&mut self) {
        let holds = &mut self.stream.extra_mut().holds;
        *holds = holds.saturating_add(1);
    }

    /// The reply has been sent; `false` if there was no hold.
    pub(crate) fn release_hold(&mut self) -> bool {
        let Some(extra) = self.stream.extra.as_mut() else { return false };
        let Some(left) = extra.holds.checked_sub(1) else { return false };
        extra.holds = left;
        true
    }

    /// Closes as soon as no hold and no `on_drain` is pending.
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

    /// Passes an event through the table and carries out its effects. `given` is the reason of the
    /// event; the first reason that was recorded is kept.
    #[inline(always)] // with a constant event the compiler removes most of the table
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

    /// Records a reason. The first one is kept.
    #[inline]
    fn note_reason(&mut self, given: Option<CloseReason>) {
        let Some(given) = given else { return };
        let over = !self.stream.is_live() && !self.stream.is_dead();
        if over && self.stream.extra_mut().reason().is_none() {
            self.stream.extra_mut().ending_mut().reason = Some(given);
        } else {
            drop_guarded(given);
        }
    }

    /// Kept input is dropped, a pause ends, timers are cancelled, groups are left.
    fn let_go(&mut self) {
        // The stall deadline of the flush begins now, not with the last byte before the close.
        if let Some(output) = &mut self.stream.output {
            output.progress = self.work.tick_after_this_moment(std::time::Duration::ZERO);
            output.stall_watched = false; // its timer is cancelled with the others
        }
        if let Some(tail) = self.stream.input.take() {
            self.work.pool.keep_tail(tail);
        }
        self.stream.paused = false;
        self.work.notes.push(Note::LeavesGroups(self.token));
        self.cancel_timers();
    }

    /// Cancels all its timers, the watchdog among them.
    pub(crate) fn cancel_timers(&mut self) {
        self.stream.watchdog = None;
        let chain: &mut Chain = &mut self.stream.timers;
        self.work.timers.cancel_all(chain);
    }

    /// Queues the format's own end and puts the connection on the dirty list: the flush ends the write
    /// side.
    fn write_end(&mut self) {
        if !self.queue_last_values() {
            return;
        }
        let ending = self.stream.extra.as_mut().and_then(|extra| extra.ending.as_mut());
        let (reason, chosen) =
            ending.map_or((None, None), |ending| (ending.reason.take(), ending.own_end.take()));
        let written = self.encode_end(&layer_end(reason.as_ref(), chosen.as_ref()));
        if reason.is_some() {
            self.stream.extra_mut().ending_mut().reason = reason;
        }
        match written {
            Ok(()) => self.owe_flush(),
            Err(error) => self.finish(CloseReason::Layer(error)),
        }
    }

    /// Dissolves a pair for good. Returns the note that notifies the partner in a relay.
    fn part_for_good(&mut self, end: PartnerEnd) -> Option<Note> {
        let partner = self.take_partner()?;
        let token = partner.token();
        self.work.notes.push(Note::Unpaired { partner: token });
        partner.into_relay().map(|partner| Note::Ended { partner, end })
    }

    /// Puts the connection on the list of the dead; it is reaped in this turn.
    fn die(&mut self, was: Phase, effects: Effects, given: Option<CloseReason>) {
        let first = self.stream.extra.as_mut().and_then(|extra| extra.take_reason());
        let reason = match (first, given) {
            (Some(first), given) => {
                drop_guarded(given);
                first
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
            self.write_end_at_once(&reason);
        }
        // The peer must not take a truncated stream for a complete one, also where a relay's partner
        // was cut off.
        let truncated = self.stream.unsent() > 0 && !reason.is_orderly();
        if reset || truncated || cut_relay {
            self.reset_on_close();
        }
        self.work.dead.push((self.token, reason));
        let end = self.part_for_good(end);
        self.work.notes.extend(end);
    }

    /// Writes the format's end behind what is queued, as far as the socket takes it now. (In TLS only a
    /// close_notify distinguishes an end from a truncation, RFC 8446 section 6.1.)
    fn write_end_at_once(&mut self, reason: &CloseReason) {
        if self.stream.wire().is_none_or(|wire| !wire.owes_end()) {
            return;
        }
        if self.encode_end(&layer_end(Some(reason), None)).is_ok()
            && let Err(e) = self.stream.write_queued(self.work)
        {
            log::trace!("{}: the format's end was not written: {e}", self.token);
        }
        if let Some(output) = self.stream.take_empty_output() {
            self.work.pool.keep_output(output);
        }
    }

    /// Makes the coming close(2) a reset. It may fail on a socket that is reset already.
    fn reset_on_close(&self) {
        if let Err(e) = self.stream.socket.reset_on_close() {
            log::debug!("cannot make the close of {:?} a reset: {e}", self.stream.socket);
        }
    }
}

/// The end that the handler, or a shutdown, has chosen.
#[derive(Debug, Clone)]
pub(crate) enum OwnEnd {
    GoingAway,
    Chosen { code: u16, reason: String },
}

/// Why this side ends, in terms that a format can write.
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
