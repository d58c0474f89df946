//! UDP sockets with something to do.

use std::io;

use super::dispatch::Dispatch;
use super::scratch::Scratch;
use crate::error::{CloseReason, DatagramError};
use crate::handler::Datagram;
use crate::sys::{Arrived, Inbox, Ready};
use crate::token::Token;

/// How many errors one socket may report in a row within one turn; the system keeps one pending at
/// a time, so that more come only of a socket that is broken.
const ERRORS_IN_A_ROW: usize = 16;

impl<S: 'static> Dispatch<S> {
    pub(super) fn look_at_datagram_error(&mut self, token: Token, ready: Ready) {
        if ready.has(Ready::ERROR)
            && let Err(e) = self.net.core.survive_datagram_error(token)
        {
            log::error!("{token}: cannot register the UDP socket again: {e}");
        }
    }

    /// In the order of the grammar: it opens, its queue drains, its errors are told, it receives.
    pub(super) fn serve_datagrams(&mut self, token: Token, scratch: &mut Scratch) {
        self.open_datagram(token);
        self.net.core.flush_datagrams(token);
        self.tell_errors(token);
        let Some(socket) = self.net.core.datagram_mut(token) else { return };
        if !socket.dead && std::mem::take(&mut socket.drained) {
            self.call_datagram(token, |handler, cx| handler.on_drain(cx));
        }
        self.receive(token, scratch);
        self.net.core.flush_datagrams(token);
    }

    /// Makes `on_open` the first thing that is told, also where a timer or a signal comes before the
    /// turn gets to a newborn. Answers whether more may be told.
    pub(super) fn open_datagram(&mut self, token: Token) -> bool {
        let Some(socket) = self.net.core.datagram_mut(token) else { return false };
        if !socket.dead && !std::mem::replace(&mut socket.opened, true) {
            self.call_datagram(token, |handler, cx| handler.on_open(cx));
        }
        self.net.core.datagram(token).is_some_and(|socket| !socket.dead)
    }

    fn tell_errors(&mut self, token: Token) {
        loop {
            let Some(socket) = self.net.core.datagram_mut(token) else { return };
            if socket.dead {
                return;
            }
            let Some(error) = socket.errors.pop_front() else { return };
            self.call_datagram(token, |handler, cx| handler.on_error(cx, error));
        }
    }

    /// Receives until nothing is left or the budget is used up; what is left over goes on the ready
    /// queue.
    fn receive(&mut self, token: Token, scratch: &mut Scratch) {
        let inbox = &mut scratch.inbox;
        let mut budget = self.net.core.config.datagrams_per_turn;
        let mut errors = 0;
        loop {
            let Some(socket) = self.net.core.datagram_mut(token) else { return };
            if socket.dead || socket.paused || !socket.readable {
                return;
            }
            if budget == 0 {
                return self.net.core.make_ready_later(token);
            }
            match socket.socket.receive(inbox, budget) {
                Ok(drained) => {
                    socket.readable = !drained;
                    errors = 0;
                    budget = budget.saturating_sub(inbox.len());
                    self.tell_datagrams(token, inbox);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => socket.readable = false,
                Err(error) => {
                    // A pending error (an ICMP answer, as a rule) is taken by the call that reports
                    // it; what has arrived is behind it. One that comes again and again is the
                    // socket's own and would never end.
                    errors += 1;
                    if errors > ERRORS_IN_A_ROW {
                        return self.net.core.finish(token, CloseReason::Io(error));
                    }
                    budget -= 1;
                    let error = DatagramError { error, to: None };
                    self.call_datagram(token, |handler, cx| handler.on_error(cx, error));
                }
            }
        }
    }

    /// Tells the handler what has arrived, as long as it wants to hear of it.
    fn tell_datagrams(&mut self, token: Token, inbox: &Inbox) {
        for index in 0..inbox.len() {
            let Some(Arrived { bytes, from, truncated }) = inbox.get(index) else { return };
            let datagram = Datagram { bytes, from, truncated };
            self.call_datagram(token, |handler, cx| handler.on_datagram(cx, datagram));
            if self.net.core.datagram(token).is_none_or(|socket| socket.dead) {
                return;
            }
        }
    }
}
