//! Operations on one connection, by token: sending, closing, pausing, pairing, queries.

use std::any::{Any, TypeId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Net;
use crate::address::Address;
use crate::connection::{NewestStats, OwnEnd, SendStatus, Stream};
use crate::core::{Entity, ListenerStats};
use crate::error::Error;
use crate::layer::Layer;
use crate::message::{IntoMessage, Message};
use crate::notification::Notification;
use crate::options::StreamOptions;
#[cfg(feature = "packet-info")]
use crate::packet_info::SendTo;
use crate::socket_options::MulticastInterface;
use crate::token::Token;

/// Connections by token.
impl<S> Net<S> {
    /// Sends a message on a connection. The bytes are copied into its output queue; a large slice
    /// is written at once if the queue is empty. The message passes the layers of that connection.
    ///
    /// Output of a callback on its own connection is written when the callback returns, in one
    /// write. Output to other connections is written at the end of the turn.
    ///
    /// A message is any bytes, or a [`Message`](crate::Message) with a kind (text or binary) for
    /// wire formats that distinguish them.
    ///
    /// With the token of a UDP socket it sends a datagram to the peer that the socket is connected
    /// to. On an unconnected socket the system refuses the datagram (EDESTADDRREQ), and
    /// [`on_error`](crate::DatagramHandler::on_error) is called with that error.
    ///
    /// With the token of a [session](Self::bind_sessions) it sends a datagram to the session's peer.
    pub fn send(&mut self, to: Token, message: impl IntoMessage) -> SendStatus {
        let Message { bytes, kind } = message.into_message();
        self.core.send(to, bytes.as_ref(), kind)
    }

    /// Like [`send`](Self::send), for shared bytes: large ones are queued by reference and not
    /// copied.
    pub fn send_shared(&mut self, to: Token, bytes: &Arc<[u8]>) -> SendStatus {
        self.core.send_shared(to, bytes)
    }

    /// Sends a value of which only the newest counts: it replaces the one that was sent with the same
    /// key before, if no byte of that has left.
    ///
    /// Values wait in a line of their own, not encoded yet, and leave when the system takes output, in
    /// batches of 2 to 16 KiB. A value that takes the place of an older one
    /// ([`Replaced`](SendStatus::Replaced)) takes its place in the line as well. So a key that changes
    /// often does not wait longer than others: what a peer gets is at most one round of all keys old,
    /// however slowly it reads. (In the order of the last change it would go to the end of the line each
    /// time, and might never leave.) A value that has left, or that a layer has encoded, is not
    /// replaced: a peer never gets a part of one.
    ///
    /// - **Order.** What [`send`](Self::send) has queued goes first. Between each other values leave in
    ///   the order in which their keys began to wait. A flow of ordinary messages that the peer cannot
    ///   keep up with keeps values waiting.
    /// - **Limits.** Values that wait count towards
    ///   [`output_limit`](crate::StreamOptions::output_limit), each with 64 bytes more than its length:
    ///   one that does not fit is [`Full`](SendStatus::Full), and the older one with its key stays. They
    ///   do not count towards the water marks, since there are never more than keys. A peer that takes
    ///   nothing at all is closed after the [`stall_timeout`](crate::StreamOptions::stall_timeout).
    /// - **Ends.** [`close`](Self::close) and [`half_close`](Self::half_close) send all that wait;
    ///   [`abort`](Self::abort) and errors drop them, and
    ///   [`CloseInfo::unsent`](crate::CloseInfo::unsent) counts them.
    /// - **Layers** encode a value when it leaves. One that waits when a layer is
    ///   [started](Self::start_layer) leaves through it.
    /// - **When all has left** `on_drain` says so, if both water marks are zero.
    /// - **Connections only.** For a UDP socket or a session it is [`Gone`](SendStatus::Gone), as for a token
    ///   that names nothing, and nothing is sent: a datagram does not wait behind others of its peer.
    ///   Use [`send`](Self::send), and [`clear_queue`](Self::clear_queue) before what replaces all of it.
    ///
    /// The system has a buffer of its own, in which nothing is replaced, and which may grow to megabytes:
    /// set [`SocketOptions::not_sent_low_water`](crate::SocketOptions::not_sent_low_water) or
    /// [`send_buffer`](crate::SocketOptions::send_buffer).
    ///
    /// ```
    /// # use tidegate::{Net, Token};
    /// struct Position {
    ///     player: u64,
    ///     x: f32,
    ///     y: f32,
    /// }
    ///
    /// /// However slowly this peer reads, it gets the positions of now.
    /// fn moved(net: &mut Net, peer: Token, position: &Position) {
    ///     let Position { player, x, y } = position;
    ///     net.send_latest(peer, *player, format!("{player} is at {x} {y}\n"));
    /// }
    /// ```
    pub fn send_latest(&mut self, to: Token, key: u64, message: impl IntoMessage) -> SendStatus {
        let Message { bytes, kind } = message.into_message();
        self.core.send_latest(to, key, bytes.as_ref(), kind)
    }

    /// Drops the values of [`send_latest`](Self::send_latest) and
    /// [`publish_latest`](Self::publish_latest) that wait for a connection, for instance before a new
    /// snapshot of everything. Returns how many.
    ///
    /// What `send` or `publish` has queued stays: a stream has no borders between messages that this
    /// side could cut at, and layers have counted those messages already. Give a message that may have to
    /// be discarded a key of its own (a counter), and send it with `send_latest`.
    pub fn discard_queued(&mut self, token: Token) -> usize {
        self.core.discard_values(token)
    }

    /// What is known of the values of [`send_latest`](Self::send_latest) and
    /// [`publish_latest`](Self::publish_latest) of a connection: those that wait, and how many were
    /// replaced. Also available in `on_close`; `None` for anything other than a connection.
    pub fn newest_stats(&self, token: Token) -> Option<NewestStats> {
        Some(self.core.stream(token)?.newest_stats())
    }

    /// Whether a connection has fallen behind: more than
    /// [`behind_above`](crate::StreamOptions::behind_above) bytes are queued, or they were when a group
    /// had [values](Self::publish_latest) for it, and it has not caught up since. `false` for anything
    /// other than a connection.
    pub fn is_behind(&self, token: Token) -> bool {
        self.core.stream(token).is_some_and(Stream::is_behind)
    }

    /// Sends a datagram from a UDP socket. Datagrams leave in the order of the calls, when the
    /// callback returns or at the end of the turn.
    pub fn send_to(&mut self, from: Token, to: SocketAddr, bytes: impl AsRef<[u8]>) -> SendStatus {
        self.core.send_datagram(from, Some(to), bytes.as_ref())
    }

    /// Sends a datagram from a chosen address of this host, or with an ECN mark. The socket must have been
    /// made with [`Udp::packet_info`](crate::Udp::packet_info), unless neither is chosen; otherwise the
    /// status is [`Unencodable`](SendStatus::Unencodable). An address that this host does not have is an
    /// error of the system (`EINVAL` or `ENETUNREACH` on Linux), which `on_error` gets.
    ///
    /// ```
    /// # use tidegate::{Context, Datagram, DatagramHandler, HandlerResult, SendTo};
    /// # struct Answers;
    /// impl DatagramHandler for Answers {
    ///     fn on_datagram(&mut self, cx: &mut Context<'_>, question: Datagram<'_>) -> HandlerResult {
    ///         cx.send_datagram(SendTo::reply(&question), "from the address that was asked");
    ///         Ok(())
    ///     }
    /// }
    /// ```
    #[cfg(feature = "packet-info")]
    pub fn send_datagram(
        &mut self,
        from: Token,
        to: SendTo,
        bytes: impl AsRef<[u8]>,
    ) -> SendStatus {
        self.core.send_chosen(from, to, bytes.as_ref())
    }

    /// Drops the datagrams that were sent on a UDP socket, or to one [session](Self::bind_sessions)'s
    /// peer, and have not left: those in the socket's queue, and what was published to the session.
    /// Returns how many bytes that were. For state that is sent anew all the time, so that what waits
    /// is stale. Costs a pass over the queue, which is empty as long as the system takes what is sent.
    /// Zero for any other token.
    pub fn clear_queue(&mut self, token: Token) -> usize {
        self.core.clear_queue(token)
    }

    /// Closes gracefully: writes the queued output, ends the write side, then discards input until
    /// the peer ends its side too or [`close_timeout`](crate::StreamOptions::close_timeout) passes.
    /// Writing takes as long as the peer takes some of the output within each
    /// [`stall_timeout`](crate::StreamOptions::stall_timeout).
    ///
    /// A listener, a UDP socket, a session or a custom source closes at once; datagrams that were sent
    /// before still leave. An outgoing connection that is
    /// not established yet is cancelled. Output that waits for the handshake of a late layer is
    /// lost; the reason is then [`Cancelled`](crate::CloseReason::Cancelled).
    ///
    /// If the callback returns an error after this call, that error is the reason.
    pub fn close(&mut self, token: Token) {
        self.core.close(token, None);
    }

    /// Closes gracefully, as [`close`](Self::close) does, with a code and a reason for the peer
    /// where the wire format has them.
    ///
    /// A WebSocket puts `code` and `reason` into its Close frame (RFC 6455 section 7.4): 3000 to
    /// 4999 are free for programs, 1000 to 1011 have defined meanings. A code that must not be sent
    /// (1005, 1006, 1015, any below 1000) results in a Close frame without code and reason. The
    /// reason is cut to 123 bytes. The default code is 1000 for [`close`](Self::close); 1001 for
    /// [`close_all`](Self::close_all), the deadline of a shutdown and a dropped reactor; 1011 where
    /// the handler failed.
    ///
    /// A format without codes ignores both. If an error already ends the connection, the code of
    /// that error is sent instead.
    pub fn close_with(&mut self, token: Token, code: u16, reason: impl Into<String>) {
        self.core.close_with(token, OwnEnd::Chosen { code, reason: reason.into() });
    }

    /// Closes gracefully as soon as the handler has no more to send. That is at once, unless
    ///
    /// - the output is above its high-water mark, or was and `on_drain` has not been called for it
    ///   yet: the handler may continue there; or
    /// - a reply is [held](Self::hold) for.
    ///
    /// Until then callbacks, sends and reads continue. The default
    /// [`on_eof`](crate::Handler::on_eof) calls this. Anything other than a connection closes at
    /// once.
    pub fn close_when_done(&mut self, token: Token) {
        self.core.close_when_done(token);
    }

    /// Announces that a reply on this connection is sent later, by another handler, a timer or
    /// another thread. [`close_when_done`](Self::close_when_done), and so the default
    /// [`on_eof`](crate::Handler::on_eof), waits for it. Holds are counted; each needs one
    /// [`release`](Self::release). `false` if the token names no open connection.
    ///
    /// A hold delays nothing else: `close`, `abort`, an error, a deadline or a shutdown ends the
    /// connection as usual. After the peer has ended its side, a hold that is never released keeps
    /// the connection open until one of those comes. A service with holds therefore sets an
    /// [`idle_timeout`](crate::StreamOptions::idle_timeout).
    pub fn hold(&mut self, token: Token) -> bool {
        self.core.hold_open(token)
    }

    /// Takes back one [hold](Self::hold). Call it after the `send` of the reply. If the connection
    /// waits only for this hold, it is flushed and closed. `false` if no hold is left or the
    /// connection is closed.
    pub fn release(&mut self, token: Token) -> bool {
        self.core.release_hold(token)
    }

    /// Ends a connection at once: queued output is lost, and the peer of a TCP connection receives
    /// a reset. If an error already ends the connection, that error stays the reason.
    ///
    /// A Unix socket cannot send a reset: its peer usually sees an ordinary end-of-stream. Only a
    /// format with an end of its own (TLS, for example) lets it tell the two apart.
    pub fn abort(&mut self, token: Token) {
        self.core.abort(token);
    }

    /// Half-close: ends the write side once everything queued has been written (shutdown(2)).
    /// Receiving continues. A second call has no effect. A connection closes by itself when both
    /// directions have ended.
    pub fn half_close(&mut self, token: Token) {
        self.core.with_settled(token, |conn| conn.half_close());
    }

    /// Closes all connections and sessions gracefully, as [`close`](Self::close) does; outgoing ones that are
    /// not established yet are cancelled. Listeners, UDP sockets, custom sources and the connections of a
    /// backplane stay open. Call
    /// [`shutdown`](Self::shutdown) and then this to end a service without waiting for its peers to
    /// close.
    pub fn close_all(&mut self) {
        let bridge = self.bridge_connections();
        for token in self.core.tokens() {
            let is_peer = self.core.stream(token).is_some() || self.core.session(token).is_some();
            if is_peer && !bridge.contains(&token) {
                self.core.close_with(token, OwnEnd::GoingAway);
            }
        }
    }

    /// Asks for [`on_batch_end`](crate::Handler::on_batch_end): the handler of a connection is called
    /// once more when the input that has arrived is used up. Asking again within the batch, as a handler
    /// does that asks with every message, changes nothing; the next batch needs a request of its own. A
    /// request that is made outside `on_data` comes in this turn or the next, behind whatever input waits
    /// then; one that is made in `on_batch_end` means the batch that ends there.
    ///
    /// Costs one more step of the connection for each batch, and nothing without a request. `false`, and
    /// nothing done, if the connection is not open or its peer has ended, and for anything other than a
    /// connection.
    ///
    /// ```
    /// use tidegate::{Context, Group, Handler, HandlerResult, Input};
    ///
    /// /// Gets a price with each message, and tells the newest to a group.
    /// struct Prices {
    ///     listeners: Group,
    ///     newest: Vec<u8>,
    /// }
    ///
    /// impl Handler for Prices {
    ///     fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
    ///         self.newest = input.take_all().to_vec();
    ///         cx.request_batch_end();
    ///         Ok(())
    ///     }
    ///
    ///     // Of 500 prices that came in one read only the last is published.
    ///     fn on_batch_end(&mut self, cx: &mut Context<'_>) -> HandlerResult {
    ///         cx.net.publish(self.listeners, &self.newest);
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn request_batch_end(&mut self, token: Token) -> bool {
        self.core.ask_batch_end(token)
    }

    /// Stops reading from a connection: neither `on_data` nor `on_eof` is called until
    /// [`resume`](Self::resume). Input waits in the system's receive buffer; when that is full, TCP
    /// slows the peer down. If the connection is reset while it is paused, the input that had
    /// arrived is delivered before `on_close`, up to
    /// [`unread_limit`](crate::StreamOptions::unread_limit) bytes. A handler without room for it
    /// leaves it untaken.
    ///
    /// A paused listener accepts no connection: new peers wait in its backlog, and the system
    /// refuses them when the backlog is full. A paused UDP socket receives nothing more; datagrams
    /// received in one batch with the current one are still delivered. The system drops what does
    /// not fit the socket's receive buffer.
    pub fn pause(&mut self, token: Token) {
        self.core.set_paused(token, true);
    }

    /// Resumes reading, accepting or receiving after [`pause`](Self::pause).
    pub fn resume(&mut self, token: Token) {
        self.core.set_paused(token, false);
    }

    /// Pairs two connections, for a proxy: reading from each pauses while the output of the *other*
    /// is above its high-water mark, in place of the rule that looks at its own output. The pair
    /// ends when one of them closes. `false` if one is closed or both are the same.
    ///
    /// The handlers forward the data. Where no code has to look at it, [`relay`](Self::relay) does
    /// all of it. Pairing two relayed connections ends the relay.
    pub fn pair(&mut self, a: Token, b: Token) -> bool {
        self.core.pair_up(a, b)
    }

    /// Relays two connections, for a proxy that need not look at the data: from now on the reactor
    /// sends what arrives on either to the other.
    ///
    /// - **Data.** Input that a handler has not taken is forwarded first: a handler that reads a
    ///   proxy header or a `CONNECT` takes just that and relays the rest. Neither handler gets
    ///   `on_data` or `on_eof`. All other callbacks continue, and either handler may still
    ///   [`send`](Self::send); its bytes follow those already forwarded. Each connection keeps its
    ///   layers: what one decodes, the other encodes, message by message.
    /// - **Back-pressure**, as by [`pair`](Self::pair): while one connection's output is above its
    ///   high-water mark, the other is not read, also while the first is still connecting or in a
    ///   handshake. One read ([`Config::read_buffer`](crate::Config::read_buffer) bytes) may exceed
    ///   the mark.
    /// - **Ends.** A peer's end-of-stream is forwarded ([`half_close`](Self::half_close)) once
    ///   everything before it has been written; the other direction continues. When one connection
    ///   is closed, the other is closed too, and both are flushed. When one fails (a reset, a
    ///   failed connect, a deadline, an error of its handler or layer), the other is aborted, so
    ///   that its peer cannot mistake the failure for an end (on a Unix socket it can: see
    ///   [`abort`](Self::abort)). The connection whose handler or layer returned the error is
    ///   closed gracefully, as usual. As on any connection, a reset may destroy data in flight;
    ///   [`CloseInfo::unsent`](crate::CloseInfo::unsent) counts what the system did not take.
    ///
    /// A relay never skips data: output that exceeds the
    /// [`output_limit`](crate::StreamOptions::output_limit) of the other connection (whatever its
    /// [`Overflow`](crate::Overflow)), or that its format cannot encode, ends both. Data that
    /// follows a `half_close` that *you* called on the other connection is dropped.
    ///
    /// Relaying or pairing one of them again ends this relay, and the former partner's handler gets
    /// `on_data` and `on_eof` again. `false` if one is closed or closing, or both are the same.
    ///
    /// With the feature `splice`, on Linux and Android, large blocks between TCP or Unix sockets
    /// without layers are not copied through this process (splice(2)). Such a write to a peer that
    /// has closed raises `SIGPIPE`. Rust programs ignore that signal from their start; a host
    /// program in another language must ignore it itself.
    pub fn relay(&mut self, a: Token, b: Token) -> bool {
        self.core.relay(a, b)
    }

    /// Posts a typed value to the handler of a connection, UDP socket or session. Its `on_notify` is called
    /// later in this turn or in the next. On a connection that is not open yet, it is called after
    /// `on_open`; if the connection fails before that, the value is dropped. `false` if the token
    /// has no handler to call.
    pub fn notify<T: 'static>(&mut self, to: Token, value: T) -> bool {
        let known = self.takes_notifications(to);
        if known {
            self.core.notifications.push_back((to, Notification::new(value)));
        }
        known
    }

    /// Whether the token names a connection, listener, socket or source that is neither closed nor
    /// closing.
    pub fn is_open(&self, token: Token) -> bool {
        match self.core.entity(token) {
            Some(Entity::Stream(s)) => s.is_live(),
            Some(Entity::Datagram(d)) => !d.dead,
            Some(Entity::SessionSocket(s)) => !s.socket.dead,
            Some(Entity::Session(s)) => !s.dead,
            Some(Entity::Listener(l)) => !l.dead,
            Some(Entity::Source(s)) => !s.dead,
            None => false,
        }
    }

    /// How many bytes of output are not written yet, as encoded for the wire. Messages that wait
    /// for a handshake, [values](Self::send_latest) that wait, and published messages that leave at the
    /// end of the turn, count with their length before encoding.
    pub fn queued(&self, token: Token) -> usize {
        self.core.unsent(token)
    }

    /// The options of a connection, for instance to change one of them with
    /// [`set_options`](Self::set_options).
    pub fn options(&self, token: Token) -> Option<&StreamOptions> {
        Some(self.core.stream(token)?.options())
    }

    /// Gives a connection other options, for a protocol whose phases differ (a login, then a
    /// subscription; a control connection that lives as long as its session): limits, water marks,
    /// the overflow policy and timeouts hold from now on, and timeouts begin anew. What is queued
    /// stays, also above a smaller limit. The socket's own options stay as they are, and a connect or
    /// a handshake that is under way keeps its deadline. `false` if the connection is gone or closing.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tidegate::{Net, Token};
    /// # fn subscribed(net: &mut Net, token: Token) {
    /// if let Some(options) = net.options(token).cloned() {
    ///     net.set_options(token, options.idle_timeout(None).output_limit(16 << 20));
    /// }
    /// # }
    /// ```
    pub fn set_options(&mut self, token: Token, options: StreamOptions) -> bool {
        self.core.with_settled(token, |conn| conn.set_options(options)) == Some(true)
    }

    /// How many bytes [`relay`](Self::relay) has passed on from this connection to its partners: as its
    /// layers decoded them, from the beginning of its first relay on. Also available in `on_close`.
    pub fn relayed_bytes(&self, token: Token) -> u64 {
        self.core.stream(token).map_or(0, Stream::relayed_bytes)
    }

    /// Whether a connection's queued output, including what was published to its groups in this
    /// turn, rose above its [high-water mark](crate::StreamOptions::high_water) and has not yet
    /// fallen to its low-water mark. While it is `true`, a sender that can wait should wait for
    /// `on_drain`. `false` for anything other than a connection.
    pub fn is_above_high_water(&self, token: Token) -> bool {
        self.core.is_above_high_water(token)
    }

    /// The address of the peer of a connection or of a connected UDP socket. The system forgets it
    /// when the connection has ended, so `on_close` may get `None`: read it in `on_open`, or in the
    /// factory from [`Peer`](crate::Peer).
    pub fn peer_addr(&self, token: Token) -> Option<Address> {
        match self.core.entity(token)? {
            Entity::Stream(s) => s.socket().peer_addr().ok(),
            Entity::Datagram(d) => d.socket.peer_addr().ok().map(Address::Ip),
            Entity::Session(s) => Some(Address::Ip(s.peer)),
            _ => None,
        }
    }

    /// The local address of a connection, UDP socket or listener; of a listener on several
    /// addresses, the first. `None` for a custom source and for a connection that is not
    /// established.
    pub fn local_addr(&self, token: Token) -> Option<Address> {
        match self.core.entity(token)? {
            Entity::Stream(s) => s.socket().local_addr().ok(),
            Entity::Datagram(d) => d.socket.local_addr().ok().map(Address::Ip),
            Entity::SessionSocket(s) => s.socket.socket.local_addr().ok().map(Address::Ip),
            Entity::Session(s) => self.local_addr(s.socket),
            Entity::Listener(l) => l.addresses().into_iter().next(),
            Entity::Source(_) => None,
        }
    }

    /// All local addresses of a listener.
    pub fn local_addrs(&self, token: Token) -> Vec<Address> {
        match self.core.entity(token) {
            Some(Entity::Listener(l)) => l.addresses(),
            _ => self.local_addr(token).into_iter().collect(),
        }
    }

    /// What a connection's layers know about the peer (a certificate, a request path); each layer
    /// documents the types it returns.
    pub fn layer_info<T: Any>(&self, token: Token) -> Option<&T> {
        self.core.stream(token)?.wire()?.layer().layer_info(TypeId::of::<T>())?.downcast_ref()
    }

    /// Inserts a layer between the socket and the layers a connection already has, as STARTTLS
    /// needs it. Queued output leaves in the old format. Input that was neither decoded nor taken,
    /// and all later input, passes the new layer. Output sent from now on waits until the new layer
    /// is ready.
    ///
    /// Call it from the connection's own `on_data`, after taking the bytes of the old format and
    /// before sending in the new one.
    ///
    /// `false` if the connection is not open or either side has ended. Also `false`, and the
    /// connection is closed, if its present layers hold or have examined bytes beyond those
    /// delivered to the handler: these arrived in clear, and an attacker may have injected them to
    /// be read as if they were protected (CVE-2011-0411). The reason is then a
    /// [`LayerError`](crate::layer::LayerError) of the kind `Malformed`.
    pub fn start_layer(&mut self, token: Token, layer: impl Layer + 'static) -> bool {
        let layer = Box::new(layer);
        #[cfg(feature = "sim")]
        crate::witness::mixes_output(&self.core, token);
        self.core.with_settled(token, |conn| conn.start_layer(layer)) == Some(true)
    }

    /// The counters of a listener; `None` for any other token.
    pub fn listener_stats(&self, token: Token) -> Option<ListenerStats> {
        match self.core.entity(token)? {
            Entity::Listener(l) => Some(l.stats),
            _ => None,
        }
    }

    /// Joins a multicast group on a UDP socket.
    ///
    /// # Errors
    /// The token names no UDP socket, or the system refuses the membership.
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
    /// The token names no UDP socket, or the system refuses the change.
    pub fn leave_multicast(
        &mut self,
        token: Token,
        group: IpAddr,
        interface: MulticastInterface,
    ) -> Result<(), Error> {
        self.core.multicast(token, group, interface, false)
    }
}
