//! Linked connections: a proxy whose queues are paced by each other.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use tidegate::layer::LengthPrefixed;
use tidegate::{
    Connect, Context, Handler, HandlerResult, Input, Listen, Peer, Reactor, SocketOptions,
    StreamOptions, Token,
};

use crate::support::endpoints::deaf;
use crate::support::{Log, Probe, Told, address_of, client, read_all, until, with_client};

/// For peers that do not read: full after a few messages, and full they stay.
const SMALL: usize = 8 * 1024;

/// For what is to flow: below the size of loopback's segments (64 KiB) TCP waits for its timers in
/// each round, so that a megabyte takes a minute.
const FLOWING: usize = 128 * 1024;

/// Low marks, and socket buffers of this size.
fn tight(buffer: usize) -> StreamOptions {
    let socket = SocketOptions::new().send_buffer(buffer).receive_buffer(buffer);
    StreamOptions::new().low_water(4_096).high_water(16_384).socket_options(socket)
}

/// One side of a proxied connection: what it hears goes to the other.
struct Side {
    upstream: Option<SocketAddr>,
    other: Option<Token>,
    log: Log,
}

impl Handler for Side {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.log.push(cx.token, Told::Open);
        if let Some(upstream) = self.upstream {
            let (me, log) = (cx.token, self.log.clone());
            let back = Side { upstream: None, other: Some(me), log };
            let back = cx.net.connect(Connect::tcp(upstream).options(tight(FLOWING)), back)?;
            assert!(cx.net.pair(me, back));
            self.other = Some(back);
        }
        Ok(())
    }
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        self.log.push(cx.token, Told::Data(Vec::new()));
        let other = self.other.ok_or("no other side")?;
        cx.net.send(other, input.take_all());
        Ok(())
    }
    fn on_eof(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.log.push(cx.token, Told::Eof);
        cx.net.half_close(self.other.ok_or("no other side")?);
        Ok(())
    }
    fn on_close(&mut self, cx: &mut Context<'_>, closed: &tidegate::CloseInfo) {
        self.log.push(cx.token, Told::Close(closed.reason.to_string(), closed.unsent));
        if let Some(other) = self.other {
            cx.net.close(other);
        }
    }
}

/// A proxy in front of `upstream`, in the same reactor.
fn proxy(reactor: &mut Reactor, upstream: SocketAddr, log: &Log) -> SocketAddr {
    let log = log.clone();
    let listen = Listen::tcp("127.0.0.1:0").options(tight(FLOWING));
    let make = move |_: &Peer<'_>| Side { upstream: Some(upstream), other: None, log: log.clone() };
    let listener = reactor.net().listen(listen, make).unwrap();
    address_of(reactor, listener)
}

fn echo(reactor: &mut Reactor, log: &Log) -> SocketAddr {
    let log = log.clone();
    let listen = Listen::tcp("127.0.0.1:0").options(tight(FLOWING));
    let make = move |_: &Peer<'_>| {
        Probe::new(&log).data(|cx, input| {
            cx.send(input.take_all());
            Ok(())
        })
    };
    let listener = reactor.net().listen(listen, make).unwrap();
    address_of(reactor, listener)
}

fn tight_client(address: SocketAddr, buffer: usize) -> TcpStream {
    let stream = client(address);
    let socket = socket2::SockRef::from(&stream);
    socket.set_recv_buffer_size(buffer).unwrap();
    socket.set_send_buffer_size(buffer).unwrap();
    stream
}

/// `Config::read_buffer`, as by default.
const READ_BUFFER: usize = 260 * 1024;

// rows 62, 65
#[test]
fn a_proxy_before_an_echo_with_both_directions_full_goes_on_when_the_client_reads() {
    const BYTES: usize = 4 << 20;
    let (log, of_echo) = (Log::new(), Log::new());
    let mut reactor = Reactor::new().unwrap();
    let upstream = echo(&mut reactor, &of_echo);
    let address = proxy(&mut reactor, upstream, &log);
    let stream = tight_client(address, FLOWING);
    let mut reader = stream.try_clone().unwrap();
    let pattern: Vec<u8> = (0..BYTES).map(|n| (n * 7 + n / 251) as u8).collect();
    let sent = pattern.clone();
    let writing = std::thread::spawn(move || {
        let mut stream = stream;
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    // Nobody reads: the queue of each side of the proxy fills, and no more than that.
    until(&mut reactor, "both queues to be full", |reactor| {
        let opened = log.opened();
        opened.len() == 2 && opened.iter().all(|&t| reactor.net().queued(t) > 16_384)
    });
    for token in log.opened() {
        let queued = reactor.net().queued(token);
        // The mark, and the one read that went over it.
        let most = 16_384 + READ_BUFFER;
        assert!(queued <= most, "{queued} bytes wait in the proxy");
    }
    assert!(!writing.is_finished());
    let heard = with_client(&mut reactor, move || read_all(&mut reader));
    writing.join().unwrap();
    assert!(heard == pattern, "{} bytes of {BYTES}", heard.len());
    // The half-close was carried through, there and back, and everything closed by itself.
    until(&mut reactor, "all to close", |reactor| reactor.net().connection_count() == 0);
    assert_eq!(log.reasons(), ["both sides ended", "both sides ended"]);
    assert_eq!((log.eofs(), of_echo.eofs()), (2, 1));
}

// row 62
#[test]
fn a_half_close_is_carried_and_the_other_direction_goes_on() {
    let mut reactor = Reactor::new().unwrap();
    let of_server = Log::new();
    let server_log = of_server.clone();
    // A server that answers only after the request has ended.
    let server = reactor
        .net()
        .listen("127.0.0.1:0", move |_| {
            Probe::new(&server_log).eof(|cx| {
                cx.send(vec![b'r'; 300_000]);
                cx.close();
                Ok(())
            })
        })
        .unwrap();
    let upstream = address_of(&mut reactor, server);
    let log = Log::new();
    let address = proxy(&mut reactor, upstream, &log);
    let heard = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"request").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&mut stream)
    });
    assert_eq!(heard.len(), 300_000);
    assert_eq!(of_server.data(), b"request");
    until(&mut reactor, "all to close", |reactor| reactor.net().connection_count() == 0);
}

/// Two linked connections whose handlers pass on what they hear, and their clients; neither client
/// reads.
struct Pair {
    reactor: Reactor,
    log: Log,
    tokens: [Token; 2],
    streams: [TcpStream; 2],
}

fn pair(options: StreamOptions) -> Pair {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::with_state(()).unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let make = move |_: &Peer<'_>| Probe::new(&of_handler);
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    let streams = [tight_client(address, SMALL), tight_client(address, SMALL)];
    until(&mut reactor, "both to open", |_| log.opens() == 2);
    let tokens = [log.opened()[0], log.opened()[1]];
    assert!(reactor.net().pair(tokens[0], tokens[1]));
    Pair { reactor, log, tokens, streams }
}

impl Pair {
    /// Queues so much for a connection that its client would have to read.
    fn fill(&mut self, which: usize) {
        let token = self.tokens[which];
        until(&mut self.reactor, "the queue to fill", |reactor| {
            reactor.net().send(token, [b'x'; 10_000]);
            reactor.net().queued(token) > 100_000
        });
    }

    fn heard(&self, which: usize) -> usize {
        let data = |told: &Told| if let Told::Data(bytes) = told { bytes.len() } else { 0 };
        self.log.of(self.tokens[which]).iter().map(data).sum()
    }
}

// row 62
#[test]
fn a_full_queue_pauses_the_partner_and_not_its_own_connection() {
    let mut pair = pair(tight(SMALL));
    pair.fill(0);
    pair.streams[0].write_all(b"I do not read, but I speak").unwrap();
    pair.streams[1].write_all(b"I would fill it further").unwrap();
    let log = pair.log.clone();
    until(&mut pair.reactor, "the full one to be heard", |_| !log.data().is_empty());
    crate::support::settle(&mut pair.reactor);
    assert_eq!((pair.heard(0), pair.heard(1)), (26, 0));
    // The queue drains: the partner is heard without further ado.
    let mut stream = pair.streams[0].try_clone().unwrap();
    let reading =
        std::thread::spawn(move || while stream.read(&mut [0; 65_536]).is_ok_and(|n| n > 0) {});
    until(&mut pair.reactor, "the partner", |_| log.data().len() == 26 + 23);
    drop(pair.reactor);
    drop(pair.streams);
    reading.join().unwrap();
}

// row 62
#[test]
fn when_one_closes_the_other_is_paced_by_its_own_queue_again() {
    for gracefully in [true, false] {
        let mut pair = pair(tight(SMALL).close_timeout(crate::support::PATIENCE));
        pair.fill(0);
        pair.streams[1].write_all(b"waiting").unwrap();
        crate::support::settle(&mut pair.reactor);
        assert_eq!(pair.heard(1), 0);
        let full = pair.tokens[0];
        if gracefully {
            pair.reactor.net().close(full); // and goes on flushing
        } else {
            pair.reactor.net().abort(full);
        }
        let log = pair.log.clone();
        until(&mut pair.reactor, "the survivor to be heard", |_| log.data() == b"waiting");
        // Now its own queue counts.
        pair.fill(1);
        pair.streams[1].write_all(b"not now").unwrap();
        crate::support::settle(&mut pair.reactor);
        assert_eq!(pair.heard(1), 7);
    }
}

// row 62
#[test]
fn two_peers_that_both_refuse_to_read_meet_the_stall_timeout() {
    let mut pair = pair(tight(SMALL).stall_timeout(Duration::from_millis(50)));
    pair.fill(0);
    pair.fill(1);
    let log = pair.log.clone();
    until(&mut pair.reactor, "both to be given up", |_| log.closes() == 2);
    let stalled = "timed out: the peer took no output for too long";
    assert_eq!(log.reasons(), [stalled, stalled]);
}

// row 62: what waits for a layer's handshake is held to the marks like what waits for the system
#[test]
fn a_partner_that_does_not_stand_yet_holds_its_source_back() {
    let deaf = deaf();
    let (log, mut reactor) = (Log::new(), Reactor::new().unwrap());
    let options = tight(FLOWING).connect_timeout(Duration::MAX);
    let to = Connect::tcp(deaf.address).options(options).layer(LengthPrefixed::new(4));
    let partner = reactor.net().connect(to, Probe::new(&log)).unwrap();
    let make = move |_: &Peer<'_>| {
        let source = Probe::new(&Log::new()).open(move |cx| {
            let own = cx.token;
            assert!(cx.net.pair(own, partner));
            Ok(())
        });
        source.data(move |cx, input| {
            cx.net.send(partner, input.take_all());
            Ok(())
        })
    };
    let listener =
        reactor.net().listen(Listen::tcp("127.0.0.1:0").options(tight(FLOWING)), make).unwrap();
    let mut stream = client(address_of(&mut reactor, listener));
    stream.set_nonblocking(true).unwrap();
    let mut pour = move || while stream.write(&[b'x'; 65_536]).is_ok() {};
    until(&mut reactor, "the partner to be full", |reactor| {
        pour();
        reactor.net().is_above_high_water(partner) || log.closes() == 1
    });
    for _ in 0..100 {
        pour();
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(log.told(), [], "killed by its own source");
    // The mark, and the one read that went over it.
    let most = 16_384 + READ_BUFFER;
    assert!(reactor.net().queued(partner) <= most, "{} wait", reactor.net().queued(partner));
}

#[test]
fn a_link_needs_two_living_connections() {
    let mut pair = pair(tight(SMALL));
    let [a, b] = pair.tokens;
    let net = pair.reactor.net();
    assert!(!net.pair(a, a));
    assert!(net.pair(b, a), "a pair may be linked again");
    net.abort(b);
    assert!(!net.pair(a, b));
    let log = pair.log.clone();
    until(&mut pair.reactor, "the abort", |_| log.closes() == 1);
    assert!(!pair.reactor.net().pair(a, b));
}
