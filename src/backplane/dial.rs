//! From one connection to the next.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::link::Link;
use super::plane::{Delivery, Phase, Plane};
use super::reader::{Reader, Reading, join};
use super::url::Url;
use super::{BackplaneEvent, Hook, Listener};
use crate::address::{Address, Target};
use crate::connect::Connect;
use crate::connection::Input;
#[cfg(feature = "tls")]
use crate::layer::Layer;
use crate::layer::Resp;
use crate::net::Net;
use crate::options::StreamOptions;

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
    pub(super) hook: Option<Hook<S>>,
    /// Where the engine was found last.
    pub(super) address: RefCell<Option<Target>>,
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

    fn connect_to(&self, to: Target, resp: Resp, limit: usize) -> Result<Connect, String> {
        let options = StreamOptions::new().connect_timeout(self.silence).messages_up_to(limit);
        let connect = Connect::tcp(to).options(options);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let tls = tls.layer(&self.url.host).map_err(|error| error.to_string())?;
            return Ok(connect.layer(tls.then(resp)));
        }
        Ok(connect.layer(resp))
    }
}

/// Makes an attempt. A name is looked up on another thread; an address needs none.
pub(super) fn dial<S: 'static>(control: &Rc<Control<S>>, state: &mut S, net: &mut Net<S>) {
    if control.plane.borrow().phase != Phase::Down || net.is_ending() {
        return;
    }
    let target = Target::from((&*control.url.host, control.url.port));
    if target.is_address() {
        connect(control, target, state, net);
        return;
    }
    let looked_up = Rc::clone(control);
    let job = move || crate::sys::resolve(&target);
    let done =
        move |found: Result<std::io::Result<Vec<Address>>, _>, state: &mut S, net: &mut Net<S>| {
            match found {
                Ok(Ok(found)) => {
                    let addresses: Vec<_> = found.iter().filter_map(Address::socket_addr).collect();
                    connect(&looked_up, Target::from(&*addresses), state, net);
                }
                Ok(Err(error)) => {
                    let why = format!("cannot resolve {}: {error}", looked_up.url.host);
                    lost(&looked_up, why, state, net);
                }
                Err(crate::net::JobPanicked { .. }) => {
                    lost(&looked_up, "the look-up panicked".into(), state, net);
                }
            }
        };
    if let Err(error) = net.offload(job, done) {
        let why = format!("cannot look up {}: {error}", control.url.host);
        lost(control, why, state, net);
    }
}

fn connect<S: 'static>(control: &Rc<Control<S>>, to: Target, state: &mut S, net: &mut Net<S>) {
    if control.plane.borrow().phase != Phase::Down || net.is_ending() {
        return;
    }
    *control.address.borrow_mut() = Some(to.clone());
    let link = Link::new(Rc::clone(control), net.now());
    let connect = match control.connect_to(to, control.resp.clone(), control.message_limit) {
        Ok(connect) => connect,
        Err(why) => return lost(control, why, state, net),
    };
    match net.connect(connect, link) {
        Ok(token) => {
            control.plane.borrow_mut().phase = Phase::Dialing(token);
            // The bridge is of this plane: one that was replaced is stopped, and does not come here.
            net.set_bridge_handler(token);
        }
        Err(error) => lost(control, error.to_string(), state, net),
    }
}

/// So much may one answer with the entries of streams take.
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// Connects a second time, for the names that the engine keeps, if there may be any.
pub(super) fn dial_reader<S: 'static>(control: &Rc<Control<S>>, net: &mut Net<S>) {
    {
        let plane = control.plane.borrow();
        let is_up = matches!(plane.phase, Phase::Up(_));
        if !is_up || !plane.streams.is_used() || plane.reading != Reading::Down || net.is_ending() {
            return;
        }
    }
    let Some(to) = control.address.borrow().clone() else { return };
    let limit = control.message_limit.saturating_add(PAGE_BYTES);
    let resp = Resp::client().message_limit(limit).element_limit(1024 * 1024);
    let reader = Reader::new(Rc::clone(control), net.now());
    let connected = control
        .connect_to(to, resp, limit)
        .and_then(|connect| net.connect(connect, reader).map_err(|error| error.to_string()));
    match connected {
        Ok(token) => {
            let plane = &mut *control.plane.borrow_mut();
            plane.reader = Some(token);
            plane.reading = Reading::Busy;
            net.set_second_bridge_handler(token);
        }
        Err(why) => log::warn!("backplane: no second connection: {why}"),
    }
}

/// The second connection has ended. Who waits for it joins without a history.
pub(super) fn reader_lost<S: 'static>(
    control: &Rc<Control<S>>,
    why: String,
    state: &mut S,
    net: &mut Net<S>,
) {
    let (newcomers, wait) = {
        let plane = &mut *control.plane.borrow_mut();
        plane.reader = None;
        plane.reading = Reading::Down;
        let wait = backoff(plane.reader_failures, control.longest_wait);
        plane.reader_failures = plane.reader_failures.saturating_add(1);
        (plane.streams.take_newcomers(), wait)
    };
    for newcomer in &newcomers {
        join(control, newcomer, net);
    }
    if net.is_ending() || control.plane.borrow().phase == Phase::Stopped {
        return;
    }
    let again = Rc::clone(control);
    net.run_after(wait, move |_, net| dial_reader(&again, net));
    if matches!(control.plane.borrow().phase, Phase::Up(_)) {
        control.tell(&BackplaneEvent::Failed { why, again_in: wait }, state, net);
    }
}

/// A connection has ended, or was never made. The next attempt is due after a wait.
pub(super) fn lost<S: 'static>(
    control: &Rc<Control<S>>,
    why: String,
    state: &mut S,
    net: &mut Net<S>,
) {
    let now = net.now();
    let (event, wait) = {
        let plane = &mut *control.plane.borrow_mut();
        let was_up = matches!(plane.phase, Phase::Up(_));
        if plane.phase == Phase::Stopped {
            return;
        }
        plane.phase = Phase::Down;
        plane.topics.disconnected();
        let unconfirmed = plane.outbox.unsend();
        plane.unblocking = false;
        let wait = backoff(plane.failures.max(plane.not_now), control.longest_wait);
        plane.failures = plane.failures.saturating_add(1);
        let event = if was_up {
            plane.away_since = Some(now);
            plane.dropped_before = plane.stats.dropped;
            BackplaneEvent::Lost { why, unconfirmed }
        } else {
            BackplaneEvent::Failed { why, again_in: wait }
        };
        (event, wait)
    };
    if net.is_ending() {
        return;
    }
    let again = Rc::clone(control);
    net.run_after(wait, move |state, net| dial(&again, state, net));
    control.tell(&event, state, net);
}

/// Half of the wait is fixed, half is chance: processes that lost one engine together do not come back
/// together.
fn backoff(failures: u32, longest: Duration) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(longest);
    let mut chance = [0; 2];
    crate::sys::random::fill(&mut chance);
    wait / 2 + (wait / 2).mul_f64(f64::from(u16::from_ne_bytes(chance)) / 65536.0)
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
