//! The shortcut for what a callback sends on its own connection.
//!
//! A small reply needs neither a look-up nor a queue: one buffer collects its bytes while the callback
//! runs, and they are written from there when it returns. Any other access to the same connection
//! first moves them into its queue (`Conn::spill`), so that order and byte counts hold. The layers of
//! a connection encode straight into that buffer.

use crate::token::Token;

/// The room of a reply that layers encode: it takes no bytes as they are, not even none.
const ENCODED: isize = -1;

/// What the running callback has sent on its own connection, as far as it fits.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// The connection; `None` if no callback runs, or its sends have to be queued.
    owner: Option<Token>,
    /// How many bytes may still be added as they are: up to the high-water mark, and less than the
    /// size from which a message is written directly.
    room: isize,
    bytes: Vec<u8>,
}

impl Reply {
    /// A callback of `owner` begins; its queue is empty. `room`: how many bytes may take the shortcut.
    #[inline]
    pub(crate) fn begin(&mut self, owner: Token, room: usize) {
        debug_assert!(self.bytes.is_empty(), "the last callback's reply has been written");
        self.owner = Some(owner);
        self.room = room as isize;
    }

    /// The same where the layers of `owner` encode what it sends.
    pub(crate) fn begin_encoded(&mut self, owner: Token) {
        debug_assert!(self.bytes.is_empty(), "the last callback's reply has been written");
        self.owner = Some(owner);
        self.room = ENCODED;
    }

    /// Whether a message to `to` is encoded into the reply.
    pub(crate) fn is_encoded(&self, to: Token) -> bool {
        self.room == ENCODED && self.owner == Some(to)
    }

    /// What has been encoded so far, for the layers to append to.
    pub(super) fn encoded(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Switches the shortcut off for this callback: every send is queued.
    pub(crate) fn cancel(&mut self) {
        self.owner = None;
    }

    /// The connection whose callback may use the shortcut.
    pub(crate) fn owner(&self) -> Option<Token> {
        self.owner
    }

    /// Takes a small message; `false` if it has to be queued.
    #[inline]
    pub(crate) fn take(&mut self, to: Token, bytes: &[u8]) -> bool {
        if self.owner != Some(to) || bytes.len() as isize > self.room {
            return false;
        }
        self.room -= bytes.len() as isize;
        self.bytes.extend_from_slice(bytes);
        true
    }

    /// Whether a reply of `token` has to be moved before any other access to it.
    #[inline]
    pub(crate) fn concerns(&self, token: Token) -> bool {
        self.owner == Some(token)
    }

    /// Ends the shortcut for the rest of the callback; the bytes are the caller's to queue and
    /// [`give_back`](Self::give_back).
    #[inline]
    pub(super) fn end(&mut self) -> Vec<u8> {
        self.owner = None;
        std::mem::take(&mut self.bytes)
    }

    /// What has been collected, to be written when the callback has returned.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All of it has been written.
    #[inline]
    pub(super) fn written(&mut self) {
        self.owner = None;
        self.bytes.clear();
    }

    /// Keeps the buffer for the next callback.
    #[inline]
    pub(super) fn give_back(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        self.bytes = bytes;
    }

    /// How many bytes of `token` are collected here.
    pub(crate) fn queued(&self, token: Token) -> usize {
        if self.owner == Some(token) { self.bytes.len() } else { 0 }
    }
}
