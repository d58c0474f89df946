//! What arrived and has not been taken.

use std::fmt;
use std::ops::{Deref, Range};

use crate::layer::MessageKind;

/// The unread bytes of a stream, or exactly one message where a layer frames.
///
/// It reads like a slice of what is left. Taking is explicit. What a handler leaves of a stream is
/// kept, and `on_data` is called with it again:
///
/// - at once, if this call took something and reading is not held back;
/// - with new bytes behind it;
/// - when reading goes on: after [`resume`](crate::Net::resume), or when the output queue that held
///   reading back has drained;
/// - when the peer has ended its side, before `on_eof`. What is left then is dropped.
///
/// Nothing else brings it back. A handler that leaves input until another event has happened pauses
/// the connection, and resumes it then. A call that takes nothing while more than
/// [`unread_limit`](crate::StreamOptions::unread_limit) bytes are left ends the connection. A message
/// of a layer that frames is consumed when the callback returns, taken or not.
///
/// ```
/// # use tidegate::{Context, Handler, HandlerResult, Input};
/// /// Requests of four bytes each.
/// struct Fixed;
///
/// impl Handler for Fixed {
///     fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
///         while let Some(request) = input.take(4) {
///             cx.send(request);
///         }
///         Ok(()) // up to three bytes may be left; they come again with the next ones
///     }
/// }
/// ```
pub struct Input<'a> {
    rest: &'a [u8],
    kind: MessageKind,
    fields: &'a [Range<usize>],
}

impl<'a> Input<'a> {
    /// Input made by hand, for a test of a handler.
    pub fn new(bytes: &'a [u8]) -> Self {
        Input::message(bytes, MessageKind::Default)
    }

    pub(crate) fn message(bytes: &'a [u8], kind: MessageKind) -> Self {
        Input { rest: bytes, kind, fields: &[] }
    }

    /// The same with the fields that a layer found in the message, for a test of a handler.
    #[must_use]
    pub fn with_fields(mut self, fields: &'a [Range<usize>]) -> Self {
        self.fields = fields;
        self
    }

    /// Takes everything that is left.
    pub fn take_all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Takes exactly `n` bytes, or nothing if fewer are there.
    pub fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    /// Takes `n` bytes that were read in place, through the slice that an `Input` is.
    ///
    /// A parser that works on a slice returns how many bytes it used: pass that number on.
    ///
    /// ```
    /// # use tidegate::Input;
    /// let mut input = Input::new(b"GET /tide");
    /// assert!(input.starts_with(b"GET "));
    /// input.advance(4);
    /// assert_eq!(&*input, b"/tide");
    /// ```
    ///
    /// # Panics
    /// If `n` is more than [`len`](slice::len), as a slice that is cut there does.
    pub fn advance(&mut self, n: usize) {
        self.rest = &self.rest[n..];
    }

    /// Takes up to the first `delimiter`, which is taken too but not handed out; nothing if there
    /// is none yet.
    ///
    /// A line that never ends is looked through from its beginning each time more of it arrives;
    /// the `Lines` layer remembers how far it has looked.
    pub fn take_until(&mut self, delimiter: u8) -> Option<&'a [u8]> {
        let at = self.rest.iter().position(|&byte| byte == delimiter)?;
        let taken = &self.rest[..at];
        self.rest = &self.rest[at + 1..];
        Some(taken)
    }

    /// Whether the peer marked this message as text or as binary; [`MessageKind::Default`] where the
    /// format has no such mark.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// The fields that the layer found in this message, in its order, so that a handler need not
    /// parse it again: ranges of the whole message, counted from its first byte. Empty unless the
    /// layer documents that it names fields ([`LayerContext::field`](crate::layer::LayerContext::field)).
    pub fn fields(&self) -> &'a [Range<usize>] {
        self.fields
    }
}

impl Deref for Input<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.rest
    }
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("len", &self.rest.len()).field("kind", &self.kind).finish()
    }
}

/// Unread bytes that wait in a connection: a buffer with a consumed front.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// All of it may be read into; what waits lies at `start..end`. Emptied, it keeps its length, so
    /// that a buffer from the pool need not be cleared again.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The tick at which the first of them began to wait: for the deadline of a message.
    since: u64,
}

impl Tail {
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn unread_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the first byte that waits began to.
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    /// A message was taken: what is left begins another.
    pub(crate) fn restart(&mut self, tick: u64) {
        self.since = tick;
    }

    pub(crate) fn push(&mut self, bytes: &[u8], tick: u64) {
        if self.is_empty() {
            self.since = tick;
        }
        self.make_room();
        let end = self.end + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.end..end) {
            room.copy_from_slice(bytes);
        } else {
            self.bytes.truncate(self.end);
            self.bytes.extend_from_slice(bytes);
        }
        self.end = end;
    }

    /// Room to read into, behind what waits: for as many bytes as wait already, so that memory grows
    /// with what has arrived, and for `most` at most. [`filled`](Self::filled) says how much came.
    pub(crate) fn room(&mut self, most: usize) -> &mut [u8] {
        self.make_room();
        let end = self.end + self.len().min(most);
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let end = self.bytes.len().min(self.end + most);
        &mut self.bytes[self.end..end]
    }

    /// So many bytes were read into the room.
    pub(crate) fn filled(&mut self, n: usize) {
        self.end += n;
        debug_assert!(self.end <= self.bytes.len());
    }

    /// Moving what is left to the front is paid for by what was consumed: at least as much.
    fn make_room(&mut self) {
        if self.start >= self.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
    }

    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_is_explicit_and_exact() {
        let mut input = Input::new(b"abc\ndef");
        assert_eq!(input.take_until(b'\n'), Some(&b"abc"[..]));
        assert_eq!(input.take_until(b'\n'), None);
        assert_eq!(input.take(4), None);
        assert_eq!(input.take(1), Some(&b"d"[..]));
        input.advance(0);
        input.advance(1);
        assert_eq!(&*input, b"f");
        assert_eq!(input.take_all(), b"f");
        assert!(input.is_empty());
    }

    #[test]
    fn a_tail_moves_its_bytes_only_when_that_is_paid_for() {
        let mut tail = Tail::default();
        tail.push(b"0123456789", 0);
        tail.consume(4);
        tail.push(b"ab", 0);
        assert_eq!((tail.start, tail.unread()), (4, &b"456789ab"[..]));
        tail.consume(5);
        tail.push(b"c", 0);
        assert_eq!((tail.start, tail.unread()), (0, &b"9abc"[..]));
        tail.consume(4);
        assert!(tail.is_empty());
        assert_eq!(tail.start, 0);
    }

    #[test]
    fn room_grows_with_what_has_arrived_and_is_not_cleared_again() {
        let mut tail = Tail::default();
        tail.push(b"0123456789", 7);
        assert_eq!(tail.room(4).len(), 4);
        let room = tail.room(1000);
        assert_eq!(room.len(), 10);
        room[..3].copy_from_slice(b"abc");
        tail.filled(3);
        assert_eq!((tail.unread(), tail.since()), (&b"0123456789abc"[..], 7));
        tail.consume(11);
        tail.push(b"de", 8);
        assert_eq!(tail.unread(), b"bcde");
        tail.consume(4);
        tail.push(b"x", 9);
        assert!(tail.room(1000).len() >= 19, "what was made before is there");
        assert_eq!((tail.unread(), tail.since()), (&b"x"[..], 9));
    }
}
