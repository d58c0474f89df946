//! Connections by token: sending, closing, pausing, pairing, asking.

use std::any::{Any, TypeId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Net;
use crate::address::Address;
use crate::connection::{OwnEnd, SendStatus};
use crate::core::{Entity, ListenerStats};
use crate::error::Error;
use crate::layer::Layer;
use crate::message::{IntoMessage, Message};
use crate::notification::Notification;
use crate::socket_options::MulticastInterface;
use crate::token::Token;

/// Connections by token.
impl<S> Net<S> {
    /// Sends on a connection: a copy is queued, or written. A large slice is written at once if
    /// nothing waits before it. The bytes pass the connection's own layers.
    ///
    /// Output of a callback on its own connection leaves when the callback returns, one write for
    /// all of it; output to other connections at the end of the turn.
    ///
    /// For a UDP socket's token it sends a datagram to the peer the socket is connected to. If it is
    /// not connected, the system refuses the datagram when it is to leave (EDESTADDRREQ), and
    /// [`on_error`](crate::DatagramHandler::on_error) is called.
    ///
    /// A message is any bytes, or a [`Message`](crate::Message) that says whether it is text or binary,
    /// for wire formats that tell them apart.
    pub fn send(&mut self, to: Token, message: impl IntoMessage) -> SendStatus {
        let Message { bytes, kind } = message.into_message();
        self.core.send(to, bytes.as_ref(), kind)
    }

    /// Like [`send`](Self::send), for bytes that are shared: large ones are queued by reference.
    pub fn send_shared(&mut self, to: Token, bytes: &Arc<[u8]>) -> SendStatus {
        self.core.send_shared(to, bytes)
    }

    /// Sends a datagram from a UDP socket. It leaves when the callback returns, or at the end of the
    /// turn, and in the order of the calls.
    pub fn send_to(&mut self, from: Token, to: SocketAddr, bytes: impl AsRef<[u8]>) -> SendStatus {
        self.core.send_datagram(from, Some(to), bytes.as_ref())
    }

    /// Closes gracefully: flushes what was sent, ends the write side, discards what still comes until
    /// the peer ends too or [`close_timeout`](crate::StreamOptions::close_timeout) passes (flushing
    /// itself takes as long as the peer takes some of it). A
    /// listener, a UDP socket or a custom source is closed at once; an outgoing connection that is
    /// not established yet is cancelled. What still waits for a late layer's handshake is lost; the reason is
    /// [`Cancelled`](crate::CloseReason::Cancelled) then.
    ///
    /// An error that the callback returns after this call is the reason all the same.
    pub fn close(&mut self, token: Token) {
        self.core.close(token, None);
    }

    /// Closes gracefully, as [`close`](Self::close) does, and says why in the terms of the wire format.
    ///
    /// A WebSocket puts `code` and `reason` into its Close frame (RFC 6455 section 7.4): 3000 to 4999
    /// are for programs, 1000 to 1011 have their meanings. A code that no frame may carry (1005, 1006,
    /// 1015, those below 1000) leaves a Close frame without code and reason; the reason is cut to 123
    /// bytes. Without a choice the code is 1000 for [`close`](Self::close), 1001 for
    /// [`close_all`](Self::close_all), a shutdown's deadline and a dropped reactor, and 1011 where the
    /// handler failed. A format without codes ignores both. An error that was to end the connection is
    /// said instead.
    pub fn close_with(&mut self, token: Token, code: u16, reason: impl Into<String>) {
        self.core.close_with(token, OwnEnd::Chosen { code, reason: reason.into() });
    }

    /// Closes gracefully as soon as nothing is owed on the connection: at once, unless its output is
    /// above its high mark or `on_drain` has not been called for that yet (then its handler may have
    /// more to say), or an answer is [held](Self::hold) for. Until then everything goes on: callbacks,
    /// sends, reads. The default [`on_eof`](crate::Handler::on_eof) calls it. Anything else than a
    /// connection is closed at once.
    pub fn close_when_done(&mut self, token: Token) {
        self.core.close_when_done(token);
    }

    /// Notes that an answer on this connection comes later, from another handler, a timer or another
    /// thread: [`close_when_done`](Self::close_when_done), and so the default
    /// [`on_eof`](crate::Handler::on_eof), waits for it. Holds are counted; each needs one
    /// [`release`](Self::release). `false` if there is no open connection of this token.
    ///
    /// A hold keeps nothing else from ending the connection: not `close` and `abort`, no error, no
    /// deadline, no shutdown. One that is never released leaves a connection whose peer has ended its
    /// side open until one of those comes, so that a service with holds sets an
    /// [`idle_timeout`](crate::StreamOptions::idle_timeout).
    pub fn hold(&mut self, token: Token) -> bool {
        self.core.hold_open(token)
    }

    /// Takes one [hold](Self::hold) back: call it behind the `send` of the answer, from wherever that
    /// is. A connection that waited for the last one is closed, after flushing. `false` if none was
    /// left, or the connection is gone.
    pub fn release(&mut self, token: Token) -> bool {
        self.core.release_hold(token)
    }

    /// Ends at once: what is unsent is lost, and the peer of a TCP connection sees a reset. A Unix
    /// socket cannot be made to send one: its peer sees an end as a rule, and only a format with an
    /// end of its own (TLS, say) can tell it from a proper one. An error that was to end it already stays the reason.
    pub fn abort(&mut self, token: Token) {
        self.core.abort(token);
    }

    /// Half-close: ends the write side once everything queued has been written (shutdown(2)). The
    /// peer's data is received as before. Calling it twice is harmless. A connection whose both
    /// directions have ended closes by itself.
    pub fn half_close(&mut self, token: Token) {
        self.core.with_settled(token, |conn| conn.half_close());
    }

    /// Closes all connections gracefully, as [`close`](Self::close) does one; those that are not
    /// established yet are cancelled. Listeners, UDP sockets and custom sources stay. With
    /// [`shutdown`](Self::shutdown) before it, it is the end of a service that does not wait for its
    /// peers to have enough.
    pub fn close_all(&mut self) {
        for token in self.core.tokens() {
            if self.core.stream(token).is_some() {
                self.core.close_with(token, OwnEnd::GoingAway);
            }
        }
    }

    /// Stops reading from a connection: no `on_data` and no `on_eof` until
    /// [`resume`](Self::resume). What arrives waits in the system's buffer, and the peer is slowed
    /// down when that is full. If the connection is reset meanwhile, what had arrived is offered
    /// before `on_close`, paused or not, up to
    /// [`unread_limit`](crate::StreamOptions::unread_limit) bytes; a handler that has no room for it
    /// leaves it.
    ///
    /// A paused listener accepts nobody: a new peer waits in its backlog, and is refused by the system
    /// when that is full. A paused UDP socket receives nothing more (what was received in one batch
    /// with the current datagram is still delivered); what does not fit its buffer is lost.
    pub fn pause(&mut self, token: Token) {
        self.core.set_paused(token, true);
    }

    /// Goes on reading, accepting or receiving.
    pub fn resume(&mut self, token: Token) {
        self.core.set_paused(token, false);
    }

    /// Pairs two connections, for a proxy: each one's reads pause while the *other's* output is
    /// above its high mark, in place of the rule that looks at its own. The pair comes apart when
    /// one of them closes. `false` if one is gone or both are the same.
    ///
    /// The handlers pass on what they receive; where no code has to look at it, [`relay`](Self::relay)
    /// does all of it. Pairing two that are relayed ends the relay.
    pub fn pair(&mut self, a: Token, b: Token) -> bool {
        self.core.pair_up(a, b)
    }

    /// Joins two connections, for a proxy that need not look at what passes: from now on whatever
    /// either brings is sent on to the other by the reactor itself.
    ///
    /// - **Data.** What a handler has not taken goes first, so that one that has read a proxy
    ///   header or a `CONNECT` takes just that and relays the rest. Neither handler gets `on_data`
    ///   or `on_eof`; all other callbacks come as ever, and either may still
    ///   [`send`](Self::send), behind what has been passed on. Each connection keeps its layers:
    ///   what one decodes the other encodes, message by message.
    /// - **Back-pressure**, as by [`pair`](Self::pair): while one's output is above its high mark
    ///   the other is not read, also while it still connects or shakes hands. One read's worth
    ///   ([`Config::read_buffer`](crate::Config::read_buffer)) may go over the mark.
    /// - **Ends.** A peer's end is passed on once everything before it has been written
    ///   ([`half_close`](Self::half_close)), and the other direction goes on. When one
    ///   connection is closed, the other is closed too, and each is flushed. When one ends badly
    ///   (a reset, a failed connect, a deadline, an error of its handler or layer), the other is
    ///   aborted, because its peer must not take that for an end (on a Unix socket it may: see
    ///   [`abort`](Self::abort)); the one whose handler or layer returned the error is closed in order, as ever. As on
    ///   one connection, a reset may destroy what is on its way; what the system took no more of is in
    ///   [`CloseInfo::unsent`](crate::CloseInfo::unsent).
    ///
    /// A relay has no holes: what the other connection has no room for
    /// ([`output_limit`](crate::StreamOptions::output_limit), whatever its
    /// [`Overflow`](crate::Overflow) says), or cannot say in its format, ends both. What comes
    /// behind a `half_close` that *you* called on the other one is dropped.
    ///
    /// A new `relay` or `pair` of one of them ends this one, and handlers are called again.
    /// `false` if one is gone or closing, or both are the same.
    ///
    /// With the feature `splice`, on Linux and Android, big blocks between TCP or Unix sockets
    /// without layers are not copied through this process (splice(2)). A write like that to a peer
    /// that is gone raises `SIGPIPE`, which Rust programs ignore from their start; a host in another
    /// language has to do so itself.
    pub fn relay(&mut self, a: Token, b: Token) -> bool {
        self.core.relay(a, b)
    }

    /// Posts a typed message to another handler; its `on_notify` is called later in this turn or in
    /// the next. `false` if there is nobody to get it.
    pub fn notify<T: 'static>(&mut self, to: Token, value: T) -> bool {
        let known = match self.core.entity(to) {
            Some(Entity::Stream(s)) => s.has_callbacks() || s.is_opening(),
            Some(Entity::Datagram(d)) => !d.dead,
            _ => false,
        };
        if known {
            self.core.notifications.push_back((to, Notification::new(value)));
        }
        known
    }

    /// Whether the token names something that is not closed or closing.
    pub fn is_open(&self, token: Token) -> bool {
        match self.core.entity(token) {
            Some(Entity::Stream(s)) => s.is_live(),
            Some(Entity::Datagram(d)) => !d.dead,
            Some(Entity::Listener(l)) => !l.dead,
            Some(Entity::Source(s)) => !s.dead,
            None => false,
        }
    }

    /// How many bytes wait to be written, as encoded for the wire; those that wait for a layer to be
    /// ready, or were published to its groups and leave at the end of the turn, as they were sent.
    pub fn queued(&self, token: Token) -> usize {
        self.core.unsent(token)
    }

    /// Whether a connection's queued output has been above its high mark and is not yet down at the
    /// low one, or will be above it with what was published to its groups in this turn: a sender that can wait should, until `on_drain`. `false` for anything else. The marks
    /// are [`StreamOptions::high_water`](crate::StreamOptions::high_water).
    pub fn is_above_high_water(&self, token: Token) -> bool {
        self.core.is_above_high_water(token)
    }

    /// Where the peer of a connection (or of a connected UDP socket) is. The system forgets it when
    /// the connection has ended, so that `on_close` may get `None`; the listener's factory still gets it.
    pub fn peer_addr(&self, token: Token) -> Option<Address> {
        match self.core.entity(token)? {
            Entity::Stream(s) => s.socket().peer_addr().ok(),
            Entity::Datagram(d) => d.socket.peer_addr().ok().map(Address::Ip),
            _ => None,
        }
    }

    /// The local address of anything that has one; the first, of a listener on several.
    pub fn local_addr(&self, token: Token) -> Option<Address> {
        match self.core.entity(token)? {
            Entity::Stream(s) => s.socket().local_addr().ok(),
            Entity::Datagram(d) => d.socket.local_addr().ok().map(Address::Ip),
            Entity::Listener(l) => l.sockets.first()?.socket.local_addr().ok(),
            Entity::Source(_) => None,
        }
    }

    /// All local addresses of a listener.
    pub fn local_addrs(&self, token: Token) -> Vec<Address> {
        match self.core.entity(token) {
            Some(Entity::Listener(l)) => {
                l.sockets.iter().filter_map(|l| l.socket.local_addr().ok()).collect()
            }
            _ => self.local_addr(token).into_iter().collect(),
        }
    }

    /// What a connection's layers have learned of the peer; each layer documents the types it
    /// answers to.
    pub fn layer_info<T: Any>(&self, token: Token) -> Option<&T> {
        self.core.stream(token)?.wire()?.layer().layer_info(TypeId::of::<T>())?.downcast_ref()
    }

    /// Puts a layer on a connection in mid-stream, beneath those it has: nearest to the wire. What
    /// is queued leaves as it is; what was received and neither decoded nor taken, and all that
    /// comes, passes the new layer. What is sent waits until it is ready.
    ///
    /// Call it from the connection's own `on_data`, after having taken the bytes that belong to the
    /// old format and before sending in the new one.
    ///
    /// `false` if the connection is not open, or either side has ended; or if the layers it has hold,
    /// or have looked at, bytes behind those the handler was given. These came in clear: somebody on
    /// the line may have slipped them in to have them read as if they had come through the new layer
    /// (CVE-2011-0411). The connection is closed for it, with a
    /// [`LayerError`](crate::layer::LayerError) of the kind `Malformed` as the reason.
    pub fn start_layer(&mut self, token: Token, layer: impl Layer + 'static) -> bool {
        let layer = Box::new(layer);
        self.core.with_settled(token, |conn| conn.start_layer(layer)) == Some(true)
    }

    /// What a listener has seen.
    pub fn listener_stats(&self, token: Token) -> Option<ListenerStats> {
        match self.core.entity(token)? {
            Entity::Listener(l) => Some(l.stats),
            _ => None,
        }
    }

    /// Joins a multicast group on a UDP socket.
    ///
    /// # Errors
    /// The token names no UDP socket, or the system refuses.
    pub fn join_multicast(
        &mut self,
        token: Token,
        group: IpAddr,
        interface: MulticastInterface,
    ) -> Result<(), Error> {
        self.core.multicast(token, group, interface, true)
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    /// The token names no UDP socket, or the system refuses.
    pub fn leave_multicast(
        &mut self,
        token: Token,
        group: IpAddr,
        interface: MulticastInterface,
    ) -> Result<(), Error> {
        self.core.multicast(token, group, interface, false)
    }
}
