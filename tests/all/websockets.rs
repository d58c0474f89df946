//! Messages of a WebSocket over real sockets: their order beside what the layer says, those that come
//! in pieces, and what becomes of the request.
#![cfg(feature = "websocket")]

use std::io::Write;
use std::net::TcpStream;

use tidegate::layer::websocket::{HttpRequest, Upgrade, WebSocket, WebSocketServer};
use tidegate::{Context, Handler, HandlerResult, Input, Listen, Message, Reactor, StreamOptions};

use crate::support::{address_of, read_n, settle, with_client};

const REQUEST: &[u8] = b"GET /room?name=anna HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

fn header(first: u8, mask: u8, len: usize) -> Vec<u8> {
    match len {
        0..126 => vec![first, mask | len as u8],
        126..65_536 => [&[first, mask | 126][..], &(len as u16).to_be_bytes()].concat(),
        _ => [&[first, mask | 127][..], &(len as u64).to_be_bytes()].concat(),
    }
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [9, 200, 3, 77];
    let mut frame = [header(first, 0x80, payload.len()), KEY.to_vec()].concat();
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    [header(first, 0, payload.len()), payload.to_vec()].concat()
}

/// Sends back every message.
struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        assert!(cx.send(Message::new(input.kind(), input.take_all())).is_accepted());
        Ok(())
    }
}

/// What an open socket that is served by `handler` answers to these pieces: as many bytes as `expected`.
fn answered<H: Handler + 'static>(
    server: WebSocketServer,
    handler: impl Fn() -> H + 'static,
    pieces: Vec<Vec<u8>>,
    expected: &[u8],
) {
    let mut reactor = Reactor::new().unwrap();
    let options = StreamOptions::new().output_limit(64 << 20);
    let listen = Listen::tcp("127.0.0.1:0").options(options).layer(move |_| server.layer());
    let listener = reactor.net().listen(listen, move |_| handler()).unwrap();
    let address = address_of(&mut reactor, listener);
    let len = expected.len();
    let said = with_client(&mut reactor, move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(REQUEST).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(read_n(&mut stream, 1));
        }
        let mut writes = stream.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            for piece in pieces {
                writes.write_all(&piece).unwrap();
            }
        });
        let said = read_n(&mut stream, len);
        writer.join().unwrap();
        said
    });
    assert!(said == expected, "{} bytes, other ones", said.len());
    settle(&mut reactor);
}

#[test]
fn a_pong_keeps_its_place_among_the_replies() {
    let frames = [masked(TEXT, b"a"), masked(PING, b"p"), masked(TEXT, b"b"), masked(PING, b"q")];
    let expected = [plain(TEXT, b"a"), plain(PONG, b"p"), plain(TEXT, b"b"), plain(PONG, b"q")];
    answered(WebSocket::server(), || Echo, vec![frames.concat()], &expected.concat());
}

// row 214
#[test]
fn small_and_large_messages_keep_their_order() {
    let small: Vec<u8> = (0..100).collect();
    let large: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    let sizes = [0, 100, 16_383, 16_384, 200_000, 1, 65_536, 125, 126, 65_535];
    let message = |size: usize| if size <= 100 { &small[..size] } else { &large[..size] };
    let frames: Vec<u8> = sizes.iter().flat_map(|&size| masked(BINARY, message(size))).collect();
    let expected: Vec<u8> = sizes.iter().flat_map(|&size| plain(BINARY, message(size))).collect();
    answered(WebSocket::server(), || Echo, vec![frames.clone()], &expected);
    let pieces = frames.chunks(1_000).map(<[u8]>::to_vec).collect();
    answered(WebSocket::server(), || Echo, pieces, &expected);
}

#[test]
fn text_that_comes_in_many_reads_is_checked_and_whole() {
    let text = "aé€𝄞".repeat(70_000); // 700,000 bytes
    let pieces = masked(TEXT, text.as_bytes()).chunks(7_001).map(<[u8]>::to_vec).collect();
    answered(WebSocket::server(), || Echo, pieces, &plain(TEXT, text.as_bytes()));
}

/// Says what it knows of the request, from each of its callbacks.
struct Knows;

impl Knows {
    fn say(cx: &mut Context<'_>) {
        let path = cx.layer_info::<HttpRequest>().map(|request| request.target().to_owned());
        assert!(cx.layer_info::<Upgrade>().is_some());
        cx.send(path.as_deref().unwrap_or("nothing"));
    }
}

impl Handler for Knows {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        Knows::say(cx);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Knows::say(cx);
        Ok(())
    }
}

#[test]
fn the_request_is_known_in_on_open_and_later_where_it_is_kept() {
    let path = plain(BINARY, b"/room?name=anna");
    for (server, later) in [
        (WebSocket::server(), plain(BINARY, b"nothing")),
        (WebSocket::server().keep_request(true), path.clone()),
    ] {
        answered(server, || Knows, vec![masked(TEXT, b"?")], &[path.clone(), later].concat());
    }
}

/// Takes a line in front of the socket, as of a proxy, and says then what it knows of the request.
struct Introduced;

impl Handler for Introduced {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        if input.take_until(b'\n').is_none() {
            input.take_all();
            Knows::say(cx);
        } else {
            let server = WebSocket::server();
            let keeps = !input.starts_with(b"GET /forget");
            cx.net.start_layer(cx.token, server.keep_request(keeps).layer());
        }
        Ok(())
    }
}

/// No callback comes between the head and the first message: who does not keep the head has no other look
/// at it than `filter`.
#[test]
fn a_layer_in_mid_stream_keeps_the_request_or_shows_it_to_nobody() {
    for (path, expected) in [("/room?name=anna", "/room?name=anna"), ("/forget", "nothing")] {
        let mut reactor = Reactor::new().unwrap();
        let listener = reactor.net().listen("127.0.0.1:0", |_| Introduced).unwrap();
        let address = address_of(&mut reactor, listener);
        let request = String::from_utf8(REQUEST.to_vec()).unwrap().replace("/room?name=anna", path);
        let expected = plain(BINARY, expected.as_bytes());
        let len = expected.len();
        let said = with_client(&mut reactor, move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(format!("PROXY\n{request}").as_bytes()).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(read_n(&mut stream, 1));
            }
            stream.write_all(&masked(TEXT, b"?")).unwrap();
            read_n(&mut stream, len)
        });
        assert_eq!(said, expected);
        settle(&mut reactor);
    }
}
