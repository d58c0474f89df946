//! What is to go out: what waits, and what the engine has not confirmed.

use std::collections::{BTreeMap, VecDeque};

use super::envelope;
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

/// What leaves in its order, and is known by its numbers: the messages of one slot, without those that are kept
/// or those alone, which others read elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    pub(super) slot: u16,
    pub(super) kept: bool,
}

/// A message on its way out.
#[derive(Debug)]
struct Item {
    number: u64,
    flow: Flow,
    command: Vec<u8>,
    /// A connection broke before it was answered: others may have it, under its number.
    may_be_there: bool,
}

/// What goes to one node. What waits is in the order of its numbers.
#[derive(Debug, Default)]
struct Lane {
    sent: VecDeque<Item>,
    waiting: VecDeque<Item>,
}

impl Lane {
    /// The oldest has to be in front: it is the first to go out, and to be dropped.
    fn wait(&mut self, items: impl IntoIterator<Item = Item>) {
        self.waiting.extend(items);
        if !self.waiting.iter().is_sorted_by_key(|item| item.number) {
            self.waiting.make_contiguous().sort_by_key(|item| item.number);
        }
    }
}

/// A flow that a node does not take: its slot is at another one, or it is refused for the moment. What is said
/// meanwhile stays behind what that node has still to answer.
#[derive(Debug)]
struct Held {
    from: NodeId,
    to: NodeId,
    unanswered: usize,
    /// What the node did not take, and whether it took something behind that.
    refused: VecDeque<Item>,
    overtaken: bool,
    waiting: VecDeque<Item>,
    /// It is refused for the moment: after a wait one message shows whether it still is.
    is_put_off: bool,
}

impl Held {
    fn new(from: NodeId, to: NodeId) -> Self {
        Held {
            from,
            to,
            unanswered: 0,
            refused: VecDeque::new(),
            overtaken: false,
            waiting: VecDeque::new(),
            is_put_off: false,
        }
    }

    /// It was to go to the node before, and had not gone.
    fn waits_again(&mut self, item: Item) {
        let at = self.waiting.partition_point(|waiting| waiting.number < item.number);
        self.waiting.insert(at, item);
    }

    /// All is answered: what was refused is in front of what waits. Readers drop what comes behind a higher number.
    /// So what was overtaken gets a new one, and all that follows it; but for what may be there under its old one.
    fn answered(&mut self, newest: &mut u64, renumbered: &mut Vec<(u64, u64)>) {
        let mut all = std::mem::take(&mut self.refused);
        all.append(&mut self.waiting);
        if std::mem::take(&mut self.overtaken) {
            for item in all.iter_mut().filter(|item| !item.may_be_there) {
                *newest += 1;
                renumbered.push((item.number, *newest));
                item.number = *newest;
                let length = words(&item.command).last().map_or(0, <[u8]>::len) + b"\r\n".len();
                let at = item.command.len().saturating_sub(length);
                envelope::renumber(item.command.get_mut(at..).unwrap_or_default(), *newest);
            }
            all.make_contiguous().sort_by_key(|item| item.number);
        }
        self.waiting = all;
    }
}

/// What an answer has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answered {
    /// Messages are free to go to another node, or to this one again.
    pub(super) lets_go: bool,
    /// Messages that have other numbers: the old ones and the new ones, in their order.
    pub(super) renumbered: Vec<(u64, u64)>,
    /// The flow had been refused for the moment, and is taken.
    pub(super) is_over: bool,
}

/// Commands in the order in which they were published, a lane for each node.
///
/// A message leaves this queue when the engine has confirmed it, and not when a socket has taken it: what
/// was on its way when a connection broke goes out again. Receivers know it by its number. Messages of one
/// flow leave in their order, also when their slot moves to another node.
#[derive(Debug)]
pub(super) struct Outbox {
    lanes: BTreeMap<NodeId, Lane>,
    held: BTreeMap<Flow, Held>,
    /// How often in a row each was refused for the moment.
    refusals: BTreeMap<Flow, u32>,
    /// The number of the last message.
    newest: u64,
    messages: usize,
    bytes: usize,
    limit: usize,
    when_full: WhenFull,
}

impl Outbox {
    pub(super) fn new(limit: usize, when_full: WhenFull) -> Self {
        Outbox {
            lanes: BTreeMap::new(),
            held: BTreeMap::new(),
            refusals: BTreeMap::new(),
            newest: 0,
            messages: 0,
            bytes: 0,
            limit,
            when_full,
        }
    }

    /// The number of the next message. They ascend.
    pub(super) fn next_number(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    /// Takes the command of a message of a flow, whose slot is at this node. Returns which were dropped, perhaps
    /// itself.
    pub(super) fn push(
        &mut self,
        to: NodeId,
        flow: Flow,
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
        let item = Item { number, flow, command, may_be_there: false };
        match self.held.get_mut(&flow) {
            Some(held) => held.waiting.push_back(item),
            None => self.lanes.entry(to).or_default().waiting.push_back(item),
        }
        dropped
    }

    /// Of all that waits, whatever it waits for.
    fn take_oldest(&mut self) -> Option<Item> {
        let lanes = self.lanes.values_mut().map(|lane| &mut lane.waiting);
        let held = self.held.values_mut().map(|held| &mut held.waiting);
        let number =
            |waiting: &VecDeque<Item>| waiting.front().map_or(u64::MAX, |item| item.number);
        lanes.chain(held).min_by_key(|waiting| number(waiting))?.pop_front()
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

    /// The flow of the message that a node answers next.
    pub(super) fn next_flow(&self, at: NodeId) -> Option<Flow> {
        Some(self.lanes.get(&at)?.sent.front()?.flow)
    }

    /// A node has answered the oldest that was sent to it.
    pub(super) fn confirmed(&mut self, by: NodeId) -> Answered {
        let Some(item) = self.answered(by) else { return Answered::default() };
        self.gone(&item);
        let is_over = self.refusals.remove(&item.flow).is_some();
        Answered { is_over, ..self.take_up(by, item.flow, None) }
    }

    /// A node has answered that the slot of the oldest that was sent to it is elsewhere, which
    /// [`reroute`](Self::reroute) knows by now. `None` if it does not: the message is the first to go to that
    /// node again.
    pub(super) fn refused(&mut self, by: NodeId) -> Option<Answered> {
        let item = self.answered(by)?;
        let flow = item.flow;
        if self.held.get(&flow).is_none_or(|held| held.from != by || held.from == held.to) {
            if let Some(lane) = self.lanes.get_mut(&by) {
                lane.sent.push_front(item);
            }
            return None;
        }
        Some(self.take_up(by, flow, Some(item)))
    }

    /// A node has answered that it takes the oldest that was sent to it later: its flow is held back, and tried
    /// again by [`try_again`](Self::try_again). `Some` says how often it has been refused before, if the time for
    /// that has to be chosen now.
    pub(super) fn put_off(&mut self, by: NodeId) -> (Answered, Option<u32>) {
        let Some(item) = self.answered(by) else { return (Answered::default(), None) };
        let flow = item.flow;
        if !self.held.contains_key(&flow) {
            self.hold_back(by, flow);
        }
        let count = self.refusals.get(&flow).copied().unwrap_or(0);
        let mut is_chosen = None;
        if let Some(held) = self.held.get_mut(&flow)
            && !std::mem::replace(&mut held.is_put_off, true)
        {
            self.refusals.insert(flow, count.saturating_add(1));
            is_chosen = Some(count);
        }
        (self.take_up(by, flow, Some(item)), is_chosen)
    }

    /// A node takes nothing for the moment: what was sent goes out again on the next connection. Returns how often
    /// in a row the flow of the oldest was refused.
    pub(super) fn count_refusal(&mut self, by: NodeId) -> u32 {
        let Some(flow) = self.next_flow(by) else { return 0 };
        let count = self.refusals.entry(flow).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// A flow was put off long enough: its first message shows whether it is taken now.
    pub(super) fn try_again(&mut self, at: NodeId, flow: Flow) {
        let Some(held) = self.held.get_mut(&flow).filter(|held| held.from == at) else { return };
        held.is_put_off = false;
        if held.unanswered > 0 {
            return; // the answers to these show it
        }
        match held.waiting.pop_front() {
            Some(first) => {
                held.unanswered = 1;
                self.lanes.entry(at).or_default().wait([first]);
            }
            None => drop(self.held.remove(&flow)),
        }
    }

    fn answered(&mut self, by: NodeId) -> Option<Item> {
        self.lanes.get_mut(&by)?.sent.pop_front()
    }

    /// One message less of a flow that may be held back is unanswered. What follows the last one is free to go, if
    /// it was not put off.
    fn take_up(&mut self, by: NodeId, flow: Flow, refused: Option<Item>) -> Answered {
        let mut answered = Answered::default();
        let Some(held) = self.held.get_mut(&flow).filter(|held| held.from == by) else {
            return answered;
        };
        match refused {
            Some(item) => held.refused.push_back(item),
            None => held.overtaken |= !held.refused.is_empty(),
        }
        held.unanswered = held.unanswered.saturating_sub(1);
        if held.unanswered == 0 {
            held.answered(&mut self.newest, &mut answered.renumbered);
            if !held.is_put_off || held.to != held.from {
                self.let_go(flow);
                answered.lets_go = true;
            }
        }
        answered
    }

    fn let_go(&mut self, flow: Flow) {
        if let Some(held) = self.held.remove(&flow) {
            self.lanes
                .entry(held.to)
                .or_default()
                .wait(held.refused.into_iter().chain(held.waiting));
        }
    }

    /// Holds back a flow of which a node has just refused a message: what was to go out next stays behind that.
    fn hold_back(&mut self, at: NodeId, flow: Flow) {
        let mut held = Held::new(at, at);
        if let Some(lane) = self.lanes.get_mut(&at) {
            let waiting = std::mem::take(&mut lane.waiting).into_iter();
            (held.waiting, lane.waiting) = waiting.partition(|item| item.flow == flow);
            held.unanswered = 1 + lane.sent.iter().filter(|item| item.flow == flow).count();
        }
        self.held.insert(flow, held);
    }

    /// The connection to a node is gone: what was not confirmed is the first to go out again. Returns how
    /// many, and which have other numbers.
    pub(super) fn unsend(&mut self, from: NodeId) -> (usize, Vec<(u64, u64)>) {
        let Some(lane) = self.lanes.get_mut(&from) else { return (0, Vec::new()) };
        let sent = std::mem::take(&mut lane.sent);
        let count = sent.len();
        let mut again = VecDeque::new();
        for mut item in sent {
            item.may_be_there = true;
            match self.held.get_mut(&item.flow).filter(|held| held.from == from) {
                Some(held) => held.refused.push_back(item),
                None => again.push_back(item),
            }
        }
        if let Some(lane) = self.lanes.get_mut(&from) {
            lane.wait(again);
        }
        let mut renumbered = Vec::new();
        let held = self.held.iter().filter(|(_, held)| held.from == from);
        for flow in held.map(|(&flow, _)| flow).collect::<Vec<_>>() {
            if let Some(held) = self.held.get_mut(&flow) {
                held.answered(&mut self.newest, &mut renumbered);
            }
            self.let_go(flow);
        }
        (count, renumbered)
    }

    /// Slots have other nodes: what waits goes there, behind what the nodes before have not answered yet.
    pub(super) fn reroute(&mut self, owner: impl Fn(u16) -> NodeId) {
        for (flow, held) in &mut self.held {
            held.to = owner(flow.slot);
        }
        for (&from, lane) in &self.lanes {
            for item in &lane.sent {
                let to = owner(item.flow.slot);
                if to != from {
                    self.held.entry(item.flow).or_insert_with(|| Held::new(from, to));
                }
            }
        }
        let mut moved = Vec::new();
        for (&from, lane) in &mut self.lanes {
            let stays = |item: &Item| owner(item.flow.slot) == from;
            if !lane.waiting.iter().all(stays) {
                let (stay, go) = std::mem::take(&mut lane.waiting).into_iter().partition(stays);
                lane.waiting = stay;
                let go: VecDeque<Item> = go;
                moved.extend(go);
            }
        }
        let mut lanes: BTreeMap<NodeId, Vec<Item>> = BTreeMap::new();
        for item in moved {
            match self.held.get_mut(&item.flow) {
                Some(held) => held.waits_again(item),
                None => lanes.entry(owner(item.flow.slot)).or_default().push(item),
            }
        }
        for (to, items) in lanes {
            self.lanes.entry(to).or_default().wait(items);
        }
        self.count_unanswered();
        // What was put off by the node before is not there any longer.
        let free = |(_, held): &(&Flow, &Held)| held.unanswered == 0 && held.to != held.from;
        for flow in self.held.iter().filter(free).map(|(&flow, _)| flow).collect::<Vec<_>>() {
            self.let_go(flow);
        }
        self.lanes.retain(|_, lane| !lane.sent.is_empty() || !lane.waiting.is_empty());
    }

    /// Of each flow that is held back: what the node before has still to answer.
    fn count_unanswered(&mut self) {
        self.held.values_mut().for_each(|held| held.unanswered = 0);
        for (&from, lane) in &self.lanes {
            // What is tried again is among what waits, until it is sent.
            for item in lane.sent.iter().chain(&lane.waiting) {
                if let Some(held) = self.held.get_mut(&item.flow).filter(|held| held.from == from) {
                    held.unanswered += 1;
                }
            }
        }
    }

    /// The engine turns out to be a cluster: what was to be published for any node goes to that of its slot.
    pub(super) fn becomes_sharded(&mut self, slot_of: impl Fn(&[u8]) -> u16) {
        self.refusals.clear();
        for lane in self.lanes.values_mut() {
            for item in lane.sent.iter_mut().chain(&mut lane.waiting) {
                if let Some(rest) = item.command.strip_prefix(&b"*3\r\n$7\r\nPUBLISH"[..]) {
                    item.command = [&b"*3\r\n$8\r\nSPUBLISH"[..], rest].concat();
                    self.bytes += 1;
                }
                item.flow.slot = slot_of(words(&item.command).nth(1).unwrap_or_default());
            }
        }
    }

    /// The messages of a key that are not confirmed, in their order: their numbers and payloads.
    pub(super) fn unconfirmed<'a>(&'a self, key: &'a [u8]) -> Vec<(u64, &'a [u8])> {
        let lanes = self.lanes.values().flat_map(|lane| lane.sent.iter().chain(&lane.waiting));
        let held = self.held.values().flat_map(|held| held.refused.iter().chain(&held.waiting));
        let of_key = |item: &&Item| words(&item.command).nth(1) == Some(key);
        let all = lanes.chain(held).filter(of_key);
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

    /// The channels and keys of what waits for this node.
    pub(super) fn channels_of(&self, node: NodeId) -> impl Iterator<Item = &[u8]> {
        let waiting = self.lanes.get(&node).into_iter().flat_map(|lane| &lane.waiting);
        waiting.filter_map(|item| words(&item.command).nth(1))
    }

    /// Whether something goes from one node to another as soon as the first one has answered, both of which are
    /// there.
    pub(super) fn moves(&self, is_there: impl Fn(NodeId) -> bool) -> bool {
        let moves = |held: &Held| held.to != held.from && is_there(held.from) && is_there(held.to);
        self.held.values().any(moves)
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

    fn plain(slot: impl Into<u16>) -> Flow {
        Flow { slot: slot.into(), kept: false }
    }

    fn sent_to(outbox: &mut Outbox, node: NodeId) -> String {
        let mut batch = Vec::new();
        outbox.send(node, &mut batch, usize::MAX);
        String::from_utf8(batch).unwrap()
    }

    fn sent(outbox: &mut Outbox) -> String {
        sent_to(outbox, A)
    }

    fn push(outbox: &mut Outbox, text: &str) -> usize {
        let number = outbox.next_number();
        outbox.push(A, plain(0_u16), number, text.into()).len()
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
        assert_eq!(outbox.unsend(A).0, 1);
        assert_eq!(sent(&mut outbox), "bc");
        assert_eq!((outbox.unsend(A).0, sent(&mut outbox)), (2, "bc".into()), "in their order");
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
            assert_eq!(outbox.push(A, plain(slot), at as u64, (*text).into()).len(), 0);
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
        assert_eq!(outbox.next_flow(A), Some(plain(b'a')));
        assert!(outbox.refused(A).is_none(), "it is not known that the slot is elsewhere");
        outbox.reroute(a_is_at(B));
        outbox.push(B, plain(b'a'), 6, b"a6 ".into());
        assert_eq!(sent_to(&mut outbox, B), "", "it would overtake");
        outbox.reroute(a_is_at(C));
        assert!(outbox.refused(A).is_some());
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
        assert!(outbox.refused(A).is_some());
        assert_eq!(sent_to(&mut outbox, B), "");
        assert_eq!(outbox.unsend(A).0, 2);
        assert_eq!(sent_to(&mut outbox, B), "a0 a2 a4 ");
        assert_eq!(sent_to(&mut outbox, A), "b1 b3 b5 ");
        // And the whole node.
        outbox.reroute(|_| B);
        assert_eq!(outbox.unsend(A).0, 3);
        assert_eq!(sent_to(&mut outbox, B), "b1 b3 b5 ");
        for _ in 0..6 {
            outbox.confirmed(B);
        }
        assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
    }

    // row 290
    #[test]
    fn what_is_put_off_holds_back_its_own_flow_and_is_tried_with_one_message() {
        let mut outbox = half_sent();
        let (a, b) = (plain(b'a'), plain(b'b'));
        assert_eq!(outbox.put_off(A), (Answered::default(), Some(0)));
        outbox.confirmed(A); // b1
        assert_eq!(outbox.put_off(A), (Answered::default(), None), "a2, with a time chosen");
        outbox.push(A, a, 6, b"a6 ".into());
        assert_eq!(sent(&mut outbox), "b3 b5 ", "others go on");
        outbox.try_again(A, a);
        assert_eq!((sent(&mut outbox), sent(&mut outbox)), ("a0 ".into(), "".into()));
        for _ in 0..2 {
            assert!(!outbox.confirmed(A).lets_go);
        }
        assert_eq!(outbox.put_off(A), (Answered::default(), Some(1)));
        outbox.push(A, b, 7, b"b7 ".into());
        assert_eq!(sent(&mut outbox), "b7 ");
        outbox.confirmed(A);
        outbox.try_again(A, a);
        assert_eq!(sent(&mut outbox), "a0 ");
        let over = Answered { lets_go: true, is_over: true, renumbered: Vec::new() };
        assert_eq!(outbox.confirmed(A), over);
        assert_eq!(sent(&mut outbox), "a2 a4 a6 ");
        assert_eq!(outbox.put_off(A), (Answered::default(), Some(0)), "anew");
        // On the next connection all of it goes out in its order.
        outbox.push(A, b, 8, b"b8 ".into());
        assert_eq!(outbox.unsend(A), (2, Vec::new()));
        assert_eq!(sent(&mut outbox), "a2 a4 a6 b8 ");
        for _ in 0..4 {
            outbox.confirmed(A);
        }
        assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
    }

    // row 290
    #[test]
    fn flows_that_are_put_off_do_not_get_in_each_others_way() {
        let mut outbox = Outbox::new(100, WhenFull::DropOldest);
        for (number, text) in [(1, "a1 "), (2, "b2 "), (3, "c3 ")] {
            outbox.push(A, plain(text.as_bytes()[0]), number, text.into());
        }
        sent(&mut outbox);
        outbox.put_off(A);
        outbox.put_off(A);
        outbox.try_again(A, plain(b'b'));
        outbox.try_again(A, plain(b'a'));
        assert_eq!(outbox.put_off(A).1, Some(0), "before they are sent");
        assert_eq!(sent(&mut outbox), "a1 b2 ");
        for _ in 0..2 {
            assert!(outbox.confirmed(A).lets_go);
        }
        outbox.try_again(A, plain(b'c'));
        assert_eq!(sent(&mut outbox), "c3 ");
    }

    // row 290
    #[test]
    fn what_is_put_off_goes_where_its_slot_goes() {
        let a_is_at = |to| move |slot| if slot == u16::from(b'a') { to } else { A };
        let mut outbox = half_sent();
        outbox.put_off(A);
        outbox.confirmed(A);
        outbox.reroute(a_is_at(B));
        assert_eq!(sent_to(&mut outbox, B), "", "a2 is not answered");
        outbox.put_off(A);
        assert_eq!(sent_to(&mut outbox, B), "a0 a2 a4 ");
        // Also when one of it is about to be tried again.
        let mut outbox = half_sent();
        outbox.put_off(A);
        outbox.confirmed(A);
        outbox.put_off(A);
        outbox.try_again(A, plain(b'a'));
        outbox.reroute(a_is_at(B));
        assert_eq!(
            (sent(&mut outbox), sent_to(&mut outbox, B)),
            ("b3 b5 ".into(), "a0 a2 a4 ".into())
        );
    }

    // row 290
    #[test]
    fn how_often_a_flow_was_refused_is_known_on_the_next_connection() {
        let mut outbox = half_sent();
        assert_eq!(outbox.count_refusal(A), 1);
        outbox.unsend(A);
        let kept = Flow { slot: 7, kept: true };
        outbox.push(A, kept, 6, b"k".into());
        sent(&mut outbox);
        assert_eq!(outbox.count_refusal(A), 2);
        assert!(outbox.confirmed(A).is_over);
        assert!(!outbox.confirmed(A).is_over, "of the other flow");
    }

    // row 291
    #[test]
    fn what_was_overtaken_gets_a_new_number_and_so_does_what_follows() {
        let mut outbox = Outbox::new(1000, WhenFull::DropOldest);
        for _ in 1..=5 {
            let number = outbox.next_number();
            outbox.push(A, plain(1_u16), number, vec![b'0' + number as u8]);
        }
        let mut batch = Vec::new();
        assert_eq!(outbox.send(A, &mut batch, 4), 4);
        // Two may be there from the connection before.
        outbox.unsend(A);
        batch.clear();
        outbox.send(A, &mut batch, 2);
        outbox.confirmed(A);
        outbox.confirmed(A);
        outbox.push(A, plain(1_u16), 6, b"6".into());
        assert_eq!(outbox.next_number(), 6);
        batch.clear();
        assert_eq!(outbox.send(A, &mut batch, 4), 4);
        assert_eq!(batch, b"3456");
        outbox.put_off(A); // 3
        outbox.confirmed(A); // 4
        outbox.put_off(A); // 5
        let (answered, _) = outbox.put_off(A);
        assert_eq!(answered.renumbered, [(5, 7), (6, 8)], "3 may be there under its number");
        outbox.push(A, plain(1_u16), 9, b"9".into());
        assert_eq!(outbox.next_number(), 9);
        outbox.unsend(A);
        assert_eq!(sent(&mut outbox), "3569");
    }

    // row 270
    #[test]
    fn what_waits_for_a_slot_that_moves_is_dropped_in_its_turn() {
        let mut outbox = Outbox::new(3, WhenFull::DropOldest);
        outbox.push(A, plain(1_u16), 1, b"1".into());
        sent(&mut outbox);
        outbox.reroute(|_| B);
        outbox.push(B, plain(1_u16), 2, b"2".into());
        outbox.push(B, plain(9_u16), 3, b"3".into());
        assert_eq!(outbox.push(B, plain(9_u16), 4, b"4".into()), [2]);
        assert_eq!(sent_to(&mut outbox, B), "34");
        assert!(outbox.refused(A).is_some());
        assert_eq!(sent_to(&mut outbox, B), "1");
    }

    // row 248
    #[test]
    fn the_oldest_of_all_that_waits_is_dropped_first() {
        let mut outbox = Outbox::new(3, WhenFull::DropOldest);
        outbox.push(A, plain(1_u16), 1, b"1".into());
        sent(&mut outbox);
        outbox.push(C, plain(3_u16), 2, b"2".into());
        outbox.push(B, plain(2_u16), 3, b"3".into());
        // The first one comes to a node for which a later one waits already.
        outbox.reroute(|slot| if slot == 3 { C } else { B });
        assert!(outbox.refused(A).is_some());
        assert_eq!(outbox.push(C, plain(3_u16), 4, b"4".into()), [1]);
        assert_eq!(outbox.push(C, plain(3_u16), 5, b"5".into()), [2]);
        assert_eq!((sent_to(&mut outbox, B), sent_to(&mut outbox, C)), ("3".into(), "45".into()));
    }

    // row 270
    #[test]
    fn what_was_to_go_to_one_server_goes_to_the_nodes_of_a_cluster() {
        use crate::layer::resp::Command;
        let mut outbox = Outbox::new(1000, WhenFull::DropOldest);
        let said = Command::encode(&["PUBLISH", "b\r\n", "hello"]);
        let kept = Command::encode(&["XADD", "aa", "MAXLEN", "~", "9", "*", "m", "hi"]);
        let length = (said.len(), kept.len());
        outbox.push(A, plain(0_u16), 1, said);
        outbox.push(A, Flow { slot: 0, kept: true }, 2, kept.clone());
        outbox.becomes_sharded(|key| key.len() as u16);
        outbox.reroute(|slot| if slot == 2 { C } else { B });
        let sharded = Command::encode(&["SPUBLISH", "b\r\n", "hello"]);
        assert_eq!(outbox.bytes(), length.0 + 1 + length.1);
        assert_eq!(sent_to(&mut outbox, B).into_bytes(), sharded);
        assert_eq!(outbox.next_flow(B), Some(plain(3_u16)));
        assert_eq!(outbox.unconfirmed(b"aa"), [(2, &b"hi"[..])]);
        assert_eq!(outbox.unconfirmed(b"b\r\n"), [(1, &b"hello"[..])]);
        assert_eq!(outbox.unconfirmed(b"a"), []);
        assert_eq!(sent_to(&mut outbox, C).into_bytes(), kept);
        assert_eq!(outbox.next_flow(C), Some(Flow { slot: 2, kept: true }));
    }
}
