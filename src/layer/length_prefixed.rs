//! Messages with their length before them.

use super::{Item, Layer, LayerContext, LayerError, LayerErrorKind, MessageKind, Step, WireClass};

/// The default limit on a message.
const MAX_FRAME: usize = 1024 * 1024;

/// The longest LEB128 form of 64 bits: ten groups of seven.
const MAX_VARINT: usize = 10;

/// Each message follows its length on the wire.
///
/// ```text
/// +-- header --+-- length field --+------------ body ------------+
/// |  o bytes   | w bytes / varint |  value + adjustment bytes    |
/// +------------+------------------+------------------------------+
/// |<----------- strip ----------->|<--- the handler's message -->|   (the default strip)
/// ```
///
/// | option | default | Netty `LengthFieldBasedFrameDecoder` | tokio-util `LengthDelimitedCodec` |
/// |---|---|---|---|
/// | [`new(w)`](Self::new), [`varint`](Self::varint) | | `lengthFieldLength` | `length_field_length` |
/// | [`little_endian`](Self::little_endian) | big endian | `byteOrder` | `little_endian` |
/// | [`length_field_offset(o)`](Self::length_field_offset) | 0 | `lengthFieldOffset` | `length_field_offset` |
/// | [`length_adjustment`](Self::length_adjustment) | 0 | `lengthAdjustment` | `length_adjustment` (1) |
/// | [`strip`](Self::strip) | header and length field | `initialBytesToStrip` (its default is 0) | `num_skip` |
/// | [`frame_limit`](Self::frame_limit) | 1 MiB, body only | `maxFrameLength` (the whole frame) | `max_frame_length` |
///
/// (1) In tokio-util the adjustment depends on `num_skip`; ours is theirs + `num_skip` - (o + w), so
/// the same as long as `num_skip` is left alone. Here, as in Netty, what is stripped has no
/// influence on where a frame ends.
///
/// **Limit.** A body of 1 MiB: far above a message that is meant to be quick, little enough for a
/// thousand peers. A larger one is refused as [`LayerErrorKind::TooLarge`] when its length field
/// has come and nothing else, and nothing is ever reserved for a length that was only announced.
/// What is sent is not held to the limit (servers that take small requests and send large responses
/// are common), but must fit the length field.
///
/// A frame without a body is an empty message. A frame lies whole in the bytes that arrived when it
/// is handed on, so it is not copied.
///
/// **Sending** is the inverse of receiving. With the default strip the message becomes the body;
/// with an offset, what comes before the length field is given with [`header`](Self::header).
/// With `strip(0)` handlers get whole frames and send whole frames: the length field is theirs to
/// write, and one that does not fit is refused. With any other strip the stripped bytes are not
/// known, so that nothing can be sent. What cannot be sent is [`LayerErrorKind::Unencodable`].
///
/// **End of stream** inside of a frame is [`LayerErrorKind::Truncated`].
///
/// ```
/// use tidegate::layer::{MessageKind, LengthPrefixed, testkit::Driver};
///
/// // Two bytes of magic, a length that counts the whole frame, the body.
/// let format =
///     LengthPrefixed::new(4).length_field_offset(2).length_adjustment(-6).header(*b"TG");
/// let mut driver = Driver::new(format);
/// driver.send(b"hello", MessageKind::Default)?;
/// let wire = driver.take_wire();
/// assert_eq!(wire, b"TG\x00\x00\x00\x0bhello");
/// driver.feed(&wire);
/// assert_eq!(driver.take_messages(), [b"hello"]);
/// # Ok::<(), tidegate::layer::LayerError>(())
/// ```
#[derive(Debug, Clone)]
pub struct LengthPrefixed {
    field: Field,
    little_endian: bool,
    max: usize,
    offset: usize,
    adjustment: i64,
    /// `None`: the header and the length field, however long that is.
    strip: Option<usize>,
    header: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    /// 1 to 8 bytes.
    Bytes(usize),
    /// LEB128, 1 to 10 bytes.
    Varint,
}

impl LengthPrefixed {
    /// A length field of `bytes` bytes, 1 to 8; 1, 2, 4 and 8 are usual, and MySQL has 3. Network
    /// byte order.
    ///
    /// # Panics
    /// When `bytes` is none of 1 to 8.
    pub fn new(bytes: usize) -> Self {
        assert!((1..=8).contains(&bytes), "a length field has 1 to 8 bytes, not {bytes}");
        Self::with_field(Field::Bytes(bytes))
    }

    /// A length field in LEB128: seven bits to a byte, the lowest first, the top bit set on all but
    /// the last (Protocol Buffers' "varint"). At most ten bytes, and no more than the number needs:
    /// a longer form is [`LayerErrorKind::Malformed`].
    pub fn varint() -> Self {
        Self::with_field(Field::Varint)
    }

    fn with_field(field: Field) -> Self {
        LengthPrefixed {
            field,
            little_endian: false,
            max: MAX_FRAME,
            offset: 0,
            adjustment: 0,
            strip: None,
            header: Vec::new(),
        }
    }

    /// The length field has its lowest byte first. A varint has that always.
    #[must_use]
    pub fn little_endian(mut self) -> Self {
        self.little_endian = true;
        self
    }

    /// Refuses a received frame with more than `bytes` behind its length field. 1 MiB by default.
    #[must_use]
    pub fn frame_limit(mut self, bytes: usize) -> Self {
        self.max = bytes;
        self
    }

    /// The length field follows a header of `bytes` bytes. 0 by default.
    #[must_use]
    pub fn length_field_offset(mut self, bytes: usize) -> Self {
        self.offset = bytes;
        self
    }

    /// How many bytes longer the body is than the value of the length field; negative when the
    /// field counts more than the body. A field that counts the whole frame needs `-(offset +
    /// width)`. A sum below zero is [`LayerErrorKind::Malformed`]. 0 by default.
    #[must_use]
    pub fn length_adjustment(mut self, bytes: i64) -> Self {
        self.adjustment = bytes;
        self
    }

    /// How many bytes at the front of a frame the handler does not get. By default the header and
    /// the length field; 0 hands whole frames on. A frame that is shorter is
    /// [`LayerErrorKind::Malformed`].
    #[doc(alias = "num_skip")]
    #[doc(alias = "initialBytesToStrip")]
    #[must_use]
    pub fn strip(mut self, bytes: usize) -> Self {
        self.strip = Some(bytes);
        self
    }

    /// What is sent before the length field: as many bytes as the
    /// [offset](Self::length_field_offset). A received header is stripped, not compared.
    #[must_use]
    pub fn header(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.header = bytes.into();
        self
    }

    /// The extent of the frame that `wire` begins with, as far as its length field has come.
    fn frame(&self, wire: &[u8]) -> Result<Option<Frame>, LayerError> {
        let Some(field) = wire.get(self.offset..) else { return Ok(None) };
        let Some((value, width)) = self.read_field(field)? else { return Ok(None) };
        let head = self.offset + width;

        let body = i128::from(value) + i128::from(self.adjustment);
        if body < 0 {
            return Err(malformed(format!(
                "expected a length of at least {}, {value} came",
                i128::from(self.adjustment).unsigned_abs()
            )));
        }
        let total = usize::try_from(body)
            .ok()
            .filter(|&body| body <= self.max)
            .and_then(|body| body.checked_add(head))
            .ok_or_else(|| {
                LayerError::too_large(
                    "length-prefixed",
                    format!(
                        "expected at most {} bytes behind the length, {body} are announced",
                        self.max
                    ),
                )
            })?;
        let strip = self.strip.unwrap_or(head);
        if strip > total {
            return Err(malformed(format!(
                "expected a frame of at least the {strip} bytes to strip, one of {total} is announced"
            )));
        }
        Ok(Some(Frame { strip, total }))
    }

    /// The number in the length field and the bytes it takes, `None` while they are not all there.
    fn read_field(&self, bytes: &[u8]) -> Result<Option<(u64, usize)>, LayerError> {
        let Field::Bytes(width) = self.field else { return read_varint(bytes) };
        let Some(bytes) = bytes.get(..width) else { return Ok(None) };
        let push = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
        let value = if self.little_endian {
            bytes.iter().rev().fold(0, push)
        } else {
            bytes.iter().fold(0, push)
        };
        Ok(Some((value, width)))
    }

    fn write_field(&self, mut value: u64, wire: &mut Vec<u8>) {
        match self.field {
            Field::Bytes(width) if self.little_endian => {
                wire.extend_from_slice(&value.to_le_bytes()[..width]);
            }
            Field::Bytes(width) => wire.extend_from_slice(&value.to_be_bytes()[8 - width..]),
            Field::Varint => {
                while value >= 0x80 {
                    wire.push(value as u8 | 0x80);
                    value >>= 7;
                }
                wire.push(value as u8);
            }
        }
    }

    /// The largest number the length field can hold.
    fn largest_value(&self) -> u64 {
        match self.field {
            Field::Bytes(width) => u64::MAX >> (64 - 8 * width),
            Field::Varint => u64::MAX,
        }
    }

    /// What goes before a message: the header and the length field.
    fn encode_head_of(&self, message: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
        if self.header.len() != self.offset {
            return Err(unencodable(format!(
                "expected a header of {} bytes before the length, {} were given",
                self.offset,
                self.header.len()
            )));
        }
        let value = message.len() as i128 - i128::from(self.adjustment);
        let value = u64::try_from(value)
            .ok()
            .filter(|&value| value <= self.largest_value())
            .ok_or_else(|| {
                unencodable(format!(
                    "a message of {} bytes needs the length {value}, the field holds 0 to {}",
                    message.len(),
                    self.largest_value()
                ))
            })?;
        wire.extend_from_slice(&self.header);
        self.write_field(value, wire);
        Ok(())
    }

    fn encode_body(&self, message: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
        wire.reserve(self.offset + MAX_VARINT + message.len());
        self.encode_head_of(message, wire)?;
        wire.extend_from_slice(message);
        Ok(())
    }

    fn encode_whole(&self, message: &[u8], wire: &mut Vec<u8>) -> Result<(), LayerError> {
        // The limit is for what is received, so a copy of the rules without it judges.
        let unlimited = LengthPrefixed { max: usize::MAX, header: Vec::new(), ..*self };
        match unlimited.frame(message) {
            Ok(Some(frame)) if frame.total == message.len() => {
                wire.extend_from_slice(message);
                Ok(())
            }
            Ok(Some(frame)) => Err(unencodable(format!(
                "expected a whole frame of {} bytes, as its length field says, {} came",
                frame.total,
                message.len()
            ))),
            Ok(None) => Err(unencodable(format!(
                "expected a whole frame, {} bytes end before or in its length field",
                message.len()
            ))),
            Err(error) => Err(unencodable("expected a whole frame").with_source(error)),
        }
    }
}

/// Where the message lies in a frame, and where the frame ends.
struct Frame {
    strip: usize,
    total: usize,
}

impl Layer for LengthPrefixed {
    fn name(&self) -> &'static str {
        "length-prefixed"
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _unit: &mut Vec<u8>,
        _reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        Ok(match self.frame(wire)? {
            Some(Frame { strip, total }) if total <= wire.len() => {
                Step::new(total, Item::Slice(strip..total))
            }
            _ => Step::new(0, Item::Nothing),
        })
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        match (self.strip, self.field) {
            (None, _) => self.encode_body(message, wire),
            (Some(strip), Field::Bytes(width)) if strip == self.offset + width => {
                self.encode_body(message, wire)
            }
            (Some(0), _) => self.encode_whole(message, wire),
            (Some(strip), _) => Err(unencodable(format!(
                "the {strip} bytes that a receiver strips are not known: strip 0 or the default to send"
            ))),
        }
    }

    fn encode_head(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        // With the default strip, or that which is the same, a message goes behind its length.
        let is_behind = match (self.strip, self.field) {
            (None, _) => true,
            (Some(strip), Field::Bytes(width)) => strip == self.offset + width,
            (Some(_), Field::Varint) => false,
        };
        if is_behind {
            self.encode_head_of(message, wire)?;
        }
        Ok(is_behind)
    }

    fn wire_class(&self) -> Option<WireClass> {
        let width = match self.field {
            Field::Bytes(width) => width as u64,
            Field::Varint => 0,
        };
        let strip = self.strip.map_or(u64::MAX, |strip| strip as u64);
        let class = WireClass::of::<LengthPrefixed>()
            .with(width)
            .with(self.little_endian.into())
            .with(self.offset as u64)
            .with(self.adjustment as u64)
            .with(strip)
            .with_bytes(&self.header);
        Some(class)
    }

    fn wire_ended(&mut self, _: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        if left > 0 {
            return Err(LayerError::truncated(
                "length-prefixed",
                format!("the stream ended {left} bytes into a frame"),
            ));
        }
        Ok(())
    }
}

fn read_varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, LayerError> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        // The tenth group has one bit left of the 64.
        if at == MAX_VARINT - 1 && byte > 1 {
            return Err(malformed("expected a varint of at most 64 bits, a longer one came"));
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            if byte == 0 && at > 0 {
                return Err(malformed(format!(
                    "expected the shortest varint of {value}, one of {} bytes came",
                    at + 1
                )));
            }
            return Ok(Some((value, at + 1)));
        }
    }
    Ok(None)
}

fn malformed(what: impl Into<std::borrow::Cow<'static, str>>) -> LayerError {
    LayerError::malformed("length-prefixed", what)
}

fn unencodable(what: impl Into<std::borrow::Cow<'static, str>>) -> LayerError {
    LayerError::new("length-prefixed", LayerErrorKind::Unencodable, what)
}

#[cfg(test)]
mod tests;
