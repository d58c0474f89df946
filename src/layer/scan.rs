//! Finding one byte, at the speed of the platform's `memchr`.

use std::io::BufRead;

/// The position of the first `byte` in `bytes`.
///
/// `Iterator::position` looks at one byte at a time; the standard library keeps its `memchr` to
/// itself, but `skip_until` on a slice, which cannot fail, is that very call.
pub(super) fn find_byte(byte: u8, bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let skipped = rest.skip_until(byte).unwrap_or(0);
    skipped.checked_sub(1).filter(|&last| bytes[last] == byte)
}

#[cfg(test)]
mod tests {
    use super::find_byte;

    #[test]
    fn agrees_with_position() {
        for bytes in [&b""[..], b"x", b"\n", b"ab\ncd\n", b"\n\n", b"abc", b"abc\n"] {
            assert_eq!(find_byte(b'\n', bytes), bytes.iter().position(|&b| b == b'\n'));
        }
    }
}
