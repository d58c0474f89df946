//! The backplane: groups that span processes, through an engine that may be away. The engine is one of
//! this library, small and scripted; `.ci/backplane.py` has a real one.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::backplane::{Backplane, BackplaneEvent, BackplaneHandle, WhenFull};
use tidegate::layer::resp::{Command, Resp, Value, Version};
use tidegate::layer::{Item, Layer, LayerContext, LayerError, MessageKind, Step};
use tidegate::{Adopt, Context, Handler, HandlerResult, Input, Listen, Message, Reactor, Token};

use crate::support::{Log, PATIENCE, Probe, address_of};

/// Keys of streams, and behind which entry each is read.
type Places = Vec<(Vec<u8>, u64)>;

/// What the engine knows.
#[derive(Default)]
struct Engine {
    channels: HashMap<Vec<u8>, Vec<Token>>,
    /// Every command but PUBLISH and PING.
    commands: Vec<String>,
    published: usize,
    pings: usize,
    /// What it answers to HELLO in place of its greeting.
    refusal: Option<&'static str>,
    /// It does not answer to PUBLISH and XADD.
    keeps_quiet: bool,
    /// The number of the next client, and who is which.
    clients: Vec<Token>,
    streams: HashMap<Vec<u8>, Vec<(u64, Vec<u8>)>>,
    last_id: u64,
    /// Who waits in XREAD for what.
    blocked: Vec<(Token, Places)>,
}

fn entry(id: u64, payload: &[u8]) -> Vec<u8> {
    let fields = Value::Array(vec![Value::Bulk(b"m"), Value::Bulk(payload)]);
    let id = format!("{id}-0");
    Value::Array(vec![Value::Bulk(id.as_bytes()), fields]).encode(Version::Resp3)
}

fn place(id: &[u8]) -> u64 {
    std::str::from_utf8(id).unwrap().strip_suffix("-0").unwrap().parse().unwrap()
}

impl Engine {
    /// What XREAD answers, if there is anything.
    fn read(&self, names: &[(Vec<u8>, u64)]) -> Option<Vec<u8>> {
        let (mut streams, mut count) = (Vec::new(), 0);
        for (name, from) in names {
            let all = self.streams.get(name).map_or(&[][..], Vec::as_slice);
            let new: Vec<_> = all.iter().filter(|(id, _)| id > from).collect();
            if new.is_empty() {
                continue;
            }
            count += 1;
            streams.extend(Value::Bulk(name).encode(Version::Resp3));
            streams.extend(format!("*{}\r\n", new.len()).bytes());
            streams.extend(new.iter().flat_map(|(id, payload)| entry(*id, payload)));
        }
        (count > 0).then(|| [format!("%{count}\r\n").as_bytes(), &streams].concat())
    }
}

struct Session;

impl Handler<Engine> for Session {
    fn on_data(&mut self, cx: &mut Context<'_, Engine>, input: &mut Input<'_>) -> HandlerResult {
        let command = Command::new(input.take_all(), input.fields());
        let words: Vec<&[u8]> = command.words().collect();
        let shown = words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>();
        if !matches!(words[0], b"PUBLISH" | b"PING" | b"XADD" | b"XREAD" | b"XREVRANGE") {
            cx.state.commands.push(shown.join(" "));
        }
        let confirmed = |word, channel| {
            Value::Push(vec![Value::Bulk(word), Value::Bulk(channel), Value::Integer(1)])
        };
        let token = cx.token;
        let answer = match words[..] {
            [b"HELLO", ..] => match cx.state.refusal {
                Some(refusal) => Value::Error(refusal.as_bytes()),
                None => {
                    cx.state.clients.push(token);
                    let id = Value::Integer(cx.state.clients.len() as i64);
                    Value::Map(vec![(Value::Bulk(b"id"), id)])
                }
            },
            [b"SELECT", _] => Value::Simple(b"OK"),
            [b"PING"] => {
                cx.state.pings += 1;
                Value::Simple(b"PONG")
            }
            [b"SUBSCRIBE", b"forbidden"] => Value::Error(b"NOPERM no permissions"),
            [b"SUBSCRIBE", channel] => {
                cx.state.channels.entry(channel.into()).or_default().push(token);
                confirmed(b"subscribe", channel)
            }
            [b"UNSUBSCRIBE", channel] => {
                cx.state.channels.entry(channel.into()).or_default().retain(|&t| t != token);
                confirmed(b"unsubscribe", channel)
            }
            [b"PUBLISH", channel, payload] => {
                cx.state.published += 1;
                let subscribers = cx.state.channels.get(channel).cloned().unwrap_or_default();
                let push = [b"message", channel, payload].map(Value::Bulk).to_vec();
                let push = Value::Push(push).encode(Version::Resp3);
                for &subscriber in &subscribers {
                    cx.net.send(subscriber, &push);
                }
                if cx.state.keeps_quiet {
                    return Ok(());
                }
                Value::Integer(subscribers.len() as i64)
            }
            [b"XADD", key, b"MAXLEN", b"~", _, b"*", b"m", payload] => {
                cx.state.last_id += 1;
                let id = cx.state.last_id;
                cx.state.streams.entry(key.into()).or_default().push((id, payload.into()));
                for (token, names) in std::mem::take(&mut cx.state.blocked) {
                    match cx.state.read(&names) {
                        Some(answer) => drop(cx.net.send(token, answer)),
                        None => cx.state.blocked.push((token, names)),
                    }
                }
                if !cx.state.keeps_quiet {
                    cx.send(Value::Bulk(format!("{id}-0").as_bytes()).encode(Version::Resp3));
                }
                return Ok(());
            }
            [b"XREVRANGE", key, b"+", b"-", b"COUNT", count] => {
                let count: usize = std::str::from_utf8(count)?.parse()?;
                let all = cx.state.streams.get(key).map_or(&[][..], Vec::as_slice);
                let last = all.iter().rev().take(count);
                let head = format!("*{}\r\n", count.min(all.len())).into_bytes();
                let entries = last.flat_map(|(id, payload)| entry(*id, payload));
                cx.send(head.into_iter().chain(entries).collect::<Vec<u8>>());
                return Ok(());
            }
            [b"XREAD", b"COUNT", _, b"BLOCK", _, b"STREAMS", ref names @ ..] => {
                let (names, ids) = names.split_at(names.len() / 2);
                let names = names.iter().zip(ids);
                let names: Vec<_> = names.map(|(name, id)| (name.to_vec(), place(id))).collect();
                match cx.state.read(&names) {
                    Some(answer) => drop(cx.send(answer)),
                    None => cx.state.blocked.push((token, names)),
                }
                return Ok(());
            }
            [b"CLIENT", b"UNBLOCK", id] => {
                let id: usize = std::str::from_utf8(id)?.parse()?;
                let waits = cx.state.clients[id - 1];
                let before = cx.state.blocked.len();
                cx.state.blocked.retain(|(token, _)| *token != waits);
                let woken = before - cx.state.blocked.len();
                if woken == 1 {
                    cx.net.send(waits, Value::Null.encode(Version::Resp3));
                }
                Value::Integer(woken as i64)
            }
            _ => Value::Error(b"ERR unknown command"),
        };
        cx.send(answer.encode(Version::Resp3));
        Ok(())
    }
}

fn engine(at: SocketAddr) -> (Reactor<Engine>, SocketAddr) {
    let mut reactor = Reactor::with_state(Engine::default()).unwrap();
    let listen = Listen::tcp(at).layer(|_| Resp::server());
    let listener = reactor.net().listen(listen, |_| Session).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, address)
}

fn new_engine() -> (Reactor<Engine>, SocketAddr) {
    engine("127.0.0.1:0".parse().unwrap())
}

/// Sends a message with its kind and a bar behind it: `T:hello|`.
struct Shown;

impl Layer for Shown {
    fn name(&self) -> &'static str {
        "shown"
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        Ok(Step::new(wire.len(), Item::Nothing))
    }
    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(match kind {
            MessageKind::Default => b"D:",
            MessageKind::Text => b"T:",
            MessageKind::Binary => b"B:",
        });
        wire.extend_from_slice(message);
        wire.push(b'|');
        Ok(())
    }
}

type Events = Rc<RefCell<VecDeque<BackplaneEvent>>>;

/// A process with a backplane.
struct Process {
    reactor: Reactor,
    backplane: BackplaneHandle,
    events: Events,
}

struct Member {
    token: Token,
    far: UnixStream,
}

impl Member {
    fn got(&mut self) -> String {
        let mut got = Vec::new();
        let mut block = [0; 4096];
        while let Ok(n @ 1..) = self.far.read(&mut block) {
            got.extend_from_slice(&block[..n]);
        }
        String::from_utf8_lossy(&got).into_owned()
    }
}

impl Process {
    fn new(url: &str, adapt: impl FnOnce(Backplane) -> Backplane) -> Self {
        let (mut reactor, events) = (Reactor::new().unwrap(), Events::default());
        let told = Rc::clone(&events);
        let backplane = Backplane::redis(url)
            .unwrap()
            .longest_wait(Duration::from_millis(20))
            .on_event(move |event, _, _| told.borrow_mut().push_back(event.clone()));
        let backplane = adapt(backplane).start(reactor.net()).unwrap();
        Process { reactor, backplane, events }
    }

    fn at(address: SocketAddr) -> Self {
        Self::new(&format!("redis://{address}"), |backplane| backplane)
    }

    /// A connection that is in no group.
    fn stranger(&mut self) -> Member {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let adopt = Adopt::from(near).layer(Shown);
        let token = self.reactor.net().adopt(adopt, Probe::new(&Log::new())).unwrap();
        Member { token, far }
    }

    fn member_of(&mut self, name: &str) -> Member {
        let member = self.stranger();
        let net = self.reactor.net();
        let group = net.group(name);
        assert!(net.join(group, member.token));
        member
    }

    fn say(&mut self, name: &str, message: &str) {
        self.reactor.net().publish_named(name, Message::text(message));
    }

    fn next_event(&self) -> Option<BackplaneEvent> {
        self.events.borrow_mut().pop_front()
    }
}

trait Turns {
    fn turn_once(&mut self);
}

impl Turns for Reactor<Engine> {
    fn turn_once(&mut self) {
        assert!(self.turn(Some(Duration::ZERO)).unwrap().is_continue());
    }
}

impl Turns for Process {
    fn turn_once(&mut self) {
        assert!(self.reactor.turn(Some(Duration::from_micros(100))).unwrap().is_continue());
    }
}

/// Turns all of them until something has happened.
macro_rules! until {
    ($($turned:expr),+; $condition:expr) => {{
        let begin = Instant::now();
        while !$condition {
            $($turned.turn_once();)+
            assert!(begin.elapsed() < PATIENCE, "it did not happen: {}", stringify!($condition));
        }
    }};
}

// row 247
#[test]
fn members_of_two_processes_hear_each_other_in_order_and_nobody_twice() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (Process::at(address), Process::at(address));
    let mut of_a = [a.member_of("room"), a.member_of("room"), a.member_of("other")];
    let mut of_b = b.member_of("room");
    until!(engine, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    let mut expected = String::new();
    for n in 0..500 {
        let text = format!("a{n}\r\n\0");
        a.say("room", &text);
        expected += &format!("T:{text}|");
        if n % 7 == 0 {
            a.turn_once();
        }
    }
    a.reactor.net().publish_named("room", Message::binary(b"\xff\0"));
    a.reactor.net().publish_named("room", b"plain");
    a.reactor.net().publish_named_latest("room", 7, Message::text("newest"));
    let mut got = String::new();
    until!(engine, a, b; { got += &of_b.got(); got.ends_with("newest|") });
    expected += &format!("B:{}|D:plain|T:newest|", String::from_utf8_lossy(b"\xff\0"));
    assert_eq!(got, expected);
    until!(engine, a, b; a.backplane.stats().own == 503 && a.backplane.stats().confirmed == 503);
    assert_eq!(of_a[0].got(), expected, "once, and not again from the engine");
    assert_eq!(of_a[1].got(), expected);
    assert_eq!(of_a[2].got(), "");
    b.say("room", "back");
    until!(engine, a, b; of_a[0].got() == "T:back|");
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    assert_eq!(a.next_event(), None);
    let stats = b.backplane.stats();
    assert_eq!((stats.received, stats.published, stats.repeated), (503, 1, 0));
}

// row 247
#[test]
fn subscriptions_follow_membership() {
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    let early = a.member_of("early");
    until!(engine, a; a.backplane.is_connected());
    assert_eq!(engine.state().commands, ["HELLO 3", "SUBSCRIBE early"]);
    let [one, two, three] = ["room"; 3].map(|name| a.member_of(name));
    until!(engine, a; engine.state().commands.len() == 3);
    // Left and joined again in one turn: nothing is said.
    let net = a.reactor.net();
    let room = net.group("room");
    for member in [&one, &two, &three] {
        assert!(net.leave(room, member.token));
    }
    assert!(net.join(room, one.token));
    a.say("room", "x");
    until!(engine, a; engine.state().published == 1);
    let net = a.reactor.net();
    assert!(net.leave(room, one.token));
    net.close(early.token);
    drop(early);
    until!(engine, a; engine.state().commands.len() == 5);
    let mut said = engine.state().commands[2..].to_vec();
    said[1..].sort();
    assert_eq!(said, ["SUBSCRIBE room", "UNSUBSCRIBE early", "UNSUBSCRIBE room"]);
    assert_eq!(a.backplane.stats().topics, 0);
}

// row 247
#[test]
fn the_url_logs_in_and_the_prefix_separates_services() {
    let (mut engine, address) = new_engine();
    let url = format!("redis://anna:p%40ss@{address}/3");
    let mut a = Process::new(&url, |backplane| backplane.prefix("a/"));
    let mut b = Process::new(&format!("redis://{address}"), |backplane| backplane.prefix("b/"));
    let (mut of_a, mut of_b) = (a.member_of("room"), b.member_of("room"));
    until!(engine, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    let said = &engine.state().commands;
    for command in ["HELLO 3 AUTH anna p@ss", "SELECT 3", "SUBSCRIBE a/room", "SUBSCRIBE b/room"] {
        assert!(said.iter().any(|said| said == command), "{said:?}");
    }
    // Another program's message is one as it is.
    let push = Value::Push([b"message", &b"a/room"[..], b"hello"].map(Value::Bulk).to_vec());
    let to = engine.state().channels[&b"a/room"[..]][0];
    engine.net().send(to, push.encode(Version::Resp3));
    until!(engine, a, b; of_a.got() == "D:hello|");
    a.say("room", "a");
    until!(engine, a, b; a.backplane.stats().own == 1);
    assert_eq!(of_b.got(), "");
}

// row 247
#[test]
fn the_program_itself_hears_what_others_publish() {
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    for keep in [false, true] {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let hears = Rc::clone(&heard);
        let mut b = Process::new(&format!("redis://{address}"), |backplane| {
            let backplane = if keep { backplane.keep("", 100) } else { backplane };
            backplane.on_message("people", move |message, (), net| {
                hears.borrow_mut().push((message.kind(), message.to_vec()));
                net.publish_named("heard", b"it");
            })
        });
        let member = b.member_of("people");
        until!(engine, a, b; a.backplane.is_connected() && b.backplane.is_connected());
        drop(member); // the name is wanted still
        until!(engine, a, b; b.reactor.net().find_group("people").is_none());
        until!(engine, a, b; !keep || engine.state().blocked.len() == 1);
        let payload = Message::text("anna");
        if keep {
            let mut c = keeping(address);
            c.reactor.net().publish_named("people", payload);
            until!(engine, c, b; heard.borrow().len() == 1);
        } else {
            a.reactor.net().publish_named("people", payload);
            until!(engine, a, b; heard.borrow().len() == 1);
        }
        b.say("people", "of its own: not heard");
        until!(engine, a, b; b.backplane.stats().own == 1 && b.backplane.stats().published == 2);
        assert_eq!(heard.borrow()[..], [(MessageKind::Text, b"anna".to_vec())]);
    }
}

// row 248
#[test]
fn while_the_engine_is_away_members_here_go_on_and_the_rest_goes_out_later() {
    let (mut first, address) = new_engine();
    let (mut a, mut b) = (Process::at(address), Process::at(address));
    let (mut of_a, mut of_b) = (a.member_of("room"), b.member_of("room"));
    until!(first, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    drop(first);
    until!(a, b; !a.backplane.is_connected() && !b.backplane.is_connected());
    a.say("room", "1");
    a.say("room", "2");
    until!(a, b; of_a.got() == "T:1|T:2|");
    until!(a, b; a.events.borrow().iter().any(|e| matches!(e, BackplaneEvent::Failed { .. })));
    // A room that is opened meanwhile.
    let mut late = b.member_of("late");
    let (mut second, _) = engine(address);
    // What a says may be back before b has subscribed.
    until!(second, b; b.backplane.is_connected());
    until!(second, a, b; a.backplane.is_connected());
    let mut got = String::new();
    until!(second, a, b; { got += &of_b.got(); got == "T:1|T:2|" });
    a.say("late", "3");
    until!(second, a, b; late.got() == "T:3|");
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    let lost = a.next_event().unwrap();
    assert!(matches!(lost, BackplaneEvent::Lost { unconfirmed: 0, .. }), "{lost:?}");
    while let Some(event) = a.next_event() {
        match event {
            BackplaneEvent::Failed { why, .. } => assert!(why.contains("refused"), "{why}"),
            BackplaneEvent::Resumed { dropped, .. } => assert_eq!(dropped, 0),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(a.backplane.stats().connects, 2);
}

// row 248
#[test]
fn what_the_engine_did_not_confirm_goes_out_again_and_arrives_once() {
    let (mut first, address) = new_engine();
    let (mut a, mut b) = (Process::at(address), Process::at(address));
    let mut of_b = b.member_of("room");
    until!(first, a, b; a.backplane.is_connected() && b.backplane.is_connected());
    first.state_mut().keeps_quiet = true;
    a.say("room", "1");
    a.say("room", "2");
    let mut got = String::new();
    until!(first, a, b; { got += &of_b.got(); got == "T:1|T:2|" });
    drop(first);
    until!(a, b; !a.backplane.is_connected() && !b.backplane.is_connected());
    a.say("room", "3");
    let (mut second, _) = engine(address);
    until!(second, b; b.backplane.is_connected());
    until!(second, a, b; { got += &of_b.got(); got == "T:1|T:2|T:3|" });
    assert_eq!(second.state().published, 3);
    assert_eq!(b.backplane.stats().repeated, 2);
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    assert!(matches!(a.next_event(), Some(BackplaneEvent::Lost { unconfirmed: 2, .. })));
}

// row 248
#[test]
fn the_queue_is_bounded_while_the_engine_is_away() {
    for (policy, expected) in [
        (WhenFull::DropOldest, ["T:996|", "T:997|", "T:998|", "T:999|"]),
        (WhenFull::Refuse, ["T:000|", "T:001|", "T:002|", "T:003|"]),
    ] {
        let (first, address) = new_engine();
        drop(first);
        let mut b = Process::at(address);
        let mut of_b = b.member_of("room");
        // A command of that length is 70 bytes.
        let adapt =
            |backplane: Backplane| backplane.queue_limit(300).when_full(policy).message_limit(100);
        let mut a = Process::new(&format!("redis://{address}"), adapt);
        for n in 0..1000 {
            a.say("room", &format!("{n:03}"));
        }
        a.say("room", &"x".repeat(97));
        let stats = a.backplane.stats();
        assert!(stats.queued_bytes <= 300, "{stats:?}");
        let kept = stats.queued_messages;
        assert_eq!((stats.published, stats.dropped), (1000, 1000 - kept as u64));
        assert_eq!(stats.too_large, 1);
        let (mut engine, _) = engine(address);
        until!(engine, b; b.backplane.is_connected());
        until!(engine, a, b; a.backplane.stats().queued_messages == 0);
        let mut got = String::new();
        until!(engine, a, b; { got += &of_b.got(); got.matches('|').count() == kept });
        let edge = if policy == WhenFull::Refuse { 0 } else { 4 - kept };
        let expected: String = match policy {
            WhenFull::Refuse => expected[..kept].concat(),
            _ => expected[edge..].concat(),
        };
        assert_eq!(got, expected);
    }
}

// row 249
#[test]
fn an_engine_that_falls_silent_is_given_up_and_one_that_is_only_idle_is_not() {
    let (mut engine, address) = new_engine();
    let silence = Duration::from_millis(300);
    let url = format!("redis://{address}");
    let mut a = Process::new(&url, |backplane| backplane.silence(silence));
    until!(engine, a; engine.state().pings == 3);
    assert!(a.backplane.is_connected(), "PING keeps it");
    // It is stopped: its connections stay, and nobody answers.
    let begin = Instant::now();
    until!(a; !a.backplane.is_connected());
    assert!(begin.elapsed() < silence + PATIENCE / 2);
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    let lost = a.next_event().unwrap().to_string();
    assert_eq!(lost, "lost: the server has said nothing for 300ms");
    // The stopped one is dialled again, and is not up before it answers.
    until!(a; a.events.borrow().iter().any(|e| matches!(e, BackplaneEvent::Failed { .. })));
    until!(engine, a; a.backplane.is_connected());
}

// row 249
#[test]
fn what_the_server_refuses_is_one_clear_line() {
    for (refusal, said) in [
        ("WRONGPASS invalid username-password pair", "the server refused the login: WRONGPASS"),
        ("NOAUTH HELLO must be called with", "the server wants a login: redis://user:password@"),
        ("NOPROTO unsupported protocol version", "the server is too old, expected Redis 6"),
        ("ERR unknown command `HELLO`", "the server is too old, expected Redis 6 or newer"),
        ("LOADING Redis is loading", "the server refused the login: LOADING"),
    ] {
        let (mut engine, address) = new_engine();
        engine.state_mut().refusal = Some(refusal);
        let mut a = Process::new(&format!("redis://:geheim@{address}"), |backplane| backplane);
        until!(engine, a; !a.events.borrow().is_empty());
        let event = a.next_event().unwrap();
        assert!(matches!(event, BackplaneEvent::Failed { .. }), "{event:?}");
        let line = event.to_string();
        assert!(line.contains(said) && !line.contains(['\n', '\r']), "{line}");
        assert!(!line.contains("geheim"), "{line}");
        // It goes on trying: a server that loads, or is put right, is found.
        engine.state_mut().refusal = None;
        until!(engine, a; a.backplane.is_connected());
    }
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    let (_one, _other) = (a.member_of("forbidden"), a.member_of("room"));
    until!(engine, a; a.backplane.is_connected());
    let refused = a.next_event().unwrap().to_string();
    assert_eq!(refused, "the server refused SUBSCRIBE: NOPERM no permissions");
}

// row 249
#[test]
fn a_shutdown_does_not_wait_for_the_backplane_and_flushes_it() {
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    let member = a.member_of("room");
    until!(engine, a; a.backplane.is_connected());
    a.reactor.net().shutdown(PATIENCE * 10);
    a.say("room", "last words");
    a.turn_once();
    assert!(a.backplane.is_connected(), "a member is left to be served");
    drop(member);
    let begin = Instant::now();
    let report = loop {
        engine.turn_once();
        if let std::ops::ControlFlow::Break(report) = a.reactor.turn(Some(Duration::ZERO)).unwrap()
        {
            break report;
        }
        assert!(begin.elapsed() < PATIENCE);
    };
    assert_eq!(report.connections_cut, 0);
    assert_eq!(engine.state().published, 1);
}

#[test]
fn a_stopped_backplane_leaves_local_groups_and_says_nothing_more() {
    let (mut engine, address) = new_engine();
    let mut a = Process::at(address);
    let mut member = a.member_of("room");
    until!(engine, a; a.backplane.is_connected());
    let handle = a.backplane.clone();
    handle.stop(a.reactor.net());
    a.say("room", "here");
    until!(engine, a; member.got() == "T:here|");
    until!(engine, a; a.reactor.net().stats().connections == 1);
    assert_eq!(engine.state().published, 0);
    assert_eq!(a.next_event(), Some(BackplaneEvent::Connected));
    assert_eq!(a.next_event(), None);
}

/// A process whose names are all kept.
fn keeping(address: SocketAddr) -> Process {
    Process::new(&format!("redis://{address}"), |backplane| backplane.keep("", 1000))
}

/// The next engine at that address, with the streams of the one before.
fn restarted(mut before: Reactor<Engine>, address: SocketAddr) -> Reactor<Engine> {
    let streams = std::mem::take(&mut before.state_mut().streams);
    let last_id = before.state().last_id;
    drop(before);
    let (mut after, _) = engine(address);
    after.state_mut().streams = streams;
    after.state_mut().last_id = last_id;
    after
}

// row 248
#[test]
fn of_names_that_are_kept_nothing_is_lost_while_the_engine_is_away() {
    let (mut first, address) = new_engine();
    let (mut a, mut b) = (keeping(address), keeping(address));
    let (mut of_a, mut of_b) = (a.member_of("room"), b.member_of("room"));
    until!(first, a, b; first.state().blocked.len() == 2);
    a.say("room", "1");
    b.say("room", "2");
    let mut got = [String::new(), String::new()];
    until!(first, a, b; {
        got[0] += &of_a.got();
        got[1] += &of_b.got();
        got.iter().all(|got| got.len() == 8)
    });
    assert_eq!(got[0], "T:1|T:2|");
    // Nobody confirms 3 and 4, which are there twice then; what is said by a while b is away is there when
    // b comes back.
    first.state_mut().keeps_quiet = true;
    a.say("room", "3");
    a.say("room", "4");
    until!(first, a; first.state().last_id == 4);
    let mut second = restarted(first, address);
    until!(a, b; !a.backplane.is_connected() && !b.backplane.is_connected());
    a.say("room", "5");
    until!(second, a; a.backplane.stats().queued_messages == 0);
    assert_eq!(second.state().last_id, 7);
    assert!(!b.backplane.is_connected());
    let mut got = String::new();
    until!(second, a, b; { got += &of_b.got(); got.ends_with("T:5|") });
    assert_eq!(got, "T:3|T:4|T:5|");
    assert_eq!(of_a.got(), got, "here they were heard at once");
    // And the next is not lost either.
    b.say("room", "6");
    until!(second, a, b; of_a.got() == "T:6|");
    assert_eq!(of_b.got(), "T:6|");
    assert!(second.state().channels.is_empty(), "no subscription");
}

// row 247
#[test]
fn a_newcomer_hears_what_was_said_before_and_nothing_twice() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (keeping(address), keeping(address));
    let mut of_a = a.member_of("room");
    until!(engine, a, b; engine.state().blocked.len() == 1 && b.backplane.is_connected());
    for n in 1..=5 {
        a.say("room", &n.to_string());
    }
    until!(engine, a, b; a.backplane.stats().own == 5);
    // The first member of b, and one more of a, which has just said something that nobody has read.
    let (mut of_b, mut late) = (b.stranger(), a.stranger());
    b.backplane.join_with_history(b.reactor.net(), "room", of_b.token, 3);
    a.say("room", "6");
    a.backplane.join_with_history(a.reactor.net(), "room", late.token, 2);
    let mut got = [String::new(), String::new()];
    until!(engine, a, b; {
        got[0] += &of_b.got();
        got[1] += &late.got();
        got.iter().all(|got| got.ends_with("6|"))
    });
    a.say("room", "7");
    b.say("room", "8");
    let mut all = String::new();
    until!(engine, a, b; {
        got[0] += &of_b.got();
        got[1] += &late.got();
        all += &of_a.got();
        got.iter().all(|got| got.contains("7|") && got.contains("8|")) && all.contains("8|")
    });
    let without = |text: &str| text.replace("T:8|", "");
    let history = without(&got[0]);
    assert!("T:2|T:3|T:4|T:5|T:6|T:7|".ends_with(&history) && history.len() >= 16, "{history}");
    let history = without(&got[1]);
    assert!("T:3|T:4|T:5|T:6|T:7|".ends_with(&history) && history.len() >= 12, "{history}");
    assert_eq!(without(&all), "T:1|T:2|T:3|T:4|T:5|T:6|T:7|");
    // What somebody says who waits for the history of a name in which nobody is yet.
    let mut first = a.stranger();
    a.backplane.join_with_history(a.reactor.net(), "new", first.token, 3);
    a.say("new", "x");
    let mut got = String::new();
    until!(engine, a, b; { got += &first.got(); got == "T:x|" });
    a.say("new", "y");
    until!(engine, a, b; { got += &first.got(); got.ends_with("y|") });
    until!(engine, a, b; a.backplane.stats().queued_messages == 0);
    assert_eq!(got + &first.got(), "T:x|T:y|");
    // And somebody who is gone before the answer leaves nothing behind.
    let gone = a.stranger();
    let topics = a.backplane.stats().topics;
    a.backplane.join_with_history(a.reactor.net(), "empty", gone.token, 3);
    a.reactor.net().close(gone.token);
    until!(engine, a, b; a.backplane.stats().topics == topics);
    // Without the engine they join at once.
    drop(engine);
    until!(a, b; !a.backplane.is_connected());
    let mut alone = a.stranger();
    a.backplane.join_with_history(a.reactor.net(), "room", alone.token, 3);
    a.say("room", "9");
    until!(a, b; alone.got() == "T:9|");
}

// row 247
#[test]
fn names_come_and_go_while_the_reader_waits() {
    let (mut engine, address) = new_engine();
    let (mut a, mut b) = (keeping(address), keeping(address));
    let _first = a.member_of("first");
    until!(engine, a, b; engine.state().blocked.len() == 1 && b.backplane.is_connected());
    let mut others: Vec<Member> = (0..20).map(|n| a.member_of(&format!("room{n}"))).collect();
    until!(engine, a, b; matches!(&engine.state().blocked[..], [(_, names)] if names.len() == 21));
    for n in 0..20 {
        b.say(&format!("room{n}"), "hello");
    }
    for other in &mut others {
        until!(engine, a, b; other.got() == "T:hello|");
    }
    drop(others);
    until!(engine, a, b; matches!(&engine.state().blocked[..], [(_, names)] if names.len() == 1));
}
