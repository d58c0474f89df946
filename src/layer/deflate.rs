//! Message compression with raw DEFLATE.

use std::any::{Any, TypeId};

use super::compression::{CompressionRate, Form, Frame, Limits, append_compressed, append_stored};
use super::inflate::Inflater;
use super::{Item, Layer, LayerContext, LayerError, MessageKind, Step, WireClass};

mod codec;

use codec::Deflater;

#[cfg(test)]
mod tests;

const NAME: &str = "deflate";

/// The default level: 3 of 9. On JSON and chat messages of 100 bytes to 1 KiB it comes within 4 to
/// 12 % of the size that level 9 reaches (level 1 within 20 to 40 %); on 1 KiB level 6 takes two to
/// four times as long and level 9 three to six times.
const DEFAULT_LEVEL: u8 = 3;

/// Below this many bytes messages are sent as they are, with a context. Compressing costs about the
/// same for 50 bytes as for 100 (most of it is a Huffman code for each message); from 64 bytes on it
/// takes 30 or more off, half the message and about what the TCP and IP headers add to it.
const CONTEXT_THRESHOLD: usize = 64;

/// The same without a context: at 64 bytes such messages come out longer, at 100 they lose a tenth,
/// at 128 nearly a quarter.
const PER_MESSAGE_THRESHOLD: usize = 128;

/// Messages, compressed with raw DEFLATE (RFC 1951: LZ77 matches, then Huffman codes).
///
/// Message in, message out, over any byte stream; the layer does its own framing. It is the choice
/// where bandwidth is scarce: with its context a stream of similar messages (JSON, chat, market data)
/// shrinks to a fraction. Where latency matters more, see `Lz4`.
///
/// # Modes
/// They are the sender's choice, message for message; a receiver reads both, so the two sides need
/// not agree beforehand.
/// - **Context** (the default): one DEFLATE stream for the connection. The window of the last
///   32 KiB is kept from message to message, and each message is flushed, so that it can be read
///   as soon as it is there.
/// - **[Per message](Deflate::per_message)**: every message by itself. It compresses worse, but it
///   holds no memory per connection.
///
/// # Limits
/// | what | default | reason |
/// |---|---|---|
/// | [`message_limit`](Deflate::message_limit) | 1 MiB | far above real-time messages; a bomb costs 1 MiB at most |
/// | [`threshold`](Deflate::threshold) | 64 bytes; per message 128 | from there on the gain is worth its time: with a context half of a message, by itself a quarter |
/// | [`level`](Deflate::level) | 3 of 9 | within 12 % of level 9's size, in half of level 6's time or less |
///
/// Inflating stops at the limit (`TooLarge`), before the output exceeds it. A body that is no DEFLATE
/// is `Malformed`, and so are a match that reaches back to before the first byte received and a body
/// that ends in the middle of a block. A stream that ends inside a frame is `Truncated`. The format
/// has no checksum: damage that happens to be DEFLATE again is for the layer below to notice (TLS
/// does).
///
/// # Memory
/// A connection with a context holds 312 KiB once it has compressed its first message (window,
/// hash chains, output). What inflates takes 11 KiB and what it has received, 64 KiB of that at most.
/// A direction that was never used costs nothing. Per-message mode uses one such set (for each
/// level in use) for the whole thread (what it receives is up to the peer's mode). No message
/// allocates beyond that: the output goes into the driver's own buffers.
///
/// A secret and an attacker's text in one context: the compressed sizes let the secret be guessed
/// (CRIME, BREACH). Leave this layer out there, or use per-message mode and keep the two in messages
/// of their own.
///
/// # Wire format
/// A stream of frames, the same in both directions. A frame is a header and a body; the header is
/// one unsigned LEB128 integer (least digit first, shortest form, ten bytes at most) of
/// `body length * 4 + form`. A body is at most `message_limit` long.
///
/// | form | the body is |
/// |---|---|
/// | 0 | the message as it is. The context does not see it |
/// | 1 | the message, compressed with the context: the output of a sync flush without the `00 00 FF FF` at its end (RFC 7692 section 7.2.1). Never empty; no final block |
/// | 2 | the message as it is, and it enters the context: a message that would have grown, but that the sender's window has seen. The receiver feeds its last 32,768 bytes to its inflater as one stored block (`00`, length, complement of the length, bytes) and drops what comes out |
/// | 3 | the message as a complete DEFLATE stream of its own, with a final block and nothing behind it. The context does not see it. Never empty |
///
/// The reading side in Python, given the `form` and `body` of a frame (and without a limit):
/// ```python
/// context = zlib.decompressobj(wbits=-15)         # once for each connection
/// def message(form, body):
///     if form == 0: return body
///     if form == 1: return context.decompress(body + b"\0\0\xff\xff")
///     if form == 3: return zlib.decompress(body, wbits=-15)
///     seen = body[-32768:]
///     context.decompress(struct.pack("<BHH", 0, len(seen), len(seen) ^ 0xffff) + seen)
///     return body
/// ```
/// A sender may use form 0 or 3 alone. An empty message goes as form 0. For form 1 it is
/// `c.compress(m) + c.flush(zlib.Z_SYNC_FLUSH)` without the last four bytes.
///
/// # Layer info
/// [`CompressionRate`]. A message to a group is encoded once for all members of the same wire form, by the layer
/// of one of them, and counts there alone; a connection with
/// [`statistics`](crate::StreamOptions::statistics) encodes for itself, and counts all that it is sent.
#[derive(Debug)]
pub struct Deflate {
    limits: Limits,
    level: u8,
    mode: Mode,
    /// Made when the first message comes to them.
    deflater: Option<Deflater>,
    inflater: Option<Inflater>,
    rate: CompressionRate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Context,
    PerMessage,
}

impl Deflate {
    /// A layer that keeps its context over messages, with the default limits and level.
    pub fn new() -> Self {
        Deflate {
            limits: Limits::above(CONTEXT_THRESHOLD),
            level: DEFAULT_LEVEL,
            mode: Mode::Context,
            deflater: None,
            inflater: None,
            rate: CompressionRate::default(),
        }
    }

    /// A layer that compresses each message by itself, with the default limits and level.
    pub fn per_message() -> Self {
        let limits = Limits::above(PER_MESSAGE_THRESHOLD);
        Deflate { mode: Mode::PerMessage, limits, ..Self::new() }
    }

    /// How hard to look for matches: 1 (fastest) to 9 (smallest); what lies outside is taken as the
    /// nearer of them. Default 3. The other side need not know.
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.level = level.clamp(1, 9);
        self
    }

    /// The limit on a message in bytes, before compression and after decompression, and on the body
    /// of a frame. Default 1 MiB (1,048,576). A longer message to send is refused as `Unencodable`,
    /// a longer one received as `TooLarge`. Give both sides the same limit.
    #[must_use]
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.limits.message_limit = bytes;
        self
    }

    /// Messages shorter than this many bytes are sent as they are. Default 64, per message 128. The
    /// other side need not know. An empty message is never compressed, and 0 means the same as 1.
    #[must_use]
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.limits.threshold = bytes;
        self
    }
}

impl Default for Deflate {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer for Deflate {
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
        let Some(Frame { form, body: at }) = Frame::first(NAME, wire, &self.limits)? else {
            return Ok(Step::new(0, Item::Nothing));
        };
        let (body, end, limits) = (&wire[at.clone()], at.end, &self.limits);
        let (item, original) = match form {
            Form::Stored => (Item::Slice(at.clone()), at.len()),
            Form::StoredInContext => {
                self.inflater.get_or_insert_with(Inflater::new).learn(body);
                (Item::Slice(at.clone()), at.len())
            }
            Form::Compressed => {
                let inflater = self.inflater.get_or_insert_with(Inflater::new);
                codec::inflate_in_context(inflater, body, unit, limits)?;
                (Item::Unit, unit.len())
            }
            Form::Alone => {
                codec::inflate_alone(body, unit, limits)?;
                (Item::Unit, unit.len())
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
        let stored = if message.len() < self.limits.threshold.max(1) {
            append_stored(wire, Form::Stored, message);
            true
        } else {
            !self.append_deflated(message, wire)?
        };
        self.rate.count_sent(message.len(), wire.len() - start, stored);
        Ok(())
    }

    /// Only without a context: what a context has seen differs from member to member.
    fn wire_class(&self) -> Option<WireClass> {
        (self.mode == Mode::PerMessage).then(|| {
            WireClass::of::<Deflate>()
                .with(self.limits.message_limit as u64)
                .with(self.limits.threshold as u64)
                .with(self.level.into())
        })
    }

    /// [`CompressionRate`].
    fn layer_info(&self, fact: TypeId) -> Option<&dyn Any> {
        (fact == TypeId::of::<CompressionRate>()).then_some(&self.rate as &dyn Any)
    }
}

impl Deflate {
    /// Appends `message` compressed, or as it is (then `false`) where that is no gain.
    fn append_deflated(&mut self, message: &[u8], wire: &mut Vec<u8>) -> Result<bool, LayerError> {
        let room = codec::worst_case(message.len());
        let (gained, form_without_gain) = match self.mode {
            Mode::Context => {
                let mut deflater =
                    self.deflater.take().unwrap_or_else(|| Deflater::new(self.level));
                let gained = append_compressed(wire, Form::Compressed, message, room, |out| {
                    deflater.with_context(message, out)
                })?;
                // Put back only now: one that failed has seen what the peer has not. The next
                // message gets a new one, which refers to nothing older than itself.
                self.deflater = Some(deflater);
                // The window has seen the message: the other side's must see it too.
                (gained, Form::StoredInContext)
            }
            Mode::PerMessage => {
                let gained = append_compressed(wire, Form::Alone, message, room, |out| {
                    codec::deflate_alone(self.level, message, out)
                })?;
                (gained, Form::Stored)
            }
        };
        if !gained {
            append_stored(wire, form_without_gain, message);
        }
        Ok(gained)
    }
}
