//! Outgoing connections, and sockets that exist already.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
#[cfg(unix)]
use std::path::Path;

use crate::address::Resolved;
use crate::error::Error;
use crate::layer::Layer;
use crate::options::StreamOptions;
use crate::sys;

/// Where to connect, and how.
///
/// An address alone will do (`net.connect("127.0.0.1:8888", handler)`).
#[must_use]
pub struct Connect {
    pub(crate) to: Resolved,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) options: StreamOptions,
    pub(crate) layer: Option<Box<dyn Layer>>,
}

impl Connect {
    /// TCP to `addrs`. A name is resolved at once, which blocks: in a callback use addresses, or
    /// resolve on another thread and post the result. Where a name stands for several addresses
    /// they are tried one after the other.
    pub fn tcp<A: ToSocketAddrs + fmt::Debug>(addrs: A) -> Self {
        Self::to(Resolved::ip(&addrs))
    }

    /// The Unix stream socket at `path`.
    #[cfg(unix)]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::to(Resolved::unix(path.as_ref()))
    }

    fn to(to: Resolved) -> Self {
        Connect { to, from: None, options: StreamOptions::default(), layer: None }
    }

    /// The local address to connect from (bind(2)); port 0 lets the system choose the port.
    pub fn from(mut self, local: SocketAddr) -> Self {
        self.from = Some(local);
        self
    }

    /// What the connection may use, its connect timeout among it.
    pub fn options(mut self, options: StreamOptions) -> Self {
        self.options = options;
        self
    }

    /// Puts a wire format on the connection. `on_open` comes when it is ready.
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

/// A connected stream socket made elsewhere, to be driven by the reactor. It is taken over whole:
/// nobody else may use it any more.
#[derive(Debug)]
#[must_use]
pub struct Adopt {
    pub(crate) socket: std::io::Result<sys::Stream>,
    pub(crate) options: Option<StreamOptions>,
}

impl Adopt {
    /// What the connection may use. The socket's own options are left as they are unless this is
    /// called.
    pub fn options(mut self, options: StreamOptions) -> Self {
        self.options = Some(options);
        self
    }

    pub(crate) fn open(self) -> Result<(sys::Stream, StreamOptions), Error> {
        let what = "cannot adopt the socket";
        let socket = self.socket.map_err(|e| Error::new(what, e))?;
        socket.peer_addr().map_err(|e| Error::new(format!("{what}: it is not connected"), e))?;
        if let Some(options) = &self.options {
            socket.apply(&options.socket).map_err(|e| Error::new(what, e))?;
        }
        Ok((socket, self.options.unwrap_or_default()))
    }
}

impl From<std::net::TcpStream> for Adopt {
    fn from(stream: std::net::TcpStream) -> Self {
        Adopt { socket: sys::adopt_tcp(stream), options: None }
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixStream> for Adopt {
    fn from(stream: std::os::unix::net::UnixStream) -> Self {
        Adopt { socket: sys::adopt_unix(stream), options: None }
    }
}
