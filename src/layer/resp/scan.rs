//! Where a message of RESP ends: every byte is looked at once, however the stream is cut.

use std::ops::Range;

use super::{NAME, too_large};
use crate::layer::LayerError;
use crate::layer::scan::find_byte;

/// The longest line that can be a length: a type, the sign and the digits of 64 bits, CRLF.
const LENGTH_LINE: usize = 1 + 20 + 2;

/// What one message may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes, with all types, lengths and line ends.
    pub(super) bytes: usize,
    /// Elements of all its arrays, maps, sets and pushes together.
    pub(super) elements: usize,
    /// Aggregates within each other.
    pub(super) depth: usize,
    /// Only what a client sends: an array of bulk strings.
    pub(super) commands: bool,
}

/// How far the message that arrives has been looked at.
///
/// A codec that parses from the beginning whenever more has come takes quadratic time for an array
/// that arrives in pieces, and one that recurses lets a peer choose how much stack it takes. This
/// knows the place where it stopped, and has a stack of its own with a limit.
#[derive(Debug, Clone, Default)]
pub(super) struct Scan {
    /// Where the next element begins.
    pub(super) at: usize,
    /// No more is known before so many bytes have come (a bulk string announces its length).
    pub(super) needed: usize,
    /// Up to here the line that begins at `at` is known to have no end.
    pub(super) searched: usize,
    /// Of each aggregate around that element, how many elements it lacks.
    open: Vec<usize>,
    /// How many elements have been announced.
    elements: usize,
    /// A type that RESP2 does not have has come.
    is_resp3: bool,
}

/// One whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) len: usize,
    pub(super) elements: usize,
    pub(super) is_resp3: bool,
}

/// One element, when its end is known.
enum Element {
    /// A scalar: its content without type, length and line end.
    Scalar(Range<usize>, usize),
    /// The head of an aggregate with so many elements, and where the first of them begins.
    Aggregate(usize, usize),
    /// More bytes are needed.
    Unfinished,
}

impl Scan {
    /// Whether the message has been looked at before, in part.
    pub(super) fn is_resumed(&self) -> bool {
        self.at > 0
    }

    /// Goes on with `bytes`, which begin with the message. `None` while it is not whole. `field` is
    /// called with the content of a scalar, or with each element of the outermost aggregate: of a
    /// scalar its content, of another aggregate all of its bytes. Only a scan that is not
    /// [resumed](Self::is_resumed) finds them all.
    pub(super) fn run(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        mut field: impl FnMut(Range<usize>),
    ) -> Result<Option<Whole>, LayerError> {
        // A driver that put another layer beneath may show fewer bytes than it did before.
        if bytes.len() < self.at.max(self.searched) {
            *self = Scan::default();
        }
        if bytes.len() < self.needed {
            return Ok(None);
        }
        // Where the element of the outermost aggregate began that is itself an aggregate.
        let mut nested = self.at;
        loop {
            match self.element(bytes, limits)? {
                Element::Unfinished => return Ok(None),
                Element::Aggregate(count, next) => {
                    self.elements = self.elements.saturating_add(count);
                    if self.elements > limits.elements {
                        return Err(too_large(format!(
                            "expected at most {} elements in one message, {} are announced",
                            limits.elements, self.elements
                        )));
                    }
                    if self.open.len() >= limits.depth {
                        return Err(too_large(format!(
                            "expected arrays at most {} deep, a deeper one came",
                            limits.depth
                        )));
                    }
                    if self.open.len() == 1 {
                        nested = self.at;
                    }
                    self.at = next;
                    self.open.push(count);
                }
                Element::Scalar(content, next) => {
                    self.at = next;
                    if self.open.len() < 2 {
                        field(content);
                    }
                    if let Some(lacking) = self.open.last_mut() {
                        *lacking -= 1;
                    }
                }
            }
            while let Some(0) = self.open.last() {
                self.open.pop();
                if let Some(lacking) = self.open.last_mut() {
                    *lacking -= 1;
                    if self.open.len() == 1 {
                        field(nested..self.at);
                    }
                }
            }
            self.searched = self.at;
            if self.open.is_empty() {
                let (len, elements, is_resp3) = (self.at, self.elements, self.is_resp3);
                let whole = Whole { len, elements, is_resp3 };
                let open = std::mem::take(&mut self.open);
                *self = Scan { open, ..Scan::default() };
                return Ok(Some(whole));
            }
        }
    }

    /// The element that begins at `at`.
    fn element(&mut self, bytes: &[u8], limits: &Limits) -> Result<Element, LayerError> {
        let Some(&kind) = bytes.get(self.at) else { return Ok(Element::Unfinished) };
        if limits.commands && kind != if self.open.is_empty() { b'*' } else { b'$' } {
            return Err(malformed(format!(
                "expected '$', a word of a command, {} came",
                shown(kind)
            )));
        }
        self.is_resp3 |= !b"+-:$*".contains(&kind);
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => self.line(bytes, limits),
            b'$' | b'!' | b'=' => self.bulk(bytes, limits, kind),
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let Some((count, next)) = self.length(bytes, limits)? else {
                    return Ok(Element::Unfinished);
                };
                Ok(match (kind, count) {
                    (b'*', None) if limits.commands => Element::Aggregate(0, next),
                    (b'*', None) => Element::Scalar(self.at..next, next),
                    (_, None) => return Err(malformed("expected a length of 0 or more, -1 came")),
                    (b'%', Some(pairs)) => Element::Aggregate(pairs.saturating_mul(2), next),
                    // Attributes are said of the value behind them: one message.
                    (b'|', Some(pairs)) => {
                        Element::Aggregate(pairs.saturating_mul(2).saturating_add(1), next)
                    }
                    (_, Some(count)) => Element::Aggregate(count, next),
                })
            }
            other => Err(malformed(format!("expected a type of RESP, {} came", shown(other)))),
        }
    }

    fn line(&mut self, bytes: &[u8], limits: &Limits) -> Result<Element, LayerError> {
        let window = &bytes[..bytes.len().min(limits.bytes.saturating_add(1))];
        let from = self.searched.max(self.at + 1).min(window.len());
        let Some(feed) = find_byte(b'\n', &window[from..]).map(|at| from + at) else {
            self.searched = window.len();
            return self.within(window.len(), limits).map(|()| Element::Unfinished);
        };
        self.within(feed + 1, limits)?;
        if bytes[feed - 1] != b'\r' || feed - 1 == self.at {
            return Err(malformed("expected CRLF at the end of a line, a line feed alone came"));
        }
        Ok(Element::Scalar(self.at + 1..feed - 1, feed + 1))
    }

    fn bulk(&mut self, bytes: &[u8], limits: &Limits, kind: u8) -> Result<Element, LayerError> {
        let Some((length, body)) = self.length(bytes, limits)? else {
            return Ok(Element::Unfinished);
        };
        let Some(length) = length else {
            return if kind == b'$' && !limits.commands {
                Ok(Element::Scalar(self.at..body, body)) // null, in RESP2
            } else {
                Err(malformed("expected a length of 0 or more, -1 came"))
            };
        };
        let end = body.saturating_add(length).saturating_add(2);
        self.within(end, limits)?;
        match bytes.get(end - 2..end) {
            Some(b"\r\n") => Ok(Element::Scalar(body..end - 2, end)),
            Some(other) => Err(malformed(format!(
                "expected CRLF behind {length} bytes of a string, {} {} came",
                shown(other[0]),
                shown(other[1])
            ))),
            None => {
                self.needed = end;
                Ok(Element::Unfinished)
            }
        }
    }

    /// The number in the line at `at`, -1 as `None`, and where that line ends; `None` while it has not
    /// come to its end.
    #[allow(clippy::type_complexity)]
    fn length(
        &self,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<(Option<usize>, usize)>, LayerError> {
        let rest = &bytes[self.at..];
        let window = &rest[..rest.len().min(LENGTH_LINE)];
        let Some(feed) = window.iter().position(|&byte| byte == b'\n') else {
            if window.len() == LENGTH_LINE {
                return Err(malformed(format!(
                    "expected a length and CRLF, {LENGTH_LINE} bytes without a line feed came"
                )));
            }
            return Ok(None);
        };
        let next = self.at + feed + 1;
        self.within(next, limits)?;
        match window[1..feed].strip_suffix(b"\r") {
            Some(b"-1") => Ok(Some((None, next))),
            Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                let number = digits.iter().fold(0_usize, |number, digit| {
                    number.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
                });
                Ok(Some((Some(number), next)))
            }
            Some(b"?") => Err(malformed(
                "expected a length, '?' came: streamed strings and aggregates are not taken",
            )),
            _ => Err(malformed(format!(
                "expected a length in digits and CRLF, {:?} came",
                String::from_utf8_lossy(&window[1..feed])
            ))),
        }
    }

    /// Refuses a message that has come, or is announced, up to byte `end`.
    fn within(&self, end: usize, limits: &Limits) -> Result<(), LayerError> {
        if end <= limits.bytes {
            return Ok(());
        }
        Err(too_large(format!(
            "expected at most {} bytes in one message, one of {end} or more is announced",
            limits.bytes
        )))
    }
}

fn malformed(what: impl Into<std::borrow::Cow<'static, str>>) -> LayerError {
    LayerError::malformed(NAME, what)
}

/// The command that `bytes` begin with, if all of it is there and nothing is wrong with it: the shortest way,
/// which keeps nothing. Where it finds none, [`Scan`] says why. `field` may have been called then.
pub(super) fn command(
    bytes: &[u8],
    limits: &Limits,
    mut field: impl FnMut(Range<usize>),
) -> Option<usize> {
    let (words, mut at) = short_length(bytes, 0, b'*')?;
    if words == 0 || words > limits.elements {
        return None;
    }
    for _ in 0..words {
        let (length, begin) = short_length(bytes, at, b'$')?;
        let end = begin + length;
        if bytes.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        field(begin..end);
        at = end + 2;
    }
    (at <= limits.bytes).then_some(at)
}

/// Whether `message` is one string or a scalar and nothing else: the shortest way to tell. `false` is no answer.
pub(super) fn is_plain(message: &[u8]) -> bool {
    let Some((&kind, rest)) = message.split_first() else { return false };
    let Some(inner) = rest.strip_suffix(b"\r\n") else { return false };
    match kind {
        b'$' if inner == b"-1" => true,
        b'$' => short_length(message, 0, b'$')
            .is_some_and(|(length, begin)| message.len() == begin + length + 2),
        b'+' | b'-' | b':' => !inner.contains(&b'\n'),
        _ => false,
    }
}

/// The length at `at` behind `kind`, of up to eight digits, and where its line ends.
#[inline]
fn short_length(bytes: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let (&first, rest) = bytes.get(at..)?.split_first()?;
    if first != kind {
        return None;
    }
    let mut number = 0;
    for (digits, &byte) in rest.iter().take(9).enumerate() {
        match byte {
            b'0'..=b'9' => number = number * 10 + usize::from(byte - b'0'),
            b'\r' if digits > 0 && rest.get(digits + 1) == Some(&b'\n') => {
                return Some((number, at + digits + 3));
            }
            _ => return None,
        }
    }
    None
}

/// A byte as a person reads it.
pub(super) fn shown(byte: u8) -> String {
    if byte.is_ascii_graphic() { format!("'{}'", byte as char) } else { format!("{byte:#04x}") }
}
