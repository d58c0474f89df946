//! Listening sockets of the system.

use std::io;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

#[cfg(unix)]
use super::socket::unix_address;
use super::socket::{domain_of, keep_from_children, refuse_in_simulation, socket};
use super::{Pollable, Stream, uninterrupted};
use crate::address::Address;
use crate::socket_options::SocketOptions;

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(mio::net::TcpListener),
    #[cfg(unix)]
    Unix(mio::net::UnixListener),
    #[cfg(test)]
    Script(super::script::Listener),
    #[cfg(feature = "sim")]
    Sim(super::sim::Socket),
}

impl Listener {
    /// The next connection in the backlog, and the address of its peer.
    pub(crate) fn accept(&self) -> io::Result<(Stream, Address)> {
        uninterrupted(|| match self {
            Listener::Tcp(l) => l.accept().map(|(s, a)| (Stream::Tcp(s), Address::Ip(a))),
            #[cfg(unix)]
            Listener::Unix(l) => l.accept().map(|(s, a)| (Stream::Unix(s), Address::from(a))),
            #[cfg(test)]
            Listener::Script(l) => l.accept().map(|s| (Stream::Script(s), Address::Unix(None))),
            #[cfg(feature = "sim")]
            Listener::Sim(l) => l.accept().map(|(s, a)| (Stream::Sim(s), a)),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Listener::Tcp(l) => l.local_addr().map(Address::Ip),
            #[cfg(unix)]
            Listener::Unix(l) => l.local_addr().map(Address::from),
            #[cfg(test)]
            Listener::Script(_) => Ok(Address::Unix(None)),
            #[cfg(feature = "sim")]
            Listener::Sim(l) => l.listener_addr(),
        }
    }

    /// Sets the options on a socket that listens already; what it accepts inherits them.
    pub(crate) fn apply(&self, options: &SocketOptions) -> io::Result<()> {
        match self {
            Listener::Tcp(l) => {
                options.apply(&SockRef::from(l), domain_of(l.local_addr()?), Type::STREAM)
            }
            #[cfg(unix)]
            Listener::Unix(l) => options.apply(&SockRef::from(l), Domain::UNIX, Type::STREAM),
            #[cfg(test)]
            Listener::Script(_) => Ok(()),
            #[cfg(feature = "sim")]
            Listener::Sim(_) => Ok(()),
        }
    }
}

impl Pollable for Listener {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Tcp(l) => l.register(registry, token, Interest::READABLE),
            #[cfg(unix)]
            Listener::Unix(l) => l.register(registry, token, Interest::READABLE),
            #[cfg(test)]
            Listener::Script(_) => Ok(()),
            #[cfg(feature = "sim")]
            Listener::Sim(_) => Err(super::sim::real("a poll of the system")),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Listener::Tcp(l) => l.deregister(registry),
            #[cfg(unix)]
            Listener::Unix(l) => l.deregister(registry),
            #[cfg(test)]
            Listener::Script(_) => Ok(()),
            #[cfg(feature = "sim")]
            Listener::Sim(_) => Err(super::sim::real("a poll of the system")),
        }
    }

    #[cfg(feature = "sim")]
    fn simulated(&self) -> Option<&super::sim::Socket> {
        match self {
            Listener::Sim(socket) => Some(socket),
            _ => None,
        }
    }
}

/// Binds and listens. `several`: this is one of several addresses, so that an IPv6 socket must
/// leave the IPv4 one its port.
pub(crate) fn listen(
    on: &Address,
    backlog: u32,
    options: &SocketOptions,
    several: bool,
) -> io::Result<Listener> {
    #[cfg(feature = "sim")]
    if super::sim::is_simulated() {
        return super::sim::listen(on, backlog, options, several).map(Listener::Sim);
    }
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    match on {
        Address::Ip(addr) => {
            let domain = domain_of(*addr);
            let socket = socket(domain, Type::STREAM, Some(Protocol::TCP))?;
            // A server that starts again must not wait for the last one's connections to leave
            // TIME_WAIT. On Windows the option means something else: stealing a port.
            #[cfg(not(windows))]
            socket.set_reuse_address(true)?;
            if several && domain == Domain::IPV6 && options.chosen_only_v6().is_none() {
                socket.set_only_v6(true)?;
            }
            options.apply(&SockRef::from(&socket), domain, Type::STREAM)?;
            socket.bind(&SockAddr::from(*addr))?;
            socket.listen(backlog)?;
            Ok(Listener::Tcp(mio::net::TcpListener::from_std(socket.into())))
        }
        #[cfg(unix)]
        Address::Unix(Some(path)) => {
            let socket = socket(Domain::UNIX, Type::STREAM, None)?;
            options.apply(&SockRef::from(&socket), Domain::UNIX, Type::STREAM)?;
            socket.bind(&unix_address(path)?)?;
            socket.listen(backlog)?;
            Ok(Listener::Unix(mio::net::UnixListener::from_std(socket.into())))
        }
        #[cfg(unix)]
        Address::Unix(None) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

pub(crate) fn adopt_tcp_listener(listener: std::net::TcpListener) -> io::Result<Listener> {
    refuse_in_simulation()?;
    listener.set_nonblocking(true)?;
    adopt_listening(&SockRef::from(&listener))?;
    Ok(Listener::Tcp(mio::net::TcpListener::from_std(listener)))
}

#[cfg(unix)]
pub(crate) fn adopt_unix_listener(
    listener: std::os::unix::net::UnixListener,
) -> io::Result<Listener> {
    refuse_in_simulation()?;
    listener.set_nonblocking(true)?;
    adopt_listening(&SockRef::from(&listener))?;
    Ok(Listener::Unix(mio::net::UnixListener::from_std(listener)))
}

/// A socket that does not listen would be refused by each accept(2), for ever (`SO_ACCEPTCONN`,
/// socket(7)).
fn adopt_listening(socket: &SockRef<'_>) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    if !socket.is_listener()? {
        let what = "the socket does not listen (listen(2))";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    keep_from_children(socket)
}
