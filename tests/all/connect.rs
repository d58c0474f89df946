//! Outgoing connections: each one's result is told exactly once, never from inside the call, and
//! says what went wrong.

use std::cell::RefCell;
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::{
    Address, CloseInfo, CloseReason, Connect, ConnectErrorKind, Context, Handler, HandlerResult,
    Input, Listen, Reactor, SendStatus, SocketOptions, StreamOptions, Target,
};

use crate::support::endpoints::{assert_asleep, assert_falls_asleep, deaf, refusing};
use crate::support::{
    Log, Probe, Told, address_of, listening, read_all, read_n, reset, settle, until,
};

const SHORT: Duration = Duration::from_millis(50);

// ---- it stands ----

// row 18
#[test]
fn what_is_sent_while_connecting_goes_out_once_it_stands() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let probe = Probe::new(&log).open(|cx| {
        cx.send(b"third");
        Ok(())
    });
    let token = reactor.net().connect(server.local_addr().unwrap(), probe).unwrap();
    assert_eq!(reactor.net().send(token, b"first "), SendStatus::Queued);
    assert_eq!(reactor.net().send(token, b"second "), SendStatus::Queued);
    assert_eq!(reactor.net().queued(token), 13);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    let (mut stream, _) = server.accept().unwrap();
    assert_eq!(read_n(&mut stream, 18), b"first second third");
}

// row 18: more than the system takes at once, and the end behind it
#[test]
fn a_large_message_and_the_end_of_the_write_side_wait_for_the_connection() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let to = Connect::tcp(server.local_addr().unwrap())
        .options(StreamOptions::new().socket_options(SocketOptions::new().send_buffer(8 * 1024)));
    let token = reactor.net().connect(to, Probe::new(&log)).unwrap();
    let large = vec![b'x'; 1 << 20];
    assert_eq!(reactor.net().send(token, &large), SendStatus::AboveHighWater);
    reactor.net().half_close(token);
    assert_eq!(reactor.net().send(token, b"too late"), SendStatus::Gone);
    let reading = std::thread::spawn(move || read_all(&mut server.accept().unwrap().0));
    until(&mut reactor, "the reader", |_| reading.is_finished());
    assert_eq!(reading.join().unwrap(), large);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.reasons(), ["both sides ended"]);
}

#[test]
fn on_open_comes_once_and_never_from_inside_connect() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let to = server.local_addr().unwrap();
    let token = reactor.net().connect(to, Probe::new(&log)).unwrap();
    assert_eq!(log.told(), [], "not before connect has returned");
    assert!(reactor.net().is_open(token), "neither closed nor closing");
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    assert_falls_asleep(&mut reactor);
    assert_eq!(log.all(), [(token, Told::Open)]);
    assert_eq!(reactor.net().peer_addr(token), Some(to.into()));
}

// row 21
#[cfg(target_os = "linux")] // which takes it for this host; others refuse it
#[test]
fn connecting_to_the_unspecified_address_reaches_this_host() {
    for unspecified in ["0.0.0.0:0", "[::]:0"] {
        let any: SocketAddr = unspecified.parse().unwrap();
        let log = Log::new();
        let of_handler = log.clone();
        let mut reactor = Reactor::new().unwrap();
        let factory = move |_: &tidegate::Peer<'_>| Probe::echo(&of_handler);
        let listener = match reactor.net().listen(any, factory) {
            Ok(listener) => listener,
            Err(e) if any.is_ipv6() => return eprintln!("no IPv6 here: {e}"),
            Err(e) => panic!("{e}"),
        };
        let to = address_of(&mut reactor, listener);
        assert!(to.ip().is_unspecified());
        let client = Log::new();
        let token = reactor.net().connect(to, Probe::new(&client)).unwrap();
        reactor.net().send(token, b"round trip");
        until(&mut reactor, "the echo", |_| client.data() == b"round trip");
    }
}

// ---- it does not ----

// row 15
#[test]
fn a_refused_connect_is_one_on_close_with_the_reason() {
    let refusing = refusing();
    let outcome = Outcome::default();
    let mut reactor = Reactor::new().unwrap();
    reactor.net().connect(refusing.address, outcome.handler()).unwrap();
    assert_eq!(outcome.told(), 0, "not before connect has returned");
    until(&mut reactor, "the result", |_| outcome.told() > 0);
    assert_falls_asleep(&mut reactor);
    assert_eq!(outcome.failure().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!((outcome.opens(), outcome.told()), (0, 1));
    assert_eq!(reactor.net().connection_count(), 0);
    assert_eq!(reactor.next_deadline(), None, "its timeout died with it");
}

// row 15: one that connects again in `on_close`, the pattern of every client
#[test]
fn a_client_that_connects_again_on_close_is_told_of_every_attempt_once() {
    struct Again {
        to: SocketAddr,
        left: u32,
        log: Log,
    }
    impl Handler for Again {
        fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
            unreachable!("nobody answers")
        }
        fn on_close(&mut self, cx: &mut Context<'_>, closed: &CloseInfo) {
            self.log.push(cx.token, Told::Close(closed.reason.to_string(), closed.unsent));
            if self.left > 0 {
                let next = Again { to: self.to, left: self.left - 1, log: self.log.clone() };
                let token = cx.net.connect(self.to, next).unwrap();
                assert_eq!(cx.net.send(token, b"knock"), SendStatus::Queued);
            }
        }
    }
    let refusing = refusing();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let first = Again { to: refusing.address, left: 9, log: log.clone() };
    reactor.net().connect(refusing.address, first).unwrap();
    until(&mut reactor, "ten results", |_| log.closes() == 10);
    assert_falls_asleep(&mut reactor);
    assert_eq!(log.closes(), 10);
    let mut tokens: Vec<_> = log.all().into_iter().map(|(token, _)| token).collect();
    tokens.dedup();
    assert_eq!(tokens.len(), 10, "each one under a token of its own");
}

// row 17
#[test]
fn what_was_sent_before_a_connect_failed_is_reported_as_unsent() {
    let refusing = refusing();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let token = reactor.net().connect(refusing.address, Probe::new(&log)).unwrap();
    reactor.net().send(token, b"never ");
    reactor.net().send(token, vec![0; 20_000]);
    until(&mut reactor, "the result", |_| log.closes() == 1);
    let told = log.told();
    let [Told::Close(reason, unsent)] = &told[..] else { panic!("{told:?}") };
    assert!(reason.starts_with("cannot connect to "), "{reason}");
    assert_eq!(*unsent, 20_006);
    assert_eq!(reactor.net().send(token, b"gone"), SendStatus::Gone);
}

// row 16
#[test]
fn a_connect_that_nobody_answers_ends_at_its_timeout() {
    let deaf = deaf();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let to = Connect::tcp(deaf.address).options(StreamOptions::new().connect_timeout(SHORT));
    let start = Instant::now();
    let token = reactor.net().connect(to, Probe::new(&log)).unwrap();
    reactor.net().send(token, b"hello?");
    until(&mut reactor, "the result", |_| log.closes() == 1);
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    let reason = format!("cannot connect to {}: not established in time", deaf.address);
    assert_eq!(log.told(), [Told::Close(reason, 6)]);
    assert_asleep(&mut reactor);
}

// row 16: the clock starts with the call, not with the last turn
#[test]
fn a_connect_long_after_the_last_turn_has_its_whole_time() {
    let deaf = deaf();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    std::thread::sleep(2 * SHORT); // set-up takes its time
    let to = Connect::tcp(deaf.address).options(StreamOptions::new().connect_timeout(SHORT));
    let start = Instant::now();
    reactor.net().connect(to, Probe::new(&log)).unwrap();
    until(&mut reactor, "the result", |_| log.closes() == 1);
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
}

// row 16: once it stands the timeout is over
#[test]
fn the_connect_timeout_ends_with_the_opening() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let to = Connect::tcp(server.local_addr().unwrap())
        .options(StreamOptions::new().connect_timeout(SHORT));
    let token = reactor.net().connect(to, Probe::new(&log)).unwrap();
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    let start = Instant::now();
    until(&mut reactor, "the timeout to pass", |_| start.elapsed() > 2 * SHORT);
    assert_eq!(log.told(), [Told::Open]);
    assert!(reactor.net().is_open(token));
}

// row 7: from a callback of another connection
#[test]
fn a_connect_cancelled_by_another_connections_callback_is_told_once() {
    let deaf = deaf();
    let cancelled = Log::new();
    let of_cancelled = cancelled.clone();
    let (mut reactor, _, address) = listening(move || {
        let cancelled = of_cancelled.clone();
        Probe::new(&Log::new()).data(move |cx, input| {
            input.take_all();
            let token = cx.net.connect(deaf.address, Probe::new(&cancelled))?;
            cx.net.close(token);
            assert!(!cx.net.is_open(token));
            assert_eq!(cx.net.send(token, b"?"), SendStatus::Gone);
            assert!(cancelled.told().is_empty(), "not from inside a callback");
            Ok(())
        })
    });
    crate::support::client(address).write_all(b"!").unwrap();
    until(&mut reactor, "the result", |_| cancelled.closes() == 1);
    settle(&mut reactor);
    let reason = format!("cannot connect to {}: cancelled", deaf.address);
    assert_eq!(cancelled.told(), [Told::Close(reason, 0)]);
}

// row 20
#[test]
fn connecting_from_an_address_that_is_not_this_hosts_fails_and_says_so() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let foreign = [("192.0.2.1:0", server.local_addr().unwrap()), ("[2001:db8::1]:0", v6(9))];
    for (from, to) in foreign {
        let outcome = Outcome::default();
        let mut reactor = Reactor::new().unwrap();
        let connect = Connect::tcp(to).local_addr(from.parse().unwrap());
        reactor.net().connect(connect, outcome.handler()).unwrap();
        assert_eq!(outcome.told(), 0, "it failed at once, and is told later all the same");
        until(&mut reactor, "the result", |_| outcome.told() > 0);
        let error = outcome.failure();
        if to.is_ipv4() || error.kind() == std::io::ErrorKind::AddrNotAvailable {
            assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable, "{error}");
            assert!(error.to_string().contains(from), "{error}");
        }
        assert_eq!((outcome.opens(), outcome.told()), (0, 1));
    }
}

// row 20
#[test]
fn a_target_that_does_not_resolve_fails_in_on_close_like_any_other_connect() {
    let nothing = Target::from(Vec::new());
    let nonsense = ["127.0.0.1", "", "127.0.0.1:notaport", "[::1:80"].map(Target::from);
    let nonsense = nonsense.map(|target| (target, ConnectErrorKind::InvalidTarget));
    for (target, kind) in nonsense.into_iter().chain([(nothing, ConnectErrorKind::Resolve)]) {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let mut reactor = Reactor::new().unwrap();
        let token = reactor.net().connect(target.clone(), Reasons(Rc::clone(&seen))).unwrap();
        assert_eq!(reactor.net().send(token, b"unheard"), SendStatus::Gone);
        assert!(seen.borrow().is_empty(), "not before connect has returned");
        settle(&mut reactor);
        let seen = seen.borrow();
        let [(failed, text)] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!(failed, &(kind, target, None, true));
        let hint = text.contains("expected address:port");
        assert_eq!(hint, kind == ConnectErrorKind::InvalidTarget, "{text}");
        assert_eq!(reactor.net().connection_count(), 0);
        assert_eq!(reactor.next_deadline(), None);
    }
}

// every failure of a connect has one place, and says which target and address
#[test]
fn each_kind_of_connect_failure_names_its_target_and_address() {
    let (refusing, deaf) = (refusing(), deaf());
    let both = Target::from([refusing.address, deaf.address]);
    for (kind, target, address) in [
        (ConnectErrorKind::System, Target::from(refusing.address), refusing.address),
        (ConnectErrorKind::TimedOut, both, deaf.address),
        (ConnectErrorKind::Cancelled, Target::from(deaf.address), deaf.address),
    ] {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let mut reactor = Reactor::new().unwrap();
        let options = StreamOptions::new().connect_timeout(SHORT);
        let connect = Connect::tcp(target.clone()).options(options);
        let token = reactor.net().connect(connect, Reasons(Rc::clone(&seen))).unwrap();
        if kind == ConnectErrorKind::Cancelled {
            reactor.net().close(token);
        }
        until(&mut reactor, "the result", |_| !seen.borrow().is_empty());
        settle(&mut reactor);
        let seen = seen.borrow();
        let [(failed, text)] = &seen[..] else { panic!("{seen:?}") };
        let of_system = kind == ConnectErrorKind::System;
        assert_eq!(failed, &(kind, target, Some(address.into()), of_system), "{text}");
    }
}

// D10
#[cfg(target_os = "linux")]
#[test]
fn a_socket_that_is_connected_to_itself_is_refused() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = Outcome::default();
    let mut reactor = Reactor::new().unwrap();
    let connect = Connect::tcp(free).local_addr(free);
    reactor.net().connect(connect, outcome.handler()).unwrap();
    until(&mut reactor, "the result", |_| outcome.told() > 0);
    let error = outcome.failure();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(error.to_string().contains("connected to itself"), "{error}");
    assert_eq!(outcome.opens(), 0);
}

// ---- several addresses, a local address ----

#[test]
fn the_first_address_that_answers_is_taken() {
    let (first, second) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let token = reactor.net().connect(Connect::tcp(&addresses[..]), Probe::new(&log)).unwrap();
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    assert_eq!(reactor.net().peer_addr(token), Some(addresses[0].into()));
    second.set_nonblocking(true).unwrap();
    assert_eq!(second.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn an_address_that_refuses_makes_room_for_the_next() {
    let (refusing, also) = (refusing(), refusing());
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let live = server.local_addr().unwrap();
    let addresses = [refusing.address, also.address, live];
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let token = reactor.net().connect(Connect::tcp(&addresses[..]), Probe::new(&log)).unwrap();
    reactor.net().send(token, b"kept over all attempts");
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    assert_eq!(log.all(), [(token, Told::Open)], "nothing was told of those that failed");
    assert_eq!(reactor.net().peer_addr(token), Some(live.into()));
    let (mut stream, _) = server.accept().unwrap();
    assert_eq!(read_n(&mut stream, 22), b"kept over all attempts");
    assert_falls_asleep(&mut reactor); // and nothing comes of the sockets that were given up
}

// one that fails in connect(2) itself, between two that fail later
#[test]
fn when_no_address_answers_the_last_ones_error_is_told_once() {
    let (refusing, also) = (refusing(), refusing());
    let broadcast = SocketAddr::from(([255, 255, 255, 255], 9));
    let addresses = [broadcast, refusing.address, broadcast, also.address];
    let outcome = Outcome::default();
    let mut reactor = Reactor::new().unwrap();
    reactor.net().connect(Connect::tcp(&addresses[..]), outcome.handler()).unwrap();
    until(&mut reactor, "the result", |_| outcome.told() > 0);
    assert_falls_asleep(&mut reactor);
    assert_eq!(outcome.failure().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!((outcome.opens(), outcome.told()), (0, 1));
}

#[test]
fn the_connect_timeout_covers_all_addresses_together() {
    let (refusing, deaf) = (refusing(), deaf());
    let addresses = [refusing.address, deaf.address];
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let to = Connect::tcp(&addresses[..]).options(StreamOptions::new().connect_timeout(SHORT));
    let start = Instant::now();
    reactor.net().connect(to, Probe::new(&log)).unwrap();
    until(&mut reactor, "the result", |_| log.closes() == 1);
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    let (tried, target) = (deaf.address, format!("{}, {}", refusing.address, deaf.address));
    let reason = format!("cannot connect to {tried} (of {target}): not established in time");
    assert_eq!(log.reasons(), [reason]);
}

#[cfg(target_os = "linux")] // where all of 127/8 is this host
#[test]
fn a_connection_comes_from_the_local_address_that_was_chosen() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let refusing = refusing();
    let addresses = [refusing.address, server.local_addr().unwrap()];
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let connect = Connect::tcp(&addresses[..]).local_addr("127.0.0.7:0".parse().unwrap());
    let token = reactor.net().connect(connect, Probe::new(&log)).unwrap();
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    let (_stream, from) = server.accept().unwrap();
    assert_eq!(from.ip(), IpAddr::from([127, 0, 0, 7]));
    assert_eq!(reactor.net().local_addr(token), Some(from.into()));
}

// ---- storms ----

#[test]
fn a_hundred_connects_of_every_kind_have_a_hundred_results() {
    let (refusing, deaf) = (refusing(), deaf());
    let served = Log::new();
    let (mut reactor, _, live) = listening(move || Probe::echo(&served));
    let log = Log::new();
    let options = StreamOptions::new().connect_timeout(SHORT);
    let mut tokens = Vec::new();
    for i in 0..100 {
        let to = [live, refusing.address, deaf.address, live][i % 4];
        let to = Connect::tcp(to).options(options.clone());
        let token = reactor.net().connect(to, Probe::new(&log)).unwrap();
        reactor.net().send(token, b"!");
        if i % 4 == 3 {
            reactor.net().abort(token);
        }
        tokens.push(token);
    }
    assert_eq!(log.told(), []);
    until(&mut reactor, "all results", |_| log.opens() == 25 && log.closes() == 75);
    until(&mut reactor, "the echoes", |_| log.data().len() == 25);
    assert_falls_asleep(&mut reactor);
    for (i, token) in tokens.into_iter().enumerate() {
        let told = log.of(token);
        match (i % 4, &told[..]) {
            (0, [Told::Open, Told::Data(_)]) => {}
            (1, [Told::Close(reason, 1)]) => {
                assert!(reason.starts_with("cannot connect"), "{reason}");
            }
            (2, [Told::Close(reason, 1)]) => assert!(reason.ends_with("in time"), "{reason}"),
            (3, [Told::Close(reason, 1)]) => assert!(reason.ends_with("cancelled"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

// ---- listening side of rows 19 and 20 ----

// row 19
#[test]
fn an_address_in_use_is_an_error_that_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut reactor = Reactor::new().unwrap();
    let error = reactor.net().listen(address, |_| Probe::new(&Log::new())).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot listen on {address}: ")), "{text}");
    assert!(text.ends_with("choose another address or end that program"), "{text}");
}

// row 20
#[test]
fn an_address_that_is_not_this_hosts_cannot_be_listened_on() {
    let mut reactor = Reactor::new().unwrap();
    for foreign in ["192.0.2.1:0", "[2001:db8::1]:0"] {
        let error = reactor.net().listen(foreign, |_| Probe::new(&Log::new())).unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot listen on {foreign}: ")), "{error}");
        if foreign.starts_with('1') {
            assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
        }
    }
    let several: &[SocketAddr] = &["192.0.2.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let listener = reactor.net().listen(Listen::tcp(several), |_| Probe::new(&Log::new())).unwrap();
    assert_eq!(reactor.net().local_addrs(listener).len(), 1, "the one that works is enough");
}

// ---- what these tests share ----

/// The parts of a failed connect: kind, target, address, whether it has an error of the system.
type Failed = (ConnectErrorKind, Target, Option<Address>, bool);

/// Keeps how a connect failed, and its text; nothing else may come.
struct Reasons(Rc<RefCell<Vec<(Failed, String)>>>);

impl Handler for Reasons {
    fn on_open(&mut self, _: &mut Context<'_>) -> HandlerResult {
        unreachable!("it is never established")
    }
    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        unreachable!("it is never established")
    }
    fn on_close(&mut self, _: &mut Context<'_>, closed: &CloseInfo) {
        let CloseReason::ConnectFailed(e) = &closed.reason else { panic!("{closed}") };
        let parts = (e.kind(), e.target().clone(), e.address().cloned(), e.io().is_some());
        self.0.borrow_mut().push((parts, e.to_string()));
    }
}

/// The result of one connect, with its reason whole.
#[derive(Default, Clone)]
struct Outcome(Rc<RefCell<Seen>>);

#[derive(Default)]
struct Seen {
    opens: usize,
    closes: Vec<String>,
    failure: Option<std::io::Error>,
}

impl Outcome {
    fn handler(&self) -> impl Handler + 'static {
        struct Told(Outcome);
        impl Handler for Told {
            fn on_open(&mut self, _: &mut Context<'_>) -> HandlerResult {
                self.0.0.borrow_mut().opens += 1;
                Ok(())
            }
            fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
                Ok(())
            }
            fn on_close(&mut self, _: &mut Context<'_>, closed: &CloseInfo) {
                let mut seen = self.0.0.borrow_mut();
                seen.closes.push(closed.reason.to_string());
                if let CloseReason::ConnectFailed(e) = &closed.reason {
                    assert_eq!(e.kind(), ConnectErrorKind::System);
                    let kind = e.io().expect("the system's error").kind();
                    seen.failure = Some(std::io::Error::new(kind, e.to_string()));
                }
            }
        }
        Told(self.clone())
    }

    fn opens(&self) -> usize {
        self.0.borrow().opens
    }

    /// How often `on_close` came.
    fn told(&self) -> usize {
        self.0.borrow().closes.len()
    }

    fn failure(&self) -> std::io::Error {
        let mut seen = self.0.borrow_mut();
        seen.failure.take().unwrap_or_else(|| panic!("not a failed connect: {:?}", seen.closes))
    }
}

fn v6(port: u16) -> SocketAddr {
    (IpAddr::V6(Ipv6Addr::LOCALHOST), port).into()
}

#[test]
fn an_address_that_never_answers_leaves_the_next_one_its_share_of_the_time() {
    let deaf = deaf();
    let (mut reactor, _listener, address) = listening(|| Probe::new(&Log::new()));
    let log = Log::new();
    // Half of it is the second one's, which may take long on a busy machine.
    let options = StreamOptions::new().connect_timeout(Duration::from_secs(3));
    let to = Connect::tcp(&[deaf.address, address][..]).options(options);
    reactor.net().connect(to, Probe::new(&log)).unwrap();
    until(&mut reactor, "the opening", |_| log.opens() == 1);
}

// what `Connect` and `Listen` can do, `Adopt` can: a layer, with a handshake and without
#[cfg(feature = "websocket")]
#[test]
fn an_adopted_socket_can_be_given_a_layer() {
    use tidegate::layer::websocket::WebSocket;
    use tidegate::{Adopt, Listen};

    let of_server = Log::new();
    let of_handler = of_server.clone();
    let mut reactor = Reactor::new().unwrap();
    let server = WebSocket::server();
    let listen = Listen::tcp("127.0.0.1:0").layer(move |_| server.layer());
    let listener = reactor.net().listen(listen, move |_| Probe::echo(&of_handler)).unwrap();
    let stream = crate::support::client(address_of(&mut reactor, listener));
    let log = Log::new();
    let adopt = Adopt::from(stream).layer(WebSocket::client("localhost", "/").layer());
    let token = reactor.net().adopt(adopt, Probe::new(&log)).unwrap();
    assert_eq!(reactor.net().send(token, b"through the layer"), SendStatus::Queued);
    until(&mut reactor, "the echo", |_| log.data() == b"through the layer");
    assert_eq!((log.opens(), of_server.opens()), (1, 1));
}

#[test]
fn an_adopted_socket_with_a_layer_that_has_no_handshake_opens_at_once() {
    use tidegate::Adopt;
    use tidegate::layer::LengthPrefixed;

    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = crate::support::client(server.local_addr().unwrap());
    let (mut peer, _) = server.accept().unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let adopt = Adopt::from(stream).layer(LengthPrefixed::new(2));
    let token = reactor.net().adopt(adopt, Probe::new(&log)).unwrap();
    reactor.net().send(token, b"hello");
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    assert_eq!(read_n(&mut peer, 7), b"\0\x05hello");
}

// row 102
#[test]
fn what_came_before_a_reset_is_heard_also_if_the_reset_came_before_the_first_turn() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let to = target.local_addr().unwrap();
    reactor.net().connect(to, Probe::new(&log)).unwrap();
    let mut stream = target.accept().unwrap().0;
    stream.write_all(b"too many connections").unwrap();
    reset(stream);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    let told = log.told();
    assert_eq!(told[0], Told::Open);
    assert_eq!(log.data(), b"too many connections");
    assert_eq!(log.reasons(), ["Connection reset by peer (os error 104)"]);
}

// D3, D7
#[test]
fn a_fixed_local_port_is_free_in_on_close() {
    struct Again {
        to: SocketAddr,
        from: SocketAddr,
        left: u32,
        log: Log,
    }
    impl Handler for Again {
        fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
            Ok(())
        }
        fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
            self.log.push(cx.token, Told::Open);
            Ok(())
        }
        fn on_close(&mut self, cx: &mut Context<'_>, closed: &CloseInfo) {
            self.log.push(cx.token, Told::Close(closed.reason.to_string(), closed.unsent));
            if self.left > 0 {
                let next = Again { left: self.left - 1, log: self.log.clone(), ..*self };
                cx.net.connect(Connect::tcp(self.to).local_addr(self.from), next).unwrap();
            }
        }
    }
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let from = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let first = Again { to, from, left: 2, log: log.clone() };
    reactor.net().connect(Connect::tcp(to).local_addr(from), first).unwrap();
    for round in 1..=3 {
        until(&mut reactor, "the opening", |_| log.opens() == round);
        let (peer, seen) = server.accept().unwrap();
        assert_eq!(seen, from);
        reset(peer);
        until(&mut reactor, "the close", |_| log.closes() == round);
    }
    assert!(log.reasons().iter().all(|reason| !reason.contains("cannot connect")));
}
