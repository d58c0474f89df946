//! Opening many connections, and the one read and write that all TCP loads use.

use crate::Result;
use crate::host::CpuClock;
use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// Fewer than any server's backlog: a connect that finds it full would be repeated only after a second.
const BURST: usize = 500;

pub fn connect_all(addr: SocketAddr, count: usize, clock: CpuClock) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    for index in 0..count {
        if index > 0 && index % BURST == 0 {
            clock.wait_until_quiet()?;
        }
        streams.push(connect(addr, index)?);
    }
    clock.wait_until_quiet()?;
    Ok(streams)
}

/// Connects, and waits for it. `index` is any number that differs from one connection to the next.
pub fn connect(addr: SocketAddr, index: usize) -> Result<TcpStream> {
    let socket = socket(index)?;
    socket.connect(&addr.into())?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}

/// Begins to connect; the socket becomes writable when it is done.
pub fn begin_connect(addr: SocketAddr, index: usize) -> Result<TcpStream> {
    let socket = socket(index)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error.into()),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// A socket with one of many loopback addresses as its source. From one address alone, the search for a free port
/// takes hundreds of microseconds once some ten thousand are in use or in TIME_WAIT.
fn socket(index: usize) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let block = index / 2_000;
    let source =
        SocketAddr::from(([127, 0, (block / 250 % 250) as u8, (block % 250 + 1) as u8], 0));
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(&source.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// The bytes that were there (zero when none), an error at the end of the stream.
pub fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
    loop {
        return match stream.read(buffer) {
            Ok(0) => Err("the server closed a connection".into()),
            Ok(n) => Ok(n),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// The bytes that the socket took, zero when it is full.
pub fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        return match stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other,
        };
    }
}
