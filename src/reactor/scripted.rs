//! Connections with scripted sockets, for the tests beside this file.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::Reactor;
use crate::connection::{Phase, Settings, Stream};
use crate::core::Entity;
use crate::handler::Handler;
use crate::net::AnyHandler;
use crate::options::StreamOptions;
use crate::sys::script::{self, Script};
use crate::sys::{self, Ready};
use crate::token::Token;

/// A connection that opens in the next turn.
pub(super) fn connection<S: 'static>(
    reactor: &mut Reactor<S>,
    handler: impl Handler<S> + 'static,
) -> (Token, Rc<RefCell<Script>>) {
    connection_in(reactor, Phase::Handshaking, handler)
}

pub(super) fn connection_in<S: 'static>(
    reactor: &mut Reactor<S>,
    phase: Phase,
    handler: impl Handler<S> + 'static,
) -> (Token, Rc<RefCell<Script>>) {
    insert(reactor, phase, StreamOptions::new(), handler)
}

pub(super) fn connection_with<S: 'static>(
    reactor: &mut Reactor<S>,
    options: StreamOptions,
    handler: impl Handler<S> + 'static,
) -> (Token, Rc<RefCell<Script>>) {
    insert(reactor, Phase::Handshaking, options, handler)
}

fn insert<S: 'static>(
    reactor: &mut Reactor<S>,
    phase: Phase,
    options: StreamOptions,
    handler: impl Handler<S> + 'static,
) -> (Token, Rc<RefCell<Script>>) {
    let script = Rc::new(RefCell::new(Script::default()));
    let socket = sys::Stream::Script(Box::new(script::Stream(Rc::clone(&script))));
    let settings = Settings::new(options, None);
    let net = reactor.net();
    let token = net.core.insert(Entity::Stream(Stream::new(socket, phase, settings))).unwrap();
    net.pending_handlers.push((token, AnyHandler::Stream(Box::new(handler))));
    net.core.make_ready(token);
    (token, script)
}

/// Turns until nothing is left to do. It must come to an end.
#[track_caller]
pub(super) fn settle<S: 'static>(reactor: &mut Reactor<S>) {
    for _ in 0..1000 {
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
        if !reactor.has_work() {
            return;
        }
    }
    panic!("the reactor spins");
}

/// One edge, and what follows from it within the event.
pub(super) fn edge<S: 'static>(reactor: &mut Reactor<S>, token: Token, bits: u8) {
    let ready = Ready { token: token.to_usize(), bits };
    let Reactor { dispatch, scratch, .. } = reactor;
    dispatch.event(ready, scratch);
}

/// One edge, and everything that follows from it at once.
#[track_caller]
pub(super) fn event<S: 'static>(reactor: &mut Reactor<S>, token: Token, bits: u8) {
    edge(reactor, token, bits);
    settle(reactor);
}
