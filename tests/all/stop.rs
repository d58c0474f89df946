//! The loop's end, its going on afterwards, the loop as a guest in another, and a process that is
//! stopped and continued.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::layer::{Item, LayerContext, LayerError, Step};
use tidegate::{
    Connect, Context, Datagram, DatagramHandler, Handler, HandlerResult, Input, Layer, Listen,
    MessageKind, Net, Peer, Reactor, ShutdownReport, SocketOptions, StreamOptions,
};

#[cfg(target_os = "linux")]
use crate::support::child;
use crate::support::{
    Log, PATIENCE, Probe, Told, address_of, client, is_data, listening, read_all, read_n, settle,
    until,
};

const MS: Duration = Duration::from_millis(1);

/// A handler that calls `stop` in the callback of this name, and lives through all of them.
fn stops_in(name: &'static str, log: &Log) -> Probe {
    let stop = move |net: &mut Net, here: &str| {
        if here == name {
            net.stop();
        }
    };
    Probe::new(log)
        .open(move |cx| {
            cx.send([b'o'; 100]); // above the high mark
            stop(cx.net, "open");
            Ok(())
        })
        .data(move |cx, input| {
            input.take_all();
            let token = cx.token;
            cx.net.notify(token, ());
            cx.set_timer(Duration::ZERO, 0);
            stop(cx.net, "data");
            Ok(())
        })
        .drain(move |cx| {
            stop(cx.net, "drain");
            Ok(())
        })
        .timer(move |cx, _| {
            stop(cx.net, "timer");
            cx.half_close();
            Ok(())
        })
        .notify(move |cx, _| {
            stop(cx.net, "signal");
            Ok(())
        })
        .eof(move |cx| {
            stop(cx.net, "eof");
            cx.close();
            Ok(())
        })
        .close(move |cx, _| stop(cx.net, "close"))
}

// row 59
#[test]
fn stop_in_any_callback_ends_run_after_its_turn_and_closes_nothing() {
    for name in ["open", "data", "drain", "timer", "signal", "eof", "close"] {
        let log = Log::new();
        let of_handler = log.clone();
        let mut reactor = Reactor::new().unwrap();
        let listen =
            Listen::tcp("127.0.0.1:0").options(StreamOptions::new().low_water(0).high_water(10));
        let listener = reactor.net().listen(listen, move |_| stops_in(name, &of_handler)).unwrap();
        let address = address_of(&mut reactor, listener);
        let thread = std::thread::spawn(move || {
            let mut stream = client(address);
            stream.write_all(b"x").unwrap();
            read_all(&mut stream).len() // its end comes from the timer
        });
        reactor.run().unwrap();
        assert!(reactor.net().is_open(listener), "{name}");
        // It goes on where it was.
        until(&mut reactor, "the rest of the life", |_| log.closes() == 1);
        assert_eq!(thread.join().unwrap(), 100);
        assert_eq!(log.reasons(), ["both sides ended"], "{name}");
    }
}

struct Stops;

impl DatagramHandler for Stops {
    fn on_datagram(&mut self, cx: &mut Context<'_>, _: Datagram<'_>) -> HandlerResult {
        cx.net.stop();
        Ok(())
    }
}

// row 59
#[test]
fn stop_from_a_datagram_a_closure_a_timer_and_another_thread() {
    let mut reactor = Reactor::new().unwrap();
    let socket = reactor.net().bind_udp("127.0.0.1:0", Stops).unwrap();
    let to = address_of(&mut reactor, socket);
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"", to).unwrap();
    assert_eq!(reactor.run().unwrap(), ShutdownReport::default());
    reactor.net().run_after(MS, |(), net| net.stop());
    assert_eq!(reactor.run().unwrap(), ShutdownReport::default());
    reactor.remote().post(|(), net| net.stop()).unwrap();
    assert_eq!(reactor.run().unwrap(), ShutdownReport::default());
    let remote = reactor.remote();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(5 * MS); // the loop sleeps
        remote.stop().unwrap();
    });
    assert_eq!(reactor.run().unwrap(), ShutdownReport::default());
    thread.join().unwrap();
    // Before the loop runs: it ends after one turn, and only once.
    reactor.net().stop();
    assert_eq!(reactor.run().unwrap(), ShutdownReport::default());
    assert_eq!(reactor.turn(Some(Duration::ZERO)).unwrap(), ControlFlow::Continue(()));
}

// row 59
#[test]
fn messages_behind_a_stop_are_handled_and_not_lost() {
    let mut reactor = Reactor::with_state(0).unwrap();
    let remote = reactor.remote();
    remote.stop().unwrap();
    for _ in 0..5_000 {
        remote.post(|count: &mut i32, _| *count += 1).unwrap();
    }
    reactor.run().unwrap();
    until(&mut reactor, "the others", |r| *r.state() == 5_000);
}

// row 59
#[test]
fn a_shutdown_refuses_newcomers_lets_the_others_finish_and_ends_with_the_last() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = listening(move || Probe::echo(&of_handler));
    let mut stream = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    reactor.remote().shutdown(PATIENCE).unwrap();
    until(&mut reactor, "the listener to close", |r| !r.net().is_open(listener));
    settle(&mut reactor);
    assert!(TcpStream::connect(address).is_err(), "a newcomer was let in");
    let thread = std::thread::spawn(move || {
        stream.write_all(b"still served").unwrap();
        let heard = read_n(&mut stream, 12);
        drop(stream);
        heard
    });
    assert_eq!(reactor.run().unwrap(), ShutdownReport::default());
    assert_eq!(thread.join().unwrap(), b"still served");
    assert_eq!(log.reasons(), ["both sides ended"]);
}

/// A connection whose client reads nothing, with much queued for it.
fn stuck(log: &Log) -> (Reactor, TcpStream) {
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let socket = SocketOptions::new().send_buffer(8192);
    let listen = Listen::tcp("127.0.0.1:0")
        .options(StreamOptions::new().socket_options(socket).output_limit(16 << 20));
    let listener = reactor
        .net()
        .listen(listen, move |_| {
            Probe::new(&of_handler).open(|cx| {
                cx.send(vec![b'x'; 15 << 20]);
                Ok(())
            })
        })
        .unwrap();
    let stream = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the open", |_| log.opens() == 1);
    (reactor, stream)
}

// row 59
#[test]
fn when_the_grace_is_over_a_shutdown_cuts_and_reports_what_was_left() {
    let log = Log::new();
    let (mut reactor, _stream) = stuck(&log);
    let start = Instant::now();
    reactor.net().shutdown(50 * MS);
    let report = reactor.run().unwrap();
    assert!(start.elapsed() >= 50 * MS, "cut before its time");
    assert_eq!(report.connections_cut, 1);
    assert!(report.bytes_unsent > 1 << 20, "{report:?}");
    let reason = "timed out: the time for the shutdown was up".to_owned();
    assert_eq!(log.told().last(), Some(&Told::Close(reason, report.bytes_unsent)));

    // The next run has a report of its own.
    let listener = reactor.net().listen("127.0.0.1:0", |_| Probe::new(&Log::new())).unwrap();
    assert!(reactor.net().is_open(listener));
    reactor.net().stop();
    assert_eq!(reactor.run().unwrap(), ShutdownReport::default());
}

// Nothing of one that lingers is cut: all it sent is flushed, only its peer's end is missing. And an
// error that was to end a connection stays the reason when the time is up first.
#[test]
fn a_shutdown_cuts_neither_what_is_flushed_nor_the_reason_noted_before() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let socket = SocketOptions::new().send_buffer(8192);
    let listen = Listen::tcp("127.0.0.1:0")
        .options(StreamOptions::new().socket_options(socket).output_limit(16 << 20));
    let make = move |_: &Peer<'_>| {
        Probe::new(&of_handler).data(|cx, input| match input.take_all() {
            b"c" => {
                cx.close();
                Ok(())
            }
            _ => {
                cx.send(vec![0; 15 << 20]); // more than the sockets take: it cannot be flushed
                Err("mine".into())
            }
        })
    };
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    let (mut closed, mut failed) = (client(address), client(address));
    closed.write_all(b"c").unwrap();
    until(&mut reactor, "the close", |_| log.count(is_data) == 1);
    failed.write_all(b"f").unwrap();
    until(&mut reactor, "the failure", |_| log.count(is_data) == 2);
    settle(&mut reactor);
    assert_eq!(log.closes(), 0, "one waits for its peer's end, the other for its queue");
    reactor.net().shutdown(Duration::ZERO);
    let report = reactor.run().unwrap();
    assert_eq!(report.connections_cut, 1);
    assert!(report.bytes_unsent > 0);
    let mut reasons = log.reasons();
    reasons.sort();
    assert_eq!(reasons, ["closed", "mine"]);
}

// row 59
#[test]
fn a_shutdown_without_connections_ends_at_once_and_stop_ends_one_that_waits() {
    let mut reactor = Reactor::new().unwrap();
    reactor.net().shutdown(Duration::MAX);
    assert_eq!(reactor.run().unwrap(), ShutdownReport::default());

    let log = Log::new();
    let (mut reactor, _stream) = stuck(&log);
    reactor.net().shutdown(Duration::MAX);
    reactor.net().run_after(5 * MS, |(), net| net.stop());
    assert_eq!(reactor.run().unwrap(), ShutdownReport::default());
    assert_eq!(log.closes(), 0, "stop closes nothing");
}

// row 59: two threads, or an impatient second Ctrl-C
#[test]
fn a_shutdown_behind_a_stop_in_one_turn_does_not_take_it_back() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = listening(move || Probe::new(&of_handler));
    let _stream = client(address); // a shutdown would wait for this one
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let remote = reactor.remote();
    remote.stop().unwrap();
    remote.shutdown(Duration::MAX).unwrap();
    assert!(reactor.turn(Some(PATIENCE)).unwrap().is_break());
    assert_eq!(log.closes(), 0, "stop closes nothing");
    assert!(!reactor.net().is_open(listener), "which is the shutdown's part");
    assert_eq!(
        reactor.turn(Some(Duration::ZERO)).unwrap(),
        ControlFlow::Continue(()),
        "and it is over"
    );
}

// row 59
#[test]
fn a_listener_is_refused_for_as_long_as_a_shutdown_lasts() {
    let log = Log::new();
    let (mut reactor, _stream) = stuck(&log);
    let listen = |net: &mut Net| net.listen("127.0.0.1:0", |_| Probe::new(&Log::new()));
    reactor.net().shutdown(Duration::MAX);
    let refused = listen(reactor.net()).unwrap_err();
    assert_eq!(refused.to_string(), "cannot listen: the reactor is being shut down");
    reactor.net().stop();
    assert_eq!(reactor.run().unwrap(), ShutdownReport::default());
    assert!(listen(reactor.net()).is_ok());
}

// row 59
#[test]
fn each_shutdown_has_a_report_of_its_own_under_turn_too() {
    let mut reactor = Reactor::new().unwrap();
    let log = Log::new();
    for connections in [2, 1, 0] {
        let of_handler = log.clone();
        let make = move |_: &Peer<'_>| Probe::new(&of_handler);
        let listener = reactor.net().listen("127.0.0.1:0", make).unwrap();
        let address = address_of(&mut reactor, listener);
        let _streams: Vec<_> = (0..connections).map(|_| client(address)).collect();
        let all = log.closes() + connections;
        until(&mut reactor, "all to open", |_| log.opens() == all);
        reactor.net().shutdown(Duration::ZERO);
        let report = reactor.turn(Some(PATIENCE)).unwrap().break_value().expect("it is over");
        assert_eq!((report.connections_cut, report.bytes_unsent), (connections, 0));
    }
}

// row 59
#[test]
fn a_handler_that_connects_anew_whenever_it_closes_does_not_outlive_a_shutdown() {
    let (mut reactor, counts) = reconnecting();
    reactor.net().shutdown(30 * MS);
    let report = reactor.run().unwrap();
    assert!(report.connections_cut >= 1);
    assert!(counts.opened.get() >= 1);
    drop(reactor);
    assert_eq!(counts.closed.get(), counts.made.get());
}

#[derive(Clone, Default)]
struct Counts {
    made: Rc<Cell<usize>>,
    opened: Rc<Cell<usize>>,
    closed: Rc<Cell<usize>>,
}

/// A client that keeps up a connection: when it closes, the next one is made.
struct Reconnects(std::net::SocketAddr, Counts);

impl Reconnects {
    fn connect(net: &mut Net, to: std::net::SocketAddr, counts: &Counts) {
        if net.connect(to, Reconnects(to, counts.clone())).is_ok() {
            counts.made.set(counts.made.get() + 1);
        }
    }
}

impl Handler for Reconnects {
    fn on_open(&mut self, _: &mut Context<'_>) -> HandlerResult {
        self.1.opened.set(self.1.opened.get() + 1);
        Ok(())
    }
    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }
    fn on_close(&mut self, cx: &mut Context<'_>, _: &tidegate::CloseInfo) {
        self.1.closed.set(self.1.closed.get() + 1);
        Reconnects::connect(cx.net, self.0, &self.1);
    }
}

fn reconnecting() -> (Reactor, Counts) {
    let (mut reactor, _listener, address) = listening(|| Probe::echo(&Log::new()));
    let counts = Counts::default();
    Reconnects::connect(reactor.net(), address, &counts);
    until(&mut reactor, "the connection", |_| counts.opened.get() == 1);
    (reactor, counts)
}

#[test]
fn dropping_a_reactor_ends_also_where_each_close_makes_a_new_connection() {
    let (reactor, counts) = reconnecting();
    drop(reactor);
    assert_eq!((counts.made.get(), counts.closed.get()), (1, 1));
}

/// Never ready.
struct Handshake;

impl Layer for Handshake {
    fn name(&self) -> &'static str {
        "handshake"
    }
    fn is_ready(&self) -> bool {
        false
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        _: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        Ok(Step::new(0, Item::Nothing))
    }
    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        _: &[u8],
        _: MessageKind,
        _: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        Ok(())
    }
}

#[test]
fn dropping_a_reactor_tells_each_handler_once_and_those_that_do_not_exist_never() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || {
        Probe::new(&of_handler).close(|cx, _| {
            // Nothing of this comes to anything, and nothing goes wrong.
            let _ = cx.net.listen("127.0.0.1:0", |_| Probe::new(&Log::new()));
            cx.net.run_after(Duration::ZERO, |(), _| panic!("after the end"));
            cx.net.remote().post(|(), _| {}).unwrap_err();
            cx.net.stop();
        })
    });
    let layered = Listen::tcp("127.0.0.1:0").layer(|_| Handshake);
    let unborn =
        reactor.net().listen(layered, |_| -> Probe { unreachable!("never ready") }).unwrap();
    let unborn_address = address_of(&mut reactor, unborn);
    let _streams = [client(address), client(address), client(unborn_address)];
    until(&mut reactor, "all", |r| log.opens() == 2 && r.net().connection_count() == 3);

    let outgoing = Log::new();
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = peer.local_addr().unwrap();
    reactor.net().connect(to, Probe::new(&outgoing)).unwrap();
    until(&mut reactor, "the outgoing one", |_| outgoing.opens() == 1);
    let halfway = Log::new();
    reactor.net().connect(Connect::tcp(to).layer(Handshake), Probe::new(&halfway)).unwrap();
    let udp_closed = Rc::new(RefCell::new(String::new()));
    let udp = Mourner(Rc::clone(&udp_closed));
    reactor.net().bind_udp("127.0.0.1:0", udp).unwrap();
    settle(&mut reactor);
    let unborn_yet = Log::new();
    reactor.net().connect(to, Probe::new(&unborn_yet)).unwrap();
    drop(reactor);
    let gone = Told::Close("the reactor was dropped".to_owned(), 0);
    assert_eq!(log.told(), [Told::Open, Told::Open, gone.clone(), gone.clone()]);
    assert_eq!(outgoing.told(), [Told::Open, gone.clone()]);
    assert_eq!(halfway.told(), unborn_yet.told());
    assert_eq!(halfway.told(), [gone]);
    assert_eq!(*udp_closed.borrow(), "the reactor was dropped");
}

struct Mourner(Rc<RefCell<String>>);

impl DatagramHandler for Mourner {
    fn on_datagram(&mut self, _: &mut Context<'_>, _: Datagram<'_>) -> HandlerResult {
        Ok(())
    }
    fn on_close(&mut self, _: &mut Context<'_>, closed: &tidegate::CloseInfo) {
        self.0.borrow_mut().push_str(&closed.reason.to_string());
    }
}

/// A foreign loop: it waits with a poll of its own, for the reactor's descriptor and no longer than
/// until the reactor's next deadline.
#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
struct Host {
    poll: mio::Poll,
    events: mio::Events,
}

#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
impl Host {
    fn new(guest: &Reactor) -> Self {
        use std::os::fd::{AsFd, AsRawFd};
        let poll = mio::Poll::new().unwrap();
        let fd = guest.as_fd().as_raw_fd();
        let mut source = mio::unix::SourceFd(&fd);
        poll.registry().register(&mut source, mio::Token(0), mio::Interest::READABLE).unwrap();
        Host { poll, events: mio::Events::with_capacity(8) }
    }

    fn turn(&mut self, guest: &mut Reactor) -> ControlFlow<ShutdownReport> {
        let now = Instant::now();
        let wait = guest.next_deadline().map(|at| at.saturating_duration_since(now));
        self.poll.poll(&mut self.events, Some(wait.unwrap_or(PATIENCE).min(PATIENCE))).unwrap();
        guest.turn(Some(Duration::ZERO)).unwrap()
    }
}

// row 59: an edge tells a foreign loop once of many sockets, and a turn may take fewer
#[test]
#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
fn a_foreign_loop_hears_of_events_that_did_not_fit_into_a_turn() {
    let log = Log::new();
    let of_handler = log.clone();
    let config = tidegate::Config::new().events_per_turn(1);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", move |_| Probe::new(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut clients: Vec<_> = (0..5).map(|_| client(address)).collect();
    until(&mut reactor, "the opens", |_| log.opens() == 5);
    settle(&mut reactor);
    let mut host = Host::new(&reactor);
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    let start = Instant::now();
    while log.data().len() < 5 {
        assert_eq!(host.turn(&mut reactor), ControlFlow::Continue(()));
        assert!(start.elapsed() < PATIENCE, "{} of five were heard", log.data().len());
    }
}

// row 59
#[test]
#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
fn a_foreign_loop_drives_sockets_timers_and_messages_by_descriptor_and_deadline() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || {
        Probe::new(&of_handler)
            .data(|cx, input| {
                cx.send(input.take_all());
                cx.set_timer(3 * MS, 1);
                Ok(())
            })
            .timer(|cx, _| {
                cx.send("!");
                Ok(())
            })
    });
    let mut host = Host::new(&reactor);
    let remote = reactor.remote();
    let thread = std::thread::spawn(move || {
        let mut stream = client(address);
        for round in 0..50_u8 {
            stream.write_all(&[round; 3]).unwrap();
            assert_eq!(read_n(&mut stream, 4), [round, round, round, b'!']);
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(read_all(&mut stream).is_empty());
        remote.stop().unwrap();
    });
    let start = Instant::now();
    while host.turn(&mut reactor) == ControlFlow::Continue(()) {
        assert!(start.elapsed() < PATIENCE);
    }
    thread.join().unwrap();
    assert_eq!(log.closes(), 1);
}

// row 59
#[test]
#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
fn a_deadline_in_the_past_announces_work_that_no_descriptor_will() {
    let (mut reactor, _listener, address) = listening(|| Probe::new(&Log::new()));
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None);
    let due = |reactor: &Reactor| reactor.next_deadline().is_some_and(|at| at <= Instant::now());
    let log = Log::new();
    let token = reactor.net().connect(address, Probe::new(&log)).unwrap();
    assert!(due(&reactor), "a birth");
    until(&mut reactor, "the open", |_| log.opens() == 1);
    settle(&mut reactor);
    reactor.net().send(token, "x");
    assert!(due(&reactor), "bytes to flush");
    settle(&mut reactor);
    reactor.net().notify(token, ());
    assert!(due(&reactor), "a signal");
    settle(&mut reactor);
    reactor.net().abort(token);
    assert!(due(&reactor), "an end to be told");
    settle(&mut reactor);
    reactor.net().run_after(Duration::ZERO, |(), _| {});
    assert!(due(&reactor), "a timer");
    settle(&mut reactor);
    reactor.net().stop();
    assert!(due(&reactor), "a stop");
    assert!(reactor.turn(Some(PATIENCE)).unwrap().is_break());
    settle(&mut reactor);
    assert_eq!(reactor.next_deadline(), None);
}

// ---- a process that is stopped ----

// row 70
#[test]
#[cfg(target_os = "linux")]
fn a_process_that_is_stopped_and_continued_goes_on_serving() {
    if child::part().is_some() {
        return echo_in_a_child();
    }
    let mut helper =
        child::Helper::start(a_process_that_is_stopped_and_continued_goes_on_serving, "echo");
    let mut stream = client(helper.hear().parse().unwrap());
    for round in 0..5_u8 {
        helper.wait_until_asleep(); // in its poll
        helper.stop();
        if round % 2 == 0 {
            stream.write_all(&[round]).unwrap(); // arrives while it is stopped
        }
        helper.go_on();
        if round % 2 == 1 {
            stream.write_all(&[round]).unwrap();
        }
        assert_eq!(read_n(&mut stream, 1), [round]);
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream), b"");
    assert_eq!(helper.hear(), "both sides ended");
}

#[cfg(target_os = "linux")]
fn echo_in_a_child() {
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let options = StreamOptions::new().idle_timeout(Duration::from_secs(10));
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let listener = reactor
        .net()
        .listen(listen, move |_| {
            Probe::echo(&log).close(|cx, closed| {
                child::say(&closed.reason.to_string());
                cx.net.stop();
            })
        })
        .unwrap();
    child::say(&address_of(&mut reactor, listener).to_string());
    reactor.run().unwrap();
}
