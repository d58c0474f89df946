//! What crosses from one worker to another.
//!
//! A worker collects what it says to each other one during a turn. At the end of the turn that is one batch for
//! each: one lock, and one wake if the other sleeps. Messages by name are stored once for all of them. A batch
//! is handled message by message, within the other's budget for posts.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::WorkerToken;
use super::team::Team;
use super::topics::{Set, each};
use crate::channel::Run;
use crate::core::Arrived;
use crate::guard::{drop_guarded, guarded};
use crate::layer::MessageKind;
use crate::message::Message;
use crate::net::Net;
use crate::remote::Call;
use crate::token::Token;

/// What an item costs beside its bytes, for the limit of what may wait.
const OVERHEAD: usize = 64;

/// Posted to the handler that asked for it: a message to another worker was not delivered. That connection is
/// gone, refused the message, or its worker ended or had too much waiting for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Undelivered {
    /// Where the message was to go.
    pub to: WorkerToken,
}

/// Something for another worker.
pub(crate) enum Item<S> {
    /// The next `len` bytes of the batch.
    Send {
        to: WorkerToken,
        kind: MessageKind,
        len: usize,
        tell: Option<WorkerToken>,
    },
    Notify {
        to: WorkerToken,
        value: Box<dyn Any + Send>,
    },
    /// To the handler `of`, which asked for it: a message to `to` was not delivered. It is never refused, and
    /// counts as no message.
    Report {
        of: WorkerToken,
        to: WorkerToken,
    },
    HalfClose(WorkerToken),
    Close(WorkerToken),
    Abort(WorkerToken),
    CloseAll,
    /// A message by name, by its index in what was said.
    Publish(u32),
    Call(Call<S>),
    /// A connection that the port's acceptor gives to this worker.
    Socket(Arrived),
    /// A listener looks at its port again.
    Look(Token),
    /// For the bridge of this worker: a name has its first group among all workers, or has lost the last.
    NameChanged(Box<[u8]>),
}

/// The messages by name of one turn, for all workers that have members.
#[derive(Default)]
pub(super) struct Said {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

struct Entry {
    name: Range<usize>,
    body: Range<usize>,
    kind: MessageKind,
    key: Option<u64>,
    /// It came through the bridge, and does not go back.
    from_beyond: bool,
}

impl Said {
    /// Adds a message. A name that is the last one's is stored once.
    pub(super) fn add(
        &mut self,
        name: &[u8],
        Message { bytes, kind }: Message<&[u8]>,
        key: Option<u64>,
        from_beyond: bool,
    ) -> u32 {
        let same =
            |entry: &Entry| (self.bytes[entry.name.clone()] == *name).then(|| entry.name.clone());
        let name = self.entries.last().and_then(same).unwrap_or_else(|| {
            let begin = self.bytes.len();
            self.bytes.extend_from_slice(name);
            begin..self.bytes.len()
        });
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.entries.push(Entry { name, body: begin..self.bytes.len(), kind, key, from_beyond });
        self.entries.len() as u32 - 1
    }
}

/// What is collected for one worker.
struct Outgoing<S> {
    items: VecDeque<Item<S>>,
    bytes: Vec<u8>,
    cost: usize,
    /// There is a message by name among them.
    hears: bool,
}

impl<S> Default for Outgoing<S> {
    fn default() -> Self {
        Outgoing { items: VecDeque::new(), bytes: Vec::new(), cost: 0, hears: false }
    }
}

/// What a worker says to all others during a turn.
pub(super) struct Outbox<S> {
    to: Vec<Outgoing<S>>,
    said: Said,
    /// The workers that something is for.
    pending: Set,
}

impl<S> Outbox<S> {
    pub(super) fn new(workers: usize) -> Self {
        let to = std::iter::repeat_with(Outgoing::default).take(workers).collect();
        Outbox { to, said: Said::default(), pending: 0 }
    }

    /// Adds an item with its bytes, unless too much waits for that worker.
    pub(super) fn push(
        &mut self,
        team: &Team<S>,
        worker: usize,
        bytes: &[u8],
        item: Item<S>,
    ) -> Result<(), Item<S>> {
        let cost = bytes.len() + OVERHEAD;
        let outgoing = &mut self.to[worker];
        if item.is_bounded() && !team.has_room(worker, outgoing.cost + cost) {
            return Err(item);
        }
        outgoing.cost += cost;
        outgoing.bytes.extend_from_slice(bytes);
        outgoing.items.push_back(item);
        self.pending |= 1 << worker;
        Ok(())
    }

    /// Adds a message by name for a set of workers. Returns for how many there was no room.
    pub(super) fn publish(
        &mut self,
        team: &Team<S>,
        to: Set,
        name: &[u8],
        message: Message<&[u8]>,
        key: Option<u64>,
        from_beyond: bool,
    ) -> u64 {
        let mut refused = 0;
        // Whoever gets one message keeps all that is said in this turn.
        let said = self.said.bytes.len() + name.len() + message.bytes.len();
        let mut index = None;
        for worker in each(to) {
            let outgoing = &mut self.to[worker];
            if !team.has_room(worker, outgoing.cost + said + OVERHEAD) {
                refused += 1;
                continue;
            }
            let said = &mut self.said;
            let index = *index.get_or_insert_with(|| said.add(name, message, key, from_beyond));
            outgoing.cost += OVERHEAD;
            outgoing.hears = true;
            outgoing.items.push_back(Item::Publish(index));
            self.pending |= 1 << worker;
        }
        refused
    }
}

impl<S: 'static> Outbox<S> {
    /// The end of a turn: each worker gets its batch. Returns how many messages have crossed.
    pub(super) fn flush(&mut self, team: &Arc<Team<S>>) -> u64 {
        let pending = std::mem::take(&mut self.pending);
        if pending == 0 {
            return 0;
        }
        let said = Arc::new(std::mem::take(&mut self.said));
        let mut crossed = 0;
        for worker in each(pending) {
            let Outgoing { items, bytes, cost, hears } = std::mem::take(&mut self.to[worker]);
            crossed += items.iter().filter(|item| item.is_message()).count() as u64;
            let said = if hears { Arc::clone(&said) } else { Arc::default() };
            let cost = cost + said.bytes.len();
            team.post(Batch::new(team, worker, items, bytes, said, cost));
        }
        crossed
    }
}

impl<S> Item<S> {
    /// Whether it counts as a message.
    fn is_message(&self) -> bool {
        matches!(self, Item::Send { .. } | Item::Notify { .. } | Item::Publish(_) | Item::Call(_))
    }

    /// Whether it may be refused where too much waits: not what ends something, and not what each socket and
    /// listener causes once.
    pub(super) fn is_bounded(&self) -> bool {
        self.is_message()
    }
}

/// What one worker has said to another during a turn.
pub(super) struct Batch<S: 'static> {
    team: Arc<Team<S>>,
    pub(super) to: usize,
    items: VecDeque<Item<S>>,
    bytes: Vec<u8>,
    /// How many of them are used.
    used: usize,
    said: Arc<Said>,
    cost: usize,
}

impl<S: 'static> Batch<S> {
    fn new(
        team: &Arc<Team<S>>,
        to: usize,
        items: VecDeque<Item<S>>,
        bytes: Vec<u8>,
        said: Arc<Said>,
        cost: usize,
    ) -> Self {
        team.begins_to_wait(to, cost);
        Batch { team: Arc::clone(team), to, items, bytes, used: 0, said, cost }
    }

    /// One item from any thread.
    pub(super) fn of_one(team: &Arc<Team<S>>, to: usize, bytes: Vec<u8>, item: Item<S>) -> Self {
        let cost = bytes.len() + OVERHEAD;
        Self::new(team, to, VecDeque::from([item]), bytes, Arc::default(), cost)
    }

    /// One message by name from any thread.
    pub(super) fn of_one_said(team: &Arc<Team<S>>, to: usize, said: Arc<Said>) -> Self {
        let cost = said.bytes.len() + OVERHEAD;
        Self::new(team, to, VecDeque::from([Item::Publish(0)]), Vec::new(), said, cost)
    }

    fn handle_one(&mut self, item: Item<S>, state: &mut S, net: &mut Net<S>) {
        match item {
            Item::Send { to, kind, len, tell } => {
                let bytes = &self.bytes[self.used..self.used + len];
                self.used += len;
                let here = net.is_here(to);
                if !(here && net.core.send(to.token, bytes, kind).is_accepted()) {
                    net.not_delivered(to, tell);
                }
            }
            Item::Notify { to, value } => {
                let here = net.is_here(to);
                match if here { net.notify_boxed(to.token, value) } else { Err(value) } {
                    Ok(()) => {}
                    Err(value) => {
                        drop_guarded(value);
                        net.not_delivered(to, None);
                    }
                }
            }
            Item::Report { of, to } => net.report_undelivered(of, to),
            Item::HalfClose(to) if net.is_here(to) => net.half_close(to.token),
            Item::Close(to) if net.is_here(to) => net.close(to.token),
            Item::Abort(to) if net.is_here(to) => net.abort(to.token),
            Item::HalfClose(_) | Item::Close(_) | Item::Abort(_) => {}
            Item::CloseAll => net.close_all(),
            Item::Publish(index) => {
                let entry = &self.said.entries[index as usize];
                let name = &self.said.bytes[entry.name.clone()];
                let message =
                    Message { bytes: &self.said.bytes[entry.body.clone()], kind: entry.kind };
                net.said_elsewhere(name, message, entry.key, entry.from_beyond);
            }
            Item::Call(call) => {
                if let Err(text) = guarded(|| call(state, net)) {
                    log::error!("a closure from another worker panicked: {text}");
                }
            }
            Item::Socket(arrived) => net.connection_arrives(arrived),
            // The token may be one of the worker's former life, and so another's by now.
            Item::Look(listener) if net.core.shares_port(listener) => net.core.make_ready(listener),
            Item::Look(_) => {}
            Item::NameChanged(name) => net.name_changed_elsewhere(&name),
        }
    }
}

impl<S: 'static> Run<S> for Batch<S> {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn handle(&mut self, most: usize, state: &mut S, net: &mut Net<S>) {
        for _ in 0..most {
            let Some(item) = self.items.pop_front() else { return };
            if let Err(text) = guarded(|| self.handle_one(item, state, net)) {
                log::error!("what another worker said caused a panic: {text}");
            }
        }
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// What is left was not delivered: the worker is gone.
impl<S: 'static> Drop for Batch<S> {
    fn drop(&mut self) {
        self.team.waits_no_more(self.to, self.cost);
        for item in std::mem::take(&mut self.items) {
            self.team.item_is_lost(item);
        }
    }
}

impl<S: 'static> Team<S> {
    /// Counts what could not be delivered, tells who asked, and gives connections to other workers.
    pub(super) fn item_is_lost(self: &Arc<Self>, item: Item<S>) {
        if item.is_message() {
            self.count_undelivered(1);
        }
        match item {
            Item::Send { to, tell: Some(tell), .. } => self.tell_undelivered(to, tell),
            Item::Notify { value, .. } => drop_guarded(value),
            Item::Socket(arrived) => arrived.pass_on(),
            Item::Call(call) => drop_guarded(call),
            _ => {}
        }
    }

    /// From any thread.
    pub(super) fn tell_undelivered(self: &Arc<Self>, to: WorkerToken, tell: WorkerToken) {
        let report = Item::Report { of: tell, to };
        self.post(Batch::of_one(self, tell.worker(), Vec::new(), report));
    }
}
