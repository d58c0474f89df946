//! A short connection to any node of a cluster, to ask it where the slots are.

use std::rc::Rc;
use std::time::Duration;

use super::BackplaneEvent;
use super::answers::{failed, hello, is_of_cluster, login_refused, refusal};
use super::dial::{Control, arrange, backoff, check_whole, look_up};
use super::plane::{Plane, Told};
use super::slots::slot_map;
use crate::address::Target;
use crate::connection::Input;
use crate::context::Context;
use crate::error::{CloseInfo, CloseReason, HandlerResult};
use crate::handler::Handler;
use crate::layer::Resp;
use crate::layer::resp::{Command, Value};
use crate::net::Net;

/// The wait while a slot has no node or one is away: the cluster is about to choose another one.
const AGAIN: Duration = Duration::from_millis(500);

/// Sends one if the map may be wrong and none is on the way.
pub(super) fn scout<S: 'static>(control: &Rc<Control<S>>, state: &mut S, net: &mut Net<S>) {
    let at = {
        let plane = &mut *control.plane.borrow_mut();
        let scouting = &mut plane.scouting;
        if scouting.under_way || scouting.waits || plane.stopped || net.is_ending() {
            return;
        }
        if std::mem::take(&mut scouting.is_due_later) {
            (scouting.is_due, scouting.waits) = (true, true);
            return scout_later(control, AGAIN, net);
        }
        if !std::mem::take(&mut scouting.is_due) {
            return;
        }
        (scouting.under_way, scouting.sent) = (true, scouting.sent.wrapping_add(1));
        // A node that is there knows. After a failure all are asked in turn, that of the URL among them.
        let mut known: Vec<_> = plane.nodes.iter().map(|(_, node)| node).collect();
        if scouting.failures == 0 && known.iter().any(|node| node.is_up()) {
            known.retain(|node| node.is_up());
        }
        known[scouting.sent % known.len()].at.clone()
    };
    let scouting = Rc::clone(control);
    let said_by = at.host.clone();
    look_up(&at, state, net, move |found, state, net| {
        if let Err(why) = found.and_then(|to| send_to(&scouting, to, said_by, net)) {
            ended(&scouting, Some(why), state, net);
        }
    });
}

impl Plane {
    /// Whether it may change soon: a node is away, or a slot has none.
    fn is_map_asked_for(&self) -> bool {
        !self.nodes.are_up() || self.nodes.has_gaps()
    }
}

/// Sends the next one after a wait, if the map may be wrong then.
fn scout_later<S: 'static>(control: &Rc<Control<S>>, wait: Duration, net: &mut Net<S>) {
    let later = Rc::clone(control);
    net.run_after(wait, move |state, net| {
        let waits = {
            let plane = &mut *later.plane.borrow_mut();
            let is_gap_due = plane.scouting.gaps_due.is_none_or(|due| due <= net.now());
            let has_gaps = plane.nodes.has_gaps();
            plane.scouting.is_due |= !plane.nodes.are_up() || (has_gaps && is_gap_due);
            let goes_on = !plane.stopped && !net.is_ending();
            plane.scouting.waits = has_gaps && !plane.scouting.is_due && goes_on;
            plane.scouting.waits
        };
        match waits {
            // What is news meanwhile is asked for at the next of these looks.
            true => scout_later(&later, AGAIN, net),
            false => scout(&later, state, net),
        }
    });
}

fn send_to<S: 'static>(
    control: &Rc<Control<S>>,
    to: Target,
    host: String,
    net: &mut Net<S>,
) -> Result<(), String> {
    if net.is_ending() || control.plane.borrow().stopped {
        return Ok(());
    }
    // The whole map: some 100 bytes a range and node.
    let limit = 4 * 1024 * 1024;
    let connect = control.connect_to(to, &host, Resp::client().message_limit(limit), limit)?;
    let scout =
        Scout { control: Rc::clone(control), host, asked: false, gave_up: false, done: false };
    let token = net.connect(connect, scout).map_err(|error| error.to_string())?;
    control.plane.borrow_mut().scouting.token = Some(token);
    Ok(())
}

/// One has come back, with or without a map.
fn ended<S: 'static>(
    control: &Rc<Control<S>>,
    why: Option<String>,
    state: &mut S,
    net: &mut Net<S>,
) {
    let (wait, event) = {
        let plane = &mut *control.plane.borrow_mut();
        let scouting = &mut plane.scouting;
        (scouting.under_way, scouting.token) = (false, None);
        if plane.stopped || net.is_ending() {
            return;
        }
        match why {
            Some(why) => {
                let wait = backoff(scouting.failures, control.longest_wait);
                scouting.failures = scouting.failures.saturating_add(1);
                scouting.is_due = true;
                let event = BackplaneEvent::Failed { why, again_in: wait };
                // Nodes that are away say so themselves.
                let alone = plane.told == Told::Nothing && !plane.nodes.has_nodes();
                (wait, alone.then_some(event))
            }
            None => {
                (scouting.failures, scouting.is_due_later) = (0, false);
                // Slots may be without a node for good.
                let longer = backoff(scouting.gaps, control.longest_wait).max(AGAIN);
                scouting.gaps_due = Some(net.now() + longer);
                (AGAIN, None)
            }
        }
    };
    let is_wanted = {
        let plane = &mut *control.plane.borrow_mut();
        let is_wanted = plane.scouting.is_due || plane.is_map_asked_for();
        is_wanted && !std::mem::replace(&mut plane.scouting.waits, true)
    };
    if is_wanted {
        scout_later(control, wait, net);
    }
    if let Some(event) = event {
        control.tell(&event, state, net);
    }
}

struct Scout<S> {
    control: Rc<Control<S>>,
    host: String,
    /// It is logged in, and has asked.
    asked: bool,
    gave_up: bool,
    done: bool,
}

impl<S: 'static> Handler<S> for Scout<S> {
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        cx.send(hello(&self.control.url));
        cx.set_timer(self.control.silence, 0);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        let message = input.take_all();
        let refused = refusal(message);
        if !self.asked {
            if let Some(why) = refused {
                return Err(login_refused(&self.control.url, &why));
            }
            if !is_of_cluster(&Value::parse(message)?) {
                return Err(failed("expected a node of a cluster, a single server came".into()));
            }
            self.asked = true;
            cx.send(Command::encode(&["CLUSTER", "SLOTS"]));
            return Ok(());
        }
        if let Some(why) = refused {
            return Err(failed(format!("the server refused CLUSTER SLOTS: {why}")));
        }
        let map = slot_map(&Value::parse(message)?, &self.host);
        let Some(map) = map.filter(|map| !map.is_empty()) else {
            return Err(failed(
                "expected the nodes of a cluster and their slots, none came".into(),
            ));
        };
        self.done = true;
        let (ending, topics) = {
            let now = cx.net.now();
            let plane = &mut *self.control.plane.borrow_mut();
            (plane.set_map(now, map), plane.newly_unserved(now))
        };
        cx.close();
        arrange(&self.control, ending, cx.state, cx.net);
        if !topics.is_empty() {
            self.control.tell(&BackplaneEvent::Unserved { topics }, cx.state, cx.net);
        }
        check_whole(&self.control, cx.state, cx.net);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, S>, _: crate::timers::Timer) -> HandlerResult {
        self.gave_up = true;
        cx.abort();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        let silence = self.control.silence;
        let why = match &closed.reason {
            _ if self.done => None,
            _ if self.gave_up => Some(format!("the server has said nothing for {silence:?}")),
            CloseReason::BothEnded => Some("the server closed the connection".into()),
            reason => Some(reason.to_string()),
        };
        ended(&self.control, why, cx.state, cx.net);
    }
}
