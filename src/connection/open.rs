//! From a socket to an open connection: connecting, established, handshakes, open.

use std::io;

use super::life::Event;
use super::{Attempt, Conn, NO_DEADLINE, Note, Phase, Route, SendStatus, Stream, Wire, WriteSide};
use crate::address::Address;
use crate::error::{CloseReason, ConnectError, ConnectErrorKind};
use crate::notification::Notification;
use crate::token::Token;

/// The result of a step towards `on_open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Every layer is ready: `on_open` is next.
    Ready,
    /// A handshake is under way; or it failed, and the connection is ending.
    Waiting,
}

/// The state of the attempts to connect.
#[derive(Debug)]
pub(crate) enum Established {
    /// One has succeeded. With an error it has been reset since.
    Yes(Option<io::Error>),
    NotYet,
    /// All have failed.
    Failed,
}

impl Stream {
    pub(crate) fn route_mut(&mut self) -> Option<&mut Route> {
        self.extra.as_mut()?.route.as_deref_mut()
    }

    pub(crate) fn set_route(&mut self, route: Route) {
        self.extra_mut().route = Some(Box::new(route));
    }

    /// Drops the edges reported so far: they belong to earlier attempts.
    pub(crate) fn forget_edges(&mut self) {
        (self.readable, self.writable, self.read_closed, self.error) = (false, false, false, false);
    }

    /// Whether a step towards `on_open` is possible now.
    pub(crate) fn may_open(&self) -> bool {
        match self.life.phase {
            Phase::Connecting => self.writable,
            // Without a layer, or (adopted with one) before its handshake has begun.
            Phase::Handshaking => self.wire().is_none() || self.clock == NO_DEADLINE,
            _ => false,
        }
    }

    /// Checks the attempts to connect after an edge. Returns those that are over, to be deregistered.
    pub(crate) fn look_at_attempts(&mut self) -> (Established, Vec<Attempt>) {
        self.writable = false;
        let layered = self.wire().is_some();
        let Some(route) = self.route_mut() else { return (Established::Failed, Vec::new()) };
        let mut over = Vec::new();
        let mut index = 0;
        while let Some(attempt) = route.attempts.get_mut(index) {
            let reset = match attempt.socket.is_established() {
                Ok(true) => None,
                Ok(false) => {
                    index += 1; // a spurious event
                    continue;
                }
                // A refused connect is `ECONNREFUSED`. These two errors mean established and then reset
                // (tcp(7)): input that came before the reset is offered first.
                Err(e) if is_reset(&e) && !layered => Some(e),
                Err(e) => {
                    let failed = route.attempts.swap_remove(index);
                    route.note_failure(failed.address.clone(), e);
                    over.push(failed);
                    continue;
                }
            };
            let socket = route.attempts.swap_remove(index).socket;
            over.append(&mut route.attempts);
            self.socket = socket;
            return (Established::Yes(reset), over);
        }
        let none_left = route.attempts.is_empty();
        (if none_left { Established::Failed } else { Established::NotYet }, over)
    }
}

impl Conn<'_> {
    /// An attempt to connect has begun; it has until `tick`.
    pub(crate) fn attempt_until(&mut self, tick: u64) {
        self.stream.clock = tick;
        self.watch();
    }

    /// Ends the attempts that are under way, so that their local addresses are free.
    pub(crate) fn end_attempts(&mut self, why: io::ErrorKind) {
        let Some(route) = self.stream.route_mut() else { return };
        let attempts = std::mem::take(&mut route.attempts);
        if let Some(last) = attempts.last() {
            route.note_failure(last.address.clone(), why.into());
            self.work.notes.push(Note::EndAttempts(attempts));
        }
    }

    /// Ends the connection as failed to connect.
    pub(crate) fn fail_connect(&mut self, kind: ConnectErrorKind, source: Option<io::Error>) {
        if let Some(reason) = self.connect_error(kind, source) {
            self.finish(reason);
        }
    }

    /// The reason for a failed connect: the target, the address that was tried last, its error.
    pub(super) fn connect_error(
        &mut self,
        kind: ConnectErrorKind,
        source: Option<io::Error>,
    ) -> Option<CloseReason> {
        self.end_attempts(io::ErrorKind::TimedOut);
        let route = self.stream.route_mut()?;
        let (address, error) = route.failed.take().unzip();
        let has_source = !matches!(kind, ConnectErrorKind::TimedOut | ConnectErrorKind::Cancelled);
        let source = source.or(error).filter(|_| has_source);
        let error = ConnectError::new(kind, route.target.clone(), address, source);
        Some(CloseReason::ConnectFailed(error))
    }

    /// The transport is established: the layers' handshakes are next, if there are layers.
    /// `reset`: it has been reset since.
    pub(crate) fn established(&mut self, reset: Option<io::Error>) -> Opening {
        self.happens(Event::Established, None);
        self.stream.writable = true;
        if let Some(extra) = self.stream.extra.as_mut() {
            self.work.counts.connected += u64::from(extra.route.is_some());
            extra.route = None;
            if let Some(reset) = reset {
                extra.ending_mut().reason = Some(CloseReason::Io(reset));
            }
        }
        if self.stream.options().statistics {
            self.tally_as_told();
        }
        if self.stream.wire().is_none() {
            return Opening::Ready;
        }
        let after = self.stream.options().handshake_timeout;
        self.stream.clock = self.work.tick_after_this_moment(after);
        self.watch();
        if let Err(error) = self.start_format() {
            self.finish(CloseReason::Layer(error));
            return Opening::Waiting;
        }
        self.flush();
        if self.stream.phase() != Phase::Handshaking {
            return Opening::Waiting; // the flush failed
        }
        match self.stream.wire_mut().map(Wire::check_ready) {
            Some(Ok(true)) => Opening::Ready,
            Some(Ok(false)) | None => Opening::Waiting,
            Some(Err(error)) => {
                self.finish(CloseReason::Layer(error));
                Opening::Waiting
            }
        }
    }

    /// Every layer is ready. Returns the listener that accepted the connection, if one did, and the
    /// peer's address, if it was kept.
    pub(crate) fn open(&mut self) -> (Option<Token>, Option<Address>) {
        self.happens(Event::Opened, None);
        self.stream.clock = self.work.tick;
        let known = self.stream.extra.as_mut().and_then(|extra| extra.peer.take());
        self.watch();
        (self.stream.listener(), known)
    }

    /// Encodes the messages that waited for the layers' handshakes.
    pub(super) fn encode_waiting(&mut self) {
        let Some(wire) = self.stream.wire_mut() else { return };
        let waiting = wire.take_waiting();
        let relayed = self.stream.relayed_to().is_some();
        for (kind, bytes) in waiting.iter() {
            let Err(error) = self.encode(bytes, kind) else { continue };
            // A relay must not drop anything: what it cannot pass on ends it.
            if relayed {
                return self.finish(CloseReason::Layer(error));
            }
            if self.encode_failed(error) == SendStatus::Gone {
                return;
            }
        }
        self.queued_more();
    }

    /// `on_open` is about to be called: messages sent before it are encoded first.
    pub(crate) fn before_on_open(&mut self) {
        if self.stream.extra.is_some() {
            self.encode_waiting();
            self.values_wait();
        }
    }

    /// `on_open` has returned: parked timers are due now. Returns the parked notifications.
    pub(crate) fn after_open(&mut self) -> Vec<Notification> {
        self.work.timers.recall(&self.stream.timers, super::PARKED);
        if self.stream.extra.is_none() && self.stream.life.write == WriteSide::Open {
            return Vec::new();
        }
        if self.stream.phase() == Phase::Open && self.stream.life.write == WriteSide::Ending {
            self.half_close();
        }
        // The connection was reset before the loop served it.
        if self.stream.phase() == Phase::Open
            && let Some(extra) = self.stream.extra.as_mut()
            && let Some(CloseReason::Io(error)) = extra.take_reason()
        {
            self.output_failed(error);
        }
        let notifications = self.stream.take_notifications();
        self.stream.drop_empty_extra();
        notifications
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
