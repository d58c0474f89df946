//! Writing: order, half-closes, partial writes, errors, marks, caps, stalls.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tidegate::{Adopt, Listen, Overflow, Reactor, SendStatus, StreamOptions, Token};

use crate::support::sockets::{assert_sleeps, small, small_client, small_options, stream_bytes};
use crate::support::{
    Log, PATIENCE, Probe, Told, address_of, client, read_all, read_n, reset, settle, until,
    with_client,
};

const RESET: &str = "Connection reset by peer (os error 104)";
const BROKEN_PIPE: &str = "Broken pipe (os error 32)";
const FINISHED: &str = "both sides ended";
const TEN_MB: usize = 10_000_000;

/// A listener with these options whose probes `shape` may change, and one open connection to it.
struct Pair {
    reactor: Reactor,
    log: Log,
    token: Token,
    peer: TcpStream,
}

fn pair(
    options: StreamOptions,
    connect: impl FnOnce(SocketAddr) -> TcpStream,
    mut shape: impl FnMut(Probe) -> Probe + 'static,
) -> Pair {
    let log = Log::new();
    let of_handlers = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let listener = reactor.net().listen(listen, move |_| shape(Probe::new(&of_handlers))).unwrap();
    let peer = connect(address_of(&mut reactor, listener));
    until(&mut reactor, "a connection", |_| log.opens() == 1);
    let token = log.opened()[0];
    Pair { reactor, log, token, peer }
}

fn plain() -> Pair {
    pair(StreamOptions::new(), client, |probe| probe.eof(|_| Ok(())))
}

/// Both socket buffers as small as they can be, so that a peer that does not read is felt at once.
fn stuck(options: StreamOptions) -> Pair {
    pair(options.socket_options(small()), small_client, |probe| probe)
}

impl Pair {
    fn send(&mut self, bytes: impl AsRef<[u8]>) -> SendStatus {
        self.reactor.net().send(self.token, bytes)
    }

    fn queued(&mut self) -> usize {
        self.reactor.net().queued(self.token)
    }

    /// The peer reads to the end while the reactor turns.
    #[track_caller]
    fn peer_reads_all(&mut self) -> Vec<u8> {
        let mut peer = self.peer.try_clone().unwrap();
        with_client(&mut self.reactor, move || read_all(&mut peer))
    }

    #[track_caller]
    fn peer_reads(&mut self, n: usize) -> Vec<u8> {
        let mut peer = self.peer.try_clone().unwrap();
        with_client(&mut self.reactor, move || read_n(&mut peer, n))
    }

    #[track_caller]
    fn until_closed(&mut self) {
        let log = self.log.clone();
        until(&mut self.reactor, "the close", |_| log.closes() == 1);
    }
}

// ---- half-close ----

// row 29
#[test]
fn nothing_is_accepted_after_a_half_close() {
    let mut p = plain();
    p.send(b"last");
    p.reactor.net().half_close(p.token);
    assert_eq!(p.send(b"too late"), SendStatus::Gone);
    let shared: Arc<[u8]> = vec![1; 100_000].into();
    assert_eq!(p.reactor.net().send_shared(p.token, &shared), SendStatus::Gone);
    assert_eq!(p.peer_reads_all(), b"last");
    assert_eq!(p.send(b"too late"), SendStatus::Gone);
    assert_eq!(p.log.told(), [Told::Open]);
}

// row 30
#[test]
fn a_half_close_flushes_first() {
    let mut p = stuck(StreamOptions::new().output_limit(TEN_MB).close_timeout(PATIENCE));
    let sent = stream_bytes(0, 300_000);
    assert_eq!(p.send(&sent), SendStatus::AboveHighWater);
    p.reactor.net().half_close(p.token);
    settle(&mut p.reactor);
    assert!(p.queued() > 100_000, "the system took it all; the test proves nothing");
    assert!(p.peer_reads_all() == sent);
    assert_eq!(p.queued(), 0);
    p.peer.write_all(b"and you").unwrap();
    p.peer.shutdown(Shutdown::Write).unwrap();
    p.until_closed();
    assert_eq!(p.log.data(), b"and you");
    assert_eq!(p.log.reasons(), [FINISHED]);
}

// row 31
#[test]
fn a_half_close_twice_is_harmless() {
    let mut p = plain();
    p.send(b"last");
    for _ in 0..3 {
        p.reactor.net().half_close(p.token);
        p.reactor.net().half_close(p.token);
        assert_sleeps(&mut p.reactor);
    }
    assert_eq!(p.peer_reads_all(), b"last");
    p.peer.shutdown(Shutdown::Write).unwrap();
    p.until_closed();
    p.reactor.net().half_close(p.token);
    settle(&mut p.reactor);
    assert_eq!(p.log.told(), [Told::Open, Told::Eof, Told::Close(FINISHED.to_owned(), 0)]);
}

// row 32
#[test]
fn both_sides_half_close_at_once() {
    for _ in 0..20 {
        let mut p = plain();
        p.send(b"last");
        p.reactor.net().half_close(p.token);
        p.peer.shutdown(Shutdown::Write).unwrap();
        p.until_closed();
        assert_eq!(read_all(&mut p.peer), b"last");
        assert_eq!(p.log.told(), [Told::Open, Told::Eof, Told::Close(FINISHED.to_owned(), 0)]);
    }
}

// row 33
#[test]
fn a_half_close_then_a_close_ends_when_the_peer_does() {
    let mut p = plain();
    p.send(b"last");
    p.reactor.net().half_close(p.token);
    p.reactor.net().close(p.token);
    assert_eq!(p.peer_reads_all(), b"last");
    assert_eq!(p.log.closes(), 0);
    p.peer.write_all(b"nobody listens").unwrap();
    p.peer.shutdown(Shutdown::Write).unwrap();
    p.until_closed();
    assert_eq!(p.log.told(), [Told::Open, Told::Close("closed".to_owned(), 0)]);
}

// row 33
#[test]
fn a_close_after_a_half_close_that_has_happened_ends_when_the_peer_does() {
    let mut p = plain();
    p.reactor.net().half_close(p.token);
    assert_eq!(p.peer_reads_all(), b"");
    p.reactor.net().close(p.token);
    p.reactor.net().close(p.token);
    assert_sleeps(&mut p.reactor);
    assert_eq!(p.log.closes(), 0);
    p.peer.shutdown(Shutdown::Write).unwrap();
    p.until_closed();
    assert_eq!(p.log.told(), [Told::Open, Told::Close("closed".to_owned(), 0)]);
}

// ---- errors ----

// row 34
#[test]
fn writing_to_a_peer_that_is_gone_is_a_clean_error_once() {
    let p = plain();
    p.peer.shutdown(Shutdown::Both).unwrap();
    let Pair { mut reactor, log, token, peer } = p;
    drop(peer); // answers what comes now with a reset
    until(&mut reactor, "the end", |_| log.eofs() == 1);
    let mut sends = 0;
    until(&mut reactor, "the close", |reactor| {
        // One write, so that the process would see SIGPIPE and not only the error.
        let status = reactor.net().send(token, vec![1; 20_000]);
        sends += 1;
        assert!(status != SendStatus::Full);
        log.closes() == 1
    });
    assert_sleeps(&mut reactor);
    assert!(sends > 1, "the first send cannot know");
    assert_eq!(log.closes(), 1);
    let reason = &log.reasons()[0];
    assert!(reason == RESET || reason == BROKEN_PIPE, "{reason}");
    assert_eq!(reactor.net().send(token, b"x"), SendStatus::Gone);
}

// rows 34, 40
#[test]
fn a_write_error_in_the_middle_of_a_queue_surfaces_with_what_is_unsent() {
    let mut p = stuck(StreamOptions::new().output_limit(TEN_MB).close_timeout(PATIENCE));
    let shared: Arc<[u8]> = vec![2; 100_000].into();
    p.send(vec![1; 100_000]);
    p.reactor.net().send_shared(p.token, &shared); // two pieces: a vectored write
    p.peer.write_all(b"last words").unwrap();
    settle(&mut p.reactor);
    let Pair { mut reactor, log, token, peer } = p;
    assert!(reactor.net().queued(token) > 150_000);
    reset(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_sleeps(&mut reactor);
    let told = log.told();
    let Some(Told::Close(reason, unsent)) = told.last() else { panic!("{told:?}") };
    assert!(*unsent > 150_000, "{unsent}");
    assert_eq!(reason, RESET);
    // While the queue was above its mark reading was held back; nothing that came is lost by it.
    assert_eq!(log.data(), b"last words");
}

// row 40
#[test]
fn every_queue_ends_with_its_own_reason_when_its_peer_resets() {
    for close_first in [false, true] {
        let mut p = stuck(StreamOptions::new());
        p.send(vec![1; 100_000]);
        if close_first {
            p.reactor.net().close(p.token);
        }
        settle(&mut p.reactor);
        let Pair { mut reactor, log, peer, .. } = p;
        reset(peer);
        until(&mut reactor, "the close", |_| log.closes() == 1);
        let told = log.told();
        let Some(Told::Close(reason, unsent)) = told.last() else { panic!("{told:?}") };
        assert_eq!(reason, RESET);
        assert!(*unsent > 0);
    }
}

// ---- order, and whole streams ----

// row 36
#[test]
fn a_small_write_behind_a_stuck_ten_megabytes_arrives_behind_them() {
    let mut p = stuck(StreamOptions::new().output_limit(TEN_MB + 100).close_timeout(PATIENCE));
    let large = stream_bytes(0, TEN_MB);
    assert_eq!(p.send(&large), SendStatus::AboveHighWater);
    assert_eq!(p.send(b"small"), SendStatus::AboveHighWater);
    settle(&mut p.reactor);
    assert!(p.queued() > TEN_MB - 100_000, "the system took it; the test proves nothing");
    // The rest goes at a decent pace.
    SockRef::from(&p.peer).set_recv_buffer_size(1 << 20).unwrap();
    p.reactor.net().close(p.token);
    let got = p.peer_reads_all();
    assert!(got[..TEN_MB] == large);
    assert_eq!(&got[TEN_MB..], b"small");
    p.peer.shutdown(Shutdown::Both).unwrap();
    p.until_closed();
    assert_eq!(p.log.count(|told| *told == Told::Drain), 0, "a closing handler is told no more");
    assert_eq!(p.log.reasons(), ["closed"]);
}

// row 37
#[test]
fn queued_writes_of_all_kinds_keep_their_order() {
    let mut p = stuck(StreamOptions::new().output_limit(TEN_MB).close_timeout(PATIENCE));
    let mut at = 0;
    for round in 0..30 {
        for size in [1, 100, 5000, 16_384, 40_000, 3] {
            let bytes = stream_bytes(at, size);
            at += size;
            let status = if round % 2 == 0 {
                p.send(bytes)
            } else {
                p.reactor.net().send_shared(p.token, &bytes.into())
            };
            assert!(status.is_accepted());
        }
        let _ = p.reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    p.reactor.net().half_close(p.token);
    SockRef::from(&p.peer).set_recv_buffer_size(1 << 18).unwrap();
    assert!(p.peer_reads_all() == stream_bytes(0, at));
}

// row 37
#[test]
fn writes_of_one_callback_and_of_others_keep_their_order() {
    let mut p = pair(StreamOptions::new(), client, |probe| {
        probe.data(|cx, input| {
            input.take_all();
            cx.send(b"1");
            cx.send(vec![b'2'; 50_000]);
            cx.send(b"3");
            Ok(())
        })
    });
    p.send(b"0");
    p.peer.write_all(b"go").unwrap();
    until(&mut p.reactor, "the question", |_| p.log.data() == b"go");
    let token = p.token;
    p.reactor.net().send(token, b"4");
    p.reactor.net().half_close(token);
    let got = p.peer_reads_all();
    let expected = [b"01".to_vec(), vec![b'2'; 50_000], b"34".to_vec()].concat();
    assert!(got == expected);
}

// row 38
#[test]
fn a_bulk_of_sends_drains_and_then_ends() {
    let total = 3_000_000;
    let at = Rc::new(RefCell::new(0));
    let sent = Rc::clone(&at);
    let mut p = pair(StreamOptions::new(), client, move |probe| {
        let (one, other) = (Rc::clone(&sent), Rc::clone(&sent));
        let go_on = move |at: &RefCell<usize>, cx: &mut tidegate::Context<'_>| {
            let mut at = at.borrow_mut();
            while *at < total {
                let status = cx.send(stream_bytes(*at, 1000));
                *at += 1000;
                if status == SendStatus::AboveHighWater {
                    return Ok(());
                }
                assert_eq!(status, SendStatus::Queued);
            }
            cx.close();
            Ok(())
        };
        probe.open(move |cx| go_on(&one, cx)).drain(move |cx| go_on(&other, cx))
    });
    assert!(p.peer_reads_all() == stream_bytes(0, total));
    assert_eq!(*at.borrow(), total);
    drop(p.peer);
    until(&mut p.reactor, "the close", |_| p.log.closes() == 1);
    assert!(p.log.count(|told| *told == Told::Drain) > 10);
    assert_eq!(p.log.reasons(), ["closed"]);
}

// row 39
#[test]
fn partial_writes_at_odd_boundaries_lose_and_double_nothing() {
    let mut p = stuck(StreamOptions::new().output_limit(TEN_MB).close_timeout(PATIENCE));
    let mut at = 0;
    while at < 150_000 {
        let shared: Arc<[u8]> = stream_bytes(at, 16_411).into();
        at += shared.len();
        p.reactor.net().send_shared(p.token, &shared);
        p.send(stream_bytes(at, 777));
        at += 777;
    }
    p.reactor.net().half_close(p.token);
    let mut peer = p.peer.try_clone().unwrap();
    let got = with_client(&mut p.reactor, move || {
        let mut got = Vec::new();
        let mut piece = [0; 997]; // small reads: small windows, small writes
        loop {
            match peer.read(&mut piece).unwrap() {
                0 => return got,
                n => got.extend_from_slice(&piece[..n]),
            }
        }
    });
    assert!(got == stream_bytes(0, at));
}

// ---- marks, back-pressure, caps ----

#[test]
fn a_send_above_the_high_mark_says_so_and_one_drain_follows() {
    let mut p = stuck(StreamOptions::new().low_water(10_000).high_water(100_000));
    settle(&mut p.reactor);
    p.send(vec![1; 60_000]);
    settle(&mut p.reactor);
    assert!(p.queued() > 10_000);
    assert_eq!(p.send(vec![1; 10]), SendStatus::Queued, "below the high mark");
    assert_eq!(p.send(vec![1; 100_000]), SendStatus::AboveHighWater);
    assert_eq!(p.send(vec![1; 10]), SendStatus::AboveHighWater);
    assert_sleeps(&mut p.reactor);
    assert_eq!(p.log.told(), [Told::Open]);
    p.peer_reads(160_020);
    let log = p.log.clone();
    until(&mut p.reactor, "the drain", |_| log.told().contains(&Told::Drain));
    assert_sleeps(&mut p.reactor);
    assert_eq!(p.log.told(), [Told::Open, Told::Drain]);
    assert_eq!(p.send(vec![1; 10]), SendStatus::Queued);
    p.peer_reads(10);
    assert_sleeps(&mut p.reactor);
    assert_eq!(p.log.told(), [Told::Open, Told::Drain], "no drain without a high mark before it");
}

#[test]
fn whether_a_queue_is_above_its_high_mark_can_be_asked_without_sending() {
    let mut p = stuck(StreamOptions::new().low_water(10_000).high_water(100_000));
    let above = |p: &mut Pair| p.reactor.net().is_above_high_water(p.token);
    assert!(!above(&mut p));
    p.send(vec![1; 60_000]);
    assert!(!above(&mut p), "between the marks on the way up");
    p.send(vec![1; 100_000]);
    assert!(above(&mut p));
    p.peer_reads(80_000);
    assert!((10_000..100_000).contains(&p.queued()), "{} queued", p.queued());
    assert!(above(&mut p), "between the marks on the way down");
    p.peer_reads(80_000);
    let log = p.log.clone();
    until(&mut p.reactor, "the drain", |_| log.told().contains(&Told::Drain));
    assert!(!above(&mut p));
    p.reactor.net().abort(p.token);
    p.until_closed();
    assert!(!above(&mut p), "nobody");
}

#[test]
fn drain_comes_at_the_low_mark_and_not_before() {
    let queued = Rc::new(RefCell::new(Vec::new()));
    let at_drain = Rc::clone(&queued);
    let mut p =
        pair(small_options().low_water(30_000).high_water(60_000), small_client, move |probe| {
            let at_drain = Rc::clone(&at_drain);
            probe.drain(move |cx| {
                let token = cx.token;
                at_drain.borrow_mut().push(cx.net.queued(token));
                Ok(())
            })
        });
    assert_eq!(p.send(vec![1; 200_000]), SendStatus::AboveHighWater);
    p.peer_reads(200_000);
    let queued = queued.borrow();
    assert_eq!(queued.len(), 1);
    assert!(queued[0] <= 30_000);
}

#[test]
fn a_full_queue_pauses_reading_until_it_drains() {
    let mut p = stuck(StreamOptions::new());
    assert_eq!(p.send(vec![1; 100_000]), SendStatus::AboveHighWater);
    p.peer.write_all(b"asking on").unwrap();
    assert_sleeps(&mut p.reactor);
    assert_eq!(p.log.told(), [Told::Open]);
    p.peer_reads(100_000);
    let log = p.log.clone();
    until(&mut p.reactor, "the drain", |_| log.told().contains(&Told::Drain));
    assert_eq!(p.log.told(), [Told::Open, Told::Data(b"asking on".to_vec()), Told::Drain]);
}

#[test]
fn a_full_queue_does_not_pause_reading_where_that_is_switched_off() {
    let mut p = stuck(StreamOptions::new().auto_pause(false));
    assert_eq!(p.send(vec![1; 100_000]), SendStatus::AboveHighWater);
    p.peer.write_all(b"asking on").unwrap();
    let log = p.log.clone();
    until(&mut p.reactor, "the question", |_| log.data() == b"asking on");
    assert!(p.queued() > 16 * 1024);
}

#[test]
fn a_peer_that_asks_and_never_reads_is_slowed_down_and_not_buffered_for() {
    let mut p = pair(small_options(), small_client, |probe| {
        probe.data(|cx, input| {
            // Ten times as much out as in.
            let n = input.take_all().len() * 10;
            cx.send(vec![1; n]);
            Ok(())
        })
    });
    p.peer.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut peer = p.peer.try_clone().unwrap();
    let asked = with_client(&mut p.reactor, move || {
        let mut asked = 0;
        while let Ok(n) = peer.write(&[1; 1000]) {
            asked += n;
            assert!(asked < 1_000_000, "nothing slows the peer down");
        }
        asked
    });
    // One read may go over the mark.
    let most = 64 * 1024 + 10 * 256 * 1024;
    assert!(p.queued() <= most, "{} queued for {asked}", p.queued());
    assert_eq!(p.log.closes(), 0);
}

#[test]
fn what_goes_over_the_cap_closes_the_connection_by_default() {
    let mut p = stuck(StreamOptions::new().output_limit(50_000));
    assert!(p.send(vec![1; 45_000]).is_accepted());
    settle(&mut p.reactor);
    let queued = p.queued();
    assert_eq!(p.send(vec![2; 50_001 - queued]), SendStatus::Full);
    assert_eq!(p.send(b"x"), SendStatus::Gone);
    p.until_closed();
    assert_eq!(
        p.log.told(),
        [
            Told::Open,
            Told::Close("more queued output than the limit of 50000 bytes".to_owned(), queued)
        ]
    );
}

#[test]
fn what_goes_over_the_cap_is_dropped_whole_where_that_is_the_policy() {
    let options = StreamOptions::new().output_limit(50_000).overflow(Overflow::Drop);
    let mut p = stuck(options.low_water(1000).high_water(40_000));
    let first = stream_bytes(0, 49_000);
    assert!(p.send(&first).is_accepted());
    settle(&mut p.reactor);
    let fill = 50_000 - p.queued();
    assert_eq!(p.send(vec![2; fill + 1]), SendStatus::Full);
    assert_eq!(p.send(vec![3; fill]), SendStatus::AboveHighWater, "up to the cap it fits");
    assert_eq!(p.send([4]), SendStatus::Full);
    let got = p.peer_reads(49_000 + fill);
    assert!(got[..49_000] == first);
    assert!(got[49_000..].iter().all(|&byte| byte == 3));
    let log = p.log.clone();
    until(&mut p.reactor, "the drain", |_| log.told().contains(&Told::Drain));
    assert!(p.send([5]).is_accepted());
    assert_eq!(p.peer_reads(1), [5]);
    assert_eq!(p.log.told(), [Told::Open, Told::Drain]);
}

#[test]
fn a_message_larger_than_the_cap_is_refused_on_an_empty_queue_too() {
    let mut p =
        pair(StreamOptions::new().output_limit(50_000).overflow(Overflow::Drop), client, |probe| {
            probe
        });
    assert_eq!(p.send(vec![1; 50_001]), SendStatus::Full);
    assert!(p.send(b"fits").is_accepted());
    assert_eq!(p.peer_reads(4), b"fits");
    assert_sleeps(&mut p.reactor);
    assert_eq!(p.log.told(), [Told::Open]);
}

// ---- a peer that never reads ----

#[test]
fn a_peer_that_takes_nothing_for_too_long_is_closed() {
    let mut p = stuck(StreamOptions::new().stall_timeout(Duration::from_millis(150)));
    let start = Instant::now();
    p.send(vec![1; 100_000]);
    p.until_closed();
    assert!(start.elapsed() >= Duration::from_millis(150));
    let told = p.log.told();
    assert!(
        matches!(&told[..], [Told::Open, Told::Close(reason, unsent)]
            if reason == "timed out: the peer took no output for too long" && *unsent > 50_000),
        "{told:?}"
    );
}

#[test]
fn a_deadline_counts_from_the_call_and_not_from_the_last_turn() {
    let after = Duration::from_millis(150);
    let long = 2 * after;
    for in_a_callback in [false, true] {
        let called = Rc::new(RefCell::new(Instant::now()));
        let noted = Rc::clone(&called);
        let options = small_options().auto_pause(false).stall_timeout(after);
        let mut p = pair(options, small_client, move |probe| {
            let noted = Rc::clone(&noted);
            probe.data(move |cx, _| {
                std::thread::sleep(long); // a callback that takes its time
                *noted.borrow_mut() = Instant::now();
                cx.close();
                Ok(())
            })
        });
        p.send(vec![1; 100_000]);
        if in_a_callback {
            p.peer.write_all(b"close").unwrap();
        } else {
            std::thread::sleep(long); // a loop that embeds the reactor and was busy elsewhere
            *called.borrow_mut() = Instant::now();
            p.reactor.net().close(p.token);
        }
        p.until_closed();
        assert!(called.borrow().elapsed() >= after, "in a callback: {in_a_callback}");
        assert_eq!(p.log.reasons(), ["timed out: the close was not complete in time"]);
    }
}

// Over a Unix socket: TCP itself stalls when a peer with a small window reads a little at a time (its
// persist timer, RFC 9293 section 3.8.6.1), now and then for longer than this test takes.
#[cfg(unix)]
#[test]
fn a_slow_peer_does_not_count_as_stalled() {
    let stall = Duration::from_millis(800);
    in_good_time(|| {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        SockRef::from(&ours).set_send_buffer_size(8192).unwrap();
        peer.set_nonblocking(true).unwrap();
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let adopt = Adopt::from(ours).options(StreamOptions::new().stall_timeout(stall));
        let token = reactor.net().adopt(adopt, Probe::new(&log)).unwrap();
        let start = Instant::now();
        let (mut last, mut longest) = (start, Duration::ZERO);
        while start.elapsed() < 2 * stall && log.closes() == 0 {
            let full = 60_000 - reactor.net().queued(token);
            reactor.net().send(token, vec![1; full]);
            let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
            // However much the peer has to read before the system lets go on who writes.
            let before = reactor.net().queued(token);
            assert!(before > 0, "the test proves nothing");
            until(&mut reactor, "some progress", |reactor| {
                let _ = peer.read(&mut [0; 4096]);
                reactor.net().queued(token) < before
            });
            longest = longest.max(last.elapsed());
            last = Instant::now();
            until(&mut reactor, "a pause", |_| last.elapsed() > stall / 8);
        }
        longest = longest.max(last.elapsed());
        if longest >= stall / 2 {
            return false;
        }
        assert_eq!(log.closes(), 0);
        until(&mut reactor, "the rest", |reactor| {
            let _ = peer.read(&mut [0; 4096]);
            reactor.net().queued(token) == 0
        });
        // An empty queue does not stall either.
        let pause = Instant::now();
        until(&mut reactor, "a pause", |_| pause.elapsed() > stall + stall / 4);
        assert_eq!(log.told(), [Told::Open]);
        true
    });
}

/// Tries again what a busy machine has kept waiting for so long that it proves nothing.
#[track_caller]
fn in_good_time(mut attempt: impl FnMut() -> bool) {
    assert!((0..20).any(|_| attempt()), "this machine is too slow for this test");
}

// Its peer would take an end for the end of everything that was sent.
#[test]
fn a_connection_that_is_cut_with_output_unsent_ends_with_a_reset() {
    let mut p = pair(small_options().output_limit(60_000), small_client, |probe| probe);
    while p.send(vec![1; 20_000]).is_accepted() {}
    p.until_closed();
    let error = p.peer.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn large_writes_that_leave_at_once_are_no_silence() {
    let idle = Duration::from_millis(600);
    in_good_time(|| {
        let mut p = pair(StreamOptions::new().idle_timeout(idle), client, |probe| probe);
        let start = Instant::now();
        let (mut last, mut longest) = (start, Duration::ZERO);
        while start.elapsed() < 2 * idle && p.log.closes() == 0 {
            p.send(vec![1; 20_000]);
            // It takes them all at once, or else they would be told by a queue that moves.
            assert_eq!(p.peer_reads(20_000).len(), 20_000);
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        if longest >= idle / 2 {
            return false;
        }
        assert_eq!(p.log.closes(), 0, "after {:?}", start.elapsed());
        p.until_closed();
        assert_eq!(p.log.reasons(), ["timed out: no byte moved for too long"]);
        true
    });
}

#[test]
fn a_cap_below_the_high_mark_still_owes_a_drain_to_whom_it_refused() {
    let options = small_options().output_limit(30_000).overflow(Overflow::Drop);
    let mut p = pair(options, small_client, |probe| probe);
    while p.send(vec![1; 8_000]).is_accepted() {}
    assert_eq!(p.send(vec![1; 8_000]), SendStatus::Full);
    let log = p.log.clone();
    let queued = p.queued();
    assert!(queued > 0);
    p.peer_reads(queued);
    until(&mut p.reactor, "the drain", |_| log.told().contains(&Told::Drain));
}
