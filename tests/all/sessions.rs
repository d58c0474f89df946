//! Sessions: each peer of a UDP socket has a handler, a token and an end of its own.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tidegate::{
    Admission, CloseInfo, Config, Context, Datagram, DatagramHandler, HandlerResult, Hello,
    Notification, Reactor, SendStatus, SessionOptions, SessionStats, Timer, Token, Udp,
};

use crate::support::datagrams::{address, received, socket};
use crate::support::panics::panic_on_purpose;
use crate::support::sockets::assert_sleeps;
use crate::support::{
    Log, Probe, Told, address_of, client, closed, read_n, settle, until, with_client,
};

/// Writes down what it is told, and does what datagrams say.
struct Spy(Log);

impl DatagramHandler for Spy {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.0.push(cx.token, Told::Open);
        Ok(())
    }

    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        assert_eq!(cx.peer_addr().unwrap().socket_addr(), Some(datagram.from));
        self.0.push(cx.token, Told::Data(datagram.bytes.to_vec()));
        match datagram.bytes {
            b"close" => cx.close(),
            b"abort" => {
                cx.send(b"never");
                cx.abort();
                assert_eq!(cx.send(b"too late"), SendStatus::Gone);
            }
            b"bye" => {
                cx.send(b"good-bye");
                cx.close();
            }
            b"error" => return Err("garbage".into()),
            b"panic" => panic_on_purpose(),
            b"close the socket" => {
                let socket = cx.net.session_socket(cx.token).unwrap();
                cx.net.close(socket);
            }
            b"timer" => drop(cx.set_timer(Duration::from_millis(1), 7)),
            b"notify" => assert!(cx.net.notify(cx.token, ())),
            bytes => drop(cx.send(bytes)),
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) -> HandlerResult {
        self.0.push(cx.token, Told::Timer(timer.tag()));
        cx.send(b"rang");
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Context<'_>, _: Notification) -> HandlerResult {
        self.0.push(cx.token, Told::Notification);
        cx.send(b"noted");
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_>, info: &CloseInfo) {
        assert!(cx.peer_addr().is_some());
        assert_eq!(cx.send(b"too late"), SendStatus::Gone);
        self.0.push(cx.token, Told::Close(info.reason.to_string(), info.unsent));
    }
}

struct Rig {
    reactor: Reactor,
    socket: Token,
    log: Log,
}

/// Accepts everybody.
fn rig(options: SessionOptions) -> Rig {
    rig_that(options, Config::new(), |_, spy| Admission::accept(spy))
}

fn rig_that(
    options: SessionOptions,
    config: Config,
    admit: impl Fn(&Hello<'_>, Spy) -> Admission<Spy> + 'static,
) -> Rig {
    let log = Log::new();
    let of_handlers = log.clone();
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let admit = move |hello: &Hello<'_>| admit(hello, Spy(of_handlers.clone()));
    let socket = reactor.net().bind_sessions("127.0.0.1:0", options, admit).unwrap();
    Rig { reactor, socket, log }
}

fn data(bytes: &[u8]) -> Told {
    Told::Data(bytes.to_vec())
}

impl Rig {
    fn address(&mut self) -> SocketAddr {
        address_of(&mut self.reactor, self.socket)
    }

    fn stats(&mut self) -> SessionStats {
        self.reactor.net().session_stats(self.socket).unwrap()
    }

    /// A peer that says something; its session.
    fn meets(&mut self, bytes: &[u8]) -> (UdpSocket, Token) {
        let peer = socket();
        self.hears(&peer, bytes);
        let token = self.log.opened().pop().unwrap();
        (peer, token)
    }

    /// It says something, which is heard.
    #[track_caller]
    fn hears(&mut self, peer: &UdpSocket, bytes: &[u8]) {
        let (to, log, said) = (self.address(), self.log.clone(), data(bytes));
        let before = log.count(|told| *told == said);
        peer.send_to(bytes, to).unwrap();
        let what = String::from_utf8_lossy(bytes);
        until(&mut self.reactor, &what, |_| log.count(|told| *told == said) > before);
    }

    #[track_caller]
    fn until_closed(&mut self, token: Token, reason: &str) {
        let log = self.log.clone();
        until(&mut self.reactor, reason, |_| {
            log.of(token).iter().any(|told| matches!(told, Told::Close(..)))
        });
        assert_eq!(log.of(token).last(), Some(&closed(reason)));
        assert_eq!(log.of(token).iter().filter(|t| matches!(t, Told::Close(..))).count(), 1);
    }
}

// row 185
#[test]
fn each_peer_has_a_session_of_its_own() {
    let mut rig = rig(SessionOptions::new());
    let (ada, first) = rig.meets(b"a");
    let (bob, second) = rig.meets(b"b");
    assert_ne!(first, second);
    rig.hears(&ada, b"timer");
    rig.hears(&bob, b"notify");
    rig.hears(&ada, b"");
    let log = rig.log.clone();
    until(&mut rig.reactor, "the timer", |_| log.count(|t| *t == Told::Timer(7)) == 1);
    until(&mut rig.reactor, "the note", |_| log.count(|t| *t == Told::Notification) == 1);
    settle(&mut rig.reactor);
    // Data of no bytes and the timer may come in either order.
    let mut of_first = log.of(first);
    of_first.retain(|told| *told != Told::Timer(7));
    assert_eq!(of_first, [Told::Open, data(b"a"), data(b"timer"), data(b"")]);
    assert_eq!(log.of(second), [Told::Open, data(b"b"), data(b"notify"), Told::Notification]);
    let mut heard = [received(&ada), received(&ada), received(&ada)];
    heard.sort();
    assert_eq!(heard, [&b""[..], b"a", b"rang"]);
    assert_eq!([received(&bob), received(&bob)], [&b"b"[..], b"noted"]);

    let (to, local) = (rig.address(), rig.reactor.net().local_addr(first));
    assert_eq!(local.unwrap().socket_addr(), Some(to));
    assert_eq!(rig.reactor.net().session_socket(first), Some(rig.socket));
    assert_eq!(rig.reactor.net().session_of(rig.socket, address(&bob)), Some(second));
    assert_eq!(rig.reactor.net().sessions(rig.socket), [first, second]);
    assert_eq!(rig.reactor.net().send(rig.socket, b"x"), SendStatus::Gone, "to whom?");
    let stats = rig.stats();
    assert_eq!((stats.open, stats.accepted, stats.refused), (2, 2, 0));
    assert_sleeps(&mut rig.reactor);
}

// row 186
#[test]
fn a_session_ends_once_and_says_why() {
    let mut rig = rig(SessionOptions::new());
    for (says, reason) in [
        (&b"close"[..], "closed"),
        (b"abort", "aborted"),
        (b"error", "garbage"),
        (b"panic", "the handler panicked: on purpose"),
    ] {
        let (peer, token) = rig.meets(b"hello");
        peer.send_to(says, rig.address()).unwrap();
        let log = rig.log.clone();
        until(&mut rig.reactor, reason, |_| {
            log.of(token).iter().any(|told| matches!(told, Told::Close(..)))
        });
        let unsent = if says == b"abort" { b"never".len() } else { 0 };
        let end = Told::Close(reason.to_owned(), unsent);
        assert_eq!(log.of(token), [Told::Open, data(b"hello"), data(says), end]);
        assert!(!rig.reactor.net().is_open(token));
        assert_eq!(rig.reactor.net().send(token, b"x"), SendStatus::Gone);
        assert_eq!(rig.reactor.net().session_of(rig.socket, address(&peer)), None);
        assert_eq!(received(&peer), b"hello");
        if says == b"abort" {
            rig.hears(&peer, b"again");
            assert_eq!(received(&peer), b"again", "what was aborted did not leave");
        }
    }
    // What was sent before a close leaves.
    let (peer, token) = rig.meets(b"bye");
    rig.until_closed(token, "closed");
    assert_eq!(received(&peer), b"good-bye");
    // Of the two ends of one session the first counts.
    let (_peer, token) = rig.meets(b"x");
    rig.reactor.net().close(token);
    rig.reactor.net().abort(token);
    rig.until_closed(token, "closed");
}

// row 186
#[test]
fn the_end_of_a_socket_a_shutdown_and_a_drop_end_its_sessions() {
    let mut closes = rig(SessionOptions::new());
    let (_ada, ada) = closes.meets(b"a");
    let (_bob, bob) = closes.meets(b"b");
    let at = closes.address();
    closes.reactor.net().close(closes.socket);
    drop(UdpSocket::bind(at).expect("the address is free"));
    closes.until_closed(ada, "its UDP socket was closed");
    closes.until_closed(bob, "its UDP socket was closed");
    assert_eq!(closes.reactor.net().session_stats(closes.socket), None);

    // By one of them, in the middle of a batch: the next datagram is told to nobody.
    let mut inside = rig(SessionOptions::new());
    let (peer, token) = inside.meets(b"hello");
    let to = inside.address();
    peer.send_to(b"close the socket", to).unwrap();
    peer.send_to(b"behind it", to).unwrap();
    inside.until_closed(token, "its UDP socket was closed");
    settle(&mut inside.reactor);
    assert_eq!(inside.log.count(|told| *told == data(b"behind it")), 0);

    let mut ends = rig(SessionOptions::new());
    let (_peer, token) = ends.meets(b"x");
    ends.reactor.net().shutdown(Duration::from_secs(3600));
    ends.reactor.run().unwrap();
    assert_eq!(
        ends.log.of(token).last(),
        Some(&closed("timed out: the time for the shutdown was up"))
    );

    let mut dropped = rig(SessionOptions::new());
    let (_peer, token) = dropped.meets(b"x");
    let log = dropped.log.clone();
    drop(dropped);
    assert_eq!(log.of(token).last(), Some(&closed("the reactor was dropped")));
}

// row 187
#[test]
fn a_failure_ends_its_own_session_and_no_other() {
    let mut rig = rig_that(SessionOptions::new(), Config::new(), |hello, spy| {
        if hello.bytes == b"break the door" {
            panic_on_purpose();
        }
        Admission::accept(spy)
    });
    let (ada, first) = rig.meets(b"a");
    let (_bob, second) = rig.meets(b"panic");
    let (_eve, third) = rig.meets(b"error");
    let to = rig.address();
    for _ in 0..3 {
        socket().send_to(b"break the door", to).unwrap();
    }
    rig.until_closed(second, "the handler panicked: on purpose");
    rig.until_closed(third, "garbage");
    rig.hears(&ada, b"still here");
    assert!(rig.reactor.net().is_open(first));
    assert!(rig.reactor.net().is_open(rig.socket));
    let stats = rig.stats();
    assert_eq!((stats.open, stats.accepted, stats.ignored), (1, 3, 3));
}

// row 188
#[test]
fn a_silent_peer_is_forgotten_and_never_too_early() {
    const IDLE: Duration = Duration::from_millis(60);
    let mut rig = rig(SessionOptions::new().idle_timeout(IDLE));
    let (ada, first) = rig.meets(b"a");
    let to = rig.address();
    // What is sent to it does not count; what it sends does.
    let log = rig.log.clone();
    let mut last = Instant::now();
    for _ in 0..6 {
        last = Instant::now();
        rig.hears(&ada, b"b");
        let _ = rig.reactor.turn(Some(IDLE / 3)).unwrap();
    }
    until(&mut rig.reactor, "silence", |reactor| {
        reactor.net().send(first, b"snapshot");
        log.closes() == 1
    });
    assert!(last.elapsed() >= IDLE, "{:?}", last.elapsed());
    assert_eq!(log.of(first).last(), Some(&closed("timed out: no byte moved for too long")));
    assert_eq!(rig.stats().open, 0);
    // The next datagram is that of a new peer.
    ada.send_to(b"again", to).unwrap();
    until(&mut rig.reactor, "a new session", |_| log.opens() == 2);
    assert_eq!(log.of(log.opened()[1]), [Told::Open, data(b"again")]);
}

// row 188
#[test]
fn nobody_is_silent_whom_this_side_does_not_hear() {
    const IDLE: Duration = Duration::from_millis(40);
    let mut rig = rig(SessionOptions::new().idle_timeout(IDLE));
    let (ada, first) = rig.meets(b"a");
    rig.reactor.net().pause(rig.socket);
    ada.send_to(b"b", rig.address()).unwrap();
    let start = Instant::now();
    while start.elapsed() < 3 * IDLE {
        let _ = rig.reactor.turn(Some(IDLE / 4)).unwrap();
    }
    assert!(rig.reactor.net().is_open(first), "what it said waits");
    rig.reactor.net().resume(rig.socket);
    let log = rig.log.clone();
    until(&mut rig.reactor, "what it said", |_| log.of(first).contains(&data(b"b")));
    rig.until_closed(first, "timed out: no byte moved for too long");
}

// row 189
#[test]
fn no_more_sessions_than_the_limits_say() {
    let options = SessionOptions::new().max_sessions(3).max_per_address(2);
    let mut rig = rig_that(options, Config::new(), |hello, spy| {
        if hello.full && hello.bytes == b"may I?" {
            return Admission::reply(b"full");
        }
        Admission::accept(spy)
    });
    let to = rig.address();
    let from = |ip: &str| {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        socket
    };
    let (ada, bob) = (from("127.0.0.1"), from("127.0.0.1"));
    rig.hears(&ada, b"a");
    rig.hears(&bob, b"b");
    // Two of this address are there.
    from("127.0.0.1").send_to(b"c", to).unwrap();
    let socket = rig.socket;
    let refused = |rig: &mut Rig, count| {
        until(&mut rig.reactor, "a refusal", |reactor| {
            reactor.net().session_stats(socket).unwrap().refused == count
        });
    };
    refused(&mut rig, 1);
    if cfg!(target_os = "linux") {
        // All of 127.0.0.0/8 is this host there.
        rig.hears(&from("127.0.0.2"), b"d");
        from("127.0.0.3").send_to(b"e", to).unwrap();
        refused(&mut rig, 2);
    }
    let asks = from("127.0.0.1");
    asks.send_to(b"may I?", to).unwrap();
    assert_eq!(with_client(&mut rig.reactor, move || received(&asks)), b"full");
    // One that ends makes room.
    rig.hears(&ada, b"close");
    let log = rig.log.clone();
    until(&mut rig.reactor, "its end", |_| log.closes() == 1);
    rig.hears(&from("127.0.0.1"), b"f");
    let stats = rig.stats();
    assert_eq!(stats.open, rig.reactor.net().sessions(rig.socket).len());
    assert_eq!(stats.accepted, log.opens() as u64);
}

// row 194
#[test]
fn a_session_that_has_ended_hears_nothing_and_its_address_waits_for_on_close() {
    let one_batch = Config::new();
    let mut rig = rig_that(SessionOptions::new(), one_batch, |_, spy| Admission::accept(spy));
    let (ada, first) = rig.meets(b"a");
    // All of it waits before the loop goes on: it comes in one turn.
    let to = rig.address();
    for bytes in [&b"close"[..], b"late", b"later"] {
        ada.send_to(bytes, to).unwrap();
    }
    rig.until_closed(first, "closed");
    settle(&mut rig.reactor);
    assert_eq!(rig.log.of(first), [Told::Open, data(b"a"), data(b"close"), closed("closed")]);
    let (late, opened) = (rig.stats().late, rig.log.opens());
    assert_eq!((late, opened), (2, 1), "they came before `on_close`");
    rig.hears(&ada, b"b");
    let second = rig.reactor.net().session_of(rig.socket, address(&ada)).unwrap();
    assert_ne!(first, second);
    assert_eq!(rig.reactor.net().send(first, b"stale"), SendStatus::Gone);
    assert!(!rig.reactor.net().notify(first, ()));
}

// row 191
#[test]
fn a_group_reaches_streams_and_sessions_alike() {
    let options = SessionOptions::new().datagram_limit(1_000);
    let mut rig = rig(options);
    let (ada, first) = rig.meets(b"a");
    let (bob, second) = rig.meets(b"b");
    assert_eq!([received(&ada), received(&bob)], [b"a", b"b"]);
    let log = Log::new();
    let of_handler = log.clone();
    let listener =
        rig.reactor.net().listen("127.0.0.1:0", move |_| Probe::new(&of_handler)).unwrap();
    let mut stream = client(address_of(&mut rig.reactor, listener));
    until(&mut rig.reactor, "the stream", |_| log.opens() == 1);
    let third = log.opened()[0];
    let net = rig.reactor.net();
    let group = net.create_group();
    for member in [first, second, third] {
        assert!(net.join(group, member));
    }
    assert!(!net.join(group, rig.socket), "a socket with many peers is no member");
    // One datagram for each message, in the order of the calls; too long for a datagram, not for a
    // stream.
    assert_eq!(net.publish(group, b"one").members, 3);
    net.send(first, b"direct");
    assert_eq!(net.publish_except(group, second, b"two").members, 2);
    net.publish(group, vec![b'x'; 1_001]);
    net.publish(group, b"three");
    assert!(net.queued(first) > 0);
    settle(&mut rig.reactor);
    let heard = |peer: &UdpSocket, n: usize| (0..n).map(|_| received(peer)).collect::<Vec<_>>();
    assert_eq!(heard(&ada, 4), [&b"one"[..], b"direct", b"two", b"three"]);
    assert_eq!(heard(&bob, 2), [&b"one"[..], b"three"]);
    let expected = [&b"onetwo"[..], &[b'x'; 1_001], b"three"].concat();
    assert_eq!(read_n(&mut stream, expected.len()), expected);
    assert_eq!(rig.reactor.net().group_stats(group).unwrap().dropped, 2);
    // What was published before a close leaves; then it is no member any more.
    rig.reactor.net().publish(group, b"last");
    rig.reactor.net().close(first);
    assert_eq!(rig.reactor.net().members(group).len(), 2);
    settle(&mut rig.reactor);
    assert_eq!(received(&ada), b"last");
    assert!(!rig.reactor.net().join(group, first));
}

// row 192
#[test]
fn what_waits_can_be_dropped() {
    let mut rig = rig(SessionOptions::new());
    let (ada, first) = rig.meets(b"a");
    let (bob, second) = rig.meets(b"b");
    assert_eq!([received(&ada), received(&bob)], [b"a", b"b"]);
    let socket = rig.socket;
    let net = rig.reactor.net();
    let group = net.create_group();
    net.join(group, first);
    net.join(group, second);
    for bytes in [&b"stale"[..], b"", b"older"] {
        net.send(second, b"kept 1");
        net.send(first, bytes);
    }
    net.publish(group, b"published");
    assert_eq!(net.queued(first), 5 + 5 + 9);
    assert_eq!(net.clear_queue(first), 5 + 5 + 9);
    assert_eq!((net.queued(first), net.clear_queue(first)), (0, 0));
    assert_eq!(net.queued(second), 3 * 6 + 9);
    net.send(first, b"new");
    settle(&mut rig.reactor);
    assert_eq!(received(&ada), b"new");
    let heard: Vec<_> = (0..4).map(|_| received(&bob)).collect();
    assert_eq!(heard, [&b"kept 1"[..], b"kept 1", b"kept 1", b"published"]);
    // All of the socket.
    let net = rig.reactor.net();
    net.send(first, b"1");
    net.send(second, b"22");
    net.publish(group, b"333");
    assert_eq!(net.clear_queue(socket), 1 + 2 + 2 * 3);
    net.send(second, b"end");
    settle(&mut rig.reactor);
    assert_eq!(received(&bob), b"end");
    assert_sleeps(&mut rig.reactor);
}

/// Counts snapshots, by the number that they begin with.
fn count_snapshots(peers: &[UdpSocket]) -> usize {
    let mut buffer = [0; 2048];
    let mut count = 0;
    for peer in peers {
        while let Ok(len) = peer.recv(&mut buffer) {
            assert_eq!(len, 1_200);
            count += 1;
        }
    }
    count
}

/// The loop of a game server: it takes what has come, sends a snapshot to each, and sleeps.
///
/// Returns how many snapshots were sent and not refused, and how many came.
fn game(players: usize, ticks: usize, tick: Duration) -> (usize, usize) {
    let options = SessionOptions::new().max_per_address(players);
    let mut rig = rig(options);
    let to = rig.address();
    let peers: Vec<UdpSocket> = (0..players).map(|_| socket()).collect();
    for peer in &peers {
        peer.set_nonblocking(true).unwrap();
        peer.send_to(b"join", to).unwrap();
        let _ = rig.reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let socket = rig.socket;
    until(&mut rig.reactor, "all to join", |r| r.net().sessions(socket).len() == players);
    settle(&mut rig.reactor);
    for peer in &peers {
        while peer.recv(&mut [0; 16]).is_ok() {}
    }
    let (mut sent, mut came) = (0, 0);
    let mut snapshot = vec![0; 1_200];
    for n in 0..ticks {
        let end = Instant::now() + tick;
        // The guide's recipe: turns as long as one is due, and then sleep.
        loop {
            let _ = rig.reactor.turn(Some(Duration::ZERO)).unwrap();
            if rig.reactor.next_deadline().is_none_or(|due| due > Instant::now()) {
                break;
            }
        }
        snapshot[..8].copy_from_slice(&n.to_be_bytes());
        for session in rig.reactor.net().sessions(socket).to_vec() {
            sent += usize::from(rig.reactor.net().send(session, &snapshot[..]).is_accepted());
        }
        came += count_snapshots(&peers);
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
    }
    settle(&mut rig.reactor);
    (sent, came + count_snapshots(&peers))
}

// row 193: 60 snapshots a second for 200 players; five seconds of it, as fast as they go
#[test]
fn a_loop_of_ones_own_loses_no_snapshot() {
    assert_eq!(game(200, 300, Duration::from_millis(2)), (60_000, 60_000));
    // More than the queue holds.
    assert_eq!(game(400, 20, Duration::ZERO), (8_000, 8_000));
}

// row 189
#[test]
fn bad_options_are_errors_that_say_what_was_expected() {
    let mut reactor = Reactor::new().unwrap();
    let accept = |_: &Hello<'_>| Admission::accept(Spy(Log::new()));
    let error = reactor
        .net()
        .bind_sessions("127.0.0.1:0", SessionOptions::new().max_sessions(0), accept)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let text =
        "cannot bind UDP for sessions: SessionOptions::max_sessions: expected more than zero";
    assert_eq!(error.to_string(), text);
    let connected = Udp::bind("127.0.0.1:0").connect("127.0.0.1:9");
    let error = reactor.net().bind_sessions(connected, SessionOptions::new(), accept).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("expected a socket for any peer"), "{error}");
    // Nor one that was connected before it was adopted.
    let adopted = UdpSocket::bind("127.0.0.1:0").unwrap();
    adopted.connect("127.0.0.1:9").unwrap();
    let error = reactor
        .net()
        .bind_sessions(Udp::adopt(adopted), SessionOptions::new(), accept)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("expected a socket for any peer"), "{error}");
    let adopted = Udp::adopt(UdpSocket::bind("127.0.0.1:0").unwrap());
    assert!(reactor.net().bind_sessions(adopted, SessionOptions::new(), accept).is_ok());
}

// row 219
#[test]
fn ends_and_messages_of_sessions_are_counted() {
    let mut rig =
        rig_that(SessionOptions::new(), Config::new(), |_, spy| Admission::accept(spy).skip(2));
    let mut peers = Vec::new();
    for says in [&b"close"[..], b"abort", b"error", b"echo"] {
        let (peer, to) = (socket(), rig.address());
        peer.send_to(&[b"hi", says].concat(), to).unwrap();
        peers.push((peer, says.len()));
    }
    let log = rig.log.clone();
    until(&mut rig.reactor, "three ends", |_| log.closes() == 3);
    until(&mut rig.reactor, "the fourth", |_| log.count(|told| *told == data(b"echo")) == 1);
    settle(&mut rig.reactor);
    assert_eq!(received(&peers[3].0), b"echo");
    let stats = rig.stats();
    assert_eq!((stats.open as u64, stats.accepted), (1, 4));
    assert_eq!(stats.closed.to_string(), "closed 1, aborted 1, handler 1");
    let bytes = 4 * 2 + "closeaborterrorecho".len() as u64;
    assert_eq!((stats.messages_received, stats.bytes_received), (4, bytes));
    // "never" was queued, and then aborted.
    assert_eq!((stats.messages_sent, stats.bytes_sent), (2, 9));
    // The reactor's own figures outlive the socket.
    rig.reactor.net().close(rig.socket);
    until(&mut rig.reactor, "the last end", |_| log.closes() == 4);
    let stats = rig.reactor.net().stats();
    assert_eq!(
        stats.sessions_closed.to_string(),
        "closed 1, aborted 1, handler 1, socket_closed 1"
    );
    assert_eq!(stats.closed.total(), 0, "no connection was there");
    let page = tidegate::stats::prometheus(&stats);
    let line = "tidegate_sessions_closed_total{reason=\"socket_closed\"} 1";
    assert!(page.contains(line) && !page.contains("tidegate_closed_total{reason=\"socket_closed"));
}

// row 221
#[test]
fn a_session_is_sent_no_value_that_could_be_replaced_and_every_one_that_is_published() {
    let mut rig = rig(SessionOptions::new());
    let (peer, token) = rig.meets(b"x");
    assert_eq!(received(&peer), b"x");
    let net = rig.reactor.net();
    assert_eq!(net.send_latest(token, 7, b"value"), SendStatus::Gone);
    assert_eq!(net.queued(token), 0);
    let group = net.create_group();
    assert!(net.join(group, token));
    for n in 0..10_u8 {
        assert_eq!(net.publish_latest(group, 7, [n]).members, 1);
    }
    settle(&mut rig.reactor);
    for n in 0..10_u8 {
        assert_eq!(received(&peer), [n]);
    }
    assert_eq!(rig.reactor.net().group_stats(group).unwrap().replaced, 0);
}

// row 190
#[test]
fn a_reply_to_a_stranger_is_no_longer_than_what_came() {
    let mut rig = rig_that(SessionOptions::new(), Config::new(), |hello, _| {
        Admission::reply(vec![b'r'; usize::from(hello.bytes[0])])
    });
    let to = rig.address();
    let peer = socket();
    for (asked, len) in [(12, 12), (13, 12), (255, 100), (100, 100)] {
        let mut hello = vec![0; len];
        hello[0] = asked;
        peer.send_to(&hello, to).unwrap();
    }
    let socket = rig.socket;
    until(&mut rig.reactor, "four", |reactor| {
        let stats = reactor.net().session_stats(socket).unwrap();
        stats.replied + stats.overlong == 4
    });
    let stats = rig.stats();
    assert_eq!((stats.replied, stats.overlong, stats.open), (2, 2, 0));
    assert_eq!([received(&peer).len(), received(&peer).len()], [12, 100]);
}

/// A client's handler and a session's may be one type.
#[test]
fn the_two_ends_of_a_protocol_may_be_one_handler() {
    struct Counts {
        counts: HashMap<Token, u32>,
    }
    struct Count;
    impl DatagramHandler<Counts> for Count {
        fn on_datagram(
            &mut self,
            cx: &mut Context<'_, Counts>,
            datagram: Datagram<'_>,
        ) -> HandlerResult {
            let number = u32::from_be_bytes(datagram.bytes.try_into()?) + 1;
            cx.state.counts.insert(cx.token, number);
            if number < 20 {
                cx.send(number.to_be_bytes());
            }
            Ok(())
        }
    }
    let counts = Counts { counts: HashMap::new() };
    let mut reactor = Reactor::with_state(counts).unwrap();
    let accept = |_: &Hello<'_>| Admission::accept(Count);
    let server = reactor.net().bind_sessions("127.0.0.1:0", SessionOptions::new(), accept).unwrap();
    let to = address_of(&mut reactor, server);
    let client = reactor.net().bind_udp(Udp::bind("127.0.0.1:0").connect(to), Count).unwrap();
    reactor.net().send(client, 0_u32.to_be_bytes());
    until(&mut reactor, "20", |reactor| reactor.state().counts.values().any(|&n| n == 20));
    let session = reactor.net().sessions(server)[0];
    let mut counts: Vec<u32> =
        [client, session].iter().map(|token| reactor.state().counts[token]).collect();
    counts.sort_unstable();
    assert_eq!(counts, [19, 20]);
}

/// Handlers of different types.
#[test]
fn the_handlers_of_one_socket_may_be_boxed() {
    struct Shout;
    impl DatagramHandler for Shout {
        fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
            cx.send(datagram.bytes.to_ascii_uppercase());
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let log = Log::new();
    let socket_token = reactor
        .net()
        .bind_sessions("127.0.0.1:0", SessionOptions::new(), move |hello: &Hello<'_>| {
            let handler: Box<dyn DatagramHandler> = match hello.bytes {
                [b'!', ..] => Box::new(Shout),
                _ => Box::new(Spy(log.clone())),
            };
            Admission::accept(handler).skip(1)
        })
        .unwrap();
    let to = address_of(&mut reactor, socket_token);
    let (loud, calm, empty) = (socket(), socket(), socket());
    loud.send_to(b"!abc", to).unwrap();
    calm.send_to(b"?abc", to).unwrap();
    empty.send_to(b"?", to).unwrap();
    let heard = with_client(&mut reactor, move || [received(&loud), received(&calm)]);
    assert_eq!(heard, [b"ABC", b"abc"]);
    until(&mut reactor, "the third", |reactor| reactor.net().sessions(socket_token).len() == 3);
}
