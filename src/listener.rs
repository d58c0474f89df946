//! Listening sockets, and what decides about those who knock.

use std::any::{Any, TypeId};
use std::fmt;
use std::net::ToSocketAddrs;
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::address::{Address, Resolved};
use crate::connection::Settings;
use crate::error::{CloseReason, Error};
use crate::handler::Handler;
use crate::layer::Layer;
use crate::options::StreamOptions;
use crate::sys;
use crate::timer::{Chain, Key};
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

/// What a listener has seen. Counts since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Connections accepted, those refused by the filter included.
    pub accepted: u64,
    /// Connections the filter refused.
    pub refused: u64,
    /// Errors of accept(2) that concerned one connection only (`ECONNABORTED` and the like).
    pub transient_errors: u64,
    /// How often accepting had to wait because descriptors or memory ran out.
    pub exhausted: u64,
    /// Connections that ended before their layers were ready.
    pub failed_handshakes: u64,
    /// Connections that are open now.
    pub open: usize,
}

/// The core's side of a listener.
#[derive(Debug)]
pub(crate) struct ListeningSockets {
    pub(crate) sockets: Vec<sys::Listener>,
    /// The paths to remove at the end.
    #[cfg(unix)]
    pub(crate) paths: Vec<OwnPath>,
    /// Whose turn it is of the sockets.
    pub(crate) turn: usize,
    pub(crate) settings: Rc<Settings>,
    pub(crate) max_connections: usize,
    pub(crate) stats: ListenerStats,
    /// The sockets listened before they were ours.
    pub(crate) adopted: bool,
    /// Errors of accept(2) since it last brought a connection.
    pub(crate) failed_in_a_row: u32,
    pub(crate) timers: Chain,
    /// The timer of a back-off that is running.
    pub(crate) retry: Option<Key>,
    /// Before this tick no further warning that it cannot accept.
    pub(crate) silent_until: u64,
    /// Nobody is accepted: the backlog fills.
    pub(crate) paused: bool,
    /// It waits to be reaped.
    pub(crate) dead: bool,
}

impl ListeningSockets {
    pub(crate) fn is_full(&self) -> bool {
        self.stats.open >= self.max_connections
    }
}

impl Drop for ListeningSockets {
    fn drop(&mut self) {
        #[cfg(unix)]
        for path in &self.paths {
            path.remove();
        }
    }
}

/// A path that a listener made. It is removed at the end if it still names the same file: a server
/// that starts anew may have taken the path over before the old one was gone.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct OwnPath {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

#[cfg(unix)]
impl OwnPath {
    pub(crate) fn new(path: PathBuf) -> Self {
        OwnPath { file: Self::file(&path), path }
    }

    /// Device and inode. The number is not used again while the listening socket is open.
    fn file(path: &Path) -> Option<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::symlink_metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }

    fn remove(&self) {
        if self.file.is_none() || Self::file(&self.path) != self.file {
            return log::debug!("the socket {} is not ours any more", self.path.display());
        }
        if let Err(e) = std::fs::remove_file(&self.path) {
            log::debug!("removing the socket {}: {e}", self.path.display());
        }
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
