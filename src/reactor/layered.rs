//! Input of connections with layers: read, decoded one unit at a time, offered.
//!
//! Units are pulled one by one, so back-pressure works between any two of them: bytes that are not
//! decoded yet stay with the connection.

use std::ops::Range;

use super::call::Dispatch;
use super::scratch::Scratch;
use crate::connection::{Budget, Decoded, Input, Message, NextLayered, Outcome, Unit};
use crate::layer::Delivery;
use crate::stats::Callback;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// The common case of a connection with layers: `len` bytes were read by `Conn::read_calm`. What its
    /// handler replies is collected and written with one more look-up, as for a plain one.
    #[inline(never)] // the plain case needs no registers for it
    pub(super) fn offer_calm(&mut self, token: Token, len: usize, scratch: &mut Scratch) {
        self.net.core.begin_reply(token);
        let mut budget = Budget::new(&self.net.core.config);
        budget.reads -= 1;
        let Scratch { read, unit, reply, fields, .. } = &mut *scratch;
        let read = &mut read[..len];
        let consumed = self.decode(token, read, &mut budget, (unit, reply, fields));
        let done = self.net.core.with_own_reply(token, |conn| conn.after_calm(&read[consumed..]));
        if done == Some(false) {
            self.serve_in_order(token, &mut budget, scratch);
        }
    }

    pub(super) fn take_layered_input(
        &mut self,
        token: Token,
        budget: &mut Budget,
        scratch: &mut Scratch,
    ) {
        loop {
            let next =
                self.net.core.with(token, |conn| conn.next_layered(budget, &mut scratch.read));
            match next {
                Some(NextLayered::Rest) | None => return,
                Some(NextLayered::Read(len)) => {
                    // Decoded in the reactor's buffer; only the rest is copied into the connection.
                    let Scratch { read, unit, reply, fields, .. } = scratch;
                    let read = &mut read[..len];
                    let consumed = self.decode(token, read, budget, (unit, reply, fields));
                    self.net.core.with(token, |conn| conn.keep_undecoded(&read[consumed..]));
                }
                Some(NextLayered::Decode(mut kept)) => {
                    let Scratch { unit, reply, fields, .. } = scratch;
                    let bytes = kept.unread_mut();
                    let consumed = self.decode(token, bytes, budget, (unit, reply, fields));
                    self.net.core.with(token, |conn| conn.give_back_undecoded(kept, consumed));
                }
                Some(NextLayered::Kept(mut tail)) => {
                    let (left, taken) = self.offer_while_taken(token, tail.unread(), budget);
                    tail.consume(tail.len() - left);
                    self.net.core.with(token, |conn| conn.give_back(tail, taken));
                }
                Some(NextLayered::RelayKept(to)) => self.net.core.pass_unread(token, to),
                Some(NextLayered::End) if self.batch_ends_first(token) => {}
                Some(NextLayered::End) => match self.net.core.relayed_to(token) {
                    Some(to) => return self.net.core.pass_end(token, to),
                    None => return self.end(token),
                },
            }
        }
    }

    /// Pulls units out of `bytes` until the layer has nothing more, the connection is held back, or
    /// the budget is used up. Returns how many bytes were consumed.
    fn decode(
        &mut self,
        token: Token,
        bytes: &mut [u8],
        budget: &mut Budget,
        (unit, reply, fields): (&mut Vec<u8>, &mut Vec<u8>, &mut Vec<Range<usize>>),
    ) -> usize {
        let mut at = 0;
        loop {
            let given = &mut bytes[at..];
            let buffers = (&mut *unit, &mut *reply, &mut *fields);
            let core = &mut self.net.core;
            let step = core.with_own_reply(token, |conn| conn.decode(given, buffers, budget));
            let (consumed, opens, outcome) = match step {
                Some(Decoded::Message(Message { consumed, range, kind, last })) => {
                    let mut input = Input::message(&given[range], kind).with_fields(fields);
                    self.call(token, Callback::Data, |handler, cx| handler.on_data(cx, &mut input));
                    at += consumed;
                    if last {
                        return at;
                    }
                    continue;
                }
                Some(Decoded::Step { consumed, opens, outcome }) => (consumed, opens, outcome),
                None => return bytes.len(),
            };
            at += consumed;
            if opens {
                self.opened(token, None);
            }
            match outcome {
                Outcome::Nothing => return at,
                Outcome::Drop => return bytes.len(),
                Outcome::Progress => {}
                Outcome::Unit(decoded) => {
                    let bytes_of = match &decoded.range {
                        Some(range) => &given[range.clone()],
                        None => &unit[..],
                    };
                    self.deliver(token, (bytes_of, fields), &decoded, budget);
                    if decoded.last {
                        return at;
                    }
                }
            }
        }
    }

    /// One unit for the handler: a message, or the next bytes of a stream.
    #[inline(never)]
    fn deliver(
        &mut self,
        token: Token,
        (unit, fields): (&[u8], &[Range<usize>]),
        decoded: &Unit,
        budget: &mut Budget,
    ) {
        let core = &mut self.net.core;
        let Some(stream) = core.stream(token) else { return };
        if !stream.has_callbacks() {
            return;
        }
        if let Some(to) = stream.relayed_to() {
            // Kept input goes first.
            core.pass_unread(token, to);
            if core.with(token, |conn| conn.append_to_kept(unit)) != Some(true) {
                core.with(token, |conn| conn.count_relayed(unit.len()));
                core.pass_on(to, unit, decoded.kind);
            }
            return;
        }
        match decoded.delivery {
            Delivery::Messages => {
                let mut input = Input::message(unit, decoded.kind).with_fields(fields);
                self.call(token, Callback::Data, |handler, cx| handler.on_data(cx, &mut input));
            }
            Delivery::Stream => self.deliver_bytes(token, unit, budget),
        }
    }

    /// The next bytes of a stream, behind the kept ones.
    fn deliver_bytes(&mut self, token: Token, bytes: &[u8], budget: &mut Budget) {
        let core = &mut self.net.core;
        // Where nothing is kept before and behind, the reply needs not be looked at.
        let is_kept = core.stream(token).is_some_and(|stream| stream.unread() > 0);
        if !is_kept || core.with(token, |conn| conn.append_to_kept(bytes)) != Some(true) {
            let (left, taken) = self.offer_while_taken(token, bytes, budget);
            if left > 0 {
                self.net.core.with(token, |conn| conn.keep(&bytes[bytes.len() - left..], taken));
            }
            return;
        }
        // Offered together with the kept bytes, before the next unit is pulled.
        let kept = core.with(token, |conn| conn.take_kept_if_offered(budget)).flatten();
        let Some(mut tail) = kept else { return };
        let (left, taken) = self.offer_while_taken(token, tail.unread(), budget);
        tail.consume(tail.len() - left);
        self.net.core.with(token, |conn| conn.give_back(tail, taken));
    }
}
