//! Endings: graceful, half, at once; a connection's and everything else's.

use super::relay::End;
use super::{Core, Entity};
use crate::connection::{OwnSide, Phase, ReadSide, WriteSide};
use crate::error::CloseReason;
use crate::guard::drop_guarded;
use crate::token::Token;

impl Core {
    /// Graceful: flushes what was sent, ends the write side, discards input until the peer ends
    /// too or the deadline passes. `reason` is `None` for an ordinary close.
    pub(crate) fn close(&mut self, token: Token, reason: Option<CloseReason>) {
        match self.entity_mut(token) {
            Some(Entity::Stream(_)) => self.close_stream(token, reason),
            Some(_) => self.kill_other(token, reason.unwrap_or(CloseReason::Closed)),
            None => {}
        }
    }

    fn close_stream(&mut self, token: Token, reason: Option<CloseReason>) {
        if self.groups.has_pending() {
            self.settle_groups_before_direct(token);
        }
        self.leave_all(token);
        let Some(stream) = self.stream_mut(token) else { return };
        match stream.phase {
            Phase::Connecting | Phase::Handshaking => {
                if reason.is_none() && self.cancel_connect(token) {
                    return;
                }
                return self.fail(token, reason.unwrap_or(CloseReason::Cancelled));
            }
            Phase::Open => {}
            // Nothing can be flushed any more, and the handler wants no more input.
            Phase::Failing => {
                self.kill_in_order(token, CloseReason::Closed);
                return drop_guarded(reason);
            }
            // It closes already: an error that comes now is the reason, if there is none yet.
            Phase::Closing | Phase::Lingering => {
                if let Some(reason) = reason {
                    match &mut stream.extra_mut().reason {
                        none @ None => *none = Some(reason),
                        Some(_) => drop_guarded(reason),
                    }
                }
                return;
            }
            Phase::Dead => return drop_guarded(reason),
        }
        // What waits for a layer that will not be ready any more is lost: that is no orderly close.
        let lost = stream.wire().is_some_and(|wire| wire.waiting.cost() > 0);
        let reason = reason.or(lost.then_some(CloseReason::Cancelled));
        stream.phase = Phase::Closing;
        let end = reason.as_ref().map_or(End::Orderly, End::of);
        let input = stream.input.take();
        let after = stream.options().close_timeout;
        if let Some(reason) = reason {
            stream.extra_mut().reason = Some(reason);
        }
        if let Some(tail) = input {
            self.recycle_tail(tail);
        }
        self.cancel_timers(token);
        let relayed = self.relayed_to(token);
        // Its partner must not wait for a queue that nothing will be added to.
        self.unlink(token);
        let deadline = self.tick_after_this_moment(after);
        if let Some(stream) = self.stream_mut(token) {
            stream.clock = deadline;
            stream.paused = false;
        }
        self.watch(token);
        self.start_write_end(token);
        // A peer that is still sending must not be left waiting for somebody to read.
        self.make_ready(token);
        if let Some(other) = relayed {
            self.end_with(other, end);
        }
    }

    /// Ends the write side once everything queued has been written. Reading goes on.
    pub(crate) fn shutdown_write(&mut self, token: Token) {
        if self.groups.has_pending() {
            self.settle_groups_before_direct(token);
        }
        let Some(stream) = self.stream_mut(token) else { return };
        if stream.phase == Phase::Open {
            self.start_write_end(token);
        } else if stream.accepts_output() {
            stream.write = WriteSide::Ending; // goes on when it is open
        }
    }

    /// What the format says at its end goes into the queue, then the end itself.
    pub(crate) fn start_write_end(&mut self, token: Token) {
        let Some(stream) = self.stream_mut(token) else { return };
        if stream.write == WriteSide::Ended {
            return self.after_write_end(token);
        }
        stream.write = WriteSide::Ending;
        if !stream.may_end_write() {
            return; // goes on when the layer is ready
        }
        if let Some(wire) = stream.wire_mut()
            && std::mem::replace(&mut wire.own, OwnSide::Ended) != OwnSide::Ended
        {
            let ended = self.encode(token, |layer, buffer| {
                layer.end(buffer);
                Ok(())
            });
            if let Err(reason) = ended {
                return self.fail(token, CloseReason::Layer(reason));
            }
        }
        self.mark_dirty(token);
    }

    /// The queue is empty and the end is due.
    pub(crate) fn end_write(&mut self, token: Token) {
        let Some(stream) = self.stream_mut(token) else { return };
        if stream.phase == Phase::Closing && stream.exhausted {
            // close(2) sends the end by itself, and nothing unread is left that could make it a
            // reset.
            return self.kill_in_order(token, CloseReason::Finished);
        }
        stream.write = WriteSide::Ended;
        // The socket may be reset already; the read side will tell.
        if let Err(e) = stream.socket.shutdown_write() {
            log::trace!("{token}: shutdown: {e}");
        }
        self.after_write_end(token);
    }

    fn after_write_end(&mut self, token: Token) {
        let Some(stream) = self.stream_mut(token) else { return };
        match stream.phase {
            Phase::Closing if !stream.exhausted => {
                stream.phase = Phase::Lingering;
                self.make_ready(token);
            }
            Phase::Closing => self.kill_in_order(token, CloseReason::Finished),
            Phase::Open if stream.read == ReadSide::Told => self.both_ended(token),
            _ => {}
        }
    }

    /// Both directions have ended while the connection was open: it closes by itself. An end that a
    /// layer announced is not yet the socket's, which is waited for.
    pub(crate) fn both_ended(&mut self, token: Token) {
        let Some(stream) = self.stream(token) else { return };
        if stream.exhausted {
            self.kill_in_order(token, CloseReason::Finished);
        } else {
            self.close(token, None);
        }
    }

    /// The socket's end came while lingering.
    pub(crate) fn lingered(&mut self, token: Token) {
        let Some(stream) = self.stream(token) else { return };
        let both = stream.read != ReadSide::Open;
        self.kill_in_order(token, if both { CloseReason::Finished } else { CloseReason::Closed });
    }

    /// The connection has run its course: dead, for the reason noted earlier, if any.
    pub(crate) fn kill_in_order(&mut self, token: Token, ordinary: CloseReason) {
        let noted = self.stream_mut(token).and_then(|s| s.extra.as_mut()?.reason.take());
        self.fail(token, noted.unwrap_or(ordinary));
    }

    /// At once, with a reset; what is unsent is destroyed.
    pub(crate) fn abort(&mut self, token: Token) {
        match self.entity_mut(token) {
            Some(Entity::Stream(stream)) => {
                if stream.phase == Phase::Handshaking {
                    return self.fail(token, CloseReason::Cancelled);
                }
                if self.cancel_connect(token) {
                    return;
                }
                let Some(stream) = self.stream_mut(token) else { return };
                if stream.phase != Phase::Dead {
                    stream.reset_on_close();
                    self.kill_in_order(token, CloseReason::Aborted);
                }
            }
            Some(_) => self.kill_other(token, CloseReason::Aborted),
            None => {}
        }
    }

    /// Dead now, to be reaped in this turn. The first reason stands.
    pub(crate) fn fail(&mut self, token: Token, reason: CloseReason) {
        if let Some(stream) = self.stream_mut(token) {
            if stream.phase != Phase::Dead {
                stream.phase = Phase::Dead;
                let relayed = stream.relayed_to();
                let end = End::of(&reason);
                let truncated = stream.unsent() > 0 && !reason.is_orderly();
                if truncated || relayed.is_some() && end == End::Cut {
                    // Its peer must not take that for a proper end; in a relay, nor for the other
                    // one's.
                    stream.reset_on_close();
                }
                self.dead.push((token, reason));
                // A partner that waited for this one's queue waits no longer.
                self.unlink(token);
                if let Some(other) = relayed {
                    self.end_with(other, end);
                }
            }
        } else {
            self.kill_other(token, reason);
        }
    }

    /// Output is dead, but what the system still hands out is offered before the end.
    pub(crate) fn fail_after_input(&mut self, token: Token, reason: CloseReason) {
        let Some(stream) = self.stream(token) else { return };
        let deadline = self.tick_after_this_moment(stream.options().close_timeout);
        let limit = stream.options().unread_limit;
        let last_words = (!self.may_read(token)).then_some(limit);
        let Some(stream) = self.stream_mut(token) else { return };
        match stream.phase {
            Phase::Open if stream.read != ReadSide::Told => {
                stream.phase = Phase::Failing;
                // A peer that never stops sending must not keep it alive.
                stream.clock = deadline;
                stream.readable = true;
                stream.read_closed = true; // to the very end: no short read is the last one
                stream.fresh = true;
                stream.write = WriteSide::Ended;
                stream.extra_mut().reason = Some(reason);
                stream.extra_mut().last_words = last_words;
                if self.relayed_to(token).is_none() {
                    self.unlink(token);
                }
                self.watch(token);
                self.make_ready(token);
            }
            Phase::Failing => {}
            _ => self.kill_in_order(token, reason),
        }
    }

    /// Listeners, datagram sockets and custom sources have nothing to flush.
    fn kill_other(&mut self, token: Token, reason: CloseReason) {
        let dead = match self.entity_mut(token) {
            Some(Entity::Listener(listener)) => &mut listener.dead,
            Some(Entity::Datagram(socket)) => &mut socket.dead,
            Some(Entity::Source(source)) => &mut source.dead,
            Some(Entity::Stream(_)) | None => return,
        };
        if std::mem::replace(dead, true) {
            return drop_guarded(reason);
        }
        let reason = match self.entity_mut(token) {
            Some(Entity::Datagram(_)) => self.close_datagram(token, reason),
            _ => reason,
        };
        if let Core { sys, table, .. } = self
            && let Some(Entity::Listener(listener)) = table.entity_mut(token)
        {
            listener.close(sys);
        }
        self.dead.push((token, reason));
    }
}
