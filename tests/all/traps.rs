//! Traps that other loops have fallen into, and this one on its way.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::{Config, Listen, Reactor, StreamOptions, Token};

use crate::support::child::Helper;
use crate::support::{
    Log, Probe, Told, address_of, client, is_data, listening, read_all, read_n, until, with_client,
};

// row 61
#[test]
fn data_and_the_end_in_one_edge_are_both_told() {
    // One byte; the read buffer's size, just below and above it; several reads; more than a turn's.
    let buffer = 4096;
    let a_turn = buffer * Config::default().reads_per_turn;
    for size in [1, buffer - 1, buffer, buffer + 1, 2 * buffer, a_turn, a_turn + 1, 3 * a_turn] {
        let log = Log::new();
        let of_handler = log.clone();
        let config = Config { read_buffer: buffer, ..Config::default() };
        let mut reactor = Reactor::with_config((), config).unwrap();
        let listener =
            reactor.net().listen("127.0.0.1:0", move |_| Probe::new(&of_handler)).unwrap();
        let mut stream = client(address_of(&mut reactor, listener));
        stream.write_all(&vec![b'd'; size]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        until(&mut reactor, "the end", |_| log.closes() == 1);
        assert_eq!(log.data().len(), size);
        assert_eq!((log.eofs(), log.reasons()), (1, vec!["both sides ended".to_owned()]));
    }
}

// row 61
#[test]
fn data_and_the_end_in_one_edge_while_the_connection_is_open_and_through_a_layer() {
    for layered in [false, true] {
        let log = Log::new();
        let of_handler = log.clone();
        let mut reactor = Reactor::new().unwrap();
        let listen = Listen::tcp("127.0.0.1:0");
        let listen = if layered { listen.layer(|_| Lines::new()) } else { listen };
        let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
        let address = address_of(&mut reactor, listener);
        let mut stream = client(address);
        until(&mut reactor, "the open", |_| log.opens() == 1);
        stream.write_all(b"last words\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        until(&mut reactor, "the end", |_| log.closes() == 1);
        assert!(log.data().starts_with(b"last words"));
        assert_eq!(log.eofs(), 1);
    }
}

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

// row 64
#[test]
fn a_handler_that_takes_one_frame_a_time_gets_the_next_without_new_input() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || {
        Probe::new(&of_handler).data(|cx, input| {
            if let Some(frame) = input.take(4) {
                cx.send(frame);
            }
            Ok(())
        })
    });
    let heard = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"onetwo33four55").unwrap();
        let heard = read_n(&mut stream, 12);
        stream.write_all(b"66").unwrap();
        (heard, read_n(&mut stream, 4))
    });
    assert_eq!(heard, (b"onetwo33four".to_vec(), b"5566".to_vec()));
}

// row 64
#[test]
fn more_frames_in_one_read_than_a_turn_may_hand_out_all_arrive() {
    const FRAMES: usize = 10_000;
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || {
        Probe::new(&of_handler).data(|_, input| {
            input.take(4);
            Ok(())
        })
    });
    let mut stream = client(address);
    stream.write_all(&vec![b'f'; FRAMES * 4]).unwrap();
    let calls = |log: &Log| log.count(is_data);
    until(&mut reactor, "all frames", |_| calls(&log) >= FRAMES);
    assert_eq!(calls(&log), FRAMES);
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
                        cx.shutdown_write();
                    }
                    Ok(())
                })
                .eof(|cx| {
                    // Harmless where it has been done already.
                    cx.send("?");
                    cx.shutdown_write();
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
        assert_eq!(reactor.net().connections(), 0);
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
                    let token = cx.token();
                    cx.net.join(group, token);
                    Ok(())
                })
                .close(move |cx, _| {
                    // Only the first of them does all this.
                    let Some((friend, foe, address)) = cx.state.take() else { return };
                    let token = cx.token();
                    cx.net.send(friend, "direct, ");
                    assert_eq!(cx.net.publish(group, "published"), 2);
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
    assert_eq!(reactor.net().connections(), 0);
}

// row 70
#[test]
#[cfg(target_os = "linux")]
fn a_process_that_is_stopped_and_continued_goes_on_serving() {
    if crate::support::child::part().is_some() {
        return echo_in_a_child();
    }
    let mut helper = Helper::start(a_process_that_is_stopped_and_continued_goes_on_serving, "echo");
    let mut stream = client(helper.hear().parse().unwrap());
    for round in 0..5_u8 {
        helper.wait_for_state(|state| state == 'S'); // it sleeps in its poll
        helper.signal("-STOP");
        helper.wait_for_state(|state| state == 'T');
        if round % 2 == 0 {
            stream.write_all(&[round]).unwrap(); // arrives while it is stopped
        }
        helper.signal("-CONT");
        helper.wait_for_state(|state| state != 'T');
        if round % 2 == 1 {
            stream.write_all(&[round]).unwrap();
        }
        assert_eq!(read_n(&mut stream, 1), [round]);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
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
                crate::support::child::say(&closed.reason.to_string());
                cx.net.stop();
            })
        })
        .unwrap();
    crate::support::child::say(&address_of(&mut reactor, listener).to_string());
    reactor.run().unwrap();
}
