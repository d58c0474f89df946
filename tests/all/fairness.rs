//! A busy source does not starve the others, and a budget that is used up loses no edge.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::{
    Config, Context, Datagram, DatagramHandler, HandlerResult, Listen, Reactor, SocketOptions,
    StreamOptions, Token,
};

use crate::support::xorshift::Xorshift;
use crate::support::{Log, Probe, Told, address_of, client, is_data, until};

/// Every budget at its least.
fn ones() -> Config {
    Config::new()
        .read_buffer(512)
        .events_per_turn(1)
        .reads_per_turn(1)
        .messages_per_turn(1)
        .accepts_per_turn(1)
        .datagrams_per_turn(1)
        .datagram_sends_per_turn(1)
        .timers_per_turn(1)
        .posts_per_turn(1)
}

fn turn(reactor: &mut Reactor) {
    let _ = reactor.turn(Some(Duration::from_millis(10))).unwrap();
}

fn echoes(config: Config, log: &Log) -> (Reactor, Token, SocketAddr) {
    let of_handler = log.clone();
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", move |_| Probe::echo(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, listener, address)
}

// A connection that uses up its budget in an event is not served again by the same turn's ready queue.
#[test]
fn a_budget_is_for_a_whole_turn() {
    let calls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&calls);
    let config = Config::new().read_buffer(1024).reads_per_turn(2);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", move |_| {
        let counted = Rc::clone(&counted);
        Probe::new(&Log::new()).data(move |_, input| {
            counted.set(counted.get() + 1);
            input.take_all();
            Ok(())
        })
    });
    let address = address_of(&mut reactor, listener.unwrap());
    let sending = std::thread::spawn(move || client(address).write_all(&[0; 400_000]).unwrap());
    let (mut most, mut all) = (0, 0);
    while all < 391 {
        turn(&mut reactor);
        most = most.max(calls.get());
        all += calls.take();
    }
    sending.join().unwrap();
    assert_eq!(most, 2);
}

// "As many as you like" is a natural thing to write. (For the read buffer see `src/config.rs`: that
// much memory need not be there.)
#[test]
fn every_budget_may_be_as_large_as_a_number_can_be() {
    const MOST: usize = usize::MAX;
    let config = Config::new()
        .events_per_turn(MOST)
        .reads_per_turn(MOST)
        .messages_per_turn(MOST)
        .accepts_per_turn(MOST)
        .datagrams_per_turn(MOST)
        .datagram_sends_per_turn(MOST)
        .datagram_size(MOST)
        .timers_per_turn(MOST)
        .posts_per_turn(MOST)
        .post_limit(MOST)
        .offload_threads(MOST)
        .offload_limit(MOST)
        .group_log(MOST);
    let log = Log::new();
    let (mut reactor, _, address) = echoes(config, &log);
    let mut stream = client(address);
    stream.write_all(b"all of it").unwrap();
    until(&mut reactor, "the data", |_| log.data() == b"all of it");
    assert_eq!(crate::support::read_n(&mut stream, 9), b"all of it");
}

// row 58
#[test]
fn with_every_budget_at_one_no_edge_is_lost() {
    const CLIENTS: u64 = 12;
    const EACH: usize = 60_000;
    for framed in [false, true] {
        let log = Log::new();
        let of_handler = log.clone();
        let mut reactor = Reactor::build(ones(), |_| Ok(())).unwrap();
        let options = StreamOptions::new().low_water(100).high_water(1_000);
        let listen = Listen::tcp("127.0.0.1:0").options(options);
        let listen = if framed { listen.layer(|_| Lines::new()) } else { listen };
        let listener = reactor
            .net()
            .listen(listen, move |_| Probe::echo(&of_handler).drain(|_| Ok(())))
            .unwrap();
        let address = address_of(&mut reactor, listener);
        let threads: Vec<_> = (0..CLIENTS)
            .map(|seed| std::thread::spawn(move || chatter(address, seed, EACH)))
            .collect();
        until(&mut reactor, "all clients", |_| {
            threads.iter().all(std::thread::JoinHandle::is_finished)
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        until(&mut reactor, "all closes", |_| log.closes() == CLIENTS as usize);
        assert_eq!(log.eofs(), CLIENTS as usize);
        assert!(log.reasons().iter().all(|reason| reason == "both sides ended"));
    }
}

/// Sends lines in pieces of random sizes, ends its side, and must get all of them back.
fn chatter(address: SocketAddr, seed: u64, bytes: usize) {
    let stream = client(address);
    let mut writer = stream.try_clone().unwrap();
    let mut random = Xorshift::new(seed);
    let mut all: Vec<u8> = (0..bytes).map(|_| b'a' + random.below(20) as u8).collect();
    for _ in 0..bytes / 50 {
        let at = random.below(bytes);
        all[at] = b'\n';
    }
    *all.last_mut().unwrap() = b'\n';
    let sent = all.clone();
    let writing = std::thread::spawn(move || {
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + random.below(3_000)).min(rest.len()));
            writer.write_all(now).unwrap();
            rest = later;
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut heard = Vec::new();
    (&stream).read_to_end(&mut heard).unwrap();
    writing.join().unwrap();
    assert!(heard == all, "{} bytes of {}", heard.len(), all.len());
}

// row 58
#[test]
fn a_turn_reads_from_one_connection_as_often_as_its_budget_says_and_serves_the_others() {
    let log = Log::new();
    let config = Config::new().read_buffer(512).reads_per_turn(3);
    let of_handler = log.clone();
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", move |_| Probe::new(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    let (mut busy, mut quiet) = (client(address), client(address));
    until(&mut reactor, "both to open", |_| log.opens() == 2);
    let [busy_token, quiet_token] = log.opened()[..] else { panic!() };
    busy.write_all(&[b'b'; 100_000]).unwrap();
    let calls = |token| log.of(token).iter().filter(|t| is_data(t)).count();
    let (mut before, mut turns_with_both) = (0, 0);
    for round in 1..=50 {
        quiet.write_all(b"q").unwrap();
        // The quiet one is heard within a turn or two, however much the other has waiting.
        let mut turns = 0;
        while calls(quiet_token) < round {
            turn(&mut reactor);
            turns += 1;
            assert!(calls(busy_token) <= before + 3, "more reads than the budget");
            before = calls(busy_token);
        }
        turns_with_both += usize::from(turns <= 2);
    }
    assert!(turns_with_both >= 45, "the quiet one had to wait: {turns_with_both}");
    until(&mut reactor, "all bytes", |_| log.data().len() == 100_050);
}

// row 76: a slow loris
#[test]
fn who_sends_a_byte_at_a_time_holds_nobody_up_and_is_heard_in_the_end() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| Lines::new());
    let listener = reactor.net().listen(listen, move |_| Probe::echo(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut slow = client(address);
    until(&mut reactor, "the slow one", |_| log.opens() == 1);
    let mut brisk = client(address);
    until(&mut reactor, "the other", |_| log.opens() == 2);
    let [slow_token, brisk_token] = log.opened()[..] else { panic!() };
    let lines = |token| log.of(token).iter().filter(|t| is_data(t)).count();
    for byte in 1..=100 {
        slow.write_all(b"s").unwrap();
        brisk.write_all(b"brisk\n").unwrap();
        until(&mut reactor, "the brisk one", |_| lines(brisk_token) == byte);
        assert_eq!(lines(slow_token), 0);
    }
    slow.write_all(b"\n").unwrap();
    until(&mut reactor, "the slow line", |_| lines(slow_token) == 1);
    assert_eq!(log.of(slow_token), [Told::Open, Told::Data(vec![b's'; 100])]);
}

// row 58
#[test]
fn a_flood_does_not_starve_timers_messages_accepts_and_other_connections() {
    let log = Log::new();
    let (mut reactor, _listener, address) = echoes(Config::default(), &Log::new());
    // Floods: two connections whose bytes never end, and a handler that takes them all.
    let of_flood = log.clone();
    let flooded = reactor
        .net()
        .listen("127.0.0.1:0", move |_| {
            let log = of_flood.clone();
            Probe::new(&Log::new()).open(move |cx| {
                log.push(cx.token, Told::Open);
                Ok(())
            })
        })
        .unwrap();
    let flooded = address_of(&mut reactor, flooded);
    let floods: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = client(flooded);
            std::thread::spawn(move || while stream.write_all(&[b'f'; 65_536]).is_ok() {})
        })
        .collect();
    until(&mut reactor, "the floods", |_| log.opens() == 2);

    let timers = Rc::new(Cell::new(0));
    for _ in 0..20 {
        let count = Rc::clone(&timers);
        reactor.net().run_after(Duration::from_millis(1), move |(), _| count.set(count.get() + 1));
    }
    let posts = Arc::new(AtomicUsize::new(0));
    let (remote, count) = (reactor.remote(), Arc::clone(&posts));
    let thread = std::thread::spawn(move || {
        for _ in 0..20 {
            let count = Arc::clone(&count);
            remote
                .post(move |(), _| {
                    count.fetch_add(1, Relaxed);
                })
                .unwrap();
            let mut newcomer = client(address);
            newcomer.write_all(b"may I?").unwrap();
            newcomer.read_exact(&mut [0; 6]).unwrap();
        }
    });
    until(&mut reactor, "the others", |_| {
        thread.is_finished() && timers.get() == 20 && posts.load(Relaxed) == 20
    });
    thread.join().unwrap();
    assert!(floods.iter().all(|flood| !flood.is_finished()), "the flood has ended before");
    drop(reactor);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
}

/// Counts datagrams.
struct Counter(Rc<RefCell<Vec<u8>>>);

impl DatagramHandler for Counter {
    fn on_datagram(&mut self, _: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        self.0.borrow_mut().push(datagram.bytes[0]);
        Ok(())
    }
}

// row 58
#[test]
fn waiting_datagrams_accepts_timers_and_messages_keep_to_their_budgets() {
    let log = Log::new();
    let (mut reactor, _listener, address) = echoes(ones(), &log);
    let datagrams = Rc::new(RefCell::new(Vec::new()));
    let udp = tidegate::Udp::bind("127.0.0.1:0")
        .socket_options(SocketOptions::new().receive_buffer(1 << 20));
    let socket = reactor.net().bind_udp(udp, Counter(Rc::clone(&datagrams))).unwrap();
    let to = address_of(&mut reactor, socket);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (timers, posts) = (Rc::new(Cell::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut streams = Vec::new();
    for n in 0..50 {
        sender.send_to(&[n], to).unwrap();
        streams.push(client(address));
        let count = Rc::clone(&timers);
        reactor.net().run_after(Duration::ZERO, move |(), _| count.set(count.get() + 1));
        let count = Arc::clone(&posts);
        reactor
            .remote()
            .post(move |(), _| {
                count.fetch_add(1, Relaxed);
            })
            .unwrap();
    }
    let seen = || (datagrams.borrow().len(), log.opens(), timers.get(), posts.load(Relaxed));
    let mut before = seen();
    until(&mut reactor, "all", |_| {
        let now = seen();
        assert!(now.0 <= before.0 + 1 && now.1 <= before.1 + 1, "{before:?} {now:?}");
        assert!(now.2 <= before.2 + 1 && now.3 <= before.3 + 1, "{before:?} {now:?}");
        before = now;
        now == (50, 50, 50, 50)
    });
    assert!(datagrams.borrow().iter().copied().eq(0..50));
}

// row 58
#[test]
fn two_handlers_that_signal_each_other_without_end_leave_room_for_the_rest() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let others: Rc<RefCell<Vec<Token>>> = Rc::default();
    let shared = Rc::clone(&others);
    let listener = reactor
        .net()
        .listen("127.0.0.1:0", move |_| {
            let others = Rc::clone(&shared);
            Probe::echo(&of_handler).notify(move |cx, _| {
                let me = cx.token;
                let other = others.borrow().iter().copied().find(|&other| other != me);
                cx.net.notify(other.unwrap(), ());
                Ok(())
            })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let (mut a, _b) = (client(address), client(address));
    until(&mut reactor, "both to open", |_| log.opens() == 2);
    *others.borrow_mut() = log.opened();
    let first = log.opened()[0];
    reactor.net().notify(first, ());
    let fired = Rc::new(Cell::new(false));
    let tell = Rc::clone(&fired);
    reactor.net().run_after(Duration::from_millis(2), move |(), _| tell.set(true));
    a.write_all(b"and I?").unwrap();
    until(&mut reactor, "the data and the timer", |_| fired.get() && log.data() == b"and I?");
    let signals = log.count(|told| *told == Told::Notification);
    turn(&mut reactor);
    assert_eq!(log.count(|told| *told == Told::Notification), signals + 1, "one a turn");
}

// row 58
#[test]
fn a_slow_taker_of_a_large_read_shares_the_turn() {
    // One read brings thousands of messages; the budget of calls cuts the turn, not the messages.
    let config = Config::new().messages_per_turn(10);
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| Lines::new());
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
    let mut stream = client(address_of(&mut reactor, listener));
    stream.write_all(&b"line\n".repeat(2_000)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let calls = || log.count(is_data);
    let mut before = 0;
    until(&mut reactor, "the end", |_| {
        assert!(calls() <= before + 10);
        before = calls();
        log.closes() == 1
    });
    assert_eq!((calls(), log.eofs()), (2_000, 1));
}
