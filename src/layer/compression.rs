//! The common part of the compressing layers: the frame on the wire, the limits, the counters.
//!
//! A frame is a header and a body. The header is one unsigned LEB128 integer (7 bits to the byte,
//! the lowest first, the high bit set on all bytes but the last, no needless zero at the end) of
//! `body length * 4 + form`. So a body of up to 31 bytes costs one byte, up to 4,095 bytes two, up
//! to 512 KiB three. The original size is not sent: both formats mark their own end, and the
//! receiver could not trust a size.

use std::ops::Range;

use super::{LayerError, LayerErrorKind};

#[cfg(test)]
pub(super) mod kit;
mod rate;

pub use rate::{CompressionRate, CompressionVolume};

/// The limit on a message, before and after decompression, where the application sets none: 1 MiB.
/// Far above what real-time messages come to, and low enough that a thousand peers who all send
/// bombs at once hold 1 GiB at worst, for as long as their callbacks run.
pub(super) const DEFAULT_MAX_MESSAGE: usize = 1 << 20;

/// The longest header: a `u64` in 7-bit digits.
const LONGEST_HEADER: usize = 10;

/// How a body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is. No codec has seen it.
    Stored = 0,
    /// Compressed; in a codec with a context, against that context.
    Compressed = 1,
    /// As it is, but part of the context that later messages refer to.
    StoredInContext = 2,
    /// Compressed by itself; the context neither helps nor learns.
    Alone = 3,
}

impl Form {
    fn of(header: u128) -> Self {
        match header & 3 {
            0 => Form::Stored,
            1 => Form::Compressed,
            2 => Form::StoredInContext,
            _ => Form::Alone,
        }
    }
}

/// The limits every codec keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The limit on a message and on a body, in bytes.
    pub(super) message_limit: usize,
    /// Shorter messages are not compressed, in bytes.
    pub(super) threshold: usize,
}

impl Limits {
    /// The default limit, and the codec's own threshold.
    pub(super) fn above(threshold: usize) -> Self {
        Limits { message_limit: DEFAULT_MAX_MESSAGE, threshold }
    }

    /// Refuses what the other side, with the same limit, would refuse. Nothing is written before.
    pub(super) fn check_sendable(
        &self,
        layer: &'static str,
        message: &[u8],
    ) -> Result<(), LayerError> {
        if message.len() <= self.message_limit {
            return Ok(());
        }
        Err(LayerError::new(
            layer,
            LayerErrorKind::Unencodable,
            format!(
                "a message of {} bytes is over the limit of {} (message_limit)",
                message.len(),
                self.message_limit
            ),
        ))
    }

    /// The error of a decoder whose output would exceed the limit.
    pub(super) fn too_large(&self, layer: &'static str, body: usize) -> LayerError {
        LayerError::too_large(
            layer,
            format!(
                "{body} compressed bytes decompress to more than the limit of {} (message_limit)",
                self.message_limit
            ),
        )
    }
}

/// One frame that lies whole in the bytes it was looked for in, from their beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) form: Form,
    pub(super) body: Range<usize>,
}

impl Frame {
    /// The frame at the beginning of `wire`, or `None` while it is not whole.
    ///
    /// A length over the limit is refused as soon as the digits that came are enough to know it, and
    /// nothing is ever allocated for a length.
    pub(super) fn first(
        layer: &'static str,
        wire: &[u8],
        limits: &Limits,
    ) -> Result<Option<Self>, LayerError> {
        // Ten digits are 70 bits, so that no announced length wraps to a small one.
        let mut value = 0u128;
        for (at, &byte) in wire.iter().take(LONGEST_HEADER).enumerate() {
            value |= u128::from(byte & 0x7f) << (7 * at);
            let announced = value >> 2;
            if announced > limits.message_limit as u128 {
                return Err(LayerError::too_large(
                    layer,
                    format!(
                        "a frame announces {announced} bytes or more, the limit is {} (message_limit)",
                        limits.message_limit
                    ),
                ));
            }
            if byte & 0x80 != 0 {
                continue;
            }
            if at > 0 && byte == 0 {
                return Err(LayerError::malformed(
                    layer,
                    "expected the shortest frame header, a padded one came",
                ));
            }
            let form = Form::of(value);
            if announced == 0 && matches!(form, Form::Compressed | Form::Alone) {
                return Err(LayerError::malformed(
                    layer,
                    "expected a compressed body, an empty one came",
                ));
            }
            // Within the limit, which is a `usize`.
            let body = at + 1..at + 1 + announced as usize;
            return Ok((wire.len() >= body.end).then_some(Frame { form, body }));
        }
        if wire.len() < LONGEST_HEADER {
            return Ok(None);
        }
        Err(LayerError::malformed(
            layer,
            "expected a frame header of 10 bytes at most, a longer one came",
        ))
    }
}

/// How long the header of a body of `len` bytes is.
fn header_len(len: usize) -> usize {
    let bits = u64::BITS - (((len as u64) << 2) | 3).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Fills `header`, which is [`header_len`] bytes long.
fn put_header(header: &mut [u8], form: Form, len: usize) {
    let mut value = ((len as u64) << 2) | form as u64;
    let last = header.len() - 1;
    for (at, byte) in header.iter_mut().enumerate() {
        *byte = (value & 0x7f) as u8 | if at < last { 0x80 } else { 0 };
        value >>= 7;
    }
}

/// Appends `message` as it is.
pub(super) fn append_stored(wire: &mut Vec<u8>, form: Form, message: &[u8]) {
    let start = wire.len();
    let header = header_len(message.len());
    wire.resize(start + header, 0);
    put_header(&mut wire[start..], form, message.len());
    wire.extend_from_slice(message);
}

/// Compresses `message` straight into `wire`, with the header before it. Returns `false`, with
/// `wire` as it was, when that is no gain.
///
/// `compress` gets `room` bytes (the codec's worst case, so that it never has to stop half-way)
/// and returns how many it used. It writes into the driver's buffer: the layer keeps none of its
/// own, at the price of clearing `room` bytes first.
pub(super) fn append_compressed<E>(
    wire: &mut Vec<u8>,
    form: Form,
    message: &[u8],
    room: usize,
    compress: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Result<bool, E> {
    let start = wire.len();
    // Whatever is kept is shorter than the message, and so is its header.
    let widest = header_len(message.len());
    wire.resize(start + widest + room, 0);
    let body = start + widest;
    let len = match compress(&mut wire[body..]) {
        Ok(len) if len < message.len() => len,
        no_gain => {
            wire.truncate(start);
            return no_gain.map(|_| false);
        }
    };
    let header = header_len(len);
    put_header(&mut wire[start..start + header], form, len);
    if header < widest {
        // The shorter header leaves a gap; only bodies much shorter than the message pay for it.
        wire.copy_within(body..body + len, start + header);
    }
    wire.truncate(start + header + len);
    Ok(true)
}

/// Makes room in `unit` for `more` bytes that came out of a codec: doubling, so that a long message
/// is not moved for each step, but never past the limit. The two together must be within the limit.
pub(super) fn grow(unit: &mut Vec<u8>, more: usize, limits: &Limits) {
    if unit.capacity() - unit.len() < more {
        let left = limits.message_limit - unit.len();
        unit.reserve_exact(more.max(unit.capacity()).min(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(wire: &[u8], message_limit: usize) -> Result<Option<Frame>, LayerErrorKind> {
        let limits = Limits { message_limit, threshold: 0 };
        Frame::first("test", wire, &limits).map_err(|e| e.kind())
    }

    #[test]
    fn a_header_reads_back_at_every_width() {
        for len in [0usize, 1, 31, 32, 4095, 4096, (1 << 19) - 1, 1 << 19, 1 << 26] {
            for form in [Form::Stored, Form::StoredInContext] {
                let mut wire = vec![0; header_len(len)];
                put_header(&mut wire, form, len);
                for cut in 0..wire.len() {
                    assert_eq!(first(&wire[..cut], 1 << 26), Ok(None));
                }
                let header = wire.len();
                wire.resize(header + len, 7);
                let frame = first(&wire, 1 << 26).unwrap().unwrap();
                assert_eq!(frame, Frame { form, body: header..header + len });
            }
        }
    }

    #[test]
    fn a_length_over_the_cap_is_refused_from_its_first_digits() {
        // 2^63 bytes, and the first half of a header like it.
        assert_eq!(first(&[0xff; 5], 1 << 20), Err(LayerErrorKind::TooLarge));
        let mut wire = [0x80; 10];
        wire[9] = 1 << 2;
        assert_eq!(first(&wire, 1 << 20), Err(LayerErrorKind::TooLarge));
        // Exactly at the limit, and one over it.
        assert_eq!(first(&[4 << 2], 4), Ok(None));
        assert_eq!(first(&[5 << 2], 4), Err(LayerErrorKind::TooLarge));
    }

    #[test]
    fn a_header_that_is_no_shortest_is_malformed() {
        assert_eq!(first(&[0x80, 0x00], 4), Err(LayerErrorKind::Malformed));
        assert_eq!(first(&[0x80; 9], 4), Ok(None));
        assert_eq!(first(&[0x80; 10], 4), Err(LayerErrorKind::Malformed));
    }

    #[test]
    fn a_compressed_body_is_never_empty() {
        assert_eq!(first(&[1], 4), Err(LayerErrorKind::Malformed));
        assert_eq!(first(&[3], 4), Err(LayerErrorKind::Malformed));
    }

    #[test]
    fn what_does_not_shrink_leaves_the_wire_as_it_was() {
        let mut wire = b"before".to_vec();
        let kept = append_compressed(&mut wire, Form::Compressed, &[0; 40], 64, |room| {
            room[..40].fill(1);
            Ok::<_, ()>(40)
        });
        assert_eq!(kept, Ok(false));
        assert_eq!(append_compressed(&mut wire, Form::Alone, &[0; 40], 64, |_| Err(5)), Err(5));
        assert_eq!(wire, b"before");
        // Two bytes of header were set aside, one is needed.
        let kept = append_compressed(&mut wire, Form::Compressed, &[0; 40], 64, |room| {
            room[..3].copy_from_slice(b"abc");
            Ok::<_, ()>(3)
        });
        assert_eq!(kept, Ok(true));
        assert_eq!(wire, b"before\x0dabc");
    }
}
