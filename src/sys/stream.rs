//! Stream sockets of the system: mio for readiness, socket2 for options.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Source;
use mio::{Registry, Token};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

#[cfg(unix)]
use super::socket::{LINUX, unix_address};
use super::socket::{domain_of, interest, keep_from_children, refuse_in_simulation, socket};
use super::{Pollable, Stream, uninterrupted};
use crate::address::Address;
use crate::socket_options::SocketOptions;

/// A write to a peer that is gone must not raise SIGPIPE: Rust programs ignore it, but a host in
/// another language need not. `std` gives the flag to every plain write (send(2); to Unix sockets since
/// Rust 1.90), but cannot give it to a vectored one (writev(2)). Apple's systems have `SO_NOSIGPIPE`,
/// which `std` and socket2 set.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MSG_NOSIGNAL: i32 = 0x4000;

impl Stream {
    #[inline]
    pub(super) fn read_once(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The usual one first: one comparison, however many kinds there are.
        if let Stream::Tcp(s) = self {
            return s.read(buffer);
        }
        self.read_other(buffer)
    }

    #[inline(never)] // in its caller it would cost TCP some instructions
    fn read_other(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(buffer),
            #[cfg(unix)]
            Stream::Unix(s) => s.read(buffer),
            Stream::None => Err(io::ErrorKind::NotConnected.into()),
            #[cfg(test)]
            Stream::Script(s) => s.read(buffer),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => s.read(buffer),
        }
    }

    #[inline]
    pub(super) fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Stream::Tcp(s) = self {
            return s.write(bytes);
        }
        self.write_other(bytes)
    }

    #[inline(never)]
    fn write_other(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.write(bytes),
            #[cfg(unix)]
            Stream::Unix(s) => s.write(bytes),
            Stream::None => Err(io::ErrorKind::NotConnected.into()),
            #[cfg(test)]
            Stream::Script(s) => s.write(bytes),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => s.write(&[io::IoSlice::new(bytes)]),
        }
    }

    pub(super) fn write_vectored_once(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Stream::Tcp(s) => {
                s.try_io(|| SockRef::from(&*s).send_vectored_with_flags(slices, MSG_NOSIGNAL))
            }
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Stream::Unix(s) => {
                s.try_io(|| SockRef::from(&*s).send_vectored_with_flags(slices, MSG_NOSIGNAL))
            }
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            Stream::Tcp(s) => s.write_vectored(slices),
            #[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
            Stream::Unix(s) => s.write_vectored(slices),
            Stream::None => Err(io::ErrorKind::NotConnected.into()),
            #[cfg(test)]
            Stream::Script(s) => s.write_vectored(slices),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => s.write(slices),
        }
    }

    /// Ends the write side: the peer reads what was sent, then end-of-stream (shutdown(2)).
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => s.shutdown(Shutdown::Write),
            #[cfg(unix)]
            Stream::Unix(s) => s.shutdown(Shutdown::Write),
            Stream::None => Err(io::ErrorKind::NotConnected.into()),
            #[cfg(test)]
            Stream::Script(s) => s.shutdown_write(),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => s.shutdown_write(),
        }
    }

    /// Whether connect(2) has succeeded; `false` while it goes on, and its error if it failed.
    pub(crate) fn is_established(&self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        match self.peer_addr() {
            Ok(Address::Ip(peer))
                if self.local_addr().is_ok_and(|own| own == Address::Ip(peer)) =>
            {
                // TCP's simultaneous open: no socket listens at a local port of the ephemeral range,
                // and the system chose that very port to connect from.
                let itself = "the socket was connected to itself: no socket listens there";
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, itself))
            }
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The pending error, taken (`SO_ERROR`, socket(7)).
    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Stream::Tcp(s) => s.take_error(),
            #[cfg(unix)]
            Stream::Unix(s) => s.take_error(),
            Stream::None => Ok(None),
            #[cfg(test)]
            Stream::Script(s) => Ok(s.take_error()),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => Ok(s.take_error()),
        }
    }

    /// Makes the coming close a reset that destroys what is unsent (`SO_LINGER` zero, tcp(7)).
    pub(crate) fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => SockRef::from(s).set_linger(Some(Duration::ZERO)),
            #[cfg(unix)]
            Stream::Unix(_) => Ok(()),
            Stream::None => Ok(()),
            #[cfg(test)]
            Stream::Script(_) => Ok(()),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => {
                s.reset_on_close();
                Ok(())
            }
        }
    }

    /// Takes a linger time back, so that close(2) does not wait: it would, on Linux, though the
    /// socket does not block. A time of zero stays, which makes the close a reset.
    pub(crate) fn close_without_waiting(&self) {
        if let Stream::Tcp(s) = self
            && let Ok(Some(time)) = SockRef::from(s).linger()
            && !time.is_zero()
            && let Err(e) = SockRef::from(s).set_linger(None)
        {
            log::debug!("closing may wait for {time:?}: {e}");
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<Address> {
        match self {
            Stream::Tcp(s) => s.peer_addr().map(Address::Ip),
            #[cfg(unix)]
            Stream::Unix(s) => s.peer_addr().map(Address::from),
            Stream::None => Err(io::ErrorKind::NotConnected.into()),
            #[cfg(test)]
            Stream::Script(_) => Ok(Address::Unix(None)),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => s.peer_addr(),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Stream::Tcp(s) => s.local_addr().map(Address::Ip),
            #[cfg(unix)]
            Stream::Unix(s) => s.local_addr().map(Address::from),
            Stream::None => Err(io::ErrorKind::NotConnected.into()),
            #[cfg(test)]
            Stream::Script(_) => Ok(Address::Unix(None)),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => s.local_addr(),
        }
    }

    /// Gives the socket options to an accepted socket, where the system did not let it inherit
    /// them from its listener. `adopted`: the listener was given its options after it began to listen,
    /// so that peers that had connected by then have not inherited them.
    pub(crate) fn apply_accepted(&self, options: &SocketOptions, adopted: bool) -> io::Result<()> {
        match self {
            // Linux copies every option we set from the listening socket (tcp(7), "inherited");
            // one system call less for each accept.
            Stream::Tcp(_) if LINUX && !adopted => Ok(()),
            Stream::Tcp(s) => {
                options.apply_bound(&SockRef::from(s), domain_of(s.local_addr()?), Type::STREAM)
            }
            // The simulated ones inherit as Linux' do.
            #[cfg(feature = "sim")]
            Stream::Sim(_) => Ok(()),
            // From a Unix socket nothing is inherited.
            _ => self.apply(options),
        }
    }

    /// Sets the options on a socket that exists already.
    pub(crate) fn apply(&self, options: &SocketOptions) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => {
                options.apply(&SockRef::from(s), domain_of(s.local_addr()?), Type::STREAM)
            }
            #[cfg(unix)]
            Stream::Unix(s) => options.apply(&SockRef::from(s), Domain::UNIX, Type::STREAM),
            Stream::None => Ok(()),
            #[cfg(test)]
            Stream::Script(_) => Ok(()),
            #[cfg(feature = "sim")]
            Stream::Sim(s) => s.apply(options),
        }
    }
}

impl Pollable for Stream {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => s.register(registry, token, interest()),
            #[cfg(unix)]
            Stream::Unix(s) => s.register(registry, token, interest()),
            Stream::None => Ok(()),
            #[cfg(test)]
            Stream::Script(_) => Ok(()),
            #[cfg(feature = "sim")]
            Stream::Sim(_) => Err(super::sim::real("a poll of the system")),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Tcp(s) => s.deregister(registry),
            #[cfg(unix)]
            Stream::Unix(s) => s.deregister(registry),
            Stream::None => Ok(()),
            #[cfg(test)]
            Stream::Script(_) => Ok(()),
            #[cfg(feature = "sim")]
            Stream::Sim(_) => Err(super::sim::real("a poll of the system")),
        }
    }

    fn leaves_by_closing(&self) -> bool {
        // Simulated ones do in every build: a trace is the same on every system.
        #[cfg(feature = "sim")]
        if let Stream::Sim(_) = self {
            return true;
        }
        CLOSE_DEREGISTERS
    }

    #[cfg(feature = "sim")]
    fn simulated(&self) -> Option<&super::sim::Socket> {
        match self {
            Stream::Sim(socket) => Some(socket),
            _ => None,
        }
    }
}

/// Whether closing the only descriptor of a socket takes it out of the poll.
const CLOSE_DEREGISTERS: bool = cfg!(all(
    any(target_os = "linux", target_os = "android"),
    not(mio_unsupported_force_poll_poll)
));

/// Whether connect(2) goes on in the background (`EINPROGRESS`).
fn in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(EINPROGRESS)
}

/// Starts a connection. [`Stream::is_established`] has its result once the socket is writable.
pub(crate) fn connect(
    to: &Address,
    from: Option<SocketAddr>,
    options: &SocketOptions,
) -> io::Result<Stream> {
    #[cfg(feature = "sim")]
    if super::sim::is_simulated() {
        return super::sim::connect(to, from, options).map(Stream::Sim);
    }
    match to {
        Address::Ip(addr) => {
            let domain = domain_of(*addr);
            let socket = socket(domain, Type::STREAM, Some(Protocol::TCP))?;
            options.apply(&SockRef::from(&socket), domain, Type::STREAM)?;
            if let Some(local) = from {
                share_ports(&socket, local)?;
                socket.bind(&SockAddr::from(local)).map_err(|e| {
                    io::Error::new(e.kind(), format!("binding to the local address {local}: {e}"))
                })?;
            }
            match uninterrupted(|| socket.connect(&SockAddr::from(*addr))) {
                Err(e) if !in_progress(&e) => Err(e),
                _ => Ok(Stream::Tcp(mio::net::TcpStream::from_std(socket.into()))),
            }
        }
        #[cfg(unix)]
        Address::Unix(Some(path)) => {
            let socket = socket(Domain::UNIX, Type::STREAM, None)?;
            options.apply(&SockRef::from(&socket), Domain::UNIX, Type::STREAM)?;
            // EAGAIN means here that the listener's backlog is full, not that it goes on (unix(7)).
            let at = unix_address(path)?;
            match uninterrupted(|| socket.connect(&at)) {
                Err(e) if e.raw_os_error() != Some(EINPROGRESS) => Err(e),
                _ => Ok(Stream::Unix(mio::net::UnixStream::from_std(socket.into()))),
            }
        }
        #[cfg(unix)]
        Address::Unix(None) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Lets a port serve several destinations, as the system does where no local address is chosen. A
/// fixed port may be in `TIME_WAIT` from its last connection (`SO_REUSEADDR`); not on Windows, where
/// that option takes over a port in use. A port that the system chooses is chosen at connect(2) and not
/// at bind(2), so that only the same destination needs another one (`IP_BIND_ADDRESS_NO_PORT`, ip(7),
/// Linux 4.2), where the crate that sets it safely is there (feature `udp-batch`).
fn share_ports(socket: &Socket, local: SocketAddr) -> io::Result<()> {
    if local.port() != 0 {
        #[cfg(not(windows))]
        socket.set_reuse_address(true)?;
        return Ok(());
    }
    #[cfg(all(feature = "udp-batch", any(target_os = "linux", target_os = "android")))]
    if let Err(e) =
        nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)
    {
        log::debug!("each connection from {local} takes a port of its own: {e}");
    }
    Ok(())
}

pub(crate) fn adopt_tcp(stream: std::net::TcpStream) -> io::Result<Stream> {
    refuse_in_simulation()?;
    stream.set_nonblocking(true)?;
    keep_from_children(&SockRef::from(&stream))?;
    Ok(Stream::Tcp(mio::net::TcpStream::from_std(stream)))
}

#[cfg(unix)]
pub(crate) fn adopt_unix(stream: std::os::unix::net::UnixStream) -> io::Result<Stream> {
    refuse_in_simulation()?;
    stream.set_nonblocking(true)?;
    keep_from_children(&SockRef::from(&stream))?;
    Ok(Stream::Unix(mio::net::UnixStream::from_std(stream)))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const EINPROGRESS: i32 = 115;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const EINPROGRESS: i32 = 36;
#[cfg(windows)]
const EINPROGRESS: i32 = 10035;
