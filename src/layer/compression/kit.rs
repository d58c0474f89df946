//! What the tests of the compressing layers share: drivers, sample data, transcripts.

use std::any::TypeId;

use super::CompressionRate;
use crate::layer::testkit::Environment;
use crate::layer::{Item, Layer, LayerError, LayerErrorKind, MessageKind};

/// A receiving side as a connection has it: the undecoded bytes, and one buffer for all units.
#[derive(Debug, Default)]
pub(in crate::layer) struct Reader {
    wire: Vec<u8>,
    unit: Vec<u8>,
    pub(in crate::layer) messages: Vec<Vec<u8>>,
    /// How many came without a copy.
    pub(in crate::layer) slices: usize,
}

impl Reader {
    /// Hands `arrived` to `layer` and pulls until nothing more comes.
    pub(in crate::layer) fn feed(
        &mut self,
        layer: &mut dyn Layer,
        arrived: &[u8],
    ) -> Result<(), LayerError> {
        self.wire.extend_from_slice(arrived);
        let mut reply = Vec::new();
        loop {
            self.unit.clear();
            let step = layer.decode(
                &mut Environment::new().cx(),
                &mut self.wire,
                &mut self.unit,
                &mut reply,
            )?;
            assert!(reply.is_empty(), "compression answers nothing");
            match step.item {
                Item::Nothing => {
                    assert_eq!(step.consumed, 0);
                    return Ok(());
                }
                Item::Slice(at) => {
                    assert!(self.unit.is_empty() && at.end <= step.consumed);
                    self.messages.push(self.wire[at].to_vec());
                    self.slices += 1;
                }
                Item::Unit => self.messages.push(self.unit.clone()),
                other => panic!("compression yields no {other:?}"),
            }
            assert!(step.consumed > 0);
            self.wire.drain(..step.consumed);
        }
    }

    /// How much has not been decoded.
    pub(in crate::layer) fn left(&self) -> usize {
        self.wire.len()
    }

    /// The room that the driver's buffer has come to.
    pub(in crate::layer) fn unit_capacity(&self) -> usize {
        self.unit.capacity()
    }
}

/// The wire form of `messages`, one after the other.
pub(in crate::layer) fn encode(layer: &mut dyn Layer, messages: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    for message in messages {
        layer
            .encode(&mut Environment::new().cx(), message, MessageKind::Default, &mut wire)
            .unwrap();
    }
    wire
}

/// What `layer` makes of `wire` when it comes in one piece.
pub(in crate::layer) fn decode(
    layer: &mut dyn Layer,
    wire: &[u8],
) -> Result<Vec<Vec<u8>>, LayerErrorKind> {
    let mut reader = Reader::default();
    reader.feed(layer, wire).map_err(|e| e.kind())?;
    assert_eq!(reader.left(), 0);
    Ok(reader.messages)
}

/// Checks that `wire` decodes to `messages` in one piece, cut in two at every byte, and byte by
/// byte; and that the rate counted is that of the wire.
pub(in crate::layer) fn every_split<L: Layer>(
    make: impl Fn() -> L,
    wire: &[u8],
    messages: &[&[u8]],
) {
    let original: usize = messages.iter().map(|m| m.len()).sum();
    let check = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut layer, mut reader) = (make(), Reader::default());
        for piece in pieces {
            reader.feed(&mut layer, piece).unwrap();
        }
        assert_eq!(reader.messages, messages);
        layer.wire_ended(&mut Environment::new().cx(), reader.left()).unwrap();
        let received = rate_of(&layer).received();
        assert_eq!(received.wire_bytes(), wire.len() as u64);
        assert_eq!(received.original_bytes(), original as u64);
        assert_eq!(received.messages(), messages.len() as u64);
        assert_eq!(received.stored(), reader.slices as u64);
    };
    for cut in 0..=wire.len() {
        check(&mut [&wire[..cut], &wire[cut..]].into_iter());
    }
    check(&mut wire.chunks(1));
}

/// Checks that every beginning of `wire` that does not end with a frame is a truncation.
pub(in crate::layer) fn every_truncation<L: Layer>(make: impl Fn() -> L, wire: &[u8]) {
    let mut whole = 0;
    for cut in 0..=wire.len() {
        let (mut layer, mut reader) = (make(), Reader::default());
        reader.feed(&mut layer, &wire[..cut]).unwrap();
        match layer.wire_ended(&mut Environment::new().cx(), reader.left()) {
            Ok(()) => whole += 1,
            Err(e) => assert_eq!(e.kind(), LayerErrorKind::Truncated),
        }
        assert_eq!(
            layer.wire_ended(&mut Environment::new().cx(), reader.left()).is_ok(),
            reader.left() == 0
        );
    }
    assert!(whole > 1 && whole < wire.len());
}

/// Decodes `wire` with one byte changed, every byte and several changes: no panic, nothing over
/// the cap, and no memory either.
pub(in crate::layer) fn every_damage<L: Layer>(make: impl Fn() -> L, wire: &[u8], cap: usize) {
    // Most damage to a message that is sent as it is, or to LZ4's literals, cannot be noticed.
    let mut refused = 0;
    for at in 0..wire.len() {
        for flip in [0x01, 0x80, 0x55, 0xff] {
            let mut damaged = wire.to_vec();
            damaged[at] ^= flip;
            let (mut layer, mut reader) = (make(), Reader::default());
            if let Err(e) = reader.feed(&mut layer, &damaged) {
                use LayerErrorKind::{Malformed, TooLarge};
                assert!(matches!(e.kind(), Malformed | TooLarge), "{e}");
                refused += 1;
            }
            assert!(reader.messages.iter().all(|m| m.len() <= cap));
            assert!(reader.unit_capacity() <= cap);
        }
    }
    assert!(refused > 0);
}

/// The rate, asked for as a handler would.
pub(in crate::layer) fn rate_of(layer: &dyn Layer) -> CompressionRate {
    *layer.layer_info(TypeId::of::<CompressionRate>()).unwrap().downcast_ref().unwrap()
}

/// A frame by hand: the header of one with the `form`, and the body.
pub(in crate::layer) fn frame(form: u8, body: &[u8]) -> Vec<u8> {
    let mut value = body.len() * 4 + usize::from(form);
    let mut wire = Vec::new();
    while value > 0x7f {
        wire.push(value as u8 | 0x80);
        value >>= 7;
    }
    wire.push(value as u8);
    wire.extend_from_slice(body);
    wire
}

/// A market-data message as they are: much the same as the one before.
pub(in crate::layer) fn trade(n: u32) -> Vec<u8> {
    let (bid, ask) = (108_314 + n * 7 % 90, 108_317 + n * 11 % 90);
    let time = 1_718_000_000 + n;
    format!(r#"{{"type":"trade","symbol":"EURUSD","bid":1.{bid},"ask":1.{ask},"time":{time}}}"#)
        .into_bytes()
}

/// Bytes that no codec shrinks (xorshift).
pub(in crate::layer) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    })
    .take(len)
    .collect()
}

/// A transcript that was written down in hexadecimal, white space ignored.
pub(in crate::layer) fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}
