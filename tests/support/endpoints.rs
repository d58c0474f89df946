//! Endpoints that are hard to come by (one that refuses, one that never answers), a process of its
//! own for a test that spoils its process, and the proof that a reactor sleeps.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
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

/// Runs the named test once more in a process of its own, and answers whether this *is* that
/// process: `if !in_a_process_of_its_own("name") { return }`.
#[track_caller]
pub fn in_a_process_of_its_own(test: &str) -> bool {
    const MARK: &str = "TIDEGATE_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains("1 passed"), "no test of the name {test}: {said}");
    false
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
