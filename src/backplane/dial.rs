//! From one connection to the next.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::link::Link;
use super::nodes::NodeId;
use super::plane::{Delivery, Phase, Plane, Told, Waking};
use super::reader::Poke;
use super::reading::{dial_reader, greet_no_longer};
use super::scout::scout;
use super::slots::Endpoint;
use super::url::Url;
use super::{BackplaneEvent, History, Hook, Listener};
use crate::address::{Address, Target};
use crate::connect::Connect;
use crate::connection::Input;
#[cfg(feature = "tls")]
use crate::layer::Layer;
use crate::layer::Resp;
use crate::net::Net;
use crate::options::StreamOptions;
use crate::token::Token;

/// The wait before the first attempt after a failure. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// What one connection inherits from the one before.
pub(super) struct Control<S> {
    pub(super) plane: Rc<RefCell<Plane>>,
    pub(super) url: Url,
    pub(super) silence: Duration,
    pub(super) longest_wait: Duration,
    /// Of a message as the engine sends it.
    pub(super) resp: Resp,
    pub(super) message_limit: usize,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<crate::layer::tls::TlsClientConfig>,
    pub(super) listeners: Vec<(Vec<u8>, Listener<S>)>,
    /// Those that are not told yet.
    pub(super) histories: RefCell<Vec<History<S>>>,
    pub(super) hook: Option<Hook<S>>,
}

impl<S: 'static> Control<S> {
    /// One line in the log, and the program's hook. Nothing is borrowed meanwhile.
    pub(super) fn tell(&self, event: &BackplaneEvent, state: &mut S, net: &mut Net<S>) {
        let at = (&self.url.host, self.url.port);
        match event {
            BackplaneEvent::Connected | BackplaneEvent::Resumed { .. } => {
                log::info!("backplane {}:{}: {event}", at.0, at.1);
            }
            _ => log::warn!("backplane {}:{}: {event}", at.0, at.1),
        }
        if let Some(hook) = &self.hook {
            hook(event, state, net);
        }
    }

    /// What a node has said, or what was found out about it. In a cluster that names it.
    pub(super) fn of_node(&self, id: NodeId, what: String) -> String {
        let plane = self.plane.borrow();
        match plane.nodes.get(id).filter(|_| plane.nodes.is_cluster()) {
            Some(node) => format!("{}:{}: {what}", node.at.host, node.at.port),
            None => what,
        }
    }

    /// A message of another process: for the members, then for the program itself.
    pub(super) fn deliver(&self, delivery: &Delivery<'_>, state: &mut S, net: &mut Net<S>) {
        let Delivery { topic, message, key } = *delivery;
        net.publish_from_beyond(topic, message, key);
        for (name, listener) in &self.listeners {
            if name == topic {
                listener(Input::message(message.bytes, message.kind), state, net);
            }
        }
    }

    /// A connection, and what a server's certificate is to name.
    pub(super) fn connect_to(
        &self,
        to: Target,
        host: &str,
        resp: Resp,
        limit: usize,
    ) -> Result<Connect, String> {
        let options =
            StreamOptions::new().connect_timeout(self.silence).messages_up_to(limit).trunk(true);
        let connect = Connect::tcp(to).options(options);
        #[cfg(not(feature = "tls"))]
        let _ = host;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let tls = tls.layer(host).map_err(|error| error.to_string())?;
            return Ok(connect.layer(tls.then(resp)));
        }
        Ok(connect.layer(resp))
    }
}

/// Finds the addresses of a host, and goes on with them in a call of `then`. A name is looked up on another
/// thread; an address needs none.
pub(super) fn look_up<S: 'static>(
    at: &Endpoint,
    state: &mut S,
    net: &mut Net<S>,
    then: impl FnOnce(Result<Target, String>, &mut S, &mut Net<S>) + 'static,
) {
    let target = Target::from((&*at.host, at.port));
    if target.is_address() {
        return then(Ok(target), state, net);
    }
    let host = at.host.clone();
    let job = move || crate::sys::resolve(&target);
    // The call is made once, by the job's end or by its refusal.
    let then = Rc::new(RefCell::new(Some(then)));
    let call = Rc::clone(&then);
    let resolved = host.clone();
    let done =
        move |found: Result<std::io::Result<Vec<Address>>, _>, state: &mut S, net: &mut Net<S>| {
            let found = match found {
                Ok(Ok(found)) => {
                    let addresses: Vec<_> = found.iter().filter_map(Address::socket_addr).collect();
                    Ok(Target::from(&*addresses))
                }
                Ok(Err(error)) => Err(format!("cannot resolve {resolved}: {error}")),
                Err(crate::net::JobPanicked { .. }) => Err("the look-up panicked".into()),
            };
            let call = call.borrow_mut().take();
            if let Some(call) = call {
                call(found, state, net);
            }
        };
    if let Err(error) = net.offload(job, done) {
        let call = then.borrow_mut().take();
        if let Some(call) = call {
            call(Err(format!("cannot look up {host}: {error}")), state, net);
        }
    }
}

/// Whether a node is to be connected to, and is not.
fn is_missing<S>(control: &Control<S>, id: NodeId) -> bool {
    let plane = control.plane.borrow();
    let is_down = plane.nodes.get(id).is_some_and(|node| node.phase == Phase::Down);
    is_down && !plane.stopped && plane.nodes.serves(id)
}

/// Makes an attempt.
pub(super) fn dial<S: 'static>(
    control: &Rc<Control<S>>,
    id: NodeId,
    state: &mut S,
    net: &mut Net<S>,
) {
    if !is_missing(control, id) || net.is_ending() {
        if let Some(node) = control.plane.borrow_mut().nodes.get_mut(id) {
            node.due = false;
        }
        return;
    }
    let at = {
        let plane = &mut *control.plane.borrow_mut();
        let Some(node) = plane.nodes.get_mut(id) else { return };
        node.due = true;
        node.at.clone()
    };
    let dialing = Rc::clone(control);
    look_up(&at, state, net, move |found, state, net| match found {
        Ok(to) => connect(&dialing, id, to, state, net),
        Err(why) => lost(&dialing, id, why, state, net),
    });
}

fn connect<S: 'static>(
    control: &Rc<Control<S>>,
    id: NodeId,
    to: Target,
    state: &mut S,
    net: &mut Net<S>,
) {
    if !is_missing(control, id) || net.is_ending() {
        return;
    }
    let host = {
        let plane = &mut *control.plane.borrow_mut();
        let Some(node) = plane.nodes.get_mut(id) else { return };
        node.address = Some(to.clone());
        node.at.host.clone()
    };
    let link = Link::new(Rc::clone(control), id, net.now());
    let (resp, limit) = (control.resp.clone(), control.message_limit);
    let connected = control
        .connect_to(to, &host, resp, limit)
        .and_then(|connect| net.connect(connect, link).map_err(|error| error.to_string()));
    match connected {
        Ok(token) => {
            if let Some(node) = control.plane.borrow_mut().nodes.get_mut(id) {
                node.phase = Phase::Dialing(token);
                node.due = false;
            }
        }
        Err(why) => lost(control, id, why, state, net),
    }
}

/// In a cluster: connects to the nodes that have slots, ends the connections to those that have none, and asks
/// for the map if it may be wrong.
pub(super) fn arrange<S: 'static>(
    control: &Rc<Control<S>>,
    ending: Vec<Token>,
    state: &mut S,
    net: &mut Net<S>,
) {
    // One that closes takes no notification for seconds if its peer hangs. What it has not confirmed goes out
    // again, and is known by its number.
    for token in ending {
        net.abort(token);
    }
    let misplaced = {
        let plane = control.plane.borrow();
        let at = plane.node_of_kept();
        plane.reader.filter(|_| at != NodeId::HOME && at != plane.reader_at)
    };
    if let Some(reader) = misplaced {
        net.abort(reader);
    }
    dial_reader(control, net);
    greet_no_longer(control, net);
    let missing: Vec<NodeId> = {
        let plane = control.plane.borrow();
        let is_missing = |(id, node): &(NodeId, &super::nodes::Node)| {
            !node.due && node.phase == Phase::Down && plane.nodes.serves(*id)
        };
        plane.nodes.iter().filter(is_missing).map(|(id, _)| id).collect()
    };
    for id in missing {
        dial(control, id, state, net);
    }
    rouse(control, None, net);
    scout(control, state, net);
}

/// Lets the connections know that have something to do, but for the one that knows.
pub(super) fn rouse<S: 'static>(control: &Control<S>, except: Option<Token>, net: &mut Net<S>) {
    let plane = control.plane.borrow();
    for (id, node) in plane.nodes.iter() {
        let token = node.token().filter(|&token| Some(token) != except);
        if let Some(token) = token.filter(|_| plane.has_work(id, node)) {
            net.notify(token, Poke);
        }
    }
}

/// A connection to a node has ended, or was never made. The next attempt is due after a wait, if the node is
/// still wanted.
pub(super) fn lost<S: 'static>(
    control: &Rc<Control<S>>,
    id: NodeId,
    why: String,
    state: &mut S,
    net: &mut Net<S>,
) {
    let now = net.now();
    let why = control.of_node(id, why);
    let (event, wait) = {
        let plane = &mut *control.plane.borrow_mut();
        if plane.stopped {
            return;
        }
        let (unconfirmed, renumbered) = plane.outbox.unsend(id);
        plane.have_other_numbers(&renumbered);
        let is_served = plane.nodes.serves(id);
        let is_cluster = plane.nodes.is_cluster();
        if plane.reader_at == id {
            plane.waking = Waking::Due(0);
        }
        let Some(node) = plane.nodes.get_mut(id) else { return };
        node.phase = Phase::Down;
        node.due = is_served;
        node.topics.disconnected();
        let wait = backoff(node.failures.max(node.not_now), control.longest_wait);
        node.failures = node.failures.saturating_add(1);
        plane.scouting.is_due |= is_cluster;
        let event = if !is_served {
            None
        } else if plane.told == Told::Whole {
            plane.told = Told::Lost(now);
            plane.dropped_before = plane.stats.dropped;
            Some(BackplaneEvent::Lost { why, unconfirmed })
        } else {
            Some(BackplaneEvent::Failed { why, again_in: wait })
        };
        plane.nodes.retire();
        (event, wait)
    };
    if net.is_ending() {
        return;
    }
    if let Some(event) = event {
        let again = Rc::clone(control);
        net.run_after(wait, move |state, net| dial(&again, id, state, net));
        control.tell(&event, state, net);
    }
    greet_no_longer(control, net);
    // What it was to tell the others, and what of its is for them.
    rouse(control, None, net);
    scout(control, state, net);
}

/// Tells that all is there, if that is news; and that topics which have moved are subscribed again.
pub(super) fn check_whole<S: 'static>(control: &Rc<Control<S>>, state: &mut S, net: &mut Net<S>) {
    let now = net.now();
    let event = {
        let plane = &mut *control.plane.borrow_mut();
        if plane.stopped || !plane.nodes.are_up() {
            return;
        }
        let is_awaited = plane.nodes.iter().any(|(_, node)| node.topics.is_awaited());
        match plane.told {
            _ if is_awaited => return,
            Told::Whole => {
                let Some((topics, since)) = plane.moved.take() else { return };
                let away = now.saturating_duration_since(since);
                BackplaneEvent::Moved { topics: topics.len(), away }
            }
            Told::Nothing => BackplaneEvent::Connected,
            Told::Lost(since) => BackplaneEvent::Resumed {
                away: now.saturating_duration_since(since),
                dropped: plane.stats.dropped - plane.dropped_before,
            },
        }
    };
    {
        let plane = &mut *control.plane.borrow_mut();
        if plane.told != Told::Whole {
            (plane.told, plane.moved) = (Told::Whole, None);
        }
    }
    control.tell(&event, state, net);
}

/// Half of the wait is fixed, half is chance: processes that lost one engine together do not come back
/// together.
pub(super) fn backoff(failures: u32, longest: Duration) -> Duration {
    let wait = most(failures, longest);
    let mut chance = [0; 2];
    crate::sys::random::fill(&mut chance);
    wait / 2 + (wait / 2).mul_f64(f64::from(u16::from_ne_bytes(chance)) / 65536.0)
}

fn most(failures: u32, longest: Duration) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(longest)
}

/// Whether the wait after so many failures is longer than each before.
pub(super) fn waits_longer(failures: u32, longest: Duration) -> bool {
    failures == 0 || most(failures, longest) > most(failures - 1, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_half_of_each_is_chance() {
        let longest = Duration::from_secs(5);
        for (failures, wait) in [(0, 100), (1, 200), (5, 3200), (6, 5000), (u32::MAX, 5000)] {
            let wait = Duration::from_millis(wait);
            for _ in 0..100 {
                let got = backoff(failures, longest);
                assert!(wait / 2 <= got && got <= wait, "{failures}: {got:?}");
            }
        }
    }
}
