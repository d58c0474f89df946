//! Receiving compressed messages: raw DEFLATE (RFC 1951) that is flushed behind each message.
//!
//! Driven is miniz_oxide's decoder with the history that was really received lying before the output
//! in one buffer. It refuses a match that reaches back further than that. A decoder with a window of a
//! fixed size (flate2's `Decompress`) takes such a match and delivers the zeros that the window began
//! with.

use std::fmt;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// The empty stored block that a sync flush ends with, without its first byte (of which some bits
/// belong to the block before). Always the same, so it is not sent (RFC 7692 section 7.2.1).
pub(super) const SYNC_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The tail of the flush, and an empty final block behind it. Decoding that to the end proves that
/// the message ended between two blocks, where a flush ends. Else the tail would have become part of
/// what was cut short: content of a stored block, codes of a Huffman block.
const END_OF_MESSAGE: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// How far back a match may reach (RFC 1951 section 2).
const WINDOW: usize = 32 * 1024;

/// How much is inflated at a time: large enough that a call's own cost is lost in it, small enough
/// to stay in the first-level cache.
const STEP: usize = 4096;

/// The buffer moves its window to the front when it is full: every 16 KiB of output cost a copy of
/// 32 KiB, which is a few percent of inflating them.
const BUFFER: usize = WINDOW + 16 * 1024;

/// Why a message is refused.
#[derive(Debug)]
pub(super) enum Refused<E> {
    /// It is no DEFLATE, or refers to bytes that were never received.
    NotDeflate,
    /// What the sink said.
    Sink(E),
}

/// A receiving direction: the decoder (11 KiB), and up to 64 KiB of what it has received.
pub(super) struct Inflater {
    decoder: Box<DecompressorOxide>,
    /// What was received, oldest first: the last 32 KiB of it at least, or all. Behind it is room,
    /// which is cleared once and not for each step.
    buffer: Vec<u8>,
    /// How many bytes of the buffer were received.
    received: usize,
    /// The message has reached the end of a final block, and nothing came behind that.
    ended: bool,
}

impl Inflater {
    /// A direction in which nothing was received.
    pub(super) fn new() -> Self {
        Inflater { decoder: Box::default(), buffer: Vec::new(), received: 0, ended: false }
    }

    /// Forgets what was received: the next message cannot refer to it.
    pub(super) fn forget(&mut self) {
        self.received = 0;
    }

    /// Begins a message. It may refer to what was received before.
    pub(super) fn begin(&mut self) {
        self.decoder.init();
        self.ended = false;
    }

    /// Enters bytes into the history that came uncompressed.
    #[cfg(feature = "deflate")]
    pub(super) fn learn(&mut self, bytes: &[u8]) {
        let seen = &bytes[bytes.len().saturating_sub(WINDOW)..];
        self.make_room(seen.len());
        self.buffer[self.received..][..seen.len()].copy_from_slice(seen);
        self.received += seen.len();
    }

    /// Inflates a stretch of a message. What comes out goes to `sink` in steps, which may stop it.
    pub(super) fn inflate<E>(
        &mut self,
        mut input: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), Refused<E>> {
        while !input.is_empty() {
            if self.ended {
                // Another stream behind a final block (RFC 7692 section 7.2.3.4).
                self.begin();
            }
            input = &input[self.step(input, TINFL_FLAG_HAS_MORE_INPUT, &mut sink)?..];
        }
        Ok(())
    }

    /// Inflates up to the end of `input` or of a final block. Returns how much was taken.
    #[cfg(feature = "deflate")]
    pub(super) fn inflate_one<E>(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, Refused<E>> {
        self.step(input, TINFL_FLAG_HAS_MORE_INPUT, &mut sink)
    }

    /// The message has ended, and its sender left the flush's tail out. Refuses a message that does
    /// not end between two blocks.
    pub(super) fn finish_flushed(&mut self) -> Result<(), Refused<()>> {
        if self.ended {
            return Ok(()); // a final block ended it, which needs no flush
        }
        // Any output here is a piece of the tail taken for content.
        let taken = self.step(&END_OF_MESSAGE, 0, &mut |_: &[u8]| Err(()))?;
        if self.ended && taken == END_OF_MESSAGE.len() { Ok(()) } else { Err(Refused::NotDeflate) }
    }

    /// Whether the last byte was the last one of a final block.
    #[cfg(feature = "deflate")]
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Inflates until the input or the stream has ended. Returns how much was taken.
    fn step<E>(
        &mut self,
        input: &[u8],
        flags: u32,
        sink: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<usize, Refused<E>> {
        let mut taken = 0;
        loop {
            self.make_room(STEP);
            let start = self.received;
            let (status, read, made) = decompress(
                &mut self.decoder,
                &input[taken..],
                &mut self.buffer[..start + STEP],
                start,
                flags | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
            );
            self.received += made;
            taken += read;
            if made > 0 {
                sink(&self.buffer[start..self.received]).map_err(Refused::Sink)?;
            }
            match status {
                TINFLStatus::HasMoreOutput => {}
                TINFLStatus::NeedsMoreInput => return Ok(taken),
                TINFLStatus::Done => {
                    self.ended = true;
                    return Ok(taken);
                }
                _ => return Err(Refused::NotDeflate),
            }
        }
    }

    /// Makes room for `more` bytes, 32 KiB of them at most, behind the window.
    fn make_room(&mut self, more: usize) {
        if self.received + more > BUFFER {
            self.buffer.copy_within(self.received.saturating_sub(WINDOW)..self.received, 0);
            self.received = self.received.min(WINDOW);
        }
        let needed = self.received + more;
        if needed > self.buffer.len() {
            // Doubled while it is small, and never over what is needed at most.
            let len = needed.max(2 * self.buffer.len()).min(needed.max(BUFFER));
            self.buffer.reserve_exact(len - self.buffer.len());
            self.buffer.resize(len, 0);
        }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater")
            .field("received", &self.received)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
