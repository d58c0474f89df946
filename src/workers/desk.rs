//! The side of a team that belongs to one worker's thread.

use std::any::Any;
use std::sync::Arc;

use super::WorkerToken;
use super::crossing::{Item, Outbox};
use super::ports::Asked;
use super::team::{Ending, Team};
use super::topics::Set;
use crate::message::Message;
use crate::net::Net;
use crate::token::Token;

/// What a worker has beside its reactor: its place in the team, and what it is about to say to others.
pub(crate) struct Desk<S> {
    pub(super) team: Arc<Team<S>>,
    pub(super) index: usize,
    /// How many times this worker was built before: tokens of an earlier life name nothing.
    pub(super) life: u32,
    outbox: Outbox<S>,
    /// The set-up runs: what it listens on is shared.
    setting_up: bool,
    pub(super) asked: Vec<Asked>,
}

impl<S> Desk<S> {
    pub(super) fn new(team: Arc<Team<S>>, index: usize, life: u32) -> Self {
        let outbox = Outbox::new(team.count());
        Desk { team, index, life, outbox, setting_up: true, asked: Vec::new() }
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn team(&self) -> &Arc<Team<S>> {
        &self.team
    }

    pub(crate) fn is_setting_up(&self) -> bool {
        self.setting_up
    }

    pub(crate) fn token(&self, token: Token) -> WorkerToken {
        WorkerToken::new(self.index, self.life, token)
    }

    pub(crate) fn is_here(&self, to: WorkerToken) -> bool {
        to.worker() == self.index && to.life == self.life
    }

    // ---- to other workers ----

    /// Whether the item is on its way.
    fn push(&mut self, worker: usize, bytes: &[u8], item: Item<S>) -> Result<(), Item<S>> {
        if worker >= self.team.count() {
            return Err(item);
        }
        self.outbox.push(&self.team, worker, bytes, item)
    }

    pub(crate) fn send(
        &mut self,
        to: WorkerToken,
        Message { bytes, kind }: Message<&[u8]>,
        tell: Option<WorkerToken>,
    ) -> bool {
        let len = bytes.len();
        self.push(to.worker(), bytes, Item::Send { to, kind, len, tell }).is_ok()
    }

    pub(crate) fn notify(
        &mut self,
        to: WorkerToken,
        value: Box<dyn Any + Send>,
    ) -> Result<(), Box<dyn Any + Send>> {
        match self.push(to.worker(), &[], Item::Notify { to, value }) {
            Err(Item::Notify { value, .. }) => Err(value),
            _ => Ok(()),
        }
    }

    /// To a handler that asked for it.
    pub(crate) fn report(&mut self, of: WorkerToken, to: WorkerToken) {
        let _ = self.push(of.worker(), &[], Item::Report { of, to });
    }

    /// What ends something is never refused.
    pub(crate) fn end(&mut self, to: WorkerToken, how: fn(WorkerToken) -> Item<S>) {
        let _ = self.push(to.worker(), &[], how(to));
    }

    pub(crate) fn call(
        &mut self,
        worker: usize,
        call: impl FnOnce(&mut S, &mut Net<S>) + Send + 'static,
    ) -> bool {
        self.push(worker, &[], Item::Call(Box::new(call))).is_ok()
    }

    pub(crate) fn carry(&mut self, arrived: crate::core::Arrived) {
        let worker = arrived.place.worker();
        if let Err(Item::Socket(arrived)) = self.push(worker, &[], Item::Socket(arrived)) {
            arrived.pass_on();
        }
    }

    pub(crate) fn not_delivered(&mut self) {
        self.team.count_undelivered(1);
    }

    // ---- names ----

    /// This worker is about to have a group of that name. Returns whether no worker had one.
    pub(crate) fn gain(&mut self, name: &[u8]) -> bool {
        self.team.topics.gain(name, self.index)
    }

    /// Its group of that name is gone. Returns whether no worker has one any more.
    pub(crate) fn lose(&mut self, name: &[u8]) -> bool {
        self.team.topics.lose(name, self.index)
    }

    /// Whether some worker has a group of that name.
    pub(crate) fn is_known(&self, name: &[u8]) -> bool {
        self.team.topics.workers_of(name) != 0
    }

    pub(crate) fn all_names(&self) -> Vec<Box<[u8]>> {
        self.team.topics.names()
    }

    /// The bridge is here from now on, unless another worker has one: that is the error.
    pub(crate) fn takes_the_bridge(&mut self) -> Result<(), usize> {
        self.team.take_bridge(self.index)
    }

    /// The bridge is here no longer: any worker may have the next one.
    pub(crate) fn leaves_the_bridge(&mut self) {
        self.team.leave_bridge(self.index);
    }

    /// Has the worker of the bridge look at a name, if that is another one.
    pub(crate) fn tell_bridge_elsewhere(&mut self, name: &[u8]) {
        if let Some(worker) = self.team.bridge().filter(|&worker| worker != self.index) {
            let _ = self.push(worker, &[], Item::NameChanged(name.into()));
        }
    }

    /// A message by name goes to the other workers that have members, and to the one of the bridge.
    pub(crate) fn publish(
        &mut self,
        name: &[u8],
        message: Message<&[u8]>,
        key: Option<u64>,
        from_beyond: bool,
    ) {
        let mut to = self.team.topics.workers_of(name);
        if let Some(worker) = self.team.bridge().filter(|_| !from_beyond) {
            to |= (1 as Set) << worker;
        }
        to &= !((1 as Set) << self.index);
        if to == 0 {
            return;
        }
        let refused = self.outbox.publish(&self.team, to, name, message, key, from_beyond);
        if refused > 0 {
            self.team.count_undelivered(refused);
        }
    }
}

impl<S: 'static> Desk<S> {
    /// The end of a turn. Returns how many messages have crossed.
    pub(crate) fn flush(&mut self) -> u64 {
        self.outbox.flush(&self.team)
    }
}

/// The life of a worker, as `life.rs` drives it.
impl<S: 'static> Net<S> {
    /// The set-up is over: the worker can be reached, and takes connections.
    pub(super) fn enter_team(&mut self) {
        let shared = Arc::clone(&self.shared);
        let Some(desk) = self.desk() else { return };
        desk.setting_up = false;
        desk.asked = Vec::new();
        let ending: Option<Ending> = desk.team.enter(desk.index, desk.life, shared);
        self.core.take_connections();
        if let Some(ending) = ending {
            ending.begin(self);
        }
    }
}

impl<S> Net<S> {
    /// Its place among several workers.
    pub(crate) fn own_desk(&self) -> Option<&Desk<S>> {
        self.interconnect.as_ref()?.desk.as_ref()
    }

    /// The same, to say something to others.
    pub(crate) fn desk(&mut self) -> Option<&mut Desk<S>> {
        self.interconnect.as_mut()?.desk.as_mut()
    }
}
