//! Listeners: how they are made, and what decides about those who knock.

use std::any::{Any, TypeId};
use std::fmt;
use std::net::ToSocketAddrs;
#[cfg(unix)]
use std::path::Path;

use crate::address::{Address, Resolved};
use crate::error::{CloseReason, Error};
use crate::handler::Handler;
use crate::layer::Layer;
use crate::options::StreamOptions;
use crate::sys;
use crate::token::Token;

/// Where to listen, whom to let in, and what every accepted connection may use.
///
/// An address alone will do (`net.listen("127.0.0.1:8888", factory)`); the builder adds the rest.
/// A name that stands for several addresses (`localhost` as a rule does) is listened to on all of
/// them, under one token.
///
/// ```no_run
/// use std::time::Duration;
/// use tidegate::{Context, Handler, HandlerResult, Input, Listen, Reactor, StreamOptions};
///
/// # struct Echo;
/// # impl Handler for Echo {
/// #     fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
/// #         cx.send(input.take_all());
/// #         Ok(())
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut reactor = Reactor::new()?;
/// let listen = Listen::tcp("0.0.0.0:8888")
///     .max_connections(10_000)
///     .filter(|peer, _state| peer.address().socket_addr().is_some_and(|a| a.ip().is_loopback()))
///     .options(StreamOptions::new().idle_timeout(Duration::from_secs(120)));
/// reactor.net().listen(listen, |_peer| Echo)?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Listen<S = ()> {
    pub(crate) addresses: Resolved,
    pub(crate) adopted: Vec<Result<sys::Listener, std::io::Error>>,
    pub(crate) backlog: i32,
    pub(crate) max_connections: usize,
    pub(crate) options: StreamOptions,
    pub(crate) hooks: Hooks<S>,
}

type Filter<S> = Box<dyn FnMut(&Peer<'_>, &mut S) -> bool>;
type Layers = Box<dyn FnMut(&Peer<'_>) -> Box<dyn Layer>>;
type Failed<S> = Box<dyn FnMut(&Peer<'_>, &CloseReason, &mut S)>;

/// The user's closures of one listener.
pub(crate) struct Hooks<S> {
    pub(crate) filter: Option<Filter<S>>,
    pub(crate) layers: Option<Layers>,
    pub(crate) failed: Option<Failed<S>>,
}

impl<S> Listen<S> {
    fn on(addresses: Resolved) -> Self {
        Listen {
            addresses,
            adopted: Vec::new(),
            backlog: 1024,
            max_connections: 65_536,
            options: StreamOptions::default(),
            hooks: Hooks { filter: None, layers: None, failed: None },
        }
    }

    /// TCP on every address that `addrs` stands for. A name is resolved at once, which blocks.
    /// Port 0 lets the system choose, for each address of a name another one;
    /// [`Net::local_addrs`](crate::Net::local_addrs) tells which.
    pub fn tcp<A: ToSocketAddrs + fmt::Debug>(addrs: A) -> Self {
        Self::on(Resolved::ip(&addrs))
    }

    /// A Unix stream socket at `path`, which must not exist yet (unix(7)). The path is removed when
    /// the listener closes, unless somebody else has taken it over by then.
    #[cfg(unix)]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::on(Resolved::unix(path.as_ref()))
    }

    /// A TCP socket that listens already (socket activation, a test). It is taken over whole, and
    /// gets the socket options, `TCP_NODELAY` by default, that its connections are to have.
    pub fn adopt_tcp(listener: std::net::TcpListener) -> Self {
        let mut listen = Self::on(Resolved::none());
        listen.adopted.push(sys::adopt_tcp_listener(listener));
        listen
    }

    /// A Unix socket that listens already. Its path is not removed.
    #[cfg(unix)]
    pub fn adopt_unix(listener: std::os::unix::net::UnixListener) -> Self {
        let mut listen = Self::on(Resolved::none());
        listen.adopted.push(sys::adopt_unix_listener(listener));
        listen
    }

    /// How many connections may wait to be accepted (listen(2)). Default 1,024; the system caps it
    /// (`net.core.somaxconn` on Linux).
    pub fn backlog(mut self, connections: i32) -> Self {
        self.backlog = connections.max(1);
        self
    }

    /// How many connections of this listener may be open at once. Default 65,536. At the limit it
    /// stops accepting, those who knock wait in the system's backlog, and it goes on as soon as one
    /// has closed; one that is closing counts until its peer has ended too or
    /// [`close_timeout`](crate::StreamOptions::close_timeout) has passed.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// What each accepted connection may use.
    pub fn options(mut self, options: StreamOptions) -> Self {
        self.options = options;
        self
    }

    /// Decides about each peer before anything is made for it: `false` closes the socket.
    pub fn filter(mut self, filter: impl FnMut(&Peer<'_>, &mut S) -> bool + 'static) -> Self {
        self.hooks.filter = Some(Box::new(filter));
        self
    }

    /// Puts a wire format on each accepted connection. The handler is made when it is ready.
    pub fn layer<L: Layer + 'static>(
        mut self,
        mut make: impl FnMut(&Peer<'_>) -> L + 'static,
    ) -> Self {
        self.hooks.layers = Some(Box::new(move |peer| Box::new(make(peer))));
        self
    }

    /// Is told of connections that ended before they got a handler, with the typed reason: a
    /// handshake that failed, took too long, or was under way when the listener closed
    /// ([`Cancelled`](CloseReason::Cancelled)). They are logged too, at debug level. Whoever was
    /// served without a handler (a browser that asked a WebSocket port for a page) has not failed.
    pub fn on_failed(
        mut self,
        hook: impl FnMut(&Peer<'_>, &CloseReason, &mut S) + 'static,
    ) -> Self {
        self.hooks.failed = Some(Box::new(hook));
        self
    }
}

impl<S> fmt::Debug for Listen<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listen")
            .field("addresses", &self.addresses)
            .field("backlog", &self.backlog)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

impl<S> From<&str> for Listen<S> {
    fn from(addr: &str) -> Self {
        Listen::tcp(addr)
    }
}

impl<S> From<String> for Listen<S> {
    fn from(addr: String) -> Self {
        Listen::tcp(addr)
    }
}

impl<S> From<&String> for Listen<S> {
    fn from(addr: &String) -> Self {
        Listen::tcp(addr.as_str())
    }
}

impl<S> From<std::net::SocketAddr> for Listen<S> {
    fn from(addr: std::net::SocketAddr) -> Self {
        Listen::tcp(addr)
    }
}

/// Who is on the other side of an accepted connection.
pub struct Peer<'a> {
    pub(crate) token: Token,
    pub(crate) listener: Token,
    pub(crate) address: Address,
    pub(crate) layer: Option<&'a dyn Layer>,
}

impl Peer<'_> {
    /// The token the connection has, or will have.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The listener that accepted it.
    pub fn listener(&self) -> Token {
        self.listener
    }

    /// Where it comes from.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What the connection's layers have learned of the peer: its certificate, the protocol that
    /// was agreed on, the path of an upgrade. Each layer documents the types it answers to.
    pub fn fact<T: Any>(&self) -> Option<&T> {
        self.layer?.fact(TypeId::of::<T>())?.downcast_ref()
    }
}

impl fmt::Debug for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("token", &self.token)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// The handlers' side of a listener: makes the handlers of what it accepts.
pub(crate) trait Acceptor<S> {
    fn hooks(&mut self) -> &mut Hooks<S>;
    fn make(&mut self, peer: &Peer<'_>) -> Box<dyn Handler<S>>;
}

pub(crate) struct Factory<S, F> {
    pub(crate) hooks: Hooks<S>,
    pub(crate) make: F,
}

impl<S, H, F> Acceptor<S> for Factory<S, F>
where
    H: Handler<S> + 'static,
    F: FnMut(&Peer<'_>) -> H,
{
    fn hooks(&mut self) -> &mut Hooks<S> {
        &mut self.hooks
    }

    fn make(&mut self, peer: &Peer<'_>) -> Box<dyn Handler<S>> {
        Box::new((self.make)(peer))
    }
}

/// Binds all the sockets of a listener; a failure undoes the rest. Of several addresses (a name's)
/// those that this host does not have are passed over, as long as one works.
pub(crate) fn open_sockets(
    addresses: &[Address],
    backlog: i32,
    options: &StreamOptions,
) -> Result<Vec<sys::Listener>, Error> {
    let several = addresses.len() > 1;
    let mut sockets: Vec<sys::Listener> = Vec::new();
    let mut missing = None;
    for address in addresses {
        match sys::listen(address, backlog, &options.socket, several) {
            Ok(socket) => sockets.push(socket),
            Err(e) => {
                let absent = e.kind() == std::io::ErrorKind::AddrNotAvailable;
                let error = Error::new(format!("cannot listen on {address}"), e).about_binding();
                let error =
                    if address.socket_addr().is_none() { error.about_a_path() } else { error };
                if !(several && absent) {
                    return Err(error);
                }
                log::warn!("{error}; listening on the other addresses");
                missing = Some(error);
            }
        }
    }
    match missing {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets),
    }
}
