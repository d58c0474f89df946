//! Sockets on their way to another thread of this process.

use std::io;

use mio::net::{TcpListener, TcpStream};
#[cfg(unix)]
use mio::net::{UnixListener, UnixStream};

use super::{Listener, Stream};
use crate::address::Address;

/// An accepted connection that is in no poll yet.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Accepted {
    /// The stream itself comes back if it cannot leave its thread, as a simulated one cannot.
    pub(crate) fn new(stream: Stream) -> Result<Self, Stream> {
        match stream {
            Stream::Tcp(stream) => Ok(Accepted::Tcp(stream)),
            #[cfg(unix)]
            Stream::Unix(stream) => Ok(Accepted::Unix(stream)),
            other => Err(other),
        }
    }

    pub(crate) fn into_stream(self) -> Stream {
        match self {
            Accepted::Tcp(stream) => Stream::Tcp(stream),
            #[cfg(unix)]
            Accepted::Unix(stream) => Stream::Unix(stream),
        }
    }
}

/// A listening socket that stays open whichever thread accepts from it: each gets a descriptor of its own.
#[derive(Debug)]
pub(crate) enum Shared {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
}

impl Shared {
    /// # Errors
    /// The socket is simulated.
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Tcp(listener) => Ok(Shared::Tcp(listener.into())),
            #[cfg(unix)]
            Listener::Unix(listener) => Ok(Shared::Unix(listener.into())),
            #[allow(unreachable_patterns)] // without simulations and tests there is nothing else
            _ => Err(io::Error::other("a simulated socket stays with its host")),
        }
    }

    /// # Errors
    /// No descriptor is left.
    pub(crate) fn descriptor(&self) -> io::Result<Listener> {
        Ok(match self {
            Shared::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener.try_clone()?)),
            #[cfg(unix)]
            Shared::Unix(listener) => Listener::Unix(UnixListener::from_std(listener.try_clone()?)),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Shared::Tcp(listener) => listener.local_addr().map(Address::Ip),
            #[cfg(unix)]
            Shared::Unix(listener) => listener.local_addr().map(Address::from),
        }
    }
}
