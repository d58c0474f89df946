//! Random bytes.

use rand::Rng as _;

/// Fills `bytes` from a generator for cryptography (ChaCha, one for each thread) that the system
/// seeds.
pub(crate) fn fill(bytes: &mut [u8]) {
    rand::rng().fill_bytes(bytes);
}
