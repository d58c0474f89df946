//! Masking (RFC 6455 section 5.3): each byte of a client's payload is XORed with one of four.

/// Bytes at once. The compiler makes of it eight vector registers on x86-64 as it is by default (SSE2),
/// and four where AVX2 may be used (`-C target-cpu`): three instructions, and two, for each register.
const BLOCK: usize = 128;

/// Masks or unmasks `bytes`, of which the first is at `offset` in its payload.
pub(super) fn apply_from(offset: usize, bytes: &mut [u8], mut mask: [u8; 4]) {
    mask.rotate_left(offset % 4);
    apply(bytes, mask);
}

/// Masks or unmasks the beginning of a payload.
#[inline]
pub(super) fn apply(bytes: &mut [u8], mask: [u8; 4]) {
    let word = u64::from(u32::from_ne_bytes(mask));
    let word = word << 32 | word;
    let (blocks, rest) = bytes.as_chunks_mut::<BLOCK>();
    for block in blocks {
        words(block, word);
    }
    let (pairs, rest) = rest.as_chunks_mut::<16>();
    for pair in pairs {
        words(pair, word);
    }
    for (at, byte) in rest.iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
}

#[inline(always)]
fn words(bytes: &mut [u8], word: u64) {
    for eight in bytes.as_chunks_mut::<8>().0 {
        *eight = (u64::from_ne_bytes(*eight) ^ word).to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::{apply, apply_from};

    #[test]
    fn any_length_in_any_two_pieces_is_as_the_rfc_says() {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        for length in (0..40).chain(120..140).chain([256, 300, 511]) {
            let plain: Vec<u8> = (0..length).map(|i: usize| (i * 7) as u8).collect();
            let by_the_book: Vec<u8> =
                plain.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]).collect();
            for cut in 0..=length {
                let mut ours = plain.clone();
                let (head, tail) = ours.split_at_mut(cut);
                apply(head, mask);
                apply_from(cut, tail, mask);
                assert_eq!(ours, by_the_book, "length {length}, cut at {cut}");
            }
        }
    }
}
