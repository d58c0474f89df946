//! From a socket to an open connection: connecting, handshakes, `on_open`.

use std::io;

use super::dispatch::{Dispatch, acceptor};
use crate::address::Address;
use crate::connection::{Phase, Wire, WriteSide};
use crate::error::CloseReason;
use crate::guard::guarded;
use crate::listener::Peer;
use crate::net::Role;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// A connecting socket became writable: it stands, or it failed.
    pub(super) fn connected(&mut self, token: Token) {
        if self.net.core.look_at_attempts(token) {
            self.stands(token, None);
        }
    }

    /// The transport stands: the layers' handshakes are next, if there are layers.
    pub(super) fn stands(&mut self, token: Token, from: Option<Address>) {
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        stream.phase = Phase::Handshaking;
        stream.writable = true;
        self.net.core.forget_route(token);
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        if stream.wire().is_none() {
            return self.opened(token, from);
        }
        let after = stream.options().handshake_timeout;
        let deadline = self.net.core.tick_after_this_moment(after);
        if let Some(stream) = self.net.core.stream_mut(token) {
            stream.clock = deadline;
        }
        self.net.core.watch(token);
        if let Err(reason) = self.net.core.encode(token, |layer, buffer| layer.start(buffer)) {
            return self.net.core.fail(token, CloseReason::Layer(reason));
        }
        self.net.core.flush(token);
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        if stream.phase != Phase::Handshaking {
            return; // it failed to be flushed
        }
        match stream.wire_mut().map(Wire::look_whether_ready) {
            Some(Ok(true)) => self.opened(token, from),
            Some(Ok(false)) | None => {}
            Some(Err(e)) => self.net.core.fail(token, CloseReason::Layer(e)),
        }
    }

    /// Every layer is ready. An accepted connection gets its handler; then `on_open`.
    /// `from` is where it comes from, if that is known already.
    pub(super) fn opened(&mut self, token: Token, from: Option<Address>) {
        let tick = self.net.core.tick;
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        stream.phase = Phase::Open;
        stream.clock = tick;
        let listener = stream.settings.listener;
        let known = stream.extra.as_mut().and_then(|extra| extra.peer.take());
        self.net.core.watch(token);
        if let Some(listener) = listener {
            let address = from.or(known).or_else(|| self.net.core.whence(token));
            let Some(address) = address else {
                // The peer is gone before it was looked at.
                let gone = io::ErrorKind::NotConnected.into();
                return self.net.core.fail(token, CloseReason::Io(gone));
            };
            if !self.make_handler(token, listener, address) {
                return;
            }
        }
        self.net.core.encode_waiting(token);
        self.call(token, |handler, cx| handler.on_open(cx));
        self.net.core.recall_timers(token);
        self.net.core.release_signals(token);
        let Some(stream) = self.net.core.stream(token) else { return };
        if stream.phase == Phase::Open && stream.write == WriteSide::Ending {
            self.net.core.start_write_end(token);
        }
    }

    /// Lets the listener's factory make the handler. A factory that panics costs this connection.
    fn make_handler(&mut self, token: Token, listener: Token, address: Address) -> bool {
        let Dispatch { net, roles, .. } = self;
        let Some(acceptor) = acceptor(&net.core, roles, listener) else {
            // The listener is gone, and ended its handshakes as it went: this one finished meanwhile.
            net.core.fail(token, CloseReason::Cancelled);
            return false;
        };
        let layer = net.core.stream(token).and_then(|s| s.wire()).map(|wire| &*wire.layer);
        let peer = Peer { token, listener, address, layer };
        match guarded(|| acceptor.make(&peer)) {
            Ok(handler) => {
                if let Some(listener) = net.core.listener_mut(listener) {
                    listener.unopened -= 1;
                }
                self.install(token, Role::Stream(handler));
                true
            }
            Err(text) => {
                log::error!("{token}: the handler factory panicked: {text}");
                // For `on_unopened`: the socket may not know it any more.
                let address = peer.address;
                if let Some(stream) = net.core.stream_mut(token) {
                    stream.extra_mut().peer = Some(address);
                }
                net.core.fail(token, CloseReason::Panicked(text));
                false
            }
        }
    }
}
