//! The read buffer of every peer that reads by hand.

use std::ops::{Deref, DerefMut};

/// One read takes a large message whole. The C peers use the same size.
pub const READ_SIZE: usize = 256 * 1024;

const PAGE: usize = 4096;

/// `READ_SIZE` bytes that begin at a page, as in the C peers and in tidegate. What an allocator hands out for this
/// size begins 16 bytes behind one, and copying into that cost half as much again where it was measured: the peers
/// would differ in their buffers and not in their loops.
#[derive(Debug)]
pub struct Pages {
    bytes: Box<[u8]>,
    start: usize,
}

impl Default for Pages {
    fn default() -> Self {
        let bytes: Box<[u8]> = vec![0; READ_SIZE + PAGE].into();
        let start = bytes.as_ptr().align_offset(PAGE);
        assert!(start < PAGE, "a page begins somewhere in more than one page");
        Self { bytes, start }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + READ_SIZE]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + READ_SIZE]
    }
}
