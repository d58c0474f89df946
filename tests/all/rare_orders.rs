//! Wakes, work and deadlines that only a rare order could lose. Each test holds one planted fault of
//! `tests/planted/` that no other test found; the comment above the test names it.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::layer::Lines;
use tidegate::{Config, Listen, Peer, Reactor, SendStatus, StreamOptions, Udp};

use crate::support::datagrams::{Heard, rig};
use crate::support::sockets::{small_client, small_options};
use crate::support::{
    Log, PATIENCE, Probe, Told, address_of, client, is_data, listening, read_n, settle, until,
    with_client,
};

/// A reactor whose listener has these options, and its address; its handlers note what they are told.
fn listening_with(options: StreamOptions, log: &Log) -> (Reactor, SocketAddr) {
    let log = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let listener = reactor.net().listen(listen, move |_| Probe::new(&log)).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, address)
}

// stranger-shutdown-index
#[test]
fn a_second_shutdown_of_a_remote_replaces_the_first_also_in_a_later_turn() {
    let log = Log::new();
    let (mut reactor, address) = listening_with(StreamOptions::new(), &log);
    let _client = client(address);
    until(&mut reactor, "the client is open", |_| log.opens() == 1);
    let remote = reactor.remote();
    let (first, begun) = (PATIENCE * 2, Instant::now());
    remote.shutdown(first).unwrap();
    let _ = reactor.turn(None).unwrap(); // handles it
    remote.shutdown(Duration::ZERO).unwrap();
    let report = reactor.run().unwrap();
    assert_eq!(report.connections_cut, 1);
    assert!(begun.elapsed() < first, "the second one is lost");
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
                    std::thread::sleep(LATE); // a slow callback
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
    let (mut reactor, address) = listening_with(StreamOptions::new().idle_timeout(IDLE), &log);
    let _member = client(address);
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
    /// Fits the system's buffers on either side.
    const AHEAD: usize = 1024;
    let log = Log::new();
    let options = small_options().output_limit(128 * 1024);
    let (mut reactor, address) = listening_with(options, &log);
    let mut reader = small_client(address);
    until(&mut reactor, "the reader is open", |_| log.opens() == 1);
    let mut writer = client(address);
    until(&mut reactor, "the writer is open", |_| log.opens() == 2);
    let tokens = log.opened();
    reactor.net().send(tokens[0], vec![1; QUEUED]);
    settle(&mut reactor); // the socket has taken what it takes
    assert!(reactor.net().is_above_high_water(tokens[0]));
    assert!(reactor.net().relay(tokens[0], tokens[1]));
    let queued = reactor.net().queued(tokens[0]);
    // Nobody reads yet, so this stays with the writer's socket.
    writer.write_all(&[2; AHEAD]).unwrap();
    settle(&mut reactor);
    assert!(reactor.net().queued(tokens[0]) <= queued, "the writer was read");
    let writing = std::thread::spawn(move || {
        writer.write_all(&vec![2; RELAYED - AHEAD]).unwrap();
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
    // Two ports, which the system chooses.
    let addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); 2];
    let listener = {
        let log = log.clone();
        reactor.net().listen(Listen::tcp(addresses), move |_| Probe::new(&log)).unwrap()
    };
    let addresses = reactor.net().local_addrs(listener);
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        let before = log.opens();
        let address = address.socket_addr().unwrap();
        let burst: Vec<_> = (0..6).map(|_| client(address)).collect();
        until(&mut reactor, "the burst is open", |_| log.opens() == before + burst.len());
    }
}

// stranger-udp-drain
#[test]
fn a_udp_queue_that_was_filled_from_outside_is_announced_when_it_is_empty() {
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    let mut rig = rig(Udp::bind("127.0.0.1:0").queue_limit(1000));
    rig.until_heard(&Heard::Open);
    while rig.send_to(to, [0; 100]) == SendStatus::Queued {}
    rig.expect(&[Heard::Open, Heard::Drain]);
}

// relay-forgets-the-end-it-passed
#[test]
fn an_end_that_a_relay_has_passed_on_is_told_to_the_partner_that_is_left_behind() {
    let log = Log::new();
    let (mut reactor, address) = listening_with(StreamOptions::new(), &log);
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
        let make = move |_: &Peer<'_>| {
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
        read_n(&mut member, 13)
    });
    assert_eq!(received, b"one two three");
}
