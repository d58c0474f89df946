//! A stream with something to do: an event, or work left over.

use super::dispatch::Dispatch;
use super::input::Budget;
use super::scratch::Scratch;
use crate::connection::{Phase, ReadSide, Received};
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

    /// Does what there is to do for a connection.
    pub(super) fn serve_stream(&mut self, token: Token, scratch: &mut Scratch) {
        let mut budget = Budget::new(&self.net.core.config);
        if !self.serve_calm(token, &mut budget, scratch) {
            self.serve_in_order(token, &mut budget, scratch);
        }
    }

    /// The ordinary case: nothing is kept, held back or owed, so that what has come is read, offered
    /// and answered without another question. The same steps as in the general case below, which
    /// goes on from where this one finds something out of the ordinary; it costs half of that one.
    /// Answers whether nothing is left to do.
    #[inline]
    fn serve_calm(&mut self, token: Token, budget: &mut Budget, scratch: &mut Scratch) -> bool {
        let core = &mut self.net.core;
        let tick = core.tick;
        let Some(stream) = core.stream_mut(token).filter(|stream| stream.is_calm()) else {
            return false;
        };
        let more = match stream.receive(&mut scratch.read, tick) {
            Ok(Some(Received { len, more })) => {
                let all = self.offer_alone(token, &scratch.read[..len], budget);
                if !all {
                    self.net.core.unread_to_new_layer(token);
                }
                more || !all
            }
            Ok(None) => true,
            Err(e) => {
                core.kill_in_order(token, CloseReason::Io(e));
                true
            }
        };
        budget.reads -= 1;
        if !more {
            self.net.core.flush(token);
        }
        !more
    }

    /// In the order that keeps the grammar: it opens, its input is offered, its queue drains, its
    /// replies are flushed.
    fn serve_in_order(&mut self, token: Token, budget: &mut Budget, scratch: &mut Scratch) {
        let Some(stream) = self.net.core.stream(token) else { return };
        let waits = stream.output.is_some() && stream.writable;
        match stream.phase {
            Phase::Dead => return,
            Phase::Connecting if !stream.writable => return,
            Phase::Connecting => self.connected(token),
            Phase::Handshaking if stream.wire().is_none() => self.opened(token, None),
            // Adopted with a layer: its handshake has not begun.
            Phase::Handshaking if stream.clock == u64::MAX => self.stands(token, None),
            _ => {}
        }
        if waits {
            self.net.core.flush(token);
        }
        // Input before `on_drain`: a handler that fills its queue anew each time it drains would
        // never let its own connection be read otherwise.
        self.take_input(token, budget, scratch);
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
