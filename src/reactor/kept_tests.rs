//! Buffers that pass from one connection to another, over scripted sockets.

use std::cell::RefCell;
use std::rc::Rc;

use super::scripted::{connection, event, settle};
use super::*;
use crate::connection::{Input, Wire};
use crate::context::Context;
use crate::error::HandlerResult;
use crate::handler::Handler;
use crate::layer::LengthPrefixed;
use crate::sys::script::{Outcome, Script};
use crate::token::Token;

/// A message of the largest sort that arrives in many reads, and what is read at once.
const MESSAGE: usize = 400 * 1024;
const PIECE: usize = 16 * 1024;

struct Takes;

impl Handler for Takes {
    fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }
}

fn framed(reactor: &mut Reactor) -> (Token, Rc<RefCell<Script>>) {
    let (token, script) = connection(reactor, Takes);
    let wire = Wire::new(Box::new(LengthPrefixed::new(4)));
    reactor.net().core.with(token, |conn| conn.stream.set_wire(wire));
    settle(reactor);
    (token, script)
}

fn arrives(reactor: &mut Reactor, (token, script): &(Token, Rc<RefCell<Script>>), bytes: &[u8]) {
    for piece in bytes.chunks(PIECE) {
        script.borrow_mut().reads.push_back(Outcome::Bytes(piece.to_vec()));
        event(reactor, *token, Ready::READABLE);
    }
}

fn large_message() -> Vec<u8> {
    [&(MESSAGE as u32).to_be_bytes()[..], &[7; MESSAGE]].concat()
}

fn reserved(reactor: &Reactor, (token, _): &(Token, Rc<RefCell<Script>>)) -> usize {
    reactor.dispatch.net.core.stream(*token).unwrap().reserved_for_input()
}

#[test]
fn a_buffer_of_a_large_message_does_not_wait_with_the_next_connection() {
    let mut reactor = Reactor::new().unwrap();
    let (one, other) = (framed(&mut reactor), framed(&mut reactor));
    arrives(&mut reactor, &one, &large_message());
    assert_eq!(reserved(&reactor, &one), 0, "it was given back");
    arrives(&mut reactor, &other, b"\0");
    assert!(reserved(&reactor, &other) <= 256 * 1024, "{}", reserved(&reactor, &other));
    // Who keeps much gets it.
    arrives(&mut reactor, &other, &large_message()[1..3 * PIECE]);
    assert!(reserved(&reactor, &other) > 256 * 1024, "{}", reserved(&reactor, &other));
    arrives(&mut reactor, &other, &large_message()[3 * PIECE..]);
    assert_eq!(reserved(&reactor, &other), 0);
}

#[test]
fn a_buffer_of_a_large_message_does_not_wait_with_its_connection() {
    let mut reactor = Reactor::new().unwrap();
    let one = framed(&mut reactor);
    arrives(&mut reactor, &one, &[&large_message()[..], b"\0"].concat());
    assert!(reserved(&reactor, &one) <= 256 * 1024, "{}", reserved(&reactor, &one));
}
