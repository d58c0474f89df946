//! What outlives a connection to the engine: the queue, the topics, the figures; and the end of the
//! bridge that the network knows.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Instant;

use super::BackplaneStats;
use super::envelope::{self, Publisher};
use super::outbox::Outbox;
use super::reader::Reading;
use super::streams::{Id, Streams};
use super::topics::Topics;
use crate::layer::resp::Command;
use crate::message::Message;
use crate::net::Bridge;
use crate::token::Token;

/// So many other processes are remembered by the number of their last message. Beyond it the one that has
/// been silent longest is forgotten: the worst of it is a message twice.
const PUBLISHERS: usize = 1024;

/// Where the connection to the engine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// None; another attempt is due.
    Down,
    /// On its way, or logging in.
    Dialing(Token),
    /// Logged in and subscribed.
    Up(Token),
    /// It was stopped, and makes no more attempts.
    Stopped,
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
    number: u64,
    prefix: Vec<u8>,
    message_limit: usize,
    /// Names that the program itself listens to: they are wanted always.
    listened: HashSet<Vec<u8>>,
    pub(super) outbox: Outbox,
    pub(super) topics: Topics,
    pub(super) streams: Streams,
    /// The second connection, and what it does.
    pub(super) reader: Option<Token>,
    pub(super) reading: Reading,
    pub(super) reader_failures: u32,
    /// A CLIENT UNBLOCK is under way.
    pub(super) unblocking: bool,
    /// The engine refuses it.
    pub(super) cannot_unblock: bool,
    pub(super) stats: BackplaneStats,
    pub(super) phase: Phase,
    /// Since when it is away, if it was there before.
    pub(super) away_since: Option<Instant>,
    /// How many messages had been dropped then.
    pub(super) dropped_before: u64,
    /// Attempts in a row that failed.
    pub(super) failures: u32,
    /// Connections in a row that ended because the engine took nothing, though it answered.
    pub(super) not_now: u32,
    /// Of each other publisher the number of its last message, and when it came.
    heard: HashMap<Publisher, (u64, Instant)>,
}

impl Plane {
    pub(super) fn new(
        prefix: Vec<u8>,
        message_limit: usize,
        outbox: Outbox,
        streams: Streams,
    ) -> Self {
        let mut publisher = Publisher::default();
        crate::sys::random::fill(&mut publisher);
        Plane {
            publisher,
            number: 0,
            prefix,
            message_limit,
            listened: HashSet::new(),
            outbox,
            topics: Topics::default(),
            streams,
            reader: None,
            reading: Reading::Down,
            reader_failures: 0,
            unblocking: false,
            cannot_unblock: false,
            stats: BackplaneStats::default(),
            phase: Phase::Down,
            away_since: None,
            dropped_before: 0,
            failures: 0,
            not_now: 0,
            heard: HashMap::new(),
        }
    }

    pub(super) fn token(&self) -> Option<Token> {
        match self.phase {
            Phase::Dialing(token) | Phase::Up(token) => Some(token),
            Phase::Down | Phase::Stopped => None,
        }
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
            let last = self.heard.insert(publisher, (number, now));
            if let Some((last, _)) = last.filter(|&(last, _)| last >= number) {
                self.heard.insert(publisher, (last, now));
                self.stats.repeated += 1;
                return None;
            }
            self.forget_one();
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
        if !self.streams.is_new(topic, id, arrived.sent, &self.publisher) {
            let own = arrived.sent.is_some_and(|(publisher, _)| publisher == self.publisher);
            *if own { &mut self.stats.own } else { &mut self.stats.repeated } += 1;
            return None;
        }
        self.stats.received += 1;
        Some(Delivery { topic, message: arrived.message, key: arrived.key })
    }

    /// An entry is among those that a newcomer is told: if it is of this process, it has been read back.
    pub(super) fn in_history(&mut self, topic: &[u8], payload: &[u8]) {
        if let Some((publisher, number)) = envelope::open(payload).sent
            && publisher == self.publisher
        {
            self.streams.read_back(topic, number);
        }
    }

    pub(super) fn listen_to(&mut self, name: &[u8]) {
        self.listened.insert(name.into());
        self.want(name, true);
    }

    fn want(&mut self, name: &[u8], wanted: bool) {
        if !wanted && self.listened.contains(name) {
            return;
        }
        match self.streams.keeps(name) {
            Some(_) => self.streams.want(name, wanted),
            None => self.topics.want(name, wanted),
        }
    }

    fn forget_one(&mut self) {
        if self.heard.len() <= PUBLISHERS {
            return;
        }
        let silent = self.heard.iter().min_by_key(|(_, (_, at))| *at);
        if let Some(publisher) = silent.map(|(&publisher, _)| publisher) {
            self.heard.remove(&publisher);
        }
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
        self.0.borrow_mut().phase = Phase::Stopped;
    }

    fn is_done(&self) -> bool {
        let plane = self.0.borrow();
        !matches!(plane.phase, Phase::Up(_)) || !plane.outbox.is_waiting()
    }

    fn published(&mut self, name: &[u8], message: Message<&[u8]>, key: Option<u64>) {
        let plane = &mut *self.0.borrow_mut();
        let length = plane.prefix.len() + name.len() + message.bytes.len();
        if length > plane.message_limit {
            plane.stats.too_large += 1;
            return;
        }
        plane.number += 1;
        plane.stats.published += 1;
        let mut payload = Vec::with_capacity(envelope::sealed_len(key, message));
        envelope::seal(&plane.publisher, plane.number, key, message, &mut payload);
        let channel = plane.channel(name);
        let command = match plane.streams.keeps(name) {
            None => Command::encode(&[b"PUBLISH", &*channel, &*payload]),
            Some(keep) => {
                plane.streams.said(name, plane.number, message);
                let keep = keep.to_string();
                // About so many: exactly would cost a look at each entry.
                let [maxlen, about]: [&[u8]; 2] = [b"MAXLEN", b"~"];
                let words =
                    [b"XADD", &*channel, maxlen, about, keep.as_bytes(), b"*", b"m", &payload];
                Command::encode(&words)
            }
        };
        for dropped in plane.outbox.push(plane.number, command) {
            plane.stats.dropped += 1;
            plane.streams.forget(dropped);
        }
    }
}
