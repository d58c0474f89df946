//! Sockets and the poll; layers that come late; the end of all.

use std::io;
use std::time::Duration;

use super::{Core, Entity, Stopping};
use crate::address::Address;
use crate::connection::{OwnSide, Phase, ReadSide, Stream, Wire, WriteSide};
use crate::error::CloseReason;
use crate::guard::{drop_each, drop_guarded};
use crate::layer::{Layer, LayerError, Then};
use crate::sys;
use crate::token::Token;

impl Core {
    pub(crate) fn register_stream(&mut self, token: Token) -> io::Result<()> {
        let Core { sys, table, .. } = self;
        match table.entity_mut(token) {
            Some(Entity::Stream(s)) => sys.register(&mut s.socket, token.to_usize()),
            _ => Ok(()),
        }
    }

    pub(crate) fn register_listener(&mut self, token: Token) -> io::Result<()> {
        let Core { sys, table, .. } = self;
        match table.entity_mut(token) {
            Some(Entity::Listener(l)) => l
                .sockets
                .iter_mut()
                .try_for_each(|one| sys.register(&mut one.socket, token.to_usize())),
            _ => Ok(()),
        }
    }

    pub(crate) fn register_datagram(&mut self, token: Token) -> io::Result<()> {
        let Core { sys, table, .. } = self;
        match table.entity_mut(token) {
            Some(Entity::Datagram(d)) => sys.register(&mut d.socket, token.to_usize()),
            _ => Ok(()),
        }
    }

    /// A UDP socket reported an error; it has to stay in the poll.
    pub(crate) fn survive_datagram_error(&mut self, token: Token) -> io::Result<()> {
        let Core { sys, table, .. } = self;
        match table.entity_mut(token) {
            Some(Entity::Datagram(d)) => sys.survive_error(&mut d.socket, token.to_usize()),
            _ => Ok(()),
        }
    }

    /// Where an accepted connection comes from.
    pub(crate) fn whence(&self, token: Token) -> Option<Address> {
        let stream = self.stream(token)?;
        let noted = stream.extra.as_ref().and_then(|extra| extra.peer.clone());
        noted.or_else(|| stream.socket.peer_addr().ok())
    }

    /// Closes the socket of a connection that was given a local port, before `on_close`: a handler
    /// that connects again from there finds it free.
    pub(crate) fn free_local_port(&mut self, token: Token) {
        let Core { sys, table, .. } = self;
        if let Some(stream) = table.stream_mut(token)
            && stream.options().fixed_port
        {
            close_socket(sys, stream);
        }
    }

    /// Takes a socket out of the poll and frees its token; the descriptor is closed here.
    pub(crate) fn release(&mut self, token: Token) {
        let Some(entity) = self.remove(token) else { return };
        match entity {
            Entity::Stream(mut s) => {
                close_socket(&mut self.sys, &mut s);
                if let Some(output) = s.output.take() {
                    self.spares.keep_output(output);
                }
                if let Some(tail) = s.input.take() {
                    self.recycle_tail(tail);
                }
                // Its layer may be the user's, its reason hold an error of the user's.
                if let Some(mut extra) = s.extra.take() {
                    for mut attempt in extra.route.take().into_iter().flat_map(|r| r.attempts) {
                        self.sys.deregister(&mut attempt.socket, true);
                    }
                    self.parked -= extra.signals.len();
                    drop_each(std::mem::take(&mut extra.signals));
                    drop_guarded(extra.reason.take());
                    drop_guarded(extra.wire.take());
                }
            }
            Entity::Listener(mut l) => l.close(&mut self.sys),
            Entity::Datagram(mut d) => self.sys.deregister(&mut d.socket, false),
            // The source lives with its callback, which has taken it out already.
            Entity::Source(_) => {}
        }
        // A descriptor is free: whoever waited for one tries again.
        for listener in std::mem::take(&mut self.starved) {
            self.make_ready(listener);
        }
    }

    /// Signals that came before the connection was open have somebody to get them now.
    pub(crate) fn release_signals(&mut self, token: Token) {
        let Some(extra) = self.stream_mut(token).and_then(|s| s.extra.as_mut()) else { return };
        let early = std::mem::take(&mut extra.signals);
        self.parked -= early.len();
        // Before those that were posted later.
        for signal in early.into_iter().rev() {
            self.signals.push_front((token, signal));
        }
    }

    /// What was sent before the layers were ready is encoded now.
    pub(crate) fn encode_waiting(&mut self, token: Token) {
        let Some(wire) = self.stream_mut(token).and_then(|s| s.wire_mut()) else { return };
        let waiting = std::mem::take(&mut wire.waiting);
        for (kind, bytes) in waiting.iter() {
            let Err(e) = self.encode(token, |layer, buffer| layer.encode(bytes, kind, buffer))
            else {
                continue;
            };
            // A relay has no holes: what it cannot pass on ends it.
            if self.relayed_to(token).is_some() {
                return self.fail(token, CloseReason::Layer(e));
            }
            self.encode_failed(token, e);
        }
        self.queued_more(token);
    }

    /// Puts a layer beneath those a connection has.
    pub(crate) fn start_layer(&mut self, token: Token, layer: Box<dyn Layer>) -> bool {
        if self.groups.has_pending() {
            self.settle_groups_before_direct(token);
        }
        let Some(stream) = self.stream_mut(token) else { return false };
        let ended = stream.write != WriteSide::Open || stream.read != ReadSide::Open;
        if stream.phase != Phase::Open || ended {
            return false;
        }
        // What came in clear is never read as if it had come through the layer (CVE-2011-0411). The
        // running layer may hold some, or have looked at it.
        let in_clear = stream.wire().is_some_and(|wire| {
            wire.layer.holds_input() || !wire.undecoded.is_empty() || stream.unread() > 0
        });
        if in_clear {
            let what =
                "expected nothing behind the switch to this layer, got bytes in the old format";
            self.close_for_layer(token, LayerError::malformed(layer.name(), what));
            drop_guarded(layer);
            return false;
        }
        let after = stream.options().handshake_timeout;
        let deadline = self.tick_after_this_moment(after);
        let Some(stream) = self.stream_mut(token) else { return false };
        let unread = stream.input.take();
        let extra = stream.extra_mut();
        let mut wire = match extra.wire.take() {
            Some(Wire { layer: running, waiting, .. }) => {
                Wire { waiting, ..Wire::new(Box::new(Then::beneath(layer, running))) }
            }
            None => Wire::new(layer),
        };
        // What a handler without a layer did not take has to pass the new one.
        if let Some(tail) = &unread {
            wire.undecoded.push(tail.unread());
        }
        wire.pull = true;
        wire.deadline = Some(deadline);
        extra.wire = Some(wire);
        if let Some(tail) = unread {
            self.recycle_tail(tail);
        }
        if let Err(e) = self.encode(token, |layer, buffer| layer.start(buffer)) {
            self.fail(token, CloseReason::Layer(e));
            return false;
        }
        match self.stream_mut(token).and_then(|s| s.wire_mut()).map(Wire::look_whether_ready) {
            Some(Ok(true)) => self.encode_waiting(token),
            Some(Ok(false)) | None => {}
            Some(Err(e)) => {
                self.fail(token, CloseReason::Layer(e));
                return false;
            }
        }
        self.queued_more(token);
        self.watch(token);
        self.make_ready(token);
        true
    }

    /// Bytes a handler left of a plain stream and then put a layer on it: they belong to the layer.
    pub(crate) fn unread_to_new_layer(&mut self, token: Token) {
        let Some(stream) = self.stream_mut(token) else { return };
        if stream.wire().is_none() {
            return;
        }
        let Some(tail) = stream.input.take() else { return };
        if let Some(wire) = stream.wire_mut() {
            wire.undecoded.push(tail.unread());
        }
        self.recycle_tail(tail);
    }

    /// A layer gave up. What it had to say about that leaves before the connection ends, and input
    /// is discarded as in every graceful close, so that no reset destroys it.
    pub(crate) fn close_for_layer(&mut self, token: Token, error: LayerError) {
        let Some(stream) = self.stream_mut(token) else { return };
        if let Some(wire) = stream.wire_mut() {
            wire.own = OwnSide::Ended;
        }
        self.close_unopened(token, Some(CloseReason::Layer(error)));
    }

    /// Closes gracefully also what is still in its handshake: what a layer had to say about it is
    /// flushed. A client that has nothing more to say to what turned out to be no server for it does
    /// not wait for that one's end.
    pub(crate) fn close_unopened(&mut self, token: Token, reason: Option<CloseReason>) {
        let Some(stream) = self.stream_mut(token) else { return };
        if stream.phase == Phase::Handshaking {
            let silent = stream.output.as_ref().is_none_or(|output| output.is_empty());
            if silent && stream.settings.listener.is_none() {
                return self.fail(token, reason.unwrap_or(CloseReason::Finished));
            }
            stream.phase = Phase::Open;
        }
        self.close(token, reason);
    }

    /// Closes the listeners, once the peers that the system has accepted already are served: closing
    /// at once would reset them. The connections run to their ends, or to the deadline.
    pub(crate) fn start_shutdown(&mut self, grace: Duration) {
        // A stop that was asked for in the same turn is not taken back.
        let stops = self.stopping == Stopping::Now;
        if !stops {
            self.stopping = Stopping::Draining(self.tick_after_this_moment(grace));
        }
        for token in self.tokens() {
            let Some(listener) = self.listener_mut(token) else { continue };
            if stops || listener.dead {
                self.close(token, None);
            } else if listener.draining.is_none() {
                listener.draining = Some(DRAINED_AT_MOST);
                self.draining.push(token);
                self.make_ready(token);
            }
        }
    }

    /// Whether a listener has not yet served all who were accepted before the shutdown.
    pub(crate) fn drains_listeners(&mut self) -> bool {
        let tokens = std::mem::take(&mut self.draining);
        self.draining = tokens.into_iter().filter(|&t| self.is_listening(t)).collect();
        !self.draining.is_empty()
    }

    fn is_listening(&mut self, token: Token) -> bool {
        self.listener_mut(token).is_some_and(|listener| !listener.dead)
    }

    /// Closes the listeners that a shutdown has left open, whoever waits there.
    pub(crate) fn close_draining(&mut self) {
        for token in std::mem::take(&mut self.draining) {
            self.close(token, None);
        }
    }
}

/// How many peers a listener serves at most once a shutdown has begun: those that connect meanwhile
/// must not keep it open. It is what the backlog holds at most by default on Linux
/// (`net.core.somaxconn`).
const DRAINED_AT_MOST: usize = 4096;

fn close_socket(sys: &mut sys::Poller, stream: &mut Stream) {
    let own = !stream.adopted;
    if stream.adopted || stream.options().socket.lingers() {
        stream.socket.close_without_waiting();
    }
    sys.deregister(&mut stream.socket, own);
    stream.socket = sys::Stream::None;
}
