//! How many writes are made: the sockets are scripted, and one write too many finds no result left.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::scripted::{event, settle};
use super::*;
use crate::connection::Input;
use crate::context::Context;
use crate::error::HandlerResult;
use crate::handler::Handler;
use crate::sys;
use crate::sys::script::{Outcome, Script};
use crate::timers::Timer;
use crate::token::{Group, Token};

/// Sends each byte as a message of its own, or publishes it to a group.
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
    let opened = scripted::connection(reactor, handler);
    settle(reactor);
    opened
}

fn arrives(reactor: &mut Reactor, token: Token, bytes: &[u8]) {
    let stream = reactor.net().core.stream(token).unwrap();
    let sys::Stream::Script(socket) = stream.socket() else { panic!("no script") };
    socket.0.borrow_mut().reads.push_back(Outcome::Bytes(bytes.to_vec()));
    event(reactor, token, Ready::READABLE);
}

#[test]
fn sixteen_messages_of_one_callback_are_one_write() {
    let mut reactor = Reactor::new().unwrap();
    let (token, script) = open(&mut reactor, Bytewise::default());
    script.borrow_mut().writes.push_back(Outcome::Take(16));
    arrives(&mut reactor, token, b"0123456789abcdef");
    assert_eq!(script.borrow().written, b"0123456789abcdef");
    assert!(reactor.net().core.stream(token).unwrap().has_no_queue(), "its queue is given back");
}

/// Answers with what came, in two sends, and sets, moves and cancels timers between them.
struct Deadlines {
    pending: Option<Timer>,
}

impl Handler for Deadlines {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let (first, second) = input.take_all().split_at(2);
        cx.send(first);
        assert!(cx.net.core.work.reply.concerns(cx.token));
        if let Some(pending) = self.pending.take() {
            assert!(cx.rearm_timer(pending, Duration::from_secs(2)));
            assert!(cx.cancel_timer(pending));
        }
        let fine = cx.set_fine_timer(Duration::from_secs(1), 0);
        assert!(cx.cancel_timer(fine));
        self.pending = Some(cx.set_timer(Duration::from_secs(1), 0));
        cx.net.run_after(Duration::from_secs(1), |(), _net| {});
        cx.send(second);
        assert!(
            cx.net.core.work.reply.concerns(cx.token),
            "a timer has cost the reply its shortcut"
        );
        assert!(cx.net.core.stream(cx.token).unwrap().has_no_queue());
        Ok(())
    }
}

#[test]
fn timers_that_a_callback_sets_do_not_cost_its_reply_the_shortcut() {
    let mut reactor = Reactor::new().unwrap();
    let (token, script) = scripted::connection(&mut reactor, Deadlines { pending: None });
    settle(&mut reactor);
    for n in 1..=2 {
        script.borrow_mut().writes.push_back(Outcome::Take(4));
        arrives(&mut reactor, token, b"echo");
        assert_eq!(script.borrow().written, b"echo".repeat(n));
    }
    assert_eq!(reactor.net().stats().timers_set, 6);
    assert_eq!(reactor.net().queued(token), 0);
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
        script.borrow_mut().writes.push_back(Outcome::Take(4));
    }
    arrives(&mut reactor, speaker, b"four");
    for (_, script) in &members {
        assert_eq!(script.borrow().written, b"four");
    }
}

#[test]
fn who_was_left_out_and_who_was_not_get_one_write_each() {
    let mut reactor = Reactor::new().unwrap();
    let room = reactor.net().create_group();
    let members: Vec<_> = (0..3).map(|_| open(&mut reactor, Bytewise::default())).collect();
    for (member, script) in &members {
        reactor.net().join(room, *member);
        script.borrow_mut().writes.push_back(Outcome::Take(6));
    }
    let net = reactor.net();
    net.publish_except(room, members[0].0, b"one");
    net.publish_except(room, members[1].0, b"two");
    settle(&mut reactor);
    let written = |n: usize| members[n].1.borrow().written.clone();
    assert_eq!([written(0), written(1)], [b"two", b"one"]);
    assert_eq!(written(2), b"onetwo");
    // Being left out lasts for a turn.
    members[0].1.borrow_mut().writes.push_back(Outcome::Take(5));
    reactor.net().publish(room, b"three");
    settle(&mut reactor);
    assert_eq!(written(0), b"twothree");
}

#[test]
fn what_a_member_does_not_take_of_a_log_follows_in_its_order() {
    let mut reactor = Reactor::new().unwrap();
    let room = reactor.net().create_group();
    let (member, script) = open(&mut reactor, Bytewise::default());
    reactor.net().join(room, member);
    script.borrow_mut().writes.push_back(Outcome::Take(2)); // then the socket is full
    reactor.net().publish(room, b"first");
    settle(&mut reactor);
    assert_eq!(reactor.net().queued(member), 3);
    reactor.net().send(member, b"second");
    reactor.net().publish(room, b"third");
    settle(&mut reactor);
    script.borrow_mut().writes.push_back(Outcome::Take(100));
    event(&mut reactor, member, Ready::WRITABLE);
    assert_eq!(script.borrow().written, b"firstsecondthird");
}

#[test]
fn a_header_and_a_large_body_are_one_write() {
    let mut reactor = Reactor::new().unwrap();
    let (token, script) = open(&mut reactor, Bytewise::default());
    let body: Arc<[u8]> = vec![7; 1 << 20].into();
    script.borrow_mut().writes.push_back(Outcome::Take(4 + body.len()));
    reactor.net().send(token, b"head");
    reactor.net().send(token, &body);
    assert_eq!(script.borrow().written.len(), 4 + body.len(), "at once, from the sender's bytes");
    assert_eq!(reactor.net().queued(token), 0);
    settle(&mut reactor);
    assert!(reactor.net().core.stream(token).unwrap().has_no_queue(), "its queue is given back");
}

#[test]
fn one_message_for_many_waits_only_right_behind_several() {
    let mut reactor = Reactor::new().unwrap();
    let room = reactor.net().create_group();
    for _ in 0..100 {
        let (member, script) = open(&mut reactor, Bytewise::default());
        let takes = [2, 1, 1].map(Outcome::Take);
        script.borrow_mut().writes.extend(takes);
        reactor.net().join(room, member);
    }
    let all = Duration::from_micros(200);
    let groups = |reactor: &mut Reactor, now| reactor.net().core.groups.gather.budget(now);
    let now = Instant::now();
    reactor.net().publish(room, b"a");
    assert_eq!(groups(&mut reactor, now), Duration::ZERO);
    reactor.net().publish(room, b"b");
    assert_eq!(groups(&mut reactor, now), all);
    settle(&mut reactor);
    assert_eq!(groups(&mut reactor, now), Duration::ZERO, "nothing waits");
    reactor.net().publish(room, b"c");
    assert_eq!(groups(&mut reactor, now), all, "more may be right behind it");
    assert_eq!(groups(&mut reactor, Instant::now() + all), Duration::ZERO, "that was a while ago");
    settle(&mut reactor);
    // A flush that carried one message does not predict the next.
    let later = Instant::now() + all;
    reactor.net().publish(room, b"d");
    assert_eq!(groups(&mut reactor, later), Duration::ZERO);
}

#[test]
fn a_flush_for_few_does_not_wait() {
    let mut reactor = Reactor::new().unwrap();
    let room = reactor.net().create_group();
    for _ in 0..19 {
        let (member, _) = open(&mut reactor, Bytewise::default());
        reactor.net().join(room, member);
    }
    reactor.net().publish(room, b"a");
    reactor.net().publish(room, b"b");
    assert_eq!(reactor.net().core.groups.gather.budget(Instant::now()), Duration::ZERO);
}
