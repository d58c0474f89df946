//! A loop that stood still for longer than its deadlines: what peers did in time counts.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tidegate::{Config, Connect, Listen, Reactor, StreamOptions};

use crate::support::{Log, Probe, Told, address_of, client, until};
#[cfg(target_os = "linux")]
use crate::support::{PATIENCE, child, read_n};

const TIME: Duration = Duration::from_millis(100);

/// A turn sees, or serves, fewer than there are.
fn small_turns() -> [Config; 2] {
    [Config::new().events_per_turn(2), Config::new().work_per_turn(2)]
}

/// A reactor with 16 open connections, and their clients.
fn many(
    config: Config,
    options: StreamOptions,
    log: &Log,
    adapt: impl Fn(Probe) -> Probe + 'static,
) -> (Reactor, Vec<TcpStream>) {
    let of_handlers = log.clone();
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let make = move |_: &tidegate::Peer<'_>| adapt(Probe::new(&of_handlers));
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    let clients: Vec<_> = (0..16).map(|_| client(address)).collect();
    until(&mut reactor, "all to open", |_| log.opens() == clients.len());
    (reactor, clients)
}

/// All clients say something, and the loop hears of it only when their time is long over.
fn say_and_stand_still(clients: &mut [TcpStream]) {
    for client in clients {
        client.write_all(b"x").unwrap();
    }
    std::thread::sleep(TIME * 2);
}

// row 93
#[test]
fn an_idle_timeout_waits_for_input_that_came_in_time() {
    for config in small_turns() {
        let log = Log::new();
        let options = StreamOptions::new().idle_timeout(TIME);
        let (mut reactor, mut clients) = many(config, options, &log, |probe| probe);
        say_and_stand_still(&mut clients);
        // Each has heard its client before any deadline is looked at.
        let n = clients.len();
        until(&mut reactor, "an end or all data", |_| log.closes() > 0 || log.data().len() == n);
        assert_eq!(log.closes(), 0, "{:?}", log.reasons());
        until(&mut reactor, "the silence to end them", |_| log.closes() == n);
    }
}

// row 93
#[test]
fn those_who_end_meanwhile_do_not_shorten_the_wait_of_the_others() {
    let log = Log::new();
    let options = StreamOptions::new().idle_timeout(TIME);
    let config = Config::new().events_per_turn(1);
    let (mut reactor, mut clients) = many(config, options, &log, |probe| probe);
    let n = clients.len();
    for client in &clients[..n - 4] {
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
    say_and_stand_still(&mut clients[n - 4..]);
    until(&mut reactor, "the last one's data", |_| log.data().len() == 4);
    let reasons = log.reasons();
    assert!(reasons.iter().all(|reason| !reason.contains("no byte moved")), "{reasons:?}");
}

// row 93
#[test]
fn a_timer_that_input_cancels_waits_for_input_that_came_in_time() {
    for config in small_turns() {
        let log = Log::new();
        let (mut reactor, mut clients) = many(config, StreamOptions::new(), &log, |probe| {
            let timer = std::rc::Rc::new(std::cell::Cell::new(None));
            let set = std::rc::Rc::clone(&timer);
            probe
                .open(move |cx| {
                    set.set(Some(cx.set_timer(TIME * 10, 1)));
                    Ok(())
                })
                .data(move |cx, input| {
                    input.take_all();
                    assert!(cx.cancel_timer(timer.take().unwrap()));
                    Ok(())
                })
        });
        for client in &mut clients {
            client.write_all(b"x").unwrap();
        }
        std::thread::sleep(TIME * 11);
        until(&mut reactor, "all data", |_| log.data().len() == 16);
        assert_eq!(log.count(|told| matches!(told, Told::Timer(_))), 0);
    }
}

// row 93
#[test]
fn a_connect_that_was_established_in_time_stands() {
    for config in small_turns() {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = target.local_addr().unwrap();
        let log = Log::new();
        let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
        for _ in 0..16 {
            let connect = Connect::tcp(to).options(StreamOptions::new().connect_timeout(TIME));
            reactor.net().connect(connect, Probe::new(&log)).unwrap();
        }
        let accepted: Vec<_> = (0..16).map(|_| target.accept().unwrap()).collect();
        std::thread::sleep(TIME * 2);
        until(&mut reactor, "all to open or fail", |_| log.opens() + log.closes() == 16);
        assert_eq!(log.closes(), 0, "{:?}", log.reasons());
        drop(accepted);
    }
}

// row 93
#[test]
fn a_flood_puts_timers_off_only_for_as_long_as_it_takes_to_see_all() {
    for config in small_turns() {
        let log = Log::new();
        let (mut reactor, mut clients) = many(config, StreamOptions::new(), &log, |probe| probe);
        let start = Instant::now();
        let fired = std::rc::Rc::new(std::cell::Cell::new(false));
        let fires = std::rc::Rc::clone(&fired);
        reactor.net().run_after(TIME, move |_: &mut (), _| fires.set(true));
        let mut turns = 0;
        while !fired.get() {
            // Everybody always has something to say, more than a turn hears.
            for client in &mut clients {
                client.write_all(b"x").unwrap();
            }
            let due = start.elapsed() > TIME + Duration::from_millis(2);
            let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
            turns += usize::from(due);
            assert!(turns <= 10, "16 connections and a listener, two a turn");
        }
        assert_eq!(log.closes(), 0);
    }
}

// ---- a process that was stopped ----

// Linux only: proc(5) tells when the child sleeps in its poll, and a stop elsewhere would show nothing.

/// The idle timeout or the timer of a child. The stop and what is sent have to come before it is over.
#[cfg(target_os = "linux")]
const CHILDS_TIME: Duration = Duration::from_millis(300);

// rows 70, 93
#[test]
#[cfg(target_os = "linux")]
fn an_idle_timeout_waits_for_what_came_while_the_process_was_stopped() {
    if child::part().is_some() {
        return echo_in_a_child(StreamOptions::new().idle_timeout(CHILDS_TIME), false);
    }
    let test = an_idle_timeout_waits_for_what_came_while_the_process_was_stopped;
    let (mut helper, mut stream) = continued_too_late(test);
    assert_eq!(helper.hear(), "data");
    assert_eq!(read_n(&mut stream, 1), b"2");
}

// rows 70, 93
#[test]
#[cfg(target_os = "linux")]
fn a_timer_comes_after_what_came_while_the_process_was_stopped() {
    if child::part().is_some() {
        return echo_in_a_child(StreamOptions::new(), true);
    }
    let test = a_timer_comes_after_what_came_while_the_process_was_stopped;
    let (mut helper, _stream) = continued_too_late(test);
    assert_eq!([helper.hear(), helper.hear()], ["data", "timer"]);
}

/// Serves until it is killed, and says what its handlers are told.
#[cfg(target_os = "linux")]
fn echo_in_a_child(options: StreamOptions, with_timer: bool) {
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let make = move |_: &tidegate::Peer<'_>| {
        let mut first = true;
        Probe::new(&log)
            .data(move |cx, input| {
                child::say("data");
                cx.send(input.take_all());
                if std::mem::take(&mut first) && with_timer {
                    cx.set_timer(CHILDS_TIME, 1);
                }
                Ok(())
            })
            .timer(|_, _| {
                child::say("timer");
                Ok(())
            })
            .close(|_, closed| child::say(&closed.reason.to_string()))
    };
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let listener = reactor.net().listen(listen, make).unwrap();
    child::say(&address_of(&mut reactor, listener).to_string());
    reactor.run().unwrap();
}

/// A child that was stopped while it slept in its poll, whose time is over, and to which a second byte
/// was sent before that. It runs again; what it says next is about the byte, or it is wrong.
#[cfg(target_os = "linux")]
fn continued_too_late<T: Fn() + Copy>(test: T) -> (child::Helper, TcpStream) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let mut helper = child::Helper::start(test, "echo");
        let mut stream = client(helper.hear().parse().unwrap());
        let earliest = Instant::now() + CHILDS_TIME; // it counts from the first byte
        stream.write_all(b"1").unwrap();
        assert_eq!(helper.hear(), "data");
        assert_eq!(read_n(&mut stream, 1), b"1");
        let latest = Instant::now() + CHILDS_TIME;
        helper.wait_until_asleep();
        helper.stop();
        let sent = stream.write_all(b"2");
        // Else the machine was too busy: what was sent may have come too late.
        if Instant::now() < earliest {
            sent.unwrap();
            std::thread::sleep(latest.saturating_duration_since(Instant::now()) + TIME);
            helper.go_on();
            return (helper, stream);
        }
    }
    panic!("never in time");
}
