//! New sockets: listening, connecting, adopting, binding.

use std::io;

use super::{Net, Role};
use crate::address::Address;
use crate::connect::{Adopt, Connect};
use crate::connection::{Phase, Route, Settings, Stream, Wire};
use crate::core::{Entity, ListenerStats, Listening, ListeningSockets, Stopping};
use crate::datagram::Udp;
use crate::error::Error;
use crate::handler::{DatagramHandler, Handler};
use crate::listener::{Factory, Listen, Peer, open_sockets};
use crate::sys;
use crate::timer::Chain;
use crate::token::Token;

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
        let is_adopted = !adopted.is_empty();
        let mut sockets = open_sockets(&addresses, backlog, &options)?;
        for socket in adopted {
            let failed = |e| Error::new("cannot adopt the listening socket", e);
            let socket = socket.map_err(failed)?;
            socket.apply(&options.socket).map_err(failed)?;
            sockets.push(socket);
        }
        let listener = ListeningSockets {
            sockets: sockets.into_iter().map(Listening::new).collect(),
            #[cfg(unix)]
            paths: addresses
                .into_iter()
                .filter_map(|address| match address {
                    Address::Unix(path) => path.map(sys::OwnPath::new),
                    Address::Ip(_) => None,
                })
                .collect(),
            turn: 0,
            settings: Settings::new(options, None),
            max_connections,
            stats: ListenerStats::default(),
            adopted: is_adopted,
            timers: Chain::default(),
            retry: None,
            silent_until: 0,
            paused: false,
            in_ready: false,
            dead: false,
        };
        let token = self.insert(Entity::Listener(Box::new(listener)), "cannot listen")?;
        if let Some(listener) = self.core.listener_mut(token) {
            let options = listener.settings.options.clone();
            listener.settings = Settings::new(options, Some(token));
        }
        let registered = self.core.register_listener(token);
        self.or_remove(token, registered, "cannot register the listener")?;
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
        let deadline = self.core.work.tick_after_this_moment(options.connect_timeout);
        let settings = Settings::new(options, None);
        let mut stream = Stream::new(sys::Stream::None, Phase::Connecting, settings);
        stream.set_route(Route { left, current: None, from, deadline });
        if let Some(layer) = layer {
            stream.set_wire(Wire::new(layer), None);
        }
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
        stream.set_adopted();
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
