//! One connection to a node of the engine, from its first byte to its end.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

use super::BackplaneEvent;
use super::answers::{
    database_refused, failed, fit_for_cluster, hello, is_for_the_moment, is_of_cluster,
    is_of_the_server, login_refused, refusal,
};
use super::dial::{Control, arrange, backoff, check_whole, lost, rouse, waits_longer};
use super::nodes::NodeId;
use super::outbox::{Answered, Flow};
use super::plane::{Phase, Told, Waking};
use super::reader::{Poke, Reading};
use super::reading::dial_reader;
use super::slots::{self, Endpoint};
use super::topics::Change;
use crate::connection::Input;
use crate::context::Context;
use crate::error::{CloseInfo, CloseReason, HandlerResult};
use crate::handler::Handler;
use crate::layer::resp::{Command, Value};
use crate::net::Errand;
use crate::notification::Notification;
use crate::timers::Timer;

/// So much goes to the connection at once: a send queues what it is given.
const BATCH: usize = 32 * 1024;

/// What a timer is for: the engine has said nothing for long; subscriptions are tried again; the second
/// connection is woken again; and from
/// [`of_flow`] on the messages of a flow are.
const SILENCE: u64 = 0;
const JOIN_AGAIN: u64 = 1;
const WAKE_AGAIN: u64 = 2;

fn of_flow(Flow { slot, kept }: Flow) -> u64 {
    3 + u64::from(slot) * 2 + u64::from(kept)
}

fn flow_of(tag: u64) -> Option<Flow> {
    let tag = tag.checked_sub(3)?;
    Some(Flow { slot: u16::try_from(tag / 2).ok()?, kept: tag % 2 == 1 })
}

/// What the engine answers next. It answers in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Hello,
    Select,
    Subscribed,
    Unsubscribed,
    Published,
    Unblocked,
    Pong,
}

/// The handler of the connection.
pub(super) struct Link<S> {
    control: Rc<Control<S>>,
    node: NodeId,
    /// Runs of equal answers.
    expected: VecDeque<(Expected, u32)>,
    /// The channels of the subscriptions that are not confirmed.
    joining: VecDeque<Vec<u8>>,
    /// The channels of the unsubscriptions that are not confirmed.
    leaving: VecDeque<Vec<u8>>,
    /// Logged in.
    ready: bool,
    heard: Instant,
    pinged: bool,
    /// Why this side gave it up.
    gave_up: Option<String>,
    /// So many refusals in a row were told.
    told: u32,
    batch: Vec<u8>,
}

impl<S: 'static> Link<S> {
    pub(super) fn new(control: Rc<Control<S>>, node: NodeId, now: Instant) -> Self {
        Link {
            control,
            node,
            expected: VecDeque::new(),
            joining: VecDeque::new(),
            leaving: VecDeque::new(),
            ready: false,
            heard: now,
            pinged: false,
            gave_up: None,
            told: 0,
            batch: Vec::new(),
        }
    }

    fn expect(&mut self, what: Expected, count: u32) {
        match self.expected.back_mut() {
            Some((last, run)) if *last == what => *run += count,
            _ if count > 0 => self.expected.push_back((what, count)),
            _ => {}
        }
    }

    /// Takes the answer that comes next.
    fn next(&mut self) -> Option<Expected> {
        let (what, run) = self.expected.front_mut()?;
        let what = *what;
        *run -= 1;
        if *run == 0 {
            self.expected.pop_front();
        }
        Some(what)
    }

    /// Sends what is recorded, as much as the connection takes without queueing for long.
    fn pump(&mut self, cx: &mut Context<'_, S>) {
        if !self.ready {
            return;
        }
        let mut batch = std::mem::take(&mut self.batch);
        while !cx.is_above_high_water() {
            let plane = Rc::clone(&self.control.plane);
            let plane = &mut *plane.borrow_mut();
            let is_cluster = plane.nodes.is_cluster();
            while batch.len() < BATCH
                && let Some(node) = plane.nodes.get_mut(self.node)
                && let Some((change, topic)) = node.topics.next_change()
            {
                // One by one: an answer may be an error, and answers come in order.
                let (word, answer) = match (change, is_cluster) {
                    (Change::Subscribe, false) => (&b"SUBSCRIBE"[..], Expected::Subscribed),
                    (Change::Subscribe, true) => (&b"SSUBSCRIBE"[..], Expected::Subscribed),
                    (Change::Unsubscribe, false) => (&b"UNSUBSCRIBE"[..], Expected::Unsubscribed),
                    (Change::Unsubscribe, true) => (&b"SUNSUBSCRIBE"[..], Expected::Unsubscribed),
                };
                let joins = answer == Expected::Subscribed;
                let channel = plane.channel(&topic);
                self.expect(answer, 1);
                Command::encode_into(&[word, &channel], &mut batch);
                let list = if joins { &mut self.joining } else { &mut self.leaving };
                list.push_back(channel);
            }
            let sent = plane.outbox.send(self.node, &mut batch, BATCH);
            self.expect(Expected::Published, sent);
            if batch.is_empty() {
                break;
            }
            cx.send(&batch);
            batch.clear();
        }
        batch.clear();
        batch.shrink_to(BATCH);
        self.batch = batch;
        self.poke_reader(cx);
    }

    /// Lets the other connection know that there is something else to do.
    fn poke_reader(&mut self, cx: &mut Context<'_, S>) {
        let plane = &mut *self.control.plane.borrow_mut();
        if !plane.streams.changed || plane.reader_at != self.node {
            return;
        }
        match plane.reading {
            Reading::Idle => {
                if let Some(reader) = plane.reader {
                    cx.net.notify(reader, Poke);
                }
            }
            Reading::Blocked(client) if !plane.cannot_unblock => {
                let Waking::Due(vain) = plane.waking else { return };
                plane.waking = Waking::UnderWay(plane.waits, vain);
                cx.send(Command::encode(&["CLIENT", "UNBLOCK", &client.to_string()]));
                self.expected.push_back((Expected::Unblocked, 1));
            }
            _ => {} // it looks itself, or is not there
        }
    }

    /// Logged in and subscribed: from now on nothing of this node is missed.
    fn check_joined(&mut self, cx: &mut Context<'_, S>) {
        if !self.ready {
            return;
        }
        {
            let plane = &mut *self.control.plane.borrow_mut();
            let Some(node) = plane.nodes.get_mut(self.node) else { return };
            if node.topics.is_awaited() {
                return;
            }
            if matches!(node.phase, Phase::Dialing(_)) {
                node.phase = Phase::Up(cx.token);
                node.failures = 0;
                plane.stats.connects += 1;
                if plane.node_of_kept() == self.node {
                    plane.reader_waits = false; // the node is there again
                }
            } else if plane.moved.is_none() && plane.told == Told::Whole {
                return; // nothing is news
            }
        }
        dial_reader(&self.control, cx.net);
        check_whole(&self.control, cx.state, cx.net);
    }

    fn push(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        let fields = input.fields();
        let message = input.take_all();
        let field = |at: usize| fields.get(at).and_then(|field| message.get(field.clone()));
        match (field(0), field(1), field(2)) {
            (Some(b"message" | b"smessage"), Some(channel), Some(payload)) => {
                let now = cx.net.now();
                let arrived = self.control.plane.borrow_mut().arrived(now, channel, payload);
                if let Some(delivery) = arrived {
                    self.control.deliver(&delivery, cx.state, cx.net);
                }
                Ok(())
            }
            // A slot has left this node, and its subscriptions with it: nobody asked for that.
            (Some(b"sunsubscribe"), Some(channel), _) if !self.leaves_next(channel) => {
                let now = cx.net.now();
                self.control.plane.borrow_mut().unsubscribed(now, self.node, channel);
                self.pump(cx);
                Ok(())
            }
            (Some(b"subscribe" | b"unsubscribe" | b"ssubscribe" | b"sunsubscribe"), Some(_), _) => {
                self.answer(cx, message)
            }
            _ => Ok(()), // of another sort, which nobody asked for
        }
    }

    /// Whether the answer that comes next is to the unsubscription of this channel.
    fn leaves_next(&self, channel: &[u8]) -> bool {
        let leaves = self.leaving.front().is_some_and(|next| next == channel);
        leaves && self.is_next(Expected::Unsubscribed)
    }

    fn is_next(&self, what: Expected) -> bool {
        self.expected.front().is_some_and(|&(next, _)| next == what)
    }

    /// A slot is at another node: what was to be said here is said there.
    fn moved(&mut self, cx: &mut Context<'_, S>, slot: u16, to: Endpoint) -> HandlerResult {
        let plane = Rc::clone(&self.control.plane);
        let next = plane.borrow().outbox.next_flow(self.node);
        let publishes =
            self.is_next(Expected::Published) && next.is_some_and(|flow| flow.slot == slot);
        let is_of_slot = |list: &VecDeque<Vec<u8>>| {
            list.front().is_some_and(|channel| slots::slot_of(channel) == slot)
        };
        let joins = self.is_next(Expected::Subscribed) && is_of_slot(&self.joining);
        let leaves = self.is_next(Expected::Unsubscribed) && is_of_slot(&self.leaving);
        if !publishes && !joins && !leaves {
            // Of a SUNSUBSCRIBE for which the server's own was taken, when the slot moved.
            return Ok(());
        }
        self.next();
        let now = cx.net.now();
        let ending = {
            let plane = &mut *plane.borrow_mut();
            if leaves {
                self.leaving.pop_front();
            }
            if joins {
                self.joining.pop_front();
            }
            let ending = plane.learn(now, self.node, (slot, to));
            plane.stats.moved += u64::from(publishes);
            if publishes {
                let Some(Answered { renumbered, .. }) = plane.outbox.refused(self.node) else {
                    return Err(failed(format!(
                        "it says that slot {slot} is elsewhere, which it is not"
                    )));
                };
                plane.have_other_numbers(&renumbered);
            }
            ending
        };
        arrange(&self.control, ending, cx.state, cx.net);
        self.check_joined(cx);
        Ok(())
    }

    /// The engine does not take a message for the moment: what follows it is held back, and all of that tried again
    /// after a wait, which grows. The connection goes on, if that is of use.
    fn publish_later(&mut self, cx: &mut Context<'_, S>, why: &str) -> HandlerResult {
        let (flow, answered, is_chosen) = {
            let plane = &mut *self.control.plane.borrow_mut();
            let Some(flow) = plane.outbox.next_flow(self.node) else { return Ok(()) };
            if is_of_the_server(why) {
                let refusals = plane.outbox.count_refusal(self.node);
                if let Some(node) = plane.nodes.get_mut(self.node) {
                    // To connect is no success: the next attempt waits longer than the one before.
                    node.not_now = refusals;
                }
                return Err(failed(format!("the server takes nothing at the moment: {why}")));
            }
            let (answered, is_chosen) = plane.outbox.put_off(self.node);
            plane.have_other_numbers(&answered.renumbered);
            (flow, answered, is_chosen)
        };
        if let Some(count) = is_chosen {
            let command = if flow.kept { "XADD" } else { "PUBLISH" };
            self.again_later(cx, of_flow(flow), count, (command, why));
        }
        if answered.lets_go {
            rouse(&self.control, None, cx.net);
        }
        Ok(())
    }

    /// The engine does not subscribe this process for the moment.
    fn join_later(&mut self, cx: &mut Context<'_, S>, channel: &[u8], why: &str) {
        let is_chosen = {
            let plane = &mut *self.control.plane.borrow_mut();
            let topic = channel.strip_prefix(&*plane.prefix).unwrap_or_default();
            plane.nodes.get_mut(self.node).and_then(|node| node.topics.put_off(topic))
        };
        if let Some(count) = is_chosen {
            self.again_later(cx, JOIN_AGAIN, count, ("SUBSCRIBE", why));
        }
    }

    /// Something was refused so often before, and is tried again. It is told whenever that takes longer than it ever
    /// did.
    fn again_later(
        &mut self,
        cx: &mut Context<'_, S>,
        tag: u64,
        count: u32,
        (command, why): (&str, &str),
    ) {
        let longest = self.control.longest_wait;
        let again_in = backoff(count, longest);
        cx.set_timer(again_in, tag);
        if count >= self.told && waits_longer(count, longest) {
            self.told = count + 1;
            let why = format!("the server refuses {command} for the moment: {why}");
            let why = self.control.of_node(self.node, why);
            self.control.tell(&BackplaneEvent::Failed { why, again_in }, cx.state, cx.net);
        }
    }

    /// Logged in. Whether this is a node of a cluster is said there.
    fn welcomed(&mut self, cx: &mut Context<'_, S>, message: &[u8]) -> HandlerResult {
        let hello = Value::parse(message)?;
        let is_cluster = is_of_cluster(&hello);
        let was_cluster = self.control.plane.borrow().nodes.is_cluster();
        let database = self.control.url.database;
        match (is_cluster, was_cluster) {
            (true, false) => {
                {
                    let plane = &mut *self.control.plane.borrow_mut();
                    fit_for_cluster(plane, database, &hello)?;
                    plane.becomes_cluster();
                }
                // Its nodes have connections of their own.
                cx.close();
                self.gave_up = Some("it is a cluster".into());
            }
            (false, true) => {
                return Err(failed("expected a node of a cluster, a single server came".into()));
            }
            (true, true) => self.logged_in(cx),
            (false, false) if database == 0 => self.logged_in(cx),
            (false, false) => {
                self.expect(Expected::Select, 1);
                cx.send(Command::encode(&["SELECT", &database.to_string()]));
            }
        }
        Ok(())
    }

    fn answer(&mut self, cx: &mut Context<'_, S>, message: &[u8]) -> HandlerResult {
        let refused = refusal(message);
        if let Some(why) = &refused
            && why.starts_with("MOVED ")
        {
            let Some((slot, to)) = self.moved_to(why) else {
                return Err(failed(format!("expected MOVED SLOT HOST:PORT, {why:?} came")));
            };
            return self.moved(cx, slot, to);
        }
        let expected = self.next();
        match (expected, refused) {
            (Some(Expected::Hello), None) => self.welcomed(cx, message)?,
            (Some(Expected::Hello), Some(why)) => {
                return Err(login_refused(&self.control.url, &why));
            }
            (Some(Expected::Select), None) => self.logged_in(cx),
            (Some(Expected::Select), Some(why)) => {
                return Err(database_refused(self.control.url.database, &why));
            }
            (Some(Expected::Published), Some(why)) if is_for_the_moment(&why) => {
                return self.publish_later(cx, &why);
            }
            (Some(Expected::Published), refused) => {
                let (answered, refused) = {
                    let plane = &mut *self.control.plane.borrow_mut();
                    let refused = refused.and_then(|why| plane.outbox.named(self.node, &why));
                    let answered = plane.outbox.confirmed(self.node);
                    plane.have_other_numbers(&answered.renumbered);
                    if answered.is_over {
                        self.told = 0;
                        if let Some(node) = plane.nodes.get_mut(self.node) {
                            node.not_now = 0;
                        }
                    }
                    match &refused {
                        None => plane.stats.confirmed += 1,
                        Some(_) => plane.stats.refused += 1,
                    }
                    (answered, refused)
                };
                if let Some((command, why)) = refused {
                    self.refused(cx, command, why);
                }
                if answered.lets_go {
                    rouse(&self.control, None, cx.net);
                }
            }
            (Some(Expected::Subscribed), refused) => {
                let channel = self.joining.pop_front().unwrap_or_default();
                match refused {
                    Some(why) if is_for_the_moment(&why) => self.join_later(cx, &channel, &why),
                    Some(why) => {
                        self.joined(&channel);
                        self.refused(cx, "SUBSCRIBE", why);
                    }
                    None => self.joined(&channel),
                }
                self.check_joined(cx);
            }
            (Some(Expected::Unblocked), refused) => {
                let again_in = {
                    let plane = &mut *self.control.plane.borrow_mut();
                    // An ACL: reads are short from then on.
                    plane.cannot_unblock |= refused.is_some_and(|why| !is_for_the_moment(&why));
                    let woke = message.first() == Some(&b':') && !message.starts_with(b":0");
                    plane.woke(woke)
                };
                match again_in {
                    Some(wait) => drop(cx.set_timer(wait, WAKE_AGAIN)),
                    None => self.pump(cx),
                }
            }
            // Refused for the moment, it costs what is said there until this connection ends.
            (Some(Expected::Unsubscribed), _) => {
                self.leaving.pop_front();
                self.check_joined(cx);
            }
            (Some(Expected::Pong), _) => {}
            (None, _) => {
                let said = String::from_utf8_lossy(message[..message.len().min(60)].trim_ascii());
                return Err(failed(format!("expected nothing from the server, {said:?} came")));
            }
        }
        Ok(())
    }

    fn logged_in(&mut self, cx: &mut Context<'_, S>) {
        self.ready = true;
        if let Some(node) = self.control.plane.borrow_mut().nodes.get_mut(self.node) {
            node.topics.connected();
        }
        self.pump(cx);
        self.check_joined(cx);
    }

    /// A subscription is confirmed, or refused for good.
    fn joined(&mut self, channel: &[u8]) {
        let plane = &mut *self.control.plane.borrow_mut();
        let topic = channel.strip_prefix(&*plane.prefix).unwrap_or_default();
        if let Some(node) = plane.nodes.get_mut(self.node) {
            let is_over = node.topics.confirmed(topic);
            self.told = if is_over { 0 } else { self.told };
        }
    }

    fn moved_to(&self, why: &str) -> Option<(u16, Endpoint)> {
        let plane = self.control.plane.borrow();
        slots::moved(why, &plane.nodes.get(self.node)?.at.host)
    }

    fn refused(&mut self, cx: &mut Context<'_, S>, command: &'static str, why: String) {
        self.control.tell(&BackplaneEvent::Refused { command, why }, cx.state, cx.net);
    }
}

impl<S: 'static> Handler<S> for Link<S> {
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.heard = cx.net.now();
        self.expect(Expected::Hello, 1);
        cx.send(hello(&self.control.url));
        cx.set_timer(self.control.silence / 2, SILENCE);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        self.heard = cx.net.now();
        self.pinged = false;
        if input.first() == Some(&b'>') {
            self.push(cx, input)
        } else {
            self.answer(cx, input.take_all())
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.pump(cx);
        self.check_joined(cx);
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Context<'_, S>, notification: Notification) -> HandlerResult {
        if notification.is::<Errand>() {
            cx.net.errand_is_run();
            // It is for all nodes.
            rouse(&self.control, Some(cx.token), cx.net);
        }
        self.pump(cx);
        self.check_joined(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, S>, timer: Timer) -> HandlerResult {
        if timer.tag() != SILENCE {
            {
                let plane = &mut *self.control.plane.borrow_mut();
                match (timer.tag(), flow_of(timer.tag())) {
                    (_, Some(flow)) => plane.outbox.try_again(self.node, flow),
                    (WAKE_AGAIN, None) => plane.wake_again(),
                    (_, None) => {
                        if let Some(node) = plane.nodes.get_mut(self.node) {
                            node.topics.try_again();
                        }
                    }
                }
            }
            self.pump(cx);
            self.check_joined(cx);
            return Ok(());
        }
        let silence = self.control.silence;
        let silent = cx.net.now().saturating_duration_since(self.heard);
        if silent >= silence {
            self.gave_up = Some(format!("the server has said nothing for {silence:?}"));
            cx.abort();
            return Ok(());
        }
        if silent >= silence / 2 && !self.pinged {
            self.pinged = true;
            if self.ready {
                self.expect(Expected::Pong, 1);
                cx.send(Command::encode(&["PING"]));
            }
        }
        let due = if self.pinged { silence } else { silence / 2 };
        cx.set_timer(due - silent, SILENCE);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        let why = self.gave_up.take().unwrap_or_else(|| match &closed.reason {
            CloseReason::BothEnded => "the server closed the connection".into(),
            reason => reason.to_string(),
        });
        lost(&self.control, self.node, why, cx.state, cx.net);
    }
}
