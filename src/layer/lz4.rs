//! Message compression with LZ4 blocks.

use std::any::{Any, TypeId};

use super::compression::{CompressionRate, Form, Frame, Limits, append_compressed, append_stored};
use super::{Item, Layer, LayerContext, LayerError, MessageKind, Step, WireClass};

mod codec;

use codec::Tables;

#[cfg(test)]
mod tests;

const NAME: &str = "lz4";

/// What the reference implementation accepts as one block (`LZ4_MAX_INPUT_SIZE`).
const LARGEST_BLOCK: usize = 0x7e00_0000;

/// Below this many bytes messages are sent as they are. Of JSON and chat messages of 100 bytes
/// most come out longer, of those of 128 bytes most come out shorter.
const THRESHOLD: usize = 128;

/// Messages, compressed with the LZ4 block format (Lempel-Ziv matches without entropy coding).
///
/// Message in, message out, over any byte stream; the layer does its own framing. It is the choice
/// where latency matters most: it costs a fraction of `Deflate`'s time and saves less. Each
/// message is a block by itself, without a context. (The crate can take earlier messages as a
/// dictionary, but for each message it allocates a table and hashes the whole dictionary again:
/// 1.5 µs with 4 KiB of it and 3.4 µs with 16 KiB, for 100 bytes that take 0.2 µs without.)
///
/// # Limits
/// | what | default | reason |
/// |---|---|---|
/// | [`message_limit`](Lz4::message_limit) | 1 MiB | far above real-time messages; a bomb is refused unopened, see below |
/// | [`threshold`](Lz4::threshold) | 128 bytes | shorter ones hardly repeat themselves, and LZ4 makes them longer |
///
/// The decompressed size is worked out from the block (its lengths are summed up, nothing is
/// written) before a byte is allocated: a size over the limit is `TooLarge`, a body that is no LZ4
/// block is `Malformed`. A stream that ends inside a frame is `Truncated`. The format has no
/// checksum: damage that happens to be LZ4 again is for the layer below to notice (TLS does).
///
/// # Memory
/// A connection holds 8 KiB once it has compressed its first message, and 16 KiB more once it has
/// compressed one of 64 KiB or above; decompressing holds nothing. No message allocates beyond
/// that: the output goes into the driver's own buffers.
///
/// # Wire format
/// A stream of frames, the same in both directions. A frame is a header and a body; the header is
/// one unsigned LEB128 integer (least digit first, shortest form, ten bytes at most) of
/// `body length * 4 + form`. A body is at most `message_limit` long.
///
/// | form | the body is |
/// |---|---|
/// | 0 | the message as it is |
/// | 1 | the message as one LZ4 block, without a size before it. Never empty |
///
/// Forms 2 and 3 are `Malformed`. In Python (package `lz4`) the body of form 1 is read with
/// `lz4.block.decompress(body, uncompressed_size=message_limit)` and made with
/// `lz4.block.compress(message, store_size=False)`.
///
/// # Layer info
/// [`CompressionRate`]. A message to a group is encoded once for all members of the same wire form, by the layer
/// of one of them, and counts there alone; a connection with
/// [`statistics`](crate::StreamOptions::statistics) encodes for itself, and counts all that it is sent.
#[derive(Debug)]
pub struct Lz4 {
    limits: Limits,
    tables: Tables,
    rate: CompressionRate,
}

impl Lz4 {
    /// A layer with the default limits.
    pub fn new() -> Self {
        Lz4 {
            limits: Limits::above(THRESHOLD),
            tables: Tables::default(),
            rate: CompressionRate::default(),
        }
    }

    /// The limit on a message in bytes, before it is compressed and after it is decompressed, and on
    /// the body of a frame. Default 1 MiB (1,048,576), at most 2,113,929,216 (the largest block
    /// that the format's reference implementation takes). A longer message to send is refused as
    /// `Unencodable`, a longer one received as `TooLarge`. Give both sides the same.
    #[must_use]
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.limits.message_limit = bytes.min(LARGEST_BLOCK);
        self
    }

    /// Messages shorter than this many bytes are sent as they are. Default 128. The other side need
    /// not know. An empty message is never compressed, and 0 means the same as 1.
    #[must_use]
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.limits.threshold = bytes;
        self
    }
}

impl Default for Lz4 {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer for Lz4 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        _reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let Some(Frame { form, body }) = Frame::first(NAME, wire, &self.limits)? else {
            return Ok(Step::new(0, Item::Nothing));
        };
        let end = body.end;
        let (item, original) = match form {
            Form::Stored => (Item::Slice(body.clone()), body.len()),
            Form::Compressed => {
                codec::decompress(&wire[body], unit, &self.limits)?;
                (Item::Unit, unit.len())
            }
            Form::StoredInContext | Form::Alone => {
                return Err(LayerError::malformed(
                    NAME,
                    format!("expected a frame of form 0 or 1, form {} came", form as u8),
                ));
            }
        };
        let stored = matches!(item, Item::Slice(_));
        self.rate.count_received(original, end, stored);
        Ok(Step::new(end, item))
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        self.limits.check_sendable(NAME, message)?;
        let start = wire.len();
        let compressed = message.len() >= self.limits.threshold.max(1)
            && append_compressed(
                wire,
                Form::Compressed,
                message,
                codec::worst_case(message.len()),
                |out| self.tables.compress(message, out),
            )?;
        if !compressed {
            append_stored(wire, Form::Stored, message);
        }
        self.rate.count_sent(message.len(), wire.len() - start, !compressed);
        Ok(())
    }

    fn wire_class(&self) -> Option<WireClass> {
        let Limits { message_limit, threshold } = self.limits;
        Some(WireClass::of::<Lz4>().with(message_limit as u64).with(threshold as u64))
    }

    /// [`CompressionRate`].
    fn layer_info(&self, fact: TypeId) -> Option<&dyn Any> {
        (fact == TypeId::of::<CompressionRate>()).then_some(&self.rate as &dyn Any)
    }
}
