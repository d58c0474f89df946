//! Outgoing connections: one address after the other, until one is established or none is left.

use std::io;
use std::time::Duration;

use super::Core;
use crate::connection::{Attempt, Established, Opening, Phase, Route};
use crate::error::ConnectErrorKind;
use crate::sys;
use crate::token::Token;

/// How soon a connect is retried after the listener's backlog was full, in ticks. A Unix socket fails
/// at once then; TCP repeats the SYN by itself.
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
            Err(e) => {
                let invalid = e.kind() == io::ErrorKind::InvalidInput;
                let kind = if invalid {
                    ConnectErrorKind::InvalidTarget
                } else {
                    ConnectErrorKind::Resolve
                };
                self.fail_connect(token, kind, Some(e));
            }
        }
    }

    /// Tries the next address. When none is left, the last failure is the reason.
    ///
    /// Each address gets an equal share of the time that is left, so that one that never responds does
    /// not use up the others'.
    fn connect_next(&mut self, token: Token) {
        let now = self.work.tick_after_this_moment(Duration::ZERO);
        loop {
            let Some(stream) = self.table.stream_mut(token) else { return };
            let options = stream.options().socket.clone();
            let Some(route) = stream.route_mut() else { return };
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
            let Some(stream) = self.table.stream_mut(token) else { return };
            stream.forget_edges();
            let Some(route) = stream.route_mut() else { return };
            let until = match started {
                Ok(socket) => {
                    route.attempts.push(Attempt { address, socket });
                    now.saturating_add(share)
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    route.left.push(address.clone());
                    route.note_failure(address, e);
                    now.saturating_add(BACKLOG_FULL_RETRY).min(deadline)
                }
                Err(e) => {
                    route.note_failure(address, e);
                    continue;
                }
            };
            self.with(token, |conn| conn.attempt_until(until));
            return;
        }
    }

    /// The next step towards `on_open` of a connection that may have one.
    pub(crate) fn step_open(&mut self, token: Token) -> Opening {
        match self.stream(token).map(crate::connection::Stream::phase) {
            Some(Phase::Connecting) => self.look_at_attempts(token),
            Some(Phase::Handshaking) => {
                self.with(token, |conn| conn.established(None)).unwrap_or(Opening::Waiting)
            }
            _ => Opening::Waiting,
        }
    }

    /// Checks the attempts after an edge. If all have failed, the next address is tried.
    fn look_at_attempts(&mut self, token: Token) -> Opening {
        let Core { sys, table, .. } = self;
        let Some(stream) = table.stream_mut(token) else { return Opening::Waiting };
        let (established, over) = stream.look_at_attempts();
        for mut attempt in over {
            sys.deregister(&mut attempt.socket, true);
        }
        match established {
            Established::Yes(reset) => {
                self.with(token, |conn| conn.established(reset)).unwrap_or(Opening::Waiting)
            }
            Established::NotYet => Opening::Waiting,
            Established::Failed => {
                self.connect_next(token);
                Opening::Waiting
            }
        }
    }

    /// An attempt has timed out: the next address is tried, or the connection fails.
    pub(crate) fn attempt_timed_out(&mut self, token: Token) {
        let tick = self.work.tick;
        self.with(token, |conn| conn.end_attempts(io::ErrorKind::TimedOut));
        match self.route_mut(token) {
            Some(route) if !route.left.is_empty() && tick < route.deadline => {
                self.connect_next(token);
            }
            _ => self.fail_connect(token, ConnectErrorKind::TimedOut, None),
        }
    }

    fn fail_connect(&mut self, token: Token, kind: ConnectErrorKind, source: Option<io::Error>) {
        self.with(token, |conn| conn.fail_connect(kind, source));
    }

    fn route_mut(&mut self, token: Token) -> Option<&mut Route> {
        self.table.stream_mut(token)?.route_mut()
    }
}
