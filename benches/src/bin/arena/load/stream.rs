//! Opening connections, and the one read and write that all loads over TCP use, whether the server speaks TLS or not.

use super::tls::{Session, Sessions};
use super::websocket;
use crate::Result;
use crate::host::CpuClock;
use arena::server::Over;
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

/// Fewer than any server's backlog: a connect that finds it full would be repeated only after a second.
const BURST: usize = 500;

/// Opens connections to a server.
pub struct Opener {
    addr: SocketAddr,
    over: Over,
    tls: Option<Sessions>,
}

/// A connection.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<Session>>,
}

/// What a read gave.
pub struct Got {
    pub bytes: usize,
    /// There was no more; false where there may be.
    pub drained: bool,
}

impl Opener {
    /// `tls` makes the sessions where the scenario has TLS.
    pub fn new(addr: SocketAddr, over: Over, tls: Option<Sessions>) -> Self {
        Self { addr, over, tls }
    }

    pub fn open_all(&self, count: usize, clock: CpuClock) -> Result<Vec<Stream>> {
        let mut streams = Vec::with_capacity(count);
        for index in 0..count {
            if index > 0 && index % BURST == 0 {
                clock.wait_until_quiet()?;
            }
            streams.push(self.open(index)?);
        }
        clock.wait_until_quiet()?;
        Ok(streams)
    }

    /// Connects, and waits until the layers are open as well. `index` is any number that differs from one
    /// connection to the next.
    pub fn open(&self, index: usize) -> Result<Stream> {
        let mut socket = std::net::TcpStream::from(bound(index)?.connected(self.addr)?);
        let mut tls = self.tls.as_ref().map(Sessions::start).transpose()?;
        if let Some(tls) = &mut tls {
            tls.open(&mut socket)?;
        }
        if self.over.has_websocket() {
            let deflate = self.over == Over::Deflate;
            match &mut tls {
                Some(tls) => websocket::open(&mut tls.blocking(&mut socket), deflate)?,
                None => websocket::open(&mut socket, deflate)?,
            }
        }
        socket.set_nonblocking(true)?;
        Ok(Stream { socket: TcpStream::from_std(socket), tls: tls.map(Box::new) })
    }

    /// Begins to connect; the socket becomes writable when it is done. TLS begins with the first write.
    pub fn begin(&self, index: usize) -> Result<Stream> {
        let Bound(socket) = bound(index)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.addr.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => {
                return Err(error.into());
            }
            _ => {}
        }
        let tls = self.tls.as_ref().map(Sessions::start).transpose()?.map(Box::new);
        Ok(Stream { socket: TcpStream::from_std(socket.into()), tls })
    }
}

/// A socket with one of many loopback addresses as its source. From one address alone, the search for a free port
/// takes hundreds of microseconds once some ten thousand are in use or in TIME_WAIT.
fn bound(index: usize) -> Result<Bound> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let block = index / 2_000;
    let source =
        SocketAddr::from(([127, 0, (block / 250 % 250) as u8, (block % 250 + 1) as u8], 0));
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(&source.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(Bound(socket))
}

struct Bound(Socket);

impl Bound {
    fn connected(self, addr: SocketAddr) -> io::Result<Socket> {
        self.0.connect(&addr.into())?;
        Ok(self.0)
    }
}

impl Stream {
    /// What was there; an error at the end of the stream.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Got> {
        self.read_or_end(buffer)?.ok_or_else(|| "the server closed a connection".into())
    }

    /// What was there; none at the end of the stream.
    pub fn read_or_end(&mut self, buffer: &mut [u8]) -> Result<Option<Got>> {
        match &mut self.tls {
            Some(tls) => tls.read(&mut self.socket, buffer),
            None => Ok(match read(&mut self.socket, buffer)? {
                Some(0) => None,
                Some(bytes) => Some(Got { bytes, drained: bytes < buffer.len() }),
                None => Some(Got { bytes: 0, drained: true }),
            }),
        }
    }

    /// The bytes that were taken, zero when the socket is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.write(&mut self.socket, bytes),
            None => Ok(write(&mut self.socket, bytes)?),
        }
    }

    /// Goes on with what TLS took and the socket did not.
    pub fn flush(&mut self) -> Result<()> {
        match &mut self.tls {
            Some(tls) => tls.flush(&mut self.socket),
            None => Ok(()),
        }
    }

    /// Whether TLS went on from an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_resumed())
    }

    /// Says that nothing follows, where there is a way to; the connection is about to be closed.
    pub fn say_goodbye(&mut self) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.end(&mut self.socket)?;
        }
        Ok(())
    }

    /// Ends the output; the input stays open. False when the socket is too full for that: again later.
    pub fn end(&mut self) -> Result<bool> {
        if let Some(tls) = &mut self.tls
            && !tls.end(&mut self.socket)?
        {
            return Ok(false);
        }
        self.socket.shutdown(Shutdown::Write)?;
        Ok(true)
    }

    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }
}

/// The bytes that were there, zero of them at the end; none when nothing was there.
pub fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        return match socket.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.map(Some),
        };
    }
}

fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        return match socket.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other,
        };
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, of: Interest) -> io::Result<()> {
        self.socket.register(registry, token, of)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, of: Interest) -> io::Result<()> {
        self.socket.reregister(registry, token, of)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }
}
