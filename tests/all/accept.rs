//! Accepting: nobody is lost, the filter and the factory see who knocks, limits hold, and no error
//! of accept(2) ends a listener or makes it spin.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use tidegate::{
    CloseReason, Config, Error, Handler, Listen, ListenerStats, Peer, Reactor, SocketOptions,
    StreamOptions, Token,
};

use crate::support::child::in_a_process_of_its_own;
use crate::support::endpoints::{assert_asleep, assert_falls_asleep};
#[cfg(unix)]
use crate::support::sockets::hoard_descriptors;
use crate::support::sockets::small_client;
use crate::support::{
    Log, Probe, address_of, client, is_data, listening, read_all, read_n, reset, settle, until,
    with_client,
};

// ---- nobody is lost ----

// row 14: more knock than one turn accepts, and no further event announces them
#[test]
fn an_accept_budget_of_one_serves_all_who_wait() {
    let log = Log::new();
    let of_handler = log.clone();
    let config = Config::new().accepts_per_turn(1);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", move |_| Probe::echo(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut clients = knock(address, 20);
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert!(stats(&mut reactor, listener).accepted <= 1, "the budget holds");
    until(&mut reactor, "all to be served", |_| log.count(is_data) == 20);
    assert_falls_asleep(&mut reactor);
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(read_n(client, 1), [i as u8]);
    }
}

// row 14: those who wait at the limit keep what they sent meanwhile, their end included
#[test]
fn a_connection_that_waits_at_the_limit_loses_nothing() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = limited(1, move |_| Probe::echo(&of_handler));
    let mut first = client(address);
    until(&mut reactor, "the first", |_| log.opens() == 1);
    let waiting = knock(address, 3);
    for client in &waiting {
        client.shutdown(Shutdown::Write).unwrap();
    }
    assert_falls_asleep(&mut reactor);
    assert_asleep(&mut reactor);
    assert_eq!((log.opens(), stats(&mut reactor, listener).open), (1, 1), "the limit holds");

    first.write_all(b"and now?").unwrap();
    until(&mut reactor, "the first to be served", |_| log.count(is_data) == 1);
    drop(first);
    let answers = with_client(&mut reactor, move || {
        waiting.into_iter().map(|mut stream| read_all(&mut stream)).collect::<Vec<_>>()
    });
    assert_eq!(answers, [[0], [1], [2]]);
    until(&mut reactor, "all to end", |_| log.closes() == 4);
    assert_eq!(stats(&mut reactor, listener).open, 0);
}

#[test]
fn one_who_went_away_before_being_accepted_harms_nobody() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = listening(move || Probe::echo(&of_handler));
    for _ in 0..5 {
        reset(client(address));
    }
    let mut stays = client(address);
    stays.write_all(b"me").unwrap();
    until(&mut reactor, "the one who stays", |_| log.data() == b"me");
    let seen = stats(&mut reactor, listener);
    until(&mut reactor, "the others to end", |_| log.closes() == log.opens() - 1);
    assert_eq!(seen.accepted + seen.transient_errors, 6, "{seen:?}");
    assert!(reactor.net().is_open(listener));
}

// ---- who is let in ----

#[test]
fn the_filter_refuses_before_a_handler_is_made() {
    let made = Rc::new(RefCell::new(Vec::new()));
    let of_factory = Rc::clone(&made);
    let mut reactor = Reactor::with_state(0_u32).unwrap();
    let log = Log::new();
    let listen = Listen::tcp("127.0.0.1:0").filter(|peer: &Peer<'_>, knocks: &mut u32| {
        assert!(peer.address().socket_addr().unwrap().ip().is_loopback());
        *knocks += 1;
        *knocks != 2
    });
    let listener = reactor
        .net()
        .listen(listen, move |peer| {
            of_factory.borrow_mut().push(peer.token());
            Probe::new(&log)
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let mut clients: Vec<_> = (0..3).map(|_| client(address)).collect();
    until(&mut reactor, "all to be judged", |reactor| *reactor.state() == 3);
    assert_eq!(made.borrow().len(), 2);
    let seen = stats(&mut reactor, listener);
    assert_eq!((seen.accepted, seen.refused, seen.open), (3, 1, 2), "{seen:?}");
    assert_eq!(read_all(&mut clients[1]), b"", "the socket is closed");
    assert_eq!(reactor.net().connection_count(), 2);
}

#[test]
fn a_filter_that_panics_refuses_and_a_factory_that_panics_costs_its_connection() {
    let failed = Rc::new(RefCell::new(Vec::new()));
    let of_hook = Rc::clone(&failed);
    let log = Log::new();
    let of_handler = log.clone();
    let mut knocks = 0;
    let mut made = 0;
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0")
        .filter(move |_, ()| {
            knocks += 1;
            assert_ne!(knocks, 1, "a bug in the filter");
            true
        })
        .on_unopened(move |peer, reason: &CloseReason, ()| {
            of_hook.borrow_mut().push((peer.token(), reason.to_string()));
        });
    let listener = reactor
        .net()
        .listen(listen, move |_| {
            made += 1;
            assert_ne!(made, 1, "a bug in the factory");
            Probe::echo(&of_handler)
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let mut clients = knock(address, 3);
    until(&mut reactor, "the third to be served", |_| log.count(is_data) == 1);
    assert_eq!(read_n(&mut clients[2], 1), [2]);
    assert!(ends(&mut clients[0]) && ends(&mut clients[1]));
    let failed = failed.borrow();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].1.contains("a bug in the factory"), "{failed:?}");
    assert_eq!(stats(&mut reactor, listener).open, 1);
}

// C13
#[cfg(feature = "websocket")]
#[test]
fn every_peer_that_passed_the_filter_has_exactly_one_end_that_a_hook_hears() {
    use tidegate::layer::websocket::WebSocket;

    let counts = Rc::new(RefCell::new((0, Vec::new())));
    let (of_filter, of_hook) = (Rc::clone(&counts), Rc::clone(&counts));
    let log = Log::new();
    let of_handler = log.clone();
    let server = WebSocket::server();
    let (mut layers, mut handlers) = (0, 0);
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0")
        .options(StreamOptions::new().handshake_limit(4096))
        .filter(move |_, ()| {
            of_filter.borrow_mut().0 += 1;
            true
        })
        .layer(move |_| {
            layers += 1;
            assert_ne!(layers, 1, "a bug in the layer's hook");
            server.layer()
        })
        .on_unopened(move |peer, reason: &CloseReason, ()| {
            assert!(peer.address().socket_addr().is_some());
            of_hook.borrow_mut().1.push(reason.to_string());
        });
    let listener = reactor
        .net()
        .listen(listen, move |_| {
            handlers += 1;
            assert_ne!(handlers, 1, "a bug in the factory");
            Probe::new(&of_handler)
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let page = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let said = ["", upgrade, upgrade, page, "nonsense\r\n\r\n", ""];
    for (index, request) in said.into_iter().enumerate() {
        let mut peer = client(address);
        peer.write_all(request.as_bytes()).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let ends = |counts: &(usize, Vec<String>)| counts.1.len() + log.closes();
        until(&mut reactor, "its one end", |_| ends(&counts.borrow()) == index + 1);
        drop(peer);
    }
    // One more is under way when the listener closes.
    let _silent = client(address);
    until(&mut reactor, "the last", |_| counts.borrow().0 == said.len() + 1);
    reactor.net().close(listener);
    until(&mut reactor, "the end of all", |r| r.net().connection_count() == 0);
    settle(&mut reactor);
    let (passed, unopened) = &*counts.borrow();
    assert_eq!(*passed, unopened.len() + log.closes(), "{unopened:?}");
    assert_eq!((log.opens(), log.closes(), unopened.len()), (1, 1, 6), "{unopened:?}");
    assert!(unopened[0].contains("a bug in the layer's hook"), "{unopened:?}");
    assert!(unopened[1].contains("a bug in the factory"), "{unopened:?}");
    assert!(unopened.iter().any(|reason| reason == "both sides ended"), "the page: {unopened:?}");
}

#[test]
fn the_factory_is_told_who_it_is_for_and_may_make_unlike_handlers() {
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let of_factory = log.clone();
    let expected = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&expected);
    let listener = reactor
        .net()
        .listen("127.0.0.1:0", move |peer| -> Box<dyn Handler> {
            told.borrow_mut().push((peer.token(), peer.listener(), peer.address().clone()));
            if told.borrow().len().is_multiple_of(2) {
                Box::new(Probe::new(&of_factory))
            } else {
                Box::new(Probe::echo(&of_factory))
            }
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let mut clients = knock(address, 2);
    until(&mut reactor, "both", |_| log.count(is_data) == 2);
    assert_eq!(read_n(&mut clients[0], 1), [0], "the first handler echoes");
    let told = expected.borrow();
    assert_eq!(told.iter().map(|(token, ..)| *token).collect::<Vec<_>>(), log.opened());
    for ((_, from, who), client) in told.iter().zip(&clients) {
        assert_eq!((*from, who.socket_addr().unwrap()), (listener, client.local_addr().unwrap()));
    }
}

#[test]
fn the_limit_holds_and_a_place_that_frees_is_taken_at_once() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = limited(2, move |_| Probe::echo(&of_handler));
    let mut clients: Vec<_> = (0..6).map(|_| client(address)).collect();
    for round in 0..4 {
        until(&mut reactor, "two open", |_| log.opens() == round + 2);
        assert_falls_asleep(&mut reactor);
        assert_eq!(stats(&mut reactor, listener).open, 2);
        drop(clients.remove(0));
    }
    until(&mut reactor, "the last but one to end", |_| log.closes() == 4);
    drop(clients);
    until(&mut reactor, "all to end", |_| log.closes() == 6);
    let seen = stats(&mut reactor, listener);
    assert_eq!((seen.accepted, seen.open), (6, 0), "{seen:?}");
}

// ---- listeners come and go ----

// row 41: not even in the middle of a batch, and those who wait do not keep the loop awake
#[test]
fn a_paused_listener_takes_nobody_until_it_is_resumed() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = limited(usize::MAX, move |peer| {
        let listener = peer.listener();
        Probe::echo(&of_handler).open(move |cx| {
            cx.net.pause(listener);
            Ok(())
        })
    });
    reactor.net().pause(listener);
    let mut clients = knock(address, 3);
    for accepted in 0..=3 {
        until(&mut reactor, "the next one", |_| log.count(is_data) == accepted);
        assert_falls_asleep(&mut reactor);
        assert_asleep(&mut reactor);
        assert_eq!(stats(&mut reactor, listener).accepted, accepted as u64);
        reactor.net().resume(listener);
    }
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(read_n(client, 1), [i as u8]);
    }
}

#[test]
fn a_closed_listener_takes_nobody_and_keeps_those_it_has() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = listening(move || Probe::echo(&of_handler));
    let mut first = client(address);
    until(&mut reactor, "the first", |_| log.opens() == 1);
    reactor.net().close(listener);
    assert!(!reactor.net().is_open(listener));
    settle(&mut reactor);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    first.write_all(b"still served").unwrap();
    let answer = with_client(&mut reactor, move || read_n(&mut first, 12));
    assert_eq!(answer, b"still served");
    assert!(reactor.net().listener_stats(listener).is_none());
}

#[test]
fn a_handler_closes_its_own_listener_in_the_middle_of_an_accept() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .net()
        .listen("127.0.0.1:0", move |peer| {
            let listener = peer.listener();
            Probe::echo(&of_handler).open(move |cx| {
                cx.net.close(listener);
                Ok(())
            })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let mut clients = knock(address, 3);
    until(&mut reactor, "the first to be served", |_| log.count(is_data) == 1);
    settle(&mut reactor);
    assert_eq!(log.opens(), 1, "those behind it are not accepted any more");
    assert_eq!(read_n(&mut clients[0], 1), [0]);
    assert!(ends(&mut clients[1]) && ends(&mut clients[2]));
}

// row 22
#[test]
fn listening_twice_on_one_address_is_an_error_and_the_first_listener_lives_on() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = listening(move || Probe::echo(&of_handler));
    let error = reactor.net().listen(address, |_| Probe::new(&Log::new())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let mut stream = client(address);
    stream.write_all(b"one").unwrap();
    until(&mut reactor, "the echo", |_| log.data() == b"one");
    assert_eq!(stats(&mut reactor, listener).accepted, 1);
}

// row 22: with the same address twice in one call nothing is left behind
#[test]
fn an_address_twice_in_one_listener_undoes_the_whole() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut reactor = Reactor::new().unwrap();
    let twice: &[SocketAddr] = &[free, free];
    let error = reactor.net().listen(Listen::tcp(twice), |_| Probe::new(&Log::new())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert_eq!(TcpStream::connect(free).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn one_listener_serves_several_addresses() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let two: &[SocketAddr] = &["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let listener =
        reactor.net().listen(Listen::tcp(two), move |_| Probe::echo(&of_handler)).unwrap();
    let addresses: Vec<_> =
        reactor.net().local_addrs(listener).iter().map(|a| a.socket_addr().unwrap()).collect();
    assert_eq!(addresses.len(), 2);
    assert_ne!(addresses[0], addresses[1]);
    let mut clients: Vec<_> =
        [0, 1, 1, 0].into_iter().flat_map(|i| knock(addresses[i], 1)).collect();
    until(&mut reactor, "all to be served", |_| log.count(is_data) == 4);
    for client in &mut clients {
        assert_eq!(read_n(client, 1), [0]);
    }
    assert_eq!(stats(&mut reactor, listener).open, 4);
    reactor.net().close(listener);
    settle(&mut reactor);
    for address in addresses {
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

// budgets, under constant load: the events of many turns do not add up
#[test]
fn an_accept_budget_holds_however_many_events_came() {
    let config = Config::new().accepts_per_turn(2);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", |_| Probe::new(&Log::new())).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut crowd: Vec<_> = (0..20).map(|_| client(address)).collect();
    for _ in 0..20 {
        let before = stats(&mut reactor, listener).accepted;
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(stats(&mut reactor, listener).accepted - before <= 2);
        crowd.extend((0..4).map(|_| client(address)));
    }
}

// fairness: one address that is always busy does not starve the other
#[test]
fn a_busy_address_does_not_starve_the_listeners_other_address() {
    let config = Config::new().accepts_per_turn(4);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let two: &[SocketAddr] = &["127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
    let served = Rc::new(RefCell::new(Vec::new()));
    let of_factory = Rc::clone(&served);
    let listener = reactor
        .net()
        .listen(Listen::tcp(two), move |peer| {
            of_factory.borrow_mut().push(peer.address().socket_addr().unwrap());
            Probe::new(&Log::new())
        })
        .unwrap();
    let addresses = reactor.net().local_addrs(listener);
    let busy = addresses[0].socket_addr().unwrap();
    let mut crowd: Vec<_> = (0..16).map(|_| client(busy)).collect();
    let quiet = client(addresses[1].socket_addr().unwrap());
    for _ in 0..10 {
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
        crowd.extend((0..8).map(|_| client(busy))); // as many as a turn accepts at most
    }
    assert!(served.borrow().contains(&quiet.local_addr().unwrap()));
}

// row 23
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn reuse_port_spreads_connections_over_listeners() {
    let options = StreamOptions::new().socket_options(SocketOptions::new().reuse_port(true));
    let log = Log::new();
    let mut reactors = Vec::new();
    let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    for _ in 0..2 {
        let of_handler = log.clone();
        let mut reactor = Reactor::new().unwrap();
        let listen = Listen::tcp(address).options(options.clone());
        let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
        address = address_of(&mut reactor, listener);
        reactors.push((reactor, listener));
    }
    let _clients: Vec<_> = (0..64).map(|_| client(address)).collect();
    for (reactor, _) in &mut reactors {
        settle(reactor);
    }
    let each: Vec<_> = reactors.iter_mut().map(|(r, l)| stats(r, *l).accepted).collect();
    assert_eq!(each.iter().sum::<u64>(), 64);
    assert!(each.iter().all(|&n| n > 0), "{each:?}"); // by chance false once in 2^63
}

// ---- adopted sockets ----

// row 24
#[test]
fn a_socket_that_listens_already_is_adopted_with_those_who_wait_at_it() {
    let activated = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = activated.local_addr().unwrap();
    let mut early = knock(address, 1);
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::adopt(activated);
    let listener = reactor.net().listen(listen, move |_| Probe::echo(&of_handler)).unwrap();
    assert_eq!(address_of(&mut reactor, listener), address);
    until(&mut reactor, "the early one", |_| log.count(is_data) == 1);
    assert_eq!(read_n(&mut early[0], 1), [0]);
    let _late = knock(address, 1);
    until(&mut reactor, "the late one", |_| log.count(is_data) == 2);
}

// row 24
#[test]
fn an_adopted_listeners_connections_get_the_options_that_were_asked_for() {
    let activated = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = activated.local_addr().unwrap();
    let _early = small_client(address);
    let mut reactor = Reactor::new().unwrap();
    let options = StreamOptions::new().socket_options(SocketOptions::new().send_buffer(8192));
    let listen = Listen::adopt(activated).options(options);
    let log = Log::new();
    let of_handler = log.clone();
    let make = move |_: &Peer<'_>| {
        Probe::new(&of_handler).open(|cx| {
            cx.send(vec![1; 1 << 20]);
            Ok(())
        })
    };
    reactor.net().listen(listen, make).unwrap();
    let _late = small_client(address);
    until(&mut reactor, "both", |_| log.opens() == 2);
    settle(&mut reactor);
    // What the system took says how large its buffer is. Without the option it takes all of it.
    for token in log.opened() {
        let taken = (1 << 20) - reactor.net().queued(token);
        assert!((1..100_000).contains(&taken), "{taken}");
    }
}

// row 24
#[test]
fn a_connected_socket_is_adopted_with_what_waits_in_it() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = client(server.local_addr().unwrap());
    let (mut theirs, _) = server.accept().unwrap();
    theirs.write_all(b"early").unwrap();
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let token = reactor.net().adopt(ours, Probe::echo(&log)).unwrap();
    reactor.net().send(token, b"first ");
    assert_eq!(log.told(), [], "not before adopt has returned");
    until(&mut reactor, "the data", |_| log.data() == b"early");
    assert_eq!(read_n(&mut theirs, 11), b"first early");
    drop(theirs);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!((log.opens(), log.eofs()), (1, 1));
}

// row 24
#[cfg(unix)]
#[test]
fn a_socket_that_is_registered_already_is_not_adopted() {
    use std::os::fd::AsRawFd;
    use tidegate::mio::{Interest, unix::SourceFd};

    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = client(server.local_addr().unwrap());
    let descriptor: &'static i32 = Box::leak(Box::new(ours.as_raw_fd()));
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let first = reactor
        .net()
        .register_source(SourceFd(descriptor), Interest::READABLE, |_, _, _| Ok(()))
        .unwrap();
    let error = reactor.net().adopt(ours, Probe::new(&log)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().starts_with("cannot adopt the socket: "), "{error}");
    reactor.net().close(first);
    settle(&mut reactor);
    assert_eq!(log.told(), [], "nobody is told of what was refused");
    assert_eq!(reactor.net().connection_count(), 0);
}

// row 24
#[test]
fn a_socket_that_is_not_connected_is_not_adopted() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let mut reactor = Reactor::new().unwrap();
    let stream = TcpStream::from(socket);
    let error = reactor.net().adopt(stream, Probe::new(&Log::new())).unwrap_err();
    assert!(error.to_string().contains("it is not connected"), "{error}");
}

// ---- descriptors run out ----

// row 13
#[cfg(unix)]
#[test]
fn descriptor_exhaustion_neither_spins_nor_ends_and_service_resumes() {
    if !in_a_process_of_its_own(descriptor_exhaustion_neither_spins_nor_ends_and_service_resumes) {
        return;
    }
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = listening(move || Probe::echo(&of_handler));
    let mut clients = knock(address, 4);
    let hoard = hoard_descriptors(1); // one is left

    // One is accepted; the next one finds no descriptor. The reactor sleeps then and stays open.
    until(&mut reactor, "the exhaustion", |r| stats(r, listener).exhausted > 0);
    until(&mut reactor, "the first", |_| log.count(is_data) == 1);
    assert_eq!((log.opens(), read_n(&mut clients[0], 1)), (1, vec![0]));
    assert_falls_asleep(&mut reactor);
    assert!(reactor.net().is_open(listener));

    // A connection that ends here frees one: it is used in the next turn, long before the back-off
    // is over.
    clients[0].shutdown(Shutdown::Write).unwrap(); // its own descriptor stays in use
    until(&mut reactor, "the end of the first", |_| log.closes() == 1);
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(log.opens(), 2, "{:?}", stats(&mut reactor, listener));

    // What others free is noticed when the back-off is over.
    let before = stats(&mut reactor, listener);
    drop(hoard);
    until(&mut reactor, "all to be served", |_| log.count(is_data) == 4);
    let after = stats(&mut reactor, listener);
    assert!(after.exhausted <= before.exhausted + 1, "{after:?}");
    assert_eq!((after.accepted, after.open), (4, 3));
    assert_falls_asleep(&mut reactor);
    assert_eq!(reactor.next_deadline(), None, "the back-off is over for good");
}

// row 13: exhausted for a long time, and more knock meanwhile
#[cfg(unix)]
#[test]
fn a_long_exhaustion_costs_a_few_tries_and_no_more() {
    if !in_a_process_of_its_own(a_long_exhaustion_costs_a_few_tries_and_no_more) {
        return;
    }
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = listening(move || Probe::echo(&of_handler));
    let mut clients = knock(address, 1);
    let hoard = hoard_descriptors(0);
    let start = std::time::Instant::now();
    until(&mut reactor, "four tries", |reactor| stats(reactor, listener).exhausted >= 4);
    // 100 ms between tries.
    assert!(start.elapsed() >= Duration::from_millis(250), "{:?}", start.elapsed());
    drop(hoard);
    until(&mut reactor, "service", |_| log.count(is_data) == 1);
    assert_eq!(read_n(&mut clients[0], 1), [0]);
}

// row 13: on the other side, a connect that finds no descriptor is reported to its handler
#[cfg(unix)]
#[test]
fn a_connect_without_a_descriptor_is_told_to_its_handler() {
    if !in_a_process_of_its_own(a_connect_without_a_descriptor_is_told_to_its_handler) {
        return;
    }
    let log = Log::new();
    let (mut reactor, _, address) = listening(|| Probe::new(&Log::new()));
    let hoard = hoard_descriptors(0);
    reactor.net().connect(address, Probe::new(&log)).unwrap();
    until(&mut reactor, "the result", |_| log.closes() == 1);
    assert!(log.reasons()[0].contains("Too many open files"), "{:?}", log.reasons());
    let error = reactor.net().listen("127.0.0.1:0", |_| Probe::new(&Log::new())).unwrap_err();
    assert!(error.to_string().contains("Too many open files"), "{error}");
    drop(hoard);
    reactor.net().connect(address, Probe::new(&log)).unwrap();
    until(&mut reactor, "the opening", |_| log.opens() == 1);
}

// ---- what these tests share ----

/// Clients that each send one byte: their number.
fn knock(address: SocketAddr, n: u8) -> Vec<TcpStream> {
    let with_number = |i| {
        let mut stream = client(address);
        stream.write_all(&[i]).unwrap();
        stream
    };
    (0..n).map(with_number).collect()
}

fn limited<H: Handler + 'static>(
    connections: usize,
    make: impl FnMut(&Peer<'_>) -> H + 'static,
) -> (Reactor, Token, SocketAddr) {
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").connection_limit(connections);
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, listener, address)
}

fn stats<S>(reactor: &mut Reactor<S>, listener: Token) -> ListenerStats {
    reactor.net().listener_stats(listener).unwrap()
}

/// Whether the server has closed or reset it, without another byte.
fn ends(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() == ErrorKind::ConnectionReset,
    }
}

// C6
#[test]
fn a_shutdown_serves_those_who_were_accepted_by_the_system_already() {
    let log = Log::new();
    let of_handler = log.clone();
    let config = Config::new().accepts_per_turn(1);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", move |_| Probe::echo(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    let clients = knock(address, 5);
    reactor.net().shutdown(crate::support::PATIENCE);
    let reading = std::thread::spawn(move || {
        clients.into_iter().map(|mut client| read_n(&mut client, 1)[0]).collect::<Vec<_>>()
    });
    let report = reactor.run().unwrap();
    assert_eq!(reading.join().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!((report.connections_cut, log.opens(), log.closes()), (0, 5, 5));
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

// C6: a listener that takes nobody, and one without anybody, do not hold the end up
#[test]
fn a_shutdown_does_not_wait_for_listeners_that_take_nobody() {
    let mut reactor = Reactor::new().unwrap();
    let on = "127.0.0.1:0";
    let paused = reactor.net().listen(on, |_| Probe::new(&Log::new())).unwrap();
    let _idle = reactor.net().listen(on, |_| Probe::new(&Log::new())).unwrap();
    reactor.net().pause(paused);
    let mut waiting = client(address_of(&mut reactor, paused));
    reactor.net().shutdown(crate::support::PATIENCE);
    assert_eq!(reactor.run().unwrap().connections_cut, 0);
    assert!(ends(&mut waiting));
    assert!(!reactor.net().is_open(paused));
}

// D3
#[test]
fn close_frees_the_address_of_a_listener_when_it_returns() {
    // The port is one that the system chooses for anybody: another test's connection may get it
    // between the two calls. Not each time.
    let freed = (0..5).map(|_| listens_again()).find(Result::is_ok);
    freed.expect("the address is free").unwrap();
}

/// Closes a listener inside a callback and listens on its address at once.
fn listens_again() -> Result<(), Error> {
    let again = Rc::new(RefCell::new(None));
    let of_handler = Rc::clone(&again);
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor
        .net()
        .listen("127.0.0.1:0", move |peer| {
            let (listener, again) = (peer.listener(), Rc::clone(&of_handler));
            Probe::new(&Log::new()).open(move |cx| {
                let address = cx.net.local_addr(listener).unwrap().socket_addr().unwrap();
                cx.net.close(listener);
                assert_eq!(cx.net.local_addr(listener), None);
                let new = cx.net.listen(address, |_| Probe::new(&Log::new()));
                *again.borrow_mut() = Some(new.map(|token| cx.net.local_addr(token)));
                Ok(())
            })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let _peer = client(address);
    until(&mut reactor, "the opening", |_| again.borrow().is_some());
    let again = again.borrow_mut().take().unwrap();
    assert_eq!(again?, Some(address.into()));
    Ok(())
}

// D9
#[cfg(target_os = "linux")]
#[test]
fn adopting_what_does_not_listen_is_an_error_of_the_call() {
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::adopt(TcpListener::from(bound));
    let error = reactor.net().listen(listen, |_| Probe::new(&Log::new())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("does not listen"), "{error}");
}

// D9
#[cfg(target_os = "linux")]
#[test]
fn an_adopted_socket_is_closed_on_exec() {
    use std::os::fd::AsRawFd;
    const O_CLOEXEC: u32 = 0o2_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let fd = listener.as_raw_fd();
    socket2::SockRef::from(&listener).set_cloexec(false).unwrap();
    let flags = || {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        u32::from_str_radix(line.trim(), 8).unwrap()
    };
    assert_eq!(flags() & O_CLOEXEC, 0);
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::adopt(listener);
    reactor.net().listen(listen, |_| Probe::new(&Log::new())).unwrap();
    assert_eq!(flags() & O_CLOEXEC, O_CLOEXEC);
}
