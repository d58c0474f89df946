//! Wakes, work and deadlines that only a rare order could lose. Each test holds one planted fault of
//! `tests/planted/` that no other test found; the comment above the test
//! names it.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::layer::Lines;
use tidegate::{
    Config, Context, Datagram, DatagramHandler, HandlerResult, Listen, Reactor, SendStatus,
    StreamOptions, Udp,
};

use crate::support::sockets::{small_client, small_options};
use crate::support::{
    Log, Probe, Told, address_of, client, is_data, listening, until, with_client,
};

// stranger-shutdown-index
#[test]
fn a_second_shutdown_of_a_remote_replaces_the_first_also_in_a_later_turn() {
    let log = Log::new();
    let (mut reactor, _, address) = listening({
        let log = log.clone();
        move || Probe::new(&log)
    });
    let _client = client(address);
    until(&mut reactor, "the client is open", |_| log.opens() == 1);
    let remote = reactor.remote();
    remote.shutdown(Duration::from_secs(600)).unwrap();
    // The listener closes when the first one has been handled.
    let _ = reactor.turn(None).unwrap();
    remote.shutdown(Duration::ZERO).unwrap();
    let report = reactor.run().unwrap();
    assert_eq!(report.connections_cut, 1);
}

// stranger-woken-work
#[test]
fn a_post_that_arrives_while_an_earlier_batch_is_finished_is_work_left_over() {
    let mut reactor = Reactor::build(Config::new().posts_per_turn(2), |_| Ok(0)).unwrap();
    let remote = reactor.remote();
    let post = || remote.post(|count: &mut i32, _| *count += 1).unwrap();
    (0..3).for_each(|_| post());
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(*reactor.state(), 2);
    post();
    // This turn sees the wake and finishes the first batch: the new post must not wait for another wake.
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(*reactor.state(), 3);
    assert!(reactor.next_deadline().is_some(), "the loop would sleep");
    let _ = reactor.turn(None).unwrap();
    assert_eq!(*reactor.state(), 4);
}

// stranger-rearm-early
#[test]
fn a_timer_that_a_slow_callback_moves_counts_from_the_call() {
    const LATE: Duration = Duration::from_millis(30);
    const AFTER: Duration = Duration::from_millis(50);
    let log = Log::new();
    let moved: Rc<Cell<Option<Instant>>> = Rc::default();
    let waited = Rc::new(Cell::new(None));
    let (mut reactor, _, address) = listening({
        let (log, moved, waited) = (log.clone(), Rc::clone(&moved), Rc::clone(&waited));
        move || {
            let timer = Rc::new(Cell::new(None));
            let (set, moved, began) = (Rc::clone(&timer), Rc::clone(&moved), Rc::clone(&moved));
            let waited = Rc::clone(&waited);
            Probe::new(&log)
                .open(move |cx| {
                    set.set(Some(cx.set_timer(Duration::from_secs(600), 1)));
                    Ok(())
                })
                .data(move |cx, input| {
                    input.take_all();
                    let entered = Instant::now();
                    while entered.elapsed() < LATE {} // a slow callback
                    moved.set(Some(Instant::now()));
                    assert!(cx.rearm_timer(timer.get().unwrap(), AFTER));
                    Ok(())
                })
                .timer(move |_, _| {
                    waited.set(began.get().map(|moved| moved.elapsed()));
                    Ok(())
                })
        }
    });
    let mut peer = client(address);
    peer.write_all(b"x").unwrap();
    until(&mut reactor, "the timer has fired", |_| waited.get().is_some());
    assert!(waited.get() >= Some(AFTER), "after {:?}", waited.get());
}

// stranger-short-read
#[test]
fn messages_that_the_budget_leaves_over_are_offered_to_a_paired_connection() {
    let log = Log::new();
    let (mut reactor, _, address) = listening({
        let log = log.clone();
        move || {
            Probe::new(&log).data(|_, input| {
                input.take(4);
                Ok(())
            })
        }
    });
    let mut talker = client(address);
    let _listener = client(address);
    until(&mut reactor, "both are open", |_| log.opens() == 2);
    let tokens = log.opened();
    assert!(reactor.net().pair(tokens[0], tokens[1]));
    talker.write_all(&b"abcd".repeat(1000)).unwrap();
    until(&mut reactor, "all messages have come", |_| log.count(is_data) == 1000);
}

// stranger-start-layer-ready
#[test]
fn a_layer_that_a_timer_puts_on_decodes_what_the_handler_had_left() {
    let log = Log::new();
    let (mut reactor, _, address) = listening({
        let log = log.clone();
        move || {
            let layered = Rc::new(Cell::new(false));
            let is_layered = Rc::clone(&layered);
            let mut first = true;
            Probe::new(&log)
                .data(move |cx, input| {
                    if is_layered.get() {
                        input.take_all();
                    } else if std::mem::take(&mut first) {
                        input.take_until(b'\n');
                        cx.set_timer(Duration::from_millis(10), 0);
                    }
                    Ok(())
                })
                .timer(move |cx, _| {
                    layered.set(true);
                    assert!(cx.start_layer(Lines::new()));
                    Ok(())
                })
        }
    });
    let mut peer = client(address);
    peer.write_all(b"HELLO\none\ntwo\n").unwrap();
    let line = |text: &[u8]| Told::Data(text.to_vec());
    until(&mut reactor, "the lines have come", |_| {
        let told = log.told();
        told.contains(&line(b"one")) && told.contains(&line(b"two"))
    });
}

// stranger-group-idle
#[test]
fn a_member_that_only_listens_is_idle_from_the_last_message_on() {
    const IDLE: Duration = Duration::from_millis(400);
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let options = StreamOptions::new().idle_timeout(IDLE);
    let listener = {
        let log = log.clone();
        let listen = Listen::tcp("127.0.0.1:0").options(options);
        reactor.net().listen(listen, move |_| Probe::new(&log)).unwrap()
    };
    let _member = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the member is open", |_| log.opens() == 1);
    let group = reactor.net().create_group();
    reactor.net().join(group, log.opened()[0]);
    let mut last = Instant::now();
    for _ in 0..8 {
        // A machine that stands still for longer than the timeout ends the connection rightly.
        if log.closes() == 1 {
            break;
        }
        last = Instant::now();
        reactor.net().publish(group, b"tick");
        while last.elapsed() < IDLE / 4 {
            let _ = reactor.turn(Some(IDLE / 40)).unwrap();
        }
    }
    until(&mut reactor, "the member has been idle", |_| log.closes() == 1);
    assert!(last.elapsed() >= IDLE, "{:?} after the last message", last.elapsed());
}

// stranger-pair-hold
#[test]
fn a_relay_that_begins_behind_a_full_queue_goes_on_when_it_drains() {
    const QUEUED: usize = 100 * 1024;
    const RELAYED: usize = 400 * 1024;
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let listener = {
        let log = log.clone();
        let options = small_options().output_limit(128 * 1024);
        let listen = Listen::tcp("127.0.0.1:0").options(options);
        reactor.net().listen(listen, move |_| Probe::new(&log)).unwrap()
    };
    let address = address_of(&mut reactor, listener);
    let mut reader = small_client(address);
    until(&mut reactor, "the reader is open", |_| log.opens() == 1);
    let mut writer = client(address);
    until(&mut reactor, "the writer is open", |_| log.opens() == 2);
    let tokens = log.opened();
    reactor.net().send(tokens[0], vec![1; QUEUED]);
    // The socket has taken what it takes: no later write announces the queue.
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert!(reactor.net().is_above_high_water(tokens[0]));
    assert!(reactor.net().relay(tokens[0], tokens[1]));
    let writing = std::thread::spawn(move || {
        writer.write_all(&vec![2; RELAYED]).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
        writer
    });
    let received = with_client(&mut reactor, move || {
        let mut received = Vec::new();
        reader.read_to_end(&mut received).map(|_| received.len())
    });
    assert_eq!(received.ok(), Some(QUEUED + RELAYED), "{:?}", log.reasons());
    drop(writing.join().unwrap());
}

// stranger-accept-turn
#[test]
fn a_burst_at_one_of_two_addresses_is_accepted_whole() {
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let addresses: [SocketAddr; 2] =
        ["127.0.0.1:0", "127.0.0.2:0"].map(|address| address.parse().unwrap());
    let listener = {
        let log = log.clone();
        let Ok(listener) = reactor.net().listen(Listen::tcp(addresses), move |_| Probe::new(&log))
        else {
            return; // a system whose loopback has one address
        };
        listener
    };
    for address in reactor.net().local_addrs(listener) {
        let before = log.opens();
        let address = address.socket_addr().unwrap();
        let burst: Vec<_> = (0..6).map(|_| client(address)).collect();
        until(&mut reactor, "the burst is open", |_| log.opens() == before + burst.len());
    }
}

struct Drains(Rc<RefCell<usize>>);

impl DatagramHandler for Drains {
    fn on_datagram(&mut self, _: &mut Context<'_>, _: Datagram<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_drain(&mut self, _: &mut Context<'_>) -> HandlerResult {
        *self.0.borrow_mut() += 1;
        Ok(())
    }
}

// stranger-udp-drain
#[test]
fn a_udp_queue_that_was_filled_from_outside_is_announced_when_it_is_empty() {
    let drains = Rc::default();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    let mut reactor = Reactor::new().unwrap();
    let udp = Udp::bind("127.0.0.1:0").queue_limit(1000);
    let token = reactor.net().bind_udp(udp, Drains(Rc::clone(&drains))).unwrap();
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    while reactor.net().send_to(token, to, [0; 100]) == SendStatus::Queued {}
    until(&mut reactor, "the queue has drained", |_| *drains.borrow() == 1);
}

// relay-forgets-the-end-it-passed
#[test]
fn an_end_that_a_relay_has_passed_on_is_told_to_the_partner_that_is_left_behind() {
    let log = Log::new();
    let (mut reactor, _, address) = listening({
        let log = log.clone();
        move || Probe::new(&log)
    });
    let mut connect = |opens| {
        let peer = client(address);
        until(&mut reactor, "it is open", |_| log.opens() == opens);
        peer
    };
    let [ended, mut heard, _third] = [1, 2, 3].map(&mut connect);
    let tokens = log.opened();
    assert!(reactor.net().relay(tokens[0], tokens[1]));
    ended.shutdown(Shutdown::Write).unwrap();
    let received = with_client(&mut reactor, move || (heard.read(&mut [0; 8]).unwrap(), heard));
    assert_eq!(received.0, 0, "the relay has passed the end on");
    assert_eq!(log.eofs(), 0);
    // The second one gets another partner: the first is left behind, and has not been told yet.
    assert!(reactor.net().relay(tokens[1], tokens[2]));
    until(&mut reactor, "the first is told", |_| log.of(tokens[0]).contains(&Told::Eof));
}

// reply-overtakes-a-published-message
#[test]
fn a_member_that_sends_publishes_and_sends_receives_it_in_that_order() {
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let group = reactor.net().create_group();
    let listener = {
        let log = log.clone();
        let make = move |_: &tidegate::Peer<'_>| {
            Probe::new(&log)
                .open(move |cx| {
                    cx.join(group);
                    Ok(())
                })
                .data(move |cx, input| {
                    input.take_all();
                    cx.send(b"one ");
                    cx.net.publish(group, b"two ");
                    cx.send(b"three");
                    Ok(())
                })
        };
        reactor.net().listen("127.0.0.1:0", make).unwrap()
    };
    let mut member = client(address_of(&mut reactor, listener));
    let received = with_client(&mut reactor, move || {
        member.write_all(b"x").unwrap();
        let mut received = [0; 13];
        member.read_exact(&mut received).unwrap();
        received
    });
    assert_eq!(&received, b"one two three");
}
