//! The nodes of the engine: one, or the masters of a cluster; and which of them has which slot.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::plane::Phase;
use super::slots::{Endpoint, SLOTS, slot_of};
use super::topics::Topics;
use crate::address::Target;
use crate::token::Token;

/// So long what a node says of a slot of its own is believed, and not a map, which another one tells that may
/// not have heard of it.
const NEWER: Duration = Duration::from_secs(1);

/// A slot whose node is another one more often than this within that time does not move: its nodes disagree.
const HOPS: u32 = 4;

/// Which node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(u32);

impl NodeId {
    /// The one of the URL. In a cluster it stands for no node: what is there waits for one.
    pub(super) const HOME: NodeId = NodeId(0);

    pub(super) const fn next(self) -> NodeId {
        NodeId(self.0 + 1)
    }
}

/// What outlives a connection to one node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Endpoint,
    /// Where that was found last.
    pub(super) address: Option<Target>,
    pub(super) phase: Phase,
    pub(super) topics: Topics,
    /// How many slots it has.
    slots: usize,
    /// An attempt to connect is due, or under way before there is a connection.
    pub(super) due: bool,
    /// Attempts in a row that failed.
    pub(super) failures: u32,
    /// How often in a row the engine took nothing, though it answered: the next attempt waits as long.
    pub(super) not_now: u32,
}

impl Node {
    fn new(at: Endpoint) -> Self {
        Node {
            at,
            address: None,
            phase: Phase::Down,
            topics: Topics::default(),
            slots: 0,
            due: false,
            failures: 0,
            not_now: 0,
        }
    }

    pub(super) fn token(&self) -> Option<Token> {
        match self.phase {
            Phase::Dialing(token) | Phase::Up(token) => Some(token),
            Phase::Down => None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }
}

/// The nodes by their numbers, which are never used again.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: BTreeMap<NodeId, Node>,
    newest: NodeId,
    /// In a cluster: where each slot is.
    owners: Option<Vec<NodeId>>,
    /// Slots of which a node has said that they are elsewhere: since when, and how often.
    learned: BTreeMap<u16, (Instant, u32)>,
}

impl Nodes {
    pub(super) fn new(url: Endpoint) -> Self {
        Nodes {
            nodes: BTreeMap::from([(NodeId::HOME, Node::new(url))]),
            newest: NodeId::HOME,
            owners: None,
            learned: BTreeMap::new(),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.owners.is_some()
    }

    pub(super) fn becomes_cluster(&mut self) {
        self.owners = Some(vec![NodeId::HOME; SLOTS.into()]);
        self.count_slots();
    }

    /// Of a channel or a key. All are in one slot if there is no cluster.
    pub(super) fn slot_of(&self, channel: &[u8]) -> u16 {
        if self.is_cluster() { slot_of(channel) } else { 0 }
    }

    pub(super) fn owner(&self, slot: u16) -> NodeId {
        match &self.owners {
            Some(owners) => owners.get(usize::from(slot)).copied().unwrap_or(NodeId::HOME),
            None => NodeId::HOME,
        }
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(&id, node)| (id, node))
    }

    /// Whether a node is connected to: it has slots, or is the only one.
    pub(super) fn serves(&self, id: NodeId) -> bool {
        match self.is_cluster() {
            true => id != NodeId::HOME && self.get(id).is_some_and(|node| node.slots > 0),
            false => id == NodeId::HOME,
        }
    }

    /// Whether each node that has a slot is there, and there is one.
    pub(super) fn are_up(&self) -> bool {
        let mut serving = self.iter().filter(|&(id, _)| self.serves(id)).peekable();
        serving.peek().is_some() && serving.all(|(_, node)| node.is_up())
    }

    /// Whether a node of the cluster is known.
    pub(super) fn has_nodes(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Whether a slot has no node.
    pub(super) fn has_gaps(&self) -> bool {
        self.is_cluster() && self.get(NodeId::HOME).is_some_and(|home| home.slots > 0)
    }

    /// How many topics are wanted.
    pub(super) fn topics(&self) -> usize {
        self.nodes.values().map(|node| node.topics.len()).sum()
    }

    fn count_slots(&mut self) {
        self.nodes.values_mut().for_each(|node| node.slots = 0);
        for owner in self.owners.iter().flatten() {
            if let Some(node) = self.nodes.get_mut(owner) {
                node.slots += 1;
            }
        }
    }

    fn at(&mut self, at: Endpoint) -> NodeId {
        let known = self.iter().find(|(id, node)| *id != NodeId::HOME && node.at == at);
        if let Some((id, _)) = known {
            return id;
        }
        self.newest = self.newest.next();
        self.nodes.insert(self.newest, Node::new(at));
        self.newest
    }

    /// The whole map, as a node tells it.
    pub(super) fn set_map(&mut self, now: Instant, map: Vec<(u16, u16, Endpoint)>) {
        self.forget_learned(now);
        let mut owners = vec![NodeId::HOME; SLOTS.into()];
        for (first, last, at) in map {
            let id = self.at(at);
            owners[first.into()..=last.into()].fill(id);
        }
        for &slot in self.learned.keys() {
            let known = self.owner(slot);
            if known != NodeId::HOME {
                owners[usize::from(slot)] = known;
            }
        }
        self.owners = Some(owners);
        self.count_slots();
    }

    fn forget_learned(&mut self, now: Instant) {
        self.learned.retain(|_, &mut (since, _)| now.saturating_duration_since(since) < NEWER);
    }

    /// A node has said that a slot is at another one. If that cannot be so, because it means itself or the nodes
    /// disagree, the slot has no node until the map says so.
    pub(super) fn learn(&mut self, now: Instant, from: NodeId, slot: u16, at: Endpoint) {
        let to = self.at(at);
        if self.owner(slot) == to && to != from {
            return;
        }
        self.forget_learned(now);
        let (_, hops) = self.learned.entry(slot).or_insert((now, 0));
        *hops += 1;
        let to = if to == from || *hops > HOPS { NodeId::HOME } else { to };
        let owner = self.owners.as_mut().and_then(|owners| owners.get_mut(usize::from(slot)));
        if let Some(owner) = owner {
            *owner = to;
        }
        self.count_slots();
    }

    /// Takes the nodes away that have no slot and no connection. Returns the connections of those that have
    /// one and are to end.
    pub(super) fn retire(&mut self) -> Vec<Token> {
        let idle = |id: &NodeId| *id != NodeId::HOME && !self.serves(*id);
        let retired: Vec<NodeId> = self.nodes.keys().copied().filter(idle).collect();
        let mut ending = Vec::new();
        for id in retired {
            match self.nodes.get(&id).and_then(Node::token) {
                Some(token) => ending.push(token),
                None => drop(self.nodes.remove(&id)),
            }
        }
        ending
    }

    /// The topics of each node that are not where their slots are go there. Returns those that had been
    /// subscribed.
    pub(super) fn reroute_topics(&mut self, slot_of: impl Fn(&[u8]) -> u16) -> Vec<Box<[u8]>> {
        let mut homeless = Vec::new();
        let owners = std::mem::take(&mut self.owners);
        let owner = |slot: u16| match &owners {
            Some(owners) => owners.get(usize::from(slot)).copied().unwrap_or(NodeId::HOME),
            None => NodeId::HOME,
        };
        for (&id, node) in &mut self.nodes {
            node.topics.extract(|name| owner(slot_of(name)) != id, &mut homeless);
        }
        for (name, _) in &homeless {
            if let Some(node) = self.nodes.get_mut(&owner(slot_of(name))) {
                node.topics.came(name);
            }
        }
        self.owners = owners;
        homeless.retain(|&(_, subscribed)| subscribed);
        homeless.into_iter().map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint { host: "h".into(), port }
    }

    #[test]
    fn one_server_has_everything() {
        let mut nodes = Nodes::new(at(1));
        assert_eq!((nodes.slot_of(b"foo"), nodes.owner(0)), (0, NodeId::HOME));
        assert!(nodes.serves(NodeId::HOME) && !nodes.are_up() && !nodes.has_gaps());
        assert_eq!(nodes.retire(), []);
    }

    #[test]
    fn a_map_says_where_slots_are_and_nodes_without_one_are_dropped() {
        let now = Instant::now();
        let mut nodes = Nodes::new(at(1));
        nodes.becomes_cluster();
        assert!(!nodes.serves(NodeId::HOME) && nodes.has_gaps());
        nodes.set_map(now, vec![(0, 9, at(1)), (10, 16383, at(2))]);
        let (one, two) = (nodes.owner(0), nodes.owner(10));
        assert_eq!(nodes.get(one).map(|node| node.at.port), Some(1));
        assert!(one != two && nodes.serves(one) && nodes.serves(two) && !nodes.has_gaps());
        nodes.set_map(now, vec![(0, 9, at(1)), (20, 16383, at(1))]);
        assert!(nodes.owner(0) == one && nodes.has_gaps(), "10 to 19");
        assert_eq!(nodes.retire(), []);
        assert!(nodes.get(two).is_none() && nodes.get(one).is_some());
    }

    #[test]
    fn what_a_node_says_of_a_slot_is_believed_if_it_can_be() {
        let now = Instant::now();
        let mut nodes = Nodes::new(at(1));
        nodes.becomes_cluster();
        nodes.set_map(now, vec![(0, 16383, at(1))]);
        let one = nodes.owner(0);
        nodes.learn(now, one, 7, at(2));
        let two = nodes.owner(7);
        assert!(two != one && nodes.owner(8) == one);
        nodes.learn(now, one, 7, at(2)); // it says so of each message
        assert_eq!(nodes.owner(7), two);
        // A node that has not heard of it yet tells the map.
        nodes.set_map(now, vec![(0, 16383, at(1))]);
        assert_eq!((nodes.owner(7), nodes.owner(8)), (two, one));
        nodes.set_map(now + NEWER, vec![(0, 16383, at(1))]);
        assert_eq!(nodes.owner(7), one);
        nodes.learn(now, one, 9, at(1));
        assert!(nodes.owner(9) == NodeId::HOME && nodes.has_gaps(), "which is itself");
        nodes.set_map(now, vec![(0, 16383, at(1))]);
        assert!(!nodes.has_gaps());
    }

    // row 271
    #[test]
    fn a_slot_of_which_two_nodes_disagree_has_none_until_the_map_is_asked() {
        let now = Instant::now();
        let mut nodes = Nodes::new(at(1));
        nodes.becomes_cluster();
        nodes.set_map(now, vec![(0, 16383, at(1))]);
        let one = nodes.owner(0);
        let mut asked = one;
        for hop in 0..HOPS {
            nodes.learn(now, asked, 7, at(if hop % 2 == 0 { 2 } else { 1 }));
            assert!(nodes.owner(7) != asked && nodes.owner(7) != NodeId::HOME);
            asked = nodes.owner(7);
        }
        nodes.learn(now, asked, 7, at(2));
        assert!(asked == one && nodes.owner(7) == NodeId::HOME);
        nodes.set_map(now, vec![(0, 16383, at(1))]);
        assert_eq!(nodes.owner(7), one);
    }

    #[test]
    fn topics_go_where_their_slots_are() {
        let now = Instant::now();
        let mut nodes = Nodes::new(at(1));
        let slot_of = |name: &[u8]| u16::from(name[0]);
        for name in [b"a", b"b"] {
            nodes.get_mut(NodeId::HOME).unwrap().topics.want(name, true);
        }
        nodes.becomes_cluster();
        nodes.set_map(now, vec![(0, 97, at(1)), (98, 16383, at(2))]);
        assert_eq!(nodes.reroute_topics(slot_of).len(), 0);
        let names =
            |nodes: &Nodes| nodes.iter().map(|(_, node)| node.topics.len()).collect::<Vec<_>>();
        assert_eq!(names(&nodes), [0, 1, 1]);
        let one = nodes.owner(0);
        assert!(nodes.get_mut(one).unwrap().topics.next_change().is_some());
        nodes.set_map(now, vec![(0, 16383, at(2))]);
        assert_eq!(nodes.reroute_topics(slot_of).len(), 1);
        assert_eq!(names(&nodes), [0, 0, 2]);
    }
}
