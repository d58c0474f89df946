//! What is pending for one member, taken out of the logs in the order of publishing.

use std::cmp::Reverse;
use std::rc::Rc;

use super::NONE;
use super::form::Lent;
use super::log::{Log, Marked, Part};
use super::member::Membership;
use super::registry::{Groups, State};
use super::work;
use crate::connection::KEPT_CAPACITY;
use crate::layer::{MessageKind, WireClass};
use crate::token::{Group, Token};

/// How to take.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Take {
    /// As few parts as there can be: the kinds of the messages do not matter.
    Joined,
    /// One part for each message, until they have cost `limit`, where each message costs `each`
    /// beside its bytes. At least one message.
    ByMessage { limit: usize, each: usize },
}

/// What one member is given at a time.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) parts: Vec<Part>,
    /// What it has cost to encode messages for it that other members need as well.
    pub(super) encoded: usize,
}

#[derive(Debug)]
pub(crate) enum Bytes {
    /// The parts are parts of this group's log.
    Log(Group, Rc<Vec<u8>>),
    /// The messages of several groups, one behind the other.
    Copied(Vec<u8>),
}

impl Bytes {
    pub(crate) fn all(&self) -> &[u8] {
        match self {
            Bytes::Log(_, log) => log,
            Bytes::Copied(bytes) => bytes,
        }
    }
}

impl Batch {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.all()
    }

    /// What handling it costs beside writing, where each part costs `each`.
    pub(crate) fn work(&self, each: usize) -> usize {
        let bytes = self.parts.iter().map(|part| part.end - part.start).sum();
        self.encoded + work::bytes(bytes) + self.parts.len() * each
    }
}

/// All that is pending for a member, where that is one run of one group's log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnlyRun {
    id: u32,
    group: u32,
    place: u32,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Groups {
    /// What is pending for the member of that index, with the log that it is a run of; `None` if it is
    /// several runs.
    #[inline]
    pub(super) fn only_run(&self, id: u32) -> Option<(OnlyRun, &Log)> {
        let member = &self.members[id as usize];
        let &Membership { group, place, next_pending } =
            member.memberships.get(member.first_pending as usize)?; // nothing is at `NONE`
        if next_pending != NONE || member.merge.is_some() {
            return None;
        }
        let State { log, seats, .. } = &self.slots[group as usize];
        let seat = &seats[place as usize];
        let (start, end) = (log.start(seat.from), log.bytes().len());
        (seat.last_excluding == NONE).then_some((OnlyRun { id, group, place, start, end }, log))
    }

    /// The log that a run is of, and where the run begins in it.
    #[inline]
    pub(super) fn log_of(&self, run: &OnlyRun) -> (&Log, u32) {
        let State { log, seats, .. } = &self.slots[run.group as usize];
        (log, seats[run.place as usize].from)
    }

    /// Counts what the format of a member cannot carry of the messages of its run before the one at `end`.
    pub(super) fn count_unencodable(
        &mut self,
        run: &OnlyRun,
        class: Option<&Rc<WireClass>>,
        end: u32,
    ) {
        let Marked { lost, .. } = self.marked(run, class, end);
        if lost > 0 {
            self.slots[run.group as usize].count_dropped(lost);
        }
    }

    /// What is out of the ordinary about the messages of a run before the one at `end`.
    pub(super) fn marked(&self, run: &OnlyRun, class: Option<&Rc<WireClass>>, end: u32) -> Marked {
        let (log, from) = self.log_of(run);
        log.view(class).marked(from..end, run.id)
    }

    /// Encodes the log of a run with what is lent.
    pub(super) fn encode_run(&mut self, run: &OnlyRun, lent: &mut Lent<'_>) {
        let log = &mut self.slots[run.group as usize].log;
        log.encode(log.len(), lent);
    }

    /// The member has been given that run: nothing is pending for it.
    #[inline]
    pub(crate) fn took_run(&mut self, run: &OnlyRun) {
        self.visits.add(2);
        self.members[run.id as usize].first_pending = NONE;
        self.unmark(run.group as usize, run.place);
        let state = &mut self.slots[run.group as usize];
        if state.log.is_empty() {
            state.recycle();
        }
    }

    /// How many bytes are pending for a member at most: messages that exclude it count too.
    pub(crate) fn pending_bytes(&self, token: Token) -> usize {
        let Some(id) = self.id_of(token) else { return 0 };
        let pending =
            self.members[id as usize].pending().map(|Membership { group, place, .. }| {
                let State { log, seats, .. } = &self.slots[group as usize];
                log.bytes().len() - log.start(seats[place as usize].from)
            });
        pending.sum()
    }

    /// How many bytes are pending for a member, without the messages that exclude it. Costs as much
    /// as there are groups with something pending for it and messages that exclude it.
    pub(crate) fn pending_bytes_of(&self, token: Token) -> usize {
        let Some(id) = self.id_of(token) else { return 0 };
        let mut bytes = 0;
        for Membership { group, place, .. } in self.members[id as usize].pending() {
            let State { log, seats, .. } = &self.slots[group as usize];
            let seat = &seats[place as usize];
            log.view(None).runs(seat.from, seat.last_excluding, |start, end| bytes += end - start);
        }
        bytes
    }

    /// The group of a run.
    pub(super) fn group_of(&self, run: &OnlyRun) -> Group {
        self.slots[run.group as usize].handle
    }

    /// Takes what is pending for a member: as it was published, or in the form of the class of the layers
    /// that are lent, as far as they encode it. Hand the batch back by [`give_back`](Self::give_back).
    /// Where some of the messages have keys, they are in `keys`, by message. What the format cannot carry
    /// is counted as dropped.
    pub(crate) fn take(
        &mut self,
        token: Token,
        how: Take,
        lent: Option<&mut Lent<'_>>,
    ) -> Option<Batch> {
        let id = self.id_of(token)?;
        let member = &self.members[id as usize];
        let mut pending = member.pending();
        let first = pending.next()?;
        let one = member.merge.is_none() && pending.next().is_none();
        drop(pending);
        let mut parts = std::mem::take(&mut self.parts);
        let bytes = if one {
            self.take_of_one(id, first, how, lent, &mut parts)
        } else {
            self.take_of_several(id, how, lent, &mut parts)
        };
        if self.members[id as usize].is_pending() {
            self.serve_again(id);
        }
        Some(Batch { bytes, parts, encoded: 0 })
    }

    fn take_of_one(
        &mut self,
        id: u32,
        membership: Membership,
        how: Take,
        mut lent: Option<&mut Lent<'_>>,
        parts: &mut Vec<Part>,
    ) -> Bytes {
        let index = membership.group as usize;
        let State { handle, log, seats, .. } = &mut self.slots[index];
        let (group, seat) = (*handle, &mut seats[membership.place as usize]);
        let mut paid = 0;
        let view = match &mut lent {
            None => log.view(None),
            Some(lent) => {
                log.encode(log.len(), lent);
                paid = lent.cost;
                let view = log.view(Some(&lent.class));
                // The form of others may not have come as far as to this member's first message.
                let from = seat.from.min(view.len());
                if view.start(view.len()) - view.start(from) > lent.room {
                    lent.refused = true;
                    return Bytes::Copied(Vec::new());
                }
                view
            }
        };
        let bytes = Bytes::Log(group, Rc::clone(view.bytes()));
        let from = seat.from;
        let mut next = from;
        match how {
            Take::Joined => {
                view.runs(from, seat.last_excluding, |start, end| {
                    parts.push(Part { start, end, kind: MessageKind::Default, group });
                });
                parts.reverse();
                next = from.max(view.len());
                self.visits.add(1 + parts.len());
            }
            Take::ByMessage { limit, each } => {
                let mut cost = paid;
                while next < view.len() && (cost < limit || parts.is_empty()) {
                    if !log.excludes(next, id) {
                        let (start, end) = (view.start(next), view.end(next));
                        parts.push(Part { start, end, kind: log.kind(next), group });
                        cost += each + work::bytes(end - start);
                    }
                    next += 1;
                }
                self.visits.add((next - from) as usize);
                if log.has_keys() {
                    let taken = (from..next).filter(|&message| !log.excludes(message, id));
                    self.keys.extend(taken.map(|message| log.key(message)));
                }
            }
        }
        let Marked { lost, told } = view.marked(from..next, id);
        if let Some(lent) = lent {
            lent.told = told;
        }
        if next == log.len() {
            self.members[id as usize].first_pending = NONE;
            self.unmark(index, membership.place);
        } else {
            seat.from = next;
        }
        self.slots[index].count_dropped(lost);
        bytes
    }

    /// Merges the logs of several groups by the numbers of their messages. What is left keeps its
    /// place in the merge, so that serving in parts costs no more than serving at once.
    fn take_of_several(
        &mut self,
        id: u32,
        how: Take,
        mut lent: Option<&mut Lent<'_>>,
        parts: &mut Vec<Part>,
    ) -> Bytes {
        let (joined, limit, each) = match how {
            Take::Joined => (true, usize::MAX, 0),
            Take::ByMessage { limit, each } => (false, limit, each),
        };
        let mut bytes = std::mem::take(&mut self.copied);
        let token = self.members[id as usize].token;
        let keyed = !joined && self.has_keys(token);
        let member = &mut self.members[id as usize];
        let mut merge = match member.merge.take() {
            Some(left) => *left,
            None => std::mem::take(&mut self.merge),
        };
        let mut at = std::mem::replace(&mut member.first_pending, NONE);
        while at != NONE {
            let Membership { group, place, next_pending } = member.memberships[at as usize];
            let State { log, seats, .. } = &self.slots[group as usize];
            let number = log.number(seats[place as usize].from);
            merge.extend(number.map(|number| Reverse((number, at))));
            at = next_pending;
            self.visits.add(1);
        }
        let mut cost = 0;
        while cost < limit || parts.is_empty() {
            let Some(Reverse((_, at))) = merge.pop() else { break };
            self.visits.add(1);
            let membership = self.members[id as usize].memberships[at as usize];
            let state = &mut self.slots[membership.group as usize];
            let State { handle, log, seats, .. } = state;
            let seat = &mut seats[membership.place as usize];
            let message = seat.from;
            let view = match &mut lent {
                None => log.view(None),
                Some(lent) => {
                    let before = lent.cost;
                    log.encode(message + 1, lent);
                    cost += lent.cost - before;
                    log.view(Some(&lent.class))
                }
            };
            let is_made = message < view.len();
            if let Some(lent) = &mut lent
                && is_made
                && bytes.len() + view.end(message) - view.start(message) > lent.room
            {
                lent.refused = true;
            }
            if !is_made || lent.as_ref().is_some_and(|lent| lent.refused) {
                // No later message may overtake it.
                merge.extend(log.number(message).map(|number| Reverse((number, at))));
                break;
            }
            seat.from += 1;
            let Marked { lost, told } = view.marked(message..message + 1, id);
            if let Some(lent) = &mut lent {
                lent.told |= told;
            }
            if !log.excludes(message, id) {
                let start = bytes.len();
                bytes.extend_from_slice(&view.bytes()[view.start(message)..view.end(message)]);
                let (end, kind, group) = (bytes.len(), log.kind(message), *handle);
                match parts.last_mut() {
                    Some(last) if joined => last.end = end,
                    _ => parts.push(Part { start, end, kind, group }),
                }
                cost += each + work::bytes(end - start);
                if keyed {
                    self.keys.push(log.has_keys().then(|| log.key(message)).flatten());
                }
            }
            let next = log.number(message + 1);
            state.count_dropped(lost);
            match next {
                Some(number) => merge.push(Reverse((number, at))),
                None => {
                    self.unmark(membership.group as usize, membership.place);
                    self.slots[membership.group as usize].recycle();
                }
            }
        }
        if !merge.is_empty() {
            self.members[id as usize].merge = Some(Box::new(merge));
        } else if merge.capacity() * size_of::<(u64, u32)>() <= KEPT_CAPACITY {
            self.merge = merge;
        }
        Bytes::Copied(bytes)
    }

    /// The batch has been handed over: its memory serves the next one.
    pub(crate) fn give_back(&mut self, batch: Batch) {
        let Batch { bytes, mut parts, .. } = batch;
        match bytes {
            Bytes::Log(group, log) => {
                drop(log);
                if let Some(index) = self.index_of(group) {
                    self.slots[index].recycle();
                }
            }
            Bytes::Copied(mut bytes) if bytes.capacity() <= KEPT_CAPACITY => {
                bytes.clear();
                self.copied = bytes;
            }
            Bytes::Copied(_) => {}
        }
        if parts.capacity() * size_of::<Part>() <= KEPT_CAPACITY {
            parts.clear();
            self.parts = parts;
        }
    }
}
