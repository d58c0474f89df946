//! The handlers, and the guarded calls into them.

use crate::channel::Run;
use crate::connection::Input;
use crate::context::Context;
use crate::core::Core;
use crate::error::{CloseReason, HandlerResult};
use crate::guard::{drop_guarded, guarded, log_guarded};
use crate::handler::{DatagramHandler, Handler};
use crate::listener::Acceptor;
use crate::net::{AnyHandler, Net};
use crate::stats::Callback;
use crate::token::Token;

/// The handlers, the state and the network side by side, so that a call can borrow all three.
pub(super) struct Dispatch<S> {
    pub(super) net: Net<S>,
    pub(super) state: S,
    /// By the index of the token. The core checks the generation before this is indexed, and a slot is
    /// emptied before the core frees its token.
    pub(super) handlers: Vec<Option<AnyHandler<S>>>,
}

/// A listener's hooks and factory; `None` if the listener is gone, also if its slot is reused.
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

    /// Installs the handlers of sockets that callbacks made. Cheap when there are none, so every step
    /// does it before it calls a handler.
    pub(super) fn install_pending_handlers(&mut self) {
        while let Some((token, any)) = self.net.pending_handlers.pop() {
            self.install(token, any);
        }
    }

    pub(super) fn install(&mut self, token: Token, any: AnyHandler<S>) {
        if self.net.core.entity(token).is_none() {
            return drop_guarded(any);
        }
        #[cfg(feature = "sim")]
        let any = crate::witness::watched(any, token);
        let index = token.index();
        if index >= self.handlers.len() {
            self.handlers.resize_with(index + 1, || None);
        }
        self.handlers[index] = Some(any);
    }

    pub(super) fn has_handler(&self, token: Token) -> bool {
        self.handlers.get(token.index()).is_some_and(Option::is_some)
    }

    pub(super) fn take_handler(&mut self, token: Token) -> Option<AnyHandler<S>> {
        self.handlers.get_mut(token.index())?.take()
    }

    // ---- guarded calls ----

    /// Calls a stream's handler. The calling step flushes what the handler sends on its own connection.
    #[inline(always)] // each step is its only caller
    pub(super) fn call(
        &mut self,
        token: Token,
        which: Callback,
        callback: impl FnOnce(&mut dyn Handler<S>, &mut Context<'_, S>) -> HandlerResult,
    ) {
        self.call_any(token, which, |any, cx| match any {
            AnyHandler::Stream(handler) => callback(&mut **handler, cx),
            _ => Ok(()),
        });
    }

    /// Offers bytes to a stream's handler; returns how many it left.
    #[inline(never)]
    pub(super) fn offer(&mut self, token: Token, bytes: &[u8]) -> usize {
        self.offer_inlined(token, bytes)
    }

    /// The same, for the plain case.
    #[inline(always)]
    pub(super) fn offer_inlined(&mut self, token: Token, bytes: &[u8]) -> usize {
        let mut input = Input::new(bytes);
        self.call(token, Callback::Data, |handler, cx| handler.on_data(cx, &mut input));
        input.len()
    }

    /// Calls a UDP socket's handler.
    pub(super) fn call_datagram(
        &mut self,
        token: Token,
        which: Callback,
        callback: impl FnOnce(&mut dyn DatagramHandler<S>, &mut Context<'_, S>) -> HandlerResult,
    ) {
        self.call_any(token, which, |any, cx| match any {
            AnyHandler::Datagram(handler) => callback(&mut **handler, cx),
            _ => Ok(()),
        });
    }

    #[inline(always)]
    pub(super) fn call_any(
        &mut self,
        token: Token,
        which: Callback,
        callback: impl FnOnce(&mut AnyHandler<S>, &mut Context<'_, S>) -> HandlerResult,
    ) {
        // One test, and not one before and one after the call: it costs two instructions, not ten.
        if self.net.core.work.timed {
            return self.call_timed(token, which, callback);
        }
        self.call_untimed(token, callback);
    }

    #[cold]
    fn call_timed(
        &mut self,
        token: Token,
        which: Callback,
        callback: impl FnOnce(&mut AnyHandler<S>, &mut Context<'_, S>) -> HandlerResult,
    ) {
        self.install_pending_handlers();
        // A socket whose peers have sessions has no callbacks of its own: what is not called takes no time.
        let called = self.handlers.get(token.index()).and_then(Option::as_ref);
        if called.is_none_or(|any| matches!(any, AnyHandler::Gate(_))) {
            return self.call_untimed(token, callback);
        }
        self.net.core.work.callback_begins(which);
        self.call_untimed(token, callback);
        self.handler_returned(token, which);
    }

    #[inline(always)] // into both of the above
    fn call_untimed(
        &mut self,
        token: Token,
        callback: impl FnOnce(&mut AnyHandler<S>, &mut Context<'_, S>) -> HandlerResult,
    ) {
        let Some(result) = self.call_guarded(token, callback) else { return };
        let net = &mut self.net;
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

    /// Calls a handler, and returns its result or its panic's message; `None` if there is no handler.
    #[inline(always)]
    pub(super) fn call_guarded<R>(
        &mut self,
        token: Token,
        callback: impl FnOnce(&mut AnyHandler<S>, &mut Context<'_, S>) -> R,
    ) -> Option<Result<R, String>> {
        if !self.net.pending_handlers.is_empty() {
            self.install_pending_handlers();
        }
        let Dispatch { net, state, handlers } = self;
        let Some(Some(any)) = handlers.get_mut(token.index()) else { return None };
        net.core.work.current = Some(token);
        let result = guarded(|| callback(any, &mut Context::new(state, net, token)));
        net.core.work.current = None;
        Some(result)
    }

    /// Handles `most` messages of a channel; where callbacks are timed, each for itself.
    pub(super) fn run_of_channel(&mut self, run: &mut dyn Run<S>, most: usize) {
        if self.net.core.work.timed {
            for _ in 0..most {
                self.run_call(Callback::Post, |state, net| run.handle(1, state, net));
            }
        } else {
            run.handle(most, &mut self.state, &mut self.net);
        }
    }

    /// Runs a closure with the shared state and the network: of a post, a timer, or the `done` of a job.
    /// A panic in it is logged.
    pub(super) fn run_call(&mut self, which: Callback, call: impl FnOnce(&mut S, &mut Net<S>)) {
        let Dispatch { net, state, .. } = self;
        if net.core.work.timed {
            net.core.work.callback_begins(which);
        }
        if let Err(text) = guarded(|| call(state, net)) {
            log::error!("a closure panicked: {text}");
        }
        if self.net.core.work.timed {
            self.closure_returned(which);
        }
    }
}
