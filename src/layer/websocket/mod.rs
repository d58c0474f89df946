//! WebSocket (RFC 6455), server and client.
//!
//! A message of the socket is a message of the handler, and the other way round; text and binary
//! are distinguished by [`MessageKind`]. The layer handles handshake, fragments, pings and closing.
//!
//! ```
//! use tidegate::layer::websocket::{HttpResponse, WebSocket};
//!
//! let page = "<!doctype html><title>Hello</title>";
//! let server = WebSocket::server()
//!     .answer(move |request| match request.path() {
//!         "/" => HttpResponse::html(page),
//!         _ => HttpResponse::text(404, "There is no such page.\n"),
//!     })
//!     .message_limit(64 * 1024);
//! let layer = server.layer(); // one for each connection
//!
//! let client = WebSocket::client("localhost:8080", "/socket").header("Cookie", "taste=sweet");
//! let layer = client.layer();
//! ```
//!
//! # What it replies by itself
//!
//! | the peer sends | it gets | and the layer yields |
//! |---|---|---|
//! | an upgrade | 101 | ready |
//! | an HTTP request that is no upgrade | the response of the [`answer`](WebSocketServer::answer) hook, else 426 | [`Item::End`] while [`is_ready`](Layer::is_ready) is false: *served*, no fault |
//! | an upgrade that a [`filter`](WebSocketServer::filter) refuses, from a foreign origin, of another version | the filter's response, 403, 426 | an error of kind [`Refused`](LayerErrorKind::Refused) |
//! | no HTTP, a broken head, a broken upgrade | 400 | [`Malformed`](LayerErrorKind::Malformed) |
//! | a head over the limit | 431 | [`TooLarge`](LayerErrorKind::TooLarge) |
//! | Ping | Pong: in one call of `decode` for each of the first 32, then for the last | nothing |
//! | Close | Close with the same code | [`Item::End`] |
//! | a breach of the protocol | Close 1002 | `Malformed` |
//! | text that is not UTF-8 | Close 1007, at the first wrong byte | `Malformed` |
//! | a frame or message over its limit | Close 1009, when the header says so | `TooLarge` |
//!
//! The driver flushes the reply and closes in the ordinary way in each of these
//! cases but the first and the pings; `End` before ready wants no line in the log.
//!
//! [`end`](Layer::end) sends a Close frame with the code of its [`LayerEnd`]: 1000 for an ordinary
//! close, 1001 for a shutdown or an idle peer, 1008 for a limit, 1011 for an error of the handler, or
//! the code that the handler chose. A stream that ends without a Close frame is
//! [`Truncated`](LayerErrorKind::Truncated), unless this side had sent its own. What is encoded
//! after the peer's Close is dropped: the peer has announced that it reads no more.
//!
//! # What it costs
//!
//! A message in one frame is not copied: it stays in the driver's buffer until it is whole, and a server
//! unmasks it where it lies. One that is sent is copied once, onto the wire; a large one
//! not at all ([`Layer::encode_head`]). None of this allocates. Fragments are copied once into a buffer
//! of the layer, which the driver then gets as it is; it grows with what arrived, never with what was
//! announced. No more than 4 KiB of it stays with an idle connection. The request's head is given back
//! when the socket has opened, unless it is [kept](WebSocketServer::keep_request).
//!
//! Masking takes three instructions for 16 bytes on x86-64 as it is by default. Built for the machine
//! that it runs on (`-C target-cpu=native`, or `x86-64-v3`), two for 32.
//!
//! Frames are read and written here, and not by tungstenite: its header parser takes some
//! 475 instructions, and its `WebSocketContext` reserves the length that a frame announces (1 MiB for 14
//! bytes, at our limits), keeps a read buffer of its own for each connection, reads ahead of what its
//! caller has asked for, and copies each message twice.
//!
//! # Compression
//!
//! `permessage-deflate` (RFC 7692) is off unless [`deflate`](WebSocketServer::deflate) turns it on;
//! it is done with `flate2`. Its compressor has one window size,
//! 32 KiB: an offer that demands a smaller one of this side is passed over. The limit on a message
//! counts what comes out of it, and is held while it comes.
//!
//! Compressing costs tens of microseconds a message, and the compressor of a connection 300 KiB. So
//! messages under [1 KiB](WebSocketServer::deflate_threshold) are sent as they are; a connection
//! that has compressed nothing for ten seconds gives its compressor back; and those that agreed to forget each
//! message (`server_no_context_takeover`) share one for each thread. So do the messages of groups, each of
//! which is compressed [once](Layer::encode_shared) and refers to no other: a connection's own compressor, if it
//! has one, begins anew behind them.
//!
//! # What there is not
//!
//! No fragments are sent: a message leaves as one frame. No deadlines: the driver has one for the
//! handshake, and closes an idle peer. No redirects and no credentials: the error of a refused
//! upgrade names the target of a redirect. Lengths that are not in their shortest form are
//! accepted, as most implementations do.

use std::any::{Any, TypeId};
use std::sync::Arc;

use super::{Item, Layer, LayerContext, LayerEnd, LayerError, LayerErrorKind, Step, WireClass};
use crate::layer::MessageKind;

mod client;
mod close;
mod codes;
mod config;
mod deflate;
mod extension;
mod fault;
mod frames;
mod head;
mod http;
mod mask;
mod send;
mod server;

#[cfg(test)]
mod tests;

pub use close::PeerClose;
pub use config::{WebSocketClient, WebSocketServer};
pub use http::{HttpRequest, HttpResponse};

use client::Answer;
use config::{ClientSettings, Limits, ServerSettings};
use extension::Agreed;
use frames::Frames;
use http::{HeadScan, Scanned};
use send::Role;
use server::Answered;

const NAME: &str = "websocket";

/// What both sides negotiated: returned by `layer_info` once the connection is ready
/// (`Layer::layer_info(TypeId::of::<Upgrade>())`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    subprotocol: Option<Box<str>>,
    deflate: Option<Agreed>,
}

impl Upgrade {
    /// The subprotocol, if one was agreed on (RFC 6455 section 1.9).
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Whether messages may come and go compressed (`permessage-deflate`, RFC 7692).
    pub fn is_compressed(&self) -> bool {
        self.deflate.is_some()
    }
}

/// One connection's WebSocket layer. The [module's page](self) describes it.
///
/// [`Context::layer_info`](crate::Context::layer_info) returns [`HttpRequest`] on a server, from
/// when the request was read until `on_open` has returned, or as long as the connection lasts where it
/// is [kept](WebSocketServer::keep_request); [`Upgrade`], from when the socket is open; [`PeerClose`],
/// from when the peer's Close frame came.
///
/// The request is given back in the first step of decoding behind the one that opened the socket. The
/// driver calls `on_open` between the two. Where the layer is put on an open connection
/// ([`Net::start_layer`](crate::Net::start_layer)) no callback comes between, so that a handler does not
/// see a request that is not kept; [`filter`](WebSocketServer::filter) does in either case.
#[derive(Debug)]
pub struct WebSocket {
    side: Side,
    state: State,
    request: Option<Box<HttpRequest>>,
    /// The next step drops the request.
    forgets: bool,
    upgrade: Option<Upgrade>,
}

#[derive(Debug)]
enum Side {
    Server(Arc<ServerSettings>),
    Client(Arc<ClientSettings>),
}

impl Side {
    #[inline]
    fn limits(&self) -> &Limits {
        match self {
            Side::Server(settings) => &settings.limits,
            Side::Client(settings) => &settings.limits,
        }
    }
}

#[derive(Debug)]
enum State {
    Opening(Box<Opening>),
    Open(Frames),
    /// The handshake ended without a socket: a page was served, or one side refused.
    Over,
}

/// How far the opening handshake has come.
#[derive(Debug, Default)]
struct Opening {
    scan: HeadScan,
    /// Of a client: the `Sec-WebSocket-Accept` that must come back.
    expected: String,
    /// Bytes of interim responses that came before the final one.
    interim: usize,
}

impl WebSocket {
    /// The server side, with the settings' defaults.
    pub fn server() -> WebSocketServer {
        WebSocketServer::new()
    }

    /// The client side. `host` goes into the `Host` field, with its port if that is not 80 (or 443
    /// under TLS): `localhost:8080`. `path` is the request's target, with its query if there is
    /// one: `/chat?room=7`. Neither is resolved or connected to.
    pub fn client(host: impl Into<String>, path: impl Into<String>) -> WebSocketClient {
        WebSocketClient::new(host.into(), path.into())
    }

    /// Appends a Ping with these bytes, 125 of them at most, if the socket is open: for a driver of
    /// your own. The peer's Pong yields nothing.
    pub fn ping(&mut self, cx: &mut LayerContext<'_>, payload: &[u8], wire: &mut Vec<u8>) {
        if let State::Open(frames) = &mut self.state {
            frames.ping(cx, payload, wire);
        }
    }

    fn for_server(settings: Arc<ServerSettings>) -> WebSocket {
        WebSocket::new(Side::Server(settings))
    }

    fn for_client(settings: Arc<ClientSettings>) -> WebSocket {
        WebSocket::new(Side::Client(settings))
    }

    fn new(side: Side) -> WebSocket {
        WebSocket {
            side,
            state: State::Opening(Box::default()),
            request: None,
            forgets: false,
            upgrade: None,
        }
    }

    /// A step of the handshake: nothing is taken until the head is whole. What lies behind it in
    /// the same read stays where it is, for the next call.
    fn open(&mut self, wire: &[u8], reply: &mut Vec<u8>) -> Result<Step, LayerError> {
        let State::Opening(opening) = &mut self.state else {
            return Ok(Step::new(0, Item::End));
        };
        let (role, upgrade, end) = match &self.side {
            Side::Server(settings) => {
                let limit = settings.limits.head;
                let end = loop {
                    match opening.scan.find(wire, limit) {
                        Ok(Scanned::Part) => return Ok(Step::new(0, Item::Nothing)),
                        Ok(Scanned::FirstLine(end)) => {
                            server::check_first_line(&wire[..end], reply)?;
                        }
                        Ok(Scanned::Whole(end)) => break end,
                        Err(fault) => return Err(server::refuse_unparsed(&fault, limit, reply)),
                    }
                };
                let (request, answered) = server::answer(settings, &wire[..end], reply)?;
                self.request = Some(Box::new(request));
                match answered? {
                    Answered::Open(upgrade) => {
                        self.forgets = !settings.keep_request;
                        (Role::Server, upgrade, end)
                    }
                    Answered::Served => {
                        self.state = State::Over;
                        return Ok(Step::new(end, Item::End));
                    }
                }
            }
            Side::Client(settings) => {
                client::check_beginning(wire)?;
                // Interim responses count towards the limit: a server could send them for ever.
                let limit = settings.limits.head.saturating_sub(opening.interim);
                let end = loop {
                    match opening.scan.find(wire, limit) {
                        Ok(Scanned::Part) => return Ok(Step::new(0, Item::Nothing)),
                        Ok(Scanned::FirstLine(_)) => {} // its beginning is checked, byte by byte
                        Ok(Scanned::Whole(end)) => break end,
                        Err(fault) => {
                            let limit = settings.limits.head;
                            return Err(client::refuse_unparsed(&fault, limit));
                        }
                    }
                };
                let (head, behind) = wire.split_at(end);
                match client::accept(settings, &opening.expected, head, behind)? {
                    Answer::Open(upgrade) => (Role::Client, upgrade, end),
                    Answer::Interim => {
                        opening.interim += end;
                        opening.scan = HeadScan::default();
                        return Ok(Step::new(end, Item::Progress));
                    }
                }
            }
        };
        self.state = State::Open(Frames::new(role, self.side.limits(), upgrade.deflate));
        self.upgrade = Some(upgrade);
        Ok(Step::new(end, Item::Progress))
    }
}

impl Layer for WebSocket {
    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&mut self, cx: &mut LayerContext<'_>, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        if let (Side::Client(settings), State::Opening(opening)) = (&self.side, &mut self.state) {
            opening.expected = client::request(cx, settings, wire)?;
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        if let State::Open(frames) = &mut self.state {
            if self.forgets {
                (self.forgets, self.request) = (false, None);
            }
            return frames.decode(self.side.limits(), cx, wire, unit, reply);
        }
        self.open(wire, reply).inspect_err(|_| self.state = State::Over)
    }

    fn encode(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        match &mut self.state {
            State::Open(frames) => frames.encode(self.side.limits(), cx, message, kind, wire),
            State::Opening(_) | State::Over => Err(not_open()),
        }
    }

    fn encode_head(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        match &mut self.state {
            State::Open(frames) => frames.encode_head(self.side.limits(), message, kind, wire),
            State::Opening(_) | State::Over => Err(not_open()),
        }
    }

    fn end(&mut self, cx: &mut LayerContext<'_>, end: &LayerEnd<'_>, wire: &mut Vec<u8>) {
        if let State::Open(frames) = &mut self.state {
            frames.end(cx, end, wire);
        }
    }

    fn on_time(
        &mut self,
        cx: &mut LayerContext<'_>,
        _reply: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        if let State::Open(frames) = &mut self.state {
            frames.on_time(cx);
        }
        Ok(())
    }

    fn wire_ended(&mut self, _: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        match &self.state {
            State::Open(frames) => frames.wire_ended(left),
            State::Over => Ok(()),
            State::Opening(_) => Err(LayerError::truncated(
                NAME,
                format!("the stream ended {left} bytes into the opening handshake"),
            )),
        }
    }

    /// That of a server: a client masks each frame with another key.
    fn wire_class(&self) -> Option<WireClass> {
        match &self.state {
            State::Open(frames) => frames.wire_class(self.side.limits()),
            State::Opening(_) | State::Over => None,
        }
    }

    fn encode_shared(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        match &mut self.state {
            State::Open(frames) => {
                frames.encode_shared(self.side.limits(), cx, message, kind, wire)
            }
            State::Opening(_) | State::Over => Err(not_open()),
        }
    }

    fn sent_shared(&mut self) {
        if let State::Open(frames) = &mut self.state {
            frames.sent_shared();
        }
    }

    fn holds_input(&self) -> bool {
        matches!(&self.state, State::Open(frames) if frames.is_within_message())
    }

    fn layer_info(&self, fact: TypeId) -> Option<&dyn Any> {
        fn any<T: Any>(fact: Option<&T>) -> Option<&dyn Any> {
            fact.map(|fact| fact as &dyn Any)
        }
        if fact == TypeId::of::<HttpRequest>() {
            any(self.request.as_deref())
        } else if fact == TypeId::of::<Upgrade>() {
            any(self.upgrade.as_ref())
        } else if fact == TypeId::of::<PeerClose>()
            && let State::Open(frames) = &self.state
        {
            any(frames.peer_close())
        } else {
            None
        }
    }
}

#[cold]
fn not_open() -> LayerError {
    LayerError::new(NAME, LayerErrorKind::Unencodable, "a message, and the socket is not open")
}
