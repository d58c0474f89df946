//! Masking (RFC 6455 section 5.3): each byte of a client's payload is XORed with one of four.

/// Masks or unmasks `bytes`, of which the first is at `offset` in its payload.
pub(super) fn apply(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut turned = mask;
    turned.rotate_left(offset % 4);
    // Eight bytes at once; the compiler makes vectors of it. (tungstenite's own is not public.)
    let word = u64::from(u32::from_ne_bytes(turned));
    let word = word << 32 | word;
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ word).to_ne_bytes());
    }
    for (at, byte) in chunks.into_remainder().iter_mut().enumerate() {
        *byte ^= turned[at % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::apply;

    #[test]
    fn any_length_in_any_two_pieces_is_as_the_rfc_says() {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        for length in 0..40_usize {
            let plain: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let by_the_book: Vec<u8> =
                plain.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]).collect();
            for cut in 0..=length {
                let mut ours = plain.clone();
                let (head, tail) = ours.split_at_mut(cut);
                apply(head, mask, 0);
                apply(tail, mask, cut);
                assert_eq!(ours, by_the_book, "length {length}, cut at {cut}");
            }
        }
    }
}
