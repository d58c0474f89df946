//! What layers learn of a peer reaches the factory, the handler and the hook for failures.
#![cfg(all(feature = "tls", feature = "websocket"))]

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;

use tidegate::layer::Layer;
use tidegate::layer::tls::{Fingerprint, TlsInfo, TlsVersion};
use tidegate::layer::websocket::{HttpRequest, PeerClose, Upgrade, WebSocket};
use tidegate::{Address, CloseReason, Connect, Listen, Reactor};

use crate::support::{Log, Probe, address_of, client, read_all, secure, until, with_client};

type Notes = Rc<RefCell<Vec<String>>>;

fn noting() -> (Notes, Notes) {
    let notes = Notes::default();
    (Rc::clone(&notes), notes)
}

/// The layers of the whole stack are asked, by the factory before there is a handler, by the handler
/// from `on_open` to `on_close`, and by the token.
#[test]
fn the_factory_and_the_handler_know_certificate_protocol_and_path() {
    let mut reactor = Reactor::new().unwrap();
    let (notes, of_factory) = noting();
    let (log, of_handlers) = (Log::new(), Log::new());
    let log_of_server = of_handlers.clone();
    let web = WebSocket::server().subprotocols(["superchat"]).keep_request(true);
    let listen = Listen::tcp("127.0.0.1:0")
        .filter(|peer, ()| {
            assert!(peer.layer_info::<TlsInfo>().is_none(), "nothing is known yet");
            true
        })
        .layer(move |peer| {
            assert!(peer.layer_info::<TlsInfo>().is_none());
            secure::demanding_server().then(web.layer())
        });
    let make = move |peer: &tidegate::Peer<'_>| {
        let tls = peer.layer_info::<TlsInfo>().unwrap();
        let request = peer.layer_info::<HttpRequest>().unwrap();
        of_factory.borrow_mut().push(format!(
            "{} {} {}",
            String::from_utf8_lossy(tls.alpn().unwrap()),
            tls.server_name().unwrap(),
            request.target()
        ));
        assert!(peer.layer_info::<String>().is_none(), "a type that no layer answers to");
        let fingerprint = tls.peer_fingerprint().unwrap();
        let of_close = Rc::clone(&of_factory);
        Probe::new(&of_handlers)
            .open(move |cx| {
                let tls = cx.layer_info::<TlsInfo>().unwrap();
                assert_eq!(tls.version(), TlsVersion::V1_3);
                assert_eq!(tls.peer_certificate().map(Fingerprint::of), Some(fingerprint));
                assert_eq!(cx.layer_info::<HttpRequest>().unwrap().path(), "/room");
                assert_eq!(cx.layer_info::<Upgrade>().unwrap().subprotocol(), Some("superchat"));
                assert!(cx.layer_info::<PeerClose>().is_none(), "not closed yet");
                Ok(())
            })
            .close(move |cx, closed| {
                let close = cx.layer_info::<PeerClose>().unwrap();
                of_close.borrow_mut().push(format!("{:?}, {closed}", close.code()));
            })
    };
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);

    let web = WebSocket::client("localhost", "/room?name=anna").subprotocols(["superchat"]);
    let layer = secure::certified_client().then(web.layer());
    let probe = Probe::new(&log).open(|cx| {
        assert_eq!(cx.layer_info::<TlsInfo>().unwrap().alpn(), Some(&b"chat/1"[..]));
        assert_eq!(cx.layer_info::<Upgrade>().unwrap().subprotocol(), Some("superchat"));
        assert!(cx.layer_info::<HttpRequest>().is_none(), "a client got no request");
        Ok(())
    });
    let token = reactor.net().connect(Connect::tcp(address).layer(layer), probe).unwrap();
    assert!(reactor.net().layer_info::<TlsInfo>(token).is_none(), "before the handshake");
    until(&mut reactor, "both openings", |_| log.opens() == 1 && log_of_server.opens() == 1);
    let accepted = log_of_server.opened()[0];
    assert!(reactor.net().layer_info::<TlsInfo>(token).is_some());
    assert_eq!(
        reactor.net().layer_info::<HttpRequest>(accepted).unwrap().query(),
        Some("name=anna")
    );
    assert_eq!(*notes.borrow(), ["chat/1 localhost /room?name=anna"]);

    reactor.net().close(token);
    until(&mut reactor, "both closes", |_| log.closes() == 1 && log_of_server.closes() == 1);
    assert_eq!(notes.borrow()[1], "Some(1000), both sides ended");
    for gone in [token, accepted] {
        assert!(reactor.net().layer_info::<TlsInfo>(gone).is_none(), "of a token that is gone");
    }
}

#[test]
fn without_layers_there_is_nothing_to_know() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let make = move |peer: &tidegate::Peer<'_>| {
        assert!(peer.layer_info::<TlsInfo>().is_none());
        Probe::new(&of_handler).open(|cx| {
            assert!(
                cx.layer_info::<TlsInfo>().is_none() && cx.layer_info::<HttpRequest>().is_none()
            );
            Ok(())
        })
    };
    let listener = reactor.net().listen("127.0.0.1:0", make).unwrap();
    assert!(reactor.net().layer_info::<TlsInfo>(listener).is_none());
    let _client = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the opening", |_| log.opens() == 1);
}

/// Whoever fails is told to the hook, with the reason, the shared state, and what was learned until
/// then; the counts add up.
#[test]
fn the_hook_for_failures_knows_as_much_as_the_layers() {
    let mut reactor = Reactor::with_state(Vec::new()).unwrap();
    let web = WebSocket::server();
    let listen = Listen::tcp("127.0.0.1:0").layer(move |_| web.layer()).on_unopened(
        |peer, reason, failures: &mut Vec<(Address, String, bool)>| {
            let origin =
                peer.layer_info::<HttpRequest>().and_then(|request| request.header("Origin"));
            let origin = origin.unwrap_or("nobody").to_owned();
            let refused =
                matches!(reason, CloseReason::Layer(e) if e.kind().to_string() == "refused");
            failures.push((peer.address().clone(), origin, refused));
        },
    );
    let log = Log::new();
    let of_handlers = log.clone();
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handlers)).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut expected = Vec::new();
    for (origin, known, refused) in [
        ("Origin: http://elsewhere\r\n\r\n", "http://elsewhere", true),
        ("Origin: http://nowhere\r\n\r\n", "http://nowhere", true),
        ("Origin: http://of.half.a.head\r\n", "nobody", false),
    ] {
        let from = with_client(&mut reactor, move || {
            let mut stream = client(address);
            let head = "GET / HTTP/1.1\r\nHost: here\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            stream.write_all(format!("{head}{origin}").as_bytes()).unwrap();
            let from = stream.local_addr().unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            read_all(&mut stream);
            from
        });
        expected.push((Address::Ip(from), known.to_owned(), refused));
        until(&mut reactor, "the hook", |reactor| reactor.state().len() == expected.len());
    }
    assert_eq!(*reactor.state(), expected);
    assert_eq!(log.told(), [], "no handler was made");
    let stats = reactor.net().listener_stats(listener).unwrap();
    assert_eq!((stats.accepted, stats.failed_handshakes, stats.open), (3, 3, 0));
}

#[test]
fn a_hook_for_failures_that_panics_costs_nobody_anything() {
    let mut reactor = Reactor::new().unwrap();
    let log = Log::new();
    let of_handlers = log.clone();
    let listen = Listen::tcp("127.0.0.1:0")
        .layer(|_| secure::server())
        .on_unopened(|_, reason, ()| panic!("a bug in the hook, told of {reason}"));
    let listener = reactor.net().listen(listen, move |_| Probe::echo(&of_handlers)).unwrap();
    let address = address_of(&mut reactor, listener);
    for _ in 0..3 {
        with_client(&mut reactor, move || {
            let mut stream = client(address);
            stream.write_all(b"this is not TLS").unwrap();
            read_all(&mut stream)
        });
    }
    until(&mut reactor, "three failures", |reactor| {
        reactor.net().listener_stats(listener).unwrap().failed_handshakes == 3
    });
    let heard = Log::new();
    let connect = Connect::tcp(address).layer(secure::client());
    let token = reactor.net().connect(connect, Probe::new(&heard)).unwrap();
    assert!(reactor.net().send(token, "hello").is_accepted());
    until(&mut reactor, "the echo", |_| heard.data() == b"hello");
}

#[cfg(feature = "deflate")]
#[test]
fn the_compression_rate_is_a_fact_of_the_connection() {
    use tidegate::layer::{CompressionRate, Deflate};
    let mut reactor = Reactor::new().unwrap();
    let (log, heard) = (Log::new(), Log::new());
    let of_handlers = log.clone();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| secure::server().then(Deflate::new()));
    let listener = reactor.net().listen(listen, move |_| Probe::echo(&of_handlers)).unwrap();
    let address = address_of(&mut reactor, listener);
    let connect = Connect::tcp(address).layer(secure::client().then(Deflate::new()));
    let token = reactor.net().connect(connect, Probe::new(&heard)).unwrap();
    let text = "the same words again and again, ".repeat(100);
    assert!(reactor.net().send(token, &text).is_accepted());
    until(&mut reactor, "the echo", |_| heard.data().len() == text.len());
    let accepted = log.opened()[0];
    for token in [token, accepted] {
        let rate = reactor.net().layer_info::<CompressionRate>(token).unwrap();
        for volume in [rate.sent(), rate.received()] {
            assert_eq!((volume.messages(), volume.original_bytes()), (1, text.len() as u64));
            assert!(volume.rate().unwrap() < 0.1, "{volume:?}");
        }
    }
}
