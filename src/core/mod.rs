//! Everything a callback may touch: the sockets, their queues, the timers, the lists of work.
//!
//! The core knows no handler and calls none, so that a handler can be borrowed together with it:
//! `reactor/` holds the handlers beside the core. Work that has to end in a callback is put on a list
//! here, which the turn takes up.

use std::collections::VecDeque;
use std::io;

use crate::config::Config;
use crate::connection::{Conn, Served, Stream, Work};
use crate::notification::Notification;
use crate::sys;
use crate::token::Token;

#[cfg(feature = "sim")]
mod census;
mod close;
mod connecting;
mod datagram;
mod deadlines;
mod group;
mod listener;
mod notes;
mod relay;
mod send;
mod session;
mod shares;
mod shutdown;
mod sockets;
mod stats;
mod table;

pub(crate) use datagram::{DatagramSocket, PutOff};
use group::Groups;
pub(crate) use group::QUIET_GAP;
pub use group::{GroupStats, Published};
pub use listener::ListenerStats;
pub(crate) use listener::{Listening, ListeningSockets};
pub(crate) use session::{Sender, Session, SessionSocket};
pub(crate) use shares::{Arrived, Place, Shares};
use table::Table;
pub(crate) use table::{Attached, Entity};

/// How many notifications' memory is kept for reuse: what a turn handles by default.
const KEPT_NOTIFICATIONS: usize = 1024;

/// How the loop is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// It goes on.
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
    /// The time, the timers, the lists of work, the buffers: what steps of connections use.
    pub(crate) work: Work,
    /// Notifications that are not delivered yet.
    pub(crate) notifications: VecDeque<(Token, Notification)>,
    /// How many notifications are parked with connections that are not open yet.
    parked: usize,
    pub(crate) groups: Groups,
    /// The buffers that all UDP sockets send with.
    outbox: sys::Outbox,
    /// The pipes that relays splice through.
    pub(crate) pipes: sys::Pipes,
    /// Listeners that wait for a descriptor.
    pub(crate) waiting_for_descriptor: Vec<Token>,
    /// Listeners that a shutdown closes once their backlog is accepted.
    draining: Vec<Token>,
    pub(crate) stopping: Stopping,
    pub(crate) streams: usize,
    /// Entities that are no sockets.
    sessions: usize,
    #[cfg(feature = "tcp-info")]
    pub(crate) diagnosis: sys::Diagnosis,
    /// The reactor is being dropped: no new socket is made.
    pub(crate) ended: bool,
}

impl Core {
    pub(crate) fn new(config: Config) -> io::Result<Self> {
        let config = config.sane();
        let sys = sys::Poller::new(config.events_per_turn)?;
        let mut work = Work::new(sys.clock());
        work.time_as_told(&config);
        work.sends_per_turn = config.datagram_sends_per_turn;
        work.sends_at_once = config.datagram_sends_per_turn;
        Ok(Core {
            work,
            sys,
            config,
            table: Table::new(),
            notifications: VecDeque::new(),
            parked: 0,
            groups: Groups::default(),
            outbox: sys::Outbox::default(),
            pipes: sys::Pipes::default(),
            waiting_for_descriptor: Vec::new(),
            draining: Vec::new(),
            stopping: Stopping::No,
            streams: 0,
            sessions: 0,
            #[cfg(feature = "tcp-info")]
            diagnosis: sys::Diagnosis::default(),
            ended: false,
        })
    }

    // ---- tokens ----

    /// Gives `entity` a token.
    pub(crate) fn insert(&mut self, entity: Entity) -> io::Result<Token> {
        if self.ended {
            return Err(io::Error::other("the reactor is being dropped"));
        }
        let is_stream = matches!(entity, Entity::Stream(_));
        let is_session = matches!(entity, Entity::Session(_));
        let token = self.table.insert(entity).ok_or_else(|| {
            io::Error::new(io::ErrorKind::OutOfMemory, "more sockets than tokens can name")
        })?;
        self.streams += usize::from(is_stream);
        self.sessions += usize::from(is_session);
        Ok(token)
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<Entity> {
        let entity = self.table.remove(token)?;
        self.streams -= usize::from(matches!(entity, Entity::Stream(_)));
        self.sessions -= usize::from(matches!(entity, Entity::Session(_)));
        Some(entity)
    }

    pub(crate) fn entity(&self, token: Token) -> Option<&Entity> {
        self.table.entity(token)
    }

    pub(crate) fn entity_mut(&mut self, token: Token) -> Option<&mut Entity> {
        self.table.entity_mut(token)
    }

    /// The entity of an event, together with the work lists: one look-up for the whole event.
    pub(crate) fn of_event(&mut self, token: Token) -> Option<(&mut Entity, &mut Work)> {
        Some((self.table.entity_mut(token)?, &mut self.work))
    }

    pub(crate) fn stream(&self, token: Token) -> Option<&Stream> {
        self.table.stream(token)
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
            other => other.session_datagram(),
        }
    }

    pub(crate) fn datagram_mut(&mut self, token: Token) -> Option<&mut DatagramSocket> {
        match self.entity_mut(token)? {
            Entity::Datagram(socket) => Some(socket),
            other => other.session_datagram_mut(),
        }
    }

    /// A UDP socket and the buffers that it sends with.
    pub(crate) fn datagram_and_outbox(
        &mut self,
        token: Token,
    ) -> Option<(&mut DatagramSocket, &mut sys::Outbox)> {
        match self.table.entity_mut(token)? {
            Entity::Datagram(socket) => Some((socket, &mut self.outbox)),
            other => Some((other.session_datagram_mut()?, &mut self.outbox)),
        }
    }

    /// How many turns it takes to see every socket once, where each turn is as full as it may be.
    pub(crate) fn turns_for_all_sockets(&self) -> usize {
        let per_turn = self.config.events_per_turn.min(self.config.work_per_turn);
        1 + (self.table.len() - self.sessions) / per_turn
    }

    /// All tokens that name something now.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.table.tokens()
    }

    // ---- lists of work ----

    /// Puts a socket on the list of work that no event announces.
    pub(crate) fn make_ready(&mut self, token: Token) {
        if self.table.set_in_ready(token, true) {
            let trunk = self.table.is_trunk(token);
            self.work.line.join(token, trunk);
        }
    }

    /// The same for one that has used up its budget: it is served in the next turn.
    pub(crate) fn make_ready_later(&mut self, token: Token) {
        if self.table.set_in_ready(token, true) {
            let trunk = self.table.is_trunk(token);
            self.work.line.join_later(token, trunk);
        }
    }

    /// A turn begins: reads the clock, and gives every socket a new budget.
    pub(crate) fn begin_turn(&mut self) {
        self.work.read_clock();
        // After a turn that ran out of work units the sockets that wait are served before new events:
        // else peers that send without a pause would starve them.
        let waiting = !self.work.line.is_empty();
        self.work.counts.turns += 1;
        self.work.in_line = self.work.units == 0 && waiting;
        self.work.counts.work_exhausted += u64::from(self.work.units == 0);
        self.work.units = self.config.work_per_turn;
        if waiting {
            self.work.line.begin_turn(self.config.work_per_turn);
        }
        if self.notifications.is_empty() && self.notifications.capacity() > KEPT_NOTIFICATIONS {
            self.notifications = VecDeque::new(); // a flood is over
        }
    }

    /// Takes the next socket off the ready list.
    pub(crate) fn next_ready(&mut self) -> Option<Served> {
        let served = self.work.line.next()?;
        self.table.set_in_ready(served.token, false);
        Some(served)
    }

    /// Whether the loop ends after this turn: what it does not do now is never done.
    pub(crate) fn is_last_turn(&self) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::Now => true,
            Stopping::Draining(tick) => tick <= self.work.tick,
        }
    }

    /// Whether work is left that no event announces.
    pub(crate) fn has_work(&self) -> bool {
        self.work.is_pending() || !self.notifications.is_empty() || self.groups.has_pending()
    }

    // ---- notifications ----

    /// Keeps a notification for a connection until that is open.
    pub(crate) fn park_notification(&mut self, token: Token, notification: Notification) {
        let Some(stream) = self.table.stream_mut(token) else { return };
        stream.park_notification(notification);
        self.parked += 1;
    }

    /// The connection is open: its parked notifications are delivered next, before later ones.
    pub(crate) fn unpark_notifications(&mut self, token: Token, notifications: Vec<Notification>) {
        self.parked -= notifications.len();
        for notification in notifications.into_iter().rev() {
            self.notifications.push_front((token, notification));
        }
    }

    /// Notifications queued or parked but not delivered; they count towards `post_limit`.
    pub(crate) fn undelivered_notifications(&self) -> usize {
        self.notifications.len() + self.parked
    }

    // ---- input ----

    /// The reply of the running callback stays where it is: asking changes nothing about it.
    pub(crate) fn ask_batch_end(&mut self, token: Token) -> bool {
        let stream = self.table.stream_mut(token);
        stream.is_some_and(|stream| Conn { token, stream, work: &mut self.work }.ask_batch_end())
    }

    pub(crate) fn set_paused(&mut self, token: Token, paused: bool) {
        let tick = self.work.tick;
        let was_paused = match self.entity_mut(token) {
            Some(Entity::Stream(_)) => {
                self.with(token, |conn| conn.set_paused(paused));
                return;
            }
            Some(Entity::Listener(listener)) => {
                if let Some(share) = listener.share.as_ref().filter(|_| listener.draining.is_none())
                {
                    share.set_taking(!paused);
                }
                &mut listener.paused
            }
            Some(Entity::Datagram(socket)) => &mut socket.paused,
            Some(Entity::SessionSocket(owner)) => {
                owner.listens_since = tick;
                &mut owner.socket.paused
            }
            Some(Entity::Session(_) | Entity::Source(_)) | None => return,
        };
        if std::mem::replace(was_paused, paused) && !paused {
            // Edges that came meanwhile are recorded.
            self.make_ready(token);
        }
    }
}
