//! The hierarchical timer wheel.

use std::num::NonZeroU32;

use slab::Slab;

mod chain;
mod place;

pub(crate) use chain::{Chain, Owned};
use place::{List, Place};

/// Timers by deadline, and by owner: six levels of 64 slots, and one list for what lies beyond.
///
/// Read a deadline and `now` as numbers of base 64. A timer is filed under the highest digit in
/// which the two differ: that digit's place is the level, its value in the deadline is the slot.
///
/// ```text
///            far    level 5   level 4   level 3   level 2   level 1   level 0
///   slot is         12.4 d    4.7 h     4.4 min   4.1 s     64 ms     1 ms
///
///   now       0       0         0         0         1        17         9
///   timer a   0       0         0         0         1        17        40   -> level 0, slot 40
///   timer b   0       0         0         0         1        30         2   -> level 1, slot 30
///   timer c   1       0         0         0         0         0         5   -> far (2.2 years)
/// ```
///
/// From that follows all the rest:
/// - All slots in use at a level lie ahead of `now`, and all of a lower level come before those of
///   a higher one. So the next slot is the first bit of the first bitmap that is not empty, however
///   far away it is: a jump over hours costs what it crosses in occupied slots, not in ticks.
/// - When `now` enters a slot of a higher level, its timers move down ("cascade"); a timer moves
///   six times at most, however long its delay.
/// - Timers with the same deadline are always in the same slot. Lists are first in, first out, so
///   ties fire in the order of insertion; a re-armed timer counts as newly inserted.
///
/// All lists are doubly linked by `u32` index. Insert, cancel and re-arm are O(1). Memory grows (by
/// doubling) only when there are more timers than ever before, and is kept for the next peak.
///
/// A timer ends in one of two ways. [`cancel`](Self::cancel) and [`cancel_all`](Self::cancel_all)
/// take it out wherever it is, also when it is already due. Or it fires:
/// [`advance`](Self::advance) makes it due, [`pop_due`](Self::pop_due) hands it out,
/// [`finish`](Self::finish) takes it from its owner; user code runs only after that.
pub(crate) struct Wheel<T> {
    entries: Slab<Entry<T>>,
    /// Runs parallel to `entries`, by the same index; what a free entry has here means nothing.
    links: Vec<Link>,
    lists: [List; Place::LISTS],
    /// For each level, bit `s` is set exactly when the list of slot `s` is not empty.
    occupied: [u64; LEVELS],
    /// The tick of the last advance. Every timer that is filed in a slot or far is due after it.
    now: u64,
    last_generation: u32,
}

/// Names one timer. The key of a timer that has ended is refused; it never reaches another one.
///
/// The generation counts insertions of the whole wheel, so a stale key could match again only if
/// exactly 2^32 insertions (or a multiple) lie between it and the timer now at its index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Key {
    index: u32,
    generation: NonZeroU32,
}

#[cfg(feature = "sim")]
impl Key {
    /// A number that no other timer of its wheel has.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation.get())
    }
}

impl<T: Owned> Wheel<T> {
    /// An empty wheel at tick zero, with memory for `capacity` timers (48 bytes each, if the
    /// payload has 16).
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Wheel {
            entries: Slab::with_capacity(capacity),
            links: Vec::with_capacity(capacity),
            lists: [List::EMPTY; Place::LISTS],
            occupied: [0; LEVELS],
            now: 0,
            last_generation: 0,
        }
    }

    /// Sets a timer for tick `deadline`, any value. One that has passed counts as the current tick:
    /// the timer is due at the next advance, never in the one that is being served.
    ///
    /// # Panics
    /// With 2^32 - 2 timers at once, which would be some 200 GB of them.
    pub(crate) fn insert(&mut self, chain: &mut Chain, deadline: u64, payload: T) -> Key {
        debug_assert!(
            chain.head == NIL || self.entry(chain.head).payload.owner() == payload.owner(),
            "a chain holds the timers of one owner"
        );
        let slot = self.entries.vacant_entry();
        let index = u32::try_from(slot.key()).ok().filter(|&index| index < HANDED_OUT);
        let index = index.expect("at most 2^32 - 2 timers at once");
        self.last_generation = self.last_generation.wrapping_add(1).max(1);
        let generation = NonZeroU32::new(self.last_generation).unwrap_or(NonZeroU32::MIN);
        slot.insert(Entry { chain_next: NIL, chain_prev: NIL, generation, payload });
        if index as usize == self.links.len() {
            self.links.push(Link { deadline, next: NIL, prev: NIL });
        }
        self.enter_chain(chain, index);
        self.append(index, deadline, self.place_ahead(deadline).unwrap_or(Place::SOON));
        Key { index, generation }
    }

    /// Ends a timer before it fires, also one that is due but not yet finished.
    ///
    /// `None` if it has ended already, or if `chain` is not its owner's; nothing is changed then.
    pub(crate) fn cancel(&mut self, chain: &mut Chain, key: Key) -> Option<T> {
        if !self.is_in_chain(chain, key) {
            return None;
        }
        self.unlink(key.index);
        self.leave_chain(chain, key.index);
        Some(self.entries.remove(key.index as usize).payload)
    }

    /// Moves a timer to a new deadline; it keeps its key. One that is due but not handed out fires
    /// at the new time only. `false` if the timer has ended or was handed out to be fired.
    pub(crate) fn rearm(&mut self, key: Key, deadline: u64) -> bool {
        if self.get(key).is_none() || self.link(key.index).prev == HANDED_OUT {
            return false;
        }
        self.unlink(key.index);
        self.append(key.index, deadline, self.place_ahead(deadline).unwrap_or(Place::SOON));
        true
    }

    /// The payload of a timer that has not ended, which names its owner.
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.index as usize)?;
        (entry.generation == key.generation).then_some(&entry.payload)
    }

    /// Makes everything due whose deadline is `now` or earlier, in the order of the deadlines,
    /// behind what was due before. A `now` that goes backwards counts as no progress.
    pub(crate) fn advance(&mut self, now: u64) {
        let now = now.max(self.now);
        if self.entries.is_empty() {
            self.now = now;
            return;
        }
        self.make_due(Place::SOON);
        while let Some((place, mut start)) = self.next_stop() {
            if place == Place::FAR && start <= now {
                // A look at all of them, once in 2.2 years, so that `u64::MAX` is not reached in
                // steps of 2.2 years.
                start = self.first_far_range();
            }
            if start > now {
                break;
            }
            self.now = start;
            if place.is_one_tick() {
                self.make_due(place);
            } else {
                self.cascade(place);
            }
        }
        // What is left starts after `now`, so each timer is still under its highest digit.
        self.now = now;
    }

    /// Hands out the next due timer. It stays with its owner until [`finish`](Self::finish).
    pub(crate) fn pop_due(&mut self) -> Option<(Key, &T)> {
        let index = self.lists[Place::DUE.list()].head;
        if index == NIL {
            return None;
        }
        self.unlink(index);
        self.link_mut(index).prev = HANDED_OUT;
        let entry = self.entry(index);
        Some((Key { index, generation: entry.generation }, &entry.payload))
    }

    /// Whether a timer has not ended and has that deadline.
    pub(crate) fn is_set_for(&self, key: Key, deadline: u64) -> bool {
        self.get(key).is_some() && self.link(key.index).deadline == deadline
    }

    /// The tick at which a timer that was just handed out is due.
    #[cfg(any(test, feature = "histograms"))]
    pub(crate) fn deadline_of(&self, key: Key) -> u64 {
        self.link(key.index).deadline
    }

    /// Whether [`pop_due`](Self::pop_due) has one to hand out.
    pub(crate) fn is_any_due(&self) -> bool {
        self.lists[Place::DUE.list()].head != NIL
    }

    /// Whether the next [`advance`](Self::advance) hands one out, whatever the time is.
    pub(crate) fn is_any_at_hand(&self) -> bool {
        self.is_any_due() || self.lists[Place::SOON.list()].head != NIL
    }

    /// Takes a timer that [`pop_due`](Self::pop_due) handed out from its owner, before it is fired.
    ///
    /// `None`, and nothing changed, if it was cancelled since or was not handed out, or if `chain`
    /// is not its owner's.
    pub(crate) fn finish(&mut self, chain: &mut Chain, key: Key) -> Option<T> {
        let handed_out = self.get(key).is_some() && self.link(key.index).prev == HANDED_OUT;
        if handed_out { self.cancel(chain, key) } else { None }
    }

    /// Files a timer that [`pop_due`](Self::pop_due) handed out again, under its key: its owner
    /// cannot have it yet.
    pub(crate) fn put_off(&mut self, key: Key, deadline: u64) {
        if self.get(key).is_some() && self.link(key.index).prev == HANDED_OUT {
            let place = self.place_ahead(deadline).unwrap_or(Place::SOON);
            self.append(key.index, deadline, place);
        }
    }

    /// The tick at which to call [`advance`](Self::advance) again; `None` without timers.
    ///
    /// The current tick while something is due, or will be at once. Otherwise exact within the next
    /// 64 ticks, and never late: the start of the slot that holds the next timer, where it cascades.
    pub(crate) fn next_wake(&self) -> Option<u64> {
        if self.entries.is_empty() {
            return None;
        }
        if self.is_any_at_hand() {
            return Some(self.now);
        }
        self.next_stop().map(|(_, start)| start)
    }

    #[cfg(test)]
    /// Timers that have not ended, those due and handed out included.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The payload of the timer whose key has this number.
    #[cfg(feature = "sim")]
    pub(crate) fn with_number(&self, number: u64) -> Option<&T> {
        let generation = NonZeroU32::new(number as u32)?;
        self.get(Key { index: (number >> 32) as u32, generation })
    }

    /// Calls `visit` with each timer's payload.
    pub(crate) fn each(&self, mut visit: impl FnMut(&T)) {
        self.entries.iter().for_each(|(_, entry)| visit(&entry.payload));
    }

    /// The first list that holds timers not yet due, and the tick at which it starts.
    fn next_stop(&self) -> Option<(Place, u64)> {
        for (level, &bits) in self.occupied.iter().enumerate() {
            if bits != 0 {
                let slot = u64::from(bits.trailing_zeros());
                let shift = level as u32 * SLOT_BITS;
                let start = floor_to(self.now, shift + SLOT_BITS) | slot << shift;
                return Some((Place::slot(level, slot), start));
            }
        }
        if self.lists[Place::FAR.list()].head == NIL {
            return None;
        }
        // Cannot overflow: in the last range of all no deadline is far.
        Some((Place::FAR, floor_to(self.now, RANGE_BITS) + (1 << RANGE_BITS)))
    }

    /// The start of the first range of six levels in which a far timer lies.
    fn first_far_range(&self) -> u64 {
        let mut earliest = u64::MAX;
        let mut index = self.lists[Place::FAR.list()].head;
        while index != NIL {
            let Link { deadline, next, .. } = *self.link(index);
            earliest = earliest.min(deadline);
            index = next;
        }
        floor_to(earliest, RANGE_BITS)
    }

    /// Appends a list whose timers are all due to the due list, without visiting each.
    fn make_due(&mut self, place: Place) {
        let list = self.take(place);
        let last = self.lists[Place::DUE.list()].tail;
        if list.head == NIL {
            return;
        }
        if last == NIL {
            self.lists[Place::DUE.list()] = list;
        } else {
            self.lists[Place::DUE.list()].tail = list.tail;
            self.link_mut(last).next = list.head;
            self.link_mut(list.head).prev = last;
        }
    }

    /// Files the timers of a list again, as seen from the present `now`, in the same order.
    ///
    /// Each link holds the index of the next, so a long list costs a cache miss at each step. `scout`
    /// walks from the other end and only reads: its misses overlap with ours, and from the middle on the
    /// links are in the cache (firing a million timers takes a third less time).
    fn cascade(&mut self, place: Place) {
        let List { head: mut index, tail: mut scout } = self.take(place);
        while index != NIL {
            let Link { next, deadline, .. } = *self.link(index);
            if scout != NIL {
                let met = scout == index || scout == next;
                scout = if met { NIL } else { self.link(scout).prev };
            }
            self.append(index, deadline, self.place_ahead(deadline).unwrap_or(Place::DUE));
            index = next;
        }
    }

    /// Empties a list; its timers must go elsewhere.
    fn take(&mut self, place: Place) -> List {
        self.mark_empty(place);
        std::mem::replace(&mut self.lists[place.list()], List::EMPTY)
    }

    /// Where a deadline belongs; `None` if it is not after `now`.
    fn place_ahead(&self, deadline: u64) -> Option<Place> {
        if deadline <= self.now {
            return None;
        }
        let highest_bit = (deadline ^ self.now).ilog2();
        if highest_bit >= RANGE_BITS {
            return Some(Place::FAR);
        }
        let level = highest_bit / SLOT_BITS;
        Some(Place::slot(level as usize, deadline >> (level * SLOT_BITS) & SLOT_MASK))
    }

    /// Where the first or last timer of a list is, by its deadline alone.
    fn place_of_end(&self, index: u32, deadline: u64) -> Place {
        self.place_ahead(deadline).unwrap_or_else(|| {
            let List { head, tail } = self.lists[Place::DUE.list()];
            if head == index || tail == index { Place::DUE } else { Place::SOON }
        })
    }

    /// Puts a timer that is in no list at the end of one.
    fn append(&mut self, index: u32, deadline: u64, place: Place) {
        let list = &mut self.lists[place.list()];
        let prev = std::mem::replace(&mut list.tail, index);
        if prev == NIL {
            list.head = index;
            if let Some((level, bit)) = place.bit() {
                self.occupied[level] |= bit;
            }
        } else {
            self.link_mut(prev).next = index;
        }
        *self.link_mut(index) = Link { deadline, next: NIL, prev };
    }

    /// Takes a timer out of its list, if it is in one; the caller files it elsewhere.
    fn unlink(&mut self, index: u32) {
        let Link { deadline, next, prev } = *self.link(index);
        if prev == HANDED_OUT {
            return;
        }
        if prev == NIL || next == NIL {
            let place = self.place_of_end(index, deadline);
            let list = &mut self.lists[place.list()];
            if prev == NIL {
                list.head = next;
            }
            if next == NIL {
                list.tail = prev;
            }
            if list.head == NIL {
                self.mark_empty(place);
            }
        }
        if prev != NIL {
            self.link_mut(prev).next = next;
        }
        if next != NIL {
            self.link_mut(next).prev = prev;
        }
    }

    fn mark_empty(&mut self, place: Place) {
        if let Some((level, bit)) = place.bit() {
            self.occupied[level] &= !bit;
        }
    }

    fn entry(&self, index: u32) -> &Entry<T> {
        &self.entries[index as usize]
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry<T> {
        &mut self.entries[index as usize]
    }

    fn link(&self, index: u32) -> &Link {
        &self.links[index as usize]
    }

    fn link_mut(&mut self, index: u32) -> &mut Link {
        &mut self.links[index as usize]
    }
}

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_MASK: u64 = SLOTS as u64 - 1;
/// The bits of a tick that the six levels cover; what differs in a higher one is far.
const RANGE_BITS: u32 = LEVELS as u32 * SLOT_BITS;
/// The index of no timer.
const NIL: u32 = u32::MAX;
/// In place of the index of the timer before: this one is in no list, it was handed out to be fired.
const HANDED_OUT: u32 = u32::MAX - 1;

/// One timer as its owner sees it: payload, generation, chain.
///
/// The generation can't be zero: there the slab marks free entries, at no cost in memory.
struct Entry<T> {
    chain_next: u32,
    /// `NIL` exactly for the timer at which the owner's chain starts.
    chain_prev: u32,
    generation: NonZeroU32,
    payload: T,
}

/// One timer, for time: its deadline and its neighbours in the list it is in.
///
/// Apart from the entries, because a cascade follows these links from one cache miss to the next:
/// so it reads 16 bytes of each timer, not 48, and a million timers fit the last-level cache. That is
/// also why the place is not stored: `place_ahead` computes it from the deadline.
#[derive(Clone, Copy)]
struct Link {
    deadline: u64,
    next: u32,
    prev: u32,
}

/// Clears the lowest `bits` bits.
fn floor_to(tick: u64, bits: u32) -> u64 {
    tick >> bits << bits
}

#[cfg(test)]
#[path = "wheel_tests.rs"]
mod tests;
