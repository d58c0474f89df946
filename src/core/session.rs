//! Sessions: the peers of a UDP socket that have a token of their own.
//!
//! A session is an entity of the table, like a connection, so that timers, groups, notifications and
//! sends by token serve it as they serve any other. Its socket knows it by the peer's address.
//!
//! It keeps its place with the socket until its `on_close` has been called: an address never has two
//! sessions, and the limits count those that are ending.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::{Core, DatagramSocket, Entity, Stopping};
use crate::connection::{Due, SENDS_UNTIL_LATE, SendStatus};
use crate::error::{CloseReason, Deadline};
use crate::guard::drop_guarded;
use crate::packet_info::PacketInfo;
use crate::session::{SessionOptions, SessionStats, origin_of};
use crate::sys::Mark;
use crate::timer::{Chain, ticks_ceil};
use crate::token::Token;

/// How often in a row an idle session's end is put off, by a tick each, while datagrams are known to
/// wait, one of which may be its own. A socket's receive buffer (208 KiB by default on Linux) is read
/// out in fewer turns; a flood must not keep sessions for ever.
const PUT_OFF_AT_MOST: u8 = 100;

/// One peer.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) socket: Token,
    pub(crate) peer: SocketAddr,
    /// From where its peer expects answers: where it was heard when it was admitted. Later datagrams do not
    /// change that, since anybody can forge them.
    mark: Mark,
    pub(crate) timers: Chain,
    /// Its place in the socket's list.
    place: u32,
    /// When the peer was last heard.
    last: u64,
    /// How many bytes an abort has taken out of the queue.
    pub(crate) unsent: usize,
    put_off: u8,
    /// A send was refused because the socket's queue was full: `on_drain` follows.
    refused: bool,
    pub(crate) dead: bool,
}

/// A UDP socket with sessions.
#[derive(Debug)]
pub(crate) struct SessionSocket {
    pub(crate) socket: DatagramSocket,
    pub(crate) options: SessionOptions,
    pub(crate) stats: SessionStats,
    by_peer: HashMap<SocketAddr, Token>,
    /// How many sessions each address has. Never zero.
    by_origin: HashMap<IpAddr, usize>,
    /// All sessions. The maps are never gone through: their order differs from run to run.
    pub(crate) sessions: Vec<Token>,
    /// Those that wait for `on_drain`.
    refused: Vec<Token>,
    /// Those that are to get it now: a deadline has come between. The next one last.
    untold: Vec<Token>,
    /// Since when it is not paused: silence before that is not the peers'.
    pub(super) listens_since: u64,
}

/// Who has sent a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Session(Token),
    /// Its session has ended, and `on_close` is still to be called.
    Ending,
    Unknown,
}

impl SessionSocket {
    pub(crate) fn new(mut socket: DatagramSocket, options: SessionOptions) -> Self {
        socket.opened = true; // it has no `on_open`
        SessionSocket {
            socket,
            options,
            stats: SessionStats::default(),
            by_peer: HashMap::new(),
            by_origin: HashMap::new(),
            sessions: Vec::new(),
            refused: Vec::new(),
            untold: Vec::new(),
            listens_since: 0,
        }
    }

    fn has_room_for(&self, peer: SocketAddr) -> bool {
        let of_origin = self.by_origin.get(&origin_of(peer)).copied().unwrap_or(0);
        self.sessions.len() < self.options.max_sessions && of_origin < self.options.max_per_address
    }

    /// How an answer to a datagram leaves: from the address that it was sent to, if this socket has more
    /// than one.
    #[cfg(feature = "packet-info")]
    pub(crate) fn mark_of(&self, info: Option<&PacketInfo>) -> Mark {
        match info {
            Some(info) if self.socket.has_any_address => Mark::from_local(info.local),
            _ => Mark::default(),
        }
    }

    /// The system chooses.
    #[cfg(not(feature = "packet-info"))]
    pub(crate) fn mark_of(&self, _: Option<&PacketInfo>) -> Mark {
        Mark::default()
    }

    fn add(&mut self, peer: SocketAddr, token: Token) {
        self.by_peer.insert(peer, token);
        *self.by_origin.entry(origin_of(peer)).or_default() += 1;
        self.sessions.push(token);
        self.stats.open = self.sessions.len();
        self.stats.accepted += 1;
    }

    /// Removes the session at `place`. Returns the one that has its place now, if there is one.
    fn remove(&mut self, peer: SocketAddr, place: u32) -> Option<Token> {
        self.by_peer.remove(&peer);
        let origin = origin_of(peer);
        if let Some(count) = self.by_origin.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.by_origin.remove(&origin);
            }
        }
        self.sessions.swap_remove(place as usize);
        self.stats.open = self.sessions.len();
        // What a crowd has needed is given back when most of it is gone.
        if self.sessions.capacity() > 64 && self.sessions.capacity() / 4 > self.sessions.len() {
            let keep = 2 * self.sessions.len();
            self.sessions.shrink_to(keep);
            self.by_peer.shrink_to(keep);
            self.by_origin.shrink_to(keep);
        }
        self.sessions.get(place as usize).copied()
    }

    /// What is wrong with the books, if anything is: each session has the place that it says, and the
    /// limits hold.
    #[cfg(feature = "sim")]
    pub(super) fn audit<'a>(
        &self,
        session: impl Fn(Token) -> Option<&'a Session>,
        watched: &std::collections::HashSet<Token>,
    ) -> Option<String> {
        let mut origins: HashMap<IpAddr, usize> = HashMap::new();
        for (place, &token) in self.sessions.iter().enumerate() {
            let Some(session) = session(token) else {
                return Some(format!("{token} is kept with its socket, but is no session"));
            };
            if session.place as usize != place || self.by_peer.get(&session.peer) != Some(&token) {
                return Some(format!("{token} is not where its socket looks for it"));
            }
            if self.options.idle_timeout.is_some() && !session.dead && !watched.contains(&token) {
                return Some(format!("nothing watches whether {token} is idle"));
            }
            *origins.entry(origin_of(session.peer)).or_default() += 1;
        }
        let count = self.sessions.len();
        if count > self.options.max_sessions || count != self.by_peer.len() {
            return Some(format!("{count} sessions, of {} peers", self.by_peer.len()));
        }
        let SessionStats { open, accepted, closed, .. } = self.stats;
        if accepted != open as u64 + closed.total() {
            return Some(format!(
                "{accepted} sessions were begun, {open} are open, ended: {closed}"
            ));
        }
        if origins != self.by_origin {
            return Some(format!("the sessions of each address are counted wrongly: {origins:?}"));
        }
        let most = origins.values().copied().max().unwrap_or(0);
        (most > self.options.max_per_address)
            .then(|| format!("an address has {most} sessions, above its limit"))
    }
}

impl Core {
    pub(crate) fn session(&self, token: Token) -> Option<&Session> {
        match self.entity(token)? {
            Entity::Session(session) => Some(session),
            _ => None,
        }
    }

    fn session_mut(&mut self, token: Token) -> Option<&mut Session> {
        match self.entity_mut(token)? {
            Entity::Session(session) => Some(session),
            _ => None,
        }
    }

    pub(crate) fn session_socket(&self, token: Token) -> Option<&SessionSocket> {
        match self.entity(token)? {
            Entity::SessionSocket(socket) => Some(socket),
            _ => None,
        }
    }

    pub(crate) fn session_socket_mut(&mut self, token: Token) -> Option<&mut SessionSocket> {
        match self.entity_mut(token)? {
            Entity::SessionSocket(socket) => Some(socket),
            _ => None,
        }
    }

    // ---- a session begins ----

    /// Whose datagram of `len` bytes this is; notes that its sender was heard.
    pub(crate) fn heard(&mut self, socket: Token, from: SocketAddr, len: usize) -> Sender {
        let tick = self.work.tick;
        let Some(owner) = self.session_socket_mut(socket) else { return Sender::Unknown };
        let Some(&known) = owner.by_peer.get(&from) else { return Sender::Unknown };
        owner.stats.messages_received += 1;
        owner.stats.bytes_received += len as u64;
        match self.session_mut(known) {
            Some(session) if !session.dead => {
                session.last = tick;
                session.put_off = 0;
                Sender::Session(known)
            }
            _ => {
                self.was_late(socket, len);
                Sender::Ending
            }
        }
    }

    /// Nobody gets that datagram.
    #[cold]
    fn was_late(&mut self, socket: Token, len: usize) {
        let Some(owner) = self.session_socket_mut(socket) else { return };
        owner.stats.late += 1;
        owner.stats.messages_received -= 1;
        owner.stats.bytes_received -= len as u64;
    }

    /// Notes to which address a session's peer sends: answers come from it.
    #[inline]
    pub(crate) fn note_local(&mut self, token: Token, info: Option<&PacketInfo>) {
        if info.is_none() {
            return;
        }
        let Some(socket) = self.session(token).map(|session| session.socket) else { return };
        let Some(owner) = self.session_socket(socket) else { return };
        let mark = owner.mark_of(info);
        if let Some(session) = self.session_mut(token) {
            session.mark = mark;
        }
    }

    pub(crate) fn session_of(&self, socket: Token, peer: SocketAddr) -> Option<Token> {
        self.session_socket(socket)?.by_peer.get(&peer).copied()
    }

    /// Whether there is room for a session of this peer.
    pub(crate) fn admits(&self, socket: Token, peer: SocketAddr) -> bool {
        let ends = self.ended || matches!(self.stopping, Stopping::Draining(_));
        !ends && self.session_socket(socket).is_some_and(|s| s.has_room_for(peer))
    }

    /// `None` where no token is left.
    pub(crate) fn open_session(&mut self, socket: Token, peer: SocketAddr) -> Option<Token> {
        let place = self.session_socket(socket)?.sessions.len() as u32;
        let session = Session {
            socket,
            peer,
            mark: Mark::default(),
            timers: Chain::default(),
            place,
            last: self.work.tick,
            unsent: 0,
            put_off: 0,
            refused: false,
            dead: false,
        };
        let token = self.insert(Entity::Session(Box::new(session))).ok()?;
        let owner = self.session_socket_mut(socket)?;
        owner.add(peer, token);
        if let Some(idle) = owner.options.idle_timeout {
            let at = self.work.tick_after_this_moment(idle);
            self.watch(token, at);
        }
        Some(token)
    }

    // ---- sending ----

    /// Queues a datagram for a session's peer. It leaves at the end of the turn, in one batch with those
    /// to others.
    pub(super) fn send_to_session(&mut self, token: Token, bytes: &[u8]) -> SendStatus {
        let Some(&Session { socket, peer, mark, dead: false, .. }) = self.session(token) else {
            return SendStatus::Gone;
        };
        let Some(owner) = self.session_socket_mut(socket) else { return SendStatus::Gone };
        if bytes.len() > owner.options.datagram_limit {
            return SendStatus::Unencodable;
        }
        owner.stats.messages_sent += 1;
        owner.stats.bytes_sent += bytes.len() as u64;
        if !owner.socket.has_room_for(bytes.len()) {
            self.empty_full_queue(socket, bytes.len());
        }
        let status = self.send_marked(socket, Some(peer), mark, bytes);
        if status == SendStatus::Full {
            self.was_refused(socket, token, bytes.len());
        }
        status
    }

    /// The queue is full: what the system takes leaves at once, since one message to many peers may be
    /// more than the queue holds. A turn with a deadline makes room for this message only.
    #[cold]
    fn empty_full_queue(&mut self, socket: Token, len: usize) {
        let most = if self.work.keeps_deadline() { SENDS_UNTIL_LATE } else { usize::MAX };
        let Some((full, outbox)) = self.datagram_and_outbox(socket) else { return };
        loop {
            full.flush(outbox, most);
            if full.has_room_for(len) || !full.has_more() {
                break;
            }
        }
        if full.drained || !full.errors.is_empty() {
            self.make_ready(socket);
        }
    }

    /// A message to a session was not queued.
    #[cold]
    fn was_refused(&mut self, socket: Token, token: Token, len: usize) {
        if let Some(owner) = self.session_socket_mut(socket) {
            owner.stats.messages_sent -= 1;
            owner.stats.bytes_sent -= len as u64;
        }
        self.wait_for_drain(socket, token);
    }

    fn wait_for_drain(&mut self, socket: Token, token: Token) {
        // A datagram that is longer than the whole queue waits for nothing.
        if self.datagram(socket).is_some_and(DatagramSocket::is_blocked)
            && let Some(session) = self.session_mut(token)
            && !std::mem::replace(&mut session.refused, true)
            && let Some(owner) = self.session_socket_mut(socket)
        {
            owner.refused.push(token);
        }
    }

    /// The queue is empty again: the sessions that are to be told, the next one last. Those first that a
    /// deadline has cut off.
    pub(crate) fn take_refused(&mut self, socket: Token) -> Vec<Token> {
        let Some(owner) = self.session_socket_mut(socket) else { return Vec::new() };
        let untold = std::mem::take(&mut owner.untold);
        if !untold.is_empty() && owner.socket.is_blocked() {
            return untold; // the others wait for the next time that it is empty
        }
        let mut told = std::mem::take(&mut owner.refused);
        told.retain(|&token| match self.session_mut(token) {
            Some(session) => std::mem::take(&mut session.refused) && !session.dead,
            None => false,
        });
        told.reverse();
        told.extend(untold);
        told
    }

    /// The deadline has come before these were told: they are the first ones next time.
    #[cold]
    pub(crate) fn tell_later(&mut self, socket: Token, untold: Vec<Token>) {
        let Some(owner) = self.session_socket_mut(socket) else { return };
        owner.untold = untold;
        owner.socket.drained = true;
        self.make_ready_later(socket);
    }

    /// Drops what was sent on a UDP socket, or to one session's peer, and has not left. Returns how
    /// many bytes that were.
    pub(crate) fn clear_queue(&mut self, token: Token) -> usize {
        let (socket, peer) = match self.entity(token) {
            Some(Entity::Session(session)) => (session.socket, Some(session.peer)),
            Some(Entity::Datagram(_) | Entity::SessionSocket(_)) => (token, None),
            _ => return 0,
        };
        let mut published = 0;
        if self.groups.has_pending() {
            let sessions = match self.session_socket(token) {
                Some(owner) => owner.sessions.clone(),
                None => vec![token],
            };
            for member in sessions {
                published += self.groups.pending_bytes_of(member);
                self.groups.forget(member);
            }
        }
        let Some(queue) = self.datagram_mut(socket) else { return published };
        let cleared = queue.clear(peer);
        if queue.drained && !queue.dead {
            self.make_ready(socket);
        }
        published + cleared
    }

    // ---- a session ends ----

    /// Counts an end.
    pub(crate) fn count_session_end(&mut self, socket: Token, reason: &CloseReason) {
        self.work.counts.sessions_closed.count(reason);
        if let Some(owner) = self.session_socket_mut(socket) {
            owner.stats.closed.count(reason);
        }
    }

    /// Starts the watch for a silent peer, for `at`.
    fn watch(&mut self, token: Token, at: u64) {
        if let Some(Entity::Session(session)) = self.table.entity_mut(token) {
            self.work.timers.insert(&mut session.timers, at, Due::Watchdog(token));
        }
    }

    /// The peer may have been silent for too long.
    pub(super) fn session_watchdog(&mut self, token: Token) {
        let tick = self.work.tick;
        let Some(&Session { socket, last, put_off, dead: false, .. }) = self.session(token) else {
            return;
        };
        let Some(owner) = self.session_socket(socket) else { return };
        let Some(idle) = owner.options.idle_timeout else { return };
        // One more, because the tick that was noted began before the datagram came.
        let idle = ticks_ceil(idle).saturating_add(1);
        let due = last.max(owner.listens_since).saturating_add(idle);
        if owner.socket.paused {
            self.watch(token, tick.saturating_add(idle));
        } else if due > tick {
            self.watch(token, due);
        } else if owner.socket.has_known_input() && put_off < PUT_OFF_AT_MOST {
            if let Some(session) = self.session_mut(token) {
                session.put_off += 1;
            }
            self.watch(token, tick + 1);
        } else {
            self.finish_session(token, CloseReason::TimedOut(Deadline::Idle));
        }
    }

    /// Ends a session. What was sent and published to it before leaves, unless it is aborted. The first
    /// reason counts.
    pub(super) fn finish_session(&mut self, token: Token, reason: CloseReason) {
        if self.session(token).is_none_or(|session| session.dead) {
            return drop_guarded(reason);
        }
        let unsent = match reason {
            CloseReason::Aborted => self.clear_queue(token),
            _ => {
                self.settle_groups_before_direct(token);
                0
            }
        };
        self.groups.leave_all(token);
        if let Some(session) = self.session_mut(token) {
            session.dead = true;
            session.unsent = unsent;
            self.work.dead.push((token, reason));
        }
    }

    /// Ends all sessions of a socket.
    #[cold]
    pub(crate) fn finish_sessions(&mut self, socket: Token, reason: impl Fn() -> CloseReason) {
        let Some(owner) = self.session_socket(socket) else { return };
        for token in owner.sessions.clone() {
            self.finish_session(token, reason());
        }
    }

    /// A session's `on_close` has been called: its peer's next datagram is a stranger's.
    pub(super) fn forget_session(&mut self, session: &Session) {
        let Some(owner) = self.session_socket_mut(session.socket) else { return };
        if let Some(moved) = owner.remove(session.peer, session.place)
            && let Some(other) = self.session_mut(moved)
        {
            other.place = session.place;
        }
    }
}
