//! Outgoing connections: one address after the other, until one is established or none is left.

use std::io;

use super::Core;
use crate::address::Address;
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
            let Some(stream) = self.table.stream_mut(token) else { return };
            let Some(route) = stream.route_mut() else {
                return self.connect_failed(token, None, failure);
            };
            let tried = route.current.take();
            let Some(address) = route.left.pop() else {
                return self.connect_failed(token, tried, failure);
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
                Ok(()) => {
                    let now = self.work.tick_after_this_moment(std::time::Duration::ZERO);
                    let until = now.saturating_add(deadline.saturating_sub(now) / attempts);
                    self.with(token, |conn| conn.attempt_until(until));
                    return;
                }
                Err(e) => failure = e,
            }
        }
    }

    fn connect_failed(&mut self, token: Token, tried: Option<Address>, failure: io::Error) {
        let error = unreachable(tried.as_ref(), failure);
        self.with(token, |conn| conn.finish(CloseReason::ConnectFailed(error)));
    }

    /// The deadline of an attempt to connect has passed: the next address gets its share. `false` if
    /// there is none.
    pub(crate) fn next_attempt(&mut self, token: Token) -> bool {
        let route = self.stream(token).and_then(crate::connection::Stream::route);
        let more = route.is_some_and(|route| !route.left.is_empty());
        if more {
            self.connect_next(token, io::ErrorKind::TimedOut.into());
        }
        more
    }

    /// Gives a connecting stream its socket.
    fn replace_socket(&mut self, token: Token, socket: sys::Stream) -> io::Result<()> {
        let Core { sys, table, .. } = self;
        if let Some(stream) = table.stream_mut(token) {
            let mut last = stream.replace_socket(socket);
            sys.deregister(&mut last, true);
        }
        self.register_stream(token)
    }
}

fn unreachable(address: Option<&Address>, error: io::Error) -> Error {
    let what = match address {
        Some(address) => format!("cannot connect to {address}"),
        None => "cannot connect".to_owned(),
    };
    Error::new(what, error)
}
