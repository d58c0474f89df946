//! Messages with a delimiter behind each.

use super::scan::find_byte;
use super::{Item, Layer, LayerContext, LayerError, LayerErrorKind, MessageKind, Step, WireClass};

/// The default limit on a message.
const MAX_MESSAGE: usize = 8 * 1024;

/// Each message ends at a delimiter: any string of at least one byte.
///
/// The handler gets the message without the delimiter; two delimiters in a row are an empty
/// message. The first place where the delimiter is complete ends the message.
///
/// **Sending.** A message in which the delimiter occurs, or would occur too early when the
/// delimiter is put behind it (`a;` with the delimiter `;;`), is refused as
/// [`LayerErrorKind::Unencodable`]: the peer would read something else.
///
/// **Limit.** 8 KiB for one message received, the delimiter not counted
/// ([`message_limit`](Delimited::message_limit)), for the reasons of [`Lines`](super::Lines). The peer
/// is refused as soon as more has come. What is sent has no limit here.
///
/// **End of stream.** What follows the last delimiter is a message, as with
/// [`Lines`](super::Lines), unless [`refuse_unterminated`](Delimited::refuse_unterminated) is
/// chosen.
///
/// The search (Knuth, Morris, Pratt 1977) looks at every byte once, whatever the delimiter is and
/// however the stream is cut.
///
/// ```
/// use tidegate::layer::{Delimited, testkit::Driver};
///
/// let mut messages = Driver::new(Delimited::new(b"\r\n.\r\n"));
/// messages.feed(b"one\r\n.\r");
/// messages.feed(b"\ntwo\r\n.\r\n");
/// assert_eq!(messages.take_messages(), [b"one", b"two"]);
/// ```
#[derive(Debug, Clone)]
pub struct Delimited {
    search: Search,
    max: usize,
    refuse_unterminated: bool,
    /// So many of the bytes that wait have been through the search.
    scanned: usize,
    /// What the search made of them: the longest start of the delimiter that they end with.
    matched: usize,
    wire_ended: bool,
}

impl Delimited {
    /// Messages of up to 8 KiB, `delimiter` behind each.
    ///
    /// # Panics
    /// When the delimiter is empty.
    pub fn new(delimiter: impl AsRef<[u8]>) -> Self {
        Delimited {
            search: Search::new(delimiter.as_ref()),
            max: MAX_MESSAGE,
            refuse_unterminated: false,
            scanned: 0,
            matched: 0,
            wire_ended: false,
        }
    }

    /// Refuses a received message of more than `bytes`, the delimiter not counted. 8 KiB by
    /// default.
    #[must_use]
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.max = bytes;
        self
    }

    /// Takes a stream that ends without a delimiter for truncated ([`LayerErrorKind::Truncated`]),
    /// instead of yielding what follows the last one.
    #[must_use]
    pub fn refuse_unterminated(mut self) -> Self {
        self.refuse_unterminated = true;
        self
    }

    fn too_long(&self) -> LayerError {
        LayerError::too_large(
            "delimited",
            format!(
                "expected the delimiter {} after at most {} bytes, a longer message came",
                self.search.delimiter.escape_ascii(),
                self.max
            ),
        )
    }
}

impl Layer for Delimited {
    fn name(&self) -> &'static str {
        "delimited"
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _unit: &mut Vec<u8>,
        _reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let delimiter = self.search.delimiter.len();
        // No message that is allowed ends later than this, so no more is looked at.
        let window = &wire[..wire.len().min(self.max.saturating_add(delimiter))];
        // A driver that put another layer beneath may show fewer bytes than it did before.
        if self.scanned > window.len() {
            (self.scanned, self.matched) = (0, 0);
        }

        if let Some(end) = self.search.run(&mut self.matched, &window[self.scanned..]) {
            let consumed = self.scanned + end;
            (self.scanned, self.matched) = (0, 0);
            return Ok(Step::new(consumed, Item::Slice(0..consumed - delimiter)));
        }
        self.scanned = window.len();
        // Be the next bytes what they may: the message has this many already.
        let message = if self.wire_ended { wire.len() } else { window.len() - self.matched };
        if message > self.max {
            Err(self.too_long())
        } else if self.wire_ended && !wire.is_empty() {
            Ok(Step::new(wire.len(), Item::Slice(0..wire.len())))
        } else {
            Ok(Step::new(0, Item::Nothing))
        }
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        let delimiter = &self.search.delimiter;
        let mut matched = 0;
        let early = self.search.run(&mut matched, message).or_else(|| {
            // Also across the seam: of the delimiter behind the message, all but the last byte.
            let most = &delimiter[..delimiter.len() - 1];
            self.search.run(&mut matched, most).map(|end| message.len() + end)
        });
        if let Some(end) = early {
            return Err(LayerError::new(
                "delimited",
                LayerErrorKind::Unencodable,
                format!(
                    "expected a message without the delimiter {}, it ends at byte {end} of {} already",
                    delimiter.escape_ascii(),
                    message.len() + delimiter.len()
                ),
            ));
        }
        wire.reserve(message.len() + delimiter.len());
        wire.extend_from_slice(message);
        wire.extend_from_slice(delimiter);
        Ok(())
    }

    fn wire_class(&self) -> Option<WireClass> {
        Some(WireClass::of::<Delimited>().with_bytes(&self.search.delimiter))
    }

    fn wire_ended(&mut self, _: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        if left > 0 && self.refuse_unterminated {
            return Err(LayerError::truncated(
                "delimited",
                format!(
                    "the stream ended {left} bytes into a message without its delimiter {}",
                    self.search.delimiter.escape_ascii()
                ),
            ));
        }
        self.wire_ended = true;
        Ok(())
    }
}

/// The delimiter, and where to go on when a byte does not continue it.
#[derive(Debug, Clone)]
struct Search {
    delimiter: Vec<u8>,
    /// `border[n]`: the longest proper end of the delimiter's first `n` bytes that is also a start
    /// of it. `border[0]` is not used.
    border: Vec<usize>,
}

impl Search {
    fn new(delimiter: &[u8]) -> Self {
        assert!(!delimiter.is_empty(), "a delimiter has at least one byte");
        let mut border = vec![0; delimiter.len() + 1];
        let mut length = 0;
        for n in 1..delimiter.len() {
            while length > 0 && delimiter[n] != delimiter[length] {
                length = border[length];
            }
            length += usize::from(delimiter[n] == delimiter[length]);
            border[n + 1] = length;
        }
        Search { delimiter: delimiter.to_vec(), border }
    }

    /// Goes on with `bytes` where `matched` bytes of the delimiter were matched before them.
    /// Returns how many bytes it took to complete the delimiter, if they do.
    fn run(&self, matched: &mut usize, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if *matched == 0 {
                // Nothing begun: the next place that counts is the next first byte.
                at += find_byte(self.delimiter[0], &bytes[at..])?;
            }
            while *matched > 0 && bytes[at] != self.delimiter[*matched] {
                *matched = self.border[*matched];
            }
            *matched += usize::from(bytes[at] == self.delimiter[*matched]);
            at += 1;
            if *matched == self.delimiter.len() {
                return Some(at);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
