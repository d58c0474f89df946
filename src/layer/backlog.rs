//! Bytes that have arrived and are not consumed yet.

/// An empty backlog keeps a buffer of up to this size for what comes next and gives a larger one
/// back. 16 KiB is the largest TLS record (RFC 8446 section 5.1): a connection in steady use does
/// not allocate, and an idle one does not sit on the largest message it ever saw.
const KEEP: usize = 16 * 1024;

/// A queue of bytes whose content is always one slice.
///
/// Taking from the front only moves a mark. The bytes move up when at least as many were taken as
/// are left, so that each byte taken pays for at most one moved: amortised O(1).
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    bytes: Vec<u8>,
    /// How many of `bytes` are consumed; less than `bytes.len()`, or both are 0.
    taken: usize,
}

impl Backlog {
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.taken..]
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Consumes `count` bytes from the front.
    ///
    /// # Panics
    /// When there are fewer: a layer claimed to have consumed what it was not given.
    pub(crate) fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "a layer consumed {count} bytes of the {} given", self.len());
        self.taken += count;
        if self.taken == self.bytes.len() {
            self.taken = 0;
            recycle(&mut self.bytes);
        }
    }

    pub(crate) fn extend(&mut self, more: &[u8]) {
        if self.taken >= self.len() && self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    /// The buffer itself, for a producer that wants an empty one; `None` while bytes wait.
    pub(crate) fn empty_buffer(&mut self) -> Option<&mut Vec<u8>> {
        self.bytes.is_empty().then_some(&mut self.bytes)
    }
}

/// Empties a scratch buffer, and gives it back when it grew large.
pub(crate) fn recycle(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEEP {
        *buffer = Vec::new();
    } else {
        buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_through_any_mix_of_taking_and_adding() {
        let mut backlog = Backlog::default();
        let (mut next_in, mut next_out) = (0_u8, 0_u8);
        for round in 0..2_000_usize {
            let more: Vec<u8> = (0..round % 7).map(|i| next_in.wrapping_add(i as u8)).collect();
            next_in = next_in.wrapping_add(more.len() as u8);
            backlog.extend(&more);
            let take = (round * 5 % 9).min(backlog.len());
            for &byte in &backlog.as_mut_slice()[..take] {
                assert_eq!(byte, next_out);
                next_out = next_out.wrapping_add(1);
            }
            backlog.consume(take);
        }
    }

    #[test]
    fn never_holds_more_than_twice_what_is_left_of_a_long_stream() {
        let mut backlog = Backlog::default();
        backlog.extend(&[0; 100]);
        for _ in 0..10_000 {
            backlog.extend(&[1; 10]);
            backlog.consume(10);
        }
        assert_eq!(backlog.len(), 100);
        assert!(backlog.bytes.capacity() <= 512, "{}", backlog.bytes.capacity());
    }

    #[test]
    fn gives_a_large_buffer_back_when_empty_and_keeps_a_small_one() {
        let mut backlog = Backlog::default();
        backlog.extend(&[0; KEEP]);
        backlog.consume(KEEP);
        assert!(backlog.bytes.capacity() >= KEEP);
        backlog.extend(&[0; 4 * KEEP]);
        backlog.consume(4 * KEEP);
        assert_eq!(backlog.bytes.capacity(), 0);
    }
}
