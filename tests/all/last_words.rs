//! What a format says at the end: TLS a close_notify behind the last words, WebSocket a code.
#![cfg(all(feature = "tls", feature = "websocket"))]

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate::layer::tls::rustls;
use tidegate::layer::websocket::{HttpResponse, PeerClose, WebSocket};
use tidegate::layer::{Layer, Lines};
use tidegate::{Connect, Context, Listen, Net, Peer, Reactor, StreamOptions};

use crate::support::panics::panic_on_purpose;
use crate::support::{Log, Probe, address_of, client, reset, secure, until, with_client};

/// What a client of another making reads to the end: all of it if there is a close_notify, else an
/// error (RFC 8446 section 6.1).
fn heard_over_tls(address: SocketAddr, say: &[u8]) -> std::io::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(secure::roots())
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(tls, client(address));
    stream.write_all(say).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).map(|_| heard)
}

type Shape = fn(Probe) -> Probe;

/// Serves one client over TLS; checks that it hears the end, behind `words`; returns the reason.
#[track_caller]
fn assert_said(listen: Listen, shape: Shape, say: &str, words: &str) -> String {
    let log = Log::new();
    let reasons = Rc::new(RefCell::new(Vec::new()));
    let (of_handler, of_hook) = (log.clone(), Rc::clone(&reasons));
    let mut reactor = Reactor::new().unwrap();
    let listen = listen.on_unopened(move |_: &Peer<'_>, reason, _| {
        of_hook.borrow_mut().push(reason.to_string());
    });
    let make = move |_: &Peer<'_>| shape(Probe::new(&of_handler));
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    let say = say.as_bytes().to_vec();
    let heard = with_client(&mut reactor, move || heard_over_tls(address, &say));
    until(&mut reactor, "the end", |reactor| reactor.net().connection_count() == 0);
    reasons.borrow_mut().extend(log.reasons());
    let reason = reasons.borrow().concat();
    match heard {
        Ok(heard) => {
            let heard = String::from_utf8_lossy(&heard);
            assert!(heard.starts_with(words), "{reason}: heard {heard:?}");
        }
        Err(e) => panic!("{reason}: expected a close_notify, got {e}"),
    }
    reason
}

fn tls() -> Listen {
    Listen::tcp("127.0.0.1:0").layer(|_| secure::server())
}

fn web(server: tidegate::layer::websocket::WebSocketServer) -> Listen {
    Listen::tcp("127.0.0.1:0").layer(move |_| secure::server().then(server.layer()))
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

// row 104
#[test]
fn an_error_of_a_layer_above_tls() {
    let lines =
        || Listen::tcp("127.0.0.1:0").layer(|_| secure::server().then(Lines::new().line_limit(8)));
    let echo: Shape = |probe| {
        probe.data(|cx, input| {
            cx.send(input.take_all());
            Ok(())
        })
    };
    let reason = assert_said(lines(), echo, "first\n123456789\n", "first\n");
    assert!(reason.contains("lines"), "{reason}");
}

// row 104
#[test]
fn an_answer_that_refuses_a_websocket() {
    let plain: Shape = |probe| probe;
    let refusing = WebSocket::server().filter(|_| Err(HttpResponse::text(404, "none\n")));
    assert_said(web(refusing), plain, UPGRADE, "HTTP/1.1 404 ");
    assert_said(web(WebSocket::server()), plain, "no HTTP\r\n\r\n", "HTTP/1.1 400 ");
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let listen = web(WebSocket::server()).options(StreamOptions::new().handshake_limit(1 << 20));
    assert_said(listen, plain, &head, "HTTP/1.1 431 ");
    let page = WebSocket::server().answer(|_| HttpResponse::text(200, "a page\n"));
    assert_said(web(page), plain, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 ");
}

// row 104
#[test]
fn a_breach_of_the_websocket_protocol() {
    let bad_frame = "\u{7f}\u{0}"; // a reserved opcode
    let say = format!("{UPGRADE}{bad_frame}");
    let reason = assert_said(web(WebSocket::server()), |probe| probe, &say, "HTTP/1.1 101 ");
    assert!(reason.contains("websocket"), "{reason}");
}

// row 104
#[test]
fn a_deadline_of_a_connection_and_of_a_handshake_above_tls() {
    let short = Duration::from_millis(200);
    let idle = tls().options(StreamOptions::new().idle_timeout(short));
    assert_eq!(assert_said(idle, |probe| probe, "hi", ""), "timed out: no byte moved for too long");
    let slow = web(WebSocket::server()).options(StreamOptions::new().handshake_timeout(short));
    let reason = assert_said(slow, |probe| probe, "GET /", "");
    assert_eq!(reason, "timed out: the handshake was not done in time");
}

// row 104
#[test]
fn a_limit_an_error_and_a_panic() {
    let limit = tls().options(StreamOptions::new().unread_limit(4));
    let reason = assert_said(limit, |probe| probe.data(|_, _| Ok(())), "12345", "");
    assert_eq!(reason, "more unread input than the limit of 4 bytes");
    let fails: Shape = |probe| {
        probe.data(|cx, _| {
            cx.send("words");
            Err("an error".into())
        })
    };
    assert_eq!(assert_said(tls(), fails, "hi", "words"), "an error");
    let panics: Shape = |probe| {
        probe.data(|cx, _| {
            cx.send("words");
            panic_on_purpose()
        })
    };
    assert!(assert_said(tls(), panics, "hi", "words").contains("panicked"));
}

// row 104
#[test]
fn the_own_client_tells_such_an_end_from_a_cut() {
    let log = Log::new();
    let mut reactor = Reactor::new().unwrap();
    let listen = tls().options(StreamOptions::new().idle_timeout(Duration::from_millis(200)));
    let listener = reactor.net().listen(listen, |_| Probe::new(&Log::new())).unwrap();
    let address = address_of(&mut reactor, listener);
    let connect = Connect::tcp(address).layer(secure::client());
    reactor.net().connect(connect, Probe::new(&log)).unwrap();
    until(&mut reactor, "the end", |_| log.closes() == 1);
    assert_eq!((log.eofs(), log.reasons()), (1, vec!["both sides ended".to_owned()]));
}

// row 104
#[test]
fn a_relay_that_is_cut_says_no_proper_end() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = target.local_addr().unwrap();
    let mut reactor = Reactor::new().unwrap();
    let make = move |_: &Peer<'_>| {
        Probe::new(&Log::new()).open(move |cx| {
            let target = cx.net.connect(to, Probe::new(&Log::new()))?;
            assert!(cx.net.relay(cx.token, target));
            Ok(())
        })
    };
    let listener = reactor.net().listen(tls(), make).unwrap();
    let address = address_of(&mut reactor, listener);
    let cut = std::thread::spawn(move || {
        let mut stream: TcpStream = target.accept().unwrap().0;
        stream.read_exact(&mut [0; 2]).unwrap();
        reset(stream);
    });
    let heard = with_client(&mut reactor, move || heard_over_tls(address, b"hi"));
    cut.join().unwrap();
    let error = heard.unwrap_err().kind();
    let cut = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
    assert!(cut.contains(&error), "{error:?}");
}

/// What the server's end is for a client: the code and the reason of its Close frame.
fn close_heard(
    shape: Shape,
    end: impl FnOnce(Reactor, &mut dyn FnMut(&mut Reactor)),
) -> (Option<u16>, String) {
    let heard = Rc::new(RefCell::new(None));
    let hears = Rc::clone(&heard);
    let log = Log::new();
    let of_server = log.clone();
    let mut server = Reactor::new().unwrap();
    let settings = WebSocket::server();
    let listen = Listen::tcp("127.0.0.1:0").layer(move |_| settings.layer());
    let make = move |_: &Peer<'_>| shape(Probe::new(&of_server));
    let listener = server.net().listen(listen, make).unwrap();
    let address = address_of(&mut server, listener);
    let mut peer = Reactor::new().unwrap();
    let probe = Probe::new(&Log::new())
        .open(|cx| {
            cx.send("hi");
            Ok(())
        })
        .close(move |cx: &mut Context<'_>, _| {
            let close = cx.layer_info::<PeerClose>().map(|c| (c.code(), c.reason().to_owned()));
            *hears.borrow_mut() = Some(close.unwrap_or((None, "no Close frame".into())));
        });
    let connect = Connect::tcp(address).layer(WebSocket::client("localhost", "/").layer());
    peer.net().connect(connect, probe).unwrap();
    let mut turn_both = |server: &mut Reactor| {
        let _ = peer.turn(Some(Duration::from_millis(1))).unwrap();
        let _ = server.turn(Some(Duration::from_millis(1))).unwrap();
    };
    while log.opens() == 0 || log.count(crate::support::is_data) == 0 {
        turn_both(&mut server);
    }
    let mut last = |server: &mut Reactor| {
        turn_both(server);
    };
    end(server, &mut last);
    until(&mut peer, "the client's end", |_| heard.borrow().is_some());
    heard.take().unwrap()
}

/// Turns both until nothing is left at the server.
fn run_out(mut server: Reactor, turn: &mut dyn FnMut(&mut Reactor)) {
    while server.net().connection_count() > 0 {
        turn(&mut server);
    }
}

fn with_net(act: impl FnOnce(&mut Net)) -> impl FnOnce(Reactor, &mut dyn FnMut(&mut Reactor)) {
    move |mut server, turn| {
        act(server.net());
        run_out(server, turn);
    }
}

// row 105
#[test]
fn the_code_of_a_websockets_end_is_true() {
    let plain: Shape = |probe| probe;
    let none = String::new;
    let closes: Shape = |probe| {
        probe.data(|cx, _| {
            cx.close();
            Ok(())
        })
    };
    assert_eq!(close_heard(closes, run_out), (Some(1000), none()));
    let fails: Shape = |probe| probe.data(|_, _| Err("an error".into()));
    assert_eq!(close_heard(fails, run_out), (Some(1011), none()));
    let panics: Shape = |probe| probe.data(|_, _| panic_on_purpose());
    assert_eq!(close_heard(panics, run_out), (Some(1011), none()));
    assert_eq!(close_heard(plain, with_net(Net::close_all)), (Some(1001), none()));
    let shut_down = with_net(|net| net.shutdown(Duration::ZERO));
    assert_eq!(close_heard(plain, shut_down), (Some(1001), none()));
    let dropped = |server: Reactor, _: &mut dyn FnMut(&mut Reactor)| drop(server);
    assert_eq!(close_heard(plain, dropped), (Some(1001), none()));
}

// row 105
#[test]
fn a_handler_chooses_the_code_and_the_reason() {
    let chooses: Shape = |probe| {
        probe.data(|cx, _| {
            cx.close_with(4001, "come back tomorrow");
            Ok(())
        })
    };
    assert_eq!(close_heard(chooses, run_out), (Some(4001), "come back tomorrow".into()));
    // One that no frame may carry leaves none.
    let forbidden: Shape = |probe| {
        probe.data(|cx, _| {
            cx.close_with(1006, "never");
            Ok(())
        })
    };
    assert_eq!(close_heard(forbidden, run_out), (None, String::new()));
    // An error behind it is what the connection ends for, and the code was chosen before.
    let fails: Shape = |probe| {
        probe.data(|cx, _| {
            cx.close_with(4002, "chosen");
            Err("an error".into())
        })
    };
    assert_eq!(close_heard(fails, run_out), (Some(4002), "chosen".into()));
}
