//! Endings by token: of connections (by `connection/close.rs`) and of everything else; and the
//! release of a token.

use super::{Core, Entity};
use crate::connection::{ClosingSocket, OwnEnd, Stream};
use crate::error::CloseReason;
use crate::guard::{drop_each, drop_guarded};
use crate::sys;
use crate::token::Token;

impl Core {
    /// Closes a connection gracefully; anything else at once. `reason` is `None` for an ordinary
    /// close.
    pub(crate) fn close(&mut self, token: Token, reason: Option<CloseReason>) {
        if self.stream(token).is_some() {
            self.with_settled(token, |conn| conn.close(reason));
        } else {
            self.finish_other(token, reason.unwrap_or(CloseReason::Closed));
        }
    }

    /// The same with an end of the caller's choice, in formats that have codes for it.
    pub(crate) fn close_with(&mut self, token: Token, end: OwnEnd) {
        if self.with_settled(token, |conn| conn.close_with(end)).is_none() {
            self.finish_other(token, CloseReason::Closed);
        }
    }

    /// Closes a connection as soon as no hold and no `on_drain` is pending; anything else at once.
    pub(crate) fn close_when_done(&mut self, token: Token) {
        if self.with_settled(token, |conn| conn.close_when_done()).is_none() {
            self.finish_other(token, CloseReason::Closed);
        }
    }

    /// Closes a connection that waits for its holds and its `on_drain`, if none is pending any more.
    /// Called wherever that can have become true.
    pub(crate) fn close_if_done(&mut self, token: Token) {
        if self.stream(token).is_some_and(Stream::is_done) {
            self.close(token, None);
        }
    }

    /// Holds a connection open for a later reply. `false` if there is no such connection.
    pub(crate) fn hold_open(&mut self, token: Token) -> bool {
        let live = self.stream(token).is_some_and(Stream::is_live);
        if live {
            self.with(token, |conn| conn.hold_open());
        }
        live
    }

    /// Releases a hold. `false` if there was none.
    pub(crate) fn release_hold(&mut self, token: Token) -> bool {
        let released = self.with(token, |conn| conn.release_hold()) == Some(true);
        self.close_if_done(token);
        released
    }

    /// Ends at once with a reset; unsent output is destroyed.
    pub(crate) fn abort(&mut self, token: Token) {
        if self.with(token, |conn| conn.abort()).is_none() {
            self.finish_other(token, CloseReason::Aborted);
        }
    }

    /// Ends at once; reaped in this turn. The first reason is kept.
    pub(crate) fn finish(&mut self, token: Token, reason: CloseReason) {
        if self.stream(token).is_some() {
            self.with_settled(token, |conn| conn.finish(reason));
        } else {
            self.finish_other(token, reason);
        }
    }

    /// Ends, because the reactor is being dropped.
    pub(crate) fn finish_with_reactor(&mut self, token: Token) {
        let reason = CloseReason::ReactorDropped;
        if self.stream(token).is_some() {
            self.with_settled(token, |conn| conn.finish_with_reactor(reason));
        } else {
            self.finish_other(token, reason);
        }
    }

    /// Listeners, datagram sockets and custom sources have nothing to flush.
    fn finish_other(&mut self, token: Token, reason: CloseReason) {
        let dead = match self.entity_mut(token) {
            Some(Entity::Listener(listener)) => &mut listener.dead,
            Some(Entity::Datagram(socket)) => &mut socket.dead,
            Some(Entity::Source(source)) => &mut source.dead,
            Some(Entity::Session(_)) => return self.finish_session(token, reason),
            Some(Entity::SessionSocket(owner)) => {
                // What was published to its sessions leaves before it closes; their `on_close` is called
                // before its place is free.
                if !owner.socket.dead {
                    let dropped = matches!(reason, CloseReason::ReactorDropped);
                    self.finish_sessions(token, || match dropped {
                        true => CloseReason::ReactorDropped,
                        false => CloseReason::SocketClosed,
                    });
                }
                let Some(owner) = self.session_socket_mut(token) else { return };
                &mut owner.socket.dead
            }
            Some(Entity::Stream(_)) | None => return,
        };
        if std::mem::replace(dead, true) {
            return drop_guarded(reason);
        }
        let reason = match self.entity_mut(token) {
            Some(Entity::Datagram(_) | Entity::SessionSocket(_)) => {
                self.close_datagram(token, reason)
            }
            _ => reason,
        };
        let kept = self.keeps_ports;
        if let Core { sys, table, .. } = self
            && let Some(Entity::Listener(listener)) = table.entity_mut(token)
        {
            listener.close(sys, kept);
        }
        self.work.dead.push((token, reason));
    }

    /// Closes the socket of a connection with a fixed local port before `on_close`, so that a handler
    /// can connect from that port again.
    pub(crate) fn free_local_port(&mut self, token: Token) {
        let Core { sys, table, .. } = self;
        if let Some(stream) = table.stream_mut(token)
            && stream.options().fixed_port
        {
            close_socket(sys, stream.take_socket());
        }
    }

    /// Takes a socket out of the poll and frees its token; the descriptor is closed here.
    pub(crate) fn release(&mut self, token: Token) {
        let Some(entity) = self.remove(token) else { return };
        match entity {
            Entity::Stream(stream) => {
                let parts = stream.into_parts();
                close_socket(&mut self.sys, parts.socket);
                if let Some(output) = parts.output {
                    self.work.pool.keep_output(output);
                }
                if let Some(tail) = parts.input {
                    self.work.pool.keep_tail(tail);
                }
                // The layer and the reason may hold user values, whose drops may panic.
                if let Some(extra) = parts.extra {
                    let (notifications, reason, wire) = extra.into_user_parts();
                    self.parked -= notifications.len();
                    drop_each(notifications);
                    drop_guarded(reason);
                    drop_guarded(wire);
                }
            }
            Entity::Listener(mut l) => l.close(&mut self.sys, false),
            Entity::Datagram(mut d) => self.sys.deregister(&mut d.socket, false),
            Entity::SessionSocket(mut s) => self.sys.deregister(&mut s.socket.socket, false),
            Entity::Session(session) => return self.forget_session(&session),
            // The source itself is with its callback, which has deregistered it already.
            Entity::Source(_) => {}
        }
        // A descriptor is free: listeners that waited for one try again.
        for listener in std::mem::take(&mut self.waiting_for_descriptor) {
            self.make_ready(listener);
        }
    }
}

/// Takes a socket out of the poll and closes it.
fn close_socket(sys: &mut sys::Poller, closing: ClosingSocket) {
    let ClosingSocket { mut socket, adopted, lingers } = closing;
    if lingers {
        socket.close_without_waiting();
    }
    sys.deregister(&mut socket, !adopted);
}
