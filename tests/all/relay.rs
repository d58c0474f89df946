//! Relayed connections: what one brings leaves through the other, byte for byte, with its end and
//! its failures, and nothing of it passes a handler. With the feature `splice` the same tests hold
//! for what never passes this process.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tidegate::layer::{LengthPrefixed, Lines};
use tidegate::{
    Connect, Listen, Net, Overflow, Peer, Reactor, Relayed, SocketOptions, StreamOptions, Token,
};

use crate::support::child::in_a_process_of_its_own;
use crate::support::endpoints::assert_falls_asleep;
#[cfg(unix)]
use crate::support::sockets::hoard_descriptors;
use crate::support::sockets::{send_urgent, stream_bytes};
use crate::support::xorshift::Xorshift;
use crate::support::{
    Log, PATIENCE, Probe, Told, address_of, client, closed, is_data, read_all, read_n, reset,
    settle, until, with_client,
};

/// Enough for a queue to be full of it: far more than all buffers of these tests on the way.
const LOTS: usize = 4 << 20;

/// Socket buffers that hold little beside `LOTS`, and yet a whole segment of loopback's, without
/// which TCP would wait for its timers.
const BUFFER: usize = 128 * 1024;

fn options() -> StreamOptions {
    let socket = SocketOptions::new().send_buffer(BUFFER).receive_buffer(BUFFER);
    StreamOptions::new().socket_options(socket)
}

fn with_buffers(stream: TcpStream) -> TcpStream {
    let socket = socket2::SockRef::from(&stream);
    socket.set_recv_buffer_size(BUFFER).unwrap();
    socket.set_send_buffer_size(BUFFER).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A reactor that relays to `target` whoever connects to it.
fn proxy(target: impl Fn() -> Connect + Clone + 'static, log: &Log) -> (Reactor, SocketAddr) {
    let log = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let make = move |_: &Peer<'_>| {
        let (target, of_target) = (target.clone(), log.clone());
        Probe::new(&log).open(move |cx| {
            let target = cx.net.connect(target(), Probe::new(&of_target))?;
            assert!(cx.net.relay(cx.token, target));
            Ok(())
        })
    };
    let listen = Listen::tcp("127.0.0.1:0").options(options());
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, address)
}

/// A relay with a peer of the test's at either end. `tokens[0]` is the accepted connection, whose
/// peer is `near`; `tokens[1]` the one that was made for it.
struct Rig {
    reactor: Reactor,
    log: Log,
    tokens: [Token; 2],
    near: TcpStream,
    far: TcpStream,
}

fn rig(options: StreamOptions) -> Rig {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap();
    let log = Log::new();
    let (mut reactor, at) = proxy(move || Connect::tcp(address).options(options.clone()), &log);
    let near = with_buffers(client(at));
    until(&mut reactor, "both to open", |_| log.opens() == 2);
    let far = with_buffers(target.accept().unwrap().0);
    far.set_nodelay(true).unwrap();
    let tokens = [log.opened()[0], log.opened()[1]];
    Rig { reactor, log, tokens, near, far }
}

impl Rig {
    fn net(&mut self) -> &mut Net {
        self.reactor.net()
    }

    #[track_caller]
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Net) -> bool) {
        until(&mut self.reactor, what, |reactor| done(reactor.net()));
    }

    /// Both peers do something on a thread of their own, and both ends come to an end.
    #[track_caller]
    fn run<A: Send + 'static, B: Send + 'static>(
        mut self,
        near: impl FnOnce(TcpStream) -> A + Send + 'static,
        far: impl FnOnce(TcpStream) -> B + Send + 'static,
    ) -> (A, B) {
        let (near_stream, far_stream) = (self.near, self.far);
        let far = std::thread::spawn(move || far(far_stream));
        let near = with_client(&mut self.reactor, move || near(near_stream));
        until(&mut self.reactor, "the other peer", |_| far.is_finished());
        let far = far.join().unwrap();
        until(&mut self.reactor, "both to close", |reactor| reactor.net().connection_count() == 0);
        assert_eq!((self.log.data().len(), self.log.eofs()), (0, 0), "no handler is told");
        (near, far)
    }
}

/// Fills one direction: nobody reads at `to`, and what `from` writes is all that finds room.
fn stuff(rig: &mut Rig, mut from: TcpStream, to: Token) -> usize {
    from.set_nonblocking(true).unwrap();
    let start = std::time::Instant::now();
    let (mut sent, mut idle) = (0, 0);
    // Above the high mark; and what the systems on the way can hold is underway.
    while idle < 20 || rig.net().queued(to) <= 64 * 1024 {
        match from.write(&stream_bytes(sent, 65_536)) {
            Ok(n) => (sent, idle) = (sent + n, 0),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                idle += 1;
            }
        }
        let _ = rig.reactor.turn(Some(Duration::from_millis(1))).unwrap();
        assert!(sent < 64 << 20, "the relay reads without limit");
        assert!(start.elapsed() < PATIENCE, "{sent} bytes found room elsewhere");
    }
    from.set_nonblocking(false).unwrap();
    sent
}

// ---- data ----

/// Writes a stream in pieces of all sizes, with pauses now and then, and ends it.
fn write_in_pieces(mut stream: &TcpStream, all: usize, seed: u64) {
    let mut random = Xorshift::new(seed);
    let mut sent = 0;
    while sent < all {
        let most = 1 << random.below(20);
        let n = (1 + random.below(most)).min(all - sent);
        stream.write_all(&stream_bytes(sent, n)).unwrap();
        sent += n;
        if random.chance(8) {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Reads a stream to its end, now quickly, now slowly.
fn read_in_pieces(mut stream: &TcpStream, all: usize, seed: u64) {
    let mut random = Xorshift::new(seed);
    let mut buffer = vec![0; 1 << 18];
    let mut heard = 0;
    loop {
        let most = 1 << random.below(19);
        let n = stream.read(&mut buffer[..most]).unwrap();
        if n == 0 {
            return assert_eq!(heard, all);
        }
        assert!(buffer[..n] == stream_bytes(heard, n), "changed somewhere from {heard} on");
        heard += n;
        if random.chance(16) {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
}

#[test]
fn bytes_in_pieces_of_all_sizes_arrive_in_both_directions_at_once() {
    for seed in 1..4 {
        let both = move |at: u64| {
            move |stream: TcpStream| {
                let reading = stream.try_clone().unwrap();
                let reader = std::thread::spawn(move || read_in_pieces(&reading, LOTS, seed + 2));
                write_in_pieces(&stream, LOTS, seed + at);
                reader.join().unwrap();
            }
        };
        let rig = rig(options());
        let log = rig.log.clone();
        rig.run(both(10), both(20));
        assert_eq!(log.reasons(), ["both sides ended", "both sides ended"]);
    }
}

// row 139
#[test]
fn bytes_that_were_passed_on_are_counted_in_each_direction() {
    let mut rig = rig(options());
    let near = rig.near.try_clone().unwrap();
    let far = rig.far.try_clone().unwrap();
    with_client(&mut rig.reactor, move || {
        let (mut near, mut far) = (near, far);
        let writer = near
            .try_clone()
            .map(|mut near| std::thread::spawn(move || near.write_all(&vec![1; LOTS]).unwrap()));
        read_n(&mut far, LOTS);
        writer.unwrap().join().unwrap();
        far.write_all(b"thanks").unwrap();
        read_n(&mut near, 6);
    });
    let [near, far] = rig.tokens;
    assert_eq!(rig.reactor.net().relayed_bytes(near), LOTS as u64);
    assert_eq!(rig.reactor.net().relayed_bytes(far), 6);
}

// What a relay moves depends on how much there is at once; so does how.
#[test]
fn blocks_of_every_size_there_and_back() {
    let sizes = [1, 2, 511, 4_096, 16_383, 65_535, 65_536, 65_537, 262_144, 262_145, 1_000_000];
    rig(options()).run(
        move |mut near| {
            for n in sizes.into_iter().chain(sizes.into_iter().rev()) {
                near.write_all(&stream_bytes(n, n)).unwrap();
                assert!(read_n(&mut near, n) == stream_bytes(n + 1, n), "at size {n}");
            }
        },
        move |mut far| {
            for n in sizes.into_iter().chain(sizes.into_iter().rev()) {
                assert!(read_n(&mut far, n) == stream_bytes(n, n), "at size {n}");
                far.write_all(&stream_bytes(n + 1, n)).unwrap();
            }
        },
    );
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_relayed_to_a_tcp_connection() {
    use std::os::unix::net::UnixStream;
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let a = reactor.net().adopt(ours, Probe::new(&log)).unwrap();
    let b = reactor.net().connect(target.local_addr().unwrap(), Probe::new(&log)).unwrap();
    assert!(reactor.net().relay(a, b));
    let far = std::thread::spawn(move || {
        let far = target.accept().unwrap().0;
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        read_in_pieces(&far, LOTS, 1);
        write_in_pieces(&far, LOTS, 2);
    });
    let heard = with_client(&mut reactor, move || {
        let (mut reading, mut writing) = (theirs.try_clone().unwrap(), theirs);
        writing.write_all(&stream_bytes(0, LOTS)).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        reading.read_to_end(&mut heard).unwrap();
        heard
    });
    assert!(heard == stream_bytes(0, LOTS), "{} bytes of {LOTS}", heard.len());
    far.join().unwrap();
    until(&mut reactor, "both to close", |_| log.closes() == 2);
    assert_eq!(log.reasons(), ["both sides ended", "both sides ended"]);
}

#[test]
fn an_urgent_byte_does_not_hold_up_what_follows_it() {
    let mut rig = rig(options());
    let mut near = rig.near.try_clone().unwrap();
    let mut far = rig.far.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        for n in 0..8 {
            near.write_all(&stream_bytes(n * 500_000, 500_000)).unwrap();
            send_urgent(&near, b'!');
        }
        near.shutdown(Shutdown::Write).unwrap();
    });
    let heard = with_client(&mut rig.reactor, move || read_all(&mut far));
    writing.join().unwrap();
    // Like any read, a relay leaves the urgent byte out.
    assert!(heard == stream_bytes(0, 4_000_000), "{} bytes", heard.len());
}

#[test]
fn what_the_handler_left_is_relayed_first() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = target.local_addr().unwrap();
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    // One that is told the target in the first line, and answers; all else is not its own.
    let listener = reactor
        .net()
        .listen("127.0.0.1:0", move |_| {
            let of_target = of_handler.clone();
            Probe::new(&of_handler).data(move |cx, input| {
                let Some(line) = input.take_until(b'\n') else { return Ok(()) };
                let to = std::str::from_utf8(line)?;
                cx.send("connected\n");
                let target = cx.net.connect(Connect::tcp(to), Probe::new(&of_target))?;
                assert!(cx.net.relay(cx.token, target));
                Ok(())
            })
        })
        .unwrap();
    let at = address_of(&mut reactor, listener);
    let far = std::thread::spawn(move || {
        let mut far = target.accept().unwrap().0;
        far.write_all(b"hello").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        read_all(&mut far)
    });
    let heard = with_client(&mut reactor, move || {
        let mut near = client(at);
        near.write_all(format!("{address}\nleft, ").as_bytes()).unwrap();
        let mut heard = read_n(&mut near, 15);
        near.write_all(b"and more").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        heard.extend(read_all(&mut near));
        heard
    });
    assert_eq!(heard, b"connected\nhello");
    until(&mut reactor, "the target", |_| far.is_finished());
    assert_eq!(far.join().unwrap(), b"left, and more");
    assert_eq!((log.count(is_data), log.eofs()), (1, 0));
}

/// `Relayed` takes nothing, so that nothing is lost before the relay is made.
#[test]
fn what_comes_to_relayed_before_its_relay_is_relayed_too() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = target.local_addr().unwrap();
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .net()
        .listen("127.0.0.1:0", move |_| {
            let mut outgoing = None;
            Probe::new(&of_handler).data(move |cx, input| {
                input.advance(1);
                match outgoing {
                    None => outgoing = Some(cx.net.connect(to, Relayed)?),
                    Some(outgoing) => assert!(cx.relay(outgoing)),
                }
                Ok(())
            })
        })
        .unwrap();
    let mut near = client(address_of(&mut reactor, listener));
    near.write_all(b"c").unwrap();
    until(&mut reactor, "the first byte", |_| log.count(is_data) == 1);
    let mut far = target.accept().unwrap().0;
    far.write_all(b"early, ").unwrap();
    settle(&mut reactor);
    near.write_all(b"r").unwrap();
    until(&mut reactor, "the second byte", |_| log.count(is_data) == 2);
    far.write_all(b"late").unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    let heard = with_client(&mut reactor, move || read_all(&mut near));
    assert_eq!(heard, b"early, late");
}

#[test]
fn what_a_handler_sends_keeps_its_place_in_the_stream() {
    let mut rig = rig(options());
    let far_token = rig.tokens[1];
    let mut near = rig.near.try_clone().unwrap();
    stuff(&mut rig, near.try_clone().unwrap(), far_token);
    let sent = rig.net().queued(far_token);
    rig.net().send(far_token, "<from the handler>");
    rig.net().send(far_token, vec![b'#'; 40_000]);
    assert_eq!(rig.net().queued(far_token), sent + 18 + 40_000);
    let mut far = rig.far.try_clone().unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let heard = with_client(&mut rig.reactor, move || read_all(&mut far));
    near.flush().unwrap();
    let at = heard.windows(18).position(|w| w == b"<from the handler>").unwrap();
    assert!(heard[..at] == stream_bytes(0, at));
    assert!(heard[at + 18..][..40_000].iter().all(|&byte| byte == b'#'));
    let behind = &heard[at + 18 + 40_000..];
    assert!(*behind == stream_bytes(at, behind.len()));
}

// ---- back-pressure ----

// row 62
#[test]
fn a_peer_that_does_not_read_bounds_what_waits_in_the_relay() {
    let mut rig = rig(options());
    let [_, far_token] = rig.tokens;
    let near = rig.near.try_clone().unwrap();
    let sent = stuff(&mut rig, near, far_token);
    // The high mark, and the one read that went over it.
    let queued = rig.net().queued(far_token);
    let most = 64 * 1024 + 256 * 1024;
    assert!(queued <= most, "{queued} bytes wait in the relay");
    assert_falls_asleep(&mut rig.reactor);
    // The other direction goes on.
    rig.far.write_all(b"meanwhile").unwrap();
    let mut near = rig.near.try_clone().unwrap();
    assert_eq!(with_client(&mut rig.reactor, move || read_n(&mut near, 9)), b"meanwhile");
    // And all of it arrives when the peer reads.
    rig.near.shutdown(Shutdown::Write).unwrap();
    let mut far = rig.far.try_clone().unwrap();
    let heard = with_client(&mut rig.reactor, move || read_all(&mut far));
    assert!(heard == stream_bytes(0, sent), "{} bytes of {sent}", heard.len());
}

// row 62
#[test]
fn both_directions_full_go_on_when_the_peers_read() {
    let mut rig = rig(options());
    let [near_token, far_token] = rig.tokens;
    let (near, far) = (rig.near.try_clone().unwrap(), rig.far.try_clone().unwrap());
    let there = stuff(&mut rig, near, far_token);
    let back = stuff(&mut rig, far, near_token);
    assert_falls_asleep(&mut rig.reactor);
    let finish = |all: usize| {
        move |mut stream: TcpStream| {
            stream.shutdown(Shutdown::Write).unwrap();
            let heard = read_all(&mut stream);
            assert!(heard == stream_bytes(0, all), "{} bytes of {all}", heard.len());
        }
    };
    rig.run(finish(back), finish(there));
}

#[test]
fn a_peer_that_takes_nothing_meets_the_stall_timeout_and_the_other_is_reset() {
    let mut rig = rig(options().stall_timeout(Duration::from_millis(100)));
    let [_, far_token] = rig.tokens;
    let near = rig.near.try_clone().unwrap();
    let log = rig.log.clone();
    // Its queue may be given up while it is being filled.
    let pushing = std::thread::spawn(move || {
        let mut near = near;
        while near.write_all(&[b'x'; 65_536]).is_ok() {}
    });
    rig.until("the end", |_| log.closes() == 2);
    pushing.join().unwrap();
    let [.., Told::Close(reason, unsent)] = &log.of(far_token)[..] else { panic!() };
    assert_eq!(reason, "timed out: the peer took no output for too long");
    assert!(*unsent > 0);
    assert!(log.reasons().contains(&"aborted".to_owned()));
    assert_reset(&mut rig.far);
}

#[test]
fn a_small_output_cap_slows_the_relay_and_ends_nothing() {
    for overflow in [Overflow::Close, Overflow::Drop] {
        let options =
            options().low_water(1_000).high_water(5_000).output_limit(20_000).overflow(overflow);
        rig(options).run(
            |near| write_in_pieces(&near, LOTS / 4, 1),
            |far| {
                read_in_pieces(&far, LOTS / 4, 2);
                far.shutdown(Shutdown::Write).unwrap();
            },
        );
    }
}

#[test]
fn pausing_one_holds_up_what_it_brings() {
    let mut rig = rig(options());
    let [near_token, _] = rig.tokens;
    rig.net().pause(near_token);
    rig.near.write_all(b"later").unwrap();
    rig.far.write_all(b"now").unwrap();
    let mut near = rig.near.try_clone().unwrap();
    assert_eq!(with_client(&mut rig.reactor, move || read_n(&mut near, 3)), b"now");
    settle(&mut rig.reactor);
    rig.far.set_nonblocking(true).unwrap();
    assert_eq!(rig.far.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::WouldBlock);
    rig.far.set_nonblocking(false).unwrap();
    rig.net().resume(near_token);
    let mut far = rig.far.try_clone().unwrap();
    assert_eq!(with_client(&mut rig.reactor, move || read_n(&mut far, 5)), b"later");
}

// ---- while connecting ----

#[test]
fn what_comes_while_the_other_connects_waits_bounded() {
    let deaf = crate::support::endpoints::deaf();
    let log = Log::new();
    let target = deaf.address;
    let (mut reactor, at) = proxy(move || Connect::tcp(target).options(options()), &log);
    let mut near = with_buffers(client(at));
    let heard = with_client(&mut reactor, move || {
        near.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let error = near.write_all(&vec![b'x'; LOTS]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        near
    });
    assert_eq!(log.opens(), 1, "the target does not answer");
    // Closing the half that stands cancels the other.
    let [accepted] = log.opened()[..] else { panic!() };
    reactor.net().close(accepted);
    drop(heard);
    until(&mut reactor, "both to end", |_| log.closes() == 2);
    let cancelled = format!("cannot connect to {target}: cancelled");
    assert!(log.reasons().contains(&cancelled), "{:?}", log.reasons());
}

#[test]
fn what_comes_before_the_other_stands_goes_first() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = Log::new();
    let address = target.local_addr().unwrap();
    let (mut reactor, at) = proxy(move || Connect::tcp(address), &log);
    let mut near = client(at);
    near.write_all(b"early").unwrap();
    near.shutdown(Shutdown::Write).unwrap();
    let far = std::thread::spawn(move || read_all(&mut target.accept().unwrap().0));
    until(&mut reactor, "the target", |_| far.is_finished());
    assert_eq!(far.join().unwrap(), b"early");
}

#[test]
fn a_target_that_refuses_resets_the_other() {
    let refusing = crate::support::endpoints::refusing();
    let log = Log::new();
    let address = refusing.address;
    let (mut reactor, at) = proxy(move || Connect::tcp(address), &log);
    let mut near = client(at);
    until(&mut reactor, "both to end", |_| log.closes() == 2);
    assert_reset(&mut near);
    let reasons = log.reasons();
    assert!(reasons.iter().any(|reason| reason.starts_with("cannot connect to")), "{reasons:?}");
    assert!(reasons.contains(&"aborted".to_owned()), "{reasons:?}");
}

// ---- ends ----

#[track_caller]
fn assert_reset(stream: &mut TcpStream) {
    let error = stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

// row 62
#[test]
fn a_half_close_is_carried_either_way_and_the_other_direction_goes_on() {
    let first = |mut stream: TcpStream| {
        stream.write_all(&stream_bytes(0, 300_000)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(read_all(&mut stream) == stream_bytes(7, LOTS));
    };
    let second = |mut stream: TcpStream| {
        assert!(read_all(&mut stream) == stream_bytes(0, 300_000));
        stream.write_all(&stream_bytes(7, LOTS)).unwrap();
    };
    rig(options()).run(first, second);
    rig(options()).run(second, first);
}

#[test]
fn both_peers_may_close_at_once() {
    for _ in 0..20 {
        let rig = rig(options());
        let log = rig.log.clone();
        rig.run(drop, drop);
        assert_eq!(log.reasons(), ["both sides ended", "both sides ended"]);
    }
}

#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other() {
    for which in 0..2 {
        for much in [0, 300_000] {
            let mut rig = rig(options());
            let (mut failing, mut other) = (rig.near, rig.far);
            if which == 1 {
                std::mem::swap(&mut failing, &mut other);
            }
            failing.write_all(&stream_bytes(0, much)).unwrap();
            let mut other = with_client(&mut rig.reactor, move || {
                let heard = read_n(&mut other, much);
                assert!(heard == stream_bytes(0, much));
                other
            });
            reset(failing);
            let log = rig.log.clone();
            until(&mut rig.reactor, "both to end", |_| log.closes() == 2);
            assert_reset(&mut other);
            let mut reasons = log.reasons();
            reasons.sort();
            assert_eq!(reasons.len(), 2);
            assert!(reasons[0].starts_with("Connection reset"), "{reasons:?}");
            assert_eq!(reasons[1], "aborted");
        }
    }
}

// A reset behind a full queue: what waits in the relay is not worth waiting for.
#[test]
fn a_reset_while_the_other_does_not_read_reports_what_was_unsent() {
    let mut rig = rig(options());
    let [near_token, far_token] = rig.tokens;
    let near = rig.near.try_clone().unwrap();
    stuff(&mut rig, near, far_token);
    let queued = rig.net().queued(far_token);
    let log = rig.log.clone();
    rig.net().abort(near_token);
    rig.until("both to end", |_| log.closes() == 2);
    assert_eq!(log.of(near_token).last(), Some(&Told::Close("aborted".into(), 0)));
    assert_eq!(log.of(far_token).last(), Some(&Told::Close("aborted".into(), queued)));
}

#[test]
fn closing_one_from_a_timer_closes_the_other_and_both_are_flushed() {
    for which in 0..2 {
        let mut rig = rig(options().close_timeout(PATIENCE));
        let [near_token, far_token] = rig.tokens;
        let near = rig.near.try_clone().unwrap();
        stuff(&mut rig, near, far_token);
        let waiting = rig.net().queued(far_token);
        assert!(waiting > 0);
        let token = rig.tokens[which];
        let mut far = rig.far.try_clone().unwrap();
        rig.reactor.net().run_after(Duration::from_millis(1), move |(), net| net.close(token));
        let log = rig.log.clone();
        let mut near = rig.near.try_clone().unwrap();
        until(&mut rig.reactor, "the end of the first direction", |reactor| {
            !reactor.net().is_open(near_token) && !reactor.net().is_open(far_token)
        });
        let heard = with_client(&mut rig.reactor, move || {
            let heard = read_all(&mut far);
            let _ = far.shutdown(Shutdown::Write);
            heard
        });
        assert!(heard == stream_bytes(0, heard.len()));
        assert!(heard.len() >= waiting, "what the relay had taken is flushed");
        near.set_nonblocking(false).unwrap();
        assert_eq!(read_all(&mut near), b"");
        drop((near, rig.near, rig.far));
        until(&mut rig.reactor, "both to end", |_| log.closes() == 2);
        assert!(log.told().iter().all(|told| !matches!(told, Told::Close(_, 1..))));
    }
}

#[test]
fn a_handler_that_fails_or_panics_costs_both_connections() {
    for panics in [false, true] {
        let log = Log::new();
        let target = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = target.local_addr().unwrap();
        let mut reactor = Reactor::new().unwrap();
        let fails = Probe::new(&log).timer(move |_, _| {
            assert!(!panics, "a bug");
            Err("enough".into())
        });
        let a = reactor.net().connect(at, fails).unwrap();
        let mut near = with_buffers(target.accept().unwrap().0);
        let b = reactor.net().connect(at, Probe::new(&log)).unwrap();
        let mut far = with_buffers(target.accept().unwrap().0);
        assert!(reactor.net().relay(a, b));
        reactor.net().set_timer(a, Duration::from_millis(1), 0);
        until(&mut reactor, "the other to end", |_| log.of(b).len() == 2);
        assert_eq!(log.of(b).last(), Some(&Told::Close("aborted".into(), 0)));
        assert_reset(&mut far);
        if panics {
            assert_reset(&mut near);
        } else {
            // As of any handler that returns an error.
            assert_eq!(read_all(&mut near), b"");
        }
        drop(near);
        until(&mut reactor, "both to end", |_| log.closes() == 2);
        assert!(!log.reasons().contains(&"both sides ended".to_owned()));
    }
}

#[test]
fn a_shutdown_reports_what_waited_in_a_relay() {
    let mut rig = rig(options());
    let [_, far_token] = rig.tokens;
    let near = rig.near.try_clone().unwrap();
    stuff(&mut rig, near, far_token);
    rig.net().shutdown(Duration::from_millis(10));
    let report = rig.reactor.run().unwrap();
    let up = "timed out: the time for the shutdown was up";
    assert_eq!(rig.log.reasons(), [up, up], "each for its own reason");
    let Some(Told::Close(_, unsent)) = rig.log.of(far_token).pop() else { panic!() };
    assert!(unsent > 0);
    assert_eq!((report.connections_cut, report.bytes_unsent), (2, unsent));
}

#[test]
fn a_dropped_reactor_closes_both_and_the_peers_see_it() {
    let rig = rig(options());
    let Rig { reactor, log, mut near, mut far, .. } = rig;
    drop(reactor);
    assert_eq!(log.reasons(), ["the reactor was dropped", "the reactor was dropped"]);
    assert_eq!((read_all(&mut near).len(), read_all(&mut far).len()), (0, 0));
}

#[test]
fn an_end_that_came_before_the_relay_is_passed_on() {
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = |reactor: &mut Reactor| {
        let keep = Probe::new(&log).eof(|_| Ok(()));
        let token = reactor.net().connect(listener.local_addr().unwrap(), keep).unwrap();
        let peer = with_buffers(listener.accept().unwrap().0);
        until(reactor, "it to stand", |reactor| reactor.net().peer_addr(token).is_some());
        (token, peer)
    };
    let (a, near) = connect(&mut reactor);
    let (b, mut far) = connect(&mut reactor);
    near.shutdown(Shutdown::Write).unwrap();
    until(&mut reactor, "the end", |_| log.eofs() == 1);
    assert!(reactor.net().relay(a, b));
    assert_eq!(with_client(&mut reactor, move || read_all(&mut far)), b"");
    until(&mut reactor, "both to close", |_| log.closes() == 2);
    assert_eq!(log.reasons(), ["both sides ended", "both sides ended"]);
}

#[test]
fn what_comes_behind_ones_own_half_close_is_dropped() {
    let mut rig = rig(options());
    let far_token = rig.tokens[1];
    rig.net().half_close(far_token);
    rig.run(
        |mut near| {
            near.write_all(&vec![b'x'; LOTS]).unwrap();
            near.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut near), b"and yet");
        },
        |mut far| {
            assert_eq!(read_all(&mut far), b"");
            far.write_all(b"and yet").unwrap();
        },
    );
}

// ---- pairs ----

#[test]
fn a_relay_needs_two_living_connections() {
    let mut rig = rig(options());
    let [a, b] = rig.tokens;
    let log = rig.log.clone();
    let net = rig.net();
    assert!(!net.relay(a, a));
    assert!(net.relay(b, a), "twice is once");
    assert!(net.relay(a, b));
    rig.near.write_all(b"still").unwrap();
    let mut far = rig.far.try_clone().unwrap();
    assert_eq!(with_client(&mut rig.reactor, move || read_n(&mut far, 5)), b"still");
    rig.net().close(b);
    assert!(!rig.net().relay(a, b), "both are closing");
    drop((rig.near, rig.far));
    until(&mut rig.reactor, "both to close", |_| log.closes() == 2);
    assert!(!rig.reactor.net().relay(a, b));
}

#[test]
fn whose_partner_is_relayed_to_another_is_on_its_own_again() {
    let mut rig = rig(options());
    let [a, b] = rig.tokens;
    let log = Log::new();
    let third = TcpListener::bind("127.0.0.1:0").unwrap();
    let c = rig.net().connect(third.local_addr().unwrap(), Probe::new(&log)).unwrap();
    let mut peer = with_buffers(third.accept().unwrap().0);
    assert!(rig.net().relay(c, b));
    rig.near.write_all(b"for the handler").unwrap();
    peer.write_all(b"for the target").unwrap();
    let mut far = rig.far.try_clone().unwrap();
    assert_eq!(with_client(&mut rig.reactor, move || read_n(&mut far, 14)), b"for the target");
    let of_rig = rig.log.clone();
    rig.until("the handler", |_| of_rig.data() == b"for the handler");
    rig.net().abort(a);
    settle(&mut rig.reactor);
    assert!(rig.net().is_open(b) && rig.net().is_open(c));
}

#[test]
fn linking_ends_a_relay() {
    let mut rig = rig(options());
    let [a, b] = rig.tokens;
    assert!(rig.net().pair(a, b));
    rig.near.write_all(b"for the handler").unwrap();
    let log = rig.log.clone();
    rig.until("the handler", |_| log.data() == b"for the handler");
    // Aborting one is nothing to the other.
    rig.net().abort(a);
    rig.until("its end", |_| log.closes() == 1);
    assert!(rig.net().is_open(b));
}

#[test]
fn timers_and_signals_reach_the_handlers_of_a_relay() {
    let mut rig = rig(options());
    let [a, b] = rig.tokens;
    rig.net().set_timer(a, Duration::from_millis(1), 7);
    assert!(rig.net().notify(b, "hello"));
    let log = rig.log.clone();
    rig.until("both", |_| log.told().contains(&Told::Timer(7)));
    assert!(log.of(b).contains(&Told::Notification));
}

// ---- layers ----

/// A relay between whoever connects, in lines, and `target`, in frames behind a length.
fn between_formats(target: SocketAddr, log: &Log) -> (Reactor, SocketAddr) {
    let log = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(options()).layer(|_| Lines::new());
    let make = move |_: &Peer<'_>| {
        let of_target = log.clone();
        Probe::new(&log).open(move |cx| {
            let target = Connect::tcp(target).options(options()).layer(LengthPrefixed::new(2));
            let target = cx.net.connect(target, Probe::new(&of_target))?;
            assert!(cx.net.relay(cx.token, target));
            Ok(())
        })
    };
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, address)
}

#[test]
fn each_side_keeps_its_own_format() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = Log::new();
    let (mut reactor, at) = between_formats(target.local_addr().unwrap(), &log);
    let lines = 100_000;
    let far = std::thread::spawn(move || {
        let mut far = with_buffers(target.accept().unwrap().0);
        far.write_all(b"\0\x03one\0\x00\0\x05three").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        read_all(&mut far)
    });
    let heard = with_client(&mut reactor, move || {
        let near = with_buffers(client(at));
        let mut writing = near.try_clone().unwrap();
        let text: String = (0..lines).map(|n| format!("line {n}\n")).collect();
        let writer = std::thread::spawn(move || {
            writing.write_all(text.as_bytes()).unwrap();
            writing.shutdown(Shutdown::Write).unwrap();
        });
        let heard = read_all(&mut { near });
        writer.join().unwrap();
        heard
    });
    assert_eq!(heard, b"one\n\nthree\n");
    until(&mut reactor, "the target", |_| far.is_finished());
    let frames = far.join().unwrap();
    let expected = |n| {
        let line = format!("line {n}");
        [&(line.len() as u16).to_be_bytes()[..], line.as_bytes()].concat()
    };
    assert!(frames == (0..lines).flat_map(expected).collect::<Vec<_>>());
    until(&mut reactor, "both to close", |_| log.closes() == 2);
    assert_eq!(log.reasons(), ["both sides ended", "both sides ended"]);
    assert_eq!((log.data().len(), log.eofs()), (0, 0), "no handler is told");
}

#[test]
fn what_the_other_format_cannot_say_ends_the_relay() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = Log::new();
    let (mut reactor, at) = between_formats(target.local_addr().unwrap(), &log);
    let mut near = client(at);
    until(&mut reactor, "both to open", |_| log.opens() == 2);
    let mut far = target.accept().unwrap().0;
    far.write_all(b"\0\x07two\nlin").unwrap();
    until(&mut reactor, "both to end", |_| log.closes() == 2);
    assert_reset(&mut near);
    assert_reset(&mut far);
    let mut reasons = log.reasons();
    reasons.sort();
    assert_eq!(reasons[0], "aborted");
    assert!(reasons[1].starts_with("lines: cannot be encoded: "), "{reasons:?}");
}

#[cfg(feature = "tls")]
#[test]
fn tls_on_one_side_while_the_target_still_shakes_hands() {
    use crate::support::secure;
    let log = Log::new();
    // The target: an echo behind TLS, in a reactor of its own, which turns only later.
    let of_echo = Log::new();
    let of_handler = of_echo.clone();
    let mut echo = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| secure::server());
    let listener = echo.net().listen(listen, move |_| Probe::echo(&of_handler)).unwrap();
    let target = address_of(&mut echo, listener);
    let connect = move || Connect::tcp(target).options(options()).layer(secure::client());
    let (mut reactor, at) = proxy(connect, &log);
    let near = with_buffers(client(at));
    let mut writing = near.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        writing.write_all(&stream_bytes(0, LOTS)).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    // Nobody answers the handshake: what comes waits, up to the mark.
    for _ in 0..100 {
        let _ = reactor.turn(Some(Duration::from_millis(1))).unwrap();
    }
    let [accepted] = log.opened()[..] else { panic!("{:?}", log.told()) };
    assert!(!writer.is_finished());
    assert_eq!(reactor.net().connection_count(), 2);
    let reader = std::thread::spawn(move || read_all(&mut { near }));
    until(&mut reactor, "the echo", |_| {
        let _ = echo.turn(Some(Duration::ZERO)).unwrap();
        reader.is_finished()
    });
    writer.join().unwrap();
    assert!(reader.join().unwrap() == stream_bytes(0, LOTS));
    until(&mut reactor, "both to close", |reactor| {
        let _ = echo.turn(Some(Duration::ZERO)).unwrap();
        reactor.net().connection_count() == 0
    });
    assert_eq!(log.of(accepted).last(), Some(&Told::Close("both sides ended".into(), 0)));
}

// ---- descriptors ----

// row 13: a relay works without the pipes that it splices through
#[cfg(unix)]
#[test]
fn a_relay_works_without_a_descriptor_to_spare() {
    if !in_a_process_of_its_own(a_relay_works_without_a_descriptor_to_spare) {
        return;
    }
    let rig = rig(options());
    // With the two streams of each peer's threads.
    let hoard = hoard_descriptors(0);
    rig.run(
        |mut near| {
            near.write_all(&stream_bytes(0, LOTS)).unwrap();
            near.shutdown(Shutdown::Write).unwrap();
            assert!(read_all(&mut near) == stream_bytes(9, LOTS));
        },
        |mut far| {
            assert!(read_all(&mut far) == stream_bytes(0, LOTS));
            far.write_all(&stream_bytes(9, LOTS)).unwrap();
        },
    );
    drop(hoard);
}

/// A relay at rest that has spliced, and so keeps pipes: big blocks are spliced indeed.
#[cfg(all(feature = "splice", target_os = "linux"))]
fn rig_with_pipes_at_rest() -> Rig {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut rig = rig(options());
    let (mut near, mut far) = (rig.near.try_clone().unwrap(), rig.far.try_clone().unwrap());
    let before = descriptors();
    let start = std::time::Instant::now();
    // How much one read finds is up to the system.
    while descriptors() == before {
        assert!(start.elapsed() < PATIENCE, "nothing is spliced");
        let writer = std::thread::spawn(move || {
            near.write_all(&stream_bytes(0, LOTS)).unwrap();
            near
        });
        far = with_client(&mut rig.reactor, move || {
            assert!(read_n(&mut far, LOTS) == stream_bytes(0, LOTS));
            far
        });
        near = writer.join().unwrap();
        settle(&mut rig.reactor);
    }
    let kept = descriptors() - before;
    assert!(kept <= 4, "{kept} descriptors are kept after one direction was busy");
    rig
}

// What lies ready for splicing is given to those who knock,
#[cfg(all(feature = "splice", target_os = "linux"))]
#[test]
fn descriptors_that_a_relay_has_kept_are_there_for_connections() {
    if !in_a_process_of_its_own(descriptors_that_a_relay_has_kept_are_there_for_connections) {
        return;
    }
    let mut rig = rig_with_pipes_at_rest();
    let log = rig.log.clone();
    let of_handler = log.clone();
    let listener = rig.net().listen("127.0.0.1:0", move |_| Probe::new(&of_handler)).unwrap();
    let at = address_of(&mut rig.reactor, listener);
    let hoard = hoard_descriptors(1);
    let _knocking = client(at);
    // Long before the hundred milliseconds after which accepting is tried again.
    until(&mut rig.reactor, "the connection", |_| log.opens() == 3);
    assert_eq!(rig.net().listener_stats(listener).unwrap().exhausted, 1);
    drop(hoard);
}

// and to a connection that is being made.
#[cfg(all(feature = "splice", target_os = "linux"))]
#[test]
fn descriptors_that_a_relay_has_kept_are_there_for_connecting() {
    if !in_a_process_of_its_own(descriptors_that_a_relay_has_kept_are_there_for_connecting) {
        return;
    }
    let mut rig = rig_with_pipes_at_rest();
    let log = rig.log.clone();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = target.local_addr().unwrap();
    let hoard = hoard_descriptors(0);
    rig.net().connect(at, Probe::new(&log)).unwrap();
    until(&mut rig.reactor, "an outcome", |_| log.opens() == 3 || log.closes() > 0);
    assert_eq!(log.reasons(), Vec::<String>::new());
    drop(hoard);
}

/// Also of what came while the other one did not stand yet, and was only then found to be no line.
#[test]
fn what_a_format_cannot_say_of_what_waited_for_it_ends_both() {
    let log = Log::new();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = target.local_addr().unwrap();
    let mut reactor = Reactor::new().unwrap();
    let a = reactor.net().connect(at, Probe::new(&log)).unwrap();
    let mut near = target.accept().unwrap().0;
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    near.write_all(b"one\ntwo").unwrap();
    let lines = Connect::tcp(at).layer(Lines::new());
    let b = reactor.net().connect(lines, Probe::new(&log)).unwrap();
    assert!(reactor.net().relay(a, b));
    until(&mut reactor, "both ends", |_| log.closes() == 2);
    assert!(log.reasons().iter().any(|why| why.starts_with("lines: ")), "{:?}", log.reasons());
}

// row 98
#[test]
fn an_end_that_was_passed_on_is_told_when_the_relay_is_taken_apart() {
    let mut rig = rig(options());
    let [a, b] = rig.tokens;
    rig.near.shutdown(Shutdown::Write).unwrap();
    let mut far = rig.far.try_clone().unwrap();
    assert_eq!(with_client(&mut rig.reactor, move || read_all(&mut far)), b"");
    assert_eq!(rig.log.eofs(), 0);
    assert!(rig.net().pair(a, b));
    let log = rig.log.clone();
    rig.until("the handler to be told", |_| log.eofs() == 1);
    rig.until("its close", |_| log.closes() == 1);
    assert_eq!(log.of(a).last(), Some(&closed("both sides ended")));
    assert!(rig.net().is_open(b), "they are linked, and end each for itself");
}

// row 99
#[test]
fn a_relay_ends_the_pauses_of_its_handlers() {
    let mut rig = rig(options());
    let [a, b] = rig.tokens;
    // Taken apart, paused by both handlers, and relayed anew.
    assert!(rig.net().pair(a, b));
    rig.net().pause(a);
    rig.net().pause(b);
    rig.near.write_all(b"there").unwrap();
    rig.far.write_all(b"back").unwrap();
    settle(&mut rig.reactor);
    assert_eq!(rig.log.data(), b"");
    assert!(rig.net().relay(a, b));
    let heard = rig.run(
        |mut near| {
            let heard = read_n(&mut near, 4);
            near.shutdown(Shutdown::Write).unwrap();
            heard
        },
        |mut far| read_all(&mut far),
    );
    assert_eq!(heard, (b"back".to_vec(), b"there".to_vec()));
}
