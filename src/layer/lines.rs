//! Lines of text.

use super::scan::find_byte;
use super::{Item, Layer, LayerContext, LayerError, LayerErrorKind, MessageKind, Step, WireClass};

/// The default limit on a line.
const MAX_LINE: usize = 8 * 1024;

/// One message is one line.
///
/// A line ends with LF or with CRLF, and each line may end differently; the handler gets it
/// without that end. An empty line is an empty message. The bytes are not checked to be UTF-8.
///
/// **Sending.** The message is sent with LF behind it, or CRLF with [`crlf`](Lines::crlf). A
/// message that contains a line feed is refused as [`LayerErrorKind::Unencodable`]: the peer would
/// read it as two lines, and text from a third party could forge a line of the sender.
/// With [`crlf`](Lines::crlf) a carriage return is refused as well, because receivers of such
/// protocols (IRC, SMTP) may end a line there. Without it, a carriage return is a byte like
/// another, so that every line that was received can be sent on; only one at the very end of a
/// message is lost at a receiver that takes CRLF for the end, as this layer does.
///
/// **Limit.** 8 KiB for one line received, its end not counted ([`line_limit`](Lines::line_limit)):
/// what HTTP servers customarily allow a line, far above what people type, and little enough for
/// ten thousand peers that never send a line feed. The peer is refused as soon as more has come
/// without one. What is sent has no limit here.
///
/// **End of stream.** A last line without its line feed is a line (as in `BufRead::lines`, and
/// `printf hello | nc` should work); a carriage return at its end is taken for half of CRLF. Where
/// half a command could be mistaken for a whole one, choose
/// [`refuse_unterminated`](Lines::refuse_unterminated).
///
/// Every byte is scanned once, however the stream is cut.
///
/// ```
/// use tidegate::layer::{MessageKind, Layer, Lines, testkit::Driver};
///
/// let mut lines = Driver::new(Lines::new());
/// lines.feed(b"hello\r\nwor");
/// lines.feed(b"ld\n");
/// assert_eq!(lines.take_messages(), [b"hello", b"world"]);
///
/// assert!(lines.send(b"good\nbye", MessageKind::Default).is_err());
/// lines.send(b"goodbye", MessageKind::Default)?;
/// assert_eq!(lines.take_wire(), b"goodbye\n");
/// # Ok::<(), tidegate::layer::LayerError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Lines {
    max: usize,
    crlf: bool,
    refuse_unterminated: bool,
    /// So many of the bytes that wait are known to hold no line feed.
    scanned: usize,
    wire_ended: bool,
}

impl Lines {
    /// Lines of up to 8 KiB; LF behind what is sent.
    pub fn new() -> Self {
        Lines {
            max: MAX_LINE,
            crlf: false,
            refuse_unterminated: false,
            scanned: 0,
            wire_ended: false,
        }
    }

    /// Refuses a received line of more than `bytes`, its end not counted. 8 KiB by default.
    #[must_use]
    pub fn line_limit(mut self, bytes: usize) -> Self {
        self.max = bytes;
        self
    }

    /// Sends CRLF behind each line, as internet protocols want it (RFC 5198 section 2), instead of
    /// LF; a message that contains a carriage return is refused. Makes no difference to what is
    /// received.
    #[must_use]
    pub fn crlf(mut self) -> Self {
        self.crlf = true;
        self
    }

    /// Takes a stream that ends in the middle of a line for truncated
    /// ([`LayerErrorKind::Truncated`]), instead of handing that last line on.
    #[must_use]
    pub fn refuse_unterminated(mut self) -> Self {
        self.refuse_unterminated = true;
        self
    }

    fn too_long(&self) -> LayerError {
        LayerError::too_large(
            "lines",
            format!("expected a line of at most {} bytes, a longer one came", self.max),
        )
    }
}

impl Default for Lines {
    fn default() -> Self {
        Lines::new()
    }
}

impl Layer for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _unit: &mut Vec<u8>,
        _reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let wire = &*wire;
        // No line that is allowed ends later than this, so no more is looked at.
        let window = &wire[..wire.len().min(self.max.saturating_add(2))];
        // A driver that put another layer beneath may show fewer bytes than it did before.
        let scanned = if self.scanned <= window.len() { self.scanned } else { 0 };

        let (line, consumed) = match find_byte(b'\n', &window[scanned..]) {
            Some(at) => (&window[..scanned + at], scanned + at + 1),
            None if self.wire_ended && !wire.is_empty() && window.len() == wire.len() => {
                (wire, wire.len())
            }
            None => {
                self.scanned = window.len();
                return if without_cr(window).len() > self.max {
                    Err(self.too_long())
                } else {
                    Ok(Step::new(0, Item::Nothing))
                };
            }
        };
        self.scanned = 0;
        let line = without_cr(line);
        if line.len() > self.max {
            return Err(self.too_long());
        }
        Ok(Step::new(consumed, Item::Slice(0..line.len())))
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        let end = find_byte(b'\n', message)
            .or_else(|| if self.crlf { find_byte(b'\r', message) } else { None });
        if let Some(at) = end {
            return Err(LayerError::new(
                "lines",
                LayerErrorKind::Unencodable,
                format!(
                    "expected one line, the message has a {} at byte {at} of {}: send its lines one by one",
                    if message[at] == b'\n' { "line feed" } else { "carriage return" },
                    message.len()
                ),
            ));
        }
        wire.reserve(message.len() + 2);
        wire.extend_from_slice(message);
        wire.extend_from_slice(if self.crlf { b"\r\n" } else { b"\n" });
        Ok(())
    }

    fn wire_class(&self) -> Option<WireClass> {
        Some(WireClass::of::<Lines>().with(self.crlf.into()))
    }

    fn wire_ended(&mut self, _: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        if left > 0 && self.refuse_unterminated {
            return Err(LayerError::truncated(
                "lines",
                format!("the stream ended {left} bytes into a line without its line feed"),
            ));
        }
        self.wire_ended = true;
        Ok(())
    }
}

/// The line without the carriage return of its CRLF, if it has one.
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests;
