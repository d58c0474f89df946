//! What is measured of a reactor's time: what waits behind a slow callback, and intervals.

use std::io::Write;
use std::time::Duration;

use tidegate::{Config, Peer, Reactor};

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
