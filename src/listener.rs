//! Listeners: the builder, and the hooks that decide about accepted peers.

use std::any::{Any, TypeId};
use std::fmt;
#[cfg(unix)]
use std::path::Path;

use crate::address::{Address, Target};
use crate::error::{CloseReason, Error};
use crate::handler::Handler;
use crate::layer::Layer;
use crate::options::StreamOptions;
use crate::sys;
use crate::token::Token;

/// Where to listen, which peers to accept, and the options of every accepted connection.
///
/// An address alone is enough (`net.listen("127.0.0.1:8888", factory)`); the builder adds the rest.
/// A name with several addresses (`localhost` has two on most hosts) is listened to on all of them,
/// under one token.
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
///     .connection_limit(10_000)
///     .filter(|peer, _state| peer.address().socket_addr().is_some_and(|a| a.ip().is_loopback()))
///     .options(StreamOptions::new().idle_timeout(Duration::from_secs(120)));
/// reactor.net().listen(listen, |_peer| Echo)?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Listen<S = ()> {
    pub(crate) on: On,
    pub(crate) backlog: u32,
    pub(crate) connection_limit: usize,
    pub(crate) options: StreamOptions,
    pub(crate) hooks: Hooks<S>,
}

/// The origin of a listener's sockets.
#[derive(Debug)]
pub(crate) enum On {
    Target(Target),
    Adopted(ListeningSocket),
}

/// A listening socket that exists already (from socket activation, from a test), for
/// [`Listen::adopt`]. Convert a `std` listener into it.
#[derive(Debug)]
pub struct ListeningSocket(pub(crate) std::io::Result<sys::Listener>);

impl From<std::net::TcpListener> for ListeningSocket {
    fn from(listener: std::net::TcpListener) -> Self {
        ListeningSocket(sys::adopt_tcp_listener(listener))
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixListener> for ListeningSocket {
    fn from(listener: std::os::unix::net::UnixListener) -> Self {
        ListeningSocket(sys::adopt_unix_listener(listener))
    }
}

type Filter<S> = Box<dyn FnMut(&Peer<'_>, &mut S) -> bool>;
type Layers = Box<dyn FnMut(&Peer<'_>) -> Box<dyn Layer>>;
type Unopened<S> = Box<dyn FnMut(&Peer<'_>, &CloseReason, &mut S)>;

/// The user's closures of one listener.
pub(crate) struct Hooks<S> {
    pub(crate) filter: Option<Filter<S>>,
    pub(crate) layers: Option<Layers>,
    pub(crate) unopened: Option<Unopened<S>>,
}

impl<S> Listen<S> {
    fn on(on: On) -> Self {
        Listen {
            on,
            backlog: 1024,
            connection_limit: 65_536,
            options: StreamOptions::default(),
            hooks: Hooks { filter: None, layers: None, unopened: None },
        }
    }

    /// TCP on every address of `target`. A name is resolved inside
    /// [`Net::listen`](crate::Net::listen), which blocks. With port 0 the system chooses a port, a
    /// different one for each address of a name; [`Net::local_addrs`](crate::Net::local_addrs)
    /// returns them.
    ///
    /// Of several addresses, those that this host does not have, or whose family its kernel lacks,
    /// are skipped with a warning, as long as one works.
    ///
    /// The socket has `SO_REUSEADDR`, so that a restarted server need not wait for its
    /// predecessor's connections to leave `TIME_WAIT` (tcp(7)). It does not have it on Windows,
    /// where the option would take over a port in use.
    pub fn tcp(target: impl Into<Target>) -> Self {
        Self::on(On::Target(target.into()))
    }

    /// A Unix stream socket at `path`, which must not exist yet (unix(7)).
    /// [`close`](crate::Net::close) removes the path before it returns, unless the path names
    /// another file by then.
    ///
    /// A relative path is resolved at the time of this call: a later chdir(2) does not change it.
    /// An empty path and one with a NUL byte inside are refused. On Linux a path that begins with a
    /// NUL byte is a name in the abstract namespace.
    #[cfg(unix)]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::on(On::Target(Target::unix(path)))
    }

    /// A TCP or Unix socket that is listening already. The listener takes it over whole and sets
    /// the socket options of its connections on it (`TCP_NODELAY` by default). The path of a Unix
    /// socket is not removed, and the backlog stays as it is.
    pub fn adopt(listener: impl Into<ListeningSocket>) -> Self {
        Self::on(On::Adopted(listener.into()))
    }

    /// How many connections may wait to be accepted (listen(2)). Default 1,024, at least one; the
    /// system limits it (`net.core.somaxconn` on Linux).
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections.max(1);
        self
    }

    /// How many connections of this listener may be open at once. Default 65,536, at least one. At
    /// the limit the listener stops accepting and new peers wait in the backlog; it resumes as soon
    /// as one connection has closed. A closing connection counts until its peer has ended too or
    /// [`close_timeout`](crate::StreamOptions::close_timeout) has passed.
    pub fn connection_limit(mut self, connections: usize) -> Self {
        self.connection_limit = connections.max(1);
        self
    }

    /// The options of each accepted connection.
    pub fn options(mut self, options: StreamOptions) -> Self {
        self.options = options;
        self
    }

    /// Decides about each peer before a layer or a handler is made for it. `false` closes the
    /// socket.
    ///
    /// On an IPv6 socket that serves IPv4 peers too (`[::]` on Linux), those peers have IPv4-mapped
    /// addresses (`::ffff:127.0.0.1`), which `is_loopback` and similar methods do not match:
    /// compare [`to_canonical`](std::net::IpAddr::to_canonical).
    pub fn filter(mut self, filter: impl FnMut(&Peer<'_>, &mut S) -> bool + 'static) -> Self {
        self.hooks.filter = Some(Box::new(filter));
        self
    }

    /// Puts a wire format on each accepted connection. The handler is made when the layer is ready.
    pub fn layer<L: Layer + 'static>(
        mut self,
        mut make: impl FnMut(&Peer<'_>) -> L + 'static,
    ) -> Self {
        self.hooks.layers = Some(Box::new(move |peer| Box::new(make(peer))));
        self
    }

    /// Called exactly once for every accepted peer that passed the filter and never got a handler,
    /// with the reason:
    ///
    /// - a handshake that failed, took too long, or was in progress when the listener closed
    ///   ([`Cancelled`](CloseReason::Cancelled));
    /// - a hook or the factory panicked;
    /// - an orderly end, where a layer served the peer without a handler (a browser that requested
    ///   a page from a WebSocket port).
    ///
    /// So a count that the filter increments is decremented either here or in `on_close`, and
    /// nowhere else. These ends are also logged, at debug level.
    pub fn on_unopened(
        mut self,
        hook: impl FnMut(&Peer<'_>, &CloseReason, &mut S) + 'static,
    ) -> Self {
        self.hooks.unopened = Some(Box::new(hook));
        self
    }
}

impl<S> fmt::Debug for Listen<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listen")
            .field("on", &self.on)
            .field("backlog", &self.backlog)
            .field("connection_limit", &self.connection_limit)
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

impl<S> From<Target> for Listen<S> {
    fn from(target: Target) -> Self {
        Listen::tcp(target)
    }
}

/// The peer of an accepted connection.
pub struct Peer<'a> {
    pub(crate) token: Token,
    pub(crate) listener: Token,
    pub(crate) address: Address,
    pub(crate) layer: Option<&'a dyn Layer>,
}

impl Peer<'_> {
    /// The token of the connection.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The listener that accepted it.
    pub fn listener(&self) -> Token {
        self.listener
    }

    /// The address of the peer.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What the connection's layers know about the peer: its certificate, the negotiated protocol,
    /// the path of an upgrade. Each layer documents its types.
    pub fn layer_info<T: Any>(&self) -> Option<&T> {
        self.layer?.layer_info(TypeId::of::<T>())?.downcast_ref()
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

/// The handlers' side of a listener: makes the handlers of accepted connections.
pub(crate) trait Acceptor<S> {
    fn hooks(&mut self) -> &mut Hooks<S>;
    fn make(&mut self, peer: &Peer<'_>) -> Box<dyn Handler<S>>;
    /// The type of the handlers that it makes.
    fn handler_name(&self) -> &'static str;
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

    fn handler_name(&self) -> &'static str {
        std::any::type_name::<H>()
    }
}

/// The sockets of a listener.
#[derive(Default)]
pub(crate) struct Opened {
    pub(crate) sockets: Vec<sys::Listener>,
    #[cfg(unix)]
    pub(crate) paths: Vec<sys::OwnPath>,
    /// Whether they were listening before they were adopted.
    pub(crate) adopted: bool,
}

impl On {
    /// Resolves the target and binds all sockets; a failure undoes the rest. Of several addresses
    /// (of a name), those that this host does not have are skipped, as long as one works.
    pub(crate) fn open(self, backlog: u32, options: &StreamOptions) -> Result<Opened, Error> {
        let target = match self {
            On::Target(target) => target,
            On::Adopted(ListeningSocket(socket)) => {
                let failed = |e| Error::new("cannot adopt the listening socket", e);
                let socket = socket.map_err(failed)?;
                socket.apply(&options.socket).map_err(failed)?;
                return Ok(Opened {
                    sockets: vec![socket],
                    #[cfg(unix)]
                    paths: Vec::new(),
                    adopted: true,
                });
            }
        };
        let addresses = sys::resolve(&target).map_err(|e| Error::resolving(&target, e))?;
        let several = addresses.len() > 1;
        let mut sockets: Vec<sys::Listener> = Vec::new();
        let mut missing = None;
        for address in &addresses {
            match sys::listen(address, backlog, &options.socket, several) {
                Ok(socket) => sockets.push(socket),
                Err(e) => {
                    let absent = sys::is_missing_family(&e);
                    let error =
                        Error::new(format!("cannot listen on {address}"), e).about_binding();
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
            _ => Ok(Opened {
                sockets,
                #[cfg(unix)]
                paths: own_paths(addresses),
                adopted: false,
            }),
        }
    }
}

#[cfg(unix)]
fn own_paths(addresses: Vec<Address>) -> Vec<sys::OwnPath> {
    let paths = addresses.into_iter().filter_map(|address| match address {
        Address::Unix(path) => path,
        Address::Ip(_) => None,
    });
    paths.map(sys::OwnPath::new).collect()
}
