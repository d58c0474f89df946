//! The second connection, from one to the next.

use std::rc::Rc;
use std::time::Duration;

use super::BackplaneEvent;
use super::dial::{Control, backoff};
use super::plane::{Plane, Told, Waking};
use super::reader::{Reader, Reading, join};
use crate::layer::Resp;
use crate::net::Net;

/// So much may one answer with the entries of streams take.
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// The wait before a second CLIENT UNBLOCK. It doubles with each further one.
const WAKE_AGAIN: Duration = Duration::from_millis(2);

/// After so many failures in a row nobody waits for the next attempt.
const PATIENCE: u32 = 3;

impl Plane {
    /// Whether a newcomer is told what was said before: the second connection is there, or is about to be.
    pub(super) fn tells_histories(&self) -> bool {
        let is_served = self.nodes.serves(self.node_of_kept());
        let is_expected = is_served && self.told == Told::Whole && self.reader_failures < PATIENCE;
        self.streams.is_used() && !self.stopped && (self.reading != Reading::Down || is_expected)
    }
}

impl Plane {
    /// The engine has answered CLIENT UNBLOCK. If that came before what it was to end, the next one is sent after a
    /// wait, which is returned.
    pub(super) fn woke(&mut self, woke: bool) -> Option<Duration> {
        let Waking::UnderWay(wait, vain) = self.waking else { return None };
        self.waking = match (wait == self.waits, woke) {
            // It waits for something else by now.
            (false, _) => Waking::Due(0),
            (true, true) => Waking::Done,
            (true, false) => Waking::Later(vain.saturating_add(1)),
        };
        let Waking::Later(vain) = self.waking else { return None };
        Some(WAKE_AGAIN.saturating_mul(1 << vain.min(7)))
    }

    /// The wait for the next CLIENT UNBLOCK is over.
    pub(super) fn wake_again(&mut self) {
        if let Waking::Later(vain) = self.waking {
            self.waking = Waking::Due(vain);
        }
    }
}

/// Connects a second time, for the names that the engine keeps, if there may be any.
pub(super) fn dial_reader<S: 'static>(control: &Rc<Control<S>>, net: &mut Net<S>) {
    let (id, to, host) = {
        let plane = control.plane.borrow();
        let is_wanted = plane.streams.is_used() && plane.reading == Reading::Down;
        if plane.stopped {
            drop(plane);
            return greet_no_longer(control, net);
        }
        if !is_wanted || plane.reader_waits || net.is_ending() {
            return;
        }
        let id = plane.node_of_kept();
        let Some(node) = plane.nodes.get(id).filter(|node| node.is_up()) else { return };
        let Some(to) = node.address.clone() else { return };
        (id, to, node.at.host.clone())
    };
    let limit = control.message_limit.saturating_add(PAGE_BYTES);
    let resp = Resp::client().message_limit(limit).element_limit(1024 * 1024);
    let reader = Reader::new(Rc::clone(control), net.now());
    let connected = control
        .connect_to(to, &host, resp, limit)
        .and_then(|connect| net.connect(connect, reader).map_err(|error| error.to_string()));
    match connected {
        Ok(token) => {
            let plane = &mut *control.plane.borrow_mut();
            plane.reader = Some(token);
            plane.reader_at = id;
            plane.reading = Reading::Busy;
        }
        Err(why) => {
            log::warn!("backplane: no second connection: {why}");
            again_later(control, net);
        }
    }
}

/// The next attempt is due after a wait, which is returned.
fn again_later<S: 'static>(control: &Rc<Control<S>>, net: &mut Net<S>) -> Duration {
    let wait = {
        let plane = &mut *control.plane.borrow_mut();
        (plane.reader, plane.waking) = (None, Waking::Due(0));
        plane.reading = Reading::Down;
        plane.reader_waits = true;
        let wait = backoff(plane.reader_failures, control.longest_wait);
        plane.reader_failures = plane.reader_failures.saturating_add(1);
        wait
    };
    if !net.is_ending() && !control.plane.borrow().stopped {
        let again = Rc::clone(control);
        net.run_after(wait, move |_, net| {
            again.plane.borrow_mut().reader_waits = false;
            dial_reader(&again, net);
        });
    }
    greet_no_longer(control, net);
    wait
}

/// Whoever waits for a history that does not come joins without one.
pub(super) fn greet_no_longer<S: 'static>(control: &Control<S>, net: &mut Net<S>) {
    let newcomers = {
        let plane = &mut *control.plane.borrow_mut();
        if plane.tells_histories() {
            return;
        }
        plane.streams.take_newcomers()
    };
    for newcomer in &newcomers {
        join(control, newcomer, net);
    }
}

/// The second connection has ended. Who waits for it waits for the next one, if the engine is there.
pub(super) fn reader_lost<S: 'static>(
    control: &Rc<Control<S>>,
    why: String,
    state: &mut S,
    net: &mut Net<S>,
) {
    let wait = again_later(control, net);
    let is_told = {
        let plane = control.plane.borrow();
        plane.told == Told::Whole && !plane.stopped && !net.is_ending()
    };
    if is_told {
        control.tell(&BackplaneEvent::Failed { why, again_in: wait }, state, net);
    }
}
