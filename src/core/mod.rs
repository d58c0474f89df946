//! Everything a callback may touch: the sockets, their queues, the timers, the lists of work.
//!
//! The core knows no handler and calls none. That is what lets a handler be borrowed at the same
//! time: dispatch (in `reactor/`) holds both, the handlers beside the core and not inside it. Work
//! that must end in a callback is noted here and found by the turn.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::connection::{Carriage, Link, Phase, Stream, Tail, Wire};
use crate::error::CloseReason;
use crate::signal::Signal;
use crate::sys;
use crate::timer::{Chain, Wheel};
use crate::token::Token;

mod close;
mod connecting;
mod datagram;
mod deadlines;
mod group;
mod listener;
mod relay;
mod send;
mod sockets;
mod spares;
mod table;

pub(crate) use datagram::DatagramSocket;
pub(crate) use deadlines::Due;
pub(crate) use group::GAP;
use group::Groups;
pub use listener::ListenerStats;
pub(crate) use listener::{Listening, ListeningSockets};
pub use send::SendStatus;
use spares::Spares;
use table::Table;
pub(crate) use table::{Attached, Entity};

/// How much memory of the queue of signals is kept: what a turn handles by default.
const KEPT_SIGNALS: usize = 1024;

/// How the loop is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// It is not.
    No,
    /// After this turn.
    Now,
    /// When the last connection has ended, at this tick at the latest.
    Draining(u64),
}

pub(crate) struct Core {
    pub(crate) sys: sys::Poller,
    pub(crate) config: Config,
    table: Table,
    /// The turn's one reading of the clock.
    pub(crate) now: Instant,
    pub(crate) tick: u64,
    start: Instant,
    pub(crate) timers: Wheel<Due>,
    /// The timers that belong to the reactor itself.
    pub(crate) own_timers: Chain,
    /// What has work that no event will announce: unread input, an unused edge, an owed callback.
    pub(crate) ready: VecDeque<Token>,
    /// What has used up its budget and goes on in the next turn: it joins `ready` then.
    later: Vec<Token>,
    /// Connections with output to flush at the end of the turn.
    pub(crate) dirty: Vec<Token>,
    /// What waits to be reaped, and why it ended.
    pub(crate) dead: Vec<(Token, CloseReason)>,
    pub(crate) signals: VecDeque<(Token, Signal)>,
    /// How many more wait with connections that do not stand yet.
    parked: usize,
    pub(crate) groups: Groups,
    spares: Spares,
    /// What all UDP sockets send with.
    outbox: sys::Outbox,
    /// What relays splice through.
    pub(crate) pipes: sys::Pipes,
    /// Whose callback runs: its own output is flushed when it returns, not at the end of the turn.
    pub(crate) current: Option<Token>,
    /// Listeners that wait for a descriptor.
    pub(crate) starved: Vec<Token>,
    /// Listeners that a shutdown closes once they have served who was accepted.
    draining: Vec<Token>,
    pub(crate) stopping: Stopping,
    pub(crate) streams: usize,
    /// The reactor is being dropped: nothing new is made.
    pub(crate) ended: bool,
}

impl Core {
    pub(crate) fn new(config: Config) -> io::Result<Self> {
        let config = config.sane();
        let sys = sys::Poller::new(config.events_per_turn)?;
        let now = sys.now();
        Ok(Core {
            sys,
            config,
            table: Table::new(),
            now,
            tick: 0,
            start: now,
            timers: Wheel::with_capacity(0),
            own_timers: Chain::default(),
            ready: VecDeque::new(),
            later: Vec::new(),
            dirty: Vec::new(),
            dead: Vec::new(),
            signals: VecDeque::new(),
            parked: 0,
            groups: Groups::default(),
            spares: Spares::default(),
            outbox: sys::Outbox::default(),
            pipes: sys::Pipes::default(),
            current: None,
            starved: Vec::new(),
            draining: Vec::new(),
            stopping: Stopping::No,
            streams: 0,
            ended: false,
        })
    }

    /// Reads the clock for this turn.
    pub(crate) fn read_clock(&mut self) {
        self.now = self.sys.now();
        self.tick = crate::timer::ticks_floor(self.now.saturating_duration_since(self.start));
    }

    /// The tick at which `after` from this very moment is due, rounded up so that nothing is early.
    /// Not from the turn's time, which may be a long callback ago.
    pub(crate) fn tick_after_this_moment(&self, after: Duration) -> u64 {
        let now = self.sys.now();
        crate::timer::deadline_after(now.saturating_duration_since(self.start), after)
    }

    /// When tick `tick` begins.
    pub(crate) fn instant_of(&self, tick: u64) -> Option<Instant> {
        self.start.checked_add(Duration::from_millis(tick))
    }

    // ---- tokens ----

    /// Gives `entity` a token.
    pub(crate) fn insert(&mut self, entity: Entity) -> io::Result<Token> {
        if self.ended {
            return Err(io::Error::other("the reactor is being dropped"));
        }
        let is_stream = matches!(entity, Entity::Stream(_));
        let token = self.table.insert(entity).ok_or_else(|| {
            io::Error::new(io::ErrorKind::OutOfMemory, "more sockets than tokens can name")
        })?;
        self.streams += usize::from(is_stream);
        Ok(token)
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<Entity> {
        let entity = self.table.remove(token)?;
        self.streams -= usize::from(matches!(entity, Entity::Stream(_)));
        Some(entity)
    }

    pub(crate) fn entity(&self, token: Token) -> Option<&Entity> {
        self.table.entity(token)
    }

    pub(crate) fn entity_mut(&mut self, token: Token) -> Option<&mut Entity> {
        self.table.entity_mut(token)
    }

    /// What an event is about, and whether that has its turn later on anyway.
    pub(crate) fn of_event(&mut self, token: Token) -> Option<(&mut Entity, bool)> {
        self.table.of_event(token)
    }

    pub(crate) fn stream(&self, token: Token) -> Option<&Stream> {
        self.table.stream(token)
    }

    pub(crate) fn stream_mut(&mut self, token: Token) -> Option<&mut Stream> {
        self.table.stream_mut(token)
    }

    pub(crate) fn listener_mut(&mut self, token: Token) -> Option<&mut ListeningSockets> {
        match self.entity_mut(token)? {
            Entity::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    pub(crate) fn datagram(&self, token: Token) -> Option<&DatagramSocket> {
        match self.entity(token)? {
            Entity::Datagram(socket) => Some(socket),
            _ => None,
        }
    }

    pub(crate) fn datagram_mut(&mut self, token: Token) -> Option<&mut DatagramSocket> {
        match self.entity_mut(token)? {
            Entity::Datagram(socket) => Some(socket),
            _ => None,
        }
    }

    /// A UDP socket, and what it sends with.
    pub(crate) fn datagram_and_outbox(
        &mut self,
        token: Token,
    ) -> Option<(&mut DatagramSocket, &mut sys::Outbox)> {
        match self.table.entity_mut(token)? {
            Entity::Datagram(socket) => Some((socket, &mut self.outbox)),
            _ => None,
        }
    }

    /// All tokens that name something now.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.table.tokens()
    }

    // ---- lists of work ----

    /// Notes that something has work to do that no event will announce.
    pub(crate) fn make_ready(&mut self, token: Token) {
        if self.table.set_in_ready(token, true) {
            self.ready.push_back(token);
        }
    }

    /// The same for what has had its share of this turn.
    pub(crate) fn make_ready_later(&mut self, token: Token) {
        if self.table.set_in_ready(token, true) {
            self.later.push(token);
        }
    }

    /// A turn begins: the clock is read, and what had its share of the last turn gets another.
    pub(crate) fn begin_turn(&mut self) {
        self.read_clock();
        self.ready.extend(self.later.drain(..));
        if self.signals.is_empty() && self.signals.capacity() > KEPT_SIGNALS {
            self.signals = VecDeque::new(); // a flood is over
        }
    }

    /// Takes the next one from that list.
    pub(crate) fn next_ready(&mut self) -> Option<Token> {
        let token = self.ready.pop_front()?;
        self.table.set_in_ready(token, false);
        Some(token)
    }

    /// Whether anything is left that must not wait for an event.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty()
            || !self.later.is_empty()
            || !self.dirty.is_empty()
            || !self.dead.is_empty()
            || !self.signals.is_empty()
            || self.groups.has_pending()
    }

    /// Keeps a signal for a connection until that is open.
    pub(crate) fn park_signal(&mut self, token: Token, signal: Signal) {
        let Some(stream) = self.table.stream_mut(token) else { return };
        stream.extra_mut().signals.push(signal);
        self.parked += 1;
    }

    /// How many signals have somebody to get them and were not told yet: they count against the
    /// limit of what other threads may post.
    pub(crate) fn untold_signals(&self) -> usize {
        self.signals.len() + self.parked
    }

    // ---- reading on and off ----

    /// Whether input may be read and offered now.
    pub(crate) fn may_read(&self, token: Token) -> bool {
        self.stream(token).is_some_and(|stream| self.lets_read(stream))
    }

    /// Not paused by the handler, and the queue that paces it is not full. For a linked connection
    /// that is the partner's queue *instead of* its own (with both, two full directions would wait
    /// for each other forever).
    pub(crate) fn lets_read(&self, stream: &Stream) -> bool {
        if stream.phase != Phase::Open {
            // What a dying or handshaking connection brings is always looked at.
            return true;
        }
        let held_back = match stream.link() {
            Some(link) => self.holds_back(link, stream),
            None => stream.over_high && stream.options().auto_pause,
        };
        // What waits for a late layer's handshake would wait for ever if that were not read.
        let held_back = held_back && stream.wire().is_none_or(Wire::is_ready);
        !stream.paused && !held_back
    }

    pub(crate) fn set_paused(&mut self, token: Token, paused: bool) {
        let was_paused = match self.entity_mut(token) {
            Some(Entity::Stream(stream)) => {
                stream.fresh |= stream.paused && !paused;
                &mut stream.paused
            }
            Some(Entity::Listener(listener)) => &mut listener.paused,
            Some(Entity::Datagram(socket)) => &mut socket.paused,
            Some(Entity::Source(_)) | None => return,
        };
        if std::mem::replace(was_paused, paused) && !paused {
            // The edges that came meanwhile are noted.
            self.make_ready(token);
        }
    }

    /// Pairs two connections: each one's reads wait for the other's queue. `false` if one is gone.
    pub(crate) fn link(&mut self, a: Token, b: Token) -> bool {
        let linked = a != b && self.is_alive(a) && self.is_alive(b);
        if linked {
            self.pair(a, b, None);
        }
        linked
    }

    /// Makes a pair of two that live. Whoever they were paired with is on its own again.
    fn pair(&mut self, a: Token, b: Token, relay: Option<Carriage>) {
        for (one, other) in [(a, b), (b, a)] {
            self.unlink(one);
            if let Some(stream) = self.stream_mut(one) {
                stream.extra_mut().link = Some(Link { other, relay, takes_pipes: true });
            }
            self.make_ready(one);
        }
    }

    /// Takes a pair apart; each one's own queue paces it again.
    pub(crate) fn unlink(&mut self, token: Token) {
        let Some(extra) = self.stream_mut(token).and_then(|s| s.extra.as_mut()) else { return };
        let Some(Link { other, .. }) = extra.link.take() else { return };
        if let Some(extra) = self.stream_mut(other).and_then(|s| s.extra.as_mut()) {
            extra.link = None;
            self.make_ready(other);
        }
        self.make_ready(token);
    }

    fn is_alive(&self, token: Token) -> bool {
        self.stream(token).is_some_and(|s| s.phase != Phase::Dead)
    }

    // ---- buffers for reuse ----

    /// Keeps what a handler left unread.
    pub(crate) fn stash_input(&mut self, token: Token, rest: &[u8]) {
        let Some(stream) = self.table.stream_mut(token) else { return };
        if let Some(tail) = &mut stream.input {
            return tail.push(rest);
        }
        let mut tail = self.spares.tail();
        tail.push(rest);
        stream.input = Some(tail);
    }

    /// Puts what has just come behind what waits. `false` if nothing waits: nothing is done then.
    #[inline]
    pub(crate) fn stash_behind_unread(&mut self, token: Token, bytes: &[u8]) -> bool {
        match self.table.stream_mut(token) {
            Some(Stream { input: Some(tail), fresh, .. }) if !tail.is_empty() => {
                *fresh = true;
                tail.push(bytes);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn recycle_tail(&mut self, tail: Box<Tail>) {
        self.spares.keep_tail(tail);
    }
}
