//! Groups: one message to many members.
//!
//! What is published in a turn goes into the group's *log*, once, whoever the members are. At the
//! end of the turn each member's socket is handed its part of the log in one write. Only a member
//! that does not take it at once gets something queued, and that is a reference to the log, shared
//! by all slow members, not a copy. So publishing costs the same for ten members as for ten
//! thousand; the end of the turn costs one write for each member, however many messages there were;
//! and a slow member delays nobody.
//!
//! Order: a member receives what is sent to it directly, and what is published to any of its groups,
//! in the order in which the calls were made. Each message has a number; a direct send first moves
//! what is pending for its member into the member's own queue.

use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::Core;
use crate::connection::{KEPT_CAPACITY, Membership, Phase, WriteSide};
use crate::layer::Kind;
use crate::token::{Generations, Group, Token};

/// How long a flush may wait for more input in all, for each member: about what the system takes for
/// the write, so that waiting at most doubles what the flush costs.
const PATIENCE: Duration = Duration::from_micros(2);

/// A flush waits no longer once nothing has been said for this time: a peer that answers what it has
/// just been told is heard again within it. A flush that is cheaper than this does not wait at all.
pub(crate) const GAP: Duration = Duration::from_micros(40);

/// The longest wait, for any number of members: what else is flushed at the end of the turn waits
/// as well.
const MOST_PATIENCE: Duration = Duration::from_millis(2);

/// From this size on a part of a log is queued by reference. Each reference takes about a hundred
/// bytes of bookkeeping beside what it names.
const LEAST_REFERENCE: usize = 1024;

/// How much of its log's memory a group keeps for each member between turns: a room for many is a
/// busy one, and its log is small beside what the members themselves take.
const KEPT_FOR_EACH_MEMBER: usize = 1024;

#[derive(Debug)]
struct Message {
    number: u64,
    end: usize,
    kind: Kind,
    /// The one member that does not get it.
    except: Option<Token>,
}

#[derive(Debug, Default)]
struct Members {
    generation: u32,
    tokens: Vec<Token>,
    /// This turn's messages, one behind the other. Only slow members' queues share it, and then it
    /// is replaced before the next message.
    log: Rc<Vec<u8>>,
    messages: Vec<Message>,
    pending: bool,
}

/// All groups.
#[derive(Debug)]
pub(crate) struct Groups {
    slots: Slab<Members>,
    generations: Generations,
    /// The groups with messages of this turn.
    pending: Vec<Group>,
    /// The number of the next message.
    next: u64,
    /// Until then what was flushed last, several messages at once, may be answered.
    crowded_until: Option<Instant>,
    /// For working out one member's part of a log; kept for its memory.
    runs: Vec<(usize, usize)>,
}

impl Default for Groups {
    fn default() -> Self {
        Groups {
            slots: Slab::new(),
            generations: Generations::new(),
            pending: Vec::new(),
            next: 0,
            crowded_until: None,
            runs: Vec::new(),
        }
    }
}

impl Groups {
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How many messages have been said up to now, in all groups.
    pub(crate) fn said(&self) -> u64 {
        self.next
    }

    /// How long the flush may wait for more input: zero unless several messages wait for many, or
    /// did a moment ago. In a conversation that fills every turn the first answer comes alone, and
    /// the others are right behind it; at light load no flush ever carries several, and nothing
    /// waits.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        let crowded = self.crowded_until.is_some_and(|until| now < until);
        self.worth_of_waiting(if crowded { 1 } else { 2 })
    }

    /// What flushing the groups in which at least so many messages wait is worth waiting for.
    fn worth_of_waiting(&self, messages: usize) -> Duration {
        let behind = self.pending.iter().filter_map(|&group| self.get(group));
        let members = behind.filter(|m| m.messages.len() >= messages).map(|m| m.tokens.len());
        let members = u32::try_from(members.sum::<usize>()).unwrap_or(u32::MAX);
        let patience = PATIENCE.saturating_mul(members);
        if patience < GAP { Duration::ZERO } else { patience.min(MOST_PATIENCE) }
    }

    fn get(&self, group: Group) -> Option<&Members> {
        self.slots.get(group.0.index()).filter(|m| m.generation == group.0.generation())
    }

    fn get_mut(&mut self, group: Group) -> Option<&mut Members> {
        self.slots.get_mut(group.0.index()).filter(|m| m.generation == group.0.generation())
    }
}

/// A message that is pending for a member: of which group, and which bytes of its log.
struct Part {
    number: u64,
    start: usize,
    end: usize,
    kind: Kind,
    group: Group,
}

impl Members {
    /// What `member` has not been given, in order.
    fn parts(&self, group: Group, member: Token, next: u64) -> impl Iterator<Item = Part> {
        let mut start = 0;
        self.messages.iter().filter_map(move |message| {
            let part =
                Part { number: message.number, start, end: message.end, kind: message.kind, group };
            start = message.end;
            (message.number >= next && message.except != Some(member)).then_some(part)
        })
    }
}

impl Core {
    pub(crate) fn create_group(&mut self) -> Option<Group> {
        let generation = self.groups.generations.next();
        let entry = self.groups.slots.vacant_entry();
        let group = Group(Token::new(entry.key(), generation)?);
        entry.insert(Members { generation, ..Members::default() });
        Some(group)
    }

    pub(crate) fn remove_group(&mut self, group: Group) {
        if self.groups.get(group).is_none() {
            return;
        }
        self.flush_group(group);
        let Some(members) = self.groups.get_mut(group) else { return };
        for member in std::mem::take(&mut members.tokens) {
            if let Some(extra) = self.stream_mut(member).and_then(|s| s.extra.as_mut()) {
                extra.memberships.retain(|m| m.group != group);
            }
        }
        self.groups.pending.retain(|&g| g != group);
        self.groups.slots.remove(group.0.index());
    }

    /// `false` if the group or the connection is gone. Joining twice is joining once.
    pub(crate) fn join(&mut self, group: Group, member: Token) -> bool {
        let next = self.groups.next;
        let open = self.stream(member).is_some_and(|s| {
            s.write == WriteSide::Open && !matches!(s.phase, Phase::Dead | Phase::Closing)
        });
        if !open || self.is_member(group, member) {
            return open && self.groups.get(group).is_some();
        }
        let Some(members) = self.groups.get_mut(group) else { return false };
        let place = members.tokens.len();
        members.tokens.push(member);
        if let Some(stream) = self.stream_mut(member) {
            stream.extra_mut().memberships.push(Membership { group, place, next, left_out: false });
        }
        true
    }

    fn membership_mut(&mut self, group: Group, member: Token) -> Option<&mut Membership> {
        let extra = self.stream_mut(member)?.extra.as_mut()?;
        extra.memberships.iter_mut().find(|m| m.group == group)
    }

    fn is_member(&self, group: Group, member: Token) -> bool {
        self.memberships(member).iter().any(|m| m.group == group)
    }

    fn memberships(&self, member: Token) -> &[Membership] {
        self.stream(member).and_then(|s| s.extra.as_ref()).map_or(&[], |e| &e.memberships)
    }

    pub(crate) fn leave(&mut self, group: Group, member: Token) -> bool {
        if self.groups.has_pending() {
            self.settle_groups_before_direct(member);
        }
        let Some(extra) = self.stream_mut(member).and_then(|s| s.extra.as_mut()) else {
            return false;
        };
        let Some(at) = extra.memberships.iter().position(|m| m.group == group) else {
            return false;
        };
        let membership = extra.memberships.swap_remove(at);
        self.vacate(membership);
        true
    }

    /// Takes a connection out of all its groups.
    pub(crate) fn leave_all(&mut self, member: Token) {
        let Some(extra) = self.stream_mut(member).and_then(|s| s.extra.as_mut()) else { return };
        for membership in std::mem::take(&mut extra.memberships) {
            self.vacate(membership);
        }
    }

    /// The last member takes the place that became free.
    fn vacate(&mut self, membership: Membership) {
        let Membership { group, place, .. } = membership;
        let Some(members) = self.groups.get_mut(group) else { return };
        members.tokens.swap_remove(place);
        let Some(&moved) = members.tokens.get(place) else { return };
        if let Some(extra) = self.stream_mut(moved).and_then(|s| s.extra.as_mut()) {
            for membership in &mut extra.memberships {
                if membership.group == group {
                    membership.place = place;
                }
            }
        }
    }

    pub(crate) fn members(&self, group: Group) -> &[Token] {
        self.groups.get(group).map_or(&[], |members| &members.tokens)
    }

    /// Appends a message to the group's log. Answers how many members it is for.
    pub(crate) fn publish(
        &mut self,
        group: Group,
        bytes: &[u8],
        kind: Kind,
        except: Option<Token>,
    ) -> usize {
        let limit = self.config.group_log;
        let full = match self.groups.get(group) {
            None => return 0,
            Some(members) => !members.log.is_empty() && members.log.len() + bytes.len() > limit,
        };
        if full {
            // Memory first: what is there goes to the members' own queues, with their own limits.
            self.flush_groups();
        }
        let membership = except.and_then(|member| self.membership_mut(group, member));
        let excluded = membership.is_some();
        if let Some(membership) = membership {
            membership.left_out = true;
        }
        let number = self.groups.next;
        self.groups.next += 1;
        let Some(members) = self.groups.get_mut(group) else { return 0 };
        let reached = members.tokens.len() - usize::from(excluded);
        if reached == 0 {
            return 0;
        }
        let log = Rc::make_mut(&mut members.log);
        log.extend_from_slice(bytes);
        let end = log.len();
        members.messages.push(Message {
            number,
            end,
            kind,
            except: if excluded { except } else { None },
        });
        if !std::mem::replace(&mut members.pending, true) {
            self.groups.pending.push(group);
        }
        reached
    }

    /// Something is about to be queued for `member` directly: what was published to it before goes
    /// first.
    pub(crate) fn settle_groups_before_direct(&mut self, member: Token) {
        if self.memberships(member).is_empty() {
            return;
        }
        self.settle(member);
    }

    /// Moves what is pending for `member` into its own queue, by copy, in the order of publishing.
    fn settle(&mut self, member: Token) {
        let next_number = self.groups.next;
        let mut parts: Vec<Part> = Vec::new();
        let mut several = false;
        for membership in self.memberships(member) {
            if let Some(members) = self.groups.get(membership.group).filter(|m| m.pending) {
                several |= !parts.is_empty();
                parts.extend(members.parts(membership.group, member, membership.next));
            }
        }
        if let Some(extra) = self.stream_mut(member).and_then(|s| s.extra.as_mut()) {
            for membership in &mut extra.memberships {
                membership.next = next_number;
            }
        }
        if several {
            parts.sort_unstable_by_key(|part| part.number);
        }
        for part in parts {
            let Some(members) = self.groups.get(part.group) else { continue };
            let log = Rc::clone(&members.log);
            self.give(member, &log[part.start..part.end], part.kind);
        }
    }

    /// Queues a copy of one message for a member, encoded by its layer if it has one.
    fn give(&mut self, member: Token, bytes: &[u8], kind: Kind) {
        let Some(stream) = self.stream_mut(member) else { return };
        if !stream.accepts_output() {
            return;
        }
        if stream.queued() + bytes.len() > stream.options().output_cap {
            self.overflow(member);
        } else if stream.wire().is_some() {
            self.send_encoded(member, bytes, kind);
        } else {
            self.output_of(member, |output| output.push(bytes));
            self.queued_more(member);
        }
    }

    /// The end of the turn: every member gets its part of every log.
    pub(crate) fn flush_groups_of_turn(&mut self) {
        let worth = self.groups.worth_of_waiting(2);
        self.flush_groups();
        if !worth.is_zero() {
            self.groups.crowded_until = self.sys.now().checked_add(worth);
        }
    }

    fn flush_groups(&mut self) {
        while let Some(group) = self.groups.pending.last().copied() {
            self.flush_group(group);
            self.groups.pending.pop();
        }
    }

    fn flush_group(&mut self, group: Group) {
        let Some(members) = self.groups.get_mut(group) else { return };
        if !members.pending {
            return;
        }
        let log = Rc::clone(&members.log);
        let mut place = 0;
        while let Some(&member) = self.members(group).get(place) {
            self.flush_member(group, member, &log);
            // A member that failed here leaves its groups when it is reaped, not now: places stand.
            place += 1;
        }
        drop(log);
        let Some(members) = self.groups.get_mut(group) else { return };
        members.messages.clear();
        members.pending = false;
        let kept = KEPT_CAPACITY.max(members.tokens.len() * KEPT_FOR_EACH_MEMBER);
        match Rc::get_mut(&mut members.log) {
            // Nobody was slow: the log's memory serves the next turn.
            Some(log) if log.capacity() <= kept => log.clear(),
            _ => members.log = Rc::default(),
        }
    }

    fn flush_member(&mut self, group: Group, member: Token, log: &Rc<Vec<u8>>) {
        let next_number = self.groups.next;
        let Some(stream) = self.stream(member) else { return };
        if !stream.accepts_output() {
            return;
        }
        let layered = stream.wire().is_some();
        // Then its cap decides message by message, as it does for direct sends.
        let may_not_fit = stream.queued() + log.len() > stream.options().output_cap;
        if layered || may_not_fit || self.has_pending_elsewhere(group, member) {
            self.settle(member);
            self.flush(member);
            return;
        }
        let Some(membership) = self.membership_mut(group, member) else { return };
        let next = std::mem::replace(&mut membership.next, next_number);
        let left_out = std::mem::take(&mut membership.left_out);
        let Some(members) = self.groups.get(group) else { return };
        let all_new = members.messages.first().is_some_and(|m| m.number >= next);
        if all_new && !left_out {
            return self.hand_over_whole(member, log);
        }
        let mut runs = std::mem::take(&mut self.groups.runs);
        if let Some(members) = self.groups.get(group) {
            join_touching(members.parts(group, member, next), &mut runs);
        }
        for (start, end) in runs.drain(..) {
            self.hand_over(member, log, start, end);
        }
        self.groups.runs = runs;
        self.flush(member);
    }

    /// Whether something waits for the member in another of its groups: order over all of them is
    /// kept message by message.
    fn has_pending_elsewhere(&self, group: Group, member: Token) -> bool {
        self.groups.pending.len() > 1
            && self.memberships(member).iter().any(|m| {
                m.group != group && self.groups.get(m.group).is_some_and(|members| members.pending)
            })
    }

    /// Writes the log to a member; what its socket does not take is queued by reference. Most members
    /// take all, and for those there is neither a queue nor a reference.
    fn hand_over_whole(&mut self, member: Token, log: &Rc<Vec<u8>>) {
        let tick = self.tick;
        let Some(stream) = self.stream_mut(member) else { return };
        let mut written = 0;
        if stream.is_open() {
            match stream.write_through(log, tick) {
                Ok(n) => written = n,
                Err(e) => return self.write_failed(member, e),
            }
        }
        if written < log.len() {
            self.hand_over(member, log, written, log.len());
        }
        self.flush(member);
    }

    /// Queues a part of the log for a member: by reference, if that is worth what it keeps alive. A
    /// small part, also one of a log whose memory once was large, is copied: what waits may not take
    /// many times the memory that its cap counts.
    fn hand_over(&mut self, member: Token, log: &Rc<Vec<u8>>, start: usize, end: usize) {
        let part = end - start;
        let by_reference = part >= LEAST_REFERENCE && part >= log.capacity() / 4;
        self.output_of(member, |output| {
            if by_reference {
                output.push_log(log, start, end);
            } else {
                output.push(&log[start..end]);
            }
        });
        self.queued_more(member);
    }
}

/// Collects the parts as runs of bytes; parts that touch are one run.
fn join_touching(parts: impl Iterator<Item = Part>, runs: &mut Vec<(usize, usize)>) {
    for part in parts {
        match runs.last_mut() {
            Some((_, end)) if *end == part.start => *end = part.end,
            _ => runs.push((part.start, part.end)),
        }
    }
}
