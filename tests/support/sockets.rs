//! Sockets that are made to be awkward, and checks on a loop that has nothing to do.

use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tidegate::{Reactor, SocketOptions, StreamOptions};

use super::{PATIENCE, until};

/// As little as the system lets a socket have (Linux: some 5 KiB; the default lets one connection
/// swallow about 4 MB on loopback).
pub fn small() -> SocketOptions {
    SocketOptions::new().send_buffer(1).receive_buffer(1)
}

/// The defaults, with small socket buffers.
pub fn small_options() -> StreamOptions {
    StreamOptions::new().socket_options(small())
}

/// A blocking client with a small receive buffer; it must be small before the connection stands,
/// because the window it announces follows it.
pub fn small_client(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.set_send_buffer_size(1).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// Sends one urgent byte (tcp(7), out-of-band data).
pub fn send_urgent(stream: &TcpStream, byte: u8) {
    assert_eq!(SockRef::from(stream).send_out_of_band(&[byte]).unwrap(), 1);
}

/// Takes all descriptors of this process but `left`.
#[cfg(unix)]
pub fn hoard_descriptors(left: usize) -> Vec<std::fs::File> {
    let (_, hard) = rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap();
    rlimit::setrlimit(rlimit::Resource::NOFILE, 128, hard).unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }
    hoard.truncate(hoard.len() - left);
    hoard
}

/// Holds that nothing keeps the loop awake: some turns in a row sleep through their limit. A single
/// event may still come before, such as that of a delayed acknowledgement (40 ms on Linux).
#[track_caller]
pub fn assert_sleeps<S>(reactor: &mut Reactor<S>) {
    let limit = Duration::from_millis(20);
    let mut slept = 0;
    until(reactor, "the loop to sleep: something spins", |reactor| {
        let start = Instant::now();
        assert_eq!(reactor.turn(Some(limit)).unwrap(), ControlFlow::Continue(()));
        slept = if start.elapsed() >= limit { slept + 1 } else { 0 };
        slept == 3
    });
}

/// Bytes that tell their place in a stream: `n` of them from `at` on.
pub fn stream_bytes(at: usize, n: usize) -> Vec<u8> {
    (at..at + n).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}
