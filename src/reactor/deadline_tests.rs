//! Deadlines of connections whose sockets answer from scripts.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::connection::{Input, Wire};
use crate::context::Context;
use crate::error::{CloseInfo, HandlerResult};
use crate::handler::Handler;
use crate::layer::{Delivery, Item, Layer, LayerContext, LayerError, Lines, MessageKind, Step};
use crate::options::StreamOptions;
use crate::sys::script::{Outcome, Script};

type Log = Vec<String>;

/// What a handler does when it opens.
type OnOpen = fn(&mut Context<'_, Log>);

struct Does(OnOpen);

impl Handler<Log> for Does {
    fn on_open(&mut self, cx: &mut Context<'_, Log>) -> HandlerResult {
        (self.0)(cx);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Log>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Log>, closed: &CloseInfo) {
        cx.state.push(closed.to_string());
    }
}

/// Asks to be called at a time that is over, `left` times, and writes each time.
struct Heart {
    left: u32,
    beats: Rc<RefCell<u32>>,
}

impl Layer for Heart {
    fn name(&self) -> &'static str {
        "heart"
    }

    fn start(&mut self, cx: &mut LayerContext<'_>, _: &mut Vec<u8>) -> Result<(), LayerError> {
        if self.left > 0 {
            cx.call_at(cx.now());
        }
        Ok(())
    }

    fn on_time(&mut self, cx: &mut LayerContext<'_>, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        *self.beats.borrow_mut() += 1;
        wire.extend_from_slice(b"beat");
        self.left -= 1;
        if self.left > 0 {
            cx.call_at(cx.now() - Duration::from_millis(3));
        }
        Ok(())
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        _: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        Ok(Step::new(0, Item::Nothing))
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(message);
        Ok(())
    }
}

struct Beating {
    reactor: Reactor<Log>,
    script: Rc<RefCell<Script>>,
    beats: Rc<RefCell<u32>>,
}

fn beating(left: u32, options: StreamOptions, on_open: OnOpen) -> Beating {
    let mut reactor = Reactor::with_state(Log::new()).unwrap();
    let beats = Rc::new(RefCell::new(0));
    let layer = Heart { left, beats: Rc::clone(&beats) };
    let (token, script) = scripted::connection_with(&mut reactor, options, Does(on_open));
    reactor.net().core.with(token, |conn| conn.stream.set_wire(Wire::new(Box::new(layer))));
    script.borrow_mut().writes.extend((0..100).map(|_| Outcome::Take(4)));
    Beating { reactor, script, beats }
}

/// Turns until no deadline is left.
fn run_out(reactor: &mut Reactor<Log>) {
    for _ in 0..1000 {
        if reactor.next_deadline().is_none() {
            return;
        }
        let _ = reactor.turn(Some(Duration::from_secs(1))).unwrap();
    }
    panic!("there is always another deadline");
}

fn watched(reactor: &Reactor<Log>) -> bool {
    reactor.next_timer().is_some()
}

// row 130
#[test]
fn a_layer_that_asks_for_a_time_that_is_over_is_called_and_is_no_deadline() {
    let Beating { mut reactor, script, beats } = beating(5, StreamOptions::new(), |_| ());
    run_out(&mut reactor);
    assert_eq!(*beats.borrow(), 5);
    assert_eq!(script.borrow().written, b"beatbeatbeatbeatbeat");
    assert!(reactor.state().is_empty(), "{:?}", reactor.state());
}

// row 130
#[test]
fn a_layer_says_nothing_behind_the_end_of_the_write_side() {
    let options = StreamOptions::new().close_timeout(Duration::from_millis(1));
    let Beating { mut reactor, script, .. } = beating(5, options.clone(), |cx| cx.close());
    run_out(&mut reactor);
    assert_eq!(*reactor.state(), ["closed"]);
    assert_eq!((script.borrow().shut, &script.borrow().written[..]), (true, &b""[..]));

    // Half closed it is called on, and what it would write goes nowhere.
    let halved = |cx: &mut Context<'_, Log>| cx.net.half_close(cx.token);
    let Beating { mut reactor, script, beats } = beating(5, options, halved);
    for _ in 0..100 {
        let _ = reactor.turn(Some(Duration::from_millis(1))).unwrap();
    }
    assert_eq!(*beats.borrow(), 5);
    assert!(script.borrow().shut);
    assert!(script.borrow().written.len() <= 4, "{:?}", script.borrow().written);
    assert!(reactor.state().is_empty(), "{:?}", reactor.state());
}

// row 130
#[test]
fn a_layer_is_called_at_its_time_though_another_was_put_beneath_it_meanwhile() {
    let start_layer = |cx: &mut Context<'_, Log>| {
        let none = Heart { left: 0, beats: Rc::default() };
        assert!(cx.net.start_layer(cx.token, none));
    };
    let Beating { mut reactor, script, beats } = beating(1, StreamOptions::new(), start_layer);
    run_out(&mut reactor);
    assert_eq!((*beats.borrow(), &script.borrow().written[..]), (1, &b"beat"[..]));
}

// row 131
#[test]
fn a_relay_of_a_paused_connection_brings_its_idle_timeout_back() {
    let mut reactor = Reactor::with_state(Log::new()).unwrap();
    let options = StreamOptions::new().idle_timeout(Duration::from_millis(5));
    let pause = Does(|cx| cx.net.pause(cx.token));
    let (paused, _) = scripted::connection_with(&mut reactor, options, pause);
    let (other, _) = scripted::connection(&mut reactor, Does(|_| ()));
    scripted::settle(&mut reactor);
    run_out(&mut reactor);
    assert!(reactor.state().is_empty(), "no silence counts while it is paused");
    assert!(reactor.net().relay(paused, other));
    let core = &reactor.dispatch.net.core;
    assert_eq!(core.stream(paused).unwrap().last_moved(), core.work.tick, "it begins anew");
    scripted::settle(&mut reactor);
    assert!(watched(&reactor));
    run_out(&mut reactor);
    assert_eq!(reactor.state().len(), 2, "{:?}", reactor.state());
}

// row 132
#[test]
fn a_queue_that_held_nothing_when_the_watchdog_fired_is_watched_once_it_is_stuck() {
    let mut reactor = Reactor::with_state(Log::new()).unwrap();
    let options = StreamOptions::new().handshake_timeout(Duration::from_millis(1));
    let (token, _) = scripted::connection_with(&mut reactor, options, Does(|_| ()));
    let net = reactor.net();
    net.core.with(token, |conn| conn.stream.set_wire(Wire::new(Box::new(Lines::new()))));
    run_out(&mut reactor);
    assert_eq!(reactor.net().send(token, "two\nlines"), crate::SendStatus::Unencodable);
    assert!(reactor.net().core.stream(token).unwrap().has_no_queue(), "an empty queue stays");
    reactor.net().core.watchdog_fired(token);
    assert!(!watched(&reactor), "there is no deadline");
    reactor.net().send(token, "stuck");
    scripted::settle(&mut reactor);
    assert_eq!(reactor.net().queued(token), 6);
    assert!(watched(&reactor));
}

/// Takes everything at once.
struct Pass;

impl Layer for Pass {
    fn name(&self) -> &'static str {
        "pass"
    }

    fn delivery(&self) -> Delivery {
        Delivery::Stream
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        bytes: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let all = bytes.len();
        Ok(Step::new(all, if all > 0 { Item::Slice(0..all) } else { Item::Nothing }))
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(message);
        Ok(())
    }
}

// row 136
#[test]
fn a_part_of_a_message_inside_a_stack_of_layers_has_its_deadline() {
    for (sent, reasons) in [("a line\npart", 1), ("a line\n", 0)] {
        let mut reactor = Reactor::with_state(Log::new()).unwrap();
        let soon = Duration::from_millis(1);
        let options = StreamOptions::new().handshake_timeout(soon).message_timeout(soon);
        let (token, script) = scripted::connection_with(&mut reactor, options, Does(|_| ()));
        let stack = Wire::new(Box::new(Pass.then(Lines::new())));
        reactor.net().core.with(token, |conn| conn.stream.set_wire(stack));
        run_out(&mut reactor);
        script.borrow_mut().reads.push_back(Outcome::Bytes(sent.into()));
        scripted::event(&mut reactor, token, Ready::READABLE);
        run_out(&mut reactor);
        assert_eq!(reactor.state().len(), reasons, "{:?}", reactor.state());
    }
}
