//! Groups, their members, and what each member has not been given yet.
//!
//! A pure structure: it knows tokens and bytes, no connection. Its user asks for the next member to
//! serve ([`Groups::next_member`]) and takes what is pending for it ([`Groups::take`]).
//!
//! The members of a group come in two parts: first the *marked* ones, for which something is
//! pending, then the others. The first message for a member that has been given everything marks
//! it, and its seat keeps the index of that message: everything from there on is pending. Marking
//! visits the second part only, so each mark is paid for by a delivery. When the last mark is gone,
//! the log is cleared; until then its indices hold.
//!
//! A marked membership is also in a list of its member, and the member is in the queue of those to
//! serve. So serving costs what is pending, however many groups a member is in.

use std::collections::{HashMap, VecDeque};

use slab::Slab;

use super::NONE;
use super::gather::Gather;
use super::log::{Log, Part};
use super::member::{Member, Membership, Merge, shrink};
use super::stats::{GroupStats, Published, Since};
use super::work::Visits;
use crate::connection::{Classes, KEPT_CAPACITY, SendStatus};
use crate::layer::MessageKind;
use crate::token::{Generations, Group, Token};

/// How much of its log's memory a group keeps for each member between turns: a group of many is a
/// busy one, and its log is small beside what the members themselves take.
const KEPT_PER_MEMBER: usize = 1024;

/// A member's place in a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) member: u32,
    /// Where the group is among the member's memberships.
    at: u32,
    /// While marked: the first message that is pending.
    pub(super) from: u32,
    /// The latest message since then that excludes the member, or [`NONE`].
    pub(super) last_excluding: u32,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Seat>() <= 16);

#[derive(Debug)]
pub(super) struct State {
    pub(super) handle: Group,
    tokens: Vec<Token>,
    /// By the same places as `tokens`.
    pub(super) seats: Vec<Seat>,
    /// How many members are marked; those have the first places.
    marked: usize,
    pub(super) log: Log,
    published: u64,
    dropped: u64,
    replaced: u64,
    /// Of both, since the last publish.
    since: Since,
    name: Option<Box<[u8]>>,
    /// It is in the list of named groups that may have no members.
    in_emptied: bool,
}

impl State {
    /// So many deliveries were dropped.
    pub(super) fn count_dropped(&mut self, deliveries: u64) {
        self.dropped += deliveries;
        self.since.drop(deliveries);
    }

    /// Gives back what an empty log does not need.
    pub(super) fn recycle(&mut self) {
        if self.log.is_empty() {
            self.log.recycle(KEPT_CAPACITY.max(self.tokens.len() * KEPT_PER_MEMBER));
        }
    }
}

/// All groups.
#[derive(Debug)]
pub(crate) struct Groups {
    pub(super) slots: Slab<State>,
    generations: Generations,
    names: HashMap<Box<[u8]>, Group>,
    /// Named groups to look at at the end of the turn: those without members are removed.
    emptied: Vec<Group>,
    /// The names of removed groups, where something outside this reactor asks for them.
    pub(crate) removed_names: Option<Vec<Box<[u8]>>>,
    pub(super) members: Slab<Member>,
    /// The member, or [`NONE`], by the index of its token.
    ids: Vec<u32>,
    /// Members to serve, the next one first. Some may have nothing pending any more.
    queue: VecDeque<u32>,
    /// How many messages were published in all groups.
    published: u64,
    /// Some message has had a key.
    keyed: bool,
    pub(crate) gather: Gather,
    /// The classes of members with layers.
    pub(super) classes: Classes,
    /// Work that was done since the last flush, in parts of a unit.
    pub(super) work: usize,
    /// Parts of a unit that callbacks have cost and that no budget has paid for yet.
    unpaid: usize,
    pub(super) visits: Visits,
    // Kept for their memory.
    pub(super) parts: Vec<Part>,
    /// The keys of `parts`, where some of them have one.
    pub(super) keys: Vec<Option<u64>>,
    pub(super) copied: Vec<u8>,
    pub(super) merge: Merge,
}

impl Default for Groups {
    fn default() -> Self {
        Groups {
            slots: Slab::new(),
            generations: Generations::new(),
            names: HashMap::new(),
            emptied: Vec::new(),
            removed_names: None,
            members: Slab::new(),
            ids: Vec::new(),
            queue: VecDeque::new(),
            published: 0,
            keyed: false,
            gather: Gather::default(),
            classes: Classes::default(),
            work: 0,
            unpaid: 0,
            visits: Visits::default(),
            parts: Vec::new(),
            keys: Vec::new(),
            copied: Vec::new(),
            merge: Merge::new(),
        }
    }
}

impl Groups {
    // ---- groups ----

    /// `None` if there are more groups than tokens can name.
    pub(crate) fn create(&mut self) -> Option<Group> {
        self.insert(None)
    }

    /// The group of that name; makes it if there is none.
    pub(crate) fn named(&mut self, name: &[u8]) -> Option<Group> {
        if let Some(group) = self.find(name) {
            return Some(group);
        }
        let group = self.insert(Some(name.into()))?;
        self.names.insert(name.into(), group);
        self.note_empty(group.0.index());
        Some(group)
    }

    /// The names of all named groups.
    pub(crate) fn all_names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.keys().map(|name| &**name)
    }

    /// The group of that name, if there is one.
    pub(crate) fn find(&self, name: &[u8]) -> Option<Group> {
        self.names.get(name).copied()
    }

    fn insert(&mut self, name: Option<Box<[u8]>>) -> Option<Group> {
        let generation = self.generations.next();
        let entry = self.slots.vacant_entry();
        let handle = Group(Token::new(entry.key(), generation)?);
        entry.insert(State {
            handle,
            tokens: Vec::new(),
            seats: Vec::new(),
            marked: 0,
            log: Log::default(),
            published: 0,
            dropped: 0,
            replaced: 0,
            since: Since::default(),
            name,
            in_emptied: false,
        });
        Some(handle)
    }

    /// Removes a group. What is pending for its members has to be taken first, it is lost else.
    pub(crate) fn remove(&mut self, group: Group) {
        let Some(index) = self.index_of(group) else { return };
        for place in 0..self.slots[index].seats.len() {
            self.forget_member(self.slots[index].seats[place].member);
        }
        let state = self.slots.remove(index);
        for seat in &state.seats {
            self.end_membership(seat.member, seat.at);
            self.release(seat.member);
        }
        if let Some(name) = state.name {
            self.names.remove(&name);
            if let Some(removed) = &mut self.removed_names {
                removed.push(name);
            }
        }
    }

    /// Whether the end of the turn has nothing to do for groups.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.queue.is_empty()
            && self.emptied.is_empty()
            && self.work == 0
            && !(self.has_pending() || self.gather.was_cut)
    }

    /// The end of a turn: removes the named groups that have no members.
    pub(crate) fn remove_empty(&mut self) {
        while let Some(group) = self.emptied.pop() {
            let Some(index) = self.index_of(group) else { continue };
            self.slots[index].in_emptied = false;
            if self.slots[index].tokens.is_empty() {
                self.remove(group);
            }
        }
    }

    fn note_empty(&mut self, index: usize) {
        let state = &mut self.slots[index];
        if state.name.is_some() && !std::mem::replace(&mut state.in_emptied, true) {
            self.emptied.push(state.handle);
        }
    }

    pub(super) fn index_of(&self, group: Group) -> Option<usize> {
        let index = group.0.index();
        (self.slots.get(index)?.handle == group).then_some(index)
    }

    pub(crate) fn stats(&self, group: Group) -> Option<GroupStats> {
        let State { tokens, published, dropped, replaced, .. } =
            &self.slots[self.index_of(group)?];
        Some(GroupStats {
            members: tokens.len(),
            published: *published,
            dropped: *dropped,
            replaced: *replaced,
        })
    }

    /// Counts what became of a message for one member.
    pub(in crate::core) fn count(&mut self, group: Group, status: SendStatus) {
        let Some(index) = self.index_of(group) else { return };
        let state = &mut self.slots[index];
        match status {
            SendStatus::Full | SendStatus::Unencodable => state.count_dropped(1),
            SendStatus::Replaced => {
                state.replaced += 1;
                state.since.replace();
            }
            SendStatus::Queued | SendStatus::AboveHighWater | SendStatus::Gone => {}
        }
    }

    // ---- members ----

    /// How many members' tokens pass the test.
    #[cfg(feature = "sim")]
    pub(crate) fn members_without(&self, is_gone: impl Fn(Token) -> bool) -> usize {
        self.members.iter().filter(|(_, member)| is_gone(member.token)).count()
    }

    pub(crate) fn members(&self, group: Group) -> &[Token] {
        self.index_of(group).map_or(&[], |index| &self.slots[index].tokens)
    }

    pub(crate) fn is_member(&self, group: Group, token: Token) -> bool {
        self.seat_of(group, token).is_some()
    }

    /// A group's index, the member, and its place in the group.
    fn seat_of(&self, group: Group, token: Token) -> Option<(usize, u32, u32)> {
        let index = self.index_of(group)?;
        let id = self.id_of(token)?;
        let member = &self.members[id as usize];
        let at = member.find(index as u32)?;
        Some((index, id, member.memberships[at as usize].place))
    }

    pub(super) fn id_of(&self, token: Token) -> Option<u32> {
        let id = *self.ids.get(token.index())?;
        (self.members.get(id as usize)?.token == token).then_some(id)
    }

    /// `false` if the group is gone. Joining twice is joining once.
    pub(crate) fn join(&mut self, group: Group, token: Token) -> bool {
        let Some(index) = self.index_of(group) else { return false };
        let id = self.id_of(token).unwrap_or_else(|| self.add_member(token));
        let member = &mut self.members[id as usize];
        if member.find(index as u32).is_none() {
            let state = &mut self.slots[index];
            let at = member.add(index as u32, state.tokens.len() as u32);
            state.tokens.push(token);
            state.seats.push(Seat { member: id, at, from: 0, last_excluding: NONE });
        }
        true
    }

    fn add_member(&mut self, token: Token) -> u32 {
        let id = self.members.insert(Member::new(token)) as u32;
        if token.index() >= self.ids.len() {
            self.ids.resize(token.index() + 1, NONE);
        }
        self.ids[token.index()] = id;
        id
    }

    /// `false` if it was no member. What is pending for the member has to be taken first, in all its
    /// groups; it is lost else.
    pub(crate) fn leave(&mut self, group: Group, token: Token) -> bool {
        let Some((_, id, _)) = self.seat_of(group, token) else { return false };
        self.forget_member(id);
        // Forgetting moves seats.
        let Some((index, _, place)) = self.seat_of(group, token) else { return false };
        let at = self.slots[index].seats[place as usize].at;
        self.vacate(index, place);
        self.end_membership(id, at);
        self.release(id);
        true
    }

    /// Takes a member out of all its groups. What is pending for it is forgotten.
    pub(crate) fn leave_all(&mut self, token: Token) {
        let Some(id) = self.id_of(token) else { return };
        self.forget_member(id);
        for membership in self.members[id as usize].remove_all() {
            self.vacate(membership.group as usize, membership.place);
        }
        self.release(id);
    }

    /// Frees a seat that is not marked. The last one takes its place.
    fn vacate(&mut self, index: usize, place: u32) {
        let state = &mut self.slots[index];
        state.tokens.swap_remove(place as usize);
        state.seats.swap_remove(place as usize);
        if let Some(&Seat { member, at, .. }) = state.seats.get(place as usize) {
            self.members[member as usize].memberships[at as usize].place = place;
        }
        shrink(&mut state.tokens);
        shrink(&mut state.seats);
        if state.tokens.is_empty() {
            state.recycle();
            state.log.forget_forms();
            self.note_empty(index);
        }
    }

    fn end_membership(&mut self, id: u32, at: u32) {
        if let Some(moved) = self.members[id as usize].remove(at) {
            self.slots[moved.group as usize].seats[moved.place as usize].at = at;
        }
    }

    /// Forgets a member without groups, unless the queue still names it.
    fn release(&mut self, id: u32) {
        let member = &self.members[id as usize];
        if !member.memberships.is_empty() || member.queued {
            return;
        }
        let index = member.token.index();
        self.members.remove(id as usize);
        if self.ids[index] == id {
            self.ids[index] = NONE;
        }
    }

    // ---- messages ----

    /// Callbacks caused work by publishing, or by a direct send before which pending messages had to
    /// go. Returns the whole units that this and earlier work cost.
    pub(super) fn whole_units(&mut self, cost: usize) -> usize {
        let unpaid = self.unpaid + cost;
        self.unpaid = unpaid % super::work::UNIT;
        unpaid / super::work::UNIT
    }

    /// How many messages were published up to now, in all groups.
    pub(crate) fn published_count(&self) -> u64 {
        self.published
    }

    /// Whether a message of that size would take the group's log over `limit`.
    pub(crate) fn is_full(&self, group: Group, size: usize, limit: usize) -> bool {
        self.index_of(group).is_some_and(|index| self.slots[index].log.is_full(size, limit))
    }

    /// Appends a message to the group's log. Costs O(1) beside the marks that it makes.
    #[inline(always)] // messages with a key are the one other case
    pub(crate) fn publish(
        &mut self,
        group: Group,
        bytes: &[u8],
        kind: MessageKind,
        except: Option<Token>,
    ) -> Published {
        let Some(index) = self.index_of(group) else { return Published::default() };
        let excluded = except.and_then(|token| self.seat_of(group, token));
        let state = &mut self.slots[index];
        let mut unmarked = state.marked..state.tokens.len();
        let members = state.tokens.len() - usize::from(excluded.is_some());
        if members == 0 {
            return Published::new(members, std::mem::take(&mut state.since));
        }
        let (mut previous, mut except) = (NONE, NONE);
        if let Some((_, id, place)) = excluded {
            if (place as usize) < state.marked {
                let message = state.log.len();
                let seat = &mut state.seats[place as usize];
                previous = std::mem::replace(&mut seat.last_excluding, message);
                except = id;
            } else {
                // Nothing is pending for it, and nothing need be.
                unmarked.end -= 1;
                self.swap_seats(index, place, unmarked.end as u32);
            }
        }
        self.mark(index, unmarked);
        let state = &mut self.slots[index];
        self.work +=
            super::work::bytes(state.log.push(self.published, bytes, kind, except, previous));
        self.published += 1;
        state.published += 1;
        if state.log.len() == 2 {
            self.gather.crowded += state.marked;
        }
        Published::new(members, std::mem::take(&mut state.since))
    }

    /// Appends a message with a key: of what waits for a member that has fallen behind, it replaces the
    /// one with this key.
    #[inline(never)]
    pub(crate) fn publish_keyed(
        &mut self,
        group: Group,
        key: u64,
        bytes: &[u8],
        kind: MessageKind,
        except: Option<Token>,
    ) -> Published {
        let number = self.published;
        let published = self.publish(group, bytes, kind, except);
        if published.members > 0
            && let Some(index) = self.index_of(group)
        {
            self.slots[index].log.set_key(number, key);
            self.keyed = true;
        }
        published
    }

    /// What the keys of a group's pending messages take, and one more.
    pub(crate) fn cost_of_keys(&self, group: Group) -> usize {
        let keys = self.index_of(group).map_or(0, |index| self.slots[index].log.cost_of_keys());
        keys + size_of::<(u64, u64)>()
    }

    /// Whether a message with a key is pending for a member.
    pub(super) fn has_keys(&self, token: Token) -> bool {
        let Some(id) = self.id_of(token).filter(|_| self.keyed) else { return false };
        let mut pending = self.members[id as usize].pending();
        pending.any(|membership| self.slots[membership.group as usize].log.has_keys())
    }

    /// Something is pending for these members from the next message on.
    fn mark(&mut self, index: usize, places: std::ops::Range<usize>) {
        let state = &mut self.slots[index];
        let from = state.log.len();
        let count = places.len();
        self.visits.add(1 + count);
        state.marked += count;
        self.gather.marks += count;
        if from >= 2 {
            self.gather.crowded += count;
        }
        // The last one is served first. Then it leaves the marked part without moving another one.
        for seat in state.seats[places].iter_mut().rev() {
            seat.from = from;
            seat.last_excluding = NONE;
            let member = &mut self.members[seat.member as usize];
            let first = std::mem::replace(&mut member.first_pending, seat.at);
            member.memberships[seat.at as usize].next_pending = first;
            if !std::mem::replace(&mut member.queued, true) {
                self.queue.push_back(seat.member);
            }
        }
    }

    /// The member at `place` has got everything. The caller takes the membership off its member's
    /// list.
    #[inline]
    pub(super) fn unmark(&mut self, index: usize, place: u32) {
        let state = &mut self.slots[index];
        self.gather.marks -= 1;
        if state.log.len() >= 2 {
            self.gather.crowded -= 1;
        }
        state.marked -= 1;
        let last = state.marked;
        if last == 0 {
            state.log.finish();
        }
        if place != last as u32 {
            self.swap_seats(index, place, last as u32);
        }
    }

    fn swap_seats(&mut self, index: usize, one: u32, other: u32) {
        if one == other {
            return;
        }
        let state = &mut self.slots[index];
        state.tokens.swap(one as usize, other as usize);
        state.seats.swap(one as usize, other as usize);
        for place in [one, other] {
            let Seat { member, at, .. } = state.seats[place as usize];
            self.members[member as usize].memberships[at as usize].place = place;
        }
    }

    // ---- members to serve ----

    /// Whether something is pending for some member.
    pub(crate) fn has_pending(&self) -> bool {
        self.gather.marks > 0
    }

    /// Whether something is pending for this one.
    pub(crate) fn is_pending(&self, token: Token) -> bool {
        self.id_of(token).is_some_and(|id| self.members[id as usize].is_pending())
    }

    /// A member of this group for which something is pending in it.
    pub(crate) fn marked_member(&self, group: Group) -> Option<Token> {
        let state = &self.slots[self.index_of(group)?];
        state.tokens[..state.marked].last().copied()
    }

    /// The member to serve next, and its index. It is off the queue: take what is pending for it, or forget
    /// that.
    #[inline]
    pub(crate) fn next_member(&mut self) -> Option<(Token, u32)> {
        while let Some(id) = self.queue.pop_front() {
            self.visits.add(1);
            let member = &mut self.members[id as usize];
            member.queued = false;
            if member.is_pending() {
                return Some((member.token, id));
            }
            self.release(id);
        }
        if self.queue.capacity() * size_of::<u32>() > KEPT_CAPACITY {
            self.queue = VecDeque::new();
        }
        None
    }

    /// A member has been given a part of what is pending: it is served again after all others.
    pub(super) fn serve_again(&mut self, id: u32) {
        if !std::mem::replace(&mut self.members[id as usize].queued, true) {
            self.queue.push_back(id);
        }
    }

    /// Nothing can be delivered to this member any more.
    pub(crate) fn forget(&mut self, token: Token) {
        if let Some(id) = self.id_of(token) {
            self.forget_member(id);
        }
    }

    fn forget_member(&mut self, id: u32) {
        let member = &mut self.members[id as usize];
        if !member.is_pending() {
            return;
        }
        let pending: Vec<_> = member.pending().collect();
        (member.first_pending, member.merge) = (NONE, None);
        for Membership { group, place, .. } in pending {
            self.unmark(group as usize, place);
            self.slots[group as usize].recycle();
        }
    }
}
