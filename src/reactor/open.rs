//! An accepted connection gets its handler; `on_open`.

use std::io;

use super::call::{Dispatch, acceptor};
use crate::address::Address;
use crate::connection::Opening;
use crate::error::CloseReason;
use crate::guard::guarded;
use crate::listener::Peer;
use crate::net::AnyHandler;
use crate::stats::Callback;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// An accepted connection's transport is established. Without a layer it opens at once.
    pub(super) fn established(&mut self, token: Token, from: Address) {
        if let Some(Opening::Ready) = self.net.core.with(token, |conn| conn.established(None)) {
            self.opened(token, Some(from));
        }
    }

    /// Every layer is ready. An accepted connection gets its handler; then `on_open`. `from` is the
    /// peer's address, if the caller has it.
    pub(super) fn opened(&mut self, token: Token, from: Option<Address>) {
        let Some((listener, known)) = self.net.core.with(token, |conn| conn.open()) else { return };
        if let Some(listener) = listener {
            let socket = || self.net.core.stream(token).and_then(|stream| stream.peer_addr());
            let Some(address) = from.or(known).or_else(socket) else {
                // The peer was reset before the connection opened.
                let gone = io::ErrorKind::NotConnected.into();
                return self.net.core.finish(token, CloseReason::Io(gone));
            };
            if !self.make_handler(token, listener, address) {
                return;
            }
        }
        self.net.core.with(token, |conn| conn.before_on_open());
        self.call(token, Callback::Open, |handler, cx| handler.on_open(cx));
        let Some(notifications) = self.net.core.with(token, |conn| conn.after_open()) else {
            return;
        };
        if !notifications.is_empty() {
            self.net.core.unpark_notifications(token, notifications);
        }
    }

    /// Lets the listener's factory make the handler. A factory that panics costs this connection.
    fn make_handler(&mut self, token: Token, listener: Token, address: Address) -> bool {
        let timed = self.net.core.work.timed;
        if timed {
            self.net.core.work.callback_begins(Callback::Factory);
        }
        let Dispatch { net, handlers, .. } = self;
        let Some(acceptor) = acceptor(&net.core, handlers, listener) else {
            // The listener has closed and ended its handshakes; this one completed in the same turn.
            net.core.finish(token, CloseReason::Cancelled);
            return false;
        };
        let layer = net.core.stream(token).and_then(|s| s.wire()).map(|wire| wire.layer());
        let peer = Peer { token, listener, address, layer };
        let made = guarded(|| acceptor.make(&peer));
        let address = peer.address;
        if timed {
            self.handler_returned(listener, Callback::Factory);
        }
        let net = &mut self.net;
        match made {
            Ok(handler) => {
                if let Some(listener) = net.core.listener_mut(listener) {
                    listener.unopened -= 1;
                }
                self.install(token, AnyHandler::Stream(handler));
                true
            }
            Err(text) => {
                log::error!("{token}: the handler factory panicked: {text}");
                // For `on_unopened`: getpeername(2) may fail by then.
                net.core.with(token, |conn| conn.stream.set_peer(address));
                net.core.finish(token, CloseReason::Panicked(text));
                false
            }
        }
    }
}
