//! Endings of a connection with a scripted socket.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::connection::{Input, Phase, Wire};
use crate::context::Context;
use crate::error::{CloseInfo, HandlerResult};
use crate::handler::Handler;
use crate::layer::LengthPrefixed;
use crate::sys::script::{Outcome, Script};
use crate::token::Token;
use Outcome::{Bytes, Fail, Take};

/// Sends eight bytes and closes when it opens; records its calls in the state.
struct EightAndOut;

impl Handler<Vec<String>> for EightAndOut {
    fn on_open(&mut self, cx: &mut Context<'_, Vec<String>>) -> HandlerResult {
        cx.send(b"in a row");
        cx.close();
        Ok(())
    }
    fn on_data(&mut self, cx: &mut Context<'_, Vec<String>>, _: &mut Input<'_>) -> HandlerResult {
        cx.state.push("data".into());
        Ok(())
    }
    fn on_close(&mut self, cx: &mut Context<'_, Vec<String>>, closed: &CloseInfo) {
        cx.state.push(closed.to_string());
    }
}

struct Rig {
    reactor: Reactor<Vec<String>>,
    token: Token,
    script: Rc<RefCell<Script>>,
}

/// Opens the connection, so that it is closing when this returns.
fn closing(writes: impl IntoIterator<Item = Outcome>) -> Rig {
    let mut reactor = Reactor::with_state(Vec::new()).unwrap();
    let (token, script) = scripted::connection(&mut reactor, EightAndOut);
    script.borrow_mut().writes.extend(writes);
    let mut rig = Rig { reactor, token, script };
    rig.settle();
    rig
}

impl Rig {
    fn settle(&mut self) {
        scripted::settle(&mut self.reactor);
    }

    fn event(&mut self, bits: u8) {
        scripted::event(&mut self.reactor, self.token, bits);
    }

    fn calls(&self) -> &[String] {
        self.reactor.state()
    }
}

// rows 8, 39
#[test]
fn a_close_flushes_over_any_number_of_short_writes() {
    for at in 1..8 {
        let mut rig = closing([Take(at), Fail(ErrorKind::WouldBlock)]);
        assert_eq!((rig.script.borrow().shut, rig.calls().len()), (false, 0), "not flushed yet");
        rig.script.borrow_mut().writes.extend([Fail(ErrorKind::Interrupted), Take(8 - at)]);
        while !rig.script.borrow().shut {
            rig.event(Ready::WRITABLE);
        }
        assert_eq!(rig.script.borrow().written, b"in a row");
        assert!(rig.calls().is_empty(), "the peer has not ended");
        rig.script.borrow_mut().reads.push_back(Bytes(Vec::new()));
        rig.event(Ready::READABLE | Ready::READ_CLOSED);
        assert_eq!(rig.calls(), ["closed"]);
    }
}

#[test]
fn input_is_discarded_before_and_after_the_flush() {
    let mut rig = closing([Fail(ErrorKind::WouldBlock)]);
    rig.script.borrow_mut().reads.extend([Bytes(b"unread".to_vec())]);
    rig.event(Ready::READABLE);
    assert!(rig.script.borrow().reads.is_empty(), "a peer that sends is not left waiting");
    rig.script.borrow_mut().writes.push_back(Take(8));
    rig.event(Ready::WRITABLE);
    assert!(rig.script.borrow().shut);
    rig.script.borrow_mut().reads.extend([Bytes(b"unread".to_vec()), Bytes(Vec::new())]);
    rig.event(Ready::READABLE | Ready::READ_CLOSED);
    assert_eq!(rig.calls(), ["closed"]);
}

#[test]
fn the_peers_end_before_the_flush_ends_it_with_the_flush() {
    let mut rig = closing([Fail(ErrorKind::WouldBlock)]);
    rig.script.borrow_mut().reads.push_back(Bytes(Vec::new()));
    rig.event(Ready::READABLE | Ready::READ_CLOSED);
    assert!(rig.calls().is_empty(), "eight bytes wait");
    rig.script.borrow_mut().writes.push_back(Take(8));
    rig.event(Ready::WRITABLE);
    assert_eq!(rig.calls(), ["both sides ended"]);
}

// row 135
#[test]
fn what_was_published_to_one_whose_layer_gives_up_counts_as_unsent() {
    let mut reactor = Reactor::with_state(Vec::new()).unwrap();
    let (token, script) = scripted::connection(&mut reactor, Plain);
    let layer = Box::new(LengthPrefixed::new(4));
    reactor.net().core.with(token, |conn| conn.stream.set_wire(Wire::new(layer)));
    scripted::settle(&mut reactor);
    let group = reactor.net().create_group();
    assert!(reactor.net().join(group, token));
    assert_eq!(reactor.net().publish(group, "hello").members, 1);
    script.borrow_mut().reads.extend([Bytes(vec![255; 4]), Bytes(Vec::new())]);
    scripted::event(&mut reactor, token, Ready::READABLE | Ready::READ_CLOSED);
    let told = reactor.state();
    assert!(told.len() == 1 && told[0].ends_with("(5 bytes unsent)"), "{told:?}");
}

/// Notes its end.
struct Plain;

impl Handler<Vec<String>> for Plain {
    fn on_data(&mut self, _: &mut Context<'_, Vec<String>>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }
    fn on_close(&mut self, cx: &mut Context<'_, Vec<String>>, closed: &CloseInfo) {
        cx.state.push(closed.to_string());
    }
}

// row 40
#[test]
fn a_flush_that_fails_ends_the_close_and_reports_what_is_unsent() {
    let mut rig = closing([Take(3), Fail(ErrorKind::BrokenPipe)]);
    rig.event(Ready::WRITABLE | Ready::ERROR);
    assert_eq!(rig.calls(), ["broken pipe (5 bytes unsent)"]);
}

#[test]
fn a_reset_after_the_flush_ends_the_wait_for_the_peer() {
    let mut rig = closing([Take(8)]);
    assert!(rig.script.borrow().shut);
    rig.script.borrow_mut().reads.push_back(Fail(ErrorKind::ConnectionReset));
    rig.event(Ready::READABLE | Ready::ERROR);
    assert_eq!(rig.calls(), ["connection reset"]);
    rig.event(Ready::READABLE | Ready::ERROR); // a stale one
    assert_eq!(rig.calls().len(), 1);
}

// contract 4: a deadline is no data loss for what was flushed
#[test]
fn a_peer_that_never_ends_is_left_at_the_deadline() {
    let mut rig = closing([Take(8)]);
    let deadline = rig.reactor.next_deadline().expect("a deadline");
    assert!(deadline > rig.reactor.net().now() + Duration::from_secs(4));
    assert!(rig.calls().is_empty());
}

/// Lets the connection's deadline pass, however far it lies ahead.
fn let_deadline_pass(rig: &mut Rig) -> u64 {
    let core = &mut rig.reactor.dispatch.net.core;
    let due = core.work.timers.next_wake().expect("a deadline");
    core.work.tick = core.work.tick.max(due);
    core.work.timers.advance(core.work.tick);
    while let Some((key, _)) = core.work.timers.pop_due() {
        core.finish_timer(rig.token, key).expect("the watchdog");
        core.watchdog_fired(rig.token);
    }
    rig.reactor.dispatch.reap();
    core_tick(rig)
}

fn core_tick(rig: &Rig) -> u64 {
    rig.reactor.dispatch.net.core.work.tick
}

// row 91
#[test]
fn a_quiet_peer_is_left_in_order_after_the_close_timeout() {
    let mut rig = closing([Take(8)]);
    let start = core_tick(&rig);
    while rig.calls().is_empty() {
        let_deadline_pass(&mut rig);
    }
    assert_eq!(rig.calls(), ["closed"]);
    let waited = core_tick(&rig) - start;
    assert!((5_000..5_200).contains(&waited), "{waited} ms");
}

// row 91
#[test]
fn a_peer_that_goes_on_sending_is_read_for_a_minute_more() {
    let mut rig = closing([Take(8)]);
    let start = core_tick(&rig);
    while rig.calls().is_empty() {
        rig.script.borrow_mut().reads.push_back(Bytes(b"on and on".to_vec()));
        scripted::edge(&mut rig.reactor, rig.token, Ready::READABLE);
        assert!(rig.script.borrow().reads.is_empty(), "it is read");
        let_deadline_pass(&mut rig);
    }
    assert_eq!(rig.calls(), ["timed out: the close was not complete in time"]);
    let waited = core_tick(&rig) - start;
    assert!((65_000..65_200).contains(&waited), "{waited} ms");
}

// row 91
#[test]
fn a_peer_that_stops_sending_meanwhile_is_left_in_order() {
    let mut rig = closing([Take(8)]);
    rig.script.borrow_mut().reads.push_back(Bytes(b"the last".to_vec()));
    scripted::edge(&mut rig.reactor, rig.token, Ready::READABLE);
    while rig.calls().is_empty() {
        let_deadline_pass(&mut rig);
    }
    assert_eq!(rig.calls(), ["closed"]);
}

// row 9: bytes that are written at once move the idle clock as well
#[test]
fn a_large_direct_write_counts_against_the_idle_timeout() {
    struct Quiet;
    impl Handler<Vec<String>> for Quiet {
        fn on_data(
            &mut self,
            _: &mut Context<'_, Vec<String>>,
            _: &mut Input<'_>,
        ) -> HandlerResult {
            Ok(())
        }
    }
    let mut rig = closing([Take(8)]);
    let (token, script) = scripted::connection_in(&mut rig.reactor, Phase::Open, Quiet);
    script.borrow_mut().writes.push_back(Take(1 << 20));
    let net = rig.reactor.net();
    net.core.work.tick = 12_345;
    assert!(net.send(token, vec![0; 1 << 20]).is_accepted());
    assert_eq!(net.core.stream(token).unwrap().last_moved(), 12_345);
}
