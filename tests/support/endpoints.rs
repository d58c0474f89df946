//! Endpoints that are hard to come by (one that refuses, one that never answers), and the proof that
//! a reactor sleeps.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tidegate::Reactor;

use super::{client, until};

/// A TCP port that refuses every connection, for as long as this lives: bound, so that nobody else
/// gets it, and not listening.
pub struct Refusing {
    _socket: Socket,
    pub address: SocketAddr,
}

pub fn refusing() -> Refusing {
    let (socket, address) = bound();
    Refusing { _socket: socket, address }
}

/// A TCP port that never answers, for as long as this lives: it listens, and its backlog is full.
pub struct Deaf {
    _socket: Socket,
    _waiting: TcpStream,
    pub address: SocketAddr,
}

pub fn deaf() -> Deaf {
    let (socket, address) = bound();
    socket.listen(0).unwrap(); // room for one (listen(2): the system adds one)
    let waiting = client(address);
    Deaf { _socket: socket, _waiting: waiting, address }
}

fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Nothing wakes the reactor: it sleeps through the whole of a turn. What was under way is let come
/// to rest first.
#[track_caller]
pub fn assert_falls_asleep<S>(reactor: &mut Reactor<S>) {
    let limit = Duration::from_millis(20);
    until(reactor, "the reactor to fall asleep", |reactor| {
        let start = Instant::now();
        let _ = reactor.turn(Some(limit)).unwrap();
        start.elapsed() >= limit
    });
}

/// Nothing wakes the reactor, not even once.
#[track_caller]
pub fn assert_asleep<S>(reactor: &mut Reactor<S>) {
    let limit = Duration::from_millis(20);
    let start = Instant::now();
    let _ = reactor.turn(Some(limit)).unwrap();
    assert!(start.elapsed() >= limit, "woken after {:?}", start.elapsed());
}
