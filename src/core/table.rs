//! Entities by token.
//!
//! A structure of its own, so that an entity can be borrowed together with the work lists and the
//! buffer pool beside it: a token is looked up once per step.

use super::{DatagramSocket, ListeningSockets, Session, SessionSocket};
use crate::connection::Stream;
use crate::timer::Chain;
use crate::token::{Generations, Token};

/// One of the things a token can name.
#[derive(Debug)]
pub(crate) enum Entity {
    Stream(Stream),
    Listener(Box<ListeningSockets>),
    Datagram(Box<DatagramSocket>),
    /// A UDP socket whose peers have sessions.
    SessionSocket(Box<SessionSocket>),
    Session(Box<Session>),
    /// A custom source. The source itself is kept with its callback, among the handlers.
    Source(Box<Attached>),
}

/// Calls, so that looking up a plain UDP socket is one comparison as long as it is one.
impl Entity {
    #[cold]
    pub(super) fn session_datagram(&self) -> Option<&DatagramSocket> {
        match self {
            Entity::SessionSocket(owner) => Some(&owner.socket),
            _ => None,
        }
    }

    #[cold]
    pub(super) fn session_datagram_mut(&mut self) -> Option<&mut DatagramSocket> {
        match self {
            Entity::SessionSocket(owner) => Some(&mut owner.socket),
            _ => None,
        }
    }
}

/// What the core keeps for a custom source.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    pub(crate) timers: Chain,
    /// It is on the list of those with work left.
    pub(crate) in_ready: bool,
    /// Readiness that came when the time of a turn was up.
    pub(crate) put_off: u8,
    pub(crate) dead: bool,
}

/// The generation of a free slot. No token has it, so one comparison rejects a stale token, whether its
/// slot is free or reused.
const FREE: u32 = 0;

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// `None` in a free slot.
    entity: Option<Entity>,
}

/// Entities by token. A token whose generation is not the slot's is stale.
pub(crate) struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
    generations: Generations,
}

impl Table {
    pub(crate) fn new() -> Self {
        Table { slots: Vec::new(), free: Vec::new(), generations: Generations::new() }
    }

    /// `None` if there are more entities than tokens can name.
    pub(crate) fn insert(&mut self, entity: Entity) -> Option<Token> {
        let index = self.free.last().copied().unwrap_or(self.slots.len());
        let generation = self.generations.next();
        let token = Token::new(index, generation)?;
        let new = Slot { generation, entity: Some(entity) };
        if self.free.pop().is_some() {
            self.slots[index] = new;
        } else {
            self.slots.push(new);
        }
        Some(token)
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<Entity> {
        let slot = self.slot_mut(token)?;
        slot.generation = FREE;
        let entity = slot.entity.take();
        self.free.push(token.index());
        entity
    }

    pub(crate) fn entity(&self, token: Token) -> Option<&Entity> {
        let slot = self.slots.get(token.index())?;
        if slot.generation == token.generation() { slot.entity.as_ref() } else { None }
    }

    pub(crate) fn entity_mut(&mut self, token: Token) -> Option<&mut Entity> {
        self.slot_mut(token)?.entity.as_mut()
    }

    pub(crate) fn stream(&self, token: Token) -> Option<&Stream> {
        match self.entity(token)? {
            Entity::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    pub(crate) fn stream_mut(&mut self, token: Token) -> Option<&mut Stream> {
        match self.entity_mut(token)? {
            Entity::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    /// How many entities there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All tokens that name something now.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        let used = self.slots.iter().enumerate().filter(|(_, slot)| slot.generation != FREE);
        used.filter_map(|(index, slot)| Token::new(index, slot.generation)).collect()
    }

    /// Whether it is served before others: some connections are.
    pub(crate) fn is_trunk(&self, token: Token) -> bool {
        self.stream(token).is_some_and(Stream::is_trunk)
    }

    /// Sets whether the entity is on the ready list; returns whether that changed.
    pub(crate) fn set_in_ready(&mut self, token: Token, in_ready: bool) -> bool {
        let place = match self.entity_mut(token) {
            Some(Entity::Stream(stream)) => return stream.set_in_ready(in_ready),
            Some(Entity::Listener(listener)) => &mut listener.in_ready,
            Some(Entity::Datagram(socket)) => &mut socket.in_ready,
            Some(Entity::SessionSocket(owner)) => &mut owner.socket.in_ready,
            Some(Entity::Source(source)) => &mut source.in_ready,
            Some(Entity::Session(_)) | None => return false,
        };
        std::mem::replace(place, in_ready) != in_ready
    }

    fn slot_mut(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(token.index())?;
        if slot.generation == token.generation() { Some(slot) } else { None }
    }
}

/// What an idle connection costs beside its handler and the 16 bytes of its place in the table of
/// handlers (`docs/performance.md` has the sum). In debug builds mio's sockets are larger.
#[cfg(all(target_os = "linux", target_pointer_width = "64", not(debug_assertions), not(test)))]
const _: () = assert!(size_of::<Slot>() <= 88);
