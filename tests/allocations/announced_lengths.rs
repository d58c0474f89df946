//! Nothing is allocated for what a peer merely announces.

use std::io::Write;

use tidegate::layer::{Layer, LayerContext, LengthPrefixed};
use tidegate::{Listen, Reactor, StreamOptions};

use crate::support::{Log, Probe, address_of, client, read_all, settle, until};

/// What a connection may cost, its socket's bookkeeping and its layer's state included. The
/// announcements here are all of a mebibyte or more.
const ROOM: u64 = 64 * 1024;

/// Serves one raw peer that opens a connection with `opening` and then says `announcement`, an empty
/// promise. Answers the most that was allocated at one time from the announcement to the end.
#[track_caller]
fn costs<L: Layer + 'static>(
    mut layer: impl FnMut() -> L + 'static,
    opening: &[u8],
    announcement: &[u8],
) -> u64 {
    let mut reactor = Reactor::new().unwrap();
    let log = Log::new();
    let of_handlers = log.clone();
    // No limit stands in the way but those of the layers.
    let options = StreamOptions::new().handshake_limit(usize::MAX).unread_limit(usize::MAX);
    let listen = Listen::tcp("127.0.0.1:0").options(options).layer(move |_| layer());
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handlers)).unwrap();
    let mut peer = client(address_of(&mut reactor, listener));
    peer.write_all(opening).unwrap();
    settle(&mut reactor);
    assert_eq!(reactor.net().listener_stats(listener).unwrap().open, 1);
    let cost = allocation_counter::measure(|| {
        peer.write_all(announcement).unwrap();
        settle(&mut reactor);
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        until(&mut reactor, "the end", |reactor| {
            reactor.net().listener_stats(listener).unwrap().open == 0
        });
    });
    assert_eq!(log.data(), b"", "nothing of it was a message");
    read_all(&mut peer);
    cost.bytes_max
}

#[track_caller]
fn costs_little<L: Layer + 'static>(
    layer: impl FnMut() -> L + 'static,
    opening: &[u8],
    announcement: &[u8],
) {
    let cost = costs(layer, opening, announcement);
    assert!(cost < ROOM, "{cost} bytes for {announcement:?}");
}

/// The test can fail: a layer that believes what it is told is found out.
#[test]
fn a_believer_would_be_noticed() {
    use tidegate::layer::{Item, LayerError, MessageKind, Step};

    #[derive(Default)]
    struct Believer(Vec<u8>);

    impl Layer for Believer {
        fn name(&self) -> &'static str {
            "believer"
        }

        fn decode(
            &mut self,
            _: &mut LayerContext<'_>,
            wire: &mut [u8],
            _: &mut Vec<u8>,
            _: &mut Vec<u8>,
        ) -> Result<Step, LayerError> {
            if let Some(length) = wire.first_chunk() {
                self.0.reserve(u32::from_be_bytes(*length) as usize);
            }
            Ok(Step::new(0, Item::Nothing))
        }

        fn encode(
            &mut self,
            _: &mut LayerContext<'_>,
            _: &[u8],
            _: MessageKind,
            _: &mut Vec<u8>,
        ) -> Result<(), LayerError> {
            Ok(())
        }
    }
    let cost = costs(Believer::default, b"", &(1_u32 << 20).to_be_bytes());
    assert!(cost >= 1 << 20, "{cost}");
}

#[test]
fn a_length_prefix() {
    // At the limit, so that it is waited for; and with a limit as good as none.
    costs_little(|| LengthPrefixed::new(4), b"", &(1_u32 << 20).to_be_bytes());
    let trusting = || LengthPrefixed::new(8).frame_limit(usize::MAX);
    costs_little(trusting, b"", &((1_u64 << 63) - 9).to_be_bytes());
    costs_little(|| LengthPrefixed::new(8), b"", &u64::MAX.to_be_bytes());
    costs_little(LengthPrefixed::varint, b"", &[0x80, 0x80, 0x40]);
}

#[cfg(feature = "deflate")]
#[test]
fn a_compressed_body() {
    use tidegate::layer::Deflate;
    // The header is the body's length times four, plus its form, in digits of seven bits.
    costs_little(Deflate::new, b"", &[0x81, 0x80, 0x80, 0x02]);
    costs_little(Deflate::per_message, b"", &[0x83, 0x80, 0x80, 0x02]);
    costs_little(|| Deflate::new().message_limit(usize::MAX), b"", &[0xff; 8]);
}

#[cfg(feature = "lz4")]
#[test]
fn an_lz4_body() {
    use tidegate::layer::Lz4;
    costs_little(Lz4::new, b"", &[0x81, 0x80, 0x80, 0x02]);
    costs_little(|| Lz4::new().message_limit(usize::MAX), b"", &[0xff; 8]);
}

#[cfg(feature = "websocket")]
mod websocket {
    use super::*;
    use tidegate::Connect;
    use tidegate::layer::websocket::WebSocket;

    const OPENING: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    fn frame_of(length: u64) -> Vec<u8> {
        [&[0x82, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4], b"and so on"].concat()
    }

    #[test]
    fn a_frame() {
        let server = || WebSocket::server().layer();
        for length in [1 << 20, (1 << 20) + 1, 1 << 32, 1 << 63, u64::MAX] {
            costs_little(server, OPENING, &frame_of(length));
        }
        let trusting = || WebSocket::server().message_limit(usize::MAX).layer();
        for length in [1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX] {
            costs_little(trusting, OPENING, &frame_of(length));
        }
    }

    #[test]
    fn a_body_of_a_request() {
        let head =
            b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9223372036854775807\r\n\r\n";
        costs_little(|| WebSocket::server().layer(), b"", head);
    }

    /// The client's side, whose server is the hostile one.
    #[test]
    fn a_frame_of_a_server() {
        use std::io::{BufRead, BufReader};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reactor = Reactor::new().unwrap();
        let log = Log::new();
        let layer = WebSocket::client("localhost", "/").layer();
        let connect = Connect::tcp(listener.local_addr().unwrap()).layer(layer);
        reactor.net().connect(connect, Probe::new(&log)).unwrap();
        settle(&mut reactor);
        let (mut stream, _) = listener.accept().unwrap();
        let request = BufReader::new(&stream).lines().map_while(Result::ok);
        let request: Vec<String> = request.take_while(|line| !line.is_empty()).collect();
        let key = request.iter().find_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = crate::support::accept_key(key);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).unwrap();
        until(&mut reactor, "the opening", |_| log.opens() == 1);
        let cost = allocation_counter::measure(|| {
            stream.write_all(&[&[0x82, 0x7f][..], &(1_u64 << 62).to_be_bytes()].concat()).unwrap();
            settle(&mut reactor);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            until(&mut reactor, "the close", |_| log.closes() == 1);
        });
        assert!(cost.bytes_max < ROOM, "{} bytes", cost.bytes_max);
    }
}

#[cfg(feature = "tls")]
#[test]
fn a_handshake_message() {
    // Of 16 MiB, over the limit; then of 60,000 bytes, under it.
    let hello = |length: [u8; 3]| [&[22, 3, 1, 0, 4, 1][..], &length].concat();
    costs_little(crate::support::secure::server, b"", &hello([0xff, 0xff, 0xff]));
    costs_little(crate::support::secure::server, b"", &hello([0, 0xea, 0x60]));
    // A record of the largest size there is, of which nothing comes.
    costs_little(crate::support::secure::server, b"", &[22, 3, 1, 0x47, 0xff]);
}
