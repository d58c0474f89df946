//! Bad input over real sockets: each peer here costs itself its connection, for a typed reason; is
//! told so first, where the protocol has a way to say it; its neighbour goes on talking; and the log
//! has one line about it, at debug level, so that no peer can fill it with warnings.

use std::cell::RefCell;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;

use log::Level;
use tidegate::layer::{Layer, LayerErrorKind, LengthPrefixed, Lines};
use tidegate::{
    Address, CloseInfo, CloseReason, Connect, Deadline, Limit, Listen, Reactor, StreamOptions,
    Token,
};

use crate::support::logged;
use crate::support::{Log, Probe, Told, address_of, client, read_all, settle, until, with_client};

/// A reason, as far as a program can tell it from others, and its text for the person who reads it.
#[derive(Debug, Clone, PartialEq)]
enum Why {
    Layer(&'static str, LayerErrorKind, String),
    TimedOut(Deadline),
    Limit(Limit, usize),
    Other(String),
}

impl From<&CloseReason> for Why {
    fn from(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::Layer(e) => Why::Layer(e.layer(), e.kind(), e.to_string()),
            CloseReason::TimedOut(deadline) => Why::TimedOut(*deadline),
            CloseReason::LimitExceeded(limit, bytes) => Why::Limit(*limit, *bytes),
            other => Why::Other(other.to_string()),
        }
    }
}

/// How one connection of the listener ended.
#[derive(Debug, Clone, PartialEq)]
struct End {
    /// It had a handler, which was told; otherwise the listener's hook was.
    opened: bool,
    why: Why,
    peer: Option<Address>,
    text: String,
}

impl End {
    /// The layer of that name gave up, for a reason of that kind, and its text says so much.
    #[track_caller]
    fn is_layers(&self, opened: bool, layer: &str, kind: LayerErrorKind, text: &str) {
        match &self.why {
            Why::Layer(name, of, said) if *name == layer && *of == kind && said.contains(text) => {}
            other => panic!("expected {layer}, {kind}, {text:?}; got {other:?}"),
        }
        assert_eq!(self.opened, opened, "{self:?}");
    }
}

type Ends = Rc<RefCell<Vec<End>>>;

/// A server that echoes through a layer, and one honest client of it: the neighbour.
struct Stage {
    reactor: Reactor,
    address: SocketAddr,
    listener: Token,
    ends: Ends,
    /// What the server's handlers were told.
    server: Log,
    neighbour: Token,
    heard: Log,
}

impl Stage {
    fn set<L: Layer + 'static>(
        layer: impl FnMut() -> L + 'static,
        honest: impl Layer + 'static,
    ) -> Stage {
        Self::with_options(StreamOptions::new(), layer, honest)
    }

    fn with_options<L: Layer + 'static>(
        options: StreamOptions,
        mut layer: impl FnMut() -> L + 'static,
        honest: impl Layer + 'static,
    ) -> Stage {
        let mut reactor = Reactor::new().unwrap();
        let (ends, server) = (Ends::default(), Log::new());
        let (of_hook, of_handlers, log) = (Rc::clone(&ends), Rc::clone(&ends), server.clone());
        let listen = Listen::tcp("127.0.0.1:0")
            .options(options)
            .layer(move |_| layer())
            .on_unopened(move |peer, reason, ()| {
                of_hook.borrow_mut().push(End {
                    opened: false,
                    why: reason.into(),
                    peer: Some(peer.address().clone()),
                    text: reason.to_string(),
                });
            });
        let make = move |_: &tidegate::Peer<'_>| {
            let ends = Rc::clone(&of_handlers);
            Probe::echo(&log).close(move |_, closed: &CloseInfo| {
                ends.borrow_mut().push(End {
                    opened: true,
                    why: (&closed.reason).into(),
                    peer: None,
                    text: closed.reason.to_string(),
                });
            })
        };
        let listener = reactor.net().listen(listen, make).unwrap();
        let address = address_of(&mut reactor, listener);
        let heard = Log::new();
        let connect = Connect::tcp(address).layer(honest);
        let neighbour = reactor.net().connect(connect, Probe::new(&heard)).unwrap();
        until(&mut reactor, "the neighbour's opening", |_| {
            heard.opens() == 1 && server.opens() == 1
        });
        Stage { reactor, address, listener, ends, server, neighbour, heard }
    }

    /// Lets a raw peer do its worst; answers what it brought back, and how its connection ended.
    #[track_caller]
    fn suffers<T: Send + 'static>(
        &mut self,
        peer: impl FnOnce(&mut TcpStream) -> T + Send + 'static,
    ) -> (T, End) {
        let before = self.ends.borrow().len();
        let address = self.address;
        logged::take();
        let (from, brought) = with_client(&mut self.reactor, move || {
            let mut stream = client(address);
            let from = stream.local_addr().unwrap();
            (from, peer(&mut stream))
        });
        let ends = Rc::clone(&self.ends);
        until(&mut self.reactor, "the end of the hostile peer", |_| ends.borrow().len() > before);
        settle(&mut self.reactor);
        assert_eq!(ends.borrow().len(), before + 1, "one peer, one end: {:?}", ends.borrow());
        let end = ends.borrow()[before].clone();
        if !end.opened {
            assert_eq!(end.peer, Some(Address::Ip(from)), "the hook knows who it was");
        }
        let lines = logged::take_from(Level::Debug);
        let about = lines.iter().filter(|(_, line)| line.contains(&end.text)).count();
        assert_eq!(about, 1, "{end:?}: {lines:?}");
        assert!(lines.iter().all(|(level, _)| *level == Level::Debug), "{lines:?}");
        self.neighbour_is_well();
        (brought, end)
    }

    #[track_caller]
    fn neighbour_is_well(&mut self) {
        let said = self.heard.data().len();
        assert!(self.reactor.net().send(self.neighbour, "still here").is_accepted());
        let heard = self.heard.clone();
        until(&mut self.reactor, "the neighbour's echo", |_| heard.data().len() == said + 10);
        assert!(heard.data().ends_with(b"still here") && heard.closes() == 0);
        assert_eq!(self.reactor.net().listener_stats(self.listener).unwrap().open, 1);
        assert_eq!(self.reactor.net().connection_count(), 2, "both ends of the neighbour's");
    }

    /// What the handler of the hostile peer was given.
    fn given(&self) -> Vec<u8> {
        let neighbour = self.server.opened()[0];
        let told = self.server.all().into_iter().filter(|(token, _)| *token != neighbour);
        told.filter_map(|(_, told)| match told {
            Told::Data(bytes) => Some(bytes),
            _ => None,
        })
        .flatten()
        .collect()
    }
}

/// Writes what the server may have ceased to read.
fn pour(stream: &mut TcpStream, bytes: &[u8]) {
    for piece in bytes.chunks(16 * 1024) {
        if stream.write_all(piece).is_err() {
            return;
        }
    }
}

/// Says `bytes` and listens to the end.
fn say(bytes: impl Into<Vec<u8>>) -> impl FnOnce(&mut TcpStream) -> Vec<u8> + Send + 'static {
    let bytes = bytes.into();
    move |stream| {
        pour(stream, &bytes);
        read_all(stream)
    }
}

// ---- framing ----

#[test]
fn a_line_that_is_too_long() {
    let mut stage = Stage::set(|| Lines::new().line_limit(100), Lines::new());
    let (said, end) = stage.suffers(say([&b"hello\n"[..], &[b'x'; 101]].concat()));
    assert_eq!(said, b"hello\n", "what came before is answered");
    end.is_layers(true, "lines", LayerErrorKind::TooLarge, "100");
    assert_eq!(stage.given(), b"hello");
    // One that never ends is refused when it is over the limit, not when the sender is done.
    let (_, end) = stage.suffers(say(vec![b'x'; 1 << 20]));
    end.is_layers(true, "lines", LayerErrorKind::TooLarge, "100");
}

#[test]
fn a_length_over_the_maximum() {
    let frame = || LengthPrefixed::new(4).frame_limit(1000);
    let mut stage = Stage::set(frame, frame());
    let (said, end) = stage.suffers(say(*b"\0\0\0\x05hello\xff\xff\xff\xff"));
    assert_eq!(said, b"\0\0\0\x05hello");
    end.is_layers(true, "length-prefixed", LayerErrorKind::TooLarge, "1000");
    let (_, end) = stage.suffers(say(*b"\0\0\x03\xe9"));
    end.is_layers(true, "length-prefixed", LayerErrorKind::TooLarge, "1001");
}

#[test]
fn a_frame_that_never_becomes_whole() {
    let mut stage = Stage::set(|| LengthPrefixed::new(4), LengthPrefixed::new(4));
    let (_, end) = stage.suffers(|stream: &mut TcpStream| {
        stream.write_all(b"\0\0\0\x05hel").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(stream)
    });
    end.is_layers(true, "length-prefixed", LayerErrorKind::Truncated, "");
    assert_eq!(stage.given(), b"");
}

// ---- compression ----

#[cfg(any(feature = "deflate", feature = "lz4"))]
mod compression {
    use super::*;
    use tidegate::layer::MessageKind;
    use tidegate::layer::testkit::Driver;

    /// Four MiB of nothing, as the layer itself would say them.
    fn bomb(layer: impl Layer) -> Vec<u8> {
        let mut driver = Driver::new(layer);
        driver.send(&vec![0; 4 << 20], MessageKind::Default).unwrap();
        driver.take_wire()
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn a_deflate_bomb() {
        use tidegate::layer::Deflate;
        let makes: [fn() -> Deflate; 2] = [Deflate::new, Deflate::per_message];
        for make in makes {
            let bomb = bomb(make().message_limit(4 << 20));
            assert!(bomb.len() < 8 * 1024, "{} bytes of bomb", bomb.len());
            let mut stage = Stage::set(make, make());
            let (said, end) = stage.suffers(say(bomb));
            assert_eq!(said, b"");
            end.is_layers(true, "deflate", LayerErrorKind::TooLarge, "1048576");
            assert_eq!(stage.given(), b"", "not a byte of it");
        }
    }

    #[cfg(feature = "lz4")]
    #[test]
    fn an_lz4_bomb() {
        use tidegate::layer::Lz4;
        let bomb = bomb(Lz4::new().message_limit(4 << 20));
        assert!(bomb.len() < 32 * 1024, "{} bytes of bomb", bomb.len());
        let mut stage = Stage::set(Lz4::new, Lz4::new());
        let (said, end) = stage.suffers(say(bomb));
        assert_eq!(said, b"");
        end.is_layers(true, "lz4", LayerErrorKind::TooLarge, "1048576");
        assert_eq!(stage.given(), b"", "not a byte of it");
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn bytes_that_are_not_compressed_at_all() {
        use tidegate::layer::Deflate;
        let mut stage = Stage::set(Deflate::new, Deflate::new());
        let (_, end) = stage.suffers(say(*b"\x15\xff\xff\xff\xff\xff"));
        end.is_layers(true, "deflate", LayerErrorKind::Malformed, "");
        // A length that only the digits to come would make whole.
        let (_, end) = stage.suffers(say(vec![0xff; 9]));
        end.is_layers(true, "deflate", LayerErrorKind::TooLarge, "1048576");
    }
}

// ---- TLS ----

#[cfg(feature = "tls")]
mod tls {
    use super::*;
    use crate::support::secure;
    use std::io::Read;
    use std::sync::Arc;
    use std::time::Duration;
    use tidegate::layer::tls::{Tls, rustls};

    const DECODE_ERROR: u8 = 50;
    const ILLEGAL_PARAMETER: u8 = 47;

    fn stage() -> Stage {
        Stage::set(secure::server, secure::client())
    }

    /// The one fatal alert, in clear text (RFC 8446 section 6).
    #[track_caller]
    fn is_alert(said: &[u8], description: u8) {
        match said {
            [21, 3, _, 0, 2, 2, alert] => assert_eq!(*alert, description),
            other => panic!("expected an alert, got {other:?}"),
        }
    }

    #[test]
    fn garbage_instead_of_a_client_hello() {
        let mut stage = stage();
        for garbage in [&b"\0\0\0\0\0\0\0\0"[..], b"SSH-2.0-OpenSSH_9.2\r\n", &[0xff; 100_000]] {
            let (said, end) = stage.suffers(say(garbage));
            is_alert(&said, DECODE_ERROR);
            end.is_layers(false, "tls", LayerErrorKind::Malformed, "ClientHello");
        }
    }

    #[test]
    fn http_to_the_tls_port() {
        let mut stage = stage();
        let (said, end) = stage.suffers(say("GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        is_alert(&said, DECODE_ERROR);
        end.is_layers(false, "tls", LayerErrorKind::Malformed, "an HTTP request without TLS");
    }

    #[test]
    fn an_oversized_client_hello() {
        let mut stage = stage();
        // A handshake message that announces 16 MiB, in a record of 100 bytes.
        let record = [&[22, 3, 1, 0, 104, 1, 0xff, 0xff, 0xff][..], &[0; 100]].concat();
        let (said, end) = stage.suffers(say(record));
        is_alert(&said, DECODE_ERROR);
        end.is_layers(false, "tls", LayerErrorKind::TooLarge, "");
        // One within what rustls takes, in records that make it more than the limit on a handshake.
        let mut small = [22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 3, 0, 0xf0, 0].to_vec();
        small.extend([22, 3, 1, 0, 1, 0].repeat(11_000));
        let (said, end) = stage.suffers(say(small));
        is_alert(&said, ILLEGAL_PARAMETER);
        end.is_layers(false, "tls", LayerErrorKind::TooLarge, "65536");
    }

    #[test]
    fn a_slow_handshake() {
        let options = StreamOptions::new().handshake_timeout(Duration::from_millis(60));
        let mut stage = Stage::with_options(options, secure::server, secure::client());
        // Not a byte; half a header; a byte now and then, which buys no time.
        let (_, end) = stage.suffers(say(""));
        assert_eq!(end.why, Why::TimedOut(Deadline::Handshake));
        let (_, end) = stage.suffers(say([22, 3, 1]));
        assert_eq!(end.why, Why::TimedOut(Deadline::Handshake));
        let (ended, end) = stage.suffers(|stream: &mut TcpStream| {
            stream.write_all(&[22, 3, 1, 1, 0]).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            for _ in 0..1000 {
                let _ = stream.write_all(&[1]);
                match stream.read(&mut [0; 16]) {
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => return true,
                    Ok(_) => {}
                }
            }
            false
        });
        assert!(ended, "it was never cut");
        assert_eq!(end.why, Why::TimedOut(Deadline::Handshake));
        assert!(!end.opened);
    }

    #[test]
    fn a_handshake_that_breaks_off() {
        let mut stage = stage();
        let (_, end) = stage.suffers(|stream: &mut TcpStream| {
            stream.write_all(&[22, 3, 1, 0, 100, 1]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(stream)
        });
        end.is_layers(false, "tls", LayerErrorKind::Truncated, "the rest of the handshake");
        // Reset in the middle: the socket does not know any more who it was; the hook does.
        let (_, end) = stage.suffers(|stream: &mut TcpStream| {
            stream.write_all(&[22, 3, 1, 0, 100, 1]).unwrap();
            socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)).unwrap();
        });
        assert!(!end.opened, "{end:?}");
    }

    /// An honest client of rustls's own, over a socket that the test can mistreat.
    fn rustls_client() -> rustls::ClientConnection {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(secure::roots())
            .with_no_client_auth();
        rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
    }

    /// Says something over TLS and waits for its echo.
    fn talk(tls: &mut rustls::ClientConnection, stream: &mut TcpStream, words: &[u8]) {
        let mut secured = rustls::Stream::new(tls, stream);
        secured.write_all(words).unwrap();
        let mut heard = vec![0; words.len()];
        secured.read_exact(&mut heard).unwrap();
        assert_eq!(heard, words);
    }

    #[test]
    fn a_stream_that_is_cut_off() {
        let mut stage = stage();
        // Between two records: an end of the socket without close_notify is no end of the stream.
        let (_, end) = stage.suffers(|stream: &mut TcpStream| {
            talk(&mut rustls_client(), stream, b"pay 100");
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(stream);
        });
        end.is_layers(true, "tls", LayerErrorKind::Truncated, "close_notify");
        assert_eq!(stage.given(), b"pay 100");
        // In the middle of one.
        let (_, end) = stage.suffers(|stream: &mut TcpStream| {
            let mut tls = rustls_client();
            talk(&mut tls, stream, b"pay 100");
            tls.writer().write_all(b"0000").unwrap();
            let mut record = Vec::new();
            tls.write_tls(&mut record).unwrap();
            stream.write_all(&record[..record.len() - 1]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(stream);
        });
        end.is_layers(true, "tls", LayerErrorKind::Truncated, "the rest of a record");
        assert_eq!(stage.given(), b"pay 100pay 100", "nothing of the half record");
        assert_eq!(stage.server.eofs(), 0, "a truncated stream has no end of its own");
    }

    #[test]
    fn a_forged_record() {
        let mut stage = stage();
        let (alert, end) = stage.suffers(|stream: &mut TcpStream| {
            let mut tls = rustls_client();
            talk(&mut tls, stream, b"hello");
            stream.write_all(&[&[23, 3, 3, 0, 30][..], &[7; 30]].concat()).unwrap();
            // The alert is encrypted, so that only TLS can read it.
            let mut rest = Vec::new();
            rustls::Stream::new(&mut tls, stream).read_to_end(&mut rest).unwrap_err().to_string()
        });
        assert!(alert.contains("BadRecordMac"), "{alert}");
        end.is_layers(true, "tls", LayerErrorKind::Malformed, "encrypted with the agreed keys");
    }

    #[test]
    fn a_client_without_the_certificate_that_is_demanded() {
        let mut stage = Stage::set(secure::demanding_server, secure::certified_client());
        let (alert, end) = stage.suffers(|stream: &mut TcpStream| {
            let mut tls = rustls_client();
            let mut rest = Vec::new();
            rustls::Stream::new(&mut tls, stream).read_to_end(&mut rest).unwrap_err().to_string()
        });
        assert!(alert.contains("CertificateRequired"), "{alert}");
        end.is_layers(false, "tls", LayerErrorKind::Refused, "a certificate of the client");
    }

    #[test]
    fn a_server_that_is_none() {
        for (answer, text) in [
            (&b"220 mail.example ESMTP\r\n"[..], "220 mail.example"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP response without TLS"),
        ] {
            let (said, why) = against(secure::client(), move |stream| {
                let mut hello = [0; 5];
                stream.read_exact(&mut hello).unwrap();
                let size = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
                stream.read_exact(&mut vec![0; size]).unwrap();
                stream.write_all(answer).unwrap();
                read_all(stream)
            });
            is_alert(&said, DECODE_ERROR);
            let Why::Layer("tls", LayerErrorKind::Malformed, said) = why else { panic!("{why:?}") };
            assert!(said.contains(text), "{said}");
        }
    }

    #[test]
    fn a_server_that_is_another() {
        // Two sides that do not know each other, on one reactor.
        let mut stage = stage();
        let (log, ends) = (Log::new(), Rc::clone(&stage.ends));
        let whys = Rc::new(RefCell::new(Vec::new()));
        let of_handler = Rc::clone(&whys);
        let stranger = Probe::new(&log).close(move |_, closed: &CloseInfo| {
            of_handler.borrow_mut().push(Why::from(&closed.reason));
        });
        let stranger_layer: Tls = secure::stranger();
        let connect = Connect::tcp(stage.address).layer(stranger_layer);
        stage.reactor.net().connect(connect, stranger).unwrap();
        until(&mut stage.reactor, "both ends", |_| log.closes() == 1 && ends.borrow().len() == 1);
        assert_eq!(log.opens(), 0);
        let Why::Layer("tls", LayerErrorKind::Refused, said) = whys.borrow()[0].clone() else {
            panic!("{whys:?}")
        };
        assert!(said.contains("unknown issuer"), "{said}");
        let end = stage.ends.borrow()[0].clone();
        end.is_layers(false, "tls", LayerErrorKind::RefusedByPeer, "does not trust");
        stage.neighbour_is_well();
    }
}

/// A client of ours with a raw server: what that heard, and why our connection ended.
#[cfg(any(feature = "tls", feature = "websocket"))]
#[track_caller]
fn against<T: Send + 'static>(
    layer: impl Layer + 'static,
    server: impl FnOnce(&mut TcpStream) -> T + Send + 'static,
) -> (T, Why) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut reactor = Reactor::new().unwrap();
    let whys = Rc::new(RefCell::new(Vec::new()));
    let (log, of_handler) = (Log::new(), Rc::clone(&whys));
    let probe = Probe::new(&log).close(move |_, closed: &CloseInfo| {
        of_handler.borrow_mut().push(Why::from(&closed.reason));
    });
    reactor.net().connect(Connect::tcp(address).layer(layer), probe).unwrap();
    let heard = with_client(&mut reactor, move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        server(&mut stream)
    });
    until(&mut reactor, "the close", |_| whys.borrow().len() == 1);
    (heard, whys.take().remove(0))
}

// ---- WebSocket ----

#[cfg(feature = "websocket")]
mod websocket {
    use super::*;
    use std::io::Read;
    use std::time::Duration;
    use tidegate::layer::MessageKind;
    use tidegate::layer::testkit::Driver;
    use tidegate::layer::websocket::{WebSocket, WebSocketServer};

    const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    fn stage() -> Stage {
        stage_of(&WebSocket::server())
    }

    fn stage_of(server: &WebSocketServer) -> Stage {
        let server = server.clone();
        Stage::set(move || server.layer(), WebSocket::client("localhost", "/").layer())
    }

    /// The status of the one HTTP response, of which the head and the body came whole.
    #[track_caller]
    fn status(said: &[u8]) -> u16 {
        let said = std::str::from_utf8(said).unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        assert_eq!(length.unwrap().parse(), Ok(body.len()), "{said}");
        head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap()
    }

    /// Opens the socket, says `frames`, listens to the end.
    fn frames(frames: impl Into<Vec<u8>>) -> impl FnOnce(&mut TcpStream) -> Vec<u8> + Send {
        let frames = frames.into();
        move |stream| {
            stream.write_all(format!("{REQUEST}\r\n").as_bytes()).unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(crate::support::read_n(stream, 1));
            }
            assert!(head.starts_with(b"HTTP/1.1 101 "));
            pour(stream, &frames);
            read_all(stream)
        }
    }

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        const KEY: [u8; 4] = [1, 2, 3, 4];
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap()];
        frame.extend(KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    fn close(code: u16) -> Vec<u8> {
        [&[0x88, 2][..], &code.to_be_bytes()].concat()
    }

    #[test]
    fn an_oversized_head() {
        let mut stage = stage();
        let endless = [REQUEST.as_bytes(), b"X: ", &[b'x'; 200_000]].concat();
        let (said, end) = stage.suffers(say(endless));
        assert_eq!(status(&said), 431);
        end.is_layers(false, "websocket", LayerErrorKind::TooLarge, "16384");
        let many = [REQUEST, &"X: y\r\n".repeat(200), "\r\n"].concat();
        let (said, end) = stage.suffers(say(many));
        assert_eq!(status(&said), 431);
        end.is_layers(false, "websocket", LayerErrorKind::TooLarge, "");
    }

    #[test]
    fn what_is_no_http() {
        let mut stage = stage();
        for (words, text) in [
            (&b"\x16\x03\x01\x00\xa5\x01\x00\x00"[..], "looks like TLS"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", ""),
            (b"GET / HTTP/9.9\r\n\r\n", ""),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "Host"),
        ] {
            let (said, end) = stage.suffers(say(words));
            assert_eq!(status(&said), 400);
            end.is_layers(false, "websocket", LayerErrorKind::Malformed, text);
        }
    }

    #[test]
    fn an_upgrade_that_breaks_the_rules() {
        let mut stage = stage();
        let without_key = REQUEST.replace("Sec-WebSocket-Key", "X");
        let (said, end) = stage.suffers(say(format!("{without_key}\r\n")));
        assert_eq!(status(&said), 400);
        end.is_layers(false, "websocket", LayerErrorKind::Malformed, "Sec-WebSocket-Key");
        let of_a_draft = REQUEST.replace("Version: 13", "Version: 8");
        let (said, end) = stage.suffers(say(format!("{of_a_draft}\r\n")));
        assert_eq!(status(&said), 426);
        end.is_layers(false, "websocket", LayerErrorKind::Refused, "13");
        let (said, end) = stage.suffers(say(format!("{REQUEST}Origin: http://elsewhere\r\n\r\n")));
        assert_eq!(status(&said), 403);
        end.is_layers(false, "websocket", LayerErrorKind::Refused, "elsewhere");
    }

    #[test]
    fn a_request_that_is_no_upgrade_is_served_and_no_failure() {
        let mut stage = stage();
        let address = stage.address;
        let said = with_client(&mut stage.reactor, move || {
            say("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")(&mut client(address))
        });
        assert_eq!(status(&said), 426);
        settle(&mut stage.reactor);
        let ends = stage.ends.borrow();
        let [End { opened: false, text, .. }] = &ends[..] else { panic!("{ends:?}") };
        assert_eq!(text, "both sides ended", "the hook balances the filter, and this was in order");
        drop(ends);
        let stats = stage.reactor.net().listener_stats(stage.listener).unwrap();
        assert_eq!((stats.accepted, stats.failed_handshakes), (2, 0));
        stage.neighbour_is_well();
    }

    #[test]
    fn a_slow_head() {
        let options = StreamOptions::new().handshake_timeout(Duration::from_millis(60));
        let server = || WebSocket::server().layer();
        let honest = WebSocket::client("localhost", "/").layer();
        let mut stage = Stage::with_options(options, server, honest);
        let (_, end) = stage.suffers(say(REQUEST));
        assert_eq!(end.why, Why::TimedOut(Deadline::Handshake));
        assert!(!end.opened);
    }

    #[test]
    fn more_before_the_opening_than_the_connection_may_use() {
        let options = StreamOptions::new().handshake_limit(1000);
        let server = || WebSocket::server().layer();
        let honest = WebSocket::client("localhost", "/").layer();
        let mut stage = Stage::with_options(options, server, honest);
        let (_, end) = stage.suffers(|stream: &mut TcpStream| {
            pour(stream, &[REQUEST.as_bytes(), b"X: ", &[b'x'; 1000]].concat());
            let _ = stream.read(&mut [0; 16]); // an end, or a reset: it was cut
        });
        assert_eq!(end.why, Why::Limit(Limit::Handshake, 1000));
        assert!(!end.opened);
    }

    #[test]
    fn a_frame_without_a_mask() {
        let mut stage = stage();
        let (said, end) =
            stage.suffers(frames([&masked(0x82, b"hello")[..], b"\x81\x05world"].concat()));
        assert_eq!(said, [&b"\x82\x05hello"[..], &close(1002)].concat());
        end.is_layers(true, "websocket", LayerErrorKind::Malformed, "without a mask");
        assert_eq!(stage.given(), b"hello");
    }

    #[test]
    fn a_masked_frame_of_a_server() {
        let layer = WebSocket::client("localhost", "/").layer();
        let (said, why) = against(layer, |stream| {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(crate::support::read_n(stream, 1));
            }
            let head = String::from_utf8(head).unwrap();
            let key = head.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            let accept = crate::support::accept_key(key);
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(&[answer.as_bytes(), &masked(0x81, b"hello")].concat()).unwrap();
            read_all(stream)
        });
        let Why::Layer("websocket", LayerErrorKind::Malformed, text) = why else {
            panic!("{why:?}")
        };
        assert!(text.contains("a masked frame"), "{text}");
        let [0x88, 0x82, k0, k1, _, _, high, low] = said[..] else { panic!("{said:?}") };
        assert_eq!(u16::from_be_bytes([high ^ k0, low ^ k1]), 1002);
    }

    #[test]
    fn a_server_that_speaks_another_protocol() {
        for (greeting, text) in [
            (&b"220 mail.example ESMTP\r\n"[..], "220 mail.example"),
            (b"\x15\x03\x03\0\x02\x02\x46", "looks like TLS"),
        ] {
            let layer = WebSocket::client("localhost", "/").layer();
            let (_, why) = against(layer, |stream| {
                stream.write_all(greeting).unwrap();
                read_all(stream)
            });
            let Why::Layer("websocket", LayerErrorKind::Malformed, said) = why else {
                panic!("{why:?}")
            };
            assert!(said.contains(text), "{said}");
        }
    }

    #[test]
    fn a_server_that_is_none_and_does_not_go_away() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut reactor = Reactor::new().unwrap();
        let log = Log::new();
        let options = StreamOptions::new()
            .handshake_timeout(Duration::from_secs(3600))
            .close_timeout(Duration::from_secs(3600));
        let connect = Connect::tcp(address)
            .options(options)
            .layer(WebSocket::client("localhost", "/").layer());
        reactor.net().connect(connect, Probe::new(&log)).unwrap();
        let mut stream = with_client(&mut reactor, move || listener.accept().unwrap().0);
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        until(&mut reactor, "the close", |_| log.closes() == 1);
        assert!(log.reasons()[0].contains("220 mail.example"), "{:?}", log.reasons());
    }

    #[test]
    fn a_server_that_refuses_the_upgrade() {
        let layer = WebSocket::client("localhost", "/").layer();
        let (_, why) = against(layer, |stream| {
            let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).unwrap();
            read_all(stream)
        });
        let Why::Layer("websocket", LayerErrorKind::RefusedByPeer, text) = why else {
            panic!("{why:?}")
        };
        assert!(text.contains("404"), "{text}");
    }

    #[test]
    fn text_that_is_none() {
        let mut stage = stage();
        let (said, end) = stage.suffers(frames(masked(0x81, b"caf\xc3")));
        assert_eq!(said, close(1007));
        end.is_layers(true, "websocket", LayerErrorKind::Malformed, "UTF-8");
        // At the first wrong byte, though the message goes on.
        let (said, end) = stage.suffers(frames(masked(0x01, b"caf\xff")));
        assert_eq!(said, close(1007));
        end.is_layers(true, "websocket", LayerErrorKind::Malformed, "UTF-8");
        assert_eq!(stage.given(), b"");
    }

    #[test]
    fn a_frame_that_announces_too_much() {
        let mut stage = stage();
        for length in [1 << 63, u64::MAX, (1 << 20) + 1] {
            let header =
                [&[0x82, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4], &[0; 100]].concat();
            let (said, end) = stage.suffers(frames(header));
            assert_eq!(said, close(1009));
            end.is_layers(true, "websocket", LayerErrorKind::TooLarge, &length.to_string());
        }
    }

    #[test]
    fn fragments_that_come_to_too_much() {
        let mut stage = stage_of(&WebSocket::server().message_limit(300));
        let fragments = [masked(0x02, &[0; 120]), masked(0x00, &[0; 120]).repeat(5)].concat();
        let (said, end) = stage.suffers(frames(fragments));
        assert_eq!(said, close(1009));
        end.is_layers(true, "websocket", LayerErrorKind::TooLarge, "300");
    }

    #[test]
    fn a_control_frame_that_is_none() {
        let mut stage = stage();
        // A fragment of one, one of an opcode that there is not, and one of 126 bytes, which no
        // control frame has room for.
        let too_long = vec![0x89, 0xfe, 0, 126, 1, 2, 3, 4];
        for frame in [masked(0x09, b"part"), masked(0x8b, b""), too_long] {
            let (said, end) = stage.suffers(frames(frame));
            assert_eq!(said, close(1002));
            end.is_layers(true, "websocket", LayerErrorKind::Malformed, "");
        }
    }

    #[test]
    fn a_bomb() {
        let mut stage = stage_of(&WebSocket::server().deflate(true).deflate_threshold(32));
        let (said, end) = stage.suffers(|stream: &mut TcpStream| {
            // An honest client's words, but for their size.
            let layer =
                WebSocket::client("localhost", "/").deflate(true).deflate_threshold(32).layer();
            let mut client = Driver::new(layer);
            stream.write_all(&client.take_wire()).unwrap();
            while !client.is_ready() {
                client.feed(&crate::support::read_n(stream, 1));
            }
            client.send(&vec![0; 4 << 20], MessageKind::Binary).unwrap();
            let bomb = client.take_wire();
            assert!(bomb.len() < 32 * 1024, "{} bytes of bomb", bomb.len());
            pour(stream, &bomb);
            read_all(stream)
        });
        assert_eq!(said, close(1009));
        end.is_layers(true, "websocket", LayerErrorKind::TooLarge, "1048576");
        assert_eq!(stage.given(), b"");
    }

    #[test]
    fn an_end_without_a_close_frame() {
        let mut stage = stage();
        let (_, end) = stage.suffers(|stream: &mut TcpStream| {
            stream.write_all(format!("{REQUEST}\r\n").as_bytes()).unwrap();
            stream.write_all(&masked(0x81, b"hello")).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(stream)
        });
        end.is_layers(true, "websocket", LayerErrorKind::Truncated, "");
        assert_eq!(stage.given(), b"hello");
    }
}
