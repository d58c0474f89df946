//! The network side of a reactor: what callbacks, posted closures and set-up code work with.

use std::any::{Any, TypeId};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Interest;
use mio::event::Source;
use slab::Slab;

use crate::address::Address;
use crate::connect::{Adopt, Connect};
use crate::connection::{Phase, Settings, Stream, Wire};
use crate::context::Context;
use crate::core::{Attached, Core, Due, Entity, Route, SendStatus, Stopping};
use crate::datagram::{Interface, Udp};
use crate::error::{Error, HandlerResult};
use crate::group::Group;
use crate::handler::{DatagramHandler, Handler, Signal};
use crate::layer::{Kind, Layer};
#[cfg(unix)]
use crate::listener::OwnPath;
use crate::listener::{
    Acceptor, Factory, Listen, ListenerStats, ListeningSockets, Peer, open_sockets,
};
use crate::remote::{Remote, Shared};
use crate::source::{AnySource, Readiness, WithCallback};
use crate::timer::Chain;
use crate::timers::Timer;
use crate::token::Token;

/// The network: connections by token, new sockets, timers, groups, the end of the loop.
///
/// Callbacks have it as [`Context::net`], posted closures get it as an argument, and set-up code
/// outside callbacks takes it from [`Reactor::net`](crate::Reactor::net): the same methods everywhere.
///
/// No method calls a handler. What must end in a callback happens later in the turn, or in the next.
/// A token of something that is gone is refused; nothing panics for it.
pub struct Net<S = ()> {
    pub(crate) core: Core,
    /// Handlers of what callbacks created, until the turn installs them.
    pub(crate) births: Vec<(Token, Role<S>)>,
    /// Closures of the reactor's own timers.
    pub(crate) calls: Slab<Call<S>>,
    pub(crate) shared: Arc<Shared<S>>,
}

type Call<S> = Box<dyn FnOnce(&mut S, &mut Net<S>)>;

/// Who is called for what a token names.
pub(crate) enum Role<S> {
    Stream(Box<dyn Handler<S>>),
    Datagram(Box<dyn DatagramHandler<S>>),
    Listener(Box<dyn Acceptor<S>>),
    Source(Box<dyn AnySource<S>>),
}

/// New sockets.
impl<S: 'static> Net<S> {
    /// Listens. `factory` makes a handler for each accepted connection, told who it is for; the
    /// handlers of one listener may be of one type, or boxed (`Box<dyn Handler<S>>`).
    ///
    /// # Errors
    /// The address does not resolve, is in use, is not this host's, or needs privileges; or a
    /// [`shutdown`](Self::shutdown) is under way, which takes no newcomers.
    pub fn listen<H, F>(&mut self, on: impl Into<Listen<S>>, factory: F) -> Result<Token, Error>
    where
        H: Handler<S> + 'static,
        F: FnMut(&Peer<'_>) -> H + 'static,
    {
        if matches!(self.core.stopping, Stopping::Draining(_)) {
            let late = io::Error::other("the reactor is being shut down");
            return Err(Error::new("cannot listen", late));
        }
        let Listen { addresses, adopted, backlog, max_connections, options, hooks } = on.into();
        let addresses = addresses.into_addresses()?;
        let mut sockets = open_sockets(&addresses, backlog, &options)?;
        for socket in adopted {
            let failed = |e| Error::new("cannot adopt the listening socket", e);
            let socket = socket.map_err(failed)?;
            socket.apply(&options.socket).map_err(failed)?;
            sockets.push(socket);
        }
        let listener = ListeningSockets {
            sockets,
            #[cfg(unix)]
            paths: addresses
                .into_iter()
                .filter_map(|address| match address {
                    Address::Unix(path) => path.map(OwnPath::new),
                    Address::Ip(_) => None,
                })
                .collect(),
            turn: 0,
            settings: Settings::new(options, None),
            max_connections,
            stats: ListenerStats::default(),
            timers: Chain::default(),
            retry: None,
            silent_until: 0,
            paused: false,
            dead: false,
        };
        let token = self.insert(Entity::Listener(Box::new(listener)), "cannot listen")?;
        let registry = self.core.sys.registry().try_clone();
        let registry = self.or_remove(token, registry, "cannot listen")?;
        if let Some(listener) = self.core.listener_mut(token) {
            let options = listener.settings.options.clone();
            listener.settings = Settings::new(options, Some(token));
            let registered = listener
                .sockets
                .iter_mut()
                .try_for_each(|socket| socket.register(&registry, token.to_usize()));
            self.or_remove(token, registered, "cannot register the listener")?;
        }
        self.births.push((token, Role::Listener(Box::new(Factory { hooks, make: factory }))));
        Ok(token)
    }

    /// Connects without blocking. The handler is told `on_open` when the connection stands and its
    /// layers are ready, or `on_close` if that fails; exactly one of them comes first, and never
    /// before this call has returned. What is sent meanwhile goes out once it stands.
    ///
    /// # Errors
    /// The address does not resolve. Everything that concerns the network is told to `on_close`.
    pub fn connect<H>(&mut self, to: impl Into<Connect>, handler: H) -> Result<Token, Error>
    where
        H: Handler<S> + 'static,
    {
        let Connect { to, from, options, layer } = to.into();
        let mut left = to.into_addresses()?;
        left.reverse();
        let deadline = self.core.tick_after_this_moment(options.connect_timeout);
        let settings = Settings::new(options, None);
        let mut stream = Stream::new(crate::sys::Stream::None, Phase::Connecting, settings);
        let extra = stream.extra_mut();
        extra.route = Some(Box::new(Route { left, current: None, from, deadline }));
        extra.wire = layer.map(Wire::new);
        let token = self.insert(Entity::Stream(stream), "cannot connect")?;
        self.births.push((token, Role::Stream(Box::new(handler))));
        self.core.connect_next(token, io::ErrorKind::AddrNotAvailable.into());
        Ok(token)
    }

    /// Takes over a connected `std` socket. `on_open` comes in this turn or the next.
    ///
    /// # Errors
    /// It is not connected, or the system refuses to register it (it is registered with a poll
    /// already).
    pub fn adopt<H>(&mut self, socket: impl Into<Adopt>, handler: H) -> Result<Token, Error>
    where
        H: Handler<S> + 'static,
    {
        let (socket, options) = socket.into().open()?;
        let settings = Settings::new(options, None);
        let mut stream = Stream::new(socket, Phase::Handshaking, settings);
        stream.adopted = true;
        stream.clock = u64::MAX;
        let token = self.insert(Entity::Stream(stream), "cannot adopt the socket")?;
        let registered = self.core.register_stream(token);
        self.or_remove(token, registered, "cannot adopt the socket")?;
        self.births.push((token, Role::Stream(Box::new(handler))));
        self.core.make_ready(token);
        Ok(token)
    }

    /// Binds a UDP socket.
    ///
    /// # Errors
    /// The address does not resolve, is in use, is not this host's, or needs privileges; an option
    /// is refused.
    pub fn bind_udp<H>(&mut self, udp: impl Into<Udp>, handler: H) -> Result<Token, Error>
    where
        H: DatagramHandler<S> + 'static,
    {
        let socket = udp.into().open()?;
        let token = self.insert(Entity::Datagram(Box::new(socket)), "cannot bind UDP")?;
        let registered = self.core.register_datagram(token);
        self.or_remove(token, registered, "cannot register the UDP socket")?;
        self.births.push((token, Role::Datagram(Box::new(handler))));
        self.core.make_ready(token);
        Ok(token)
    }

    /// Registers anything that mio can wait for; `callback` is told when it becomes ready. Readiness
    /// is edge-triggered: use the source until it says `WouldBlock`. An error of the callback closes
    /// the source; so does [`close`](Self::close) with its token.
    ///
    /// # Errors
    /// The system refuses it: it is registered already, say.
    pub fn register<T, F>(
        &mut self,
        source: T,
        interest: Interest,
        callback: F,
    ) -> Result<Token, Error>
    where
        T: Source + 'static,
        F: FnMut(&mut T, &mut Context<'_, S>, Readiness) -> HandlerResult + 'static,
    {
        let attached = Box::<Attached>::default();
        let token = self.insert(Entity::Source(attached), "cannot register the source")?;
        let mut source = Box::new(WithCallback { source, callback });
        let registered = AnySource::<S>::register(
            &mut *source,
            self.core.sys.registry(),
            mio::Token(token.to_usize()),
            interest,
        );
        self.or_remove(token, registered, "cannot register the source")?;
        self.births.push((token, Role::Source(source)));
        Ok(token)
    }

    fn insert(&mut self, entity: Entity, what: &str) -> Result<Token, Error> {
        self.core.insert(entity).map_err(|e| Error::new(what, e))
    }

    fn or_remove<T>(
        &mut self,
        token: Token,
        result: io::Result<T>,
        what: &str,
    ) -> Result<T, Error> {
        result.map_err(|e| {
            self.core.remove(token);
            Error::new(what, e)
        })
    }

    /// Runs a closure on the reactor's thread after `after`, rounded up to whole milliseconds; never
    /// early.
    pub fn after(
        &mut self,
        after: Duration,
        call: impl FnOnce(&mut S, &mut Net<S>) + 'static,
    ) -> Timer {
        let index = self.calls.insert(Box::new(call));
        let at = self.core.tick_after_this_moment(after);
        let Core { timers, own_timers, .. } = &mut self.core;
        let key = timers.insert(own_timers, at, Due::Call(index));
        Timer { owner: None, key: Some(key), tag: 0 }
    }
}

/// Connections by token.
impl<S> Net<S> {
    /// Sends on a connection: a copy is queued, or written. A large slice is written at once if
    /// nothing waits before it. The bytes pass the connection's own layers.
    ///
    /// Output of a callback on its own connection leaves when the callback returns, one write for
    /// all of it; output to other connections at the end of the turn.
    ///
    /// For a UDP socket's token it sends a datagram to the peer the socket is connected to.
    pub fn send(&mut self, to: Token, bytes: impl AsRef<[u8]>) -> SendStatus {
        self.core.send(to, bytes.as_ref(), Kind::Default)
    }

    /// Like [`send`](Self::send), marked as text or binary for wire formats that tell them apart.
    pub fn send_as(&mut self, to: Token, kind: Kind, bytes: impl AsRef<[u8]>) -> SendStatus {
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
    /// the peer ends too or [`close_timeout`](crate::StreamOptions::close_timeout) passes. A
    /// listener, a UDP socket or a custom source is closed at once; an outgoing connection that does
    /// not stand yet is cancelled. What still waits for a late layer's handshake is lost; the reason is
    /// [`Cancelled`](crate::CloseReason::Cancelled) then.
    ///
    /// An error that the callback returns after this call is the reason all the same.
    pub fn close(&mut self, token: Token) {
        self.core.close(token, None);
    }

    /// Ends at once: what is unsent is lost, and the peer of a TCP connection sees a reset. An error
    /// that was to end it already stays the reason.
    pub fn abort(&mut self, token: Token) {
        self.core.abort(token);
    }

    /// Half-close: ends the write side once everything queued has been written (shutdown(2)). The
    /// peer's data is received as before. Calling it twice is harmless. A connection whose both
    /// directions have ended closes by itself.
    pub fn shutdown_write(&mut self, token: Token) {
        self.core.shutdown_write(token);
    }

    /// Closes all connections gracefully, as [`close`](Self::close) does one; those that do not stand
    /// yet are cancelled. Listeners, UDP sockets and custom sources stay. With
    /// [`shutdown`](Self::shutdown) before it, it is the end of a service that does not wait for its
    /// peers to have enough.
    pub fn close_all(&mut self) {
        for token in self.core.tokens() {
            if self.core.stream(token).is_some() {
                self.core.close(token, None);
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
    /// A paused listener accepts nobody: who knocks waits in its backlog, and is refused by the system
    /// when that is full. A paused UDP socket receives nothing more (what was received in one batch
    /// with the datagram being told is still told); what does not fit its buffer is lost.
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
    /// The handlers pass on what they hear; where nobody has to look at it, [`relay`](Self::relay)
    /// does all of it. Linking two that are relayed ends the relay.
    pub fn link(&mut self, a: Token, b: Token) -> bool {
        self.core.link(a, b)
    }

    /// Joins two connections, for a proxy that need not look at what passes: from now on whatever
    /// either brings is sent on to the other by the reactor itself.
    ///
    /// - **Data.** What a handler has not taken goes first, so that one that has read a proxy
    ///   header or a `CONNECT` takes just that and relays the rest. Neither handler gets `on_data`
    ///   or `on_eof`; all other callbacks come as ever, and either may still
    ///   [`send`](Self::send), behind what has been passed on. Each connection keeps its layers:
    ///   what one decodes the other encodes, message by message.
    /// - **Back-pressure**, as by [`link`](Self::link): while one's output is above its high mark
    ///   the other is not read, also while it still connects or shakes hands. One read's worth
    ///   ([`Config::read_buffer`](crate::Config::read_buffer)) may go over the mark.
    /// - **Ends.** A peer's end is passed on once everything before it has been written
    ///   ([`shutdown_write`](Self::shutdown_write)), and the other direction goes on. When one
    ///   connection is closed, the other is closed too, and each is flushed. When one ends badly
    ///   (a reset, a failed connect, a deadline, an error of its handler or layer), the other is
    ///   aborted, because its peer must not take that for an end; the one whose handler or layer
    ///   returned the error is closed in order, as ever. As on one connection, a reset may destroy what is on its way; what the system
    ///   took no more of is in [`Closed::unsent`](crate::Closed::unsent).
    ///
    /// A relay has no holes: what the other connection has no room for
    /// ([`output_cap`](crate::StreamOptions::output_cap), whatever its
    /// [`Overflow`](crate::Overflow) says), or cannot say in its format, ends both. What comes
    /// behind a `shutdown_write` that *you* called on the other one is dropped.
    ///
    /// Relaying or linking one of them anew takes the pair apart, and handlers are told again.
    /// `false` if one is gone or closing, or both are the same.
    ///
    /// With the feature `splice`, on Linux and Android, big blocks between TCP or Unix sockets
    /// without layers are not copied through this process (splice(2)). A write like that to a peer
    /// that is gone raises `SIGPIPE`, which Rust programs ignore from their start; a host in another
    /// language has to do so itself.
    pub fn relay(&mut self, a: Token, b: Token) -> bool {
        self.core.relay(a, b)
    }

    /// Posts a typed message to another handler; its `on_signal` is called later in this turn or in
    /// the next. `false` if there is nobody to get it.
    pub fn signal<T: 'static>(&mut self, to: Token, value: T) -> bool {
        let known = match self.core.entity(to) {
            Some(Entity::Stream(s)) => s.is_open() || !s.is_over(),
            Some(Entity::Datagram(d)) => !d.dead,
            _ => false,
        };
        if known {
            self.core.signals.push_back((to, Signal::new(value)));
        }
        known
    }

    /// Whether the token names something that is not closed or closing.
    pub fn is_open(&self, token: Token) -> bool {
        match self.core.entity(token) {
            Some(Entity::Stream(s)) => {
                matches!(s.phase, Phase::Connecting | Phase::Handshaking | Phase::Open)
            }
            Some(Entity::Datagram(d)) => !d.dead,
            Some(Entity::Listener(l)) => !l.dead,
            Some(Entity::Source(s)) => !s.dead,
            None => false,
        }
    }

    /// How many bytes wait to be written, as encoded for the wire; those that wait for a layer to be
    /// ready, as they were sent.
    pub fn queued(&self, token: Token) -> usize {
        match self.core.entity(token) {
            Some(Entity::Stream(s)) => s.unsent(),
            Some(Entity::Datagram(d)) => d.queued(),
            _ => 0,
        }
    }

    /// Whether a connection's queued output has been above its high mark and is not yet down at the
    /// low one: a sender that can wait should, until `on_drain`. `false` for anything else. The marks
    /// are [`StreamOptions::marks`](crate::StreamOptions::marks).
    pub fn is_above_high(&self, token: Token) -> bool {
        self.core.stream(token).is_some_and(|stream| stream.over_high)
    }

    /// Where the peer of a connection (or of a connected UDP socket) is. The system forgets it when
    /// the connection has ended, so that `on_close` may get `None`; a factory is told in time.
    pub fn peer_addr(&self, token: Token) -> Option<Address> {
        match self.core.entity(token)? {
            Entity::Stream(s) => s.socket.peer_addr().ok(),
            Entity::Datagram(d) => d.socket.peer_addr().ok().map(Address::Ip),
            _ => None,
        }
    }

    /// The local address of anything that has one; the first, of a listener on several.
    pub fn local_addr(&self, token: Token) -> Option<Address> {
        match self.core.entity(token)? {
            Entity::Stream(s) => s.socket.local_addr().ok(),
            Entity::Datagram(d) => d.socket.local_addr().ok().map(Address::Ip),
            Entity::Listener(l) => l.sockets.first()?.local_addr().ok(),
            Entity::Source(_) => None,
        }
    }

    /// All local addresses of a listener.
    pub fn local_addrs(&self, token: Token) -> Vec<Address> {
        match self.core.entity(token) {
            Some(Entity::Listener(l)) => {
                l.sockets.iter().filter_map(|s| s.local_addr().ok()).collect()
            }
            _ => self.local_addr(token).into_iter().collect(),
        }
    }

    /// What a connection's layers have learned of the peer; each layer documents the types it
    /// answers to.
    pub fn fact<T: Any>(&self, token: Token) -> Option<&T> {
        self.core.stream(token)?.wire()?.layer.fact(TypeId::of::<T>())?.downcast_ref()
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
        self.core.start_layer(token, Box::new(layer))
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
        interface: Interface,
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
        interface: Interface,
    ) -> Result<(), Error> {
        self.core.multicast(token, group, interface, false)
    }
}

/// Time.
impl<S> Net<S> {
    /// When this turn began. The clock is read once a turn; outside turns, by
    /// [`Reactor::net`](crate::Reactor::net).
    pub fn now(&self) -> Instant {
        self.core.now
    }

    /// Sets a timer that belongs to a connection or socket and dies with it. `tag` comes back in
    /// `on_timer` and says what it is for. Time is rounded up to whole milliseconds; a timer never
    /// fires early, and fires once. For a token that is
    /// gone, or names something whose handler has no `on_timer`, nothing is set.
    pub fn set_timer(&mut self, token: Token, after: Duration, tag: u64) -> Timer {
        let told = matches!(
            self.core.entity(token),
            Some(Entity::Stream(_) | Entity::Datagram(_)) // who else has an `on_timer`?
        );
        let key =
            told.then(|| self.core.set_timer(token, after, Due::Handler(token, tag))).flatten();
        Timer { owner: Some(token), key, tag }
    }

    /// Moves a timer that has not fired to a new time. `false` if it has fired, was cancelled, or
    /// died: then set a new one.
    pub fn rearm_timer(&mut self, timer: Timer, after: Duration) -> bool {
        let at = self.core.tick_after_this_moment(after);
        timer.key.is_some_and(|key| self.core.timers.rearm(key, at))
    }

    /// Cancels a timer. `false` if it has fired, was cancelled, or died.
    pub fn cancel_timer(&mut self, timer: Timer) -> bool {
        let Some(key) = timer.key else { return false };
        if let Some(owner) = timer.owner {
            return self.core.cancel_timer(owner, key);
        }
        let Core { timers, own_timers, .. } = &mut self.core;
        match timers.cancel(own_timers, key) {
            Some(Due::Call(index)) => {
                self.calls.try_remove(index);
                true
            }
            other => other.is_some(),
        }
    }
}

/// Groups.
impl<S> Net<S> {
    /// Makes a group without members.
    ///
    /// # Panics
    /// With more groups than 2^32 (2^20 on 32-bit targets) at once.
    pub fn create_group(&mut self) -> Group {
        self.core.create_group().expect("more groups than can be named")
    }

    /// Removes a group. Its members stay open; what was published is still delivered.
    pub fn remove_group(&mut self, group: Group) {
        self.core.remove_group(group);
    }

    /// Makes a connection a member; it receives what is published from now on, and leaves by itself
    /// when it closes. `false` if the group or the connection is gone.
    pub fn join(&mut self, group: Group, member: Token) -> bool {
        self.core.join(group, member)
    }

    /// Takes a connection out of a group. `false` if it was no member.
    pub fn leave(&mut self, group: Group, member: Token) -> bool {
        self.core.leave(group, member)
    }

    /// Who is in the group, in no particular order.
    pub fn members(&self, group: Group) -> &[Token] {
        self.core.members(group)
    }

    /// Sends to all members; answers how many they are. The message is stored once; each member's
    /// own limits decide what becomes of one that does not read.
    pub fn publish(&mut self, group: Group, bytes: impl AsRef<[u8]>) -> usize {
        self.core.publish(group, bytes.as_ref(), Kind::Default, None)
    }

    /// Sends to all members but one, who need not be a member.
    pub fn publish_except(
        &mut self,
        group: Group,
        except: Token,
        bytes: impl AsRef<[u8]>,
    ) -> usize {
        self.core.publish(group, bytes.as_ref(), Kind::Default, Some(except))
    }

    /// Sends to all members (but one), marked as text or binary for the wire formats among them
    /// that tell them apart.
    pub fn publish_as(
        &mut self,
        group: Group,
        kind: Kind,
        except: Option<Token>,
        bytes: impl AsRef<[u8]>,
    ) -> usize {
        self.core.publish(group, bytes.as_ref(), kind, except)
    }
}

/// The loop.
impl<S> Net<S> {
    /// Ends [`run`](crate::Reactor::run) after this turn. Nothing is closed: the reactor can run on.
    pub fn stop(&mut self) {
        self.core.stopping = Stopping::Now;
    }

    /// Closes the listeners, lets the connections run to their own ends, and ends
    /// [`run`](crate::Reactor::run) when the last is done. Those still open after `grace` are cut,
    /// with [`Deadline::Shutdown`](crate::Deadline::Shutdown) as the reason, unless an error was to
    /// end them already. Until then [`listen`](Self::listen) is refused.
    ///
    /// Called again, it gives a new deadline; [`stop`](Self::stop), earlier in the same turn or later,
    /// ends at once instead, the listeners staying closed.
    pub fn shutdown(&mut self, grace: Duration) {
        self.core.start_shutdown(grace);
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote<S> {
        self.shared.remote()
    }

    /// How many connections there are, those on their way in or out included.
    pub fn connections(&self) -> usize {
        self.core.streams
    }
}

impl<S> fmt::Debug for Net<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("connections", &self.core.streams).finish_non_exhaustive()
    }
}
