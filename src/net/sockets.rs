//! New sockets: listening, connecting, adopting, binding.

use std::io;
use std::sync::Arc;

use super::{AnyHandler, Net};
use crate::address::Address;
use crate::connect::{Adopt, Connect};
use crate::connection::{Phase, Route, Settings, Stream, Wire};
use crate::core::{Entity, ListenerStats, Listening, ListeningSockets, Shares, Stopping};
use crate::datagram::Udp;
use crate::error::Error;
use crate::handler::{DatagramHandler, Handler};
use crate::listener::{Factory, Listen, Opened, Peer};
use crate::sys;
use crate::timer::Chain;
use crate::token::Token;
use crate::workers::{Key, Part};

/// New sockets.
impl<S: 'static> Net<S> {
    /// Listens. `factory` makes a handler for each accepted [`Peer`], once its layers are ready.
    /// The handlers of one listener are of one type, or boxed (`Box<dyn Handler<S>>`).
    ///
    /// # Errors
    /// The address does not resolve, is in use, is not an address of this host, or needs
    /// privileges; an option is refused; or a [`shutdown`](Self::shutdown) is in progress.
    pub fn listen<H, F>(&mut self, on: impl Into<Listen<S>>, factory: F) -> Result<Token, Error>
    where
        H: Handler<S> + 'static,
        F: FnMut(&Peer<'_>) -> H + 'static,
    {
        if matches!(self.core.stopping, Stopping::Draining(_)) {
            let late = io::Error::other("the reactor is being shut down");
            return Err(Error::new("cannot listen", late));
        }
        let Listen { on, backlog, mut connection_limit, options, hooks } = on.into();
        let part = match self.desk().filter(|desk| desk.is_setting_up()) {
            Some(desk) => desk.open_listener(on, backlog, &mut connection_limit, &options)?,
            None => Part::Own(on.open(backlog, &options)?),
        };
        let (opened, shares) = match part {
            Part::Own(opened) => (opened, None),
            Part::Shared(shares) => (Opened::default(), Some(shares)),
        };
        let listener = ListeningSockets {
            sockets: opened.sockets.into_iter().map(Listening::new).collect(),
            #[cfg(unix)]
            paths: opened.paths,
            turn: 0,
            settings: Settings::new(options, None),
            connection_limit,
            stats: ListenerStats::default(),
            unopened: 0,
            draining: None,
            adopted: opened.adopted,
            timers: Chain::default(),
            retry: None,
            silent_until: 0,
            paused: false,
            in_ready: false,
            dead: false,
            share: None,
        };
        let token = self.insert(Entity::Listener(Box::new(listener)), "cannot listen")?;
        if let Some(listener) = self.core.listener_mut(token) {
            let options = listener.settings.options.clone();
            listener.settings = Settings::new(options, Some(token));
        }
        if let Some(shares) = shares {
            self.take_part(token, &shares);
        }
        let registered = self.core.register_listener(token);
        self.or_remove(token, registered, "cannot register the listener")?;
        self.pending_handlers
            .push((token, AnyHandler::Listener(Box::new(Factory { hooks, make: factory }))));
        Ok(token)
    }

    /// Connects. Exactly one callback comes first, and never before this call has returned:
    /// `on_open` when the connection is established and its layers are ready, or `on_close` if that
    /// fails. Messages sent meanwhile are queued and leave once the connection is open. The
    /// connection has no local address until it is established.
    ///
    /// All failures are reported in one place: `on_close` with
    /// [`CloseReason::ConnectFailed`](crate::CloseReason::ConnectFailed), also if the name does not
    /// resolve. Resolving a name blocks inside this call; nothing else does.
    ///
    /// # Errors
    /// No token is left, or the reactor is being dropped. The handler is then dropped.
    pub fn connect<H>(&mut self, to: impl Into<Connect>, handler: H) -> Result<Token, Error>
    where
        H: Handler<S> + 'static,
    {
        let Connect { to, local, mut options, layer } = to.into();
        options.fixed_port = local.is_some_and(|local| local.port() != 0);
        let deadline = self.core.work.tick_after_this_moment(options.connect_timeout);
        let settings = Settings::new(options, None);
        let mut stream = Stream::new(sys::Stream::None, Phase::Connecting, settings);
        stream.set_route(Route::new(to, local, deadline));
        if let Some(layer) = layer {
            stream.set_wire(Wire::new(layer));
        }
        let token = self.insert(Entity::Stream(stream), "cannot connect")?;
        self.core.work.counts.connects += 1;
        self.pending_handlers.push((token, AnyHandler::Stream(Box::new(handler))));
        self.core.start_connect(token);
        Ok(token)
    }

    /// Takes over a connected `std` socket. `on_open` is called in this turn or the next, or later
    /// if its layers have a handshake.
    ///
    /// # Errors
    /// The socket is not connected, an option is refused, or the system refuses to register it (for
    /// example because it is registered with a poll already).
    pub fn adopt<H>(&mut self, socket: impl Into<Adopt>, handler: H) -> Result<Token, Error>
    where
        H: Handler<S> + 'static,
    {
        let mut adopt = socket.into();
        let (socket, options) = adopt.open()?;
        let settings = Settings::new(options, None);
        let mut stream = Stream::new(socket, Phase::Handshaking, settings);
        stream.set_adopted();
        if let Some(layer) = adopt.layer {
            stream.set_wire(Wire::new(layer));
        }
        let token = self.insert(Entity::Stream(stream), "cannot adopt the socket")?;
        let registered = self.core.register_stream(token);
        self.or_remove(token, registered, "cannot adopt the socket")?;
        self.core.work.counts.adopted += 1;
        self.pending_handlers.push((token, AnyHandler::Stream(Box::new(handler))));
        self.core.make_ready(token);
        Ok(token)
    }

    /// Binds a UDP socket. `on_open` is called in this turn or the next.
    ///
    /// # Errors
    /// The address does not resolve, is in use, is not an address of this host, or needs
    /// privileges; or an option is refused.
    pub fn bind_udp<H>(&mut self, udp: impl Into<Udp>, handler: H) -> Result<Token, Error>
    where
        H: DatagramHandler<S> + 'static,
    {
        let (udp, key) = self.part_of_udp(udp.into());
        let socket = udp.open()?;
        let token = self.insert(Entity::Datagram(Box::new(socket)), "cannot bind UDP")?;
        let registered = self.core.register_datagram(token);
        self.or_remove(token, registered, "cannot register the UDP socket")?;
        self.pending_handlers.push((token, AnyHandler::Datagram(Box::new(handler))));
        self.core.make_ready(token);
        self.udp_is_bound(token, key);
        Ok(token)
    }

    /// The listener has a seat at a port of several workers.
    fn take_part(&mut self, listener: Token, shares: &Arc<Shares>) {
        let worker = self.worker();
        if let Some(entity) = self.core.listener_mut(listener) {
            entity.share = Some(Box::new(shares.join(worker, listener)));
            self.core.make_ready(listener); // its turn may be to accept
        }
    }

    /// The UDP socket's part of a port of several workers, if its set-up runs.
    pub(super) fn part_of_udp(&mut self, udp: Udp) -> (Udp, Option<Key>) {
        match self.desk().filter(|desk| desk.is_setting_up()) {
            Some(desk) => desk.shared_udp(udp),
            None => (udp, None),
        }
    }

    /// The socket is bound: others bind the same address.
    pub(super) fn udp_is_bound(&mut self, token: Token, key: Option<Key>) {
        if let Some(key) = key
            && let Some(Address::Ip(address)) = self.local_addr(token)
            && let Some(desk) = self.desk()
        {
            desk.udp_is_bound(key, address);
        }
    }

    pub(crate) fn insert(&mut self, entity: Entity, what: &str) -> Result<Token, Error> {
        self.core.insert(entity).map_err(|e| Error::new(what, e))
    }

    pub(crate) fn or_remove<T>(
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
}
