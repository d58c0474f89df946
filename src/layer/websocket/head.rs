//! The head of a frame (RFC 6455 section 5.2): read where it lies, written in one piece.

use crate::layer::MessageKind;

/// What the low four bits of the first byte say.
pub(super) mod opcode {
    pub(in super::super) const CONTINUATION: u8 = 0;
    pub(in super::super) const TEXT: u8 = 1;
    pub(in super::super) const BINARY: u8 = 2;
    pub(in super::super) const CLOSE: u8 = 8;
    pub(in super::super) const PING: u8 = 9;
    pub(in super::super) const PONG: u8 = 10;
}

/// A head is this long at most, in bytes.
pub(super) const MAX_HEAD: usize = 14;

/// The last frame of its message.
const FINAL: u8 = 0x80;
/// The first frame of a compressed message (RFC 7692 section 6).
pub(super) const RSV1: u8 = 0x40;
const RESERVED: u8 = 0x70;
/// Control frames have it in their opcode.
const CONTROL: u8 = 0x08;
/// In the second byte, beside the length.
const MASKED: u8 = 0x80;

/// The head of a frame that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    first: u8,
    pub(super) mask: Option<[u8; 4]>,
    /// How long the head is, in bytes.
    pub(super) len: usize,
    /// How long the payload is, as announced.
    pub(super) payload: u64,
}

impl Head {
    /// The head that `wire` begins with; `None` while it is not whole.
    #[inline(always)] // once, in the common case
    pub(super) fn parse(wire: &[u8]) -> Option<Head> {
        let &[first, second, ..] = wire else { return None };
        let (payload, mut len) = match second & !MASKED {
            126 => (u16::from_be_bytes(array(wire, 2)?).into(), 4),
            127 => (u64::from_be_bytes(array(wire, 2)?), 10),
            short => (short.into(), 2),
        };
        let mut mask = None;
        if second & MASKED != 0 {
            mask = Some(array(wire, len)?);
            len += 4;
        }
        Some(Head { first, mask, len, payload })
    }

    pub(super) fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    /// The kind of a message that is whole in this frame, as it is.
    pub(super) fn kind_of_whole(&self) -> Option<MessageKind> {
        const TEXT: u8 = FINAL | opcode::TEXT;
        const BINARY: u8 = FINAL | opcode::BINARY;
        match self.first {
            TEXT => Some(MessageKind::Text),
            BINARY => Some(MessageKind::Binary),
            _ => None,
        }
    }

    pub(super) fn is_control(&self) -> bool {
        self.first & CONTROL != 0
    }

    pub(super) fn is_final(&self) -> bool {
        self.first & FINAL != 0
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.first & RSV1 != 0
    }

    /// Whether one of these reserved bits is set.
    pub(super) fn reserved(&self) -> u8 {
        self.first & RESERVED
    }
}

#[inline]
fn array<const N: usize>(wire: &[u8], at: usize) -> Option<[u8; N]> {
    wire.get(at..)?.first_chunk().copied()
}

/// Appends the head of a frame that is a whole message, or a control frame. `reserved` is [`RSV1`] or 0.
#[inline(always)] // a server's has no mask
pub(super) fn write(
    opcode: u8,
    reserved: u8,
    mask: Option<[u8; 4]>,
    payload: usize,
    wire: &mut Vec<u8>,
) {
    let first = FINAL | reserved | opcode;
    let masked = if mask.is_some() { MASKED } else { 0 };
    if payload < 126 {
        wire.extend_from_slice(&[first, masked | payload as u8]);
    } else if let Ok(payload) = u16::try_from(payload) {
        let [high, low] = payload.to_be_bytes();
        wire.extend_from_slice(&[first, masked | 126, high, low]);
    } else {
        wire.extend_from_slice(&[first, masked | 127]);
        wire.extend_from_slice(&(payload as u64).to_be_bytes());
    }
    if let Some(mask) = mask {
        wire.extend_from_slice(&mask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_reads_back_at_every_width_and_not_before_it_is_whole() {
        for payload in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 31] {
            for mask in [None, Some([1, 2, 3, 4])] {
                for reserved in [0, RSV1] {
                    let mut wire = Vec::new();
                    write(opcode::TEXT, reserved, mask, payload, &mut wire);
                    for cut in 0..wire.len() {
                        assert_eq!(Head::parse(&wire[..cut]), None, "{cut} of {wire:?}");
                    }
                    let len = wire.len();
                    wire.push(7); // the payload is no part of it
                    let head = Head::parse(&wire).unwrap();
                    assert_eq!((head.len, head.payload, head.mask), (len, payload as u64, mask));
                    assert_eq!((head.opcode(), head.reserved()), (opcode::TEXT, reserved));
                    assert!(head.is_final() && !head.is_control());
                }
            }
        }
    }

    #[test]
    fn a_length_need_not_be_in_its_shortest_form() {
        let head = Head::parse(&[0x02, 127, 0, 0, 0, 0, 0, 0, 0, 5]).unwrap();
        assert_eq!((head.len, head.payload, head.is_final()), (10, 5, false));
        let head = Head::parse(&[0x8a, 126, 0, 5]).unwrap();
        assert_eq!((head.len, head.payload), (4, 5));
        assert!(head.is_control());
    }
}
