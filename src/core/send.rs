//! Sending by token.

use std::sync::Arc;

use super::{Core, Entity};
use crate::connection::SendStatus;
use crate::layer::MessageKind;
use crate::token::Token;

impl Core {
    #[inline]
    pub(crate) fn send(&mut self, token: Token, bytes: &[u8], kind: MessageKind) -> SendStatus {
        if self.work.reply.take(token, bytes) {
            return SendStatus::Queued;
        }
        self.send_queued(token, bytes, kind)
    }

    /// A callback of a connection without a queue begins: its own small sends may take the shortcut,
    /// unless something was published to it before, which goes first.
    #[inline]
    pub(crate) fn begin_reply(&mut self, token: Token) {
        if self.groups.has_pending() && self.groups.is_pending(token) {
            self.work.reply.cancel();
        }
    }

    fn send_queued(&mut self, token: Token, bytes: &[u8], kind: MessageKind) -> SendStatus {
        match self.with_settled(token, |conn| conn.send(bytes, kind)) {
            Some(status) => status,
            None => self.send_elsewhere(token, bytes),
        }
    }

    /// Like [`send`](Self::send), for bytes that are shared: they are queued by reference.
    pub(crate) fn send_shared(&mut self, token: Token, bytes: &Arc<[u8]>) -> SendStatus {
        match self.with_settled(token, |conn| conn.send_shared(bytes)) {
            Some(status) => status,
            None => self.send_elsewhere(token, bytes),
        }
    }

    /// Writes what a connection has queued, as far as the system takes it.
    pub(crate) fn flush(&mut self, token: Token) {
        self.with(token, |conn| conn.flush());
    }

    /// How many bytes wait to be written, those included that the running callback has sent.
    pub(crate) fn unsent(&self, token: Token) -> usize {
        match self.entity(token) {
            Some(Entity::Stream(stream)) => {
                stream.unsent() + self.work.reply.queued(token) + self.published_to(token)
            }
            Some(Entity::Datagram(socket)) => socket.queued(),
            _ => 0,
        }
    }

    /// How many bytes were published to a connection and not handed to it yet.
    pub(crate) fn published_to(&self, token: Token) -> usize {
        if self.groups.has_pending() { self.groups.pending_bytes_of(token) } else { 0 }
    }

    /// Whether a connection's queued output waits to fall to its low mark, or will once it has been
    /// handed what was published to it.
    pub(crate) fn is_above_high_water(&self, token: Token) -> bool {
        let Some(stream) = self.stream(token) else { return false };
        stream.is_over_high()
            || self.groups.has_pending()
                && stream.queued() + self.published_to(token) > stream.options().high_water
    }
}
