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
            // What is on its way to the engine is not dropped: it would not be a loss that anybody could count.
            let oldest = match self.when_full {
                WhenFull::DropOldest if command.len() <= self.limit => self.take_oldest(),
                _ => None,
            };
            let Some(oldest) = oldest else {
                dropped.push(number);
                return dropped;
            };
            dropped.push(oldest.number);
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
        let lanes = self.lanes.iter_mut().map(|(&to, lane)| (Some(to), &mut lane.waiting));
        let held = self.held.values_mut().map(|held| (None, &mut held.waiting));
        let number =
            |waiting: &VecDeque<Item>| waiting.front().map_or(u64::MAX, |item| item.number);
        let (lane, oldest) = lanes.chain(held).min_by_key(|(_, waiting)| number(waiting))?;
        let oldest = oldest.pop_front()?;
        self.gone(&oldest);
        let tried = self.held.get_mut(&oldest.flow).filter(|held| Some(held.from) == lane);
        if let Some(&mut Held { from, to, ref mut unanswered, .. }) = tried {
            // It was to show whether its flow is taken: the next one does.
            *unanswered = unanswered.saturating_sub(1);
            match *unanswered {
                0 if from == to => self.try_again(from, oldest.flow),
                0 => self.let_go(oldest.flow),
                _ => {}
            }
        }
        Some(oldest)
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

    /// Why a node has refused the oldest that was sent to it, with its channel or key; and which command that was.
    pub(super) fn named(&self, by: NodeId, why: &str) -> Option<(&'static str, String)> {
        let item = self.lanes.get(&by)?.sent.front()?;
        let name = words(&item.command).nth(1).unwrap_or_default();
        let command = if item.flow.kept { "XADD" } else { "PUBLISH" };
        Some((command, format!("{:?}: {why}", String::from_utf8_lossy(name))))
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
        let lane = self.lanes.get_mut(&from);
        let sent = lane.map_or_else(VecDeque::new, |lane| std::mem::take(&mut lane.sent));
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

    /// Whether a message has not been confirmed.
    pub(super) fn holds(&self, number: u64) -> bool {
        let mut lanes = self.lanes.values().flat_map(|lane| lane.sent.iter().chain(&lane.waiting));
        let mut held = self.held.values().flat_map(|held| held.refused.iter().chain(&held.waiting));
        lanes.any(|item| item.number == number) || held.any(|item| item.number == number)
    }

    /// How many messages a node has still to answer.
    pub(super) fn unanswered(&self, by: NodeId) -> usize {
        self.lanes.get(&by).map_or(0, |lane| lane.sent.len())
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
#[path = "outbox_tests.rs"]
mod tests;
