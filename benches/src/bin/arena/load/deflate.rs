//! `permessage-deflate` on the load's side (RFC 7692). What it sends needs nothing of earlier messages; what it
//! receives may.

use super::line::LEN;
use crate::Result;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// The end of each message's last block, which is not sent (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// One member's compressor and decompressor.
pub struct Deflated {
    /// Made with the first message: most members only listen.
    compress: Option<Compress>,
    compressed: Vec<u8>,
    decompress: Decompress,
    line: Vec<u8>,
}

impl Deflated {
    pub fn new() -> Self {
        let decompress = Decompress::new(false);
        Self { compress: None, compressed: Vec::new(), decompress, line: Vec::new() }
    }

    pub fn compress(&mut self, line: &[u8; LEN]) -> &[u8] {
        let compress =
            self.compress.get_or_insert_with(|| Compress::new(Compression::fast(), false));
        compress.reset();
        self.compressed.clear();
        self.compressed.reserve(4 * LEN);
        compress
            .compress_vec(line, &mut self.compressed, FlushCompress::Sync)
            .expect("a compressor takes everything");
        let end = self.compressed.len() - TAIL.len();
        assert_eq!(self.compressed[end..], TAIL, "a flush ends with an empty block");
        &self.compressed[..end]
    }

    /// The line that a message holds.
    pub fn decompress(&mut self, payload: &[u8]) -> Result<&[u8]> {
        self.line.clear();
        // A longer one fails, for want of room.
        self.line.reserve_exact(LEN + 1);
        for part in [payload, &TAIL] {
            let before = self.decompress.total_in();
            self.decompress.decompress_vec(part, &mut self.line, FlushDecompress::Sync)?;
            if self.decompress.total_in() - before != part.len() as u64 {
                return Err("a message is not what one line is compressed to".into());
            }
        }
        match self.line.len() {
            LEN => Ok(&self.line),
            len => Err(format!("a message of {len} bytes, and not of a line's length").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back() {
        let mut deflated = Deflated::new();
        for byte in b'a'..b'f' {
            let line = [byte; LEN];
            let compressed = deflated.compress(&line).to_vec();
            assert!(compressed.len() < LEN);
            assert_eq!(deflated.decompress(&compressed).unwrap(), line);
        }
    }
}
