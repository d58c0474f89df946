//! Outgoing connections: one address after the other, until one stands or none is left.

use std::io;

use super::Core;
use crate::address::Address;
use crate::connection::{Phase, Stream};
use crate::error::{CloseReason, Error};
use crate::sys;
use crate::token::Token;

impl Core {
    /// Starts connecting to the next address; `failure` is what became of the one before. When none
    /// is left, the last error is the reason.
    ///
    /// Each address gets an equal share of the time that is left, so that one that never answers
    /// does not use up the others'.
    pub(crate) fn connect_next(&mut self, token: Token, mut failure: io::Error) {
        loop {
            let Some(stream) = self.stream_mut(token) else { return };
            let Some(route) = stream.extra.as_mut().and_then(|extra| extra.route.as_mut()) else {
                return self.fail(token, CloseReason::ConnectFailed(unreachable(None, failure)));
            };
            let tried = route.current.take();
            let Some(address) = route.left.pop() else {
                let error = unreachable(tried.as_ref(), failure);
                return self.fail(token, CloseReason::ConnectFailed(error));
            };
            if let Some(tried) = tried {
                log::debug!("{token}: {tried}: {failure}; trying {address}");
            }
            let (from, attempts) = (route.from, route.left.len() as u64 + 1);
            let deadline = route.deadline;
            route.current = Some(address.clone());
            let connect = |core: &Core| {
                let options = &core.stream(token)?.options().socket;
                Some(sys::connect(&address, from, options))
            };
            let Some(mut socket) = connect(self) else { return };
            // Some descriptors may be pipes that relays keep for the next one.
            if socket.as_ref().is_err_and(sys::is_out_of_descriptors) && self.pipes.give_back() {
                let Some(again) = connect(self) else { return };
                socket = again;
            }
            let started = socket.and_then(|socket| self.replace_socket(token, socket));
            match started {
                Ok(()) => return self.watch_attempt(token, deadline, attempts),
                Err(e) => failure = e,
            }
        }
    }

    fn watch_attempt(&mut self, token: Token, deadline: u64, attempts: u64) {
        let now = self.tick_after_this_moment(std::time::Duration::ZERO);
        if let Some(stream) = self.stream_mut(token) {
            stream.clock = now.saturating_add(deadline.saturating_sub(now) / attempts);
        }
        self.watch(token);
    }

    /// A deadline has passed: if it was that of an attempt to connect, the next address gets its
    /// share. `false` if there is none, or the connection stands.
    pub(crate) fn next_attempt(&mut self, token: Token) -> bool {
        let route = self.stream(token).and_then(|s| s.extra.as_ref()?.route.as_ref());
        let more = route.is_some_and(|route| !route.left.is_empty());
        if more {
            self.connect_next(token, io::ErrorKind::TimedOut.into());
        }
        more
    }

    /// Gives a connecting stream its socket.
    fn replace_socket(&mut self, token: Token, socket: sys::Stream) -> io::Result<()> {
        let Core { sys, table, .. } = self;
        if let Some(s) = table.stream_mut(token) {
            sys.deregister(&mut s.socket, true);
            s.socket = socket;
            // Whatever was seen was seen of the one before.
            (s.readable, s.writable, s.read_closed, s.error) = (false, false, false, false);
        }
        self.register_stream(token)
    }

    /// It stands: what was only needed to get there goes.
    pub(crate) fn forget_route(&mut self, token: Token) {
        if let Some(Stream { phase: Phase::Handshaking, extra: Some(extra), .. }) =
            self.stream_mut(token)
        {
            extra.route = None;
        }
    }
}

fn unreachable(address: Option<&Address>, error: io::Error) -> Error {
    let what = match address {
        Some(address) => format!("cannot connect to {address}"),
        None => "cannot connect".to_owned(),
    };
    Error::new(what, error)
}
