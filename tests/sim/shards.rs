//! The slots of a cluster: which node has them, and which one each node believes to have them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::engine::PORT;
use crate::slots::slot_of;

const SLOTS: u16 = 16384;

/// What a node knows of a piece: which change of the map that is, and who has it since.
#[derive(Clone, Copy)]
struct Known {
    change: u64,
    owner: usize,
}

/// A change of the map: a piece of it has another owner.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    pub(crate) piece: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    number: u64,
}

/// Pieces that never move in parts: each slot that is used, and what lies between those.
pub(crate) struct Shards {
    /// Where each node is reached.
    nodes: Vec<IpAddr>,
    /// The first slot of each piece, in their order.
    first: Vec<u16>,
    used: Vec<u16>,
    /// Who has each piece, or is about to know that it has.
    owners: Vec<Known>,
    /// What each node knows.
    views: Vec<Vec<Known>>,
}

impl Shards {
    /// `owner` says who has a piece at first.
    pub(crate) fn new(nodes: Vec<IpAddr>, used: &[u16], mut owner: impl FnMut() -> usize) -> Self {
        let mut first: Vec<u16> = used.iter().flat_map(|&slot| [slot, slot + 1]).collect();
        first.push(0);
        first.retain(|&slot| slot < SLOTS);
        first.sort_unstable();
        first.dedup();
        let owners: Vec<Known> =
            first.iter().map(|_| Known { change: 0, owner: owner() }).collect();
        let views = vec![owners.clone(); nodes.len()];
        Shards { nodes, first, used: used.to_vec(), owners, views }
    }

    pub(crate) fn pieces(&self) -> usize {
        self.first.len()
    }

    pub(crate) fn piece_of(&self, slot: u16) -> usize {
        self.first.partition_point(|&first| first <= slot) - 1
    }

    pub(crate) fn owner(&self, piece: usize) -> usize {
        self.owners[piece].owner
    }

    /// How many nodes have slots that are used.
    pub(crate) fn used_nodes(&self) -> usize {
        let used: BTreeSet<usize> =
            self.used.iter().map(|&slot| self.owner(self.piece_of(slot))).collect();
        used.len()
    }

    pub(crate) fn have_moved(&self) -> bool {
        self.owners.iter().any(|known| known.change > 0)
    }

    /// A piece goes to another node: nobody knows of it yet.
    pub(crate) fn moves(&mut self, piece: usize, to: usize) -> Change {
        let known = &mut self.owners[piece];
        let from = std::mem::replace(&mut known.owner, to);
        known.change += 1;
        Change { piece, from, to, number: known.change }
    }

    /// A node hears of a change. Whether it is news: it may have heard of a later one.
    pub(crate) fn hears(&mut self, node: usize, change: Change) -> bool {
        let known = &mut self.views[node][change.piece];
        let is_news = known.change < change.number;
        if is_news {
            *known = Known { change: change.number, owner: change.to };
        }
        is_news
    }

    /// What a node says of a slot that is not its own.
    pub(crate) fn moved(&self, node: usize, name: &[u8]) -> Option<String> {
        let slot = slot_of(name);
        let owner = self.views[node][self.piece_of(slot)].owner;
        let why = || format!("-MOVED {slot} {}:{PORT}\r\n", self.nodes[owner]);
        (owner != node).then(why)
    }

    /// What a node answers to CLUSTER SLOTS.
    pub(crate) fn map(&self, node: usize) -> Vec<u8> {
        let mut ranges: Vec<(u16, u16, usize)> = Vec::new();
        for (at, known) in self.views[node].iter().enumerate() {
            let last = self.first.get(at + 1).map_or(SLOTS, |&next| next) - 1;
            match ranges.last_mut() {
                Some(range) if range.2 == known.owner => range.1 = last,
                _ => ranges.push((self.first[at], last, known.owner)),
            }
        }
        let range = |&(first, last, owner): &(u16, u16, usize)| {
            let ip = self.nodes[owner].to_string();
            let master = format!("*2\r\n${}\r\n{ip}\r\n:{PORT}\r\n", ip.len());
            format!("*3\r\n:{first}\r\n:{last}\r\n{master}")
        };
        let ranges: Vec<String> = ranges.iter().map(range).collect();
        format!("*{}\r\n{}", ranges.len(), ranges.concat()).into_bytes()
    }
}
