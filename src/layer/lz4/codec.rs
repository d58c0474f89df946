//! `lz4_flex`, driven block for block.

use std::fmt;

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use super::NAME;
use crate::layer::compression::{Limits, grow};
use crate::layer::{LayerError, LayerErrorKind};

/// From here on the small table's 16-bit positions no longer do (lz4_flex would swap it for the
/// large one, for good).
const SMALL_BELOW: usize = u16::MAX as usize;

/// Enough for `len` bytes compressed, whatever they are.
pub(super) fn worst_case(len: usize) -> usize {
    get_maximum_output_size(len)
}

/// The hash tables of a sending direction, kept so that no message allocates one.
///
/// Two, because a table is cleared for each message: 8 KiB for a small one costs about 0.1 µs, and
/// one large message should not double that for all that come after it.
#[derive(Default)]
pub(super) struct Tables {
    small: Option<CompressTable>,
    large: Option<CompressTable>,
}

impl Tables {
    /// Compresses `message` into `out`, which is as long as [`worst_case`] says.
    pub(super) fn compress(&mut self, message: &[u8], out: &mut [u8]) -> Result<usize, LayerError> {
        let table = if message.len() < SMALL_BELOW {
            self.small.get_or_insert_with(CompressTable::small)
        } else {
            self.large.get_or_insert_with(CompressTable::large)
        };
        compress_into_with_table(message, out, table).map_err(|e| {
            LayerError::new(NAME, LayerErrorKind::Unencodable, "the compressor refused a message")
                .with_source(e)
        })
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables")
            .field("small", &self.small.is_some())
            .field("large", &self.large.is_some())
            .finish()
    }
}

/// Decompresses one block into `unit`, which is empty.
pub(super) fn decompress(
    block: &[u8],
    unit: &mut Vec<u8>,
    limits: &Limits,
) -> Result<(), LayerError> {
    let len = decompressed_len(block, limits)?;
    grow(unit, len, limits);
    unit.resize(len, 0);
    // Exactly as long as needed, and all of it overwritten or the block refused: nothing that was
    // in the buffer before can be in the message.
    match decompress_into(block, unit) {
        Ok(made) if made == len => Ok(()),
        Ok(made) => Err(LayerError::malformed(
            NAME,
            format!("expected {len} bytes from the block's lengths, {made} came out"),
        )),
        Err(e) => Err(LayerError::malformed(NAME, "expected an LZ4 block").with_source(e)),
    }
}

/// How long `block` will be when decompressed: the sum of its lengths of literals and matches.
///
/// It costs a walk over the sequences' tokens, without copying a byte: 0.1 µs for 1 KiB of text or
/// JSON, a third to a half of the decompression (more on long texts of many short matches). It buys
/// two things: a bomb is refused before anything is allocated or written for it, and no size need
/// be announced that could be a lie.
fn decompressed_len(block: &[u8], limits: &Limits) -> Result<usize, LayerError> {
    let mut rest = block;
    let mut total = 0usize;
    let mut add = |n: usize| {
        total = total.saturating_add(n);
        if total > limits.message_limit {
            return Err(limits.too_large(NAME, block.len()));
        }
        Ok(total)
    };
    loop {
        let token = usize::from(take_byte(&mut rest)?);
        let literals = take_length(token >> 4, &mut rest)?;
        let total = add(literals)?;
        rest = rest.get(literals..).ok_or_else(|| unfinished("a sequence's literals"))?;
        if rest.is_empty() {
            return Ok(total);
        }
        rest = rest.get(2..).ok_or_else(|| unfinished("a match's offset"))?;
        add(4 + take_length(token & 15, &mut rest)?)?;
    }
}

/// A length that began with the 4 bits `nibble` in a token.
fn take_length(nibble: usize, rest: &mut &[u8]) -> Result<usize, LayerError> {
    let mut len = nibble;
    if nibble == 15 {
        loop {
            let byte = take_byte(rest)?;
            // Saturating for 32-bit targets; far over any cap by then.
            len = len.saturating_add(byte.into());
            if byte != 255 {
                break;
            }
        }
    }
    Ok(len)
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, LayerError> {
    let (&first, others) = rest.split_first().ok_or_else(|| unfinished("a token or a length"))?;
    *rest = others;
    Ok(first)
}

#[cold]
fn unfinished(what: &str) -> LayerError {
    LayerError::malformed(NAME, format!("expected {what}, the block ended"))
}
