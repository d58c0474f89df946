//! Listeners: their sockets, which of those is served next, their statistics, their end.

use std::rc::Rc;

use super::shares::Share;
use crate::address::Address;
use crate::connection::Settings;
use crate::sys;
use crate::timer::{Chain, Key};

/// Statistics of a listener, counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Connections accepted, those refused by the filter included.
    pub accepted: u64,
    /// Connections the filter refused.
    pub refused: u64,
    /// Errors of accept(2) that concerned one connection only (`ECONNABORTED` and the like).
    pub transient_errors: u64,
    /// How often accepting had to wait because descriptors, memory or places in the poll ran out.
    pub exhausted: u64,
    /// Connections that ended before their layers were ready, but for those that ended in order.
    pub failed_handshakes: u64,
    /// Connections that are open now.
    pub open: usize,
}

/// One of a listener's sockets.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) socket: sys::Listener,
    /// Errors of accept(2) since it last brought a connection.
    pub(crate) failed_in_a_row: u32,
    /// accept(2) returns errors only: the socket is not served before the back-off is over.
    pub(crate) resting: bool,
}

impl Listening {
    pub(crate) fn new(socket: sys::Listener) -> Self {
        Listening { socket, failed_in_a_row: 0, resting: false }
    }
}

/// One listener, on one address or several.
#[derive(Debug)]
pub(crate) struct ListeningSockets {
    pub(crate) sockets: Vec<Listening>,
    /// The paths to remove at the end.
    #[cfg(unix)]
    pub(crate) paths: Vec<sys::OwnPath>,
    /// Which of the sockets is served first next time.
    pub(crate) turn: usize,
    pub(crate) settings: Rc<Settings>,
    pub(crate) connection_limit: usize,
    pub(crate) stats: ListenerStats,
    /// A shutdown closes it once its backlog is accepted, after at most this many connections.
    pub(crate) draining: Option<usize>,
    /// Accepted connections that have no handler, yet or at all. While it is zero, closing the listener
    /// need not search all tokens for them.
    pub(crate) unopened: usize,
    /// The sockets were listening before they were adopted.
    pub(crate) adopted: bool,
    pub(crate) timers: Chain,
    /// The timer of a back-off that is running.
    pub(crate) retry: Option<Key>,
    /// Until this tick no further warning that it cannot accept.
    pub(crate) silent_until: u64,
    /// Accepting is paused: peers wait in the backlog.
    pub(crate) paused: bool,
    /// It is on the list of those with work left.
    pub(crate) in_ready: bool,
    /// It is on the list of the dead.
    pub(crate) dead: bool,
    /// Its part of a port that several workers listen on.
    pub(crate) share: Option<Box<Share>>,
}

impl ListeningSockets {
    /// A port of several workers has its limit with all of them together.
    pub(crate) fn is_full(&self) -> bool {
        self.share.is_none() && self.stats.open >= self.connection_limit
    }

    /// Whether it may accept a connection now.
    pub(crate) fn may_accept(&self) -> bool {
        match &self.share {
            None => !(self.paused || self.is_full()),
            Some(share) => share.may_accept(self.takes_the_rest()),
        }
    }

    /// Whether a shutdown accepts the rest of the port's backlog for this worker alone.
    pub(crate) fn takes_the_rest(&self) -> bool {
        self.draining.is_some() && !self.paused
    }

    /// Whether a shutdown leaves the port's backlog to another worker.
    pub(crate) fn leaves_the_rest(&self) -> bool {
        self.draining.is_some() && self.share.as_ref().is_some_and(|share| share.others_take())
    }

    /// Whether the port's acceptor has given it connections that it has not come to.
    pub(crate) fn expects_connections(&self) -> bool {
        self.share.as_ref().is_some_and(|share| share.on_their_way(self.stats.open) > 0)
    }

    /// Whether the sockets of its port have to come into this worker's poll.
    pub(crate) fn lacks_sockets(&self) -> bool {
        self.sockets.is_empty()
            && !self.dead
            && self.share.as_ref().is_some_and(|share| share.is_acceptor())
    }

    /// All its addresses.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        match &self.share {
            Some(share) => share.addresses().to_vec(),
            None => self.sockets.iter().filter_map(|l| l.socket.local_addr().ok()).collect(),
        }
    }
}

impl ListeningSockets {
    /// Closes the sockets and removes their paths: the addresses are free then. A port of several workers is
    /// closed with the last of their listeners, unless it is to be `kept` for one that comes back.
    pub(crate) fn close(&mut self, sys: &mut sys::Poller, kept: bool) {
        // Paths first: the system does not reuse an inode while its socket is open.
        self.remove_paths();
        for mut listening in self.sockets.drain(..) {
            sys.deregister(&mut listening.socket, false);
        }
        if let Some(share) = self.share.take() {
            share.leave(kept);
        }
    }

    fn remove_paths(&mut self) {
        #[cfg(unix)]
        for path in self.paths.drain(..) {
            path.remove();
        }
    }
}

impl Drop for ListeningSockets {
    fn drop(&mut self) {
        self.remove_paths();
    }
}
