//! How long callbacks, hooks and turns take: only looked at if `Config::slow_callback` or
//! `Config::measure` asks for it (`Work::timed`).

use std::time::Duration;

use super::Reactor;
use super::call::Dispatch;
use crate::guard::guarded;
use crate::net::AnyHandler;
use crate::stats::{Callback, SlowCallback};
use crate::token::Token;

/// How often a slow callback is logged at most. The others are counted, and the next line says how many
/// they were.
const LOG_EVERY: Duration = Duration::from_secs(1);

impl<S: 'static> Dispatch<S> {
    /// A callback of the handler that `token` names has returned.
    #[cold]
    pub(super) fn handler_returned(&mut self, token: Token, callback: Callback) {
        let Some(took) = self.net.core.work.callback_ends() else { return };
        let handler = match self.handlers.get(token.index()) {
            Some(Some(any)) => name_of(any),
            _ => "",
        };
        self.is_slow(handler, callback.name(), Some(token), took);
    }

    /// The same for a handler that has left the table.
    #[cold]
    pub(super) fn last_callback_returned(&mut self, token: Token, any: &AnyHandler<S>) {
        let Some(took) = self.net.core.work.callback_ends() else { return };
        self.is_slow(name_of(any), Callback::Close.name(), Some(token), took);
    }

    /// The same for a closure of no socket.
    #[cold]
    pub(super) fn closure_returned(&mut self, callback: Callback) {
        if let Some(took) = self.net.core.work.callback_ends() {
            self.is_slow("closure", callback.name(), None, took);
        }
    }

    /// Tells the hook and the log.
    fn is_slow(
        &mut self,
        handler: &'static str,
        callback: &'static str,
        token: Option<Token>,
        took: Duration,
    ) {
        let slow = SlowCallback { handler, callback, token, took };
        let Dispatch { net, state, .. } = self;
        let (now, again) = (net.core.work.tick, net.core.work.tick_after_this_moment(LOG_EVERY));
        let told = &mut net.slow;
        told.in_this_turn = true;
        if now < told.silent_until {
            told.left_out += 1;
        } else {
            told.silent_until = again;
            match std::mem::take(&mut told.left_out) {
                0 => log::warn!("{slow}"),
                others => log::warn!("{slow} ({others} others since the last of these lines)"),
            }
        }
        if let Some(hook) = &mut told.hook
            && let Err(text) = guarded(|| hook(&slow, state))
        {
            log::error!("the hook for slow callbacks panicked: {text}");
        }
    }
}

/// The name of a handler's type. A name of the user's own may panic.
fn name_of<S>(any: &AnyHandler<S>) -> &'static str {
    guarded(|| match any {
        AnyHandler::Stream(handler) => handler.handler_name(),
        AnyHandler::Datagram(handler) => handler.handler_name(),
        AnyHandler::Listener(acceptor) => acceptor.handler_name(),
        AnyHandler::Gate(gate) => gate.handler_name(),
        AnyHandler::Source(source) => source.source_name(),
    })
    .unwrap_or("(a name that panicked)")
}

impl<S: 'static> Reactor<S> {
    /// The turn is over. One that was slow is told if none of its callbacks was.
    #[cold]
    pub(super) fn turn_ends(&mut self) {
        let net = &mut self.dispatch.net;
        let slow = net.core.work.turn_ends();
        if let Some(took) = slow
            && !net.slow.in_this_turn
        {
            self.dispatch.is_slow("Reactor", "turn", None, took);
        }
        self.dispatch.net.slow.in_this_turn = false;
    }
}
