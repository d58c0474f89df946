//! `flate2`, driven message for message.

use std::borrow::Cow;
use std::cell::RefCell;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::NAME;
use crate::layer::compression::{Limits, grow};
use crate::layer::inflate::{Inflater, Refused, SYNC_TAIL};
use crate::layer::{LayerError, LayerErrorKind};

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

    /// Compresses `message` against what came before it and flushes. Returns the length in `out`,
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

/// The compressor did not do what it documents; nothing of the message is sent.
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

/// Inflates a message that was compressed with the context, onto the end of `unit`.
pub(super) fn inflate_in_context(
    inflater: &mut Inflater,
    body: &[u8],
    unit: &mut Vec<u8>,
    limits: &Limits,
) -> Result<(), LayerError> {
    inflater.begin();
    inflater.inflate(body, |out| keep(unit, out, limits, body.len())).map_err(refused)?;
    if inflater.has_ended() {
        return Err(malformed("expected a stream that goes on, a final block came"));
    }
    inflater.finish_flushed().map_err(|_| {
        malformed("expected a message that ends with a flush, it ends in the middle of a block")
    })
}

fn refused(refused: Refused<LayerError>) -> LayerError {
    match refused {
        Refused::NotDeflate => malformed("expected DEFLATE that refers to what came before it"),
        Refused::Sink(error) => error,
    }
}

fn malformed(what: impl Into<Cow<'static, str>>) -> LayerError {
    LayerError::malformed(NAME, what)
}

/// Appends `out` to `unit`, up to the cap.
fn keep(unit: &mut Vec<u8>, out: &[u8], limits: &Limits, body: usize) -> Result<(), LayerError> {
    let left = limits.message_limit.saturating_sub(unit.len());
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
    ALONE.with_borrow_mut(|alone| {
        let inflater = alone.inflater.get_or_insert_with(Inflater::new);
        // Nothing of the last message, which may be another connection's, can be referred to.
        inflater.forget();
        inflater.begin();
        let taken = inflater
            .inflate_one(body, |out| keep(unit, out, limits, body.len()))
            .map_err(refused)?;
        if !inflater.has_ended() {
            let len = body.len();
            return Err(malformed(format!(
                "expected a final block, the body of {len} bytes has none"
            )));
        }
        if taken < body.len() {
            let behind = body.len() - taken;
            return Err(malformed(format!(
                "expected nothing after the final block, {behind} bytes came"
            )));
        }
        Ok(())
    })
}
