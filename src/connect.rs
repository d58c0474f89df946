//! Builders of outgoing connections and of adopted sockets.

use std::fmt;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;

use crate::address::Target;
use crate::error::Error;
use crate::layer::Layer;
use crate::options::StreamOptions;
use crate::sys;

/// Where to connect, and with which options.
///
/// An address alone is enough (`net.connect("127.0.0.1:8888", handler)`). The builder never fails
/// and never blocks: [`Net::connect`](crate::Net::connect) resolves the target.
#[must_use]
pub struct Connect {
    pub(crate) to: Target,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) options: StreamOptions,
    pub(crate) layer: Option<Box<dyn Layer>>,
}

impl Connect {
    /// TCP to `target`. Several addresses, of a list or of a name, are tried one after the other
    /// within [`connect_timeout`](StreamOptions::connect_timeout).
    ///
    /// A name is resolved inside [`Net::connect`](crate::Net::connect), which blocks the loop for
    /// as long as the system's resolver takes. In a callback use addresses, or resolve on another
    /// thread and post the result.
    pub fn tcp(target: impl Into<Target>) -> Self {
        let options = StreamOptions::default();
        Connect { to: target.into(), local: None, options, layer: None }
    }

    /// The Unix stream socket at `path` (unix(7)). If its backlog is full, the connect is repeated
    /// every 10 ms until [`connect_timeout`](StreamOptions::connect_timeout).
    #[cfg(unix)]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::tcp(Target::unix(path))
    }

    /// The local address to connect from (bind(2)), for TCP only. With port 0 the system chooses
    /// the port.
    ///
    /// A fixed port has `SO_REUSEADDR`, and is free again when `on_close` is called. With port 0
    /// each connection takes a port of its own, whatever its destination, so that an address has as
    /// many connections as there are ephemeral ports (28,232 by default on Linux, ip(7)). With the
    /// feature `udp-batch`, on Linux and Android, connections to different destinations share them
    /// (`IP_BIND_ADDRESS_NO_PORT`).
    pub fn local_addr(mut self, local: SocketAddr) -> Self {
        self.local = Some(local);
        self
    }

    /// The options of the connection, including its connect timeout.
    pub fn options(mut self, options: StreamOptions) -> Self {
        self.options = options;
        self
    }

    /// Puts a wire format on the connection. `on_open` is called when it is ready.
    pub fn layer(mut self, layer: impl Layer + 'static) -> Self {
        self.layer = Some(Box::new(layer));
        self
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("to", &self.to).finish_non_exhaustive()
    }
}

impl From<&str> for Connect {
    fn from(addr: &str) -> Self {
        Connect::tcp(addr)
    }
}

impl From<String> for Connect {
    fn from(addr: String) -> Self {
        Connect::tcp(addr.as_str())
    }
}

impl From<&String> for Connect {
    fn from(addr: &String) -> Self {
        Connect::tcp(addr.as_str())
    }
}

impl From<SocketAddr> for Connect {
    fn from(addr: SocketAddr) -> Self {
        Connect::tcp(addr)
    }
}

impl From<Target> for Connect {
    fn from(target: Target) -> Self {
        Connect::tcp(target)
    }
}

/// A connected stream socket that exists already, to be driven by the reactor. The reactor takes it
/// over whole: no other code may use it any more.
#[must_use]
pub struct Adopt {
    pub(crate) socket: std::io::Result<sys::Stream>,
    pub(crate) options: Option<StreamOptions>,
    pub(crate) layer: Option<Box<dyn Layer>>,
}

impl Adopt {
    fn new(socket: std::io::Result<sys::Stream>) -> Self {
        Adopt { socket, options: None, layer: None }
    }

    /// The options of the connection. Without this call the options of the socket itself stay as
    /// they are.
    pub fn options(mut self, options: StreamOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Puts a wire format on the connection. `on_open` is called when it is ready.
    pub fn layer(mut self, layer: impl Layer + 'static) -> Self {
        self.layer = Some(Box::new(layer));
        self
    }

    /// The socket, set up and known to be connected.
    pub(crate) fn open(&mut self) -> Result<(sys::Stream, StreamOptions), Error> {
        let what = "cannot adopt the socket";
        let socket = std::mem::replace(&mut self.socket, Ok(sys::Stream::None));
        let socket = socket.map_err(|e| Error::new(what, e))?;
        socket.peer_addr().map_err(|e| Error::new(format!("{what}: it is not connected"), e))?;
        if let Some(options) = &self.options {
            socket.apply(&options.socket).map_err(|e| Error::new(what, e))?;
        }
        Ok((socket, self.options.take().unwrap_or_default()))
    }
}

impl fmt::Debug for Adopt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adopt").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl From<std::net::TcpStream> for Adopt {
    fn from(stream: std::net::TcpStream) -> Self {
        Adopt::new(sys::adopt_tcp(stream))
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixStream> for Adopt {
    fn from(stream: std::os::unix::net::UnixStream) -> Self {
        Adopt::new(sys::adopt_unix(stream))
    }
}
