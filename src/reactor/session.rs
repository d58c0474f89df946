//! A UDP socket with sessions: who gets its datagrams, its errors, its drains; who is admitted.

use std::net::SocketAddr;

use super::call::Dispatch;
use super::datagram::WARN_EVERY;
use crate::core::Sender;
use crate::error::DatagramError;
use crate::guard::{drop_guarded, guarded, log_guarded};
use crate::handler::{Datagram, DatagramHandler};
use crate::net::AnyHandler;
use crate::session::{Admission, Hello, Verdict};
use crate::stats::Callback;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// The queue is empty again: tells the sessions that wait for that.
    #[cold]
    pub(super) fn tell_refused_sessions(&mut self, token: Token) {
        let mut sessions = self.net.core.take_refused(token);
        while let Some(session) = sessions.pop() {
            // One may end another.
            if self.net.is_open(session) {
                self.call_datagram(session, Callback::Drain, |handler, cx| handler.on_drain(cx));
            }
            if !sessions.is_empty() && self.net.core.work.is_late() {
                return self.net.core.tell_later(token, sessions);
            }
        }
    }

    /// An error goes to the session of the peer that it is about, if there is one.
    #[cold]
    pub(super) fn report_to_session(&mut self, token: Token, error: DatagramError) {
        if let Some(owner) = self.net.core.session_socket_mut(token) {
            owner.stats.errors += 1;
        }
        let session = error.peer().and_then(|peer| self.net.core.session_of(token, peer));
        match session.filter(|&session| self.net.is_open(session)) {
            Some(session) => {
                self.call_datagram(session, Callback::Error, |handler, cx| {
                    handler.on_error(cx, error)
                });
            }
            None => log::debug!("{token}: {error}"),
        }
    }

    /// Gives a datagram to its sender's session.
    #[cold]
    pub(super) fn offer_to_session(&mut self, token: Token, datagram: Datagram<'_>) {
        match self.net.core.heard(token, datagram.from, datagram.bytes.len()) {
            Sender::Session(session) => {
                self.call_datagram(session, Callback::Datagram, |handler, cx| {
                    handler.on_datagram(cx, datagram)
                });
            }
            Sender::Ending => {}
            Sender::Unknown => self.meet(token, datagram),
        }
    }

    /// Asks what is to be done with a datagram of an unknown peer, and does it.
    fn meet(&mut self, token: Token, datagram: Datagram<'_>) {
        let Datagram { bytes, from, truncated, info } = datagram;
        let full = !self.net.core.admits(token, from);
        let hello = Hello { bytes, from, truncated, now: self.net.now(), full, info };
        self.install_pending_handlers();
        let timed = self.net.core.work.timed;
        if timed {
            self.net.core.work.callback_begins(Callback::Admit);
        }
        let Some(Some(AnyHandler::Gate(gate))) = self.handlers.get_mut(token.index()) else {
            return;
        };
        let decided = guarded(|| gate.admit(&hello));
        if timed {
            self.handler_returned(token, Callback::Admit);
        }
        let Some(owner) = self.net.core.session_socket_mut(token) else { return };
        match decided {
            Ok(Admission(Verdict::Accept { handler, skip })) => {
                if full {
                    owner.stats.refused += 1;
                    return drop_guarded(handler);
                }
                self.open_session(token, handler, skip, datagram);
            }
            Ok(Admission(Verdict::Reply(reply))) => {
                if reply.len() > bytes.len().saturating_mul(owner.options.amplification) {
                    owner.stats.overlong += 1;
                    let (reply, came) = (reply.len(), bytes.len());
                    return log::debug!(
                        "{token}: a reply of {reply} bytes to {came} bytes of {from} is longer than \
                         `SessionOptions::amplification` permits"
                    );
                }
                let mark = owner.mark_of(info);
                if self.net.core.send_marked(token, Some(from), mark, &reply).is_accepted()
                    && let Some(owner) = self.net.core.session_socket_mut(token)
                {
                    owner.stats.replied += 1;
                }
            }
            Ok(Admission(Verdict::Ignore)) => owner.stats.ignored += 1,
            Err(text) => {
                owner.stats.ignored += 1;
                self.gate_panicked(token, from, &text);
            }
        }
    }

    fn open_session(
        &mut self,
        socket: Token,
        handler: Box<dyn DatagramHandler<S>>,
        skip: usize,
        datagram: Datagram<'_>,
    ) {
        let Some(session) = self.net.core.open_session(socket, datagram.from) else {
            if let Some(owner) = self.net.core.session_socket_mut(socket) {
                owner.stats.refused += 1;
            }
            return drop_guarded(handler);
        };
        self.net.core.note_local(session, datagram.info);
        self.install(session, AnyHandler::Datagram(handler));
        self.call_datagram(session, Callback::Open, |handler, cx| handler.on_open(cx));
        let left = datagram.bytes.get(skip..).filter(|left| skip == 0 || !left.is_empty());
        if let Some(bytes) = left
            && self.net.is_open(session)
        {
            if let Some(owner) = self.net.core.session_socket_mut(socket) {
                owner.stats.messages_received += 1;
                owner.stats.bytes_received += datagram.bytes.len() as u64;
            }
            let datagram = Datagram { bytes, ..datagram };
            self.call_datagram(session, Callback::Datagram, |handler, cx| {
                handler.on_datagram(cx, datagram)
            });
        }
    }

    /// Peers can cause that, so an error is logged at most once an interval.
    #[cold]
    fn gate_panicked(&mut self, token: Token, from: SocketAddr, text: &str) {
        let work = &self.net.core.work;
        let (now, again) = (work.tick, work.tick_after_this_moment(WARN_EVERY));
        let Some(socket) = self.net.core.datagram_mut(token) else { return };
        let mut level = log::Level::Debug;
        if now >= socket.silent_until {
            socket.silent_until = again;
            level = log::Level::Error;
        }
        log_guarded(|| log::log!(level, "{token}: admitting {from} panicked: {text}"));
    }
}
