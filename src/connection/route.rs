//! The attempts of an outgoing connection: target, addresses, sockets.

use std::io;
use std::net::SocketAddr;

use crate::address::{Address, Target};
use crate::sys;

/// The target of a connect, the addresses that are left to try, and the sockets that try now.
///
/// The sockets are a set, all registered under the connection's token. Today there is one at a time;
/// racing two families (RFC 8305) needs a second one in the set and a timer.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) target: Target,
    /// The addresses to try, the next one last. Empty before the target is resolved.
    pub(crate) left: Vec<Address>,
    pub(crate) attempts: Vec<Attempt>,
    /// The last failure, which is the reason when no address is left.
    pub(crate) failed: Option<(Address, io::Error)>,
    /// The local address to connect from.
    pub(crate) local: Option<SocketAddr>,
    /// The tick by which it has to be established, all addresses together.
    pub(crate) deadline: u64,
}

/// A socket on which connect(2) goes on.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) address: Address,
    pub(crate) socket: sys::Stream,
}

impl Route {
    pub(crate) fn new(target: Target, local: Option<SocketAddr>, deadline: u64) -> Self {
        let (left, attempts, failed) = (Vec::new(), Vec::new(), None);
        Route { target, left, attempts, failed, local, deadline }
    }

    /// Records a failure as the reason. One that only means that this host lacks the address family
    /// does not replace an earlier one.
    pub(crate) fn note_failure(&mut self, address: Address, error: io::Error) {
        if self.failed.is_none() || !sys::is_missing_family(&error) {
            self.failed = Some((address, error));
        }
    }
}
