//! From a socket to an open connection: established, handshakes, open.

use std::io;

use super::life::Event;
use super::{Conn, Phase, Route, SendStatus, Stream, Wire, WriteSide};
use crate::address::Address;
use crate::error::CloseReason;
use crate::signal::Signal;
use crate::sys;
use crate::token::Token;

/// How far the way to an open connection has come.
#[derive(Debug)]
pub(crate) enum Opening {
    /// Every layer is ready: the handler is next.
    Ready,
    /// A handshake is under way; or it failed, and the connection is on its way out.
    Waiting,
    /// connect(2) failed: another address may be left.
    Failed(io::Error),
}

impl Stream {
    pub(crate) fn route(&self) -> Option<&Route> {
        self.extra.as_ref()?.route.as_deref()
    }

    pub(crate) fn route_mut(&mut self) -> Option<&mut Route> {
        self.extra.as_mut()?.route.as_deref_mut()
    }

    pub(crate) fn set_route(&mut self, route: Route) {
        self.extra_mut().route = Some(Box::new(route));
    }

    /// Puts the socket of the next attempt in the place of the last one, which is handed back.
    pub(crate) fn replace_socket(&mut self, socket: sys::Stream) -> sys::Stream {
        // Whatever was seen was seen of the one before.
        (self.readable, self.writable, self.read_closed, self.error) = (false, false, false, false);
        std::mem::replace(&mut self.socket, socket)
    }

    /// Whether a step towards `on_open` is possible now.
    pub(crate) fn may_open(&self) -> bool {
        match self.life.phase {
            Phase::Connecting => self.writable,
            Phase::Handshaking => self.wire().is_none(),
            _ => false,
        }
    }
}

impl Conn<'_> {
    /// An attempt to connect has begun; it has until `tick`.
    pub(crate) fn attempt_until(&mut self, tick: u64) {
        self.stream.clock = tick;
        self.watch();
    }

    /// The socket is writable, or was made elsewhere: the next step towards `on_open`.
    pub(crate) fn step_open(&mut self) -> Opening {
        match self.stream.phase() {
            Phase::Connecting => self.connected(),
            Phase::Handshaking if self.stream.wire().is_none() => Opening::Ready,
            _ => Opening::Waiting,
        }
    }

    /// A connecting socket became writable: it is established, or it failed.
    fn connected(&mut self) -> Opening {
        let outcome = match self.stream.socket.take_error() {
            Ok(Some(e)) | Err(e) => Err(e),
            Ok(None) => self.stream.socket.peer_addr().map(|_| ()),
        };
        match outcome {
            Ok(()) => self.established(),
            // A spurious event: the handshake of the transport still goes on.
            Err(e) if e.kind() == io::ErrorKind::NotConnected => {
                self.stream.writable = false;
                Opening::Waiting
            }
            // A refused connect is `ECONNREFUSED`: these two say that it was established and has
            // been reset since (tcp(7)). What the peer sent before is offered, then the reset.
            Err(e) if is_reset(&e) && self.stream.wire().is_none() => {
                let opening = self.established();
                self.stream.extra_mut().reason = Some(CloseReason::Io(e));
                opening
            }
            Err(e) => Opening::Failed(e),
        }
    }

    /// The transport is established: the layers' handshakes are next, if there are layers.
    pub(crate) fn established(&mut self) -> Opening {
        self.happens(Event::Established, None);
        self.stream.writable = true;
        if let Some(extra) = self.stream.extra.as_mut() {
            extra.route = None;
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
            return Opening::Waiting; // it failed to be flushed
        }
        match self.stream.wire_mut().map(Wire::look_whether_ready) {
            Some(Ok(true)) => Opening::Ready,
            Some(Ok(false)) | None => Opening::Waiting,
            Some(Err(error)) => {
                self.finish(CloseReason::Layer(error));
                Opening::Waiting
            }
        }
    }

    /// Every layer is ready. Returns the listener that accepted it, if one did, and where it comes
    /// from, as far as that is known.
    pub(crate) fn open(&mut self) -> (Option<Token>, Option<Address>) {
        self.happens(Event::Opened, None);
        self.stream.clock = self.work.tick;
        let known = self.stream.extra.as_mut().and_then(|extra| extra.peer.take());
        self.watch();
        (self.stream.listener(), known)
    }

    /// What was sent before the layers were ready is encoded now.
    pub(crate) fn encode_waiting(&mut self) {
        let Some(wire) = self.stream.wire_mut() else { return };
        let waiting = std::mem::take(&mut wire.waiting);
        let relayed = self.stream.relayed_to().is_some();
        for (kind, bytes) in waiting.iter() {
            let Err(error) = self.encode(bytes, kind) else { continue };
            // A relay has no holes: what it cannot pass on ends it.
            if relayed {
                return self.finish(CloseReason::Layer(error));
            }
            if self.encode_failed(error) == SendStatus::Gone {
                return;
            }
        }
        self.queued_more();
    }

    /// `on_open` has returned: timers that came due meanwhile are due now, and notifications that
    /// were posted meanwhile are handed back.
    pub(crate) fn after_open(&mut self) -> Vec<Signal> {
        self.work.timers.recall(&self.stream.timers, super::PARKED);
        if self.stream.phase() == Phase::Open && self.stream.life.write == WriteSide::Ending {
            self.half_close();
        }
        // It was reset before it was looked at.
        if self.stream.phase() == Phase::Open
            && let Some(extra) = self.stream.extra.as_mut()
            && let Some(CloseReason::Io(error)) = extra.reason.take()
        {
            self.output_failed(error);
        }
        self.stream.take_signals()
    }
}

fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
