//! Calls into handlers, guarded; and which step works on what.

use super::scratch::Scratch;
use crate::connection::{Conn, Input, Next};
use crate::context::Context;
use crate::core::{Core, Entity};
use crate::error::{CloseReason, HandlerResult};
use crate::guard::{drop_guarded, guarded, log_guarded};
use crate::handler::{DatagramHandler, Handler};
use crate::listener::Acceptor;
use crate::net::{AnyHandler, Net};
use crate::notification::Notification;
use crate::remote::Post;
use crate::source::Readiness;
use crate::sys::Ready;
use crate::token::Token;

/// The handlers beside the network, so that dispatch can borrow both at once.
pub(super) struct Dispatch<S> {
    pub(super) net: Net<S>,
    pub(super) state: S,
    /// By the index of the token. The core has checked the generation before anybody looks here,
    /// and a slot is emptied before the core frees its token.
    pub(super) handlers: Vec<Option<AnyHandler<S>>>,
}

/// The handlers' side of a listener; `None` if it is gone, whoever has its place now.
pub(super) fn acceptor<'a, S>(
    core: &Core,
    handlers: &'a mut [Option<AnyHandler<S>>],
    listener: Token,
) -> Option<&'a mut dyn Acceptor<S>> {
    core.entity(listener)?;
    match handlers.get_mut(listener.index()) {
        Some(Some(AnyHandler::Listener(acceptor))) => Some(&mut **acceptor),
        _ => None,
    }
}

impl<S: 'static> Dispatch<S> {
    pub(super) fn new(net: Net<S>, state: S) -> Self {
        Dispatch { net, state, handlers: Vec::new() }
    }

    // ---- the table of handlers ----

    /// Gives what callbacks created its handlers. Cheap when there is nothing, so that every step
    /// that is about to call somebody may ask for it.
    pub(super) fn install_pending_handlers(&mut self) {
        while let Some((token, role)) = self.net.pending_handlers.pop() {
            self.install(token, role);
        }
    }

    pub(super) fn install(&mut self, token: Token, role: AnyHandler<S>) {
        if self.net.core.entity(token).is_none() {
            return drop_guarded(role);
        }
        let index = token.index();
        if index >= self.handlers.len() {
            self.handlers.resize_with(index + 1, || None);
        }
        self.handlers[index] = Some(role);
    }

    pub(super) fn has_handler(&self, token: Token) -> bool {
        self.handlers.get(token.index()).is_some_and(Option::is_some)
    }

    pub(super) fn take_handler(&mut self, token: Token) -> Option<AnyHandler<S>> {
        self.handlers.get_mut(token.index())?.take()
    }

    // ---- guarded calls ----

    /// Calls a stream's handler. What it queued for itself is flushed by the step that called.
    pub(super) fn call(
        &mut self,
        token: Token,
        callback: impl FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>) -> HandlerResult,
    ) {
        self.call_any(token, |role, cx| match role {
            AnyHandler::Stream(handler) => callback(&mut **handler, cx),
            _ => Ok(()),
        });
    }

    /// Offers bytes to a stream's handler; returns how many it left.
    #[inline]
    pub(super) fn offer(&mut self, token: Token, bytes: &[u8]) -> usize {
        let mut input = Input::new(bytes);
        self.call(token, |handler, cx| handler.on_data(cx, &mut input));
        input.len()
    }

    /// Calls a UDP socket's handler.
    pub(super) fn call_datagram(
        &mut self,
        token: Token,
        callback: impl FnOnce(&mut dyn DatagramHandler<S>, &mut Context<'_, S>) -> HandlerResult,
    ) {
        self.call_any(token, |role, cx| match role {
            AnyHandler::Datagram(handler) => callback(&mut **handler, cx),
            _ => Ok(()),
        });
    }

    fn call_any(
        &mut self,
        token: Token,
        callback: impl FnOnce(&mut AnyHandler<S>, &mut Context<'_, S>) -> HandlerResult,
    ) {
        if !self.net.pending_handlers.is_empty() {
            self.install_pending_handlers();
        }
        let Dispatch { net, state, handlers } = self;
        let Some(Some(role)) = handlers.get_mut(token.index()) else { return };
        net.core.work.current = Some(token);
        let result = guarded(|| callback(role, &mut Context::new(state, net, token)));
        net.core.work.current = None;
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                log_guarded(|| log::debug!("{token}: the handler returned an error: {error}"));
                net.core.close(token, Some(CloseReason::Handler(error)));
            }
            Err(text) => {
                log::error!("{token}: the handler panicked: {text}");
                net.core.finish(token, CloseReason::Panicked(text));
            }
        }
    }

    /// Runs a closure with the shared state and the network; one that panics harms nothing else.
    pub(super) fn run_call(&mut self, call: impl FnOnce(&mut S, &mut Net<S>)) {
        let Dispatch { net, state, .. } = self;
        if let Err(text) = guarded(|| call(state, net)) {
            log::error!("a posted closure panicked: {text}");
        }
    }

    // ---- the steps that only sort ----

    pub(super) fn message(&mut self, message: Post<S>) {
        match message {
            Post::Call(call) => self.run_call(call),
            Post::Notification(token, value) => {
                self.net.core.notifications.push_back((token, Notification::from_box(value)));
            }
            Post::Send(token, kind, bytes) => {
                self.net.core.send(token, &bytes, kind);
            }
            Post::SendTo(token, to, bytes) => {
                self.net.core.send_datagram(token, Some(to), &bytes);
            }
            Post::Close(token) => self.net.core.close(token, None),
            Post::Abort(token) => self.net.core.abort(token),
            Post::Stop => self.net.stop(),
            Post::Shutdown(grace) => self.net.shutdown(grace),
        }
    }

    /// A readiness event. One of a socket that is gone, or whose slot has a new owner, is nobody's.
    /// What stands on the ready queue is served from there and not twice in one turn.
    pub(super) fn event(&mut self, ready: Ready, scratch: &mut Scratch) {
        let Some(token) = Token::from_usize(ready.token) else { return };
        let Some((entity, work)) = self.net.core.of_event(token) else {
            return log::trace!("an event for {token}, which is gone");
        };
        match entity {
            Entity::Stream(stream) => {
                stream.note(ready);
                if stream.is_in_ready() {
                    return;
                }
                let mut conn = Conn { token, stream, work };
                if conn.work.units == 0 {
                    return conn.make_ready_later();
                }
                if conn.work.in_line {
                    return conn.make_ready();
                }
                match conn.read_plain(&mut scratch.read) {
                    Some(Next::Read { len, more }) => {
                        self.net.core.begin_reply(token);
                        self.offer_plain(token, (len, more), scratch);
                    }
                    // The end, or an error: the general case goes on from there.
                    _ => self.serve_stream(token, scratch),
                }
            }
            Entity::Listener(listener) => {
                if !listener.in_ready {
                    self.accept(token);
                }
            }
            Entity::Datagram(socket) => {
                socket.note(ready);
                let served_later = socket.in_ready;
                self.look_at_datagram_error(token, ready);
                if !served_later {
                    self.serve_datagrams(token, scratch);
                }
            }
            Entity::Source(source) => {
                if source.dead {
                    return;
                }
                let ready = Readiness {
                    readable: ready.has(Ready::READABLE),
                    writable: ready.has(Ready::WRITABLE),
                    closed: ready.has(Ready::READ_CLOSED | Ready::ERROR),
                };
                self.call_any(token, |role, cx| match role {
                    AnyHandler::Source(source) => source.fire(cx, ready),
                    _ => Ok(()),
                });
            }
        }
    }

    /// What earlier turns, or callbacks of this one, left to do; and signals. What is added
    /// meanwhile waits for the next turn.
    pub(super) fn leftovers(&mut self, scratch: &mut Scratch) {
        for _ in 0..self.net.core.work.ready.len() {
            if self.net.core.work.units == 0 {
                break; // the rest keeps its place, and the next turn begins at once
            }
            let Some(token) = self.net.core.next_ready() else { break };
            match self.net.core.entity(token) {
                Some(Entity::Stream(_)) => self.serve_stream(token, scratch),
                Some(Entity::Listener(_)) => self.accept(token),
                Some(Entity::Datagram(_)) => self.serve_datagrams(token, scratch),
                Some(Entity::Source(_)) | None => {}
            }
        }
        let signals = self.net.core.notifications.len().min(self.net.core.config.posts_per_turn);
        for _ in 0..signals {
            let Some((token, signal)) = self.net.core.notifications.pop_front() else { break };
            self.notify(token, signal);
        }
    }

    fn notify(&mut self, token: Token, signal: Notification) {
        match self.net.core.entity(token) {
            Some(Entity::Stream(stream)) if stream.has_callbacks() => {
                self.call(token, |handler, cx| handler.on_notify(cx, signal));
                self.net.core.flush(token);
            }
            // Delivered once the connection is open.
            Some(Entity::Stream(stream)) if stream.is_opening() => {
                self.net.core.park_notification(token, signal);
            }
            Some(Entity::Datagram(_)) => {
                if !self.open_datagram(token) {
                    return drop_guarded(signal);
                }
                self.call_datagram(token, |handler, cx| handler.on_notify(cx, signal));
                self.net.core.flush_datagrams(token);
            }
            _ => drop_guarded(signal),
        }
    }

    /// The end of the turn: what was sent to others leaves.
    pub(super) fn flush(&mut self) {
        self.net.core.flush_groups_of_turn();
        let mut dirty = std::mem::take(&mut self.net.core.work.dirty);
        for token in dirty.drain(..) {
            if self.net.core.with(token, |conn| conn.flush_owed()).is_none() {
                self.net.core.flush_datagrams(token);
            }
        }
        // Flushing may have closed something and so queued for others; those wait for the next turn.
        dirty.append(&mut self.net.core.work.dirty);
        self.net.core.work.dirty = dirty;
    }
}
