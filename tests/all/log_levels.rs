//! What is written to the log, and how loudly: what whoever runs the program has to know is a warning
//! or an error, and what a peer can cause at will is neither. (`hostile.rs` holds the latter for every
//! bad input it tries.)

use std::cell::Cell;
use std::io::Write;
use std::net::UdpSocket;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use log::Level;
use tidegate::{
    Connect, Context, Datagram, DatagramError, DatagramHandler, HandlerResult, Listen, Reactor,
    StreamOptions,
};

use crate::support::child::in_a_process_of_its_own;
use crate::support::logged;
use crate::support::panics::panic_on_purpose;
#[cfg(unix)]
use crate::support::sockets::hoard_descriptors;
use crate::support::{Log, Probe, address_of, client, listening, read_n, reset, settle, until};

/// What has been logged at this level and graver.
fn lines(level: Level) -> Vec<String> {
    logged::take_from(level).into_iter().map(|(level, line)| format!("{level} {line}")).collect()
}

#[test]
fn an_ordinary_life_is_not_logged_but_at_trace_level() {
    logged::take();
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || Probe::echo(&of_handler));
    let mut peer = client(address);
    peer.write_all(b"hello").unwrap();
    until(&mut reactor, "the echo", |_| log.data() == b"hello");
    assert_eq!(read_n(&mut peer, 5), b"hello");
    drop(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(logged::take().iter().filter(|(level, _)| *level < Level::Trace).count(), 0);
}

#[test]
fn how_a_connection_fails_is_logged_once_at_debug_level() {
    logged::take();
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || Probe::new(&of_handler));
    let peer = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    reset(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    let token = log.opened()[0];
    assert_eq!(lines(Level::Debug), [format!("DEBUG {token}: {}", log.reasons()[0])]);

    let mute = StreamOptions::new().idle_timeout(Duration::from_millis(20));
    let connect = Connect::tcp(address).options(mute);
    let token = reactor.net().connect(connect, Probe::new(&log)).unwrap();
    until(&mut reactor, "the timeout", |_| log.closes() >= 2);
    let expected = format!("DEBUG {token}: timed out: no byte moved for too long");
    assert!(lines(Level::Debug).contains(&expected));
}

#[test]
fn a_handler_that_returns_an_error_is_logged_at_debug_level() {
    logged::take();
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) =
        listening(move || Probe::new(&of_handler).data(|_, _| Err("no such command".into())));
    client(address).write_all(b"hello").unwrap();
    until(&mut reactor, "the close", |_| log.closes() == 1);
    let lines = lines(Level::Debug);
    assert!(lines[0].contains("the handler returned an error: no such command"), "{lines:?}");
    assert!(lines.iter().all(|line| line.starts_with("DEBUG")), "{lines:?}");
}

#[test]
fn a_panic_in_the_users_code_is_an_error() {
    logged::take();
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").filter(|_, ()| panic_on_purpose());
    let filter = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
    let address = address_of(&mut reactor, filter);
    let _peer = client(address);
    until(&mut reactor, "the filter", |r| r.net().listener_stats(filter).unwrap().accepted == 1);
    let of_handler = log.clone();
    let panics = reactor
        .net()
        .listen("127.0.0.1:0", move |_| Probe::new(&of_handler).open(|_| panic_on_purpose()))
        .unwrap();
    let _other = client(address_of(&mut reactor, panics));
    until(&mut reactor, "the close", |_| log.closes() == 1);
    let lines = lines(Level::Info);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("ERROR") && lines[0].ends_with("a hook panicked: on purpose"));
    assert!(
        lines[1].starts_with("ERROR") && lines[1].ends_with("the handler panicked: on purpose")
    );
}

/// However long it takes, and however many knock.
#[cfg(unix)]
#[test]
fn a_listener_without_descriptors_warns_and_does_not_fill_the_log() {
    if !in_a_process_of_its_own(a_listener_without_descriptors_warns_and_does_not_fill_the_log) {
        return;
    }
    logged::take();
    let (mut reactor, listener, address) = listening(|| Probe::new(&Log::new()));
    let _peers = [client(address), client(address)];
    let hoard = hoard_descriptors(0);
    until(&mut reactor, "four tries", |reactor| {
        reactor.net().listener_stats(listener).unwrap().exhausted >= 4
    });
    drop(hoard);
    let lines = lines(Level::Debug);
    let tries = lines.iter().filter(|line| line.contains("cannot accept: ")).count();
    assert!(tries >= 4, "{lines:?}");
    let warnings: Vec<_> = lines.iter().filter(|line| !line.starts_with("DEBUG")).collect();
    assert_eq!(warnings.len(), 1, "{lines:?}");
    assert!(warnings[0].starts_with("WARN") && warnings[0].contains("trying again"), "{lines:?}");
    settle(&mut reactor);
    assert_eq!(reactor.turn(Some(Duration::ZERO)).unwrap(), ControlFlow::Continue(()));
}

// C10: peers cause it, however often
#[test]
fn datagrams_that_the_handler_fails_at_warn_once_an_interval() {
    struct Picky(Rc<Cell<u32>>);
    impl DatagramHandler for Picky {
        fn on_datagram(&mut self, _: &mut Context<'_>, _: Datagram<'_>) -> HandlerResult {
            Err("garbage".into())
        }
        fn on_error(&mut self, _: &mut Context<'_>, _: DatagramError) -> HandlerResult {
            self.0.set(self.0.get() + 1);
            Ok(())
        }
    }
    logged::take();
    let errors = Rc::new(Cell::new(0));
    let mut reactor = Reactor::new().unwrap();
    let token = reactor.net().bind_udp("127.0.0.1:0", Picky(Rc::clone(&errors))).unwrap();
    let to = address_of(&mut reactor, token);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..50 {
        peer.send_to(b"x", to).unwrap();
    }
    until(&mut reactor, "the errors", |_| errors.get() == 50);
    let lines = lines(Level::Debug);
    let (warnings, others): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line.starts_with("WARN"));
    assert_eq!((warnings.len(), others.len()), (1, 49), "{lines:?}");
    assert!(warnings[0].ends_with("garbage"), "{warnings:?}");
    assert!(others.iter().all(|line| line.starts_with("DEBUG")), "{others:?}");
}
