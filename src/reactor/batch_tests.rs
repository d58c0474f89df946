//! The end of a batch, over scripted sockets: when it comes, how often, and when not at all.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::scripted::{edge, event, settle};
use super::*;
use crate::connection::{Input, Wire};
use crate::context::Context;
use crate::error::{CloseInfo, HandlerResult};
use crate::handler::Handler;
use crate::layer::Lines;
use crate::sys::script::{Outcome, Script};
use crate::timers::Timer;
use crate::token::{Group, Token};

/// What was called, in short: a number of `on_data` in a row, or a name.
#[derive(Default)]
struct Told {
    calls: Vec<String>,
    data: usize,
    /// A second connection.
    other: Option<Token>,
}

impl Told {
    fn add(&mut self, call: &str) {
        if self.data > 0 {
            self.calls.push(std::mem::take(&mut self.data).to_string());
        }
        if !call.is_empty() {
            self.calls.push(call.to_owned());
        }
    }

    fn text(&mut self) -> String {
        self.add("");
        self.calls.join(" ")
    }
}

type Does = fn(&mut Context<'_, Told>);

/// Asks with each piece of input; may do something else then, or at the end of the batch.
struct Asks {
    on_data: Does,
    on_end: Does,
}

const MILLISECOND: Duration = Duration::from_millis(1);

const NOTHING: Does = |_| {};

impl Handler<Told> for Asks {
    fn on_data(&mut self, cx: &mut Context<'_, Told>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        cx.state.data += 1;
        cx.request_batch_end();
        (self.on_data)(cx);
        Ok(())
    }

    fn on_batch_end(&mut self, cx: &mut Context<'_, Told>) -> HandlerResult {
        cx.state.add("end");
        (self.on_end)(cx);
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Told>) -> HandlerResult {
        cx.state.add("eof");
        cx.request_batch_end(); // too late
        cx.close();
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Told>, _: Timer) -> HandlerResult {
        cx.state.add("timer");
        assert!(cx.request_batch_end());
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Told>, _: &CloseInfo) {
        cx.state.add("close");
        assert!(!cx.request_batch_end());
    }
}

struct Stage {
    reactor: Reactor<Told>,
    token: Token,
    script: Rc<RefCell<Script>>,
}

impl Stage {
    /// A connection of lines, or of bytes.
    fn new(config: Config, lines: bool, on_data: Does, on_end: Does) -> Self {
        let mut reactor = Reactor::build(config, |_| Ok(Told::default())).unwrap();
        let (token, script) = scripted::connection(&mut reactor, Asks { on_data, on_end });
        if lines {
            let wire = Wire::new(Box::new(Lines::new()));
            reactor.net().core.with(token, |conn| conn.stream.set_wire(wire));
        }
        settle(&mut reactor);
        Stage { reactor, token, script }
    }

    fn arrives(&mut self, bytes: &[u8]) {
        self.script.borrow_mut().reads.push_back(Outcome::Bytes(bytes.to_vec()));
    }

    fn text(&mut self) -> String {
        self.reactor.state_mut().text()
    }
}

fn lines(count: usize) -> Vec<u8> {
    b"a line\n".repeat(count)
}

// row 197
#[test]
fn five_hundred_lines_of_one_read_are_one_batch() {
    let mut stage = Stage::new(Config::new(), true, NOTHING, NOTHING);
    stage.arrives(&lines(500));
    event(&mut stage.reactor, stage.token, Ready::READABLE);
    assert_eq!(stage.text(), "500 end");
    stage.arrives(&lines(2));
    stage.arrives(b"a part of");
    event(&mut stage.reactor, stage.token, Ready::READABLE);
    assert_eq!(stage.text(), "500 end 2 end", "a part is not waited for");
}

// row 197
#[test]
fn a_plain_connection_has_batches_too_and_stays_plain() {
    let mut stage = Stage::new(Config::new(), false, NOTHING, NOTHING);
    for _ in 0..2 {
        stage.arrives(b"one read");
        edge(&mut stage.reactor, stage.token, Ready::READABLE);
        let _ = stage.reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(!stage.reactor.has_work(), "it came in the turn of its input");
    }
    assert_eq!(stage.text(), "1 end 1 end");
}

// row 197
#[test]
fn a_publish_behind_a_burst_of_several_turns_is_one_write_to_each_member() {
    let mut reactor = Reactor::new().unwrap();
    let room = reactor.net().create_group();

    struct Counts(Group, usize);
    impl Handler for Counts {
        fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
            input.take_all();
            self.1 += 1;
            cx.request_batch_end();
            Ok(())
        }
        fn on_batch_end(&mut self, cx: &mut Context<'_>) -> HandlerResult {
            cx.net.publish(self.0, self.1.to_string());
            Ok(())
        }
    }

    let (speaker, script) = scripted::connection(&mut reactor, Counts(room, 0));
    let wire = Wire::new(Box::new(Lines::new()));
    reactor.net().core.with(speaker, |conn| conn.stream.set_wire(wire));
    settle(&mut reactor);
    let members: Vec<_> =
        (0..100).map(|_| scripted::connection(&mut reactor, Counts(room, 0))).collect();
    settle(&mut reactor);
    for (member, script) in &members {
        reactor.net().join(room, *member);
        // One write too many finds no result left, and the rest stays in the queue.
        script.borrow_mut().writes.push_back(Outcome::Take(100));
    }
    // Four turns of 256 messages.
    script.borrow_mut().reads.push_back(Outcome::Bytes(lines(1_000)));
    event(&mut reactor, speaker, Ready::READABLE);
    for (member, script) in &members {
        assert_eq!(script.borrow().written, b"1000");
        assert_eq!(reactor.net().queued(*member), 0);
    }
}

// row 198
#[test]
fn a_batch_takes_as_many_turns_as_it_needs_and_each_has_its_budget() {
    let mut stage = Stage::new(Config::new().messages_per_turn(10), true, NOTHING, NOTHING);
    stage.arrives(&lines(95));
    edge(&mut stage.reactor, stage.token, Ready::READABLE);
    // The rest of the turn of the event: its budget is used up.
    let _ = stage.reactor.turn(Some(Duration::ZERO)).unwrap();
    // Each turn takes as much as it may, and none is left out.
    for taken in (10..95).step_by(10) {
        assert_eq!((stage.reactor.state().data, stage.reactor.state().calls.len()), (taken, 0));
        let _ = stage.reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(stage.text(), "95 end");
}

// row 198
#[test]
fn who_never_stops_does_not_put_the_end_off_for_ever() {
    let config = Config::new().messages_per_turn(10).reads_per_turn(1).read_buffer(1024);
    for lined in [true, false] {
        let begun = Instant::now();
        let mut stage = Stage::new(config.clone(), lined, NOTHING, NOTHING);
        stage.arrives(&[b'\n'; 1024]);
        edge(&mut stage.reactor, stage.token, Ready::READABLE);
        for batch in 1..=2 {
            while stage.reactor.state().calls.len() < 2 * batch {
                stage.arrives(&[b'\n'; 1024]);
                let _ = stage.reactor.turn(Some(Duration::ZERO)).unwrap();
            }
            let least = Duration::from_millis(50) * batch as u32 - MILLISECOND;
            assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
        }
        assert!(stage.reactor.has_work(), "there is more");
    }
}

// row 198
#[test]
fn turns_that_a_deadline_cuts_are_one_batch() {
    let mut stage = Stage::new(Config::new().messages_per_turn(1), true, NOTHING, NOTHING);
    stage.arrives(&lines(12));
    edge(&mut stage.reactor, stage.token, Ready::READABLE);
    let _ = stage.reactor.turn(Some(Duration::ZERO)).unwrap(); // the rest of the turn of the event
    for taken in 1..12 {
        assert_eq!((stage.reactor.state().data, stage.reactor.state().calls.len()), (taken, 0));
        let now = Instant::now();
        let _ = stage.reactor.turn_until(now).unwrap();
    }
    let now = Instant::now();
    let _ = stage.reactor.turn_until(now).unwrap();
    assert_eq!(stage.text(), "12 end");
}

// row 199
#[test]
fn asking_twice_is_asking_once_and_each_batch_asks_anew() {
    let again: Does = |cx| assert!(cx.request_batch_end() && cx.request_batch_end());
    let mut stage = Stage::new(Config::new(), true, again, again);
    stage.arrives(&lines(3));
    event(&mut stage.reactor, stage.token, Ready::READABLE);
    assert_eq!(stage.text(), "3 end", "what is asked in the call itself begins no new batch");
    assert!(!stage.reactor.has_work());
}

// row 199
#[test]
fn a_request_of_another_callback_comes_behind_the_input_that_waits() {
    let mut stage = Stage::new(Config::new(), true, NOTHING, NOTHING);
    let token = stage.token;
    stage.reactor.net().set_timer(token, Duration::ZERO, 0);
    while stage.reactor.state().calls.len() < 2 {
        let _ = stage.reactor.turn(Some(Duration::from_secs(1))).unwrap();
    }
    assert_eq!(stage.text(), "timer end");
    let listener =
        stage.reactor.net().listen("127.0.0.1:0", |_| Asks { on_data: NOTHING, on_end: NOTHING });
    assert!(!stage.reactor.net().request_batch_end(listener.unwrap()), "no connection");
}

// row 200
#[test]
fn a_batch_ends_before_on_eof_and_never_behind_a_close() {
    let mut stage = Stage::new(Config::new(), true, NOTHING, NOTHING);
    stage.arrives(&lines(3));
    stage.arrives(b"");
    event(&mut stage.reactor, stage.token, Ready::READABLE | Ready::READ_CLOSED);
    assert_eq!(stage.text(), "3 end eof close");
    for plain in [true, false] {
        let mut stage = Stage::new(Config::new(), !plain, |cx| cx.close(), NOTHING);
        stage.arrives(&lines(3));
        stage.arrives(b"");
        event(&mut stage.reactor, stage.token, Ready::READABLE | Ready::READ_CLOSED);
        assert_eq!(stage.text(), "1 close");
    }
    // A reset behind the last line.
    let mut stage = Stage::new(Config::new(), true, NOTHING, NOTHING);
    stage.arrives(&lines(3));
    let reset = Outcome::Fail(std::io::ErrorKind::ConnectionReset);
    stage.script.borrow_mut().reads.push_back(reset);
    event(&mut stage.reactor, stage.token, Ready::READABLE | Ready::READ_CLOSED);
    assert_eq!(stage.text(), "3 close");
}

// row 200
#[test]
fn what_it_does_may_end_or_hold_back_the_connection() {
    let mut stage = Stage::new(Config::new(), true, NOTHING, |cx| cx.close());
    stage.arrives(&lines(3));
    stage.arrives(b"");
    event(&mut stage.reactor, stage.token, Ready::READABLE | Ready::READ_CLOSED);
    assert_eq!(stage.text(), "3 end close");
    let mut stage = Stage::new(Config::new(), true, NOTHING, |cx| cx.pause());
    stage.arrives(&lines(3));
    stage.arrives(b"");
    event(&mut stage.reactor, stage.token, Ready::READABLE | Ready::READ_CLOSED);
    assert_eq!(stage.text(), "3 end", "paused: on_eof waits");
    stage.reactor.net().resume(stage.token);
    settle(&mut stage.reactor);
    assert_eq!(stage.text(), "3 end eof close");
}

// row 201
#[test]
fn input_that_is_held_back_does_not_hold_back_the_end() {
    let pauses: Does = |cx| {
        if cx.state.data == 2 {
            cx.pause();
        }
    };
    for lined in [true, false] {
        let mut stage = Stage::new(Config::new(), lined, pauses, NOTHING);
        if lined {
            stage.arrives(&lines(5));
        } else {
            (0..5).for_each(|_| stage.arrives(b"one read"));
        }
        // A read for each piece: nothing says that the socket is empty.
        event(&mut stage.reactor, stage.token, Ready::READABLE | Ready::URGENT);
        assert_eq!(stage.text(), "2 end");
        stage.reactor.net().resume(stage.token);
        settle(&mut stage.reactor);
        assert_eq!(stage.text(), "2 end 2 end");
    }
}

// row 201
#[test]
fn a_relay_that_takes_over_ends_the_batch() {
    let mut stage = Stage::new(Config::new(), false, NOTHING, NOTHING);
    let asks = Asks { on_data: NOTHING, on_end: NOTHING };
    let (other, _) = scripted::connection(&mut stage.reactor, asks);
    settle(&mut stage.reactor);
    stage.arrives(b"for the handler");
    edge(&mut stage.reactor, stage.token, Ready::READABLE);
    assert!(stage.reactor.net().relay(stage.token, other));
    stage.arrives(b"for the other one");
    event(&mut stage.reactor, stage.token, Ready::READABLE);
    assert_eq!(stage.text(), "1 end");
    assert_eq!(stage.reactor.net().queued(other), b"for the other one".len());
}

// row 201
#[test]
fn a_relay_that_takes_over_ends_the_batch_before_it_passes_the_end() {
    let relays: Does = |cx| {
        let other = cx.state.other.expect("set before");
        assert!(cx.net.relay(cx.token, other));
    };
    let mut stage = Stage::new(Config::new(), false, relays, NOTHING);
    let asks = Asks { on_data: NOTHING, on_end: NOTHING };
    let (other, _) = scripted::connection(&mut stage.reactor, asks);
    stage.reactor.state_mut().other = Some(other);
    settle(&mut stage.reactor);
    stage.arrives(b"all of it");
    stage.arrives(b"");
    event(&mut stage.reactor, stage.token, Ready::READABLE | Ready::READ_CLOSED);
    assert!(stage.text().starts_with("1 end"), "{}", stage.text());
}

// row 201
#[test]
fn a_layer_that_is_put_on_does_not_lose_the_end() {
    let starts: Does = |cx| {
        if cx.state.data == 1 && cx.state.calls.is_empty() {
            assert!(cx.start_layer(Lines::new()));
        }
    };
    let mut stage = Stage::new(Config::new(), false, starts, NOTHING);
    stage.arrives(b"lines, please");
    event(&mut stage.reactor, stage.token, Ready::READABLE);
    assert_eq!(stage.text(), "1 end");
    stage.arrives(&lines(3));
    event(&mut stage.reactor, stage.token, Ready::READABLE);
    assert_eq!(stage.text(), "1 end 3 end");
}

#[test]
fn what_it_sends_on_its_own_connection_leaves_at_once() {
    let mut stage =
        Stage::new(Config::new(), true, NOTHING, |cx| assert!(cx.send("all").is_accepted()));
    stage.script.borrow_mut().writes.push_back(Outcome::Take(4));
    stage.arrives(&lines(3));
    event(&mut stage.reactor, stage.token, Ready::READABLE);
    assert_eq!(stage.script.borrow().written, b"all\n");
}
