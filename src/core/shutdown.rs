//! Shutdown: listeners close once their backlog is accepted.

use std::time::Duration;

use super::{Core, Entity, Stopping};
use crate::token::Token;

/// How many connections a listener accepts at most once a shutdown has begun, so that new ones cannot
/// keep it open. The number is the largest backlog by default on Linux (`net.core.somaxconn`).
const DRAINED_AT_MOST: usize = 4096;

impl Core {
    /// Closes the listeners once their backlogs are accepted: closing at once would reset the peers in
    /// them. Connections run to their ends, or to the deadline.
    pub(crate) fn start_shutdown(&mut self, grace: Duration) {
        // A shutdown does not revoke a stop of the same turn.
        let stops = self.stopping == Stopping::Now;
        if !stops {
            self.stopping = Stopping::Draining(self.work.tick_after_this_moment(grace));
        }
        for token in self.tokens() {
            let Some(listener) = self.listener_mut(token) else { continue };
            if stops || listener.dead {
                self.close(token, None);
            } else if listener.draining.is_none() {
                listener.draining = Some(DRAINED_AT_MOST);
                if let Some(share) = &listener.share {
                    share.set_taking(false);
                }
                self.draining.push(token);
                self.make_ready(token);
            }
        }
    }

    /// The listeners of ports that several workers share are given connections from now on.
    pub(crate) fn take_connections(&mut self) {
        for token in self.tokens() {
            if let Some(listener) = self.listener_mut(token)
                && let Some(share) = listener.share.as_ref().filter(|_| !listener.paused)
            {
                share.set_taking(true);
            }
        }
    }

    /// Whether a listener's backlog is not accepted yet.
    pub(crate) fn drains_listeners(&mut self) -> bool {
        let tokens = std::mem::take(&mut self.draining);
        self.draining = tokens.into_iter().filter(|&t| self.is_listening(t)).collect();
        !self.draining.is_empty()
    }

    /// Whether a listener of a port of several workers waits: for connections that another one is about to
    /// give to it, or for descriptors of the port's sockets.
    pub(crate) fn waits_for_its_port(&self) -> bool {
        self.draining.iter().any(|&token| match self.entity(token) {
            Some(Entity::Listener(l)) => {
                l.share.is_some() && (l.expects_connections() || l.retry.is_some())
            }
            _ => false,
        })
    }

    fn is_listening(&mut self, token: Token) -> bool {
        self.listener_mut(token).is_some_and(|listener| !listener.dead)
    }

    /// Closes the listeners that a shutdown has left open, whatever their backlogs hold.
    pub(crate) fn close_draining(&mut self) {
        for token in std::mem::take(&mut self.draining) {
            self.close(token, None);
        }
    }
}
