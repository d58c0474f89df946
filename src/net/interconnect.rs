//! What reaches beyond one reactor: the other workers of its service, and a [bridge](super::bridge), which
//! carries named groups to other processes.
//!
//! A reactor without them pays a look at a null pointer for each turn and each message by name.

use super::Net;
use super::bridge::Attached;
use crate::core::Arrived;
use crate::message::Message;
use crate::workers::Desk;

/// What reaches beyond this reactor.
pub(crate) struct Interconnect<S> {
    /// Its place among several workers.
    pub(crate) desk: Option<Desk<S>>,
    pub(super) bridge: Option<Attached>,
}

impl<S> Default for Interconnect<S> {
    fn default() -> Self {
        Interconnect { desk: None, bridge: None }
    }
}

impl<S> Interconnect<S> {
    pub(crate) fn of_worker(desk: Desk<S>) -> Box<Self> {
        Box::new(Interconnect { desk: Some(desk), bridge: None })
    }
}

/// Names and messages by name.
impl<S> Net<S> {
    /// A group of that name is about to be made.
    #[cold]
    pub(super) fn name_gained(&mut self, name: &[u8]) {
        if let Some(desk) = self.desk() {
            if !desk.gain(name) {
                return;
            }
            desk.tell_bridge_elsewhere(name);
        }
        self.tell_bridge(|bridge| bridge.gained(name));
    }

    fn name_lost(&mut self, name: &[u8]) {
        if let Some(desk) = self.desk() {
            if !desk.lose(name) {
                return;
            }
            desk.tell_bridge_elsewhere(name);
        }
        self.tell_bridge(|bridge| bridge.lost(name));
    }

    /// The end of a turn: names whose last member is gone are lost, and what was said to other workers
    /// crosses.
    #[cold]
    pub(crate) fn reach_beyond(&mut self)
    where
        S: 'static,
    {
        if let Some(removed) = &mut self.core.groups.removed_names {
            for name in std::mem::take(removed) {
                // It may have been made anew meanwhile.
                if self.core.groups.find(&name).is_none() {
                    self.name_lost(&name);
                }
            }
        }
        if let Some(desk) = self.desk() {
            let crossed = desk.flush();
            self.core.work.counts.crossings += crossed;
        }
    }

    /// A message was published by name on this reactor.
    #[cold]
    pub(super) fn published_beyond(
        &mut self,
        name: &[u8],
        message: Message<&[u8]>,
        key: Option<u64>,
    ) {
        if let Some(desk) = self.desk() {
            desk.publish(name, message, key, false);
        }
        self.tell_bridge(|bridge| bridge.published(name, message, key));
    }
}

/// What other workers say.
impl<S> Net<S> {
    /// A message by name has crossed.
    pub(crate) fn said_elsewhere(
        &mut self,
        name: &[u8],
        message: Message<&[u8]>,
        key: Option<u64>,
        from_beyond: bool,
    ) {
        if !from_beyond {
            self.tell_bridge(|bridge| bridge.published(name, message, key));
        }
        self.publish_here(name, message, None, key);
    }

    /// A name has its first group, or has lost the last. The bridge hears whether it has one now: what workers
    /// say about it comes in any order.
    pub(crate) fn name_changed_elsewhere(&mut self, name: &[u8]) {
        let known = self.desk().is_some_and(|desk| desk.is_known(name));
        self.tell_bridge(|bridge| if known { bridge.gained(name) } else { bridge.lost(name) });
    }

    /// A connection has come from the acceptor of a shared port.
    pub(crate) fn connection_arrives(&mut self, arrived: Arrived) {
        let listener = arrived.place.listener();
        if let Some(entity) = self.core.listener_mut(listener)
            && let Some(share) = entity.share.as_mut().filter(|share| share.owns(&arrived.place))
        {
            share.arrived.push_back(arrived);
            return self.core.make_ready(listener);
        }
        arrived.pass_on();
    }

    /// Gives a connection to another worker, behind what was said to it before.
    pub(crate) fn carry(&mut self, arrived: Arrived) {
        match self.desk() {
            Some(desk) => desk.carry(arrived),
            None => arrived.pass_on(),
        }
    }
}
