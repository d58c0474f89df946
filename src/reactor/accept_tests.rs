//! A listener whose accept(2) returns scripted results: the errors that no peer produces at will.

use std::time::{Duration, Instant};

use super::*;
use crate::connection::{Input, Settings};
use crate::context::Context;
use crate::core::{Entity, ListenerStats, Listening, ListeningSockets};
use crate::handler::Handler;
use crate::listener::{Factory, Hooks};
use crate::net::AnyHandler;
use crate::sys;
use crate::sys::script::Listener;
use crate::timer::Chain;
use crate::token::Token;

const EINTR: i32 = 4;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EPROTO: i32 = 71;
const ENETDOWN: i32 = 100;
const ECONNABORTED: i32 = 103;
const ENOBUFS: i32 = 105;

struct Nothing;

impl Handler for Nothing {
    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> crate::HandlerResult {
        Ok(())
    }
}

struct Rig {
    reactor: Reactor,
    listener: Token,
    script: Listener,
}

fn rig() -> Rig {
    rig_on(&[Listener::default()])
}

/// A listener on several addresses; the rig's script is the first one's.
fn rig_on(scripts: &[Listener]) -> Rig {
    let mut reactor = Reactor::new().unwrap();
    let settings = |listener| Settings { options: crate::StreamOptions::new(), listener };
    let listener = ListeningSockets {
        sockets: scripts
            .iter()
            .map(|script| Listening::new(sys::Listener::Script(script.clone())))
            .collect(),
        paths: Vec::new(),
        turn: 0,
        settings: settings(None).into(),
        connection_limit: 1000,
        stats: ListenerStats::default(),
        unopened: 0,
        draining: None,
        adopted: false,
        timers: Chain::default(),
        retry: None,
        silent_until: 0,
        paused: false,
        in_ready: false,
        dead: false,
        share: None,
    };
    let net = reactor.net();
    let listener = net.core.insert(Entity::Listener(Box::new(listener))).unwrap();
    net.core.listener_mut(listener).unwrap().settings = settings(Some(listener)).into();
    let hooks = Hooks { filter: None, layers: None, unopened: None };
    let factory = Factory { hooks, make: |_: &crate::Peer<'_>| Nothing };
    net.pending_handlers.push((listener, AnyHandler::Listener(Box::new(factory))));
    Rig { reactor, listener, script: scripts[0].clone() }
}

impl Rig {
    /// One edge, with these results behind it, and everything that follows from it at once.
    fn edge(&mut self, results: impl IntoIterator<Item = Result<(), i32>>) -> ListenerStats {
        self.script.0.borrow_mut().extend(results);
        scripted::edge(&mut self.reactor, self.listener, Ready::READABLE);
        self.settle();
        self.stats()
    }

    /// Turns until so many have been accepted, rests included.
    fn until_accepted(&mut self, count: u64) {
        let start = Instant::now();
        while self.stats().accepted < count {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", self.stats());
            let _ = self.reactor.turn(Some(Duration::from_secs(5))).unwrap();
        }
    }

    fn settle(&mut self) {
        scripted::settle(&mut self.reactor);
    }

    fn stats(&mut self) -> ListenerStats {
        self.reactor.net().listener_stats(self.listener).unwrap()
    }
}

// row 76
#[test]
fn an_error_of_one_connection_costs_that_one_and_no_other() {
    let mut rig = rig();
    let stats = rig.edge([Ok(()), Err(ECONNABORTED), Err(EPROTO), Ok(()), Err(ENETDOWN), Ok(())]);
    assert_eq!((stats.accepted, stats.open, stats.transient_errors), (3, 3, 3), "{stats:?}");
    assert_eq!(stats.exhausted, 0);
    assert_eq!(rig.reactor.next_deadline(), None, "nothing to wait for");
}

#[test]
fn a_storm_of_errors_with_connections_in_it_is_passed_through_at_once() {
    let mut rig = rig();
    let some = std::iter::repeat_n(Err(ECONNABORTED), 63).chain([Ok(())]);
    let stats = rig.edge(std::iter::repeat_n(some, 10).flatten());
    assert_eq!((stats.transient_errors, stats.accepted), (630, 10));
    assert_eq!(rig.reactor.next_deadline(), None, "nothing to wait for");
}

#[test]
fn a_listener_that_only_meets_errors_tries_again_only_after_a_rest() {
    for errno in [EACCES, ECONNABORTED, EPROTO, ENETDOWN] {
        let mut rig = rig();
        rig.edge([Ok(())]);
        rig.script.0.borrow_mut().extend(std::iter::repeat_n(Err(errno), 100).chain([Ok(())]));
        scripted::edge(&mut rig.reactor, rig.listener, Ready::READABLE);
        let stats = rig.stats();
        assert_eq!((stats.transient_errors, stats.exhausted), (64, 0), "{stats:?}");
        // Neither a new peer nor a descriptor that becomes free helps.
        scripted::edge(&mut rig.reactor, rig.listener, Ready::READABLE);
        let tokens = rig.reactor.net().core.tokens();
        let first = tokens.into_iter().find(|&token| token != rig.listener).unwrap();
        rig.reactor.net().core.release(first);
        assert!(!rig.reactor.has_work());
        assert_eq!(rig.stats().transient_errors, 64);
        assert!(rig.reactor.next_deadline().is_some(), "a second try");
        rig.until_accepted(2);
        assert_eq!(rig.stats().transient_errors, 100);
    }
}

#[test]
fn an_address_that_only_brings_errors_does_not_starve_the_listeners_others() {
    // Errors of one connection, of the listener, and unknown ones.
    for errno in [ECONNABORTED, EACCES, EINVAL] {
        let (bad, good) = (Listener::default(), Listener::default());
        bad.0.borrow_mut().extend(std::iter::repeat_n(Err(errno), 1_000_000));
        let mut rig = rig_on(&[bad, good.clone()]);
        for count in 1..=10 {
            good.0.borrow_mut().push_back(Ok(()));
            assert_eq!(rig.edge([]).accepted, count);
        }
        assert!(rig.stats().transient_errors < 10 * 64, "{:?}", rig.stats());
    }
}

// row 46
#[test]
fn an_interrupted_accept_is_done_again() {
    let mut rig = rig();
    let stats = rig.edge([Err(EINTR), Ok(()), Err(EINTR), Err(EINTR), Ok(())]);
    assert_eq!((stats.accepted, stats.transient_errors, stats.exhausted), (2, 0, 0));
}

// row 13
#[test]
fn exhaustion_waits_and_tries_again_without_a_further_event() {
    for errno in [EMFILE, ENFILE, ENOMEM, ENOBUFS] {
        let mut rig = rig();
        let stats = rig.edge([Ok(()), Err(errno), Err(errno), Ok(())]);
        assert_eq!((stats.accepted, stats.exhausted), (1, 1), "{stats:?}");
        let retry = rig.reactor.next_deadline().expect("a second try");
        assert!(retry > rig.reactor.net().now(), "not at once");
        rig.until_accepted(2);
        assert_eq!(rig.stats().exhausted, 2);
        assert_eq!(rig.reactor.next_deadline(), None, "the back-off is over");
    }
}

// row 13
#[test]
fn a_connection_that_ends_wakes_a_listener_that_waits_for_a_descriptor() {
    let mut rig = rig();
    rig.edge([Ok(()), Err(EMFILE), Ok(())]);
    let first = rig.reactor.net().core.tokens().into_iter().find(|&t| t != rig.listener).unwrap();
    rig.reactor.net().abort(first);
    rig.settle();
    let stats = rig.stats();
    assert_eq!((stats.accepted, stats.open, stats.exhausted), (2, 1, 1), "{stats:?}");
}

#[test]
fn a_listener_that_closes_while_it_waits_for_a_descriptor_is_gone() {
    let mut rig = rig();
    rig.edge([Err(EMFILE), Ok(())]);
    rig.reactor.net().close(rig.listener);
    rig.settle();
    assert!(rig.reactor.net().listener_stats(rig.listener).is_none());
    assert_eq!(rig.reactor.next_deadline(), None, "its back-off died with it");
    assert_eq!(rig.script.0.borrow().len(), 1, "and accepted no one else");
}
