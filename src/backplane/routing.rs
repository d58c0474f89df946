//! A cluster: where things go, and what happens when that changes.

use std::collections::BTreeSet;
use std::time::Instant;

use super::nodes::NodeId;
use super::plane::Plane;
use super::slots::{Endpoint, slot_of};
use crate::token::Token;

impl Plane {
    /// The server has said that it is a cluster: from now on each slot has its node, once the map is there.
    pub(super) fn becomes_cluster(&mut self) {
        if !self.nodes.is_cluster() {
            self.nodes.becomes_cluster();
            self.outbox.becomes_sharded(slot_of);
        }
        self.scouting.is_due = true;
    }

    /// Takes the map of the cluster.
    pub(super) fn set_map(&mut self, now: Instant, map: Vec<(u16, u16, Endpoint)>) -> Vec<Token> {
        self.nodes.set_map(now, map);
        self.reroute(now)
    }

    /// Takes what a node says about one slot, and asks for the whole map if that is news. Returns connections
    /// that are to end.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        from: NodeId,
        (slot, at): (u16, Endpoint),
    ) -> Vec<Token> {
        let before = self.nodes.owner(slot);
        self.nodes.learn(now, from, slot, at);
        match self.nodes.owner(slot) {
            owner if owner == before => return Vec::new(),
            // Its nodes have to agree first.
            NodeId::HOME => self.scouting.is_due_later = true,
            _ => self.scouting.is_due = true,
        }
        self.reroute(now)
    }

    /// A subscription was ended by the server.
    pub(super) fn unsubscribed(&mut self, now: Instant, from: NodeId, channel: &[u8]) {
        let Some(topic) = channel.strip_prefix(&*self.prefix) else { return };
        let node = self.nodes.get_mut(from);
        if node.is_some_and(|node| node.topics.unsubscribed(topic)) {
            self.have_moved(now, vec![topic.into()]);
        }
    }

    /// What waits, and topics, go where their slots are.
    fn reroute(&mut self, now: Instant) -> Vec<Token> {
        let prefix = &self.prefix;
        let moved = self.nodes.reroute_topics(|name| slot_of(&[prefix, name].concat()));
        self.have_moved(now, moved);
        self.are_served_again();
        let nodes = &self.nodes;
        self.outbox.reroute(|slot| nodes.owner(slot));
        self.nodes.retire()
    }

    fn have_moved(&mut self, since: Instant, topics: Vec<Box<[u8]>>) {
        if !topics.is_empty() {
            let (moved, first) = self.moved.get_or_insert((BTreeSet::new(), since));
            moved.extend(topics);
            *first = since.min(*first);
        }
    }

    /// The map is as it is. Returns the topics whose slots have no node, if the program does not know it yet: nobody
    /// waits for these.
    pub(super) fn newly_unserved(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if !self.nodes.has_gaps() {
            self.scouting.gaps = 0;
            return Vec::new();
        }
        self.scouting.gaps = self.scouting.gaps.saturating_add(1);
        let said = self.outbox.channels_of(NodeId::HOME);
        let said = said.filter_map(|channel| channel.strip_prefix(&*self.prefix));
        let mut names: BTreeSet<Box<[u8]>> = said.map(Into::into).collect();
        if self.streams.is_used() && self.node_of_kept() == NodeId::HOME {
            names.extend(self.streams.names().map(Into::into));
        }
        if let Some(home) = self.nodes.get_mut(NodeId::HOME) {
            home.topics.wait_for_none();
            names.extend(home.topics.names().map(Into::into));
        }
        let mut since = now;
        if let Some((moved, first)) = &mut self.moved {
            // They are nowhere, and not at another node.
            since = *first;
            moved.retain(|name| !names.contains(name));
        }
        self.moved.take_if(|(moved, _)| moved.is_empty());
        // Of others nothing waits any more, and nobody here wants them.
        self.unserved.retain(|name, _| names.contains(name));
        names.retain(|name| !self.unserved.contains_key(name));
        self.unserved.extend(names.iter().map(|name| (name.clone(), since)));
        names.into_iter().map(Into::into).collect()
    }

    /// Slots have a node again.
    fn are_served_again(&mut self) {
        let (nodes, prefix) = (&self.nodes, &self.prefix);
        let owner = |name: &[u8]| nodes.owner(slot_of(&[prefix, name].concat()));
        let mut back = Vec::new();
        self.unserved.retain(|name, &mut since| {
            let at = owner(name);
            if at != NodeId::HOME && nodes.get(at).is_some_and(|node| node.topics.wants(name)) {
                back.push((name.clone(), since));
            }
            at == NodeId::HOME
        });
        for (name, since) in back {
            self.have_moved(since, vec![name]);
        }
    }

    /// The node of the names that are kept: all of them are in one slot.
    pub(super) fn node_of_kept(&self) -> NodeId {
        let beginning = self.streams.beginning().unwrap_or_default();
        self.nodes.owner(self.nodes.slot_of(&self.channel(beginning)))
    }
}
