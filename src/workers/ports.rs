//! Ports that all workers share: the set-up of each asks for the same address, and gets a part of it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Balance;
use super::crossing::{Batch, Item};
use super::desk::Desk;
use super::team::lock;
use crate::address::{Address, Named, Target};
use crate::core::{Arrived, Shares};
use crate::datagram::Udp;
use crate::error::Error;
use crate::listener::{On, Opened};
use crate::options::StreamOptions;
use crate::token::Token;

/// What distinguishes the ports of one set-up: what for, the address as it was given, and how often the set-up
/// has asked for it before.
pub(crate) type Key = (Purpose, Target, usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    Listen,
    Udp,
}

/// The ports that some worker's set-up has opened.
#[derive(Default)]
pub(crate) struct Ports {
    shared: Vec<(Key, Arc<Shares>)>,
    /// What the system chose for ports that each worker binds by itself.
    bound: Vec<(Key, Vec<SocketAddr>)>,
}

/// How a worker of several gets its listening sockets.
pub(crate) enum Part {
    /// Through a port of all.
    Shared(Arc<Shares>),
    /// By itself.
    Own(Opened),
}

impl<S: 'static> Desk<S> {
    /// The port of that address, which the first worker that asks opens.
    pub(crate) fn open_listener(
        &mut self,
        on: On,
        backlog: u32,
        limit: &mut usize,
        options: &StreamOptions,
    ) -> Result<Part, Error> {
        let On::Target(target) = on else {
            return on.open(backlog, options).map(Part::Own); // an adopted socket is its worker's
        };
        let key = self.key(Purpose::Listen, &target);
        if self.team.balance == Balance::ReusePort && !target.is_unix() {
            *limit = limit.div_ceil(self.team.count());
            return self.open_own(key, backlog, options).map(Part::Own);
        }
        let mut ports = lock(&self.team.ports);
        ports.shared.retain(|(_, shares)| !shares.is_closed());
        if let Some((_, shares)) = ports.shared.iter().find(|(other, _)| *other == key) {
            return Ok(Part::Shared(Arc::clone(shares)));
        }
        let opened = On::Target(target.clone()).open(backlog, options)?;
        let (for_look, for_carry) = (Arc::downgrade(&self.team), Arc::downgrade(&self.team));
        let look = move |worker: usize, listener: Token| {
            if let Some(team) = for_look.upgrade() {
                team.post(Batch::of_one(&team, worker, Vec::new(), Item::Look(listener)));
            }
        };
        let carry = move |arrived: Arrived| {
            if let Some(team) = for_carry.upgrade() {
                let worker = arrived.place.worker();
                team.post(Batch::of_one(&team, worker, Vec::new(), Item::Socket(arrived)));
            }
        };
        let shares = Shares::new(
            opened.sockets,
            #[cfg(unix)]
            opened.paths,
            *limit,
            Box::new(look),
            Box::new(carry),
        );
        let shares = shares.map_err(|e| Error::new(format!("cannot share {target}"), e))?;
        ports.shared.push((key, Arc::clone(&shares)));
        Ok(Part::Shared(shares))
    }

    /// Sockets of this worker alone, on a port that all of them bind.
    fn open_own(&self, key: Key, backlog: u32, options: &StreamOptions) -> Result<Opened, Error> {
        let mut options = options.clone();
        options.socket = options.socket.reuse_port(true);
        let mut ports = lock(&self.team.ports);
        let known = ports.bound.iter().find(|(other, _)| *other == key);
        if let Some((_, addresses)) = known {
            let target = Target(Named::Addresses(addresses.clone()));
            return On::Target(target).open(backlog, &options);
        }
        let opened = On::Target(key.1.clone()).open(backlog, &options)?;
        let addresses = opened.sockets.iter().filter_map(|socket| socket.local_addr().ok());
        let addresses = addresses.filter_map(|address| Address::socket_addr(&address)).collect();
        ports.bound.push((key, addresses));
        Ok(opened)
    }

    /// A UDP socket on a port that each worker binds; the system spreads the peers. Returns what to bind, and
    /// what to report to [`udp_is_bound`](Self::udp_is_bound) if it is the first.
    pub(crate) fn shared_udp(&mut self, udp: Udp) -> (Udp, Option<Key>) {
        let Some(target) = udp.bound_to().cloned() else {
            return (udp, None); // adopted, or connected to one peer
        };
        let key = self.key(Purpose::Udp, &target);
        let ports = lock(&self.team.ports);
        let known = ports.bound.iter().find(|(other, _)| *other == key);
        match known {
            None => (udp.on_shared_port(target), Some(key)),
            Some((_, addresses)) => {
                let target = Target(Named::Addresses(addresses.clone()));
                (udp.on_shared_port(target), None)
            }
        }
    }

    /// The first worker has bound the port: the others bind this address.
    pub(crate) fn udp_is_bound(&mut self, key: Key, address: SocketAddr) {
        lock(&self.team.ports).bound.push((key, vec![address]));
    }

    fn key(&mut self, purpose: Purpose, target: &Target) -> Key {
        let asked = (purpose, target.clone());
        let times = self.asked.iter().filter(|&other| *other == asked).count();
        self.asked.push(asked);
        (purpose, target.clone(), times)
    }
}

/// An address that this worker's set-up has asked for.
pub(super) type Asked = (Purpose, Target);
