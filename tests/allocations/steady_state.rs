//! What the steady state allocates: nothing.
//!
//! The counter counts the thread that measures, so that the clients have threads of their own.
//! mio's emulation of edges over `poll(2)` allocates by itself; hence epoll and kqueue only.
#![cfg(not(mio_unsupported_force_poll_poll))]

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate::{
    Context, Datagram, DatagramHandler, Group, Handler, HandlerResult, Input, Listen, Reactor,
    Timer, Token, Udp, layer::LengthPrefixed,
};

use crate::support::{address_of, client, until};

const MESSAGES: usize = 10_000;

/// How many calls of the allocator the reactor makes while `done` does not hold.
fn allocations<S>(reactor: &mut Reactor<S>, mut done: impl FnMut(&mut Reactor<S>) -> bool) -> u64 {
    let info = allocation_counter::measure(|| {
        while !done(reactor) {
            let _ = reactor.turn(Some(Duration::from_millis(100))).unwrap();
        }
    });
    info.count_total
}

/// What waits for a slow member counts by its bytes; the memory around them must not be many times as
/// much, however small the messages are and however many the turns.
#[test]
fn a_slow_members_many_small_messages_take_little_more_than_their_bytes() {
    const MESSAGES: usize = 50_000;
    let (mut reactor, listener) = (Reactor::new().unwrap(), "127.0.0.1:0");
    let token = Rc::new(Cell::new(None));
    let seen = Rc::clone(&token);
    let listener = reactor.net().listen(listener, move |_| Opened(Rc::clone(&seen))).unwrap();
    let _stuck = client(address_of(&mut reactor, listener)); // it never reads
    until(&mut reactor, "the opening", |_| token.get().is_some());
    let member = token.get().unwrap();
    let room = reactor.net().create_group();
    assert!(reactor.net().join(room, member));
    // First what the system takes by itself, so that everything else waits here.
    while reactor.net().queued(member) == 0 {
        reactor.net().send(member, [0; 64 * 1024]);
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let before = reactor.net().queued(member);
    let info = allocation_counter::measure(|| {
        for _ in 0..MESSAGES {
            reactor.net().publish(room, b"x");
            let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
        }
    });
    assert_eq!(reactor.net().queued(member) - before, MESSAGES);
    assert!(info.bytes_current < 4 * MESSAGES as i64, "{} bytes", info.bytes_current);
}

/// Notes its token when it opens.
struct Opened(Rc<Cell<Option<Token>>>);

impl Handler for Opened {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.0.set(Some(cx.token));
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }
}

/// Sends messages, each when the one before has come back. It tells when the first thousand have,
/// and waits to be let on.
struct PingPong {
    warm: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl PingPong {
    fn start(address: SocketAddr, message: &'static [u8]) -> Self {
        let (tell_warm, warm) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut stream = client(address);
            ping_pong(&mut stream, message, 1_000);
            tell_warm.send(()).unwrap();
            wait.recv().unwrap();
            ping_pong(&mut stream, message, MESSAGES);
        });
        PingPong { warm, go, thread }
    }

    /// What the reactor allocates for [`MESSAGES`] messages when everything is warm.
    fn measure<S>(self, reactor: &mut Reactor<S>) -> u64 {
        until(reactor, "the warm-up", |_| self.warm.try_recv().is_ok());
        self.go.send(()).unwrap();
        let counted = allocations(reactor, |_| self.thread.is_finished());
        self.thread.join().unwrap();
        counted
    }
}

fn ping_pong(stream: &mut TcpStream, message: &[u8], times: usize) {
    let mut buffer = vec![0; message.len()];
    for _ in 0..times {
        stream.write_all(message).unwrap();
        stream.read_exact(&mut buffer).unwrap();
        assert!(buffer == message);
    }
}

struct Echo;

impl<S> Handler<S> for Echo {
    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

impl DatagramHandler for Echo {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        cx.send_to(datagram.from, datagram.bytes);
        Ok(())
    }
}

/// The client's last steps end in a close, which may allocate a little once; a message must not.
const ONCE: u64 = 20;

#[test]
fn an_echo_allocates_nothing_per_message() {
    for message in [&b"0123456789abcdef"[..], &[b'm'; 4096]] {
        let mut reactor = Reactor::new().unwrap();
        let listener = reactor.net().listen("127.0.0.1:0", |_| Echo).unwrap();
        let address = address_of(&mut reactor, listener);
        let counted = PingPong::start(address, message).measure(&mut reactor);
        assert!(counted <= ONCE, "{counted} allocations for {MESSAGES} messages");
    }
}

#[test]
fn an_echo_through_a_framing_layer_allocates_nothing_per_message() {
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| LengthPrefixed::new(2));
    let listener = reactor.net().listen(listen, |_| Echo).unwrap();
    let address = address_of(&mut reactor, listener);
    let counted = PingPong::start(address, b"\x00\x05framed"[..7].as_ref()).measure(&mut reactor);
    assert!(counted <= ONCE, "{counted} allocations for {MESSAGES} messages");
}

/// What the reactor allocates for an echo of bursts of these lengths, when everything is warm.
fn udp_echo(udp: impl Into<Udp>, burst: &'static [usize]) -> u64 {
    let mut reactor = Reactor::new().unwrap();
    let socket = reactor.net().bind_udp(udp, Echo).unwrap();
    let address = address_of(&mut reactor, socket);
    let (tell_warm, warm) = mpsc::channel();
    let (go, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        let ping_pong = |times| {
            for _ in 0..times {
                for &len in burst {
                    socket.send_to(&[7; 64][..len], address).unwrap();
                }
                for &len in burst {
                    assert_eq!(socket.recv(&mut [0; 64]).unwrap(), len);
                }
            }
        };
        ping_pong(1_000);
        tell_warm.send(()).unwrap();
        wait.recv().unwrap();
        ping_pong(MESSAGES / burst.len());
    });
    until(&mut reactor, "the warm-up", |_| warm.try_recv().is_ok());
    go.send(()).unwrap();
    let counted = allocations(&mut reactor, |_| thread.is_finished());
    thread.join().unwrap();
    counted
}

#[test]
fn a_udp_echo_allocates_nothing_per_datagram() {
    for burst in [&[8][..], &[8, 8, 8, 8, 8, 3, 9, 0, 64, 64]] {
        let counted = udp_echo("127.0.0.1:0", burst);
        assert!(counted <= ONCE, "{counted} allocations for {MESSAGES} datagrams");
    }
}

#[cfg(feature = "udp-batch")]
#[test]
fn a_udp_echo_that_receives_trains_allocates_nothing_per_datagram() {
    let udp = Udp::bind("127.0.0.1:0").receive_trains(true);
    let counted = udp_echo(udp, &[8, 8, 8, 8, 8, 3, 9, 0, 64, 64]);
    assert!(counted <= ONCE, "{counted} allocations for {MESSAGES} datagrams");
}

struct Room(Option<Group>);

impl Room {
    fn group(&self) -> Group {
        self.0.expect("the group is made before anybody connects")
    }
}

/// Publishes what it hears to all members of the one room; so the speaker hears itself.
struct Member;

impl Handler<Room> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, Room>) -> HandlerResult {
        let token = cx.token;
        cx.net.join(cx.state.group(), token);
        Ok(())
    }
    fn on_data(&mut self, cx: &mut Context<'_, Room>, input: &mut Input<'_>) -> HandlerResult {
        cx.net.publish(cx.state.group(), input.take_all());
        Ok(())
    }
}

/// A reactor with a room, and members in it who read on threads of their own.
fn room(readers: usize) -> (Reactor<Room>, SocketAddr) {
    let mut reactor = Reactor::with_state(Room(None)).unwrap();
    let group = reactor.net().create_group();
    reactor.state_mut().0 = Some(group);
    let listener = reactor.net().listen("127.0.0.1:0", |_| Member).unwrap();
    let address = address_of(&mut reactor, listener);
    for _ in 0..readers {
        let mut stream = client(address);
        std::thread::spawn(move || while stream.read(&mut [0; 4096]).is_ok_and(|n| n > 0) {});
    }
    until(&mut reactor, "all to join", |r| r.net().members(group).len() == readers);
    (reactor, address)
}

#[test]
fn a_chat_message_allocates_nothing() {
    let (mut reactor, address) = room(10);
    let counted = PingPong::start(address, b"a message to all").measure(&mut reactor);
    assert!(counted <= ONCE, "{counted} allocations for {MESSAGES} messages");
}

/// Sets, moves and cancels timers for every message, as a protocol with timeouts does.
#[derive(Default)]
struct Timed {
    idle: Option<Timer>,
    pending: Option<Timer>,
}

impl Handler for Timed {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let idle = *self.idle.get_or_insert_with(|| cx.set_timer(Duration::from_secs(60), 0));
        assert!(cx.rearm_timer(idle, Duration::from_secs(60)));
        if let Some(pending) = self.pending.take() {
            cx.cancel_timer(pending);
        }
        self.pending = Some(cx.set_timer(Duration::from_secs(1), 1));
        cx.set_timer(Duration::ZERO, 2);
        cx.send(input.take_all());
        Ok(())
    }
}

#[test]
fn timers_that_are_set_moved_cancelled_and_fired_for_each_message_allocate_nothing() {
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", |_| Timed::default()).unwrap();
    let address = address_of(&mut reactor, listener);
    let counted = PingPong::start(address, b"tick").measure(&mut reactor);
    assert!(counted <= ONCE, "{counted} allocations for {MESSAGES} messages");
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1_u64))));
    assert_eq!((counted.count_total, counted.bytes_total), (1, 8));
}

#[test]
fn a_quiet_turn_allocates_nothing() {
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", |_| Echo).unwrap();
    let _stream = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the connection", |r| r.net().connection_count() == 1);
    crate::support::settle(&mut reactor);
    let mut turns = 0;
    let counted = allocation_counter::measure(|| {
        while turns < 100 {
            let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
            turns += 1;
        }
    });
    assert_eq!(counted.count_total, 0);
}
