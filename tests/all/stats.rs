//! What a reactor counts, against what the test has done.

use std::io::Write;
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::time::Duration;

use tidegate::{
    CloseReason, Config, Connect, Context, Datagram, DatagramHandler, Deadline, HandlerResult,
    Limit, Listen, Reactor, ReactorStats, StreamOptions, Udp,
};

use crate::support::{
    Log, Probe, Told, address_of, client, is_data, listening, read_all, read_n, reset, settle,
    until, with_client,
};
use tidegate::layer::Lines;

/// A reactor that echoes.
fn echo() -> (Reactor, Log, std::net::SocketAddr) {
    let log = Log::new();
    let of_handler = log.clone();
    let (reactor, _, address) = listening(move || Probe::echo(&of_handler));
    (reactor, log, address)
}

fn balanced(stats: &ReactorStats) {
    assert_eq!(
        stats.accepted + stats.connects + stats.adopted,
        stats.refused + stats.closed.total() + stats.connections,
        "{stats}"
    );
}

// row 160
#[test]
fn bytes_and_calls_are_what_has_passed() {
    let (mut reactor, log, address) = echo();
    let mut peer = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let before = reactor.net().stats();
    for _ in 0..10 {
        peer.write_all(b"hello").unwrap();
        let told = log.count(is_data);
        until(&mut reactor, "the bytes", |_| log.count(is_data) > told);
        assert_eq!(read_n(&mut peer, 5), b"hello");
    }
    let passed = reactor.net().stats() - before;
    assert_eq!((passed.bytes_read, passed.bytes_written), (50, 50));
    assert_eq!((passed.reads, passed.writes), (10, 10));
    assert!(passed.turns >= 10 && passed.events >= 10, "{passed}");
    assert_eq!((passed.connections, passed.listeners, passed.bytes_queued), (1, 1, 0));
}

// row 160
#[test]
fn every_connection_is_found_again_with_the_reason_of_its_end() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let mut peers = 0;
    let options = StreamOptions::new().unread_limit(10).idle_timeout(Duration::from_millis(300));
    let listen = Listen::tcp("127.0.0.1:0").options(options).filter(move |_, ()| {
        peers += 1;
        peers > 2
    });
    let listener = reactor
        .net()
        .listen(listen, move |_| {
            Probe::new(&of_handler).data(|_, input| match input[0] {
                b'e' => Err("no".into()),
                b'k' => Ok(()), // it is kept
                _ => {
                    input.take_all();
                    Ok(())
                }
            })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    for _ in 0..2 {
        let mut refused = client(address);
        with_client(&mut reactor, move || read_all(&mut refused));
    }
    let mut fails = client(address);
    fails.write_all(b"e").unwrap();
    let mut floods = client(address);
    floods.write_all(&[b'k'; 20]).unwrap();
    let ends = client(address);
    ends.shutdown(Shutdown::Write).unwrap();
    let resets = client(address);
    until(&mut reactor, "the opens", |_| log.opens() == 4);
    reset(resets);
    let _idle = client(address);
    // Nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    reactor.net().connect(free, Probe::new(&log)).unwrap();
    let _reads = with_client(&mut reactor, move || (read_all(&mut fails), drop(ends)));
    until(&mut reactor, "the ends", |_| log.closes() == 6);
    let stats = reactor.net().stats();
    assert_eq!((stats.accepted, stats.refused, stats.connects), (7, 2, 1));
    assert_eq!((stats.connected, stats.connect_failed, stats.connections), (0, 1, 0));
    for reason in [
        CloseReason::Handler("".into()),
        CloseReason::LimitExceeded(Limit::UnreadInput, 0),
        CloseReason::BothEnded,
        CloseReason::Io(std::io::ErrorKind::ConnectionReset.into()),
        CloseReason::TimedOut(Deadline::Idle),
    ] {
        assert_eq!(stats.closed.of(&reason), 1, "{reason}: {stats}");
    }
    assert_eq!(stats.closed.failed(), 5);
    balanced(&stats);
}

// row 160
#[test]
fn timers_posts_and_notifications_are_counted_once() {
    let (mut reactor, log, address) = echo();
    let _peer = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let token = log.opened()[0];
    let before = reactor.net().stats();
    let net = reactor.net();
    let long = Duration::from_secs(1_000);
    net.set_timer(token, Duration::ZERO, 1);
    net.set_timer(token, long, 2);
    net.run_after(Duration::ZERO, |(), _| {});
    let cancelled = net.set_timer(token, long, 3);
    assert!(net.rearm_timer(cancelled, 2 * long));
    assert_eq!(net.stats().timers_pending, 4);
    assert!(net.cancel_timer(cancelled));
    assert!(net.notify(token, "one"));
    let remote = reactor.remote();
    for _ in 0..3 {
        remote.post(|(), _| {}).unwrap();
    }
    remote.notify(token, "two").unwrap();
    until(&mut reactor, "all of it", |_| {
        log.count(|told| *told == Told::Notification) == 2
            && log.count(|told| *told == Told::Timer(1)) == 1
    });
    settle(&mut reactor);
    let passed = reactor.net().stats() - before;
    assert_eq!((passed.timers_set, passed.timers_fired, passed.timers_pending), (4, 2, 1));
    assert_eq!((passed.posts, passed.notifications, passed.wakes), (4, 2, 1));
}

struct Quiet;

impl DatagramHandler for Quiet {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        cx.send_to(datagram.from, datagram.bytes);
        Ok(())
    }
}

// row 160
#[test]
fn datagrams_are_counted_and_those_that_find_no_room() {
    let mut reactor = Reactor::new().unwrap();
    let udp = Udp::bind("127.0.0.1:0").queue_limit(100);
    let token = reactor.net().bind_udp(udp, Quiet).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.connect(address_of(&mut reactor, token)).unwrap();
    for _ in 0..5 {
        peer.send(&[7; 60]).unwrap();
        let before = reactor.net().stats().datagrams_sent;
        until(&mut reactor, "an answer", |r| r.net().stats().datagrams_sent > before);
    }
    let to = peer.local_addr().unwrap();
    let net = reactor.net();
    assert!(net.send_to(token, to, [1; 60]).is_accepted());
    assert!(!net.send_to(token, to, [2; 60]).is_accepted(), "there is no room");
    assert_eq!(net.stats().bytes_queued, 60);
    settle(&mut reactor);
    let stats = reactor.net().stats();
    assert_eq!(stats.datagrams_received, 5);
    assert_eq!((stats.datagrams_sent, stats.datagrams_dropped), (6, 1));
    assert_eq!((stats.datagram_sockets, stats.bytes_queued), (1, 0));
}

// row 161
#[test]
fn what_a_budget_cuts_is_counted() {
    let log = Log::new();
    let of_handler = log.clone();
    let config = Config::new()
        .read_buffer(512)
        .reads_per_turn(1)
        .timers_per_turn(1)
        .posts_per_turn(1)
        .accepts_per_turn(1);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", move |_| Probe::new(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut peers = [client(address), client(address)];
    until(&mut reactor, "the opens", |_| log.opens() == 2);
    peers[0].write_all(&[1; 2_000]).unwrap();
    until(&mut reactor, "the bytes", |_| log.data().len() == 2_000);
    for _ in 0..2 {
        reactor.net().run_after(Duration::ZERO, |(), _| {});
        reactor.remote().post(|(), _| {}).unwrap();
    }
    settle(&mut reactor);
    let stats = reactor.net().stats();
    assert!(stats.reads_exhausted >= 1 && stats.accepts_exhausted >= 1, "{stats}");
    assert_eq!((stats.timers_exhausted, stats.posts_exhausted), (1, 1));
    assert_eq!(stats.work_exhausted, 0);
}

// row 160
#[test]
fn what_groups_write_counts_whatever_way_it_takes() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || Probe::new(&of_handler));
    let mut peers: Vec<_> = (0..3).map(|_| client(address)).collect();
    until(&mut reactor, "the opens", |_| log.opens() == 3);
    let net = reactor.net();
    let group = net.create_group();
    for &member in &log.opened() {
        net.join(group, member);
    }
    // One has a queue of its own before, and one is left out of a message.
    let before = net.stats();
    net.send(log.opened()[0], "first ");
    net.publish(group, "news ");
    net.publish_except(group, log.opened()[1], "more");
    settle(&mut reactor);
    let passed = reactor.net().stats() - before;
    assert_eq!((passed.bytes_written, passed.bytes_queued), (6 + 3 * 5 + 2 * 4, 0));
    for (peer, len) in peers.iter_mut().zip([15, 5, 9]) {
        read_n(peer, len);
    }
}

// row 160
#[test]
fn a_connect_and_what_the_kernel_does_not_take_are_counted() {
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = StreamOptions::new().output_limit(64 << 20);
    let connect = Connect::tcp(peer.local_addr().unwrap()).options(options);
    let token = reactor.net().connect(connect, Probe::new(&log)).unwrap();
    let (mut stream, _) = peer.accept().unwrap();
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let big = vec![7; 32 << 20];
    reactor.net().send(token, &big);
    settle(&mut reactor);
    let stats = reactor.net().stats();
    assert_eq!((stats.connects, stats.connected), (1, 1));
    assert!(stats.bytes_queued > 0, "the kernel does not take 32 MiB");
    assert_eq!(stats.bytes_queued, reactor.net().queued(token) as u64);
    assert_eq!(stats.bytes_written + stats.bytes_queued, 32 << 20);
    reactor.net().close(token);
    assert_eq!(with_client(&mut reactor, move || read_all(&mut stream).len()), 32 << 20);
    until(&mut reactor, "the end", |_| log.closes() == 1);
    let stats = reactor.net().stats();
    assert_eq!((stats.bytes_written, stats.bytes_queued), (32 << 20, 0));
    balanced(&stats);
}

/// A server whose connections count; behind `Lines` if asked for.
fn counting(lines: bool) -> (Reactor, Log, std::net::SocketAddr) {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let mut listen =
        Listen::tcp("127.0.0.1:0").options(StreamOptions::new().statistics(true).output_limit(100));
    if lines {
        listen = listen.layer(|_| Lines::new());
    }
    let listener = reactor.net().listen(listen, move |_| Probe::echo(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, log, address)
}

// row 162
#[test]
fn a_connection_that_counts_knows_its_messages_and_bytes() {
    for (lines, messages) in [(false, 1), (true, 3)] {
        let (mut reactor, log, address) = counting(lines);
        let mut peer = client(address);
        until(&mut reactor, "the open", |_| log.opens() == 1);
        let token = log.opened()[0];
        peer.write_all(b"one\ntwo\nthree\n").unwrap();
        until(&mut reactor, "the lines", |_| log.count(is_data) == messages);
        assert_eq!(read_n(&mut peer, 14), b"one\ntwo\nthree\n");
        let stats = reactor.net().connection_stats(token).unwrap();
        assert_eq!((stats.bytes_received, stats.bytes_sent), (14, 14), "{stats}");
        assert_eq!(stats.messages_received, messages as u64);
        assert_eq!(stats.messages_sent, messages as u64);
        assert_eq!((stats.messages_dropped, stats.queued), (0, 0));
        assert_eq!(
            stats.queued_peak, 14,
            "the replies of one callback after the other wait together"
        );
        assert!(stats.age >= stats.idle, "{stats}");
        // A message of a group counts as one, whatever it shares a write with.
        let net = reactor.net();
        let group = net.create_group();
        net.join(group, token);
        for _ in 0..3 {
            net.publish(group, "news");
        }
        until(&mut reactor, "the news", |r| r.net().connection_stats(token).unwrap().queued == 0);
        let later = reactor.net().connection_stats(token).unwrap();
        let passed = later - stats;
        assert_eq!(passed.messages_sent, 3);
        assert_eq!(passed.bytes_sent, if lines { 15 } else { 12 });
        assert_eq!(passed.age, later.age - stats.age);
    }
}

// row 162
#[test]
fn what_a_limit_refuses_is_counted_and_the_end_has_the_last_figures() {
    let (mut reactor, log, address) = counting(false);
    let _peer = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let token = log.opened()[0];
    let net = reactor.net();
    let options = net.options(token).unwrap().clone().overflow(tidegate::Overflow::Drop);
    assert!(net.set_options(token, options));
    net.send(token, [1; 80]);
    net.send(token, [2; 80]);
    let stats = net.connection_stats(token).unwrap();
    assert_eq!((stats.messages_sent, stats.messages_dropped), (1, 1));
    assert_eq!((stats.queued, stats.queued_peak, stats.bytes_sent), (80, 80, 0));
    let seen = std::rc::Rc::new(std::cell::Cell::new(None));
    let of_handler = std::rc::Rc::clone(&seen);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = StreamOptions::new().statistics(true);
    let connect = Connect::tcp(listener.local_addr().unwrap()).options(options);
    let other = Probe::new(&log).close(move |cx, _| of_handler.set(cx.connection_stats()));
    let token = reactor.net().connect(connect, other).unwrap();
    assert_eq!(reactor.net().connection_stats(token), None, "it is not established");
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"bye").unwrap();
    drop(peer);
    until(&mut reactor, "the end", |_| log.closes() == 1);
    let last: tidegate::ConnectionStats = seen.take().unwrap();
    assert_eq!((last.bytes_received, last.messages_received), (3, 1));
    assert_eq!(reactor.net().connection_stats(token), None, "it is gone");
}

// row 162
#[test]
fn counting_can_be_switched_on_and_off_on_a_living_connection() {
    let (mut reactor, log, address) = echo();
    let mut peer = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let token = log.opened()[0];
    let mut exchange = |reactor: &mut Reactor| {
        peer.write_all(b"x").unwrap();
        let told = log.count(is_data);
        until(reactor, "the byte", |_| log.count(is_data) > told);
        assert_eq!(read_n(&mut peer, 1), b"x");
    };
    exchange(&mut reactor);
    assert_eq!(reactor.net().connection_stats(token), None);
    let options = reactor.net().options(token).unwrap().clone();
    assert!(reactor.net().set_options(token, options.clone().statistics(true)));
    exchange(&mut reactor);
    exchange(&mut reactor);
    let stats = reactor.net().connection_stats(token).unwrap();
    assert_eq!((stats.bytes_received, stats.bytes_sent), (2, 2));
    assert!(reactor.net().set_options(token, options.clone().statistics(true).high_water(99)));
    assert_eq!(reactor.net().connection_stats(token).unwrap().bytes_sent, 2, "it goes on");
    assert!(reactor.net().set_options(token, options));
    assert_eq!(reactor.net().connection_stats(token), None);
    exchange(&mut reactor);
}

const SLOW: Duration = Duration::from_millis(5);

/// What a hook was told: the handler's type without its path, the callback, the token.
type Slow = (String, &'static str, Option<tidegate::Token>);

fn short(slow: &tidegate::SlowCallback) -> Slow {
    let name = slow.handler.split('<').next().unwrap().rsplit("::").next().unwrap();
    (name.to_owned(), slow.callback, slow.token)
}

/// Slow in everything.
struct Sleeper;

impl tidegate::Handler<Vec<Slow>> for Sleeper {
    fn on_open(&mut self, cx: &mut Context<'_, Vec<Slow>>) -> HandlerResult {
        cx.set_timer(Duration::ZERO, 0);
        Ok(())
    }

    fn on_data(
        &mut self,
        cx: &mut Context<'_, Vec<Slow>>,
        input: &mut tidegate::Input<'_>,
    ) -> HandlerResult {
        std::thread::sleep(SLOW);
        cx.send(input.take_all());
        Ok(())
    }

    fn on_timer(&mut self, _: &mut Context<'_, Vec<Slow>>, _: tidegate::Timer) -> HandlerResult {
        std::thread::sleep(SLOW);
        Ok(())
    }

    fn on_close(&mut self, _: &mut Context<'_, Vec<Slow>>, _: &tidegate::CloseInfo) {
        std::thread::sleep(SLOW);
    }
}

fn watched(limit: Duration) -> Reactor<Vec<Slow>> {
    Reactor::build(Config::new().slow_callback(limit), |net| {
        net.on_slow_callback(|slow, told: &mut Vec<Slow>| {
            assert!(slow.took >= Duration::from_millis(1), "{slow}");
            told.push(short(slow));
        });
        Ok(Vec::new())
    })
    .unwrap()
}

// row 163
#[test]
fn a_slow_callback_is_named_with_its_handler_and_its_token() {
    crate::support::logged::take();
    let mut reactor = watched(SLOW);
    let boxed = |_: &tidegate::Peer<'_>| -> Box<dyn tidegate::Handler<Vec<Slow>>> {
        std::thread::sleep(SLOW);
        Box::new(Sleeper)
    };
    let listen = Listen::tcp("127.0.0.1:0").filter(|_, _| {
        std::thread::sleep(SLOW);
        true
    });
    let listener = reactor.net().listen(listen, boxed).unwrap();
    let mut peer = client(address_of(&mut reactor, listener));
    peer.write_all(b"x").unwrap();
    until(&mut reactor, "the timer", |r| r.state().iter().any(|slow| slow.1 == "on_timer"));
    assert_eq!(with_client(&mut reactor, move || read_n(&mut peer, 1)), b"x");
    until(&mut reactor, "the end", |r| r.net().connection_count() == 0);
    reactor.remote().post(|_, _| std::thread::sleep(SLOW)).unwrap();
    reactor.net().run_after(Duration::ZERO, |_, _| std::thread::sleep(SLOW));
    reactor.net().offload(|| (), |_, _, _| std::thread::sleep(SLOW)).unwrap();
    until(&mut reactor, "the closures", |r| {
        r.state().iter().filter(|slow| slow.0 == "closure").count() == 3
    });
    // On a busy machine anything may take long: what is asked is that these were told.
    let told = reactor.state().clone();
    let of = |callback| told.iter().find(|slow| slow.1 == callback).cloned();
    let connection = of("on_data").unwrap().2;
    assert!(connection.is_some());
    for callback in ["on_data", "on_timer", "on_close"] {
        assert_eq!(of(callback), Some(("Sleeper".to_owned(), callback, connection)));
    }
    for callback in ["filter", "factory"] {
        assert_eq!(of(callback).unwrap().2, Some(listener), "{told:?}");
    }
    for callback in ["post", "run_after", "done"] {
        assert_eq!(of(callback), Some(("closure".to_owned(), callback, None)));
    }
    // A line a second at most, with the names.
    let lines = crate::support::logged::take_from(log::Level::Warn);
    assert!(lines.iter().all(|(_, line)| line.contains(" took ")), "{lines:?}");
    assert!((1..4).contains(&lines.len()), "{lines:?}");
    assert!(lines[0].1.contains("::filter of "), "{lines:?}");
}

// row 163
#[test]
fn many_callbacks_that_are_not_slow_make_a_slow_turn() {
    let mut reactor = watched(10 * SLOW);
    for _ in 0..20 {
        reactor.net().run_after(Duration::ZERO, |_, _| std::thread::sleep(SLOW));
    }
    until(&mut reactor, "the turn", |r| r.state().iter().any(|slow| slow.1 == "turn"));
    assert!(reactor.state().contains(&("Reactor".to_owned(), "turn", None)));
}

// row 163
#[test]
fn without_the_setting_nothing_is_slow_and_a_hook_that_panics_costs_its_call() {
    let mut reactor = Reactor::with_state(Vec::new()).unwrap();
    reactor.net().on_slow_callback(|slow, told: &mut Vec<Slow>| told.push(short(slow)));
    reactor.net().run_after(Duration::ZERO, |_, _| std::thread::sleep(2 * SLOW));
    until(&mut reactor, "the timer", |r| r.net().stats().timers_fired == 1);
    assert_eq!(*reactor.state(), []);

    let mut reactor = Reactor::build(Config::new().slow_callback(Duration::ZERO), |net| {
        net.on_slow_callback(|_, count: &mut u32| {
            *count += 1;
            if *count == 1 {
                crate::support::panics::panic_on_purpose();
            }
        });
        Ok(0)
    })
    .unwrap();
    for _ in 0..2 {
        reactor.net().run_after(Duration::ZERO, |_, _| {});
    }
    until(&mut reactor, "the second call", |r| *r.state() >= 2);
}
