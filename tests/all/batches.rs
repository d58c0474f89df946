//! The end of a batch: what is done once for each burst, over real sockets.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::layer::Lines;
use tidegate::{CloseInfo, Config, Context, Group, Handler, HandlerResult, Input, Listen, Reactor};

use crate::support::{address_of, client, read_n, until};

/// Gets lines, and publishes the last one of each batch.
struct Feed {
    newest: Vec<u8>,
    lines: usize,
}

/// What the feed's handler was called with: the number of lines of each batch, and its end.
#[derive(Default)]
struct State {
    room: Option<Group>,
    batches: Vec<usize>,
    ends: Vec<&'static str>,
    members: usize,
}

type Shared = Rc<RefCell<Vec<&'static str>>>;

impl Handler<State> for Feed {
    fn on_data(&mut self, cx: &mut Context<'_, State>, input: &mut Input<'_>) -> HandlerResult {
        self.newest = input.take_all().to_vec();
        self.lines += 1;
        assert!(cx.request_batch_end());
        Ok(())
    }

    fn on_batch_end(&mut self, cx: &mut Context<'_, State>) -> HandlerResult {
        cx.state.batches.push(std::mem::take(&mut self.lines));
        let room = cx.state.room.expect("set before");
        cx.net.publish(room, &self.newest);
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_, State>) -> HandlerResult {
        assert_eq!(self.lines, 0, "the last batch has ended before");
        cx.state.ends.push("eof");
        cx.close();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, State>, _: &CloseInfo) {
        cx.state.ends.push("close");
    }
}

struct Member;

impl Handler<State> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, State>) -> HandlerResult {
        cx.join(cx.state.room.expect("set before"));
        cx.state.members += 1;
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, State>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }
}

// rows 197, 198, 200
#[test]
fn a_burst_over_the_budget_is_published_once() {
    // Whatever cuts it: the messages of a turn, its reads, its deadline.
    let deadline = |reactor: &mut Reactor<State>| {
        let _ = reactor.turn_until(Instant::now()).unwrap();
    };
    let plain = |reactor: &mut Reactor<State>| {
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    };
    type Turn = fn(&mut Reactor<State>);
    for (config, turn, count) in [
        (Config::new(), plain as Turn, 500),
        (Config::new().messages_per_turn(40), plain, 500),
        (Config::new().read_buffer(512).reads_per_turn(1), plain, 500),
        (Config::new(), deadline, 20), // a turn for each
    ] {
        let mut reactor = Reactor::build(config, |net| {
            Ok(State { room: Some(net.create_group()), ..State::default() })
        })
        .unwrap();
        let feed = Listen::tcp("127.0.0.1:0").layer(|_| Lines::new());
        let feed = reactor.net().listen(feed, |_| Feed { newest: Vec::new(), lines: 0 }).unwrap();
        let members = reactor.net().listen("127.0.0.1:0", |_| Member).unwrap();
        let (feed, members) = (address_of(&mut reactor, feed), address_of(&mut reactor, members));
        let mut members: Vec<_> = (0..3).map(|_| client(members)).collect();
        until(&mut reactor, "the members", |reactor| reactor.state().members == 3);
        let mut source = client(feed);
        let burst: String = (500 - count..500).map(|n| format!("line {n:03}\n")).collect();
        source.write_all(burst.as_bytes()).unwrap();
        // The whole burst is here before the loop looks.
        let begun = Instant::now();
        let loops = until_all(&mut reactor, count, turn);
        if begun.elapsed() > Duration::from_millis(50) {
            continue; // a machine that was busy: a batch ends by then
        }
        assert_eq!(reactor.state().batches, [count], "after {loops} turns");
        drop(source);
        until(&mut reactor, "the end", |reactor| reactor.state().ends == ["eof", "close"]);
        assert_eq!(reactor.state().batches, [count]);
        for member in &mut members {
            assert_eq!(read_n(member, 8), b"line 499");
        }
        drop(reactor);
        for member in &mut members {
            assert_eq!(crate::support::read_all(member), b"", "nothing else was published");
        }
    }
}

/// Turns until the batches have so many lines.
fn until_all(reactor: &mut Reactor<State>, lines: usize, turn: fn(&mut Reactor<State>)) -> usize {
    let started = Instant::now();
    let mut turns = 0;
    while reactor.state().batches.iter().sum::<usize>() < lines {
        turn(reactor);
        turns += 1;
        assert!(started.elapsed() < crate::support::PATIENCE, "{:?}", reactor.state().batches);
    }
    turns
}

// row 199
#[test]
fn who_does_not_ask_is_not_called() {
    struct Silent(Shared);
    impl Handler for Silent {
        fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
            input.take_all();
            self.0.borrow_mut().push("data");
            Ok(())
        }
        fn on_batch_end(&mut self, _: &mut Context<'_>) -> HandlerResult {
            panic!("nobody has asked");
        }
        fn on_close(&mut self, _: &mut Context<'_>, closed: &CloseInfo) {
            assert!(closed.reason.is_orderly(), "{closed}");
            self.0.borrow_mut().push("close");
        }
    }
    let told = Shared::default();
    let of_handlers = Rc::clone(&told);
    let mut reactor = Reactor::new().unwrap();
    let listen =
        move |_: &tidegate::Peer<'_>| Box::new(Silent(Rc::clone(&of_handlers))) as Box<dyn Handler>;
    let listener = reactor.net().listen("127.0.0.1:0", listen).unwrap();
    let mut client = client(address_of(&mut reactor, listener));
    client.write_all(b"something").unwrap();
    drop(client);
    until(&mut reactor, "the end", |_| told.borrow().last() == Some(&"close"));
}
