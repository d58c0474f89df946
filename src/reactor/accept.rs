//! Accepting: connections, and the errors that must neither end a listener nor make it spin.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::dispatch::{Dispatch, acceptor};
use crate::address::Address;
use crate::connection::{Due, Phase, Stream, Wire};
use crate::core::Entity;
use crate::guard::{drop_guarded, guarded, log_guarded};
use crate::listener::Peer;
use crate::sys::{self, Failure};
use crate::token::Token;

/// How long accepting rests after descriptors ran out, or while it brings nothing but errors. A
/// descriptor that is freed here is used at once; this is for those that the rest of the process, or
/// of the system, frees.
const BACK_OFF: Duration = Duration::from_millis(100);

/// So many errors, each said to concern one connection, and no connection between them: it is
/// something else. (A firewall refuses one peer; a security module refuses to accept at all, takes
/// nobody out of the backlog, and would be asked for ever.)
const ERRORS_IN_A_ROW: u32 = 64;

/// How often a listener says at warn level that it cannot accept. Whoever runs it has to know, but
/// peers cause it, and ten tries a second would let them fill the log; those between are at debug.
const WARN_EVERY: Duration = Duration::from_secs(10);

impl<S: 'static> Dispatch<S> {
    /// Accepts what waits, within the budget; what is left over goes on the ready queue.
    pub(super) fn accept(&mut self, token: Token) {
        if !self.net.births.is_empty() {
            self.install_births();
        }
        let mut budget = self.net.core.config.accepts_per_turn;
        let mut seen_empty = 0;
        loop {
            let Some(listener) = self.net.core.listener_mut(token) else { return };
            // At the limit those who knock wait in the backlog; `reap` makes the listener ready.
            if listener.dead || listener.paused || listener.is_full() {
                return;
            }
            if seen_empty == listener.sockets.len() {
                return;
            }
            if budget == 0 {
                // Another of its addresses has the first word next time.
                listener.turn += 1;
                return self.net.core.make_ready_later(token);
            }
            let which = (listener.turn + seen_empty) % listener.sockets.len();
            let listening = &mut listener.sockets[which];
            if listening.resting {
                seen_empty += 1;
                continue;
            }
            match listening.socket.accept() {
                Ok((stream, address)) => {
                    budget -= 1;
                    listening.failed_in_a_row = 0;
                    listener.stats.accepted += 1;
                    self.admit(token, stream, address);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => seen_empty += 1,
                Err(e) => match sys::accept_failure(&e) {
                    Failure::OneConnection => {
                        budget -= 1;
                        listener.stats.transient_errors += 1;
                        listening.failed_in_a_row += 1;
                        if listening.failed_in_a_row == ERRORS_IN_A_ROW {
                            listening.failed_in_a_row = 0;
                            listening.resting = true;
                            seen_empty += 1;
                            self.back_off(token, "accepting fails every time", &e);
                            continue;
                        }
                        log::debug!("{token}: a connection was gone before it was accepted: {e}");
                    }
                    Failure::Exhausted => {
                        listener.stats.exhausted += 1;
                        // Some may only lie ready for relays.
                        if self.net.core.pipes.give_back() {
                            continue;
                        }
                        if !self.net.core.starved.contains(&token) {
                            self.net.core.starved.push(token);
                        }
                        // An error nobody knows may be this socket's alone.
                        seen_empty += 1;
                        self.back_off(token, "cannot accept", &e);
                    }
                },
            }
        }
    }

    /// Asks again after a while.
    fn back_off(&mut self, token: Token, what: &str, error: &io::Error) {
        let (now, again) =
            (self.net.core.work.tick, self.net.core.work.tick_after_this_moment(WARN_EVERY));
        let Some(listener) = self.net.core.listener_mut(token) else { return };
        let mut level = log::Level::Debug;
        if now >= listener.silent_until {
            listener.silent_until = again;
            level = log::Level::Warn;
        }
        log::log!(level, "{token}: {what}: {error}; trying again soon");
        if listener.retry.is_none() {
            let key = self.net.core.set_timer(token, BACK_OFF, Due::Accept(token));
            if let Some(listener) = self.net.core.listener_mut(token) {
                listener.retry = key;
            }
        }
    }

    /// Lets a new connection in: the filter, the options, the layers, the handler.
    fn admit(&mut self, listener: Token, socket: sys::Stream, address: Address) {
        let Some(entity) = self.net.core.listener_mut(listener) else { return };
        let settings = Rc::clone(&entity.settings);
        if let Err(e) = socket.apply_accepted(&settings.options.socket, entity.adopted) {
            // The peer may be gone already; its connection is lost and nothing else.
            log::debug!("{listener}: {address}: {e}");
            return;
        }
        let stream = Stream::new(socket, Phase::Handshaking, settings);
        let token = match self.net.core.insert(Entity::Stream(stream)) {
            Ok(token) => token,
            Err(e) => return log::error!("{listener}: {address} is turned away: {e}"),
        };
        let Ok(wire) = self.ask_hooks(token, listener, &address) else {
            // Nobody has been told of it; it goes as it came.
            return self.net.core.release(token);
        };
        if let Some(wire) = wire {
            let peer = Some(address.clone());
            self.net.core.with(token, |conn| conn.stream.set_wire(wire, peer));
        }
        if let Err(e) = self.net.core.register_stream(token) {
            log::error!("{listener}: {address} cannot be registered: {e}");
            return self.net.core.release(token);
        }
        if let Some(listener) = self.net.core.listener_mut(listener) {
            listener.stats.open += 1;
        }
        self.established(token, address);
        self.net.core.flush(token);
    }

    /// The filter's verdict, and the layers. A hook that panics refuses.
    fn ask_hooks(
        &mut self,
        token: Token,
        listener: Token,
        address: &Address,
    ) -> Result<Option<Wire>, ()> {
        let Dispatch { net, state, roles } = self;
        let Some(acceptor) = acceptor(&net.core, roles, listener) else { return Err(()) };
        let hooks = acceptor.hooks();
        if hooks.filter.is_none() && hooks.layers.is_none() {
            return Ok(None);
        }
        let peer = Peer { token, listener, address: address.clone(), layer: None };
        let answer = guarded(|| {
            let refused = hooks.filter.as_mut().is_some_and(|filter| !filter(&peer, state));
            if refused { None } else { Some(hooks.layers.as_mut().map(|make| make(&peer))) }
        });
        let layer = match answer {
            Ok(Some(layer)) => layer,
            Ok(None) => {
                log::debug!("{listener}: {address} is refused by the filter");
                if let Some(listener) = net.core.listener_mut(listener) {
                    listener.stats.refused += 1;
                }
                return Err(());
            }
            Err(text) => {
                log::error!("{listener}: a hook panicked: {text}");
                return Err(());
            }
        };
        Ok(layer.map(Wire::new))
    }

    /// A connection ended before it had a handler: the listener's hook is told.
    pub(super) fn tell_failed(&mut self, token: Token, reason: crate::error::CloseReason) {
        let Some(stream) = self.net.core.stream(token) else { return };
        let Some(listener) = stream.listener() else { return };
        if reason.is_orderly() {
            // A layer did all there was to do without a connection: a page for a browser.
            return log::trace!("{token}: served before it was open");
        }
        let address = stream.peer_addr();
        log_guarded(|| match &address {
            Some(address) => log::debug!("{token}: {address}: ended before it was open: {reason}"),
            None => log::debug!("{token}: ended before it was open: {reason}"),
        });
        if let Some(listener) = self.net.core.listener_mut(listener) {
            listener.stats.failed_handshakes += 1;
        }
        let Dispatch { net, state, roles } = self;
        let Some(acceptor) = acceptor(&net.core, roles, listener) else {
            return drop_guarded(reason);
        };
        if let (Some(hook), Some(address)) = (&mut acceptor.hooks().failed, address) {
            let layer = net.core.stream(token).and_then(|s| s.wire()).map(|wire| wire.layer());
            let peer = Peer { token, listener, address, layer };
            if let Err(text) = guarded(|| hook(&peer, &reason, state)) {
                log::error!("{listener}: a hook panicked: {text}");
            }
        }
        drop_guarded(reason);
    }
}
