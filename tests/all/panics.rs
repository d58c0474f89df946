//! User code that panics, wherever the reactor calls it, costs its own connection and nothing else.

use std::cell::Cell;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use tidegate::layer::{Delivery, Item, LayerContext, LayerEnd, LayerError, Step};
use tidegate::{
    Context, Datagram, DatagramError, DatagramHandler, Handler, HandlerResult, Input, Layer,
    Listen, MessageKind, Reactor,
};

use crate::support::child::in_a_process_of_its_own;
use crate::support::endpoints::deaf;
use crate::support::logged;
use crate::support::panics::{Bomb, panic_on_purpose, panic_with_a_bomb, quiet};
use crate::support::{
    Log, PATIENCE, Probe, address_of, client, listening, read_n, settle, until, with_client,
};

/// A reactor with an echo on it, whose client proves that everything still works.
struct Town {
    reactor: Reactor,
    log: Log,
    address: SocketAddr,
    bystander: TcpStream,
}

impl Town {
    fn new() -> Self {
        quiet();
        let log = Log::new();
        let of_handler = log.clone();
        let (mut reactor, _listener, address) = listening(move || Probe::echo(&of_handler));
        let bystander = client(address);
        until(&mut reactor, "the bystander to open", |_| log.opens() == 1);
        Town { reactor, log, address, bystander }
    }

    /// A listener of its own for what is to panic, and a client that has been accepted.
    fn listen<H: Handler + 'static>(
        &mut self,
        listen: Listen,
        mut make: impl FnMut() -> H + 'static,
    ) -> TcpStream {
        let listener = self.reactor.net().listen(listen, move |_| make()).unwrap();
        let stream = client(address_of(&mut self.reactor, listener));
        until(&mut self.reactor, "the accept", |reactor| {
            reactor.net().listener_stats(listener).unwrap().accepted == 1
        });
        stream
    }

    /// The bystander, and one who comes now, are served; there are no other connections.
    #[track_caller]
    fn lives_on(mut self) {
        until(&mut self.reactor, "only the bystander to be left", |r| {
            r.net().connection_count() == 1
        });
        let mut old = self.bystander;
        let address = self.address;
        with_client(&mut self.reactor, move || {
            let mut new = client(address);
            for stream in [&mut old, &mut new] {
                stream.write_all(b"well?").unwrap();
                assert_eq!(read_n(stream, 5), b"well?");
            }
        });
        assert!(self.log.opens() >= 2);
        drop(self.reactor);
        assert_eq!(self.log.closes(), self.log.opens());
    }
}

fn anywhere() -> Listen {
    Listen::tcp("127.0.0.1:0")
}

#[test]
fn a_panic_in_a_handler_is_its_close_reason() {
    let mut town = Town::new();
    let log = Log::new();
    let of_handler = log.clone();
    let mut stream =
        town.listen(anywhere(), move || Probe::new(&of_handler).data(|_, _| panic_on_purpose()));
    stream.write_all(b"x").unwrap();
    until(&mut town.reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.reasons(), ["the handler panicked: on purpose"]);
    town.lives_on();
}

#[test]
fn a_panic_whose_payload_panics_when_dropped() {
    let mut town = Town::new();
    let log = Log::new();
    let of_handler = log.clone();
    let mut stream =
        town.listen(anywhere(), move || Probe::new(&of_handler).data(|_, _| panic_with_a_bomb()));
    stream.write_all(b"x").unwrap();
    until(&mut town.reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.reasons(), ["the handler panicked: (a value that is no text)"]);
    town.lives_on();
}

#[test]
fn a_panic_in_on_close() {
    let mut town = Town::new();
    let log = Log::new();
    let of_handler = log.clone();
    let stream =
        town.listen(anywhere(), move || Probe::new(&of_handler).close(|_, _| panic_on_purpose()));
    until(&mut town.reactor, "the open", |_| log.opens() == 1);
    drop(stream);
    until(&mut town.reactor, "the close", |_| log.closes() == 1);
    town.lives_on();
}

struct PanicsWhenDropped(#[allow(dead_code)] Bomb);

impl Handler for PanicsWhenDropped {
    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }
}

#[test]
fn a_handler_that_panics_when_dropped() {
    let mut town = Town::new();
    let stream = town.listen(anywhere(), || PanicsWhenDropped(Bomb));
    until(&mut town.reactor, "the open", |r| r.net().connection_count() == 2);
    drop(stream);
    town.lives_on();
}

/// An error whose drop panics, so that whoever drops it unguarded is found out.
#[derive(Debug)]
struct BadError(#[allow(dead_code)] Bomb);

impl std::fmt::Display for BadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bad")
    }
}

impl std::error::Error for BadError {}

#[test]
fn an_error_that_panics_when_dropped() {
    for ended_before in [false, true] {
        let mut town = Town::new();
        let log = Log::new();
        let of_handler = log.clone();
        let mut stream = town.listen(anywhere(), move || {
            Probe::new(&of_handler).data(move |cx, _| {
                if ended_before {
                    cx.abort(); // the error is not the reason, and is dropped at once
                }
                Err(BadError(Bomb).into())
            })
        });
        stream.write_all(b"x").unwrap();
        drop(stream);
        until(&mut town.reactor, "the close", |_| log.closes() == 1);
        town.lives_on();
    }
}

/// An error that panics when it is shown, and a handler that fails with it.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic_on_purpose()
    }
}

impl std::error::Error for Unspeakable {}

impl Handler for Unspeakable {
    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Err(Unspeakable.into())
    }
}

#[test]
fn an_error_that_panics_when_the_log_shows_it() {
    logged::take(); // from here on somebody reads the log
    let mut town = Town::new();
    let mut stream = town.listen(anywhere(), || Unspeakable);
    stream.write_all(b"x").unwrap();
    drop(stream);
    town.lives_on();
    let mut lines = logged::take_from(log::Level::Error);
    let shown = (log::Level::Error, "an error panicked while it was shown: on purpose".to_owned());
    assert_eq!(lines.pop(), Some(shown.clone()), "when it ended");
    assert_eq!(lines.pop(), Some(shown), "when the handler returned it");
    assert_eq!(lines, []);
}

#[test]
fn a_signal_that_panics_when_dropped() {
    let mut town = Town::new();
    let log = Log::new();
    let of_handler = log.clone();
    let stream = town.listen(anywhere(), move || Probe::new(&of_handler));
    until(&mut town.reactor, "the open", |_| log.opens() == 1);
    let token = log.opened()[0];
    let net = town.reactor.net();
    assert!(net.notify(token, Bomb)); // dropped in on_notify: a panic of the handler
    assert!(net.notify(token, Bomb)); // dropped because the handler is gone by then
    until(&mut town.reactor, "the close", |_| log.closes() == 1);
    assert!(!town.reactor.net().is_open(token));
    town.reactor.remote().notify(token, Bomb).unwrap();
    settle(&mut town.reactor);
    drop(stream);
    town.lives_on();
}

#[test]
fn a_factory_that_panics_costs_the_one_connection() {
    let mut town = Town::new();
    let (calls, failed) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let (counted, told) = (Rc::clone(&calls), Rc::clone(&failed));
    let listen = anywhere().on_unopened(move |_, reason, ()| {
        assert_eq!(reason.to_string(), "the handler panicked: on purpose");
        told.set(told.get() + 1);
        panic_on_purpose(); // so may this hook
    });
    let make = move || -> Probe {
        counted.set(counted.get() + 1);
        panic_on_purpose()
    };
    let listener = town.reactor.net().listen(listen, move |_| make()).unwrap();
    let address = address_of(&mut town.reactor, listener);
    let _streams = [client(address), client(address)];
    until(&mut town.reactor, "both", |_| failed.get() == 2);
    assert_eq!(calls.get(), 2);
    assert_eq!(town.reactor.net().listener_stats(listener).unwrap().open, 0);
    town.lives_on();
}

#[test]
fn a_filter_that_panics_refuses() {
    let mut town = Town::new();
    let log = Log::new();
    let of_handler = log.clone();
    let listen = anywhere().filter(|_, ()| panic_on_purpose());
    let mut stream = town.listen(listen, move || Probe::new(&of_handler));
    let heard = with_client(&mut town.reactor, move || {
        let mut buffer = [0; 1];
        std::io::Read::read(&mut stream, &mut buffer).unwrap_or(0)
    });
    assert_eq!((heard, log.told().len()), (0, 0));
    town.lives_on();
}

#[test]
fn posted_closures_and_timer_closures_that_panic() {
    let mut town = Town::new();
    let remote = town.reactor.remote();
    let reached = Rc::new(Cell::new(0));
    remote.post(|(), _| panic_on_purpose()).unwrap();
    remote.post(|(), _| panic_with_a_bomb()).unwrap();
    town.reactor.net().run_after(Duration::ZERO, |(), _| panic_on_purpose());
    let count = Rc::clone(&reached);
    town.reactor.net().run_after(Duration::from_millis(1), move |(), _| count.set(1));
    until(&mut town.reactor, "the timer behind", |_| reached.get() == 1);
    // One that is never run.
    let bomb = Bomb;
    let timer = town.reactor.net().run_after(PATIENCE, move |(), _| drop(bomb));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        town.reactor.net().cancel_timer(timer);
    }));
    drop(caught); // the caller's own closure and the caller's own thread: either may have it
    town.lives_on();
}

#[test]
fn what_was_posted_and_never_ran_may_panic_when_dropped() {
    quiet();
    let mut reactor = Reactor::new().unwrap();
    for _ in 0..2 {
        let (posted, timed) = (Bomb, Bomb);
        reactor.remote().post(move |(), _| drop(posted)).unwrap();
        reactor.net().run_after(PATIENCE, move |(), _| drop(timed));
    }
    drop(reactor);
}

/// Panics in the callback of this number: 0 is `on_open`.
/// Counts the calls of `on_error`, and panics in the second.
struct UdpPanic(u32, Rc<Cell<u32>>);

impl DatagramHandler for UdpPanic {
    fn on_open(&mut self, _: &mut Context<'_>) -> HandlerResult {
        if self.0 == 0 { panic_on_purpose() } else { Ok(()) }
    }
    fn on_datagram(&mut self, _: &mut Context<'_>, _: Datagram<'_>) -> HandlerResult {
        panic_with_a_bomb()
    }
    fn on_error(&mut self, _: &mut Context<'_>, error: DatagramError) -> HandlerResult {
        assert!(matches!(error, DatagramError::Panicked { .. }), "{error}");
        self.1.set(self.1.get() + 1);
        if self.1.get() == 2 { panic_on_purpose() } else { Ok(()) }
    }
    fn on_close(&mut self, _: &mut Context<'_>, closed: &tidegate::CloseInfo) {
        assert!(closed.reason.to_string().starts_with("the handler panicked"));
        panic_on_purpose()
    }
}

#[test]
fn a_datagram_handler_that_panics_loses_its_socket_unless_a_datagram_was_the_cause() {
    let mut town = Town::new();
    for panics_in in 0..2 {
        let failed = Rc::new(Cell::new(0));
        let handler = UdpPanic(panics_in, Rc::clone(&failed));
        let socket = town.reactor.net().bind_udp("127.0.0.1:0", handler).unwrap();
        let address = address_of(&mut town.reactor, socket);
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.send_to(b"x", address).unwrap();
        if panics_in == 1 {
            until(&mut town.reactor, "the error", |_| failed.get() == 1);
            assert!(town.reactor.net().is_open(socket));
            // Where `on_error` panics too, that is the end.
            peer.send_to(b"x", address).unwrap();
        }
        until(&mut town.reactor, "the close", |r| r.net().local_addr(socket).is_none());
    }
    town.lives_on();
}

/// A layer that panics in the method of this name.
struct BadLayer(&'static str, #[allow(dead_code)] Option<Bomb>);

impl BadLayer {
    fn new(panics_in: &'static str) -> Self {
        BadLayer(panics_in, if panics_in == "drop" { Some(Bomb) } else { None })
    }

    fn reached(&self, method: &str) {
        if self.0 == method {
            panic_on_purpose();
        }
    }
}

impl Layer for BadLayer {
    fn name(&self) -> &'static str {
        "bad"
    }
    fn start(&mut self, _: &mut LayerContext<'_>, _: &mut Vec<u8>) -> Result<(), LayerError> {
        self.reached("start");
        Ok(())
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        self.reached("decode");
        unit.extend_from_slice(wire);
        let item = if wire.is_empty() { Item::Nothing } else { Item::Unit };
        Ok(Step::new(wire.len(), item))
    }
    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(message); // half-done when it panics
        self.reached("encode");
        Ok(())
    }
    fn end(&mut self, _: &mut LayerContext<'_>, _: &LayerEnd<'_>, wire: &mut Vec<u8>) {
        wire.push(b'.');
        self.reached("end");
    }
    fn wire_ended(&mut self, _: &mut LayerContext<'_>, _: usize) -> Result<(), LayerError> {
        self.reached("wire_ended");
        Ok(())
    }
}

#[test]
fn a_layer_that_panics_costs_the_connection_it_is_on() {
    for method in ["start", "decode", "encode", "end", "wire_ended", "drop", "nowhere"] {
        let mut town = Town::new();
        let log = Log::new();
        let of_handler = log.clone();
        let listen = anywhere().layer(move |_| BadLayer::new(method));
        let mut stream = town.listen(listen, move || Probe::echo(&of_handler));
        // The connection may be gone already.
        let _ = stream.write_all(b"x");
        let _ = stream.shutdown(std::net::Shutdown::Write);
        until(&mut town.reactor, method, |r| r.net().connection_count() == 1);
        let reason = match method {
            "start" => None,
            "drop" | "nowhere" => Some("both sides ended".to_owned()),
            _ => Some("bad: panicked: on purpose".to_owned()),
        };
        assert_eq!(log.reasons(), Vec::from_iter(reason), "{method}");
        town.lives_on();
    }
}

#[test]
fn a_layer_that_panics_on_anothers_send_costs_its_own_connection_and_not_the_senders() {
    let mut town = Town::new();
    let log = Log::new();
    let of_handler = log.clone();
    let listen = anywhere().layer(|_| BadLayer::new("encode"));
    let _stream = town.listen(listen, move || Probe::new(&of_handler));
    until(&mut town.reactor, "the open", |_| log.opens() == 1);
    let victim = log.opened()[0];
    let sender_log = Log::new();
    let of_sender = sender_log.clone();
    let mut sender = town.listen(anywhere(), move || {
        Probe::new(&of_sender).data(move |cx, input| {
            cx.net.send(victim, input.take_all());
            Ok(())
        })
    });
    sender.write_all(b"x").unwrap();
    until(&mut town.reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.reasons(), ["bad: panicked: on purpose"]);
    assert_eq!((sender_log.opens(), sender_log.closes()), (1, 0));
    drop(sender);
    town.lives_on();
}

/// Panics when it is dropped, whatever goes on.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        panic_on_purpose();
    }
}

#[test]
fn several_drops_that_panic_do_not_end_the_process() {
    if !in_a_process_of_its_own(several_drops_that_panic_do_not_end_the_process) {
        return;
    }
    quiet();
    // Closures of timers.
    let mut reactor = Reactor::new().unwrap();
    for _ in 0..3 {
        let bomb = Mine;
        reactor.net().run_after(Duration::from_secs(100), move |_, _| drop(bomb));
    }
    drop(reactor);
    // Signals that wait for a connection that never stands.
    let mut reactor = Reactor::new().unwrap();
    let deaf = deaf();
    let log = Log::new();
    let token = reactor.net().connect(deaf.address, Probe::new(&log)).unwrap();
    for _ in 0..3 {
        assert!(reactor.net().notify(token, Mine));
    }
    settle(&mut reactor);
    reactor.net().close(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    // Signals nobody gets.
    let token = reactor.net().connect(deaf.address, Probe::new(&log)).unwrap();
    for _ in 0..3 {
        assert!(reactor.net().notify(token, Mine));
    }
    drop(reactor);
}

/// A source that panics when it is taken out of the poll.
struct BadSource;

impl mio::event::Source for BadSource {
    fn register(
        &mut self,
        _: &mio::Registry,
        _: mio::Token,
        _: mio::Interest,
    ) -> std::io::Result<()> {
        Ok(())
    }
    fn reregister(
        &mut self,
        _: &mio::Registry,
        _: mio::Token,
        _: mio::Interest,
    ) -> std::io::Result<()> {
        Ok(())
    }
    fn deregister(&mut self, _: &mio::Registry) -> std::io::Result<()> {
        panic_on_purpose()
    }
}

#[test]
fn a_source_that_panics_when_deregistered_costs_itself() {
    quiet();
    let mut reactor = Reactor::new().unwrap();
    let token = reactor
        .net()
        .register_source(BadSource, mio::Interest::READABLE, |_, _, _| Ok(()))
        .unwrap();
    reactor.net().close(token);
    settle(&mut reactor);
    assert!(!reactor.net().is_open(token));
}

/// A layer that breaks the rules of its own trait.
struct Rogue(&'static str, bool);

impl Layer for Rogue {
    fn name(&self) -> &'static str {
        "rogue"
    }
    fn delivery(&self) -> Delivery {
        if self.0 == "delivery" {
            panic_on_purpose();
        }
        Delivery::Messages
    }
    fn is_ready(&self) -> bool {
        if self.0 == "is_ready" || self.0 == "is_ready later" && self.1 {
            panic_on_purpose();
        }
        self.0 != "is_ready later"
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        self.1 = true;
        let n = wire.len();
        Ok(match self.0 {
            _ if n == 0 => Step::new(0, Item::Nothing),
            "consumes" => Step::new(n + 1, Item::Progress),
            "slices" => Step::new(n, Item::Slice(0..n + 1)),
            _ => Step::new(n, Item::Slice(0..n)),
        })
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
fn a_layer_that_breaks_its_own_rules_costs_its_connection() {
    quiet();
    for how in ["is_ready", "is_ready later", "delivery", "consumes", "slices"] {
        let mut reactor = Reactor::new().unwrap();
        let failed = Rc::new(Cell::new(0));
        let hooked = Rc::clone(&failed);
        let listen = Listen::tcp("127.0.0.1:0")
            .layer(move |_| Rogue(how, false))
            .on_unopened(move |_, _, ()| hooked.set(hooked.get() + 1));
        let log = Log::new();
        let of_handler = log.clone();
        let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
        let mut peer = client(address_of(&mut reactor, listener));
        peer.write_all(b"x").unwrap();
        until(&mut reactor, how, |_| {
            log.closes() + failed.get() == 1 || {
                let _ = peer.shutdown(std::net::Shutdown::Write);
                false
            }
        });
        assert_eq!(log.data(), b"", "{how}");
    }
}
