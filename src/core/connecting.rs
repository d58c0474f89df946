//! Outgoing connections: one address after the other, until one is established or none is left.

use std::io;
use std::time::Duration;

use super::Core;
use crate::connection::{Attempt, Phase, Route, Stream};
use crate::error::{CloseReason, ConnectError, ConnectErrorKind};
use crate::sys;
use crate::token::Token;

/// How soon a connect is tried again where the listener's backlog was full. A Unix socket refuses it
/// at once then, where TCP sends the SYN again by itself.
const BACKLOG_FULL_RETRY: u64 = 10;

impl Core {
    /// Resolves the target and tries the first address. Resolving a name blocks the loop.
    pub(crate) fn start_connect(&mut self, token: Token) {
        let Some(route) = self.route_mut(token) else { return };
        match sys::resolve(&route.target) {
            Ok(mut addresses) => {
                addresses.reverse();
                route.left = addresses;
                self.connect_next(token);
            }
            Err(e) => self.fail_connect(token, ConnectErrorKind::Resolve, Some(e)),
        }
    }

    /// Tries the next address. When none is left, the last failure is the reason.
    ///
    /// Each address gets an equal share of the time that is left, so that one that never answers
    /// does not use up the others'.
    fn connect_next(&mut self, token: Token) {
        let now = self.tick_after_this_moment(Duration::ZERO);
        loop {
            let Some(stream) = self.stream_mut(token) else { return };
            let options = stream.options().socket.clone();
            let Some(route) = self.route_mut(token) else { return };
            let Some(address) = route.left.pop() else {
                return self.fail_connect(token, ConnectErrorKind::System, None);
            };
            if let Some((tried, error)) = &route.failed {
                log::debug!("{token}: {tried}: {error}; trying {address}");
            }
            let (local, deadline) = (route.local, route.deadline);
            let share = deadline.saturating_sub(now) / (route.left.len() as u64 + 1);
            let mut socket = sys::connect(&address, local, &options);
            // Some descriptors may be pipes that relays keep for the next one.
            if socket.as_ref().is_err_and(sys::is_out_of_descriptors) && self.pipes.give_back() {
                socket = sys::connect(&address, local, &options);
            }
            let started = socket.and_then(|mut socket| {
                self.sys.register(&mut socket, token.to_usize())?;
                Ok(socket)
            });
            let Some(stream) = self.stream_mut(token) else { return };
            // The edges seen so far were those of earlier attempts.
            (stream.readable, stream.writable) = (false, false);
            (stream.read_closed, stream.error) = (false, false);
            let Some(route) = stream.extra.as_mut().and_then(|extra| extra.route.as_mut()) else {
                return;
            };
            match started {
                Ok(socket) => {
                    route.attempts.push(Attempt { address, socket });
                    stream.clock = now.saturating_add(share);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    route.left.push(address.clone());
                    route.note_failure(address, e);
                    stream.clock = now.saturating_add(BACKLOG_FULL_RETRY).min(deadline);
                }
                Err(e) => {
                    route.note_failure(address, e);
                    continue;
                }
            }
            return self.watch(token);
        }
    }

    /// An attempt may have ended: returns whether the connection is established. If an attempt failed
    /// and no other goes on, the next address is tried.
    pub(crate) fn look_at_attempts(&mut self, token: Token) -> bool {
        let Core { sys, table, .. } = self;
        let Some(stream) = table.stream_mut(token) else { return false };
        stream.writable = false;
        let Some(route) = stream.extra.as_mut().and_then(|extra| extra.route.as_mut()) else {
            return false;
        };
        let mut index = 0;
        while let Some(attempt) = route.attempts.get_mut(index) {
            match attempt.socket.is_established() {
                Ok(true) => {
                    stream.socket = route.attempts.swap_remove(index).socket;
                    for mut late in route.attempts.drain(..) {
                        sys.deregister(&mut late.socket, true);
                    }
                    return true;
                }
                Ok(false) => index += 1, // a spurious event
                Err(e) => {
                    let mut failed = route.attempts.swap_remove(index);
                    sys.deregister(&mut failed.socket, true);
                    route.note_failure(failed.address, e);
                }
            }
        }
        if route.attempts.is_empty() {
            self.connect_next(token);
        }
        false
    }

    /// The deadline of a connection has passed. If it is still connecting, the next address gets its
    /// share of the time, or the connection fails. Returns `false` if it is not connecting.
    pub(crate) fn connect_deadline_passed(&mut self, token: Token) -> bool {
        let tick = self.tick;
        if self.stream(token).is_none_or(|stream| stream.phase != Phase::Connecting) {
            return false;
        }
        self.close_attempts(token, io::ErrorKind::TimedOut);
        match self.route_mut(token) {
            Some(route) if !route.left.is_empty() && tick < route.deadline => {
                self.connect_next(token);
            }
            _ => self.fail_connect(token, ConnectErrorKind::TimedOut, None),
        }
        true
    }

    /// Ends a connection that is not established: this side wants it no more. `false` if it is not
    /// connecting.
    pub(crate) fn cancel_connect(&mut self, token: Token) -> bool {
        let connecting = self.stream(token).is_some_and(|s| s.phase == Phase::Connecting);
        if connecting {
            self.fail_connect(token, ConnectErrorKind::Cancelled, None);
        }
        connecting
    }

    fn fail_connect(&mut self, token: Token, kind: ConnectErrorKind, source: Option<io::Error>) {
        let tried = self.close_attempts(token, io::ErrorKind::TimedOut);
        let Some(route) = self.route_mut(token) else { return };
        let target = route.target.clone();
        let (address, error) = route.failed.take().unzip();
        let source = source
            .or(error)
            .filter(|_| matches!(kind, ConnectErrorKind::Resolve | ConnectErrorKind::System));
        let error = ConnectError::new(kind, target, tried.or(address), source);
        self.fail(token, CloseReason::ConnectFailed(error));
    }

    /// Closes the sockets of a connect, so that their local addresses are free. Returns the address
    /// of the last one.
    pub(crate) fn close_attempts(
        &mut self,
        token: Token,
        why: io::ErrorKind,
    ) -> Option<crate::address::Address> {
        let Core { sys, table, .. } = self;
        let route = table.stream_mut(token)?.extra.as_mut()?.route.as_mut()?;
        let mut last = None;
        for mut attempt in std::mem::take(&mut route.attempts) {
            sys.deregister(&mut attempt.socket, true);
            last = Some(attempt.address.clone());
            route.note_failure(attempt.address, why.into());
        }
        last
    }

    fn route_mut(&mut self, token: Token) -> Option<&mut Route> {
        self.stream_mut(token)?.extra.as_mut()?.route.as_deref_mut()
    }

    /// It is established: what was only needed to get there goes.
    pub(crate) fn forget_route(&mut self, token: Token) {
        if let Some(Stream { phase: Phase::Handshaking, extra: Some(extra), .. }) =
            self.stream_mut(token)
        {
            extra.route = None;
        }
    }
}
