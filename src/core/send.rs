//! Sending by token.

use std::sync::Arc;

use super::{Core, Entity};
use crate::connection::SendStatus;
use crate::layer::Kind;
use crate::token::Token;

impl Core {
    #[inline]
    pub(crate) fn send(&mut self, token: Token, bytes: &[u8], kind: Kind) -> SendStatus {
        if self.work.reply.take(token, bytes) {
            return SendStatus::Queued;
        }
        self.send_queued(token, bytes, kind)
    }

    fn send_queued(&mut self, token: Token, bytes: &[u8], kind: Kind) -> SendStatus {
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

    /// How many bytes wait to be written, those included that the running callback has sent.
    pub(crate) fn unsent(&self, token: Token) -> usize {
        match self.entity(token) {
            Some(Entity::Stream(stream)) => stream.unsent() + self.work.reply.queued(token),
            Some(Entity::Datagram(socket)) => socket.queued(),
            _ => 0,
        }
    }

    /// Whether a connection's queued output waits to fall to its low mark.
    pub(crate) fn is_above_high(&self, token: Token) -> bool {
        self.stream(token).is_some_and(crate::connection::Stream::is_over_high)
    }
}
