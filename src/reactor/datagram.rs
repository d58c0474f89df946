//! The steps of a UDP socket: open, drain, errors, receive.

use std::io;
use std::time::Duration;

use super::call::Dispatch;
use super::scratch::Scratch;
use crate::core::{DatagramSocket, PutOff};
use crate::error::DatagramError;
use crate::guard::{drop_guarded, log_guarded};
use crate::handler::Datagram;
use crate::net::AnyHandler;
use crate::stats::Callback;
use crate::sys::{self, Arrived, Inbox, Ready};
use crate::token::Token;

/// After this many receive errors in a row that are no ICMP errors the socket counts as broken.
const ERRORS_IN_A_ROW: usize = 16;

/// How often a socket logs above debug level that its handler failed at a datagram.
pub(super) const WARN_EVERY: Duration = Duration::from_secs(10);

impl<S: 'static> Dispatch<S> {
    #[inline]
    pub(super) fn look_at_datagram_error(&mut self, token: Token, ready: Ready) {
        if ready.has(Ready::ERROR) {
            self.survive_datagram_error(token);
        }
    }

    #[cold]
    fn survive_datagram_error(&mut self, token: Token) {
        if let Err(e) = self.net.core.survive_datagram_error(token) {
            log::error!("{token}: cannot register the UDP socket again: {e}");
        }
    }

    /// In the order of the grammar: it opens, its queue drains, its errors are reported, it receives.
    pub(super) fn serve_datagrams(&mut self, token: Token, scratch: &mut Scratch) {
        self.open_datagram(token);
        self.net.core.flush_datagrams(token);
        if self.net.core.datagram(token).is_some_and(DatagramSocket::has_news)
            && self.tell_news(token)
        {
            return;
        }
        self.receive(token, scratch);
        self.net.core.flush_datagrams(token);
    }

    /// Makes `on_open` the first callback, also where a timer or a notification comes before the first
    /// event of a new socket. Returns whether more callbacks may follow.
    pub(super) fn open_datagram(&mut self, token: Token) -> bool {
        let Some(socket) = self.net.core.datagram_mut(token) else { return false };
        if !socket.dead && !std::mem::replace(&mut socket.opened, true) {
            self.call_datagram(token, Callback::Open, |handler, cx| handler.on_open(cx));
        }
        self.net.core.datagram(token).is_some_and(|socket| !socket.dead)
    }

    /// Tells the handler of errors and of the drain. `true` if the deadline of the turn comes before the
    /// input: that is the next thing then, or an endless sequence of errors would starve it.
    #[cold]
    fn tell_news(&mut self, token: Token) -> bool {
        let Some(socket) = self.net.core.datagram_mut(token) else { return false };
        if std::mem::take(&mut socket.input_first) {
            self.net.core.make_ready_later(token);
            return false;
        }
        while let Some(socket) = self.net.core.datagram_mut(token) {
            if socket.dead {
                return false;
            }
            let error = socket.errors.pop_front();
            let last = error.is_none();
            match error {
                Some(error) => self.report_error(token, error),
                None if std::mem::take(&mut socket.drained) => {
                    self.call_datagram(token, Callback::Drain, |handler, cx| handler.on_drain(cx));
                    self.tell_refused_sessions(token);
                }
                None => return false,
            }
            if self.net.core.work.is_late() {
                if let Some(socket) = self.net.core.datagram_mut(token) {
                    socket.input_first = true;
                }
                self.net.core.make_ready_later(token);
                return true;
            }
            if last {
                return false; // what it has queued may have drained again
            }
        }
        false
    }

    #[cold]
    fn report_error(&mut self, token: Token, error: DatagramError) {
        if self.net.core.session_socket(token).is_some() {
            return self.report_to_session(token, error);
        }
        self.call_datagram(token, Callback::Error, |handler, cx| handler.on_error(cx, error));
    }

    /// Receives until nothing is left or the budget is used up; then the socket goes on the ready list.
    fn receive(&mut self, token: Token, scratch: &mut Scratch) {
        let inbox = &mut scratch.inbox;
        let most = self.net.core.config.datagrams_per_turn;
        let mut budget = most;
        let mut errors = 0;
        if self.net.core.datagram(token).is_some_and(|socket| !socket.put_off.is_empty()) {
            self.offer_put_off(token);
            budget -= 1;
        }
        loop {
            let used_up = budget == 0 || budget < most && self.net.core.work.is_late();
            let Some(socket) = self.net.core.datagram_mut(token) else { return };
            if socket.dead || socket.paused || !socket.readable && socket.put_off.is_empty() {
                return;
            }
            if used_up {
                self.net.core.work.counts.datagrams_exhausted += 1;
                return self.net.core.make_ready_later(token);
            }
            match socket.socket.receive(inbox, budget) {
                Ok(drained) => {
                    socket.readable = !drained;
                    errors = 0;
                    budget = budget.saturating_sub(inbox.len());
                    self.net.core.work.counts.datagrams_received += inbox.len() as u64;
                    if self.net.core.work.keeps_deadline() {
                        self.offer_until_late(token, inbox);
                    } else {
                        self.offer_datagrams(token, inbox);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => socket.readable = false,
                Err(error) => {
                    // The call that returns a pending error clears it; datagrams follow behind it.
                    // Peers cause ICMP errors, so these do not count. Other errors that repeat are
                    // the socket's own: it is not read again before the next edge.
                    errors += usize::from(!sys::is_icmp_error(&error));
                    if errors > ERRORS_IN_A_ROW {
                        socket.readable = false;
                        return log::debug!("{token}: receiving fails every time: {error}");
                    }
                    budget -= 1;
                    self.report_error(token, DatagramError::System { error, to: None });
                }
            }
        }
    }

    /// Calls the handler with each datagram of the batch, until the socket is closed.
    fn offer_datagrams(&mut self, token: Token, inbox: &Inbox) {
        for index in 0..inbox.len() {
            let Some(datagram) = inbox.get(index) else { return };
            if !self.offer_datagram(token, datagram) {
                return;
            }
        }
    }

    /// Calls the handler with one datagram. `false` if the socket is closed. A socket whose peers have
    /// sessions shows by having another kind of handler, so that others do not pay for it.
    #[inline]
    fn offer_datagram(&mut self, token: Token, arrived: Arrived<'_>) -> bool {
        let Arrived { bytes, from, truncated, info } = arrived;
        let datagram = Datagram { bytes, from, truncated, info };
        // Where peers have sessions nothing is called here; `offer_to_session` times what is.
        let timed = self.net.core.work.timed && self.net.core.session_socket(token).is_none();
        if timed {
            self.net.core.work.callback_begins(Callback::Datagram);
        }
        let called = self.call_guarded(token, |any, cx| match any {
            AnyHandler::Datagram(handler) => Some(handler.on_datagram(cx, datagram)),
            _ => None,
        });
        if timed {
            self.handler_returned(token, Callback::Datagram);
        }
        // An error about one peer's datagram must not close the socket that all peers use.
        match called {
            None | Some(Ok(Some(Ok(())))) => {}
            Some(Ok(None)) => self.offer_to_session(token, datagram),
            Some(Ok(Some(Err(error)))) => {
                self.datagram_failed(token, DatagramError::Handler { error, from });
            }
            Some(Err(text)) => self.datagram_failed(token, DatagramError::Panicked { text, from }),
        }
        self.net.core.datagram(token).is_some_and(|socket| !socket.dead)
    }

    /// The same for a batch in a turn with a deadline. What the handler has not got by then is kept for
    /// the next turn, by copy: the buffers are those of all sockets.
    #[cold]
    fn offer_until_late(&mut self, token: Token, inbox: &Inbox) {
        for index in 0..inbox.len() {
            let Some(datagram) = inbox.get(index) else { return };
            if !self.offer_datagram(token, datagram) {
                return;
            }
            if self.net.core.work.is_late()
                && let Some(socket) = self.net.core.datagram_mut(token)
            {
                let rest = (index + 1..inbox.len()).filter_map(|index| inbox.get(index));
                return socket.put_off.extend(rest.map(PutOff::from));
            }
        }
    }

    /// Offers what a turn with a deadline has kept.
    #[cold]
    fn offer_put_off(&mut self, token: Token) {
        while let Some(socket) = self.net.core.datagram_mut(token) {
            if socket.dead || socket.paused {
                return;
            }
            let Some(PutOff { bytes, from, truncated, info }) = socket.put_off.pop_front() else {
                return;
            };
            let arrived = Arrived { bytes: &bytes, from, truncated, info: info.as_ref() };
            if !self.offer_datagram(token, arrived) || self.net.core.work.is_late() {
                return;
            }
        }
    }

    /// `on_datagram` failed. Peers can cause that, so a warning is logged at most once an interval;
    /// `on_error` is called for each.
    #[cold]
    fn datagram_failed(&mut self, token: Token, error: DatagramError) {
        let (now, again) =
            (self.net.core.work.tick, self.net.core.work.tick_after_this_moment(WARN_EVERY));
        let Some(socket) = self.net.core.datagram_mut(token) else { return drop_guarded(error) };
        if socket.dead {
            return drop_guarded(error);
        }
        let bug = matches!(error, DatagramError::Panicked { .. });
        let mut level = log::Level::Debug;
        if now >= socket.silent_until {
            socket.silent_until = again;
            level = if bug { log::Level::Error } else { log::Level::Warn };
        }
        log_guarded(|| log::log!(level, "{token}: {error}"));
        self.call_datagram(token, Callback::Error, |handler, cx| handler.on_error(cx, error));
    }
}
