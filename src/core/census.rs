//! What the checks of a simulation ask of the core: work that is forgotten, and what is left over.

use std::collections::HashSet;

use super::{Core, DatagramSocket, Entity};
use crate::connection::{Due, Phase};
use crate::sys;

impl Core {
    /// Work that waits though nothing will announce it.
    pub(crate) fn forgotten(&self) -> Option<String> {
        for token in self.table.tokens() {
            match self.table.entity(token) {
                Some(Entity::Stream(stream)) => {
                    if let Some(what) = stream.forgotten() {
                        return Some(format!("the loop sleeps, but {what} on {token}"));
                    }
                    if stream.exceeds_limits(self.config.read_buffer) {
                        let unsent = stream.unsent();
                        return Some(format!(
                            "{unsent} bytes are queued on {token}, above its limit"
                        ));
                    }
                }
                Some(Entity::Datagram(socket)) => {
                    if let Some(what) = forgotten_datagrams(socket) {
                        return Some(format!("the loop sleeps, but {token} {what}"));
                    }
                }
                Some(Entity::SessionSocket(owner)) => {
                    if let Some(what) = forgotten_datagrams(&owner.socket) {
                        return Some(format!("the loop sleeps, but {token} {what}"));
                    }
                    let mut watched = HashSet::new();
                    self.work.timers.each(|due| {
                        if let Due::Watchdog(token) = *due {
                            watched.insert(token);
                        }
                    });
                    if let Some(what) = owner.audit(|token| self.session(token), &watched) {
                        return Some(format!("of {token}: {what}"));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// What is left over where nothing goes on any more. `handlers` is how many there are.
    pub(crate) fn leftovers(&self, handlers: usize) -> Option<String> {
        let tokens = self.table.tokens();
        let mut timers = 0;
        for &token in &tokens {
            if let Some(Entity::Stream(stream)) = self.table.entity(token) {
                if matches!(stream.phase(), Phase::Dead | Phase::Failing) {
                    return Some(format!("{token} has ended and was not reaped"));
                }
                if stream.unsent() > 0 && !stream.is_over_high() && stream.waits_to_flush() {
                    return Some(format!("{token} keeps output that could be written"));
                }
            }
            if let Some(Entity::Listener(listener)) = self.table.entity(token)
                && listener.expects_connections()
            {
                return Some(format!("{token} counts connections that nobody brings"));
            }
        }
        for &token in &tokens {
            if let Some(session) = self.session(token)
                && (session.dead || self.session_of(session.socket, session.peer) != Some(token))
            {
                return Some(format!("{token} is a session that its socket does not know"));
            }
        }
        if handlers > tokens.len() {
            return Some(format!("{handlers} handlers are kept for {} sockets", tokens.len()));
        }
        self.work.timers.each(|due| {
            if let Due::Handler(token, _) | Due::Watchdog(token) | Due::Accept(token) = *due
                && self.table.entity(token).is_none()
            {
                timers += 1;
            }
        });
        let gone = self.groups.members_without(|token| self.table.entity(token).is_none());
        if gone > 0 {
            return Some(format!("{gone} members of groups are kept whose connections are gone"));
        }
        (timers > 0).then(|| format!("{timers} timers are kept whose sockets are gone"))
    }

    /// How many closures wait for their time.
    pub(crate) fn own_calls(&self) -> usize {
        let mut calls = 0;
        self.work.timers.each(|due| calls += usize::from(matches!(due, Due::Call(_))));
        calls
    }

    /// How many sockets there are.
    pub(crate) fn socket_count(&self) -> usize {
        let each = self.table.tokens().into_iter().filter_map(|token| self.table.entity(token));
        each.map(|entity| match entity {
            Entity::Stream(stream) => stream.socket_count(),
            Entity::Listener(listener) => listener.sockets.len(),
            Entity::Datagram(socket) => usize::from(socket.socket.simulated_index().is_some()),
            Entity::SessionSocket(owner) => {
                usize::from(owner.socket.socket.simulated_index().is_some())
            }
            Entity::Session(_) | Entity::Source(_) => 0,
        })
        .sum()
    }

    /// Whether the timer with this number waits for its time alone; `false` if it is parked until its
    /// connection is open, `None` if there is none.
    pub(crate) fn is_live_timer(&self, number: u64) -> Option<bool> {
        match self.work.timers.with_number(number) {
            Some(Due::Handler(token, _)) => {
                Some(self.stream(*token).is_none_or(|stream| !stream.is_opening()))
            }
            Some(Due::Call(_)) => Some(true),
            // Deadlines are moved when they are met, not when they change.
            Some(Due::Watchdog(_) | Due::Accept(_)) | None => None,
        }
    }
}

/// Work of a UDP socket that nothing will announce.
fn forgotten_datagrams(socket: &DatagramSocket) -> Option<&'static str> {
    if socket.dead || socket.in_ready {
        return None;
    }
    let index = socket.socket.simulated_index();
    let lost = index.and_then(|index| sys::sim::with(|world| world.is_lost_datagram(index)));
    if !socket.paused && (socket.readable || lost == Some(true)) {
        return Some("has datagrams that wait");
    }
    socket.has_more().then_some("could send datagrams")
}
