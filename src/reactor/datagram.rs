//! UDP sockets with something to do.

use std::io;

use super::dispatch::Dispatch;
use super::scratch::Scratch;
use crate::handler::{Datagram, DatagramError};
use crate::sys::Ready;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    pub(super) fn datagram_event(&mut self, token: Token, ready: Ready, scratch: &mut Scratch) {
        let Some(socket) = self.net.core.datagram_mut(token) else { return };
        socket.readable |= ready.has(Ready::READABLE | Ready::ERROR);
        socket.writable |= ready.has(Ready::WRITABLE | Ready::ERROR);
        if ready.has(Ready::ERROR)
            && let Err(e) = self.net.core.survive_datagram_error(token)
        {
            log::error!("{token}: cannot register the UDP socket again: {e}");
        }
        self.serve_datagrams(token, scratch);
    }

    /// In the order of the grammar: it opens, its queue drains, its errors are told, it receives.
    pub(super) fn serve_datagrams(&mut self, token: Token, scratch: &mut Scratch) {
        let Some(socket) = self.net.core.datagram_mut(token) else { return };
        if !std::mem::replace(&mut socket.opened, true) {
            self.call_datagram(token, |handler, cx| handler.on_open(cx));
        }
        self.net.core.flush_datagrams(token);
        self.tell_errors(token);
        let Some(socket) = self.net.core.datagram_mut(token) else { return };
        if std::mem::take(&mut socket.drained) {
            self.call_datagram(token, |handler, cx| handler.on_drain(cx));
        }
        self.receive(token, scratch);
        self.net.core.flush_datagrams(token);
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

    /// Receives a batch; what is left over goes on the ready queue.
    fn receive(&mut self, token: Token, scratch: &mut Scratch) {
        let most = self.net.core.config.datagram_size;
        for _ in 0..self.net.core.config.datagrams_per_turn {
            let Some(socket) = self.net.core.datagram_mut(token) else { return };
            if socket.dead || !socket.readable {
                return;
            }
            match socket.socket.receive(&mut scratch.datagram) {
                Ok((n, from)) => {
                    let bytes = &scratch.datagram[..n.min(most)];
                    let datagram = Datagram { bytes, from, truncated: n > most };
                    self.call_datagram(token, |handler, cx| handler.on_datagram(cx, datagram));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => socket.readable = false,
                Err(error) => {
                    // A pending error (an ICMP answer, as a rule) is taken by the call that reports
                    // it; what has arrived is behind it.
                    let error = DatagramError { error, to: None };
                    self.call_datagram(token, |handler, cx| handler.on_error(cx, error));
                }
            }
        }
        self.net.core.make_ready(token);
    }
}
