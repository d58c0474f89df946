//! A connection with a scripted socket: faults at the exact call where they matter.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::connection::{Input, SendStatus, Wire};
use crate::context::Context;
use crate::datagram::Udp;
use crate::error::{CloseInfo, HandlerResult};
use crate::handler::{Datagram, DatagramHandler, Handler};
use crate::layer::Lines;
use crate::sys::script::{Outcome, Script};
use crate::timers::Timer;
use crate::token::Token;
use Outcome::{Bytes, Errno, Fail, Take};

const EBADF: i32 = 9;
const ENOMEM: i32 = 12;
const EPIPE: i32 = 32;
const ECONNRESET: i32 = 104;
const ENOBUFS: i32 = 105;
const ETIMEDOUT: i32 = 110;
const EHOSTUNREACH: i32 = 113;

type Log = Vec<String>;
type OnData = fn(&mut Context<'_, Log>, &mut Input<'_>);

/// Records its calls in the shared state. Goes on after the peer's end.
struct Notes(OnData);

impl Handler<Log> for Notes {
    fn on_open(&mut self, cx: &mut Context<'_, Log>) -> HandlerResult {
        cx.state.push("open".into());
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Log>, input: &mut Input<'_>) -> HandlerResult {
        cx.state.push(String::from_utf8_lossy(input).into());
        (self.0)(cx, input);
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Log>) -> HandlerResult {
        cx.state.push("drain".into());
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Log>, _: Timer) -> HandlerResult {
        cx.state.push("timer".into());
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Log>) -> HandlerResult {
        cx.state.push("eof".into());
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Log>, closed: &CloseInfo) {
        cx.state.push(format!("close: {closed}"));
    }
}

fn take_all(_: &mut Context<'_, Log>, input: &mut Input<'_>) {
    input.take_all();
}

fn echo(cx: &mut Context<'_, Log>, input: &mut Input<'_>) {
    cx.send(input.take_all());
}

/// A reactor with one open connection, its script, and the calls of its handler since.
struct Rig {
    reactor: Reactor<Log>,
    token: Token,
    script: Rc<RefCell<Script>>,
}

fn rig(on_data: OnData) -> Rig {
    let mut reactor = Reactor::with_state(Log::new()).unwrap();
    let (token, script) = scripted::connection(&mut reactor, Notes(on_data));
    let mut rig = Rig { reactor, token, script };
    rig.settle();
    assert_eq!(rig.calls(), ["open"]);
    rig
}

impl Rig {
    fn reads(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.script.borrow_mut().reads.extend(outcomes);
    }

    fn writes(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        self.script.borrow_mut().writes.extend(outcomes);
    }

    fn settle(&mut self) {
        scripted::settle(&mut self.reactor);
    }

    fn event(&mut self, bits: u8) {
        scripted::event(&mut self.reactor, self.token, bits);
    }

    /// One edge after the other until the script's reads are used up.
    fn read_all(&mut self) {
        while !self.script.borrow().reads.is_empty() {
            self.event(Ready::READABLE);
        }
    }

    /// One edge after the other until the script's writes are used up.
    fn write_all(&mut self) {
        while !self.script.borrow().writes.is_empty() {
            self.event(Ready::WRITABLE);
        }
    }

    fn send(&mut self, bytes: &[u8]) -> SendStatus {
        let status = self.reactor.net().send(self.token, bytes);
        self.settle();
        status
    }

    fn calls(&mut self) -> Log {
        std::mem::take(self.reactor.state_mut())
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.script.borrow().written).into()
    }
}

fn bytes(text: &str) -> Outcome {
    Bytes(text.into())
}

/// The reason's text, as the system words it.
fn closed(errno: i32) -> String {
    format!("close: {}", std::io::Error::from_raw_os_error(errno))
}

const END: &str = "";

// A read that finds nothing arms poll(2) again, and "writable" would come again for ever.
#[test]
fn an_edge_that_only_says_writable_is_no_reason_to_read() {
    let mut rig = rig(take_all);
    rig.reads([bytes("x")]);
    rig.event(Ready::WRITABLE);
    assert!(rig.calls().is_empty());
    rig.event(Ready::READABLE);
    assert_eq!(rig.calls(), ["x"]);
}

// row 46
#[test]
fn an_interrupted_read_or_write_is_done_again() {
    let mut rig = rig(echo);
    let interrupted = || (0..3).map(|_| Fail(ErrorKind::Interrupted));
    for piece in ["a", "bc", "def"] {
        rig.reads(interrupted());
        rig.reads([bytes(piece)]);
        rig.writes(interrupted());
        rig.writes([Take(100)]);
        rig.read_all();
    }
    rig.reads(interrupted());
    rig.reads([bytes(END)]);
    rig.read_all();
    assert_eq!(rig.calls(), ["a", "bc", "def", "eof"]);
    assert_eq!(rig.written(), "abcdef");
}

// rows 39, 46
#[test]
fn one_byte_at_a_time_each_way() {
    let text = "the quick brown fox";
    let mut rig = rig(echo);
    for byte in text.bytes() {
        rig.reads([Bytes(vec![byte])]);
        rig.writes([Take(1)]);
    }
    rig.read_all();
    rig.write_all();
    assert_eq!(rig.calls().concat(), text);
    assert_eq!(rig.written(), text);
    rig.writes(text.bytes().map(|_| Take(1)));
    rig.send(text.as_bytes());
    rig.write_all();
    assert_eq!(rig.written(), [text, text].concat());
    assert_eq!(rig.reactor.net().queued(rig.token), 0);
}

// row 39
#[test]
fn a_write_may_stop_at_every_byte() {
    let text = "the quick brown fox";
    for cut in 1..=text.len() {
        let mut rig = rig(take_all);
        rig.writes([Take(cut), Fail(ErrorKind::WouldBlock)]);
        rig.send(text.as_bytes());
        rig.event(Ready::WRITABLE); // for the WouldBlock, if it was not met
        assert_eq!(rig.written(), text[..cut]);
        rig.writes([Take(100)]);
        rig.event(Ready::WRITABLE);
        assert_eq!(rig.written(), text);
        assert_eq!(rig.reactor.net().queued(rig.token), 0);
    }
}

// rows 39, 46
#[test]
fn a_storm_of_would_block_loses_and_doubles_nothing() {
    let mut rig = rig(take_all);
    let would_block = || Fail(ErrorKind::WouldBlock);
    rig.writes([would_block(), would_block(), Take(3), would_block(), Take(1), would_block()]);
    rig.writes([would_block(), Take(100)]);
    rig.reads([would_block(), bytes("a"), would_block(), would_block(), bytes("b"), bytes(END)]);
    rig.send(b"queued text");
    rig.write_all();
    rig.read_all();
    assert_eq!(rig.written(), "queued text");
    assert_eq!(rig.calls(), ["a", "b", "eof"]);
}

// row 46
#[test]
fn more_short_reads_than_the_budget_all_arrive_from_one_edge() {
    let mut rig = rig(take_all);
    rig.reads((0..100).map(|_| bytes("x")));
    rig.reads([bytes(END)]);
    rig.event(Ready::READABLE | Ready::READ_CLOSED);
    let calls = rig.calls();
    assert_eq!(calls[..100].concat(), "x".repeat(100));
    assert_eq!(calls[100..], ["eof"]);
}

// rows 26, 35
#[test]
fn an_error_of_a_read_is_told_once_and_nothing_after_it() {
    for errno in [EBADF, ENOMEM, ECONNRESET, ETIMEDOUT, EHOSTUNREACH] {
        let mut rig = rig(take_all);
        rig.reads([bytes("data"), Errno(errno), bytes("never read")]);
        rig.event(Ready::READABLE | Ready::READ_CLOSED);
        rig.event(Ready::READABLE | Ready::WRITABLE | Ready::ERROR); // stale
        assert_eq!(rig.calls(), ["data".to_owned(), closed(errno)]);
        assert_eq!(rig.send(b"x"), SendStatus::Gone);
        assert_eq!(rig.script.borrow().reads.len(), 1);
    }
}

// rows 34, 35, 40
#[test]
fn an_error_of_a_write_is_told_once_after_what_was_still_to_be_read() {
    for errno in [EBADF, ENOMEM, EPIPE, ECONNRESET, ENOBUFS] {
        let mut rig = rig(take_all);
        rig.reads([bytes("last "), bytes("words")]);
        rig.writes([Take(4), Errno(errno)]);
        rig.send(b"0123456789");
        rig.event(Ready::WRITABLE);
        rig.event(Ready::WRITABLE | Ready::ERROR); // stale
        let close = format!("{} (6 bytes unsent)", closed(errno));
        assert_eq!(rig.calls(), ["last ", "words", &close]);
        assert_eq!(rig.written(), "0123");
        assert_eq!(rig.send(b"x"), SendStatus::Gone);
    }
}

// row 56
#[test]
fn a_timer_that_is_due_while_the_last_words_are_read_fires_all_the_same() {
    let mut rig = rig(take_all);
    // More than one turn reads.
    rig.reads(std::iter::repeat_with(|| bytes("word")).take(10));
    rig.writes([Errno(EPIPE)]);
    let (token, net) = (rig.token, rig.reactor.net());
    assert_eq!(net.send(token, b"text"), SendStatus::Queued);
    net.set_timer(token, Duration::ZERO, 0);
    scripted::edge(&mut rig.reactor, token, Ready::WRITABLE);
    rig.settle();
    let mut calls = rig.calls();
    assert_eq!(calls.pop().unwrap(), format!("{} (4 bytes unsent)", closed(EPIPE)));
    assert_eq!(calls.iter().filter(|calls| *calls == "word").count(), 10);
    assert_eq!(calls.iter().filter(|calls| *calls == "timer").count(), 1);
}

// row 25
#[test]
fn a_layer_does_not_complete_a_message_with_the_end_behind_a_failed_write() {
    let mut reactor = Reactor::with_state(Log::new()).unwrap();
    let (token, script) = scripted::connection(&mut reactor, Notes(take_all));
    let wire = Wire::new(Box::new(Lines::new()));
    reactor.net().core.with(token, |conn| conn.stream.set_wire(wire));
    let mut rig = Rig { reactor, token, script };
    rig.settle();
    assert_eq!(rig.calls(), ["open"]);
    assert_eq!(rig.reactor.net().send(token, b"text"), SendStatus::Queued);
    rig.reads([bytes("whole\nremove /tmp/a"), bytes("")]);
    rig.writes([Errno(ECONNRESET)]);
    rig.event(Ready::WRITABLE);
    let calls = rig.calls();
    assert_eq!(calls[0], "whole");
    assert!(calls[1].starts_with(&closed(ECONNRESET)), "{calls:?}");
    assert_eq!(calls.len(), 2);
}

// row 40
#[test]
fn a_direct_write_of_a_large_piece_fails_like_a_queued_one() {
    let mut rig = rig(take_all);
    rig.reads([bytes("last words")]);
    rig.writes([Take(10_000), Errno(EPIPE)]);
    let large = vec![b'x'; 20_000];
    let _ = rig.send(&large);
    rig.event(Ready::WRITABLE);
    let calls = rig.calls();
    assert_eq!(calls[0], "last words");
    assert!(calls[1].starts_with(&closed(EPIPE)), "{calls:?}");
    assert_eq!(calls.len(), 2);
    assert_eq!(rig.written().len(), 10_000);
}

// row 40
#[test]
fn a_write_that_takes_nothing_is_an_error_and_no_spin() {
    let mut rig = rig(take_all);
    rig.writes([Take(0)]);
    rig.send(b"text");
    let calls = rig.calls();
    assert_eq!(calls.len(), 1);
    assert!(calls[0].starts_with("close: "), "{calls:?}");
    assert!(calls[0].ends_with("(4 bytes unsent)"), "{calls:?}");
}

// rows 25, 47
#[test]
fn an_error_behind_the_peers_end_closes() {
    let mut rig = rig(take_all);
    rig.reads([bytes("data"), bytes(END)]);
    rig.event(Ready::READABLE | Ready::READ_CLOSED);
    assert_eq!(rig.calls(), ["data", "eof"]);
    rig.script.borrow_mut().pending = Some(EPIPE);
    rig.event(Ready::READABLE | Ready::READ_CLOSED | Ready::ERROR);
    assert_eq!(rig.calls(), [closed(EPIPE)]);
}

// row 25
#[test]
fn what_was_read_before_an_error_is_offered_though_the_handler_has_paused() {
    let mut rig = rig(|cx, input| match input.len() {
        6 => drop(input.take(4)),
        2 if !cx.state.iter().any(|text| text == "once") => cx.state.push("once".into()),
        _ => {
            input.take(1);
            cx.pause();
        }
    });
    rig.reads([bytes("aaaabc"), bytes(END)]);
    rig.event(Ready::READABLE | Ready::READ_CLOSED);
    assert_eq!(rig.calls(), ["aaaabc", "bc", "once", "bc"], "paused with one byte left");
    rig.script.borrow_mut().pending = Some(ECONNRESET);
    rig.event(Ready::READABLE | Ready::READ_CLOSED | Ready::ERROR);
    assert_eq!(rig.calls(), ["c".to_owned(), closed(ECONNRESET)]);
}

// row 25
#[test]
fn an_error_bit_without_an_error_closes_nothing() {
    let mut rig = rig(take_all);
    let token = rig.token;
    rig.reactor.net().pause(token);
    rig.event(Ready::WRITABLE | Ready::ERROR);
    assert_eq!(rig.calls(), Log::new());
    rig.reactor.net().resume(token);
    rig.reads([bytes("data")]);
    rig.event(Ready::READABLE);
    assert_eq!(rig.calls(), ["data"]);
}

// ---- datagrams that the system does not take ----

struct DatagramNotes;

impl DatagramHandler<Log> for DatagramNotes {
    fn on_datagram(&mut self, _: &mut Context<'_, Log>, _: Datagram<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Log>) -> HandlerResult {
        cx.state.push("drain".into());
        Ok(())
    }
}

#[test]
fn datagrams_wait_up_to_the_cap_while_the_system_takes_none() {
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let to = peer.local_addr().unwrap();
    let mut reactor = Reactor::with_state(Log::new()).unwrap();
    let udp = Udp::bind("127.0.0.1:0").queue_limit(100);
    let token = reactor.net().bind_udp(udp, DatagramNotes).unwrap();
    // The first edge, which is only writable, has passed.
    for _ in 0..3 {
        let _ = reactor.turn(Some(Duration::from_millis(1))).unwrap();
    }
    reactor.net().core.datagram_mut(token).unwrap().writable = false;
    for (n, status) in [
        (60, SendStatus::Queued),
        (41, SendStatus::Full),
        (40, SendStatus::Queued),
        (1, SendStatus::Full),
    ] {
        assert_eq!(reactor.net().send_to(token, to, vec![b'x'; n]), status);
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(reactor.net().queued(token), 100);
    assert!(!reactor.has_work(), "nothing spins meanwhile");
    scripted::edge(&mut reactor, token, Ready::WRITABLE);
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.net().queued(token), 0);
    assert_eq!(*reactor.state(), ["drain"]);
    let mut buffer = [0; 200];
    assert_eq!([peer.recv(&mut buffer).unwrap(), peer.recv(&mut buffer).unwrap()], [60, 40]);
}
