//! A stream with something to do: an event, or work left over.

use super::Scratch;
use super::dispatch::Dispatch;
use crate::connection::{Phase, ReadSide};
use crate::error::CloseReason;
use crate::sys::Ready;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// Notes what the event says and serves the connection.
    pub(super) fn stream_event(&mut self, token: Token, ready: Ready, scratch: &mut Scratch) {
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        // Sticky, all of them: an edge is told once.
        stream.readable |= ready.has(Ready::READABLE | Ready::READ_CLOSED | Ready::ERROR);
        stream.writable |= ready.has(Ready::WRITABLE | Ready::ERROR);
        stream.read_closed |= ready.has(Ready::READ_CLOSED | Ready::ERROR);
        stream.urgent |= ready.has(Ready::URGENT);
        stream.error |= ready.has(Ready::ERROR);
        self.serve_stream(token, scratch);
    }

    /// An error while reading is held back would go unnoticed until somebody resumes, which may be
    /// never; one behind the peer's end, until somebody writes. What arrived before it is offered
    /// now, and then the connection ends.
    fn look_at_error(&mut self, token: Token) {
        let may_read = self.net.core.may_read(token);
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        if !stream.error || stream.phase != Phase::Open {
            return;
        }
        if may_read && stream.read == ReadSide::Open {
            return; // reading will meet it, after the data
        }
        stream.error = false;
        if let Ok(Some(error)) = stream.socket.take_error() {
            self.net.core.fail_after_input(token, CloseReason::Io(error));
        }
    }

    /// Does what there is to do for a connection, in the order that keeps its grammar: it opens,
    /// its input is offered, its queue drains, its replies are flushed.
    pub(super) fn serve_stream(&mut self, token: Token, scratch: &mut Scratch) {
        let Some(stream) = self.net.core.stream(token) else { return };
        match stream.phase {
            Phase::Dead => return,
            Phase::Connecting if !stream.writable => return,
            Phase::Connecting => {
                self.connected(token);
            }
            Phase::Handshaking if stream.wire().is_none() => self.opened(token, None),
            _ => {}
        }
        let Some(stream) = self.net.core.stream(token) else { return };
        if stream.output.is_some() && stream.writable {
            self.net.core.flush(token);
        }
        // Input before `on_drain`: a handler that fills its queue anew each time it drains would
        // never let its own connection be read otherwise.
        self.take_input(token, scratch);
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        if stream.phase == Phase::Open && std::mem::take(&mut stream.drained) {
            self.call(token, |handler, cx| handler.on_drain(cx));
        }
        self.look_at_error(token);
        self.net.core.flush(token);
    }
}
