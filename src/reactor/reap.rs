//! The end: `on_close`, the handler is dropped, the slot is free.

use super::call::Dispatch;
use crate::context::Context;
use crate::core::Entity;
use crate::error::{CloseInfo, CloseReason};
use crate::guard::{drop_guarded, guarded, log_guarded};
use crate::net::AnyHandler;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// Reaps what has died. Whatever that itself kills, sends or opens is left for the next turn,
    /// which begins at once.
    pub(super) fn reap(&mut self) {
        self.install_pending_handlers();
        if self.net.core.work.dead.is_empty() {
            return;
        }
        let mut dead = std::mem::take(&mut self.net.core.work.dead);
        for (token, reason) in dead.drain(..) {
            self.finalize(token, reason);
        }
        if self.net.core.work.dead.is_empty() {
            self.net.core.work.dead = dead; // for its memory
        }
    }

    fn finalize(&mut self, token: Token, reason: CloseReason) {
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
            Some(Entity::Stream(stream)) => stream.unsent() + published,
            Some(Entity::Datagram(socket)) => socket.queued(),
            Some(_) => 0,
        };
        let listener = self.net.core.stream(token).and_then(|stream| stream.listener());
        let closed = CloseInfo { reason, unsent };
        match self.take_handler(token) {
            Some(role) => {
                self.net.core.free_local_port(token);
                self.call_on_close(token, role, closed);
            }
            None => self.call_on_unopened(token, closed.reason),
        }
        self.net.core.release(token);
        if let Some(entity) = listener.and_then(|listener| self.net.core.listener_mut(listener)) {
            let was_full = entity.is_full();
            entity.stats.open -= 1;
            if let (true, Some(listener)) = (was_full, listener) {
                self.net.core.make_ready(listener);
            }
        }
    }

    /// With a listener goes whoever can be told of the connections that have no handler yet. Their
    /// handshakes end, and its hook hears of every failure. `false` if some of them wait to be
    /// buried, which has to come first.
    fn settle_handshakes(&mut self, listener: Token) -> bool {
        if self.net.core.listener_mut(listener).is_none_or(|l| l.unopened == 0) {
            return true;
        }
        let mut unopened = self.net.core.tokens();
        unopened.retain(|&token| {
            let stream = self.net.core.stream(token);
            stream.is_some_and(|s| s.listener() == Some(listener)) && !self.has_handler(token)
        });
        let mut all_told = true;
        for &token in &unopened {
            // One that is closing has come to its end already: the rest of a page, or of an alert,
            // still leaves.
            if self.net.core.stream(token).is_some_and(|s| !s.is_closing()) {
                self.net.core.finish(token, CloseReason::Cancelled);
                all_told = false;
            }
        }
        if all_told {
            for token in unopened {
                let reason = self.net.core.with(token, |conn| conn.take_reason()).flatten();
                self.call_on_unopened(token, reason.unwrap_or(CloseReason::Closed));
            }
        }
        all_told
    }

    fn call_on_close(&mut self, token: Token, mut role: AnyHandler<S>, closed: CloseInfo) {
        // Whatever a peer can cause is for those who look for it: it must not fill a log.
        let level = if closed.reason.is_orderly() { log::Level::Trace } else { log::Level::Debug };
        log_guarded(|| log::log!(level, "{token}: {closed}"));
        let Dispatch { net, state, .. } = self;
        let said = guarded(|| match &mut role {
            AnyHandler::Stream(handler) => {
                handler.on_close(&mut Context::new(state, net, token), &closed);
            }
            AnyHandler::Datagram(handler) => {
                handler.on_close(&mut Context::new(state, net, token), &closed);
            }
            AnyHandler::Listener(_) | AnyHandler::Source(_) => {}
        });
        if let Err(text) = said {
            log::error!("{token}: the handler panicked in on_close: {text}");
        }
        if let AnyHandler::Source(source) = &mut role
            && let Err(text) = guarded(|| source.deregister(&self.net.core.sys))
        {
            log::error!("{token}: the source panicked when it was deregistered: {text}");
        }
        drop_guarded(role);
        drop_guarded(closed);
    }

    /// The reactor is being dropped: everything ends, and nothing new is made.
    pub(super) fn close_everything(&mut self) {
        self.net.core.ended = true;
        for token in self.net.core.tokens() {
            self.net.core.finish_with_reactor(token);
        }
        // More than once if a listener has to wait for its handshakes.
        while !self.net.core.work.dead.is_empty() {
            self.reap();
        }
    }
}
