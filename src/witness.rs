//! Watches every handler of a simulation: the order of its callbacks, the bytes it is offered, its
//! timers, its panics.
//!
//! A handler is wrapped when it gets its place beside the core (`reactor/call.rs`). What is wrong is
//! noted in the world, and the run ends with it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::connection::{Input, SendStatus, Stream};
use crate::context::Context;
use crate::core::Core;
use crate::error::{CloseInfo, DatagramError, HandlerResult};
use crate::guard::guarded;
use crate::handler::{Datagram, DatagramHandler, Handler};
use crate::net::AnyHandler;
use crate::notification::Notification;
use crate::sys::sim::trace::Event;
use crate::sys::sim::{self, nanos};
use crate::timer::Key;
use crate::timers::Timer;
use crate::token::Token;

const OPEN: u8 = 0;
const DATA: u8 = 1;
const DRAIN: u8 = 2;
const EOF: u8 = 3;
const TIMER: u8 = 4;
const NOTIFY: u8 = 5;
const CLOSE: u8 = 6;
const DATAGRAM: u8 = 7;
const ERROR: u8 = 8;
const BATCH_END: u8 = 9;

/// Wraps a handler, if a simulation runs.
pub(crate) fn watched<S: 'static>(any: AnyHandler<S>, token: Token) -> AnyHandler<S> {
    if !sim::is_simulated() {
        return any;
    }
    let grammar = Grammar { token, opened: false, ended: false, closed: false };
    match any {
        AnyHandler::Stream(handler) => {
            let watched = Watched { handler, grammar, turn: 0, calls: 0, left: 0 };
            AnyHandler::Stream(Box::new(watched))
        }
        AnyHandler::Datagram(handler) => {
            AnyHandler::Datagram(Box::new(WatchedDatagrams { handler, grammar }))
        }
        other => other,
    }
}

/// A panic of user code: an `assert!` in a handler must fail the run and not only end a connection.
#[cold]
pub(crate) fn panicked(text: &str) {
    sim::with(|world| world.panicked(text));
}

/// Something is sent on a connection. If what it sends reaches its socket as it is, it is compared
/// there. Returns the socket, in which case `sent` follows.
#[inline]
pub(crate) fn sends(core: &Core, token: Token, bytes: &[u8]) -> Option<u32> {
    if !sim::is_simulated() {
        return None;
    }
    let stream = core.stream(token)?;
    let socket = stream.simulated().filter(|_| stream.is_unlayered())?;
    let fresh = stream.unsent() == 0;
    sim::with(|world| world.sends(socket, bytes, fresh))
        .filter(|&compared| compared)
        .map(|_| socket)
}

/// Whether it was accepted.
pub(crate) fn sent(output: Option<u32>, len: usize, status: SendStatus) {
    if let Some(socket) = output.filter(|_| !status.is_accepted()) {
        sim::with(|world| world.takes_back(socket, len));
    }
}

/// From now on other bytes than those that are sent leave from this connection: those of a group, or
/// what a layer makes of them.
pub(crate) fn mixes_output(core: &Core, token: Token) {
    if let Some(socket) = core.stream(token).and_then(Stream::simulated) {
        sim::with(|world| world.ignore_output(socket));
    }
}

/// What these sockets bring does not go to their handlers any more: it is not compared from here on.
pub(crate) fn relayed(sockets: [Option<u32>; 2]) {
    for socket in sockets.into_iter().flatten() {
        sim::with(|world| {
            world.ignore_bytes(socket);
            world.ignore_output(socket);
        });
    }
}

/// A timer was set, or moved.
pub(crate) fn timer_set(key: Key, after: Duration) {
    sim::with(|world| world.timer_set(key.number(), nanos(after)));
}

/// It was cancelled: it must not fire any more.
pub(crate) fn timer_cancelled(key: Key) {
    sim::with(|world| world.timer_cancelled(key.number()));
}

/// It fires now.
pub(crate) fn timer_fires(key: Key) {
    sim::with(|world| world.timer_fires(key.number()));
}

/// The order of the callbacks of one handler: `on_open` first, `on_eof` once and nothing but its
/// output's events behind it, `on_close` once and last.
#[derive(Debug)]
struct Grammar {
    token: Token,
    opened: bool,
    ended: bool,
    closed: bool,
}

impl Grammar {
    fn sees(&mut self, call: u8) {
        let wrong = if self.closed {
            Some("after on_close")
        } else if call == OPEN && self.opened {
            Some("a second time")
        } else if call != OPEN && call != CLOSE && !self.opened {
            Some("before on_open")
        } else if self.ended && matches!(call, DATA | BATCH_END | EOF) {
            Some("after on_eof")
        } else {
            None
        };
        self.opened |= call == OPEN;
        self.ended |= call == EOF;
        self.closed |= call == CLOSE;
        let token = self.token;
        sim::with(|world| {
            if let Some(wrong) = wrong {
                let name = sim::trace::CALLBACKS[usize::from(call)];
                world.violated_here(format!("{name} of {token} was called {wrong}"));
            }
            world.called(Event::Call(call, token.to_usize() as u64));
        });
    }
}

impl Drop for Grammar {
    fn drop(&mut self) {
        if self.opened && !self.closed {
            let token = self.token;
            sim::with(|world| world.dropped(format!("{token} was dropped without on_close")));
        }
    }
}

struct Watched<S> {
    handler: Box<dyn Handler<S>>,
    grammar: Grammar,
    /// In which turn `on_data` was called last, and how often in it.
    turn: u64,
    calls: usize,
    /// How much the last call left.
    left: usize,
}

impl<S> fmt::Debug for Watched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.grammar.fmt(f)
    }
}

/// The simulated socket of a connection whose bytes reach the handler as they are.
fn unlayered<S>(cx: &Context<'_, S>) -> Option<u32> {
    let stream = cx.net.core.stream(cx.token)?;
    stream.simulated().filter(|_| stream.is_unlayered())
}

impl<S> Watched<S> {
    /// One connection's share of a turn: its budget, once more if its queue drained in the turn.
    fn count(&mut self, most: usize) {
        let token = self.grammar.token;
        sim::with(|world| {
            let turn = world.turn_here();
            if std::mem::replace(&mut self.turn, turn) != turn {
                self.calls = 0;
            }
            self.calls += 1;
            if self.calls > most {
                let calls = self.calls;
                world.violated_here(format!(
                    "on_data of {token} was called {calls} times in one turn, which its budgets \
                     allow {most} times"
                ));
            }
        });
    }
}

/// How often a connection is called with input in one turn at most. It may be served twice, from an event
/// and from the list; a trunk is served there with what it is owed.
fn calls_per_turn<S>(cx: &Context<'_, S>) -> usize {
    let core = &cx.net.core;
    let trunk = core.stream(cx.token).is_some_and(|stream| stream.is_trunk());
    let messages = core.config.messages_per_turn;
    let work = core.config.work_per_turn.saturating_mul(3);
    if trunk {
        work.saturating_add(messages + 2)
    } else {
        messages.saturating_mul(2).saturating_add(2)
    }
}

impl<S> Handler<S> for Watched<S> {
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.grammar.sees(OPEN);
        if let Some(socket) = unlayered(cx) {
            sim::with(|world| world.check_bytes(socket));
        }
        self.handler.on_open(cx)
    }

    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        self.grammar.sees(DATA);
        self.count(calls_per_turn(cx));
        let socket = unlayered(cx);
        if let Some(socket) = socket {
            sim::with(|world| {
                if let Some(wrong) = world.offered(socket, input) {
                    world.violated_here(format!("{}: {wrong}", self.grammar.token));
                }
            });
        }
        let before = input.len();
        let result = self.handler.on_data(cx, input);
        self.left = input.len();
        if let Some(socket) = socket {
            sim::with(|world| world.taken(socket, before - self.left));
        }
        result
    }

    fn on_batch_end(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.grammar.sees(BATCH_END);
        let wrong = cx.net.core.stream(cx.token);
        let wrong = wrong.and_then(|stream| stream.batch_end_is_wrong(cx.net.core.work.tick));
        let unoffered = unlayered(cx).and_then(|socket| {
            sim::with(|world| world.untaken(socket).checked_sub(self.left + 1)).flatten()
        });
        if let Some(wrong) = wrong.or(unoffered.map(|_| "before bytes that had been read")) {
            let token = self.grammar.token;
            sim::with(|world| {
                world.violated_here(format!("on_batch_end of {token} was called {wrong}"));
            });
        }
        self.handler.on_batch_end(cx)
    }

    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.grammar.sees(DRAIN);
        self.handler.on_drain(cx)
    }

    fn on_eof(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.grammar.sees(EOF);
        if let Some(socket) = unlayered(cx) {
            sim::with(|world| {
                let untaken = world.untaken(socket);
                if untaken > self.left {
                    let lost = untaken - self.left;
                    world.violated_here(format!(
                        "on_eof of {} came before {lost} bytes that had been read",
                        self.grammar.token
                    ));
                }
            });
        }
        self.handler.on_eof(cx)
    }

    fn on_timer(&mut self, cx: &mut Context<'_, S>, timer: Timer) -> HandlerResult {
        self.grammar.sees(TIMER);
        self.handler.on_timer(cx, timer)
    }

    fn on_notify(&mut self, cx: &mut Context<'_, S>, notification: Notification) -> HandlerResult {
        self.grammar.sees(NOTIFY);
        self.handler.on_notify(cx, notification)
    }

    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        self.grammar.sees(CLOSE);
        let reason = &closed.reason;
        if let Ok(text) = guarded(|| format!("it has closed: {reason}")) {
            sim::with(|world| world.remark(text));
        }
        ends_in_order(self.grammar.token, closed);
        self.handler.on_close(cx, closed);
    }

    fn handler_name(&self) -> &'static str {
        self.handler.handler_name()
    }
}

struct WatchedDatagrams<S> {
    handler: Box<dyn DatagramHandler<S>>,
    grammar: Grammar,
}

impl<S> WatchedDatagrams<S> {
    /// The grammar; and that what it is about has not ended, and is the one of its peer.
    fn sees<'a>(&mut self, call: u8, cx: &Context<'a, S>, from: Option<SocketAddr>) {
        self.grammar.sees(call);
        let (token, core) = (self.grammar.token, &cx.net.core);
        let wrong = match core.session(token) {
            Some(session) if session.dead => Some("after its end".to_owned()),
            Some(session) if core.session_of(session.socket, session.peer) != Some(token) => {
                Some(format!("though its socket knows another session of {}", session.peer))
            }
            Some(session) if from.is_some_and(|from| from != session.peer) => {
                Some(format!("with a datagram of {from:?}, but is a session of {}", session.peer))
            }
            None if core.datagram(token).is_none_or(|socket| socket.dead) => {
                Some("after its end".to_owned())
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            let name = sim::trace::CALLBACKS[usize::from(call)];
            sim::with(|world| world.violated_here(format!("{name} of {token} was called {wrong}")));
        }
    }
}

impl<S> DatagramHandler<S> for WatchedDatagrams<S> {
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.sees(OPEN, cx, None);
        self.handler.on_open(cx)
    }

    fn on_datagram(&mut self, cx: &mut Context<'_, S>, datagram: Datagram<'_>) -> HandlerResult {
        self.sees(DATAGRAM, cx, Some(datagram.from));
        self.handler.on_datagram(cx, datagram)
    }

    fn on_error(&mut self, cx: &mut Context<'_, S>, error: DatagramError) -> HandlerResult {
        self.sees(ERROR, cx, None);
        self.handler.on_error(cx, error)
    }

    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.sees(DRAIN, cx, None);
        self.handler.on_drain(cx)
    }

    fn on_timer(&mut self, cx: &mut Context<'_, S>, timer: Timer) -> HandlerResult {
        self.sees(TIMER, cx, None);
        self.handler.on_timer(cx, timer)
    }

    fn on_notify(&mut self, cx: &mut Context<'_, S>, notification: Notification) -> HandlerResult {
        self.sees(NOTIFY, cx, None);
        self.handler.on_notify(cx, notification)
    }

    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        self.grammar.sees(CLOSE);
        ends_in_order(self.grammar.token, closed);
        self.handler.on_close(cx, closed);
    }

    fn handler_name(&self) -> &'static str {
        self.handler.handler_name()
    }
}

/// Whoever ends in order has left nothing unsent.
fn ends_in_order(token: Token, closed: &CloseInfo) {
    if closed.reason.is_orderly() && closed.unsent > 0 {
        let unsent = closed.unsent;
        sim::with(|world| {
            world.violated_here(format!("{token} ended in order with {unsent} bytes unsent"));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::sim::{Faults, World};

    /// What is wrong with these callbacks of one handler.
    fn wrong(calls: &[u8]) -> String {
        let mut world = Box::new(World::new(1, Faults::none().drawn(1)));
        world.add_host("host".to_owned());
        let before = sim::swap(Some(world));
        let token = Token::new(1, 1).unwrap();
        let mut grammar = Grammar { token, opened: false, ended: false, closed: false };
        calls.iter().for_each(|&call| grammar.sees(call));
        drop(grammar);
        let world = sim::swap(before).unwrap();
        world.violation.map_or(String::new(), |(_, what)| what)
    }

    #[test]
    fn callbacks_out_of_order_are_noticed() {
        assert_eq!(wrong(&[OPEN, DATA, BATCH_END, EOF, DRAIN, TIMER, NOTIFY, CLOSE]), "");
        assert_eq!(wrong(&[CLOSE]), "", "it never opened");
        assert_eq!(wrong(&[]), "");
        for (calls, expected) in [
            (&[DATA][..], "on_data of"),
            (&[OPEN, OPEN, CLOSE], "a second time"),
            (&[TIMER, OPEN, CLOSE], "before on_open"),
            (&[OPEN, EOF, DATA, CLOSE], "after on_eof"),
            (&[OPEN, EOF, BATCH_END, CLOSE], "on_batch_end of"),
            (&[OPEN, EOF, EOF, CLOSE], "on_eof of"),
            (&[OPEN, CLOSE, CLOSE], "after on_close"),
            (&[OPEN, CLOSE, DRAIN], "on_drain of"),
            (&[OPEN, DATA], "was dropped without on_close"),
        ] {
            assert!(wrong(calls).contains(expected), "{calls:?}: {}", wrong(calls));
        }
    }
}
