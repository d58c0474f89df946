//! The layer without a socket: a driver that keeps the contract, frames made by hand, transcripts.

mod deflate;
mod frames;
mod handshake;
mod limits;

use std::any::{Any, TypeId};

use super::*;
use crate::layer::testkit::Environment;

/// What a driver saw.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Message(MessageKind, Vec<u8>),
    End,
    Failed(LayerErrorKind),
}

fn text(message: &str) -> Seen {
    Seen::Message(MessageKind::Text, message.into())
}

fn binary(message: &[u8]) -> Seen {
    Seen::Message(MessageKind::Binary, message.into())
}

/// One end: the layer, what it was given and did not take, what it answered.
#[derive(Debug)]
struct End {
    layer: WebSocket,
    tail: Vec<u8>,
    out: Vec<u8>,
    seen: Vec<Seen>,
    error: Option<LayerError>,
}

impl End {
    fn new(layer: WebSocket) -> End {
        let mut end =
            End { layer, tail: Vec::new(), out: Vec::new(), seen: Vec::new(), error: None };
        end.layer.start(&mut Environment::new().cx(), &mut end.out).expect("the layer starts");
        end
    }

    fn over(&self) -> bool {
        matches!(self.seen.last(), Some(Seen::End | Seen::Failed(_)))
    }

    /// Gives these bytes to the layer and pulls until it has nothing left, checking the contract.
    fn feed(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let mut unit = Vec::new();
        while !self.over() {
            unit.clear();
            let was_ready = self.layer.is_ready();
            let answered = self.out.len();
            let step = match self.layer.decode(
                &mut Environment::new().cx(),
                &mut self.tail,
                &mut unit,
                &mut self.out,
            ) {
                Ok(step) => step,
                Err(error) => {
                    self.seen.push(Seen::Failed(error.kind()));
                    self.error = Some(error);
                    break;
                }
            };
            assert!(step.consumed <= self.tail.len());
            assert!(self.out.len() >= answered);
            match step.item {
                Item::Nothing => {
                    assert!(unit.is_empty());
                    self.tail.drain(..step.consumed);
                    break;
                }
                Item::Progress => assert!(step.consumed > 0, "progress without progress"),
                Item::Slice(range) => {
                    assert!(was_ready && unit.is_empty());
                    self.seen.push(Seen::Message(step.kind, self.tail[range].into()));
                }
                Item::Unit => {
                    assert!(was_ready);
                    self.seen.push(Seen::Message(step.kind, unit.clone()));
                }
                Item::End => self.seen.push(Seen::End),
            }
            self.tail.drain(..step.consumed);
        }
    }

    fn layer_info<T: Any>(&self) -> Option<&T> {
        self.layer.layer_info(TypeId::of::<T>())?.downcast_ref()
    }

    fn said(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn why(&self) -> String {
        self.error.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

const REQUEST: &[u8] = b"GET /chat?room=7 HTTP/1.1\r\nHost: localhost:8080\r\n\
    Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://localhost:8080\r\n\r\n";

/// What RFC 6455 section 1.3 says must come back for the key above.
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An open server, its answer taken away.
fn server(settings: &WebSocketServer) -> End {
    let mut end = End::new(settings.layer());
    end.feed(REQUEST);
    assert!(end.layer.is_ready(), "{}", end.why());
    end.out.clear();
    end
}

/// The frames of an open socket.
fn frames(end: &End) -> &Frames {
    let State::Open(frames) = &end.layer.state else { panic!("it is open") };
    frames
}

/// An open server and an open client.
fn pair(server: &WebSocketServer, client: &WebSocketClient) -> (End, End) {
    let (mut server, mut client) = (End::new(server.layer()), End::new(client.layer()));
    server.feed(&client.said());
    client.feed(&server.said());
    assert!(server.layer.is_ready() && client.layer.is_ready(), "{}{}", server.why(), client.why());
    (server, client)
}

/// A frame as a server sends it. `first` is the byte with the opcode.
fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64, 0);
    frame.extend_from_slice(payload);
    frame
}

/// A frame as a client sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = header(first, payload.len() as u64, 0x80);
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    frame
}

fn header(first: u8, length: u64, mask: u8) -> Vec<u8> {
    let mut header = vec![first];
    match length {
        0..126 => header.push(mask | length as u8),
        126..65536 => {
            header.push(mask | 126);
            header.extend((length as u16).to_be_bytes());
        }
        _ => {
            header.push(mask | 127);
            header.extend(length.to_be_bytes());
        }
    }
    header
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;
/// Not the last frame of its message.
const TEXT_OPEN: u8 = 0x01;
const BINARY_OPEN: u8 = 0x02;
const CONTINUED: u8 = 0x00;
const LAST: u8 = 0x80;

fn close_frame(code: u16) -> Vec<u8> {
    plain(CLOSE, &code.to_be_bytes())
}

/// Feeds a transcript to fresh ends in one piece, byte by byte, and in each two and some threes:
/// what is seen and what is answered must be the same.
fn every_split(transcript: &[u8], fresh: impl Fn() -> End) -> (Vec<Seen>, Vec<u8>) {
    let run = |cuts: &[usize]| {
        let mut end = fresh();
        let mut from = 0;
        for &cut in cuts.iter().chain([&transcript.len()]) {
            if !end.over() {
                end.feed(&transcript[from..cut]);
            }
            from = cut;
        }
        (end.seen, end.out)
    };
    let whole = run(&[]);
    let bytes: Vec<usize> = (1..transcript.len()).collect();
    assert_eq!(run(&bytes), whole, "byte by byte");
    for cut in 0..transcript.len() {
        assert_eq!(run(&[cut]), whole, "cut at {cut}");
        let next = (cut + 1 + cut % 13).min(transcript.len());
        assert_eq!(run(&[cut, next]), whole, "cut at {cut} and {next}");
    }
    whole
}
