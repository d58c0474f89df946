//! Deadlines judge the peer: by what it takes, and not while this side holds it back.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tidegate::{Connect, Listen, Reactor, SocketOptions, StreamOptions, Token};

use crate::support::{Log, Probe, Told, address_of, client, closed, until};

/// More than the sockets on the way hold.
const LOTS: usize = 8 << 20;

const STALL: Duration = Duration::from_secs(1);

/// A third of it is more than a slow reader takes in `STALL`: Linux reports the socket as writable
/// only then (`sk_stream_write_space`). (Where `net.core.wmem_max` allows less, the tests prove less.)
const SEND_BUFFER: usize = 1 << 20;

fn options() -> StreamOptions {
    let socket = SocketOptions::new().send_buffer(SEND_BUFFER).receive_buffer(128 * 1024);
    StreamOptions::new().socket_options(socket).output_limit(2 * LOTS).stall_timeout(STALL)
}

/// A peer whose receive buffer is small, and yet holds a whole segment of loopback's.
fn peer(stream: TcpStream) -> TcpStream {
    SockRef::from(&stream).set_recv_buffer_size(128 * 1024).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Takes 8 KiB every 25 ms for `time`. `None` if this machine was too busy to be steady.
fn read_steadily(reactor: &mut Reactor, stream: &mut TcpStream, time: Duration) -> Option<usize> {
    let start = Instant::now();
    let (mut last, mut longest, mut read) = (start, Duration::ZERO, 0);
    let mut buffer = [0; 8192];
    while start.elapsed() < time {
        let _ = reactor.turn(Some(Duration::from_millis(25))).unwrap();
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => {}
            Ok(n) => {
                read += n;
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        }
    }
    (longest < STALL / 4).then_some(read)
}

/// Reads to the end.
fn read_rest(reactor: &mut Reactor, mut stream: TcpStream) -> Result<usize, std::io::Error> {
    stream.set_nonblocking(false).unwrap();
    crate::support::with_client(reactor, move || {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)
    })
}

/// `None` if it was cut: TCP itself now and then stalls for longer than `STALL` before a peer with a
/// small window (its persist timer, RFC 9293 section 3.8.6.1), and then that is right. Not each time.
fn not_cut(log: &Log) -> Option<()> {
    (log.closes() == 0).then_some(())
}

/// Tries again what a busy machine has kept waiting for so long that it proves nothing.
#[track_caller]
fn in_good_time<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    (0..20).find_map(|_| attempt()).expect("it is cut each time, or this machine is too slow")
}

// row 90
#[test]
fn a_peer_that_reads_slowly_and_steadily_is_not_cut() {
    in_good_time(|| {
        let log = Log::new();
        let of_handler = log.clone();
        let mut reactor = Reactor::new().unwrap();
        let listen = Listen::tcp("127.0.0.1:0").options(options().idle_timeout(STALL));
        let make = move |_: &tidegate::Peer<'_>| {
            Probe::new(&of_handler).open(|cx| {
                cx.send(vec![7; LOTS]);
                Ok(())
            })
        };
        let listener = reactor.net().listen(listen, make).unwrap();
        let address = address_of(&mut reactor, listener);
        let mut stream = peer(client(address));
        let read = read_steadily(&mut reactor, &mut stream, STALL * 3)?;
        assert!(read < LOTS / 2, "the test proves nothing");
        not_cut(&log)?;
        let token = log.opened()[0];
        assert!(reactor.net().queued(token) > 0, "the test proves nothing");
        reactor.net().close(token);
        let rest = read_rest(&mut reactor, stream).unwrap();
        assert_eq!(read + rest, LOTS);
        Some(())
    });
}

// row 90
#[test]
fn a_relay_whose_target_reads_slowly_and_steadily_is_not_cut() {
    in_good_time(|| {
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = target.local_addr().unwrap();
        let log = Log::new();
        let of_handler = log.clone();
        let mut reactor = Reactor::new().unwrap();
        let listen = Listen::tcp("127.0.0.1:0").options(options().idle_timeout(STALL));
        let make = move |_: &tidegate::Peer<'_>| {
            let of_target = of_handler.clone();
            Probe::new(&of_handler).open(move |cx| {
                let connect = Connect::tcp(to).options(options().idle_timeout(STALL));
                let target = cx.net.connect(connect, Probe::new(&of_target))?;
                assert!(cx.net.relay(cx.token, target));
                Ok(())
            })
        };
        let listener = reactor.net().listen(listen, make).unwrap();
        let mut near = client(address_of(&mut reactor, listener));
        SockRef::from(&near).set_send_buffer_size(128 * 1024).unwrap();
        until(&mut reactor, "both to open", |_| log.opens() == 2);
        let mut far = peer(target.accept().unwrap().0);
        let writer = std::thread::spawn(move || {
            let _ = near.write_all(&vec![7; LOTS]); // fails in an attempt that is given up
            near
        });
        let read = read_steadily(&mut reactor, &mut far, STALL * 3)?;
        not_cut(&log)?;
        assert!(!writer.is_finished(), "the test proves nothing");
        let end = std::thread::spawn(move || drop(writer.join().unwrap()));
        let rest = read_rest(&mut reactor, far).unwrap();
        end.join().unwrap();
        assert_eq!(read + rest, LOTS);
        Some(())
    });
}

// row 91
#[test]
fn a_close_takes_as_long_as_the_peer_takes_output() {
    in_good_time(|| {
        let log = Log::new();
        let of_handler = log.clone();
        let mut reactor = Reactor::new().unwrap();
        let options = options().close_timeout(Duration::from_millis(50));
        let make = move |_: &tidegate::Peer<'_>| {
            Probe::new(&of_handler).open(|cx| {
                cx.send(vec![7; LOTS]);
                cx.close();
                Ok(())
            })
        };
        let listener = reactor.net().listen(Listen::tcp("127.0.0.1:0").options(options), make);
        let address = address_of(&mut reactor, listener.unwrap());
        let mut stream = peer(client(address));
        let read = read_steadily(&mut reactor, &mut stream, STALL * 2)?;
        not_cut(&log)?;
        let rest = read_rest(&mut reactor, stream).unwrap();
        assert_eq!(read + rest, LOTS);
        until(&mut reactor, "the close", |_| log.closes() == 1);
        let end = log.told().pop().unwrap();
        assert!(end == closed("closed") || end == closed("both sides ended"), "{end:?}");
        Some(())
    });
}

// row 91
#[cfg(feature = "websocket")]
#[test]
fn a_page_larger_than_the_output_limit_leaves_whole_however_slowly_it_is_read() {
    use tidegate::layer::websocket::{HttpResponse, WebSocket};
    in_good_time(|| {
        let server = WebSocket::server().answer(|_| HttpResponse::html("y".repeat(LOTS)));
        let options = options().output_limit(LOTS / 2).close_timeout(Duration::from_millis(50));
        let mut reactor = Reactor::new().unwrap();
        let listen = Listen::tcp("127.0.0.1:0").options(options).layer(move |_| server.layer());
        let listener = reactor.net().listen(listen, |_| Probe::new(&Log::new())).unwrap();
        let mut stream = client(address_of(&mut reactor, listener));
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut stream = peer(stream);
        let read = read_steadily(&mut reactor, &mut stream, STALL * 2)?;
        let rest = read_rest(&mut reactor, stream).unwrap();
        assert!(read + rest > LOTS, "{}", read + rest);
        Some(())
    });
}

#[cfg(unix)]
mod idle {
    use std::os::unix::net::UnixStream;

    use tidegate::Adopt;
    use tidegate::layer::{Item, Layer, LayerContext, LayerError, MessageKind, Step};

    use super::*;

    const IDLE: Duration = Duration::from_millis(150);

    fn pair(reactor: &mut Reactor, options: StreamOptions, probe: Probe) -> (Token, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let token = reactor.net().adopt(Adopt::from(ours).options(options), probe).unwrap();
        (token, theirs)
    }

    /// Turns for much longer than an idle timeout.
    fn wait(reactor: &mut Reactor) {
        let start = Instant::now();
        until(reactor, "a while", |_| start.elapsed() > IDLE * 3);
    }

    /// Silence counts from now on; and is not forgiven.
    fn assert_begins_anew(reactor: &mut Reactor, log: &Log, begin: impl FnOnce(&mut Reactor)) {
        let start = Instant::now();
        begin(reactor);
        until(reactor, "the end", |_| log.closes() == 1);
        assert!(start.elapsed() >= IDLE, "early: {:?}", start.elapsed());
        assert_eq!(log.reasons(), ["timed out: no byte moved for too long"]);
    }

    // row 92
    #[test]
    fn a_connection_that_its_handler_pauses_is_not_idle() {
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let probe = Probe::new(&log).open(|cx| {
            cx.pause();
            Ok(())
        });
        let (token, _peer) = pair(&mut reactor, StreamOptions::new().idle_timeout(IDLE), probe);
        wait(&mut reactor);
        assert_eq!(log.told(), [Told::Open]);
        assert_begins_anew(&mut reactor, &log, |reactor| reactor.net().resume(token));
    }

    // row 92
    #[test]
    fn a_connection_whose_own_queue_is_full_is_not_idle_but_stalled() {
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let options = StreamOptions::new().idle_timeout(IDLE).output_limit(LOTS);
        let (token, mut theirs) = pair(&mut reactor, options, Probe::new(&log));
        until(&mut reactor, "it to open", |_| log.opens() == 1);
        reactor.net().send(token, vec![0; 1 << 20]);
        wait(&mut reactor);
        assert_eq!(log.told(), [Told::Open], "the stall timeout is a minute");
        assert_begins_anew(&mut reactor, &log, |reactor| {
            until(reactor, "the queue to drain", |reactor| {
                while theirs.read(&mut [0; 65536]).is_ok() {}
                reactor.net().queued(token) == 0
            });
        });
    }

    // row 92
    #[test]
    fn the_source_of_a_relay_whose_target_does_not_read_is_not_idle() {
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let options = StreamOptions::new().idle_timeout(IDLE);
        let (a, mut source) = pair(&mut reactor, options, Probe::new(&log));
        let (b, mut target) = pair(&mut reactor, StreamOptions::new(), Probe::new(&log));
        until(&mut reactor, "both to open", |_| log.opens() == 2);
        assert!(reactor.net().relay(a, b));
        let mut written = 0;
        until(&mut reactor, "everything to be full", |reactor| {
            written += source.write(&vec![7; 65536]).unwrap_or(0);
            reactor.net().is_above_high_water(b)
        });
        wait(&mut reactor);
        assert_eq!(log.closes(), 0, "{:?}", log.reasons());
        let mut read = 0;
        drop(source);
        until(&mut reactor, "the target to have all", |_| {
            while let Ok(n @ 1..) = target.read(&mut [0; 65536]) {
                read += n;
            }
            read == written
        });
    }

    // row 92
    #[test]
    fn a_message_that_this_side_does_not_read_is_not_late() {
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let probe = Probe::new(&log).data(|_, input| {
            input.take(4);
            Ok(())
        });
        let limit = IDLE * 4;
        let options = StreamOptions::new().message_timeout(limit);
        let (token, mut peer) = pair(&mut reactor, options, probe);
        peer.write_all(b"ab").unwrap();
        until(&mut reactor, "the beginning", |_| log.data() == b"ab");
        reactor.net().pause(token);
        let paused = Instant::now();
        until(&mut reactor, "a while", |_| paused.elapsed() > limit * 2);
        reactor.net().resume(token);
        let resumed = Instant::now();
        until(&mut reactor, "a part of its time", |_| resumed.elapsed() > limit / 10);
        peer.write_all(b"cd").unwrap();
        until(&mut reactor, "the rest", |_| log.data().ends_with(b"abcd") || log.closes() > 0);
        assert_eq!(log.closes(), 0, "{:?}", log.reasons());
    }

    /// Messages that end with `;`; it holds the part of one itself.
    #[derive(Default)]
    struct Holds(Vec<u8>);

    impl Layer for Holds {
        fn name(&self) -> &'static str {
            "holds"
        }

        fn decode(
            &mut self,
            _: &mut LayerContext<'_>,
            wire: &mut [u8],
            unit: &mut Vec<u8>,
            _: &mut Vec<u8>,
        ) -> Result<Step, LayerError> {
            self.0.extend_from_slice(wire);
            if !self.0.ends_with(b";") {
                return Ok(Step::new(wire.len(), Item::Nothing));
            }
            unit.append(&mut self.0);
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

        fn holds_input(&self) -> bool {
            !self.0.is_empty()
        }
    }

    // row 92
    #[test]
    fn a_part_that_became_whole_while_no_timeout_was_set_is_forgotten() {
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let timed = StreamOptions::new().message_timeout(IDLE);
        let (token, mut peer) = pair(&mut reactor, timed.clone(), Probe::new(&log));
        until(&mut reactor, "the connection", |_| log.opens() == 1);
        assert!(reactor.net().start_layer(token, Holds::default()));
        peer.write_all(b"a").unwrap();
        until(&mut reactor, "a part", |reactor| reactor.net().stats().bytes_read == 1);
        assert!(reactor.net().set_options(token, StreamOptions::new().message_timeout(None)));
        peer.write_all(b"b;").unwrap();
        until(&mut reactor, "the rest", |_| log.data() == b"ab;");
        assert!(reactor.net().set_options(token, timed));
        let whole = Instant::now();
        until(&mut reactor, "a while", |_| whole.elapsed() > IDLE * 3);
        assert_eq!(log.closes(), 0, "{:?}", log.reasons());
    }
}
