//! A value of RESP as a tree.

use redis_protocol::resp2::decode::decode_range as decode_resp2;
use redis_protocol::resp2::types::RangeFrame as Frame2;
use redis_protocol::resp3::decode::complete::decode_range as decode_resp3;
use redis_protocol::resp3::types::{RangeFrame as Frame3, VerbatimStringFormat};

use super::command::number;
use super::scan::{Limits, Scan};
use super::{DEEPEST, NAME, UNLIMITED};
use crate::layer::LayerError;

/// In which of its versions RESP is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Version {
    /// What every peer understands until it has asked for more with `HELLO 3`.
    #[default]
    Resp2,
    /// Since Redis 6.
    Resp3,
}

/// What a server says: a reply, or a push that nobody asked for. Strings are borrowed from the message.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Nothing. `_`; in RESP2 `$-1` or `*-1`.
    Null,
    /// A short text without line ends: `OK`.
    Simple(&'a [u8]),
    /// An error, with its code as the first word: `ERR unknown command`.
    Error(&'a [u8]),
    /// A whole number.
    Integer(i64),
    /// Bytes.
    Bulk(&'a [u8]),
    /// Values in their order.
    Array(Vec<Value<'a>>),
    /// Yes or no. RESP3.
    Boolean(bool),
    /// A floating-point number. RESP3.
    Double(f64),
    /// A whole number of any length, in decimal. RESP3.
    BigNumber(&'a [u8]),
    /// Text for people, without the name of its format. RESP3.
    Verbatim(&'a [u8]),
    /// Pairs, in no order. RESP3.
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// Values, in no order, and each once. RESP3.
    Set(Vec<Value<'a>>),
    /// What was not asked for: a message of pub/sub. RESP3.
    Push(Vec<Value<'a>>),
}

impl<'a> Value<'a> {
    /// Reads a whole message of the layer. Attributes are left out.
    ///
    /// # Errors
    /// The bytes are not one whole value, a number is none, or a map or a set has an array, a map or a
    /// set for a key.
    pub fn parse(message: &'a [u8]) -> Result<Value<'a>, LayerError> {
        let mut scan = Scan::default();
        let whole = match scan.run(message, &Limits { depth: DEEPEST, ..UNLIMITED }, |_| {})? {
            Some(whole) if whole.len == message.len() => whole,
            _ => {
                let what = format!("expected one whole value in {} bytes", message.len());
                return Err(LayerError::malformed(NAME, what));
            }
        };
        // RESP3's decoder takes the nulls of RESP2 for a part of something.
        let value = if whole.is_resp3 {
            decode_resp3(message).map(|frame| frame.and_then(|(frame, _)| of_resp3(message, frame)))
        } else {
            decode_resp2(message).map(|frame| frame.and_then(|(frame, _)| of_resp2(message, frame)))
        };
        let expected = || LayerError::malformed(NAME, "expected a value, its bytes are none");
        match value {
            Ok(value) => value.ok_or_else(expected),
            Err(error) => Err(expected().with_source(error.to_string())),
        }
    }

    /// The wire form, for a [server](super::Resp::server) to send. What RESP2 does not have becomes what Redis
    /// sends there: a map the array of its keys and values, a boolean 1 or 0, a number its digits.
    ///
    /// Line ends in [`Simple`](Self::Simple) and [`Error`](Self::Error) become spaces.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut wire = Vec::new();
        self.encode_into(version, &mut wire);
        wire
    }

    /// The same behind what is in `wire`: several values can be sent at once.
    pub fn encode_into(&self, version: Version, wire: &mut Vec<u8>) {
        let resp3 = version == Version::Resp3;
        match self {
            Value::Null if resp3 => wire.extend_from_slice(b"_\r\n"),
            Value::Null => wire.extend_from_slice(b"$-1\r\n"),
            Value::Simple(text) => line(wire, b'+', text),
            Value::Error(text) => line(wire, b'-', text),
            Value::Integer(n) => number(wire, b':', *n),
            Value::Bulk(bytes) => bulk(wire, bytes),
            Value::Array(values) => aggregate(wire, b'*', values, version),
            Value::Boolean(yes) if resp3 => line(wire, b'#', if *yes { b"t" } else { b"f" }),
            Value::Boolean(yes) => number(wire, b':', (*yes).into()),
            Value::Double(n) => {
                let text = if n.is_nan() { "nan".into() } else { format!("{n}") };
                if resp3 { line(wire, b',', text.as_bytes()) } else { bulk(wire, text.as_bytes()) }
            }
            Value::BigNumber(digits) if resp3 => line(wire, b'(', digits),
            Value::Verbatim(text) if resp3 => {
                number(wire, b'=', text.len() as i64 + 4);
                wire.extend_from_slice(b"txt:");
                wire.extend_from_slice(text);
                wire.extend_from_slice(b"\r\n");
            }
            Value::BigNumber(bytes) | Value::Verbatim(bytes) => bulk(wire, bytes),
            Value::Map(pairs) => {
                let pairs_each = if resp3 { 1 } else { 2 };
                let kind = if resp3 { b'%' } else { b'*' };
                number(wire, kind, pairs.len() as i64 * pairs_each);
                for (key, value) in pairs {
                    key.encode_into(version, wire);
                    value.encode_into(version, wire);
                }
            }
            Value::Set(values) => aggregate(wire, if resp3 { b'~' } else { b'*' }, values, version),
            Value::Push(values) => {
                aggregate(wire, if resp3 { b'>' } else { b'*' }, values, version);
            }
        }
    }

    /// The bytes of a string of any sort.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match self {
            Value::Simple(bytes) | Value::Bulk(bytes) | Value::Verbatim(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The values of an array, a set or a push.
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        match self {
            Value::Array(values) | Value::Set(values) | Value::Push(values) => Some(values),
            _ => None,
        }
    }
}

fn line(wire: &mut Vec<u8>, kind: u8, text: &[u8]) {
    wire.reserve(text.len() + 3);
    wire.push(kind);
    let begin = wire.len();
    wire.extend_from_slice(text);
    for byte in &mut wire[begin..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
    wire.extend_from_slice(b"\r\n");
}

fn bulk(wire: &mut Vec<u8>, bytes: &[u8]) {
    wire.reserve(bytes.len() + 16);
    number(wire, b'$', bytes.len() as i64);
    wire.extend_from_slice(bytes);
    wire.extend_from_slice(b"\r\n");
}

fn aggregate(wire: &mut Vec<u8>, kind: u8, values: &[Value<'_>], version: Version) {
    number(wire, kind, values.len() as i64);
    for value in values {
        value.encode_into(version, wire);
    }
}

/// `None` where the codec's ranges are not within the message.
fn of_resp2(message: &[u8], frame: Frame2) -> Option<Value<'_>> {
    let at = |(from, to)| message.get(from..to);
    Some(match frame {
        Frame2::SimpleString(range) => Value::Simple(at(range)?),
        Frame2::Error(range) => Value::Error(at(range)?),
        Frame2::Integer(number) => Value::Integer(number),
        Frame2::BulkString(range) => Value::Bulk(at(range)?),
        Frame2::Array(frames) => {
            Value::Array(frames.into_iter().map(|f| of_resp2(message, f)).collect::<Option<_>>()?)
        }
        Frame2::Null => Value::Null,
    })
}

fn of_resp3(message: &[u8], frame: Frame3) -> Option<Value<'_>> {
    let at = |(from, to)| message.get(from..to);
    let all = |frames: Vec<Frame3>| {
        frames.into_iter().map(|frame| of_resp3(message, frame)).collect::<Option<Vec<_>>>()
    };
    Some(match frame {
        Frame3::Null => Value::Null,
        Frame3::SimpleString { data, .. } => Value::Simple(at(data)?),
        Frame3::SimpleError { data, .. } | Frame3::BlobError { data, .. } => {
            Value::Error(at(data)?)
        }
        Frame3::Number { data, .. } => Value::Integer(data),
        Frame3::BlobString { data, .. } => Value::Bulk(at(data)?),
        Frame3::Array { data, .. } => Value::Array(all(data)?),
        Frame3::Boolean { data, .. } => Value::Boolean(data),
        Frame3::Double { data, .. } => Value::Double(data),
        Frame3::BigNumber { data, .. } => Value::BigNumber(at(data)?),
        Frame3::VerbatimString {
            data,
            format: VerbatimStringFormat::Text | VerbatimStringFormat::Markdown,
            ..
        } => Value::Verbatim(at(data)?),
        Frame3::Map { data, .. } => Value::Map(
            data.into_iter()
                .map(|(key, value)| Some((of_resp3(message, key)?, of_resp3(message, value)?)))
                .collect::<Option<_>>()?,
        ),
        Frame3::Set { data, .. } => Value::Set(all(data.into_iter().collect())?),
        Frame3::Push { data, .. } => Value::Push(all(data)?),
        Frame3::Hello { .. } | Frame3::ChunkedString { .. } => return None,
    })
}
