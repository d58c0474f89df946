//! Reading: ends, resets, pauses, limits, urgent data.

use std::cell::RefCell;
use std::io::Write;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::{
    CloseInfo, Config, Connect, Context, Handler, HandlerResult, Input, Listen, Reactor,
    SendStatus, SocketOptions, StreamOptions, Timer, Token,
};

use crate::support::sockets::{
    assert_sleeps, send_urgent, small_client, small_options, stream_bytes,
};
use crate::support::xorshift::Xorshift;
use crate::support::{
    Log, Probe, Told, address_of, client, closed, is_data, listening, read_all, read_n, reset,
    settle, until, with_client,
};

const RESET: &str = "Connection reset by peer (os error 104)";
const BROKEN_PIPE: &str = "Broken pipe (os error 32)";

/// A listener whose probes `shape` may change, and the log of them.
fn probed(mut shape: impl FnMut(Probe) -> Probe + 'static) -> (Reactor, Log, std::net::SocketAddr) {
    let log = Log::new();
    let of_handlers = log.clone();
    let (reactor, _listener, address) = listening(move || shape(Probe::new(&of_handlers)));
    (reactor, log, address)
}

/// A handler that goes on after the peer's end.
fn half_open(probe: Probe) -> Probe {
    probe.eof(|_| Ok(()))
}

/// Turns until the first connection is open.
fn opened(reactor: &mut Reactor, log: &Log) -> Token {
    until(reactor, "a connection", |_| log.opens() == 1);
    log.opened()[0]
}

fn data(bytes: &[u8]) -> Told {
    Told::Data(bytes.to_vec())
}

// ---- resets ----

// row 25
#[test]
fn a_reset_is_reported_once() {
    let (mut reactor, log, address) = probed(|probe| probe);
    let mut peer = client(address);
    peer.write_all(b"hi").unwrap();
    until(&mut reactor, "the data", |_| log.data() == b"hi");
    reset(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_sleeps(&mut reactor);
    assert_eq!(log.told(), [Told::Open, data(b"hi"), closed(RESET)]);
    assert_eq!(reactor.net().connection_count(), 0);
}

// row 25
#[test]
fn a_reset_reaches_a_reader_that_is_paused_after_the_data_before_it() {
    let (mut reactor, log, address) = probed(|probe| {
        probe.open(|cx| {
            cx.pause();
            Ok(())
        })
    });
    let mut peer = client(address);
    opened(&mut reactor, &log);
    peer.write_all(b"last words").unwrap();
    settle(&mut reactor);
    reset(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told(), [Told::Open, data(b"last words"), closed(RESET)]);
}

// row 25
#[test]
fn a_reset_reaches_a_reader_that_pauses_when_it_is_already_there() {
    let (mut reactor, log, address) = probed(|probe| {
        probe.data(|cx, input| {
            input.take_all();
            cx.pause();
            Ok(())
        })
    });
    let mut peer = client(address);
    opened(&mut reactor, &log);
    peer.write_all(b"last words").unwrap();
    reset(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told(), [Told::Open, data(b"last words"), closed(RESET)]);
}

// row 26
#[test]
fn after_a_read_error_nothing_is_told_but_the_close() {
    let log = Log::new();
    let of_handlers = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(small_options().auto_pause(false));
    let listener = reactor
        .net()
        .listen(listen, move |_| {
            Probe::new(&of_handlers).open(|cx| {
                assert_eq!(cx.send(vec![1; 200_000]), SendStatus::AboveHighWater);
                Ok(())
            })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let mut peer = small_client(address);
    let token = opened(&mut reactor, &log);
    settle(&mut reactor);
    peer.write_all(b"never read the answer").unwrap();
    reset(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_sleeps(&mut reactor);
    let told = log.told();
    assert_eq!(log.count(|told| *told == Told::Drain), 0);
    assert!(matches!(told.last(), Some(Told::Close(_, unsent)) if *unsent > 0), "{told:?}");
    assert_eq!(reactor.net().send(token, b"x"), SendStatus::Gone);
}

// row 47
#[test]
fn a_reset_after_our_half_close_closes() {
    let (mut reactor, log, address) = probed(|probe| {
        probe.open(|cx| {
            cx.half_close();
            Ok(())
        })
    });
    with_client(&mut reactor, move || {
        let mut peer = client(address);
        assert_eq!(read_all(&mut peer), b"");
        reset(peer);
    });
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_sleeps(&mut reactor);
    assert_eq!(log.told(), [Told::Open, closed(RESET)]);
    assert_eq!(reactor.net().connection_count(), 0);
}

// row 47
#[test]
fn a_reset_after_the_peers_half_close_closes() {
    let (mut reactor, log, address) = probed(half_open);
    let peer = client(address);
    peer.shutdown(Shutdown::Write).unwrap();
    until(&mut reactor, "the end", |_| log.eofs() == 1);
    assert_sleeps(&mut reactor);
    reset(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_sleeps(&mut reactor);
    // Linux says EPIPE for a reset behind an end (tcp_reset in the kernel).
    assert_eq!(log.told(), [Told::Open, Told::Eof, closed(BROKEN_PIPE)]);
    assert_eq!(reactor.net().connection_count(), 0);
}

// row 47
#[test]
fn a_reset_after_the_peers_half_close_closes_a_paused_connection() {
    let (mut reactor, log, address) = probed(|probe| {
        half_open(probe.open(|cx| {
            cx.pause();
            Ok(())
        }))
    });
    let mut peer = client(address);
    opened(&mut reactor, &log);
    peer.write_all(b"last words").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    settle(&mut reactor);
    reset(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told(), [Told::Open, data(b"last words"), closed(BROKEN_PIPE)]);
    assert_eq!(reactor.net().connection_count(), 0);
}

// ---- end-of-stream ----

// rows 27, 28
#[test]
fn an_end_stays_in_force_without_a_spin_while_we_go_on_sending() {
    let (mut reactor, log, address) = probed(half_open);
    let mut peer = client(address);
    peer.shutdown(Shutdown::Write).unwrap();
    until(&mut reactor, "the end", |_| log.eofs() == 1);
    assert_sleeps(&mut reactor);
    let token = log.opened()[0];
    let answer = stream_bytes(0, 1_000_000);
    assert_eq!(reactor.net().send(token, &answer), SendStatus::Queued);
    reactor.net().half_close(token);
    let got = with_client(&mut reactor, move || read_all(&mut peer));
    assert!(got == answer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told(), [Told::Open, Told::Eof, closed("both sides ended")]);
}

// row 28
#[test]
fn we_receive_everything_after_we_ended_our_side() {
    let (mut reactor, log, address) = probed(|probe| {
        probe.open(|cx| {
            cx.half_close();
            Ok(())
        })
    });
    let sent = stream_bytes(0, 1_000_000);
    let to_send = sent.clone();
    with_client(&mut reactor, move || {
        let mut peer = client(address);
        assert_eq!(read_all(&mut peer), b"");
        peer.write_all(&to_send).unwrap();
    });
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert!(log.data() == sent);
    assert_eq!(log.eofs(), 1);
    assert_eq!(log.reasons(), ["both sides ended"]);
}

// row 61
#[test]
fn data_and_end_in_one_edge_are_both_seen() {
    for waits_in_the_backlog in [true, false] {
        let (mut reactor, log, address) = probed(|probe| probe);
        let mut peer = client(address);
        if !waits_in_the_backlog {
            opened(&mut reactor, &log);
        }
        peer.write_all(b"all").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        until(&mut reactor, "the close", |_| log.closes() == 1);
        assert_eq!(log.told(), [Told::Open, data(b"all"), Told::Eof, closed("both sides ended")]);
    }
}

// row 61
#[test]
fn an_end_behind_exactly_one_full_read_is_seen() {
    // A read that brings as much as it may says nothing of what is behind it. Small enough for all of
    // it to be there before the first read.
    let config = Config::new().read_buffer(4096);
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", move |_| Probe::new(&of_handler)).unwrap();
    let mut peer = client(address_of(&mut reactor, listener));
    opened(&mut reactor, &log);
    peer.write_all(&[7; 4096]).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told(), [Told::Open, data(&[7; 4096]), Told::Eof, closed("both sides ended")]);
}

// row 35
#[test]
fn a_socket_shut_down_behind_our_back_ends_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = client(listener.local_addr().unwrap());
    let behind_our_back = ours.try_clone().unwrap();
    let _peer = listener.accept().unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let token = reactor.net().adopt(ours, half_open(Probe::new(&log))).unwrap();
    opened(&mut reactor, &log);
    behind_our_back.shutdown(Shutdown::Both).unwrap();
    until(&mut reactor, "the end", |_| log.eofs() == 1);
    assert_sleeps(&mut reactor);
    reactor.net().send(token, b"x");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_sleeps(&mut reactor);
    assert_eq!(log.told(), [Told::Open, Told::Eof, Told::Close(BROKEN_PIPE.to_owned(), 1)]);
}

// ---- pausing ----

// row 41
#[test]
fn a_paused_reader_with_data_pending_does_not_keep_the_loop_awake() {
    let (mut reactor, log, address) = probed(|probe| {
        probe.open(|cx| {
            cx.pause();
            Ok(())
        })
    });
    let mut peer = client(address);
    let token = opened(&mut reactor, &log);
    for piece in 0..5 {
        peer.write_all(&stream_bytes(piece * 1000, 1000)).unwrap();
        assert_sleeps(&mut reactor);
    }
    peer.shutdown(Shutdown::Write).unwrap();
    assert_sleeps(&mut reactor);
    assert_eq!(log.told(), [Told::Open]);
    reactor.net().resume(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert!(log.data() == stream_bytes(0, 5000));
    assert_eq!(log.eofs(), 1);
}

// row 42
#[test]
fn pause_and_resume_after_the_peers_half_close() {
    let (mut reactor, log, address) = probed(half_open);
    let mut peer = client(address);
    let token = opened(&mut reactor, &log);
    reactor.net().pause(token);
    peer.write_all(b"late").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_sleeps(&mut reactor);
    reactor.net().send(token, b"still here");
    let (got, mut peer) = with_client(&mut reactor, move || (read_n(&mut peer, 10), peer));
    assert_eq!(got, b"still here");
    assert_eq!(log.told(), [Told::Open]);
    reactor.net().resume(token);
    until(&mut reactor, "the end", |_| log.eofs() == 1);
    for _ in 0..3 {
        reactor.net().pause(token);
        reactor.net().resume(token);
        assert_sleeps(&mut reactor);
    }
    assert_eq!(log.told(), [Told::Open, data(b"late"), Told::Eof]);
    reactor.net().half_close(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(read_all(&mut peer), b"");
    assert_eq!(log.reasons(), ["both sides ended"]);
}

// row 42
#[test]
fn pause_and_resume_after_our_half_close() {
    let (mut reactor, log, address) = probed(|probe| probe);
    let mut peer = client(address);
    let token = opened(&mut reactor, &log);
    reactor.net().half_close(token);
    reactor.net().pause(token);
    peer.write_all(b"one").unwrap();
    assert_sleeps(&mut reactor);
    assert_eq!(log.told(), [Told::Open]);
    reactor.net().resume(token);
    until(&mut reactor, "the data", |_| log.data() == b"one");
    reactor.net().pause(token);
    peer.write_all(b"two").unwrap();
    drop(peer);
    assert_sleeps(&mut reactor);
    reactor.net().resume(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(
        log.told(),
        [Told::Open, data(b"one"), data(b"two"), Told::Eof, closed("both sides ended")]
    );
}

// row 42
#[test]
fn a_frame_for_each_resume_gets_every_frame_and_the_end() {
    let (mut reactor, log, address) = probed(|probe| {
        probe
            .data(|cx, input| {
                if input.take(4).is_some() {
                    cx.pause();
                    cx.set_timer(Duration::ZERO, 0);
                }
                Ok(())
            })
            .timer(|cx, _| {
                cx.resume();
                Ok(())
            })
    });
    let mut peer = client(address);
    peer.write_all(b"aaaabbbbcc").unwrap();
    drop(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    let mut told = log.told();
    told.retain(|told| *told != Told::Timer(0));
    told.dedup(); // what is left is offered again at the end
    let offers = [data(b"aaaabbbbcc"), data(b"bbbbcc"), data(b"cc")];
    assert_eq!(told[1..4], offers);
    assert_eq!(told[4..], [Told::Eof, closed("both sides ended")]);
}

// ---- urgent data ----

// row 43
#[test]
fn urgent_data_neither_stalls_what_follows_nor_spins() {
    let (mut reactor, log, address) = probed(|probe| probe);
    let mut peer = client(address);
    opened(&mut reactor, &log);
    peer.write_all(b"before ").unwrap();
    send_urgent(&peer, b'!');
    peer.write_all(b"after ").unwrap();
    until(&mut reactor, "what follows", |_| log.data() == b"before after ");
    assert_sleeps(&mut reactor);
    send_urgent(&peer, b'?');
    assert_sleeps(&mut reactor);
    peer.write_all(b"more").unwrap();
    until(&mut reactor, "more", |_| log.data() == b"before after more");
    drop(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.eofs(), 1);
}

// row 43
#[test]
fn urgent_data_in_every_place_of_a_stream_loses_nothing() {
    let (mut reactor, log, address) = probed(|probe| probe);
    with_client(&mut reactor, move || {
        let mut peer = client(address);
        for at in 0..200 {
            peer.write_all(&stream_bytes(at * 100, 100)).unwrap();
            send_urgent(&peer, b'!');
        }
    });
    until(&mut reactor, "the close", |_| log.closes() == 1);
    // Only the last urgent byte is kept aside; the ones before it may show in the stream (tcp(7)).
    let got: Vec<u8> = log.data();
    let expected = stream_bytes(0, 20_000);
    let mut rest = expected.iter().peekable();
    for byte in got {
        if rest.peek() == Some(&&byte) {
            rest.next();
        } else {
            assert_eq!(byte, b'!');
        }
    }
    assert_eq!(rest.next(), None);
}

// ---- limits ----

// row 44
#[test]
fn input_nobody_takes_closes_with_a_reason_at_the_limit() {
    let log = Log::new();
    let of_handlers = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(StreamOptions::new().unread_limit(1000));
    let listener = reactor
        .net()
        .listen(listen, move |_| Probe::new(&of_handlers).data(|_, _| Ok(())))
        .unwrap();
    let mut peer = client(address_of(&mut reactor, listener));
    peer.write_all(&[1; 1000]).unwrap();
    until(
        &mut reactor,
        "the data",
        |_| matches!(log.told().last(), Some(Told::Data(d)) if d.len() == 1000),
    );
    assert_sleeps(&mut reactor);
    assert_eq!(log.closes(), 0);
    peer.write_all(&[1]).unwrap();
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.reasons(), ["more unread input than the limit of 1000 bytes"]);
}

// row 44
#[test]
fn what_a_paused_reader_has_not_read_does_not_count() {
    let log = Log::new();
    let of_handlers = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(StreamOptions::new().unread_limit(1000));
    let listener = reactor
        .net()
        .listen(listen, move |_| {
            Probe::new(&of_handlers).open(|cx| {
                cx.pause();
                Ok(())
            })
        })
        .unwrap();
    let mut peer = client(address_of(&mut reactor, listener));
    let token = opened(&mut reactor, &log);
    peer.write_all(&[1; 100_000]).unwrap();
    drop(peer);
    assert_sleeps(&mut reactor);
    reactor.net().resume(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.data().len(), 100_000);
    assert_eq!(log.reasons(), ["both sides ended"]);
}

// ---- everything at once ----

// row 45
#[test]
fn random_duplex_traffic_with_pauses_and_half_closes_arrives_whole() {
    for seed in 1..=40 {
        let mut random = Xorshift::new(seed);
        // Larger than the smallest: those move only with the system's window probes, slowly.
        let buffer = 8000 + random.below(60_000);
        let socket = SocketOptions::new().send_buffer(buffer).receive_buffer(buffer);
        let options = StreamOptions::new().socket_options(socket);
        // Both sides talk before they listen: each would wait for the other to read first.
        let options = options
            .auto_pause(false)
            .low_water(random.below(4000))
            .high_water(4000 + random.below(60_000));
        let done = Rc::new(RefCell::new(Vec::new()));
        let mut reactor = Reactor::new().unwrap();
        let results = Rc::clone(&done);
        let mut accepted = 0;
        let listen = Listen::tcp("127.0.0.1:0").options(options.clone());
        let listener = reactor
            .net()
            .listen(listen, move |_| {
                accepted += 1;
                Talker::new(seed * 1000 + accepted, &results)
            })
            .unwrap();
        let address = address_of(&mut reactor, listener);
        for number in 0..2 {
            let connect = Connect::tcp(address).options(options.clone());
            reactor.net().connect(connect, Talker::new(seed * 7000 + number, &done)).unwrap();
        }
        until(&mut reactor, "the end of all", |_| done.borrow().len() == 4);
        let done = done.borrow();
        let sent: usize = done.iter().map(|end: &End| end.sent).sum();
        let received: usize = done.iter().map(|end| end.received).sum();
        assert_eq!(sent, received, "seed {seed}");
        for end in done.iter() {
            assert_eq!((end.ends, end.unsent), (1, 0), "seed {seed}");
            assert_eq!(end.reason, "both sides ended", "seed {seed}");
        }
    }
}

struct End {
    sent: usize,
    received: usize,
    ends: usize,
    unsent: usize,
    reason: String,
}

/// Sends a random amount in random pieces with random breaks, then half-closes; takes its input in
/// random pieces with random pauses, and checks it.
struct Talker {
    random: Xorshift,
    left: usize,
    sent: usize,
    received: usize,
    ends: usize,
    done: Rc<RefCell<Vec<End>>>,
}

const GO_ON: u64 = 1;
const RESUME: u64 = 2;

impl Talker {
    fn new(seed: u64, done: &Rc<RefCell<Vec<End>>>) -> Self {
        let mut random = Xorshift::new(seed);
        let left = if random.chance(5) { 0 } else { random.below(200_000) };
        Talker { random, left, sent: 0, received: 0, ends: 0, done: Rc::clone(done) }
    }

    fn talk(&mut self, cx: &mut Context<'_>) {
        while self.left > 0 {
            let most = if self.random.chance(4) { 40_000 } else { 3000 };
            let n = (self.random.below(most) + 1).min(self.left);
            let status = cx.send(stream_bytes(self.sent, n));
            self.sent += n;
            self.left -= n;
            match status {
                SendStatus::AboveHighWater => return,
                SendStatus::Queued => {}
                refused => panic!("{refused:?}"),
            }
            if self.random.chance(20) {
                cx.set_timer(Duration::from_millis(1), GO_ON);
                return;
            }
        }
        cx.half_close();
    }
}

impl Handler for Talker {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.talk(cx);
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.talk(cx);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let n = self.random.below(input.len()) + 1;
        let taken = input.take(n).unwrap();
        assert!(taken == stream_bytes(self.received, n), "wrong bytes at {}", self.received);
        self.received += n;
        if self.random.chance(10) {
            cx.pause();
            cx.set_timer(Duration::from_millis(self.random.below(2) as u64), RESUME);
        }
        Ok(())
    }

    fn on_eof(&mut self, _: &mut Context<'_>) -> HandlerResult {
        self.ends += 1;
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) -> HandlerResult {
        match timer.tag() {
            GO_ON => self.talk(cx),
            _ => cx.resume(),
        }
        Ok(())
    }

    fn on_close(&mut self, _: &mut Context<'_>, closed: &CloseInfo) {
        self.done.borrow_mut().push(End {
            sent: self.sent,
            received: self.received,
            ends: self.ends,
            unsent: closed.unsent,
            reason: closed.reason.to_string(),
        });
    }
}

#[test]
fn a_reset_offers_a_paused_reader_no_more_than_its_limit() {
    const LIMIT: usize = 10_000;
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(StreamOptions::new().unread_limit(LIMIT));
    let handler = move |_: &tidegate::Peer<'_>| {
        Probe::new(&of_handler).open(|cx| {
            cx.pause();
            Ok(())
        })
    };
    let listener = reactor.net().listen(listen, handler).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut peer = client(address);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    peer.write_all(&[7; 50_000]).unwrap();
    settle(&mut reactor);
    assert_eq!(log.data(), b"");
    reset(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.data().len(), LIMIT);
    assert_eq!(log.reasons(), [RESET]);
}

// ---- the end in one edge with data, several frames in one read ----

// row 61
#[test]
fn data_and_the_end_in_one_edge_are_both_told() {
    // One byte; the read buffer's size, just below and above it; several reads; more than a turn's.
    let buffer = 4096;
    let a_turn = buffer * 4;
    for size in [1, buffer - 1, buffer, buffer + 1, 2 * buffer, a_turn, a_turn + 1, 3 * a_turn] {
        let log = Log::new();
        let of_handler = log.clone();
        let config = Config::new().read_buffer(buffer);
        let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
        let listener =
            reactor.net().listen("127.0.0.1:0", move |_| Probe::new(&of_handler)).unwrap();
        let mut stream = client(address_of(&mut reactor, listener));
        stream.write_all(&vec![b'd'; size]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        until(&mut reactor, "the end", |_| log.closes() == 1);
        assert_eq!(log.data().len(), size);
        assert_eq!((log.eofs(), log.reasons()), (1, vec!["both sides ended".to_owned()]));
    }
}

// row 61
#[test]
fn data_and_the_end_in_one_edge_while_the_connection_is_open_and_through_a_layer() {
    for layered in [false, true] {
        let log = Log::new();
        let of_handler = log.clone();
        let mut reactor = Reactor::new().unwrap();
        let listen = Listen::tcp("127.0.0.1:0");
        let listen = if layered { listen.layer(|_| Lines::new()) } else { listen };
        let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
        let address = address_of(&mut reactor, listener);
        let mut stream = client(address);
        until(&mut reactor, "the open", |_| log.opens() == 1);
        stream.write_all(b"last words\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        until(&mut reactor, "the end", |_| log.closes() == 1);
        assert!(log.data().starts_with(b"last words"));
        assert_eq!(log.eofs(), 1);
    }
}

// row 64
#[test]
fn a_handler_that_takes_one_frame_a_time_gets_the_next_without_new_input() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || {
        Probe::new(&of_handler).data(|cx, input| {
            if let Some(frame) = input.take(4) {
                cx.send(frame);
            }
            Ok(())
        })
    });
    let heard = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"onetwo33four55").unwrap();
        let heard = read_n(&mut stream, 12);
        stream.write_all(b"66").unwrap();
        (heard, read_n(&mut stream, 4))
    });
    assert_eq!(heard, (b"onetwo33four".to_vec(), b"5566".to_vec()));
}

// row 64
// row 64: what was left without taking any waits for new bytes, the end, or reading that goes on.
#[test]
fn what_was_left_is_offered_again_when_the_full_queue_has_drained() {
    const MUCH: usize = 8 << 20;
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let options = StreamOptions::new().output_limit(2 * MUCH);
    let listener = reactor
        .net()
        .listen(Listen::tcp("127.0.0.1:0").options(options), move |_| {
            let mut answered = false;
            Probe::new(&of_handler).data(move |cx, input| {
                if !std::mem::replace(&mut answered, true) {
                    assert_eq!(cx.send(vec![0; MUCH]), SendStatus::AboveHighWater);
                    return Ok(());
                }
                input.take_all();
                cx.send("done");
                Ok(())
            })
        })
        .unwrap();
    let mut peer = client(address_of(&mut reactor, listener));
    peer.write_all(b"hello").unwrap();
    settle(&mut reactor);
    assert_eq!(log.told(), [Told::Open, data(b"hello")], "the queue is full");
    let heard = with_client(&mut reactor, move || read_n(&mut peer, MUCH + 4));
    assert!(heard.ends_with(b"done"));
    assert_eq!(log.count(|told| *told == data(b"hello")), 2);
}

#[test]
fn more_frames_in_one_read_than_a_turn_may_hand_out_all_arrive() {
    const FRAMES: usize = 10_000;
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || {
        Probe::new(&of_handler).data(|_, input| {
            input.take(4);
            Ok(())
        })
    });
    let mut stream = client(address);
    stream.write_all(&vec![b'f'; FRAMES * 4]).unwrap();
    let calls = |log: &Log| log.count(is_data);
    until(&mut reactor, "all frames", |_| calls(&log) >= FRAMES);
    assert_eq!(calls(&log), FRAMES);
}
