//! What a line of the chat looks like on the way: itself, or one WebSocket text frame.

use super::deflate::Deflated;
use super::line::LEN;
use super::websocket::{COMPRESSED, Masks, TEXT};
use crate::Result;

/// One member's way of writing lines and of reading them.
pub enum Wording {
    Line,
    Frame(Masks),
    Deflated(Masks, Deflated),
}

/// The head of a frame from the server that holds a line.
const HEAD: [u8; 2] = [TEXT, LEN as u8];

impl Wording {
    /// Adds a line to what is to be sent.
    pub fn put(&mut self, line: &[u8; LEN], out: &mut Vec<u8>) {
        match self {
            Self::Line => out.extend_from_slice(line),
            Self::Frame(masks) => masks.put(out, TEXT, line),
            Self::Deflated(masks, deflated) => {
                masks.put(out, TEXT | COMPRESSED, deflated.compress(line));
            }
        }
    }

    /// The first line of what arrived, and how many bytes it took there; none where its end is missing.
    pub fn take<'a>(&'a mut self, bytes: &'a [u8]) -> Result<Option<(&'a [u8], usize)>> {
        match self {
            Self::Line => Ok(bytes.get(..LEN).map(|line| (line, LEN))),
            Self::Frame(_) => {
                let whole = HEAD.len() + LEN;
                let Some(frame) = bytes.get(..whole) else { return Ok(None) };
                match frame.strip_prefix(&HEAD) {
                    Some(line) => Ok(Some((line, whole))),
                    None => Err("a frame's head is not that of a line".into()),
                }
            }
            Self::Deflated(_, deflated) => {
                let &[first, len, ..] = bytes else { return Ok(None) };
                // No line is so long that its frame needs more bytes for that.
                if len > 125 || first | COMPRESSED != TEXT | COMPRESSED {
                    return Err("a frame's head is not that of a line".into());
                }
                let whole = HEAD.len() + usize::from(len);
                let Some(payload) = bytes.get(HEAD.len()..whole) else { return Ok(None) };
                if first & COMPRESSED == 0 {
                    return Ok(Some((payload, whole)));
                }
                Ok(Some((deflated.decompress(payload)?, whole)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: [u8; LEN] = [b'x'; LEN];

    #[test]
    fn frames_are_taken_one_after_the_other() {
        let frame = [&HEAD[..], &LINE].concat();
        let two = [frame.clone(), frame.clone()].concat();
        let mut wordings =
            [Wording::Frame(Masks::new()), Wording::Deflated(Masks::new(), Deflated::new())];
        for wording in &mut wordings {
            assert_eq!(wording.take(&two).unwrap(), Some((&LINE[..], frame.len())));
            for len in 0..frame.len() {
                assert_eq!(wording.take(&frame[..len]).unwrap(), None);
            }
        }
    }

    #[test]
    fn a_frame_of_another_kind_is_refused() {
        let mut wording = Wording::Frame(Masks::new());
        // Binary; a fragment; masked; shorter.
        for head in [[0x82, 64], [0x01, 64], [0x81, 0x80 | 64], [0x81, 63]] {
            assert!(wording.take(&[&head[..], &LINE].concat()).is_err());
        }
        let mut wording = Wording::Deflated(Masks::new(), Deflated::new());
        for head in [[0x82, 64], [0x41, 64], [0xA1, 64], [0x81, 126], [0xC1, 3]] {
            assert!(wording.take(&[&head[..], &LINE].concat()).is_err());
        }
    }
}
