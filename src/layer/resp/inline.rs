//! Commands as a line of words, as people type them.

use super::{NAME, too_large};
use crate::layer::LayerError;
use crate::layer::scan::find_byte;

/// The longest line that Redis takes (`PROTO_INLINE_MAX_SIZE`).
pub(super) const MAX_LINE: usize = 64 * 1024;

/// A line that has come.
pub(super) struct Line {
    /// Without its end.
    pub(super) len: usize,
    /// With it.
    pub(super) consumed: usize,
}

/// The line that `wire` begins with, if it has come; in the first `searched` bytes no end was found.
pub(super) fn line(wire: &[u8], searched: usize, max: usize) -> Result<Option<Line>, LayerError> {
    let window = &wire[..wire.len().min(max.saturating_add(2))];
    let searched = searched.min(window.len());
    let end = find_byte(b'\n', &window[searched..]).map(|at| searched + at);
    let line = &window[..end.unwrap_or(window.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > max {
        return Err(too_large(format!(
            "expected an inline command of at most {max} bytes, a longer one came"
        )));
    }
    Ok(end.map(|feed| Line { len: line.len(), consumed: feed + 1 }))
}

/// The words of a line, with the quotes and escapes of redis-cli and of Redis (`sdssplitargs`).
pub(super) fn words(line: &[u8], max: usize) -> Result<Vec<Vec<u8>>, LayerError> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        if words.len() == max {
            return Err(too_large(format!("expected at most {max} words in a command, more came")));
        }
        let mut word = Vec::new();
        // A word may have quotes inside; what follows them must be a space.
        while let Some((&byte, after)) = rest.split_first() {
            rest = match byte {
                b'"' | b'\'' => quoted(byte, after, &mut word)?,
                _ if byte.is_ascii_whitespace() => break,
                _ => {
                    word.push(byte);
                    after
                }
            };
        }
        if words.is_empty()
            && (word.eq_ignore_ascii_case(b"post") || word.eq_ignore_ascii_case(b"host:"))
        {
            return Err(malformed("expected a command, a request of HTTP came"));
        }
        words.push(word);
        rest = rest.trim_ascii_start();
    }
    Ok(words)
}

/// Appends what is between `quote`, which has been taken, and the next one. Returns what is behind.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], LayerError> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(nibble(*high) << 4 | nibble(*low));
                after
            }
            [b'\\', escaped, after @ ..] if quote == b'"' => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                after
            }
            [b'\\', b'\'', after @ ..] if quote == b'\'' => {
                word.push(b'\'');
                after
            }
            [byte, after @ ..] if *byte == quote => {
                return match after.first() {
                    Some(next) if !next.is_ascii_whitespace() => {
                        Err(malformed("expected a space behind a quote, something else came"))
                    }
                    _ => Ok(after),
                };
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
            [] => return Err(malformed("expected a quote at the end of a word, the line ended")),
        };
    }
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit.to_ascii_lowercase() - b'a' + 10,
    }
}

fn malformed(what: &'static str) -> LayerError {
    LayerError::malformed(NAME, what)
}
