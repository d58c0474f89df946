//! How many writes leave: the sockets answer from scripts, and a write too many finds none left.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::connection::{Input, Phase, Settings, Stream};
use crate::context::Context;
use crate::core::Entity;
use crate::error::HandlerResult;
use crate::group::Group;
use crate::handler::Handler;
use crate::net::Role;
use crate::options::StreamOptions;
use crate::sys;
use crate::sys::script::{self, Answer, Script};
use crate::token::Token;

/// Sends each byte as a message of its own; or says it to a group.
#[derive(Default)]
struct Bytewise {
    room: Option<Group>,
}

impl Handler for Bytewise {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        for byte in input.take_all() {
            match self.room {
                Some(room) => drop(cx.net.publish(room, [*byte])),
                None => drop(cx.send([*byte])),
            }
        }
        Ok(())
    }
}

fn open(reactor: &mut Reactor, handler: Bytewise) -> (Token, Rc<RefCell<Script>>) {
    let script = Rc::new(RefCell::new(Script::default()));
    let socket = sys::Stream::Script(Box::new(script::Stream(Rc::clone(&script))));
    let settings = Rc::new(Settings { options: StreamOptions::new(), listener: None });
    let net = reactor.net();
    let stream = Entity::Stream(Stream::new(socket, Phase::Handshaking, settings));
    let token = net.core.insert(stream).unwrap();
    net.births.push((token, Role::Stream(Box::new(handler))));
    net.core.make_ready(token);
    settle(reactor);
    (token, script)
}

fn settle(reactor: &mut Reactor) {
    while reactor.has_work() {
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    }
}

fn arrives(reactor: &mut Reactor, token: Token, bytes: &[u8]) {
    let stream = reactor.net().core.stream_mut(token).unwrap();
    let sys::Stream::Script(socket) = &stream.socket else { panic!("no script") };
    socket.0.borrow_mut().reads.push_back(Answer::Bytes(bytes.to_vec()));
    let ready = Ready { token: token.to_usize(), bits: Ready::READABLE };
    reactor.dispatch.event(ready, &mut reactor.scratch);
    settle(reactor);
}

#[test]
fn sixteen_messages_of_one_callback_are_one_write() {
    let mut reactor = Reactor::new().unwrap();
    let (token, script) = open(&mut reactor, Bytewise::default());
    script.borrow_mut().writes.push_back(Answer::Take(16));
    arrives(&mut reactor, token, b"0123456789abcdef");
    assert_eq!(script.borrow().written, b"0123456789abcdef");
    assert!(reactor.net().core.stream(token).unwrap().output.is_none(), "its queue is given back");
}

#[test]
fn what_is_said_in_one_turn_is_one_write_for_each_member() {
    let mut reactor = Reactor::new().unwrap();
    let room = reactor.net().create_group();
    let (speaker, _) = open(&mut reactor, Bytewise { room: Some(room) });
    // So many that the flush is worth waiting for.
    let members: Vec<_> = (0..100).map(|_| open(&mut reactor, Bytewise::default())).collect();
    for (member, script) in &members {
        assert!(reactor.net().join(room, *member));
        script.borrow_mut().writes.push_back(Answer::Take(4));
    }
    arrives(&mut reactor, speaker, b"four");
    for (_, script) in &members {
        assert_eq!(script.borrow().written, b"four");
    }
}

#[test]
fn a_header_and_a_large_body_are_one_write() {
    let mut reactor = Reactor::new().unwrap();
    let (token, script) = open(&mut reactor, Bytewise::default());
    let body: Arc<[u8]> = vec![7; 1 << 20].into();
    script.borrow_mut().writes.push_back(Answer::Take(4 + body.len()));
    reactor.net().send(token, b"head");
    reactor.net().send(token, &body);
    assert_eq!(script.borrow().written.len(), 4 + body.len(), "at once, from the sender's bytes");
    assert_eq!(reactor.net().queued(token), 0);
    settle(&mut reactor);
    assert!(reactor.net().core.stream(token).unwrap().output.is_none(), "its queue is given back");
}

#[test]
fn one_message_for_many_does_not_wait_for_more() {
    let mut reactor = Reactor::new().unwrap();
    let room = reactor.net().create_group();
    for _ in 0..100 {
        let (member, script) = open(&mut reactor, Bytewise::default());
        script.borrow_mut().writes.push_back(Answer::Take(2));
        reactor.net().join(room, member);
    }
    let net = reactor.net();
    net.publish(room, b"a");
    assert_eq!(net.core.groups.patience(), Duration::ZERO);
    net.publish(room, b"b");
    assert_eq!(net.core.groups.patience(), Duration::from_micros(25));
    settle(&mut reactor);
    assert_eq!(reactor.net().core.groups.patience(), Duration::ZERO);
}
