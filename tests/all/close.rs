//! Endings: graceful, half, at once, by a deadline, by a timer, by both sides. What was sent is
//! flushed or reported, and `on_close` comes exactly once and last.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tidegate::{
    Context, HandlerResult, Listen, Reactor, SendStatus, SocketOptions, StreamOptions, Token,
};

use crate::support::endpoints::{assert_asleep, assert_falls_asleep, deaf};
use crate::support::sockets::small_client;
use crate::support::{
    Log, PATIENCE, Probe, Told, address_of, client, closed, is_data, listening, read_all, read_n,
    reset, settle, until, with_client,
};

const SHORT: Duration = Duration::from_millis(50);

// ---- graceful ----

// row 8
#[test]
fn close_flushes_all_that_was_queued_before_it() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) = serving(small_buffers(), move || {
        Probe::new(&of_handler).open(|cx| {
            cx.send(pattern(3 << 20));
            assert!(cx.net.queued(cx.token) > 1 << 20, "most of it is still queued");
            cx.close();
            assert_eq!(cx.send(b"too late"), SendStatus::Gone);
            Ok(())
        })
    });
    let got = with_client(&mut reactor, move || read_all(&mut client(address)));
    assert!(got == pattern(3 << 20), "{} bytes", got.len());
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told(), [Told::Open, closed("closed")]);
}

// row 8: libevent #616, netty #13072
#[test]
fn a_close_with_unread_input_does_not_destroy_what_was_flushed() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) = serving(StreamOptions::new(), move || {
        Probe::new(&of_handler).data(|cx, _input| {
            cx.send(pattern(100_000)); // and leaves all that came, and all that comes, unread
            cx.close();
            Ok(())
        })
    });
    let got = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(&[b'x'; 200_000]).unwrap();
        let got = read_n(&mut stream, 100_000);
        // It goes on sending although the other side is done: nobody answers that with a reset.
        stream.write_all(&[b'y'; 200_000]).unwrap();
        assert_eq!(read_all(&mut stream), b"");
        got
    });
    assert!(got == pattern(100_000));
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.count(is_data), 1, "what comes after the close is nobody's");
    assert_eq!(log.told().last(), Some(&closed("closed")));
}

// row 63
#[test]
fn a_peer_that_never_stops_sending_receives_all_that_was_sent_before_the_close() {
    let (mut reactor, address) = serving(small_buffers(), || {
        Probe::new(&Log::new()).data(|cx, input| {
            input.take_all();
            cx.send(pattern(1 << 20));
            cx.close();
            Ok(())
        })
    });
    let got = with_client(&mut reactor, move || {
        let mut stream = client(address);
        let mut sender = stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || while sender.write_all(&[0; 4096]).is_ok() {});
        let got = read_all(&mut stream);
        stream.shutdown(Shutdown::Both).unwrap();
        sending.join().unwrap();
        got
    });
    assert!(got == pattern(1 << 20), "{} bytes", got.len());
}

#[test]
fn after_close_only_on_close_follows() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).data(|cx, input| {
            input.take(1);
            cx.set_timer(Duration::ZERO, 1);
            cx.net.notify(cx.token, "never told");
            cx.close();
            cx.resume();
            cx.close(); // twice is once
            Ok(())
        })
    });
    let mut stream = client(address);
    stream.write_all(b"more than one byte").unwrap();
    until(&mut reactor, "the data", |_| log.count(is_data) == 1);
    let token = log.opened()[0];
    assert!(!reactor.net().is_open(token));
    assert!(!reactor.net().notify(token, "not told either") || log.closes() == 0);
    stream.write_all(b"still sending").unwrap();
    assert_falls_asleep(&mut reactor);
    drop(stream);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    settle(&mut reactor);
    assert_eq!(log.told().len(), 3, "{:?}", log.told());
}

#[test]
fn close_in_on_open_ends_a_connection_that_said_nothing() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).open(|cx| {
            cx.send(b"no room");
            cx.close();
            Ok(())
        })
    });
    let got = with_client(&mut reactor, move || read_all(&mut client(address)));
    assert_eq!(got, b"no room");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told(), [Told::Open, closed("closed")]);
}

#[test]
fn an_error_of_the_handler_closes_gracefully_with_the_error_as_the_reason() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).data(|cx, input| {
            cx.send(b"sorry: ");
            let number: u32 = std::str::from_utf8(input.take_all())?.parse()?;
            cx.send(number.to_string());
            Ok(())
        })
    });
    let got = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"seven").unwrap();
        read_all(&mut stream)
    });
    assert_eq!(got, b"sorry: ");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told().last(), Some(&closed("invalid digit found in string")));
}

#[test]
fn an_error_that_a_callback_returns_after_it_closed_is_the_reason() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).data(|cx, input| {
            input.take_all();
            cx.send(b"bye");
            cx.close();
            Err("no more of this".into())
        })
    });
    let got = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"!").unwrap();
        read_all(&mut stream)
    });
    assert_eq!(got, b"bye", "as gracefully as without the error");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told().last(), Some(&closed("no more of this")));
}

#[test]
fn closing_another_connection_flushes_that_one_too() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        let log = of_handler.clone();
        Probe::new(&of_handler).data(move |cx, input| {
            input.take_all();
            let first = log.opened()[0];
            cx.net.send(first, b"make room");
            cx.net.close(first);
            assert_eq!(cx.net.send(first, b"too late"), SendStatus::Gone);
            Ok(())
        })
    });
    let mut one = client(address);
    until(&mut reactor, "the first", |_| log.opens() == 1);
    let mut two = client(address);
    two.write_all(b"!").unwrap();
    let got = with_client(&mut reactor, move || read_all(&mut one));
    assert_eq!(got, b"make room");
    until(&mut reactor, "its close", |_| log.closes() == 1);
    assert!(reactor.net().is_open(log.opened()[1]), "the other one is as it was");
}

#[test]
fn close_after_the_peers_end_is_an_orderly_end_of_both() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).eof(|cx| {
            cx.send(b"bye");
            cx.close();
            Ok(())
        })
    });
    let got = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&mut stream)
    });
    assert_eq!(got, b"bye");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told(), [Told::Open, Told::Eof, closed("both sides ended")]);
}

// ---- deadlines ----

#[test]
fn a_flushed_close_waits_for_the_peers_end_until_the_deadline_at_most() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) = serving(StreamOptions::new().close_timeout(SHORT), move || {
        Probe::new(&of_handler).open(|cx| {
            cx.send(b"bye");
            cx.close();
            Ok(())
        })
    });
    let start = Instant::now();
    let mut stream = client(address); // and never ends its side
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    assert_eq!(read_all(&mut stream), b"bye");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    assert_eq!(log.told().last(), Some(&closed("closed")));
    assert_asleep(&mut reactor);
}

#[test]
fn a_close_that_cannot_flush_ends_at_the_deadline_and_reports_what_is_unsent() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) = serving(small_buffers().stall_timeout(SHORT), move || {
        Probe::new(&of_handler).open(|cx| {
            cx.send(pattern(3 << 20));
            cx.close();
            Ok(())
        })
    });
    let start = Instant::now();
    let mut stream = small_client(address); // and never reads
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    let Some(Told::Close(reason, unsent)) = log.told().pop() else { panic!("closed") };
    assert_eq!(reason, "timed out: the close was not complete in time");

    // Every byte is either with the system, and arrives, or reported.
    let mut got = Vec::new();
    let _reset_or_end = stream.read_to_end(&mut got);
    assert!(unsent > 0 && got.len() + unsent <= 3 << 20, "{} and {unsent}", got.len());
    assert!(pattern(3 << 20).starts_with(&got));
}

#[test]
fn a_handlers_error_stays_the_reason_when_the_close_cannot_flush() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let options = small_buffers().stall_timeout(SHORT);
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let listener = reactor
        .net()
        .listen(listen, move |_| {
            Probe::new(&of_handler).open(|cx| {
                cx.send(vec![0; 3 << 20]);
                Err("no more of this".into())
            })
        })
        .unwrap();
    let _peer = small_client(address_of(&mut reactor, listener));
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.reasons(), ["no more of this"]);
}

// row 8: such a deadline has passed in the very turn of the close, before that turn flushes
#[test]
fn a_close_without_any_time_sends_what_would_have_left_at_once() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) =
        serving(StreamOptions::new().close_timeout(Duration::ZERO), move || {
            Probe::new(&of_handler).notify(|cx, signal| {
                // Another's output leaves at the end of the turn, its own would leave right here.
                let other = signal.take().map_err(|_| "not a token")?;
                cx.net.send(other, b"bye");
                cx.net.close(other);
                Ok(())
            })
        });
    let mut first = client(address);
    until(&mut reactor, "the first", |_| log.opens() == 1);
    let _second = client(address);
    until(&mut reactor, "the second", |_| log.opens() == 2);
    let [first_token, second_token] = log.opened()[..] else { panic!() };
    assert!(reactor.net().notify(second_token, first_token));
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told().last(), Some(&closed("closed")));
    assert_eq!(read_all(&mut first), b"bye");
}

// the clock of a deadline starts with the call, not with the last turn
#[test]
fn a_close_long_after_the_last_turn_has_its_whole_time() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) =
        serving(StreamOptions::new().close_timeout(SHORT), move || Probe::new(&of_handler));
    let _stream = client(address);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    std::thread::sleep(2 * SHORT); // an embedding loop is busy elsewhere
    let token = log.opened()[0];
    let start = Instant::now();
    reactor.net().close(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
}

// row 9
#[test]
fn a_timer_of_the_handler_closes_after_a_time() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler)
            .open(|cx| {
                cx.set_timer(SHORT, 9);
                cx.set_timer(10 * PATIENCE, 10); // dies with the connection
                Ok(())
            })
            .timer(|cx, _| {
                cx.send(b"time is up");
                cx.close();
                Ok(())
            })
    });
    let start = Instant::now();
    let got = with_client(&mut reactor, move || read_all(&mut client(address)));
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    assert_eq!(got, b"time is up");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told(), [Told::Open, Told::Timer(9), closed("closed")]);
    assert_eq!(reactor.next_deadline(), None, "a closed connection costs nothing");
}

// row 9
#[test]
fn silence_in_both_directions_closes_after_the_idle_timeout() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) =
        serving(StreamOptions::new().idle_timeout(SHORT), move || Probe::echo(&of_handler));
    let mut stream = client(address);
    let start = Instant::now();
    stream.write_all(b"a").unwrap();
    until(&mut reactor, "the word", |_| log.count(is_data) == 1);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert!(start.elapsed() >= SHORT, "{:?}", start.elapsed());
    assert_eq!(log.told().last(), Some(&closed("timed out: no byte moved for too long")));
}

// ---- abort ----

#[test]
fn abort_is_a_reset_and_reports_what_was_unsent() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) = serving(small_buffers(), move || {
        Probe::new(&of_handler).open(|cx| {
            cx.send(pattern(3 << 20));
            let queued = cx.net.queued(cx.token);
            assert!(queued > 1 << 20);
            cx.abort();
            assert_eq!(cx.send(b"too late"), SendStatus::Gone);
            Ok(())
        })
    });
    let mut stream = small_client(address);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    let Some(Told::Close(reason, unsent)) = log.told().pop() else { panic!("closed") };
    assert_eq!(reason, "aborted");
    assert!(unsent > 1 << 20, "{unsent}");
    assert_eq!(read_to_reset(&mut stream), ErrorKind::ConnectionReset);
}

#[test]
fn abort_with_nothing_queued_is_a_reset_too() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).data(|cx, input| {
            input.take_all();
            cx.abort();
            cx.abort(); // twice is once
            Ok(())
        })
    });
    let kind = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"!").unwrap();
        read_to_reset(&mut stream)
    });
    assert_eq!(kind, ErrorKind::ConnectionReset);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told().last(), Some(&closed("aborted")));
}

#[test]
fn abort_cuts_a_graceful_close_short() {
    abort_while_it_flushes("aborted", |cx| {
        cx.close();
        Ok(())
    });
}

#[test]
fn abort_keeps_the_error_that_was_to_end_the_connection() {
    abort_while_it_flushes("no more of this", |_| Err("no more of this".into()));
}

/// `end` begins a graceful close behind more than the system takes; the abort leaves this reason.
#[track_caller]
fn abort_while_it_flushes(reason: &str, end: fn(&mut Context<'_>) -> HandlerResult) {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) = serving(small_buffers(), move || {
        Probe::new(&of_handler).data(move |cx, _| {
            cx.send(pattern(3 << 20));
            end(cx)
        })
    });
    let mut stream = small_client(address);
    stream.write_all(b"!").unwrap();
    until(&mut reactor, "the request", |_| log.count(is_data) == 1);
    settle(&mut reactor);
    assert_eq!(log.closes(), 0, "it still flushes");
    let token = log.opened()[0];
    reactor.net().abort(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.reasons(), [reason]);
    assert_eq!(read_to_reset(&mut stream), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_while_closing_ends_it_once() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) = serving(small_buffers(), move || {
        Probe::new(&of_handler).open(|cx| {
            cx.send(pattern(3 << 20));
            cx.close();
            Ok(())
        })
    });
    let stream = small_client(address);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    settle(&mut reactor);
    reset(stream);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_falls_asleep(&mut reactor);
    let told = log.told();
    let [Told::Open, Told::Close(reason, unsent)] = &told[..] else { panic!("{told:?}") };
    assert!(reason.contains("reset"), "{reason}");
    assert!(*unsent > 0);
}

// ---- half-close ----

#[test]
fn half_close_flushes_ends_the_write_side_and_leaves_reading() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) = serving(small_buffers(), move || {
        Probe::new(&of_handler).open(|cx| {
            cx.send(pattern(1 << 20));
            cx.half_close();
            cx.half_close(); // twice is once
            assert_eq!(cx.send(b"too late"), SendStatus::Gone);
            Ok(())
        })
    });
    let (mut stream, got) = with_client(&mut reactor, move || {
        let mut stream = client(address);
        let got = read_all(&mut stream);
        (stream, got)
    });
    assert!(got == pattern(1 << 20), "{} bytes", got.len());
    stream.write_all(b"still heard").unwrap();
    until(&mut reactor, "the words", |_| log.data() == b"still heard");
    assert!(reactor.net().is_open(log.opened()[0]));
    stream.shutdown(Shutdown::Write).unwrap();
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told()[log.told().len() - 2..], [Told::Eof, closed("both sides ended")]);
}

// contract 4: the peer ends first
#[test]
fn a_connection_whose_both_sides_have_ended_closes_by_itself_peer_first() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler)
            .eof(|cx| {
                cx.set_timer(Duration::from_millis(5), 0);
                Ok(())
            })
            .timer(|cx, _| {
                cx.send(b"after your end");
                cx.half_close();
                Ok(())
            })
    });
    let got = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&mut stream)
    });
    assert_eq!(got, b"after your end");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told()[1..], [Told::Eof, Told::Timer(0), closed("both sides ended")]);
}

// contract 4: this side ends first
#[test]
fn a_connection_whose_both_sides_have_ended_closes_by_itself_own_first() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler)
            .open(|cx| {
                cx.half_close();
                Ok(())
            })
            .eof(|_| Ok(()))
    });
    with_client(&mut reactor, move || {
        let mut stream = client(address);
        assert_eq!(read_all(&mut stream), b"");
        stream.write_all(b"last words").unwrap();
    });
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(
        log.told(),
        [Told::Open, Told::Data(b"last words".to_vec()), Told::Eof, closed("both sides ended")]
    );
}

// contract 4: both at once, with output still queued behind the end
#[test]
fn both_sides_end_while_output_is_still_queued() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) = serving(small_buffers(), move || {
        Probe::new(&of_handler)
            .open(|cx| {
                cx.send(pattern(1 << 20));
                cx.half_close();
                Ok(())
            })
            .eof(|_| Ok(()))
    });
    let got = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&mut stream)
    });
    assert!(got == pattern(1 << 20));
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.eofs(), 1);
    assert_eq!(log.told().last(), Some(&closed("both sides ended")));
}

#[test]
fn half_close_then_close_discards_what_still_comes() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).open(|cx| {
            cx.send(b"all");
            cx.half_close();
            cx.close();
            Ok(())
        })
    });
    let got = with_client(&mut reactor, move || {
        let mut stream = client(address);
        let got = read_all(&mut stream);
        stream.write_all(b"nobody listens").unwrap();
        got
    });
    assert_eq!(got, b"all");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.told(), [Told::Open, closed("closed")]);
}

// ---- before it stands; at the very end ----

// row 7
#[test]
fn close_while_connecting_is_one_callback_cancelled() {
    for (name, end) in [
        ("close", (|net, token| net.close(token)) as fn(&mut tidegate::Net, Token)),
        ("abort", |net, token| net.abort(token)),
        ("both", |net, token| {
            net.close(token);
            net.abort(token);
        }),
    ] {
        let deaf = deaf();
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let token = reactor.net().connect(deaf.address, Probe::new(&log)).unwrap();
        reactor.net().send(token, b"unheard");
        settle(&mut reactor);
        assert_eq!(log.told(), [], "{name}");
        end(reactor.net(), token);
        assert_eq!(log.told(), [], "{name}: nothing is called from inside the call");
        until(&mut reactor, "the close", |_| log.closes() == 1);
        assert_falls_asleep(&mut reactor);
        let reason = format!("cannot connect to {}: cancelled", deaf.address);
        assert_eq!(log.told(), [Told::Close(reason, 7)], "{name}");
        assert_eq!(reactor.next_deadline(), None, "{name}: its timeout died with it");
    }
}

#[test]
fn close_all_flushes_every_connection_cancels_those_on_their_way_and_closes_nothing_else() {
    let log = Log::new();
    let (of_accepted, of_connecting) = (log.clone(), Log::new());
    let deaf = deaf();
    let (mut reactor, listener, address) = listening(move || Probe::echo(&of_accepted));
    let mut streams = [client(address), client(address)];
    let connecting = reactor.net().connect(deaf.address, Probe::new(&of_connecting)).unwrap();
    until(&mut reactor, "both to open", |_| log.opens() == 2);
    for token in log.opened() {
        reactor.net().send(token, b"bye");
    }
    reactor.net().close_all();
    let all_closed = [log.opened(), vec![connecting]].concat();
    assert!(all_closed.iter().all(|&token| !reactor.net().is_open(token)));
    with_client(&mut reactor, move || {
        assert_eq!(streams.each_mut().map(read_all), [b"bye", b"bye"]);
    });
    until(&mut reactor, "all to end", |r| r.net().connection_count() == 0);
    assert_eq!(
        of_connecting.told(),
        [closed(&format!("cannot connect to {}: cancelled", deaf.address))]
    );

    assert!(reactor.net().is_open(listener));
    let answer = with_client(&mut reactor, move || {
        let mut newcomer = client(address);
        newcomer.write_all(b"and I?").unwrap();
        read_n(&mut newcomer, 6)
    });
    assert_eq!(answer, b"and I?");
}

#[test]
fn dropping_the_reactor_closes_every_connection_once() {
    let log = Log::new();
    let (of_accepted, of_connecting) = (log.clone(), log.clone());
    let deaf = deaf();
    let (mut reactor, _, address) = listening(move || Probe::new(&of_accepted));
    reactor.net().connect(deaf.address, Probe::new(&of_connecting)).unwrap();
    let mut stream = client(address);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    drop(reactor);
    assert_eq!(log.reasons(), ["the reactor was dropped", "the reactor was dropped"]);
    assert_eq!(log.told().len(), 3);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn dropping_the_reactor_ends_also_when_on_close_connects_again() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        let log = of_handler.clone();
        Probe::new(&of_handler).close(move |cx, _| {
            let refused = cx.net.connect("127.0.0.1:9", Probe::new(&log)).unwrap_err();
            assert_eq!(refused.to_string(), "cannot connect: the reactor is being dropped");
        })
    });
    let _stream = client(address);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    drop(reactor);
    assert_eq!(log.closes(), 1);
}

// ---- while the peer still sends, by itself, from `on_close` ----

// row 63
#[test]
fn a_client_that_is_still_sending_receives_everything_that_was_sent_before_a_graceful_close() {
    const ANSWER: usize = 3 << 20;
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || {
        Probe::new(&of_handler).data(|cx, input| {
            input.take_all();
            cx.send(vec![b'a'; ANSWER]);
            cx.close();
            Ok(())
        })
    });
    let heard = with_client(&mut reactor, move || {
        let mut stream = client(address);
        let mut writer = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            // Far more than the system's buffers take unless somebody reads them.
            writer.write_all(&vec![b'?'; 32 << 20]).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let heard = read_all(&mut stream);
        writer.join().unwrap();
        heard
    });
    assert_eq!(heard.len(), ANSWER);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    let Some(Told::Close(_, unsent)) = log.told().last().cloned() else { panic!() };
    assert_eq!(unsent, 0);
    assert_eq!(log.count(is_data), 1, "called after its close");
}

// row 65
#[test]
fn a_connection_whose_directions_have_both_ended_closes_by_itself_whoever_was_first() {
    for server_first in [true, false] {
        let log = Log::new();
        let of_handler = log.clone();
        let (mut reactor, _listener, address) = listening(move || {
            Probe::new(&of_handler)
                .open(move |cx| {
                    if server_first {
                        cx.half_close();
                    }
                    Ok(())
                })
                .eof(|cx| {
                    // Harmless where it has been done already.
                    cx.send("?");
                    cx.half_close();
                    Ok(())
                })
        });
        let mut stream = client(address);
        if server_first {
            let (back, heard) = with_client(&mut reactor, move || {
                let heard = read_all(&mut stream);
                (stream, heard)
            });
            assert_eq!((log.closes(), heard.len()), (0, 0));
            stream = back;
        }
        stream.write_all(b"and I?").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        until(&mut reactor, "the close", |_| log.closes() == 1);
        assert_eq!(log.data(), b"and I?");
        assert_eq!(log.reasons(), ["both sides ended"]);
        assert_eq!(reactor.net().connection_count(), 0);
        if !server_first {
            assert_eq!(with_client(&mut reactor, move || read_all(&mut stream)), b"?");
        }
    }
}

// row 68
#[test]
fn on_close_may_send_publish_close_others_connect_and_listen() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::with_state(None).unwrap();
    let group = reactor.net().create_group();
    let born = Log::new();
    let of_born = born.clone();
    let listener = reactor
        .net()
        .listen(Listen::tcp("127.0.0.1:0"), move |_| {
            let born = of_born.clone();
            Probe::<Option<(Token, Token, SocketAddr)>>::new(&of_handler)
                .open(move |cx| {
                    let token = cx.token;
                    cx.net.join(group, token);
                    Ok(())
                })
                .close(move |cx, _| {
                    // Only the first of them does all this.
                    let Some((friend, foe, address)) = cx.state.take() else { return };
                    let token = cx.token;
                    cx.net.send(friend, "direct, ");
                    assert_eq!(cx.net.publish(group, "published").members, 2);
                    assert!(!cx.net.members(group).contains(&token));
                    cx.net.close(foe);
                    cx.net.connect(address, Probe::new(&born)).unwrap();
                    cx.net.listen("127.0.0.1:0", |_| Probe::new(&Log::new())).unwrap();
                })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let streams = [client(address), client(address), client(address)];
    until(&mut reactor, "all to open", |_| log.opens() == 3);
    let tokens = log.opened();
    *reactor.state_mut() = Some((tokens[1], tokens[2], address));
    streams[0].shutdown(Shutdown::Both).unwrap();
    let [_, mut friend, mut foe] = streams;
    let heard =
        with_client(&mut reactor, move || (read_n(&mut friend, 17), read_all(&mut foe), friend));
    assert_eq!(heard.0, b"direct, published");
    assert_eq!(heard.1, b"published");
    until(&mut reactor, "the connection", |_| born.opens() == 1);
    until(&mut reactor, "the foe's close", |_| log.closes() == 2);
    assert!(reactor.net().is_open(tokens[1]));
}

// row 68
#[test]
fn a_chain_of_closes_each_from_the_on_close_of_the_one_before_runs_to_its_end() {
    const CHAIN: usize = 100;
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::with_state(Vec::new()).unwrap();
    let listener = reactor
        .net()
        .listen(Listen::tcp("127.0.0.1:0"), move |_| {
            Probe::<Vec<Token>>::new(&of_handler).close(|cx, _| {
                if let Some(next) = cx.state.pop() {
                    cx.net.abort(next);
                }
            })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let _streams: Vec<_> = (0..CHAIN).map(|_| client(address)).collect();
    until(&mut reactor, "all to open", |_| log.opens() == CHAIN);
    *reactor.state_mut() = log.opened();
    let first = reactor.state_mut().pop().unwrap();
    reactor.net().abort(first);
    until(&mut reactor, "the last close", |_| log.closes() == CHAIN);
    assert_eq!(reactor.net().connection_count(), 0);
}

// row 100
#[test]
fn dropping_the_reactor_keeps_the_reasons_that_were_noted() {
    // One cannot flush its last words, one waits for its peer's end.
    for (size, reason) in [(4 << 20, "the handler's error"), (1, "the handler's error")] {
        let log = Log::new();
        let of_handler = log.clone();
        let (mut reactor, address) = serving(small_buffers().output_limit(8 << 20), move || {
            Probe::new(&of_handler).data(move |cx, input| {
                input.take_all();
                cx.send(vec![0; size]);
                Err("the handler's error".into())
            })
        });
        let mut stream = client(address);
        stream.write_all(b"x").unwrap();
        until(&mut reactor, "the data", |_| log.count(is_data) == 1);
        settle(&mut reactor);
        assert_eq!(log.closes(), 0);
        drop(reactor);
        assert_eq!(log.reasons(), [reason]);
    }
}

// row 100
#[test]
fn dropping_the_reactor_cuts_nothing_of_one_that_is_flushed() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, address) = serving(StreamOptions::new(), move || {
        Probe::new(&of_handler).open(|cx| {
            cx.send("all of it");
            cx.close();
            Ok(())
        })
    });
    let mut stream = client(address);
    until(&mut reactor, "it to open", |_| log.opens() == 1);
    settle(&mut reactor);
    assert_eq!(log.closes(), 0, "the peer has not ended");
    drop(reactor);
    assert_eq!(log.told().last(), Some(&closed("closed")));
    assert_eq!(read_all(&mut stream), b"all of it");
}

// row 100
#[cfg(unix)]
#[test]
fn a_failed_write_stays_the_reason_whatever_the_handler_leaves_unread() {
    use std::os::unix::net::UnixStream;
    for left in [0, 900] {
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let adopt = tidegate::Adopt::from(ours).options(StreamOptions::new().unread_limit(1000));
        // It takes nothing.
        let token = reactor.net().adopt(adopt, Probe::new(&log).data(|_, _| Ok(()))).unwrap();
        theirs.write_all(&vec![1; left]).unwrap();
        settle(&mut reactor);
        reactor.net().pause(token);
        theirs.write_all(&[1; 5000]).unwrap();
        drop(theirs);
        reactor.net().send(token, "x");
        until(&mut reactor, "the close", |_| log.closes() == 1);
        assert_eq!(log.reasons(), ["Broken pipe (os error 32)"], "{left} left before");
    }
}

// ---- what these tests share ----

fn serving(
    options: StreamOptions,
    mut make: impl FnMut() -> Probe + 'static,
) -> (Reactor, SocketAddr) {
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let listener = reactor.net().listen(listen, move |_| make()).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, address)
}

/// The system takes little, so that a large message is queued here for the most part.
fn small_buffers() -> StreamOptions {
    StreamOptions::new().socket_options(SocketOptions::new().send_buffer(8 * 1024))
}

fn read_to_reset(stream: &mut TcpStream) -> ErrorKind {
    stream.read_to_end(&mut Vec::new()).unwrap_err().kind()
}

fn pattern(n: u32) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}
