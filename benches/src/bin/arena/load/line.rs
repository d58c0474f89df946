//! The lines of the chat: fixed in length, each telling its speaker and its number, so that a listener can check
//! that it gets every line once, whole and in order.

pub const LEN: usize = 64;

/// Speaker and number in digits of six bits, then letters that depend on both, then the newline.
const SPEAKER: usize = 4;
const NUMBER: usize = 6;
const FILL: usize = LEN - SPEAKER - NUMBER - 1;
const FILLS: usize = 97;

pub struct Lines {
    letters: [u8; FILLS + FILL],
}

impl Lines {
    pub fn new() -> Self {
        Self { letters: std::array::from_fn(|index| b'a' + (index * index % FILLS % 26) as u8) }
    }

    pub fn write(&self, speaker: usize, number: u32, line: &mut [u8; LEN]) {
        write_digits(&mut line[..SPEAKER], speaker as u64);
        write_digits(&mut line[SPEAKER..SPEAKER + NUMBER], number.into());
        line[SPEAKER + NUMBER..LEN - 1].copy_from_slice(self.fill(speaker, number));
        line[LEN - 1] = b'\n';
    }

    /// The speaker of a line, unless the line says something else than that speaker's next one must.
    pub fn check(&self, line: &[u8], next: impl Fn(usize) -> Option<u32>) -> Option<usize> {
        let digit = |byte: u8| usize::from(byte.wrapping_sub(b'0'));
        let speaker = line[..SPEAKER].iter().fold(0, |high, &byte| high << 6 | digit(byte));
        let mut expected = [0; LEN];
        self.write(speaker, next(speaker)?, &mut expected);
        (line == expected).then_some(speaker)
    }

    fn fill(&self, speaker: usize, number: u32) -> &[u8] {
        let start = (speaker * 31 + number as usize) % FILLS;
        &self.letters[start..start + FILL]
    }
}

fn write_digits(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value & 63) as u8;
        value >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_accepted_only_in_its_turn() {
        let lines = Lines::new();
        let mut line = [0; LEN];
        lines.write(999, 70_000, &mut line);
        assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(LEN - 1));
        assert_eq!(lines.check(&line, |_| Some(70_000)), Some(999));
        assert_eq!(lines.check(&line, |_| Some(70_001)), None);
        line[30] ^= 1;
        assert_eq!(lines.check(&line, |_| Some(70_000)), None);
    }
}
