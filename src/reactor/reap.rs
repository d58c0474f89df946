//! Reaping: `on_close`, the handler is dropped, the slot is freed.

use super::call::Dispatch;
use crate::context::Context;
use crate::core::Entity;
use crate::error::{CloseInfo, CloseReason};
use crate::guard::{drop_guarded, guarded, log_guarded};
use crate::net::AnyHandler;
use crate::stats::Callback;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// Reaps the list of the dead. What the callbacks send, open or end is left for the next turn, which
    /// begins at once.
    #[inline]
    pub(super) fn reap(&mut self) {
        self.install_pending_handlers();
        if !self.net.core.work.dead.is_empty() {
            self.reap_listed();
        }
    }

    #[inline(never)]
    fn reap_listed(&mut self) {
        let mut dead = std::mem::take(&mut self.net.core.work.dead);
        for (token, reason) in dead.drain(..) {
            self.finalize(token, reason);
        }
        if self.net.core.work.dead.is_empty() {
            self.net.core.work.dead = dead; // for its memory
        }
    }

    pub(super) fn finalize(&mut self, token: Token, reason: CloseReason) {
        let is_listener = matches!(self.net.core.entity(token), Some(Entity::Listener(_)));
        if is_listener && !self.settle_handshakes(token) {
            return self.net.core.work.dead.push((token, reason));
        }
        let published = self.net.core.published_to(token);
        self.net.core.groups.leave_all(token);
        if self.net.core.with(token, |conn| conn.cancel_timers()).is_none() {
            self.net.core.cancel_timers(token);
        }
        let unsent = match self.net.core.entity(token) {
            None => return,
            Some(Entity::Stream(stream)) => {
                let unsent = stream.unsent() + published;
                self.net.core.work.counts.closed.count(&reason);
                unsent
            }
            Some(Entity::Datagram(socket)) => socket.queued(),
            Some(Entity::Session(session)) => {
                let (socket, unsent) = (session.socket, session.unsent);
                self.net.core.count_session_end(socket, &reason);
                unsent
            }
            Some(_) => 0,
        };
        let listener = self.net.core.stream(token).and_then(|stream| stream.listener());
        let closed = CloseInfo { reason, unsent };
        match self.take_handler(token) {
            Some(handler) => {
                self.net.core.free_local_port(token);
                self.call_on_close(token, handler, closed);
            }
            None => self.call_on_unopened(token, closed.reason),
        }
        self.net.core.release(token);
        if let Some(entity) = listener.and_then(|listener| self.net.core.listener_mut(listener)) {
            let was_full = entity.is_full();
            entity.stats.open -= 1;
            if let Some(share) = &entity.share {
                share.connection_ends();
            }
            if let (true, Some(listener)) = (was_full, listener) {
                self.net.core.make_ready(listener);
            }
        }
    }

    /// A listener ends, and with it the hook for its connections that have no handler yet. Their
    /// handshakes are ended, and `on_unopened` is called for each. `false` if some of them are still to
    /// be reaped, which has to come first.
    fn settle_handshakes(&mut self, listener: Token) -> bool {
        if self.net.core.listener_mut(listener).is_none_or(|l| l.unopened == 0) {
            return true;
        }
        let mut unopened = self.net.core.tokens();
        unopened.retain(|&token| {
            let stream = self.net.core.stream(token);
            stream.is_some_and(|s| s.listener() == Some(listener)) && !self.has_handler(token)
        });
        let mut all_ended = true;
        for &token in &unopened {
            // One that is closing is left to finish: the rest of a page or an alert is still flushed.
            if self.net.core.stream(token).is_some_and(|s| !s.is_closing()) {
                self.net.core.finish(token, CloseReason::Cancelled);
                all_ended = false;
            }
        }
        if all_ended {
            for token in unopened {
                let reason = self.net.core.with(token, |conn| conn.take_reason()).flatten();
                self.call_on_unopened(token, reason.unwrap_or(CloseReason::Closed));
            }
        }
        all_ended
    }

    fn call_on_close(&mut self, token: Token, mut any: AnyHandler<S>, closed: CloseInfo) {
        // Debug level at most: peers cause these, and must not be able to fill a log.
        let level = if closed.reason.is_orderly() { log::Level::Trace } else { log::Level::Debug };
        log_guarded(|| log::log!(level, "{token}: {closed}"));
        let Dispatch { net, state, .. } = self;
        let timed = net.core.work.timed;
        if timed {
            net.core.work.callback_begins(Callback::Close);
        }
        let called = guarded(|| match &mut any {
            AnyHandler::Stream(handler) => {
                handler.on_close(&mut Context::new(state, net, token), &closed);
            }
            AnyHandler::Datagram(handler) => {
                handler.on_close(&mut Context::new(state, net, token), &closed);
            }
            AnyHandler::Listener(_) | AnyHandler::Gate(_) | AnyHandler::Source(_) => {}
        });
        if let Err(text) = called {
            log::error!("{token}: the handler panicked in on_close: {text}");
        }
        if timed && matches!(any, AnyHandler::Stream(_) | AnyHandler::Datagram(_)) {
            self.last_callback_returned(token, &any);
        }
        if let AnyHandler::Source(source) = &mut any
            && let Err(text) = guarded(|| source.deregister(&self.net.core.sys))
        {
            log::error!("{token}: the source panicked when it was deregistered: {text}");
        }
        drop_guarded(any);
        drop_guarded(closed);
    }

    /// The reactor is being dropped: everything ends, and no new socket is made.
    pub(super) fn close_everything(&mut self) {
        self.net.core.ended = true;
        for token in self.net.core.tokens() {
            self.net.core.finish_with_reactor(token);
        }
        // Repeated, because a listener is reaped after its handshakes.
        while !self.net.core.work.dead.is_empty() {
            self.reap();
        }
    }
}
