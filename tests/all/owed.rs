//! A peer that has ended its side still gets what this side owes it.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use tidegate::{
    Context, Deadline, Handler, HandlerResult, Input, Listen, Net, Reactor, SendStatus,
    StreamOptions, Token,
};

use crate::support::{Log, address_of, client, read_all, until, with_client};

/// A handler with the default `on_eof`, which notes what it is told.
struct Plain<D> {
    log: Log,
    data: D,
}

impl<D: FnMut(&mut Context<'_>)> Handler for Plain<D> {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.log.push(cx.token, crate::support::Told::Open);
        Ok(())
    }
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        (self.data)(cx);
        Ok(())
    }
    fn on_close(&mut self, cx: &mut Context<'_>, closed: &tidegate::CloseInfo) {
        let told = crate::support::Told::Close(closed.reason.to_string(), closed.unsent);
        self.log.push(cx.token, told);
    }
}

struct Stage {
    reactor: Reactor,
    log: Log,
    address: SocketAddr,
}

fn stage(options: StreamOptions, data: impl FnMut(&mut Context<'_>) + Clone + 'static) -> Stage {
    let log = Log::new();
    let of_handlers = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let make = move |_: &tidegate::Peer<'_>| Plain { log: of_handlers.clone(), data: data.clone() };
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    Stage { reactor, log, address }
}

impl Stage {
    /// A client that has asked, ended its side, and was heard to its end.
    fn asked(&mut self) -> (Token, TcpStream) {
        let mut stream = client(self.address);
        let n = self.log.opens();
        until(&mut self.reactor, "it to open", |_| self.log.opens() == n + 1);
        stream.write_all(b"?").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        crate::support::settle(&mut self.reactor);
        (self.log.opened()[n], stream)
    }
}

/// As in the guide.
struct Source {
    next: u64,
}

const NUMBERS: u64 = 200_000;

impl Source {
    fn fill<S>(&mut self, cx: &mut Context<'_, S>) {
        while self.next < NUMBERS {
            let status = cx.send(self.next.to_be_bytes());
            if !status.is_accepted() {
                return;
            }
            self.next += 1;
            if status == SendStatus::AboveHighWater {
                return;
            }
        }
        cx.close();
    }
}

impl<S> Handler<S> for Source {
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.fill(cx);
        Ok(())
    }
    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.fill(cx);
        Ok(())
    }
    fn on_data(&mut self, _: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }
}

// row 94
#[test]
fn who_fills_its_queue_in_on_drain_sends_all_of_it_to_a_peer_that_half_closed() {
    for question in ["", "asks first"] {
        let mut reactor = Reactor::new().unwrap();
        let listener = reactor.net().listen("127.0.0.1:0", |_| Source { next: 0 }).unwrap();
        let address = address_of(&mut reactor, listener);
        let got = with_client(&mut reactor, move || {
            let mut stream = client(address);
            stream.write_all(question.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            read_all(&mut stream)
        });
        let all: Vec<u8> = (0..NUMBERS).flat_map(u64::to_be_bytes).collect();
        assert!(got == all, "{} of {} bytes", got.len(), all.len());
    }
}

// row 94
#[test]
fn nothing_owed_closes_at_once() {
    let mut stage = stage(StreamOptions::new(), |cx| {
        cx.send("at once");
    });
    let (_, mut stream) = stage.asked();
    assert_eq!(with_client(&mut stage.reactor, move || read_all(&mut stream)), b"at once");
    until(&mut stage.reactor, "the end", |_| stage.log.closes() == 1);
    assert_eq!(stage.log.reasons(), ["both sides ended"]);
}

// row 95
#[test]
fn an_answer_that_is_held_for_comes_from_another_thread() {
    let mut stage = stage(StreamOptions::new(), |cx| {
        assert!(cx.hold());
    });
    let (token, mut stream) = stage.asked();
    assert!(stage.reactor.net().is_open(token));
    let remote = stage.reactor.remote();
    let answer = std::thread::spawn(move || {
        remote.post(move |_: &mut (), net: &mut Net| {
            net.send(token, "the answer");
            assert!(net.release(token));
            assert!(!net.release(token), "only one was held");
        })
    });
    assert_eq!(with_client(&mut stage.reactor, move || read_all(&mut stream)), b"the answer");
    answer.join().unwrap().unwrap();
    until(&mut stage.reactor, "the end", |_| stage.log.closes() == 1);
    assert_eq!(stage.log.reasons(), ["both sides ended"]);
}

// row 95
#[test]
fn every_answer_that_is_held_for_is_waited_for() {
    let first = Rc::new(Cell::new(None));
    let asks = Rc::clone(&first);
    let mut stage = stage(StreamOptions::new(), move |cx| match asks.get() {
        None => {
            asks.set(Some(cx.token));
            assert!(cx.hold() && cx.hold());
        }
        // Another handler answers.
        Some(asked) => {
            cx.net.send(asked, "answer;");
            cx.net.release(asked);
            cx.close();
        }
    });
    let (token, mut stream) = stage.asked();
    let _one = stage.asked();
    assert!(stage.reactor.net().is_open(token), "one answer is still owed");
    let _other = stage.asked();
    let heard = with_client(&mut stage.reactor, move || read_all(&mut stream));
    assert_eq!(heard, b"answer;answer;");
    assert!(!stage.reactor.net().hold(token), "it is gone");
}

// row 95
#[test]
fn a_hold_that_is_never_released_stops_no_deadline_and_no_shutdown() {
    let options = StreamOptions::new().idle_timeout(Duration::from_millis(100));
    let mut idle = stage(options, |cx| {
        cx.hold();
    });
    let _client = idle.asked();
    until(&mut idle.reactor, "the end", |_| idle.log.closes() == 1);
    assert_eq!(idle.log.reasons(), ["timed out: no byte moved for too long"]);

    let mut held = stage(StreamOptions::new(), |cx| {
        cx.hold();
    });
    let _client = held.asked();
    held.reactor.net().shutdown(Duration::ZERO);
    assert_eq!(held.reactor.run().unwrap().connections_cut, 1);
    let cut = tidegate::CloseReason::TimedOut(Deadline::Shutdown).to_string();
    assert_eq!(held.log.reasons(), [cut]);
}

// row 95
#[test]
fn a_connection_that_is_done_gets_what_was_published_to_it_before() {
    let mut stage = stage(StreamOptions::new(), |cx| {
        cx.hold();
    });
    let (token, mut stream) = stage.asked();
    let net = stage.reactor.net();
    let group = net.create_group();
    assert!(net.join(group, token));
    net.publish(group, "published");
    assert!(net.release(token));
    assert_eq!(with_client(&mut stage.reactor, move || read_all(&mut stream)), b"published");
}

// row 95
#[test]
fn who_closes_when_done_without_an_end_of_the_peer_goes_on_reading_until_then() {
    let heard = Rc::new(Cell::new(0));
    let hears = Rc::clone(&heard);
    let mut stage = stage(StreamOptions::new(), move |cx| {
        hears.set(hears.get() + 1);
        match hears.get() {
            1 => {
                cx.hold();
                cx.close_when_done();
            }
            _ => {
                cx.send("both heard");
                cx.release();
            }
        }
    });
    let mut stream = client(stage.address);
    stream.write_all(b"1").unwrap();
    until(&mut stage.reactor, "the first", |_| heard.get() == 1);
    stream.write_all(b"2").unwrap();
    let heard = with_client(&mut stage.reactor, move || {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    });
    assert_eq!(heard, b"both heard");
}
