//! What outlives a connection to the engine: the queue, the topics, the figures; and the end of the
//! bridge that the network knows.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::time::Instant;

use super::BackplaneStats;
use super::envelope::{self, Publisher};
use super::nodes::{Node, NodeId, Nodes};
use super::outbox::{Flow, Outbox};
use super::reader::Reading;
use super::slots::Endpoint;
use super::streams::{Id, Newcomer, Streams};
use crate::layer::resp::Command;
use crate::message::Message;
use crate::net::Bridge;
use crate::token::Token;

/// So many numbers of other processes' last messages are remembered: one of a process, or in a cluster one
/// of each process and slot. Beyond it the quarter that has been silent longest is forgotten: the worst of it
/// is a message twice.
const PUBLISHERS: usize = 16 * 1024;

/// Where the connection to a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// None; another attempt is due.
    Down,
    /// On its way, or logging in.
    Dialing(Token),
    /// Logged in and subscribed.
    Up(Token),
}

/// What the program was told last of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Whole,
    /// Since when something is away.
    Lost(Instant),
}

/// A message for the members here.
pub(super) struct Delivery<'a> {
    pub(super) topic: &'a [u8],
    pub(super) message: Message<&'a [u8]>,
    pub(super) key: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Plane {
    publisher: Publisher,
    pub(super) prefix: Vec<u8>,
    message_limit: usize,
    /// Names that the program itself listens to: they are wanted always.
    listened: HashSet<Vec<u8>>,
    pub(super) nodes: Nodes,
    pub(super) outbox: Outbox,
    pub(super) streams: Streams,
    /// The second connection, to which node, and what it does.
    pub(super) reader: Option<Token>,
    pub(super) reader_at: NodeId,
    pub(super) reading: Reading,
    pub(super) reader_failures: u32,
    /// How often it has begun to wait, and who wakes it.
    pub(super) waits: u64,
    /// The second connection has failed: the next attempt is due later.
    pub(super) reader_waits: bool,
    pub(super) waking: Waking,
    /// The engine refuses it.
    pub(super) cannot_unblock: bool,
    pub(super) stats: BackplaneStats,
    /// It was stopped, and makes no more attempts.
    pub(super) stopped: bool,
    pub(super) told: Told,
    /// How many messages had been dropped when it was lost.
    pub(super) dropped_before: u64,
    /// In a cluster: who asks where the slots are.
    pub(super) scouting: Scouting,
    /// Topics that were subscribed and whose slots have moved, and since when; until they are subscribed again.
    pub(super) moved: Option<(BTreeSet<Box<[u8]>>, Instant)>,
    /// Topics whose slots have no node, which the program was told; and since when.
    pub(super) unserved: BTreeMap<Box<[u8]>, Instant>,
    /// Of each other publisher, in each slot: the number of its last message, and when it came.
    heard: HashMap<(Publisher, u16), (u64, Instant)>,
}

/// What is done about the second connection, which waits though there is something else to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waking {
    /// Nothing; so many CLIENT UNBLOCK have come in vain, before what they were to end.
    Due(u32),
    /// A CLIENT UNBLOCK is under way, while it waits for this time.
    UnderWay(u64, u32),
    /// One came in vain: the next one is sent in a moment.
    Later(u32),
    /// It has been woken, and is about to learn of it.
    Done,
}

/// Who asks the cluster for its map.
#[derive(Debug, Default)]
pub(super) struct Scouting {
    /// Somebody is on the way, or will be.
    pub(super) under_way: bool,
    pub(super) token: Option<Token>,
    /// The map that is known may be wrong.
    pub(super) is_due: bool,
    /// It is about to change: to be asked for in a moment.
    pub(super) is_due_later: bool,
    /// That moment has a timer.
    pub(super) waits: bool,
    /// How many were sent: each asks another node.
    pub(super) sent: usize,
    pub(super) failures: u32,
    /// How many maps in a row had slots without a node.
    pub(super) gaps: u32,
    /// When the next one is due that is asked for because of them.
    pub(super) gaps_due: Option<Instant>,
}

impl Plane {
    pub(super) fn new(
        url: Endpoint,
        prefix: Vec<u8>,
        message_limit: usize,
        outbox: Outbox,
        streams: Streams,
    ) -> Self {
        let mut publisher = Publisher::default();
        crate::sys::random::fill(&mut publisher);
        Plane {
            publisher,
            prefix,
            message_limit,
            listened: HashSet::new(),
            nodes: Nodes::new(url),
            outbox,
            streams,
            reader: None,
            reader_at: NodeId::HOME,
            reading: Reading::Down,
            reader_failures: 0,
            waits: 0,
            reader_waits: false,
            waking: Waking::Due(0),
            cannot_unblock: false,
            stats: BackplaneStats::default(),
            stopped: false,
            told: Told::Nothing,
            dropped_before: 0,
            scouting: Scouting::default(),
            moved: None,
            unserved: BTreeMap::new(),
            heard: HashMap::new(),
        }
    }

    /// The connection that takes up what is recorded, for all nodes.
    pub(super) fn token(&self) -> Option<Token> {
        let up = self.nodes.iter().find(|(_, node)| node.is_up());
        match up {
            Some((_, node)) => node.token(),
            None => self.nodes.iter().find_map(|(_, node)| node.token()),
        }
    }

    /// All connections.
    pub(super) fn connections(&self) -> Vec<Token> {
        let nodes = self.nodes.iter().filter_map(|(_, node)| node.token());
        nodes.chain(self.reader).chain(self.scouting.token).collect()
    }

    pub(super) fn publisher(&self) -> Publisher {
        self.publisher
    }

    /// The engine's name of a topic.
    pub(super) fn channel(&self, topic: &[u8]) -> Vec<u8> {
        [&self.prefix, topic].concat()
    }

    /// What a payload on this channel is for the members here. `None` for a message of this process, and for
    /// one that has come before.
    pub(super) fn arrived<'a>(
        &mut self,
        now: Instant,
        channel: &'a [u8],
        payload: &'a [u8],
    ) -> Option<Delivery<'a>> {
        let topic = channel.strip_prefix(&*self.prefix)?;
        let arrived = envelope::open(payload);
        if let Some((publisher, number)) = arrived.sent {
            if publisher == self.publisher {
                self.stats.own += 1;
                return None;
            }
            // What goes to several nodes comes in the order of each.
            let source = (publisher, self.nodes.slot_of(channel));
            let last = self.heard.insert(source, (number, now));
            if let Some((last, _)) = last.filter(|&(last, _)| last >= number) {
                self.heard.insert(source, (last, now));
                self.stats.repeated += 1;
                return None;
            }
            self.forget_some();
        }
        self.stats.received += 1;
        Some(Delivery { topic, message: arrived.message, key: arrived.key })
    }

    /// What an entry of a stream is for the members here.
    pub(super) fn read<'a>(
        &mut self,
        key: &'a [u8],
        id: Id,
        payload: &'a [u8],
    ) -> Option<Delivery<'a>> {
        let topic = key.strip_prefix(&*self.prefix)?;
        let arrived = envelope::open(payload);
        let is_to_go_out = |number| self.outbox.holds(number);
        if !self.streams.is_new(topic, id, arrived.sent, &self.publisher, is_to_go_out) {
            let own = arrived.sent.is_some_and(|(publisher, _)| publisher == self.publisher);
            *if own { &mut self.stats.own } else { &mut self.stats.repeated } += 1;
            return None;
        }
        self.stats.received += 1;
        Some(Delivery { topic, message: arrived.message, key: arrived.key })
    }

    /// Somebody here is told these entries, the oldest first. Those of this process have been read back.
    pub(super) fn in_history<'a>(&mut self, topic: &[u8], entries: impl Iterator<Item = &'a [u8]>) {
        let mut first = None;
        for sent in entries.filter_map(|payload| envelope::open(payload).sent) {
            let (publisher, number) = sent;
            if publisher != self.publisher {
                self.streams.was_told(topic, sent);
                continue;
            }
            // One between two that are there, and is not: it was refused. One before may only be too old.
            let first = *first.get_or_insert(number);
            let is_to_go_out = |number| number > first && self.outbox.holds(number);
            self.streams.read_back(topic, number, is_to_go_out);
        }
    }

    /// Whether an entry is of this process, and was said when nobody was here who would remember it.
    pub(super) fn was_said_before(&self, topic: &[u8], payload: &[u8]) -> bool {
        let sent = envelope::open(payload).sent;
        let own = sent.filter(|(publisher, _)| *publisher == self.publisher);
        own.is_some_and(|(_, number)| !self.streams.is_unread(topic, number))
    }

    pub(super) fn listen_to(&mut self, name: &[u8]) {
        self.listened.insert(name.into());
        self.want(name, true);
    }

    /// Members here want a name, or nobody here does any longer. What the program listens to stays.
    pub(super) fn want(&mut self, name: &[u8], wanted: bool) {
        if !wanted && self.listened.contains(name) {
            return;
        }
        match self.streams.keeps(name) {
            Some(_) => {
                if self.streams.want(name, wanted) {
                    self.remember_unconfirmed(name);
                }
            }
            None => {
                let slot = self.nodes.slot_of(&self.channel(name));
                let owner = self.nodes.owner(slot);
                if let Some(node) = self.nodes.get_mut(owner) {
                    node.topics.want(name, wanted);
                }
            }
        }
    }

    /// Somebody waits for the history of a kept name.
    pub(super) fn greet(&mut self, newcomer: Newcomer) {
        if self.streams.want(&newcomer.name, true) {
            self.remember_unconfirmed(&newcomer.name);
        }
        self.streams.greet(newcomer);
    }

    /// What was said to a name before anybody here was to hear of it is in its history, once the engine has
    /// it. A question for that may overtake it, on the other connection.
    fn remember_unconfirmed(&mut self, name: &[u8]) {
        let key = self.channel(name);
        for (number, payload) in self.outbox.unconfirmed(&key) {
            self.streams.said(name, number, envelope::open(payload).message);
        }
    }

    /// Messages go out under other numbers.
    pub(super) fn have_other_numbers(&mut self, renumbered: &[(u64, u64)]) {
        for &(old, new) in renumbered {
            self.streams.renumber(old, new);
        }
    }

    fn forget_some(&mut self) {
        if self.heard.len() <= PUBLISHERS {
            return;
        }
        let mut times: Vec<Instant> = self.heard.values().map(|&(_, at)| at).collect();
        let (_, &mut oldest, _) = times.select_nth_unstable(PUBLISHERS / 4);
        self.heard.retain(|_, &mut (_, at)| at > oldest);
    }

    /// Whether the connection to a node has something to do.
    pub(super) fn has_work(&self, id: NodeId, node: &Node) -> bool {
        let reads = self.streams.changed && self.reader_at == id;
        reads || node.topics.has_changes() || self.outbox.waits_for(id)
    }
}

/// The end that the network knows. It only records.
pub(super) struct Recorder(pub(super) Rc<RefCell<Plane>>);

impl Bridge for Recorder {
    fn gained(&mut self, name: &[u8]) {
        self.0.borrow_mut().want(name, true);
    }

    fn lost(&mut self, name: &[u8]) {
        self.0.borrow_mut().want(name, false);
    }

    fn replaced(&mut self) {
        self.0.borrow_mut().stopped = true;
    }

    fn is_done(&self) -> bool {
        let plane = self.0.borrow();
        let is_up = |id| plane.nodes.get(id).is_some_and(Node::is_up);
        let waits = |(id, node): (_, &Node)| node.is_up() && plane.outbox.waits_for(id);
        !plane.nodes.iter().any(waits) && !plane.outbox.moves(is_up)
    }

    fn handler(&self) -> Option<Token> {
        self.0.borrow().token()
    }

    fn connections(&self) -> Vec<Token> {
        self.0.borrow().connections()
    }

    fn answers(&self, connection: Token) -> usize {
        let plane = self.0.borrow();
        let is_it = |node: &Node| matches!(node.phase, Phase::Up(token) if token == connection);
        let node = plane.nodes.iter().find(|(_, node)| is_it(node));
        // The message itself, if this process is subscribed, and its confirmation.
        node.map_or(0, |(id, _)| plane.outbox.unanswered(id).saturating_mul(2))
    }

    fn published(&mut self, name: &[u8], message: Message<&[u8]>, key: Option<u64>) {
        let plane = &mut *self.0.borrow_mut();
        let length = plane.prefix.len() + name.len() + message.bytes.len();
        if length > plane.message_limit {
            plane.stats.too_large += 1;
            if plane.stats.too_large == 1 {
                let limit = plane.message_limit;
                log::warn!(
                    "backplane: a message of {length} bytes stays in this process, above the limit of \
                     {limit}; others are only counted"
                );
            }
            return;
        }
        let number = plane.outbox.next_number();
        plane.stats.published += 1;
        let mut payload = Vec::with_capacity(envelope::sealed_len(key, message));
        envelope::seal(&plane.publisher, number, key, message, &mut payload);
        let channel = plane.channel(name);
        let slot = plane.nodes.slot_of(&channel);
        let publish: &[u8] = if plane.nodes.is_cluster() { b"SPUBLISH" } else { b"PUBLISH" };
        let command = match plane.streams.keeps(name) {
            None => Command::encode(&[publish, &*channel, &*payload]),
            Some(keep) => {
                plane.streams.said(name, number, message);
                let keep = keep.to_string();
                // About so many: exactly would cost a look at each entry.
                let [maxlen, about]: [&[u8]; 2] = [b"MAXLEN", b"~"];
                let words =
                    [b"XADD", &*channel, maxlen, about, keep.as_bytes(), b"*", b"m", &payload];
                Command::encode(&words)
            }
        };
        let to = plane.nodes.owner(slot);
        let flow = Flow { slot, kept: plane.streams.keeps(name).is_some() };
        for dropped in plane.outbox.push(to, flow, number, command) {
            plane.stats.dropped += 1;
            plane.streams.forget(dropped);
        }
    }
}
