//! Which step serves which token: posts, events, the ready list, notifications, the dirty list.

use super::call::Dispatch;
use super::scratch::Scratch;
use crate::connection::{Conn, Next};
use crate::core::Entity;
use crate::guard::drop_guarded;
use crate::net::AnyHandler;
use crate::notification::Notification;
use crate::remote::Post;
use crate::source::Readiness;
use crate::stats::Callback;
use crate::sys::Ready;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    pub(super) fn message(&mut self, message: Post<S>) {
        match message {
            Post::Call(call) => self.run_call(Callback::Post, call),
            Post::Notification(token, value) => {
                self.net.core.notifications.push_back((token, Notification::from_box(value)));
            }
            Post::Send(token, kind, bytes) => {
                self.net.core.send(token, &bytes, kind);
            }
            Post::SendTo(datagram) => {
                let (token, to, bytes) = *datagram;
                self.net.core.send_datagram(token, Some(to), &bytes);
            }
            Post::SendShared(token, bytes) => {
                self.net.core.send_shared(token, &bytes);
            }
            Post::Run(_) => unreachable!("`messages.rs` cuts runs to the budget itself"),
            Post::Result(index, result) => {
                if let Some(done) = self.net.offloads.try_remove(index) {
                    self.run_call(Callback::Done, |state, net| done(result, state, net));
                }
            }
            Post::HalfClose(token) => self.net.half_close(token),
            Post::Close(token) => self.net.core.close(token, None),
            Post::Abort(token) => self.net.core.abort(token),
            Post::Stop => self.net.stop(),
            Post::Shutdown(grace) => self.net.shutdown(grace),
        }
    }

    /// A readiness event. One of a stale token is dropped. A socket on the ready list is served from
    /// there, not twice in one turn.
    pub(super) fn event(&mut self, ready: Ready, scratch: &mut Scratch) {
        let Some(token) = Token::from_usize(ready.token) else { return };
        let Some((entity, work)) = self.net.core.of_event(token) else {
            self.net.core.work.counts.stale_events += 1;
            return log::trace!("an event for {token}, which is gone");
        };
        // Before the others: a jump through a table of all kinds costs ten instructions more.
        if let Entity::Stream(stream) = entity {
            stream.note(ready);
            if stream.is_in_ready() {
                return;
            }
            let mut conn = Conn { token, stream, work };
            if conn.work.is_used_up() {
                return conn.make_ready_later();
            }
            if conn.work.in_line {
                return conn.make_ready();
            }
            let buffer = &mut scratch.read[..];
            match conn.read_plain(buffer) {
                Some(Next::Read { len, more }) => {
                    self.net.core.begin_reply(token);
                    if !self.offer_plain(token, &buffer[..len], more) {
                        self.go_on_from_plain(token, len, scratch);
                    }
                }
                // Not plain, or the end, or an error: the general case goes on.
                plain => match plain.map_or_else(|| conn.read_calm(&mut scratch.read), |_| None) {
                    Some(len) => self.offer_calm(token, len, scratch),
                    None => self.serve_stream(token, scratch),
                },
            }
            return;
        }
        match entity {
            Entity::Listener(listener) => {
                if !listener.in_ready {
                    self.accept(token);
                }
            }
            Entity::Datagram(socket) => {
                socket.note(ready);
                let served_later = socket.in_ready;
                self.look_at_datagram_error(token, ready);
                if !served_later {
                    self.serve_datagrams(token, scratch);
                }
            }
            _ => self.rare_event(token, ready, scratch),
        }
    }

    /// An event of a kind that pays for one more look-up, so that the others are told apart at once.
    #[cold]
    #[inline(never)]
    fn rare_event(&mut self, token: Token, ready: Ready, scratch: &mut Scratch) {
        match self.net.core.entity_mut(token) {
            Some(Entity::SessionSocket(owner)) => {
                owner.socket.note(ready);
                let served_later = owner.socket.in_ready;
                self.look_at_datagram_error(token, ready);
                if !served_later {
                    self.serve_datagrams(token, scratch);
                }
            }
            Some(Entity::Source(_)) => self.fire_source(token, ready),
            _ => {} // a session has no socket of its own
        }
    }

    fn fire_source(&mut self, token: Token, ready: Ready) {
        match self.net.core.entity(token) {
            Some(Entity::Source(source)) if !source.dead => {}
            _ => return,
        }
        let ready = Readiness {
            readable: ready.has(Ready::READABLE),
            writable: ready.has(Ready::WRITABLE),
            closed: ready.has(Ready::READ_CLOSED | Ready::ERROR),
        };
        self.call_any(token, Callback::Ready, |any, cx| match any {
            AnyHandler::Source(source) => source.fire(cx, ready),
            _ => Ok(()),
        });
    }

    /// An event of a turn whose time is up: the socket is served from the ready list, since the edge
    /// is not reported again.
    #[cold]
    pub(super) fn put_off_event(&mut self, ready: Ready) {
        let Some(token) = Token::from_usize(ready.token) else { return };
        match self.net.core.entity_mut(token) {
            Some(Entity::Stream(stream)) => stream.note(ready),
            Some(Entity::Datagram(socket)) => {
                socket.note(ready);
                self.look_at_datagram_error(token, ready);
            }
            Some(Entity::SessionSocket(owner)) => {
                owner.socket.note(ready);
                self.look_at_datagram_error(token, ready);
            }
            Some(Entity::Source(source)) => source.put_off |= ready.bits,
            Some(Entity::Listener(_)) => {}
            Some(Entity::Session(_)) | None => return,
        }
        self.net.core.make_ready_later(token);
    }

    /// Serves the ready list, then delivers notifications. As many as were there: what is added meanwhile
    /// waits for the next turn, or a trunk takes the place of another.
    pub(super) fn leftovers(&mut self, scratch: &mut Scratch) {
        for _ in 0..self.net.core.work.line.len() {
            if self.net.core.work.is_used_up() {
                break; // the rest keeps its place, and the next turn begins at once
            }
            self.serve_next(scratch);
        }
        for _ in 0..self.net.core.notifications.len().min(self.net.core.config.posts_per_turn) {
            self.notify_next();
        }
    }

    /// Serves the socket that is next on the ready list.
    pub(super) fn serve_next(&mut self, scratch: &mut Scratch) {
        let Some(served) = self.net.core.next_ready() else { return };
        let token = served.token;
        match self.net.core.entity_mut(token) {
            Some(Entity::Stream(stream)) => {
                if stream.take_up_from_list() {
                    if served.first {
                        self.serve_trunk(token, scratch);
                    } else {
                        self.serve_stream(token, scratch);
                    }
                    self.end_batch(token);
                } else {
                    self.net.core.make_ready_later(token);
                }
            }
            Some(Entity::Listener(_)) => self.accept(token),
            Some(Entity::Datagram(_) | Entity::SessionSocket(_)) => {
                self.serve_datagrams(token, scratch);
            }
            Some(Entity::Source(source)) => {
                let bits = std::mem::take(&mut source.put_off);
                self.fire_source(token, Ready { token: token.to_usize(), bits });
            }
            Some(Entity::Session(_)) | None => {}
        }
    }

    /// Delivers the next notification.
    pub(super) fn notify_next(&mut self) {
        if let Some((token, notification)) = self.net.core.notifications.pop_front() {
            self.notify(token, notification);
        }
    }

    fn notify(&mut self, token: Token, notification: Notification) {
        match self.net.core.entity(token) {
            Some(Entity::Stream(stream)) if stream.has_callbacks() => {
                self.net.core.work.counts.notifications += 1;
                self.call(token, Callback::Notify, |handler, cx| {
                    handler.on_notify(cx, notification)
                });
                self.net.core.flush(token);
            }
            // Delivered once the connection is open.
            Some(Entity::Stream(stream)) if stream.is_opening() => {
                self.net.core.park_notification(token, notification);
            }
            Some(Entity::Datagram(_)) => {
                if !self.open_datagram(token) {
                    return drop_guarded(notification);
                }
                self.net.core.work.counts.notifications += 1;
                self.call_datagram(token, Callback::Notify, |handler, cx| {
                    handler.on_notify(cx, notification)
                });
                self.net.core.flush_datagrams(token);
            }
            Some(Entity::Session(session)) if !session.dead => {
                self.net.core.work.counts.notifications += 1;
                self.call_datagram(token, Callback::Notify, |handler, cx| {
                    handler.on_notify(cx, notification)
                });
            }
            _ => drop_guarded(notification),
        }
    }

    /// The end of the turn: flushes groups, then the dirty list.
    #[inline]
    pub(super) fn flush(&mut self) {
        if !self.net.core.groups.is_at_rest() {
            self.net.core.flush_groups_of_turn::<false>();
        }
        if !self.net.core.work.dirty.is_empty() {
            self.flush_listed();
        }
    }

    /// Flushes the dirty list.
    #[inline(never)] // most turns of an echo have none
    fn flush_listed(&mut self) {
        let mut dirty = std::mem::take(&mut self.net.core.work.dirty);
        for token in dirty.drain(..) {
            self.flush_one(token);
        }
        // A flush may end a connection and so queue for others: those are flushed in the next turn.
        dirty.append(&mut self.net.core.work.dirty);
        self.net.core.work.dirty = dirty;
    }

    /// Writes what one connection or UDP socket has queued.
    #[inline]
    pub(super) fn flush_one(&mut self, token: Token) {
        if self.net.core.with(token, |conn| conn.flush_dirty()).is_none() {
            self.net.core.flush_datagrams(token);
        }
    }
}
