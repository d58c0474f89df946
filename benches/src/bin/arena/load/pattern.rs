//! The bytes of every stream: an endless sequence that can be sent without being written first and be checked with a
//! plain comparison, wherever the reads cut it.

/// A prime, so that no message size divides it and a lost or doubled message shows.
const PERIOD: usize = 65_521;

/// The longest slice that `at` gives.
pub const LONGEST: usize = 256 * 1024;

pub struct Pattern(Vec<u8>);

impl Pattern {
    pub fn new() -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let period: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        Self(period.iter().copied().cycle().take(PERIOD + LONGEST).collect())
    }

    /// Up to `LONGEST` bytes from `position` on.
    pub fn at(&self, position: u64, len: usize) -> &[u8] {
        let start = (position % PERIOD as u64) as usize;
        &self.0[start..start + len.min(LONGEST)]
    }

    /// Whether `bytes` are those from `position` on.
    pub fn matches(&self, position: u64, bytes: &[u8]) -> bool {
        bytes == self.at(position, bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_across_the_period() {
        let pattern = Pattern::new();
        let position = PERIOD as u64 - 2;
        let whole = pattern.at(position, 4).to_vec();
        assert_eq!(&whole[2..], pattern.at(0, 2));
        assert!(pattern.matches(position + 1, &whole[1..]));
        assert!(!pattern.matches(position + 1, &whole[..3]));
    }
}
