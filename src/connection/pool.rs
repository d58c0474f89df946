//! Emptied buffers, kept for the next connection that needs one.

use super::{KEPT_CAPACITY, Output, Tail};

/// How many are kept of each kind, 4 MiB of each at most (64 KiB apiece on average). When more
/// connections than this hold a buffer at once, the others allocate.
const KEPT: usize = 64;

// Boxed as they are in the connections: they move between the two whole.
#[allow(clippy::vec_box)]
#[derive(Debug, Default)]
pub(crate) struct Pool {
    outputs: Vec<Box<Output>>,
    tails: Vec<Box<Tail>>,
    /// How much the tails hold together: a few may be large, for messages that arrive in several reads.
    tail_bytes: usize,
}

impl Pool {
    /// An empty queue, which begins to wait at `tick`.
    #[inline]
    pub(crate) fn output(&mut self, tick: u64) -> Box<Output> {
        let mut output = self.outputs.pop().unwrap_or_default();
        output.progress = tick;
        output
    }

    pub(crate) fn keep_output(&mut self, mut output: Box<Output>) {
        if self.outputs.len() < KEPT {
            if !output.is_empty() {
                output.clear();
            }
            self.outputs.push(output);
        }
    }

    pub(crate) fn tail(&mut self) -> Box<Tail> {
        let tail = self.tails.pop().unwrap_or_default();
        self.tail_bytes -= tail.capacity();
        tail
    }

    pub(crate) fn keep_tail(&mut self, mut tail: Box<Tail>) {
        let bytes = self.tail_bytes + tail.capacity();
        if self.tails.len() < KEPT && bytes <= KEPT * KEPT_CAPACITY {
            tail.clear();
            self.tail_bytes = bytes;
            self.tails.push(tail);
        }
    }
}
