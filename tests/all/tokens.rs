//! Tokens and descriptors that are used again, closes in the middle of a batch of events, the order
//! of callbacks, registration, and pauses: an event belongs to one socket and to no later one.

use std::cell::Cell;
use std::collections::HashSet;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use tidegate::{
    CloseInfo, Config, Context, Handler, HandlerResult, Input, Listen, Notification, Reactor,
    SendStatus, Timer, Token,
};

use crate::support::endpoints::{assert_asleep, assert_falls_asleep, refusing};
use crate::support::{
    Log, Probe, Told, address_of, client, is_data, listening, read_n, reset, settle, until,
    with_client,
};

// ---- events of the past ----

// row 1
#[test]
fn an_event_of_a_connection_closed_earlier_in_the_batch_reaches_nobody() {
    let log = Log::new();
    let (mut reactor, _clients, tokens) = open_clients(&log, 2, |tokens| {
        Box::new(move |cx, input| {
            input.take_all();
            let own = cx.token;
            for &other in tokens.iter().filter(|&&t| t != own) {
                cx.net.abort(other);
            }
            Ok(())
        })
    });
    until(&mut reactor, "a close", |_| log.closes() == 1);
    settle(&mut reactor);
    assert_eq!(log.count(is_data), 1, "{:?}", log.all());
    let killed = tokens.into_iter().find(|&t| !log.of(t).iter().any(is_data)).unwrap();
    assert_eq!(log.of(killed), [Told::Open, Told::Close("aborted".to_owned(), 0)]);
}

// row 1: the killed one's descriptor and slot go to a new connection at once
#[test]
fn a_connection_made_in_the_callback_that_kills_another_sees_nothing_of_it() {
    let log = Log::new();
    let born = Log::new();
    let (mut quiet, _, elsewhere) = listening(|| Probe::new(&Log::new()));
    let (mut reactor, _clients, _) = open_clients(&log, 10, |tokens| {
        let born = born.clone();
        Box::new(move |cx, input| {
            input.take_all();
            let own = cx.token;
            for &other in tokens.iter().filter(|&&t| t != own) {
                cx.net.abort(other);
                cx.net.connect(elsewhere, Probe::new(&born))?;
            }
            Ok(())
        })
    });
    until(&mut reactor, "nine deaths", |_| log.closes() == 9);
    until(&mut reactor, "nine pending_handlers", |_| born.opens() == 9);
    settle(&mut quiet);
    settle(&mut reactor);
    assert_eq!(log.count(is_data), 1);
    assert_eq!(born.told(), vec![Told::Open; 9]);
}

// row 1
#[test]
fn a_token_of_the_past_is_refused_by_everything() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || Probe::echo(&of_handler));
    drop(client(address));
    until(&mut reactor, "the first to end", |_| log.closes() == 1);
    let mut second = client(address);
    until(&mut reactor, "the second to open", |_| log.opens() == 2);
    let [old, new] = log.opened()[..] else { panic!("two opened") };
    assert_eq!(index(old), index(new), "the slot is used again, or this proves nothing");
    assert_ne!(old, new);

    let net = reactor.net();
    assert_eq!(net.send(old, b"for somebody else"), SendStatus::Gone);
    assert_eq!(net.send_shared(old, &vec![0; 1 << 20].into()), SendStatus::Gone);
    assert!(!net.notify(old, ()));
    assert!(!net.pair(old, new));
    assert!(!net.is_open(old));
    assert!(net.peer_addr(old).is_none());
    let group = net.create_group();
    assert!(!net.join(group, old));
    let timer = net.set_timer(old, Duration::ZERO, 1);
    assert!(!net.cancel_timer(timer));
    net.pause(old);
    net.half_close(old);
    net.close(old);
    net.abort(old);

    second.write_all(b"still here").unwrap();
    let answer = with_client(&mut reactor, move || read_n(&mut second, 10));
    assert_eq!(answer, b"still here");
    assert_eq!(log.count(|t| matches!(t, Told::Timer(_) | Told::Notification)), 0);
}

// row 2
#[test]
fn echo_stays_right_across_descriptor_reuse() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || Probe::echo(&of_handler));
    with_client(&mut reactor, move || {
        for wave in 0..8_u32 {
            let mut streams: Vec<_> = (0..32).map(|_| client(address)).collect();
            for (i, stream) in streams.iter_mut().enumerate() {
                stream.write_all(words(wave, i).as_bytes()).unwrap();
            }
            // Every third one is cut, so that resets and orderly ends mix.
            for (i, mut stream) in streams.into_iter().enumerate() {
                assert_eq!(read_n(&mut stream, words(wave, i).len()), words(wave, i).as_bytes());
                if i % 3 == 0 { reset(stream) } else { drop(stream) }
            }
        }
    });
    until(&mut reactor, "all to end", |_| log.closes() == 8 * 32);
    assert_eq!(log.opened().into_iter().collect::<HashSet<_>>().len(), 8 * 32, "no token twice");
}

fn words(wave: u32, i: usize) -> String {
    format!("wave {wave}, connection {i}: {}", "x".repeat(i * 37))
}

// row 3
#[cfg(unix)]
#[test]
fn thousands_of_connections_closed_in_the_middle_of_a_batch() {
    use std::os::unix::net::UnixStream;

    let limit = rlimit::increase_nofile_limit(8192).unwrap();
    let many = usize::try_from(limit / 4).unwrap().min(2000);
    let config = Config::new().events_per_turn(8192);
    let mut reactor = Reactor::build(config, |_| Ok(Vec::<Token>::new())).unwrap();
    let log = Log::new();
    let mut peers = Vec::new();
    for _ in 0..many {
        let (ours, theirs) = UnixStream::pair().unwrap();
        peers.push(theirs);
        let probe = Probe::new(&log).data(|cx: &mut Context<'_, Vec<Token>>, input| {
            input.take_all();
            let own = cx.token;
            for &other in cx.state.iter().filter(|&&t| t != own) {
                cx.net.abort(other);
            }
            Ok(())
        });
        let token = reactor.net().adopt(ours, probe).unwrap();
        reactor.state_mut().push(token);
    }
    until(&mut reactor, "all to open", |_| log.opens() == many);
    for peer in &mut peers {
        peer.write_all(b"!").unwrap();
    }
    until(&mut reactor, "the rest to close", |_| log.closes() == many - 1);
    settle(&mut reactor);
    assert_eq!(log.count(is_data), 1);
    assert_eq!(log.closes(), many - 1);
    assert_eq!(reactor.net().connection_count(), 1);
}

// row 4
#[test]
fn each_one_closes_itself_and_the_next_one() {
    const MANY: usize = 40;
    let log = Log::new();
    let (mut reactor, mut clients, tokens) = open_clients(&log, MANY, |tokens| {
        Box::new(move |cx, input| {
            input.take_all();
            let own = tokens.iter().position(|&t| t == cx.token).unwrap();
            cx.close();
            cx.net.close(tokens[(own + 1) % MANY]);
            Ok(())
        })
    });
    for client in &mut clients {
        client.shutdown(Shutdown::Write).unwrap();
    }
    until(&mut reactor, "all to end", |_| log.closes() == MANY);
    assert_eq!(log.eofs(), 0);
    for token in tokens {
        let told = log.of(token);
        assert!(told.iter().filter(|t| is_data(t)).count() <= 1, "{told:?}");
        assert_eq!(told.iter().filter(|t| matches!(t, Told::Close(..))).count(), 1, "{told:?}");
    }
}

// ---- the order of callbacks ----

/// Does everything a callback may do to others, in every callback, and counts how deep it is.
struct Meddler;

#[derive(Default)]
struct Meddling {
    inside: bool,
    calls: usize,
    others: Vec<Token>,
    live: Option<SocketAddr>,
    refusing: Option<SocketAddr>,
}

impl Meddler {
    fn meddle(cx: &mut Context<'_, Meddling>) {
        assert!(!std::mem::replace(&mut cx.state.inside, true), "a callback inside a callback");
        cx.state.calls += 1;
        let others = cx.state.others.clone();
        let pick = |n: usize| others[n % others.len()];
        let calls = cx.state.calls;
        if !others.is_empty() {
            let large = vec![b'x'; 40_000];
            cx.net.send(pick(calls), b"small");
            cx.net.send(pick(calls + 1), &large);
            cx.net.notify(pick(calls + 2), "hello");
            cx.net.pause(pick(calls + 3));
            cx.net.resume(pick(calls + 3));
            cx.net.set_timer(pick(calls + 4), Duration::ZERO, 7);
            cx.net.pair(pick(calls), pick(calls + 5));
        }
        if calls.is_multiple_of(7) && !others.is_empty() {
            cx.net.abort(pick(calls + 1));
            cx.net.close(pick(calls + 2));
            cx.net.half_close(pick(calls + 3));
        }
        if calls < 400 {
            for to in [cx.state.live, cx.state.refusing].into_iter().flatten() {
                let token = cx.net.connect(to, Meddler).unwrap();
                cx.net.send(token, b"early");
                if calls.is_multiple_of(5) {
                    cx.net.abort(token);
                }
            }
            // Fails before connect(2): a local address that is not this host's.
            let from = "192.0.2.1:0".parse().unwrap();
            let hopeless = tidegate::Connect::tcp(cx.state.live.unwrap()).local_addr(from);
            cx.net.connect(hopeless, Meddler).unwrap();
        }
        if calls.is_multiple_of(3) {
            cx.send(b"own");
            cx.net.notify(cx.token, "myself");
        }
        cx.state.inside = false;
    }
}

impl Handler<Meddling> for Meddler {
    fn on_open(&mut self, cx: &mut Context<'_, Meddling>) -> HandlerResult {
        cx.state.others.push(cx.token);
        Self::meddle(cx);
        Ok(())
    }
    fn on_data(&mut self, cx: &mut Context<'_, Meddling>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Self::meddle(cx);
        Ok(())
    }
    fn on_drain(&mut self, cx: &mut Context<'_, Meddling>) -> HandlerResult {
        Self::meddle(cx);
        Ok(())
    }
    fn on_eof(&mut self, cx: &mut Context<'_, Meddling>) -> HandlerResult {
        Self::meddle(cx);
        cx.close();
        Ok(())
    }
    fn on_timer(&mut self, cx: &mut Context<'_, Meddling>, _: Timer) -> HandlerResult {
        Self::meddle(cx);
        Ok(())
    }
    fn on_notify(&mut self, cx: &mut Context<'_, Meddling>, _: Notification) -> HandlerResult {
        Self::meddle(cx);
        Ok(())
    }
    fn on_close(&mut self, cx: &mut Context<'_, Meddling>, closed: &CloseInfo) {
        assert!(!matches!(closed.reason, tidegate::CloseReason::Panicked(_)), "{closed}");
        let own = cx.token;
        cx.state.others.retain(|&t| t != own);
        Self::meddle(cx);
    }
}

// row 5
#[test]
fn no_callback_runs_inside_another_whatever_it_does() {
    let refusing = refusing();
    let mut reactor = Reactor::with_state(Meddling::default()).unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", |_| Meddler).unwrap();
    let live = address_of(&mut reactor, listener);
    reactor.state_mut().live = Some(live);
    reactor.state_mut().refusing = Some(refusing.address);
    reactor.net().connect(live, Meddler).unwrap();
    until(&mut reactor, "a lot of meddling", |reactor| reactor.state().calls > 2000);
    assert!(!reactor.state().inside, "a callback panicked half-way");
}

// row 6
#[test]
fn close_callbacks_come_in_the_order_of_the_closes() {
    let log = Log::new();
    let (mut reactor, _clients, tokens) = open_clients(&log, 5, |_| Box::new(|_, _| Ok(())));
    let order = [3, 0, 4, 1, 2].map(|i| tokens[i]);
    for token in order {
        reactor.net().abort(token);
    }
    until(&mut reactor, "all to close", |_| log.closes() == 5);
    assert_eq!(closed_order(&log), order);
}

// row 6
#[test]
fn what_on_close_closes_is_told_after_those_that_were_closed_before() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::with_state(Vec::<Token>::new()).unwrap();
    let listener = reactor
        .net()
        .listen("127.0.0.1:0", move |_| {
            Probe::new(&of_handler).close(|cx: &mut Context<'_, Vec<Token>>, _| {
                for &third in cx.state.iter() {
                    cx.net.abort(third);
                }
            })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let _clients: Vec<_> = (0..3).map(|_| client(address)).collect();
    until(&mut reactor, "all to open", |_| log.opens() == 3);
    let [a, b, c] = log.opened()[..] else { panic!("three opened") };
    reactor.state_mut().push(a);
    reactor.net().abort(c);
    reactor.net().abort(b);
    until(&mut reactor, "all to close", |_| log.closes() == 3);
    assert_eq!(closed_order(&log), [c, b, a]);
}

// ---- registration ----

// row 10
#[cfg(unix)]
#[test]
fn a_source_registered_twice_is_an_error_and_the_first_one_lives_on() {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use tidegate::mio::{Interest, unix::SourceFd};

    let (mut theirs, ours) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let descriptor: &'static i32 = Box::leak(Box::new(ours.as_raw_fd()));
    let mut reactor = Reactor::new().unwrap();
    let told = Rc::new(Cell::new(0));
    let first = Rc::clone(&told);
    let count = move |_: &mut SourceFd<'_>, _: &mut Context<'_>, _| {
        first.set(first.get() + 1);
        Ok(())
    };
    let first =
        reactor.net().register_source(SourceFd(descriptor), Interest::READABLE, count).unwrap();
    let second =
        reactor.net().register_source(SourceFd(descriptor), Interest::READABLE, |_, _, _| {
            unreachable!("it was not registered")
        });
    let error = second.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{error}");
    assert!(error.to_string().starts_with("cannot register the source: "), "{error}");

    theirs.write_all(b"!").unwrap();
    until(&mut reactor, "the first one's event", |_| told.get() == 1);
    assert!(reactor.net().is_open(first));
    drop(ours);
}

// row 11
#[cfg(unix)]
#[test]
fn no_event_comes_after_a_source_was_closed() {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use tidegate::mio::{Interest, unix::SourceFd};

    // The descriptor stays open behind the source, so that nothing but deregistering silences it.
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    let descriptor: &'static i32 = Box::leak(Box::new(ours.as_raw_fd()));
    let mut reactor = Reactor::new().unwrap();
    let told = Rc::new(Cell::new(0));
    let of_callback = Rc::clone(&told);
    let token = reactor
        .net()
        .register_source(SourceFd(descriptor), Interest::READABLE, move |_, _, _| {
            of_callback.set(of_callback.get() + 1);
            Ok(())
        })
        .unwrap();
    theirs.write_all(b"!").unwrap();
    until(&mut reactor, "the event", |_| told.get() == 1);
    reactor.net().close(token);
    assert!(!reactor.net().is_open(token));
    theirs.write_all(b"!").unwrap(); // in the poll already when the close is done
    assert_falls_asleep(&mut reactor);
    theirs.write_all(b"!").unwrap();
    assert_asleep(&mut reactor);
    assert_eq!(told.get(), 1);
    drop(ours);
}

// row 11
#[test]
fn an_adopted_socket_with_a_second_descriptor_wakes_nobody_after_its_end() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = client(server.local_addr().unwrap());
    let (mut theirs, _) = server.accept().unwrap();
    let second_descriptor = ours.try_clone().unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let options = tidegate::StreamOptions::new().close_timeout(Duration::ZERO);
    let adopt = tidegate::Adopt::from(ours).options(options);
    let token = reactor.net().adopt(adopt, Probe::new(&log)).unwrap();
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    reactor.net().close(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_falls_asleep(&mut reactor);
    theirs.write_all(b"anybody?").unwrap();
    assert_asleep(&mut reactor);
    assert_eq!(log.count(is_data), 0);
    drop(second_descriptor);
}

// ---- pause ----

// row 12
#[test]
fn paused_then_ended_by_the_peer_then_resumed_gives_all_data_and_one_end() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).open(|cx| {
            cx.pause();
            Ok(())
        })
    });
    let sent: Vec<u8> = (0..200_000_u32).map(|i| i as u8).collect();
    let mut stream = client(address);
    stream.write_all(&sent).unwrap();
    drop(stream);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    assert_falls_asleep(&mut reactor);
    assert_eq!(log.told(), [Told::Open], "nothing while paused");

    let token = log.opened()[0];
    reactor.net().resume(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    settle(&mut reactor);
    assert_eq!(log.data(), sent);
    assert_eq!(log.eofs(), 1);
    assert_eq!(log.told().last(), Some(&Told::Close("both sides ended".to_owned(), 0)));
}

// row 12: paused in the middle of what one read brought
#[test]
fn paused_with_input_left_over_gives_the_rest_and_one_end_when_resumed() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).data(|cx, input| {
            input.take(1);
            cx.pause();
            Ok(())
        })
    });
    let mut stream = client(address);
    stream.write_all(b"abc").unwrap();
    drop(stream);
    until(&mut reactor, "the first byte", |_| log.count(is_data) == 1);
    let token = log.opened()[0];
    for expected in [&b"abc"[..], b"bc", b"c"] {
        assert_falls_asleep(&mut reactor);
        assert_eq!(log.told().last(), Some(&Told::Data(expected.to_vec())));
        assert_eq!(log.eofs(), 0);
        reactor.net().resume(token);
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!((log.count(is_data), log.eofs()), (3, 1), "{:?}", log.told());
}

// row 12: with a reset in place of the end
#[cfg(target_os = "linux")] // elsewhere a reset empties the receiver's buffer
#[test]
fn paused_then_reset_by_the_peer_offers_what_had_arrived_and_closes_without_resume() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).open(|cx| {
            cx.pause();
            Ok(())
        })
    });
    let mut stream = client(address);
    stream.write_all(&[b'x'; 1000]).unwrap();
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    reset(stream);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    settle(&mut reactor);
    assert_eq!(log.data().len(), 1000);
    assert_eq!((log.eofs(), log.closes()), (0, 1), "{:?}", log.told());
    assert!(log.reasons()[0].contains("reset"), "{:?}", log.reasons());
}

// contract 1: after `close` only `on_close`, also while a dead connection's last data are offered
#[cfg(target_os = "linux")]
#[test]
fn closing_while_the_last_data_of_a_reset_connection_are_offered_ends_the_offering() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler)
            .open(|cx| {
                cx.pause();
                Ok(())
            })
            .data(|cx, input| {
                input.take(1);
                cx.close();
                Ok(())
            })
    });
    let mut stream = client(address);
    stream.write_all(b"one byte is enough").unwrap();
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    reset(stream);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.count(is_data), 1, "{:?}", log.told());
}

// ---- what these tests share ----

type OnData = Box<dyn FnMut(&mut Context<'_>, &mut Input<'_>) -> HandlerResult>;

/// A reactor with `n` open connections, each with a byte to read that nobody has been told of yet.
/// `make` is given the tokens of all.
fn open_clients(
    log: &Log,
    n: usize,
    make: impl FnOnce(Rc<[Token]>) -> OnData,
) -> (Reactor, Vec<TcpStream>, Vec<Token>) {
    let act: Rc<std::cell::RefCell<Option<OnData>>> = Rc::default();
    let (of_factory, of_handler) = (Rc::clone(&act), log.clone());
    let listen = Listen::tcp("127.0.0.1:0");
    let mut reactor = Reactor::new().unwrap();
    let factory = move |_: &tidegate::Peer<'_>| {
        let act = Rc::clone(&of_factory);
        Probe::new(&of_handler)
            .data(move |cx, input| (act.borrow_mut().as_mut().unwrap())(cx, input))
    };
    let listener = reactor.net().listen(listen, factory).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut clients: Vec<_> = (0..n).map(|_| client(address)).collect();
    until(&mut reactor, "all to open", |_| log.opens() == n);
    settle(&mut reactor);
    let tokens = log.opened();
    *act.borrow_mut() = Some(make(tokens.clone().into()));
    for client in &mut clients {
        client.write_all(b"!").unwrap();
    }
    (reactor, clients, tokens)
}

fn closed_order(log: &Log) -> Vec<Token> {
    let closes = log.all().into_iter().filter(|(_, told)| matches!(told, Told::Close(..)));
    closes.map(|(token, _)| token).collect()
}

/// The slot a token names, without its generation.
fn index(token: Token) -> String {
    token.to_string().split('.').next().unwrap().to_owned()
}
