//! Input of relayed connections without a wire layer: it goes to the other one of the pair.

use super::dispatch::Dispatch;
use super::input::Budget;
use super::scratch::Scratch;
use crate::connection::ReadSide;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// Passes on what the connection brings until nothing is left, the other one is full, or the
    /// budget is used up.
    pub(super) fn relay_input(&mut self, token: Token, budget: &mut Budget, scratch: &mut Scratch) {
        loop {
            let Some(stream) = self.net.core.stream(token) else { return };
            // Passing on may end the relay, and its connections with it.
            let Some(to) = stream.relayed_to() else { return };
            if !stream.is_open() || !self.net.core.lets_read(stream) {
                return;
            }
            if stream.unread() > 0 {
                self.net.core.pass_unread(token, to);
            } else if stream.read == ReadSide::Ended {
                return self.tell_end(token);
            } else if !stream.readable || stream.read == ReadSide::Told {
                return self.nothing_more(token);
            } else if budget.reads == 0 {
                return self.net.core.make_ready_later(token);
            } else {
                budget.reads -= 1;
                self.net.core.carry(token, to, &mut scratch.read);
            }
        }
    }
}
