//! A stream with something to do: an event, or work left over.

use super::dispatch::Dispatch;
use super::scratch::Scratch;
use crate::connection::{Phase, ReadSide};
use crate::error::CloseReason;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
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
        let waits = stream.output.is_some() && stream.writable;
        match stream.phase {
            Phase::Dead => return,
            Phase::Connecting if !stream.writable => return,
            Phase::Connecting => self.connected(token),
            Phase::Handshaking if stream.wire().is_none() => self.opened(token, None),
            _ => {}
        }
        if waits {
            self.net.core.flush(token);
        }
        // Input before `on_drain`: a handler that fills its queue anew each time it drains would
        // never let its own connection be read otherwise.
        self.take_input(token, scratch);
        let Some(stream) = self.net.core.stream(token) else { return };
        if stream.drained || stream.error {
            self.tell_drained(token);
            self.look_at_error(token);
        }
        self.net.core.flush(token);
    }

    fn tell_drained(&mut self, token: Token) {
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        if stream.phase == Phase::Open && std::mem::take(&mut stream.drained) {
            self.call(token, |handler, cx| handler.on_drain(cx));
        }
    }
}
