//! What the system knows of a TCP connection.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tidegate::stats::TcpInfo;
use tidegate::{
    Context, Handler, HandlerResult, Input, Listen, Reactor, SocketOptions, StreamOptions, Token,
};

use crate::support::until;

/// Sends back what it hears; its state is the tokens of the open ones.
struct Echo;

impl Handler<Vec<Token>> for Echo {
    fn on_open(&mut self, cx: &mut Context<'_, Vec<Token>>) -> HandlerResult {
        cx.state.push(cx.token);
        Ok(())
    }

    fn on_data(
        &mut self,
        cx: &mut Context<'_, Vec<Token>>,
        input: &mut Input<'_>,
    ) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

fn rig(listen: Listen<Vec<Token>>) -> (Reactor<Vec<Token>>, Token, u16) {
    let mut reactor = Reactor::build(Default::default(), |_| Ok(Vec::new())).unwrap();
    let listener = reactor.net().listen(listen, |_| Echo).unwrap();
    let port = reactor.net().local_addr(listener).unwrap().socket_addr().unwrap().port();
    (reactor, listener, port)
}

/// A client whose bytes came back, and what the system knows of the server's end.
fn talked(listen: Listen<Vec<Token>>, host: &str) -> TcpInfo {
    let (mut reactor, listener, port) = rig(listen);
    let mut client = TcpStream::connect((host, port)).unwrap();
    client.write_all(&[7; 5_000]).unwrap();
    until(&mut reactor, "an echo", |reactor| reactor.net().stats().bytes_written >= 5_000);
    let mut echo = [0; 5_000];
    client.read_exact(&mut echo).unwrap();
    // Its acknowledgement is in the echo's, or on its way on loopback.
    client.write_all(b"x").unwrap();
    until(&mut reactor, "another", |reactor| reactor.net().stats().bytes_written > 5_000);
    let token = reactor.state()[0];
    let info = reactor.net().tcp_info(token).unwrap();
    let error = reactor.net().tcp_info(listener).unwrap_err();
    assert_eq!(error.io().kind(), ErrorKind::NotFound, "{error}");
    // The next question has an answer all the same.
    assert!(reactor.net().tcp_info(token).is_ok());
    info
}

fn assert_true_of_loopback(info: &TcpInfo) {
    assert!(info.round_trip > Duration::ZERO && info.round_trip < Duration::from_secs(5), "{info}");
    assert!(info.least_round_trip <= info.round_trip, "{info}");
    assert!(info.acknowledged_bytes >= 5_000, "{info:?}");
    assert!(info.congestion_window > 0 && info.segment_size > 0, "{info:?}");
    assert_eq!((info.lost, info.timeouts_in_a_row), (0, 0));
}

// row 157
#[test]
fn the_figures_are_those_of_the_connection() {
    assert_true_of_loopback(&talked(Listen::tcp("127.0.0.1:0"), "127.0.0.1"));
}

// row 157
#[test]
fn a_peer_of_the_other_family_is_found_too() {
    let both = SocketOptions::new().only_v6(false);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return; // a machine without IPv6
    }
    let listen = Listen::tcp("[::]:0").options(StreamOptions::new().socket_options(both));
    assert_true_of_loopback(&talked(listen, "127.0.0.1"));
}

// row 157
#[test]
fn what_is_not_read_is_unsent_or_on_its_way() {
    let (mut reactor, _, port) = rig(Listen::tcp("127.0.0.1:0"));
    let _deaf = TcpStream::connect(("127.0.0.1", port)).unwrap();
    until(&mut reactor, "it opens", |reactor| !reactor.state().is_empty());
    let token = reactor.state()[0];
    // More than its receive buffer holds.
    for _ in 0..40 {
        reactor.net().send(token, vec![0; 100_000]);
        assert!(reactor.turn(Some(Duration::ZERO)).unwrap().is_continue());
    }
    let info = reactor.net().tcp_info(token).unwrap();
    assert!(info.unsent_bytes > 0, "{info:?}");
    assert!(info.to_string().starts_with("rtt "), "{info}");
}

// row 157
#[cfg(unix)]
#[test]
fn what_is_no_tcp_connection_has_none() {
    let (mut reactor, _, _) = rig(Listen::tcp("127.0.0.1:0"));
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let token = reactor.net().adopt(ours, Echo).unwrap();
    until(&mut reactor, "it opens", |reactor| !reactor.state().is_empty());
    let error = reactor.net().tcp_info(token).unwrap_err();
    assert_eq!(error.io().kind(), ErrorKind::Unsupported, "{error}");
    let text = error.to_string();
    assert!(text.contains("expected a TCP connection, got a Unix socket"), "{text}");
}
