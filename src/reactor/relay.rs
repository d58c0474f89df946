//! Input of relayed connections without a layer: it goes to the partner.

use super::call::Dispatch;
use super::scratch::Scratch;
use crate::connection::{Budget, NextRelayed};
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// Passes input on until nothing is left, the partner is above its mark, or the budget is used up.
    pub(super) fn relay_input(
        &mut self,
        token: Token,
        to: Token,
        budget: &mut Budget,
        scratch: &mut Scratch,
    ) {
        loop {
            let core = &mut self.net.core;
            // Passing on may end the relay, and its connections with it.
            if core.relayed_to(token) != Some(to) {
                return;
            }
            match core.with(token, |conn| conn.next_relayed(budget)) {
                Some(NextRelayed::Kept) => core.pass_unread(token, to),
                Some(NextRelayed::Carry) => core.carry(token, to, &mut scratch.read),
                Some(NextRelayed::End) => {
                    if self.batch_ends_first(token) {
                        continue;
                    }
                    return self.net.core.pass_end(token, to);
                }
                Some(NextRelayed::Rest) | None => return,
            }
        }
    }
}
