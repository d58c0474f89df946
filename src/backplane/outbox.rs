//! What is to go out: what waits, and what the engine has not confirmed.

use std::collections::{BTreeMap, VecDeque};

use super::nodes::NodeId;

/// What happens to a message when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// The oldest that waits is dropped for it: what matters is what is new. The default.
    #[default]
    DropOldest,
    /// It is not taken: what was said first goes out.
    Refuse,
}

/// A message on its way out.
#[derive(Debug)]
struct Item {
    number: u64,
    slot: u16,
    command: Vec<u8>,
}

/// What goes to one node.
#[derive(Debug, Default)]
struct Lane {
    sent: VecDeque<Item>,
    waiting: VecDeque<Item>,
}

/// A slot whose node has changed while the one before had messages of it to answer. What is said meanwhile
/// stays behind those.
#[derive(Debug)]
struct Moving {
    from: NodeId,
    to: NodeId,
    unanswered: usize,
    /// What the node before did not take.
    refused: VecDeque<Item>,
    waiting: VecDeque<Item>,
}

/// Commands in the order in which they were published, a lane for each node.
///
/// A message leaves this queue when the engine has confirmed it, and not when a socket has taken it: what
/// was on its way when a connection broke goes out again. Receivers know it by its number. Messages of one
/// slot leave in their order, also when it moves to another node.
#[derive(Debug)]
pub(super) struct Outbox {
    lanes: BTreeMap<NodeId, Lane>,
    moving: BTreeMap<u16, Moving>,
    messages: usize,
    bytes: usize,
    limit: usize,
    when_full: WhenFull,
}

impl Outbox {
    pub(super) fn new(limit: usize, when_full: WhenFull) -> Self {
        let (lanes, moving) = (BTreeMap::new(), BTreeMap::new());
        Outbox { lanes, moving, messages: 0, bytes: 0, limit, when_full }
    }

    /// Takes the command of a message for a slot, which is at this node. Returns which were dropped, perhaps
    /// itself.
    pub(super) fn push(
        &mut self,
        to: NodeId,
        slot: u16,
        number: u64,
        command: Vec<u8>,
    ) -> Vec<u64> {
        let mut dropped = Vec::new();
        while self.bytes + command.len() > self.limit {
            // What the engine may have got already is not dropped: it would not be a loss that anybody
            // could count.
            let oldest = match self.when_full {
                WhenFull::DropOldest if command.len() <= self.limit => self.take_oldest(),
                _ => None,
            };
            let Some(oldest) = oldest else {
                dropped.push(number);
                return dropped;
            };
            dropped.push(oldest.number);
            self.gone(&oldest);
        }
        self.bytes += command.len();
        self.messages += 1;
        let item = Item { number, slot, command };
        match self.moving.get_mut(&slot) {
            Some(moving) => moving.waiting.push_back(item),
            None => self.lanes.entry(to).or_default().waiting.push_back(item),
        }
        dropped
    }

    /// Of all that waits, whatever it waits for.
    fn take_oldest(&mut self) -> Option<Item> {
        let lanes = self.lanes.values_mut().map(|lane| &mut lane.waiting);
        let moving = self.moving.values_mut().map(|moving| &mut moving.waiting);
        let number =
            |waiting: &VecDeque<Item>| waiting.front().map_or(u64::MAX, |item| item.number);
        lanes.chain(moving).min_by_key(|waiting| number(waiting))?.pop_front()
    }

    fn gone(&mut self, item: &Item) {
        self.bytes -= item.command.len();
        self.messages -= 1;
    }

    /// Appends what waits for a node to `batch`, up to some `bytes` and one command at least. Returns how
    /// many.
    pub(super) fn send(&mut self, to: NodeId, batch: &mut Vec<u8>, bytes: usize) -> u32 {
        let Some(lane) = self.lanes.get_mut(&to) else { return 0 };
        let mut count = 0;
        while batch.len() < bytes {
            let Some(item) = lane.waiting.pop_front() else { break };
            batch.extend_from_slice(&item.command);
            lane.sent.push_back(item);
            count += 1;
        }
        count
    }

    /// The slot of the message that a node answers next.
    pub(super) fn next_slot(&self, at: NodeId) -> Option<u16> {
        Some(self.lanes.get(&at)?.sent.front()?.slot)
    }

    /// A node has answered the oldest that was sent to it. Whether that lets messages go to another one, which
    /// waited for it.
    pub(super) fn confirmed(&mut self, by: NodeId) -> bool {
        let Some(item) = self.answered(by) else { return false };
        self.gone(&item);
        self.take_up(by, item.slot, None)
    }

    /// A node has answered that the slot of the oldest that was sent to it is elsewhere, which
    /// [`reroute`](Self::reroute) knows by now. `false` if it does not: the message is the first to go to that
    /// node again.
    pub(super) fn refused(&mut self, by: NodeId) -> bool {
        let Some(item) = self.answered(by) else { return false };
        let slot = item.slot;
        if self.moving.get(&slot).is_none_or(|moving| moving.from != by) {
            if let Some(lane) = self.lanes.get_mut(&by) {
                lane.sent.push_front(item);
            }
            return false;
        }
        self.take_up(by, slot, Some(item));
        true
    }

    fn answered(&mut self, by: NodeId) -> Option<Item> {
        self.lanes.get_mut(&by)?.sent.pop_front()
    }

    /// One message less of a slot that may be moving is unanswered. What follows the last one is free to go.
    fn take_up(&mut self, by: NodeId, slot: u16, refused: Option<Item>) -> bool {
        let Some(moving) = self.moving.get_mut(&slot).filter(|moving| moving.from == by) else {
            return false;
        };
        moving.refused.extend(refused);
        moving.unanswered -= 1;
        if moving.unanswered > 0 {
            return false;
        }
        if let Some(mut moving) = self.moving.remove(&slot) {
            let lane = self.lanes.entry(moving.to).or_default();
            lane.waiting.append(&mut moving.refused);
            lane.waiting.append(&mut moving.waiting);
        }
        true
    }

    /// The connection to a node is gone: what was not confirmed is the first to go out again. Returns how
    /// many.
    pub(super) fn unsend(&mut self, from: NodeId) -> usize {
        let Some(lane) = self.lanes.get_mut(&from) else { return 0 };
        let sent = std::mem::take(&mut lane.sent);
        let waiting = std::mem::take(&mut lane.waiting);
        let count = sent.len();
        for item in sent {
            let slot = item.slot;
            if self.moving.get(&slot).is_some_and(|moving| moving.from == from) {
                self.take_up(from, slot, Some(item));
            } else if let Some(lane) = self.lanes.get_mut(&from) {
                lane.waiting.push_back(item);
            }
        }
        if let Some(lane) = self.lanes.get_mut(&from) {
            lane.waiting.extend(waiting);
        }
        count
    }

    /// Slots have other nodes: what waits goes there, behind what the nodes before have not answered yet.
    pub(super) fn reroute(&mut self, owner: impl Fn(u16) -> NodeId) {
        for (&slot, moving) in &mut self.moving {
            moving.to = owner(slot);
        }
        let ids: Vec<NodeId> = self.lanes.keys().copied().collect();
        for from in ids {
            let Some(lane) = self.lanes.get_mut(&from) else { continue };
            for item in &lane.sent {
                let to = owner(item.slot);
                if to != from {
                    let new = || Moving {
                        from,
                        to,
                        unanswered: 0,
                        refused: VecDeque::new(),
                        waiting: VecDeque::new(),
                    };
                    self.moving.entry(item.slot).or_insert_with(new);
                }
            }
            let stays = |item: &Item| owner(item.slot) == from;
            if lane.waiting.iter().all(stays) {
                continue;
            }
            let (stay, go) = std::mem::take(&mut lane.waiting).into_iter().partition(stays);
            lane.waiting = stay;
            let go: VecDeque<Item> = go;
            for item in go {
                match self.moving.get_mut(&item.slot) {
                    Some(moving) => moving.waiting.push_back(item),
                    None => {
                        let to = owner(item.slot);
                        self.lanes.entry(to).or_default().waiting.push_back(item);
                    }
                }
            }
        }
        self.count_unanswered();
        self.lanes.retain(|_, lane| !lane.sent.is_empty() || !lane.waiting.is_empty());
    }

    /// Of each slot that is moving: what the node before has still to answer.
    fn count_unanswered(&mut self) {
        for (&slot, moving) in &mut self.moving {
            let sent = self.lanes.get(&moving.from).map(|lane| lane.sent.iter());
            moving.unanswered = sent.into_iter().flatten().filter(|item| item.slot == slot).count();
        }
    }

    /// The engine turns out to be a cluster: what was to be published for any node goes to that of its slot.
    pub(super) fn becomes_sharded(&mut self, slot_of: impl Fn(&[u8]) -> u16) {
        for lane in self.lanes.values_mut() {
            for item in lane.sent.iter_mut().chain(&mut lane.waiting) {
                if let Some(rest) = item.command.strip_prefix(&b"*3\r\n$7\r\nPUBLISH"[..]) {
                    item.command = [&b"*3\r\n$8\r\nSPUBLISH"[..], rest].concat();
                    self.bytes += 1;
                }
                item.slot = slot_of(words(&item.command).nth(1).unwrap_or_default());
            }
        }
    }

    /// The messages of a key that are not confirmed, in their order: their numbers and payloads.
    pub(super) fn unconfirmed<'a>(&'a self, key: &'a [u8]) -> Vec<(u64, &'a [u8])> {
        let lanes = self.lanes.values().flat_map(|lane| lane.sent.iter().chain(&lane.waiting));
        let moving = self.moving.values().flat_map(|slot| slot.refused.iter().chain(&slot.waiting));
        let of_key = |item: &&Item| words(&item.command).nth(1) == Some(key);
        let all = lanes.chain(moving).filter(of_key);
        let mut all: Vec<_> = all
            .map(|item| (item.number, words(&item.command).last().unwrap_or_default()))
            .collect();
        all.sort_unstable_by_key(|&(number, _)| number);
        all
    }

    /// Whether something waits for this node.
    pub(super) fn waits_for(&self, node: NodeId) -> bool {
        self.lanes.get(&node).is_some_and(|lane| !lane.waiting.is_empty())
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn messages(&self) -> usize {
        self.messages
    }
}

/// The words of a command that was encoded here: the second one is the channel or the key, the last one the
/// payload.
fn words(command: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = |bytes: &[u8]| bytes.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
    let mut rest = line(command).and_then(|at| command.get(at..)).unwrap_or_default();
    std::iter::from_fn(move || {
        let (head, after) = rest.split_at_checked(line(rest)?)?;
        let digits = std::str::from_utf8(head.strip_prefix(b"$")?.trim_ascii()).ok()?;
        let (word, after) = after.split_at_checked(digits.parse().ok()?)?;
        rest = after.get(2..)?;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::HOME;
    const B: NodeId = NodeId::HOME.next();
    const C: NodeId = B.next();

    fn sent_to(outbox: &mut Outbox, node: NodeId) -> String {
        let mut batch = Vec::new();
        outbox.send(node, &mut batch, usize::MAX);
        String::from_utf8(batch).unwrap()
    }

    fn sent(outbox: &mut Outbox) -> String {
        sent_to(outbox, A)
    }

    fn push(outbox: &mut Outbox, text: &str) -> usize {
        outbox.push(A, 0, 7, text.into()).len()
    }

    fn full(when_full: WhenFull) -> Outbox {
        let mut outbox = Outbox::new(4, when_full);
        for text in ["aa", "b", "c"] {
            assert_eq!(push(&mut outbox, text), 0);
        }
        outbox
    }

    // row 248
    #[test]
    fn a_full_queue_drops_its_oldest_or_refuses_and_counts() {
        let mut outbox = full(WhenFull::DropOldest);
        assert_eq!(push(&mut outbox, "d"), 1);
        assert_eq!(push(&mut outbox, "ee"), 1);
        assert_eq!(push(&mut outbox, "too long"), 1, "itself, and no other for it");
        assert_eq!(sent(&mut outbox), "cdee");

        let mut outbox = full(WhenFull::Refuse);
        assert_eq!(push(&mut outbox, "d"), 1);
        assert_eq!(sent(&mut outbox), "aabc");
        assert_eq!(push(&mut outbox, "d"), 1, "nothing is confirmed");
        outbox.confirmed(A);
        assert_eq!(push(&mut outbox, "dd"), 0);
        assert_eq!((outbox.bytes(), outbox.messages()), (4, 3));
    }

    // row 248
    #[test]
    fn what_was_not_confirmed_goes_out_again_before_what_waits() {
        let mut outbox = full(WhenFull::DropOldest);
        let mut batch = Vec::new();
        assert_eq!(outbox.send(A, &mut batch, 1), 1);
        assert_eq!(outbox.send(A, &mut batch, 3), 1);
        assert_eq!(batch, b"aab");
        outbox.confirmed(A);
        assert_eq!(outbox.unsend(A), 1);
        assert_eq!(sent(&mut outbox), "bc");
        assert_eq!((outbox.unsend(A), sent(&mut outbox)), (2, "bc".into()), "in their order");
        assert_eq!(push(&mut outbox, "ddd"), 1, "what is on its way is not dropped");
        for _ in 0..3 {
            outbox.confirmed(A);
        }
        assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
    }

    /// Six messages of two slots, of which the first node has got three.
    fn half_sent() -> Outbox {
        let mut outbox = Outbox::new(100, WhenFull::DropOldest);
        for (at, text) in ["a0 ", "b1 ", "a2 ", "b3 ", "a4 ", "b5 "].iter().enumerate() {
            let slot = u16::from(text.as_bytes()[0]);
            assert_eq!(outbox.push(A, slot, at as u64, (*text).into()).len(), 0);
        }
        let mut batch = Vec::new();
        assert_eq!(outbox.send(A, &mut batch, 9), 3);
        outbox
    }

    // row 270
    #[test]
    fn a_slot_that_moves_waits_for_the_answers_of_the_node_before() {
        let mut outbox = half_sent();
        let a_is_at = |to| move |slot| if slot == u16::from(b'a') { to } else { A };
        outbox.confirmed(A);
        outbox.confirmed(A);
        assert_eq!(outbox.next_slot(A), Some(u16::from(b'a')));
        assert!(!outbox.refused(A), "it is not known that the slot is elsewhere");
        outbox.reroute(a_is_at(B));
        outbox.push(B, b'a'.into(), 6, b"a6 ".into());
        assert_eq!(sent_to(&mut outbox, B), "", "it would overtake");
        outbox.reroute(a_is_at(C));
        assert!(outbox.refused(A));
        assert_eq!(
            (sent_to(&mut outbox, B), sent_to(&mut outbox, C)),
            ("".into(), "a2 a4 a6 ".into())
        );
        assert_eq!(sent_to(&mut outbox, A), "b3 b5 ");
        outbox.reroute(a_is_at(A));
        for _ in 0..3 {
            outbox.confirmed(C);
        }
        outbox.confirmed(A);
        outbox.confirmed(A);
        assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
    }

    // row 270
    #[test]
    fn a_node_that_is_lost_while_a_slot_leaves_it_gives_up_all_of_the_slot() {
        let mut outbox = half_sent();
        outbox.reroute(|slot| if slot == u16::from(b'a') { B } else { A });
        assert!(outbox.refused(A));
        assert_eq!(sent_to(&mut outbox, B), "");
        assert_eq!(outbox.unsend(A), 2);
        assert_eq!(sent_to(&mut outbox, B), "a0 a2 a4 ");
        assert_eq!(sent_to(&mut outbox, A), "b1 b3 b5 ");
        // And the whole node.
        outbox.reroute(|_| B);
        assert_eq!(outbox.unsend(A), 3);
        assert_eq!(sent_to(&mut outbox, B), "b1 b3 b5 ");
        for _ in 0..6 {
            outbox.confirmed(B);
        }
        assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
    }

    // row 270
    #[test]
    fn what_waits_for_a_slot_that_moves_is_dropped_in_its_turn() {
        let mut outbox = Outbox::new(3, WhenFull::DropOldest);
        outbox.push(A, 1, 1, b"1".into());
        sent(&mut outbox);
        outbox.reroute(|_| B);
        outbox.push(B, 1, 2, b"2".into());
        outbox.push(B, 9, 3, b"3".into());
        assert_eq!(outbox.push(B, 9, 4, b"4".into()), [2]);
        assert_eq!(sent_to(&mut outbox, B), "34");
        assert!(outbox.refused(A));
        assert_eq!(sent_to(&mut outbox, B), "1");
    }

    // row 270
    #[test]
    fn what_was_to_go_to_one_server_goes_to_the_nodes_of_a_cluster() {
        use crate::layer::resp::Command;
        let mut outbox = Outbox::new(1000, WhenFull::DropOldest);
        let plain = Command::encode(&["PUBLISH", "b\r\n", "hello"]);
        let kept = Command::encode(&["XADD", "aa", "MAXLEN", "~", "9", "*", "m", "hi"]);
        let length = (plain.len(), kept.len());
        outbox.push(A, 0, 1, plain);
        outbox.push(A, 0, 2, kept.clone());
        outbox.becomes_sharded(|key| key.len() as u16);
        outbox.reroute(|slot| if slot == 2 { C } else { B });
        let sharded = Command::encode(&["SPUBLISH", "b\r\n", "hello"]);
        assert_eq!(outbox.bytes(), length.0 + 1 + length.1);
        assert_eq!(sent_to(&mut outbox, B).into_bytes(), sharded);
        assert_eq!(outbox.next_slot(B), Some(3));
        assert_eq!(outbox.unconfirmed(b"aa"), [(2, &b"hi"[..])]);
        assert_eq!(outbox.unconfirmed(b"b\r\n"), [(1, &b"hello"[..])]);
        assert_eq!(outbox.unconfirmed(b"a"), []);
        assert_eq!(sent_to(&mut outbox, C).into_bytes(), kept);
        assert_eq!(outbox.next_slot(C), Some(2));
    }
}
