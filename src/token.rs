//! Identifiers of sockets and groups: an index with a generation.

use std::fmt;
use std::num::NonZeroUsize;

/// How many bits of a `usize` hold the index; the rest hold the generation.
const INDEX_BITS: u32 = if usize::BITS >= 64 { 32 } else { 20 };
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;

/// Identifies one connection, listener, UDP socket or custom source of one reactor.
///
/// A token is a plain copyable value: keep it in maps, send it to other threads. It stays safe
/// after its socket has closed. Its *generation* differs from that of the next socket in the same
/// place, so an operation on an old token is refused and never reaches another connection. The
/// generation has 32 bits on 64-bit targets: a token could be mistaken only after 2^32 further
/// sockets. On 32-bit targets it has 12 bits (4,096 sockets), and at most a million sockets exist
/// at once.
///
/// A token is meaningless in another reactor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(NonZeroUsize);

impl Token {
    /// `None` where the index does not fit.
    pub(crate) fn new(index: usize, generation: u32) -> Option<Token> {
        if index > INDEX_MASK {
            return None;
        }
        let generation = (generation as usize).checked_shl(INDEX_BITS)?;
        NonZeroUsize::new(generation | index).map(Token)
    }

    pub(crate) fn index(self) -> usize {
        self.0.get() & INDEX_MASK
    }

    pub(crate) fn generation(self) -> u32 {
        // Cannot truncate: what is left of a usize above the index has 32 bits at most.
        (self.0.get() >> INDEX_BITS) as u32
    }

    pub(crate) fn to_usize(self) -> usize {
        self.0.get()
    }

    pub(crate) fn from_usize(value: usize) -> Option<Token> {
        NonZeroUsize::new(value).map(Token)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation())
    }
}

/// Identifies a group of one reactor. A plain value; that of a removed group is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub(crate) Token);

/// Generates generations: never zero (so that a token is never zero), and distinct for 2^32 - 1
/// sockets in a row, whatever slots are reused in between.
#[derive(Debug)]
pub(crate) struct Generations(u32);

/// The largest generation that fits beside the index.
const LAST_GENERATION: u32 = (usize::MAX >> INDEX_BITS) as u32;

impl Generations {
    pub(crate) fn new() -> Self {
        Generations(0)
    }

    pub(crate) fn next(&mut self) -> u32 {
        // usize::MAX is the waker's token; stopping one short of the last generation keeps it free.
        self.0 = if self.0 >= LAST_GENERATION - 1 { 1 } else { self.0 + 1 };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_generation_survive_packing() {
        for (index, generation) in [(0, 1), (1, 1), (INDEX_MASK, 1), (7, LAST_GENERATION - 1)] {
            let token = Token::new(index, generation).unwrap();
            assert_eq!((token.index(), token.generation()), (index, generation));
            assert_eq!(Token::from_usize(token.to_usize()), Some(token));
        }
    }

    #[test]
    fn an_index_that_does_not_fit_is_refused() {
        assert_eq!(Token::new(INDEX_MASK + 1, 1), None);
    }

    #[test]
    fn generations_wrap_without_zero() {
        let mut generations = Generations(LAST_GENERATION - 2);
        assert_eq!(generations.next(), LAST_GENERATION - 1);
        assert_eq!(generations.next(), 1);
    }

    #[test]
    fn an_optional_token_costs_nothing_extra() {
        assert_eq!(size_of::<Option<Token>>(), size_of::<usize>());
    }
}
