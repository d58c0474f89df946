//! Arbitrary bytes in arbitrary pieces, at a server's layer before and behind the handshake and at
//! a client's: no panic, every promise of the `Layer` contract kept, every limit held.
//!
//! Byte 0 chooses the side and the settings, byte 1 the length of the pieces; the rest is the
//! peer's. With bit 3 of byte 0 the rest is the payloads of frames made right (masked, of the right
//! length), which come deeper.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::layer::testkit::Environment;
use tidegate::layer::websocket::WebSocket;
use tidegate::layer::{Item, MessageKind, Layer, LayerEnd};

const MAX_MESSAGE: usize = 2000;
const MAX_FRAME: usize = MAX_MESSAGE / 2;
const HEADER_LIMIT: usize = 1000;
/// 33 pongs of 127 bytes each, a Close frame, or an HTTP response.
const MAX_REPLY: usize = 33 * 131 + 131;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

fuzz_target!(|data: &[u8]| {
    let [mode, piece, bytes @ ..] = data else { return };
    let (shaken, deflate, client, framed) =
        (mode & 1 != 0, mode & 2 != 0, mode & 4 != 0, mode & 8 != 0);
    let mut end = if client { as_client(shaken, deflate) } else { as_server(deflate) };
    if shaken && !client {
        end.feed(REQUEST);
        assert!(end.layer.is_ready());
    }
    let bytes = if framed { frames(bytes, !client) } else { bytes.to_vec() };
    for piece in bytes.chunks(usize::from(*piece) + 1) {
        end.feed(piece);
        if end.over {
            break;
        }
    }
    let _ = end.layer.wire_ended(&mut end.environment.cx(), end.tail.len());
    let mut last = Vec::new();
    end.layer.end(&mut end.environment.cx(), &LayerEnd::Closed, &mut last);
    assert!(last.is_empty() || (end.layer.is_ready() && last.len() <= 8));
});

struct End {
    environment: Environment,
    layer: WebSocket,
    tail: Vec<u8>,
    over: bool,
}

fn as_server(deflate: bool) -> End {
    let settings = WebSocket::server()
        .deflate(deflate).deflate_threshold(32)
        .message_limit(MAX_MESSAGE)
        .frame_limit(MAX_FRAME)
        .header_limit(HEADER_LIMIT);
    End { environment: Environment::new(), layer: settings.layer(), tail: Vec::new(), over: false }
}

/// A client, its handshake done with one of our own servers if so wished.
fn as_client(shaken: bool, deflate: bool) -> End {
    let settings = WebSocket::client("h", "/")
        .deflate(deflate).deflate_threshold(32)
        .message_limit(MAX_MESSAGE)
        .frame_limit(MAX_FRAME)
        .header_limit(HEADER_LIMIT);
    let mut end = End { environment: Environment::new(), layer: settings.layer(), tail: Vec::new(), over: false };
    let mut asked = Vec::new();
    end.layer.start(&mut end.environment.cx(), &mut asked).expect("the settings are right");
    if shaken {
        let mut answer = Vec::new();
        let mut server = WebSocket::server().deflate(deflate).deflate_threshold(32).layer();
        let step = server.decode(&mut end.environment.cx(), &mut asked, &mut Vec::new(), &mut answer).expect("it was right");
        assert_eq!(step.item, Item::Progress);
        end.feed(&answer);
        assert!(end.layer.is_ready());
    }
    end
}

impl End {
    fn feed(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let mut unit = Vec::new();
        loop {
            unit.clear();
            let was_ready = self.layer.is_ready();
            let mut reply = Vec::new();
            let step = self.layer.decode(&mut self.environment.cx(), &mut self.tail, &mut unit, &mut reply);
            assert!(reply.len() <= MAX_REPLY);
            let Ok(step) = step else {
                self.over = true;
                return;
            };
            assert!(step.consumed <= self.tail.len());
            let length = match &step.item {
                Item::Unit => Some(unit.len()),
                Item::Slice(range) => {
                    assert!(range.end <= step.consumed);
                    Some(range.len())
                }
                _ => None,
            };
            if let Some(length) = length {
                assert!(was_ready && length <= MAX_MESSAGE);
                let message = match &step.item {
                    Item::Slice(range) => &self.tail[range.clone()],
                    _ => &unit,
                };
                // What came can be sent back as it came: text was checked.
                let mut wire = Vec::new();
                self.layer.encode(&mut self.environment.cx(), message, step.kind, &mut wire).expect("it can be echoed");
                assert!(step.kind == MessageKind::Text || step.kind == MessageKind::Binary);
            }
            self.tail.drain(..step.consumed);
            match step.item {
                Item::End => {
                    self.over = true;
                    return;
                }
                Item::Nothing => {
                    // Nothing but the beginning of a header or of a frame is left: a control frame, or one
                    // with a whole message, which is handed on where it lies.
                    let most = if self.layer.is_ready() { 14 + MAX_FRAME } else { HEADER_LIMIT };
                    assert!(self.tail.len() <= most);
                    return;
                }
                Item::Progress => assert!(step.consumed > 0),
                Item::Slice(_) | Item::Unit => {}
            }
        }
    }
}

/// Cuts the bytes into frames: one byte for the first of the header, one for the length.
fn frames(mut bytes: &[u8], masked: bool) -> Vec<u8> {
    let mut wire = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let length = usize::from(*length).min(rest.len()).min(125);
        let (payload, behind) = rest.split_at(length);
        wire.extend([*first, length as u8 | if masked { 0x80 } else { 0 }]);
        if masked {
            wire.extend([0; 4]);
        }
        wire.extend_from_slice(payload);
        bytes = behind;
    }
    wire
}
