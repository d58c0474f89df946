//! The callback grammar, kept whatever callbacks do: every callback with every action, and random
//! schedules of them. And what `send` answers.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::layer::Lines;
use tidegate::{
    Connect, Context, Datagram, DatagramHandler, Group, Handler, HandlerResult, Input, Listen, Net,
    Notification, Overflow, Reactor, Remote, SendStatus, StreamOptions, Timer, Token,
};

use crate::support::endpoints::deaf;
use crate::support::grammar::{Callback, Grammar};
use crate::support::panics::{panic_on_purpose, panic_with_a_bomb};
use crate::support::xorshift::{Xorshift, for_each_seed};
use crate::support::{
    Log, Probe, Told, address_of, client, is_data, listening, reset, until, with_client,
};

/// What a callback may do, to itself or to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Do {
    Send,
    SendMuch,
    SendTooMuch,
    SendShared,
    Close,
    Abort,
    ShutdownWrite,
    Pause,
    Resume,
    PauseAndResume,
    Notification,
    Timer,
    Join,
    Leave,
    Link,
    PostSend,
    PostClose,
    // Those without a target:
    Connect,
    ConnectRefused,
    ConnectAndClose,
    Listen,
    BindUdp,
    After,
    Publish,
    RemoveGroup,
    Stop,
    Error,
    ErrorAfterClose,
    Panic,
    PanicWithBomb,
}

const TO_SOMEBODY: [Do; 17] = [
    Do::Send,
    Do::SendMuch,
    Do::SendTooMuch,
    Do::SendShared,
    Do::Close,
    Do::Abort,
    Do::ShutdownWrite,
    Do::Pause,
    Do::Resume,
    Do::PauseAndResume,
    Do::Notification,
    Do::Timer,
    Do::Join,
    Do::Leave,
    Do::Link,
    Do::PostSend,
    Do::PostClose,
];

const TO_NOBODY: [Do; 13] = [
    Do::Connect,
    Do::ConnectRefused,
    Do::ConnectAndClose,
    Do::Listen,
    Do::BindUdp,
    Do::After,
    Do::Publish,
    Do::RemoveGroup,
    Do::Stop,
    Do::Error,
    Do::ErrorAfterClose,
    Do::Panic,
    Do::PanicWithBomb,
];

const CALLBACKS: [Callback; 7] = [
    Callback::Open,
    Callback::Data,
    Callback::Drain,
    Callback::Timer,
    Callback::Notification,
    Callback::Eof,
    Callback::Close,
];

/// The reactor's shared state in these tests.
struct World {
    grammar: Grammar,
    remote: Option<Remote<World>>,
    address: SocketAddr,
    group: Option<Group>,
    /// How many sockets callbacks may still make.
    pending_handlers: usize,
    script: Script,
}

enum Script {
    /// The next connection that opens does this, once, in this callback.
    Once {
        who: Option<Token>,
        when: Callback,
        what: Do,
        whom: Whom,
        done: bool,
    },
    /// Anything, now and then.
    Random(Xorshift),
    Nothing,
}

/// To whom something is done.
#[derive(Debug, Clone, Copy)]
enum Whom {
    Oneself,
    Newborn,
    Token(Token),
}

impl World {
    /// What the script wants of this callback.
    fn next(&mut self, token: Token, callback: Callback) -> Option<(Do, Whom)> {
        match &mut self.script {
            Script::Nothing => None,
            Script::Once { who, when, what, whom, done } => {
                let who = *who.get_or_insert(token);
                let now = who == token && *when == callback && !*done;
                *done |= now;
                now.then_some((*what, *whom))
            }
            Script::Random(random) => {
                if !random.chance(2) {
                    return None;
                }
                if random.chance(3) {
                    return Some((random.pick(&TO_NOBODY)?, Whom::Oneself));
                }
                let whom = match random.pick(&self.grammar.known()) {
                    Some(other) if !random.chance(3) => Whom::Token(other),
                    _ => Whom::Oneself,
                };
                Some((random.pick(&TO_SOMEBODY)?, whom))
            }
        }
    }
}

/// Asks for all callbacks the grammar has, and does in them what the script says.
struct Actor;

impl Actor {
    fn told(cx: &mut Context<'_, World>, callback: Callback) -> HandlerResult {
        let token = cx.token;
        let grammar = cx.state.grammar.clone();
        let _running = grammar.enter(token, callback);
        let Some((what, whom)) = cx.state.next(token, callback) else { return Ok(()) };
        let whom = match whom {
            Whom::Token(whom) => whom,
            Whom::Oneself => token,
            Whom::Newborn => cx.net.connect(cx.state.address, Actor)?,
        };
        act(cx, what, whom)
    }
}

impl Handler<World> for Actor {
    fn on_open(&mut self, cx: &mut Context<'_, World>) -> HandlerResult {
        cx.send([b'o'; 100]); // above the high mark: a drain will be owed
        cx.set_timer(Duration::ZERO, 0);
        Actor::told(cx, Callback::Open)
    }
    fn on_data(&mut self, cx: &mut Context<'_, World>, input: &mut Input<'_>) -> HandlerResult {
        input.take((input.len() / 2).max(1));
        let token = cx.token;
        cx.net.notify(token, "data came");
        Actor::told(cx, Callback::Data)
    }
    fn on_drain(&mut self, cx: &mut Context<'_, World>) -> HandlerResult {
        Actor::told(cx, Callback::Drain)
    }
    fn on_eof(&mut self, cx: &mut Context<'_, World>) -> HandlerResult {
        Actor::told(cx, Callback::Eof)?;
        // Some stay half-open, and must not hear of data again.
        let half_open = match &mut cx.state.script {
            Script::Random(random) => random.chance(2),
            _ => false,
        };
        if !half_open {
            let token = cx.token;
            cx.state.grammar.ending(token, "close at the end");
            cx.close();
        }
        Ok(())
    }
    fn on_timer(&mut self, cx: &mut Context<'_, World>, _: Timer) -> HandlerResult {
        Actor::told(cx, Callback::Timer)
    }
    fn on_notify(&mut self, cx: &mut Context<'_, World>, _: Notification) -> HandlerResult {
        Actor::told(cx, Callback::Notification)
    }
    fn on_close(&mut self, cx: &mut Context<'_, World>, _: &tidegate::CloseInfo) {
        let token = cx.token;
        assert!(!cx.net.is_open(token), "open in its own on_close");
        assert_eq!(cx.send("too late"), SendStatus::Gone);
        let _ = Actor::told(cx, Callback::Close);
    }
}

impl DatagramHandler<World> for Actor {
    fn on_datagram(&mut self, _: &mut Context<'_, World>, _: Datagram<'_>) -> HandlerResult {
        Ok(())
    }
}

fn act(cx: &mut Context<'_, World>, what: Do, whom: Token) -> HandlerResult {
    let me = cx.token;
    let Context { state: world, net, .. } = cx;
    let grammar = world.grammar.clone();
    match what {
        Do::Send => drop(net.send(whom, "sent")),
        Do::SendMuch => drop(net.send(whom, vec![b'm'; 200_000])),
        // Above the cap: ends the connection if it is open.
        Do::SendTooMuch => {
            let status = net.send(whom, vec![b'M'; 5 << 20]);
            if status == SendStatus::Full {
                grammar.ending(whom, "the cap was exceeded");
            }
        }
        Do::SendShared => drop(net.send_shared(whom, &vec![b's'; 50_000].into())),
        Do::Close => {
            net.close(whom);
            grammar.ending(whom, "close");
        }
        Do::Abort => {
            net.abort(whom);
            grammar.ending(whom, "abort");
        }
        Do::ShutdownWrite => net.half_close(whom),
        Do::Pause => net.pause(whom),
        Do::Resume => net.resume(whom),
        Do::PauseAndResume => {
            net.pause(whom);
            net.resume(whom);
        }
        Do::Notification => drop(net.notify(whom, 7)),
        Do::Timer => drop(net.set_timer(whom, Duration::ZERO, 7)),
        Do::Join => drop(world.group.map(|group| net.join(group, whom))),
        Do::Leave => drop(world.group.map(|group| net.leave(group, whom))),
        Do::Link => drop(net.pair(me, whom)),
        Do::PostSend => drop(world.remote.as_ref().map(|r| r.send(whom, b"posted".to_vec()))),
        Do::PostClose => drop(world.remote.as_ref().map(|r| r.close(whom))),
        Do::Connect | Do::ConnectRefused | Do::ConnectAndClose | Do::Listen | Do::BindUdp => {
            return make(world, net, what);
        }
        Do::After => {
            net.run_after(Duration::ZERO, move |_, net| net.close(whom));
        }
        Do::Publish => drop(world.group.map(|group| net.publish(group, "published"))),
        Do::RemoveGroup => {
            let next = net.create_group();
            net.remove_group(world.group.replace(next).unwrap_or(next));
        }
        Do::Stop => net.stop(),
        Do::Error => {
            grammar.ending(me, "an error");
            return Err("on purpose".into());
        }
        Do::ErrorAfterClose => {
            net.close(me);
            grammar.ending(me, "close and an error");
            return Err("on purpose".into());
        }
        Do::Panic => {
            grammar.ending(me, "a panic");
            panic_on_purpose();
        }
        Do::PanicWithBomb => {
            grammar.ending(me, "a panic");
            panic_with_a_bomb();
        }
    }
    Ok(())
}

fn make(world: &mut World, net: &mut Net<World>, what: Do) -> HandlerResult {
    if world.pending_handlers == 0 {
        return Ok(());
    }
    world.pending_handlers -= 1;
    match what {
        Do::Connect => drop(net.connect(world.address, Actor)?),
        // Port 1 is nobody's.
        Do::ConnectRefused => drop(net.connect("127.0.0.1:1", Actor)?),
        Do::ConnectAndClose => {
            let newborn = net.connect(world.address, Actor)?;
            net.close(newborn);
            world.grammar.ending(newborn, "close at birth");
            assert_eq!(net.send(newborn, "x"), SendStatus::Gone);
        }
        Do::Listen => drop(net.listen("127.0.0.1:0", |_| Actor)?),
        Do::BindUdp => drop(net.bind_udp("127.0.0.1:0", Actor)?),
        _ => {}
    }
    Ok(())
}

/// A reactor with one listener whose connections are actors, with marks so low that every `on_open`
/// owes a drain.
fn stage() -> (Reactor<World>, Token) {
    let world = World {
        grammar: Grammar::new(),
        remote: None,
        address: "127.0.0.1:1".parse().unwrap(),
        group: None,
        pending_handlers: 40,
        script: Script::Nothing,
    };
    let mut reactor = Reactor::with_state(world).unwrap();
    let group = reactor.net().create_group();
    let options =
        StreamOptions::new().low_water(0).high_water(10).close_timeout(Duration::from_millis(100));
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let listener = reactor.net().listen(listen, |_| Actor).unwrap();
    let address = address_of(&mut reactor, listener);
    let remote = reactor.remote();
    let world = reactor.state_mut();
    (world.group, world.address, world.remote) = (Some(group), address, Some(remote));
    (reactor, listener)
}

/// Turns until `done`, whether or not a callback calls `stop`.
#[track_caller]
fn turn_until(
    reactor: &mut Reactor<World>,
    what: &str,
    mut done: impl FnMut(&mut Reactor<World>) -> bool,
) {
    for _ in 0..5_000 {
        if done(reactor) {
            return;
        }
        let _ = reactor.turn(Some(Duration::from_millis(1))).unwrap();
    }
    reactor.state().grammar.check();
    panic!("waited in vain for: {what}");
}

/// A client whose connection is open on the reactor's side, and its token there.
fn enter(reactor: &mut Reactor<World>) -> (TcpStream, Token) {
    let known = reactor.state().grammar.known();
    let stream = client(reactor.state().address);
    let mut token = None;
    turn_until(reactor, "a connection to open", |reactor| {
        token = reactor.state().grammar.known().into_iter().find(|t| !known.contains(t));
        token.is_some()
    });
    (stream, token.unwrap())
}

const WHOM: [&str; 5] = ["itself", "another", "the listener", "the dead", "a newborn"];

// rows 5, 68
#[test]
fn every_callback_may_do_everything_to_itself_to_others_and_to_the_dead() {
    for when in CALLBACKS {
        for what in TO_SOMEBODY {
            for whom in WHOM {
                one_act(when, what, whom);
            }
        }
        for what in TO_NOBODY {
            one_act(when, what, "itself");
        }
    }
}

/// One connection lives through all callbacks and acts in one of them.
fn one_act(when: Callback, what: Do, whom: &str) {
    let scene = format!("{what:?} to {whom} in {when:?}");
    let (mut reactor, listener) = stage();
    let grammar = reactor.state().grammar.clone();
    let (_another_stream, another) = enter(&mut reactor);
    let (mut bystander_stream, bystander) = enter(&mut reactor);
    let (_dead_stream, dead) = enter(&mut reactor);
    reactor.net().abort(dead);
    turn_until(&mut reactor, "the dead", |_| grammar.is_gone(dead));

    let whom = match whom {
        "itself" => Whom::Oneself,
        "another" => Whom::Token(another),
        "the listener" => Whom::Token(listener),
        "the dead" => Whom::Token(dead),
        _ => Whom::Newborn,
    };
    reactor.state_mut().script = Script::Once { who: None, when, what, whom, done: false };
    let (mut actor_stream, actor) = enter(&mut reactor);
    let _ = actor_stream.write_all(b"some words"); // it may have been reset already
    let mut turns = 0;
    turn_until(&mut reactor, &scene, |reactor| {
        turns += 1;
        match turns {
            // Late enough for the timers and signals before it.
            5 => drop(actor_stream.shutdown(Shutdown::Write)),
            // Paused: time to go on.
            20 => reactor.net().resume(actor),
            // It cannot end by itself: paused again, or a queue that nobody reads.
            100 => reactor.net().abort(actor),
            _ => {}
        }
        grammar.is_gone(actor)
    });
    let acted = matches!(&reactor.state().script, Script::Once { done: true, .. });
    assert!(acted, "{scene}: never came to it");

    // Nobody else has noticed.
    assert!(reactor.net().is_open(bystander), "{scene}: the bystander is gone");
    let heard = grammar.told(Callback::Data);
    bystander_stream.write_all(b"?").unwrap();
    turn_until(&mut reactor, &scene, |_| grammar.told(Callback::Data) > heard);
    drop(reactor);
    grammar.check_at_end();
}

#[test]
fn random_schedules_keep_the_grammar() {
    for_each_seed(0..60, |seed| {
        let (mut reactor, _listener) = stage();
        let grammar = reactor.state().grammar.clone();
        reactor.state_mut().script = Script::Random(Xorshift::new(seed));
        let mut random = Xorshift::new(seed ^ 0xC11E47);
        let mut clients: Vec<TcpStream> = Vec::new();
        for _ in 0..150 {
            random_client(&mut random, &mut clients, reactor.state().address);
            let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
            grammar.check();
        }
        drop(reactor);
        grammar.check_at_end();
    });
}

/// Some client does something.
fn random_client(random: &mut Xorshift, clients: &mut Vec<TcpStream>, address: SocketAddr) {
    if random.chance(5) && clients.len() < 20 {
        // The listener may be closed by now.
        if let Ok(stream) = TcpStream::connect(address) {
            stream.set_nonblocking(true).unwrap();
            clients.push(stream);
        }
    }
    if clients.is_empty() {
        return;
    }
    let which = random.below(clients.len());
    match random.below(8) {
        0 => drop(clients.swap_remove(which)),
        1 => reset(clients.swap_remove(which)),
        2 => drop(clients[which].shutdown(Shutdown::Write)),
        3 | 4 => drop(clients[which].read(&mut [0; 100_000])),
        _ => drop(clients[which].write(b"some words")),
    }
}

// ---- what `send` answers ----

#[test]
fn send_says_queued_then_above_high_then_full_and_the_cap_closes() {
    let log = Log::new();
    let of_handler = log.clone();
    let statuses = Rc::new(RefCell::new(Vec::new()));
    let of_open = Rc::clone(&statuses);
    let mut reactor = Reactor::new().unwrap();
    let options = StreamOptions::new().low_water(10).high_water(100).output_limit(200);
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let listener = reactor
        .net()
        .listen(listen, move |_| {
            let statuses = Rc::clone(&of_open);
            Probe::new(&of_handler).open(move |cx| {
                for size in [100, 1, 99, 1, 1] {
                    statuses.borrow_mut().push(cx.send(vec![b'x'; size]));
                }
                Ok(())
            })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let _stream = client(address);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    use SendStatus::{AboveHighWater, Full, Gone, Queued};
    assert_eq!(*statuses.borrow(), [Queued, AboveHighWater, AboveHighWater, Full, Gone]);
    assert_eq!(log.reasons(), ["more queued output than the limit of 200 bytes"]);
}

#[test]
fn a_full_queue_that_drops_refuses_the_message_whole_and_lives_on() {
    let log = Log::new();
    let of_handler = log.clone();
    let statuses = Rc::new(RefCell::new(Vec::new()));
    let of_open = Rc::clone(&statuses);
    let mut reactor = Reactor::new().unwrap();
    let options = StreamOptions::new()
        .low_water(10)
        .high_water(100)
        .output_limit(200)
        .overflow(Overflow::Drop);
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let listener = reactor
        .net()
        .listen(listen, move |_| {
            let statuses = Rc::clone(&of_open);
            Probe::new(&of_handler).open(move |cx| {
                for (byte, size) in [(b'a', 150), (b'b', 51), (b'c', 50), (b'd', 1)] {
                    statuses.borrow_mut().push(cx.send(vec![byte; size]));
                }
                Ok(())
            })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let mut stream = client(address);
    let heard = with_client(&mut reactor, move || {
        let mut heard = vec![0; 200];
        stream.read_exact(&mut heard).unwrap();
        (stream, heard)
    });
    use SendStatus::{AboveHighWater, Full};
    assert_eq!(*statuses.borrow(), [AboveHighWater, Full, AboveHighWater, Full]);
    assert_eq!(heard.1, [vec![b'a'; 150], vec![b'c'; 50]].concat());
    until(&mut reactor, "the drain", |_| log.count(|told| *told == Told::Drain) == 1);
    assert_eq!(log.closes(), 0);
}

#[test]
fn send_is_gone_after_close_abort_and_half_close_and_for_what_takes_no_bytes() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, listener, address) = listening(move || Probe::new(&of_handler));
    let _streams = [client(address), client(address), client(address)];
    until(&mut reactor, "all to open", |_| log.opens() == 3);
    let net = reactor.net();
    for (token, end) in log.opened().into_iter().zip([Net::close, Net::abort, Net::half_close]) {
        assert_eq!(net.send(token, "in time"), SendStatus::Queued);
        end(net, token);
        assert_eq!(net.send(token, "late"), SendStatus::Gone);
        assert_eq!(net.send_shared(token, &vec![0; 100_000].into()), SendStatus::Gone);
    }
    assert_eq!(net.send(listener, "x"), SendStatus::Gone);
    assert_eq!(net.send_to(listener, address, "x"), SendStatus::Gone);
    until(&mut reactor, "the abort", |_| log.closes() == 1);
    let dead = log.opened()[1];
    assert_eq!(reactor.net().send(dead, "x"), SendStatus::Gone);
    assert!(!reactor.net().notify(dead, 1));
    assert!(!reactor.net().is_open(dead));
    assert_eq!(reactor.net().queued(dead), 0);
}

#[test]
fn a_token_of_the_past_does_not_reach_who_has_its_place() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || Probe::echo(&of_handler));
    let first = client(address);
    until(&mut reactor, "the first to open", |_| log.opens() == 1);
    let old = log.opened()[0];
    drop(first);
    until(&mut reactor, "the first to close", |_| log.closes() == 1);
    let mut second = client(address);
    until(&mut reactor, "the second to open", |_| log.opens() == 2);
    let new = log.opened()[1];
    assert_ne!(old, new);

    let net = reactor.net();
    assert_eq!(net.send(old, "not yours"), SendStatus::Gone);
    assert!(!net.notify(old, 1));
    assert!(!net.pair(old, new));
    let group = net.create_group();
    assert!(!net.join(group, old));
    let timer = net.set_timer(old, Duration::ZERO, 1);
    assert!(!net.cancel_timer(timer));
    for end in [Net::close, Net::abort, Net::half_close, Net::pause] {
        end(net, old);
    }
    assert!(net.is_open(new));
    second.write_all(b"still here").unwrap();
    let heard = with_client(&mut reactor, move || crate::support::read_n(&mut second, 10));
    assert_eq!(heard, b"still here");
    assert_eq!(log.count(|told| matches!(told, Told::Notification | Told::Timer(_))), 0);
}

// ---- the grammar's corners ----

#[test]
fn what_was_left_is_not_offered_again_after_the_end() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || {
        Probe::new(&of_handler).data(|_, _| Ok(())).eof(|_| Ok(())) // takes nothing, stays
    });
    let mut stream = client(address);
    stream.write_all(b"left").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    until(&mut reactor, "the end", |_| log.eofs() == 1);
    let token = log.opened()[0];
    reactor.net().pause(token);
    reactor.net().resume(token);
    crate::support::settle(&mut reactor);
    assert_eq!(log.told().last(), Some(&Told::Eof));
}

#[test]
fn what_is_left_at_the_end_is_offered_once_more() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) =
        listening(move || Probe::new(&of_handler).data(|_, _| Ok(())));
    let mut stream = client(address);
    stream.write_all(b"left").unwrap();
    until(&mut reactor, "the data", |_| log.data() == b"left");
    stream.shutdown(Shutdown::Write).unwrap();
    until(&mut reactor, "the close", |_| log.closes() == 1);
    let left = Told::Data(b"left".to_vec());
    let end = Told::Close("both sides ended".to_owned(), 0);
    assert_eq!(log.told(), [Told::Open, left.clone(), left, Told::Eof, end]);
}

#[test]
fn a_close_is_final_also_while_a_failed_connection_is_emptied() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || {
        Probe::new(&of_handler)
            .open(|cx| {
                cx.pause();
                Ok(())
            })
            .data(|cx, input| {
                input.take(1);
                cx.close();
                Ok(())
            })
    });
    let mut stream = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    stream.write_all(b"several bytes").unwrap();
    reset(stream); // the reactor finds out although reading is paused
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.count(is_data), 1, "{:?}", log.told());
}

#[test]
fn an_error_closes_gracefully_what_was_sent_is_flushed_and_the_error_is_the_reason() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || {
        Probe::new(&of_handler).data(|cx, _| {
            cx.send(vec![b'l'; 1 << 20]);
            cx.send("last words");
            Err("no more".into())
        })
    });
    let heard = with_client(&mut reactor, move || {
        let mut stream = client(address);
        // More than is read of it: a close that left it unread would be a reset.
        stream.write_all(&[b'?'; 100_000]).unwrap();
        crate::support::read_all(&mut stream)
    });
    assert_eq!(heard.len(), (1 << 20) + 10);
    assert!(heard.ends_with(b"last words"));
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.reasons(), ["no more"]);
}

#[test]
fn deadlines_of_set_up_code_count_from_the_call_and_not_from_the_last_turn() {
    let full = deaf();
    let mut reactor = Reactor::new().unwrap();
    std::thread::sleep(Duration::from_millis(120)); // set-up that takes its time
    let patience = Duration::from_millis(100);
    let options = StreamOptions::new().connect_timeout(patience);
    let log = Log::new();
    let start = Instant::now();
    reactor.net().connect(Connect::tcp(full.address).options(options), Probe::new(&log)).unwrap();
    until(&mut reactor, "the timeout", |_| log.closes() == 1);
    assert!(start.elapsed() >= patience, "given up after {:?}", start.elapsed());
    assert_eq!(
        log.reasons(),
        [format!("cannot connect to {}: not established in time", full.address)]
    );
}

#[test]
fn the_short_forms_act_on_the_callbacks_own_connection() {
    let log = Log::new();
    let of_handler = log.clone();
    let options = StreamOptions::new().low_water(0).high_water(8);
    let mut reactor = Reactor::new().unwrap();
    let group = reactor.net().create_group();
    let listener = reactor
        .net()
        .listen(Listen::tcp("127.0.0.1:0").options(options), move |_| {
            Probe::new(&of_handler).data(move |cx, input| {
                input.take_all();
                let me = cx.token;
                assert_eq!((cx.is_open(), cx.queued(), cx.is_above_high_water()), (true, 0, false));
                assert_eq!(cx.local_addr(), cx.net.local_addr(me));
                assert!(cx.local_addr().is_some());
                assert_eq!(
                    cx.send_shared(&b"shared and long".to_vec().into()),
                    SendStatus::AboveHighWater
                );
                assert_eq!((cx.queued(), cx.is_above_high_water()), (15, true));
                assert!(!cx.relay(me) && !cx.pair(me), "one connection is no pair");
                assert!(cx.join(group));
                assert_eq!(cx.net.members(group), [me]);
                // The message counts its receivers, and this one is none.
                assert_eq!(cx.publish_to_others(group, "not for me").members, 0);
                assert!(cx.leave(group));
                assert_eq!(cx.net.members(group), []);
                assert!(cx.start_layer(Lines::new()));
                cx.send("a line");
                cx.close();
                assert!(!cx.is_open());
                Ok(())
            })
        })
        .unwrap();
    let address = address_of(&mut reactor, listener);
    let heard = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"x").unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        heard
    });
    assert_eq!(heard, "shared and longa line\n");
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.reasons(), ["closed"]);
}
