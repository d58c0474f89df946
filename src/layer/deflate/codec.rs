//! `flate2`, driven message for message.

use std::cell::RefCell;
use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::NAME;
use crate::layer::compression::{Limits, grow};
use crate::layer::{LayerError, LayerErrorKind};

/// The empty stored block that a sync flush ends with, without its first byte (of which some bits
/// belong to the block before). Always the same, so it is not sent (RFC 7692 section 7.2.1).
const SYNC_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// How far back a match may reach (RFC 1951 section 2): more of a message need not be learned.
const WINDOW: usize = 32 * 1024;

/// How much is inflated at a time: large enough that a call's own cost is lost in it, small enough
/// to stay in the first-level cache.
const STEP: usize = 4096;

/// Enough for `len` bytes compressed and flushed, whatever they are. miniz falls back to stored
/// blocks (5 bytes for each block of 31 KiB or less) only for what grows, and static blocks of less
/// than 32 bytes grow by an eighth; this is zlib's old bound, with more to spare.
///
/// It must hold: with less room miniz keeps the rest of a flush for later and does not say whether
/// its end is among it.
pub(super) fn worst_case(len: usize) -> usize {
    128 + len + len / 8
}

/// A sending direction's DEFLATE stream.
#[derive(Debug)]
pub(super) struct Deflater {
    stream: Compress,
}

impl Deflater {
    pub(super) fn new(level: u8) -> Self {
        Deflater { stream: Compress::new(Compression::new(level.into()), false) }
    }

    /// Compresses `message` against what came before it and flushes. Answers the length in `out`,
    /// without the tail that every sync flush has.
    pub(super) fn with_context(
        &mut self,
        message: &[u8],
        out: &mut [u8],
    ) -> Result<usize, LayerError> {
        let (status, taken, len) = self.deflate(message, out, FlushCompress::Sync)?;
        let flushed = taken == message.len() && len < out.len() && out[..len].ends_with(&SYNC_TAIL);
        if status != Status::Ok || !flushed {
            return Err(unexpected("a message flushed whole", status, taken, len));
        }
        Ok(len - SYNC_TAIL.len())
    }

    /// Compresses `message` into a stream of its own.
    fn alone(&mut self, message: &[u8], out: &mut [u8]) -> Result<usize, LayerError> {
        // Before and not after, so that a call that failed half-way leaves nothing behind.
        self.stream.reset();
        let (status, taken, len) = self.deflate(message, out, FlushCompress::Finish)?;
        if status != Status::StreamEnd || taken != message.len() {
            return Err(unexpected("a message finished whole", status, taken, len));
        }
        Ok(len)
    }

    fn deflate(
        &mut self,
        message: &[u8],
        out: &mut [u8],
        flush: FlushCompress,
    ) -> Result<(Status, usize, usize), LayerError> {
        let (taken, made) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.compress(message, out, flush).map_err(|e| {
            LayerError::new(NAME, LayerErrorKind::Unencodable, "the compressor refused a message")
                .with_source(e)
        })?;
        // Both are at most the length of a slice.
        let taken = (self.stream.total_in() - taken) as usize;
        let made = (self.stream.total_out() - made) as usize;
        Ok((status, taken, made))
    }
}

/// The compressor broke its promise; nothing of the message is sent.
#[cold]
fn unexpected(expected: &str, status: Status, taken: usize, len: usize) -> LayerError {
    LayerError::new(
        NAME,
        LayerErrorKind::Unencodable,
        format!(
            "expected {expected}, the compressor took {taken} and made {len} bytes, {status:?}"
        ),
    )
}

/// A receiving direction's DEFLATE stream.
pub(super) struct Inflater {
    stream: Decompress,
    /// Between the stream and its reader: inflating straight into a `Vec` would have all of its
    /// spare capacity cleared first, a megabyte for each message once one was that long.
    step: Box<[u8; STEP]>,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Inflater { stream: Decompress::new(false), step: Box::new([0; STEP]) }
    }
}

impl Inflater {
    /// Inflates a message that was compressed with the context, onto the end of `unit`.
    pub(super) fn with_context(
        &mut self,
        body: &[u8],
        unit: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<(), LayerError> {
        for part in [body, &SYNC_TAIL] {
            let mut rest = part;
            let ended = self.inflate(&mut rest, |out| keep(unit, out, limits, body.len()))?;
            if ended {
                return Err(LayerError::malformed(
                    NAME,
                    "expected a stream that goes on, a final block came",
                ));
            }
        }
        Ok(())
    }

    /// Lets the context see a message that came as it is.
    pub(super) fn learn(&mut self, message: &[u8]) -> Result<(), LayerError> {
        let seen = &message[message.len().saturating_sub(WINDOW)..];
        let len = seen.len() as u16; // 32,768 at most
        let [a, b] = len.to_le_bytes();
        // A stored block that is not the last one (RFC 1951 section 3.2.4).
        for mut part in [&[0, a, b, !a, !b], seen] {
            self.inflate(&mut part, |_| Ok(()))?;
        }
        Ok(())
    }

    /// Inflates a message that is a stream of its own, onto the end of `unit`.
    fn alone(
        &mut self,
        body: &[u8],
        unit: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<(), LayerError> {
        // Clears the window too: nothing of the last message can be referred to.
        self.stream.reset(false);
        let mut rest = body;
        let ended = self.inflate(&mut rest, |out| keep(unit, out, limits, body.len()))?;
        if ended && rest.is_empty() {
            return Ok(());
        }
        Err(LayerError::malformed(
            NAME,
            if ended {
                format!("expected nothing after the final block, {} bytes came", rest.len())
            } else {
                format!("expected a final block, the body of {} bytes has none", body.len())
            },
        ))
    }

    /// Inflates `input` to its end or to the end of the stream, and says whether it was the latter.
    /// What comes out goes to `sink` in steps, which may stop it.
    fn inflate(
        &mut self,
        input: &mut &[u8],
        mut sink: impl FnMut(&[u8]) -> Result<(), LayerError>,
    ) -> Result<bool, LayerError> {
        loop {
            let (taken, made) = (self.stream.total_in(), self.stream.total_out());
            let status =
                self.stream
                    .decompress(input, &mut self.step[..], FlushDecompress::None)
                    .map_err(|e| LayerError::malformed(NAME, "expected DEFLATE").with_source(e))?;
            // Both are at most the length of a slice.
            let taken = (self.stream.total_in() - taken) as usize;
            let made = (self.stream.total_out() - made) as usize;
            *input = &input[taken..];
            sink(&self.step[..made])?;
            if status == Status::StreamEnd {
                return Ok(true);
            }
            // A step that was filled may have more behind it, also without more input.
            if input.is_empty() && made < STEP {
                return Ok(false);
            }
            if taken == 0 && made == 0 {
                return Err(LayerError::malformed(
                    NAME,
                    format!("expected DEFLATE, {} bytes came that lead nowhere", input.len()),
                ));
            }
        }
    }
}

/// Appends `out` to `unit`, up to the cap.
fn keep(unit: &mut Vec<u8>, out: &[u8], limits: &Limits, body: usize) -> Result<(), LayerError> {
    let left = limits.max_message.saturating_sub(unit.len());
    if out.len() > left {
        return Err(limits.too_large(NAME, body));
    }
    grow(unit, out.len(), limits);
    unit.extend_from_slice(out);
    Ok(())
}

thread_local! {
    /// What messages without a context need: one for the thread, since each is done within a call.
    static ALONE: RefCell<Alone> = const { RefCell::new(Alone { deflaters: Vec::new(), inflater: None }) };
}

struct Alone {
    /// By level: nine at most, one or two in practice.
    deflaters: Vec<(u8, Deflater)>,
    inflater: Option<Inflater>,
}

/// Compresses `message` into a stream of its own, with the thread's compressor for `level`.
pub(super) fn deflate_alone(
    level: u8,
    message: &[u8],
    out: &mut [u8],
) -> Result<usize, LayerError> {
    ALONE.with_borrow_mut(|alone| {
        let at = alone.deflaters.iter().position(|&(l, _)| l == level).unwrap_or_else(|| {
            alone.deflaters.push((level, Deflater::new(level)));
            alone.deflaters.len() - 1
        });
        alone.deflaters[at].1.alone(message, out)
    })
}

/// Inflates a stream of its own onto the end of `unit`, with the thread's inflater.
pub(super) fn inflate_alone(
    body: &[u8],
    unit: &mut Vec<u8>,
    limits: &Limits,
) -> Result<(), LayerError> {
    ALONE.with_borrow_mut(|alone| alone.inflater.get_or_insert_default().alone(body, unit, limits))
}
