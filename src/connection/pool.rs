//! Emptied buffers, kept for the next connection that needs one.

use super::{DIRECT, KEPT_CAPACITY, Output, Tail};

/// How many are kept of each kind, 4 MiB of each at most (64 KiB apiece on average). When more
/// connections than this hold a buffer at once, the others allocate.
const KEPT: usize = 64;

/// Tails above this are lent to connections that keep much, and only while they do: what waits may wait for
/// ever. What a read leaves of small messages, or of records of TLS, takes less.
const LARGE: usize = 4 * KEPT_CAPACITY;

/// The largest tail that is kept, so that nobody inherits more from another's message.
const LARGEST: usize = 1024 * 1024;

// Boxed as they are in the connections: they move between the two whole.
#[allow(clippy::vec_box)]
#[derive(Debug, Default)]
pub(crate) struct Pool {
    outputs: Vec<Box<Output>>,
    tails: Vec<Box<Tail>>,
    /// Those that have grown beyond [`LARGE`], for messages that arrive in several reads.
    large: Vec<Box<Tail>>,
    /// How much the tails of both sorts hold together.
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

    /// An empty tail, in which `bytes` will wait at first.
    pub(crate) fn tail(&mut self, bytes: usize) -> Box<Tail> {
        let large = if bytes < DIRECT { None } else { self.large.pop() };
        let tail = large.or_else(|| self.tails.pop()).unwrap_or_default();
        self.tail_bytes -= tail.capacity();
        tail
    }

    pub(crate) fn keep_tail(&mut self, mut tail: Box<Tail>) {
        let (capacity, tails) = (tail.capacity(), self.tails.len() + self.large.len());
        let bytes = self.tail_bytes + capacity;
        if capacity <= LARGEST && tails < KEPT && bytes <= KEPT * KEPT_CAPACITY {
            tail.clear();
            self.tail_bytes = bytes;
            let sort = if capacity > LARGE { &mut self.large } else { &mut self.tails };
            sort.push(tail);
        }
    }

    /// A tail from which something was taken and that will wait on: a large one that holds little is
    /// exchanged for a small one.
    #[inline]
    pub(crate) fn fitting(&mut self, tail: Box<Tail>) -> Box<Tail> {
        if tail.capacity() > LARGE && tail.len() < DIRECT {
            let small = self.tail(tail.len());
            return self.exchange(tail, small);
        }
        tail
    }

    /// A tail that is to take `more`: one that will hold much, and would have to grow for it, is exchanged for
    /// a large one, if there is one. It has grown already.
    pub(crate) fn roomy(&mut self, tail: Box<Tail>, more: usize) -> Box<Tail> {
        let bytes = tail.len() + more;
        if bytes < DIRECT || bytes <= tail.capacity() {
            return tail;
        }
        match self.large.pop_if(|large| large.capacity() > tail.capacity()) {
            Some(large) => {
                self.tail_bytes -= large.capacity();
                self.exchange(tail, large)
            }
            None => tail,
        }
    }

    #[cold]
    fn exchange(&mut self, old: Box<Tail>, mut new: Box<Tail>) -> Box<Tail> {
        new.push(old.unread(), old.since());
        self.keep_tail(old);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty tail that has held `bytes`.
    fn grown(bytes: usize) -> Box<Tail> {
        let mut tail = Box::new(Tail::default());
        tail.push(&vec![0; bytes], 0);
        tail
    }

    #[test]
    fn a_pool_keeps_no_tail_of_megabytes_and_no_more_than_four_megabytes() {
        let mut pool = Pool::default();
        pool.keep_tail(grown(LARGEST + 1));
        assert_eq!((pool.large.len(), pool.tail_bytes), (0, 0));
        for _ in 0..100 {
            pool.keep_tail(grown(LARGEST / 2));
        }
        assert_eq!((pool.large.len(), pool.tail_bytes), (8, KEPT * KEPT_CAPACITY));
        while let Some(tail) = pool.large.pop() {
            pool.tail_bytes -= tail.capacity();
        }
        for _ in 0..100 {
            pool.keep_tail(grown(100));
        }
        assert_eq!(pool.tails.len(), KEPT);
    }

    #[test]
    fn only_who_keeps_much_gets_a_large_tail() {
        let mut pool = Pool::default();
        pool.keep_tail(grown(LARGEST));
        assert!(pool.tail(DIRECT - 1).capacity() <= LARGE);
        assert_eq!(pool.tail(DIRECT).capacity(), LARGEST);
        assert_eq!(pool.tail(DIRECT).capacity(), 0, "there was one");
        assert_eq!(pool.tail_bytes, 0);
    }

    #[test]
    fn a_large_tail_with_little_in_it_is_exchanged() {
        let mut pool = Pool::default();
        let mut tail = Box::new(Tail::default());
        tail.push(&[7; LARGEST], 3);
        tail.consume(LARGEST - DIRECT);
        let mut tail = pool.fitting(tail);
        assert_eq!((tail.len(), tail.capacity()), (DIRECT, LARGEST), "it holds much");
        tail.consume(1);
        let tail = pool.fitting(tail);
        assert_eq!((tail.unread(), tail.since()), (&[7; DIRECT - 1][..], 3));
        assert!(tail.capacity() <= LARGE);
        assert_eq!((pool.large.len(), pool.tail_bytes), (1, LARGEST));
    }

    #[test]
    fn a_tail_that_would_have_to_grow_is_exchanged_for_one_that_has_grown() {
        let mut pool = Pool::default();
        pool.keep_tail(grown(2 * LARGE));
        assert!(pool.roomy(grown(1), DIRECT - 2).capacity() <= LARGE, "it will not hold much");
        let mut tail = grown(2 * DIRECT);
        tail.consume(DIRECT);
        assert_eq!(pool.roomy(tail, DIRECT).capacity(), 2 * DIRECT, "it has room");
        let tail = pool.roomy(grown(DIRECT), DIRECT);
        assert_eq!((tail.len(), tail.capacity()), (DIRECT, 2 * LARGE));
        assert_eq!((pool.large.len(), pool.tails.len(), pool.tail_bytes), (0, 1, DIRECT));
        assert_eq!(pool.roomy(grown(DIRECT), DIRECT).capacity(), DIRECT, "there was one");
    }
}
