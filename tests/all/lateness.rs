//! What is measured of a reactor's time: what waits behind a slow callback, and intervals.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::{
    Admission, Config, Context, Datagram, DatagramHandler, HandlerResult, Hello, Peer, Reactor,
    SessionOptions,
};

use crate::support::datagrams::socket;
use crate::support::{Log, Probe, address_of, client, until};

const SLOW: Duration = Duration::from_millis(5);

fn measuring() -> (Reactor, Log, std::net::SocketAddr) {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::build(Config::new().measure(true), |_| Ok(())).unwrap();
    let make = move |_: &Peer<'_>| {
        Probe::new(&of_handler).data(|_, input| {
            input.take_all();
            std::thread::sleep(SLOW);
            Ok(())
        })
    };
    let listener = reactor.net().listen("127.0.0.1:0", make).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, log, address)
}

// row 164
#[test]
fn what_waits_behind_a_slow_callback_is_measured() {
    let (mut reactor, log, address) = measuring();
    let mut peers = [client(address), client(address)];
    until(&mut reactor, "the opens", |_| log.opens() == 2);
    reactor.net().take_latency().unwrap();
    // Both are readable in one poll, a timer is due, and a post waits.
    for peer in &mut peers {
        peer.write_all(b"x").unwrap();
    }
    std::thread::sleep(SLOW); // for loopback, on a busy machine
    reactor.net().run_after(Duration::ZERO, |(), _| {});
    reactor.remote().post(|(), _| std::thread::sleep(SLOW)).unwrap();
    until(&mut reactor, "the bytes", |_| log.data() == b"xx");
    until(&mut reactor, "the timer", |r| r.net().stats().timers_fired == 1);
    let latency = reactor.net().take_latency().unwrap();
    assert!(latency.turns.max() >= SLOW, "{latency}");
    assert_eq!(latency.callbacks.count(), 4, "{latency}");
    assert!(latency.callbacks.max() >= SLOW && latency.callbacks.mean() >= SLOW / 2);
    assert_eq!((latency.events.count(), latency.timers.count()), (2, 1));
    assert!(latency.events.max() >= SLOW, "the second one waited for the first");
    assert!(latency.timers.max() >= SLOW, "it waited for all");
    assert_eq!(latency.posts.count(), 1);
    assert!(latency.posts.max() < Duration::from_secs(20));
}

// row 164
#[test]
fn reading_resets_and_totals_stay() {
    let (mut reactor, _, _) = measuring();
    reactor.net().run_after(Duration::ZERO, |(), _| {});
    until(&mut reactor, "the timer", |r| r.net().stats().timers_fired == 1);
    let first = reactor.net().take_latency().unwrap();
    assert_eq!((first.timers.count(), first.timers.total_count()), (1, 1));
    let second = reactor.net().take_latency().unwrap();
    assert_eq!((second.timers.count(), second.turns.count()), (0, 0), "{second}");
    assert_eq!(second.timers.total_count(), 1);
    assert_eq!(second.timers.total_sum(), first.timers.total_sum());
    let mut off = Reactor::new().unwrap();
    assert!(off.net().take_latency().is_none());
}

// row 215
#[test]
fn a_fine_timer_is_late_by_what_it_is_late() {
    let config = Config::new().measure(true);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let (log, fired) = (Log::new(), Rc::new(Cell::new(0)));
    let told = Rc::clone(&fired);
    let (of_handler, listen) = (log.clone(), "127.0.0.1:0");
    let make = move |_: &Peer<'_>| {
        let told = Rc::clone(&told);
        Probe::new(&of_handler).timer(move |_, _| {
            told.set(told.get() + 1);
            Ok(())
        })
    };
    let listener = reactor.net().listen(listen, make).unwrap();
    let _peer = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let token = log.opened()[0];
    std::thread::sleep(SLOW); // longer than anything below is late
    for round in 1..=20 {
        reactor.net().take_latency().unwrap();
        let (set, delay) = (Instant::now(), Duration::from_micros(300));
        let timer = reactor.net().set_fine_timer(token, 2 * delay, 0);
        assert!(reactor.net().rearm_timer(timer, delay));
        until(&mut reactor, "the timer", |_| fired.get() == round);
        let latest = set.elapsed() - delay;
        let late = reactor.net().take_latency().unwrap().timers;
        assert_eq!(late.count(), 1);
        // Two digits are kept.
        assert!(late.min() <= latest, "{:?}, and cannot be more than {latest:?}", late.min());
    }
}

struct Quiet;

impl DatagramHandler for Quiet {
    fn on_datagram(&mut self, _: &mut Context<'_>, _: Datagram<'_>) -> HandlerResult {
        Ok(())
    }
}

// row 215
#[test]
fn a_datagram_of_a_session_is_one_callback() {
    let mut reactor = Reactor::build(Config::new().measure(true), |_| Ok(())).unwrap();
    let admit = |_: &Hello<'_>| Admission::accept(Quiet);
    let token = reactor.net().bind_sessions("127.0.0.1:0", SessionOptions::new(), admit).unwrap();
    let to = address_of(&mut reactor, token);
    let peer = socket();
    for _ in 0..5 {
        peer.send_to(b"x", to).unwrap();
    }
    until(&mut reactor, "all five", |r| r.net().stats().datagrams_received == 5);
    let latency = reactor.net().take_latency().unwrap();
    // The admission and the opening beside them.
    assert_eq!((latency.callbacks.count(), latency.events.count()), (7, 7));
}
