//! Accepting: connections, and the errors that must neither end a listener nor make it spin.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::call::{Dispatch, acceptor};
use crate::address::Address;
use crate::connection::{Due, Phase, Stream, Wire};
use crate::core::{Arrived, Entity, Place};
use crate::error::CloseReason;
use crate::guard::{drop_guarded, guarded, log_guarded};
use crate::listener::Peer;
use crate::stats::Callback;
use crate::sys::{self, Failure};
use crate::token::Token;

/// How long accepting pauses after descriptors ran out, or after errors only. When this reactor frees a
/// descriptor accepting goes on at once; the pause is for those that other code or processes free.
const BACK_OFF: Duration = Duration::from_millis(100);

/// After this many consecutive per-connection errors and no accept, the socket itself is treated as
/// failing. (A firewall refuses one peer; a security module may refuse accept(2) as such, which leaves
/// the backlog as it is, so that the loop would ask for ever.)
const ERRORS_IN_A_ROW: u32 = 64;

/// How often a listener logs at warn level that it cannot accept. The operator has to know, but peers
/// can cause it, and a line per retry would let them fill the log: the others are at debug level.
const WARN_EVERY: Duration = Duration::from_secs(10);

impl<S: 'static> Dispatch<S> {
    /// Accepts from the backlog within the budget; if more is left, the listener goes on the ready queue.
    pub(super) fn accept(&mut self, token: Token) {
        if !self.net.pending_handlers.is_empty() {
            self.install_pending_handlers();
        }
        let most = self.net.core.config.accepts_per_turn;
        let mut budget = most;
        self.take_up_share(token, &mut budget);
        let mut seen_empty = 0;
        loop {
            let used_up = budget == 0 || budget < most && self.net.core.work.is_late();
            let Some((Entity::Listener(listener), work)) = self.net.core.of_event(token) else {
                return;
            };
            // At the limit new peers wait in the backlog; `reap` makes the listener ready.
            if listener.dead {
                return;
            }
            if listener.share.as_ref().is_some_and(|share| !share.arrived.is_empty()) {
                // The budget was used up by those before them.
                work.counts.accepts_exhausted += 1;
                return self.net.core.make_ready_later(token);
            }
            if !listener.may_accept()
                || listener.draining == Some(0)
                || seen_empty == listener.sockets.len()
                || listener.leaves_the_rest()
            {
                if listener.draining.is_some() && !listener.expects_connections() {
                    self.net.core.close(token, None);
                }
                return;
            }
            if used_up {
                // Another of its addresses is served first next time.
                listener.turn += 1;
                work.counts.accepts_exhausted += 1;
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
                    if let Some(left) = &mut listener.draining {
                        *left -= 1;
                    }
                    let alone = listener.takes_the_rest();
                    match &listener.share {
                        None => self.admit(token, stream, address, None),
                        Some(share) => match share.place(alone) {
                            Some(place) if share.owns(&place) => {
                                self.admit(token, stream, address, Some(place));
                            }
                            Some(place) => self.hand_over(token, stream, address, place),
                            // The last one that took connections has stopped at this moment.
                            None => log::debug!("{token}: {address}: no worker takes it"),
                        },
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => seen_empty += 1,
                Err(e) => match sys::accept_failure(&e) {
                    Failure::OneConnection => {
                        budget -= 1;
                        listener.stats.transient_errors += 1;
                        work.counts.accept_errors += 1;
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
                        work.counts.accept_errors += 1;
                        // Some descriptors may be pipes that relays keep for the next one.
                        if self.net.core.pipes.give_back() {
                            continue;
                        }
                        if !self.net.core.waiting_for_descriptor.contains(&token) {
                            self.net.core.waiting_for_descriptor.push(token);
                        }
                        // An unknown error may be this socket's alone.
                        seen_empty += 1;
                        self.back_off(token, "cannot accept", &e);
                    }
                },
            }
        }
    }

    /// A port of several workers: admits what its acceptor has given to this one, and takes over the sockets
    /// if accepting is this one's part now.
    fn take_up_share(&mut self, token: Token, budget: &mut usize) {
        while *budget > 0 {
            let Some(listener) = self.net.core.listener_mut(token) else { return };
            let Some(share) = &mut listener.share else { return };
            let Some(Arrived { socket, address, place }) = share.arrived.pop_front() else { break };
            *budget -= 1;
            self.admit(token, socket.into_stream(), address, Some(place));
        }
        let Some(listener) = self.net.core.listener_mut(token) else { return };
        if !listener.lacks_sockets() {
            return;
        }
        let Some(share) = &listener.share else { return };
        let descriptors = share.descriptors();
        let taken = descriptors.and_then(|sockets| self.net.core.take_sockets(token, sockets));
        if let Err(e) = taken {
            self.back_off(token, "cannot take over the port", &e);
        }
    }

    /// The connection is for another worker, which makes its handler.
    fn hand_over(&mut self, token: Token, socket: sys::Stream, address: Address, place: Place) {
        match sys::Accepted::new(socket) {
            Ok(socket) => {
                self.net.core.work.counts.handed_over += 1;
                self.net.carry(Arrived { socket, address, place });
            }
            Err(_) => log::error!("{token}: {address} cannot leave this thread"),
        }
    }

    /// Sets the timer after which accepting goes on.
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

    /// Takes over an accepted socket: options, filter, layers, registration, handler. `place`: its place in
    /// the counts of a port of several workers.
    fn admit(
        &mut self,
        listener: Token,
        socket: sys::Stream,
        address: Address,
        place: Option<Place>,
    ) {
        self.net.core.work.counts.accepted += 1;
        let Some(entity) = self.net.core.listener_mut(listener) else { return };
        entity.stats.accepted += 1;
        let settings = Rc::clone(&entity.settings);
        if let Err(e) = socket.apply_accepted(&settings.options.socket, entity.adopted) {
            // The peer may be gone already; its connection is lost and nothing else.
            log::debug!("{listener}: {address}: {e}");
            self.net.core.work.counts.refused += 1;
            return;
        }
        let stream = Stream::new(socket, Phase::Handshaking, settings);
        let token = match self.net.core.insert(Entity::Stream(stream)) {
            Ok(token) => token,
            Err(e) => {
                self.net.core.work.counts.refused += 1;
                return log::error!("{listener}: {address} is turned away: {e}");
            }
        };
        if !self.passes_filter(token, listener, &address) {
            // The end of a refused peer is reported to no hook.
            self.net.core.work.counts.refused += 1;
            return self.net.core.release(token);
        }
        // From here on exactly one call reports its end: `on_unopened` or `on_close`.
        if let Some(listener) = self.net.core.listener_mut(listener) {
            listener.stats.open += 1;
            listener.unopened += 1;
            if let Some(place) = place {
                place.admit();
            }
        }
        let wire = self.make_layers(token, listener, &address);
        if !matches!(wire, Ok(None)) {
            self.net.core.with(token, |conn| conn.stream.set_peer(address.clone()));
        }
        match wire {
            Ok(None) => {}
            Ok(Some(wire)) => {
                self.net.core.with(token, |conn| conn.stream.set_wire(wire));
            }
            Err(text) => {
                log::error!("{listener}: a hook panicked: {text}");
                return self.net.core.finish(token, CloseReason::Panicked(text));
            }
        }
        if let Err(e) = self.net.core.register_stream(token) {
            return self.cannot_register(token, listener, address, e);
        }
        self.established(token, address);
        self.net.core.flush(token);
    }

    /// The poll takes no more sockets (`ENOSPC`, epoll_ctl(2), "max_user_watches"). The next accept
    /// would fail the same way, so accepting pauses, as it does without descriptors.
    fn cannot_register(&mut self, token: Token, listener: Token, peer: Address, e: io::Error) {
        self.back_off(listener, "cannot register what was accepted", &e);
        if let Some(listener) = self.net.core.listener_mut(listener) {
            listener.stats.exhausted += 1;
            for listening in &mut listener.sockets {
                listening.resting = true;
            }
        }
        self.net.core.with(token, |conn| conn.stream.set_peer(peer));
        self.net.core.finish(token, CloseReason::Io(e));
    }

    /// The filter's verdict. One that panics refuses.
    fn passes_filter(&mut self, token: Token, listener: Token, address: &Address) -> bool {
        let Dispatch { net, state, handlers } = self;
        let Some(acceptor) = acceptor(&net.core, handlers, listener) else { return false };
        let Some(filter) = &mut acceptor.hooks().filter else { return true };
        let peer = Peer { token, listener, address: address.clone(), layer: None };
        let timed = net.core.work.timed;
        if timed {
            net.core.work.callback_begins(Callback::Filter);
        }
        let verdict = guarded(|| filter(&peer, state));
        if timed {
            self.handler_returned(listener, Callback::Filter);
        }
        match verdict {
            Ok(true) => return true,
            Ok(false) => log::debug!("{listener}: {address} is refused by the filter"),
            Err(text) => {
                log::error!("{listener}: a hook panicked: {text}");
                return false;
            }
        }
        if let Some(listener) = self.net.core.listener_mut(listener) {
            listener.stats.refused += 1;
        }
        false
    }

    /// The layers of a new connection, or the text of the hook's panic.
    fn make_layers(
        &mut self,
        token: Token,
        listener: Token,
        address: &Address,
    ) -> Result<Option<Wire>, String> {
        let Dispatch { net, handlers, .. } = self;
        let Some(acceptor) = acceptor(&net.core, handlers, listener) else { return Ok(None) };
        let Some(make) = &mut acceptor.hooks().layers else { return Ok(None) };
        let peer = Peer { token, listener, address: address.clone(), layer: None };
        let timed = net.core.work.timed;
        if timed {
            net.core.work.callback_begins(Callback::Layer);
        }
        let made = guarded(|| make(&peer));
        if timed {
            self.handler_returned(listener, Callback::Layer);
        }
        made.map(|layer| Some(Wire::new(layer)))
    }

    /// An accepted connection ended without a handler: the listener's hook is called.
    pub(super) fn call_on_unopened(&mut self, token: Token, reason: CloseReason) {
        let Some(stream) = self.net.core.stream(token) else { return };
        let Some(listener) = stream.listener() else { return };
        let address = stream.peer_addr();
        log_guarded(|| match &address {
            Some(address) => log::debug!("{token}: {address}: ended before it was open: {reason}"),
            None => log::debug!("{token}: ended before it was open: {reason}"),
        });
        // An orderly end is no failure: a layer may serve a page to a browser without a connection.
        if !reason.is_orderly()
            && let Some(listener) = self.net.core.listener_mut(listener)
        {
            listener.stats.failed_handshakes += 1;
        }
        if let Some(listener) = self.net.core.listener_mut(listener) {
            listener.unopened = listener.unopened.saturating_sub(1);
        }
        let timed = self.net.core.work.timed;
        if timed {
            self.net.core.work.callback_begins(Callback::Unopened);
        }
        let Dispatch { net, state, handlers } = self;
        let Some(acceptor) = acceptor(&net.core, handlers, listener) else {
            return drop_guarded(reason);
        };
        if let (Some(hook), Some(address)) = (&mut acceptor.hooks().unopened, address) {
            let layer = net.core.stream(token).and_then(|s| s.wire()).map(|wire| wire.layer());
            let peer = Peer { token, listener, address, layer };
            if let Err(text) = guarded(|| hook(&peer, &reason, state)) {
                log::error!("{listener}: a hook panicked: {text}");
            }
            if timed {
                self.handler_returned(listener, Callback::Unopened);
            }
        }
        drop_guarded(reason);
    }
}
