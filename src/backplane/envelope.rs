//! What goes in front of a message on its way through the engine.
//!
//! ```text
//! 0xff 'T' | flags | publisher, 16 bytes | number, 8 bytes | key, 8 bytes if there is one | message
//! ```
//!
//! No text in UTF-8 begins with 0xff, so what another program publishes is told apart.

use crate::layer::MessageKind;
use crate::message::Message;

const MARK: [u8; 2] = [0xff, b'T'];
const KIND: u8 = 0b11;
const HAS_KEY: u8 = 0b100;

/// The most that is put in front of a message.
pub(super) const OVERHEAD: usize = 2 + 1 + 16 + 8 + 8;

/// One process and one start of it.
pub(super) type Publisher = [u8; 16];

/// A message that came through the engine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrived<'a> {
    /// Who sent it as which of its messages; `None` for another program.
    pub(super) sent: Option<(Publisher, u64)>,
    pub(super) key: Option<u64>,
    pub(super) message: Message<&'a [u8]>,
}

/// Appends the envelope and the message.
pub(super) fn seal(
    publisher: &Publisher,
    number: u64,
    key: Option<u64>,
    message: Message<&[u8]>,
    out: &mut Vec<u8>,
) {
    let kind = match message.kind {
        MessageKind::Default => 0,
        MessageKind::Text => 1,
        MessageKind::Binary => 2,
    };
    out.extend_from_slice(&MARK);
    out.push(kind | if key.is_some() { HAS_KEY } else { 0 });
    out.extend_from_slice(publisher);
    out.extend_from_slice(&number.to_be_bytes());
    if let Some(key) = key {
        out.extend_from_slice(&key.to_be_bytes());
    }
    out.extend_from_slice(message.bytes);
}

/// Gives a payload that was sealed here another number.
pub(super) fn renumber(payload: &mut [u8], number: u64) {
    if payload.starts_with(&MARK)
        && let Some(at) = payload.get_mut(2 + 1 + 16..2 + 1 + 16 + 8)
    {
        at.copy_from_slice(&number.to_be_bytes());
    }
}

/// The length of envelope and message.
pub(super) fn sealed_len(key: Option<u64>, message: Message<&[u8]>) -> usize {
    OVERHEAD - if key.is_some() { 0 } else { 8 } + message.bytes.len()
}

/// What is in a payload. One without an envelope is a message as it is.
pub(super) fn open(payload: &[u8]) -> Arrived<'_> {
    sealed(payload).unwrap_or(Arrived {
        sent: None,
        key: None,
        message: Message::new(MessageKind::Default, payload),
    })
}

fn sealed(payload: &[u8]) -> Option<Arrived<'_>> {
    let (&flags, rest) = payload.strip_prefix(&MARK)?.split_first()?;
    let (&publisher, rest) = rest.split_first_chunk::<16>()?;
    let (&number, rest) = rest.split_first_chunk::<8>()?;
    let (key, bytes) = if flags & HAS_KEY != 0 {
        let (&key, rest) = rest.split_first_chunk::<8>()?;
        (Some(u64::from_be_bytes(key)), rest)
    } else {
        (None, rest)
    };
    let kind = match flags & KIND {
        0 => MessageKind::Default,
        1 => MessageKind::Text,
        2 => MessageKind::Binary,
        _ => return None,
    };
    let sent = Some((publisher, u64::from_be_bytes(number)));
    (flags & !(KIND | HAS_KEY) == 0).then_some(Arrived {
        sent,
        key,
        message: Message::new(kind, bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_and_anything_else_is_a_message() {
        let publisher = [7; 16];
        for kind in [MessageKind::Default, MessageKind::Text, MessageKind::Binary] {
            for key in [None, Some(0), Some(u64::MAX)] {
                for bytes in [&b""[..], b"hi", b"\xffT\0\r\n"] {
                    let message = Message::new(kind, bytes);
                    let mut out = Vec::new();
                    seal(&publisher, 9, key, message, &mut out);
                    assert_eq!(out.len(), sealed_len(key, message));
                    assert_eq!(open(&out), Arrived { sent: Some((publisher, 9)), key, message });
                    renumber(&mut out, 10);
                    assert_eq!(open(&out), Arrived { sent: Some((publisher, 10)), key, message });
                }
            }
        }
        for foreign in
            [&b""[..], b"hello", b"\xff", b"\xffT", b"\xffT\x08", &[0xff, b'T', 3, 0], &[0xff; 50]]
        {
            let arrived = open(foreign);
            assert_eq!((arrived.sent, arrived.message.bytes), (None, foreign));
        }
    }
}
