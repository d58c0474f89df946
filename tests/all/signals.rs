//! Signals: typed, in order, never before `on_open`, never to the wrong one. And the same for the
//! timers of connections that do not stand yet.

use std::cell::RefCell;
use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::layer::{Item, LayerContext, LayerError, Step};
use tidegate::{
    Connect, Context, Datagram, DatagramHandler, HandlerResult, Layer, MessageKind, Notification,
    Reactor, StreamOptions, Timer, Token,
};

use crate::support::endpoints::deaf;
use crate::support::{Log, Probe, Told, client, listening, settle, until};

/// A handler that writes down the numbers it is signalled.
fn numbers(log: &Log, into: &Rc<RefCell<Vec<u32>>>) -> Probe {
    let into = Rc::clone(into);
    Probe::new(log).notify(move |_, signal| {
        into.borrow_mut().push(signal.take::<u32>().map_err(|_| "not a number")?);
        Ok(())
    })
}

#[test]
fn signals_are_typed_and_come_in_order_from_handlers_and_threads() {
    let (log, seen) = (Log::new(), Rc::default());
    let (of_handler, into) = (log.clone(), Rc::clone(&seen));
    let (mut reactor, _listener, address) = listening(move || numbers(&of_handler, &into));
    let stream = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let token = log.opened()[0];
    for n in 0..3_000_u32 {
        assert!(reactor.net().notify(token, n));
    }
    until(&mut reactor, "the signals", |_| seen.borrow().len() == 3_000);
    let remote = reactor.remote();
    let thread = std::thread::spawn(move || {
        for n in 3_000..6_000_u32 {
            remote.notify(token, n).unwrap();
        }
    });
    until(&mut reactor, "the posted signals", |_| seen.borrow().len() == 6_000);
    thread.join().unwrap();
    assert!(seen.borrow().iter().copied().eq(0..6_000));
    assert!(reactor.net().notify(token, "no number"));
    until(&mut reactor, "the error", |r| !r.net().is_open(token));
    drop(stream);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.reasons(), ["not a number"]);
}

#[test]
fn a_signal_to_a_newborn_waits_until_it_is_open_and_keeps_its_place() {
    let (log, seen) = (Log::new(), Rc::default());
    let (mut reactor, _listener, address) = listening(|| Probe::new(&Log::new()));
    let newborn = reactor.net().connect(address, numbers(&log, &seen)).unwrap();
    let mut next = 0;
    while log.opens() == 0 {
        assert!(reactor.net().notify(newborn, next));
        next += 1;
        let _ = reactor.turn(Some(Duration::from_millis(10))).unwrap();
    }
    assert!(reactor.net().notify(newborn, next));
    until(&mut reactor, "the signals", |_| seen.borrow().len() as u32 == next + 1);
    assert!(seen.borrow().iter().copied().eq(0..=next));
    assert_eq!(log.told()[0], Told::Open);
}

#[test]
fn a_signal_that_waits_for_a_connection_does_not_keep_the_loop_awake() {
    let full = deaf();
    let (log, seen) = (Log::new(), Rc::default());
    let mut reactor = Reactor::new().unwrap();
    let newborn = reactor.net().connect(full.address, numbers(&log, &seen)).unwrap();
    let counted = Rc::new(());
    assert!(reactor.net().notify(newborn, Rc::clone(&counted)));
    reactor.remote().notify(newborn, 1_u32).unwrap();
    settle(&mut reactor);
    let deadline = reactor.next_deadline().expect("the connect timeout");
    assert!(deadline > Instant::now(), "the loop would not sleep");
    // Nobody is told when it never comes to stand, and nothing is kept.
    reactor.net().close(newborn);
    until(&mut reactor, "the end", |_| log.closes() == 1);
    let reason = format!("cannot connect to {}: cancelled", full.address);
    assert_eq!(log.told(), [Told::Close(reason, 0)]);
    assert_eq!(Rc::strong_count(&counted), 1);
}

#[test]
fn a_signal_to_nobody_is_refused() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = listening(move || Probe::new(&of_handler));
    let _streams = [client(address), client(address)];
    until(&mut reactor, "both to open", |_| log.opens() == 2);
    let net = reactor.net();
    let [closing, dead] = log.opened()[..] else { panic!() };
    net.close(closing);
    net.abort(dead);
    for nobody in [closing, dead, listener] {
        assert!(!net.notify(nobody, 1));
    }
    until(&mut reactor, "the abort", |_| log.closes() == 1);
    assert!(!reactor.net().notify(dead, 1));
    reactor.remote().notify(dead, 1).unwrap();
    settle(&mut reactor);
    assert_eq!(log.count(|told| *told == Told::Notification), 0);
}

/// A format whose handshake is one byte of the peer's.
struct OneByteFirst {
    ready: bool,
}

impl Layer for OneByteFirst {
    fn name(&self) -> &'static str {
        "one byte first"
    }
    fn is_ready(&self) -> bool {
        self.ready
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        if wire.is_empty() {
            return Ok(Step::new(0, Item::Nothing));
        }
        if !std::mem::replace(&mut self.ready, true) {
            return Ok(Step::new(1, Item::Progress));
        }
        unit.extend_from_slice(wire);
        Ok(Step::new(wire.len(), Item::Unit))
    }
    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(message);
        Ok(())
    }
}

#[test]
fn timers_and_signals_of_a_connection_in_its_handshake_come_after_its_open() {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let to = Connect::tcp(peer.local_addr().unwrap())
        .layer(OneByteFirst { ready: false })
        .options(StreamOptions::new().handshake_timeout(crate::support::PATIENCE));
    let token = reactor.net().connect(to, Probe::new(&log)).unwrap();
    let net = reactor.net();
    let _kept = net.set_timer(token, Duration::ZERO, 1);
    let cancelled = net.set_timer(token, Duration::ZERO, 2);
    let moved = net.set_timer(token, Duration::ZERO, 3);
    net.notify(token, ());
    let (mut stream, _) = peer.accept().unwrap();
    settle(&mut reactor); // they are long due
    assert_eq!(log.told(), []);
    assert!(reactor.next_deadline().unwrap() > Instant::now(), "the loop would not sleep");
    assert!(reactor.net().cancel_timer(cancelled));
    assert!(reactor.net().rearm_timer(moved, Duration::from_millis(1)));
    stream.write_all(b"!").unwrap();
    until(&mut reactor, "the timers", |_| log.told().len() == 4);
    let told = log.told();
    assert_eq!(told[0], Told::Open);
    for one in [Told::Timer(1), Told::Timer(3), Told::Notification] {
        assert_eq!(told.iter().filter(|told| **told == one).count(), 1, "{told:?}");
    }
}

type Heard = Rc<RefCell<Vec<&'static str>>>;

/// A UDP socket that notes what it is told.
struct Newborn(Heard);

impl DatagramHandler for Newborn {
    fn on_open(&mut self, _: &mut Context<'_>) -> HandlerResult {
        self.0.borrow_mut().push("open");
        Ok(())
    }
    fn on_datagram(&mut self, _: &mut Context<'_>, _: Datagram<'_>) -> HandlerResult {
        Ok(())
    }
    fn on_timer(&mut self, _: &mut Context<'_>, _: Timer) -> HandlerResult {
        self.0.borrow_mut().push("timer");
        Ok(())
    }
    fn on_notify(&mut self, _: &mut Context<'_>, _: Notification) -> HandlerResult {
        self.0.borrow_mut().push("signal");
        Ok(())
    }
}

/// Binds a socket, sets it a timer and signals it, all at once.
fn give_birth(cx: &mut Context<'_>, told: &Heard) {
    let token = cx.net.bind_udp("127.0.0.1:0", Newborn(Rc::clone(told))).unwrap();
    cx.net.set_timer(token, Duration::ZERO, 0);
    assert!(cx.net.notify(token, ()));
}

#[test]
fn a_udp_socket_hears_of_its_timers_and_signals_after_its_open_wherever_it_was_born() {
    let pending_handlers: Rc<RefCell<Vec<Heard>>> = Rc::default();
    let log = Log::new();
    let (of_handler, into) = (log.clone(), Rc::clone(&pending_handlers));
    let (mut reactor, _listener, address) = listening(move || {
        let into = Rc::clone(&into);
        let birth = move |cx: &mut Context<'_>| {
            let told = Heard::default();
            give_birth(cx, &told);
            into.borrow_mut().push(told);
            Ok(())
        };
        let (a, b, c, d, e) = (birth.clone(), birth.clone(), birth.clone(), birth.clone(), birth);
        Probe::new(&of_handler)
            .open(a)
            .data(move |cx, input| {
                input.take_all();
                let token: Token = cx.token;
                cx.net.notify(token, ());
                cx.set_timer(Duration::ZERO, 0);
                b(cx)
            })
            .notify(move |cx, _| c(cx))
            .eof(d)
            .timer(move |cx, _| e(cx))
    });
    let mut stream = client(address);
    stream.write_all(b"x").unwrap();
    until(&mut reactor, "the timer", |_| log.count(|t| *t == Told::Timer(0)) == 1);
    stream.shutdown(Shutdown::Write).unwrap();
    until(&mut reactor, "the end", |_| log.eofs() == 1);
    let all = pending_handlers.borrow().clone();
    assert_eq!(all.len(), 5);
    until(&mut reactor, "all to be told", |_| all.iter().all(|told| told.borrow().len() == 3));
    for told in &all {
        assert_eq!(told.borrow()[0], "open", "{told:?}");
    }
}
