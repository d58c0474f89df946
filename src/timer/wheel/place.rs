//! The lists in which timers wait, and their names.

use super::{LEVELS, NIL, SLOTS};

/// The first and last timer of a place, or twice `NIL`.
#[derive(Clone, Copy)]
pub(super) struct List {
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl List {
    pub(super) const EMPTY: List = List { head: NIL, tail: NIL };
}

/// One of the lists: a slot's (`level * 64 + slot`), or one of those below.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u16);

impl Place {
    pub(super) const SLOTS: u16 = (LEVELS * SLOTS) as u16;
    /// Beyond the range of the six levels.
    pub(super) const FAR: Place = Place(Self::SLOTS);
    /// Set for a tick that had come: due at the next advance.
    pub(super) const SOON: Place = Place(Self::SLOTS + 1);
    /// Due, and waiting to be handed out.
    pub(super) const DUE: Place = Place(Self::SLOTS + 2);
    pub(super) const LISTS: usize = Self::SLOTS as usize + 3;

    pub(super) fn slot(level: usize, slot: u64) -> Place {
        Place((level * SLOTS) as u16 + slot as u16)
    }

    /// A slot of the lowest level: all its timers have the same deadline.
    pub(super) fn is_one_tick(self) -> bool {
        self.list() < SLOTS
    }

    pub(super) fn list(self) -> usize {
        usize::from(self.0)
    }

    /// The place's level and its bit in the level's bitmap, for a slot.
    pub(super) fn bit(self) -> Option<(usize, u64)> {
        (self.0 < Self::SLOTS).then(|| (self.list() / SLOTS, 1 << (self.list() % SLOTS)))
    }
}
