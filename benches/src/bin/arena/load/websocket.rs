//! WebSocket on the load's side (RFC 6455): the opening handshake, and frames. What a server sends is known
//! beforehand, so that a frame's head is compared and not parsed where nothing is compressed.

use crate::Result;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};

/// First bytes of whole messages.
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;

/// In the first byte: the message is compressed (RFC 7692).
pub const COMPRESSED: u8 = 0x40;

/// The example of RFC 6455 section 1.3: whoever answers it has computed the answer.
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// As browsers offer it.
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// Opens a WebSocket on a blocking stream, with compression where it is asked for.
pub fn open(stream: &mut (impl Read + Write), deflate: bool) -> Result<()> {
    let offer = if deflate { OFFER } else { "" };
    stream.write_all(format!("{REQUEST}{offer}\r\n").as_bytes())?;
    let mut response = Vec::new();
    let mut bytes = [0; 1024];
    while !response.ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Err("the server closed instead of opening a WebSocket".into()),
            n => response.extend_from_slice(&bytes[..n]),
        }
    }
    let response = String::from_utf8(response)?;
    let opens = response.starts_with("HTTP/1.1 101 ");
    let agreed = match field(&response, "sec-websocket-extensions") {
        None => !deflate,
        // What the load compresses needs the whole window.
        Some(agreed) => {
            deflate
                && agreed.starts_with("permessage-deflate")
                && (!agreed.contains("client_max") || agreed.contains("client_max_window_bits=15"))
        }
    };
    if opens && agreed && field(&response, "sec-websocket-accept") == Some(ACCEPT) {
        return Ok(());
    }
    Err(format!("not the response that opens a WebSocket: {response:?}").into())
}

/// The value of a field in a response's head.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// The head that a server must give to a message of this length.
pub fn server_head(first: u8, len: usize) -> Vec<u8> {
    head(first, 0, len)
}

fn head(first: u8, mask: u8, len: usize) -> Vec<u8> {
    let mut head = vec![first];
    match (u16::try_from(len), len) {
        (_, ..126) => head.push(mask | len as u8),
        (Ok(len), _) => {
            head.push(mask | 126);
            head.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            head.push(mask | 127);
            head.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    head
}

/// Encodes a client's frames, each with a mask of its own.
pub struct Masks(u64);

impl Masks {
    pub fn new() -> Self {
        // Never zero, of which nothing else would follow.
        Self(RandomState::new().hash_one(()) | 1)
    }

    fn next(&mut self) -> [u8; 4] {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as u32).to_le_bytes()
    }

    /// Adds a frame.
    pub fn put(&mut self, out: &mut Vec<u8>, first: u8, payload: &[u8]) {
        let key = self.next();
        out.extend_from_slice(&head(first, 0x80, payload.len()));
        out.extend_from_slice(&key);
        let start = out.len();
        out.extend_from_slice(payload);
        // A whole number of keys at a time: the compiler takes vectors for that.
        let wide: [u8; 32] = std::array::from_fn(|index| key[index % 4]);
        for chunk in out[start..].chunks_mut(wide.len()) {
            chunk.iter_mut().zip(&wide).for_each(|(byte, mask)| *byte ^= mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_the_shortest_length() {
        assert_eq!(server_head(TEXT, 125), [TEXT, 125]);
        assert_eq!(server_head(TEXT, 126), [TEXT, 126, 0, 126]);
        assert_eq!(server_head(BINARY, 65_535), [BINARY, 126, 255, 255]);
        assert_eq!(server_head(BINARY, 65_536), [BINARY, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_frame_is_its_payload_under_its_mask() {
        let mut masks = Masks::new();
        let payload: Vec<u8> = (0..100).collect();
        let mut out = Vec::new();
        masks.put(&mut out, BINARY, &payload);
        assert_eq!(out[..2], [BINARY, 0x80 | 100]);
        let key = &out[2..6];
        let unmasked: Vec<u8> =
            out[6..].iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k).collect();
        assert_eq!(unmasked, payload);
        let first = key.to_vec();
        out.clear();
        masks.put(&mut out, BINARY, &payload);
        assert_ne!(out[2..6], first);
    }
}
