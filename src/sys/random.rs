//! Random bytes.

use rand::Rng as _;

/// Fills `bytes` from a generator for cryptography (ChaCha, one for each thread) that the system
/// seeds.
///
/// In a simulation they come from its seed.
pub(crate) fn fill(bytes: &mut [u8]) {
    #[cfg(feature = "sim")]
    if super::sim::random(bytes) {
        return;
    }
    rand::rng().fill_bytes(bytes);
}
