//! A turn that keeps a deadline: what it cuts, that nothing is lost or starved by it, and how it waits.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tidegate::layer::Lines;
use tidegate::{Config, Listen, Net, Peer, Reactor};

#[cfg(target_os = "linux")]
use crate::support::child;
use crate::support::datagrams::{Ear, Heard, address, datagram, received, rig, rig_that, socket};
use crate::support::{
    Log, PATIENCE, Probe, address_of, client, is_data, listening, read_all, read_n, settle, until,
};

/// One turn whose deadline has passed already.
fn late_turn<S>(reactor: &mut Reactor<S>) {
    let now = Instant::now();
    assert_eq!(reactor.turn_until(now).unwrap(), ControlFlow::Continue(()));
}

/// Late turns until `done` holds.
#[track_caller]
fn late_until<S>(reactor: &mut Reactor<S>, what: &str, mut done: impl FnMut() -> bool) -> usize {
    let start = Instant::now();
    let mut turns = 0;
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        late_turn(reactor);
        turns += 1;
    }
    turns
}

fn echoes(n: usize) -> (Reactor, Log, Vec<TcpStream>) {
    let log = Log::new();
    let of_handlers = log.clone();
    let (mut reactor, _, address) = listening(move || Probe::echo(&of_handlers));
    let clients: Vec<_> = (0..n).map(|_| client(address)).collect();
    until(&mut reactor, "all to open", |_| log.opens() == n);
    settle(&mut reactor);
    (reactor, log, clients)
}

// row 146
#[test]
fn a_turn_without_work_ends_at_its_deadline_and_not_before() {
    for config in [Config::new(), Config::new().spin_before_deadline(Duration::from_millis(2))] {
        let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
        for micros in [0, 1, 100, 999, 1_000, 1_001, 5_300] {
            let deadline = Instant::now() + Duration::from_micros(micros);
            let mut turns = 0;
            while Instant::now() < deadline {
                let _ = reactor.turn_until(deadline).unwrap();
                turns += 1;
            }
            assert!(turns <= 3, "{turns} turns for {micros} µs: the wait is cut into pieces");
        }
        // Nor is it by an alarm that was set for another deadline.
        let first = Instant::now() + Duration::from_millis(1);
        let _ = reactor.turn_until(first).unwrap();
        let second = first + Duration::from_millis(20);
        let mut turns = 0;
        while Instant::now() < second {
            let _ = reactor.turn_until(second).unwrap();
            turns += 1;
        }
        assert!(turns <= 3, "{turns} turns: the wait is cut into pieces");
    }
}

// row 147
#[test]
fn a_turn_whose_deadline_passes_calls_no_further_handler() {
    let calls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&calls);
    let (mut reactor, _, address) = listening(move || {
        let counted = Rc::clone(&counted);
        Probe::new(&Log::new()).data(move |_, input| {
            input.take_all();
            counted.set(counted.get() + 1);
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        })
    });
    let mut clients: Vec<_> = (0..10).map(|_| client(address)).collect();
    settle(&mut reactor);
    clients.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
    for turn in 1.. {
        let before = calls.get();
        let _ = reactor.turn_until(Instant::now() + Duration::from_millis(1)).unwrap();
        assert!(calls.get() <= before + 1, "{} calls in one turn", calls.get() - before);
        if calls.get() == clients.len() {
            break;
        }
        assert!(turn < 1_000, "{} of {} were called", calls.get(), clients.len());
    }
}

// row 147
#[test]
fn messages_of_one_read_are_cut_too_and_keep_their_order() {
    let log = Log::new();
    let of_handlers = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| Lines::new());
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handlers)).unwrap();
    let mut peer = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let lines: Vec<String> = (0..50).map(|n| format!("line {n}\n")).collect();
    peer.write_all(lines.concat().as_bytes()).unwrap();
    let mut seen = 0;
    let start = Instant::now();
    while seen < lines.len() {
        late_turn(&mut reactor);
        let now = log.count(is_data);
        assert!(now <= seen + 1, "{} messages in one turn", now - seen);
        seen = now;
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(log.data(), lines.concat().replace('\n', "").into_bytes());
}

// row 148
#[test]
fn a_loop_that_is_always_late_goes_on_with_everything() {
    let (mut reactor, log, mut clients) = echoes(10);
    let timers = Rc::new(Cell::new(0));
    for _ in 0..10 {
        let fired = Rc::clone(&timers);
        reactor.net().run_after(Duration::ZERO, move |_, _| fired.set(fired.get() + 1));
    }
    let remote = reactor.remote();
    let posts = Arc::new(AtomicUsize::new(0));
    for _ in 0..10 {
        let run = Arc::clone(&posts);
        let post = move |_: &mut (), _: &mut Net| {
            run.fetch_add(1, Relaxed);
        };
        remote.post(post).unwrap();
    }
    clients.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
    let turns = late_until(&mut reactor, "all input, timers and posts", || {
        log.data().len() == 10 && timers.get() == 10 && posts.load(Relaxed) == 10
    });
    assert!(turns >= 30, "{turns} turns for 30 callbacks");
    for client in &mut clients {
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
    late_until(&mut reactor, "all ends", || log.closes() == 10);
    for client in &mut clients {
        assert_eq!(read_all(client), b"x");
    }
}

// row 148
#[test]
fn no_step_starves_where_every_turn_is_cut() {
    let (mut reactor, log, mut clients) = echoes(2);
    // Each post posts the next one, as a busy thread would, and takes longer than a turn may.
    fn again(net: &mut Net) {
        let remote = net.remote();
        let _ = remote.post(|_, net| again(net));
    }
    again(reactor.net());
    clients[0].write_all(b"x").unwrap();
    let turns = late_until(&mut reactor, "the input behind the posts", || log.data() == b"x");
    assert!(turns < 1_000);
    assert_eq!(read_n(&mut clients[0], 1), b"x");
}

// row 147
#[test]
fn datagrams_of_one_batch_are_cut_and_keep_their_order() {
    let paused = Rc::new(Cell::new(false));
    let pause = Rc::clone(&paused);
    let mut rig = rig_that("127.0.0.1:0", Config::new(), move |cx, heard| {
        if *heard == datagram(b"3") && !pause.replace(true) {
            cx.net.pause(cx.token);
        }
    });
    until(&mut rig.reactor, "the open", {
        let heard = Rc::clone(&rig.heard);
        move |_| *heard.borrow() == [Heard::Open]
    });
    let peer = socket();
    let to = rig.address();
    let all: Vec<_> = (0..10).map(|n| n.to_string().into_bytes()).collect();
    for bytes in &all {
        peer.send_to(bytes, to).unwrap();
    }
    let heard = Rc::clone(&rig.heard);
    let start = Instant::now();
    while !paused.get() {
        let before = heard.borrow().len();
        late_turn(&mut rig.reactor);
        assert!(heard.borrow().len() <= before + 1);
        assert!(start.elapsed() < PATIENCE);
    }
    for _ in 0..20 {
        late_turn(&mut rig.reactor);
    }
    assert_eq!(heard.borrow().len(), 5, "nothing while it is paused");
    let token = rig.token;
    rig.reactor.net().resume(token);
    late_until(&mut rig.reactor, "the rest", || heard.borrow().len() == 11);
    let expected: Vec<_> = all.iter().map(|bytes| datagram(bytes)).collect();
    assert_eq!(heard.borrow()[1..], expected);
}

// row 147
#[test]
fn a_flush_to_a_large_group_is_cut_and_reaches_everybody_in_order() {
    let (mut reactor, log, mut clients) = echoes(50);
    let net = reactor.net();
    let group = net.create_group();
    for token in log.opened() {
        assert!(net.join(group, token));
    }
    net.publish(group, b"one ");
    net.publish(group, b"two ");
    let mut turns = 0;
    while reactor.next_deadline().is_some() {
        late_turn(&mut reactor);
        turns += 1;
        if turns == 10 {
            // Those who have had the first two, and those who have not.
            reactor.net().publish(group, b"three");
        }
        assert!(turns < 1_000);
    }
    assert!(turns >= 50, "{turns} turns for 50 writes at least");
    for client in &mut clients {
        assert_eq!(read_n(client, 13), b"one two three");
    }
}

// row 147
#[test]
fn what_is_queued_for_many_connections_leaves_over_several_turns() {
    let (mut reactor, log, mut clients) = echoes(20);
    let opened = log.opened();
    for round in 0..3_u8 {
        for &token in &opened {
            reactor.net().send(token, [round]);
        }
        late_turn(&mut reactor);
    }
    late_until(&mut reactor, "nothing", || true);
    while reactor.next_deadline().is_some() {
        late_turn(&mut reactor);
    }
    for client in &mut clients {
        assert_eq!(read_n(client, 3), [0, 1, 2]);
    }
}

// row 149
#[test]
fn the_last_turn_is_not_cut() {
    let (mut reactor, log, mut clients) = echoes(20);
    for token in log.opened() {
        reactor.net().send(token, b"goodbye");
    }
    reactor.net().stop();
    let now = Instant::now();
    assert!(reactor.turn_until(now).unwrap().is_break());
    for client in &mut clients {
        assert_eq!(read_n(client, 7), b"goodbye");
    }
}

// row 149
#[test]
fn a_turn_in_which_a_callback_stops_the_loop_is_not_cut_either() {
    // In `on_data`, in a timer, in `on_close`: each is another step of the turn.
    for (stops_in, keeps_deadlines) in (0..3).flat_map(|n| [(n, true), (n, false)]) {
        let log = Log::new();
        let of_handlers = log.clone();
        let everybody = Rc::new(RefCell::new(Vec::new()));
        let known = Rc::clone(&everybody);
        let (mut reactor, _, address) = listening(move || {
            let (known, at_close) = (Rc::clone(&known), Rc::clone(&known));
            Probe::new(&of_handlers)
                .data(move |cx, input| {
                    input.take_all();
                    if stops_in == 2 {
                        cx.close();
                        return Ok(());
                    }
                    for &token in known.borrow().iter() {
                        cx.net.send(token, b"goodbye");
                    }
                    if stops_in == 0 {
                        cx.net.stop();
                    } else {
                        cx.set_timer(Duration::ZERO, 0);
                    }
                    Ok(())
                })
                .timer(|cx, _| {
                    cx.net.stop();
                    Ok(())
                })
                .close(move |cx, _| {
                    let others = at_close.borrow();
                    for &token in others.iter() {
                        cx.net.send(token, b"goodbye");
                    }
                    cx.net.stop();
                })
        });
        let mut clients: Vec<_> = (0..10).map(|_| client(address)).collect();
        until(&mut reactor, "all to open", |_| log.opens() == 10);
        settle(&mut reactor);
        *everybody.borrow_mut() = log.opened();
        let mut speaker = clients.remove(0);
        speaker.write_all(b"x").unwrap();
        speaker.shutdown(std::net::Shutdown::Write).unwrap();
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < PATIENCE);
            let verdict = match keeps_deadlines {
                true => reactor.turn_until(Instant::now()),
                false => reactor.turn(Some(Duration::from_millis(10))),
            };
            if verdict.unwrap().is_break() {
                break;
            }
        }
        for client in &mut clients {
            assert_eq!(read_n(client, 7), b"goodbye", "{stops_in}");
        }
    }
}

// row 149
#[test]
fn a_shutdown_by_late_turns_loses_nothing() {
    let (mut reactor, log, mut clients) = echoes(20);
    for client in &mut clients {
        client.write_all(b"last words").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
    reactor.net().shutdown(PATIENCE);
    let start = Instant::now();
    let mut readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| std::thread::spawn(move || read_all(&mut client)))
        .collect();
    let report = loop {
        assert!(start.elapsed() < PATIENCE);
        let now = Instant::now();
        if let ControlFlow::Break(report) = reactor.turn_until(now).unwrap() {
            break report;
        }
    };
    assert_eq!((report.connections_cut, report.bytes_unsent), (0, 0));
    assert_eq!(log.closes(), 20);
    for reader in readers.drain(..) {
        assert_eq!(reader.join().unwrap(), b"last words");
    }
}

// row 147
#[cfg(unix)]
#[test]
fn readiness_of_a_custom_source_is_kept() {
    use std::io::Read;
    use tidegate::mio::{Interest, unix::pipe};

    let mut reactor = Reactor::new().unwrap();
    let fired = Rc::new(RefCell::new(Vec::new()));
    let mut senders = Vec::new();
    for n in 0..5 {
        let (sender, receiver) = pipe::new().unwrap();
        let fired = Rc::clone(&fired);
        let source =
            reactor.net().register_source(receiver, Interest::READABLE, move |pipe, _, ready| {
                assert!(ready.readable);
                let mut bytes = [0; 8];
                let read = pipe.read(&mut bytes).unwrap();
                fired.borrow_mut().push((n, bytes[..read].to_vec()));
                Ok(())
            });
        source.unwrap();
        senders.push(sender);
    }
    senders.iter_mut().for_each(|sender| sender.write_all(b"x").unwrap());
    let turns = late_until(&mut reactor, "all five", || fired.borrow().len() == 5);
    assert!(turns >= 5, "{turns} turns for 5 callbacks");
    assert!(fired.borrow().iter().all(|(_, bytes)| bytes == b"x"));
}

// row 147
#[test]
fn a_burst_of_connections_is_accepted_over_several_turns() {
    let log = Log::new();
    let of_handlers = log.clone();
    let (mut reactor, _, address) = listening(move || Probe::echo(&of_handlers));
    let clients: Vec<_> = (0..20).map(|_| client(address)).collect();
    let mut seen = 0;
    let start = Instant::now();
    while seen < clients.len() {
        late_turn(&mut reactor);
        let now = log.opens();
        assert!(now <= seen + 1, "{} connections in one turn", now - seen);
        seen = now;
        assert!(start.elapsed() < PATIENCE);
    }
}

// row 148
#[test]
fn plain_turns_go_on_where_a_cut_one_stopped() {
    let (mut reactor, log, mut clients) = echoes(10);
    clients.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
    // What one poll brought, and the turn cut off.
    late_until(&mut reactor, "the first", || !log.data().is_empty());
    until(&mut reactor, "the others", |_| log.data().len() == 10);
    for client in &mut clients {
        assert_eq!(read_n(client, 1), b"x");
    }
}

// row 148
#[test]
fn groups_that_always_have_a_message_do_not_starve_other_sends() {
    let (mut reactor, log, mut clients) = echoes(4);
    let mut opened = log.opened();
    let alone = opened.pop().unwrap();
    let group = reactor.net().create_group();
    for &member in &opened {
        assert!(reactor.net().join(group, member));
    }
    let heard = Rc::default();
    let ear = Ear { heard: Rc::clone(&heard), act: Box::new(|_, _| {}) };
    let udp = reactor.net().bind_udp("127.0.0.1:0", ear).unwrap();
    let peer = socket();
    reactor.net().send(alone, b"x");
    reactor.net().send_to(udp, address(&peer), b"x");
    let mut turns = 0;
    while reactor.net().queued(alone) + reactor.net().queued(udp) > 0 {
        reactor.net().publish(group, b"y");
        late_turn(&mut reactor);
        turns += 1;
        assert!(turns < 100, "neither has left in {turns} turns");
    }
    assert_eq!(read_n(&mut clients[3], 1), b"x");
    assert_eq!(received(&peer), b"x");
    assert_eq!(*heard.borrow(), [Heard::Open]);
}

// row 148
#[test]
fn a_flood_does_not_starve_notifications() {
    let (log, notes) = (Log::new(), Rc::new(Cell::new(0)));
    let (of_handlers, counted) = (log.clone(), Rc::clone(&notes));
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| Lines::new());
    let make = move |_: &Peer<'_>| {
        let counted = Rc::clone(&counted);
        Probe::new(&of_handlers).notify(move |_, _| {
            counted.set(counted.get() + 1);
            Ok(())
        })
    };
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    let (mut flood, _quiet) = (client(address), client(address));
    until(&mut reactor, "both to open", |_| log.opens() == 2);
    settle(&mut reactor);
    flood.write_all(&b"line\n".repeat(1_000)).unwrap();
    late_until(&mut reactor, "the first line", || log.count(is_data) > 0);
    for token in log.opened() {
        assert!(reactor.net().notify(token, ()));
    }
    late_until(&mut reactor, "both notes", || notes.get() == 2);
    let lines = log.count(is_data);
    assert!(lines < 100, "{lines} lines were before them");
    late_until(&mut reactor, "all lines", || log.count(is_data) == 1_000);
}

// row 216
#[test]
fn datagrams_of_one_socket_leave_over_several_turns() {
    let mut rig = rig("127.0.0.1:0");
    settle(&mut rig.reactor);
    let (peer, all) = (socket(), 100_u8);
    for n in 0..all {
        assert!(rig.send_to(address(&peer), [n]).is_accepted());
    }
    let token = rig.token;
    let mut waiting = usize::from(all);
    while waiting > 0 {
        late_turn(&mut rig.reactor);
        let left = rig.reactor.net().queued(token);
        assert!(waiting - left <= 32, "{} datagrams left in one turn", waiting - left);
        waiting = left;
    }
    for n in 0..all {
        assert_eq!(received(&peer), [n]);
    }
    // In time they all leave in one turn.
    for n in 0..all {
        assert!(rig.send_to(address(&peer), [n]).is_accepted());
    }
    let _ = rig.reactor.turn_until(Instant::now() + PATIENCE).unwrap();
    assert_eq!(rig.reactor.net().queued(token), 0);
}

// row 216
#[test]
fn errors_of_one_socket_are_told_over_several_turns_and_do_not_starve_its_input() {
    let mut rig = rig("127.0.0.1:0");
    settle(&mut rig.reactor);
    let peer = socket();
    let too_long = vec![0; 65_530];
    let errors = |heard: &[Heard]| heard.iter().filter(|h| matches!(h, Heard::Error(..))).count();
    for _ in 0..3 {
        assert!(rig.send_to(address(&peer), &too_long).is_accepted());
    }
    let start = Instant::now();
    while errors(&rig.heard()) < 3 {
        let before = errors(&rig.heard());
        late_turn(&mut rig.reactor);
        assert!(errors(&rig.heard()) <= before + 1, "{:?}", rig.heard());
        assert!(start.elapsed() < PATIENCE);
    }
    // Another one for each turn.
    peer.send_to(b"x", rig.address()).unwrap();
    for turn in 0.. {
        if rig.heard().contains(&datagram(b"x")) {
            break;
        }
        rig.send_to(address(&peer), &too_long);
        late_turn(&mut rig.reactor);
        assert!(turn < 100, "the input is starved by errors: {:?}", rig.heard());
    }
}

// row 161
#[test]
fn a_late_turn_that_has_left_nothing_is_none_that_was_cut() {
    let mut reactor = Reactor::new().unwrap();
    let slow = || std::thread::sleep(Duration::from_millis(2));
    reactor.net().run_after(Duration::ZERO, move |_, _| slow());
    let start = Instant::now();
    while reactor.net().stats().timers_fired < 1 {
        let _ = reactor.turn_until(Instant::now() + Duration::from_millis(1)).unwrap();
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(reactor.net().stats().work_exhausted, 0);
    for _ in 0..3 {
        reactor.net().run_after(Duration::ZERO, move |_, _| slow());
    }
    while reactor.net().stats().timers_fired < 4 {
        let _ = reactor.turn_until(Instant::now() + Duration::from_millis(1)).unwrap();
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(reactor.net().stats().work_exhausted, 2, "the third one has left nothing");
}

// row 146
#[test]
#[cfg(target_os = "linux")]
fn a_process_that_was_stopped_waits_for_its_deadline_all_the_same() {
    const LONG: Duration = Duration::from_millis(500);
    if child::part().is_some() {
        let mut reactor = Reactor::new().unwrap();
        child::say("waits");
        let deadline = Instant::now() + LONG;
        let _ = reactor.turn_until(deadline).unwrap();
        return child::say(if Instant::now() < deadline { "early" } else { "in time" });
    }
    let test = a_process_that_was_stopped_waits_for_its_deadline_all_the_same;
    let mut helper = child::Helper::start(test, "wait");
    assert_eq!(helper.hear(), "waits");
    helper.wait_until_asleep();
    helper.stop();
    helper.go_on();
    assert_eq!(helper.hear(), "in time");
}

// row 150
#[test]
fn state_and_network_are_borrowed_together() {
    let mut reactor = Reactor::with_state(vec![Duration::from_millis(1)]).unwrap();
    let (delays, net) = reactor.parts();
    for &delay in delays.iter() {
        net.run_after(delay, |delays: &mut Vec<Duration>, _| delays.clear());
    }
    until(&mut reactor, "the timer", |reactor| reactor.state().is_empty());
}
