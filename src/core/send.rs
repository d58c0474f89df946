//! Sending by token.

use std::sync::Arc;

use super::{Core, Entity};
use crate::connection::{DIRECT, SendStatus};
use crate::layer::MessageKind;
use crate::token::Token;

impl Core {
    #[inline]
    pub(crate) fn send(&mut self, token: Token, bytes: &[u8], kind: MessageKind) -> SendStatus {
        #[cfg(feature = "sim")]
        if self.sys.is_simulated() {
            return self.send_watched(token, bytes, kind);
        }
        if self.work.reply.take(token, bytes) {
            return SendStatus::Queued;
        }
        self.send_queued(token, bytes, kind)
    }

    /// The same in a simulation, which compares what is sent with what is written.
    #[cfg(feature = "sim")]
    #[cold]
    fn send_watched(&mut self, token: Token, bytes: &[u8], kind: MessageKind) -> SendStatus {
        let output = crate::witness::sends(self, token, bytes);
        let taken = self.work.reply.take(token, bytes);
        let status = if taken { SendStatus::Queued } else { self.send_queued(token, bytes, kind) };
        crate::witness::sent(output, bytes.len(), status);
        status
    }

    /// A callback of a connection without a queue begins. The reply shortcut is switched off if
    /// messages were published to the connection, since those go first.
    #[inline]
    pub(crate) fn begin_reply(&mut self, token: Token) {
        if self.groups.has_pending() && self.groups.is_pending(token) {
            self.work.reply.cancel();
        }
    }

    fn send_queued(&mut self, token: Token, bytes: &[u8], kind: MessageKind) -> SendStatus {
        if bytes.len() < DIRECT
            && self.work.reply.is_encoded(token)
            && let Some(Some(status)) =
                self.with_own_reply(token, |conn| conn.send_in_reply(bytes, kind))
        {
            return status;
        }
        match self.with_settled(token, |conn| conn.send(bytes, kind)) {
            Some(status) => status,
            None => self.send_elsewhere(token, bytes),
        }
    }

    /// Like [`send`](Self::send), for bytes that are shared: they are queued by reference.
    pub(crate) fn send_shared(&mut self, token: Token, bytes: &Arc<[u8]>) -> SendStatus {
        #[cfg(feature = "sim")]
        let output = crate::witness::sends(self, token, bytes);
        let status = match self.with_settled(token, |conn| conn.send_shared(bytes)) {
            Some(status) => status,
            None => self.send_elsewhere(token, bytes),
        };
        #[cfg(feature = "sim")]
        crate::witness::sent(output, bytes.len(), status);
        status
    }

    /// Sends a value that replaces its own unsent predecessor.
    #[inline(never)]
    pub(crate) fn send_latest(
        &mut self,
        token: Token,
        key: u64,
        bytes: &[u8],
        kind: MessageKind,
    ) -> SendStatus {
        #[cfg(feature = "sim")]
        crate::witness::mixes_output(self, token);
        let sent = self.with_settled(token, |conn| conn.send_latest(key, None, bytes, kind));
        sent.unwrap_or(SendStatus::Gone)
    }

    /// Drops the values that wait to be sent. Returns how many.
    pub(crate) fn discard_values(&mut self, token: Token) -> usize {
        self.with_settled(token, |conn| conn.discard_values()).unwrap_or(0)
    }

    /// Writes a connection's queue, as far as the system takes it.
    pub(crate) fn flush(&mut self, token: Token) {
        self.with(token, |conn| conn.flush());
    }

    /// How many bytes wait to be written, the reply of the running callback included.
    pub(crate) fn unsent(&self, token: Token) -> usize {
        match self.entity(token) {
            Some(Entity::Stream(stream)) => {
                stream.unsent() + self.work.reply.queued(token) + self.published_to(token)
            }
            Some(Entity::Datagram(socket)) => socket.queued(),
            Some(Entity::SessionSocket(owner)) => owner.socket.queued(),
            Some(Entity::Session(session)) => {
                let socket = self.datagram(session.socket);
                let queued = socket.map_or(0, |socket| socket.queued_for(session.peer));
                queued + self.published_to(token)
            }
            _ => 0,
        }
    }

    /// How many published bytes are pending for a connection.
    pub(crate) fn published_to(&self, token: Token) -> usize {
        if self.groups.has_pending() { self.groups.pending_bytes_of(token) } else { 0 }
    }

    /// Whether a connection is above its high-water mark, or will be once the published bytes that are
    /// pending for it are queued.
    pub(crate) fn is_above_high_water(&self, token: Token) -> bool {
        let Some(stream) = self.stream(token) else { return false };
        stream.is_over_high()
            || self.groups.has_pending()
                && stream.queued() + self.published_to(token) > stream.options().high_water
    }
}
