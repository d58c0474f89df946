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
    #[cfg(feature = "sim")]
    Sim(super::sim::Ownerless),
}

impl Accepted {
    /// The stream itself comes back if it cannot leave its thread, as a scripted one cannot.
    pub(crate) fn new(stream: Stream) -> Result<Self, Stream> {
        match stream {
            Stream::Tcp(stream) => Ok(Accepted::Tcp(stream)),
            #[cfg(unix)]
            Stream::Unix(stream) => Ok(Accepted::Unix(stream)),
            #[cfg(feature = "sim")]
            Stream::Sim(socket) => Ok(Accepted::Sim(super::sim::Ownerless::on_its_way(socket))),
            other => Err(other),
        }
    }

    pub(crate) fn into_stream(self) -> Stream {
        match self {
            Accepted::Tcp(stream) => Stream::Tcp(stream),
            #[cfg(unix)]
            Accepted::Unix(stream) => Stream::Unix(stream),
            #[cfg(feature = "sim")]
            Accepted::Sim(socket) => socket.arrives().map_or(Stream::None, Stream::Sim),
        }
    }
}

/// A listening socket that stays open whichever thread accepts from it: each gets a descriptor of its own.
#[derive(Debug)]
pub(crate) enum Shared {
    Tcp(std::net::TcpListener),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixListener),
    #[cfg(feature = "sim")]
    Sim(super::sim::Ownerless),
}

impl Shared {
    /// # Errors
    /// The system refuses it.
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        match listener {
            Listener::Tcp(listener) => Ok(Shared::Tcp(listener.into())),
            #[cfg(unix)]
            Listener::Unix(listener) => Ok(Shared::Unix(listener.into())),
            #[cfg(test)]
            Listener::Script(_) => Err(io::Error::other("a scripted socket stays in its thread")),
            #[cfg(feature = "sim")]
            Listener::Sim(socket) => Ok(Shared::Sim(super::sim::Ownerless::shared(socket))),
        }
    }

    /// # Errors
    /// No descriptor is left.
    pub(crate) fn descriptor(&self) -> io::Result<Listener> {
        Ok(match self {
            Shared::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener.try_clone()?)),
            #[cfg(unix)]
            Shared::Unix(listener) => Listener::Unix(UnixListener::from_std(listener.try_clone()?)),
            #[cfg(feature = "sim")]
            Shared::Sim(socket) => Listener::Sim(socket.duplicate()?),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Shared::Tcp(listener) => listener.local_addr().map(Address::Ip),
            #[cfg(unix)]
            Shared::Unix(listener) => listener.local_addr().map(Address::from),
            #[cfg(feature = "sim")]
            Shared::Sim(socket) => socket.socket()?.listener_addr(),
        }
    }
}
